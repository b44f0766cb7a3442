/* SPDX-License-Identifier: Apache-2.0 */
/* The decisions that the engine still makes one by one. */
#include <math.h>

#include "server/scheduler.h"

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

/* The rung `index` moved into the bounds. False: there is no such plan. */
static bool rung_at(const struct ladder *ladder, int index, const int min[STACKS],
                const int max[STACKS], struct subnet *ret_subnet) {
	int depth[STACKS];
	for (int s = 0; s < STACKS; s++) {
		int d = ladder->rungs[index][s];
		depth[s] = d < min[s] ? min[s] : d > max[s] ? max[s] : d;
	}
	return ladder_subnet(ladder, depth, ret_subnet);
}

static bool same_depths(const struct subnet *a, const struct subnet *b) {
	return a->stack[STACK_ENCODER].depth == b->stack[STACK_ENCODER].depth
	                && a->stack[STACK_DECODER].depth == b->stack[STACK_DECODER].depth;
}

bool scheduler_lowest(const struct ladder *ladder, const int min_depth[STACKS],
                const int max_depth[STACKS], struct subnet *ret_subnet) {
	for (int i = 0; i < ladder->n; i++) {
		if (rung_at(ladder, i, min_depth, max_depth, ret_subnet))
			return true;
	}
	return false;
}

/* Goes to the next lower rung that differs from the present one. False: this is the lowest. */
static bool step_lower(const struct scheduler_question *q, int *index, struct subnet *subnet) {
	struct subnet lower;
	for (int i = *index - 1; i >= 0; i--) {
		if (!rung_at(q->ladder, i, q->min_depth, q->max_depth, &lower)
		                || same_depths(&lower, subnet))
			continue;
		*index = i;
		*subnet = lower;
		return true;
	}
	return false;
}

static int main_depth(const struct subnet *subnet) {
	const struct plan *decoder = &subnet->stack[STACK_DECODER];
	return decoder->of > 0 ? decoder->depth : subnet->stack[STACK_ENCODER].depth;
}

/* How many rungs the load takes off: of those above the configured depth. */
static int rungs_off(const struct scheduler_question *q, int index, struct subnet subnet) {
	int above = 0;
	while (step_lower(q, &index, &subnet) && main_depth(&subnet) >= q->overload_min_depth)
		above++;
	return above - scheduler_overload_rung(0, above, q->waiting, q->slots);
}

static void predict(const struct scheduler_question *q, const struct subnet *subnet,
                struct cost_time *ret_time) {
	struct cost_work work = q->work;
	work.subnet = subnet;
	cost_predict(q->cost, q->limits, q->load, &work, ret_time);
}

bool scheduler_choose(const struct scheduler_question *q, struct scheduler_choice *ret_choice) {
	struct scheduler_choice choice = { .fits = true };
	int index = q->ladder->n - 1;
	while (index >= 0 && !rung_at(q->ladder, index, q->min_depth, q->max_depth, &choice.subnet))
		index--;
	if (index < 0)
		return false;
	choice.reason = scheduler_has_budget(&q->budget) ? REASON_BUDGET : REASON_DEFAULT;
	for (int off = rungs_off(q, index, choice.subnet); off > 0; off--) {
		step_lower(q, &index, &choice.subnet);
		choice.reason = REASON_OVERLOAD;
	}
	predict(q, &choice.subnet, &choice.time);
	while (!(choice.fits = scheduler_fits(&q->budget, &choice.time, q->margin))
	                && step_lower(q, &index, &choice.subnet)) {
		choice.reason = REASON_BUDGET;
		predict(q, &choice.subnet, &choice.time);
	}
	*ret_choice = choice;
	return true;
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
