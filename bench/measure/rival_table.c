/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel table in bench-kernels: the team splits the panels, inputs are made beforehand. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/measure/rival.h"

enum { PAD = 64 }; /* bytes more than a row needs: rows do not fall into one set of a cache */

struct table {
	struct rival rival;
	const struct ops *ops;
	struct team *team;
	void *arena;
	size_t copies, stride, next;
	struct product_case of; /* of which the arena holds the weights */
	void *inputs;
	struct linear linear;
	struct matrix matrix;
	int turns;
};

void *arena_create(void) {
	void *arena = aligned_alloc(1 << 21, ARENA_BYTES);
	if (arena)
		madvise(arena, ARENA_BYTES, MADV_HUGEPAGE);
	return arena;
}

size_t arena_stride(size_t bytes) {
	return (bytes + 4095) / 4096 * 4096;
}

size_t arena_fill(void *arena, size_t bytes) {
	size_t stride = arena_stride(bytes), copies = ARENA_BYTES / stride;
	for (size_t i = 1; i < copies; i++)
		memcpy((char *)arena + i * stride, arena, bytes);
	return copies;
}

static bool same_weights(const struct product_case *a, const struct product_case *b) {
	return a->format == b->format && a->n_in == b->n_in && a->n_out == b->n_out
	                && a->weights == b->weights;
}

/* Rows of inputs as the format reads them, and a little apart. */
static bool make_inputs(struct table *t, const struct product_case *c) {
	const struct format_ops *f = &t->ops->formats[c->format];
	size_t bytes = f->input ? f->input_bytes(c->n_in) : (size_t)c->n_in * sizeof(float);
	size_t stride = (bytes + 63) / 64 * 64 + PAD;
	free(t->inputs);
	t->inputs = aligned_alloc(64, stride * (size_t)c->rows);
	if (!t->inputs)
		return false;
	for (int i = 0; i < c->rows; i++) {
		const float *x = c->x + (size_t)i * (size_t)c->n_in;
		char *to = (char *)t->inputs + (size_t)i * stride;
		if (f->input)
			f->input(x, c->n_in, to);
		else
			memcpy(to, x, bytes);
	}
	t->linear.x = t->inputs;
	t->linear.x_stride = stride;
	return true;
}

static bool table_prepare(struct rival *rival, const struct product_case *c) {
	struct table *t = (struct table *)rival;
	const struct format_ops *f = &t->ops->formats[c->format];
	if (!f->linear)
		return false;
	size_t bytes = f->matrix_bytes(c->n_out, c->n_in);
	if (arena_stride(bytes) > ARENA_BYTES)
		return false;
	if (!same_weights(&t->of, c)) {
		f->pack(t->arena, c->n_in, c->weights, 0, c->n_out);
		t->copies = arena_fill(t->arena, bytes);
		t->stride = arena_stride(bytes);
		t->of = *c;
	}
	t->matrix = (struct matrix){ .n_out = c->n_out, .n_in = c->n_in, .format = c->format };
	t->matrix.n_panels = (c->n_out + t->ops->panel - 1) / t->ops->panel;
	t->linear = (struct linear){ .bias = c->bias, .y = c->y, .rows = c->rows };
	t->linear.activation = c->activation;
	t->linear.ldy = (size_t)c->n_out + PAD / sizeof(float);
	return make_inputs(t, c);
}

static void run_member(void *arg, int member) {
	struct table *t = arg;
	struct matrix w = t->matrix;
	struct linear l = t->linear;
	int first, end;
	team_share(w.n_panels, member, team_size(t->team), &first, &end);
	l.w = &w;
	for (int turn = 0; turn < t->turns; turn++) {
		w.data = (char *)t->arena + (t->next + (size_t)turn) % t->copies * t->stride;
		t->ops->formats[w.format].linear(&l, first, end);
		team_barrier(t->team, member);
	}
}

static void table_run(struct rival *rival, int turns) {
	struct table *t = (struct table *)rival;
	t->turns = turns;
	team_run(t->team, run_member, t);
	t->next += (size_t)turns;
}

/* The team parks by itself, and what it spins before is short. */
static void table_rest(struct rival *rival) {
	(void)rival;
}

static void table_destroy(struct rival *rival) {
	struct table *t = (struct table *)rival;
	free(t->inputs);
	free(t->arena);
	free(t);
}

struct rival *rival_table(const struct ops *ops, struct team *team) {
	struct table *t = ops ? calloc(1, sizeof *t) : NULL;
	if (!t)
		return NULL;
	*t = (struct table){ .ops = ops, .team = team, .arena = arena_create() };
	t->rival.prepare = table_prepare;
	t->rival.run = table_run;
	t->rival.rest = table_rest;
	t->rival.destroy = table_destroy;
	snprintf(t->rival.name, sizeof t->rival.name, "%s",
	                ops == ops_blas() ? "OpenBLAS" : ops->name);
	if (!t->arena) {
		table_destroy(&t->rival);
		return NULL;
	}
	return &t->rival;
}
