/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What int8 and int4 products of an overlay have in common (model/quantise.h defines both): rows of
 * inputs as integers, and the sums as floats. Included after model/vector_linear.h and the table's
 * integers.
 */
#include "model/panels.h"
#include "model/quantise.h"

enum {
	INT_CHUNK = 64,        /* inputs made at a time */
	INT_INPUTS_FIRST = 64, /* where the integers of a row begin */
};

/* What a row of inputs begins with. */
struct int_row {
	float scale;
	int32_t offset; /* to add to its int8 sums: weights are 128 too large there */
};

/* quantise_scale, side by side. */
static float int_scale(const float *x, int n, float *ret_factor) {
	vec largest[2] = { vec_zero(), vec_zero() };
	int i = 0;
	for (; i + 2 * LANES <= n; i += 2 * LANES)
		for (int j = 0; j < 2; j++)
			largest[j] = vec_int_max(largest[j], vec_abs(vec_load(x + i + j * LANES)));
	for (; i < n; i += LANES)
		largest[0] = vec_int_max(largest[0], vec_abs(vec_load_first(x + i, n - i)));
	float lanes[LANES];
	vec_store(lanes, vec_int_max(largest[0], largest[1]));
	return quantise_scale(lanes, LANES, ret_factor);
}

/* The next INT_CHUNK inputs, of which n exist (more: all), as integers. */
TILE_INLINE void int_chunk(const float *x, int n, float factor, int8_t *to) {
	const vec round = vec_set(MATHF_ROUND);
	if (!(factor > 0)) {
		memset(to, 0, INT_CHUNK);
		return;
	}
	for (int i = 0; i < INT_CHUNK; i += LANES) {
		vec v = n >= INT_CHUNK ? vec_load(x + i) : vec_load_first(x + i, n - i);
		vec_store_bytes(to + i, vec_add(vec_mul(v, vec_set(factor)), round));
	}
}

/* The sum of the 32 integers from `from` on. */
static inline int32_t bytes_sum(const int8_t *from) {
	uint32_t sums = bytes_sums(from);
	return (int16_t)(sums & 0xffff) + (int16_t)(sums >> 16);
}

/* What a row's int8 sums have too much, negative. Modulo 2^32, as they are: only both together fit. */
static inline int32_t int8_offset(int32_t sum) {
	return (int32_t)(0u - 128u * (uint32_t)sum);
}

/* Where the scales of a panel's outputs are. */
static const float *panel_scales(const struct kernel *k, const struct linear *l, int panel) {
	return (const float *)(const void *)(weights_at(k, l, panel + 1, 0) - k->panel_tail);
}

/* Scales for the sums of some rows; writes y. Whole numbers still lack the row's offset. */
TILE_INLINE void int_finish(const struct kernel *k, const struct linear *l, int panel,
                int first_row, int rows, const float *sums, const bool whole) {
	const float *scales = panel_scales(k, l, panel);
	int first = panel * PANEL;
	for (int j = 0; j < PANEL && first + j < l->w->n_out; j += LANES) {
		vec scale = vec_load(scales + j);
		for (int r = 0; r < rows; r++) {
			const struct int_row *row = (const void *)((const char *)l->x
			                + (size_t)(first_row + r) * l->x_stride);
			vec value = vec_load(sums + r * PANEL + j);
			if (whole)
				value = vec_from_int(
				                vec_int_add(value, vec_set_bits(&row->offset)));
			value = vec_mul(vec_mul(value, scale), vec_set(row->scale));
			value_store(l, value, first_row + r, first + j, l->w->n_out - first - j);
		}
	}
}

static void int8_finish(const struct kernel *k, const struct linear *l, int panel, int first_row,
                int rows, const void *sums) {
	int_finish(k, l, panel, first_row, rows, sums, true);
}

static void int4_finish(const struct kernel *k, const struct linear *l, int panel, int first_row,
                int rows, const void *sums) {
	int_finish(k, l, panel, first_row, rows, sums, false);
}

enum {
	INT8_GROUP_BYTES = 4 * PANEL,               /* of four inputs in a panel */
	INT4_SCALES = PANEL * (int)sizeof(int16_t), /* before the weights of a group */
	INT4_GROUP_BYTES = INT4_SCALES + PANEL * INT4_GROUP / 2,
	INT4_QUADS = INT4_GROUP / 8, /* fours of inputs in half a group */
};
