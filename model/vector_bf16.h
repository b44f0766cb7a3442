/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bf16 weights times f32 inputs: the weights are widened in registers, so that the result equals an
 * f32 product of the widened weights. A panel holds pairs of inputs, [n_in / 2][PANEL][2], which is
 * also the order of the instructions for bf16; a missing last input has weight 0. Part of
 * model/vector_ops.h.
 */
static size_t bf16_matrix_bytes(int n_out, int n_in) {
	return bf16_panels_bytes(PANEL, n_out, n_in);
}

static void bf16_pack(void *data, int n_out, int n_in, const float *src, int first, int count) {
	(void)n_out;
	bf16_panels_pack(PANEL, data, n_in, src, first, count);
}

static void bf16_unpack_row(const struct matrix *w, int out, float *dst) {
	bf16_panels_unpack_row(PANEL, w, out, dst);
}

enum { BF16_BYTES = 2 * PANEL * sizeof(uint16_t) }; /* of a pair of inputs in a panel */

/* sum += input number `input` of each row times w. */
TILE_INLINE void bf16_products(vec sum[ROWS_MAX][TILE_WIDE], const vec w[2],
                const struct tile_inputs *x, int input, const int rows) {
	UNROLL
	for (int r = 0; r < rows; r++) {
		const float *from = tile_input(x, r, input * (int)sizeof(float));
		UNROLL
		for (int j = 0; j < 2; j++) {
			sum[r][j] = vec_fma(vec_set(*from), w[j], sum[r][j]);
			vec_keep(sum[r][j]);
		}
	}
}

/* Inputs 2 pair and, if `both`, 2 pair + 1. */
TILE_INLINE void bf16_pair(vec sum[ROWS_MAX][TILE_WIDE], const char *b, const struct tile_inputs *x,
                int pair, const bool both, const int rows) {
	vec pairs[2] = { vec_load((const float *)b), vec_load((const float *)b + LANES) };
	vec first[2] = { vec_lower_bf16(pairs[0]), vec_lower_bf16(pairs[1]) };
	bf16_products(sum, first, x, 2 * pair, rows);
	if (both) {
		vec second[2] = { vec_upper_bf16(pairs[0]), vec_upper_bf16(pairs[1]) };
		bf16_products(sum, second, x, 2 * pair + 1, rows);
	}
}

TILE_INLINE void bf16_run(const struct tile *t, const int rows) {
	vec sum[ROWS_MAX][TILE_WIDE];
	struct tile_inputs x;
	const char *b = t->b, *ahead = t->lines ? t->ahead : b;
	int pairs = t->last ? t->count - 1 : t->count;
	int steps = pairs / TILE_STEP, rest = pairs % TILE_STEP;
	tile_begin(t, sum, rows, 2);
	tile_inputs_begin(t, &x, rows);
	for (; steps > 0; steps--) {
		ahead = tile_fetch(t, ahead);
		UNROLL
		for (int k = 0; k < TILE_STEP; k++, b += BF16_BYTES)
			bf16_pair(sum, b, &x, k, true, rows);
		tile_inputs_pass(&x, 2 * TILE_STEP * sizeof(float), rows);
	}
	for (; rest > 0; rest--, b += BF16_BYTES) {
		bf16_pair(sum, b, &x, 0, true, rows);
		tile_inputs_pass(&x, 2 * sizeof(float), rows);
	}
	if (t->last)
		bf16_pair(sum, b, &x, 0, false, rows);
	tile_end(t, sum, rows, 2);
}

#define TILE_BF16(rows)                                                                            \
	static void tile_bf16_##rows(const struct tile *t) {                                       \
		bf16_run(t, rows);                                                                 \
	}
TILE_EACH(TILE_BF16)

static void bf16_linear(const struct linear *l, int first_panel, int end_panel) {
#define TILE_BF16_ROWS(rows) [rows] = tile_bf16_##rows,
	static tile_function *const tiles[ROWS_MAX + 1] = { TILE_EACH(TILE_BF16_ROWS) };
	static const struct kernel kernel = {
		.group = 2,
		.panel_bytes = BF16_BYTES,
		.input_bytes = 2 * sizeof(float),
		.slice = 512,
		.block = 512,
		.tiles = tiles,
		.finish = sums_finish,
	};
	linear_run(&kernel, l, first_panel, end_panel);
}

#define VECTOR_BF16(sentence)                                                                      \
	{                                                                                          \
		.arithmetic = sentence, .matrix_bytes = bf16_matrix_bytes, .pack = bf16_pack,      \
		.unpack_row = bf16_unpack_row, .linear = bf16_linear,                              \
	}
