/* SPDX-License-Identifier: Apache-2.0 */
/*
 * f32 weights:
 *
 *	c[r][j] = fma(x[r][k], b[k][j], c[r][j]) for k = 0 .. count - 1, upwards
 *
 * Part of model/vector_ops.h.
 */
enum { F32_BYTES = PANEL * sizeof(float) }; /* of an input in a panel */

TILE_INLINE void f32_products(vec sum[ROWS_MAX][TILE_WIDE], const char *b,
                const struct tile_inputs *x, int input, const int rows) {
	vec w[2] = { vec_load((const float *)b), vec_load((const float *)b + LANES) };
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

TILE_INLINE void f32_run(const struct tile *t, const int rows) {
	vec sum[ROWS_MAX][TILE_WIDE];
	struct tile_inputs x;
	const char *b = t->b, *ahead = t->lines ? t->ahead : b;
	int steps = t->count / TILE_STEP, rest = t->count % TILE_STEP;
	tile_begin(t, sum, rows, 2);
	tile_inputs_begin(t, &x, rows);
	for (; steps > 0; steps--) {
		ahead = tile_fetch(t, ahead);
		UNROLL
		for (int k = 0; k < TILE_STEP; k++, b += F32_BYTES)
			f32_products(sum, b, &x, k, rows);
		tile_inputs_pass(&x, TILE_STEP * sizeof(float), rows);
	}
	for (; rest > 0; rest--, b += F32_BYTES) {
		f32_products(sum, b, &x, 0, rows);
		tile_inputs_pass(&x, sizeof(float), rows);
	}
	tile_end(t, sum, rows, 2);
}

#define TILE_F32(rows)                                                                             \
	static void tile_f32_##rows(const struct tile *t) {                                        \
		f32_run(t, rows);                                                                  \
	}
TILE_EACH(TILE_F32)

static size_t f32_matrix_bytes(int n_out, int n_in) {
	return panels_bytes(PANEL, n_out, n_in);
}

static void f32_pack(void *data, int n_out, int n_in, const float *src, int first, int count) {
	(void)n_out;
	panels_pack(PANEL, data, n_in, src, first, count);
}

static void f32_unpack_row(const struct matrix *w, int out, float *dst) {
	panels_unpack_row(PANEL, w, out, dst);
}

static void f32_linear(const struct linear *l, int first_panel, int end_panel) {
#define TILE_F32_ROWS(rows) [rows] = tile_f32_##rows,
	static tile_function *const tiles[ROWS_MAX + 1] = { TILE_EACH(TILE_F32_ROWS) };
	static const struct kernel kernel = {
		.group = 1,
		.panel_bytes = F32_BYTES,
		.input_bytes = sizeof(float),
		.slice = 512,
		.block = 1024,
		.tiles = tiles,
		.finish = sums_finish,
	};
	linear_run(&kernel, l, first_panel, end_panel);
}

#define VECTOR_F32(sentence)                                                                       \
	{                                                                                          \
		.arithmetic = sentence, .matrix_bytes = f32_matrix_bytes, .pack = f32_pack,        \
		.unpack_row = f32_unpack_row, .linear = f32_linear,                                \
	}
