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

/* A step of the learnt model, which took `ms` without a pause after the one before. */
static void learn(struct cost_learner *learner, struct cost_model *cost,
                const struct cost_step *step, double ms) {
	cost_learn_step(learner, cost, step, ms, learner->ended_ms + ms);
}

TEST(steps_at_two_depths_separate_constant_and_layers) {
	/* A model that thinks all is constant learns the slope from steps at two depths. */
	struct cost_model cost = { .constant_ms = 3, .margin = 1 };
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = 0.05;
	int shallow_count[LAYERS], deep_count[LAYERS];
	struct cost_step shallow = decode_step(1, 2, 0, shallow_count);
	struct cost_step deep = decode_step(1, LAYERS, 0, deep_count);
	struct cost_learner learner = { 0 };
	for (int i = 0; i < 5000; i++) {
		learn(&learner, &cost, &shallow, 1.0 + 2 * 0.4);
		learn(&learner, &cost, &deep, 1.0 + LAYERS * 0.4);
	}
	CHECK(near_to(cost.pace, 1, 0.02));
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

/* ---- two stacks ---- */

enum { ENCODER_LAYERS = 12, DECODER_LAYERS = 6 };

/* An encoder layer takes half of a decoder's, projecting a quarter; attention of a decode row 1 ms
 * for each layer and 1,024 keys, of a text 2. */
static struct cost_model flat_pair(void) {
	struct cost_model cost = { .constant_ms = 2,
		.class_ms = 0.5,
		.attention_ms = 1,
		.source_attention_ms = 2,
		.margin = 1 };
	for (int i = 0; i < COST_POINTS; i++) {
		cost.layer_ms[STACK_ENCODER][i] = 0.5;
		cost.layer_ms[STACK_DECODER][i] = 1;
		cost.cross_ms[i] = 0.25;
	}
	return cost;
}

static struct subnet pair(int encoder, int decoder) {
	struct subnet subnet = { 0 };
	plan_by_rule(PLAN_RULE_EVEN, ENCODER_LAYERS, encoder, &subnet.stack[STACK_ENCODER]);
	if (decoder > 0)
		plan_by_rule(PLAN_RULE_EVEN, DECODER_LAYERS, decoder, &subnet.stack[STACK_DECODER]);
	return subnet;
}

TEST(a_translation_is_one_reading_and_many_tokens) {
	struct cost_model cost = flat_pair();
	struct subnet subnet = pair(4, 3);
	struct cost_time time;
	static const struct cost_load idle;
	/* One source of 16 tokens, five beams, seven tokens. */
	struct cost_work work = { .subnet = &subnet,
		.prompt_tokens = 1,
		.longest_prompt = 1,
		.choices = 5,
		.output_tokens = 7,
		.sources = 1,
		.source_tokens = 16,
		.longest_source = 16,
		.source_tiles = 1,
		.source_attended = 16 * 16 / 1024.0 };
	cost_predict(&cost, &limits, &idle, &work, &time);
	/* The source, its projection and the first decoder row share a step. */
	double first = 2 + 4 * 0.5 + 3 * 0.25 + 3 * 1.0 + 2 * 4 * 16 * 16 / 1024.0;
	CHECK(near_to(time.first_ms, first, 1e-9));
	/* A row of a token sees 1 + 7 / 2 own keys on average, and 16 of the source. */
	double token = 2 + 3 + 3 * 5 * (1 + 3.5 + 16) / 1024;
	CHECK(near_to(time.token_ms, token, 1e-9));
	CHECK(near_to(time.total_ms, first + 6 * token, 1e-9));
}

TEST(texts_enter_whole_and_by_tiles) {
	struct cost_model cost = flat_pair();
	struct subnet subnet = pair(4, 0);
	struct cost_time time;
	struct cost_limits narrow = limits;
	static const struct cost_load idle;
	/* Twenty texts of 30 tokens: two fill a step of 64 rows. */
	struct cost_work work = { .subnet = &subnet,
		.sources = 20,
		.source_tokens = 600,
		.longest_source = 30,
		.source_tiles = 20 };
	cost_predict(&cost, &limits, &idle, &work, &time);
	CHECK(near_to(time.total_ms, 10 * 4, 1e-9));
	CHECK(near_to(time.first_ms, time.total_ms, 1e-9) && time.token_ms == 0);
	/* Of 40 tokens each, one. */
	work.source_tokens = 800;
	work.longest_source = 40;
	cost_predict(&cost, &limits, &idle, &work, &time);
	CHECK(near_to(time.total_ms, 20 * 4, 1e-9));
	/* Of 5 tokens each, twelve, but for the tiles: four steps of five. */
	work.source_tokens = 100;
	work.longest_source = 5;
	narrow.source_tiles = 5;
	cost_predict(&cost, &narrow, &idle, &work, &time);
	CHECK(near_to(time.total_ms, 4 * 4, 1e-9));
	/* Each step classifies five. */
	work.class_rows = 20;
	cost_predict(&cost, &narrow, &idle, &work, &time);
	CHECK(near_to(time.total_ms, 4 * (4 + 2.5), 1e-9));
}

TEST(sources_that_wait_before_are_counted) {
	struct cost_model cost = flat_pair();
	struct subnet subnet = pair(12, 6);
	struct cost_time time;
	struct cost_load load = { .pending_source = 64 };
	for (int l = 0; l < ENCODER_LAYERS; l++)
		load.pending_source_rows[l] = 64;
	for (int l = 0; l < DECODER_LAYERS; l++)
		load.pending_cross_rows[l] = 64;
	struct cost_work work = { .subnet = &subnet, .prompt_tokens = 8, .longest_prompt = 8 };
	cost_predict(&cost, &limits, &load, &work, &time);
	CHECK(near_to(time.total_ms, (2 + 6 + 1.5) + (2 + 6), 1e-9));
}

TEST(two_stacks_are_fitted_apart) {
	/* Encoder layers of 0.2 ms up to 8 rows and in proportion beyond, decoder layers of 0.5,
	 * projecting at a tenth of the encoder's; a text's attention 1.5, a decode row's 0.25. */
	struct cost_samples s;
	struct cost_model cost;
	cost_samples_init(&s);
	struct cost_points *e = &s.stack[STACK_ENCODER], *d = &s.stack[STACK_DECODER];
	double truth[COST_POINTS];
	for (int i = 0; i < COST_POINTS; i++) {
		int rows = cost_rows[i], text = rows < 40 ? rows : 40;
		double layer = truth[i] = 0.2 * (rows > 8 ? rows / 8.0 : 1);
		double attention = 1.5 * rows * text / 1024;
		e->deep[i] = ENCODER_LAYERS;
		e->shallow[i] = 1;
		e->text[i] = text;
		e->deep_ms[i] = 1 + 0.1 * layer + ENCODER_LAYERS * (layer + attention);
		e->shallow_ms[i] = 1 + 0.1 * layer + layer + attention;
		s.cross[i] = DECODER_LAYERS;
		s.cross_ms[i] = e->shallow_ms[i] + 5 * 0.1 * layer;
		d->deep[i] = DECODER_LAYERS;
		d->shallow[i] = 1;
		d->deep_ms[i] = 1 + DECODER_LAYERS * 0.5;
		d->shallow_ms[i] = 1 + 0.5;
	}
	s.attend_depth = DECODER_LAYERS;
	s.attend_context = 512;
	s.attend_near_ms = 4;
	s.attend_far_ms = 4 + DECODER_LAYERS * 0.25 / 2;
	s.chunk_rows = s.chunk_depth = s.chunk_context = 1;
	s.source_rows = 64;
	s.source_depth = ENCODER_LAYERS;
	s.source_context = 56;
	s.source_near_ms = 10;
	s.source_far_ms = 10 + 1.5 * ENCODER_LAYERS * 64 * 56 / 1024.0;
	cost_fit(&s, &cost);
	for (int i = 0; i < COST_POINTS; i++) {
		CHECK(near_to(cost.layer_ms[STACK_ENCODER][i], truth[i], 1e-6));
		CHECK(near_to(cost.cross_ms[i], 0.1 * truth[i], 1e-6));
	}
	CHECK(near_to(cost.layer_ms[STACK_DECODER][0], 0.5, 0.01));
	CHECK(near_to(cost.source_attention_ms, 1.5, 1e-6));
	CHECK(near_to(cost.attention_ms, 0.25, 1e-6));
	CHECK(near_to(cost.constant_ms, 1, 0.01));
}

TEST(an_encoder_alone_is_fitted) {
	struct cost_samples s;
	struct cost_model cost;
	cost_samples_init(&s);
	struct cost_points *e = &s.stack[STACK_ENCODER];
	for (int i = 0; i < COST_POINTS; i++) {
		e->deep[i] = ENCODER_LAYERS;
		e->shallow[i] = 1;
		e->deep_ms[i] = 1 + ENCODER_LAYERS * 0.5;
		e->shallow_ms[i] = 1.5;
	}
	s.class_ms = 0.25;
	cost_fit(&s, &cost);
	struct cost_time time;
	struct subnet subnet = pair(4, 0);
	static const struct cost_load idle;
	struct cost_work work = { .subnet = &subnet,
		.sources = 1,
		.source_tokens = 8,
		.longest_source = 8,
		.source_tiles = 1,
		.class_rows = 1 };
	cost_predict(&cost, &limits, &idle, &work, &time);
	CHECK(near_to(time.total_ms, 1 + 4 * 0.5 + 0.25, 1e-6));
	CHECK(near_to(cost_prefill_ms(&cost, (const int[STACKS]){ 4, 0 }), 3.0 / 128, 1e-6));
}

TEST(the_stack_that_was_wrong_is_mended) {
	/* The encoder takes twice as long as believed; steps without sources say that the decoder
	 * is right. */
	struct cost_model cost = flat_pair();
	int encoder[ENCODER_LAYERS], decoder[DECODER_LAYERS];
	for (int l = 0; l < ENCODER_LAYERS; l++)
		encoder[l] = 16;
	for (int l = 0; l < DECODER_LAYERS; l++)
		decoder[l] = 1;
	struct cost_step token = { .layers = { ENCODER_LAYERS, DECODER_LAYERS },
		.row_count = { NULL, decoder },
		.rows = 1 };
	struct cost_step source = token;
	source.row_count[STACK_ENCODER] = encoder;
	source.source_count = decoder;
	struct cost_learner learner = { 0 };
	for (int i = 0; i < 5000; i++) {
		learn(&learner, &cost, &token, 2 + 6);
		learn(&learner, &cost, &source, 2 + 6 + 12 * 1.0 + 1.5);
	}
	CHECK(near_to(cost.pace, 1, 0.02));
	CHECK(near_to(cost_step_ms(&cost, &token), 8, 0.02));
	CHECK(near_to(cost_step_ms(&cost, &source), 21.5, 0.02));
	/* At 16 rows: the sixth point. */
	CHECK(cost.layer_ms[STACK_ENCODER][5] > 0.9 && cost.layer_ms[STACK_ENCODER][5] < 1.1);
	CHECK(cost.layer_ms[STACK_DECODER][0] < 1.1);
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

TEST(translations_are_planned_by_their_sources) {
	struct cost_history history;
	struct cost_model cost = { .margin = 1 };
	cost_history_init(&history, &cost, 1.0);
	for (int i = 0; i < 500; i++)
		cost_learn_target(&history, &cost, 0.8 + 0.4 * noise());
	CHECK(cost.target_ratio > 1.1 && cost.target_ratio <= 1.2);
	/* One that ran away teaches nothing, and lengths over max_tokens are kept apart. */
	double before = cost.target_ratio, answers = cost.answer_ratio;
	for (int i = 0; i < COST_WINDOW; i++)
		cost_learn_target(&history, &cost, 200);
	CHECK(cost.target_ratio == before && cost.answer_ratio == answers);
}
