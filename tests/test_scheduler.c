/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler under a clock of the test's own, on an engine of numbers. Where nothing else is said
 * a step takes 2 ms and 1 ms for each layer that any row of it keeps, so that what is expected can
 * be worked out by hand: n tokens at depth d take n x (2 + d) ms.
 */
#include "server/scheduler.h"

#include <math.h>

#include "tests/check.h"
#include "tests/toy_engine.h"

static struct toy toy;

static void open_flat(int sequences) {
	struct cost_model cost = toy_flat_cost();
	toy_open(&toy, &cost, sequences, 0);
}

/* Rows cost in proportion: 0.25 ms for each row and layer, and 1 ms for a step. */
static struct cost_model steep_cost(void) {
	struct cost_model cost = toy_flat_cost();
	cost.constant_ms = 1;
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = 0.25 * cost_rows[i];
	return cost;
}

static struct toy_request *ask(int depth, int tokens, double latency_ms) {
	struct toy_request *r = toy_request(&toy, depth, tokens, latency_ms);
	toy_arrive(&toy, r);
	return r;
}

/* A generator of its own for random loads. */
static uint64_t random_state;

static double uniform(double low, double high) {
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return low + (high - low) * (double)(random_state >> 11) / (double)(1ull << 53);
}

/* ---- order: one place ---- */

/* Which of two that arrive together goes first. */
static bool first_of(struct toy_request *a, struct toy_request *b) {
	toy_arrive(&toy, b);
	toy_arrive(&toy, a);
	toy_run(&toy);
	return a->joined_ms < b->joined_ms;
}

TEST(lower_priority_numbers_go_first) {
	open_flat(1);
	struct toy_request *a = toy_request(&toy, 1, 10, 0), *b = toy_request(&toy, 1, 10, 40);
	a->s.priority = -1;
	CHECK(first_of(a, b));
	toy_close(&toy);
}

TEST(within_a_class_the_least_slack_goes_first) {
	open_flat(1);
	/* Due at 500 after 100 tokens of 3 ms; due at 450 after 10. */
	struct toy_request *a = toy_request(&toy, 1, 100, 500), *b = toy_request(&toy, 1, 10, 450);
	CHECK(first_of(a, b));
	CHECK(toy_met(a) && toy_met(b));
	toy_close(&toy);
}

TEST(a_budget_that_can_be_kept_goes_before_none) {
	open_flat(1);
	struct toy_request *a = toy_request(&toy, 1, 10, 400), *b = toy_request(&toy, 1, 10, 0);
	CHECK(first_of(a, b));
	toy_close(&toy);
}

TEST(equal_requests_go_by_arrival) {
	open_flat(1);
	struct toy_request *running = ask(1, 5, 0), *a = toy_request(&toy, 1, 5, 0);
	toy_turn(&toy);
	toy_arrive(&toy, a);
	toy_turn(&toy);
	struct toy_request *b = ask(1, 5, 0);
	toy_run(&toy);
	CHECK(running->done_ms <= a->joined_ms && a->done_ms <= b->joined_ms);
	toy_close(&toy);
}

TEST(a_lost_budget_does_not_eat_one_that_can_be_kept) {
	open_flat(1);
	/* 100 tokens of 3 ms cannot be had in 200. The other must start within 70 ms. */
	struct toy_request *good = toy_request(&toy, 1, 10, 100),
	                   *lost = toy_request(&toy, 1, 100, 200);
	CHECK(first_of(good, lost));
	CHECK(toy_met(good));
	CHECK_INT(lost->end, SCHEDULER_STEP);
	toy_close(&toy);
}

TEST(when_not_all_can_be_met_the_fewest_are_given_up) {
	open_flat(1);
	/* One of 300 ms, four of 90: within 400 ms either the one and one, or the four. */
	struct toy_request *large = ask(1, 100, 395), *small[4];
	for (int i = 0; i < 4; i++)
		small[i] = ask(1, 30, 400);
	toy_run(&toy);
	for (int i = 0; i < 4; i++)
		CHECK(toy_met(small[i]));
	CHECK(!toy_met(large));
	toy_close(&toy);
}

TEST(among_random_jobs_on_one_place_all_are_met_that_can_be) {
	/* Jobs that are all there, one after another: in order of due times all are met if any order
	 * meets all (Jackson 1955). */
	for (int round = 0; round < 40; round++) {
		struct toy_request *r[8];
		double due = 0;
		random_state = (uint64_t)round + 1;
		open_flat(1);
		for (int i = 0; i < 8; i++) {
			int tokens = (int)uniform(2, 20);
			due += 1.06 * 3 * tokens + uniform(0, 10);
			r[i] = toy_request(&toy, 1, tokens, due);
		}
		for (int i = 0; i < 8; i++)
			toy_arrive(&toy, r[(i * 5 + round) % 8]);
		toy_run(&toy);
		for (int i = 0; i < 8; i++)
			CHECK(toy_met(r[i]));
		toy_close(&toy);
	}
}

TEST(nobody_starves_under_endless_urgent_load) {
	open_flat(1);
	struct toy_request *patient = toy_request(&toy, 1, 10, 0);
	patient->s.priority = 20;
	toy_arrive(&toy, patient);
	for (int i = 0; patient->done_ms < 0 && i < TOY_REQUESTS - 1; i++) {
		struct toy_request *r = ask(1, 30, 120);
		while (r->done_ms < 0)
			toy_turn(&toy);
	}
	/* 2^k - 1 classes are gained after k times ten seconds: 31 after fifty. */
	CHECK(patient->done_ms > 0 && patient->done_ms < 60000);
	toy_close(&toy);
}

/* ---- deadlines ---- */

TEST(an_expired_request_is_dropped_and_never_goes_first) {
	open_flat(1);
	struct toy_request *running = ask(1, 20, 0), *late = toy_request(&toy, 1, 5, 0),
	                   *good = toy_request(&toy, 1, 5, 200);
	toy_turn(&toy);
	late->s.deadline_ms = 30;
	toy_arrive(&toy, late);
	toy_arrive(&toy, good);
	toy_run(&toy);
	CHECK_INT(late->end, SCHEDULER_EXPIRE);
	CHECK(late->joined_ms < 0 && late->done_ms >= 30 && late->done_ms < 34);
	CHECK_INT(running->end, SCHEDULER_STEP);
	CHECK(toy_met(good));
	toy_close(&toy);
}

TEST(a_deadline_cuts_what_has_begun) {
	open_flat(4);
	struct toy_request *r = toy_request(&toy, 1, 20, 0);
	r->s.deadline_ms = 31;
	toy_arrive(&toy, r);
	toy_run(&toy);
	CHECK_INT(r->end, SCHEDULER_CUT);
	CHECK(!r->by_budget);
	CHECK_INT(r->s.progress.tokens_out, 11);
	toy_close(&toy);
}

TEST(truncation_stops_before_the_step_that_would_be_late) {
	open_flat(4);
	struct toy_request *r = toy_request(&toy, 8, 20, 95);
	r->s.on_miss = ON_MISS_TRUNCATE;
	toy_arrive(&toy, r);
	toy_run(&toy);
	/* Nine steps of 10 ms; a tenth would end at 100. */
	CHECK_INT(r->end, SCHEDULER_CUT);
	CHECK(r->by_budget);
	CHECK_INT(r->s.progress.tokens_out, 9);
	toy_close(&toy);
}

/* ---- depth ---- */

static int depth_alone(const struct cost_model *cost, double latency, double ttft, double tpot) {
	toy_open(&toy, cost, 64, 0);
	struct toy_request *r = toy_request(&toy, 0, 10, latency);
	r->s.ttft_ms = ttft;
	r->s.tpot_ms = tpot;
	toy_arrive(&toy, r);
	toy_run(&toy);
	CHECK_INT(r->s.reason, latency + ttft + tpot > 0 ? REASON_BUDGET : REASON_DEFAULT);
	toy_close(&toy);
	return r->joined_depth;
}

TEST(alone_the_deepest_that_fits_is_chosen) {
	/* Ten steps of 2 + d: 80 ms at depth 6, 90 at 7. A prompt's rows are thought to take a little
	 * besides, as in a busy engine: less than 1 ms. A twentieth is kept for error at least. */
	struct cost_model cost = toy_flat_cost();
	CHECK_INT(depth_alone(&cost, 0, 0, 0), 12);
	CHECK_INT(depth_alone(&cost, 93, 0, 0), 6);
	CHECK_INT(depth_alone(&cost, 96, 0, 0), 7);
	CHECK_INT(depth_alone(&cost, 20, 0, 0), 1);
	CHECK_INT(depth_alone(&cost, 0, 12.5, 0), 9);
	CHECK_INT(depth_alone(&cost, 0, 0, 5.3), 3);
	/* 91 ms hold (2 + d) x 10 x 1.25 up to depth 5. */
	cost.margin = cost.margin_rescued = 1.25;
	CHECK_INT(depth_alone(&cost, 91, 0, 0), 5);
}

TEST(bounds_are_kept) {
	open_flat(64);
	struct toy_request *low = toy_request(&toy, 0, 10, 50),
	                   *high = toy_request(&toy, 0, 10, 9000);
	low->s.min_depth[STACK_DECODER] = 4;
	high->s.max_depth[STACK_DECODER] = 8;
	toy_arrive(&toy, low);
	toy_run(&toy);
	toy_arrive(&toy, high);
	toy_run(&toy);
	CHECK_INT(low->joined_depth, 4);
	CHECK_INT(high->joined_depth, 8);
	toy_close(&toy);
}

TEST(a_deep_newcomer_does_not_break_running_budgets) {
	open_flat(64);
	/* It needs twenty steps of 2 + 3 in 112 ms; all twelve layers would make them 14. */
	struct toy_request *running = ask(3, 20, 112);
	toy_turn(&toy);
	struct toy_request *newcomer = ask(0, 20, 600), *plain = ask(12, 20, 0);
	toy_run(&toy);
	CHECK(toy_met(running));
	CHECK(toy_met(newcomer));
	CHECK_INT(plain->end, SCHEDULER_STEP);
	CHECK(newcomer->joined_depth > 3);
	toy_close(&toy);
}

TEST(what_waits_makes_a_newcomer_shallower) {
	/* One place, two of ten tokens due at 200: not 140 ms for one at depth 12 and then 60 for
	 * the other, but the same depth, with room for what may come: 14 x 10 + 0.7 x 70 is 189. */
	open_flat(1);
	struct toy_request *a = ask(0, 10, 200), *b = ask(0, 10, 200);
	toy_run(&toy);
	CHECK(toy_met(a) && toy_met(b));
	CHECK(a->joined_depth >= 4 && a->joined_depth <= 7);
	CHECK(b->joined_depth >= a->joined_depth);
	toy_close(&toy);
}

TEST(without_a_budget_load_lowers_the_depth_between_ceiling_and_floor) {
	struct scheduler_view view = { .limits = { 512, 128, 64, 0 },
		.layers = { [STACK_DECODER] = TOY_LAYERS },
		.overload_min_depth = 1 };
	struct cost_model cost = toy_flat_cost();
	struct scheduler_foresight f;
	open_flat(64);
	struct toy_request *r = toy_request(&toy, 0, 10, 0);
	/* Half of eleven steps, rounded to the nearest. */
	view.waiting_places = 32;
	scheduler_foresee(&view, &cost, &r->s, 0, &f);
	CHECK_INT(f.subnet.stack[STACK_DECODER].depth, 6);
	CHECK_INT(f.reason, REASON_OVERLOAD);
	view.waiting_places = 1000;
	view.overload_min_depth = 3;
	scheduler_foresee(&view, &cost, &r->s, 0, &f);
	CHECK_INT(f.subnet.stack[STACK_DECODER].depth, 3);
	view.waiting_places = 0;
	view.overload_max_depth = 9;
	scheduler_foresee(&view, &cost, &r->s, 0, &f);
	CHECK_INT(f.subnet.stack[STACK_DECODER].depth, 9);
	/* An explicit depth is never touched. */
	r = toy_request(&toy, 12, 10, 0);
	view.waiting_places = 1000;
	scheduler_foresee(&view, &cost, &r->s, 0, &f);
	CHECK_INT(f.subnet.stack[STACK_DECODER].depth, 12);
	toy_close(&toy);
}

/* ---- stepping down ---- */

TEST(a_request_on_time_stays_deep) {
	open_flat(64);
	struct toy_request *r = ask(0, 10, 150);
	toy_run(&toy);
	CHECK_INT(r->joined_depth, 12);
	CHECK_INT(r->s.changes, 0);
	toy_close(&toy);
}

TEST(all_that_may_step_down_do_so_together) {
	/* Where a layer is run for any row of it, one that steps down alone gains nothing. Thirty
	 * steps are left for some 560 ms when a layer comes to take 2 ms: 18.6 are 2 + 2 x 8. */
	open_flat(64);
	struct toy_request *r[4], *bound = ask(6, 40, 0);
	for (int i = 0; i < 4; i++)
		r[i] = ask(0, 40, 700);
	for (int i = 0; i < 10; i++)
		toy_turn(&toy);
	for (int i = 0; i < 4; i++)
		CHECK_INT(toy_depth(r[i]), 12);
	for (int i = 0; i < COST_POINTS; i++)
		toy.cost.layer_ms[STACK_DECODER][i] *= 2;
	toy.machine = toy.cost;
	while (toy_depth(r[0]) == 12)
		toy_turn(&toy);
	for (int i = 0; i < 4; i++)
		CHECK_INT(toy_depth(r[i]), toy_depth(r[0]));
	CHECK(toy_depth(r[0]) >= 4);
	toy_run(&toy);
	for (int i = 0; i < 4; i++) {
		CHECK(toy_met(r[i]));
		CHECK(r[i]->s.changes >= 1 && r[i]->s.changes <= 4);
		CHECK(toy_depth(r[i]) <= 8);
	}
	/* One that is bound is not. */
	CHECK_INT(toy_depth(bound), 6);
	CHECK_INT(bound->s.changes, 0);
	toy_close(&toy);
}

TEST(who_may_not_step_down_does_not) {
	open_flat(64);
	struct toy_request *r = toy_request(&toy, 0, 40, 600);
	r->s.may_step_down = false;
	toy_arrive(&toy, r);
	toy_turn(&toy);
	int before = toy_depth(r);
	for (int i = 0; i < COST_POINTS; i++)
		toy.cost.layer_ms[STACK_DECODER][i] *= 3;
	toy.machine = toy.cost;
	toy_run(&toy);
	CHECK_INT(toy_depth(r), before);
	CHECK(!toy_met(r));
	toy_close(&toy);
}

TEST(a_lost_request_steps_down_to_its_bound) {
	open_flat(64);
	struct toy_request *r = toy_request(&toy, 0, 40, 600);
	r->s.min_depth[STACK_DECODER] = 2;
	toy_arrive(&toy, r);
	toy_turn(&toy);
	for (int i = 0; i < COST_POINTS; i++)
		toy.cost.layer_ms[STACK_DECODER][i] *= 50;
	toy.machine = toy.cost;
	toy_run(&toy);
	CHECK_INT(toy_depth(r), 2);
	toy_close(&toy);
}

/* ---- sharing steps ---- */

TEST(what_has_no_need_rests_for_what_is_tight_and_then_goes_on) {
	open_flat(64);
	struct toy_request *plain = ask(12, 60, 0);
	toy_turn(&toy);
	/* Twenty steps of 3 ms in 100; beside twelve layers they would take 280. */
	struct toy_request *tight = ask(1, 20, 100);
	toy_run(&toy);
	CHECK(toy_met(tight));
	CHECK(plain->rests > 10);
	CHECK_INT(plain->end, SCHEDULER_STEP);
	/* Sixty steps of its own, and it waited for no more than the other's. */
	CHECK(plain->done_ms <= 60 * 14 + 100);
	toy_close(&toy);
}

TEST(nobody_rests_where_nobody_is_late) {
	open_flat(64);
	for (int i = 0; i < 8; i++)
		ask(1 + i, 20, i % 2 ? 0 : 2000);
	toy_run(&toy);
	for (int i = 0; i < 8; i++)
		CHECK_INT(toy.requests[i].rests, 0);
	toy_close(&toy);
}

TEST(rests_are_bounded) {
	open_flat(64);
	struct toy_request *plain = ask(12, 40, 0);
	toy_turn(&toy);
	/* A train of tight ones, one after another. */
	for (int i = 0; i < 200 && plain->done_ms < 0; i++) {
		struct toy_request *tight = ask(1, 20, 66);
		while (tight->done_ms < 0)
			toy_turn(&toy);
	}
	/* A quarter of the time at least: 40 steps of 14 ms. */
	CHECK(plain->done_ms > 0 && plain->done_ms < 4.2 * 40 * 14 + 100);
	toy_close(&toy);
}

TEST(times_per_token_bound_prompts_and_never_rest) {
	/* 1 ms, and 0.25 for each row of a layer: one row at depth 4 takes 2 ms, 24 rows more 24. */
	struct cost_model cost = steep_cost();
	toy_open(&toy, &cost, 64, 0);
	struct toy_request *stream = toy_request(&toy, 4, 60, 0), *r;
	stream->s.tpot_ms = 12;
	toy_arrive(&toy, stream);
	toy_turn(&toy);
	toy_turn(&toy);
	r = toy_request(&toy, 4, 2, 2000);
	r->s.work.prompt_tokens = r->s.work.longest_prompt = 120;
	toy_arrive(&toy, r);
	double longest = 0;
	while (r->fed < 120) {
		toy_turn(&toy);
		CHECK(toy.prompt_rows <= 15);
		longest = toy.step_ms > longest ? toy.step_ms : longest;
	}
	CHECK(longest <= 12);
	toy_run(&toy);
	CHECK_INT(stream->rests, 0);
	toy_close(&toy);
}

TEST(where_more_rows_give_no_more_tokens_few_run_side_by_side) {
	/* Sixteen of ten tokens at depth 4, 1 + r ms for r rows: together they would all end after
	 * 170 ms, the first as late as the last. */
	struct cost_model cost = steep_cost();
	toy_open(&toy, &cost, 64, 0);
	struct toy_request *r[16];
	for (int i = 0; i < 16; i++) {
		r[i] = toy_request(&toy, 4, 10, 60 + 20 * i);
		r[i]->s.work.prompt_tokens = r[i]->s.work.longest_prompt = 1;
		toy_arrive(&toy, r[i]);
	}
	toy_run(&toy);
	int met = 0;
	for (int i = 0; i < 16; i++)
		met += toy_met(r[i]);
	CHECK_INT(met, 16);
	CHECK(r[0]->done_ms < 0.5 * r[15]->done_ms);
	toy_close(&toy);
}

TEST(a_flood_without_budgets_does_not_make_budgets_late) {
	/* A step of r rows takes 1 + r ms: 64 of the flood would take 65, and the tight ones, sixty
	 * tokens each, four seconds. Beside one row they take 180 ms and their prompt. */
	struct cost_model cost = steep_cost();
	toy_open(&toy, &cost, 64, 0);
	struct toy_request *first = toy_request(&toy, 4, 10, 150);
	toy_arrive(&toy, first);
	toy_turn(&toy);
	for (int i = 0; i < 200; i++)
		toy_arrive(&toy, toy_request(&toy, 4, 200, 0));
	for (int i = 0; i < 40; i++)
		toy_turn(&toy);
	int met = toy_met(first);
	for (int i = 0; i < 20; i++) {
		struct toy_request *tight = toy_request(&toy, 4, 60, 320);
		toy_arrive(&toy, tight);
		while (tight->done_ms < 0)
			toy_turn(&toy);
		met += toy_met(tight);
	}
	CHECK_INT(met, 21);
	/* The flood gets on meanwhile. */
	int most = 0;
	for (int i = 0; i < toy.n; i++)
		most = toy.requests[i].steps > most ? toy.requests[i].steps : most;
	CHECK(most > 10);
	toy_run(&toy);
	toy_close(&toy);
}

/* ---- refusals ---- */

TEST(what_the_pool_cannot_hold_is_refused) {
	open_flat(1);
	struct toy_request *r = toy_request(&toy, 1, 10, 0);
	r->s.places = 2;
	toy_arrive(&toy, r);
	toy_run(&toy);
	CHECK_INT(r->end, SCHEDULER_REFUSE);
	CHECK_INT(r->refusal, SCHEDULER_TOO_LARGE);
	toy_close(&toy);
}

TEST(rejection_tells_an_impossible_budget_from_a_busy_server) {
	open_flat(64);
	struct scheduler_view view;
	struct scheduler_foresight f;
	scheduler_view(toy.scheduler, &view);
	struct toy_request *impossible = toy_request(&toy, 0, 10, 25),
	                   *busy = toy_request(&toy, 0, 10, 60);
	impossible->s.on_miss = busy->s.on_miss = ON_MISS_REJECT;
	/* Ten steps of 3 ms. */
	scheduler_foresee(&view, &toy.cost, &impossible->s, 0, &f);
	CHECK_INT(f.refusal, SCHEDULER_UNATTAINABLE);
	CHECK(f.alone.total_ms == 30);
	scheduler_foresee(&view, &toy.cost, &busy->s, 0, &f);
	CHECK_INT(f.refusal, SCHEDULER_ACCEPTED);
	CHECK(f.in_time && f.fits);
	/* Beside all twelve layers a step takes 14 ms. */
	ask(12, 100, 0);
	toy_turn(&toy);
	scheduler_view(toy.scheduler, &view);
	scheduler_foresee(&view, &toy.cost, &busy->s, toy.now_ms, &f);
	CHECK_INT(f.refusal, SCHEDULER_BUSY);
	toy_run(&toy);
	toy_close(&toy);
}

TEST(a_refusal_from_the_queue_says_what_was_predicted) {
	open_flat(64);
	/* Twelve layers run: with them ten steps take 140 ms, and alone at one layer 30. */
	ask(12, 100, 0);
	toy_turn(&toy);
	struct toy_request *impossible = toy_request(&toy, 0, 10, 25),
	                   *busy = toy_request(&toy, 0, 10, 60);
	impossible->s.on_miss = busy->s.on_miss = ON_MISS_REJECT;
	toy_arrive(&toy, impossible);
	toy_arrive(&toy, busy);
	toy_turn(&toy);
	CHECK_INT(impossible->refusal, SCHEDULER_UNATTAINABLE);
	CHECK(impossible->s.predicted.total_ms == 30);
	CHECK_INT(busy->refusal, SCHEDULER_BUSY);
	CHECK(busy->s.predicted.total_ms >= 140);
	toy_run(&toy);
	toy_close(&toy);
}

TEST(a_refusal_on_arrival_says_when_to_come_again) {
	open_flat(1);
	struct scheduler_view view;
	struct scheduler_foresight f;
	/* The only place is taken for 100 steps of 3 ms. */
	ask(1, 100, 0);
	toy_turn(&toy);
	scheduler_view(toy.scheduler, &view);
	struct toy_request *busy = toy_request(&toy, 1, 10, 60);
	busy->s.on_miss = ON_MISS_REJECT;
	scheduler_foresee(&view, &toy.cost, &busy->s, toy.now_ms, &f);
	CHECK_INT(f.refusal, SCHEDULER_BUSY);
	CHECK(f.retry_after_ms == 300 - toy.now_ms);
	toy_run(&toy);
	toy_close(&toy);
}

TEST(a_budget_lost_in_the_queue_is_refused_and_not_served_late) {
	open_flat(1);
	/* A single place, taken for 100 steps of 3 ms; alone the other would take 30 of its 200 ms. */
	ask(1, 100, 0);
	toy_turn(&toy);
	struct toy_request *late = toy_request(&toy, 1, 10, 200);
	late->s.on_miss = ON_MISS_REJECT;
	toy_arrive(&toy, late);
	while (late->s.at.waiting && toy_turn(&toy)) {
	}
	CHECK_INT(late->end, SCHEDULER_REFUSE);
	CHECK_INT(late->refusal, SCHEDULER_BUSY);
	/* At the first step after which 30 ms are too many, and not when its turn comes. */
	CHECK(toy.now_ms - late->s.arrival_ms > 170 && toy.now_ms - late->s.arrival_ms <= 177);
	/* What runs ends after 300 ms, and leaves its place. */
	CHECK(late->retry_after_ms == 300 - late->done_ms);
	toy_run(&toy);
	toy_close(&toy);
}

TEST(lost_requests_are_refused_once_enough_of_them_wait) {
	open_flat(1);
	struct scheduler_view view;
	struct scheduler_foresight f;
	struct toy_request *lost = toy_request(&toy, 1, 100, 200),
	                   *good = toy_request(&toy, 1, 5, 900);
	ask(1, 50, 0);
	toy_turn(&toy);
	scheduler_view(toy.scheduler, &view);
	scheduler_foresee(&view, &toy.cost, &lost->s, toy.now_ms, &f);
	CHECK_INT(f.refusal, SCHEDULER_ACCEPTED);
	CHECK(!f.in_time);
	/* A row of a busy engine is cheap here: 3 ms for 32. */
	for (int i = 0; i < 200; i++)
		ask(1, 100, 200);
	scheduler_view(toy.scheduler, &view);
	CHECK(view.backlog_ms > SCHEDULER_BACKLOG_MS);
	scheduler_foresee(&view, &toy.cost, &lost->s, toy.now_ms, &f);
	CHECK_INT(f.refusal, SCHEDULER_OVERLOADED);
	scheduler_foresee(&view, &toy.cost, &good->s, toy.now_ms, &f);
	CHECK_INT(f.refusal, SCHEDULER_ACCEPTED);
	toy_run(&toy);
	toy_close(&toy);
}

TEST(without_a_cost_model_all_join_in_order) {
	struct cost_model none = { .margin = 1, .margin_rescued = 1 };
	toy_open(&toy, &none, 2, 0);
	toy.machine = toy_flat_cost();
	struct toy_request *r[6];
	for (int i = 0; i < 6; i++)
		r[i] = ask(0, 5, i % 2 ? 50 : 0);
	toy_run(&toy);
	for (int i = 0; i < 6; i++) {
		CHECK_INT(r[i]->end, SCHEDULER_STEP);
		CHECK_INT(r[i]->rests + r[i]->s.changes, 0);
		CHECK(r[i]->s.predicted_ms < 0);
	}
	toy_close(&toy);
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
