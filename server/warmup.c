/* SPDX-License-Identifier: Apache-2.0 */
/* Warm-up measurements, several runs for every figure. */
#include "server/warmup.h"

#include <stdlib.h>
#include <string.h>

#include "server/clock.h"

#define POINT_MS 60.0 /* aim for one depth of one row count, all runs together */
/* When each part must be through, from the beginning. */
#define LAYERS_MS 1500.0
#define HEAD_MS 1900.0
#define ATTENTION_MS 2500.0

enum { MOST_RUNS = 9, LEAST_RUNS = 3, CHUNK = 64, FAR = 512, MOST_SEQUENCES = 64 };

struct warmup {
	struct batch *batch;
	struct workspace *workspace;
	const struct model *model;
	const struct cost_limits *limits;
	bool (*keep_going)(void *arg);
	void *arg;
	int64_t began_ns;
	struct row *rows; /* [max_rows] */
	double level_sum, spread_sum;
	int counted;
};

static bool may_go_on(const struct warmup *w, double until_ms) {
	return w->keep_going(w->arg) && clock_ms(clock_now_ns() - w->began_ns) < until_ms;
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
		w->level_sum += middle / low;
		w->spread_sum += runs->ms[runs->n - 2] / middle;
		w->counted++;
	}
	return low;
}

/* Runs that fit the aim, given how long the first took. */
static int runs_for(double first_ms) {
	int n = first_ms > 0 ? (int)(POINT_MS / first_ms) : MOST_RUNS;
	return n > MOST_RUNS ? MOST_RUNS : n < LEAST_RUNS ? LEAST_RUNS : n;
}

/* ---- steps ---- */

static int32_t token_at(const struct warmup *w, int i) {
	return (int32_t)((unsigned)i * 7919u % (unsigned)w->model->facts.vocab);
}

static bool subnet_at(const struct warmup *w, int depth, struct subnet *ret_subnet) {
	return model_subnet(w->model, PLAN_RULE_EVEN, depth, ret_subnet);
}

/* `count` rows of one sequence from its length on, appended to the step's rows. */
static void add_rows(struct warmup *w, int *n, struct sequence *s, int count) {
	int length = sequence_length(s);
	for (int i = 0; i < count; i++)
		w->rows[(*n)++] = (struct row){ .sequence = s,
			.stack = STACK_DECODER,
			.token = token_at(w, length + i),
			.position = length + i };
}

static double run_ms(struct warmup *w, int n) {
	int64_t before = clock_now_ns();
	step_run(w->workspace, w->rows, n);
	return clock_ms(clock_now_ns() - before);
}

/* One step of `rows` prompt rows at `depth`, in as many sequences as the context demands; negative
 * if the pool cannot hold them. */
static double prompt_step_ms(struct warmup *w, int depth, int rows) {
	struct sequence *open[MOST_SEQUENCES];
	struct subnet subnet;
	int context = w->model->facts.context, n = 0, sequences = 0;
	double ms = -1;
	if (!subnet_at(w, depth, &subnet))
		return ms;
	while (n < rows && sequences < MOST_SEQUENCES && sequences < w->limits->sequences) {
		int count = rows - n < context ? rows - n : context;
		struct sequence *s = sequence_open(w->workspace, &subnet, count);
		if (!s)
			break;
		open[sequences++] = s;
		add_rows(w, &n, s, count);
	}
	if (n == rows)
		ms = run_ms(w, n);
	while (sequences > 0)
		sequence_close(w->workspace, open[--sequences]);
	return ms;
}

/* ---- layers ---- */

/* The deep and the shallow depth take turns, so that a drift of the machine hits both. */
static void measure_point(
                struct warmup *w, int point, double expected_ms, struct cost_samples *samples) {
	int layers = model_layers(w->model), rows = cost_rows[point];
	int deep = layers;
	if (expected_ms > POINT_MS && layers > 2) {
		deep = (int)(layers * POINT_MS / expected_ms);
		deep = deep < 2 ? 2 : deep;
	}
	int shallow = deep > 1 ? 1 : deep;
	/* The first run pays for what has not been touched yet. */
	double first = prompt_step_ms(w, deep, rows);
	if (first < 0)
		return;
	struct runs low = { .n = 0 }, high = { .n = 0 };
	int runs = runs_for(first);
	for (int i = 0; i < runs && (i == 0 || may_go_on(w, LAYERS_MS)); i++) {
		high.ms[high.n++] = prompt_step_ms(w, deep, rows);
		low.ms[low.n++] = prompt_step_ms(w, shallow, rows);
	}
	samples->deep[point] = deep;
	samples->shallow[point] = shallow;
	samples->deep_ms[point] = low_quantile(w, &high);
	samples->shallow_ms[point] = low_quantile(w, &low);
}

static void measure_layers(struct warmup *w, struct cost_samples *samples) {
	double per_row = 0;
	for (int i = 0; i < COST_POINTS; i++) {
		samples->deep_ms[i] = samples->shallow_ms[i] = -1;
		if (cost_rows[i] > w->limits->max_rows || (i > 0 && !may_go_on(w, LAYERS_MS)))
			continue;
		/* At most in proportion to the rows of the point before. */
		measure_point(w, i, per_row * cost_rows[i], samples);
		if (samples->deep_ms[i] >= 0)
			per_row = samples->deep_ms[i] * model_layers(w->model) / samples->deep[i]
			                / cost_rows[i];
	}
}

/* ---- head ---- */

static void measure_head(struct warmup *w, struct cost_samples *samples) {
	/* Tokens are drawn as most requests of this model will have them drawn. */
	const struct generation_defaults *defaults = &w->model->defaults;
	struct sampling sampling = { .temperature = (float)defaults->temperature,
		.top_p = (float)defaults->top_p,
		.top_k = defaults->top_k,
		.repetition_penalty = 1,
		.seed = 1 };
	int indices[MOST_SEQUENCES];
	for (int i = 0; i < MOST_SEQUENCES; i++)
		indices[i] = i;
	for (int i = 0; i < COST_POINTS; i++) {
		int n = cost_rows[i];
		samples->head_ms[i] = -1;
		if (n > batch_max_logit_rows(w->batch) || n > MOST_SEQUENCES
		                || (i > 0 && !may_go_on(w, HEAD_MS)) || prompt_step_ms(w, 1, n) < 0)
			continue;
		struct runs runs = { .n = 0 };
		int most = MOST_RUNS;
		for (int k = 0; k < most; k++) {
			int64_t before = clock_now_ns();
			const float *logits = step_logits(w->workspace, indices, n);
			size_t stride = step_logits_stride(w->workspace);
			for (int r = 0; r < n; r++) {
				int32_t token;
				sample_token(batch_sampler(w->batch), logits + (size_t)r * stride,
				                &sampling, NULL, 0, NULL, 0, 0, (uint32_t)r,
				                &token);
			}
			double ms = clock_ms(clock_now_ns() - before);
			if (k == 0)
				most = runs_for(ms);
			runs.ms[runs.n++] = ms;
		}
		samples->head_ms[i] = low_quantile(w, &runs);
	}
}

/* ---- attention ---- */

/* A sequence with `length` tokens in it, and room for `more`; NULL if the pool cannot hold it. */
static struct sequence *filled(struct warmup *w, int depth, int length, int more) {
	struct subnet subnet;
	if (!subnet_at(w, depth, &subnet))
		return NULL;
	struct sequence *s = sequence_open(w->workspace, &subnet, length + more);
	while (s && sequence_length(s) < length) {
		int n = 0, left = length - sequence_length(s);
		add_rows(w, &n, s, left < w->limits->max_rows ? left : w->limits->max_rows);
		step_run(w->workspace, w->rows, n);
	}
	return s;
}

/* Single rows at the start of one sequence and at the end of another, in turns. */
static void measure_decode_attention(
                struct warmup *w, int depth, int far, struct cost_samples *samples) {
	struct sequence *early = filled(w, depth, 1, MOST_RUNS);
	struct sequence *late = filled(w, depth, far, MOST_RUNS);
	struct runs near_runs = { .n = 0 }, far_runs = { .n = 0 };
	for (int i = 0; early && late && i < MOST_RUNS; i++) {
		int n = 0;
		add_rows(w, &n, early, 1);
		near_runs.ms[near_runs.n++] = run_ms(w, n);
		n = 0;
		add_rows(w, &n, late, 1);
		far_runs.ms[far_runs.n++] = run_ms(w, n);
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
	for (int i = 0; i < LEAST_RUNS && may_go_on(w, ATTENTION_MS); i++) {
		struct sequence *late = filled(w, depth, far, rows);
		double early_ms = prompt_step_ms(w, depth, rows);
		if (late && early_ms >= 0) {
			int n = 0;
			add_rows(w, &n, late, rows);
			far_runs.ms[far_runs.n++] = run_ms(w, n);
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

static void measure_attention(struct warmup *w, struct cost_samples *samples) {
	int context = w->model->facts.context, rows = CHUNK;
	if (rows > w->limits->max_rows)
		rows = w->limits->max_rows;
	int far = context - rows - MOST_RUNS;
	if (far > FAR)
		far = FAR;
	/* As deep as the largest chunk could be measured. */
	int depth = 1;
	for (int i = 0; i < COST_POINTS; i++) {
		if (samples->deep_ms[i] >= 0)
			depth = samples->deep[i];
	}
	if (far < 1 || !may_go_on(w, ATTENTION_MS))
		return;
	measure_decode_attention(w, depth, far, samples);
	if (may_go_on(w, ATTENTION_MS))
		measure_chunk_attention(w, depth, far, rows, samples);
}

/* ---- all ---- */

void warmup_measure(struct batch *b, const struct model *model, bool (*keep_going)(void *arg),
                void *arg, struct cost_samples *ret_samples) {
	struct warmup w = { .batch = b,
		.workspace = batch_workspace(b),
		.model = model,
		.limits = batch_limits(b),
		.keep_going = keep_going,
		.arg = arg,
		.began_ns = clock_now_ns() };
	const struct stack_facts *facts = &model->facts.stack[STACK_DECODER];
	memset(ret_samples, 0, sizeof *ret_samples);
	for (int i = 0; i < COST_POINTS; i++)
		ret_samples->deep_ms[i] = ret_samples->shallow_ms[i] = ret_samples->head_ms[i] = -1;
	double layer_bytes = (double)model->weights.layer_bytes[STACK_DECODER];
	if (layer_bytes > 0)
		ret_samples->attend_share = 1024.0 * facts->dim * 2 * sizeof(float) / layer_bytes;
	w.rows = calloc((size_t)w.limits->max_rows, sizeof *w.rows);
	if (!w.rows)
		return;
	measure_layers(&w, ret_samples);
	measure_head(&w, ret_samples);
	measure_attention(&w, ret_samples);
	ret_samples->level = w.counted > 0 ? w.level_sum / w.counted : 1;
	ret_samples->spread = w.counted > 0 ? w.spread_sum / w.counted : 1.2;
	free(w.rows);
}
