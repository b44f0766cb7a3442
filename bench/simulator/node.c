/* SPDX-License-Identifier: Apache-2.0 */
/* A simulated server. */
#include "bench/simulator/node.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/ops.h"

/* ---- memory ---- */

enum { BLOCK = 64 };

struct sim_block {
	struct sim_block *next;
	struct sim_active active[BLOCK];
};

static struct sim_active *take(struct sim_pool *pool) {
	if (!pool->unused) {
		struct sim_block *block = calloc(1, sizeof *block);
		if (!block)
			return NULL;
		block->next = pool->blocks;
		pool->blocks = block;
		for (int i = 0; i < BLOCK; i++) {
			block->active[i].next = pool->unused;
			pool->unused = &block->active[i];
		}
	}
	struct sim_active *a = pool->unused;
	pool->unused = a->next;
	memset(a, 0, sizeof *a);
	return a;
}

static void give(struct sim_pool *pool, struct sim_active *a) {
	a->next = pool->unused;
	pool->unused = a;
}

void sim_pool_finish(struct sim_pool *pool) {
	while (pool->blocks) {
		struct sim_block *block = pool->blocks;
		pool->blocks = block->next;
		free(block);
	}
	pool->unused = NULL;
}

/* ---- life ---- */

static struct sim_active *active_of(struct scheduled *s) {
	return (struct sim_active *)s;
}

static bool fits(void *arg, const struct scheduled *s, const struct subnet *subnet) {
	const struct sim_node *node = arg;
	return sim_batch_fits(&node->batch, &((const struct sim_active *)s)->run.work, subnet);
}

/* Requests predicted in time find room in a queue that others have filled. */
static int with_room(int most) {
	return most + most / 4;
}

bool sim_node_init(struct sim_node *node, const struct sim_options *options, int index,
                struct sim_pool *pool) {
	const struct sim_machine *machine = options->machine;
	memset(node, 0, sizeof *node);
	node->options = options;
	node->index = index;
	node->pool = pool;
	node->inbox_last = &node->inbox;
	node->noise = options->noise;
	node->noise.seed += 0x9e3779b97f4a7c15u * (uint64_t)index;
	node->cost = machine->cost;
	if (options->misfit > 0)
		sim_misfit(&node->cost, options->misfit,
		                options->seed + 0x9e3779b9u * (uint64_t)index);
	if (!options->frozen)
		cost_history_init(&node->history, &node->cost, 1);
	struct scheduler_options scheduler = { .limits = machine->limits,
		.most_waiting = with_room(options->queue_requests),
		.overload_min_depth = options->overload_min_depth,
		.overload_max_depth = options->overload_max_depth,
		.backlog_ms = options->backlog_ms,
		.without = options->without,
		.fits = fits,
		.arg = node };
	for (int s = 0; s < STACKS; s++)
		scheduler.layers[s] = machine->model->facts.stack[s].layers;
	node->scheduler = scheduler_create(&scheduler);
	return node->scheduler
	                && sim_batch_init(&node->batch, &machine->limits, scheduler.layers,
	                                machine->kv_blocks);
}

void sim_node_finish(struct sim_node *node) {
	scheduler_destroy(node->scheduler);
	sim_batch_finish(&node->batch);
}

/* ---- a request as the scheduler sees it ---- */

static int predict_tokens(const struct sim_node *node, const struct sim_request *r) {
	const struct cost_model *cost = &node->cost;
	bool source = node->options->machine->model->facts.kind == KIND_SEQ2SEQ;
	double learnt = source ? cost->target_ratio * r->prompt_tokens
	                       : cost->answer_ratio * r->max_tokens;
	return scheduler_predict_tokens(0, r->max_tokens, r->max_tokens_set, learnt);
}

static void set_depths(
                const struct sim_node *node, const struct sim_request *r, struct scheduled *s) {
	const struct sim_options *options = node->options;
	const struct sim_machine *machine = options->machine;
	s->automatic = r->automatic && options->fixed_depth == 0;
	s->may_step_down = s->automatic && r->may_step_down;
	if (s->automatic) {
		s->ladder = &machine->ladder;
		sim_bounds(machine, r, s->min_depth, s->max_depth);
		return;
	}
	s->reason = REASON_EXPLICIT;
	if (!r->automatic || !sim_machine_rung(machine, options->fixed_depth - 1, &s->subnet))
		sim_bound_subnet(machine, r, &s->subnet);
}

static void set_work(const struct sim_work *real, int output_tokens, struct cost_work *ret_work) {
	*ret_work = (struct cost_work){ .prompt_tokens = real->prompt,
		.longest_prompt = real->prompt,
		.choices = real->places,
		.output_tokens = output_tokens,
		.sources = real->source > 0,
		.source_tokens = real->source,
		.longest_source = real->source,
		.source_tiles = (real->source + KV_TILE - 1) / KV_TILE,
		.source_attended = (double)real->source * real->source / 1024 };
}

static void describe(const struct sim_node *node, struct sim_request *r, struct sim_active *a) {
	struct scheduled *s = &a->s;
	a->request = r;
	a->run.work = sim_work_of(node->options->machine, r);
	a->predicted_tokens = predict_tokens(node, r);
	s->priority = r->priority;
	s->arrival_ms = r->arrival_ms + 0.5 * node->options->overhead_ms;
	s->deadline_ms = r->deadline_ms > 0 ? s->arrival_ms + r->deadline_ms : INFINITY;
	s->latency_ms = r->latency_ms;
	s->ttft_ms = r->ttft_ms;
	s->tpot_ms = r->tpot_ms;
	s->on_miss = r->on_miss;
	s->places = a->run.work.places;
	set_depths(node, r, s);
	set_work(&a->run.work, a->predicted_tokens, &s->work);
}

static void write_progress(struct sim_active *a) {
	const struct sim_run *run = &a->run;
	const struct sim_work *work = &run->work;
	struct scheduled_progress *p = &a->s.progress;
	bool source_left = work->source > 0 && !run->source_fed;
	int answers = work->max_tokens > 1 ? work->places : 0;
	*p = (struct scheduled_progress){ .rows = run->answering ? work->places : 0,
		.coming_rows = run->answering ? 0 : answers,
		.prompt_tokens = work->prompt - run->fed,
		.sources = source_left,
		.choices_left = work->places,
		.tokens_out = run->out,
		.first_out = run->out > 0,
		.can_end = run->out > 0 };
	p->keys = (double)p->rows * (work->prompt + run->out + work->source);
	p->coming_keys = (double)p->coming_rows * (work->prompt + work->source);
	if (source_left) {
		p->source_tokens = work->source;
		p->source_tiles = (work->source + KV_TILE - 1) / KV_TILE;
		p->source_squares = (double)work->source * work->source / 1024;
	}
}

/* ---- ends, and what they teach ---- */

/* What joining predicted for an answer of `tokens` tokens; as engine_learn.c. */
static double predicted_for(const struct sim_active *a, int tokens) {
	const struct cost_time *p = &a->s.predicted;
	if (tokens <= 1)
		return p->first_ms;
	if (a->predicted_tokens <= 1)
		return p->first_ms + p->token_ms * (tokens - 1);
	return p->first_ms + (p->total_ms - p->first_ms) * (tokens - 1) / (a->predicted_tokens - 1);
}

static void learn(struct sim_node *node, const struct sim_active *a, double now_ms) {
	const struct sim_request *r = a->request;
	int tokens = a->run.out;
	double predicted = predicted_for(a, tokens);
	if (node->options->frozen || r->end != SIM_ANSWERED || predicted <= 0)
		return;
	double ratio = (now_ms - r->joined_ms) / predicted;
	/* One that stepped down would have been late. */
	if (a->late_ratio > 0)
		ratio = a->late_ratio > node->cost.margin ? a->late_ratio : node->cost.margin;
	cost_learn_ratio(&node->history, &node->cost, ratio);
	if (a->run.work.source > 0 && (!r->max_tokens_set || tokens < r->max_tokens))
		cost_learn_target(&node->history, &node->cost, (double)tokens / r->prompt_tokens);
	else if (a->run.work.source == 0 && !r->max_tokens_set)
		cost_learn_length(&node->history, &node->cost, (double)tokens / r->max_tokens);
}

static void note_depths(const struct scheduled *s, int ret_depth[STACKS]) {
	for (int k = 0; k < STACKS; k++)
		ret_depth[k] = s->subnet.stack[k].depth;
}

/* The request has ended, whether it ran or not. */
static void end(struct sim_node *node, struct sim_active *a, enum sim_end how, double now_ms) {
	struct sim_request *r = a->request;
	r->end = how;
	r->tokens = a->run.out;
	r->done_ms = now_ms + 0.5 * node->options->overhead_ms;
	if (a->s.at.running) {
		note_depths(&a->s, r->final_depth);
		r->changes = a->s.changes;
		learn(node, a, now_ms);
		sim_batch_leave(&node->batch, &a->run);
	}
	scheduler_leave(node->scheduler, &a->s);
	give(node->pool, a);
	node->there--;
	node->ended(node->ended_arg, r, now_ms);
}

/* ---- coming ---- */

static void refuse(struct sim_node *node, struct sim_request *r, enum scheduler_refusal why,
                double now_ms) {
	r->end = SIM_REFUSED;
	r->refusal = why;
	r->done_ms = now_ms + 0.5 * node->options->overhead_ms;
	node->ended(node->ended_arg, r, now_ms);
}

double sim_node_foresee(const struct sim_node *node, const struct sim_request *r, double now_ms) {
	struct sim_active a = { 0 };
	struct scheduler_view view;
	struct scheduler_foresight f;
	struct sim_request copy = *r;
	describe(node, &copy, &a);
	scheduler_view(node->scheduler, &view);
	scheduler_foresee(&view, &node->cost, &a.s, now_ms, &f);
	/* What has come since the last boundary is not in the view. */
	return f.predicted_ms * (1 + node->inboxed);
}

/* As engine_submit does. */
static enum scheduler_refusal at_the_door(
                const struct sim_node *node, const struct scheduled *s, double now_ms) {
	struct scheduler_view view;
	struct scheduler_foresight f;
	scheduler_view(node->scheduler, &view);
	scheduler_foresee(&view, &node->cost, s, now_ms, &f);
	int most = node->options->queue_requests;
	if (f.in_time)
		most = with_room(most);
	if (scheduler_waiting(node->scheduler) + node->inboxed >= most)
		return SCHEDULER_OVERLOADED;
	return f.refusal;
}

bool sim_node_push(struct sim_node *node, struct sim_request *r, double now_ms) {
	struct sim_active *a = take(node->pool);
	if (!a)
		return false;
	r->node = node->index;
	describe(node, r, a);
	enum scheduler_refusal refusal = at_the_door(node, &a->s, now_ms);
	if (refusal != SCHEDULER_ACCEPTED) {
		give(node->pool, a);
		refuse(node, r, refusal, now_ms);
		return true;
	}
	*node->inbox_last = a;
	node->inbox_last = &a->next;
	node->inboxed++;
	node->there++;
	return true;
}

static void empty_inbox(struct sim_node *node, double now_ms) {
	while (node->inbox) {
		struct sim_active *a = node->inbox;
		node->inbox = a->next;
		a->next = NULL;
		if (scheduler_arrive(node->scheduler, &a->s, &node->cost, now_ms))
			continue;
		struct sim_request *r = a->request;
		give(node->pool, a);
		node->there--;
		refuse(node, r, SCHEDULER_OVERLOADED, now_ms);
	}
	node->inbox_last = &node->inbox;
	node->inboxed = 0;
}

/* ---- a step boundary ---- */

static void finish_step(struct sim_node *node, double now_ms) {
	struct sim_batch *b = &node->batch;
	if (!node->options->frozen)
		cost_learn_step(&node->learner, &node->cost, node->step, now_ms - node->began_ms,
		                now_ms);
	sim_batch_advance(b);
	node->step = NULL;
	for (int i = b->n - 1; i >= 0; i--) {
		struct sim_run *run = b->runs[i];
		struct sim_active *a = (struct sim_active *)((char *)run
		                - offsetof(struct sim_active, run));
		const struct plan *decoder = &a->s.subnet.stack[STACK_DECODER];
		bool first = run->answering && run->chunk > 0;
		if (first && run->out > 0)
			a->request->first_ms = now_ms + 0.5 * node->options->overhead_ms;
		if (run->row_now || (first && run->out > 0))
			a->request->token_depth += decoder->depth;
		if (sim_run_is_done(run))
			end(node, a, SIM_ANSWERED, now_ms);
	}
}

static void join(struct sim_node *node, struct sim_active *a, double now_ms) {
	struct sim_request *r = a->request;
	struct sim_work work = a->run.work;
	r->joined_ms = now_ms;
	r->predicted_ms = a->s.predicted_ms;
	r->start_ms = a->s.at.due_ms - a->s.at.service_ms - now_ms;
	note_depths(&a->s, r->joined_depth);
	sim_batch_join(&node->batch, &a->run, &work, &a->s.subnet);
	write_progress(a);
}

static void narrow(struct sim_node *node, struct sim_active *a, double now_ms) {
	double expected = predicted_for(a, a->run.out);
	if (a->late_ratio <= 0 && expected > 0)
		a->late_ratio = (now_ms - a->request->joined_ms) / expected;
	sim_batch_narrow(&node->batch, &a->run, &a->s.subnet);
}

/* Does what the scheduler says until it says that a step is to run. */
static void decide(struct sim_node *node, double now_ms, struct scheduler_action *ret_action) {
	for (;;) {
		scheduler_next(node->scheduler, &node->cost, now_ms, ret_action);
		struct sim_active *a = ret_action->who ? active_of(ret_action->who) : NULL;
		switch (ret_action->verdict) {
		case SCHEDULER_STEP:
			return;
		case SCHEDULER_JOIN:
			join(node, a, now_ms);
			break;
		case SCHEDULER_MORE:
			assert(!"a request has one group");
			break;
		case SCHEDULER_NARROW:
			narrow(node, a, now_ms);
			break;
		case SCHEDULER_REFUSE:
			a->request->refusal = ret_action->refusal;
			end(node, a, SIM_REFUSED, now_ms);
			break;
		case SCHEDULER_EXPIRE:
			end(node, a, SIM_EXPIRED, now_ms);
			break;
		case SCHEDULER_CUT:
			end(node, a, SIM_CUT, now_ms);
			break;
		}
	}
}

static void begin_step(
                struct sim_node *node, const struct scheduler_action *action, double now_ms) {
	struct sim_batch *b = &node->batch;
	assert(action->n_order == b->n);
	for (int i = 0; i < b->n; i++) {
		struct sim_active *a = active_of(action->order[i]);
		a->run.rests = a->s.rests;
		b->runs[i] = &a->run;
	}
	node->step = sim_batch_form(b, action->prompt_rows);
	assert(node->step);
	double ms = sim_machine_step_ms(node->options->machine, &node->noise, node->step, now_ms);
	node->began_ms = now_ms;
	node->until_ms = now_ms + ms;
	node->totals.busy_ms += ms;
	node->totals.end_ms = node->until_ms;
	node->totals.steps++;
	node->totals.rows += node->step->rows;
}

void sim_node_turn(struct sim_node *node, double now_ms) {
	struct scheduler_action action;
	if (node->step)
		finish_step(node, now_ms);
	if (!node->options->frozen)
		cost_keep_pace(&node->learner, &node->cost, now_ms);
	empty_inbox(node, now_ms);
	for (int i = 0; i < node->batch.n; i++)
		write_progress((struct sim_active *)((char *)node->batch.runs[i]
		                - offsetof(struct sim_active, run)));
	decide(node, now_ms, &action);
	if (node->batch.n > 0)
		begin_step(node, &action, now_ms);
}
