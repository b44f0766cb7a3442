/* SPDX-License-Identifier: Apache-2.0 */
/* At a step boundary: does to jobs what the scheduler says about them. It decides nothing itself. */
#include "server/clock.h"
#include "server/engine_parts.h"

/* ---- the queue ---- */

/* Takes a ticket out of the list of those that wait. */
static void leave_queue(struct engine *engine, struct ticket *t) {
	struct ticket **at = &engine->waiting;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	t->next = NULL;
	engine->left.jobs++;
	engine->left.sequences += ticket_places(t->job);
	engine->left.tokens += t->tokens;
}

void engine_refuse(struct engine *engine, struct ticket *t, const struct error *error) {
	scheduler_leave(engine->scheduler, &t->scheduled);
	leave_queue(engine, t);
	t->job->error = *error;
	t->report.state = JOB_DONE;
	t->report.times.done_ns = clock_now_ns();
	t->next = engine->ended;
	engine->ended = t;
}

static void refuse(struct engine *engine, const struct scheduler_action *action, double now_ms) {
	struct ticket *t = ticket_of(action->who);
	struct error e = { 0 };
	const struct scheduled *r = action->who;
	struct admission_refusal refusal = { .why = action->refusal,
		.time = r->predicted,
		.retry_after_ms = action->retry_after_ms };
	if (action->refusal != SCHEDULER_UNATTAINABLE)
		refusal.spent_ms = now_ms > r->arrival_ms ? now_ms - r->arrival_ms : 0;
	if (action->refusal == SCHEDULER_TOO_LARGE)
		error_set(&e, ERROR_CONTEXT_LENGTH_EXCEEDED, "max_tokens",
		                "The server's KV pool cannot hold this request; ask for fewer "
		                "tokens or a shallower depth.");
	else
		admission_refuse(&engine->admission, &engine->cost, t->job, &refusal, &e);
	engine_refuse(engine, t, &e);
}

/* ---- running ---- */

static void join(struct engine *engine, struct scheduled *r, int64_t now_ns) {
	struct ticket *t = ticket_of(r);
	struct job *job = t->job;
	leave_queue(engine, t);
	t->subnet = job->subnet = r->subnet;
	t->predicted = r->predicted;
	t->predicted_tokens = job->predicted_tokens = r->work.output_tokens;
	job->reason = r->reason;
	job->predicted_ms = r->predicted_ms;
	metrics_queue_time(engine->metrics, clock_ms(now_ns - t->report.times.received_ns) * 1e-3);
	metrics_depth_selected(engine->metrics, &r->subnet, engine_reason_name(r->reason));
	batch_join(engine->batch, t, now_ns);
	batch_progress(t, &r->progress);
}

static void narrow(struct engine *engine, const struct scheduler_action *action, int64_t now_ns) {
	struct ticket *t = ticket_of(action->who);
	engine_fell_behind(engine, t, now_ns);
	batch_narrow(engine->batch, t, &action->plan);
}

void engine_take_ended(struct engine *engine) {
	struct ticket *t;
	while ((t = batch_take_ended(engine->batch))) {
		scheduler_leave(engine->scheduler, &t->scheduled);
		engine_learn(engine, t);
		t->next = engine->ended;
		engine->ended = t;
	}
}

/* ---- deadlines and budgets ---- */

static void expire(struct engine *engine, struct ticket *t) {
	struct error e = { 0 };
	if (t->report.state == JOB_QUEUED) {
		metrics_deadline_exceeded(engine->metrics, STAGE_QUEUE);
		error_set(&e, ERROR_DEADLINE_EXCEEDED, "",
		                "The deadline passed while the request was queued.");
		engine_refuse(engine, t, &e);
		return;
	}
	bool started = t->report.times.first_token_ns > 0;
	metrics_deadline_exceeded(engine->metrics, started ? STAGE_DECODE : STAGE_PREFILL);
	error_set(&e, ERROR_DEADLINE_EXCEEDED, "",
	                "The deadline passed before the answer could begin; allow more time or ask "
	                "for a shallower depth.");
	batch_fail(engine->batch, t, &e);
	engine_take_ended(engine);
}

static void cut(struct engine *engine, const struct scheduler_action *action) {
	if (!action->budget)
		metrics_deadline_exceeded(engine->metrics, STAGE_DECODE);
	batch_cut(engine->batch, ticket_of(action->who),
	                action->budget ? DETAIL_BUDGET : DETAIL_DEADLINE);
	engine_take_ended(engine);
}

/* ---- a boundary ---- */

bool engine_decide(struct engine *engine, int64_t now_ns) {
	struct scheduler_action action;
	double now_ms = clock_ms(now_ns);
	for (;;) {
		scheduler_next(engine->scheduler, &engine->cost, now_ms, &action);
		switch (action.verdict) {
		case SCHEDULER_STEP:
			batch_arrange(engine->batch, action.order, action.n_order,
			                action.prompt_rows);
			batch_speculate(engine->batch, &engine->cost);
			return batch_jobs(engine->batch) > 0;
		case SCHEDULER_JOIN:
			join(engine, action.who, now_ns);
			break;
		case SCHEDULER_MORE:
			batch_begin_group(engine->batch, ticket_of(action.who));
			batch_progress(ticket_of(action.who), &action.who->progress);
			break;
		case SCHEDULER_NARROW:
			narrow(engine, &action, now_ns);
			break;
		case SCHEDULER_REFUSE:
			refuse(engine, &action, now_ms);
			break;
		case SCHEDULER_EXPIRE:
			expire(engine, ticket_of(action.who));
			break;
		case SCHEDULER_CUT:
			cut(engine, &action);
			break;
		}
	}
}
