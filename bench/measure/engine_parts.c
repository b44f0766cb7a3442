/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every thread has a list of parts, which it alone writes. A part is a kernel; of products, a kernel
 * and a shape. Clocks are read twice a call, some 50 ns: next to nothing beside a product of many rows.
 */
#include "bench/measure/engine_parts.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure/limits.h"

enum { THREADS = 256, PARTS = 24 };

enum kind { KIND_LINEAR, KIND_INPUT, KIND_ATTEND, KIND_NORM, KIND_STORE, KIND_SOFTMAX, KINDS };

static const char *const names[KINDS] = { "product", "inputs of products", "attention", "norm",
	"keys and values stored", "softmax" };

struct part {
	enum kind kind;
	int n_in, n_out; /* of products, else 0 */
	bool active;     /* with an activation */
	double seconds, operations;
};

struct thread {
	_Alignas(64) struct part parts[PARTS];
	int n;
};

static struct thread threads_of[THREADS];
static atomic_int n_threads;
static _Thread_local struct thread *own;
static const struct ops *watched;
static bool counting; /* changes between steps only */
static double wall;

static void note(struct part part, double start) {
	if (!counting)
		return;
	part.seconds = limits_seconds() - start;
	if (!own)
		own = &threads_of[atomic_fetch_add(&n_threads, 1) % THREADS];
	for (int i = 0; i < own->n; i++) {
		struct part *p = &own->parts[i];
		if (p->kind == part.kind && p->n_in == part.n_in && p->n_out == part.n_out
		                && p->active == part.active) {
			p->seconds += part.seconds;
			p->operations += part.operations;
			return;
		}
	}
	if (own->n < PARTS)
		own->parts[own->n++] = part;
}

/* ---- the table ---- */

static void watch_linear(const struct linear *l, int first_panel, int end_panel) {
	double start = limits_seconds();
	watched->formats[l->w->format].linear(l, first_panel, end_panel);
	int columns = end_panel * watched->panel < l->w->n_out ? end_panel * watched->panel
	                                                       : l->w->n_out;
	columns -= first_panel * watched->panel;
	note((struct part){ .kind = KIND_LINEAR,
	                     .n_in = l->w->n_in,
	                     .n_out = l->w->n_out,
	                     .active = l->activation != ACTIVATION_NONE,
	                     .operations = 2.0 * l->rows * l->w->n_in * columns },
	                start);
}

#define WATCH_INPUT(format)                                                                        \
	static void watch_input_##format(const float *x, int n_in, void *ret_input) {              \
		double start = limits_seconds();                                                   \
		watched->formats[format].input(x, n_in, ret_input);                                \
		note((struct part){ .kind = KIND_INPUT }, start);                                  \
	}
WATCH_INPUT(WEIGHTS_F32)
WATCH_INPUT(WEIGHTS_BF16)
WATCH_INPUT(WEIGHTS_INT8)
WATCH_INPUT(WEIGHTS_INT4)

static void watch_norm(const struct norm *n, int first, int end) {
	double start = limits_seconds();
	watched->norm(n, first, end);
	note((struct part){ .kind = KIND_NORM }, start);
}

static void watch_kv_store(const struct kv_rows *rows) {
	double start = limits_seconds();
	watched->kv_store(rows);
	note((struct part){ .kind = KIND_STORE }, start);
}

static void watch_attend(const struct attend *a) {
	double start = limits_seconds(), n = a->queries;
	watched->attend(a);
	double pairs = a->keys ? n * a->keys : n * a->first + n * (n + 1) / 2;
	note((struct part){ .kind = KIND_ATTEND, .operations = 4 * pairs * a->head_dim }, start);
}

static void watch_max_sum_exp(const float *x, int n, float *ret_max, float *ret_sum) {
	double start = limits_seconds();
	watched->max_sum_exp(x, n, ret_max, ret_sum);
	note((struct part){ .kind = KIND_SOFTMAX }, start);
}

const struct ops *engine_parts_watch(const struct ops *ops) {
	static struct ops table;
	static void (*const inputs[WEIGHT_FORMATS])(const float *, int, void *) = {
		[WEIGHTS_F32] = watch_input_WEIGHTS_F32,
		[WEIGHTS_BF16] = watch_input_WEIGHTS_BF16,
		[WEIGHTS_INT8] = watch_input_WEIGHTS_INT8,
		[WEIGHTS_INT4] = watch_input_WEIGHTS_INT4,
	};
	watched = ops;
	table = *ops;
	for (int f = 0; f < WEIGHT_FORMATS; f++) {
		if (ops->formats[f].linear)
			table.formats[f].linear = watch_linear;
		if (ops->formats[f].input)
			table.formats[f].input = inputs[f];
	}
	table.norm = watch_norm;
	table.kv_store = watch_kv_store;
	table.attend = watch_attend;
	table.max_sum_exp = watch_max_sum_exp;
	return &table;
}

/* ---- what it found ---- */

void engine_parts_begin(void) {
	counting = watched;
}

void engine_parts_end(double seconds) {
	counting = false;
	wall += seconds;
}

/* In the order of a step, which is that of the first thread's list. */
static void join(struct part *all, int *n) {
	for (int t = 0; t < THREADS; t++) {
		for (int i = 0; i < threads_of[t].n; i++) {
			const struct part *from = &threads_of[t].parts[i];
			int to = 0;
			while (to < *n
			                && (all[to].kind != from->kind || all[to].n_in != from->n_in
			                                || all[to].n_out != from->n_out
			                                || all[to].active != from->active))
				to++;
			if (to == *n && *n < PARTS)
				all[(*n)++] = *from;
			else if (to < *n) {
				all[to].seconds += from->seconds;
				all[to].operations += from->operations;
			}
		}
	}
}

void engine_parts_print(int threads, double peak, double f32) {
	struct part all[PARTS];
	double left = 100;
	int n = 0;
	join(all, &n);
	for (int i = 0; i < n && wall > 0; i++) {
		const struct part *p = &all[i];
		double share = 100 * p->seconds / (wall * threads), limit = 0;
		char name[64];
		snprintf(name, sizeof name, "%s", names[p->kind]);
		if (p->kind == KIND_LINEAR)
			snprintf(name, sizeof name, "%d x %d%s", p->n_in, p->n_out,
			                p->active ? ", activation" : "");
		if (p->kind == KIND_LINEAR || p->kind == KIND_ATTEND)
			limit = (p->kind == KIND_LINEAR ? peak : f32) / threads;
		left -= share;
		printf("  %-28s %5.1f %% of the time", name, share);
		if (limit > 0)
			printf("  %5.1f %% of peak", 100 * p->operations / p->seconds / limit);
		printf("\n");
	}
	if (wall > 0)
		printf("  %-28s %5.1f %% of the time\n", "waiting, embedding, copies", left);
}

void engine_parts_forget(void) {
	for (int t = 0; t < THREADS; t++)
		threads_of[t].n = 0;
	wall = 0;
}
