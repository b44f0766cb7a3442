/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bf16 weights times bf16 inputs by an instruction for pairs (vec_dot_bf16), in the layout of
 * model/vector_bf16.h. A row of inputs is n_in numbers rounded to bf16, filled up with zeros.
 * Included after model/vector_linear.h.
 */
static size_t dot_input_bytes(int n_in) {
	return ((size_t)n_in * sizeof(uint16_t) + 63) / 64 * 64;
}

static void dot_input(const float *x, int n_in, void *ret_input) {
	char *to = ret_input;
	for (int i = 0; i < n_in; i += 2 * LANES, to += sizeof(vec)) {
		vec first = vec_load_first(x + i, n_in - i);
		vec second = n_in - i > LANES ? vec_load_first(x + i + LANES, n_in - i - LANES)
		                              : vec_zero();
		vec_store((float *)to, vec_round_bf16(first, second));
	}
}

enum { DOT_GROUP_BYTES = 2 * PANEL * sizeof(uint16_t) }; /* of a pair of inputs in a panel */

/* sum += pair number `pair` of each row times the weights at b; a pair is a float's worth of bits. */
TILE_INLINE void dot_products(vec sum[ROWS_MAX][TILE_COLUMNS], const char *b,
                const struct tile_inputs *x, int pair, const int rows) {
	vec w[TILE_COLUMNS] = { vec_load((const float *)b), vec_load((const float *)b + LANES) };
	UNROLL
	for (int r = 0; r < rows; r++) {
		const float *from = tile_input(x, r, pair * (int)sizeof(float));
		UNROLL
		for (int j = 0; j < TILE_COLUMNS; j++) {
			sum[r][j] = vec_dot_bf16(vec_set(*from), w[j], sum[r][j]);
			vec_keep(sum[r][j]);
		}
	}
}

TILE_INLINE void dot_run(const struct tile *t, const int rows) {
	tile_run(t, dot_products, NULL, DOT_GROUP_BYTES, 2 * sizeof(uint16_t), rows);
}

TILE_FUNCTIONS(dot)

static void dot_linear(const struct linear *l, int first_panel, int end_panel) {
	static const struct kernel kernel = {
		.group = 2,
		.group_bytes = DOT_GROUP_BYTES,
		.input_bytes = 2 * sizeof(uint16_t),
		.slice = 512,
		.block = 512,
		.tiles = dot_tiles,
		.finish = sums_finish,
	};
	linear_run(&kernel, l, first_panel, end_panel);
}

/* Puts these products over those of model/vector_bf16.h, whose layout they share. */
static void dot_install(struct format_ops *format) {
	format->arithmetic = "bf16 weights and inputs, f32 sums, VDPBF16PS (its own rounding: bits "
	                     "differ from other levels)";
	format->input_bytes = dot_input_bytes;
	format->input = dot_input;
	format->linear = dot_linear;
}
