/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler's decisions. No clock, no lock, no memory of its own. */
#include "server/scheduler.h"

#include <math.h>

/* ---- order ---- */

/* The classes gained by waiting double with every further period: 1, 3, 7, 15, ... so that the
 * widest range of priorities is crossed in minutes. */
static double class_of(const struct scheduler_entry *e, double now_ms) {
	double waited = now_ms > e->arrival_ms ? now_ms - e->arrival_ms : 0;
	return e->priority - (exp2(floor(waited / SCHEDULER_AGING_MS)) - 1);
}

/* The latest moment at which work must begin. */
static double latest_start(const struct scheduler_entry *e, double now_ms) {
	double start = e->due_ms - e->service_ms;
	if (isfinite(e->due_ms) && start >= now_ms)
		return start;
	return e->arrival_ms + SCHEDULER_PATIENCE_MS;
}

bool scheduler_before(
                const struct scheduler_entry *a, const struct scheduler_entry *b, double now_ms) {
	double x = class_of(a, now_ms), y = class_of(b, now_ms);
	if (x != y)
		return x < y;
	x = latest_start(a, now_ms);
	y = latest_start(b, now_ms);
	if (x != y)
		return x < y;
	return a->arrival_ms < b->arrival_ms;
}

/* ---- depth ---- */

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

static void predict(const struct scheduler_question *q, int index, struct cost_time *ret_time) {
	struct cost_work work = q->work;
	work.subnet = &q->ladder.subnets[index];
	cost_predict(q->cost, q->limits, q->load, &work, ret_time);
}

static int depth_at(const struct scheduler_ladder *ladder, int index) {
	return ladder->subnets[index].stack[STACK_DECODER].depth;
}

/* The last rung of at most `depth`, or -1. */
static int rung_below(const struct scheduler_ladder *ladder, int depth) {
	int i = ladder->n - 1;
	while (i >= 0 && depth_at(ladder, i) > depth)
		i--;
	return i;
}

bool scheduler_choose(const struct scheduler_question *q, struct scheduler_choice *ret_choice) {
	int top = rung_below(&q->ladder, q->max_depth);
	int bottom = rung_below(&q->ladder, q->min_depth - 1) + 1;
	if (top < bottom)
		return false;
	struct scheduler_choice choice = { .index = top, .fits = true };
	choice.reason = scheduler_has_budget(&q->budget) ? REASON_BUDGET : REASON_DEFAULT;
	if (q->overload_depth < depth_at(&q->ladder, top)) {
		choice.index = rung_below(&q->ladder, q->overload_depth);
		if (choice.index < bottom)
			choice.index = bottom;
		if (choice.index < top)
			choice.reason = REASON_OVERLOAD;
	}
	predict(q, choice.index, &choice.time);
	while (!(choice.fits = scheduler_fits(&q->budget, &choice.time, q->margin))
	                && choice.index > bottom) {
		choice.index--;
		choice.reason = REASON_BUDGET;
		predict(q, choice.index, &choice.time);
	}
	*ret_choice = choice;
	return true;
}

int scheduler_overload_depth(int min, int max, int waiting, int slots) {
	if (waiting <= 0 || min >= max)
		return max;
	if (slots < 1 || waiting >= slots)
		return min;
	/* Rounded to the nearest: one request in the queue of a large server changes nothing. */
	return max - (2 * (max - min) * waiting + slots) / (2 * slots);
}

bool scheduler_step_down(const struct scheduler_progress *p, struct plan *ret_plan) {
	const struct plan *plan = &p->work.subnet->stack[STACK_DECODER];
	if (plan->depth <= p->min_depth)
		return false;
	struct cost_time time;
	cost_predict(p->cost, p->limits, p->load, &p->work, &time);
	/* Later than predicted, by more than a part of the margin: that part is noise. */
	if (scheduler_fits(&p->budget, &time, 1 + 0.25 * (p->cost->margin_rescued - 1)))
		return false;
	enum plan_rule rule = p->rule == PLAN_RULE_ENDS || p->rule == PLAN_RULE_PREFIX
	                ? p->rule
	                : PLAN_RULE_EVEN;
	struct plan nested;
	struct subnet subnet = *p->work.subnet;
	struct cost_work work = p->work;
	work.subnet = &subnet;
	int depth = plan->depth;
	do {
		plan_nested(plan, rule, --depth, &nested);
		subnet.stack[STACK_DECODER] = nested;
		cost_predict(p->cost, p->limits, p->load, &work, &time);
	} while (depth > p->min_depth && !scheduler_fits(&p->budget, &time, p->cost->margin));
	*ret_plan = nested;
	return true;
}

/* ---- length and waiting ---- */

int scheduler_predict_tokens(
                int expected_tokens, int max_tokens, bool max_tokens_set, double answer_ratio) {
	if (max_tokens <= 0)
		return 0;
	if (expected_tokens > 0)
		return expected_tokens < max_tokens ? expected_tokens : max_tokens;
	if (max_tokens_set)
		return max_tokens;
	int tokens = (int)ceil(answer_ratio * max_tokens);
	return tokens < 1 ? 1 : tokens > max_tokens ? max_tokens : tokens;
}

double scheduler_wait_ms(const struct scheduler_queue *q) {
	if (q->waiting == 0)
		return q->running < q->slots ? 0 : q->shortest_tokens * q->step_ms;
	int side_by_side = q->running > 0 ? q->running : 1;
	return q->waiting_prompt_ms
	                + (q->running_tokens + q->waiting_tokens) * q->step_ms / side_by_side;
}
