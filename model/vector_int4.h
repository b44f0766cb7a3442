/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int4 products without an instruction for four bytes: weights 0 .. 15 times inputs, added in pairs
 * to 16 bits (VPMADDUBSW). Half a group adds up to -8 * 16 * 127 .. 7 * 16 * 127 there once the offset
 * of 8 is out, so that it fits however it went on the way; then the pairs are joined to 32 bits.
 *
 * A row of inputs holds, for each group, -8 times the sums of either half's inputs, as pairs of 16
 * bits; then the integers.
 */
enum { INT4_PAIRS = 2 * (int)sizeof(uint32_t), INT4_INPUTS = INT4_PAIRS + INT4_GROUP };
_Static_assert((int)INT_CHUNK == (int)INT4_GROUP, "inputs are made in groups");

static size_t int4_input_bytes(int n_in) {
	size_t groups = ((size_t)n_in + INT4_GROUP - 1) / INT4_GROUP;
	return (INT_INPUTS_FIRST + groups * INT4_INPUTS + 63) / 64 * 64;
}

/* -8 times both numbers of 16 bits. */
static uint32_t pairs_offset(uint32_t sums) {
	uint32_t low = 0u - 8u * (sums & 0xffff), high = 0u - 8u * (sums >> 16);
	return high << 16 | (low & 0xffff);
}

static void int4_input(const float *x, int n_in, void *ret_input) {
	struct int_row *row = ret_input;
	char *to = (char *)ret_input + INT_INPUTS_FIRST;
	float factor;
	row->scale = int_scale(x, n_in, &factor);
	for (int i = 0; i < n_in; i += INT4_GROUP, to += INT4_INPUTS) {
		int8_t *bytes = (int8_t *)to + INT4_PAIRS;
		int_chunk(x + i, n_in - i, factor, bytes);
		uint32_t pairs[2] = { pairs_offset(bytes_sums(bytes)),
			pairs_offset(bytes_sums(bytes + INT4_GROUP / 2)) };
		memcpy(to, pairs, sizeof pairs);
	}
}

/* Half a group's sums of one row and one vector of outputs, in 32 bits. */
TILE_INLINE vec int4_half(const char *x, int half, const vec w[INT4_QUADS]) {
	vec sum = vec_set_bits(x + half * (int)sizeof(uint32_t));
	UNROLL
	for (int q = 0; q < INT4_QUADS; q++) {
		vec from = vec_set_bits(x + INT4_PAIRS + half * INT4_GROUP / 2 + 4 * q);
		sum = vec_dot_halves(w[q], from, sum);
		vec_keep(sum);
	}
	return vec_join_pairs(sum);
}

/* One vector of outputs of one group; opens half a group and keeps it for all rows. */
TILE_INLINE void int4_column(const float *b, vec scale, const char *x, size_t ldx, float *c,
                size_t ldc, int rows) {
	vec first[ROWS_MAX], w[INT4_QUADS];
	for (int half = 0; half < 2; half++, b += INT4_QUADS / 2 * PANEL) {
		UNROLL
		for (int q = 0; q < INT4_QUADS / 2; q++) {
			vec both = vec_load(b + q * PANEL);
			w[q] = vec_low_halves(both);
			w[q + INT4_QUADS / 2] = vec_high_halves(both);
		}
		for (int r = 0; r < rows; r++) {
			vec sum = int4_half(x + (size_t)r * ldx, half, w);
			if (half == 0) {
				first[r] = sum;
				continue;
			}
			float *to = c + (size_t)r * ldc;
			vec whole = vec_from_int(vec_int_add(first[r], sum));
			vec_store(to, vec_fma(whole, scale, vec_load(to)));
		}
	}
}

static void int4_run(const struct tile *t, int rows) {
	const char *b = t->b, *x = t->x, *ahead = t->lines ? t->ahead : b;
	float *c = t->c;
	if (t->fresh)
		for (int r = 0; r < rows; r++)
			memset(c + (size_t)r * t->ldc, 0, PANEL * sizeof *c);
	for (int k = 0; k < t->count; k++, b += INT4_GROUP_BYTES, x += INT4_INPUTS) {
		if (k % TILE_STEP == 0)
			ahead = tile_fetch(t, ahead);
		for (int j = 0; j < PANEL; j += LANES) {
			const float *w = (const float *)(const void *)(b + INT4_SCALES) + j;
			vec scale = vec_from_int16(b + (size_t)j * sizeof(int16_t));
			int4_column(w, scale, x, t->ldx, c + j, t->ldc, rows);
		}
	}
}

TILE_FUNCTIONS(int4)

static const struct kernel int4_kernel = {
	.group = INT4_GROUP,
	.group_bytes = INT4_GROUP_BYTES,
	.input_first = INT_INPUTS_FIRST,
	.input_bytes = INT4_INPUTS,
	.slice = 32,
	.block = 16,
	.tiles = int4_tiles,
	.finish = int4_finish,
	.panel_tail = PANEL * sizeof(float),
};

static void int4_linear(const struct linear *l, int first_panel, int end_panel) {
	linear_run(&int4_kernel, l, first_panel, end_panel);
}
