/* SPDX-License-Identifier: Apache-2.0 */
/* Ladders of depths. Expected rungs are worked out by hand. */
#include "server/ladder.h"

#include <math.h>

#include "server/scheduler.h"
#include "tests/check.h"

static const struct cost_limits limits = { .max_rows = 512, .prefill_rows = 128, .sequences = 64 };

static struct model two_stacks(int encoder, int decoder) {
	return (struct model){
		.facts = { .kind = KIND_SEQ2SEQ,
		                .stack = { { .layers = encoder }, { .layers = decoder } } }
	};
}

static void check_rungs(const struct ladder *ladder, int n, const int (*expected)[STACKS]) {
	CHECK_INT(ladder->n, n);
	for (int i = 0; i < n; i++) {
		CHECK_INT(ladder->rungs[i][STACK_ENCODER], expected[i][STACK_ENCODER]);
		CHECK_INT(ladder->rungs[i][STACK_DECODER], expected[i][STACK_DECODER]);
	}
}

/* ---- which rungs ---- */

TEST(twelve_and_six_layers_make_twelve_pairs) {
	static const int expected[12][STACKS] = { { 1, 1 }, { 2, 1 }, { 3, 2 }, { 4, 2 }, { 5, 3 },
		{ 6, 3 }, { 7, 4 }, { 8, 4 }, { 9, 5 }, { 10, 5 }, { 11, 6 }, { 12, 6 } };
	struct model model = two_stacks(12, 6);
	struct ladder ladder;
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_EVEN));
	check_rungs(&ladder, 12, expected);
	ladder_finish(&ladder);
}

TEST(the_deeper_stack_counts_the_rungs) {
	static const int expected[6][STACKS] = { { 1, 1 }, { 2, 2 }, { 2, 3 }, { 3, 4 }, { 4, 5 },
		{ 4, 6 } };
	struct model model = two_stacks(4, 6);
	struct ladder ladder;
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_PREFIX));
	check_rungs(&ladder, 6, expected);
	ladder_finish(&ladder);
}

TEST(one_stack_has_a_rung_for_each_depth) {
	struct model decoder = { .facts.stack[STACK_DECODER].layers = 3 };
	struct model encoder = { .facts = { .kind = KIND_ENCODER,
		                                 .stack[STACK_ENCODER].layers = 3 } };
	static const int of_decoder[3][STACKS] = { { 0, 1 }, { 0, 2 }, { 0, 3 } };
	static const int of_encoder[3][STACKS] = { { 1, 0 }, { 2, 0 }, { 3, 0 } };
	struct ladder ladder;
	CHECK(ladder_init(&ladder, &decoder, PLAN_RULE_EVEN));
	check_rungs(&ladder, 3, of_decoder);
	ladder_finish(&ladder);
	CHECK(ladder_init(&ladder, &encoder, PLAN_RULE_EVEN));
	check_rungs(&ladder, 3, of_encoder);
	ladder_finish(&ladder);
}

static struct depth_quality measured(int encoder, int decoder, const char *metric, double value) {
	struct depth_quality q = { .depth = decoder, .encoder_depth = encoder, .value = value };
	snprintf(q.metric, sizeof q.metric, "%s", metric);
	return q;
}

TEST(measured_pairs_that_others_beat_are_left_out) {
	/* With a decoder layer worth eight of the encoder's they cost 60, 54, 36, 30, 28 and 20.
	 * (6,6) is beaten by (12,3), (12,2) by (4,2). */
	struct depth_quality quality[] = { measured(12, 6, "bleu", 31.2),
		measured(6, 6, "bleu", 30.0), measured(12, 3, "bleu", 30.5),
		measured(6, 3, "bleu", 29.0), measured(12, 2, "bleu", 26.5),
		measured(4, 2, "bleu", 27.0) };
	static const int expected[4][STACKS] = { { 4, 2 }, { 6, 3 }, { 12, 3 }, { 12, 6 } };
	struct model model = two_stacks(12, 6);
	struct ladder ladder;
	model.quality = quality;
	model.n_quality = sizeof quality / sizeof quality[0];
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_EVEN));
	check_rungs(&ladder, 4, expected);
	ladder_finish(&ladder);
	/* Of a loss less is better: the cheapest beats all but (12,2). */
	for (size_t i = 0; i < model.n_quality; i++)
		strcpy(quality[i].metric, "loss");
	static const int by_loss[2][STACKS] = { { 4, 2 }, { 12, 2 } };
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_EVEN));
	check_rungs(&ladder, 2, by_loss);
	ladder_finish(&ladder);
}

TEST(one_measured_pair_is_no_ladder) {
	struct depth_quality quality[] = { measured(12, 6, "bleu", 31.2) };
	struct model model = two_stacks(12, 6);
	struct ladder ladder;
	model.quality = quality;
	model.n_quality = 1;
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_EVEN));
	CHECK_INT(ladder.n, 12);
	ladder_finish(&ladder);
}

TEST(a_plan_files_pairs_are_ordered_by_cost) {
	struct subnet tuned[] = {
		{ .stack = { { .of = 12, .depth = 6 }, { .of = 6, .depth = 3 } } },
		{ .stack = { { .of = 12, .depth = 12 }, { .of = 6, .depth = 3 } } },
		{ .stack = { { .of = 12, .depth = 4 }, { .of = 6, .depth = 2 } } }
	};
	static const int expected[4][STACKS] = { { 4, 2 }, { 6, 3 }, { 12, 3 }, { 12, 6 } };
	struct model model = two_stacks(12, 6);
	struct ladder ladder;
	struct subnet subnet;
	model.tuned = tuned;
	model.n_tuned = 3;
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_TUNED));
	check_rungs(&ladder, 4, expected);
	CHECK(ladder_subnet(&ladder, (const int[STACKS]){ 12, 6 }, &subnet));
	CHECK(!ladder_subnet(&ladder, (const int[STACKS]){ 6, 6 }, &subnet));
	ladder_finish(&ladder);
}

/* ---- walking it ---- */

/* Layers of either stack take 1 ms, a step 2 ms, projecting nothing. */
static struct cost_model flat_cost(void) {
	struct cost_model cost = {
		.constant_ms = 2, .margin = 1, .margin_rescued = 1, .fitted = true
	};
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_ENCODER][i] = cost.layer_ms[STACK_DECODER][i] = 1;
	return cost;
}

/* Five beams of ten tokens after a source of twenty. */
static struct scheduled request(const struct ladder *ladder) {
	return (struct scheduled){ .deadline_ms = INFINITY,
		.automatic = true,
		.may_step_down = true,
		.ladder = ladder,
		.min_depth = { 1, 1 },
		.max_depth = { 12, 6 },
		.places = 5,
		.work = { .prompt_tokens = 1,
		                .longest_prompt = 1,
		                .choices = 5,
		                .output_tokens = 10,
		                .sources = 1,
		                .source_tokens = 20,
		                .longest_source = 20,
		                .source_tiles = 1 } };
}

static struct scheduler_view idle_view(void) {
	return (struct scheduler_view){
		.limits = limits, .layers = { 12, 6 }, .overload_min_depth = 1
	};
}

static void check_choice(const struct scheduler_view *view, const struct scheduled *r, int encoder,
                int decoder, enum depth_reason reason, bool fits) {
	struct cost_model cost = flat_cost();
	struct scheduler_foresight f;
	scheduler_foresee(view, &cost, r, 0, &f);
	CHECK_INT(f.subnet.stack[STACK_ENCODER].depth, encoder);
	CHECK_INT(f.subnet.stack[STACK_DECODER].depth, decoder);
	CHECK_INT(f.reason, reason);
	CHECK(f.fits == fits);
}

TEST(a_budget_walks_down_the_pairs) {
	struct model model = two_stacks(12, 6);
	struct ladder ladder;
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_EVEN));
	struct scheduler_view view = idle_view();
	struct scheduled r = request(&ladder);
	/* Ten steps of 2 + d ms, the first with e ms more: 92 for (12,6), 56 for (6,3), 55 for
	 * (5,3); and a twentieth. */
	check_choice(&view, &r, 12, 6, REASON_DEFAULT, true);
	r.latency_ms = 97;
	check_choice(&view, &r, 12, 6, REASON_BUDGET, true);
	r.latency_ms = 58;
	check_choice(&view, &r, 5, 3, REASON_BUDGET, true);
	r.latency_ms = 20;
	check_choice(&view, &r, 1, 1, REASON_BUDGET, false);
	ladder_finish(&ladder);
}

TEST(rungs_are_moved_into_the_bounds) {
	struct model model = two_stacks(12, 6);
	struct ladder ladder;
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_EVEN));
	struct scheduler_view view = idle_view();
	struct scheduled r = request(&ladder);
	/* The whole encoder: what remains is the decoder's depth. 76 ms hold the 72 of (12,4). */
	r.min_depth[STACK_ENCODER] = 12;
	r.latency_ms = 76;
	check_choice(&view, &r, 12, 4, REASON_BUDGET, true);
	r.latency_ms = 20;
	check_choice(&view, &r, 12, 1, REASON_BUDGET, false);
	/* At most three layers of the decoder. */
	r = request(&ladder);
	r.max_depth[STACK_DECODER] = 3;
	check_choice(&view, &r, 12, 3, REASON_DEFAULT, true);
	ladder_finish(&ladder);
}

TEST(overload_goes_down_the_pairs) {
	struct model model = two_stacks(12, 6);
	struct ladder ladder;
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_EVEN));
	struct scheduler_view view = idle_view();
	struct scheduled r = request(&ladder);
	/* Half of eleven steps, rounded: six down. */
	view.waiting_places = 32;
	check_choice(&view, &r, 6, 3, REASON_OVERLOAD, true);
	view.waiting_places = 64;
	check_choice(&view, &r, 1, 1, REASON_OVERLOAD, true);
	/* Not below a decoder of two: that of (3,2). */
	view.overload_min_depth = 2;
	check_choice(&view, &r, 3, 2, REASON_OVERLOAD, true);
	ladder_finish(&ladder);
}

static bool always_fits(void *arg, const struct scheduled *r, const struct subnet *subnet) {
	(void)arg;
	(void)r;
	(void)subnet;
	return true;
}

TEST(stepping_down_leaves_the_encoder_alone) {
	struct cost_model cost = flat_cost();
	struct model model = two_stacks(12, 6);
	struct ladder ladder;
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_EVEN));
	struct scheduler_options options = { .limits = limits,
		.layers = { 12, 6 },
		.most_waiting = 1,
		.overload_min_depth = 1,
		.fits = always_fits };
	struct scheduler *scheduler = scheduler_create(&options);
	struct scheduler_action action;
	struct scheduled r = request(&ladder);
	r.latency_ms = 110;
	CHECK(scheduler_arrive(scheduler, &r, &cost, 0));
	scheduler_next(scheduler, &cost, 0, &action);
	CHECK_INT(action.verdict, SCHEDULER_JOIN);
	CHECK_INT(r.subnet.stack[STACK_DECODER].depth, 6);
	/* After a token 60 ms are left for nine steps of 2 + d: four layers. */
	r.progress = (struct scheduled_progress){
		.rows = 5, .keys = 105, .choices_left = 5, .tokens_out = 1, .first_out = true
	};
	scheduler_next(scheduler, &cost, 1, &action);
	CHECK_INT(action.verdict, SCHEDULER_STEP);
	scheduler_next(scheduler, &cost, 50, &action);
	CHECK_INT(action.verdict, SCHEDULER_NARROW);
	CHECK_INT(action.plan.of, 6);
	CHECK(action.plan.depth <= 4 && action.plan.depth >= 3);
	CHECK_INT(r.subnet.stack[STACK_ENCODER].depth, 12);
	scheduler_leave(scheduler, &r);
	scheduler_destroy(scheduler);
	ladder_finish(&ladder);
}
