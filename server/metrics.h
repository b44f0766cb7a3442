/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics: counters, gauges and histograms of /metrics, whose names begin with fathom_. Any thread
 * may count (relaxed atomics); the loop thread renders the text.
 */
#ifndef FATHOM_SERVER_METRICS_H
#define FATHOM_SERVER_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/facts.h"
#include "model/weights.h"
#include "proto/buffer.h"
#include "server/cost.h"

struct metrics;

/*
 * The layers of the stacks bound the label `depth`, which is the decoder's, or that of an encoder
 * alone. A model with both has the label `encoder_depth` beside it, and only the pairs that were
 * used are listed. `facts` is not kept.
 */
struct metrics *metrics_create(const struct facts *facts);
/* Whether the stacks of `facts` are as large as those that these metrics were created for. */
bool metrics_suit(const struct metrics *m, const struct facts *facts);
void metrics_destroy(struct metrics *m);

enum metrics_stage { STAGE_QUEUE, STAGE_PREFILL, STAGE_DECODE, STAGES };
enum metrics_phase { PHASE_PREFILL, PHASE_DECODE, PHASE_MIXED, PHASE_DRAFT, PHASES };

/* loop thread */
void metrics_request(struct metrics *m, const char *route, int code);
void metrics_rejected(struct metrics *m, const char *reason); /* an error code's name */
void metrics_connections(struct metrics *m, int64_t open);

/* engine thread; seconds; the depths are those of the subnet that ran */
void metrics_step(struct metrics *m, enum metrics_phase phase, double seconds, int rows,
                const int *const rows_of_layer[STACKS]); /* [layers], or NULL */
void metrics_busy(struct metrics *m, double seconds);
void metrics_queue_time(struct metrics *m, double seconds);
void metrics_first_token(struct metrics *m, const struct subnet *subnet, double seconds);
void metrics_inter_token(struct metrics *m, const struct subnet *subnet, double seconds);
void metrics_tokens(
                struct metrics *m, int64_t prompt, int64_t generated, const struct subnet *subnet);
/* A prompt that may use the prefix cache, and how many of its tokens were there. */
void metrics_prefix(struct metrics *m, int tokens);
void metrics_prefix_evicted(struct metrics *m, int64_t blocks);
/* A verification: of `drafted` tokens the first `accepted` were the answer's. */
void metrics_drafted(struct metrics *m, int drafted, int accepted);
void metrics_job_done(struct metrics *m, const struct subnet *subnet, double seconds);
void metrics_depth_selected(struct metrics *m, const struct subnet *subnet, const char *reason);
void metrics_budget(struct metrics *m, bool met);
void metrics_prediction(struct metrics *m, double actual_over_predicted);
void metrics_step_prediction(struct metrics *m, enum cost_kind kind, double actual_over_predicted);
void metrics_deadline_exceeded(struct metrics *m, enum metrics_stage stage);
void metrics_cancelled(struct metrics *m, enum metrics_stage stage);

/* Gauges that are read when rendering. */
struct metrics_gauges {
	int running, waiting;
	int64_t queue_tokens;
	double kv_usage_ratio, predicted_wait_seconds;
	int64_t prefix_blocks; /* that the prefix caches hold */
	const char *version, *family, *dtype, *arithmetic, *weights, *kv;
	struct weight_sizes memory; /* of the newest model */
	size_t kv_pool_bytes, workspace_bytes;
	int layers[STACKS]; /* as in metrics_create */
	double layerdrop[STACKS];
	struct cost_model cost; /* of the newest model; not fitted: none */
};
/* Appends the Prometheus text (version 0.0.4), process_* included. */
void metrics_write(
                const struct metrics *m, const struct metrics_gauges *gauges, struct buffer *out);

#endif
