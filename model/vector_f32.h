/* SPDX-License-Identifier: Apache-2.0 */
/*
 * f32 weights:
 *
 *	c[r][j] = fma(x[r][k], b[k][j], c[r][j]) for k = 0 .. count - 1, upwards
 *
 * Part of model/vector_ops.h.
 */
enum { F32_GROUP_BYTES = PANEL * sizeof(float) }; /* of an input in a panel */

TILE_INLINE void f32_products(vec sum[ROWS_MAX][TILE_COLUMNS], const char *b,
                const struct tile_inputs *x, int input, const int rows) {
	vec w[TILE_COLUMNS] = { vec_load((const float *)b), vec_load((const float *)b + LANES) };
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

TILE_INLINE void f32_run(const struct tile *t, const int rows) {
	tile_run(t, f32_products, NULL, F32_GROUP_BYTES, sizeof(float), rows);
}

TILE_FUNCTIONS(f32)

static void f32_linear(const struct linear *l, int first_panel, int end_panel) {
	static const struct kernel kernel = {
		.group = 1,
		.group_bytes = F32_GROUP_BYTES,
		.input_bytes = sizeof(float),
		.slice = 512,
		.block = 1024,
		.tiles = f32_tiles,
		.finish = sums_finish,
	};
	linear_run(&kernel, l, first_panel, end_panel);
}
