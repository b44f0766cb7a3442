/* SPDX-License-Identifier: Apache-2.0 */
/* Loads: their words, what is drawn from them, and traces. */
#include <math.h>

#include "bench/load/parts.h"
#include "tests/check.h"

static char err[512];

static struct load fresh(void) {
	struct load load;
	load_init(&load);
	err[0] = '\0';
	return load;
}

/* Sets words given as pairs, then settles. */
#define SETTLED(load, ...)                                                                         \
	do {                                                                                       \
		const char *words[] = { __VA_ARGS__ };                                             \
		load = fresh();                                                                    \
		for (size_t w = 0; w < sizeof words / sizeof *words; w += 2)                       \
			CHECK(load_set(&load, words[w], words[w + 1], err, sizeof err));           \
		CHECK(load_settle(&load, err, sizeof err));                                        \
	} while (0)

static bool read_json(struct load *load, const char *json) {
	struct doc *doc = doc_parse(json, strlen(json), "load.json", err, sizeof err);
	CHECK(doc);
	bool ok = load_read(load, doc, "load.json", err, sizeof err);
	doc_free(doc);
	return ok;
}

/* ---- the generator ---- */

TEST(splitmix64_gives_its_published_numbers) {
	/* Seed 1234567; also in the test suites of the JDK and of Rust's rand. */
	const uint64_t expected[] = { 6457827717110365317u, 3203168211198807973u,
		9817491932198370423u, 4593380528125082431u, 16408922859458223821u };
	uint64_t state = 1234567;
	for (int i = 0; i < 5; i++)
		CHECK(load_split(&state) == expected[i]);
}

TEST(xoshiro256_gives_its_published_numbers) {
	/* From the authors' C code with state 1, 2, 3, 4. */
	const uint64_t expected[] = { 11520u, 0u, 1509978240u, 1215971899390074240u,
		1216172134540287360u, 607988272756665600u, 16172922978634559625u,
		8476171486693032832u, 10595114339597558777u, 2904607092377533576u };
	struct load_random random = { { 1, 2, 3, 4 } };
	for (int i = 0; i < 10; i++)
		CHECK(load_random_next(&random) == expected[i]);
}

TEST(normal_numbers_have_mean_0_and_variance_1) {
	struct load_random random;
	double sum = 0, squares = 0;
	const int n = 200000;
	load_random_init(&random, 7);
	for (int i = 0; i < n; i++) {
		double x = load_random_normal(&random);
		sum += x;
		squares += x * x;
	}
	CHECK(fabs(sum / n) < 4 / sqrt(n));
	CHECK(fabs(squares / n - 1) < 4 * sqrt(2.0 / n));
}

/* ---- arrivals ---- */

/* Mean and coefficient of variation of the gaps of a schedule. */
static void gaps(struct load *load, double *ret_mean, double *ret_cv, size_t *ret_n) {
	struct load_request *r;
	size_t n;
	double sum = 0, squares = 0, before = 0;
	CHECK(load_schedule(load, &r, &n, err, sizeof err));
	for (size_t i = 0; i < n; i++) {
		double gap = r[i].arrival_ms - before;
		CHECK(gap >= 0);
		before = r[i].arrival_ms;
		sum += gap;
		squares += gap * gap;
	}
	free(r);
	*ret_mean = sum / (double)n;
	*ret_cv = sqrt(squares / (double)n / (*ret_mean * *ret_mean) - 1);
	*ret_n = n;
}

TEST(poisson_gaps_have_mean_1_over_rate_and_cv_1) {
	struct load load;
	double mean, cv;
	size_t n;
	SETTLED(load, "rate", "50", "requests", "100000");
	CHECK_INT(load.arrivals, LOAD_POISSON);
	gaps(&load, &mean, &cv, &n);
	CHECK_INT(n, 100000);
	/* Standard error of the mean is mean / sqrt(n); four of them. */
	CHECK(fabs(mean / 20 - 1) < 4 / sqrt(1e5));
	CHECK(fabs(cv - 1) < 0.02);
}

TEST(gamma_gaps_have_the_mean_and_cv_that_are_asked_for) {
	const char *const cvs[] = { "0.5", "2", "4" };
	const double expected[] = { 0.5, 2, 4 };
	for (int i = 0; i < 3; i++) {
		struct load load;
		double mean, cv;
		size_t n;
		SETTLED(load, "rate", "50", "requests", "400000", "cv", cvs[i]);
		CHECK_INT(load.arrivals, LOAD_GAMMA);
		gaps(&load, &mean, &cv, &n);
		CHECK(fabs(mean / 20 - 1) < 4 * expected[i] / sqrt(4e5));
		CHECK(fabs(cv / expected[i] - 1) < 0.04);
	}
}

TEST(gamma_with_hardly_any_spread_is_even) {
	struct load_random random;
	load_random_init(&random, 1);
	CHECK(load_random_gamma(&random, 1e-300) == 1);
	CHECK(fabs(load_random_gamma(&random, 1e-5) - 1) < 1e-3);
}

TEST(gamma_with_cv_1_over_root_2_has_the_quantiles_of_erlang_2) {
	/* Shape 2: P(X <= x) = 1 - e^-2x (1 + 2x) with mean 1; at x = 1 it is 1 - 3 e^-2. */
	struct load_random random;
	int below = 0;
	const int n = 200000;
	load_random_init(&random, 3);
	for (int i = 0; i < n; i++)
		below += load_random_gamma(&random, sqrt(0.5)) <= 1;
	CHECK(fabs((double)below / n - (1 - 3 * exp(-2))) < 4 * 0.5 / sqrt(n));
}

TEST(uniform_arrivals_are_evenly_apart) {
	struct load load;
	struct load_request *r;
	size_t n;
	SETTLED(load, "arrivals", "uniform", "rate", "8", "seconds", "2");
	CHECK(load_schedule(&load, &r, &n, err, sizeof err));
	CHECK_INT(n, 16);
	CHECK(r[0].arrival_ms == 0 && r[1].arrival_ms == 125 && r[15].arrival_ms == 1875);
	free(r);
}

TEST(phases_change_the_rate_and_end_the_run) {
	struct load load;
	struct load_request *r;
	size_t n, second = 0, early = 0;
	SETTLED(load, "phases", "100:10,50:100,50:0,100:10");
	CHECK(load_schedule(&load, &r, &n, err, sizeof err));
	for (size_t i = 0; i < n; i++) {
		second += r[i].arrival_ms >= 100e3 && r[i].arrival_ms < 150e3;
		early += r[i].arrival_ms >= 100e3 && r[i].arrival_ms < 125e3;
		CHECK(!(r[i].arrival_ms > 150e3 && r[i].arrival_ms < 200e3));
	}
	/* 1,000 + 5,000 + 1,000 expected; four standard deviations. */
	CHECK(fabs((double)n - 7000) < 4 * sqrt(7000));
	CHECK(fabs((double)second - 5000) < 4 * sqrt(5000));
	CHECK(fabs((double)early - 2500) < 4 * sqrt(2500));
	CHECK(r[n - 1].arrival_ms < 300e3);
	CHECK(load_seconds(&load) == 300);
	CHECK(load_rate_at(&load, 120) == 100 && load_rate_at(&load, 301) == 0);
	free(r);
}

TEST(another_rate_only_stretches_the_same_arrivals) {
	struct load slow, fast;
	struct load_request *a, *b;
	size_t n, m;
	SETTLED(slow, "rate", "10", "requests", "50", "prompt_tokens", "4..400");
	SETTLED(fast, "rate", "20", "requests", "50", "prompt_tokens", "4..400", "max-tokens", "9");
	CHECK(load_schedule(&slow, &a, &n, err, sizeof err));
	CHECK(load_schedule(&fast, &b, &m, err, sizeof err));
	CHECK_INT(n, m);
	for (size_t i = 0; i < n; i++) {
		CHECK(fabs(a[i].arrival_ms - 2 * b[i].arrival_ms) < 0.0021);
		CHECK_INT(a[i].prompt_tokens, b[i].prompt_tokens);
	}
	free(a);
	free(b);
}

TEST(a_seed_means_the_same_requests_and_another_one_others) {
	struct load load;
	struct load_request a, b, c;
	SETTLED(load, "prompt_tokens", "1..100000", "max_tokens", "lognormal:1000:1");
	load_draw(&load, 5, &a);
	load_draw(&load, 5, &b);
	CHECK(a.prompt_tokens == b.prompt_tokens && a.max_tokens == b.max_tokens
	                && a.seed == b.seed);
	load.seed = 2;
	load_draw(&load, 5, &c);
	CHECK(a.prompt_tokens != c.prompt_tokens && a.seed != c.seed);
}

/* ---- classes ---- */

TEST(classes_come_by_their_weights_and_inherit_what_they_do_not_say) {
	struct load load;
	int counts[2] = { 0 };
	SETTLED(load, "max_tokens", "16", "mix",
	                "name=quick weight=3 depth=auto latency_budget_ms=250; depth=full "
	                "max_tokens=8..9",
	                "prompt_tokens", "7");
	CHECK_INT(load.n_classes, 2);
	CHECK_STR(load.classes[0].name, "quick");
	CHECK_STR(load.classes[1].name, "class2");
	for (uint64_t i = 0; i < 40000; i++) {
		struct load_request r;
		load_draw(&load, i, &r);
		counts[r.kind]++;
		CHECK_INT(r.prompt_tokens, 7);
		CHECK(r.kind == 0 ? r.max_tokens == 16 && r.latency_budget_ms == 250
		                  : r.max_tokens >= 8 && r.max_tokens <= 9
		                                                && r.latency_budget_ms == 0);
	}
	CHECK(fabs(counts[0] / 40000.0 - 0.75) < 4 * sqrt(0.75 * 0.25 / 40000));
}

TEST(lengths_have_the_distribution_that_is_asked_for) {
	struct load load;
	int below = 0, at_three = 0;
	SETTLED(load, "max_tokens", "lognormal:100:0.5", "prompt_tokens", "1..3");
	for (uint64_t i = 0; i < 20000; i++) {
		struct load_request r;
		load_draw(&load, i, &r);
		below += r.max_tokens <= 100;
		at_three += r.prompt_tokens == 3;
	}
	CHECK(fabs(below / 20000.0 - 0.5) < 0.02);
	CHECK(fabs(at_three / 20000.0 - 1.0 / 3) < 0.02);
}

/* ---- JSON ---- */

TEST(a_load_file_says_the_same_words_as_the_flags) {
	struct load load = fresh();
	CHECK(read_json(&load,
	                "{\"arrivals\": \"gamma\", \"rate\": 20, \"cv\": 4, \"requests\": 10, "
	                "\"seed\": 9, \"prompt_tokens\": \"8..16\", \"stream\": false, "
	                "\"mix\": [{\"depth\": \"auto\", \"latency_budget_ms\": 250.5}, "
	                "{\"depth\": 6, \"weight\": 2, \"on_miss\": \"reject\"}]}"));
	CHECK(load_settle(&load, err, sizeof err));
	CHECK(load.arrivals == LOAD_GAMMA && load.cv == 4 && load.seed == 9);
	CHECK(load.classes[0].latency_budget_ms.a == 250.5 && !load.classes[0].stream);
	CHECK_STR(load.classes[1].depth, "6");
	CHECK_INT(load.classes[1].on_miss, ON_MISS_REJECT);
	CHECK_INT(load.classes[1].prompt_tokens.kind, LOAD_RANGE);
}

TEST(a_load_that_is_written_reads_back_as_the_same_requests) {
	struct load load, back = fresh();
	struct buffer text = { 0 };
	SETTLED(load, "phases", "1:50,2:20", "cv", "3", "max_tokens", "lognormal:30:0.7", "mix",
	                "depth=auto tpot_budget_ms=5..9 min_depth=2; depth=12x6 priority=-2");
	load_write(&load, &text);
	CHECK(read_json(&back, buffer_cstr(&text)));
	CHECK(load_settle(&back, err, sizeof err));
	struct load_request *a, *b;
	size_t n, m;
	CHECK(load_schedule(&load, &a, &n, err, sizeof err));
	CHECK(load_schedule(&back, &b, &m, err, sizeof err));
	CHECK(n == m && n > 20 && memcmp(a, b, n * sizeof *a) == 0);
	free(a);
	free(b);
	buffer_finish(&text);
}

TEST(what_a_load_file_may_not_say_is_refused_with_file_and_word) {
	static const struct {
		const char *json, *sentence;
	} cases[] = {
		{ "{\"rates\": 3}", "load.json: \"rates\" is no word of a load" },
		{ "{\"rate\": \"fast\"}",
		                "load.json: rate takes a number from 0.001 to 1000000, not "
		                "\"fast\"" },
		{ "{\"rate\": []}", "load.json: rate takes a number, a text, true or false" },
		{ "{\"mix\": [{\"clients\": 3}]}", "load.json: \"clients\" is no word of a class" },
		{ "{\"weight\": 3}", "load.json: \"weight\" is no word of a load" },
		{ "{\"mix\": []}", "load.json: mix takes a list of objects" },
		{ "{\"on_miss\": \"cry\"}",
		                "load.json: on_miss takes degrade, reject or truncate, not "
		                "\"cry\"" },
		{ "{\"phases\": [{\"seconds\": 1}]}",
		                "load.json: phases takes a list of {\"seconds\": S, \"rate\": R}" },
		{ "[1]", "load.json: the outermost value must be an object" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct load load = fresh();
		CHECK(!read_json(&load, cases[i].json));
		CHECK_STR(err, cases[i].sentence);
	}
}

TEST(words_that_contradict_each_other_are_refused) {
	static const char *const cases[][5] = {
		{ "arrivals", "poisson", NULL, NULL, "an open loop needs a rate or phases" },
		{ "arrivals", "closed", "rate", "3", "a closed loop has clients, not a rate" },
		{ "arrivals", "trace", NULL, NULL, "trace arrivals need trace, the CSV of them" },
		{ "rate", "3", "phases", "1:2",
		                "rate and phases exclude each other: phases have rates of their "
		                "own" },
		{ "mix", "name=a; name=a", NULL, NULL, "mix names two classes \"a\"" },
		{ "mix", "weight=0", NULL, NULL, "the weights of the classes are all zero" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct load load = fresh();
		CHECK(load_set(&load, cases[i][0], cases[i][1], err, sizeof err));
		if (cases[i][2])
			CHECK(load_set(&load, cases[i][2], cases[i][3], err, sizeof err));
		CHECK(!load_settle(&load, err, sizeof err));
		CHECK_STR(err, cases[i][4]);
	}
}

/* ---- traces ---- */

static bool read_trace(struct load *load, const char *text, struct load_request **r, size_t *n) {
	return trace_read(load, text, strlen(text), "t.csv", r, n, err, sizeof err);
}

TEST(a_trace_says_what_it_says_and_the_load_says_the_rest) {
	struct load load;
	struct load_request *r;
	size_t n;
	SETTLED(load, "max_tokens", "5", "depth", "auto");
	CHECK(read_trace(&load,
	                "arrival_ms, prompt_tokens,latency_budget_ms,class,depth\r\n"
	                "# a remark\n\n"
	                "0.5,12,200,fast,\n"
	                "\"7\",,,slow,3\n",
	                &r, &n));
	CHECK_INT(n, 2);
	CHECK(r[0].arrival_ms == 0.5 && r[0].prompt_tokens == 12 && r[0].latency_budget_ms == 200);
	CHECK_STR(r[0].depth, "auto");
	CHECK(r[1].arrival_ms == 7 && r[1].prompt_tokens == 64 && r[1].max_tokens == 5);
	CHECK_STR(r[1].depth, "3");
	CHECK_STR(load.classes[r[0].kind].name, "fast");
	CHECK_STR(load.classes[r[1].kind].name, "slow");
	free(r);
}

TEST(a_written_trace_reads_back_exactly) {
	struct load load;
	struct load_request *a, *b;
	struct buffer text = { 0 };
	size_t n, m;
	SETTLED(load, "rate", "100", "cv", "4", "requests", "500", "mix",
	                "depth=auto latency_budget_ms=10..900 length=1..20; ttft_budget_ms=5 "
	                "priority=3");
	CHECK(load_schedule(&load, &a, &n, err, sizeof err));
	trace_write(&load, a, n, &text);
	CHECK(read_trace(&load, buffer_cstr(&text), &b, &m));
	CHECK_INT(m, n);
	for (size_t i = 0; i < n; i++) {
		b[i].seed = a[i].seed; /* of the words, by position */
		CHECK(memcmp(&a[i], &b[i], sizeof *a) == 0);
	}
	free(a);
	free(b);
	buffer_finish(&text);
}

TEST(a_fault_in_a_trace_is_told_with_line_and_column) {
	static const struct {
		const char *text, *sentence;
	} cases[] = {
		{ "", "t.csv: line 1: the line that names the columns is missing" },
		{ "prompt_tokens\n3\n", "t.csv: line 1: the column arrival_ms is missing" },
		{ "arrival_ms,lenght\n",
		                "t.csv: line 1, column 2: \"lenght\" is no column of a "
		                "trace" },
		{ "arrival_ms,length,length\n",
		                "t.csv: line 1, column 3: \"length\" is there "
		                "twice" },
		{ "arrival_ms\n", "t.csv: line 1: no request follows" },
		{ "arrival_ms,max_tokens\n1,2\n\n3,x\n",
		                "t.csv: line 4, column 2 (max_tokens): \"x\" is no whole number "
		                "from 0 to 1000000" },
		{ "arrival_ms\n-1\n",
		                "t.csv: line 2, column 1 (arrival_ms): \"-1\" is no number "
		                "from 0 to 1e+10" },
		{ "arrival_ms,depth\n1\n", "t.csv: line 2, column 2 (depth): is missing" },
		{ "arrival_ms\n1,2\n", "t.csv: line 2, column 2: \"2\" is one cell too many" },
		{ "arrival_ms,depth\n,3\n", "t.csv: line 2, column 1 (arrival_ms): is empty" },
		{ "arrival_ms,max_tokens,length\n1,2,3\n",
		                "t.csv: line 2: length is more than max_tokens" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct load load;
		struct load_request *r;
		size_t n;
		SETTLED(load, "seed", "1");
		CHECK(!read_trace(&load, cases[i].text, &r, &n));
		CHECK_STR(err, cases[i].sentence);
	}
}

TEST(a_class_that_a_mix_does_not_have_is_refused_in_a_trace) {
	struct load load;
	struct load_request *r;
	size_t n;
	SETTLED(load, "mix", "name=a; name=b");
	CHECK(!read_trace(&load, "arrival_ms,class\n1,b\n2,c\n", &r, &n));
	CHECK_STR(err, "t.csv: line 3, column 2 (class): \"c\" is no class of the load");
}

TEST(depths_are_read_as_people_write_them) {
	int e, d;
	CHECK(load_parse_depth("6", &e, &d) && e == 0 && d == 6);
	CHECK(load_parse_depth("12x6", &e, &d) && e == 12 && d == 6);
	CHECK(!load_parse_depth("0", &e, &d) && !load_parse_depth("6x", &e, &d));
	CHECK(!load_parse_depth("auto", &e, &d) && !load_parse_depth("6x3x1", &e, &d));
}
