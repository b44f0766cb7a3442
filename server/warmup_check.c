/* SPDX-License-Identifier: Apache-2.0 */
/* Whether costs that were measured at an earlier start still hold: a few steps tell. */
#include <stdlib.h>

#include "server/clock.h"
#include "server/warmup.h"
#include "server/warmup_parts.h"

#define CHECK_MS 250.0
/* Beyond this the machine is another one, whatever its name is. */
#define MOST_OFF 1.6

enum { POINTS = 3, RUNS = 3 };

/* What the tables say of a step of `rows` rows at all layers of one stack. */
static double expected_ms(
                const struct warmup *w, enum stack stack, const struct cost_model *cost, int rows) {
	int count[MAX_LAYERS], none[MAX_LAYERS] = { 0 };
	const int layers = warmup_stack(w, stack)->layers;
	int text = warmup_text_length(w, stack, rows);
	double keys = (double)rows * (stack == STACK_ENCODER ? text : 0.5 * (text + 1)) * layers;
	struct cost_step step = { .rows = rows, .decode_rows = rows == 1 };
	for (int l = 0; l < layers; l++)
		count[l] = rows;
	for (int s = 0; s < STACKS; s++) {
		step.layers[s] = warmup_stack(w, (enum stack)s)->layers;
		step.row_count[s] = s == (int)stack ? count : none;
	}
	if (stack == STACK_ENCODER)
		step.source_attended = keys / 1024;
	else if (rows == 1)
		step.attended = keys / 1024;
	else
		step.chunk_attended = keys / 1024;
	return cost_step_ms(cost, &step);
}

/* Actual over expected of one size of step; 0 if it cannot be run. The first run is for the pages. */
static double ratio_of(
                struct warmup *w, enum stack stack, const struct cost_model *cost, int rows) {
	const int layers = warmup_stack(w, stack)->layers;
	double best = -1, expected = expected_ms(w, stack, cost, rows);
	for (int i = 0; i < RUNS && (i < 2 || clock_now_ns() < w->until_ns); i++) {
		double ms = warmup_depth_ms(w, stack, layers, 0, rows);
		if (ms < 0 || !w->keep_going(w->arg))
			return 0;
		if (i > 0 && (best < 0 || ms < best))
			best = ms;
	}
	return expected > 0 && best > 0 ? best / expected : 0;
}

static void scale(double *values, int n, double by) {
	for (int i = 0; i < n; i++)
		values[i] *= by;
}

static void correct(struct cost_model *cost, double by) {
	for (int s = 0; s < STACKS; s++)
		scale(cost->layer_ms[s], COST_POINTS, by);
	scale(cost->cross_ms, COST_POINTS, by);
	scale(cost->head_ms, COST_POINTS, by);
	double *const rates[] = { &cost->attention_ms, &cost->chunk_attention_ms,
		&cost->source_attention_ms, &cost->class_ms, &cost->constant_ms, &cost->row_ms,
		&cost->interference_ms };
	for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++)
		*rates[i] *= by;
}

/* The median of the ratios that there are; 0 without any. */
static double middle(double *ratios, int n) {
	double sorted[POINTS];
	int have = 0;
	for (int i = 0; i < n; i++) {
		if (ratios[i] <= 0)
			continue;
		int at = have++;
		for (; at > 0 && sorted[at - 1] > ratios[i]; at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = ratios[i];
	}
	return have > 0 ? sorted[(have - 1) / 2] : 0;
}

bool warmup_check(struct batch *b, const struct model *model, bool (*keep_going)(void *arg),
                void *arg, struct cost_model *cost) {
	static const int rows[POINTS] = { 1, 4, 16 };
	struct warmup w = { .batch = b,
		.workspace = batch_workspace(b),
		.model = model,
		.limits = batch_limits(b),
		.keep_going = keep_going,
		.arg = arg,
		.until_ns = clock_now_ns() + (int64_t)(CHECK_MS * 1e6) };
	enum stack stack = model_main_stack(model);
	double ratios[POINTS] = { 0 };
	w.rows = calloc((size_t)w.limits->max_rows, sizeof *w.rows);
	if (!w.rows)
		return false;
	for (int i = 0; i < POINTS; i++) {
		/* A decoder with sources runs single rows here: others are beams. */
		bool one = warmup_has_pairs(&w) && rows[i] > 1;
		if (rows[i] <= w.limits->max_rows && !one
		                && (i == 0 || clock_now_ns() < w.until_ns))
			ratios[i] = ratio_of(&w, stack, cost, rows[i]);
	}
	free(w.rows);
	double by = middle(ratios, POINTS);
	if (by < 1 / MOST_OFF || by > MOST_OFF)
		return false;
	correct(cost, by);
	return true;
}
