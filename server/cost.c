/* SPDX-License-Identifier: Apache-2.0 */
/* The cost model: interpolation, prediction, fitting and refinement. Arithmetic only. */
#include "server/cost.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const int cost_rows[COST_POINTS] = { 1, 2, 4, 8, 12, 16, 32, 64, 128, 512 };

/* The quantile of recent requests that the margin covers. */
#define MARGIN_QUANTILE 0.95
#define MARGIN_RESCUED_QUANTILE 0.80
/* Relative; a step that took longer counts as this. */
#define LARGEST_ERROR 2.0
#define MARGIN_LEAST 1.02
#define MARGIN_MOST 4.0
/* Answers are planned to be as long as this quantile of recent ones. */
#define LENGTH_QUANTILE 0.90

static double positive(double x) {
	return x > 0 ? x : 0;
}

/* ---- interpolation ---- */

/* `rows` lies between the points `low` and `low + 1`, at `weight` of the upper one. Beyond the last
 * point the weight exceeds 1: the last segment goes on. */
struct place {
	int low;
	double weight;
};

static struct place place_of(int rows) {
	int low = 0;
	while (low + 2 < COST_POINTS && cost_rows[low + 1] <= rows)
		low++;
	int from = cost_rows[low], to = cost_rows[low + 1];
	return (struct place){ low, (double)(rows - from) / (to - from) };
}

static double at_place(const double *table, struct place p) {
	return table[p.low] * (1 - p.weight) + table[p.low + 1] * p.weight;
}

static double table_ms(const double *table, int rows) {
	return rows <= 0 ? 0 : at_place(table, place_of(rows));
}

/* ---- one step ---- */

/* All layers, `count` rows each; NULL: none. */
static double layers_ms(const double *table, const int *count, int layers) {
	double ms = 0;
	for (int l = 0; count && l < layers; l++)
		ms += table_ms(table, count[l]);
	return ms;
}

double cost_step_ms(const struct cost_model *cost, const struct cost_step *step) {
	double ms = cost->constant_ms + cost->row_ms * step->rows;
	for (int k = 0; k < STACKS; k++)
		ms += layers_ms(cost->layer_ms[k], step->row_count[k], step->layers[k]);
	ms += layers_ms(cost->cross_ms, step->source_count, step->layers[STACK_DECODER]);
	ms += cost->attention_ms * step->attended;
	ms += cost->chunk_attention_ms * step->chunk_attended;
	ms += cost->source_attention_ms * step->source_attended;
	ms += table_ms(cost->head_ms, step->logit_rows);
	ms += cost->class_ms * step->class_rows;
	return ms;
}

/* Multiplies the one or two entries that gave `part` of the whole prediction. */
static void nudge(double *table, int rows, double step) {
	struct place p = place_of(rows);
	double weight = p.weight > 1 ? 1 : p.weight;
	table[p.low] *= 1 + step * (1 - weight);
	table[p.low + 1] *= 1 + step * weight;
}

/* Every layer moves the entries that it was read from; all are read before any moves. */
static void nudge_layers(double *table, const int *count, int layers, double step) {
	double ms[MAX_LAYERS];
	for (int l = 0; count && l < layers; l++)
		ms[l] = table_ms(table, count[l]);
	for (int l = 0; count && l < layers; l++) {
		if (count[l] > 0)
			nudge(table, count[l], step * ms[l]);
	}
}

void cost_refine(struct cost_model *cost, const struct cost_step *step, double actual_ms,
                double rate) {
	double predicted = cost_step_ms(cost, step);
	if (!(predicted > 0) || !(actual_ms > 0))
		return;
	double error = (actual_ms - predicted) / predicted;
	double move = rate * (error < LARGEST_ERROR ? error : LARGEST_ERROR);
	for (int k = 0; k < STACKS; k++)
		nudge_layers(cost->layer_ms[k], step->row_count[k], step->layers[k],
		                move / predicted);
	nudge_layers(cost->cross_ms, step->source_count, step->layers[STACK_DECODER],
	                move / predicted);
	if (step->logit_rows > 0)
		nudge(cost->head_ms, step->logit_rows,
		                move * table_ms(cost->head_ms, step->logit_rows) / predicted);
	double attention = cost->attention_ms * step->attended / predicted;
	double chunk = cost->chunk_attention_ms * step->chunk_attended / predicted;
	double source = cost->source_attention_ms * step->source_attended / predicted;
	double classes = cost->class_ms * step->class_rows / predicted;
	cost->attention_ms *= 1 + move * attention;
	cost->chunk_attention_ms *= 1 + move * chunk;
	cost->source_attention_ms *= 1 + move * source;
	cost->class_ms *= 1 + move * classes;
	/* The constant may have been fitted as nothing: it moves as if it were a twentieth at least. */
	double constant = cost->constant_ms / predicted;
	if (constant < 0.05)
		constant = 0.05;
	cost->constant_ms = positive(cost->constant_ms + move * constant * constant * predicted);
}

/* ---- a whole request ---- */

/* Milliseconds of a step in which `load` decodes and `rows` further rows run `plan`. */
static double shared_step(const struct cost_model *cost, const struct cost_load *load,
                const struct plan *plan, int rows, int logit_rows, double attended,
                double chunk_attended) {
	int count[MAX_LAYERS];
	memcpy(count, load->rows, (size_t)plan->of * sizeof count[0]);
	for (int i = 0; i < plan->depth; i++)
		count[plan->layers[i]] += rows;
	return cost_step_ms(cost,
	                &(struct cost_step){ .layers = { [STACK_DECODER] = plan->of },
	                                .row_count = { [STACK_DECODER] = count },
	                                .rows = load->decode_rows + rows,
	                                .logit_rows = load->decode_rows + logit_rows,
	                                .attended = load->attended + attended,
	                                .chunk_attended = chunk_attended });
}

static int ceil_div(int a, int b) {
	return (a + b - 1) / b;
}

/* Milliseconds until the prompt tokens that go before have run. */
static double pending_ms(const struct cost_model *cost, const struct cost_load *load, int layers,
                int chunk) {
	if (load->pending <= 0)
		return 0;
	int steps = ceil_div(load->pending, chunk), count[MAX_LAYERS];
	for (int l = 0; l < layers; l++)
		count[l] = load->rows[l] + ceil_div(load->pending_rows[l], steps);
	return steps
	                * cost_step_ms(cost,
	                                &(struct cost_step){ .layers = { [STACK_DECODER] = layers },
	                                                .row_count = { [STACK_DECODER] = count },
	                                                .rows = load->decode_rows
	                                                                + ceil_div(load->pending,
	                                                                                steps),
	                                                .logit_rows = load->decode_rows + 1,
	                                                .attended = load->attended });
}

static double prompt_ms(const struct cost_model *cost, const struct cost_load *load,
                const struct cost_work *work, int chunk) {
	int tokens = work->prompt_tokens;
	if (tokens <= 0)
		return 0;
	int steps = ceil_div(tokens, chunk), rows = ceil_div(tokens, steps);
	/* A row sees half of its prompt on average; prompts are taken as equally long. */
	double context = 0.5 * (work->longest_prompt + 1) / 1024;
	double attended = (double)work->subnet->stack[STACK_DECODER].depth * rows * context;
	int logit_rows = work->scored_tokens > 0 ? ceil_div(work->scored_tokens, steps) : 1;
	/* Only the last step needs the logits of a prompt that is not scored. */
	double last = shared_step(cost, load, &work->subnet->stack[STACK_DECODER], rows, logit_rows,
	                0, attended);
	if (steps == 1)
		return last;
	double other = work->scored_tokens > 0
	                ? last
	                : shared_step(cost, load, &work->subnet->stack[STACK_DECODER], rows, 0, 0,
	                                attended);
	return other * (steps - 1) + last;
}

void cost_predict(const struct cost_model *cost, const struct cost_limits *limits,
                const struct cost_load *load, const struct cost_work *work,
                struct cost_time *ret_time) {
	bool decodes = load->decode_rows > 0;
	int chunk = limits->max_rows - load->decode_rows;
	if (decodes && chunk > limits->prefill_rows)
		chunk = limits->prefill_rows;
	if (chunk < 1)
		chunk = 1;
	struct cost_time t = { 0 };
	t.first_ms = pending_ms(cost, load, work->subnet->stack[STACK_DECODER].of, chunk)
	                + prompt_ms(cost, load, work, chunk);
	t.total_ms = t.first_ms;
	if (work->output_tokens > 0) {
		int free = limits->sequences - load->decode_rows;
		int rows = work->choices < free ? work->choices : free;
		if (rows < 1)
			rows = 1;
		int waves = ceil_div(work->choices, rows);
		double context = (work->longest_prompt + 0.5 * work->output_tokens) / 1024;
		double attended = (double)work->subnet->stack[STACK_DECODER].depth * rows * context;
		t.token_ms = shared_step(cost, load, &work->subnet->stack[STACK_DECODER], rows,
		                rows, attended, 0);
		t.total_ms += t.token_ms * ((double)work->output_tokens * waves - 1);
	}
	*ret_time = t;
}

double cost_decode_ms(const struct cost_model *cost, const int depth[STACKS]) {
	return cost->constant_ms + cost->row_ms + cost->head_ms[0]
	                + depth[STACK_DECODER] * cost->layer_ms[STACK_DECODER][0];
}

double cost_prefill_ms(const struct cost_model *cost, const int depth[STACKS]) {
	int rows = 128;
	double chunk = cost->constant_ms + cost->row_ms * rows + cost->head_ms[0]
	                + depth[STACK_DECODER] * table_ms(cost->layer_ms[STACK_DECODER], rows)
	                + cost->chunk_attention_ms * depth[STACK_DECODER] * rows * 0.5 * rows
	                                / 1024;
	return chunk / rows;
}

/* ---- fitting ---- */

/* More rows never take less time: noise adds, so that the fewer rows are wrong where they do. */
static void order(double *table) {
	double least = -1;
	for (int i = COST_POINTS - 1; i >= 0; i--) {
		if (table[i] < 0)
			continue;
		if (least >= 0 && table[i] > least)
			table[i] = least;
		least = table[i];
	}
}

/* Points that were not measured (negative): on a line between their neighbours, and beyond the last
 * in proportion to the rows. */
static void complete(double *table) {
	int last = -1;
	order(table);
	for (int i = 0; i < COST_POINTS; i++) {
		if (table[i] < 0)
			continue;
		for (int j = last + 1; j < i; j++) {
			double weight = last < 0 ? 1
			                         : (double)(cost_rows[j] - cost_rows[last])
			                                / (cost_rows[i] - cost_rows[last]);
			double low = last < 0 ? 0 : table[last];
			table[j] = low + weight * (table[i] - low);
		}
		last = i;
	}
	for (int j = last + 1; j < COST_POINTS; j++)
		table[j] = last < 0 ? 0 : table[last] * cost_rows[j] / cost_rows[last];
}

/* Milliseconds per layer, row and 1,024 keys from the same step at an early and a late position. */
static double attention_rate(double near_ms, double far_ms, int depth, int rows, int context) {
	if (context <= 0 || rows <= 0 || depth <= 0)
		return -1;
	return positive(far_ms - near_ms) / ((double)depth * rows * context / 1024);
}

/* What attention should cost by its share of a layer's bytes or arithmetic: `row_ms` a row. */
static double plausible_rate(double measured, double share, double row_ms) {
	double expected = share * row_ms;
	if (measured < 0)
		return expected;
	if (expected <= 0)
		return measured;
	double low = expected / 3, high = expected * 8;
	return measured < low ? low : measured > high ? high : measured;
}

static void fit_attention(const struct cost_samples *s, struct cost_model *cost) {
	double decode = attention_rate(
	                s->attend_near_ms, s->attend_far_ms, s->attend_depth, 1, s->attend_context);
	double chunk = attention_rate(s->chunk_near_ms, s->chunk_far_ms, s->chunk_depth,
	                s->chunk_rows, s->chunk_context);
	/* A layer's time for each row, at the fewest and at the most rows measured. */
	double few = 0, many = 0;
	for (int i = 0; i < COST_POINTS; i++) {
		if (s->deep_ms[i] < 0)
			continue;
		many = s->deep_ms[i] / s->deep[i] / cost_rows[i];
		if (few == 0)
			few = many;
	}
	cost->attention_ms = plausible_rate(decode, s->attend_share, few);
	cost->chunk_attention_ms = plausible_rate(chunk, s->attend_share, many);
}

/* Under load all steps take longer than at their best. */
static void scale(struct cost_model *cost, double factor) {
	for (int i = 0; i < COST_POINTS; i++) {
		cost->layer_ms[STACK_DECODER][i] *= factor;
		cost->head_ms[i] *= factor;
	}
	cost->attention_ms *= factor;
	cost->chunk_attention_ms *= factor;
	cost->constant_ms *= factor;
	cost->row_ms *= factor;
}

void cost_fit(const struct cost_samples *s, struct cost_model *ret_cost) {
	struct cost_model cost = {
		.margin = 1, .margin_rescued = 1, .answer_ratio = 1, .fitted = true
	};
	double *layer = cost.layer_ms[STACK_DECODER];
	fit_attention(s, &cost);
	int first = -1, last = -1;
	double base[COST_POINTS];
	for (int i = 0; i < COST_POINTS; i++) {
		layer[i] = -1;
		if (s->deep_ms[i] < 0)
			continue;
		int rows = cost_rows[i];
		/* The chunk's own attention from position 0 is counted apart. */
		double attention = (rows > 1 ? cost.chunk_attention_ms : cost.attention_ms) * rows
		                * 0.5 * (rows + 1) / 1024;
		double whole;
		if (s->deep[i] > s->shallow[i])
			whole = (s->deep_ms[i] - s->shallow_ms[i]) / (s->deep[i] - s->shallow[i]);
		else
			whole = s->deep_ms[i] / s->deep[i];
		/* Noise may say that a layer takes no time: it takes at least a tenth of its part. */
		double least = 0.1 * s->deep_ms[i] / s->deep[i];
		layer[i] = whole - attention > least ? whole - attention : least;
		base[i] = positive(s->deep_ms[i] - s->deep[i] * (layer[i] + attention));
		if (first < 0)
			first = i;
		last = i;
	}
	complete(layer);
	if (first >= 0) {
		cost.constant_ms = base[first];
		if (last > first)
			cost.row_ms = positive(base[last] - base[first])
			                / (cost_rows[last] - cost_rows[first]);
	}
	memcpy(cost.head_ms, s->head_ms, sizeof cost.head_ms);
	complete(cost.head_ms);
	if (s->level > 1)
		scale(&cost, s->level);
	*ret_cost = cost;
}

/* ---- learning from whole requests ---- */

static int compare_doubles(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double quantile(const double *values, int n, double q) {
	double sorted[COST_WINDOW];
	memcpy(sorted, values, (size_t)n * sizeof sorted[0]);
	qsort(sorted, (size_t)n, sizeof sorted[0], compare_doubles);
	return sorted[(int)(q * (n - 1))];
}

/* Entries in use. */
static int window(size_t real) {
	return real < COST_PRIOR ? COST_PRIOR : real < COST_WINDOW ? (int)real : COST_WINDOW;
}

static double margin_at(const struct cost_history *history, double q) {
	double margin = quantile(history->ratio, window(history->ratios), q);
	return margin < MARGIN_LEAST ? MARGIN_LEAST : margin > MARGIN_MOST ? MARGIN_MOST : margin;
}

static void set_margins(const struct cost_history *history, struct cost_model *cost) {
	cost->margin = margin_at(history, MARGIN_QUANTILE);
	cost->margin_rescued = margin_at(history, MARGIN_RESCUED_QUANTILE);
}

void cost_history_init(struct cost_history *history, struct cost_model *cost, double spread) {
	memset(history, 0, sizeof *history);
	/* A request is many steps: it spreads less than they do. */
	double high = 1 + 0.5 * (spread - 1);
	high = high < 1.05 ? 1.05 : high > 1.5 ? 1.5 : high;
	for (int i = 0; i < COST_PRIOR; i++) {
		history->ratio[i] = high - (high - 1) * i / (COST_PRIOR - 1);
		history->length[i] = 1;
	}
	set_margins(history, cost);
}

void cost_learn_ratio(struct cost_history *history, struct cost_model *cost, double ratio) {
	if (!(ratio > 0) || !isfinite(ratio))
		return;
	history->ratio[history->ratios++ % COST_WINDOW] = ratio;
	set_margins(history, cost);
	double error[COST_WINDOW];
	int n = history->ratios < COST_WINDOW ? (int)history->ratios : COST_WINDOW;
	for (int i = 0; i < n; i++)
		error[i] = fabs(history->ratio[i] - 1);
	cost->error_p50 = quantile(error, n, 0.5);
	cost->error_p95 = quantile(error, n, 0.95);
}

void cost_learn_length(struct cost_history *history, struct cost_model *cost, double ratio) {
	if (!(ratio >= 0) || ratio > 1)
		return;
	history->length[history->lengths++ % COST_WINDOW] = ratio;
	cost->answer_ratio = quantile(history->length, window(history->lengths), LENGTH_QUANTILE);
}
