/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int8 and int4 products by an instruction that adds four products of an unsigned and a signed byte
 * to 32 bits without saturating (vec_dot_bytes; VPDPBUSD): the weights are the unsigned ones, by
 * their offset too large, and what that adds is taken out for each row. Instead of
 * model/vector_int8.h and vector_int4.h, in their layout of weights.
 *
 * A row of int8 inputs is its integers; of int4 inputs, for each group, -8 times their sum, then the
 * integers.
 */
enum { INT8_QUAD = 4 }; /* bytes of four inputs of a row */
enum { INT4_OFFSET = sizeof(int32_t), INT4_INPUTS = INT4_OFFSET + INT4_GROUP };
_Static_assert((int)INT_CHUNK == (int)INT4_GROUP, "inputs are made in groups");

static size_t int8_input_bytes(int n_in) {
	return INT_INPUTS_FIRST + ((size_t)n_in + INT_CHUNK - 1) / INT_CHUNK * INT_CHUNK;
}

static void int8_input(const float *x, int n_in, void *ret_input) {
	struct int_row *row = ret_input;
	int8_t *to = (int8_t *)ret_input + INT_INPUTS_FIRST;
	float factor;
	int32_t sum = 0;
	row->scale = int_scale(x, n_in, &factor);
	for (int i = 0; i < n_in; i += INT_CHUNK) {
		int_chunk(x + i, n_in - i, factor, to + i);
		sum += bytes_sum(to + i) + bytes_sum(to + i + INT_CHUNK / 2);
	}
	row->offset = int8_offset(sum);
}

static size_t int4_input_bytes(int n_in) {
	size_t groups = ((size_t)n_in + INT4_GROUP - 1) / INT4_GROUP;
	return (INT_INPUTS_FIRST + groups * INT4_INPUTS + 63) / 64 * 64;
}

static void int4_input(const float *x, int n_in, void *ret_input) {
	struct int_row *row = ret_input;
	char *to = (char *)ret_input + INT_INPUTS_FIRST;
	float factor;
	row->scale = int_scale(x, n_in, &factor);
	for (int i = 0; i < n_in; i += INT4_GROUP, to += INT4_INPUTS) {
		int8_t *bytes = (int8_t *)to + INT4_OFFSET;
		int_chunk(x + i, n_in - i, factor, bytes);
		int32_t offset = -8 * (bytes_sum(bytes) + bytes_sum(bytes + INT4_GROUP / 2));
		memcpy(to, &offset, sizeof offset);
	}
}

/* ---- int8 ---- */

/* sum += four inputs, number `quad`, of each row times the weights at b. */
TILE_INLINE void int8_products(vec sum[ROWS_MAX][TILE_COLUMNS], const char *b,
                const struct tile_inputs *x, int quad, const int rows) {
	const float *at = (const float *)(const void *)b;
	vec w[TILE_COLUMNS] = { vec_load(at), vec_load(at + LANES) };
	UNROLL
	for (int r = 0; r < rows; r++) {
		vec from = vec_set_bits(tile_input(x, r, quad * INT8_QUAD));
		UNROLL
		for (int j = 0; j < TILE_COLUMNS; j++) {
			sum[r][j] = vec_dot_bytes(w[j], from, sum[r][j]);
			vec_keep(sum[r][j]);
		}
	}
}

TILE_INLINE void int8_run(const struct tile *t, const int rows) {
	tile_run(t, int8_products, NULL, INT8_GROUP_BYTES, INT8_QUAD, rows);
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

/* ---- int4 ---- */

enum {
	INT4_ROWS = 4, /* at a time: 16 registers of weights, 8 of sums */
	INT4_ROWS_MAX = 32,
};

/* The rows beyond whole INT4_ROWS. */
#define INT4_REST(rows, function, ...)                                                             \
	switch ((rows) % INT4_ROWS) {                                                              \
	case 3:                                                                                    \
		function(__VA_ARGS__, 3);                                                          \
		break;                                                                             \
	case 2:                                                                                    \
		function(__VA_ARGS__, 2);                                                          \
		break;                                                                             \
	case 1:                                                                                    \
		function(__VA_ARGS__, 1);                                                          \
		break;                                                                             \
	}

/* Half a group of two vectors of outputs, the fours of inputs in order. */
TILE_INLINE void int4_open(const char *b, vec w[TILE_COLUMNS][INT4_QUADS]) {
	UNROLL
	for (int q = 0; q < INT4_QUADS / 2; q++) {
		UNROLL
		for (int j = 0; j < TILE_COLUMNS; j++) {
			vec both = vec_load(
			                (const float *)(const void *)b + (q * PANEL + j * LANES));
			w[j][q] = vec_low_halves(both);
			w[j][q + INT4_QUADS / 2] = vec_high_halves(both);
		}
	}
}

/* Half a group of some rows and two vectors of outputs. */
TILE_INLINE void int4_half(vec sum[INT4_ROWS][TILE_COLUMNS], const vec w[TILE_COLUMNS][INT4_QUADS],
                const char *x, size_t ldx, const int rows) {
	UNROLL
	for (int q = 0; q < INT4_QUADS; q++) {
		UNROLL
		for (int r = 0; r < rows; r++) {
			vec from = vec_set_bits(x + (size_t)r * ldx + 4 * q);
			UNROLL
			for (int j = 0; j < TILE_COLUMNS; j++) {
				sum[r][j] = vec_dot_bytes(w[j][q], from, sum[r][j]);
				vec_keep(sum[r][j]);
			}
		}
	}
}

/* The first half of a group: the sums so far go to part. */
TILE_INLINE void int4_first(const vec w[TILE_COLUMNS][INT4_QUADS], const char *x, size_t ldx,
                float *part, const int rows) {
	vec sum[INT4_ROWS][TILE_COLUMNS];
	UNROLL
	for (int r = 0; r < rows; r++)
		sum[r][0] = sum[r][1] = vec_set_bits(x + (size_t)r * ldx);
	int4_half(sum, w, x + INT4_OFFSET, ldx, rows);
	UNROLL
	for (int r = 0; r < rows; r++) {
		vec_store(part + r * PANEL, sum[r][0]);
		vec_store(part + r * PANEL + LANES, sum[r][1]);
	}
}

/* The second half: the whole group's sums times its scales are added to c. */
TILE_INLINE void int4_second(const vec w[TILE_COLUMNS][INT4_QUADS], const vec scale[TILE_COLUMNS],
                const char *x, size_t ldx, const float *part, float *c, size_t ldc,
                const int rows) {
	vec sum[INT4_ROWS][TILE_COLUMNS];
	UNROLL
	for (int r = 0; r < rows; r++) {
		sum[r][0] = vec_load(part + r * PANEL);
		sum[r][1] = vec_load(part + r * PANEL + LANES);
	}
	int4_half(sum, w, x + INT4_OFFSET + INT4_GROUP / 2, ldx, rows);
	UNROLL
	for (int r = 0; r < rows; r++) {
		UNROLL
		for (int j = 0; j < TILE_COLUMNS; j++) {
			float *to = c + (size_t)r * ldc + j * LANES;
			vec_store(to, vec_fma(vec_from_int(sum[r][j]), scale[j], vec_load(to)));
		}
	}
}

/* One group of inputs times all rows; each half is opened once. */
TILE_INLINE void int4_group(const struct tile *t, const char *b, const char *x, const int rows) {
	_Alignas(64) float part[INT4_ROWS_MAX * PANEL];
	const vec scale[TILE_COLUMNS] = { vec_from_int16(b),
		vec_from_int16(b + LANES * sizeof(int16_t)) };
	const char *at = x;
	float *c = t->c, *to = part;
	vec w[TILE_COLUMNS][INT4_QUADS];
	int4_open(b + INT4_SCALES, w);
	for (int r = 0; r + INT4_ROWS <= rows; r += INT4_ROWS) {
		int4_first(w, at, t->ldx, to, INT4_ROWS);
		at += INT4_ROWS * t->ldx;
		to += INT4_ROWS * PANEL;
	}
	INT4_REST(rows, int4_first, w, at, t->ldx, to)
	int4_open(b + INT4_SCALES + PANEL * INT4_GROUP / 4, w);
	at = x;
	to = part;
	for (int r = 0; r + INT4_ROWS <= rows; r += INT4_ROWS) {
		int4_second(w, scale, at, t->ldx, to, c, t->ldc, INT4_ROWS);
		at += INT4_ROWS * t->ldx;
		to += INT4_ROWS * PANEL;
		c += INT4_ROWS * t->ldc;
	}
	INT4_REST(rows, int4_second, w, scale, at, t->ldx, to, c, t->ldc)
}

/* One group's part of the lines that tile_fetch asks for at once: here a step is long. */
TILE_INLINE void int4_fetch(const struct tile *t, int group) {
	int part = group % TILE_STEP;
	const char *ahead = t->ahead + (size_t)(group - part) * t->ldb;
	int end = t->lines * (part + 1) / TILE_STEP;
	for (int line = t->lines * part / TILE_STEP; line < end; line++)
		__builtin_prefetch(ahead + line * 64, 0, 2);
}

TILE_INLINE void int4_run(const struct tile *t, const int rows) {
	const char *b = t->b, *x = t->x;
	if (t->fresh)
		memset(t->c, 0, (size_t)rows * PANEL * sizeof(float));
	for (int k = 0; k < t->count; k++, b += INT4_GROUP_BYTES, x += INT4_INPUTS) {
		int4_fetch(t, k);
		int4_group(t, b, x, rows);
	}
}

/* Of a few rows the parts stay in registers where their number is known to the compiler. */
static void int4_tile(const struct tile *t, int rows) {
	switch (rows) {
	case 1:
		return int4_run(t, 1);
	case 2:
		return int4_run(t, 2);
	case 3:
		return int4_run(t, 3);
	case 4:
		return int4_run(t, 4);
	case 5:
		return int4_run(t, 5);
	case 6:
		return int4_run(t, 6);
	default:
		int4_run(t, rows);
	}
}

static const struct kernel int4_kernel = {
	.group = INT4_GROUP,
	.group_bytes = INT4_GROUP_BYTES,
	.input_first = INT_INPUTS_FIRST,
	.input_bytes = INT4_INPUTS,
	.slice = 32,
	.block = 16,
	.any = int4_tile,
	.rows = INT4_ROWS_MAX,
	.finish = int4_finish,
	.panel_tail = PANEL * sizeof(float),
};

static void int4_linear(const struct linear *l, int first_panel, int end_panel) {
	linear_run(&int4_kernel, l, first_panel, end_panel);
}

static const struct format_ops int8_dot = {
	.arithmetic = "int8 weights and inputs, exact integer sums, VPDPBUSD (bits equal to plain "
	              "C)",
	PANELS(int8),
	.input_bytes = int8_input_bytes,
	.input = int8_input,
	.linear = int8_linear,
};
static const struct format_ops int4_dot = {
	.arithmetic = "int4 weights, int8 inputs, exact integer sums of groups, VPDPBUSD (bits "
	              "equal "
	              "to plain C)",
	PANELS(int4),
	.input_bytes = int4_input_bytes,
	.input = int4_input,
	.linear = int4_linear,
};
