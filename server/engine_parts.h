/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of the engine: engine.c (what other threads call), engine_thread.c (what the
 * engine thread does), engine_decide.c (how it does what the scheduler says) and engine_learn.c.
 * Who may touch a member is said at its group.
 */
#ifndef FATHOM_SERVER_ENGINE_PARTS_H
#define FATHOM_SERVER_ENGINE_PARTS_H

#include <pthread.h>

#include "server/admission.h"
#include "server/batch.h"
#include "server/engine.h"
#include "server/marks.h"

/* How much waits. */
struct queue_sum {
	int jobs, sequences;
	int64_t tokens;
};

struct engine {
	/* constant after creation */
	struct model *model;
	const struct config *config;
	struct metrics *metrics;
	struct turn *turn;
	void (*wake)(void *arg);
	void *wake_arg;
	bool skip_warmup;
	struct cost_kept known; /* of an earlier start, */
	bool has_known;         /* if there is one */
	struct admission admission;
	struct marks *marks; /* of the prefix cache: the engine writes, any thread reads; may be NULL */
	bool shared_prefixes;
	pthread_t thread;

	/* under `lock`: the mailbox and what the loop may see */
	pthread_mutex_t lock;
	pthread_cond_t called; /* the engine has something to do */
	struct ticket *inbox, **inbox_last;
	struct ticket *outbox, **outbox_last;
	bool cancels; /* some ticket's `cancel` is set */
	bool stopping;
	struct queue_sum queued; /* submitted and not joined */
	struct snapshot snapshot;
	struct scheduler_view view;
	double measured_spread; /* of this start's own measurements; 0: none */

	/* engine thread */
	struct batch *batch;
	struct ticket *waiting; /* in no order */
	struct ticket *ended;   /* to be posted */
	struct scheduler *scheduler;
	struct queue_sum left; /* of the queue since the last publication */
	struct cost_model cost;
	struct cost_history history;
	struct cost_learner learner;
	int64_t told_ns;         /* streams' tokens were posted */
	uint64_t prefix_evicted; /* blocks that the metrics know of */
};

void *engine_thread(void *arg);

/* engine_decide.c: does what the scheduler says, until a step is to be run; false: nothing runs.
 * Engine thread. */
bool engine_decide(struct engine *engine, int64_t now_ns);
/* Takes the ended tickets out of the batch. */
void engine_take_ended(struct engine *engine);
/* A waiting ticket ends without having run. */
void engine_refuse(struct engine *engine, struct ticket *t, const struct error *error);

/* engine_learn.c: what a finished ticket teaches, and who falls behind. Engine thread. */
void engine_learn(struct engine *engine, const struct ticket *t);
/* What a step that began at `began_ns` teaches: all of a turn but waiting for work. */
void engine_learn_step(struct engine *engine, const struct batch_stats *stats, int64_t began_ns);
/* Before anything is predicted: an idle machine's pace is forgotten. */
void engine_keep_pace(struct engine *engine, int64_t now_ns);
/* It goes on at a shallower depth. */
void engine_fell_behind(const struct engine *engine, struct ticket *t, int64_t now_ns);
const char *engine_reason_name(enum depth_reason reason);

#endif
