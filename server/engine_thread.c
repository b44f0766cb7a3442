/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine thread. One turn of its loop: take the mail, do what the scheduler decides, run a step,
 * publish. The lock is held twice, shortly: for the mail and for the publication.
 */
#include <errno.h>
#include <time.h>

#include "server/clock.h"
#include "server/engine_parts.h"
#include "server/turn.h"
#include "server/warmup.h"

#define TICK_NS 500000000 /* an idle engine's heartbeat */
#define TELL_NS 1000000   /* streams hear of their tokens at most so often */

/* ---- warm-up ---- */

/* Between two measurements: is this still wanted? The other engine of a reload gets its turn. */
static bool keep_going(void *arg) {
	struct engine *engine = arg;
	turn_pass(engine->turn);
	pthread_mutex_lock(&engine->lock);
	bool go_on = !engine->stopping;
	engine->snapshot.heartbeat_ns = clock_now_ns();
	pthread_mutex_unlock(&engine->lock);
	turn_take(engine->turn);
	return go_on;
}

/* Costs of an earlier start, if they are of this model and these limits, and still hold. */
static bool recall_costs(struct engine *engine) {
	const struct cost_limits *limits = batch_limits(engine->batch);
	const struct cost_file *known = &engine->known.file;
	struct cost_model cost = known->cost;
	if (!engine->has_known || known->limits.max_rows != limits->max_rows)
		return false;
	for (int k = 0; k < STACKS; k++) {
		if (known->layers[k] != engine->model->facts.stack[k].layers)
			return false;
	}
	turn_take(engine->turn);
	bool holds = warmup_check(engine->batch, engine->model, keep_going, engine, &cost);
	turn_pass(engine->turn);
	if (holds)
		engine->cost = cost;
	return holds;
}

/* Returns the spread, which is at least 1. */
static double measure_costs(struct engine *engine) {
	struct cost_samples samples;
	turn_take(engine->turn);
	warmup_measure(engine->batch, engine->model, keep_going, engine, &samples);
	turn_pass(engine->turn);
	cost_fit(&samples, &engine->cost);
	return samples.spread;
}

static void warm_up(struct engine *engine) {
	double spread = 0;
	if (!engine->skip_warmup) {
		bool known = recall_costs(engine);
		if (!known)
			spread = measure_costs(engine);
		cost_history_init(&engine->history, &engine->cost,
		                known ? engine->known.spread : spread);
	}
	pthread_mutex_lock(&engine->lock);
	engine->measured_spread = engine->stopping ? 0 : spread;
	engine->snapshot.warm = true;
	engine->snapshot.cost = engine->cost;
	engine->snapshot.heartbeat_ns = clock_now_ns();
	pthread_mutex_unlock(&engine->lock);
	engine->wake(engine->wake_arg);
}

/* ---- news ---- */

static void post(struct engine *engine, struct ticket *t) {
	ticket_publish(t);
	if (t->in_outbox)
		return;
	t->in_outbox = true;
	t->outbox_next = NULL;
	*engine->outbox_last = t;
	engine->outbox_last = &t->outbox_next;
}

/*
 * Posts what running streams have got. Telling the loop, and its telling the client, costs as much
 * as a quick step and needs a core that steps use: while steps are quicker than TELL_NS, tokens wait
 * for each other so long. The first of an answer never waits, nor the last. Under the lock.
 */
static bool post_tokens(struct engine *engine, int64_t now_ns, bool more_soon) {
	bool wait = more_soon && now_ns - engine->told_ns < TELL_NS, news = false;
	for (struct ticket *t = batch_running(engine->batch); t; t = t->next) {
		bool begun = t->mail_report.times.first_token_ns > 0;
		if (!t->news || !t->job->stream || (wait && begun))
			continue;
		post(engine, t);
		news = true;
	}
	if (news)
		engine->told_ns = now_ns;
	return news;
}

/* ---- the queue ---- */

static void enter_queue(struct engine *engine, struct ticket *list) {
	double now_ms = clock_ms(clock_now_ns());
	while (list) {
		struct ticket *t = list;
		list = t->next;
		t->next = engine->waiting;
		engine->waiting = t;
		if (scheduler_arrive(engine->scheduler, &t->scheduled, &engine->cost, now_ms))
			continue;
		struct error e = { 0 };
		error_set(&e, ERROR_SERVER_OVERLOADED, "", "The queue is full; try again later.");
		engine_refuse(engine, t, &e);
	}
}

/* Waits for something to do and takes the mail. False: stop. */
static bool take_mail(struct engine *engine) {
	struct ticket *list = NULL;
	bool go_on = true, news = false;
	pthread_mutex_lock(&engine->lock);
	while (!engine->inbox && !engine->cancels && !engine->waiting
	                && batch_jobs(engine->batch) == 0) {
		if (engine->stopping) {
			go_on = false;
			break;
		}
		int64_t until_ns = clock_now_ns() + TICK_NS;
		struct timespec until = { until_ns / 1000000000, until_ns % 1000000000 };
		pthread_cond_timedwait(&engine->called, &engine->lock, &until);
		engine->snapshot.heartbeat_ns = clock_now_ns();
		engine_keep_pace(engine, engine->snapshot.heartbeat_ns);
		engine->snapshot.cost = engine->cost;
	}
	list = engine->inbox;
	if (list) /* the next step may take longer */
		news = post_tokens(engine, clock_now_ns(), false);
	engine->inbox = NULL;
	engine->inbox_last = &engine->inbox;
	if (engine->cancels) {
		for (struct ticket *t = list; t; t = t->next)
			t->ending = t->cancel;
		for (struct ticket *t = engine->waiting; t; t = t->next)
			t->ending = t->cancel;
		for (struct ticket *t = batch_running(engine->batch); t; t = t->next)
			t->ending = t->cancel;
		engine->cancels = false;
	}
	pthread_mutex_unlock(&engine->lock);
	if (news)
		engine->wake(engine->wake_arg);
	enter_queue(engine, list);
	return go_on;
}

/* ---- ends ---- */

static void say_cancelled(enum error_code code, struct error *ret_error) {
	*ret_error = (struct error){ 0 };
	if (code == ERROR_SHUTTING_DOWN)
		error_set(ret_error, code, "", "The server is shutting down.");
	else if (code == ERROR_REQUEST_CANCELLED)
		error_set(ret_error, code, "", "The request was cancelled.");
	else
		error_set(ret_error, code, "", "The server stopped working on this request.");
}

static void end_cancelled(struct engine *engine) {
	struct error e;
	for (struct ticket *t = engine->waiting, *next; t; t = next) {
		next = t->next;
		if (t->ending == ERROR_NONE)
			continue;
		say_cancelled(t->ending, &e);
		metrics_cancelled(engine->metrics, STAGE_QUEUE);
		engine_refuse(engine, t, &e);
	}
	for (struct ticket *t = batch_running(engine->batch); t; t = t->next) {
		if (t->ending == ERROR_NONE)
			continue;
		say_cancelled(t->ending, &e);
		metrics_cancelled(engine->metrics,
		                t->report.times.first_token_ns > 0 ? STAGE_DECODE : STAGE_PREFILL);
		batch_fail(engine->batch, t, &e);
	}
	engine_take_ended(engine);
}

/* ---- a step ---- */

static void run_step(struct engine *engine, struct batch_stats *ret_stats) {
	int64_t began_ns = clock_now_ns();
	batch_step(engine->batch, ret_stats);
	double seconds = clock_ms(clock_now_ns() - began_ns) * 1e-3;
	enum metrics_phase phase = ret_stats->prompt_rows == 0 ? PHASE_DECODE
	                : ret_stats->decode_rows == 0          ? PHASE_PREFILL
	                                                       : PHASE_MIXED;
	metrics_step(engine->metrics, phase, seconds - ret_stats->draft_ms * 1e-3,
	                ret_stats->step.rows, ret_stats->step.row_count);
	metrics_busy(engine->metrics, seconds);
}

/* ---- publication ---- */

static struct prefix_counts count_prefixes(struct engine *engine) {
	const struct prefix *prefix = workspace_prefix(batch_workspace(engine->batch));
	struct prefix_counts counts = { 0 };
	if (prefix)
		prefix_count(prefix, &counts);
	if (counts.evicted > engine->prefix_evicted)
		metrics_prefix_evicted(engine->metrics,
		                (int64_t)(counts.evicted - engine->prefix_evicted));
	engine->prefix_evicted = counts.evicted;
	return counts;
}

/* `more_soon`: the next step will follow at once and be as quick as the last. */
static void publish(struct engine *engine, bool more_soon) {
	const struct workspace *w = batch_workspace(engine->batch);
	struct scheduler_view view;
	for (struct ticket *t = batch_running(engine->batch); t; t = t->next)
		batch_progress(t, &t->scheduled.progress);
	scheduler_view(engine->scheduler, &view);
	struct prefix_counts prefixes = count_prefixes(engine);
	bool news = engine->ended != NULL;
	pthread_mutex_lock(&engine->lock);
	struct snapshot *s = &engine->snapshot;
	s->heartbeat_ns = clock_now_ns();
	s->running = batch_jobs(engine->batch);
	s->sequences = batch_sequences(engine->batch);
	s->kv_reserved = workspace_blocks_reserved(w);
	s->kv_used = workspace_blocks_used(w);
	s->prefix_blocks = prefixes.blocks;
	s->cost = engine->cost;
	s->predicted_wait_ms = view.wait_ms;
	engine->view = view;
	engine->queued.jobs -= engine->left.jobs;
	engine->queued.sequences -= engine->left.sequences;
	engine->queued.tokens -= engine->left.tokens;
	engine->left = (struct queue_sum){ 0 };
	news |= post_tokens(engine, s->heartbeat_ns, more_soon);
	while (engine->ended) {
		struct ticket *t = engine->ended;
		engine->ended = t->next;
		t->next = NULL;
		post(engine, t);
	}
	pthread_mutex_unlock(&engine->lock);
	if (news)
		engine->wake(engine->wake_arg);
}

void *engine_thread(void *arg) {
	struct engine *engine = arg;
	warm_up(engine);
	while (take_mail(engine)) {
		int64_t began_ns = clock_now_ns();
		engine_keep_pace(engine, began_ns);
		end_cancelled(engine);
		if (!engine_decide(engine, began_ns)) {
			publish(engine, false);
			continue;
		}
		struct batch_stats stats;
		int64_t asked_ns = clock_now_ns();
		turn_take(engine->turn);
		int64_t waited_ns = clock_now_ns() - asked_ns;
		run_step(engine, &stats);
		turn_pass(engine->turn);
		engine_take_ended(engine);
		bool quick = clock_now_ns() - began_ns < TELL_NS && stats.prompt_rows == 0;
		publish(engine, quick && !engine->waiting);
		engine_learn_step(engine, &stats, began_ns + waited_ns);
	}
	return NULL;
}
