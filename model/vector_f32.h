/* SPDX-License-Identifier: Apache-2.0 */
/*
 * f32 weights, and the micro-kernel of f32, which attention uses too:
 *
 *	c[r][j] = fma(x[r][k], b[k][j], c[r][j]) for k = 0 .. count - 1, upwards
 *
 * tiles_pair[rows] is two vectors wide, tiles_rest[rows] one vector of which only some lanes exist,
 * tile_one one row and several pairs. Part of model/vector_ops.h.
 */
TILE_INLINE void tile_run(
                const struct tile *t, const int rows, const int vectors, const bool partial) {
	vec sum[ROWS_MAX][TILE_WIDE], w[TILE_WIDE];
	const float *b = t->b, *x = t->x;
	const char *ahead = t->lines ? t->ahead : (const char *)b;
	size_t ldb = t->ldb / sizeof *b, ldx = t->ldx / sizeof *x;
	tile_begin(t, sum, rows, vectors);
	for (int k = 0, end = 0; k < t->count;) {
		end = t->count - k < TILE_STEP ? t->count : k + TILE_STEP;
		ahead = tile_fetch(t, ahead);
		for (; k < end; k++, b += ldb, x++) {
			UNROLL
			for (int j = 0; j < vectors; j++)
				w[j] = partial ? vec_load_first(b, t->lanes)
				               : vec_load(b + j * LANES);
			UNROLL
			for (int r = 0; r < rows; r++) {
				vec from = vec_set(x[(size_t)r * ldx]);
				UNROLL
				for (int j = 0; j < vectors; j++) {
					sum[r][j] = vec_fma(from, w[j], sum[r][j]);
					vec_keep(sum[r][j]);
				}
			}
		}
	}
	tile_end(t, sum, rows, vectors);
}

#define TILE(rows)                                                                                 \
	static void tile_pair_##rows(const struct tile *t) {                                       \
		tile_run(t, rows, 2, false);                                                       \
	}                                                                                          \
	static void tile_rest_##rows(const struct tile *t) {                                       \
		tile_run(t, rows, 1, true);                                                        \
	}

TILE_EACH(TILE)

static void tile_one(const struct tile *t) {
	tile_run(t, 1, TILE_WIDE, false);
}

#define TILE_PAIR(rows) [rows] = tile_pair_##rows,
#define TILE_REST(rows) [rows] = tile_rest_##rows,
static tile_function *const tiles_pair[ROWS_MAX + 1] = { TILE_EACH(TILE_PAIR) };
static tile_function *const tiles_rest[ROWS_MAX + 1] = { TILE_EACH(TILE_REST) };

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
	static const struct kernel kernel = {
		.group = 1,
		.panel_bytes = PANEL * sizeof(float),
		.input_bytes = sizeof(float),
		.slice = 512,
		.block = 1024,
		.tiles = tiles_pair,
		.finish = sums_finish,
	};
	linear_run(&kernel, l, first_panel, end_panel);
}

#define VECTOR_F32(sentence)                                                                       \
	{                                                                                          \
		.arithmetic = sentence, .matrix_bytes = f32_matrix_bytes, .pack = f32_pack,        \
		.unpack_row = f32_unpack_row, .linear = f32_linear,                                \
	}
