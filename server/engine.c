/* SPDX-License-Identifier: Apache-2.0 */
/* The engine as other threads see it: life, mailbox, snapshot, refusals. */
#include "server/engine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/clock.h"
#include "server/engine_parts.h"

/* ---- life ---- */

static bool init_locks(struct engine *engine) {
	pthread_condattr_t monotonic;
	if (pthread_condattr_init(&monotonic) != 0)
		return false;
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	bool cond = pthread_cond_init(&engine->called, &monotonic) == 0;
	pthread_condattr_destroy(&monotonic);
	if (!cond)
		return false;
	if (pthread_mutex_init(&engine->lock, NULL) == 0)
		return true;
	pthread_cond_destroy(&engine->called);
	return false;
}

/* Everything but the locks and the thread. */
static void release(struct engine *engine) {
	batch_destroy(engine->batch);
	admission_finish(&engine->admission);
	model_close(engine->model);
	free(engine);
}

static bool init_work(struct engine *engine, const struct engine_options *options, char *err,
                size_t errlen) {
	struct batch_options batch = { .config = options->config,
		.team = options->team,
		.metrics = options->metrics,
		.kv_bytes = options->kv_bytes };
	engine->batch = batch_create(engine->model, &batch, err, errlen);
	if (!engine->batch)
		return false;
	const struct workspace *w = batch_workspace(engine->batch);
	if (!admission_init(&engine->admission, engine->model, options->config,
	                    batch_limits(engine->batch), workspace_blocks_total(w))) {
		snprintf(err, errlen, "not enough memory for the engine");
		return false;
	}
	engine->snapshot.kv_total = workspace_blocks_total(w);
	engine->snapshot.block_bytes = workspace_block_bytes(w);
	engine->snapshot.heartbeat_ns = clock_now_ns();
	engine->cost.margin = engine->cost.margin_rescued = engine->cost.answer_ratio = 1;
	engine->snapshot.cost = engine->cost;
	return true;
}

struct engine *engine_create(struct model *model, const struct engine_options *options, char *err,
                size_t errlen) {
	struct engine *engine = calloc(1, sizeof *engine);
	if (!engine) {
		snprintf(err, errlen, "not enough memory for the engine");
		model_close(model);
		return NULL;
	}
	engine->model = model;
	engine->config = options->config;
	engine->metrics = options->metrics;
	engine->turn = options->turn;
	engine->wake = options->wake;
	engine->wake_arg = options->wake_arg;
	engine->skip_warmup = options->skip_warmup;
	engine->inbox_last = &engine->inbox;
	engine->outbox_last = &engine->outbox;
	if (!init_work(engine, options, err, errlen)) {
		release(engine);
		return NULL;
	}
	if (!init_locks(engine)) {
		snprintf(err, errlen, "the engine's locks could not be made");
		release(engine);
		return NULL;
	}
	if (pthread_create(&engine->thread, NULL, engine_thread, engine) != 0) {
		snprintf(err, errlen, "the engine's thread could not be started");
		pthread_cond_destroy(&engine->called);
		pthread_mutex_destroy(&engine->lock);
		release(engine);
		return NULL;
	}
	return engine;
}

void engine_destroy(struct engine *engine) {
	if (!engine)
		return;
	pthread_mutex_lock(&engine->lock);
	engine->stopping = true;
	pthread_cond_signal(&engine->called);
	pthread_mutex_unlock(&engine->lock);
	pthread_join(engine->thread, NULL);
	/* What was not collected is delivered, so that its jobs can be destroyed. */
	while (engine_collect(engine))
		;
	pthread_cond_destroy(&engine->called);
	pthread_mutex_destroy(&engine->lock);
	release(engine);
}

const struct model *engine_model(const struct engine *engine) {
	return engine->model;
}

/* ---- snapshot ---- */

/* A snapshot is read through a const engine; the lock is not part of what is const. */
static void lock_const(const struct engine *engine) {
	pthread_mutex_lock((pthread_mutex_t *)&engine->lock);
}

static void unlock_const(const struct engine *engine) {
	pthread_mutex_unlock((pthread_mutex_t *)&engine->lock);
}

void engine_snapshot(const struct engine *engine, struct snapshot *ret_snapshot) {
	lock_const(engine);
	*ret_snapshot = engine->snapshot;
	ret_snapshot->waiting = engine->queued.jobs;
	ret_snapshot->queue_tokens = engine->queued.tokens;
	unlock_const(engine);
}

/* What the loop decides with: a copy, so that nothing is computed under the lock. */
struct view {
	struct snapshot snapshot;
	struct cost_load load;
	int waiting_sequences;
};

static void view(const struct engine *engine, struct view *ret_view) {
	lock_const(engine);
	ret_view->snapshot = engine->snapshot;
	ret_view->load = engine->load;
	ret_view->waiting_sequences = engine->queued.sequences;
	unlock_const(engine);
}

static struct admission_state state_of(const struct view *v) {
	return (struct admission_state){ .cost = &v->snapshot.cost,
		.load = &v->load,
		.wait_ms = v->snapshot.predicted_wait_ms,
		.waiting = v->waiting_sequences };
}

void engine_plan(const struct engine *engine, const struct job *job,
                struct plan_answer *ret_answer) {
	struct view v;
	view(engine, &v);
	struct admission_state state = state_of(&v);
	struct admission_answer a;
	int64_t now_ns = job->times.received_ns > 0 ? clock_now_ns() : 0;
	admission_decide(&engine->admission, &state, job, now_ns, &a);
	*ret_answer = (struct plan_answer){ .subnet = a.subnet,
		.reason = a.reason,
		.predicted_ms = a.predicted_ms,
		.queue_ms = state.wait_ms,
		.budget_ms = job->latency_budget_ms,
		.predicted_tokens = a.predicted_tokens,
		.fits = a.fits };
}

/* ---- submitting ---- */

/* Refusals that need no place in the queue. */
static bool may_join(const struct engine *engine, const struct view *v, const struct job *job,
                int64_t now_ns, struct error *e) {
	if (!v->snapshot.warm)
		return error_set(e, ERROR_MODEL_LOADING, "",
		                "The model is still warming up; try again in a moment.");
	if (job->request.deadline_expired || (job->deadline_ns > 0 && job->deadline_ns <= now_ns))
		return error_set(e, ERROR_DEADLINE_EXCEEDED, "",
		                "The deadline had passed before the request could be queued.");
	if (!admission_check_size(&engine->admission, job, e))
		return false;
	struct admission_state state = state_of(v);
	struct admission_answer answer;
	admission_decide(&engine->admission, &state, job, now_ns, &answer);
	return admission_check_budget(&engine->admission, &state, job, &answer, e);
}

/* Takes a place in the queue; counted here, so that a burst cannot pass between two steps. */
static bool enqueue(struct engine *engine, struct ticket *t, struct error *e) {
	const struct config *config = engine->config;
	pthread_mutex_lock(&engine->lock);
	/* An empty queue takes any request: else one larger than the bound could never be served. */
	bool full = engine->queued.jobs >= config->queue_requests
	                || (engine->queued.jobs > 0
	                                && engine->queued.tokens + t->tokens
	                                                > config->queue_tokens);
	bool stopping = engine->stopping;
	double wait_ms = engine->snapshot.predicted_wait_ms;
	if (!full && !stopping) {
		engine->queued.jobs++;
		engine->queued.tokens += t->tokens;
		engine->queued.sequences += ticket_places(t->job);
		t->next = NULL;
		*engine->inbox_last = t;
		engine->inbox_last = &t->next;
		pthread_cond_signal(&engine->called);
	}
	pthread_mutex_unlock(&engine->lock);
	if (stopping)
		return error_set(e, ERROR_SHUTTING_DOWN, "", "The server is shutting down.");
	if (!full)
		return true;
	error_set(e, ERROR_SERVER_OVERLOADED, "",
	                "The queue is full; try again later, or ask for a shallower depth.");
	if (e) {
		e->retry_after_ms =
		                wait_ms > config->retry_after_ms ? wait_ms : config->retry_after_ms;
	}
	return false;
}

bool engine_submit(struct engine *engine, struct job *job, struct error *e) {
	struct view v;
	view(engine, &v);
	int64_t now_ns = clock_now_ns();
	if (job->times.received_ns == 0)
		job->times.received_ns = now_ns;
	if (job->deadline_ns == 0 && job->request.deadline_ms > 0)
		job->deadline_ns =
		                job->times.received_ns + (int64_t)(job->request.deadline_ms * 1e6);
	if (!may_join(engine, &v, job, now_ns, e))
		return false;
	job->times.queued_ns = now_ns;
	struct ticket *t = ticket_create(job, engine->model->target_tokenizer);
	if (!t)
		return error_set(e, ERROR_INTERNAL, "", "The server has no memory for this job.");
	t->tokens = admission_tokens(job);
	t->report.state = JOB_QUEUED;
	job->state = JOB_QUEUED;
	job->engine_data = t;
	if (enqueue(engine, t, e))
		return true;
	job->state = JOB_NEW;
	job->engine_data = NULL;
	ticket_destroy(t);
	return false;
}

void engine_cancel(struct engine *engine, struct job *job, enum error_code code) {
	pthread_mutex_lock(&engine->lock);
	struct ticket *t = job->engine_data;
	if (t && t->cancel == ERROR_NONE) {
		t->cancel = code;
		engine->cancels = true;
		pthread_cond_signal(&engine->called);
	}
	pthread_mutex_unlock(&engine->lock);
}

/* ---- collecting ---- */

struct job *engine_collect(struct engine *engine) {
	struct job *first = NULL, **last = &first;
	struct ticket *ended = NULL;
	pthread_mutex_lock(&engine->lock);
	struct ticket *t = engine->outbox;
	engine->outbox = NULL;
	engine->outbox_last = &engine->outbox;
	while (t) {
		struct ticket *next = t->outbox_next;
		struct job *job = t->job;
		t->outbox_next = NULL;
		t->in_outbox = false;
		ticket_deliver(t);
		job->next = NULL;
		*last = job;
		last = &job->next;
		if (job->state == JOB_DONE) {
			job->engine_data = NULL;
			t->next = ended;
			ended = t;
		}
		t = next;
	}
	pthread_mutex_unlock(&engine->lock);
	while (ended) {
		struct ticket *next = ended->next;
		ticket_destroy(ended);
		ended = next;
	}
	return first;
}
