/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts as the scheduler sees them: cut so that running answers keep their pace, and shorter by
 * what is cached at a depth. On an engine of numbers, where what is expected is worked out by hand.
 */
#include <math.h>

#include "server/scheduler.h"
#include "tests/check.h"
#include "tests/toy_engine.h"

static struct toy toy;
static const struct scheduler_cache no_cache = { NULL, NULL };
static const struct cost_load idle;

/* A step takes 1 ms, and 0.25 ms for each row and layer. */
static struct cost_model steep_cost(void) {
	struct cost_model cost = toy_flat_cost();
	cost.constant_ms = 1;
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = 0.25 * cost_rows[i];
	return cost;
}

static struct subnet even(int depth) {
	struct subnet subnet = { 0 };
	plan_by_rule(PLAN_RULE_EVEN, TOY_LAYERS, depth, &subnet.stack[STACK_DECODER]);
	return subnet;
}

static struct toy_request *ask(int prompt, int depth, int tokens, double latency_ms) {
	struct toy_request *r = toy_request(&toy, depth, tokens, latency_ms);
	r->s.work.prompt_tokens = r->s.work.longest_prompt = prompt;
	toy_arrive(&toy, r);
	return r;
}

/* ---- the bound on steps ---- */

/* The longest step from now on, in which answers have grown and prompts were fed. */
static double longest_step(int turns) {
	double longest = 0;
	for (int i = 0; i < turns && toy_turn(&toy); i++)
		longest = fmax(longest, toy.step_ms);
	return longest;
}

static double stream_beside_prompts(double most_step_ms, int *ret_first_steps) {
	struct cost_model cost = steep_cost();
	toy_open_with(&toy, &cost, 8, most_step_ms, &no_cache);
	for (int i = 0; i < 3; i++)
		ask(8, 12, 1000, 0);
	for (int i = 0; i < 5; i++)
		toy_turn(&toy);
	struct toy_request *deep = ask(480, 12, 4, 0), *shallow = ask(480, 3, 4, 0);
	double longest = longest_step(400);
	CHECK(deep->done_ms > 0 && shallow->done_ms > 0);
	*ret_first_steps = deep->steps + shallow->steps;
	toy_close(&toy);
	return longest;
}

TEST(steps_stay_within_the_bound_while_prompts_enter) {
	int steps;
	/* Three answers take 1 + 3 x 12 x 0.25 = 10 ms; 128 rows of a prompt 384 more. */
	CHECK(stream_beside_prompts(0, &steps) > 390);
	CHECK(steps <= 8 + 8);
	/* What a step may err by is kept free: a tenth at least. */
	double longest = stream_beside_prompts(100, &steps);
	CHECK(longest <= 100 / 1.1 && longest > 70);
	longest = stream_beside_prompts(200, &steps);
	CHECK(longest <= 200 / 1.1 && longest > 140);
}

TEST(without_answers_there_is_nothing_to_keep) {
	struct cost_model cost = steep_cost();
	toy_open_with(&toy, &cost, 8, 50, &no_cache);
	ask(480, 12, 1, 0);
	CHECK(toy_turn(&toy));
	CHECK(!toy_turn(&toy));
	toy_close(&toy);
}

TEST(a_tighter_time_per_token_counts) {
	struct cost_model cost = steep_cost();
	toy_open_with(&toy, &cost, 8, 100, &no_cache);
	struct toy_request *r = toy_request(&toy, 12, 1000, 0);
	r->s.tpot_ms = 50;
	toy_arrive(&toy, r);
	toy_turn(&toy);
	ask(480, 12, 1, 0);
	CHECK(longest_step(300) <= 50);
	toy_close(&toy);
}

TEST(prompts_go_on_where_answers_alone_take_longer) {
	struct cost_model cost = steep_cost();
	toy_open_with(&toy, &cost, 8, 5, &no_cache);
	for (int i = 0; i < 3; i++)
		ask(8, 12, 1000, 0);
	for (int i = 0; i < 5; i++)
		toy_turn(&toy);
	struct toy_request *r = ask(80, 12, 1, 0);
	toy_turn(&toy);
	CHECK_INT(r->fed, COST_LEAST_ROWS);
	for (int i = 0; i < 9; i++)
		toy_turn(&toy);
	CHECK(r->done_ms > 0);
	toy_close(&toy);
}

TEST(rows_of_prompts_are_the_most_eights_within_the_bound) {
	struct cost_model cost = steep_cost();
	struct cost_limits limits = { .max_rows = 512, .prefill_rows = 128, .sequences = 8 };
	struct subnet deep = even(12), shallow = even(3);
	struct cost_load load = { .decode_rows = 2 };
	for (int l = 0; l < 12; l++)
		load.rows[l] = 2;
	/* No bound, or nobody who waits for a token. */
	CHECK_INT(cost_prompt_rows(&cost, &limits, &load, &deep, 100, 128), 128);
	limits.most_step_ms = 110;
	CHECK_INT(cost_prompt_rows(&cost, &limits, &idle, &deep, 100, 512), 512);
	/* 7 + 3 n <= 100: 31; 7 + 0.75 n <= 100: 124. */
	CHECK_INT(cost_prompt_rows(&cost, &limits, &load, &deep, 100, 128), 24);
	CHECK_INT(cost_prompt_rows(&cost, &limits, &load, &deep, 100, 30), 30);
	CHECK_INT(cost_prompt_rows(&cost, &limits, &load, &shallow, 100, 128), 120);
	CHECK_INT(cost_prompt_rows(&cost, &limits, &load, &shallow, 100, 123), 123);
	/* A quarter of what answers take, at least: 7 / 4 ms are less than 8 rows. */
	limits.most_step_ms = 1;
	CHECK_INT(cost_prompt_rows(&cost, &limits, &load, &deep, 100, 128), COST_LEAST_ROWS);
	/* Steps err: half as much again is kept free. */
	limits.most_step_ms = 150;
	cost.step_error[COST_MIXED].p95 = 0.5;
	CHECK_INT(cost_prompt_rows(&cost, &limits, &load, &deep, 100, 128), 24);
	/* The machine is at half its pace. */
	cost.pace = 2;
	CHECK_INT(cost_prompt_rows(&cost, &limits, &load, &deep, 100, 128), 8);
}

/* ---- what is cached ---- */

TEST(cached_tokens_take_no_time) {
	struct cost_model cost = steep_cost();
	const struct cost_limits limits = { .max_rows = 512, .prefill_rows = 128, .sequences = 8 };
	struct subnet deep = even(12);
	struct cost_work whole = { .subnet = &deep,
		.prompt_tokens = 200,
		.cached_tokens = 192,
		.longest_prompt = 200,
		.choices = 1,
		.output_tokens = 10 };
	struct cost_work rest = whole;
	rest.prompt_tokens = 8;
	rest.cached_tokens = 0;
	struct cost_time a, b;
	cost_predict(&cost, &limits, &idle, &whole, &a);
	cost_predict(&cost, &limits, &idle, &rest, &b);
	CHECK(fabs(a.first_ms - (1 + 8 * 12 * 0.25)) < 1e-9);
	CHECK(fabs(a.first_ms - b.first_ms) < 1e-9);
	CHECK(fabs(a.total_ms - b.total_ms) < 1e-9);
	/* They are attended to: 8 rows see 192 and half of 9 more. */
	cost.chunk_attention_ms = 1024;
	cost_predict(&cost, &limits, &idle, &whole, &a);
	CHECK(fabs(a.first_ms - (25 + 12 * 8 * (192 + 4.5))) < 1e-6);
}

/* 448 tokens at one depth only. */
static int at_one_depth(void *arg, const struct scheduled *r, const struct subnet *subnet) {
	const int *depth = arg;
	(void)r;
	return subnet->stack[STACK_DECODER].depth == *depth ? 448 : 0;
}

static int depth_chosen(int cached_depth, double latency_ms) {
	struct cost_model cost = steep_cost();
	struct scheduler_cache cache = { at_one_depth, &cached_depth };
	toy_open_with(&toy, &cost, 8, 0, &cache);
	struct toy_request *r = ask(480, 0, 10, latency_ms);
	toy_run(&toy);
	CHECK(toy_met(r));
	int depth = r->joined_depth;
	toy_close(&toy);
	return depth;
}

TEST(the_depth_is_chosen_by_what_is_left_of_the_prompt) {
	/* A step of 480 rows at depth d takes 1 + 120 d, one of 32 rows 1 + 8 d; nine tokens take
	 * 9 x (1 + d / 4). In 500 ms: 3 layers, or 12 if they are cached. */
	CHECK_INT(depth_chosen(0, 500), 3);
	CHECK_INT(depth_chosen(12, 500), 12);
	CHECK_INT(depth_chosen(7, 500), 7);
}

TEST(what_is_foreseen_knows_of_the_cache) {
	struct cost_model cost = steep_cost();
	struct scheduler_view view;
	struct scheduler_foresight f;
	int depth = 12;
	toy_open_with(&toy, &cost, 8, 0, &no_cache);
	struct toy_request *r = toy_request(&toy, 12, 1, 0);
	r->s.work.prompt_tokens = r->s.work.longest_prompt = 480;
	scheduler_view(toy.scheduler, &view);
	scheduler_foresee(&view, &cost, &r->s, 0, &f);
	CHECK(fabs(f.predicted_ms - (1 + 480 * 3)) < 1e-6);
	view.cache = (struct scheduler_cache){ at_one_depth, &depth };
	scheduler_foresee(&view, &cost, &r->s, 0, &f);
	CHECK(fabs(f.predicted_ms - (1 + 32 * 3)) < 1e-6);
	toy_close(&toy);
}

TEST(a_cached_prompt_is_not_refused_for_its_length) {
	struct cost_model cost = steep_cost();
	int depth = 12;
	struct scheduler_cache cache = { at_one_depth, &depth };
	for (int cached = 0; cached < 2; cached++) {
		toy_open_with(&toy, &cost, 8, 0, cached ? &cache : &no_cache);
		struct toy_request *r = toy_request(&toy, 12, 4, 200);
		r->s.work.prompt_tokens = r->s.work.longest_prompt = 480;
		r->s.on_miss = ON_MISS_REJECT;
		toy_arrive(&toy, r);
		toy_run(&toy);
		CHECK_INT(r->end, cached ? SCHEDULER_STEP : SCHEDULER_REFUSE);
		toy_close(&toy);
	}
}

TEST(what_waits_is_due_with_what_is_left_of_it) {
	struct cost_model cost = steep_cost();
	int depth = 12, met = 0;
	struct scheduler_cache cache = { at_one_depth, &depth };
	/* Alone each takes 97 + 9 x 4 ms, of the whole prompt 1441: four of them are in time only
	 * with the cache, and none of the others' needs lowers a depth. */
	toy_open_with(&toy, &cost, 1, 0, &cache);
	struct toy_request *r[4];
	for (int i = 0; i < 4; i++)
		r[i] = ask(480, 0, 10, 900);
	toy_run(&toy);
	for (int i = 0; i < 4; i++)
		met += toy_met(r[i]) && r[i]->joined_depth == 12;
	CHECK_INT(met, 4);
	toy_close(&toy);
}
