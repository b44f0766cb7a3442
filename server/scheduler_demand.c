/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work that is due. Requests are taken in the order in which they are due, and those due by a
 * moment must be done by then; what is due later may rest meanwhile and does not matter. This is the
 * demand bound of earliest-deadline-first scheduling (Baruah, Rosier, Howell 1990) for an engine
 * that works on many requests at once: n requests with N tokens left, of which the longest has
 * n_max, share steps of N / n_max rows on average, n_max of them. A prompt takes its rows in larger
 * chunks. Nobody is done sooner than he would be alone, because a token waits for the one before it.
 *
 * When not all can be in time at the lowest level, the largest of the work that is due is given up,
 * and so on until the rest is in time: the fewest are late (Moore 1968, Hodgson's algorithm).
 */
#include <math.h>

#include "server/scheduler_parts.h"

enum { CHUNK_POINT = 8, BUSY_POINT = 6 }; /* of cost_rows: 128 rows of prompts; 32 of answers */
/* This share of the most tokens a second is enough. */
#define ENOUGH 0.75

static double greater(double a, double b) {
	return a > b ? a : b;
}

/* ---- the machine ---- */

/* What steps take in the mean over what the tables say: they are contended, now and in general. */
static double mean_over_tables(const struct cost_model *cost) {
	double pace = cost->pace > 0 ? cost->pace : 1;
	double mean = cost->mean_ratio > 0 ? cost->mean_ratio : 1;
	return pace > mean ? (pace + mean) / 2 : mean;
}

double scheduler_mean_over_step(const struct cost_model *cost) {
	return mean_over_tables(cost) / (cost->pace > 0 ? cost->pace : 1);
}

/* A step of `rows` rows, which need not be whole, at `depth` on average; without attention. */
static double rows_ms(const struct scheduler_rates *rates, double rows, double depth) {
	int i = 0;
	rows = greater(rows, 1);
	while (i + 2 < COST_POINTS && cost_rows[i + 1] <= rows)
		i++;
	double weight = (rows - cost_rows[i]) / (cost_rows[i + 1] - cost_rows[i]);
	double layer = rates->layer_ms[i] * (1 - weight) + rates->layer_ms[i + 1] * weight;
	double head = rates->head_ms[i] * (1 - weight) + rates->head_ms[i + 1] * weight;
	return rates->constant + depth * layer + head + rates->row_ms * rows;
}

/* The fewest rows that give nearly as many tokens a second as any number of them does, at half of
 * the layers. Fewer are done sooner at the same rate, and what waits can still choose its depth. */
static int enough_rows(const struct scheduler_rates *rates, double depth) {
	double best = 0;
	int i;
	for (i = 0; i < COST_POINTS && cost_rows[i] <= rates->sequences; i++)
		best = greater(best, cost_rows[i] / rows_ms(rates, cost_rows[i], depth));
	for (i = 0; i < COST_POINTS && cost_rows[i] <= rates->sequences; i++) {
		if (cost_rows[i] / rows_ms(rates, cost_rows[i], depth) >= ENOUGH * best)
			break;
	}
	return i < COST_POINTS && cost_rows[i] < rates->sequences ? cost_rows[i] : rates->sequences;
}

void scheduler_set_rates(const struct cost_model *cost, int sequences, double depth,
                struct scheduler_rates *ret_rates) {
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
	for (int i = 0; i < COST_POINTS; i++) {
		r->layer_ms[i] = m * cost->layer_ms[STACK_DECODER][i];
		r->head_ms[i] = m * cost->head_ms[i];
	}
	r->enough = enough_rows(r, depth);
}

/* ---- the work of a request ---- */

void scheduler_work_left(const struct scheduler_rates *rates, const struct scheduled *r,
                const int depth[STACKS], struct scheduler_work *ret_work) {
	const struct cost_work *w = &r->work;
	const struct scheduled_progress *p = &r->progress;
	bool running = r->at.running;
	double d = depth[STACK_DECODER], e = depth[STACK_ENCODER];
	double rows = running ? p->choices_left : w->choices, steps = w->output_tokens;
	double prompt = running ? p->prompt_tokens + p->later_tokens
	                        : scheduler_prompt_tokens(r, depth[STACK_DECODER]);
	double source = running ? p->source_tokens : w->source_tokens;
	double squares = running ? p->source_squares : w->source_attended;
	double keys = w->longest_prompt + w->longest_source + 0.5 * w->output_tokens;
	if (running && steps > 0)
		steps = greater(steps - p->tokens_out, 1);
	if (rows > rates->sequences) {
		steps *= rows / rates->sequences;
		rows = rates->sequences;
	}
	double token_ms = rates->row_ms
	                + d
	                                * (rates->prompt_layer
	                                                + rates->prompt_attention
	                                                                * w->longest_prompt / 2048);
	double source_ms = rates->row_ms + e * rates->source_layer + d * rates->cross_layer;
	double head_ms = rates->head_ms[BUSY_POINT] / cost_rows[BUSY_POINT];
	double prompt_ms = prompt * token_ms;
	/* The step that ends the prompt gives the first token, and takes what a step takes. */
	if (prompt > 0) {
		double least_ms = d * rates->layer_ms[0];
		prompt_ms = greater(prompt_ms, least_ms) + rates->constant + rates->head_ms[0];
		steps -= steps > 0;
	}
	*ret_work = (struct scheduler_work){ .steps = steps,
		.rows = rows,
		.depth = d,
		.attention_ms = rates->attention * d * keys / 1024,
		.prompt_ms = prompt_ms + source * source_ms + e * squares * rates->source_attention
		                + w->scored_tokens * head_ms + w->class_rows * rates->class_ms };
}

double scheduler_alone_ms(const struct scheduler_rates *rates, const struct scheduler_work *w) {
	return rows_ms(rates, w->rows, w->depth) + w->rows * w->attention_ms;
}

double scheduler_busy_ms(const struct scheduler_rates *rates, const struct scheduler_work *w) {
	double rows = cost_rows[BUSY_POINT];
	return w->prompt_ms
	                + w->steps * w->rows
	                * (rows_ms(rates, rows, w->depth) / rows + w->attention_ms);
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

static void add(struct scheduler_sum *sum, const struct scheduler_work *w, double alone_ms) {
	double tokens = w->steps * w->rows;
	sum->longest = greater(sum->longest, w->steps);
	sum->chain_ms = greater(sum->chain_ms, w->prompt_ms + w->steps * alone_ms);
	sum->tokens += tokens;
	sum->layers += tokens * w->depth;
	sum->other_ms += w->prompt_ms + tokens * w->attention_ms;
}

/* Steps of a sum, with `more` rows in each that are not due. */
static double steps_ms(const struct scheduler *s, const struct scheduler_sum *sum, double more_rows,
                double more_layers) {
	double rows = sum->tokens / sum->longest;
	if (rows > s->rates.enough)
		rows = s->rates.enough;
	double all = rows + more_rows;
	double layers = sum->layers / sum->tokens * rows + more_layers;
	return sum->tokens / rows * rows_ms(&s->rates, all, layers / all);
}

/* How long all of a sum take. What is not due rests meanwhile, as long as it can, and then takes
 * its share of the time. */
static double sum_ms(const struct scheduler *s, const struct scheduler_sum *sum) {
	double ms = 0;
	if (sum->tokens > 0) {
		ms = steps_ms(s, sum, s->firm_rows, s->firm_layers);
		if (ms > s->filler_rest_ms && s->filler_rows > 0) {
			double along = steps_ms(s, sum, s->firm_rows + s->filler_rows,
			                s->firm_layers + s->filler_layers);
			ms += (along - ms) * (1 - s->filler_rest_ms / ms);
		}
	}
	return greater(ms + sum->other_ms, sum->chain_ms);
}

/* A budget that can still be met, or a deadline. */
static bool counts(const struct scheduler *s, const struct scheduled *r) {
	if (r->at.lost || (!r->at.running && (s->options.without & SCHEDULER_WITHOUT_WAITING)))
		return false;
	return !r->at.running || isfinite(s->needs[r->at.index].left_ms);
}

bool scheduler_add_due(const struct scheduler *s, const struct scheduled *r, int level, bool narrow,
                struct scheduler_sum *sum, double *ret_ms, double *ret_own_ms) {
	struct scheduler_work work;
	int depth[STACKS];
	if (!counts(s, r))
		return false;
	depth_at(s, r, level, narrow, depth);
	scheduler_work_left(&s->rates, r, depth, &work);
	/* For the first token only the prompt must run. */
	if (r->at.first_due)
		work.steps = 0;
	double alone_ms = scheduler_alone_ms(&s->rates, &work);
	*ret_own_ms = work.prompt_ms + work.steps * alone_ms;
	add(sum, &work, alone_ms);
	*ret_ms = sum_ms(s, sum);
	/* Where nobody rests, each step is one of all that run. */
	if (s->options.without & SCHEDULER_WITHOUT_RESTS)
		*ret_ms = greater(*ret_ms, work.steps * scheduler_together_ms(s, level, narrow));
	*ret_ms *= s->bias;
	return true;
}

double scheduler_together_ms(const struct scheduler *s, int level, bool narrow) {
	double rows = 0, layers = 0, attention_ms = 0;
	for (int i = 0; i < s->n_running; i++) {
		const struct scheduled *r = s->running[i];
		struct scheduler_work work;
		int depth[STACKS];
		if (r->progress.rows + r->progress.coming_rows == 0 || scheduler_may_rest(s, r))
			continue;
		depth_at(s, r, level, narrow, depth);
		scheduler_work_left(&s->rates, r, depth, &work);
		rows += work.rows;
		layers += work.rows * work.depth;
		attention_ms += work.rows * work.attention_ms;
	}
	return rows > 0 ? rows_ms(&s->rates, rows, layers / rows) + attention_ms : 0;
}

/* The index among the due of the first that is late; n_due: none. */
static int first_late(const struct scheduler *s, int level, bool narrow, double margin,
                double reserve, double now_ms) {
	struct scheduler_sum sum = { 0 };
	double ms, own;
	for (int i = 0; i < s->n_due; i++) {
		if (scheduler_add_due(s, s->due[i], level, narrow, &sum, &ms, &own)
		                && ms * margin + reserve * greater(ms - own, 0)
		                                > s->due[i]->at.due_ms - now_ms)
			return i;
	}
	return s->n_due;
}

bool scheduler_in_time(struct scheduler *s, int level, bool narrow, double margin, double reserve,
                double now_ms) {
	return first_late(s, level, narrow, margin, reserve, now_ms) == s->n_due;
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
		double work = scheduler_busy_ms(&s->rates, &w);
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
	while ((late = first_late(s, 1, true, margin, 0, now_ms)) < s->n_due) {
		struct scheduled *r = largest(s, late + 1);
		if (!r)
			return;
		scheduler_give_up(r, now_ms);
		if (r->at.running)
			s->needs[r->at.index] = (struct scheduler_need){ INFINITY, 0, INFINITY };
	}
}

void scheduler_find_slack(struct scheduler *s, double margin, double now_ms) {
	struct scheduler_sum sum = { 0 };
	double least = INFINITY, ms, own;
	for (int i = 0; i < s->n_due; i++) {
		if (scheduler_add_due(s, s->due[i], 1, false, &sum, &ms, &own)) {
			double slack = (s->due[i]->at.due_ms - now_ms) / margin - ms;
			least = slack < least ? slack : least;
		}
		s->slack[i] = least;
	}
}
