/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of an overlay, written once over its vectors (vec, LANES, PANEL, ROWS_MAX and the vec_
 * and lanes_ functions): here those over rows, 16 virtual lanes being GROUP vectors.
 */
#include "model/panels.h"
#include "model/vector_linear.h"

#include "model/vector_bf16.h"
#include "model/vector_f32.h"
#include "model/vector_int.h"
#include "model/vector_int4.h"
#include "model/vector_int8.h"

enum { GROUP = LANES_FIXED / LANES };

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

/* `level` is the table's name, `set` its instructions in words. */
#define VECTOR_TABLE(level, set)                                                                     \
	{                                                                                            \
		.name = level, .exact = true, .panel = PANEL,                                      \
		.formats = {                                                                       \
			[WEIGHTS_F32] = {                                                          \
				.arithmetic = "f32, one fused multiply-add chain per output, "     \
				              set " (bits equal to plain C)",                      \
				PANELS(f32), .linear = f32_linear,                                 \
			},                                                                         \
			[WEIGHTS_BF16] = {                                                         \
				.arithmetic = "bf16 weights widened, f32 inputs and sums, "        \
				              set " (bits equal to plain C)",                      \
				PANELS(bf16), .linear = bf16_linear,                               \
			},                                                                         \
			[WEIGHTS_INT8] = {                                                         \
				.arithmetic = "int8 weights and inputs, exact integer sums, " set, \
				PANELS(int8), .input_bytes = int8_input_bytes,                     \
				.input = int8_input, .linear = int8_linear,                        \
			},                                                                         \
			[WEIGHTS_INT4] = {                                                         \
				.arithmetic = "int4 weights, int8 inputs, exact integer sums of "  \
				              "groups, " set,                                      \
				PANELS(int4), .input_bytes = int4_input_bytes,                     \
				.input = int4_input, .linear = int4_linear,                        \
			},                                                                         \
		},                                                                                 \
		.norm = vec_norm, .kv_store = vec_kv_store, .attend = vec_attend,                  \
		.attend_scratch = vec_attend_scratch, .max_sum_exp = vec_max_sum_exp, \
	}
