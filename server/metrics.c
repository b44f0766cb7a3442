/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters and histograms as arrays of relaxed atomics. Names and labels stand in metrics_text.c,
 * which renders the text.
 */
#include "server/metrics.h"

#include <stdlib.h>
#include <string.h>

#include "server/metrics_data.h"

const double metrics_seconds[] = { 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5,
	10, 30, 60, 120, 300 };
const double metrics_rows[] = { 1, 2, 4, 8, 12, 16, 32, 64, 128, 256, 512 };
const double metrics_ratios[] = { 0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.5, 2, 5 };

_Static_assert(sizeof metrics_seconds / sizeof *metrics_seconds == SECONDS_BOUNDS, "bounds");
_Static_assert(sizeof metrics_rows / sizeof *metrics_rows == ROWS_BOUNDS, "bounds");
_Static_assert(sizeof metrics_ratios / sizeof *metrics_ratios == RATIO_BOUNDS, "bounds");

static void count(atomic_llong *counter, long long n) {
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void add(_Atomic double *sum, double value) {
	double old = atomic_load_explicit(sum, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(
	                sum, &old, old + value, memory_order_relaxed, memory_order_relaxed))
		;
}

static void observe(struct histogram *h, const double *bounds, int n, double value) {
	int i = 0;
	while (i < n && value > bounds[i])
		i++;
	count(&h->buckets[i], 1);
	add(&h->sum, value);
}

static void observe_seconds(struct histogram *h, double seconds) {
	observe(h, metrics_seconds, SECONDS_BOUNDS, seconds);
}

static void free_arrays(struct metrics *m) {
	free(m->by_depth);
	for (int k = 0; k < STACKS; k++)
		free(m->layer_rows[k]);
	free(m);
}

struct metrics *metrics_create(const struct facts *facts) {
	struct metrics *m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	int *layers = m->layers;
	for (int k = 0; k < STACKS; k++)
		layers[k] = facts->stack[k].layers;
	m->main = layers[STACK_DECODER] > 0 ? STACK_DECODER : STACK_ENCODER;
	m->pairs = layers[STACK_DECODER] > 0 && layers[STACK_ENCODER] > 0;
	m->n_depths = ((size_t)layers[m->main] + 1)
	                * (m->pairs ? (size_t)layers[STACK_ENCODER] + 1 : 1);
	m->by_depth = calloc(m->n_depths, sizeof *m->by_depth);
	bool ready = m->by_depth != NULL;
	for (int k = 0; k < STACKS; k++) {
		m->layer_rows[k] = calloc((size_t)layers[k] + 1, sizeof *m->layer_rows[k]);
		ready = ready && m->layer_rows[k];
	}
	if (!ready || pthread_mutex_init(&m->lock, NULL) != 0) {
		free_arrays(m);
		return NULL;
	}
	return m;
}

void metrics_destroy(struct metrics *m) {
	if (!m)
		return;
	pthread_mutex_destroy(&m->lock);
	free_arrays(m);
}

bool metrics_suit(const struct metrics *m, const struct facts *facts) {
	return m->layers[STACK_ENCODER] == facts->stack[STACK_ENCODER].layers
	                && m->layers[STACK_DECODER] == facts->stack[STACK_DECODER].layers;
}

static size_t within(int depth, int layers) {
	return depth < 0 ? 0 : depth > layers ? (size_t)layers : (size_t)depth;
}

static struct depth_metrics *at_depth(struct metrics *m, const struct subnet *subnet) {
	int layers = m->layers[m->main];
	size_t at = within(subnet->stack[m->main].depth, layers);
	if (m->pairs)
		at += within(subnet->stack[STACK_ENCODER].depth, m->layers[STACK_ENCODER])
		                * ((size_t)layers + 1);
	atomic_store_explicit(&m->by_depth[at].used, true, memory_order_relaxed);
	return &m->by_depth[at];
}

/* Finds or adds the counter of a small label set; the last slot takes what does not fit. */
static atomic_llong *labelled(struct metrics *m, struct label_counter *counters, int most,
                const char *label, int code) {
	pthread_mutex_lock(&m->lock);
	int i = 0;
	while (i < most - 1 && counters[i].label[0]
	                && (counters[i].code != code || strcmp(counters[i].label, label) != 0))
		i++;
	if (!counters[i].label[0]) {
		const char *name = i < most - 1 ? label : "other";
		strncpy(counters[i].label, name, sizeof counters[i].label - 1);
		counters[i].code = i < most - 1 ? code : 0;
	}
	pthread_mutex_unlock(&m->lock);
	return &counters[i].count;
}

void metrics_request(struct metrics *m, const char *route, int code) {
	count(labelled(m, m->requests, MOST_ROUTES, route, code), 1);
}

void metrics_rejected(struct metrics *m, const char *reason) {
	count(labelled(m, m->rejected, MOST_REASONS, reason, 0), 1);
}

void metrics_connections(struct metrics *m, int64_t open) {
	atomic_store_explicit(&m->connections, open, memory_order_relaxed);
}

void metrics_step(struct metrics *m, enum metrics_phase phase, double seconds, int rows,
                const int *const rows_of_layer[STACKS]) {
	observe_seconds(&m->step_seconds[phase], seconds);
	observe(&m->step_rows, metrics_rows, ROWS_BOUNDS, rows);
	for (int k = 0; k < STACKS; k++) {
		for (int i = 0; rows_of_layer[k] && i < m->layers[k]; i++)
			if (rows_of_layer[k][i])
				count(&m->layer_rows[k][i], rows_of_layer[k][i]);
	}
}

void metrics_busy(struct metrics *m, double seconds) {
	add(&m->busy_seconds, seconds);
}

void metrics_queue_time(struct metrics *m, double seconds) {
	observe_seconds(&m->queue_seconds, seconds);
}

void metrics_first_token(struct metrics *m, const struct subnet *subnet, double seconds) {
	observe_seconds(&at_depth(m, subnet)->first_token, seconds);
}

void metrics_inter_token(struct metrics *m, const struct subnet *subnet, double seconds) {
	observe_seconds(&at_depth(m, subnet)->inter_token, seconds);
}

void metrics_tokens(
                struct metrics *m, int64_t prompt, int64_t generated, const struct subnet *subnet) {
	count(&m->prompt_tokens, prompt);
	count(&at_depth(m, subnet)->generated, generated);
}

void metrics_prefix(struct metrics *m, int tokens) {
	count(&m->prefix_prompts[tokens > 0], 1);
	count(&m->prefix_tokens, tokens);
}

void metrics_prefix_evicted(struct metrics *m, int64_t blocks) {
	count(&m->prefix_evicted, blocks);
}

void metrics_drafted(struct metrics *m, int drafted, int accepted) {
	count(&m->drafts, 1);
	count(&m->drafted, drafted);
	count(&m->draft_accepted, accepted);
}

void metrics_job_done(struct metrics *m, const struct subnet *subnet, double seconds) {
	observe_seconds(&at_depth(m, subnet)->duration, seconds);
}

void metrics_depth_selected(struct metrics *m, const struct subnet *subnet, const char *reason) {
	struct depth_metrics *d = at_depth(m, subnet);
	for (int i = 0; i < REASONS; i++)
		if (strcmp(reason, metrics_reasons[i]) == 0)
			count(&d->selected[i], 1);
}

void metrics_budget(struct metrics *m, bool met) {
	count(&m->budgets[met], 1);
}

void metrics_prediction(struct metrics *m, double actual_over_predicted) {
	observe(&m->prediction, metrics_ratios, RATIO_BOUNDS, actual_over_predicted);
}

void metrics_step_prediction(struct metrics *m, enum cost_kind kind, double actual_over_predicted) {
	observe(&m->step_prediction[kind], metrics_ratios, RATIO_BOUNDS, actual_over_predicted);
}

void metrics_deadline_exceeded(struct metrics *m, enum metrics_stage stage) {
	count(&m->deadlines[stage], 1);
}

void metrics_cancelled(struct metrics *m, enum metrics_stage stage) {
	count(&m->cancelled[stage], 1);
}
