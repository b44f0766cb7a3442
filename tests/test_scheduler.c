/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler under a clock of the test's own. Expected depths are worked out by hand from a cost
 * model of round numbers. */
#include "server/scheduler.h"

#include <math.h>

#include "tests/check.h"

/* ---- order ---- */

static struct scheduler_entry entry(int priority, double arrival, double due, double service) {
	return (struct scheduler_entry){ priority, arrival, due, service };
}

TEST(lower_priority_numbers_go_first) {
	struct scheduler_entry a = entry(-1, 100, INFINITY, 10), b = entry(0, 0, 150, 10);
	CHECK(scheduler_before(&a, &b, 100));
	CHECK(!scheduler_before(&b, &a, 100));
}

TEST(within_a_class_the_least_slack_goes_first) {
	/* b is due later but must start earlier. */
	struct scheduler_entry a = entry(0, 0, 500, 100), b = entry(0, 0, 600, 300);
	CHECK(scheduler_before(&b, &a, 0));
	CHECK(!scheduler_before(&a, &b, 0));
}

TEST(equal_requests_go_by_arrival) {
	struct scheduler_entry a = entry(0, 10, INFINITY, 5), b = entry(0, 11, INFINITY, 5);
	CHECK(scheduler_before(&a, &b, 20));
	CHECK(!scheduler_before(&b, &a, 20));
	CHECK(!scheduler_before(&a, &a, 20));
}

TEST(a_budget_that_can_still_be_kept_goes_before_none) {
	struct scheduler_entry a = entry(0, 50, 400, 100), b = entry(0, 0, INFINITY, 100);
	CHECK(scheduler_before(&a, &b, 60));
}

TEST(a_lost_budget_does_not_go_first) {
	/* At 450 the first would have had to start at 300; the second still can be on time. */
	struct scheduler_entry lost = entry(0, 0, 400, 100), good = entry(0, 200, 900, 100);
	CHECK(scheduler_before(&good, &lost, 450));
}

TEST(a_patient_request_is_overtaken_for_ten_seconds_at_most) {
	struct scheduler_entry old = entry(0, 0, INFINITY, 10);
	/* A newcomer that must start at 9,990 goes first, one that must start later does not. */
	struct scheduler_entry urgent = entry(0, 9000, 10000, 10);
	struct scheduler_entry later = entry(0, 9000, 10100, 10);
	CHECK(scheduler_before(&urgent, &old, 9000));
	CHECK(scheduler_before(&old, &later, 9000));
}

TEST(waiting_overcomes_any_priority) {
	struct scheduler_entry old = entry(1000, 0, INFINITY, 10);
	struct scheduler_entry fresh = entry(-1000, 120000, INFINITY, 10);
	CHECK(scheduler_before(&fresh, &old, 1000));
	CHECK(scheduler_before(&old, &fresh, 120000));
}

/* ---- depth ---- */

enum { LAYERS = 12 };

/* A layer takes 1 ms whatever the rows, a step 2 ms besides; a chunk of any size one step. */
static struct cost_model flat_cost(void) {
	struct cost_model cost = { .constant_ms = 2,
		.margin = 1,
		.margin_rescued = 1,
		.answer_ratio = 1,
		.fitted = true };
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = 1;
	return cost;
}

static const struct cost_limits limits = { .max_rows = 512, .prefill_rows = 128, .sequences = 64 };
static const struct cost_load idle;
static const struct model model = { .facts.stack[STACK_DECODER].layers = LAYERS };
static int rungs[LAYERS][STACKS];
static struct ladder ladder;

static struct scheduler_question question(const struct cost_model *cost, int output_tokens) {
	for (int d = 1; d <= LAYERS; d++)
		rungs[d - 1][STACK_DECODER] = d;
	ladder = (struct ladder){
		.model = &model, .rule = PLAN_RULE_EVEN, .n = LAYERS, .rungs = rungs
	};
	return (struct scheduler_question){ .cost = cost,
		.limits = &limits,
		.load = &idle,
		.work = { .prompt_tokens = 10,
		                .longest_prompt = 10,
		                .choices = 1,
		                .output_tokens = output_tokens },
		.margin = cost->margin,
		.ladder = &ladder,
		.min_depth = { [STACK_DECODER] = 1 },
		.max_depth = { [STACK_DECODER] = LAYERS },
		.slots = 64,
		.overload_min_depth = 1 };
}

static int chosen(const struct scheduler_question *q, struct scheduler_choice *choice) {
	CHECK(scheduler_choose(q, choice));
	return choice->subnet.stack[STACK_DECODER].depth;
}

TEST(without_a_budget_the_deepest_is_chosen) {
	struct cost_model cost = flat_cost();
	struct scheduler_question q = question(&cost, 10);
	struct scheduler_choice choice;
	CHECK_INT(chosen(&q, &choice), LAYERS);
	CHECK_INT(choice.reason, REASON_DEFAULT);
	CHECK(choice.fits);
}

TEST(a_latency_budget_chooses_the_deepest_that_fits) {
	/* Ten tokens are ten steps of (2 + depth) ms: 80 ms at depth 6, 90 at 7. */
	struct cost_model cost = flat_cost();
	struct scheduler_question q = question(&cost, 10);
	struct scheduler_choice choice;
	q.budget.latency_ms = 89;
	CHECK_INT(chosen(&q, &choice), 6);
	CHECK_INT(choice.reason, REASON_BUDGET);
	CHECK(choice.fits);
	q.budget.latency_ms = 90;
	CHECK_INT(chosen(&q, &choice), 7);
}

TEST(time_already_spent_counts_against_the_budget) {
	struct cost_model cost = flat_cost();
	struct scheduler_question q = question(&cost, 10);
	struct scheduler_choice choice;
	q.budget.latency_ms = 90;
	q.budget.spent_ms = 20;
	CHECK_INT(chosen(&q, &choice), 5);
}

TEST(the_margin_leaves_room) {
	/* 90 ms hold (2 + depth) x 10 x 1.25 up to depth 5. */
	struct cost_model cost = flat_cost();
	cost.margin = 1.25;
	struct scheduler_question q = question(&cost, 10);
	struct scheduler_choice choice;
	q.budget.latency_ms = 90;
	CHECK_INT(chosen(&q, &choice), 5);
}

TEST(first_token_and_token_budgets_bind_too) {
	struct cost_model cost = flat_cost();
	struct scheduler_question q = question(&cost, 100);
	struct scheduler_choice choice;
	q.budget.ttft_ms = 11;
	CHECK_INT(chosen(&q, &choice), 9);
	q.budget.tpot_ms = 5;
	CHECK_INT(chosen(&q, &choice), 3);
}

TEST(bounds_are_kept_and_a_miss_is_told) {
	struct cost_model cost = flat_cost();
	struct scheduler_question q = question(&cost, 10);
	struct scheduler_choice choice;
	q.budget.latency_ms = 50;
	q.min_depth[STACK_DECODER] = 4;
	q.max_depth[STACK_DECODER] = 8;
	CHECK_INT(chosen(&q, &choice), 4);
	CHECK(!choice.fits);
	q.budget.latency_ms = 1000;
	CHECK_INT(chosen(&q, &choice), 8);
}

TEST(a_plan_file_without_a_depth_in_bounds_is_told) {
	/* The plan file has depth 3, and there is the whole model. */
	struct subnet tuned = { .stack[STACK_DECODER] = { .of = LAYERS, .depth = 3 } };
	struct model with_file = model;
	with_file.tuned = &tuned;
	with_file.n_tuned = 1;
	struct cost_model cost = flat_cost();
	struct scheduler_question q = question(&cost, 10);
	struct scheduler_choice choice;
	struct ladder from_file;
	CHECK(ladder_init(&from_file, &with_file, PLAN_RULE_TUNED));
	CHECK_INT(from_file.n, 2);
	q.ladder = &from_file;
	q.min_depth[STACK_DECODER] = 4;
	q.max_depth[STACK_DECODER] = 11;
	CHECK(!scheduler_choose(&q, &choice));
	q.max_depth[STACK_DECODER] = 12;
	CHECK_INT(chosen(&q, &choice), 12);
	q.min_depth[STACK_DECODER] = 1;
	q.max_depth[STACK_DECODER] = 5;
	CHECK_INT(chosen(&q, &choice), 3);
	ladder_finish(&from_file);
}

TEST(overload_lowers_the_depth_and_says_so) {
	struct cost_model cost = flat_cost();
	struct scheduler_question q = question(&cost, 10);
	struct scheduler_choice choice;
	/* Half of the eleven steps down, rounded to the nearest. */
	q.waiting = 32;
	CHECK_INT(chosen(&q, &choice), 6);
	CHECK_INT(choice.reason, REASON_OVERLOAD);
	q.waiting = 1000;
	CHECK_INT(chosen(&q, &choice), 1);
	q.overload_min_depth = 3;
	CHECK_INT(chosen(&q, &choice), 3);
	q.min_depth[STACK_DECODER] = 7;
	CHECK_INT(chosen(&q, &choice), 7);
}

TEST(running_rows_make_a_request_shallower) {
	/* Twelve rows that keep all layers read them anyway: with a flat table every step of the
	 * newcomer costs all twelve layers, and no depth fits what depth 6 would take alone. */
	struct cost_model cost = flat_cost();
	struct cost_load load = { .decode_rows = 12 };
	for (int l = 0; l < LAYERS; l++)
		load.rows[l] = 12;
	struct scheduler_question q = question(&cost, 10);
	struct scheduler_choice choice;
	q.load = &load;
	q.budget.latency_ms = 80;
	CHECK_INT(chosen(&q, &choice), 1);
	CHECK(!choice.fits);
	q.budget.latency_ms = 140;
	CHECK_INT(chosen(&q, &choice), 12);
}

TEST(overload_grows_with_the_queue) {
	CHECK_INT(scheduler_overload_rung(1, 12, 0, 64), 12);
	CHECK_INT(scheduler_overload_rung(1, 12, 1, 64), 12);
	CHECK_INT(scheduler_overload_rung(2, 12, 32, 64), 7);
	CHECK_INT(scheduler_overload_rung(2, 12, 64, 64), 2);
	CHECK_INT(scheduler_overload_rung(2, 12, 1000, 64), 2);
	CHECK_INT(scheduler_overload_rung(5, 5, 1000, 64), 5);
}

/* ---- stepping down ---- */

static struct scheduler_progress progress(const struct cost_model *cost,
                const struct subnet *subnet, int tokens_left, double spent, double budget) {
	return (struct scheduler_progress){ .cost = cost,
		.limits = &limits,
		.load = &idle,
		.work = { .subnet = subnet, .choices = 1, .output_tokens = tokens_left + 1 },
		.budget = { .spent_ms = spent, .latency_ms = budget },
		.rule = PLAN_RULE_EVEN,
		.min_depth = 2 };
}

TEST(a_request_on_time_stays_deep) {
	struct cost_model cost = flat_cost();
	struct subnet subnet = { 0 };
	struct plan *plan = &subnet.stack[STACK_DECODER], down;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, 12, plan);
	struct scheduler_progress p = progress(&cost, &subnet, 10, 100, 240);
	CHECK(!scheduler_step_down(&p, &down));
}

TEST(a_late_request_steps_down_to_what_is_in_time) {
	/* 100 ms are left for ten steps: 8 layers. */
	struct cost_model cost = flat_cost();
	struct subnet subnet = { 0 };
	struct plan *plan = &subnet.stack[STACK_DECODER], down;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, 12, plan);
	struct scheduler_progress p = progress(&cost, &subnet, 10, 140, 240);
	CHECK(scheduler_step_down(&p, &down));
	CHECK_INT(down.depth, 8);
	CHECK(plan_contains(plan, &down));
}

TEST(a_lost_request_steps_down_to_its_bound_and_no_further) {
	struct cost_model cost = flat_cost();
	struct subnet subnet = { 0 };
	struct plan *plan = &subnet.stack[STACK_DECODER], down;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, 12, plan);
	struct scheduler_progress p = progress(&cost, &subnet, 10, 239, 240);
	CHECK(scheduler_step_down(&p, &down));
	CHECK_INT(down.depth, 2);
	*plan = down;
	struct plan further;
	CHECK(!scheduler_step_down(&p, &further));
}

/* ---- length and waiting ---- */

TEST(answers_are_planned_by_what_is_known) {
	CHECK_INT(scheduler_predict_tokens(20, 100, true, 0.5), 20);
	CHECK_INT(scheduler_predict_tokens(200, 100, true, 0.5), 100);
	CHECK_INT(scheduler_predict_tokens(0, 100, true, 0.5), 100);
	CHECK_INT(scheduler_predict_tokens(0, 100, false, 49.5), 50);
	CHECK_INT(scheduler_predict_tokens(0, 100, false, 150), 100);
	CHECK_INT(scheduler_predict_tokens(0, 100, false, 0), 1);
	CHECK_INT(scheduler_predict_tokens(0, 0, true, 0.5), 0);
}

TEST(a_free_place_means_no_waiting) {
	struct scheduler_queue q = { .running = 3, .slots = 4, .shortest_tokens = 9, .step_ms = 2 };
	CHECK(scheduler_wait_ms(&q) == 0);
}

TEST(a_full_batch_waits_for_the_first_to_end) {
	struct scheduler_queue q = { .running = 4, .slots = 4, .shortest_tokens = 9, .step_ms = 2 };
	CHECK(scheduler_wait_ms(&q) == 18);
}

TEST(a_queue_waits_for_all_that_is_before) {
	struct scheduler_queue q = { .waiting = 2,
		.waiting_prompt_ms = 5,
		.waiting_tokens = 60,
		.running = 4,
		.slots = 4,
		.running_tokens = 20,
		.shortest_tokens = 1,
		.step_ms = 2 };
	CHECK(scheduler_wait_ms(&q) == 5 + 80 * 2 / 4.0);
}
