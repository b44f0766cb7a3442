/* SPDX-License-Identifier: Apache-2.0 */
/* The cost model against machines that the test invents. */
#include "server/cost.h"

#include <math.h>

#include "tests/check.h"

enum { LAYERS = 12 };

static bool near_to(double a, double b, double tolerance) {
	return fabs(a - b) <= tolerance * fabs(b);
}

static uint64_t noise_state = 1;

/* Uniform in [0, 1). */
static double noise(void) {
	noise_state = noise_state * 6364136223846793005u + 1442695040888963407u;
	return (double)(noise_state >> 11) / (double)(1ull << 53);
}

/* An invented machine: free rows up to a ridge of 10, then in proportion. */
static double machine_layer(int rows) {
	return 0.5 * (rows > 10 ? rows / 10.0 : 1);
}

static double machine_step(int depth, int rows, double attended, int logit_rows) {
	return 0.3 + depth * machine_layer(rows) + 0.25 * attended + 0.1 * logit_rows;
}

/* What warm-up would measure on it; no attention in the chunks, so that sums stay simple. */
static struct cost_samples machine_samples(void) {
	struct cost_samples s;
	cost_samples_init(&s);
	s.attend_depth = LAYERS;
	s.attend_context = 512;
	s.spread = 1.1;
	struct cost_points *p = &s.stack[STACK_DECODER];
	for (int i = 0; i < COST_POINTS; i++) {
		p->deep[i] = LAYERS;
		p->shallow[i] = 1;
		p->deep_ms[i] = machine_step(LAYERS, cost_rows[i], 0, 0);
		p->shallow_ms[i] = machine_step(1, cost_rows[i], 0, 0);
		s.head_ms[i] = 0.1 * cost_rows[i];
	}
	s.attend_near_ms = machine_step(LAYERS, 1, 0, 0);
	s.attend_far_ms = machine_step(LAYERS, 1, LAYERS * 512.0 / 1024, 0);
	/* Chunks attend for nothing on this machine. */
	s.chunk_rows = 64;
	s.chunk_depth = LAYERS;
	s.chunk_context = 512;
	s.chunk_near_ms = s.chunk_far_ms = 10;
	return s;
}

static struct cost_step decode_step(int rows, int depth, double context, int *count) {
	for (int l = 0; l < LAYERS; l++)
		count[l] = l < depth ? rows : 0;
	return (struct cost_step){ .layers = { [STACK_DECODER] = LAYERS },
		.row_count = { [STACK_DECODER] = count },
		.rows = rows,
		.logit_rows = rows,
		.attended = rows * depth * context / 1024 };
}

TEST(a_fitted_model_predicts_the_machine_it_was_measured_on) {
	struct cost_samples s = machine_samples();
	struct cost_model cost;
	int count[LAYERS];
	cost_fit(&s, &cost);
	CHECK(cost.fitted);
	/* At measured points, and between them on either side of the ridge. */
	static const int rows[] = { 1, 3, 8, 32, 64, 100, 128, 300 };
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		for (int depth = 1; depth <= LAYERS; depth += 5) {
			struct cost_step step = decode_step(rows[i], depth, 100, count);
			double truth = machine_step(depth, rows[i], step.attended, rows[i]);
			CHECK(near_to(cost_step_ms(&cost, &step), truth, 0.02));
		}
	}
}

TEST(mixed_depths_cost_each_layer_at_its_own_rows) {
	struct cost_samples s = machine_samples();
	struct cost_model cost;
	cost_fit(&s, &cost);
	int count[LAYERS] = { 32, 32, 32, 8, 8, 8 };
	struct cost_step step = { .layers = { [STACK_DECODER] = LAYERS },
		.row_count = { [STACK_DECODER] = count },
		.rows = 32 };
	double truth = 0.3 + 3 * machine_layer(32) + 3 * machine_layer(8);
	CHECK(near_to(cost_step_ms(&cost, &step), truth, 0.02));
}

TEST(rows_beyond_the_table_go_on_in_proportion) {
	struct cost_samples s = machine_samples();
	struct cost_model cost;
	int count[LAYERS];
	cost_fit(&s, &cost);
	struct cost_step step = decode_step(1024, LAYERS, 0, count);
	CHECK(near_to(cost_step_ms(&cost, &step), machine_step(LAYERS, 1024, 0, 1024), 0.02));
}

TEST(points_that_were_not_measured_are_filled_in) {
	struct cost_samples s = machine_samples();
	struct cost_model cost;
	int count[LAYERS];
	for (int i = 7; i < COST_POINTS; i++) {
		s.stack[STACK_DECODER].deep[i] = 0;
		s.head_ms[i] = -1;
	}
	s.stack[STACK_DECODER].deep[3] = 0;
	s.head_ms[3] = -1;
	cost_fit(&s, &cost);
	struct cost_step few = decode_step(8, LAYERS, 0, count);
	CHECK(near_to(cost_step_ms(&cost, &few), machine_step(LAYERS, 8, 0, 8), 0.1));
	struct cost_step many = decode_step(128, LAYERS, 0, count);
	CHECK(near_to(cost_step_ms(&cost, &many), machine_step(LAYERS, 128, 0, 128), 0.05));
}

TEST(noise_never_makes_time_negative_or_more_rows_cheaper) {
	for (int round = 0; round < 200; round++) {
		struct cost_samples s = machine_samples();
		struct cost_model cost;
		for (int i = 0; i < COST_POINTS; i++) {
			s.stack[STACK_DECODER].deep_ms[i] *= 0.2 + 2 * noise();
			s.stack[STACK_DECODER].shallow_ms[i] *= 0.2 + 2 * noise();
			s.head_ms[i] *= 0.2 + 2 * noise();
		}
		s.attend_far_ms *= 0.2 + noise();
		cost_fit(&s, &cost);
		CHECK(cost.constant_ms >= 0 && cost.row_ms >= 0 && cost.attention_ms >= 0);
		const double *layer = cost.layer_ms[STACK_DECODER];
		for (int i = 0; i < COST_POINTS; i++) {
			CHECK(layer[i] > 0 && isfinite(layer[i]) && cost.head_ms[i] > 0);
			CHECK(i == 0 || layer[i] >= layer[i - 1]);
		}
	}
}

TEST(measured_attention_stays_near_its_share_of_the_weights) {
	struct cost_samples s = machine_samples();
	struct cost_model cost;
	s.stack[STACK_DECODER].attend_share = 0.5;
	s.attend_far_ms = 1e6;
	cost_fit(&s, &cost);
	/* A row costs at most 8 x half of what a layer's weights cost it: (0.3 + 12 x 0.5) / 12. */
	CHECK(near_to(cost.attention_ms, 8 * 0.5 * 6.3 / 12, 0.001));
}

TEST(refinement_follows_a_machine_that_becomes_slower) {
	struct cost_samples s = machine_samples();
	struct cost_model cost;
	int count[LAYERS];
	cost_fit(&s, &cost);
	struct cost_step step = decode_step(1, LAYERS, 200, count);
	double slow = 1.6 * cost_step_ms(&cost, &step);
	for (int i = 0; i < 1000; i++)
		cost_refine(&cost, &step, slow * (0.95 + 0.1 * noise()), 0.02);
	CHECK(near_to(cost_step_ms(&cost, &step), slow, 0.05));
}

TEST(refinement_learns_the_mean_but_no_hiccup_counts_for_much) {
	struct cost_samples s = machine_samples();
	struct cost_model cost;
	int count[LAYERS];
	cost_fit(&s, &cost);
	struct cost_step step = decode_step(1, LAYERS, 200, count);
	double truth = cost_step_ms(&cost, &step);
	/* One step in ten takes twice as long: the mean is 1.1. */
	for (int i = 0; i < 5000; i++)
		cost_refine(&cost, &step, truth * (noise() < 0.1 ? 2 : 1), 0.02);
	CHECK(near_to(cost_step_ms(&cost, &step), 1.1 * truth, 0.05));
	/* One that takes a thousand times as long moves it by a few per cent. */
	double before = cost_step_ms(&cost, &step);
	cost_refine(&cost, &step, 1000 * truth, 0.02);
	CHECK(cost_step_ms(&cost, &step) < 1.05 * before);
}

TEST(refinement_at_two_depths_separates_constant_and_layers) {
	/* A model that thinks all is constant learns the slope from steps at two depths. */
	struct cost_model cost = { .constant_ms = 3, .margin = 1 };
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = 0.05;
	int shallow_count[LAYERS], deep_count[LAYERS];
	struct cost_step shallow = decode_step(1, 2, 0, shallow_count);
	struct cost_step deep = decode_step(1, LAYERS, 0, deep_count);
	for (int i = 0; i < 20000; i++) {
		cost_refine(&cost, &shallow, 1.0 + 2 * 0.4, 0.02);
		cost_refine(&cost, &deep, 1.0 + LAYERS * 0.4, 0.02);
	}
	CHECK(near_to(cost_step_ms(&cost, &shallow), 1.8, 0.05));
	CHECK(near_to(cost_step_ms(&cost, &deep), 5.8, 0.05));
}

/* ---- whole requests ---- */

static const struct cost_limits limits = { .max_rows = 64, .prefill_rows = 16, .sequences = 8 };

static struct cost_model flat_cost(void) {
	struct cost_model cost = { .constant_ms = 2, .margin = 1 };
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = 1;
	return cost;
}

TEST(a_request_is_its_prompt_steps_and_its_token_steps) {
	struct cost_model cost = flat_cost();
	struct subnet subnet = { 0 };
	struct cost_time time;
	static const struct cost_load idle;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, 4, &subnet.stack[STACK_DECODER]);
	/* 130 tokens are three chunks of at most 64; the last gives the first of five tokens. */
	struct cost_work work = { .subnet = &subnet,
		.prompt_tokens = 130,
		.longest_prompt = 130,
		.choices = 1,
		.output_tokens = 5 };
	cost_predict(&cost, &limits, &idle, &work, &time);
	CHECK(near_to(time.first_ms, 3 * 6, 1e-9));
	CHECK(near_to(time.token_ms, 6, 1e-9));
	CHECK(near_to(time.total_ms, 3 * 6 + 4 * 6, 1e-9));
}

TEST(beside_running_rows_chunks_are_smaller) {
	struct cost_model cost = flat_cost();
	struct subnet subnet = { 0 };
	struct cost_time time;
	struct cost_load load = { .decode_rows = 2 };
	for (int l = 0; l < LAYERS; l++)
		load.rows[l] = 2;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, 4, &subnet.stack[STACK_DECODER]);
	struct cost_work work = { .subnet = &subnet, .prompt_tokens = 32, .longest_prompt = 32 };
	cost_predict(&cost, &limits, &load, &work, &time);
	/* Two chunks of 16, in steps that read all twelve layers for the others. */
	CHECK(near_to(time.total_ms, 2 * 14, 1e-9));
}

TEST(prompts_that_wait_before_are_counted) {
	struct cost_model cost = flat_cost();
	struct subnet subnet = { 0 };
	struct cost_time time;
	struct cost_load load = { .pending = 64 };
	for (int l = 0; l < LAYERS; l++)
		load.pending_rows[l] = 64;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, 4, &subnet.stack[STACK_DECODER]);
	struct cost_work work = { .subnet = &subnet, .prompt_tokens = 32, .longest_prompt = 32 };
	cost_predict(&cost, &limits, &load, &work, &time);
	CHECK(near_to(time.total_ms, 14 + 6, 1e-9));
}

TEST(more_choices_than_places_run_in_waves) {
	struct cost_model cost = flat_cost();
	struct subnet subnet = { 0 };
	struct cost_time time;
	static const struct cost_load idle;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, 4, &subnet.stack[STACK_DECODER]);
	struct cost_work work = { .subnet = &subnet,
		.prompt_tokens = 10,
		.longest_prompt = 10,
		.choices = 16,
		.output_tokens = 10 };
	cost_predict(&cost, &limits, &idle, &work, &time);
	CHECK(near_to(time.total_ms, 6 + 6 * 19, 1e-9));
}

/* ---- learning ---- */

TEST(the_margin_is_a_high_quantile_of_recent_ratios) {
	struct cost_history history;
	struct cost_model cost = { .margin = 1 };
	cost_history_init(&history, &cost, 1.0);
	CHECK(cost.margin >= 1 && cost.margin <= 1.05);
	for (int i = 0; i < 1000; i++)
		cost_learn_ratio(&history, &cost, 1 + 0.5 * noise());
	CHECK(cost.margin > 1.4 && cost.margin < 1.5);
	CHECK(near_to(cost.error_p50, 0.25, 0.4));
	for (int i = 0; i < COST_WINDOW; i++)
		cost_learn_ratio(&history, &cost, 0.8);
	CHECK(cost.margin >= 1 && cost.margin < 1.05);
	CHECK(near_to(cost.error_p95, 0.2, 1e-9));
}

TEST(requests_that_can_be_rescued_need_less_margin) {
	struct cost_history history;
	struct cost_model cost = { .margin = 1 };
	cost_history_init(&history, &cost, 1.0);
	for (int i = 0; i < 1000; i++)
		cost_learn_ratio(&history, &cost, 1 + 0.5 * noise());
	CHECK(cost.margin_rescued > 1.25 && cost.margin_rescued < cost.margin);
}

TEST(a_loaded_machine_is_fitted_at_its_level) {
	struct cost_samples s = machine_samples();
	struct cost_model quiet, loaded;
	int count[LAYERS];
	cost_fit(&s, &quiet);
	s.level = 1.5;
	cost_fit(&s, &loaded);
	struct cost_step step = decode_step(12, LAYERS, 200, count);
	CHECK(near_to(cost_step_ms(&loaded, &step), 1.5 * cost_step_ms(&quiet, &step), 1e-9));
}

TEST(one_hiccup_does_not_move_the_margin) {
	struct cost_history history;
	struct cost_model cost = { .margin = 1 };
	cost_history_init(&history, &cost, 1.05);
	double before = cost.margin;
	cost_learn_ratio(&history, &cost, 30);
	CHECK(cost.margin < before + 0.01);
}

TEST(answer_lengths_are_planned_at_a_high_quantile) {
	struct cost_history history;
	struct cost_model cost = { .margin = 1 };
	cost_history_init(&history, &cost, 1.0);
	for (int i = 0; i < 500; i++)
		cost_learn_length(&history, &cost, 0.5 * noise());
	CHECK(cost.answer_ratio > 0.35 && cost.answer_ratio < 0.5);
}
