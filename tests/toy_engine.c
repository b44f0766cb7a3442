/* SPDX-License-Identifier: Apache-2.0 */
/* An engine of numbers. */
#include "tests/toy_engine.h"

#include <math.h>
#include <string.h>

#include "tests/check.h"

static const struct model model = { .facts.stack[STACK_DECODER].layers = TOY_LAYERS };
static int rungs[TOY_LAYERS][STACKS];
struct ladder toy_ladder = {
	.model = &model, .rule = PLAN_RULE_EVEN, .n = TOY_LAYERS, .rungs = rungs
};

struct cost_model toy_flat_cost(void) {
	struct cost_model cost = { .constant_ms = 2,
		.margin = 1,
		.margin_rescued = 1,
		.answer_ratio = 1,
		.fitted = true };
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_DECODER][i] = 1;
	return cost;
}

static bool fits(void *arg, const struct scheduled *r, const struct subnet *subnet) {
	const struct toy *toy = arg;
	(void)subnet;
	return toy->places + r->places <= toy->sequences;
}

static void open_as(struct toy *toy, const struct cost_model *cost, int sequences, unsigned without,
                double most_step_ms, const struct scheduler_cache *cache) {
	memset(toy, 0, sizeof *toy);
	for (int d = 1; d <= TOY_LAYERS; d++)
		rungs[d - 1][STACK_DECODER] = d;
	toy->cost = toy->machine = *cost;
	toy->sequences = sequences;
	toy->cache = *cache;
	struct scheduler_options options = { .limits = { .max_rows = 512,
		                                             .prefill_rows = 128,
		                                             .sequences = sequences,
		                                             .most_step_ms = most_step_ms },
		.cache = *cache,
		.layers = { [STACK_DECODER] = TOY_LAYERS },
		.most_waiting = TOY_REQUESTS,
		.overload_min_depth = 1,
		.without = without,
		.fits = fits,
		.arg = toy };
	toy->scheduler = scheduler_create(&options);
	CHECK(toy->scheduler);
}

void toy_open(struct toy *toy, const struct cost_model *cost, int sequences, unsigned without) {
	open_as(toy, cost, sequences, without, 0, &(struct scheduler_cache){ NULL, NULL });
}

void toy_open_with(struct toy *toy, const struct cost_model *cost, int sequences,
                double most_step_ms, const struct scheduler_cache *cache) {
	open_as(toy, cost, sequences, 0, most_step_ms, cache);
}

void toy_close(struct toy *toy) {
	scheduler_destroy(toy->scheduler);
}

struct toy_request *toy_request(struct toy *toy, int depth, int tokens, double latency_ms) {
	CHECK(toy->n < TOY_REQUESTS);
	struct toy_request *r = &toy->requests[toy->n++];
	*r = (struct toy_request){ .length = tokens, .joined_ms = -1, .done_ms = -1 };
	r->s = (struct scheduled){ .deadline_ms = INFINITY,
		.latency_ms = latency_ms,
		.automatic = depth == 0,
		.may_step_down = depth == 0,
		.ladder = &toy_ladder,
		.min_depth = { [STACK_DECODER] = 1 },
		.max_depth = { [STACK_DECODER] = TOY_LAYERS },
		.places = 1,
		.reason = REASON_EXPLICIT,
		.work = { .prompt_tokens = 10,
		                .longest_prompt = 10,
		                .choices = 1,
		                .output_tokens = tokens } };
	if (depth > 0)
		plan_by_rule(PLAN_RULE_EVEN, TOY_LAYERS, depth, &r->s.subnet.stack[STACK_DECODER]);
	return r;
}

void toy_arrive(struct toy *toy, struct toy_request *r) {
	r->s.arrival_ms = toy->now_ms;
	CHECK(scheduler_arrive(toy->scheduler, &r->s, &toy->cost, toy->now_ms));
}

static struct toy_request *request_of(struct scheduled *s) {
	return (struct toy_request *)((char *)s - offsetof(struct toy_request, s));
}

/* ---- what the scheduler says ---- */

static void write_progress(struct toy_request *r) {
	struct scheduled_progress *p = &r->s.progress;
	int tokens = p->tokens_out, prompt = r->s.work.prompt_tokens;
	bool through = r->fed == prompt;
	*p = (struct scheduled_progress){ .tokens_out = tokens,
		.prompt_tokens = prompt - r->fed,
		.rows = through,
		.keys = through ? prompt + tokens : 0,
		.coming_rows = !through,
		.coming_keys = through ? 0 : prompt,
		.choices_left = 1,
		.first_out = tokens > 0,
		.can_end = tokens > 0 };
}

static void end(struct toy *toy, struct toy_request *r, enum scheduler_verdict how) {
	toy->places -= r->joined_ms >= 0;
	r->end = how;
	r->done_ms = toy->now_ms;
	scheduler_leave(toy->scheduler, &r->s);
}

static void decide(struct toy *toy, struct scheduler_action *a) {
	for (;;) {
		scheduler_next(toy->scheduler, &toy->cost, toy->now_ms, a);
		if (a->verdict == SCHEDULER_STEP)
			return;
		struct toy_request *r = request_of(a->who);
		switch (a->verdict) {
		case SCHEDULER_JOIN:
			r->joined_ms = toy->now_ms;
			r->joined_depth = toy_depth(r);
			toy->places++;
			if (toy->cache.tokens)
				r->fed = toy->cache.tokens(toy->cache.arg, &r->s, &r->s.subnet);
			write_progress(r);
			break;
		case SCHEDULER_NARROW:
			CHECK_INT(toy_depth(r), a->plan.depth);
			break;
		case SCHEDULER_REFUSE:
			r->refusal = a->refusal;
			r->retry_after_ms = a->retry_after_ms;
			end(toy, r, a->verdict);
			break;
		default:
			r->by_budget = a->budget;
			end(toy, r, a->verdict);
			break;
		}
	}
}

/* ---- a step ---- */

/* Rows of a request in this step; those of prompts are taken from `room`. */
static int rows_of(struct toy_request *r, int *room) {
	int left = r->s.work.prompt_tokens - r->fed;
	if (left == 0)
		return !r->s.rests;
	int rows = left < *room ? left : *room;
	*room -= rows;
	r->fed += rows;
	return rows;
}

bool toy_turn(struct toy *toy) {
	struct scheduler_action a;
	int count[TOY_LAYERS] = { 0 }, before[TOY_REQUESTS];
	decide(toy, &a);
	if (a.n_order == 0)
		return false;
	struct cost_step step = { .layers = { [STACK_DECODER] = TOY_LAYERS },
		.row_count = { [STACK_DECODER] = count } };
	int room = a.prompt_rows;
	for (int i = 0; i < a.n_order; i++) {
		struct toy_request *r = request_of(a.order[i]);
		const struct plan *plan = &r->s.subnet.stack[STACK_DECODER];
		before[i] = r->fed;
		int rows = rows_of(r, &room);
		for (int l = 0; l < plan->depth; l++)
			count[plan->layers[l]] += rows;
		step.rows += rows;
		step.logit_rows += rows > 0;
		r->steps += rows > 0;
		r->rests += r->s.rests;
	}
	CHECK(step.rows > 0);
	toy->prompt_rows = a.prompt_rows;
	toy->step_ms = cost_step_ms(&toy->machine, &step);
	toy->now_ms += toy->step_ms;
	struct toy_request *ran[TOY_REQUESTS];
	int n = a.n_order;
	for (int i = 0; i < n; i++)
		ran[i] = request_of(a.order[i]);
	for (int i = 0; i < n; i++) {
		struct toy_request *r = ran[i];
		bool through = r->fed == r->s.work.prompt_tokens;
		/* The prompt's last row gives the first token. */
		if (through && (before[i] < r->fed || !r->s.rests))
			r->s.progress.tokens_out++;
		write_progress(r);
		if (r->s.progress.tokens_out >= r->length)
			end(toy, r, SCHEDULER_STEP);
	}
	return true;
}

void toy_run(struct toy *toy) {
	for (int i = 0; scheduler_waiting(toy->scheduler) + scheduler_running(toy->scheduler) > 0;
	                i++) {
		CHECK(i < 1000000);
		CHECK(toy_turn(toy) || scheduler_waiting(toy->scheduler) == 0);
	}
}

bool toy_met(const struct toy_request *r) {
	return r->done_ms >= 0 && r->end == SCHEDULER_STEP
	                && r->done_ms <= r->s.arrival_ms + r->s.latency_ms + 1e-6;
}

int toy_depth(const struct toy_request *r) {
	return r->s.subnet.stack[STACK_DECODER].depth;
}
