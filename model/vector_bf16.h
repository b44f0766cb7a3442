/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bf16 weights times f32 inputs: the weights are widened in registers, so that the result equals an
 * f32 product of the widened weights. A panel holds pairs of inputs, [n_in / 2][PANEL][2], which is
 * also the order of the instructions for bf16; a missing last input has weight 0. Part of
 * model/vector_ops.h.
 */
enum { BF16_GROUP_BYTES = 2 * PANEL * sizeof(uint16_t) }; /* of a pair of inputs in a panel */

/* sum += input number `input` of each row times w. */
TILE_INLINE void bf16_products(vec sum[ROWS_MAX][TILE_COLUMNS], const vec w[TILE_COLUMNS],
                const struct tile_inputs *x, int input, const int rows) {
	UNROLL
	for (int r = 0; r < rows; r++) {
		const float *from = tile_input(x, r, input * (int)sizeof(float));
		UNROLL
		for (int j = 0; j < TILE_COLUMNS; j++) {
			sum[r][j] = vec_fma(vec_set(*from), w[j], sum[r][j]);
			vec_keep(sum[r][j]);
		}
	}
}

/* Inputs 2 pair and 2 pair + 1. */
TILE_INLINE void bf16_pair(vec sum[ROWS_MAX][TILE_COLUMNS], const char *b,
                const struct tile_inputs *x, int pair, const int rows) {
	vec pairs[TILE_COLUMNS] = { vec_load((const float *)b),
		vec_load((const float *)b + LANES) };
	vec first[TILE_COLUMNS] = { vec_lower_bf16(pairs[0]), vec_lower_bf16(pairs[1]) };
	bf16_products(sum, first, x, 2 * pair, rows);
	vec second[TILE_COLUMNS] = { vec_upper_bf16(pairs[0]), vec_upper_bf16(pairs[1]) };
	bf16_products(sum, second, x, 2 * pair + 1, rows);
}

/* Input 2 pair alone. */
TILE_INLINE void bf16_single(vec sum[ROWS_MAX][TILE_COLUMNS], const char *b,
                const struct tile_inputs *x, int pair, const int rows) {
	vec pairs[TILE_COLUMNS] = { vec_load((const float *)b),
		vec_load((const float *)b + LANES) };
	vec first[TILE_COLUMNS] = { vec_lower_bf16(pairs[0]), vec_lower_bf16(pairs[1]) };
	bf16_products(sum, first, x, 2 * pair, rows);
}

TILE_INLINE void bf16_run(const struct tile *t, const int rows) {
	tile_run(t, bf16_pair, bf16_single, BF16_GROUP_BYTES, 2 * sizeof(float), rows);
}

TILE_FUNCTIONS(bf16)

static void bf16_linear(const struct linear *l, int first_panel, int end_panel) {
	static const struct kernel kernel = {
		.group = 2,
		.group_bytes = BF16_GROUP_BYTES,
		.input_bytes = 2 * sizeof(float),
		.slice = 512,
		.block = 512,
		.tiles = bf16_tiles,
		.finish = sums_finish,
	};
	linear_run(&kernel, l, first_panel, end_panel);
}
