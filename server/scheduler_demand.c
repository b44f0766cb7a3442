/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work that is due. Requests are taken in the order in which they are due; those due by a moment
 * must be done by then. How long they take together follows from a step's cost in straight lines: a
 * fixed part for each step, and a share for each row. A set of requests so takes at least as long as
 * the longest of them takes alone, plus the shares of all (along each chord, of which the largest
 * counts). Since those that are due later may rest, what they take does not matter: this is the
 * demand bound of earliest-deadline-first scheduling (Baruah, Rosier, Howell 1990), with the lone
 * request's time added because a token waits for the one before it.
 *
 * When not all can be in time at the lowest level, the largest of the work that is due is given up,
 * and so on until the rest is in time: the fewest are late (Moore 1968, Hodgson's algorithm).
 */
#include <math.h>

#include "server/scheduler_parts.h"

static double greater(double a, double b) {
	return a > b ? a : b;
}

/* ---- straight lines ---- */

/* Indices into cost_rows: 1 and 4, 8 and 16, 32 and 64 rows. */
static const int chord_ends[CHORDS][2] = { { 0, 2 }, { 3, 5 }, { 6, 7 } };
enum { CHUNK_POINT = 8 }; /* prompts are fed in chunks of about so many rows: 128 */

static void chord_of(const double *table, int chord, double m, double *ret_fixed, double *ret_row) {
	int from = chord_ends[chord][0], to = chord_ends[chord][1];
	double slope = (table[to] - table[from]) / (cost_rows[to] - cost_rows[from]);
	slope = slope > 0 ? slope : 0;
	*ret_row = m * slope;
	*ret_fixed = m * greater(table[from] - slope * cost_rows[from], 0);
}

/* What steps take in the mean over what the tables say: they are contended, now and in general. */
static double mean_over_tables(const struct cost_model *cost) {
	double pace = cost->pace > 0 ? cost->pace : 1;
	double mean = cost->mean_ratio > 0 ? cost->mean_ratio : 1;
	return pace > mean ? (pace + mean) / 2 : mean;
}

double scheduler_mean_over_step(const struct cost_model *cost) {
	return mean_over_tables(cost) / (cost->pace > 0 ? cost->pace : 1);
}

void scheduler_set_rates(
                const struct cost_model *cost, int sequences, struct scheduler_rates *ret_rates) {
	struct scheduler_rates *r = ret_rates;
	double m = mean_over_tables(cost), chunk = cost_rows[CHUNK_POINT] / m;
	*r = (struct scheduler_rates){ .constant = m * cost->constant_ms,
		.row_ms = m * cost->row_ms,
		.attention = m * cost->attention_ms,
		.prompt_layer = cost->layer_ms[STACK_DECODER][CHUNK_POINT] / chunk,
		.prompt_attention = m * cost->chunk_attention_ms,
		.source_layer = cost->layer_ms[STACK_ENCODER][CHUNK_POINT] / chunk,
		.cross_layer = cost->cross_ms[CHUNK_POINT] / chunk,
		.source_attention = m * cost->source_attention_ms,
		.class_ms = m * cost->class_ms,
		.sequences = sequences };
	for (int k = 0; k < CHORDS; k++) {
		chord_of(cost->layer_ms[STACK_DECODER], k, m, &r->layer_a[k], &r->layer_m[k]);
		chord_of(cost->head_ms, k, m, &r->head_a[k], &r->head_m[k]);
	}
}

/* ---- the work of a request ---- */

void scheduler_work_left(const struct scheduler_rates *rates, const struct scheduled *r,
                const int depth[STACKS], struct scheduler_work *ret_work) {
	const struct cost_work *w = &r->work;
	const struct scheduled_progress *p = &r->progress;
	bool running = r->at.running;
	double d = depth[STACK_DECODER], e = depth[STACK_ENCODER];
	double rows = running ? p->choices_left : w->choices, steps = w->output_tokens;
	double prompt = running ? p->prompt_tokens + p->later_tokens : w->prompt_tokens;
	double source = running ? p->source_tokens : w->source_tokens;
	double squares = running ? p->source_squares : w->source_attended;
	if (running && steps > 0)
		steps = greater(steps - p->tokens_out, 1);
	double keys = w->longest_prompt + w->longest_source + 0.5 * w->output_tokens;
	if (rows > rates->sequences) {
		steps *= rows / rates->sequences;
		rows = rates->sequences;
	}
	struct scheduler_work work = { .steps = steps };
	for (int k = 0; k < CHORDS; k++) {
		work.fixed_ms[k] = rates->constant + d * rates->layer_a[k] + rates->head_a[k];
		work.share_ms[k] = rows
		                * (d * (rates->layer_m[k] + rates->attention * keys / 1024)
		                                + rates->head_m[k] + rates->row_ms);
	}
	work.prompt_ms = prompt
	                * (rates->row_ms
	                                + d
	                                                * (rates->prompt_layer
	                                                                + rates->prompt_attention
	                                                                                * w->longest_prompt
	                                                                                / 2048));
	if (source > 0)
		work.prompt_ms += source
		                                * (rates->row_ms + e * rates->source_layer
		                                                + d * rates->cross_layer)
		                + e * squares * rates->source_attention;
	if (w->scored_tokens > 0)
		work.prompt_ms += w->scored_tokens * rates->head_m[CHORDS - 1];
	work.prompt_ms += w->class_rows * rates->class_ms;
	*ret_work = work;
}

static int clamp(int x, int low, int high) {
	return x < low ? low : x > high ? high : x;
}

void scheduler_level_depth(const struct scheduler *s, const struct scheduled *r, int level,
                int ret_depth[STACKS]) {
	int of = s->options.layers[s->main_stack], n = r->ladder->n;
	int rung = clamp((n * level + of - 1) / of - 1, 0, n - 1);
	for (int k = 0; k < STACKS; k++)
		ret_depth[k] = clamp(r->ladder->rungs[rung][k], r->min_depth[k], r->max_depth[k]);
}

/* At a level: the binding depth, the one that it runs at, or what the level gives. */
static void depth_at(const struct scheduler *s, const struct scheduled *r, int level, bool narrow,
                int ret_depth[STACKS]) {
	int lower[STACKS];
	if (r->automatic && !r->at.running) {
		scheduler_level_depth(s, r, level, ret_depth);
		return;
	}
	for (int k = 0; k < STACKS; k++)
		ret_depth[k] = r->subnet.stack[k].depth;
	if (!narrow || !scheduler_may_narrow(s, r))
		return;
	scheduler_level_depth(s, r, level, lower);
	if (lower[STACK_DECODER] < ret_depth[STACK_DECODER])
		ret_depth[STACK_DECODER] = lower[STACK_DECODER];
}

/* ---- in time ---- */

static double add(struct scheduler_sum *sum, const struct scheduler_work *w) {
	double most = 0;
	sum->prompt_ms += w->prompt_ms;
	for (int k = 0; k < CHORDS; k++) {
		sum->chain_ms[k] = greater(sum->chain_ms[k], w->steps * w->fixed_ms[k]);
		sum->share_ms[k] += w->steps * w->share_ms[k];
		most = greater(most, sum->chain_ms[k] + sum->share_ms[k]);
	}
	return most + sum->prompt_ms;
}

/* A budget that can still be met, or a deadline. */
static bool counts(const struct scheduler *s, const struct scheduled *r) {
	if (r->at.lost)
		return false;
	return !r->at.running || isfinite(s->needs[r->at.index].left_ms);
}

bool scheduler_add_due(const struct scheduler *s, const struct scheduled *r, int level, bool narrow,
                struct scheduler_sum *sum, double *ret_ms) {
	struct scheduler_work work;
	int depth[STACKS];
	if (!counts(s, r))
		return false;
	depth_at(s, r, level, narrow, depth);
	scheduler_work_left(&s->rates, r, depth, &work);
	/* Every step carries along those that have no need and cannot rest for ever. */
	for (int k = 0; k < CHORDS; k++)
		work.fixed_ms[k] += s->filler_ms[k];
	/* For the first token only the prompt must run. */
	if (r->at.first_due)
		work.steps = 1;
	*ret_ms = add(sum, &work);
	/* Where nobody rests, each step is one of all that run. */
	if (s->options.without & SCHEDULER_WITHOUT_RESTS)
		*ret_ms = greater(*ret_ms,
		                work.steps * scheduler_together_ms(s, level, narrow)
		                                + sum->prompt_ms);
	*ret_ms *= s->bias;
	return true;
}

double scheduler_together_ms(const struct scheduler *s, int level, bool narrow) {
	double most = 0;
	struct scheduler_sum sum = { { 0 }, { 0 }, 0 };
	for (int i = 0; i < s->n_running; i++) {
		const struct scheduled *r = s->running[i];
		struct scheduler_work work;
		int depth[STACKS];
		if (r->progress.rows + r->progress.coming_rows == 0)
			continue;
		depth_at(s, r, level, narrow, depth);
		scheduler_work_left(&s->rates, r, depth, &work);
		work.steps = 1;
		work.prompt_ms = 0;
		most = add(&sum, &work);
	}
	return most;
}

/* The index among the due of the first that is late; n_due: none. */
static int first_late(
                const struct scheduler *s, int level, bool narrow, double margin, double now_ms) {
	struct scheduler_sum sum = { { 0 }, { 0 }, 0 };
	double ms;
	for (int i = 0; i < s->n_due; i++) {
		if (scheduler_add_due(s, s->due[i], level, narrow, &sum, &ms)
		                && ms * margin > s->due[i]->at.due_ms - now_ms)
			return i;
	}
	return s->n_due;
}

bool scheduler_in_time(struct scheduler *s, int level, bool narrow, double margin, double now_ms) {
	return first_late(s, level, narrow, margin, now_ms) == s->n_due;
}

/* The one to give up of the first `n`: of the least urgent class the one with most work. */
static struct scheduled *largest(const struct scheduler *s, int n) {
	struct scheduled *worst = NULL;
	double most = 0;
	for (int i = 0; i < n; i++) {
		struct scheduled *r = s->due[i];
		struct scheduler_work w;
		int depth[STACKS];
		if (!counts(s, r))
			continue;
		depth_at(s, r, 1, true, depth);
		scheduler_work_left(&s->rates, r, depth, &w);
		double work = w.prompt_ms + w.steps * w.share_ms[CHORDS - 1];
		if (!worst || r->at.class > worst->at.class
		                || (r->at.class == worst->at.class && work > most)) {
			worst = r;
			most = work;
		}
	}
	return worst;
}

void scheduler_sacrifice(struct scheduler *s, double margin, double now_ms) {
	int late;
	while ((late = first_late(s, 1, true, margin, now_ms)) < s->n_due) {
		struct scheduled *r = largest(s, late + 1);
		if (!r)
			return;
		scheduler_give_up(r, now_ms);
		if (r->at.running)
			s->needs[r->at.index] = (struct scheduler_need){ INFINITY, 0, INFINITY };
	}
}
