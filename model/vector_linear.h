/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear layers of an overlay: how rows, panels and inputs are blocked around a format's
 * micro-kernel, which a struct kernel describes. Blocking changes the time and never a bit: partial
 * sums are kept as they are and go on where they stopped. Part of model/vector_ops.h.
 */
#include "model/vector_math.h"
#include "model/vector_tile.h"

/* A weight format as the blocking sees it: inputs come in groups that lie together in a panel. */
struct kernel {
	int group;          /* inputs */
	size_t group_bytes; /* of one group in a panel */
	size_t input_first; /* bytes before a row's first group of inputs ... */
	size_t input_bytes; /* ... and of each group */
	/* In groups: a slice of a panel stays in cache for all groups of rows; a block of x in L2. */
	int slice, block;
	tile_function *const *tiles;                 /* [ROWS_MAX + 1] by rows, or NULL: then ... */
	void (*any)(const struct tile *t, int rows); /* ... takes up to `rows` rows */
	int rows;
	/* Scales, bias, activation and residual for the sums of some rows of one panel; writes y. */
	void (*finish)(const struct kernel *k, const struct linear *l, int panel, int first_row,
	                int rows, const void *sums);
	size_t panel_tail; /* bytes after a panel's last group: scales */
};

enum {
	ROW_BLOCK = 128,      /* rows that share one pass over the weights */
	ROWS_FEW = 36,        /* up to here every row of x stays in cache by itself */
	PANELS_AT_ONCE = 4,   /* that use a block of x while it stays in L2 */
	PREFETCHERS = 3,      /* groups of rows that together fetch the next slice */
	ROWS_AHEAD = 16,      /* of y, asked for before they are written */
	PREFETCH_AHEAD = 8192 /* bytes, where all rows are one group */
};

static vec activate(vec x, enum activation activation) {
	switch (activation) {
	case ACTIVATION_NONE:
		return x;
	case ACTIVATION_RELU:
		return vec_max(vec_zero(), x);
	case ACTIVATION_GELU:
		return vec_gelu(x);
	case ACTIVATION_GELU_TANH:
		return vec_gelu_tanh(x);
	case ACTIVATION_TANH:
		return vec_tanh(x);
	case ACTIVATION_SILU:
		return vec_silu(x);
	}
	return x;
}

/* Bias, activation and residual for `lanes` values of one row; writes y. */
static void value_store(const struct linear *l, vec value, int row, int column, int lanes) {
	float *y = linear_row(l, row) + column;
	if (l->bias)
		value = vec_add(value, vec_load_first(l->bias + column, lanes));
	value = activate(value, l->activation);
	if (l->add)
		value = vec_add(vec_load_first(y, lanes), value);
	vec_store_first(y, value, lanes);
}

/* Bytes of one panel, and where its weights for group `at` of the inputs are. */
static size_t panel_bytes(const struct kernel *k, int n_in) {
	return (size_t)((n_in + k->group - 1) / k->group) * k->group_bytes + k->panel_tail;
}

static const char *weights_at(const struct kernel *k, const struct linear *l, int panel, int at) {
	return (const char *)l->w->data + (size_t)panel * panel_bytes(k, l->w->n_in)
	                + (size_t)at * k->group_bytes;
}

/*
 * Adds the products of `count` groups of inputs from `at` on to the sums of `rows` rows, cut into
 * equal groups of at most ROWS_MAX, or what the kernel takes. The first ones fetch the slice at `next`
 * (NULL: none) while they compute: at few rows memory and arithmetic take about as long, and must
 * run at the same time.
 */
static void linear_slice(const struct kernel *kernel, const struct linear *l, int panel, int at,
                int count, const char *next, int first_row, int rows, uint32_t *sums) {
	const int step_lines = TILE_STEP * (int)kernel->group_bytes / 64;
	const int most = kernel->tiles ? ROWS_MAX : kernel->rows;
	int groups = (rows + most - 1) / most;
	int helpers = groups < PREFETCHERS ? groups : PREFETCHERS;
	struct tile t = { .ldc = PANEL, .ldx = l->x_stride, .ldb = kernel->group_bytes };
	t.count = count;
	t.fresh = at == 0;
	t.last = (at + count) * kernel->group > l->w->n_in ? l->w->n_in % kernel->group : 0;
	t.b = weights_at(kernel, l, panel, at);
	if (groups == 1) /* a few rows wait for memory alone, and the hardware's prefetch is best */
		next = rows > (kernel->tiles ? ROWS_MAX / 2 : 1)
		                ? (const char *)t.b + PREFETCH_AHEAD
		                : NULL;
	for (int g = 0; g < groups; g++) {
		int row = rows * g / groups, end = rows * (g + 1) / groups;
		int line = step_lines * g / helpers, line_end = step_lines * (g + 1) / helpers;
		t.lines = 0;
		if (next && g < helpers) {
			t.ahead = next + line * 64;
			t.lines = line_end - line;
		}
		t.c = sums + row * PANEL;
		t.x = (const char *)l->x + (size_t)(first_row + row) * l->x_stride
		                + kernel->input_first + (size_t)at * kernel->input_bytes;
		if (kernel->tiles)
			kernel->tiles[end - row](&t);
		else
			kernel->any(&t, end - row);
	}
}

/*
 * Up to ROW_BLOCK rows times the panels [panel, end), at most PANELS_AT_ONCE; `after`: the panel that
 * is probably next, or -1. Few rows take all inputs in one slice (one group) or in slices that stay
 * in cache for all groups; many rows go over blocks of inputs, and over all panels in each.
 */
static void linear_block(const struct kernel *kernel, const struct linear *l, int panel, int end,
                int after, int first_row, int rows) {
	_Alignas(64) uint32_t sums[PANELS_AT_ONCE][ROW_BLOCK * PANEL];
	int all = (l->w->n_in + kernel->group - 1) / kernel->group;
	int block = rows > ROWS_FEW ? kernel->block : all;
	int slice = rows <= ROWS_MAX ? all : kernel->slice;
	for (int from = 0; from < all; from += block) {
		int to = all - from < block ? all : from + block;
		for (int p = panel; p < end; p++) {
			for (int at = from; at < to; at += slice) {
				int count = to - at < slice ? to - at : slice;
				const char *next = NULL;
				if (at + count < to)
					next = weights_at(kernel, l, p, at + count);
				else if (p + 1 < end)
					next = weights_at(kernel, l, p + 1, from);
				else if (to < all)
					next = weights_at(kernel, l, panel, to);
				else if (after >= 0)
					next = weights_at(kernel, l, after, 0);
				linear_slice(kernel, l, p, at, count, next, first_row, rows,
				                sums[p - panel]);
			}
		}
	}
	for (int p = panel; p < end; p++)
		kernel->finish(kernel, l, p, first_row, rows, sums[p - panel]);
}

/* Output channels of panels [first_panel, end_panel). */
static void linear_run(const struct kernel *kernel, const struct linear *l, int first_panel,
                int end_panel) {
	int blocks = (l->rows + ROW_BLOCK - 1) / ROW_BLOCK;
	for (int b = 0; b < blocks; b++) {
		int row = (int)((long)l->rows * b / blocks);
		int rows = (int)((long)l->rows * (b + 1) / blocks) - row;
		int step = rows > ROWS_FEW ? PANELS_AT_ONCE : 1;
		for (int panel = first_panel; panel < end_panel; panel += step) {
			int end = end_panel - panel < step ? end_panel : panel + step;
			int after = end < end_panel                ? end
			                : b + 1 < blocks           ? first_panel
			                : end_panel < l->ahead_end ? end_panel
			                                           : -1;
			linear_block(kernel, l, panel, end, after, row, rows);
		}
	}
}

/* Asks for a row of y: rows are far apart, and else only their store asks for them. */
static inline void row_fetch(const struct linear *l, int row, int first, int count) {
	const float *y = linear_row(l, row) + first;
	for (int j = 0; j < count; j += 64 / (int)sizeof *y)
		__builtin_prefetch(y + j, 1);
}

/* Where the sums are the values: f32 and bf16. */
static inline void sums_finish(const struct kernel *k, const struct linear *l, int panel,
                int first_row, int rows, const void *sums) {
	(void)k;
	int first = panel * PANEL, left = l->w->n_out - first;
	for (int r = 0; r < rows; r++) {
		if (r + ROWS_AHEAD < rows)
			row_fetch(l, first_row + r + ROWS_AHEAD, first,
			                left < PANEL ? left : PANEL);
		for (int j = 0; j < PANEL && j < left; j += LANES) {
			vec value = vec_load((const float *)sums + r * PANEL + j);
			value_store(l, value, first_row + r, first + j, left - j);
		}
	}
}
