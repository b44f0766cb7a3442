/* SPDX-License-Identifier: Apache-2.0 */
/* What a request could have alone, and what no scheduler can exceed. */
#include <math.h>
#include <stdlib.h>

#include "bench/simulator/clairvoyant_replay.h"
#include "model/ops.h"

/* ---- requests alone ---- */

static const struct cost_load idle;

void clairvoyant_alone(const struct clairvoyant_options *options, const struct sim_request *request,
                const struct subnet *subnet, struct cost_time *ret_time) {
	const struct sim_machine *machine = options->machine;
	struct sim_work real = sim_work_of(machine, request);
	struct cost_work work = { .subnet = subnet,
		.prompt_tokens = real.prompt,
		.longest_prompt = real.prompt,
		.choices = real.places,
		.output_tokens = real.length,
		.sources = real.source > 0,
		.source_tokens = real.source,
		.longest_source = real.source,
		.source_tiles = (real.source + KV_TILE - 1) / KV_TILE,
		.source_attended = (double)real.source * real.source / 1024 };
	cost_predict(&machine->cost, &machine->limits, &idle, &work, ret_time);
}

bool clairvoyant_meets_alone(const struct clairvoyant_options *options,
                const struct sim_request *request, const struct subnet *subnet, double factor) {
	struct cost_time t;
	clairvoyant_alone(options, request, subnet, &t);
	double spent = options->overhead_ms;
	return (request->latency_ms <= 0 || t.total_ms * factor + spent <= request->latency_ms)
	                && (request->ttft_ms <= 0
	                                || t.first_ms * factor + spent <= request->ttft_ms)
	                && (request->tpot_ms <= 0 || t.token_ms * factor <= request->tpot_ms);
}

/* ---- an upper bound ---- */

/* Alone or not, a request takes the engine at least so long: each row at the cheapest rate that any
 * number of rows has. */
struct least_work {
	double fixed_ms; /* whatever its depth */
	double layer_ms; /* for each kept layer */
};

static double cheapest(const double *table) {
	double rate = INFINITY;
	for (int i = 0; i < COST_POINTS; i++)
		rate = fmin(rate, table[i] / cost_rows[i]);
	return rate;
}

static struct least_work least_work(
                const struct sim_machine *machine, const struct sim_request *request) {
	const struct cost_model *cost = &machine->cost;
	struct sim_work work = sim_work_of(machine, request);
	double rows = (double)work.places * (work.length - 1);
	double keys = work.prompt + work.source + 0.5 * work.length;
	struct least_work least = { .fixed_ms = (rows + 1) * cheapest(cost->head_ms) };
	least.layer_ms = (rows + work.prompt) * cheapest(cost->layer_ms[STACK_DECODER])
	                + rows * keys / 1024 * cost->attention_ms;
	return least;
}

/* A request that must run, whole, in one slice of time. */
struct slice_item {
	double low, high; /* depth */
	struct least_work work;
};

static int dearest_first(const void *a, const void *b) {
	double x = ((const struct slice_item *)a)->work.layer_ms,
	       y = ((const struct slice_item *)b)->work.layer_ms;
	return (x < y) - (x > y);
}

/* The greatest sum of depths of items[0..n) that fits in `ms`: the dearest go down first. */
static double fill(struct slice_item *items, size_t n, double ms) {
	double depth = 0, need = 0;
	for (size_t i = 0; i < n; i++) {
		depth += items[i].high;
		need += items[i].work.fixed_ms + items[i].high * items[i].work.layer_ms;
	}
	qsort(items, n, sizeof *items, dearest_first);
	for (size_t i = 0; i < n && need > ms; i++) {
		double off = fmin(
		                items[i].high - items[i].low, (need - ms) / items[i].work.layer_ms);
		depth -= off;
		need -= off * items[i].work.layer_ms;
	}
	return depth;
}

static double decoder_depth(const struct replay *r, int rung) {
	return r->subnets[rung].stack[STACK_DECODER].depth;
}

/* The sum of depths if time is sliced: those that begin and are due in one slice share it, the others
 * have all that they could have alone. */
static double sliced(const struct replay *r, const int *cap, double slice_ms, double offset_ms,
                struct slice_item *items) {
	double depth = 0;
	size_t n = 0;
	double end = -INFINITY;
	for (size_t i = 0; i <= r->n; i++) {
		double arrives = i < r->n ? r->requests[i].arrival_ms : INFINITY;
		if (arrives >= end) {
			depth += fill(items, n, slice_ms);
			n = 0;
			end = (floor((arrives - offset_ms) / slice_ms) + 1) * slice_ms + offset_ms;
		}
		if (i == r->n || !r->requests[i].automatic)
			continue;
		const struct sim_request *request = &r->requests[i];
		bool inside = request->latency_ms > 0 && arrives + request->latency_ms <= end;
		double encoder = r->value[cap[i]] - decoder_depth(r, cap[i]);
		depth += encoder;
		if (!inside)
			depth += decoder_depth(r, cap[i]);
		else
			items[n++] = (struct slice_item){ .low = decoder_depth(r, r->low[i]),
				.high = decoder_depth(r, cap[i]),
				.work = least_work(r->options->machine, request) };
	}
	return depth;
}

/* Noise may be kind to a request that is alone. */
#define KIND 0.97

static void bound(const struct replay *r, int *cap, struct slice_item *items,
                struct clairvoyant_score *score) {
	double depth = INFINITY;
	for (size_t i = 0; i < r->n; i++) {
		const struct sim_request *request = &r->requests[i];
		cap[i] = r->high[i];
		while (cap[i] > r->low[i]
		                && !clairvoyant_meets_alone(
		                                r->options, request, &r->subnets[cap[i]], KIND))
			cap[i]--;
		if (!sim_has_budget(request))
			continue;
		bool meets = clairvoyant_meets_alone(
		                r->options, request, &r->subnets[cap[i]], KIND);
		score->met += meets;
		cap[i] = meets ? cap[i] : r->high[i];
	}
	for (double slice = 500; slice <= 64000; slice *= 2) {
		for (int k = 0; k < 4; k++)
			depth = fmin(depth, sliced(r, cap, slice, 0.25 * k * slice, items));
	}
	score->asked = r->asked;
	score->depth = r->automatic ? depth / (double)r->automatic : 0;
}

struct clairvoyant_score clairvoyant_bound(const struct clairvoyant_options *options,
                const struct sim_request *requests, size_t n) {
	struct clairvoyant_score score = { 0 };
	struct replay r;
	int *cap = calloc(n + 1, sizeof *cap);
	struct slice_item *items = calloc(n + 1, sizeof *items);
	if (replay_init(&r, options, requests, n) && cap && items)
		bound(&r, cap, items, &score);
	replay_finish(&r);
	free(cap);
	free(items);
	return score;
}
