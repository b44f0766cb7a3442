/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transformer block. Every line of arithmetic is in `ops`; here is only who does which part.
 *
 * Members split rows for norms and copies, panels of output channels for products, and (queries,
 * head) pairs for attention. How work is split changes no result: an output element is computed by
 * one member in one fixed order.
 */
#include "model/block.h"

#include <string.h>

/* Queries of one attention task. Later queries see more keys, so a long prompt is cut into tasks
 * that are dealt to the members in turn. */
enum { TASK_QUERIES = 48 };

static void share_rows(const struct block *b, int member, int *ret_first, int *ret_end) {
	team_share(b->rows->n, member, team_size(b->team), ret_first, ret_end);
}

/* gathered[i] = x[map[i]] */
static void copy_rows(const struct block *b, int dim, int member) {
	const struct block_scratch *s = b->scratch;
	int first, end;
	share_rows(b, member, &first, &end);
	for (int i = first; i < end; i++)
		memcpy(s->gathered + (size_t)i * s->ld_gathered,
		                b->x + (size_t)b->rows->map[i] * b->ldx,
		                (size_t)dim * sizeof(float));
}

/* gathered[i] = norm(x[map[i]]), or x[map[i]] where norms come after. */
static void gather(const struct block *b, const struct norm_weights *norm, int member) {
	if (b->facts->norm == NORM_POST) {
		copy_rows(b, b->facts->dim, member);
		return;
	}
	int first, end;
	share_rows(b, member, &first, &end);
	b->ops->norm(&(struct norm){ .x = b->x,
	                             .ldx = b->ldx,
	                             .x_rows = b->rows->map,
	                             .gain = norm->gain,
	                             .bias = norm->bias,
	                             .eps = b->facts->norm_eps,
	                             .dim = b->facts->dim,
	                             .out = b->scratch->gathered,
	                             .ldo = b->scratch->ld_gathered },
	                first, end);
}

/* x[map[i]] = norm(x[map[i]]) where norms come after. A member norms the rows that it gathers next,
 * so no barrier is needed between the two. */
static void norm_after(const struct block *b, const struct norm_weights *norm, int member) {
	if (b->facts->norm == NORM_PRE)
		return;
	int first, end;
	share_rows(b, member, &first, &end);
	b->ops->norm(&(struct norm){ .x = b->x,
	                             .ldx = b->ldx,
	                             .x_rows = b->rows->map,
	                             .gain = norm->gain,
	                             .bias = norm->bias,
	                             .eps = b->facts->norm_eps,
	                             .dim = b->facts->dim,
	                             .out = b->x,
	                             .ldo = b->ldx,
	                             .out_rows = b->rows->map },
	                first, end);
}

/* y = act(W x + bias) for all rows. */
static struct product product(const struct block *b, const struct linear_weights *w, const float *x,
                size_t ldx, float *y, size_t ldy) {
	return (struct product){ .ops = b->ops,
		.team = b->team,
		.inputs = &b->scratch->inputs,
		.weights = w,
		.x = x,
		.ldx = ldx,
		.y = y,
		.ldy = ldy,
		.rows = b->rows->n };
}

/* y = act(W gathered + bias), where each member has just gathered its share of `gathered`. */
static void product_of_gathered(const struct block *b, const struct linear_weights *w, float *y,
                size_t ldy, enum activation activation, int member) {
	struct product p = product(b, w, b->scratch->gathered, b->scratch->ld_gathered, y, ldy);
	p.activation = activation;
	product_prepare(&p, member);
	team_barrier(b->team, member);
	product_run(&p, member);
}

/* x[map[i]] += W y[i] + bias. */
static void product_add(const struct block *b, const struct linear_weights *w, const float *y,
                size_t ldy, int member) {
	struct product p = product(b, w, y, ldy, b->x, b->ldx);
	p.y_rows = b->rows->map;
	p.add = true;
	product_apply(&p, member);
}

/* Keys of rows [from, to) of a run start at column `column` of the rows of qkv, values follow them. */
static void store_run(const struct block *b, const struct block_run *run, int column, int from,
                int to, int head, int heads) {
	const struct block_scratch *s = b->scratch;
	for (int i = from, count; i < to; i += count) {
		int position = run->position + i - run->first;
		int left = KV_TILE - position % KV_TILE;
		count = to - i < left ? to - i : left;
		const float *k = s->qkv + (size_t)i * s->ld_qkv + column;
		b->ops->kv_store(&(struct kv_rows){
		                .block = run->blocks[position / KV_TILE],
		                .format = run->format,
		                .k = k,
		                .v = k + b->facts->dim,
		                .ld = s->ld_qkv,
		                .position = position,
		                .count = count,
		                .n_heads = b->facts->heads,
		                .head_dim = b->facts->head_dim,
		                .head = head,
		                .heads = heads,
		});
	}
}

/* A member's share of the rows of all runs that have more than `more_than`; whether there are such. */
static bool store_keys(const struct block *b, int column, int more_than, int member) {
	int first, end;
	bool any = false;
	share_rows(b, member, &first, &end);
	for (int r = 0; r < b->rows->n_runs; r++) {
		const struct block_run *run = &b->rows->runs[r];
		int from = run->first > first ? run->first : first;
		int to = run->first + run->count < end ? run->first + run->count : end;
		if (run->count <= more_than)
			continue;
		any = true;
		store_run(b, run, column, from, to, 0, b->facts->heads);
	}
	return any;
}

/* Some queries of a run, and a head. */
struct task {
	int run, first, head;
};

/* Goes `count` tasks on, by heads, queries, runs; false: there are no more. */
static bool task_pass(const struct block *b, struct task *t, int count) {
	for (t->head += count; t->head >= b->facts->heads; t->head -= b->facts->heads) {
		t->first += TASK_QUERIES;
		if (t->first < b->rows->runs[t->run].count)
			continue;
		t->first = 0;
		if (++t->run == b->rows->n_runs)
			return false;
	}
	return true;
}

static struct attend attend_of(
                const struct block *b, const struct task *t, bool to_source, int member) {
	const struct block_scratch *s = b->scratch;
	const struct block_run *run = &b->rows->runs[t->run];
	int left = run->count - t->first, head_dim = b->facts->head_dim;
	size_t row = (size_t)(run->first + t->first), column = (size_t)t->head * (size_t)head_dim;
	return (struct attend){
		.q = s->qkv + row * s->ld_qkv + column,
		.ldq = s->ld_qkv,
		.out = s->gathered + row * s->ld_gathered + column,
		.ldo = s->ld_gathered,
		.queries = left < TASK_QUERIES ? left : TASK_QUERIES,
		.first = run->position + t->first,
		.keys = to_source ? run->source_keys : run->keys,
		.head = t->head,
		.n_heads = b->facts->heads,
		.head_dim = head_dim,
		.scale = b->attend_scale,
		.format = run->format,
		.blocks = to_source ? run->source : run->blocks,
		.scratch = s->attend + (size_t)member * s->attend_stride,
	};
}

/* Tasks are dealt to the members in turn. Where a run is one task for each head, that stores its own
 * keys before it reads them: nobody else does. */
static void attend(const struct block *b, bool to_source, int member) {
	struct task task = { 0 }, after;
	bool there = task_pass(b, &task, member), more;
	for (; there; task = after, there = more) {
		const struct block_run *run = &b->rows->runs[task.run];
		struct attend next, now = attend_of(b, &task, to_source, member);
		after = task;
		more = task_pass(b, &after, team_size(b->team));
		if (more) {
			next = attend_of(b, &after, to_source, member);
			now.next = &next;
		}
		if (!to_source && run->count <= TASK_QUERIES)
			store_run(b, run, b->facts->dim, run->first, run->first + run->count,
			                task.head, 1);
		b->ops->attend(&now);
	}
}

static void attend_to_own(const struct block *b, int member) {
	const struct block_scratch *s = b->scratch;
	const struct layer_weights *w = b->weights;
	gather(b, &w->attn_norm, member);
	product_of_gathered(b, &w->qkv, s->qkv, s->ld_qkv, ACTIVATION_NONE, member);
	team_barrier(b->team, member);
	if (store_keys(b, b->facts->dim, TASK_QUERIES, member))
		team_barrier(b->team, member);
	attend(b, false, member);
	team_barrier(b->team, member);
	product_add(b, &w->out, s->gathered, s->ld_gathered, member);
	team_barrier(b->team, member);
	norm_after(b, &w->attn_norm, member);
}

static void attend_to_source(const struct block *b, int member) {
	const struct block_scratch *s = b->scratch;
	const struct layer_weights *w = b->weights;
	gather(b, &w->cross_norm, member);
	product_of_gathered(b, &w->cross_q, s->qkv, s->ld_qkv, ACTIVATION_NONE, member);
	team_barrier(b->team, member);
	attend(b, true, member);
	team_barrier(b->team, member);
	product_add(b, &w->cross_out, s->gathered, s->ld_gathered, member);
	team_barrier(b->team, member);
	norm_after(b, &w->cross_norm, member);
}

static void feed_forward(const struct block *b, int member) {
	const struct block_scratch *s = b->scratch;
	const struct layer_weights *w = b->weights;
	gather(b, &w->ffn_norm, member);
	product_of_gathered(b, &w->up, s->ffn, s->ld_ffn, b->facts->activation, member);
	team_barrier(b->team, member);
	product_add(b, &w->down, s->ffn, s->ld_ffn, member);
	team_barrier(b->team, member);
	norm_after(b, &w->ffn_norm, member);
}

void block_apply(const struct block *b, int member) {
	attend_to_own(b, member);
	if (b->facts->cross)
		attend_to_source(b, member);
	feed_forward(b, member);
	if (b->facts->norm == NORM_POST)
		team_barrier(b->team, member);
}

void block_source(const struct block *b, int source_dim, int member) {
	const struct block_scratch *s = b->scratch;
	copy_rows(b, source_dim, member);
	product_of_gathered(b, &b->weights->cross_kv, s->qkv, s->ld_qkv, ACTIVATION_NONE, member);
	team_barrier(b->team, member);
	/* What follows writes `qkv` only behind its own barrier. */
	store_keys(b, 0, 0, member);
}
