/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of an overlay, written once over its vectors (vec, LANES, PANEL, ROWS_MAX, K_SLICE and
 * the vec_ and lanes_ functions). 16 virtual lanes are GROUP vectors. How rows and inputs are blocked
 * changes the time and never a bit: partial sums are kept as f32 and go on where they stopped.
 */
#include "model/vector_tile.h"

enum {
	GROUP = LANES_FIXED / LANES,
	ROW_BLOCK = 128,      /* rows that share one pass over the weights */
	ROWS_FEW = 36,        /* up to here every row of x stays in cache by itself */
	K_BLOCK = 1024,       /* beyond, inputs at a time: their part of x stays in L2 ... */
	PANELS_AT_ONCE = 4,   /* ... while it is used for this many panels */
	PREFETCHERS = 3,      /* groups of rows that together fetch the next slice */
	PREFETCH_AHEAD = 8192 /* bytes, where all rows are one group */
};

static size_t vec_matrix_bytes(int n_out, int n_in) {
	return panels_bytes(PANEL, n_out, n_in);
}

static void vec_pack(float *data, int n_out, int n_in, const float *src, int first, int count) {
	panels_pack(PANEL, data, n_in, src, first, count);
}

static void vec_unpack_row(const struct matrix *w, int out, float *dst) {
	panels_unpack_row(PANEL, w, out, dst);
}

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

/* Bias, activation and residual for the sums of `rows` rows of one panel; writes y. */
static void linear_finish(
                const struct linear *l, int panel, int first_row, int rows, const float *sums) {
	int first = panel * PANEL;
	for (int j = 0; j < PANEL; j += LANES) {
		int lanes = l->w->n_out - first - j;
		if (lanes <= 0)
			break;
		vec bias = l->bias ? vec_load_first(l->bias + first + j, lanes) : vec_zero();
		for (int r = 0; r < rows; r++) {
			float *y = linear_row(l, first_row + r) + first + j;
			vec value = vec_load(sums + r * PANEL + j);
			if (l->bias)
				value = vec_add(value, bias);
			value = activate(value, l->activation);
			if (l->add)
				value = vec_add(vec_load_first(y, lanes), value);
			vec_store_first(y, value, lanes);
		}
	}
}

/* Where a panel's weights for input k are. */
static const float *weights_at(const struct linear *l, int panel, int k) {
	return l->w->data + ((size_t)panel * (size_t)l->w->n_in + (size_t)k) * PANEL;
}

/*
 * Adds the products of `count` inputs from k on to the sums of `rows` rows, cut into equal groups of
 * at most ROWS_MAX. The first groups fetch the slice at `next` (NULL: none) while they compute: at
 * few rows memory and arithmetic take about as long, and must run at the same time.
 */
static void linear_slice(const struct linear *l, int panel, int k, int count, const float *next,
                int first_row, int rows, float *sums) {
	const int step_lines = TILE_STEP * PANEL * (int)sizeof(float) / 64;
	int groups = (rows + ROWS_MAX - 1) / ROWS_MAX;
	int helpers = groups < PREFETCHERS ? groups : PREFETCHERS;
	struct tile t = { .ldc = PANEL, .ldx = l->ldx, .ldb = PANEL, .count = count };
	t.fresh = k == 0;
	t.b = weights_at(l, panel, k);
	if (groups == 1) /* a few rows wait for memory alone, and the hardware's prefetch is best */
		next = rows > ROWS_MAX / 2 ? t.b + PREFETCH_AHEAD / sizeof(float) : NULL;
	for (int g = 0; g < groups; g++) {
		int row = rows * g / groups, end = rows * (g + 1) / groups;
		int line = step_lines * g / helpers, line_end = step_lines * (g + 1) / helpers;
		t.lines = 0;
		if (next && g < helpers) {
			t.ahead = (const char *)next + line * 64;
			t.lines = line_end - line;
		}
		t.c = sums + row * PANEL;
		t.x = l->x + (size_t)(first_row + row) * l->ldx + k;
		tiles_pair[end - row](&t);
	}
}

/*
 * Up to ROW_BLOCK rows times the panels [panel, end), at most PANELS_AT_ONCE; `last`: where the
 * caller's panels end. Few rows take all of k in one slice (one group) or in slices that stay in
 * cache for all groups; many rows go over blocks of k, and over all panels in each.
 */
static void linear_block(
                const struct linear *l, int panel, int end, int last, int first_row, int rows) {
	_Alignas(64) float sums[PANELS_AT_ONCE][ROW_BLOCK * PANEL];
	int n_in = l->w->n_in, block = rows > ROWS_FEW ? K_BLOCK : n_in;
	int slice = rows <= ROWS_MAX ? n_in : K_SLICE;
	for (int from = 0; from < n_in; from += block) {
		int to = n_in - from < block ? n_in : from + block;
		for (int p = panel; p < end; p++) {
			for (int k = from; k < to; k += slice) {
				int count = to - k < slice ? to - k : slice;
				const float *next = NULL;
				if (k + count < to)
					next = weights_at(l, p, k + count);
				else if (p + 1 < end)
					next = weights_at(l, p + 1, from);
				else if (to < n_in)
					next = weights_at(l, panel, to);
				else if (end < last)
					next = weights_at(l, end, 0);
				linear_slice(l, p, k, count, next, first_row, rows,
				                sums[p - panel]);
			}
		}
	}
	for (int p = panel; p < end; p++)
		linear_finish(l, p, first_row, rows, sums[p - panel]);
}

static void vec_linear(const struct linear *l, int first_panel, int end_panel) {
	int blocks = (l->rows + ROW_BLOCK - 1) / ROW_BLOCK;
	for (int b = 0; b < blocks; b++) {
		int row = (int)((long)l->rows * b / blocks);
		int rows = (int)((long)l->rows * (b + 1) / blocks) - row;
		int step = rows > ROWS_FEW ? PANELS_AT_ONCE : 1;
		for (int panel = first_panel; panel < end_panel; panel += step) {
			int end = end_panel - panel < step ? end_panel : panel + step;
			linear_block(l, panel, end, end_panel, row, rows);
		}
	}
}

static float row_sum(const float *x, int n) {
	vec lanes[GROUP];
	for (int g = 0; g < GROUP; g++)
		lanes[g] = vec_zero();
	int i = 0;
	for (; i + LANES_FIXED <= n; i += LANES_FIXED)
		for (int g = 0; g < GROUP; g++)
			lanes[g] = vec_add(lanes[g], vec_load(x + i + g * LANES));
	for (int g = 0; g < GROUP && i + g * LANES < n; g++)
		lanes[g] = vec_add(lanes[g], vec_load_first(x + i + g * LANES, n - i - g * LANES));
	return lanes_sum(lanes);
}

static float row_squares(const float *x, int n, float mean) {
	vec lanes[GROUP], middle = vec_set(mean);
	for (int g = 0; g < GROUP; g++)
		lanes[g] = vec_zero();
	int i = 0;
	for (; i + LANES_FIXED <= n; i += LANES_FIXED) {
		for (int g = 0; g < GROUP; g++) {
			vec d = vec_sub(vec_load(x + i + g * LANES), middle);
			lanes[g] = vec_fma(d, d, lanes[g]);
		}
	}
	for (int g = 0; g < GROUP && i + g * LANES < n; g++) {
		int valid = n - i - g * LANES;
		vec d = vec_sub(vec_load_first(x + i + g * LANES, valid), middle);
		d = vec_keep_first(d, vec_zero(), valid);
		lanes[g] = vec_fma(d, d, lanes[g]);
	}
	return lanes_sum(lanes);
}

static void vec_norm(const struct norm *n, int first, int end) {
	float dim = (float)n->dim;
	for (int row = first; row < end; row++) {
		const float *x = norm_in(n, row);
		float *out = norm_out(n, row);
		float mean = row_sum(x, n->dim) / dim;
		float variance = row_squares(x, n->dim, mean) / dim;
		float inverse = 1.0f / __builtin_sqrtf(variance + n->eps);
		for (int i = 0; i < n->dim; i += LANES) {
			int valid = n->dim - i;
			vec d = vec_sub(vec_load_first(x + i, valid), vec_set(mean));
			vec y = vec_fma(vec_mul(d, vec_set(inverse)),
			                vec_load_first(n->gain + i, valid),
			                vec_load_first(n->bias + i, valid));
			vec_store_first(out + i, y, valid);
		}
	}
}

static float row_max(const float *x, int n) {
	vec lanes[GROUP], least = vec_set(-INFINITY);
	for (int g = 0; g < GROUP; g++)
		lanes[g] = least;
	int i = 0;
	for (; i + LANES_FIXED <= n; i += LANES_FIXED)
		for (int g = 0; g < GROUP; g++)
			lanes[g] = vec_max(vec_load(x + i + g * LANES), lanes[g]);
	for (int g = 0; g < GROUP && i + g * LANES < n; g++) {
		int valid = n - i - g * LANES;
		vec v = vec_load_first(x + i + g * LANES, valid);
		lanes[g] = vec_max(vec_keep_first(v, least, valid), lanes[g]);
	}
	return lanes_max(lanes);
}

static void vec_max_sum_exp(const float *x, int n, float *ret_max, float *ret_sum) {
	float largest = row_max(x, n);
	vec lanes[GROUP];
	for (int g = 0; g < GROUP; g++)
		lanes[g] = vec_zero();
	for (int i = 0; i < n; i += LANES_FIXED) {
		for (int g = 0; g < GROUP && i + g * LANES < n; g++) {
			int valid = n - i - g * LANES;
			vec v = vec_load_first(x + i + g * LANES, valid);
			v = vec_exp(vec_sub(v, vec_set(largest)));
			lanes[g] = vec_add(lanes[g], vec_keep_first(v, vec_zero(), valid));
		}
	}
	*ret_max = largest;
	*ret_sum = lanes_sum(lanes);
}

#include "model/vector_attend.h"

#define VECTOR_TABLE(table_name, sentence)                                                         \
	{                                                                                          \
		.name = table_name, .arithmetic = sentence, .exact = true, .panel = PANEL,         \
		.matrix_bytes = vec_matrix_bytes, .pack = vec_pack, .unpack_row = vec_unpack_row,  \
		.linear = vec_linear, .norm = vec_norm, .kv_store = block_store,                   \
		.attend = vec_attend, .attend_scratch = vec_attend_scratch,                        \
		.max_sum_exp = vec_max_sum_exp,                                                    \
	}
