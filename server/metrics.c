/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters and histograms as arrays of relaxed atomics. Names and labels are API.md's; the text is
 * rendered in metrics_text.c.
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

struct metrics *metrics_create(int layers) {
	struct metrics *m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	m->layers = layers;
	m->by_depth = calloc((size_t)layers + 1, sizeof *m->by_depth);
	m->layer_rows = calloc((size_t)layers, sizeof *m->layer_rows);
	if (!m->by_depth || !m->layer_rows || pthread_mutex_init(&m->lock, NULL) != 0) {
		free(m->by_depth);
		free(m->layer_rows);
		free(m);
		return NULL;
	}
	return m;
}

void metrics_destroy(struct metrics *m) {
	if (!m)
		return;
	pthread_mutex_destroy(&m->lock);
	free(m->by_depth);
	free(m->layer_rows);
	free(m);
}

static struct depth_metrics *at_depth(struct metrics *m, int depth) {
	return &m->by_depth[depth < 0 ? 0 : depth > m->layers ? m->layers : depth];
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
                const int *rows_of_layer) {
	observe_seconds(&m->step_seconds[phase], seconds);
	observe(&m->step_rows, metrics_rows, ROWS_BOUNDS, rows);
	for (int i = 0; i < m->layers; i++)
		if (rows_of_layer[i])
			count(&m->layer_rows[i], rows_of_layer[i]);
}

void metrics_busy(struct metrics *m, double seconds) {
	add(&m->busy_seconds, seconds);
}

void metrics_queue_time(struct metrics *m, double seconds) {
	observe_seconds(&m->queue_seconds, seconds);
}

void metrics_first_token(struct metrics *m, int depth, double seconds) {
	observe_seconds(&at_depth(m, depth)->first_token, seconds);
}

void metrics_inter_token(struct metrics *m, int depth, double seconds) {
	observe_seconds(&at_depth(m, depth)->inter_token, seconds);
}

void metrics_tokens(struct metrics *m, int64_t prompt, int64_t generated, int depth) {
	count(&m->prompt_tokens, prompt);
	count(&at_depth(m, depth)->generated, generated);
}

void metrics_job_done(struct metrics *m, int depth, double seconds) {
	observe_seconds(&at_depth(m, depth)->duration, seconds);
}

void metrics_depth_selected(struct metrics *m, int depth, const char *reason) {
	struct depth_metrics *d = at_depth(m, depth);
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

void metrics_deadline_exceeded(struct metrics *m, enum metrics_stage stage) {
	count(&m->deadlines[stage], 1);
}

void metrics_cancelled(struct metrics *m, enum metrics_stage stage) {
	count(&m->cancelled[stage], 1);
}
