/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling, held against sorting and libm in double precision: for every random number the token
 * must be the naive algorithm's, unless the number lies on the very edge between two tokens.
 */
#include "model/sample.h"

#include <math.h>

#include "tests/check.h"
#include "tests/random_model.h"

static struct sampler *sampler_for(const struct ops *ops, int vocab) {
	char err[200] = "";
	struct sampler *s = sampler_create(ops, vocab, err, sizeof err);
	if (!s)
		check_fail(__FILE__, __LINE__, "%s", err);
	return s;
}

static const struct sampling plain = { .temperature = 1, .top_p = 1, .repetition_penalty = 1 };

/* Logits like a language model's: a few stand out; many are tied. */
static void random_logits(uint64_t seed, float *logits, int n) {
	for (int i = 0; i < n; i++) {
		logits[i] = (float)random_below(&seed, 800) / 100 - 6;
		if (random_below(&seed, 40) == 0)
			logits[i] += 6;
	}
}

TEST(the_random_number_is_philox) {
	/* Known answer of Random123: key 0, counter 0 -> 6627e8d5 e169c58d ... The others from a
	 * transcription of the paper in Python that also gives Random123's answer for pi's digits. */
	uint64_t zero = ((uint64_t)0x6627e8d5 << 32 | 0xe169c58d) >> 11;
	CHECK(sample_uniform(0, 0, 0) == (double)zero * 0x1p-53);
	CHECK(sample_uniform(1, 0, 0) == 8018741759353153 * 0x1p-53);
	CHECK(sample_uniform(0, 1, 0) == 8757170225780288 * 0x1p-53);
	CHECK(sample_uniform(0, 0, 1) == 3758237004153964 * 0x1p-53);
	CHECK(sample_uniform(0x299f31d0a4093822, 7, 511) == 8297555934410017 * 0x1p-53);
	CHECK(sample_uniform(UINT64_MAX, 3, 4095) == 854266937105478 * 0x1p-53);
}

/* What is left after the cuts, by sorting. */
struct naive {
	int n;
	int32_t ids[4096]; /* ascending */
	double mass[4096];
};

static const float *compared;

static int better_first(const void *a, const void *b) {
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	if (compared[x] != compared[y])
		return compared[x] > compared[y] ? -1 : 1;
	return x < y ? -1 : 1;
}

static int by_id(const void *a, const void *b) {
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	return x < y ? -1 : x > y;
}

static void naive_cut(const float *logits, int vocab, const struct sampling *how, struct naive *d) {
	for (int i = 0; i < vocab; i++)
		d->ids[i] = i;
	compared = logits;
	qsort(d->ids, (size_t)vocab, sizeof d->ids[0], better_first);
	d->n = how->top_k > 0 && how->top_k < vocab ? how->top_k : vocab;
	double largest = logits[d->ids[0]], total = 0, sum = 0;
	for (int i = 0; i < d->n; i++)
		total += exp((logits[d->ids[i]] - largest) / how->temperature);
	if (how->top_p < 1) {
		int kept = 0;
		while (kept < d->n && (kept == 0 || sum < how->top_p * total))
			sum += exp((logits[d->ids[kept++]] - largest) / how->temperature);
		d->n = kept;
	}
	qsort(d->ids, (size_t)d->n, sizeof d->ids[0], by_id);
	for (int i = 0; i < d->n; i++)
		d->mass[i] = exp((logits[d->ids[i]] - largest) / how->temperature);
}

/* Whether `token` is the one at u, or a neighbour at a distance that rounding explains. */
static bool naive_agrees(const struct naive *d, double u, int32_t token) {
	double total = 0, sum = 0;
	for (int i = 0; i < d->n; i++)
		total += d->mass[i];
	for (int i = 0; i < d->n; i++) {
		sum += d->mass[i] / total;
		if (d->ids[i] == token)
			return u < sum + 1e-6 && u >= sum - d->mass[i] / total - 1e-6;
	}
	return false;
}

static void check_draws(int vocab, const struct sampling *how, int draws) {
	static float logits[4096];
	static struct naive d;
	random_logits(how->seed, logits, vocab);
	naive_cut(logits, vocab, how, &d);
	struct sampler *s = sampler_for(ops_c(), vocab);
	for (int i = 0; i < draws; i++) {
		int32_t token = -1;
		CHECK(sample_token(s, logits, how, NULL, 0, NULL, 0, 2, (uint32_t)i, &token));
		CHECK(naive_agrees(&d, sample_uniform(how->seed, 2, (uint32_t)i), token));
	}
	sampler_destroy(s);
}

TEST(draws_without_a_cut_follow_the_softmax) {
	const int vocabs[] = { 1, 2, 1000, 1024, 1025, 3000, 4096 };
	for (int i = 0; i < 7; i++) {
		struct sampling how = plain;
		how.seed = (uint64_t)i;
		check_draws(vocabs[i], &how, 200);
		how.temperature = 0.3f;
		check_draws(vocabs[i], &how, 200);
	}
}

TEST(top_k_keeps_the_k_best_with_lower_ids_on_ties) {
	const int ks[] = { 1, 2, 5, 40, 300, 2999, 3000, 5000 };
	for (int i = 0; i < 8; i++) {
		struct sampling how = plain;
		how.seed = (uint64_t)i;
		how.top_k = ks[i];
		how.temperature = 2;
		check_draws(3000, &how, 200);
	}
}

TEST(top_p_keeps_the_smallest_set_that_reaches_p) {
	const float ps[] = { 0.0f, 0.01f, 0.1f, 0.5f, 0.9f, 0.95f, 0.999f, 0.999999f };
	for (int i = 0; i < 8; i++) {
		struct sampling how = plain;
		how.seed = (uint64_t)i;
		how.top_p = ps[i];
		check_draws(3000, &how, 200);
		how.temperature = 5;
		check_draws(3000, &how, 200);
	}
}

TEST(top_p_counts_within_top_k) {
	for (int i = 0; i < 8; i++) {
		struct sampling how = plain;
		how.seed = (uint64_t)i;
		how.top_k = 1 + 7 * i;
		how.top_p = 0.3f + 0.08f * (float)i;
		check_draws(2000, &how, 200);
	}
}

TEST(top_p_keeps_ties_from_the_lowest_id) {
	float logits[10] = { 0 };
	struct sampling how = plain;
	how.top_p = 0.35f; /* four of ten equal tokens */
	struct sampler *s = sampler_for(ops_c(), 10);
	int seen[10] = { 0 };
	for (uint32_t i = 0; i < 300; i++) {
		int32_t token;
		CHECK(sample_token(s, logits, &how, NULL, 0, NULL, 0, 0, i, &token));
		seen[token]++;
	}
	for (int i = 0; i < 10; i++)
		CHECK((seen[i] > 0) == (i < 4));
	sampler_destroy(s);
}

/* Greedy choice among a few logits. */
static int32_t greedy(const float *logits, int n, struct sampling how, const int32_t *prompt,
                size_t n_prompt, const int32_t *answer, size_t n_answer) {
	struct sampler *s = sampler_for(ops_c(), n);
	int32_t token = -1;
	how.temperature = 0;
	bool ok = sample_token(s, logits, &how, prompt, n_prompt, answer, n_answer, 0, 0, &token);
	sampler_destroy(s);
	return ok ? token : -1;
}

TEST(greedy_takes_the_largest_and_the_lowest_id_on_ties) {
	CHECK_INT(greedy((float[]){ 1, 3, 2, 3 }, 4, plain, NULL, 0, NULL, 0), 1);
	CHECK_INT(greedy((float[]){ -5, -4, -4 }, 3, plain, NULL, 0, NULL, 0), 1);
}

TEST(a_tiny_temperature_is_greedy) {
	float logits[] = { 1, 3, 2.9999f, -3e38f };
	struct sampling how = plain;
	how.temperature = 1e-30f;
	struct sampler *s = sampler_for(ops_c(), 4);
	for (uint32_t i = 0; i < 50; i++) {
		int32_t token;
		CHECK(sample_token(s, logits, &how, NULL, 0, NULL, 0, 0, i, &token));
		CHECK_INT(token, 1);
	}
	sampler_destroy(s);
}

TEST(repetition_penalty_divides_positive_and_multiplies_negative_logits_once) {
	struct sampling how = plain;
	how.repetition_penalty = 2;
	/* 4 / 2 = 2 < 3, though token 0 was seen three times: 4 / 8 would lose to 1 too. */
	CHECK_INT(greedy((float[]){ 4, 3 }, 2, how, (int32_t[]){ 0, 0 }, 2, (int32_t[]){ 0 }, 1),
	                1);
	CHECK_INT(greedy((float[]){ 4, 1.9f }, 2, how, (int32_t[]){ 0, 0 }, 2, (int32_t[]){ 0 }, 1),
	                0);
	CHECK_INT(greedy((float[]){ -1, -1.9f }, 2, how, (int32_t[]){ 0 }, 1, NULL, 0), 1);
	CHECK_INT(greedy((float[]){ -1, -2.1f }, 2, how, (int32_t[]){ 0 }, 1, NULL, 0), 0);
}

TEST(frequency_penalty_counts_answer_tokens_only) {
	struct sampling how = plain;
	how.frequency_penalty = 0.5f;
	const int32_t answer[] = { 0, 1, 0, 0 };
	CHECK_INT(greedy((float[]){ 2, 0.9f, 0.45f }, 3, how, NULL, 0, answer, 4), 0);
	CHECK_INT(greedy((float[]){ 2, 1.1f, 0.45f }, 3, how, NULL, 0, answer, 4), 1);
	CHECK_INT(greedy((float[]){ 2, 0.9f, 0.55f }, 3, how, NULL, 0, answer, 4), 2);
	CHECK_INT(greedy((float[]){ 2, 1.9f }, 2, how, answer, 4, NULL, 0), 0);
}

TEST(presence_penalty_counts_a_token_once) {
	struct sampling how = plain;
	how.presence_penalty = 1;
	const int32_t answer[] = { 0, 0, 0 };
	CHECK_INT(greedy((float[]){ 2, 0.9f }, 2, how, NULL, 0, answer, 3), 0);
	CHECK_INT(greedy((float[]){ 2, 1.1f }, 2, how, NULL, 0, answer, 3), 1);
	CHECK_INT(greedy((float[]){ 2, 1.1f }, 2, how, answer, 3, NULL, 0), 0);
}

TEST(penalties_leave_nothing_for_the_next_call) {
	struct sampler *s = sampler_for(ops_c(), 3);
	struct sampling how = plain;
	how.temperature = 0;
	how.frequency_penalty = 1;
	how.repetition_penalty = 1.5f;
	float logits[] = { 2, 1.9f, 0 };
	int32_t token;
	CHECK(sample_token(
	                s, logits, &how, (int32_t[]){ 0 }, 1, (int32_t[]){ 0 }, 1, 0, 0, &token));
	CHECK_INT(token, 1);
	CHECK(sample_token(s, logits, &how, NULL, 0, NULL, 0, 0, 0, &token));
	CHECK_INT(token, 0);
	sampler_destroy(s);
}

TEST(a_long_history_costs_its_length_not_its_length_times_the_vocabulary) {
	enum { VOCAB = 50257, HISTORY = 300000 };
	float *logits = calloc(VOCAB, sizeof *logits);
	int32_t *history = calloc(HISTORY, sizeof *history);
	CHECK(logits && history);
	for (int i = 0; i < HISTORY; i++)
		history[i] = (int32_t)((unsigned)i * 7919u % VOCAB);
	struct sampling how = plain;
	how.repetition_penalty = 1.1f;
	how.presence_penalty = how.frequency_penalty = 0.1f;
	/* 300000 x 50257 steps would take minutes: the test's time limit is the check. */
	CHECK(greedy(logits, VOCAB, how, history, HISTORY, history, HISTORY) >= 0);
	free(logits);
	free(history);
}

TEST(bias_is_added_and_banned_tokens_are_never_drawn) {
	struct sampling how = plain;
	how.bias = (struct logit_bias[]){ { .token = 2, .bias = 5 }, { .token = 0, .bias = -5 } };
	how.n_bias = 2;
	CHECK_INT(greedy((float[]){ 4, 1, 0 }, 3, how, NULL, 0, NULL, 0), 2);
	how.banned = (int32_t[]){ 2, 1 };
	how.n_banned = 2;
	CHECK_INT(greedy((float[]){ 4, 1, 0 }, 3, how, NULL, 0, NULL, 0), 0);

	struct sampler *s = sampler_for(ops_c(), 3);
	const struct {
		int k;
		float p, t;
	} cases[] = { { 0, 1, 1 }, { 3, 1, 50 }, { 0, 0.9999f, 9 }, { 2, 0.99f, 100 } };
	for (int c = 0; c < 4; c++) {
		how.top_k = cases[c].k;
		how.top_p = cases[c].p;
		how.temperature = cases[c].t;
		for (uint32_t i = 0; i < 100; i++) {
			int32_t token;
			CHECK(sample_token(s, (float[]){ -9, 9, 9 }, &how, NULL, 0, NULL, 0, 0, i,
			                &token));
			CHECK_INT(token, 0);
		}
	}
	sampler_destroy(s);
}

TEST(when_every_token_is_banned_there_is_none_to_draw) {
	struct sampling how = plain;
	how.banned = (int32_t[]){ 0, 1 };
	how.n_banned = 2;
	CHECK_INT(greedy((float[]){ 4, 1 }, 2, how, NULL, 0, NULL, 0), -1);
}

TEST(a_logit_that_is_not_finite_is_reported) {
	const float bad[] = { NAN, INFINITY };
	struct sampler *s = sampler_for(ops_c(), 3);
	for (int i = 0; i < 2; i++) {
		float logits[] = { 0, bad[i], 1 };
		int32_t token;
		float logprob;
		CHECK(!sample_token(s, logits, &plain, NULL, 0, NULL, 0, 0, 0, &token));
		CHECK(!sample_logprobs(s, logits, 0, 0, &logprob, NULL, NULL));
	}
	sampler_destroy(s);
}

TEST(a_logit_of_minus_infinity_is_never_drawn) {
	enum { N = 3000 };
	float logits[N];
	for (int i = 0; i < N; i++)
		logits[i] = i == 1500 || i == 2999 ? 0 : -INFINITY;
	struct sampler *s = sampler_for(ops_c(), N);
	int32_t history[] = { 3, 1500, 2999 };
	struct logit_bias bias = { .token = 5, .bias = 100 };
	struct sampling ways[6];
	for (int i = 0; i < 6; i++) {
		ways[i] = plain;
		ways[i].temperature = i == 0 ? 0 : 1e6f;
	}
	ways[2].top_k = 40;
	ways[3].top_p = 0.9999f;
	ways[4].repetition_penalty = 1e9f;
	ways[5].bias = &bias;
	ways[5].n_bias = 1;
	for (int i = 0; i < 6; i++) {
		for (uint32_t position = 0; position < 50; position++) {
			int32_t token;
			CHECK(sample_token(s, logits, &ways[i], history, 3, NULL, 0, 0, position,
			                &token));
			CHECK(token == 1500 || token == 2999);
		}
	}
	sampler_destroy(s);
}

TEST(where_all_logits_are_minus_infinity_there_is_none_to_draw) {
	enum { N = 1500 };
	float logits[N], logprob;
	for (int i = 0; i < N; i++)
		logits[i] = -INFINITY;
	struct sampler *s = sampler_for(ops_c(), N);
	int32_t token;
	CHECK(!sample_token(s, logits, &plain, NULL, 0, NULL, 0, 0, 0, &token));
	CHECK(!sample_logprobs(s, logits, 0, 0, &logprob, NULL, NULL));
	sampler_destroy(s);
}

TEST(log_probabilities_do_not_mind_minus_infinity) {
	enum { N = 3000 };
	float logits[N], logprob;
	for (int i = 0; i < N; i++)
		logits[i] = i == 1500 || i == 2999 ? 7 : -INFINITY;
	struct sampler *s = sampler_for(ops_c(), N);
	int rank;
	CHECK(sample_logprobs(s, logits, 2999, 0, &logprob, NULL, &rank));
	CHECK(fabsf(logprob + 0.6931472f) < 1e-6f);
	CHECK_INT(rank, 1);
	CHECK(sample_logprobs(s, logits, 4, 0, &logprob, NULL, NULL));
	CHECK(logprob == -INFINITY);
	sampler_destroy(s);
}

TEST(scores_that_are_log_probabilities_are_taken_as_they_are) {
	const float logits[] = { -3, -0.25f, -INFINITY };
	float logprob;
	struct token_logprob top[2];
	struct sampler *s = sampler_for(ops_c(), 3);
	sampler_take_logprobs(s);
	CHECK(sample_logprobs(s, logits, 0, 2, &logprob, top, NULL));
	CHECK(logprob == -3);
	CHECK(top[0].token == 1 && top[0].logprob == -0.25f);
	CHECK(top[1].token == 0 && top[1].logprob == -3);
	sampler_destroy(s);
}

TEST(choices_and_positions_have_their_own_random_numbers) {
	float logits[1000];
	random_logits(1, logits, 1000);
	struct sampler *s = sampler_for(ops_c(), 1000);
	struct sampling how = plain;
	how.temperature = 3;
	how.seed = 11;
	int differ_by_choice = 0, differ_by_seed = 0;
	for (uint32_t i = 0; i < 20; i++) {
		int32_t a, b, c, again;
		CHECK(sample_token(s, logits, &how, NULL, 0, NULL, 0, 0, i, &a));
		CHECK(sample_token(s, logits, &how, NULL, 0, NULL, 0, 1, i, &b));
		how.seed = 12;
		CHECK(sample_token(s, logits, &how, NULL, 0, NULL, 0, 0, i, &c));
		how.seed = 11;
		CHECK(sample_token(s, logits, &how, NULL, 0, NULL, 0, 0, i, &again));
		CHECK_INT(again, a);
		differ_by_choice += a != b;
		differ_by_seed += a != c;
	}
	CHECK(differ_by_choice > 10 && differ_by_seed > 10);
	sampler_destroy(s);
}

TEST(logprobs_are_the_log_softmax) {
	static float logits[4096];
	const int vocabs[] = { 1, 7, 1024, 1025, 3001, 4096 };
	for (int v = 0; v < 6; v++) {
		int n = vocabs[v];
		random_logits((uint64_t)v, logits, n);
		double largest = -1e9, total = 0;
		for (int i = 0; i < n; i++)
			largest = fmax(largest, logits[i]);
		for (int i = 0; i < n; i++)
			total += exp(logits[i] - largest);
		struct sampler *s = sampler_for(ops_c(), n);
		for (int i = 0; i < n; i += 1 + n / 50) {
			float logprob;
			CHECK(sample_logprobs(s, logits, i, 0, &logprob, NULL, NULL));
			CHECK(fabs(logprob - (logits[i] - largest - log(total))) < 1e-5);
		}
		sampler_destroy(s);
	}
}

TEST(the_best_come_first_with_lower_ids_on_ties) {
	float logits[] = { 1, 5, 3, 5, -2, 3 };
	struct sampler *s = sampler_for(ops_c(), 6);
	struct token_logprob top[6];
	float logprob;
	int rank;
	CHECK(sample_logprobs(s, logits, 5, 4, &logprob, top, &rank));
	const int32_t order[] = { 1, 3, 2, 5 };
	for (int i = 0; i < 4; i++)
		CHECK_INT(top[i].token, order[i]);
	CHECK_INT(rank, 3);
	CHECK(top[3].logprob == logprob); /* the identical number */
	CHECK(top[0].logprob == top[1].logprob && top[1].logprob > top[2].logprob);
	CHECK(sample_logprobs(s, logits, 1, 0, &logprob, NULL, &rank));
	CHECK_INT(rank, 0);
	CHECK(sample_logprobs(s, logits, 4, 6, &logprob, top, &rank));
	CHECK_INT(rank, 5);
	CHECK_INT(top[5].token, 4);
	sampler_destroy(s);
}

TEST(every_level_draws_the_same_tokens_and_gives_the_same_logprobs) {
	static float logits[5000];
	random_logits(3, logits, 5000);
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables);
	if (n == 1)
		SKIP("this machine has no level above plain C");
	struct sampler *reference = sampler_for(ops_c(), 5000);
	for (int t = 1; t < n; t++) {
		struct sampler *s = sampler_for(tables[t], 5000);
		for (uint32_t i = 0; i < 100; i++) {
			struct sampling how = plain;
			how.seed = i;
			how.top_p = i % 2 ? 0.9f : 1;
			how.top_k = i % 3 ? 0 : 50;
			int32_t a, b;
			float la, lb;
			CHECK(sample_token(reference, logits, &how, NULL, 0, NULL, 0, 0, i, &a));
			CHECK(sample_token(s, logits, &how, NULL, 0, NULL, 0, 0, i, &b));
			CHECK_INT(a, b);
			CHECK(sample_logprobs(reference, logits, a, 0, &la, NULL, NULL));
			CHECK(sample_logprobs(s, logits, a, 0, &lb, NULL, NULL));
			CHECK(memcmp(&la, &lb, sizeof la) == 0);
		}
		sampler_destroy(s);
	}
	sampler_destroy(reference);
}
