/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference table in plain C: the definition of every kernel's result, bit by bit. The other
 * exact tables must equal it. Written to be read, not to be fast.
 */
#include "model/mathf.h"
#include "model/ops.h"
#include "model/ops_shared.h"
#include "model/quantise.h"

enum { PANEL = 16 };

#include "model/panels.h"

/* Writes what the sums of one row of one panel become. */
static void finish(const struct linear *l, const float *sums, int row, int first) {
	int left = l->w->n_out - first;
	scalar_finish(l, sums, linear_row(l, row) + first, first, left < PANEL ? left : PANEL);
}

static void c_f32_linear(const struct linear *l, int first_panel, int end_panel) {
	int n_in = l->w->n_in;
	for (int panel = first_panel; panel < end_panel; panel++) {
		const float *w = (const float *)l->w->data + (size_t)panel * PANEL * (size_t)n_in;
		for (int row = 0; row < l->rows; row++) {
			const float *x = linear_input(l, row);
			float acc[PANEL] = { 0 };
			for (int k = 0; k < n_in; k++)
				for (int c = 0; c < PANEL; c++)
					acc[c] = __builtin_fmaf(x[k], w[k * PANEL + c], acc[c]);
			finish(l, acc, row, panel * PANEL);
		}
	}
}

/* The sums of c_f32_linear over the widened weights. */
static void c_bf16_linear(const struct linear *l, int first_panel, int end_panel) {
	int n_in = l->w->n_in;
	const uint16_t *w = l->w->data;
	for (int panel = first_panel; panel < end_panel; panel++) {
		for (int row = 0; row < l->rows; row++) {
			const float *x = linear_input(l, row);
			float acc[PANEL] = { 0 };
			for (int k = 0; k < n_in; k++) {
				const uint16_t *at = w + bf16_at(n_in, panel * PANEL, k);
				for (int c = 0; c < PANEL; c++)
					acc[c] = __builtin_fmaf(
					                x[k], bf16_widen(at[2 * c]), acc[c]);
			}
			finish(l, acc, row, panel * PANEL);
		}
	}
}

#include "model/scalar_int.h"

static float lanes_sum(float *lanes) {
	for (int apart = LANES_FIXED / 2; apart > 0; apart /= 2)
		for (int j = 0; j < apart; j++)
			lanes[j] += lanes[j + apart];
	return lanes[0];
}

static float lanes_max(float *lanes) {
	for (int apart = LANES_FIXED / 2; apart > 0; apart /= 2)
		for (int j = 0; j < apart; j++)
			lanes[j] = mathf_max(lanes[j], lanes[j + apart]);
	return lanes[0];
}

/* The largest of x[0..n). */
static float row_max(const float *x, int n) {
	float lanes[LANES_FIXED];
	for (int j = 0; j < LANES_FIXED; j++)
		lanes[j] = -INFINITY;
	for (int i = 0; i < n; i++)
		lanes[i % LANES_FIXED] = mathf_max(x[i], lanes[i % LANES_FIXED]);
	return lanes_max(lanes);
}

static void c_norm(const struct norm *n, int first, int end) {
	float dim = (float)n->dim;
	for (int row = first; row < end; row++) {
		const float *x = norm_in(n, row);
		float *out = norm_out(n, row);
		float sums[LANES_FIXED] = { 0 }, squares[LANES_FIXED] = { 0 };
		for (int i = 0; i < n->dim; i++)
			sums[i % LANES_FIXED] += x[i];
		float mean = lanes_sum(sums) / dim;
		for (int i = 0; i < n->dim; i++) {
			float d = x[i] - mean;
			squares[i % LANES_FIXED] = __builtin_fmaf(d, d, squares[i % LANES_FIXED]);
		}
		float inverse = 1.0f / __builtin_sqrtf(lanes_sum(squares) / dim + n->eps);
		for (int i = 0; i < n->dim; i++)
			out[i] = __builtin_fmaf((x[i] - mean) * inverse, n->gain[i], n->bias[i]);
	}
}

static void c_kv_store(const struct kv_rows *rows) {
	size_t dim = (size_t)rows->head_dim, channels = (size_t)rows->n_heads * dim;
	size_t first = (size_t)rows->head * dim, end = first + (size_t)rows->heads * dim;
	float *floats = rows->block;
	uint16_t *halves = rows->block;
	for (size_t i = 0; i < (size_t)rows->count; i++) {
		size_t slot = (size_t)rows->position % KV_TILE + i;
		for (size_t c = first; c < end; c++) {
			float k = rows->k[i * rows->ld + c], v = rows->v[i * rows->ld + c];
			size_t key = c * KV_TILE + slot;
			size_t value = (channels + c / dim * dim) * KV_TILE + slot * dim + c % dim;
			if (rows->format == KV_BF16) {
				halves[key] = bf16_round(k);
				halves[value] = bf16_round(v);
			} else {
				floats[key] = k;
				floats[value] = v;
			}
		}
	}
}

/* Number i of a block. */
static float block_number(enum kv_format format, const void *block, int i) {
	return format == KV_BF16 ? bf16_widen(((const uint16_t *)block)[i])
	                         : ((const float *)block)[i];
}

/* One tile of one query: `seen` keys from the tile's first on. */
static void attend_tile(const struct attend *a, const float *q, int tile, int seen, float *largest,
                float *total, float *acc) {
	const void *keys = block_keys(a, tile), *values = block_values(a, tile);
	float weights[KV_TILE], sums[LANES_FIXED] = { 0 };
	int dim = a->head_dim;
	for (int key = 0; key < seen; key++) {
		float dot = 0;
		for (int d = 0; d < dim; d++)
			dot = __builtin_fmaf(q[d], block_number(a->format, keys, d * KV_TILE + key),
			                dot);
		weights[key] = dot;
	}
	float now = mathf_max(row_max(weights, seen), *largest);
	float shrink = mathf_exp(*largest - now);
	for (int key = 0; key < seen; key++) {
		weights[key] = mathf_exp(weights[key] - now);
		sums[key % LANES_FIXED] += weights[key];
	}
	*largest = now;
	*total = __builtin_fmaf(*total, shrink, lanes_sum(sums));
	for (int d = 0; d < dim; d++) {
		float value = acc[d] * shrink;
		for (int key = 0; key < seen; key++)
			value = __builtin_fmaf(weights[key],
			                block_number(a->format, values, key * dim + d), value);
		acc[d] = value;
	}
}

static void c_attend(const struct attend *a) {
	int dim = a->head_dim;
	float *q = a->scratch, *acc = a->scratch + dim;
	for (int i = 0; i < a->queries; i++) {
		int keys = a->keys ? a->keys : a->first + i + 1;
		float largest = -INFINITY, total = 0;
		for (int d = 0; d < dim; d++) {
			q[d] = a->q[(size_t)i * a->ldq + d] * a->scale;
			acc[d] = 0;
		}
		for (int tile = 0; tile * KV_TILE < keys; tile++) {
			int seen = keys - tile * KV_TILE;
			attend_tile(a, q, tile, seen < KV_TILE ? seen : KV_TILE, &largest, &total,
			                acc);
		}
		float inverse = 1.0f / total;
		for (int d = 0; d < dim; d++)
			a->out[(size_t)i * a->ldo + d] = __builtin_fmaf(acc[d], inverse, 0.0f);
	}
}

static size_t c_attend_scratch(int head_dim) {
	return 2 * (size_t)head_dim;
}

static void c_max_sum_exp(const float *x, int n, float *ret_max, float *ret_sum) {
	float largest = row_max(x, n), sums[LANES_FIXED] = { 0 };
	for (int i = 0; i < n; i++)
		sums[i % LANES_FIXED] += mathf_exp(x[i] - largest);
	*ret_max = largest;
	*ret_sum = lanes_sum(sums);
}

const struct ops *ops_c(void) {
	static const struct ops table = {
		.name = "c",
		.exact = true,
		.panel = PANEL,
		.formats = {
			[WEIGHTS_F32] = {
				.arithmetic = "f32, one fused multiply-add chain per output, plain C",
				PANELS(f32),
				.linear = c_f32_linear,
			},
			[WEIGHTS_BF16] = {
				.arithmetic = "bf16 weights widened, f32 inputs and sums, plain C",
				PANELS(bf16),
				.linear = c_bf16_linear,
			},
			[WEIGHTS_INT8] = {
				.arithmetic = "int8 weights and inputs, exact integer sums, plain C",
				PANELS(int8),
				.input_bytes = c_int_input_bytes,
				.input = c_int_input,
				.linear = c_int8_linear,
			},
			[WEIGHTS_INT4] = {
				.arithmetic = "int4 weights, int8 inputs, exact integer sums of "
				              "groups, plain C",
				PANELS(int4),
				.input_bytes = c_int_input_bytes,
				.input = c_int_input,
				.linear = c_int4_linear,
			},
		},
		.norm = c_norm,
		.kv_store = c_kv_store,
		.attend = c_attend,
		.attend_scratch = c_attend_scratch,
		.max_sum_exp = c_max_sum_exp,
	};
	return &table;
}
