/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cost model learns from steps. Three things move a step's time, and are kept apart: what the
 * step does (the tables, slowly), what the machine does just now (the pace, within a few steps), and
 * single hiccups (the mean over the median). All of it holds for a machine that others use as well.
 */
#include <math.h>
#include <string.h>

#include "server/cost_parts.h"

#define RATE 0.1 /* of an error that one step mends */
/* Errors beyond the typical one count as that one; it follows the median of errors by such steps. */
#define TYPICAL_FIRST 0.1
#define TYPICAL_STEP 0.05
#define TYPICAL_LEAST 0.01
#define TYPICAL_MOST 0.3
#define DRIFT_STEPS 64.0
/* A pace that stays becomes the tables'. Noise only adds: a machine that is faster than the tables
 * say shows that they are wrong, one that is slower may be disturbed. */
#define PACE_UP 0.01
#define PACE_DOWN 0.5
#define PACE_MS 100.0  /* older steps say nothing of the present pace */
enum { PACE_FEW = 3 }; /* the fewest that make a median */
/* The mean is of about so many steps, or of so many milliseconds, if that is less. */
#define MEAN_STEPS 512.0
#define MEAN_MS 1000.0
#define MEAN_MOST 3.0      /* times the prediction: what one step counts at most */
#define OTHERS_STEPS 256.0 /* their prompts, and how far their answers are */
#define RECENT_STEPS 16.0  /* how many they are */
#define PROMPT_STEPS 32.0
/* The share that the constant, which may have been fitted as nothing, moves with at least. */
#define CONSTANT_SHARE 0.05

/* The model's tables and rates as one vector, in the order of struct cost_model. */
enum {
	TERM_CROSS = STACKS * COST_POINTS,
	TERM_ATTENTION = TERM_CROSS + COST_POINTS,
	TERM_CHUNK,
	TERM_SOURCE,
	TERM_HEAD,
	TERM_CLASS = TERM_HEAD + COST_POINTS,
	TERM_CONSTANT,
	TERM_ROW,
	TERMS,
};
_Static_assert(offsetof(struct cost_model, cross_ms) == TERM_CROSS * sizeof(double), "order");
_Static_assert(offsetof(struct cost_model, attention_ms) == TERM_ATTENTION * sizeof(double),
                "order");
_Static_assert(offsetof(struct cost_model, source_attention_ms) == TERM_SOURCE * sizeof(double),
                "order");
_Static_assert(offsetof(struct cost_model, head_ms) == TERM_HEAD * sizeof(double), "order");
_Static_assert(offsetof(struct cost_model, constant_ms) == TERM_CONSTANT * sizeof(double), "order");
_Static_assert(offsetof(struct cost_model, pace) == TERMS * sizeof(double), "order");

enum cost_kind cost_kind_of(const struct cost_step *step) {
	if (step->decode_rows > 0)
		return step->decode_rows < step->rows ? COST_MIXED : COST_DECODE;
	const int *encoder = step->row_count[STACK_ENCODER];
	for (int l = 0; encoder && l < step->layers[STACK_ENCODER]; l++) {
		if (encoder[l] > 0)
			return COST_ENCODE;
	}
	return COST_PREFILL;
}

/* ---- tables ---- */

static void add_rows(double *weights, int rows) {
	if (rows <= 0)
		return;
	struct cost_place p = cost_place_of(rows);
	weights[p.low] += 1 - p.weight;
	weights[p.low + 1] += p.weight;
}

static void add_layers(double *weights, const int *count, int layers) {
	for (int l = 0; count && l < layers; l++)
		add_rows(weights, count[l]);
}

/* How often each term is in the step: its time is their sum, weighted. */
static void weigh(const struct cost_step *step, double weights[TERMS]) {
	memset(weights, 0, TERMS * sizeof weights[0]);
	for (int k = 0; k < STACKS; k++)
		add_layers(weights + k * COST_POINTS, step->row_count[k], step->layers[k]);
	add_layers(weights + TERM_CROSS, step->source_count, step->layers[STACK_DECODER]);
	weights[TERM_ATTENTION] = step->attended;
	weights[TERM_CHUNK] = step->chunk_attended;
	weights[TERM_SOURCE] = step->source_attended;
	add_rows(weights + TERM_HEAD, step->logit_rows);
	weights[TERM_CLASS] = step->class_rows;
	weights[TERM_CONSTANT] = 1;
	weights[TERM_ROW] = step->rows;
}

/* Moves the prediction by `move`, a share of it: each term in proportion to what it is of the whole,
 * so that the large ones carry the blame. */
static void move_tables(struct cost_model *cost, const struct cost_step *step, double move) {
	double weights[TERMS], *terms = (double *)cost, sum = 0, squares = 0;
	weigh(step, weights);
	for (int i = 0; i < TERMS; i++) {
		weights[i] *= terms[i];
		sum += weights[i];
	}
	if (!(sum > 0))
		return;
	if (weights[TERM_CONSTANT] < CONSTANT_SHARE * sum)
		weights[TERM_CONSTANT] = CONSTANT_SHARE * sum;
	for (int i = 0; i < TERMS; i++) {
		weights[i] /= sum;
		squares += weights[i] * weights[i];
	}
	double constant = cost->constant_ms
	                + move / squares * weights[TERM_CONSTANT] * weights[TERM_CONSTANT] * sum;
	for (int i = 0; i < TERMS; i++) {
		double factor = 1 + move / squares * weights[i];
		terms[i] *= factor > 0.5 ? factor : 0.5;
	}
	cost->constant_ms = constant > 0 ? constant : 0;
}

/* ---- pace ---- */

/* Milliseconds from the end of the last step to now. */
static double idle_since(const struct cost_learner *learner, double now_ms) {
	return learner->steps > 0 && now_ms > learner->ended_ms ? now_ms - learner->ended_ms : 0;
}

void cost_keep_pace(struct cost_learner *learner, struct cost_model *cost, double now_ms) {
	/* Where few steps are known, the machine is supposed to be as usual: one may be a hiccup. */
	double sorted[COST_PACE] = { 1, 1, 1 };
	double idle = idle_since(learner, now_ms);
	int known = learner->steps < COST_PACE ? (int)learner->steps : COST_PACE, n = 0;
	for (int i = 0; i < known; i++) {
		if (learner->idle_ms + idle - learner->idle_at[i] <= PACE_MS)
			sorted[n++] = learner->ratio[i];
	}
	n = n < PACE_FEW ? PACE_FEW : n;
	for (int i = 1; i < n; i++) {
		double ratio = sorted[i];
		int at = i;
		for (; at > 0 && sorted[at - 1] > ratio; at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = ratio;
	}
	cost->pace = 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]);
	/* An idle time counts as the steps that would have fitted in. */
	double steps = learner->step_ms > 0 ? idle / learner->step_ms : 0;
	cost->recent_rows = learner->recent_rows * exp(-steps / RECENT_STEPS);
	cost->recent_keys = learner->recent_keys;
}

/* Steps without running answers come between them, and say nothing of how many there are. */
static void learn_rows(struct cost_learner *learner, const struct cost_model *cost,
                const struct cost_step *step, double actual_ms) {
	if (step->decode_rows == 0)
		return;
	int answers = step->decode_rows - step->drafted_rows;
	double before = cost->recent_rows, weight = learner->step_ms > 0 ? 1 / RECENT_STEPS : 1;
	learner->recent_rows = before + weight * (answers - before);
	learner->step_ms += weight * (actual_ms - learner->step_ms);
	double keys = step->attended / answers;
	weight = learner->recent_keys > 0 ? 1 / OTHERS_STEPS : 1;
	learner->recent_keys += weight * (keys - learner->recent_keys);
}

static void remember_ratio(struct cost_learner *learner, double ratio, double now_ms) {
	size_t at = learner->steps++ % COST_PACE;
	learner->ratio[at] = ratio;
	learner->idle_at[at] = learner->idle_ms;
	learner->ended_ms = now_ms;
}

/* ---- errors ---- */

/* Bucket i ends at 0.001 x 1.15^i: 0.1 % to 20 times. */
static double bucket_end(int bucket) {
	return 0.001 * pow(1.15, bucket);
}

static int bucket_of(double error) {
	int bucket = error <= 0.001 ? 0 : (int)ceil(log(error / 0.001) / log(1.15));
	return bucket < COST_BUCKETS ? bucket : COST_BUCKETS - 1;
}

static double window_quantile(const struct cost_window *w, double q) {
	size_t n = w->steps < COST_STEPS ? w->steps : COST_STEPS;
	size_t below = 0, aim = (size_t)ceil(q * (double)n);
	for (int i = 0; i < COST_BUCKETS; i++) {
		below += w->count[i];
		if (below >= aim)
			return bucket_end(i);
	}
	return bucket_end(COST_BUCKETS - 1);
}

static void count_error(struct cost_window *w, double error, struct cost_error *ret_error) {
	uint8_t *place = &w->ring[w->steps % COST_STEPS];
	if (w->steps >= COST_STEPS)
		w->count[*place]--;
	*place = (uint8_t)bucket_of(error);
	w->count[*place]++;
	w->steps++;
	ret_error->p50 = window_quantile(w, 0.5);
	ret_error->p95 = window_quantile(w, 0.95);
}

/* ---- sums ---- */

/* A step's prompts, by the tables, so that no hiccup counts. */
static double prompts_ms(
                const struct cost_model *cost, const struct cost_step *step, double table_ms) {
	if (step->decode_rows == step->rows)
		return 0;
	if (step->decode_rows == 0)
		return table_ms;
	struct cost_step alone = { .layers = { 0, step->layers[STACK_DECODER] },
		.row_count = { NULL, step->decode_count },
		.rows = step->decode_rows,
		.logit_rows = step->decode_rows,
		.attended = step->attended };
	double ms = table_ms - cost_tables_ms(cost, &alone);
	return ms > 0 ? ms : 0;
}

/* What others' prompts add to the running answers' steps, and what a prompt takes. */
static void learn_interference(struct cost_learner *learner, struct cost_model *cost,
                const struct cost_step *step, double table_ms) {
	if (step->decode_rows > 0 && !step->decode_count)
		return;
	double ms = prompts_ms(cost, step, table_ms);
	if (step->decode_rows > 0) {
		double fade = 1 - 1 / OTHERS_STEPS;
		learner->extra_ms = fade * learner->extra_ms + ms;
		learner->rows = fade * learner->rows + step->decode_rows - step->drafted_rows;
		cost->interference_ms = learner->extra_ms / learner->rows;
	}
	if (ms > 0) {
		double fade = 1 - 1 / PROMPT_STEPS;
		int begun = step->logit_rows - step->decode_rows;
		learner->prompts_ms = fade * learner->prompts_ms + ms;
		learner->begun = fade * learner->begun + (begun > 0 ? begun : 0);
		cost->recent_prompt_ms =
		                learner->begun >= 1 ? learner->prompts_ms / learner->begun : 0;
	}
}

static void learn_mean(struct cost_learner *learner, struct cost_model *cost, double table_ms,
                double actual_ms, double since_ms) {
	double most = MEAN_MOST * table_ms * cost->pace;
	double fade = exp(-fmax(1 / MEAN_STEPS, since_ms / MEAN_MS));
	actual_ms = fmin(actual_ms, most);
	learner->actual_ms = fade * learner->actual_ms + actual_ms;
	learner->paced_ms = fade * learner->paced_ms + table_ms * cost->pace;
	learner->table_ms = fade * learner->table_ms + table_ms;
	cost->mean_ratio = learner->actual_ms / learner->table_ms;
	cost->jitter = learner->actual_ms / learner->paced_ms;
}

double cost_learn_step(struct cost_learner *learner, struct cost_model *cost,
                const struct cost_step *step, double actual_ms, double now_ms) {
	double table = cost_tables_ms(cost, step);
	if (!(table > 0) || !(actual_ms > 0) || !isfinite(actual_ms))
		return 0;
	enum cost_kind kind = cost_kind_of(step);
	double began_ms = now_ms - actual_ms, idle = idle_since(learner, began_ms);
	cost_keep_pace(learner, cost, began_ms);
	double pace = cost->pace, error = actual_ms / (table * pace) - 1;
	count_error(&learner->errors[kind], fabs(error), &cost->step_error[kind]);

	learn_mean(learner, cost, table, actual_ms, idle + actual_ms);
	learn_interference(learner, cost, step, table);
	learn_rows(learner, cost, step, actual_ms);

	double *typical = &learner->typical[kind];
	if (*typical <= 0)
		*typical = TYPICAL_FIRST;
	double move = error > *typical ? *typical : error < -*typical ? -*typical : error;
	*typical *= fabs(error) > *typical ? 1 + TYPICAL_STEP : 1 - TYPICAL_STEP;
	*typical = fmin(fmax(*typical, TYPICAL_LEAST), TYPICAL_MOST);
	/* Pace and tables could both say that a machine is faster or slower: what all steps have in
	 * common is the pace's, and becomes the tables' by its own rates only. Else they would run
	 * away from each other. */
	learner->drift += (move - learner->drift) / DRIFT_STEPS;
	double lasting = fmax(log(pace), -1);
	lasting *= lasting > 0 ? PACE_UP : PACE_DOWN;
	move_tables(cost, step, RATE * (move - learner->drift + lasting));

	learner->idle_ms += idle;
	remember_ratio(learner, actual_ms / table, now_ms);
	cost_keep_pace(learner, cost, now_ms);
	return error + 1;
}
