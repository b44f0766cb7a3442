/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heads, and the embedding in bands: right against double precision; what is computed of an
 * adaptive softmax, and that it has the same bits whatever else is wanted.
 */
#include <math.h>

#include "model/model.h"
#include "tests/allocations.h"
#include "tests/check.h"
#include "tests/naive.h"
#include "tests/random_model.h"

enum { DIM = 48, CONTEXT = 64, VOCAB = 2900, ROWS = 40 };

static const struct facts masked_shape = {
	.kind = KIND_ENCODER,
	.vocab = 210,
	.context = CONTEXT,
	.tied_output = true,
	.output_bias = true,
	.mlm_head = true,
	.mlm_activation = ACTIVATION_GELU,
	.n_classifiers = 2,
	.classifiers = { { .name = "topic", .classes = 5, .activation = ACTIVATION_TANH },
	                { .name = "tone", .classes = 2, .activation = ACTIVATION_RELU } },
	.stack[STACK_ENCODER] = { .layers = 2,
	                .dim = DIM,
	                .heads = 3,
	                .ffn = 64,
	                .norm = NORM_PRE,
	                .final_norm = true,
	                .embedding_norm = true,
	                .activation = ACTIVATION_GELU },
};

/* Bands of one column of a panel, of more than one block of a softmax, and of a narrow width. */
static const struct facts adaptive_shape = {
	.kind = KIND_LM,
	.vocab = VOCAB,
	.context = CONTEXT,
	.input = { .n = 3, .end = { 1100, 1117, VOCAB }, .dim = { DIM, 12, 3 } },
	.output = { .n = 4, .end = { 1100, 1117, 1400, VOCAB }, .dim = { DIM, 12, 3, 7 } },
	.stack[STACK_DECODER] = { .layers = 3,
	                .dim = DIM,
	                .heads = 3,
	                .ffn = 64,
	                .norm = NORM_PRE,
	                .final_norm = true,
	                .activation = ACTIVATION_RELU,
	                .positions = POSITIONS_SINUSOIDAL,
	                .position_offset = 2,
	                .embed_scale = 2 },
};

struct engine {
	struct model *model;
	struct team *team;
	struct workspace *w;
	struct subnet subnet;
};

static struct engine engine_start(const struct ops *ops, const struct facts *shape, int threads) {
	char err[200] = "";
	struct engine e = { .model = random_model_of(ops, shape) };
	e.team = team_create(threads, err, sizeof err);
	e.w = e.team ? workspace_create(e.model,
	                      &(struct workspace_options){ .team = e.team,
	                                      .max_rows = ROWS,
	                                      .max_logit_rows = ROWS,
	                                      .max_sequences = 2,
	                                      .kv_bytes = 1 << 20 },
	                      err, sizeof err)
	             : NULL;
	if (!e.w)
		check_fail(__FILE__, __LINE__, "%s", err);
	for (int s = 0; s < STACKS; s++)
		if (shape->stack[s].layers)
			plan_by_rule(PLAN_RULE_EVEN, shape->stack[s].layers, 2, &e.subnet.stack[s]);
	return e;
}

static void engine_stop(struct engine *e) {
	workspace_destroy(e->w);
	team_destroy(e->team);
	random_model_destroy(e->model);
}

static const struct ops *best_table(void) {
	const struct ops *tables[CPU_LEVELS + 1];
	return tables[random_model_tables(tables) - 1];
}

static void random_text(const struct engine *e, uint64_t seed, int32_t *tokens, int n) {
	for (int i = 0; i < n; i++)
		tokens[i] = (int32_t)random_below(&seed, (unsigned)e->model->facts.vocab);
	if (e->model->facts.input.n > 0) { /* the last word of a band, and the first of the next */
		tokens[0] = 1099;
		tokens[1] = 1100;
		tokens[2] = 1116;
		tokens[3] = 1117;
		tokens[4] = VOCAB - 1;
	}
}

/* Sends a text of ROWS tokens through a step. */
static void run_text(struct engine *e, uint64_t seed, int32_t *ret_tokens) {
	bool decoder = e->model->facts.kind == KIND_LM;
	struct row rows[ROWS];
	random_text(e, seed, ret_tokens, ROWS);
	struct sequence *s = decoder ? sequence_open(e->w, &e->subnet, ROWS)
	                             : sequence_open_source(e->w, &e->subnet, 0, ROWS);
	CHECK(s);
	for (int i = 0; i < ROWS; i++)
		rows[i] = (struct row){ .sequence = s,
			.stack = decoder ? STACK_DECODER : STACK_ENCODER,
			.token = ret_tokens[i],
			.position = i };
	step_run(e->w, rows, ROWS);
	sequence_close(e->w, s);
}

static void all_rows(int *ret_indices) {
	for (int i = 0; i < ROWS; i++)
		ret_indices[i] = i;
}

static void check_near(const float *actual, const double *wanted, int n) {
	for (int i = 0; i < n; i++)
		if (!(fabs((double)actual[i] - wanted[i]) < 1e-4))
			check_fail(__FILE__, __LINE__, "number %d is %.7g, expected %.7g", i,
			                (double)actual[i], wanted[i]);
}

/* Scores of all rows against double precision. */
static void check_scores(struct engine *e, const int32_t *tokens) {
	static double states[ROWS * DIM], scores[VOCAB];
	enum stack stack = e->model->facts.kind == KIND_LM ? STACK_DECODER : STACK_ENCODER;
	naive_run(e->model, stack, &e->subnet.stack[stack], tokens, NULL, ROWS, NULL, 0, states);
	int indices[ROWS];
	all_rows(indices);
	const float *logits = step_logits(e->w, indices, ROWS);
	for (int i = 0; i < ROWS; i++) {
		naive_scores(e->model, states + i * DIM, scores);
		check_near(logits + (size_t)i * step_logits_stride(e->w), scores,
		                e->model->facts.vocab);
	}
}

TEST(the_masked_language_head_agrees_with_double_precision) {
	struct engine e = engine_start(best_table(), &masked_shape, 2);
	int32_t tokens[ROWS];
	run_text(&e, 1, tokens);
	check_scores(&e, tokens);
	engine_stop(&e);
}

TEST(classifiers_agree_with_double_precision) {
	struct engine e = engine_start(best_table(), &masked_shape, 2);
	int32_t tokens[ROWS];
	static double states[ROWS * DIM], classes[5];
	run_text(&e, 2, tokens);
	naive_run(e.model, STACK_ENCODER, &e.subnet.stack[STACK_ENCODER], tokens, NULL, ROWS, NULL,
	                0, states);
	for (int which = 0; which < 2; which++) {
		int rows[] = { 0, 17, 39, 3 };
		const float *scores = step_classes(e.w, which, rows, 4);
		for (int i = 0; i < 4; i++) {
			naive_classes(e.model, which, states + rows[i] * DIM, classes);
			check_near(scores + (size_t)i * step_classes_stride(e.w), classes,
			                masked_shape.classifiers[which].classes);
		}
	}
	/* A head leaves the states alone. */
	float before[DIM];
	memcpy(before, step_hidden(e.w, 5), sizeof before);
	check_near(before, states + 5 * DIM, DIM);
	step_logits(e.w, (int[]){ 5 }, 1);
	CHECK(memcmp(before, step_hidden(e.w, 5), sizeof before) == 0);
	engine_stop(&e);
}

TEST(a_row_of_a_head_does_not_depend_on_the_others) {
	struct engine e = engine_start(best_table(), &masked_shape, 2);
	int32_t tokens[ROWS];
	static float scores[ROWS][210], classes[ROWS][5];
	int indices[ROWS];
	run_text(&e, 3, tokens);
	all_rows(indices);
	const float *got = step_logits(e.w, indices, ROWS);
	for (int i = 0; i < ROWS; i++)
		memcpy(scores[i], got + (size_t)i * step_logits_stride(e.w), sizeof scores[i]);
	got = step_classes(e.w, 0, indices, ROWS);
	for (int i = 0; i < ROWS; i++)
		memcpy(classes[i], got + (size_t)i * step_classes_stride(e.w), sizeof classes[i]);
	for (int i = 0; i < ROWS; i += 7) {
		CHECK(memcmp(step_logits(e.w, &i, 1), scores[i], sizeof scores[i]) == 0);
		CHECK(memcmp(step_classes(e.w, 0, &i, 1), classes[i], sizeof classes[i]) == 0);
	}
	engine_stop(&e);
}

/* ---- bands ---- */

TEST(an_adaptive_softmax_agrees_with_double_precision) {
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables);
	for (int t = 0; t < n; t++) {
		struct engine e = engine_start(tables[t], &adaptive_shape, t + 1);
		int32_t tokens[ROWS];
		run_text(&e, 4, tokens);
		check_scores(&e, tokens);
		engine_stop(&e);
	}
}

TEST(openblas_agrees_with_double_precision) {
	if (!ops_blas())
		SKIP("built without OpenBLAS");
	struct engine e = engine_start(ops_blas(), &adaptive_shape, 2);
	int32_t tokens[ROWS];
	run_text(&e, 4, tokens);
	check_scores(&e, tokens);
	engine_stop(&e);
	e = engine_start(ops_blas(), &masked_shape, 2);
	run_text(&e, 4, tokens);
	check_scores(&e, tokens);
	engine_stop(&e);
}

static float full[ROWS][VOCAB], other[ROWS][VOCAB];

static void take_scores(struct engine *e, const int *indices, const struct logit_need *needs, int n,
                float (*ret)[VOCAB]) {
	const float *scores = step_logits_needed(e->w, indices, needs, n);
	for (int i = 0; i < n; i++)
		memcpy(ret[i], scores + (size_t)i * step_logits_stride(e->w), sizeof *ret);
}

TEST(bands_have_the_same_bits_at_every_level_and_with_any_number_of_threads) {
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables), indices[ROWS];
	int32_t tokens[ROWS];
	all_rows(indices);
	for (int t = 0; t <= n; t++) {
		struct engine e = engine_start(tables[t % n], &adaptive_shape, t + 1);
		run_text(&e, 5, tokens);
		take_scores(&e, indices, NULL, ROWS, t ? other : full);
		if (t > 0)
			CHECK(memcmp(full, other, sizeof full) == 0);
		engine_stop(&e);
	}
}

TEST(a_token_is_embedded_alike_among_tokens_of_all_bands) {
	struct engine e = engine_start(best_table(), &adaptive_shape, 2);
	int32_t tokens[ROWS];
	int indices[ROWS];
	run_text(&e, 6, tokens);
	all_rows(indices);
	take_scores(&e, indices, NULL, ROWS, full);
	struct sequence *s = sequence_open(e.w, &e.subnet, ROWS);
	for (int i = 0; i < ROWS; i++) {
		step_run(e.w,
		                &(struct row){ .sequence = s,
		                                .stack = STACK_DECODER,
		                                .token = tokens[i],
		                                .position = i },
		                1);
		take_scores(&e, (int[]){ 0 }, NULL, 1, other + i);
	}
	sequence_close(e.w, s);
	CHECK(memcmp(full, other, sizeof full) == 0);
	engine_stop(&e);
}

static int by_falling_score(const void *a, const void *b) {
	float x = *(const float *)a, y = *(const float *)b;
	return (x < y) - (x > y);
}

/* The n-th best of a row of all scores. */
static float nth_best(const float *row, int n) {
	static float sorted[VOCAB];
	memcpy(sorted, row, sizeof sorted);
	qsort(sorted, VOCAB, sizeof *sorted, by_falling_score);
	return sorted[n - 1];
}

/* Scores that are there are those of the full row; those that are needed are there. */
static int check_needed(const float *row, const float *all, const struct logit_need *need) {
	int computed = 0;
	for (int i = 0; i < VOCAB; i++) {
		CHECK(row[i] == -INFINITY || memcmp(&row[i], &all[i], sizeof *row) == 0);
		computed += row[i] != -INFINITY;
	}
	float least = need->top > 0 ? nth_best(all, need->top) : INFINITY;
	for (int i = 0; i < VOCAB; i++)
		CHECK(row[i] == all[i] || !(need->top < 0 || all[i] >= least || i == need->target));
	return computed;
}

TEST(what_is_needed_is_computed_and_has_the_same_bits_whatever_the_others_need) {
	struct engine e = engine_start(best_table(), &adaptive_shape, 2);
	int32_t tokens[ROWS];
	int indices[ROWS], complete = 0, partial = 0;
	uint64_t state = 11;
	run_text(&e, 7, tokens);
	all_rows(indices);
	take_scores(&e, indices, NULL, ROWS, full);
	for (int round = 0; round < 30; round++) {
		static const int tops[] = { 0, 0, 1, 1, 2, 5, 20, 64, 65, 2000, -1 };
		struct logit_need needs[ROWS];
		int n = 1 + (int)random_below(&state, ROWS);
		for (int i = 0; i < n; i++) {
			indices[i] = (int)random_below(&state, ROWS);
			needs[i].top = tops[random_below(&state, 11)];
			needs[i].target = (int32_t)random_below(&state, VOCAB + 1) - 1;
		}
		take_scores(&e, indices, needs, n, other);
		for (int i = 0; i < n; i++) {
			int computed = check_needed(other[i], full[indices[i]], &needs[i]);
			complete += computed == VOCAB;
			partial += 1100 < computed && computed < VOCAB;
			/* Alone it is the same, also in what is missing. */
			static float alone[1][VOCAB];
			if (i % 8 == 0) {
				take_scores(&e, &indices[i], &needs[i], 1, alone);
				CHECK(memcmp(alone[0], other[i], sizeof alone[0]) == 0);
			}
		}
	}
	CHECK(complete > 0 && partial > 0);
	engine_stop(&e);
}

TEST(the_first_and_the_last_word_of_a_band_can_be_the_target) {
	static const int32_t targets[] = { 0, 1099, 1100, 1116, 1117, 1399, 1400, VOCAB - 1 };
	struct engine e = engine_start(best_table(), &adaptive_shape, 1);
	int32_t tokens[ROWS];
	run_text(&e, 7, tokens);
	take_scores(&e, (int[]){ 9 }, NULL, 1, full);
	for (int i = 0; i < 8; i++) {
		struct logit_need need = { .target = targets[i] };
		take_scores(&e, (int[]){ 9 }, &need, 1, other);
		check_needed(other[0], full[0], &need);
	}
	engine_stop(&e);
}

/* Makes the words of the head certain, and so the bands behind it needless. */
static void prefer_head(struct model *model) {
	float *bias = calloc((size_t)VOCAB, sizeof *bias);
	CHECK(bias);
	for (int i = 0; i < adaptive_shape.output.end[0]; i++)
		bias[i] = (float)i;
	model->weights.adaptive.words.bias = bias;
}

TEST(a_band_below_the_best_word_and_above_the_others_is_needed_for_more_than_one) {
	struct engine e = engine_start(best_table(), &adaptive_shape, 2);
	float *words = calloc(1100, sizeof *words), classes[3] = { 40, 0, 40 };
	CHECK(words);
	words[7] = 80;
	e.model->weights.adaptive.words.bias = words;
	e.model->weights.adaptive.classes.bias = classes;
	int32_t tokens[ROWS];
	int indices[ROWS];
	struct logit_need needs[ROWS];
	all_rows(indices);
	run_text(&e, 10, tokens);
	take_scores(&e, indices, NULL, ROWS, full);
	for (int i = 0; i < ROWS; i++)
		needs[i] = (struct logit_need){ .top = 1 + i, .target = -1 };
	take_scores(&e, indices, needs, ROWS, other);
	CHECK_INT(check_needed(other[0], full[0], &needs[0]), 1100);
	for (int i = 1; i < ROWS; i++)
		CHECK(check_needed(other[i], full[i], &needs[i]) > 1100);
	free(words);
	engine_stop(&e);
}

/* A kernel table that counts the panels of the tails that are read. */
static const struct ops *counted_ops;
static const struct model *counted_model;
static int tail_panels[3];

static void counting_linear(const struct linear *l, int first_panel, int end_panel) {
	for (int t = 0; t < 3; t++)
		if (l->w->data == counted_model->weights.adaptive.tail[t].w.data)
			__atomic_fetch_add(
			                &tail_panels[t], end_panel - first_panel, __ATOMIC_RELAXED);
	counted_ops->formats[WEIGHTS_F32].linear(l, first_panel, end_panel);
}

TEST(bands_that_cannot_matter_are_not_read_and_others_once) {
	struct ops counting = *best_table();
	counted_ops = best_table();
	counting.formats[WEIGHTS_F32].linear = counting_linear;
	struct engine e = engine_start(&counting, &adaptive_shape, 2);
	counted_model = e.model;
	const struct adaptive_weights *w = &e.model->weights.adaptive;
	int32_t tokens[ROWS];
	int indices[ROWS];
	struct logit_need needs[ROWS];
	all_rows(indices);
	run_text(&e, 8, tokens);
	step_logits(e.w, indices, ROWS);
	for (int t = 0; t < 3; t++)
		CHECK_INT(tail_panels[t], w->tail[t].w.n_panels);

	prefer_head(e.model);
	memset(tail_panels, 0, sizeof tail_panels);
	for (int i = 0; i < ROWS; i++)
		needs[i] = (struct logit_need){ .top = 1 + i % 30, .target = i % 1100 };
	take_scores(&e, indices, needs, ROWS, other);
	for (int t = 0; t < 3; t++)
		CHECK_INT(tail_panels[t], 0);
	for (int i = 0; i < ROWS; i++)
		for (int k = 0; k < VOCAB; k++)
			CHECK((other[i][k] == -INFINITY) == (k >= 1100));

	needs[3].target = 1399;
	needs[30].target = 1117;
	take_scores(&e, indices, needs, ROWS, other);
	CHECK_INT(tail_panels[0], 0);
	CHECK_INT(tail_panels[1], w->tail[1].w.n_panels);
	CHECK_INT(tail_panels[2], 0);
	free((void *)e.model->weights.adaptive.words.bias);
	engine_stop(&e);
}

TEST(heads_allocate_nothing) {
	struct engine e = engine_start(best_table(), &adaptive_shape, 2);
	struct engine masked = engine_start(best_table(), &masked_shape, 2);
	int32_t tokens[ROWS];
	int indices[ROWS];
	struct logit_need need = { .top = 1, .target = 2000 };
	all_rows(indices);
	int before = allocations();
	CHECK(before > 0); /* the counter is linked in */
	run_text(&e, 9, tokens);
	step_logits(e.w, indices, ROWS);
	step_logits_needed(e.w, indices, &need, 1);
	run_text(&masked, 9, tokens);
	step_logits(masked.w, indices, ROWS);
	step_classes(masked.w, 1, indices, ROWS);
	CHECK_INT(allocations() - before, 0);
	engine_stop(&e);
	engine_stop(&masked);
}
