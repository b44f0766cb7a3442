/* SPDX-License-Identifier: Apache-2.0 */
/* Simulated time: what happens next, and which node a request goes to. */
#include "bench/simulator/simulator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/simulator/node.h"

/* ---- requests in numbers ---- */

bool sim_has_budget(const struct sim_request *r) {
	return r->latency_ms > 0 || r->ttft_ms > 0 || r->tpot_ms > 0;
}

bool sim_is_met(const struct sim_request *r) {
	if (r->end != SIM_ANSWERED)
		return false;
	double total = r->done_ms - r->arrival_ms, first = r->first_ms - r->arrival_ms;
	double each = r->tokens > 1 ? (r->done_ms - r->first_ms) / (r->tokens - 1) : 0;
	return (r->latency_ms <= 0 || total <= r->latency_ms)
	                && (r->ttft_ms <= 0 || first <= r->ttft_ms)
	                && (r->tpot_ms <= 0 || each <= r->tpot_ms);
}

double sim_mean_depth(const struct sim_request *r) {
	return r->tokens > 0 ? r->token_depth / r->tokens : 0;
}

struct sim_work sim_work_of(const struct sim_machine *machine, const struct sim_request *r) {
	struct sim_work work = { .places = 1,
		.prompt = r->prompt_tokens,
		.max_tokens = r->max_tokens,
		.length = r->length };
	if (machine->model->facts.kind != KIND_SEQ2SEQ)
		return work;
	work.source = r->prompt_tokens;
	work.prompt = 1;
	int beams = r->beams > 0 ? r->beams : machine->beams;
	if (beams > 1) {
		work.places = beams;
		work.beams = true;
	}
	return work;
}

void sim_bounds(const struct sim_machine *machine, const struct sim_request *r, int ret_min[STACKS],
                int ret_max[STACKS]) {
	for (int s = 0; s < STACKS; s++) {
		int layers = machine->model->facts.stack[s].layers;
		int low = r->min_depth[s] > 0 ? r->min_depth[s] : 1;
		int high = r->max_depth[s] > 0 ? r->max_depth[s] : layers;
		ret_max[s] = high < layers ? high : layers;
		ret_min[s] = low < ret_max[s] ? low : ret_max[s];
	}
}

bool sim_bound_subnet(const struct sim_machine *machine, const struct sim_request *r,
                struct subnet *ret_subnet) {
	int depth[STACKS];
	for (int s = 0; s < STACKS; s++) {
		int layers = machine->model->facts.stack[s].layers;
		depth[s] = r->depth[s] > 0 && r->depth[s] < layers ? r->depth[s] : layers;
	}
	return ladder_subnet(&machine->ladder, depth, ret_subnet)
	                || model_subnet_pair(machine->model, PLAN_RULE_EVEN, depth, ret_subnet);
}

/* ---- what happens next ---- */

struct event {
	double at_ms;
	int64_t order; /* among those of one moment: requests first, then as they were added */
	struct sim_request *request; /* it comes; NULL: */
	int node;                    /* a step of this node is over */
};

struct simulator {
	struct sim_options options;
	struct sim_node *nodes;
	struct sim_pool pool;
	struct event *heap; /* the earliest first */
	size_t n, cap;
	int64_t steps, ids;
	uint64_t random;
	int turn;       /* of round robin */
	int *seen;      /* [nodes] requests there, as the balancer knows */
	double seen_ms; /* when it last looked */
	bool failed;
};

static bool before(const struct event *a, const struct event *b) {
	return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void push(struct simulator *sim, struct event event) {
	if (sim->n == sim->cap) {
		size_t cap = sim->cap ? 2 * sim->cap : 64;
		struct event *heap = realloc(sim->heap, cap * sizeof *heap);
		if (!heap) {
			sim->failed = true;
			return;
		}
		sim->heap = heap;
		sim->cap = cap;
	}
	size_t at = sim->n++;
	for (; at > 0 && before(&event, &sim->heap[(at - 1) / 2]); at = (at - 1) / 2)
		sim->heap[at] = sim->heap[(at - 1) / 2];
	sim->heap[at] = event;
}

static struct event pop(struct simulator *sim) {
	struct event first = sim->heap[0], last = sim->heap[--sim->n];
	size_t at = 0;
	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= sim->n)
			break;
		if (child + 1 < sim->n && before(&sim->heap[child + 1], &sim->heap[child]))
			child++;
		if (!before(&sim->heap[child], &last))
			break;
		sim->heap[at] = sim->heap[child];
		at = child;
	}
	sim->heap[at] = last;
	return first;
}

void sim_add(struct simulator *sim, struct sim_request *r) {
	push(sim, (struct event){ .at_ms = r->arrival_ms, .order = sim->ids++, .request = r });
}

static void push_step(struct simulator *sim, const struct sim_node *node) {
	push(sim,
	                (struct event){ .at_ms = node->until_ms,
	                                .order = INT64_MAX / 2 + sim->steps++,
	                                .node = node->index });
}

/* ---- the balancer ---- */

/* SplitMix64. */
static uint64_t draw(struct simulator *sim) {
	uint64_t x = sim->random += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static int any_node(struct simulator *sim) {
	return (int)((draw(sim) >> 32) * (uint64_t)sim->options.nodes >> 32);
}

/* Requests at a node, as far as the balancer knows. */
static int there(const struct simulator *sim, int node) {
	return sim->options.stale_ms > 0 ? sim->seen[node] : sim->nodes[node].there;
}

static void look(struct simulator *sim, double now_ms) {
	if (sim->options.stale_ms <= 0 || now_ms < sim->seen_ms + sim->options.stale_ms)
		return;
	for (int i = 0; i < sim->options.nodes; i++)
		sim->seen[i] = sim->nodes[i].there;
	sim->seen_ms = now_ms;
}

/* Ties go round, so that a quiet first node does not take all. */
static int least_node(struct simulator *sim) {
	int n = sim->options.nodes, best = sim->turn % n;
	for (int i = 1; i < n; i++) {
		int other = (sim->turn + i) % n;
		if (there(sim, other) < there(sim, best))
			best = other;
	}
	sim->turn++;
	return best;
}

static int pick(struct simulator *sim, const struct sim_request *r, double now_ms) {
	if (sim->options.nodes == 1)
		return 0;
	look(sim, now_ms);
	if (sim->options.balance == SIM_ROUND_ROBIN)
		return sim->turn++ % sim->options.nodes;
	if (sim->options.balance == SIM_LEAST_REQUESTS)
		return least_node(sim);
	int a = any_node(sim), b = any_node(sim);
	if (sim->options.balance == SIM_TWO_CHOICES)
		return there(sim, b) < there(sim, a) ? b : a;
	return sim_node_foresee(&sim->nodes[b], r, now_ms)
	                                < sim_node_foresee(&sim->nodes[a], r, now_ms)
	                ? b
	                : a;
}

/* ---- running ---- */

static void ended(void *arg, struct sim_request *r, double now_ms) {
	struct simulator *sim = arg;
	if (!sim->options.next || r->client < 0)
		return;
	struct sim_request *next = sim->options.next(sim->options.next_arg, r, now_ms);
	if (next)
		sim_add(sim, next);
}

static void turn(struct simulator *sim, struct sim_node *node, double now_ms) {
	sim_node_turn(node, now_ms);
	if (node->step)
		push_step(sim, node);
}

static void arrive(struct simulator *sim, struct sim_request *r) {
	struct sim_node *node = &sim->nodes[pick(sim, r, r->arrival_ms)];
	sim->seen[node->index]++;
	if (!sim_node_push(node, r, r->arrival_ms))
		sim->failed = true;
	else if (!node->step)
		turn(sim, node, r->arrival_ms);
}

static void add_totals(const struct sim_totals *a, struct sim_totals *sum) {
	sum->busy_ms += a->busy_ms;
	sum->end_ms = a->end_ms > sum->end_ms ? a->end_ms : sum->end_ms;
	sum->steps += a->steps;
	sum->rows += a->rows;
}

bool sim_run_all(struct simulator *sim, struct sim_request *requests, size_t n,
                struct sim_totals *ret_totals, char *err, size_t errlen) {
	size_t next = 0;
	while (!sim->failed && (next < n || sim->n > 0)) {
		bool comes = next < n
		                && (sim->n == 0 || sim->heap[0].at_ms >= requests[next].arrival_ms);
		if (comes) {
			arrive(sim, &requests[next++]);
			continue;
		}
		struct event event = pop(sim);
		if (event.request)
			arrive(sim, event.request);
		else
			turn(sim, &sim->nodes[event.node], event.at_ms);
	}
	if (sim->failed) {
		snprintf(err, errlen, "not enough memory");
		return false;
	}
	struct sim_totals sum = { 0 };
	for (int i = 0; i < sim->options.nodes; i++)
		add_totals(&sim->nodes[i].totals, &sum);
	*ret_totals = sum;
	return true;
}

/* ---- life ---- */

struct simulator *sim_create(const struct sim_options *options, char *err, size_t errlen) {
	struct simulator *sim = calloc(1, sizeof *sim);
	size_t nodes = (size_t)options->nodes;
	bool ok = sim;
	if (sim) {
		sim->options = *options;
		sim->random = options->seed;
		sim->seen_ms = -INFINITY;
		sim->nodes = calloc(nodes, sizeof *sim->nodes);
		sim->seen = calloc(nodes, sizeof *sim->seen);
		ok = sim->nodes && sim->seen;
	}
	for (int i = 0; ok && i < options->nodes; i++) {
		ok = sim_node_init(&sim->nodes[i], &sim->options, i, &sim->pool);
		sim->nodes[i].ended = ended;
		sim->nodes[i].ended_arg = sim;
	}
	if (ok)
		return sim;
	snprintf(err, errlen, "not enough memory for %zu nodes", nodes);
	sim_destroy(sim);
	return NULL;
}

void sim_destroy(struct simulator *sim) {
	if (!sim)
		return;
	for (int i = 0; sim->nodes && i < sim->options.nodes; i++)
		sim_node_finish(&sim->nodes[i]);
	sim_pool_finish(&sim->pool);
	free(sim->nodes);
	free(sim->seen);
	free(sim->heap);
	free(sim);
}
