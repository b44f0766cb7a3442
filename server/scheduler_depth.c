/* SPDX-License-Identifier: Apache-2.0 */
/* The depth of a request that joins, and of those that step down while they run. */
#include <math.h>

#include "server/scheduler_parts.h"

/* Depths are chosen with at least so much room for error, and what runs is late with less. */
#define LEAST_MARGIN 1.05
#define LEAST_TOLERANCE 1.03
/* Beside it, room is kept for what may come, in proportion to what is ahead of a request: where
 * some come together, more do. An idle server keeps none. */
#define RESERVE 0.7

bool scheduler_budgeted(const struct scheduled *r) {
	return r->latency_ms > 0 || r->ttft_ms > 0 || r->tpot_ms > 0;
}

static struct scheduler_budget budget_of(const struct scheduled *r, double spent_ms) {
	return (struct scheduler_budget){ spent_ms, r->latency_ms, r->ttft_ms, r->tpot_ms };
}

double scheduler_margin(const struct cost_model *cost, const struct scheduled *r) {
	return r->automatic && r->may_step_down ? cost->margin_rescued : cost->margin;
}

double scheduler_tolerance(const struct cost_model *cost) {
	double tolerance = 1 + 0.25 * (cost->margin_rescued - 1);
	return tolerance > LEAST_TOLERANCE ? tolerance : LEAST_TOLERANCE;
}

static double planning_margin(double margin) {
	return margin > LEAST_MARGIN ? margin : LEAST_MARGIN;
}

/* ---- joining ---- */

static void predict(const struct scheduler_terms *terms, const struct cost_model *cost,
                const struct scheduled *r, const struct subnet *subnet,
                struct cost_time *ret_time) {
	struct cost_work work = r->work;
	work.subnet = subnet;
	work.cached_tokens = scheduler_cached(terms->cache, r, subnet);
	cost_predict(cost, &terms->limits, terms->load, &work, ret_time);
}

/* Whether those without a need could make way for it. */
static bool is_crowded(const struct scheduler_terms *terms) {
	return terms->least_load->decode_rows < terms->load->decode_rows
	                && !(terms->without & SCHEDULER_WITHOUT_RESTS);
}

static bool same_depths(const struct subnet *a, const struct subnet *b) {
	return a->stack[STACK_ENCODER].depth == b->stack[STACK_ENCODER].depth
	                && a->stack[STACK_DECODER].depth == b->stack[STACK_DECODER].depth;
}

static int main_depth(const struct scheduler_terms *terms, const struct subnet *subnet) {
	return subnet->stack[terms->main_stack].depth;
}

/* The rung moved into the bounds. False: there is no such plan. */
static bool rung_at(const struct scheduled *r, const int min[STACKS], const int max[STACKS],
                int index, struct subnet *ret_subnet) {
	int depth[STACKS];
	for (int k = 0; k < STACKS; k++) {
		int d = r->ladder->rungs[index][k];
		depth[k] = d < min[k] ? min[k] : d > max[k] ? max[k] : d;
	}
	return ladder_subnet(r->ladder, depth, ret_subnet);
}

bool scheduler_lowest(const struct ladder *ladder, const int min_depth[STACKS],
                const int max_depth[STACKS], struct subnet *ret_subnet) {
	const struct scheduled r = { .ladder = ladder };
	for (int i = 0; i < ladder->n; i++) {
		if (rung_at(&r, min_depth, max_depth, i, ret_subnet))
			return true;
	}
	return false;
}

/* A place on the ladder, in bounds. */
struct stand {
	int min[STACKS], max[STACKS];
	int index;
	struct subnet subnet;
};

static bool step_lower(const struct scheduled *r, struct stand *at) {
	struct subnet lower;
	for (int i = at->index - 1; i >= 0; i--) {
		if (!rung_at(r, at->min, at->max, i, &lower) || same_depths(&lower, &at->subnet))
			continue;
		at->index = i;
		at->subnet = lower;
		return true;
	}
	return false;
}

/* The highest rung in the bounds. A plan file may have none there (and a small pool narrows the
 * bounds): then the next one serves. */
static void stand_highest(
                const struct scheduler_terms *terms, const struct scheduled *r, struct stand *at) {
	for (int k = 0; k < STACKS; k++) {
		at->min[k] = r->min_depth[k];
		at->max[k] = r->max_depth[k];
	}
	for (;;) {
		for (at->index = r->ladder->n - 1; at->index >= 0; at->index--) {
			if (rung_at(r, at->min, at->max, at->index, &at->subnet))
				return;
		}
		for (int k = 0; k < STACKS; k++) {
			if (at->min[k] > 1)
				at->min[k]--;
			else if (at->max[k] < terms->layers[k])
				at->max[k]++;
		}
	}
}

int scheduler_overload_rung(int min, int max, int waiting, int slots) {
	if (waiting <= 0 || min >= max)
		return max;
	if (slots < 1 || waiting >= slots)
		return min;
	/* Rounded to the nearest: one request in the queue of a large server changes nothing. */
	return max - (2 * (max - min) * waiting + slots) / (2 * slots);
}

/* Without a budget: from the ceiling down to the floor with the load. */
static bool lower_by_load(
                const struct scheduler_terms *terms, const struct scheduled *r, struct stand *at) {
	struct stand probe = *at;
	bool lowered = false;
	while (terms->overload_max_depth > 0
	                && main_depth(terms, &at->subnet) > terms->overload_max_depth
	                && step_lower(r, at))
		lowered = true;
	int above = 0;
	probe = *at;
	while (step_lower(r, &probe)
	                && main_depth(terms, &probe.subnet) >= terms->overload_min_depth)
		above++;
	int off = above
	                - scheduler_overload_rung(
	                                0, above, terms->waiting_places, terms->limits.sequences);
	/* And no deeper than the neighbours can bear. */
	for (; off > 0 && step_lower(r, at); off--)
		lowered = true;
	return lowered;
}

/* No rung above the level, if there is a lower one in the bounds. */
static bool lower_to_level(
                const struct scheduler_terms *terms, const struct scheduled *r, struct stand *at) {
	int of = terms->layers[terms->main_stack];
	int most = (r->ladder->n * terms->level + of - 1) / of - 1;
	bool lowered = false;
	while (at->index > most && step_lower(r, at))
		lowered = true;
	return lowered;
}

/* The highest rung, none above the level, that is predicted to keep the budgets; else the lowest. */
static void decide_budgeted(const struct scheduler_terms *terms, const struct cost_model *cost,
                const struct scheduled *r, const struct scheduler_budget *budget,
                struct scheduler_foresight *ret) {
	double margin = planning_margin(scheduler_margin(cost, r));
	struct stand at;
	stand_highest(terms, r, &at);
	if (cost->fitted && !(terms->without & SCHEDULER_WITHOUT_NEIGHBOURS))
		lower_to_level(terms, r, &at);
	predict(terms, cost, r, &at.subnet, &ret->time);
	while (!(ret->fits = scheduler_fits(budget, &ret->time, margin)) && step_lower(r, &at))
		predict(terms, cost, r, &at.subnet, &ret->time);
	ret->subnet = at.subnet;
}

static void decide_free(const struct scheduler_terms *terms, const struct cost_model *cost,
                const struct scheduled *r, double spent_ms, struct scheduler_foresight *ret) {
	struct scheduler_budget budget = budget_of(r, spent_ms);
	struct stand at;
	if (!scheduler_budgeted(r)) {
		stand_highest(terms, r, &at);
		ret->reason = lower_by_load(terms, r, &at) ? REASON_OVERLOAD : REASON_DEFAULT;
		ret->subnet = at.subnet;
		ret->fits = true;
		predict(terms, cost, r, &at.subnet, &ret->time);
		return;
	}
	ret->reason = REASON_BUDGET;
	decide_budgeted(terms, cost, r, &budget, ret);
}

static void decide(const struct scheduler_terms *terms, const struct cost_model *cost,
                const struct scheduled *r, double spent_ms, struct scheduler_foresight *ret) {
	*ret = (struct scheduler_foresight){ .queue_ms = terms->wait_ms };
	if (r->automatic) {
		decide_free(terms, cost, r, spent_ms, ret);
	} else {
		struct scheduler_budget budget = budget_of(r, spent_ms);
		ret->subnet = r->subnet;
		ret->reason = r->reason;
		predict(terms, cost, r, &ret->subnet, &ret->time);
		ret->fits = scheduler_fits(&budget, &ret->time, scheduler_margin(cost, r));
	}
	ret->predicted_ms = cost->fitted ? spent_ms + ret->time.total_ms : -1;
}

void scheduler_decide(const struct scheduler_terms *terms, const struct cost_model *cost,
                const struct scheduled *r, double now_ms, struct scheduler_foresight *ret) {
	double spent_ms = (now_ms > r->arrival_ms ? now_ms - r->arrival_ms : 0) + terms->wait_ms;
	decide(terms, cost, r, spent_ms, ret);
	if (ret->fits || !cost->fitted || !is_crowded(terms))
		return;
	struct scheduler_terms least = *terms;
	least.load = terms->least_load;
	decide(&least, cost, r, spent_ms, ret);
}

/* ---- levels ---- */

int scheduler_highest_level(
                struct scheduler *s, const struct cost_model *cost, bool narrow, double now_ms) {
	int low = 1, high = s->options.layers[s->main_stack];
	double margin = planning_margin(cost->margin_rescued);
	if (scheduler_in_time(s, high, narrow, margin, RESERVE, now_ms))
		return high;
	/* Not in time at `high`; at `low` perhaps. */
	while (high - low > 1) {
		int middle = (low + high) / 2;
		if (scheduler_in_time(s, middle, narrow, margin, RESERVE, now_ms))
			low = middle;
		else
			high = middle;
	}
	return low;
}

int scheduler_cached_level(struct scheduler *s, const struct cost_model *cost,
                const struct scheduled *r, double now_ms) {
	double margin = planning_margin(cost->margin_rescued);
	int depth[STACKS];
	if (!r->automatic || isinf(r->at.due_ms))
		return s->level;
	for (int level = s->options.layers[s->main_stack]; level > s->level; level--) {
		scheduler_level_depth(s, r, level, depth);
		int d = depth[STACK_DECODER];
		if (d > 0 && r->at.cached[d - 1] > 0
		                && scheduler_in_time(s, level, false, margin, RESERVE, now_ms))
			return level;
	}
	return s->level;
}

/* ---- stepping down ---- */

enum { MOST_CHANGES = 4 }; /* that an answer reports */
#define CALM_STEPS 8.0

int scheduler_lowest_depth(const struct scheduled *r) {
	int rung = r->ladder->rungs[0][STACK_DECODER], least = r->min_depth[STACK_DECODER];
	return rung > least ? rung : least;
}

bool scheduler_may_narrow(const struct scheduler *s, const struct scheduled *r) {
	return r->automatic && r->may_step_down && !r->texts && r->changes < MOST_CHANGES
	                && !(s->options.without & SCHEDULER_WITHOUT_STEP_DOWN)
	                && scheduler_budgeted(r)
	                && r->subnet.stack[STACK_DECODER].depth > scheduler_lowest_depth(r);
}

/* Whether all that is due is in time as it is, and until when that need not be asked again: if
 * nothing comes, not before half of the slack has passed; but predictions may err. */
static bool is_calm(struct scheduler *s, double tolerance, double now_ms) {
	scheduler_find_slack(s, tolerance, now_ms);
	double slack_ms = s->n_due > 0 ? s->slack[s->n_due - 1] : INFINITY;
	double calm_ms = 0.5 * slack_ms, most_ms = CALM_STEPS * s->last_ms;
	s->calm_ms = now_ms + (calm_ms < most_ms ? calm_ms : most_ms);
	return slack_ms >= 0;
}

/* The level that the running ones must go down to; 0: they may stay as they are. */
static int level_of_relief(struct scheduler *s, const struct cost_model *cost, double now_ms) {
	double tolerance = scheduler_tolerance(cost);
	int level = 0;
	if (now_ms >= s->calm_ms && !is_calm(s, tolerance, now_ms)) {
		if (!(s->options.without & SCHEDULER_WITHOUT_LOST)
		                && !scheduler_in_time(s, 1, true, tolerance, 0, now_ms))
			scheduler_sacrifice(s, tolerance, now_ms);
		/* Those given up may have been all that was late. */
		if (!scheduler_in_time(s, 1, false, tolerance, 0, now_ms))
			level = scheduler_highest_level(s, cost, true, now_ms);
	}
	/* Times per token bind those that cannot rest. */
	int of = s->options.layers[s->main_stack];
	double token_ms = s->token_ms / s->bias;
	if (isfinite(token_ms) && scheduler_together_ms(s, of, false) * tolerance > token_ms) {
		double margin = planning_margin(cost->margin_rescued);
		level = level > 0 ? level : of;
		while (level > 1 && scheduler_together_ms(s, level, true) * margin > token_ms)
			level--;
	}
	return level;
}

/* The depth that a running request should go down to; its own: it stays. */
static int depth_of_relief(const struct scheduler *s, const struct scheduled *r) {
	int depth = r->subnet.stack[STACK_DECODER].depth, lower[STACKS];
	/* A lost one ends sooner, and is in the way less. */
	if (r->at.lost && r->on_miss == ON_MISS_DEGRADE)
		return scheduler_lowest_depth(r);
	if (s->narrow_to == 0)
		return depth;
	scheduler_level_depth(s, r, s->narrow_to, lower);
	/* Few changes are reported: each must be worth it. */
	int worth = depth - (depth + 5) / 6;
	int to = lower[STACK_DECODER] < worth ? lower[STACK_DECODER] : worth;
	if (lower[STACK_DECODER] >= depth)
		return depth;
	return to < scheduler_lowest_depth(r) ? scheduler_lowest_depth(r) : to;
}

struct scheduled *scheduler_narrow(
                struct scheduler *s, const struct cost_model *cost, double now_ms) {
	if (!s->relieved)
		s->narrow_to = level_of_relief(s, cost, now_ms);
	s->relieved = true;
	for (int i = 0; i < s->n_running; i++) {
		struct scheduled *r = s->running[i];
		if (!scheduler_may_narrow(s, r))
			continue;
		struct plan *plan = &r->subnet.stack[STACK_DECODER], nested;
		int depth = depth_of_relief(s, r);
		if (depth >= plan->depth)
			continue;
		enum plan_rule rule = r->ladder->rule;
		if (rule != PLAN_RULE_ENDS && rule != PLAN_RULE_PREFIX)
			rule = PLAN_RULE_EVEN;
		plan_nested(plan, rule, depth, &nested);
		*plan = nested;
		r->changes++;
		return r;
	}
	return NULL;
}
