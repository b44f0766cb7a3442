/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine thread. One turn of its loop: take the mail, end what must end, let in what fits, run
 * a step, publish. The lock is held twice, shortly: for the mail and for the publication.
 */
#include <errno.h>
#include <time.h>

#include "server/clock.h"
#include "server/engine_parts.h"
#include "server/turn.h"
#include "server/warmup.h"

#define TICK_NS 500000000 /* an idle engine's heartbeat */

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

static void warm_up(struct engine *engine) {
	if (!engine->skip_warmup) {
		struct cost_samples samples;
		turn_take(engine->turn);
		warmup_measure(engine->batch, engine->model, keep_going, engine, &samples);
		turn_pass(engine->turn);
		cost_fit(&samples, &engine->cost);
		cost_history_init(&engine->history, &engine->cost, samples.spread);
	}
	pthread_mutex_lock(&engine->lock);
	engine->snapshot.warm = true;
	engine->snapshot.cost = engine->cost;
	engine->snapshot.heartbeat_ns = clock_now_ns();
	pthread_mutex_unlock(&engine->lock);
	engine->wake(engine->wake_arg);
}

/* ---- the queue ---- */

static void count_in(struct queue_sum *sum, const struct ticket *t, int sign) {
	sum->jobs += sign;
	sum->sequences += sign * ticket_places(t->job);
	sum->tokens += sign * t->tokens;
}

static void enter_queue(struct engine *engine, struct ticket *list) {
	while (list) {
		struct ticket *t = list;
		list = t->next;
		admission_entry(&engine->admission, &engine->cost, t->job, &t->entry, &t->prompt_ms,
		                &t->answer_tokens);
		t->next = engine->waiting;
		engine->waiting = t;
		count_in(&engine->waiting_sum, t, 1);
		engine->waiting_prompt_ms += t->prompt_ms;
		engine->waiting_answer_tokens += t->answer_tokens;
	}
}

/* Takes `*at` out of the waiting list. */
static struct ticket *leave_queue(struct engine *engine, struct ticket **at) {
	struct ticket *t = *at;
	*at = t->next;
	t->next = NULL;
	count_in(&engine->waiting_sum, t, -1);
	count_in(&engine->left, t, 1);
	engine->waiting_prompt_ms = engine->waiting ? engine->waiting_prompt_ms - t->prompt_ms : 0;
	engine->waiting_answer_tokens =
	                engine->waiting ? engine->waiting_answer_tokens - t->answer_tokens : 0;
	return t;
}

/* A waiting ticket ends without having run. */
static void refuse(struct engine *engine, struct ticket **at, const struct error *error) {
	struct ticket *t = leave_queue(engine, at);
	t->job->error = *error;
	t->report.state = JOB_DONE;
	t->report.times.done_ns = clock_now_ns();
	t->next = engine->ended;
	engine->ended = t;
}

/* Waits for something to do and takes the mail. False: stop. */
static bool take_mail(struct engine *engine) {
	struct ticket *list = NULL;
	bool go_on = true;
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

static void end_waiting(struct engine *engine, int64_t now_ns) {
	for (struct ticket **at = &engine->waiting; *at;) {
		const struct ticket *t = *at;
		struct error e = { 0 };
		if (t->ending != ERROR_NONE) {
			say_cancelled(t->ending, &e);
			metrics_cancelled(engine->metrics, STAGE_QUEUE);
		} else if (t->job->deadline_ns > 0 && now_ns >= t->job->deadline_ns) {
			error_set(&e, ERROR_DEADLINE_EXCEEDED, "",
			                "The deadline passed while the request was queued.");
			metrics_deadline_exceeded(engine->metrics, STAGE_QUEUE);
		} else {
			at = &(*at)->next;
			continue;
		}
		refuse(engine, at, &e);
	}
}

static void take_ended(struct engine *engine) {
	struct ticket *t;
	while ((t = batch_take_ended(engine->batch))) {
		engine_learn(engine, t);
		t->next = engine->ended;
		engine->ended = t;
	}
}

static void end_running(struct engine *engine, int64_t now_ns) {
	for (struct ticket *t = batch_running(engine->batch); t; t = t->next) {
		if (t->ending == ERROR_NONE)
			continue;
		struct error e;
		say_cancelled(t->ending, &e);
		metrics_cancelled(engine->metrics,
		                t->report.times.first_token_ns > 0 ? STAGE_DECODE : STAGE_PREFILL);
		batch_fail(engine->batch, t, &e);
	}
	batch_expire(engine->batch, now_ns, engine->step_ms);
	take_ended(engine);
}

/* ---- admission ---- */

/* The best of the waiting; NULL if none waits. */
static struct ticket **best_waiting(struct engine *engine, double now_ms) {
	struct ticket **best = NULL;
	for (struct ticket **at = &engine->waiting; *at; at = &(*at)->next) {
		if (!best || scheduler_before(&(*at)->entry, &(*best)->entry, now_ms))
			best = at;
	}
	return best;
}

/* The best of the running tickets that have groups to begin. */
static struct ticket *best_unfinished(struct engine *engine, double now_ms) {
	struct ticket *best = NULL;
	for (struct ticket *t = batch_running(engine->batch); t; t = t->next) {
		if (batch_has_more(t)
		                && (!best || scheduler_before(&t->entry, &best->entry, now_ms)))
			best = t;
	}
	return best;
}

static void join(struct engine *engine, struct ticket *t, const struct admission_answer *answer,
                int64_t now_ns) {
	struct job *job = t->job;
	t->subnet = answer->subnet;
	t->predicted = answer->time;
	t->predicted_tokens = answer->predicted_tokens;
	job->subnet = answer->subnet;
	job->reason = answer->reason;
	job->predicted_ms = answer->predicted_ms;
	job->predicted_tokens = answer->predicted_tokens;
	metrics_queue_time(engine->metrics, clock_ms(now_ns - t->report.times.received_ns) * 1e-3);
	metrics_depth_selected(
	                engine->metrics, &answer->subnet, engine_reason_name(answer->reason));
	batch_join(engine->batch, t, now_ns);
}

/* Decides on the best waiting ticket. False: it must wait, and with it all others. */
static bool admit_waiting(struct engine *engine, struct ticket **at, int64_t now_ns) {
	struct ticket *t = *at;
	struct cost_load load;
	batch_load(engine->batch, NULL, &load);
	struct admission_state state = { .cost = &engine->cost,
		.load = &load,
		.waiting = engine->waiting_sum.sequences - ticket_places(t->job) };
	struct admission_answer answer;
	struct error e = { 0 };
	admission_decide(&engine->admission, &state, t->job, now_ns, &answer);
	if (!admission_check_budget(&engine->admission, &state, t->job, &answer, &e)) {
		refuse(engine, at, &e);
		return true;
	}
	if (!batch_fits(engine->batch, t, &answer.subnet)) {
		/* What does not fit beside nothing never will. */
		if (batch_sequences(engine->batch) > 0)
			return false;
		error_set(&e, ERROR_CONTEXT_LENGTH_EXCEEDED, "max_tokens",
		                "The server's KV pool cannot hold this request; ask for fewer "
		                "tokens or a shallower depth.");
		refuse(engine, at, &e);
		return true;
	}
	leave_queue(engine, at);
	join(engine, t, &answer, now_ns);
	return true;
}

static void admit(struct engine *engine, int64_t now_ns) {
	double now_ms = clock_ms(now_ns);
	while (batch_sequences(engine->batch) < engine->admission.limits.sequences) {
		struct ticket **waiting = best_waiting(engine, now_ms);
		struct ticket *running = best_unfinished(engine, now_ms);
		if (running
		                && (!waiting
		                                || !scheduler_before(&(*waiting)->entry,
		                                                &running->entry, now_ms))) {
			if (!batch_fits(engine->batch, running, &running->subnet))
				return;
			batch_begin_group(engine->batch, running);
		} else if (!waiting || !admit_waiting(engine, waiting, now_ns)) {
			return;
		}
	}
}

/* ---- a step ---- */

/* Returns the predicted step, for refinement. */
static void run_step(struct engine *engine, struct batch_stats *ret_stats) {
	int64_t began_ns = clock_now_ns();
	batch_step(engine->batch, began_ns, ret_stats);
	double seconds = clock_ms(clock_now_ns() - began_ns) * 1e-3;
	enum metrics_phase phase = ret_stats->prompt_rows == 0 ? PHASE_DECODE
	                : ret_stats->decode_rows == 0          ? PHASE_PREFILL
	                                                       : PHASE_MIXED;
	metrics_step(engine->metrics, phase, seconds, ret_stats->step.rows,
	                ret_stats->step.row_count);
	metrics_busy(engine->metrics, seconds);
	engine->step_ms = engine->cost.fitted ? cost_step_ms(&engine->cost, &ret_stats->step)
	                                      : seconds * 1e3;
}

/* ---- publication ---- */

static void post(struct engine *engine, struct ticket *t) {
	ticket_publish(t);
	if (t->in_outbox)
		return;
	t->in_outbox = true;
	t->outbox_next = NULL;
	*engine->outbox_last = t;
	engine->outbox_last = &t->outbox_next;
}

/* Tokens that a running ticket's sequences still generate. */
static void count_tokens_left(const struct ticket *t, struct scheduler_queue *q) {
	const struct job *job = t->job;
	int beams = job->num_beams > 0 ? job->num_beams : 1;
	for (int i = 0; i < job->n_choices; i++) {
		/* A search counts once, with all its beams. */
		if (t->progress[i].finish != FINISH_NONE
		                || (job->num_beams > 0 && i % job->best_of != 0))
			continue;
		int done = job->num_beams > 0 ? t->prompts[ticket_prompt_of(t, i)].searched
		                              : t->progress[i].n_tokens;
		int left = t->predicted_tokens > done ? t->predicted_tokens - done : 1;
		q->running_tokens += (double)left * beams;
		q->shortest_tokens = left < q->shortest_tokens ? left : q->shortest_tokens;
	}
}

static double predicted_wait_ms(const struct engine *engine) {
	struct scheduler_queue q = { .waiting = engine->waiting_sum.jobs,
		.waiting_prompt_ms = engine->waiting_prompt_ms,
		.waiting_tokens = engine->waiting_answer_tokens,
		.running = batch_sequences(engine->batch),
		.slots = engine->admission.limits.sequences,
		.shortest_tokens = 1e9,
		.step_ms = engine->step_ms };
	for (struct ticket *t = batch_running(engine->batch); t; t = t->next)
		count_tokens_left(t, &q);
	if (q.shortest_tokens > 1e8)
		q.shortest_tokens = 1;
	return scheduler_wait_ms(&q);
}

static void publish(struct engine *engine) {
	const struct workspace *w = batch_workspace(engine->batch);
	struct cost_load load;
	batch_load(engine->batch, NULL, &load);
	double wait_ms = predicted_wait_ms(engine);
	bool news = engine->ended != NULL;
	pthread_mutex_lock(&engine->lock);
	struct snapshot *s = &engine->snapshot;
	s->heartbeat_ns = clock_now_ns();
	s->running = batch_jobs(engine->batch);
	s->sequences = batch_sequences(engine->batch);
	s->kv_reserved = workspace_blocks_reserved(w);
	s->kv_used = workspace_blocks_used(w);
	s->cost = engine->cost;
	s->predicted_wait_ms = wait_ms;
	engine->load = load;
	engine->queued.jobs -= engine->left.jobs;
	engine->queued.sequences -= engine->left.sequences;
	engine->queued.tokens -= engine->left.tokens;
	engine->left = (struct queue_sum){ 0 };
	for (struct ticket *t = batch_running(engine->batch); t; t = t->next) {
		if (t->news && t->job->stream) {
			post(engine, t);
			news = true;
		}
	}
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
		end_waiting(engine, began_ns);
		end_running(engine, began_ns);
		admit(engine, began_ns);
		if (batch_jobs(engine->batch) == 0) {
			publish(engine);
			continue;
		}
		struct batch_stats stats;
		int64_t asked_ns = clock_now_ns();
		turn_take(engine->turn);
		int64_t waited_ns = clock_now_ns() - asked_ns;
		run_step(engine, &stats);
		turn_pass(engine->turn);
		take_ended(engine);
		int64_t now_ns = clock_now_ns();
		for (struct ticket *t = batch_running(engine->batch); t; t = t->next) {
			if (t->job->work == WORK_GENERATE)
				engine_step_down(engine, t, now_ns);
		}
		publish(engine);
		engine_learn_step(engine, &stats.step, began_ns + waited_ns);
	}
	return NULL;
}
