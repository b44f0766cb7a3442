/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int8 products without an instruction for bytes: both are opened to 16 bits, whose products are
 * added in pairs to 32 (VPMADDWD): exact. Weights open to bytes 0 and 2, then 1 and 3 of every four,
 * and so lie the inputs.
 */
static size_t int8_input_bytes(int n_in) {
	return INT_INPUTS_FIRST
	                + ((size_t)n_in + INT_CHUNK - 1) / INT_CHUNK * INT_CHUNK * sizeof(int16_t);
}

static void int8_input(const float *x, int n_in, void *ret_input) {
	struct int_row *row = ret_input;
	int16_t *to = (int16_t *)(void *)((char *)ret_input + INT_INPUTS_FIRST);
	int8_t bytes[INT_CHUNK];
	float factor;
	int32_t sum = 0;
	row->scale = int_scale(x, n_in, &factor);
	for (int i = 0; i < n_in; i += INT_CHUNK) {
		int_chunk(x + i, n_in - i, factor, bytes);
		sum += bytes_sum(bytes) + bytes_sum(bytes + INT_CHUNK / 2);
		for (int k = 0; k < INT_CHUNK; k += 16)
			bytes_spread(bytes + k, to + i + k);
	}
	row->offset = int8_offset(sum);
}

enum { INT8_QUAD = 4 * sizeof(int16_t) }; /* bytes of four inputs of a row */

/* sum += w times two inputs of each row, `bytes` from where its address is. */
TILE_INLINE void int8_products(vec sum[ROWS_MAX][TILE_COLUMNS], const vec w[TILE_COLUMNS],
                const struct tile_inputs *x, int bytes, const int rows) {
	UNROLL
	for (int r = 0; r < rows; r++) {
		vec from = vec_set_bits(tile_input(x, r, bytes));
		UNROLL
		for (int j = 0; j < TILE_COLUMNS; j++) {
			sum[r][j] = vec_dot_pairs(w[j], from, sum[r][j]);
			vec_keep(sum[r][j]);
		}
	}
}

/* Four inputs, number `quad`. */
TILE_INLINE void int8_quad(vec sum[ROWS_MAX][TILE_COLUMNS], const char *b,
                const struct tile_inputs *x, int quad, const int rows) {
	const float *at = (const float *)(const void *)b;
	vec all[TILE_COLUMNS] = { vec_load(at), vec_load(at + LANES) };
	vec even[TILE_COLUMNS] = { vec_even_bytes(all[0]), vec_even_bytes(all[1]) };
	int8_products(sum, even, x, quad * INT8_QUAD, rows);
	vec odd[TILE_COLUMNS] = { vec_odd_bytes(all[0]), vec_odd_bytes(all[1]) };
	int8_products(sum, odd, x, quad * INT8_QUAD + INT8_QUAD / 2, rows);
}

TILE_INLINE void int8_run(const struct tile *t, const int rows) {
	tile_run(t, int8_quad, NULL, INT8_GROUP_BYTES, INT8_QUAD, rows);
}

TILE_FUNCTIONS(int8)

static const struct kernel int8_kernel = {
	.group = 4,
	.group_bytes = INT8_GROUP_BYTES,
	.input_first = INT_INPUTS_FIRST,
	.input_bytes = INT8_QUAD,
	.slice = 256,
	.block = 256,
	.tiles = int8_tiles,
	.finish = int8_finish,
	.panel_tail = PANEL * sizeof(float),
};

static void int8_linear(const struct linear *l, int first_panel, int end_panel) {
	linear_run(&int8_kernel, l, first_panel, end_panel);
}
