/* SPDX-License-Identifier: Apache-2.0 */
/* Warm-up measurements, several runs for every figure. */
#include "server/warmup.h"

#include <stdlib.h>

#include "server/clock.h"
#include "server/warmup_parts.h"

#define POINT_MS 60.0 /* aim for one depth of one row count, all runs together */
/* What each part may take. Two stacks share the first. */
#define LAYERS_MS 1500.0
#define TWO_STACKS_MS 2200.0
#define HEAD_MS 400.0
#define ATTENTION_MS 600.0

enum { MOST_RUNS = 9, LEAST_RUNS = 3, CHUNK = 64, FAR = 512 };
enum { LONG_TEXT = 128, SHORT_TEXTS = 8, CLASS_ROWS = 8, BEAM_TOP = 13 /* of five beams */ };

static void begin_part(struct warmup *w, double ms) {
	w->until_ns = clock_now_ns() + (int64_t)(ms * 1e6);
}

static bool may_go_on(const struct warmup *w) {
	return w->keep_going(w->arg) && clock_now_ns() < w->until_ns;
}

/* ---- runs ---- */

struct runs {
	double ms[MOST_RUNS];
	int n;
};

static int compare_doubles(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* The second least of many runs, the least of few: noise only adds, and the shape of the table
 * must not be the noise's. How much it adds is kept apart. */
static double low_quantile(struct warmup *w, struct runs *runs) {
	if (runs->n == 0)
		return -1;
	qsort(runs->ms, (size_t)runs->n, sizeof runs->ms[0], compare_doubles);
	double low = runs->ms[runs->n >= 5 ? 1 : 0];
	double middle = runs->ms[(runs->n - 1) / 2];
	if (runs->n >= 5 && low > 0) {
		w->levels[w->counted % MOST_FIGURES] = middle / low;
		w->spread_sum += runs->ms[runs->n - 2] / middle;
		w->counted++;
	}
	return low;
}

/* The median: long steps that are interrupted whatever happens say nothing about short ones. */
static double middle_level(struct warmup *w) {
	int n = w->counted < MOST_FIGURES ? w->counted : MOST_FIGURES;
	if (n == 0)
		return 1;
	qsort(w->levels, (size_t)n, sizeof w->levels[0], compare_doubles);
	return w->levels[(n - 1) / 2];
}

/* Runs that fit the aim, given how long the first took. */
static int runs_for(double first_ms) {
	int n = first_ms > 0 ? (int)(POINT_MS / first_ms) : MOST_RUNS;
	return n > MOST_RUNS ? MOST_RUNS : n < LEAST_RUNS ? LEAST_RUNS : n;
}

/* ---- layers ---- */

/* The deep and the shallow depth take turns, so that a drift of the machine hits both. An encoder
 * is measured with one decoder layer to project for, and once more with all of them. */
static void measure_point(struct warmup *w, enum stack stack, int point, double expected_ms,
                struct cost_samples *samples) {
	struct cost_points *points = &samples->stack[stack];
	int layers = warmup_stack(w, stack)->layers, rows = cost_rows[point];
	int deep = layers;
	if (expected_ms > POINT_MS && layers > 2) {
		deep = (int)(layers * POINT_MS / expected_ms);
		deep = deep < 2 ? 2 : deep;
	}
	int shallow = deep > 1 ? 1 : deep;
	int cross = warmup_has_pairs(w) && stack == STACK_ENCODER
	                ? warmup_stack(w, STACK_DECODER)->layers
	                : 0;
	/* The first run pays for what has not been touched yet. */
	double first = warmup_depth_ms(w, stack, deep, 1, rows);
	if (first < 0)
		return;
	struct runs low = { .n = 0 }, high = { .n = 0 }, crossed = { .n = 0 };
	int runs = runs_for(first);
	for (int i = 0; i < runs && (i == 0 || may_go_on(w)); i++) {
		high.ms[high.n++] = warmup_depth_ms(w, stack, deep, 1, rows);
		low.ms[low.n++] = warmup_depth_ms(w, stack, shallow, 1, rows);
		double ms = cross > 1 ? warmup_depth_ms(w, stack, shallow, cross, rows) : -1;
		if (ms >= 0)
			crossed.ms[crossed.n++] = ms;
	}
	points->deep[point] = deep;
	points->shallow[point] = shallow;
	points->text[point] =
	                warmup_is_search(w, stack, rows) ? 2 : warmup_text_length(w, stack, rows);
	points->deep_ms[point] = low_quantile(w, &high);
	points->shallow_ms[point] = low_quantile(w, &low);
	if (crossed.n > 0) {
		samples->cross[point] = cross;
		samples->cross_ms[point] = low_quantile(w, &crossed);
	}
}

static void measure_layers(struct warmup *w, enum stack stack, struct cost_samples *samples) {
	const struct cost_points *points = &samples->stack[stack];
	double per_row = 0;
	for (int i = 0; i < COST_POINTS; i++) {
		if (cost_rows[i] > w->limits->max_rows || (i > 0 && !may_go_on(w)))
			continue;
		/* At most in proportion to the rows of the point before. */
		measure_point(w, stack, i, per_row * cost_rows[i], samples);
		if (points->deep[i] > 0)
			per_row = points->deep_ms[i] * warmup_stack(w, stack)->layers
			                / points->deep[i] / cost_rows[i];
	}
}

/* ---- head ---- */

/* What a search reads of each row: see beam_need. */
static void search(struct warmup *w, const float *logits, int n) {
	struct token_logprob top[BEAM_TOP];
	size_t stride = step_logits_stride(w->workspace);
	int n_top = sampler_vocab(batch_sampler(w->batch));
	n_top = n_top < BEAM_TOP ? n_top : BEAM_TOP;
	for (int r = 0; r < n; r++) {
		float ignored;
		sample_logprobs(batch_sampler(w->batch), logits + (size_t)r * stride,
		                w->model->facts.eos, n_top, &ignored, top, NULL);
	}
}

/* Draws a token from each row, as most requests of this model will have it done. */
static void draw(struct warmup *w, const float *logits, int n) {
	const struct generation_defaults *defaults = &w->model->defaults;
	struct sampling sampling = { .temperature = (float)defaults->temperature,
		.top_p = (float)defaults->top_p,
		.top_k = defaults->top_k,
		.repetition_penalty = 1,
		.seed = 1 };
	size_t stride = step_logits_stride(w->workspace);
	for (int r = 0; r < n; r++) {
		int32_t token;
		sample_token(batch_sampler(w->batch), logits + (size_t)r * stride, &sampling, NULL,
		                0, NULL, 0, 0, (uint32_t)r, &token);
	}
}

/* The scores that most requests read: an adaptive softmax computes no others. */
static struct logit_need usual_need(const struct warmup *w) {
	const struct generation_defaults *defaults = &w->model->defaults;
	struct logit_need need = { .top = -1, .target = -1 };
	if (warmup_has_pairs(w))
		need.top = BEAM_TOP;
	else if (defaults->repetition_penalty != 1)
		need.top = -1;
	else if (defaults->temperature == 0)
		need.top = 1;
	else if (defaults->top_k > 0)
		need.top = defaults->top_k;
	return need;
}

static void measure_head(struct warmup *w, enum stack stack, struct cost_samples *samples) {
	int indices[MOST_SEQUENCES];
	struct logit_need needs[MOST_SEQUENCES];
	for (int i = 0; i < MOST_SEQUENCES; i++) {
		indices[i] = i;
		needs[i] = usual_need(w);
	}
	for (int i = 0; i < COST_POINTS; i++) {
		int n = cost_rows[i];
		if (n > batch_max_logit_rows(w->batch) || n > MOST_SEQUENCES
		                || (i > 0 && !may_go_on(w))
		                || warmup_depth_ms(w, stack, 1, 1, n) < 0)
			continue;
		struct runs runs = { .n = 0 };
		int most = MOST_RUNS;
		for (int k = 0; k < most; k++) {
			int64_t before = clock_now_ns();
			const float *logits = step_logits_needed(w->workspace, indices, needs, n);
			if (warmup_has_pairs(w))
				search(w, logits, n);
			else if (stack == STACK_DECODER)
				draw(w, logits, n);
			double ms = clock_ms(clock_now_ns() - before);
			if (k == 0)
				most = runs_for(ms);
			runs.ms[runs.n++] = ms;
		}
		samples->head_ms[i] = low_quantile(w, &runs);
	}
}

static void measure_classes(struct warmup *w, struct cost_samples *samples) {
	int indices[CLASS_ROWS], rows = CLASS_ROWS;
	struct runs runs = { .n = 0 };
	for (int i = 0; i < CLASS_ROWS; i++)
		indices[i] = i;
	if (rows > batch_max_logit_rows(w->batch))
		rows = batch_max_logit_rows(w->batch);
	if (warmup_depth_ms(w, STACK_ENCODER, 1, 0, rows) < 0)
		return;
	for (int k = 0; k < LEAST_RUNS; k++) {
		int64_t before = clock_now_ns();
		step_classes(w->workspace, 0, indices, rows);
		runs.ms[runs.n++] = clock_ms(clock_now_ns() - before);
	}
	samples->class_ms = low_quantile(w, &runs) / rows;
}

/* ---- attention ---- */

/* A sequence with `length` tokens in its decoder, and room for `more`; NULL if the pool cannot hold
 * it. */
static struct sequence *filled(struct warmup *w, int depth, int length, int more) {
	struct subnet subnet;
	if (!warmup_subnet(w, STACK_DECODER, depth, 1, &subnet))
		return NULL;
	struct sequence *s = warmup_open(w, STACK_DECODER, &subnet, length + more);
	while (s && sequence_length(s) < length) {
		int n = 0, at = sequence_length(s), left = length - at;
		int most = w->limits->max_rows;
		warmup_add_rows(w, STACK_DECODER, &n, s, at, left < most ? left : most);
		step_run(w->workspace, w->rows, n);
	}
	return s;
}

/* A step of the sequence's next `rows` decoder rows. */
static double next_rows_ms(struct warmup *w, struct sequence *s, int rows) {
	int n = 0;
	warmup_add_rows(w, STACK_DECODER, &n, s, sequence_length(s), rows);
	return warmup_run_ms(w, n);
}

/* Single rows at the start of one sequence and at the end of another, in turns. */
static void measure_decode_attention(
                struct warmup *w, int depth, int far, struct cost_samples *samples) {
	struct sequence *early = filled(w, depth, 1, MOST_RUNS);
	struct sequence *late = filled(w, depth, far, MOST_RUNS);
	struct runs near_runs = { .n = 0 }, far_runs = { .n = 0 };
	for (int i = 0; early && late && i < MOST_RUNS; i++) {
		near_runs.ms[near_runs.n++] = next_rows_ms(w, early, 1);
		far_runs.ms[far_runs.n++] = next_rows_ms(w, late, 1);
	}
	sequence_close(w->workspace, early);
	sequence_close(w->workspace, late);
	if (far_runs.n == 0)
		return;
	samples->attend_depth = depth;
	samples->attend_context = far;
	samples->attend_near_ms = low_quantile(w, &near_runs);
	samples->attend_far_ms = low_quantile(w, &far_runs);
}

static void measure_chunk_attention(
                struct warmup *w, int depth, int far, int rows, struct cost_samples *samples) {
	struct runs near_runs = { .n = 0 }, far_runs = { .n = 0 };
	struct subnet subnet;
	if (!warmup_subnet(w, STACK_DECODER, depth, 1, &subnet))
		return;
	for (int i = 0; i < LEAST_RUNS && may_go_on(w); i++) {
		struct sequence *late = filled(w, depth, far, rows);
		double early_ms = warmup_texts_ms(w, STACK_DECODER, &subnet, rows,
		                warmup_text_length(w, STACK_DECODER, rows));
		if (late && early_ms >= 0) {
			far_runs.ms[far_runs.n++] = next_rows_ms(w, late, rows);
			near_runs.ms[near_runs.n++] = early_ms;
		}
		sequence_close(w->workspace, late);
	}
	if (far_runs.n == 0)
		return;
	samples->chunk_rows = rows;
	samples->chunk_depth = depth;
	samples->chunk_context = far;
	samples->chunk_near_ms = low_quantile(w, &near_runs);
	samples->chunk_far_ms = low_quantile(w, &far_runs);
}

/* As deep as the largest chunk could be measured. */
static int measured_depth(const struct cost_points *points) {
	int depth = 1;
	for (int i = 0; i < COST_POINTS; i++) {
		if (points->deep[i] > 0)
			depth = points->deep[i];
	}
	return depth;
}

static void measure_decoder_attention(struct warmup *w, struct cost_samples *samples) {
	int context = warmup_stack(w, STACK_DECODER)->context, rows = CHUNK;
	if (rows > w->limits->max_rows)
		rows = w->limits->max_rows;
	int far = context - rows - MOST_RUNS;
	if (far > FAR)
		far = FAR;
	int depth = measured_depth(&samples->stack[STACK_DECODER]);
	if (far < 1 || !may_go_on(w))
		return;
	measure_decode_attention(w, depth, far, samples);
	if (may_go_on(w))
		measure_chunk_attention(w, depth, far, rows, samples);
}

/* The same rows as one long text and as several short ones. */
static void measure_encoder_attention(struct warmup *w, struct cost_samples *samples) {
	int rows = warmup_stack(w, STACK_ENCODER)->context, texts = SHORT_TEXTS;
	int depth = measured_depth(&samples->stack[STACK_ENCODER]);
	struct subnet subnet;
	if (rows > w->limits->max_rows)
		rows = w->limits->max_rows;
	if (rows > LONG_TEXT)
		rows = LONG_TEXT;
	if (warmup_texts_in_a_step(w, STACK_ENCODER, 1) < texts)
		texts = warmup_texts_in_a_step(w, STACK_ENCODER, 1);
	if (texts < 2 || rows < texts || !warmup_subnet(w, STACK_ENCODER, depth, 1, &subnet))
		return;
	int shorter = rows / texts;
	rows = shorter * texts;
	struct runs near_runs = { .n = 0 }, far_runs = { .n = 0 };
	for (int i = 0; i < MOST_RUNS && may_go_on(w); i++) {
		double near_ms = warmup_texts_ms(w, STACK_ENCODER, &subnet, rows, shorter);
		double far_ms = warmup_texts_ms(w, STACK_ENCODER, &subnet, rows, rows);
		if (near_ms < 0 || far_ms < 0)
			return;
		near_runs.ms[near_runs.n++] = near_ms;
		far_runs.ms[far_runs.n++] = far_ms;
	}
	if (far_runs.n == 0)
		return;
	samples->source_rows = rows;
	samples->source_depth = depth;
	samples->source_context = rows - shorter;
	samples->source_near_ms = low_quantile(w, &near_runs);
	samples->source_far_ms = low_quantile(w, &far_runs);
}

/* Bytes of 1,024 keys and values of a layer; an encoder's are f32. */
static double key_bytes(const struct warmup *w, enum stack stack) {
	if (stack == STACK_DECODER)
		return 1024.0 / KV_TILE * (double)workspace_block_bytes(w->workspace);
	return 1024.0 * warmup_stack(w, stack)->dim * 2 * sizeof(float);
}

/* ---- all ---- */

void warmup_measure(struct batch *b, const struct model *model, bool (*keep_going)(void *arg),
                void *arg, struct cost_samples *ret_samples) {
	struct warmup w = { .batch = b,
		.workspace = batch_workspace(b),
		.model = model,
		.limits = batch_limits(b),
		.keep_going = keep_going,
		.arg = arg };
	const struct facts *facts = &model->facts;
	cost_samples_init(ret_samples);
	w.rows = calloc((size_t)w.limits->max_rows, sizeof *w.rows);
	if (!w.rows)
		return;
	for (int s = 0; s < STACKS; s++) {
		double layer_bytes = (double)model->weights.layer_bytes[s];
		if (facts->stack[s].layers == 0)
			continue;
		if (layer_bytes > 0)
			ret_samples->stack[s].attend_share =
			                key_bytes(&w, (enum stack)s) / layer_bytes;
		begin_part(&w, warmup_has_pairs(&w) ? TWO_STACKS_MS / 2 : LAYERS_MS);
		measure_layers(&w, (enum stack)s, ret_samples);
	}
	begin_part(&w, HEAD_MS);
	if (facts->kind != KIND_ENCODER)
		measure_head(&w, STACK_DECODER, ret_samples);
	else if (facts->mlm_head)
		measure_head(&w, STACK_ENCODER, ret_samples);
	if (facts->n_classifiers > 0)
		measure_classes(&w, ret_samples);
	begin_part(&w, ATTENTION_MS);
	if (facts->stack[STACK_DECODER].layers > 0)
		measure_decoder_attention(&w, ret_samples);
	if (facts->stack[STACK_ENCODER].layers > 0)
		measure_encoder_attention(&w, ret_samples);
	ret_samples->level = middle_level(&w);
	ret_samples->spread = w.counted > 0 ? w.spread_sum / w.counted : 1.2;
	free(w.rows);
}
