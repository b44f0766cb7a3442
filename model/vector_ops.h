/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of an overlay, written once over its vectors (vec, LANES, PANEL, ROWS_MAX and the
 * vec_ and lanes_ functions). 16 virtual lanes are GROUP vectors. Blocking follows what was
 * measured: see bench/README.md.
 */
#include "model/vector_tile.h"

enum {
	GROUP = LANES_FIXED / LANES,
	K_SLICE = 8192 / PANEL, /* values of k in a slice of weights: 32 KiB */
	ROW_BLOCK = 128,        /* rows that share one pass over the weights */
	PREFETCHERS = 3,        /* row groups that together fetch the next slice */
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

/*
 * `rows` rows times one panel. Up to ROWS_MAX rows go through all of k at once; more are cut into
 * equal groups that share each slice of the panel while it is in cache.
 */
static void linear_panel(
                const struct linear *l, int panel, int end_panel, int first_row, int rows) {
	_Alignas(64) float sums[ROW_BLOCK * PANEL];
	int n_in = l->w->n_in, groups = (rows + ROWS_MAX - 1) / ROWS_MAX;
	int slice = groups == 1 ? n_in : K_SLICE;
	int helpers = groups < PREFETCHERS ? groups : PREFETCHERS;
	const float *weights = l->w->data + (size_t)panel * PANEL * (size_t)n_in;
	const float *end = l->w->data + (size_t)end_panel * PANEL * (size_t)n_in;
	for (int k = 0; k < n_in; k += slice) {
		struct tile t = { .ldc = PANEL, .ldx = l->ldx, .ldb = PANEL, .fresh = k == 0 };
		t.b = weights + (size_t)k * PANEL;
		t.count = n_in - k < slice ? n_in - k : slice;
		const float *next = t.b + (size_t)t.count * PANEL;
		int step_lines = TILE_STEP * PANEL * (int)sizeof(float) / 64;
		for (int g = 0; g < groups; g++) {
			int row, row_end, line = 0, line_end = 0;
			row = rows * g / groups;
			row_end = rows * (g + 1) / groups;
			if (groups > 1 && g < helpers && next < end) {
				line = step_lines * g / helpers;
				line_end = step_lines * (g + 1) / helpers;
			}
			t.ahead = (const char *)next + line * 64;
			t.lines = line_end - line;
			t.c = sums + row * PANEL;
			t.x = l->x + (size_t)(first_row + row) * l->ldx + k;
			tiles_pair[row_end - row](&t);
		}
	}
	linear_finish(l, panel, first_row, rows, sums);
}

static void vec_linear(const struct linear *l, int first_panel, int end_panel) {
	int blocks = (l->rows + ROW_BLOCK - 1) / ROW_BLOCK;
	for (int b = 0; b < blocks; b++) {
		int first = (int)((long)l->rows * b / blocks);
		int end = (int)((long)l->rows * (b + 1) / blocks);
		for (int panel = first_panel; panel < end_panel; panel++)
			linear_panel(l, panel, end_panel, first, end - first);
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
