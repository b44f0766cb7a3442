/* SPDX-License-Identifier: Apache-2.0 */
/* What metrics.c counts and metrics_text.c renders. Private to these two files. */
#ifndef FATHOM_SERVER_METRICS_DATA_H
#define FATHOM_SERVER_METRICS_DATA_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/metrics.h"

enum { SECONDS_BOUNDS = 17, ROWS_BOUNDS = 11, RATIO_BOUNDS = 12, MOST_BOUNDS = 17 };
enum { REASONS = 4, MOST_ROUTES = 256, MOST_REASONS = 32 };

extern const double metrics_seconds[SECONDS_BOUNDS], metrics_rows[ROWS_BOUNDS],
                metrics_ratios[RATIO_BOUNDS];
extern const char *const metrics_reasons[REASONS];

struct histogram {
	atomic_llong buckets[MOST_BOUNDS + 1]; /* not cumulative; the last is +Inf */
	_Atomic double sum;
};

struct depth_metrics {
	atomic_bool used;
	struct histogram duration, first_token, inter_token;
	atomic_llong generated;
	atomic_llong selected[REASONS];
};

struct label_counter {
	char label[64];
	int code;
	atomic_llong count;
};

struct metrics {
	int layers[STACKS];
	enum stack main;                  /* whose depth the label `depth` is */
	bool pairs;                       /* an encoder beside it */
	size_t n_depths;                  /* in by_depth: (encoder + 1) x (depth + 1) */
	struct depth_metrics *by_depth;   /* [n_depths], the main stack's depth runs fastest */
	atomic_llong *layer_rows[STACKS]; /* [layers] */
	struct histogram queue_seconds, step_seconds[PHASES], step_rows, prediction;
	struct histogram step_prediction[COST_KINDS];
	atomic_llong prefix_prompts[2], prefix_tokens, prefix_evicted;
	atomic_llong drafts, drafted, draft_accepted;
	atomic_llong prompt_tokens, budgets[2], deadlines[STAGES], cancelled[STAGES], connections;
	_Atomic double busy_seconds;
	pthread_mutex_t lock; /* labels of the two tables below */
	struct label_counter requests[MOST_ROUTES], rejected[MOST_REASONS];
};

#endif
