/* SPDX-License-Identifier: Apache-2.0 */
/* How the cost model comes to its figures: from the warm-up's measurements, and from whole
 * requests. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/cost.h"

/* The quantile of recent requests that the margin covers. */
#define MARGIN_QUANTILE 0.95
#define MARGIN_RESCUED_QUANTILE 0.80
#define MARGIN_LEAST 1.02
#define MARGIN_MOST 4.0
/* Answers are planned to be as long as this quantile of recent ones. */
#define LENGTH_QUANTILE 0.90
/* What a translation is supposed to be as long as, in lengths of its source, before any is seen. */
#define TARGET_PRIOR 1.5
/* A longer one ran away and says nothing about the others. */
#define TARGET_MOST 8.0

static double positive(double x) {
	return x > 0 ? x : 0;
}

/* ---- fitting ---- */

/* A row among many takes no longer than this times a row among few: caches overflow, no more. */
#define CROWDED 1.3

/* Noise adds: more rows never take less time, so that the fewer rows are wrong where they do, nor
 * much more for each row, so that the more rows are wrong. */
static void order(double *table) {
	double row_ms = -1;
	for (int i = 0; i < COST_POINTS; i++) {
		if (table[i] < 0)
			continue;
		if (row_ms >= 0 && table[i] > CROWDED * row_ms * cost_rows[i])
			table[i] = CROWDED * row_ms * cost_rows[i];
		if (row_ms < 0 || table[i] / cost_rows[i] < row_ms)
			row_ms = table[i] / cost_rows[i];
	}
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

/* What attention should cost by its share of a layer's bytes or arithmetic, `row_ms` a row: a third
 * of that to `most` times as much. */
static double plausible_rate(double measured, double share, double row_ms, double most) {
	double expected = share * row_ms;
	if (measured < 0)
		return expected;
	if (expected <= 0)
		return measured;
	double low = expected / 3, high = expected * most;
	return measured < low ? low : measured > high ? high : measured;
}

/* A layer's time for each row: at the fewest rows measured, and where it is least. */
static void row_times(const struct cost_points *points, double *ret_few, double *ret_least) {
	*ret_few = *ret_least = 0;
	for (int i = 0; i < COST_POINTS; i++) {
		if (points->deep[i] <= 0)
			continue;
		double row_ms = points->deep_ms[i] / points->deep[i] / cost_rows[i];
		if (*ret_few == 0)
			*ret_few = *ret_least = row_ms;
		*ret_least = row_ms < *ret_least ? row_ms : *ret_least;
	}
}

static void fit_attention(const struct cost_samples *s, struct cost_model *cost) {
	const struct cost_points *encoder = &s->stack[STACK_ENCODER];
	const struct cost_points *decoder = &s->stack[STACK_DECODER];
	double decode = attention_rate(
	                s->attend_near_ms, s->attend_far_ms, s->attend_depth, 1, s->attend_context);
	double chunk = attention_rate(s->chunk_near_ms, s->chunk_far_ms, s->chunk_depth,
	                s->chunk_rows, s->chunk_context);
	double source = attention_rate(s->source_near_ms, s->source_far_ms, s->source_depth,
	                s->source_rows, s->source_context);
	double few, least;
	row_times(decoder, &few, &least);
	cost->attention_ms = plausible_rate(decode, decoder->attend_share, few, 8);
	cost->chunk_attention_ms = plausible_rate(chunk, decoder->attend_share, least, 8);
	row_times(encoder, &few, &least);
	cost->source_attention_ms = plausible_rate(source, encoder->attend_share, least, 3);
}

/* Fits the table of a stack, and what a step takes beside its layers: `base` at each point, negative
 * where nothing was measured. */
static void fit_layers(const struct cost_points *points, enum stack stack, struct cost_model *cost,
                double base[COST_POINTS]) {
	double *layer = cost->layer_ms[stack];
	for (int i = 0; i < COST_POINTS; i++) {
		int rows = cost_rows[i], deep = points->deep[i];
		layer[i] = base[i] = -1;
		if (deep <= 0)
			continue;
		/* The attention within the step is counted apart. */
		int text = points->text[i] > 0 ? points->text[i] : rows;
		double rate = stack == STACK_ENCODER ? cost->source_attention_ms
		                : rows > 1           ? cost->chunk_attention_ms
		                                     : cost->attention_ms;
		double keys = stack == STACK_ENCODER ? text : 0.5 * (text + 1);
		double attention = rate * rows * keys / 1024;
		double whole;
		if (deep > points->shallow[i])
			whole = (points->deep_ms[i] - points->shallow_ms[i])
			                / (deep - points->shallow[i]);
		else
			whole = points->deep_ms[i] / deep;
		/* Noise may say that a layer takes no time: it takes at least a tenth of its part. */
		double least = 0.1 * points->deep_ms[i] / deep;
		layer[i] = whole - attention > least ? whole - attention : least;
		base[i] = positive(points->deep_ms[i] - deep * (layer[i] + attention));
	}
	complete(layer);
}

/* Two matrices of the twelve that a layer has, in squares of its width. */
static void fit_cross(const struct cost_samples *s, struct cost_model *cost) {
	const struct cost_points *points = &s->stack[STACK_ENCODER];
	const double *layer = cost->layer_ms[STACK_ENCODER];
	for (int i = 0; i < COST_POINTS; i++) {
		cost->cross_ms[i] = layer[i] / 6;
		if (s->cross[i] <= 1 || points->deep[i] <= 0)
			continue;
		double ms = (s->cross_ms[i] - points->shallow_ms[i]) / (s->cross[i] - 1);
		double low = 0.03 * layer[i], high = layer[i];
		cost->cross_ms[i] = ms < low ? low : ms > high ? high : ms;
	}
	order(cost->cross_ms);
}

/* Under load all steps take longer than at their best. */
static void scale(struct cost_model *cost, double factor) {
	for (int i = 0; i < COST_POINTS; i++) {
		for (int k = 0; k < STACKS; k++)
			cost->layer_ms[k][i] *= factor;
		cost->cross_ms[i] *= factor;
		cost->head_ms[i] *= factor;
	}
	cost->attention_ms *= factor;
	cost->chunk_attention_ms *= factor;
	cost->source_attention_ms *= factor;
	cost->class_ms *= factor;
	cost->constant_ms *= factor;
	cost->row_ms *= factor;
}

static bool is_measured(const struct cost_points *points) {
	bool measured = false;
	for (int i = 0; i < COST_POINTS; i++)
		measured = measured || points->deep[i] > 0;
	return measured;
}

static void fit_constant(struct cost_model *cost, const double base[COST_POINTS]) {
	int first = -1, last = -1;
	for (int i = 0; i < COST_POINTS; i++) {
		if (base[i] < 0)
			continue;
		if (first < 0)
			first = i;
		last = i;
	}
	if (first < 0)
		return;
	cost->constant_ms = base[first];
	if (last > first)
		cost->row_ms = positive(base[last] - base[first])
		                / (cost_rows[last] - cost_rows[first]);
}

void cost_samples_init(struct cost_samples *samples) {
	memset(samples, 0, sizeof *samples);
	for (int i = 0; i < COST_POINTS; i++)
		samples->head_ms[i] = -1;
	samples->level = samples->spread = 1;
}

void cost_fit(const struct cost_samples *s, struct cost_model *ret_cost) {
	struct cost_model cost = { .margin = 1,
		.margin_rescued = 1,
		.answer_ratio = 1,
		.target_ratio = TARGET_PRIOR,
		.class_ms = s->class_ms,
		.fitted = true };
	double base[STACKS][COST_POINTS];
	fit_attention(s, &cost);
	for (int k = 0; k < STACKS; k++)
		fit_layers(&s->stack[k], (enum stack)k, &cost, base[k]);
	fit_cross(s, &cost);
	fit_constant(&cost,
	                base[is_measured(&s->stack[STACK_DECODER]) ? STACK_DECODER
	                                                           : STACK_ENCODER]);
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
		history->target[i] = TARGET_PRIOR;
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

void cost_learn_target(struct cost_history *history, struct cost_model *cost, double ratio) {
	if (!(ratio >= 0) || ratio > TARGET_MOST)
		return;
	history->target[history->targets++ % COST_WINDOW] = ratio;
	cost->target_ratio = quantile(history->target, window(history->targets), LENGTH_QUANTILE);
}
