/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator against arithmetic by hand and against formulas of queueing theory. */
#include <math.h>
#include <string.h>

#include "bench/load/load.h"
#include "bench/simulator/batch.h"
#include "bench/simulator/capacity.h"
#include "bench/simulator/clairvoyant.h"
#include "bench/simulator/load.h"
#include "bench/simulator/simulator.h"
#include "tests/check.h"

/* ---- machines ---- */

/* Twelve layers of 1 ms each, whatever the rows, and nothing else. */
static struct cost_model flat_cost(void) {
	struct cost_model cost = { .margin = 1,
		.margin_rescued = 1,
		.answer_ratio = 1,
		.target_ratio = 1.5,
		.fitted = true };
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = cost.layer_ms[STACK_ENCODER][i] = 1;
	return cost;
}

static struct sim_machine machine;
static struct sim_options options;

static void open_machine(const struct cost_model *cost, int sequences) {
	static const int layers[STACKS] = { 0, 12 };
	struct cost_limits limits = {
		.max_rows = 512, .prefill_rows = 128, .sequences = sequences
	};
	CHECK(sim_machine_init(&machine, layers, cost, &limits, 100000));
	options = (struct sim_options){ .machine = &machine,
		.frozen = true,
		.queue_requests = 1000000,
		.nodes = 1,
		.backlog_ms = 1e15 };
}

static void run(struct sim_request *requests, size_t n, struct sim_totals *totals) {
	char err[256] = "";
	struct simulator *sim = sim_create(&options, err, sizeof err);
	CHECK(sim);
	bool ok = sim_run_all(sim, requests, n, totals, err, sizeof err);
	sim_destroy(sim);
	if (!ok)
		check_fail(__FILE__, __LINE__, "%s", err);
}

static struct sim_request request_at(double arrival_ms, int prompt, int tokens) {
	return (struct sim_request){ .arrival_ms = arrival_ms,
		.client = -1,
		.prompt_tokens = prompt,
		.max_tokens = tokens,
		.max_tokens_set = true,
		.length = tokens,
		.kind = -1 };
}

static bool near(double a, double b, double relative) {
	return fabs(a - b) <= relative * fabs(b);
}

/* ---- closed loops ---- */

TEST(a_refused_client_of_a_closed_loop_pauses) {
	/* Else it would ask again at the same moment, for ever. */
	struct cost_model cost = flat_cost();
	struct load load;
	struct sim_load l;
	char err[256] = "";
	open_machine(&cost, 1);
	load_init(&load);
	CHECK(load_settle(&load, err, sizeof err));
	CHECK(sim_load_open(&l, &load, &machine, err, sizeof err));
	struct sim_request *r = sim_load_at(&l, 0);
	r->end = SIM_REFUSED;
	r->done_ms = 5;
	CHECK(sim_load_next(&l, r, 5)->arrival_ms == 105);
	r->end = SIM_ANSWERED;
	CHECK(sim_load_next(&l, r, 5)->arrival_ms == 5);
	sim_load_close(&l);
	sim_machine_finish(&machine);
}

/* ---- one request ---- */

TEST(a_lone_request_takes_the_sum_of_its_steps) {
	/* A layer: 1 ms for one row, 2 for two, 4 for four, and so on. */
	struct cost_model cost = flat_cost();
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = cost_rows[i];
	cost.constant_ms = 0.5;
	cost.head_ms[0] = 3;
	for (int i = 1; i < COST_POINTS; i++)
		cost.head_ms[i] = 3 * cost_rows[i];
	cost.attention_ms = 1.024; /* a thousandth for each layer, row and key */
	open_machine(&cost, 8);
	struct sim_request r = request_at(10, 20, 4);
	r.depth[STACK_DECODER] = 6;
	struct sim_totals totals;
	run(&r, 1, &totals);
	/* The prompt: six layers of 20 rows, a constant and one row of the head. */
	double first = 6 * 20 + 0.5 + 3;
	/* Three more tokens, whose rows see 21, 22 and 23 keys in six layers. */
	double rest = 3 * (6 * 1 + 0.5 + 3) + 0.001 * 6 * (21 + 22 + 23);
	CHECK(near(r.first_ms - 10, first, 1e-9));
	CHECK(near(r.done_ms - 10, first + rest, 1e-9));
	CHECK_INT(r.tokens, 4);
	CHECK_INT(r.end, SIM_ANSWERED);
	CHECK_INT(totals.steps, 4);
	sim_machine_finish(&machine);
}

TEST(a_long_prompt_enters_in_chunks_of_the_largest_step) {
	struct cost_model cost = flat_cost();
	open_machine(&cost, 8);
	struct sim_request r = request_at(0, 1200, 1);
	struct sim_totals totals;
	run(&r, 1, &totals);
	/* 512 + 512 + 176 rows: three steps of twelve layers. */
	CHECK_INT(totals.steps, 3);
	CHECK_INT(totals.rows, 1200);
	CHECK(near(r.done_ms, 36, 1e-9));
	sim_machine_finish(&machine);
}

TEST(blocks_are_kept_by_layer_and_tile) {
	struct subnet subnet;
	memset(&subnet, 0, sizeof subnet);
	plan_by_rule(PLAN_RULE_EVEN, 12, 6, &subnet.stack[STACK_DECODER]);
	/* 100 + 28 tokens, of which the last is never fed: two tiles of 64 for each of six layers. */
	struct sim_work work = { .prompt = 100, .places = 1, .max_tokens = 29, .length = 29 };
	CHECK_INT(sim_batch_blocks(&work, &subnet), 12);
	/* A second choice shares the prompt's one full tile. */
	work.places = 2;
	CHECK_INT(sim_batch_blocks(&work, &subnet), 18);
	/* Five beams feed their last token and share the tiles of a source of 65 tokens. */
	work = (struct sim_work){ .prompt = 1,
		.source = 65,
		.places = 5,
		.beams = true,
		.max_tokens = 63,
		.length = 20 };
	CHECK_INT(sim_batch_blocks(&work, &subnet), 5 * 6 + 12);
}

TEST(requests_side_by_side_share_the_steps) {
	struct cost_model cost = flat_cost();
	open_machine(&cost, 8);
	struct sim_request r[3] = { request_at(0, 4, 10), request_at(0, 4, 10),
		request_at(0, 4, 10) };
	struct sim_totals totals;
	run(r, 3, &totals);
	/* The first is alone in the first step: it comes to an idle server. */
	CHECK(near(r[0].done_ms, 10 * 12, 1e-9));
	CHECK(near(r[2].done_ms, 11 * 12, 1e-9));
	sim_machine_finish(&machine);
}

/* ---- queueing theory ---- */

enum { CUSTOMERS = 300000 };

static struct sim_request customers[CUSTOMERS];

/* Poisson arrivals of one-token requests, which a server of one place takes one by one. */
static void arrive(double gap_ms, bool exponential, double service_ms) {
	struct load_random random;
	double now = 0;
	load_random_init(&random, 7);
	for (int i = 0; i < CUSTOMERS; i++) {
		now += gap_ms * load_random_gamma(&random, 1);
		/* A prompt's rows cost 1 ms each, but for its last row, which has the constant. */
		int rows = exponential ? (int)lround(service_ms * load_random_gamma(&random, 1))
		                       : (int)service_ms;
		customers[i] = request_at(now, rows < 1 ? 1 : rows, 1);
	}
}

static double mean_wait(void) {
	double sum = 0;
	for (int i = 0; i < CUSTOMERS; i++)
		sum += customers[i].joined_ms - customers[i].arrival_ms;
	return sum / CUSTOMERS;
}

/* One place, prompts of any length in one step, a row takes a millisecond. */
static void open_queue(void) {
	struct cost_model cost = { .margin = 1,
		.margin_rescued = 1,
		.answer_ratio = 1,
		.target_ratio = 1.5,
		.fitted = true,
		.row_ms = 1 };
	open_machine(&cost, 1);
	machine.limits.max_rows = 8192;
}

TEST(the_wait_at_one_place_is_that_of_an_m_d_1_queue) {
	open_queue();
	arrive(100.0 / 0.7, false, 100);
	struct sim_totals totals;
	run(customers, CUSTOMERS, &totals);
	/* rho / (2 (1 - rho)) services (Pollaczek and Khinchine). */
	CHECK(near(mean_wait(), 0.7 / (2 * 0.3) * 100, 0.04));
	CHECK(near(totals.busy_ms / totals.end_ms, 0.7, 0.02));
	sim_machine_finish(&machine);
}

TEST(the_wait_at_one_place_is_that_of_an_m_m_1_queue) {
	open_queue();
	arrive(1000.0 / 0.6, true, 1000);
	struct sim_totals totals;
	run(customers, CUSTOMERS, &totals);
	/* rho / (1 - rho) services, in whatever order. */
	CHECK(near(mean_wait(), 0.6 / 0.4 * 1000, 0.05));
	sim_machine_finish(&machine);
}

TEST(many_nodes_behind_round_robin_are_as_many_queues) {
	open_queue();
	/* Ten nodes share the arrivals: each sees gaps of ten exponentials, Erlang-10. */
	options.nodes = 10;
	options.balance = SIM_ROUND_ROBIN;
	arrive(10.0 / 0.7, false, 100);
	struct sim_totals totals;
	run(customers, CUSTOMERS, &totals);
	double round_robin = mean_wait();
	/* Kingman's bound for G/D/1: rho ca^2 / (2 (1 - rho)) services, with ca^2 = 1/10. */
	CHECK(round_robin <= 0.7 * 0.1 / (2 * 0.3) * 100 * 1.05);
	for (int i = 0; i < CUSTOMERS; i++)
		CHECK_INT(customers[i].node, i % 10);
	sim_machine_finish(&machine);
}

TEST(two_choices_are_better_than_one_at_random_and_worse_than_all) {
	open_queue();
	options.nodes = 50;
	double wait[2];
	for (int i = 0; i < 2; i++) {
		options.balance = i ? SIM_LEAST_REQUESTS : SIM_TWO_CHOICES;
		arrive(2.0 / 0.8, false, 100);
		struct sim_totals totals;
		run(customers, CUSTOMERS, &totals);
		wait[i] = mean_wait();
	}
	/* At random each would be an M/D/1 queue of its own: 0.8 / (2 x 0.2) services. */
	CHECK(wait[0] < 0.5 * 0.8 / (2 * 0.2) * 100);
	CHECK(wait[1] < wait[0]);
	sim_machine_finish(&machine);
}

/* ---- nobody is lost, and nothing is left to chance ---- */

enum { MIXED = 600 };

static void mix(struct sim_request *requests, uint64_t seed) {
	struct load_random random;
	double now = 0;
	load_random_init(&random, seed);
	for (int i = 0; i < MIXED; i++) {
		now += 40 * load_random_gamma(&random, 4);
		requests[i] = request_at(now, 1 + (int)load_random_below(&random, 200),
		                1 + (int)load_random_below(&random, 40));
		struct sim_request *r = &requests[i];
		int kind = (int)load_random_below(&random, 4);
		r->automatic = kind < 3;
		r->may_step_down = kind < 2;
		r->latency_ms = kind < 2 ? 200 + 800 * load_random_unit(&random) : 0;
		r->on_miss = kind == 1 ? ON_MISS_REJECT : ON_MISS_DEGRADE;
		r->deadline_ms = kind == 2 ? 2000 : 0;
		r->depth[STACK_DECODER] = kind == 3 ? 1 + (int)load_random_below(&random, 12) : 0;
	}
}

static void open_mixed(void) {
	struct cost_model cost = flat_cost();
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = 0.2 + 0.02 * cost_rows[i];
	open_machine(&cost, 16);
	options.frozen = false;
	options.noise = (struct sim_noise){
		.sigma = 0.2, .spike_share = 0.01, .spike_factor = 4, .seed = 3
	};
	options.queue_requests = 64;
	options.backlog_ms = 0;
}

TEST(every_request_ends_once_and_keeps_what_it_was_promised) {
	static struct sim_request r[MIXED];
	struct sim_totals totals;
	open_mixed();
	options.nodes = 3;
	options.balance = SIM_PREDICTED_WAIT;
	mix(r, 11);
	run(r, MIXED, &totals);
	int64_t rows = 0;
	for (int i = 0; i < MIXED; i++) {
		CHECK(r[i].end != SIM_WAITING);
		CHECK(r[i].done_ms >= r[i].arrival_ms);
		if (r[i].end == SIM_ANSWERED) {
			CHECK_INT(r[i].tokens, r[i].length);
			CHECK(r[i].first_ms > r[i].joined_ms && r[i].done_ms >= r[i].first_ms);
			rows += r[i].prompt_tokens + r[i].tokens - 1;
		}
		/* An explicit depth binds. */
		if (!r[i].automatic && r[i].joined_ms > 0) {
			CHECK_INT(r[i].joined_depth[STACK_DECODER], r[i].depth[STACK_DECODER]);
			CHECK_INT(r[i].final_depth[STACK_DECODER], r[i].depth[STACK_DECODER]);
		}
	}
	CHECK(totals.rows >= rows);
	sim_machine_finish(&machine);
}

TEST(the_same_seed_gives_the_same_bits) {
	static struct sim_request a[MIXED], b[MIXED];
	struct sim_totals totals;
	open_mixed();
	options.nodes = 2;
	options.balance = SIM_TWO_CHOICES;
	options.misfit = 0.1;
	mix(a, 5);
	mix(b, 5);
	run(a, MIXED, &totals);
	run(b, MIXED, &totals);
	CHECK(memcmp(a, b, sizeof a) == 0);
	options.noise.seed++;
	mix(b, 5);
	run(b, MIXED, &totals);
	CHECK(memcmp(a, b, sizeof a) != 0);
	sim_machine_finish(&machine);
}

TEST(noise_has_mean_one_and_its_spread) {
	struct sim_noise noise = { .sigma = 0.3, .seed = 9 };
	double sum = 0, square = 0;
	enum { N = 200000 };
	for (int i = 0; i < N; i++) {
		double factor = sim_noise_factor(&noise, i);
		sum += factor;
		square += log(factor) * log(factor);
	}
	CHECK(near(sum / N, 1, 0.005));
	/* Of the logarithm: mean -sigma^2 / 2, variance sigma^2. */
	CHECK(near(square / N, 0.09 + 0.045 * 0.045, 0.02));
}

/* ---- capacity ---- */

/* Answers of one token from one place for 10 s, `rate` of them a second at first, in 50 ms each. */
static double capacity_from(const char *rate) {
	const char *const words[][2] = { { "arrivals", "uniform" }, { "rate", rate },
		{ "seconds", "10" }, { "prompt_tokens", "1" }, { "max_tokens", "1" },
		{ "latency_budget_ms", "50" } };
	struct load load;
	struct sim_capacity capacity;
	char err[256] = "";
	bool ok = true;
	load_init(&load);
	for (size_t i = 0; ok && i < sizeof words / sizeof *words; i++)
		ok = load_set(&load, words[i][0], words[i][1], err, sizeof err);
	ok = ok && load_settle(&load, err, sizeof err);
	struct sim_study study = { .machine = &machine, .load = &load, .options = options };
	ok = ok && sim_find_capacity(&study, "fixed:12", 0.97, &capacity, err, sizeof err);
	if (!ok)
		check_fail(__FILE__, __LINE__, "%s", err);
	CHECK(capacity.summary.attainment >= 0.97);
	return capacity.rate;
}

TEST(the_capacity_of_one_place_is_one_answer_for_each_time_of_service) {
	struct cost_model cost = flat_cost();
	open_machine(&cost, 1);
	options.queue_requests = 64;
	/* Twelve layers of 1 ms, from wherever the search begins: at least what is never late, at most
	 * what leaves 3 in 100 out and the budget's 50 ms at the end; found to 2 parts in 100. */
	const double served = 1000.0 / 12, most = served * (10 + 0.05) / 10 / 0.97;
	for (int i = 0; i < 2; i++) {
		double rate = capacity_from(i ? "400" : "5");
		CHECK(rate > served / 1.02 && rate <= most);
	}
	sim_machine_finish(&machine);
}

/* ---- knowing the future ---- */

TEST(the_clairvoyant_is_no_worse_than_the_scheduler_and_within_the_bound) {
	static struct sim_request online[MIXED], best[MIXED];
	struct sim_totals totals;
	char err[256];
	open_mixed();
	mix(online, 21);
	run(online, MIXED, &totals);
	memcpy(best, online, sizeof best);
	struct clairvoyant_options search = {
		.machine = &machine, .noise = options.noise, .steps = 300000, .seed = 1
	};
	const struct sim_request *const starts[] = { online };
	CHECK(clairvoyant_search(&search, starts, 1, best, MIXED, err, sizeof err));
	struct clairvoyant_score was = clairvoyant_score(online, MIXED),
	                         now = clairvoyant_score(best, MIXED),
	                         bound = clairvoyant_bound(&search, best, MIXED);
	CHECK_INT(now.asked, was.asked);
	CHECK(24 * (double)now.met + MIXED * now.depth >= 24 * (double)was.met + MIXED * was.depth);
	CHECK(now.met <= bound.met);
	CHECK(now.depth <= bound.depth + 1e-9);
	sim_machine_finish(&machine);
}

TEST(the_clairvoyant_saves_depth_for_whom_it_is_free) {
	/* Two requests come together, one place. Full depth takes 10 x 12 ms. The first may take 130
	 * ms, the second 200: one has the full depth, the other what is left of its time. */
	struct cost_model cost = flat_cost();
	open_machine(&cost, 1);
	struct sim_request r[2] = { request_at(0, 1, 10), request_at(0, 1, 10) };
	r[0].automatic = r[1].automatic = true;
	r[0].latency_ms = 130;
	r[1].latency_ms = 205;
	struct clairvoyant_options search = { .machine = &machine, .steps = 20000, .seed = 2 };
	char err[256];
	CHECK(clairvoyant_search(&search, NULL, 0, r, 2, err, sizeof err));
	struct clairvoyant_score score = clairvoyant_score(r, 2);
	CHECK_INT(score.met, 2);
	/* 12 + 8 layers: 120 + 80 ms. */
	CHECK(near(score.depth, 10, 1e-9));
	sim_machine_finish(&machine);
}
