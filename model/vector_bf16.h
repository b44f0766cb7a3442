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

/* sum += x[r] times the widened weights, for the input of each pair that x points at. */
TILE_INLINE void bf16_products(vec sum[ROWS_MAX][TILE_WIDE], const vec w[2], const float *x,
                size_t ldx, const int rows) {
	UNROLL
	for (int r = 0; r < rows; r++) {
		vec from = vec_set(x[(size_t)r * ldx]);
		UNROLL
		for (int j = 0; j < 2; j++) {
			sum[r][j] = vec_fma(from, w[j], sum[r][j]);
			vec_keep(sum[r][j]);
		}
	}
}

TILE_INLINE void bf16_run(const struct tile *t, const int rows) {
	vec sum[ROWS_MAX][TILE_WIDE];
	const float *b = t->b, *x = t->x;
	const char *ahead = t->lines ? t->ahead : (const char *)b;
	size_t ldb = t->ldb / sizeof *b, ldx = t->ldx / sizeof *x;
	int pairs = t->last ? t->count - 1 : t->count;
	tile_begin(t, sum, rows, 2);
	for (int k = 0, end = 0; k < pairs;) {
		end = pairs - k < TILE_STEP ? pairs : k + TILE_STEP;
		ahead = tile_fetch(t, ahead);
		for (; k < end; k++, b += ldb, x += 2) {
			vec both[2] = { vec_load(b), vec_load(b + LANES) };
			vec first[2] = { vec_lower_bf16(both[0]), vec_lower_bf16(both[1]) };
			bf16_products(sum, first, x, ldx, rows);
			vec second[2] = { vec_upper_bf16(both[0]), vec_upper_bf16(both[1]) };
			bf16_products(sum, second, x + 1, ldx, rows);
		}
	}
	if (t->last) {
		vec w[2] = { vec_lower_bf16(vec_load(b)), vec_lower_bf16(vec_load(b + LANES)) };
		bf16_products(sum, w, x, ldx, rows);
	}
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
		.panel_bytes = 2 * PANEL * sizeof(uint16_t),
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
