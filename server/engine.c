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
	scheduler_destroy(engine->scheduler);
	batch_destroy(engine->batch);
	marks_destroy(engine->marks);
	admission_finish(&engine->admission);
	model_close(engine->model);
	free(engine);
}

/* For the scheduler. */
static bool fits(void *arg, const struct scheduled *r, const struct subnet *subnet) {
	const struct engine *engine = arg;
	const struct ticket *t = (const struct ticket *)((const char *)r
	                - offsetof(struct ticket, scheduled));
	return batch_fits(engine->batch, t, subnet);
}

/* For the scheduler: what the cache holds of a ticket's prompts. */
static int cached(void *arg, const struct scheduled *r, const struct subnet *subnet) {
	const struct engine *engine = arg;
	const struct ticket *t = (const struct ticket *)((const char *)r
	                - offsetof(struct ticket, scheduled));
	return batch_cached(engine->batch, t->job, subnet);
}

/* A job before it has a ticket, as the scheduler sees it. */
struct door {
	struct scheduled scheduled;
	const struct job *job;
};

/* The same from outside the engine thread: a guess. */
static int marked(void *arg, const struct scheduled *r, const struct subnet *subnet) {
	const struct engine *engine = arg;
	const struct job *job = ((const struct door *)r)->job;
	struct prefix_scope scope = batch_scope(job, engine->shared_prefixes);
	int tokens = 0;
	for (int i = 0; ticket_uses_cache(job) && i < job->n_prompts; i++) {
		struct past past = ticket_past(job, i);
		tokens += marks_find(engine->marks, &subnet->stack[STACK_DECODER], &scope,
		                past.tokens, past.n - 1);
	}
	return tokens;
}

/* Requests that are predicted to be in time find room beyond the queue's bound: so much more. */
static int64_t with_room(int64_t bound) {
	return bound + bound / 4;
}

static bool init_scheduler(struct engine *engine) {
	const struct config *config = engine->config;
	const struct stack_facts *stack = engine->model->facts.stack;
	struct scheduler_options options = { .limits = *batch_limits(engine->batch),
		.layers = { stack[STACK_ENCODER].layers, stack[STACK_DECODER].layers },
		.most_waiting = (int)with_room(config->queue_requests),
		.overload_min_depth =
		                config->overload_min_depth > 0 ? config->overload_min_depth : 1,
		.overload_max_depth = config->overload_max_depth,
		.backlog_ms = config->overload_backlog_ms,
		.fits = fits,
		.arg = engine };
	if (engine->marks)
		options.cache = (struct scheduler_cache){ cached, engine };
	engine->scheduler = scheduler_create(&options);
	if (!engine->scheduler)
		return false;
	scheduler_view(engine->scheduler, &engine->view);
	return true;
}

/* Without a cache there are none. */
static bool init_marks(struct engine *engine) {
	const struct workspace *w = batch_workspace(engine->batch);
	struct prefix *prefix = workspace_prefix(w);
	if (!prefix)
		return true;
	engine->marks = marks_create(workspace_blocks_total(w));
	if (engine->marks)
		prefix_watch(prefix, marks_note, engine->marks);
	return engine->marks;
}

bool engine_measured(const struct engine *engine, struct cost_kept *ret_kept) {
	struct snapshot s;
	engine_snapshot(engine, &s);
	pthread_mutex_lock((pthread_mutex_t *)&engine->lock);
	double spread = engine->measured_spread;
	pthread_mutex_unlock((pthread_mutex_t *)&engine->lock);
	if (spread == 0)
		return false;
	ret_kept->spread = spread;
	ret_kept->file = (struct cost_file){
		.cost = s.cost, .limits = s.limits, .kv_blocks = (int64_t)s.kv_total
	};
	for (int k = 0; k < STACKS; k++)
		ret_kept->file.layers[k] = engine->model->facts.stack[k].layers;
	return true;
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
	if (!init_marks(engine)) {
		snprintf(err, errlen, "not enough memory for the engine");
		return false;
	}
	const struct workspace *w = batch_workspace(engine->batch);
	if (!admission_init(&engine->admission, engine->model, batch_limits(engine->batch),
	                    workspace_blocks_total(w))
	                || !init_scheduler(engine)) {
		snprintf(err, errlen, "not enough memory for the engine");
		return false;
	}
	engine->snapshot.kv_total = workspace_blocks_total(w);
	engine->snapshot.limits = *batch_limits(engine->batch);
	engine->snapshot.block_bytes = workspace_block_bytes(w);
	engine->snapshot.scratch_bytes = workspace_scratch_bytes(w);
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
	engine->shared_prefixes = strcmp(options->config->prefix_cache_scope, "shared") == 0;
	engine->metrics = options->metrics;
	engine->turn = options->turn;
	engine->wake = options->wake;
	engine->wake_arg = options->wake_arg;
	engine->skip_warmup = options->skip_warmup;
	engine->has_known = options->known != NULL;
	if (options->known)
		engine->known = *options->known;
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
	struct scheduler_view scheduler;
};

static void view(const struct engine *engine, struct view *ret_view) {
	lock_const(engine);
	ret_view->snapshot = engine->snapshot;
	ret_view->scheduler = engine->view;
	ret_view->scheduler.waiting = engine->queued.jobs;
	ret_view->scheduler.waiting_places = engine->queued.sequences;
	if (engine->marks)
		ret_view->scheduler.cache =
		                (struct scheduler_cache){ marked, (struct engine *)engine };
	unlock_const(engine);
}

void engine_plan(const struct engine *engine, const struct job *job,
                struct plan_answer *ret_answer) {
	struct view v;
	struct door door = { .job = job };
	struct scheduled *r = &door.scheduled;
	struct scheduler_foresight f;
	view(engine, &v);
	double now_ms = job->times.received_ns > 0 ? clock_ms(clock_now_ns()) : 0;
	admission_schedule(&engine->admission, &v.snapshot.cost, job, r);
	scheduler_foresee(&v.scheduler, &v.snapshot.cost, r, now_ms, &f);
	*ret_answer = (struct plan_answer){ .subnet = f.subnet,
		.reason = f.reason,
		.predicted_ms = f.predicted_ms,
		.queue_ms = f.queue_ms,
		.budget_ms = job->latency_budget_ms,
		.predicted_tokens = r->work.output_tokens,
		.fits = f.fits };
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
	return true;
}

/* What the view says about it. *ret_scheduled is made for its ticket. */
static bool foresee(const struct engine *engine, const struct view *v, const struct job *job,
                int64_t now_ns, struct scheduled *ret_scheduled, bool *ret_in_time,
                struct error *e) {
	const struct cost_model *cost = &v->snapshot.cost;
	struct door door = { .job = job };
	struct scheduler_foresight f;
	admission_schedule(&engine->admission, cost, job, &door.scheduled);
	scheduler_foresee(&v->scheduler, cost, &door.scheduled, clock_ms(now_ns), &f);
	*ret_scheduled = door.scheduled;
	*ret_in_time = f.in_time;
	if (f.refusal == SCHEDULER_ACCEPTED)
		return true;
	struct admission_refusal refusal = {
		.why = f.refusal, .time = f.alone, .retry_after_ms = f.retry_after_ms
	};
	if (f.refusal != SCHEDULER_UNATTAINABLE) {
		refusal.time = f.time;
		refusal.spent_ms = f.predicted_ms - f.time.total_ms;
	}
	return admission_refuse(&engine->admission, cost, job, &refusal, e);
}

/* Takes a place in the queue; counted here, so that a burst cannot pass between two steps. */
static bool enqueue(struct engine *engine, struct ticket *t, bool in_time, struct error *e) {
	const struct config *config = engine->config;
	int64_t most = config->queue_requests, most_tokens = config->queue_tokens;
	if (in_time) {
		most = with_room(most);
		most_tokens = with_room(most_tokens);
	}
	pthread_mutex_lock(&engine->lock);
	/* An empty queue takes any request: else one larger than the bound could never be served. */
	bool full = engine->queued.jobs >= most
	                || (engine->queued.jobs > 0
	                                && engine->queued.tokens + t->tokens > most_tokens);
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
	struct scheduled scheduled;
	bool in_time;
	if (!may_join(engine, &v, job, now_ns, e)
	                || !foresee(engine, &v, job, now_ns, &scheduled, &in_time, e))
		return false;
	job->times.queued_ns = now_ns;
	struct ticket *t = ticket_create(job, engine->model->target_tokenizer);
	if (!t)
		return error_set(e, ERROR_INTERNAL, "", "The server has no memory for this job.");
	t->tokens = admission_tokens(job);
	t->scheduled = scheduled;
	t->report.state = JOB_QUEUED;
	job->state = JOB_QUEUED;
	job->engine_data = t;
	if (enqueue(engine, t, in_time, e))
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
