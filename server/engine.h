/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine thread: a loaded model, its KV pool, its running batch and its cost model. It takes
 * jobs from an inbox at step boundaries, runs steps, and hands progress back through an outbox.
 * Everything else it owns is touched by no other thread; others read the snapshot.
 */
#ifndef FATHOM_SERVER_ENGINE_H
#define FATHOM_SERVER_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "model/model.h"
#include "server/cost.h"
#include "server/cost_file.h"
#include "server/job.h"
#include "server/metrics.h"

struct engine;

/* A mutex-like turn that two engines take step by step on one compute team during a reload. */
struct turn;
struct turn *turn_create(void);
void turn_destroy(struct turn *turn);

struct engine_options {
	const struct config *config;
	struct team *team; /* shared by all engines of the process */
	struct turn *turn;
	struct metrics *metrics; /* not NULL */
	bool skip_warmup; /* no cost model: nothing is predicted and budgets choose nothing */
	const struct cost_kept
	                *known; /* measured at an earlier start: it is only checked; or NULL */
	size_t kv_bytes;        /* resolved: never 0 */
	void (*wake)(void *arg); /* called on the engine thread when the outbox or the state changed; must only signal */
	void *wake_arg;
};

/*
 * Takes over `model` (also on failure). The thread is started and warms up: it measures the cost
 * model first.
 */
struct engine *engine_create(struct model *model, const struct engine_options *options, char *err,
                size_t errlen);

/*
 * Waits until no job is left (they should have been drained or cancelled), stops the thread, frees
 * all.
 */
void engine_destroy(struct engine *engine);

const struct model *engine_model(const struct engine *engine);

/*
 * The state that the loop thread may see at any time; a consistent copy of the last step boundary.
 */
struct snapshot {
	bool warm; /* warmed up: ready */
	int64_t heartbeat_ns; /* last step boundary or idle tick (an idle engine ticks at least once a second) */
	int running; /* jobs in the batch */
	int waiting; /* jobs in the queue */
	int sequences;
	int64_t queue_tokens;                  /* prompt + max_tokens of waiting jobs */
	double predicted_wait_ms;              /* until a job that comes now would join */
	size_t kv_total, kv_reserved, kv_used; /* blocks */
	size_t prefix_blocks; /* that the prefix cache holds; what others use of them is in kv_used */
	size_t block_bytes;
	size_t scratch_bytes; /* of the workspace, beside the pool */
	struct cost_model cost;
	struct cost_limits limits;
};
void engine_snapshot(const struct engine *engine, struct snapshot *ret_snapshot);

/* What the warm-up measured; false if it has not, or only checked. */
bool engine_measured(const struct engine *engine, struct cost_kept *ret_kept);

/*
 * Loop thread. Refuses at once from the snapshot (queue full, what can never fit, an expired
 * deadline, budgets that not even an idle server could meet with on_miss reject): false with `e`,
 * the job stays the caller's. Else the job is the engine's until engine_collect reports JOB_DONE.
 */
bool engine_submit(struct engine *engine, struct job *job, struct error *e);

/*
 * Loop thread. Asks the engine to stop working for a job: it ends at the next step boundary with
 * `code`.
 */
void engine_cancel(struct engine *engine, struct job *job, enum error_code code);

/*
 * Loop thread. Moves out the list of jobs with news (linked by `next`); for each, `state`,
 * `published` and the outcome may be read until the next call. A job with state JOB_DONE is the
 * loop's again.
 */
struct job *engine_collect(struct engine *engine);

/*
 * What a job would get now: subnet, predicted and queue milliseconds, whether it fits. Reads the
 * snapshot only.
 */
struct plan_answer {
	struct subnet subnet;
	enum depth_reason reason;
	double predicted_ms, queue_ms, budget_ms; /* budget 0: none */
	int predicted_tokens;
	bool fits;
};
void engine_plan(
                const struct engine *engine, const struct job *job, struct plan_answer *ret_answer);

#endif
