/* SPDX-License-Identifier: Apache-2.0 */
/* Who goes before whom, and whose budget is lost. */
#include <math.h>

#include "model/ops.h"
#include "server/scheduler_parts.h"

#define GIVEN_UP_MS 50.0 /* so long a budget stays given up before it is looked at again */

static const struct cost_load idle;

/* The classes gained by waiting double with every further period: 1, 3, 7, 15, ... so that the
 * widest range of priorities is crossed in minutes. */
static double class_of(const struct scheduled *r, double now_ms) {
	double waited = now_ms > r->arrival_ms ? now_ms - r->arrival_ms : 0;
	return r->priority - (exp2(floor(waited / SCHEDULER_AGING_MS)) - 1);
}

void scheduler_refresh(struct scheduled *r, double now_ms) {
	struct scheduled_place *at = &r->at;
	double waited = now_ms > r->arrival_ms ? now_ms - r->arrival_ms : 0;
	at->class = class_of(r, now_ms);
	at->stale_ms = r->arrival_ms
	                + SCHEDULER_AGING_MS * (floor(waited / SCHEDULER_AGING_MS) + 1);
	double service = at->service_ms;
	/* What is left of its texts. */
	if (r->texts && at->running && r->work.source_tokens > 0)
		service *= (double)r->progress.source_tokens / r->work.source_tokens;
	double start = at->due_ms - service;
	bool given_up = at->given_up_ms > now_ms;
	at->lost = given_up || (isfinite(at->due_ms) && start < now_ms);
	if (isfinite(at->due_ms) && !at->lost) {
		at->start_ms = start;
		at->stale_ms = start < at->stale_ms ? start : at->stale_ms;
	} else {
		at->start_ms = r->arrival_ms + SCHEDULER_PATIENCE_MS;
	}
	if (given_up && at->given_up_ms < at->stale_ms)
		at->stale_ms = at->given_up_ms;
}

bool scheduler_precedes(const struct scheduled *a, const struct scheduled *b) {
	if (a->at.class != b->at.class)
		return a->at.class < b->at.class;
	if (a->at.start_ms != b->at.start_ms)
		return a->at.start_ms < b->at.start_ms;
	return a->arrival_ms < b->arrival_ms;
}

void scheduler_give_up(struct scheduled *r, double now_ms) {
	r->at.given_up_ms = now_ms + GIVEN_UP_MS;
	scheduler_refresh(r, now_ms);
}

/* The cheapest subnet that it allows. */
static const struct subnet *shallowest(const struct scheduled *r, struct subnet *room) {
	if (!r->automatic)
		return &r->subnet;
	if (!scheduler_lowest(r->ladder, r->min_depth, r->max_depth, room))
		ladder_subnet(r->ladder, r->ladder->rungs[r->ladder->n - 1], room);
	return room;
}

int scheduler_cached(const struct scheduler_cache *cache, const struct scheduled *r,
                const struct subnet *subnet) {
	int tokens = cache->tokens ? cache->tokens(cache->arg, r, subnet) : 0;
	return tokens < r->work.prompt_tokens ? tokens : r->work.prompt_tokens;
}

int scheduler_prompt_tokens(const struct scheduled *r, int depth) {
	int cached = depth > 0 ? r->at.cached[depth - 1] * KV_TILE : 0;
	return r->work.prompt_tokens - cached;
}

static void note_cached(const struct scheduler_cache *cache, const struct scheduled *r,
                const struct subnet *subnet, struct scheduled_place *at) {
	int depth = subnet->stack[STACK_DECODER].depth;
	int tiles = scheduler_cached(cache, r, subnet) / KV_TILE;
	if (depth > 0)
		at->cached[depth - 1] = (uint16_t)(tiles < UINT16_MAX ? tiles : UINT16_MAX);
}

/* What is cached at the depths that it may join at. */
static void note_all_cached(const struct scheduler_cache *cache, const struct scheduled *r,
                struct scheduled_place *at) {
	for (int d = r->min_depth[STACK_DECODER]; d > 0 && d <= r->max_depth[STACK_DECODER]; d++) {
		const int depth[STACKS] = { 0, d };
		struct subnet subnet;
		if (ladder_subnet(r->ladder, depth, &subnet))
			note_cached(cache, r, &subnet, at);
	}
}

void scheduler_place(const struct cost_limits *limits, const struct cost_model *cost,
                const struct scheduler_cache *cache, unsigned without, const struct scheduled *r,
                struct scheduled_place *ret_place) {
	struct subnet room;
	struct cost_work work = r->work;
	struct cost_time time;
	work.subnet = shallowest(r, &room);
	work.cached_tokens = scheduler_cached(cache, r, work.subnet);
	cost_predict(cost, limits, &idle, &work, &time);
	struct scheduled_place at = { .due_ms = r->deadline_ms,
		.service_ms = time.total_ms,
		.prompt_ms = time.first_ms,
		.given_up_ms = -INFINITY,
		.held_ms = -INFINITY };
	if (r->latency_ms > 0 && r->arrival_ms + r->latency_ms < at.due_ms)
		at.due_ms = r->arrival_ms + r->latency_ms;
	/* The first token in time may be the nearer concern. */
	double first_due = r->arrival_ms + r->ttft_ms;
	if (r->ttft_ms > 0 && first_due - time.first_ms < at.due_ms - time.total_ms) {
		at.due_ms = first_due;
		at.service_ms = time.first_ms;
		at.first_due = true;
	}
	if (without & SCHEDULER_WITHOUT_ORDER)
		at.due_ms = INFINITY;
	if (cache->tokens)
		note_cached(cache, r, work.subnet, &at);
	/* Levels are asked for by those that are due. */
	if (cache->tokens && r->automatic && isfinite(at.due_ms))
		note_all_cached(cache, r, &at);
	if (cost->fitted) {
		struct scheduler_rates rates;
		struct scheduler_work low;
		struct scheduled placed = *r;
		const int depth[STACKS] = { work.subnet->stack[STACK_ENCODER].depth,
			work.subnet->stack[STACK_DECODER].depth };
		scheduler_set_rates(cost, limits->sequences, depth[STACK_DECODER], &rates);
		placed.at = at;
		scheduler_work_left(&rates, &placed, depth, &low);
		at.low_ms = scheduler_busy_ms(&rates, &low);
	}
	*ret_place = at;
}
