/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler's life, who waits and who runs, and what is to be done at a step boundary. */
#include "server/scheduler.h"

#include <math.h>
#include <stdlib.h>

#include "server/scheduler_parts.h"

/* ---- life ---- */

struct scheduler *scheduler_create(const struct scheduler_options *options) {
	struct scheduler *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->options = *options;
	if (s->options.backlog_ms <= 0)
		s->options.backlog_ms = SCHEDULER_BACKLOG_MS;
	s->main_stack = options->layers[STACK_DECODER] > 0 ? STACK_DECODER : STACK_ENCODER;
	/* One that waits for places for its next group runs, too. */
	s->most_running = 2 * options->limits.sequences + 8;
	s->next_deadline_ms = INFINITY;
	s->due_seen_ms = -INFINITY;
	s->calm_ms = -INFINITY;
	s->stepped = true;
	size_t waiting = (size_t)options->most_waiting, running = (size_t)s->most_running;
	s->waiting = calloc(waiting + 1, sizeof(struct scheduled *));
	s->running = calloc(running, sizeof(struct scheduled *));
	s->due = calloc(waiting + running, sizeof(struct scheduled *));
	s->slack = calloc(waiting + running, sizeof *s->slack);
	s->sorted = calloc(running, sizeof(struct scheduled *));
	s->needs = calloc(running, sizeof *s->needs);
	s->keys = calloc(running, sizeof *s->keys);
	if (s->waiting && s->running && s->due && s->sorted && s->needs && s->keys && s->slack)
		return s;
	scheduler_destroy(s);
	return NULL;
}

void scheduler_destroy(struct scheduler *s) {
	if (!s)
		return;
	free(s->waiting);
	free(s->running);
	free(s->due);
	free(s->slack);
	free(s->sorted);
	free(s->needs);
	free(s->keys);
	free(s);
}

int scheduler_waiting(const struct scheduler *s) {
	return s->n_waiting;
}

int scheduler_running(const struct scheduler *s) {
	return s->n_running;
}

/* ---- who waits, who runs ---- */

static void add_due(struct scheduler *s, struct scheduled *r) {
	if (isinf(r->at.due_ms))
		return;
	int i = s->n_due++;
	for (; i > 0 && s->due[i - 1]->at.due_ms > r->at.due_ms; i--)
		s->due[i] = s->due[i - 1];
	s->due[i] = r;
}

static void remove_due(struct scheduler *s, const struct scheduled *r) {
	int i = 0;
	while (i < s->n_due && s->due[i] != r)
		i++;
	if (i == s->n_due)
		return;
	s->n_due--;
	for (; i < s->n_due; i++)
		s->due[i] = s->due[i + 1];
}

static void stop_waiting(struct scheduler *s, struct scheduled *r) {
	struct scheduled *last = s->waiting[--s->n_waiting];
	s->waiting[r->at.index] = last;
	last->at.index = r->at.index;
	s->waiting_places -= r->places;
	r->at.waiting = false;
}

/* Behind those that go before it. */
static void begin_running(struct scheduler *s, struct scheduled *r) {
	int i = s->n_running++;
	for (; i > 0 && scheduler_precedes(r, s->running[i - 1]); i--) {
		s->running[i] = s->running[i - 1];
		s->running[i]->at.index = i;
	}
	s->running[i] = r;
	r->at.index = i;
	r->at.running = true;
	s->running_places += r->places;
}

static void stop_running(struct scheduler *s, struct scheduled *r) {
	s->n_running--;
	for (int i = r->at.index; i < s->n_running; i++) {
		s->running[i] = s->running[i + 1];
		s->running[i]->at.index = i;
	}
	r->at.running = false;
	s->running_places -= r->places;
}

bool scheduler_arrive(struct scheduler *s, struct scheduled *r, const struct cost_model *cost,
                double now_ms) {
	if (s->n_waiting == s->options.most_waiting)
		return false;
	r->progress = (struct scheduled_progress){ 0 };
	r->changes = 0;
	r->rests = false;
	r->at = (struct scheduled_place){ 0 };
	scheduler_place(&s->options.limits, cost, &s->options.cache, s->options.without, r, &r->at);
	scheduler_refresh(r, now_ms);
	r->at.waiting = true;
	r->at.index = s->n_waiting;
	s->waiting[s->n_waiting++] = r;
	s->waiting_places += r->places;
	add_due(s, r);
	if (r->deadline_ms < s->next_deadline_ms)
		s->next_deadline_ms = r->deadline_ms;
	s->levelled = s->relieved = false;
	s->calm_ms = -INFINITY;
	return true;
}

void scheduler_leave(struct scheduler *s, struct scheduled *r) {
	if (r->at.waiting)
		stop_waiting(s, r);
	else if (r->at.running)
		stop_running(s, r);
	else
		return;
	remove_due(s, r);
	s->summed = s->levelled = s->relieved = false;
}

/* ---- ends ---- */

static bool expire(struct scheduler *s, double now_ms, struct scheduler_action *action) {
	if (now_ms < s->next_deadline_ms)
		return false;
	s->next_deadline_ms = INFINITY;
	for (int i = 0; i < s->n_waiting + s->n_running; i++) {
		struct scheduled *r =
		                i < s->n_waiting ? s->waiting[i] : s->running[i - s->n_waiting];
		if (now_ms >= r->deadline_ms) {
			s->next_deadline_ms = -INFINITY; /* there may be more */
			action->who = r;
			action->verdict = r->progress.can_end ? SCHEDULER_CUT : SCHEDULER_EXPIRE;
			return true;
		}
		if (r->deadline_ms < s->next_deadline_ms)
			s->next_deadline_ms = r->deadline_ms;
	}
	return false;
}

/* Those that stop at their budget and would miss it after another step. */
static bool cut(struct scheduler *s, double now_ms, struct scheduler_action *action) {
	for (int i = 0; i < s->n_running; i++) {
		struct scheduled *r = s->running[i];
		if (r->on_miss != ON_MISS_TRUNCATE || r->latency_ms <= 0 || !r->progress.can_end
		                || now_ms + s->step_ms <= r->arrival_ms + r->latency_ms)
			continue;
		action->who = r;
		action->verdict = SCHEDULER_CUT;
		action->budget = true;
		return true;
	}
	return false;
}

/* ---- joining ---- */

/* The first in order of those that wait; NULL if none does. */
static struct scheduled *best_waiting(struct scheduler *s, double now_ms) {
	struct scheduled *best = NULL;
	for (int i = 0; i < s->n_waiting; i++) {
		struct scheduled *r = s->waiting[i];
		if (now_ms >= r->at.stale_ms)
			scheduler_refresh(r, now_ms);
		if (!best || scheduler_precedes(r, best))
			best = r;
	}
	return best;
}

/* The first of the running that have groups to begin. */
static struct scheduled *best_unfinished(struct scheduler *s) {
	for (int i = 0; i < s->n_running; i++) {
		if (s->running[i]->progress.more)
			return s->running[i];
	}
	return NULL;
}

static struct scheduler_terms terms_of(const struct scheduler *s, const struct scheduled *r) {
	return (struct scheduler_terms){ .limits = s->options.limits,
		.layers = { s->options.layers[0], s->options.layers[1] },
		.main_stack = s->main_stack,
		.overload_min_depth = s->options.overload_min_depth,
		.overload_max_depth = s->options.overload_max_depth,
		.without = s->options.without,
		.cache = &s->options.cache,
		.load = &s->load,
		.least_load = &s->least_load,
		.waiting_places = s->waiting_places - r->places,
		.level = s->level };
}

static bool refuse(const struct scheduler *s, struct scheduled *r, enum scheduler_refusal refusal,
                struct scheduler_action *action) {
	action->verdict = SCHEDULER_REFUSE;
	action->who = r;
	action->refusal = refusal;
	action->retry_after_ms = scheduler_wait(s, r);
	return true;
}

/* Whether an idle server could keep its budgets, and what it would take. */
static bool attainable(const struct scheduler_terms *terms, const struct cost_model *cost,
                const struct scheduled *r, struct cost_time *ret_time) {
	static const struct cost_load idle;
	struct scheduler_terms alone = *terms;
	struct scheduler_foresight f;
	alone.load = alone.least_load = &idle;
	alone.waiting_places = 0;
	alone.level = alone.layers[alone.main_stack];
	scheduler_decide(&alone, cost, r, r->arrival_ms, &f);
	*ret_time = f.time;
	return f.fits;
}

/* Whether it would rather be refused than be late. */
static bool rejects(const struct scheduled *r, const struct cost_model *cost) {
	return r->on_miss == ON_MISS_REJECT && cost->fitted && scheduler_budgeted(r);
}

static bool reject(const struct scheduler *s, const struct scheduler_terms *terms,
                const struct cost_model *cost, struct scheduled *r,
                const struct scheduler_foresight *f, struct scheduler_action *action) {
	struct cost_time alone;
	bool could = attainable(terms, cost, r, &alone);
	r->predicted = could ? f->time : alone;
	return refuse(s, r, could ? SCHEDULER_BUSY : SCHEDULER_UNATTAINABLE, action);
}

/* Those that would rather be refused, once even the shallowest depth alone would be late. */
static bool reject_lost(struct scheduler *s, const struct cost_model *cost, double now_ms,
                struct scheduler_action *action) {
	for (int i = 0; i < s->n_waiting; i++) {
		struct scheduled *r = s->waiting[i];
		if (!rejects(r, cost) || r->at.due_ms >= r->deadline_ms
		                || now_ms <= r->at.due_ms - r->at.service_ms)
			continue;
		struct scheduler_terms terms = terms_of(s, r);
		struct scheduler_foresight f;
		terms.level = s->options.layers[s->main_stack];
		scheduler_decide(&terms, cost, r, now_ms, &f);
		return reject(s, &terms, cost, r, &f, action);
	}
	return false;
}

/* Decides on the first of the waiting. False: it must wait, and with it all others. */
static bool admit(struct scheduler *s, const struct cost_model *cost, struct scheduled *r,
                double now_ms, struct scheduler_action *action) {
	if (scheduler_held(s, cost, r, now_ms))
		return false;
	if (!s->levelled) {
		bool levels = cost->fitted && s->n_due > 0
		                && !(s->options.without & SCHEDULER_WITHOUT_NEIGHBOURS);
		s->level = levels ? scheduler_highest_level(s, cost, false, now_ms)
		                  : s->options.layers[s->main_stack];
		s->levelled = true;
	}
	struct scheduler_terms terms = terms_of(s, r);
	struct scheduler_foresight f;
	if (s->options.cache.tokens && cost->fitted)
		terms.level = scheduler_cached_level(s, cost, r, now_ms);
	scheduler_decide(&terms, cost, r, now_ms, &f);
	if (rejects(r, cost) && !f.fits)
		return reject(s, &terms, cost, r, &f, action);
	if (!s->options.fits(s->options.arg, r, &f.subnet))
		return s->n_running == 0 ? refuse(s, r, SCHEDULER_TOO_LARGE, action) : false;
	if (!scheduler_welcome(s, cost, r, &f.subnet, now_ms))
		return false;
	r->subnet = f.subnet;
	r->reason = f.reason;
	r->predicted = f.time;
	r->predicted_ms = f.predicted_ms;
	stop_waiting(s, r);
	begin_running(s, r);
	s->summed = false;
	action->verdict = SCHEDULER_JOIN;
	action->who = r;
	return true;
}

static bool join(struct scheduler *s, const struct cost_model *cost, double now_ms,
                struct scheduler_action *action) {
	struct scheduled *running = best_unfinished(s);
	struct scheduled *waiting = s->n_waiting > 0 && s->n_running < s->most_running
	                ? best_waiting(s, now_ms)
	                : NULL;
	if (running && (!waiting || !scheduler_precedes(waiting, running))) {
		if (!s->options.fits(s->options.arg, running, &running->subnet))
			return false;
		s->summed = false;
		action->verdict = SCHEDULER_MORE;
		action->who = running;
		return true;
	}
	return waiting && admit(s, cost, waiting, now_ms, action);
}

/* ---- a boundary ---- */

void scheduler_next(struct scheduler *s, const struct cost_model *cost, double now_ms,
                struct scheduler_action *ret_action) {
	*ret_action = (struct scheduler_action){ .verdict = SCHEDULER_STEP };
	if (s->stepped)
		s->stepped = s->summed = s->relieved = s->levelled = false;
	if (expire(s, now_ms, ret_action))
		return;
	if (!s->summed)
		scheduler_sum_up(s, cost, now_ms);
	if (cut(s, now_ms, ret_action))
		return;
	struct scheduled *late = cost->fitted ? scheduler_narrow(s, cost, now_ms) : NULL;
	if (late) {
		s->summed = false;
		ret_action->verdict = SCHEDULER_NARROW;
		ret_action->who = late;
		ret_action->plan = late->subnet.stack[STACK_DECODER];
		return;
	}
	if (reject_lost(s, cost, now_ms, ret_action) || join(s, cost, now_ms, ret_action))
		return;
	scheduler_compose(s, cost, now_ms, ret_action);
	s->stepped = true;
}

/* ---- small questions ---- */

bool scheduler_has_budget(const struct scheduler_budget *budget) {
	return budget->latency_ms > 0 || budget->ttft_ms > 0 || budget->tpot_ms > 0;
}

bool scheduler_fits(const struct scheduler_budget *budget, const struct cost_time *time,
                double margin) {
	double spent = budget->spent_ms;
	return (budget->latency_ms <= 0 || spent + time->total_ms * margin <= budget->latency_ms)
	                && (budget->ttft_ms <= 0
	                                || spent + time->first_ms * margin <= budget->ttft_ms)
	                && (budget->tpot_ms <= 0 || time->token_ms * margin <= budget->tpot_ms);
}

int scheduler_predict_tokens(
                int expected_tokens, int max_tokens, bool max_tokens_set, double learnt_tokens) {
	if (max_tokens <= 0)
		return 0;
	if (expected_tokens > 0)
		return expected_tokens < max_tokens ? expected_tokens : max_tokens;
	if (max_tokens_set)
		return max_tokens;
	if (learnt_tokens >= max_tokens)
		return max_tokens;
	int tokens = (int)ceil(learnt_tokens);
	return tokens < 1 ? 1 : tokens;
}

double scheduler_wait_ms(const struct scheduler_queue *q) {
	if (q->waiting == 0)
		return q->running < q->slots ? 0 : q->shortest_tokens * q->step_ms;
	int side_by_side = q->running > 0 ? q->running : 1;
	return q->waiting_prompt_ms
	                + (q->running_tokens + q->waiting_tokens) * q->step_ms / side_by_side;
}
