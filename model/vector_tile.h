/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the micro-kernels of all formats have in common: rows x vectors of sums, kept in registers
 * while groups of inputs go by. One function for each number of rows.
 */
enum {
	TILE_STEP = 4,    /* groups of inputs between prefetches */
	TILE_COLUMNS = 2, /* vectors of sums of a row: one panel */
};

/* Every format's micro-kernel is called with one; x, b and c hold what the format keeps there. */
struct tile {
	void *c;    /* rows of whole vectors of sums: 4 bytes each */
	size_t ldc; /* sums */
	const void *x;
	size_t ldx; /* bytes */
	const void *b;
	size_t ldb; /* bytes from one group of inputs to the next */
	int count;  /* groups of inputs */
	int last;   /* inputs of the last group, where fewer exist than in the others; else 0 */
	bool fresh; /* start from 0, not from c */
	/*
	 * Every TILE_STEP groups, `lines` cache lines are asked for, from `ahead` on and one step of
	 * b further each time: the next slice of weights travels during the arithmetic on this one.
	 */
	const char *ahead;
	int lines;
};

_Static_assert(PANEL / LANES == TILE_COLUMNS, "a tile has all outputs of a panel");

typedef void tile_function(const struct tile *t);

/* Each compiler has its own word for it; an overlay that need not be fast says that there is none. */
#ifndef UNROLL
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#endif

/*
 * These are always inlined with literal `rows`, and all loops over sums unrolled: only so do
 * compilers keep them in registers. Each sum is named to the compiler after its update (vec_keep):
 * else gcc 12 moves products about and spills sums.
 */
#define TILE_INLINE static inline __attribute__((always_inline))

TILE_INLINE void tile_begin(const struct tile *t, vec sum[ROWS_MAX][TILE_COLUMNS], const int rows) {
	UNROLL
	for (int r = 0; r < rows; r++) {
		const float *c = (const float *)t->c + (size_t)r * t->ldc;
		UNROLL
		for (int j = 0; j < TILE_COLUMNS; j++)
			sum[r][j] = t->fresh ? vec_zero() : vec_load(c + j * LANES);
	}
}

TILE_INLINE void tile_end(const struct tile *t, vec sum[ROWS_MAX][TILE_COLUMNS], const int rows) {
	UNROLL
	for (int r = 0; r < rows; r++) {
		UNROLL
		for (int j = 0; j < TILE_COLUMNS; j++)
			vec_store((float *)t->c + (size_t)r * t->ldc + j * LANES, sum[r][j]);
	}
}

/*
 * Where the inputs of the rows are. Every third row has an address, the next two are one and two
 * strides beyond: an address for every row would not fit the registers.
 */
struct tile_inputs {
	const char *at[ROWS_MAX]; /* the first third is used */
	size_t stride;
};

TILE_INLINE void tile_inputs_begin(const struct tile *t, struct tile_inputs *x, const int rows) {
	x->stride = t->ldx;
	UNROLL
	for (int r = 0; r < rows; r += 3)
		x->at[r / 3] = (const char *)t->x + (size_t)r * t->ldx;
}

TILE_INLINE void tile_inputs_pass(struct tile_inputs *x, size_t bytes, const int rows) {
	UNROLL
	for (int r = 0; r < rows; r += 3) {
		x->at[r / 3] += bytes;
		__asm__("" : "+r"(x->at[r / 3])); /* else gcc keeps differences, and spills them */
	}
}

TILE_INLINE const void *tile_input(const struct tile_inputs *x, int r, int bytes) {
	return x->at[r / 3] + (size_t)(r % 3) * x->stride + bytes;
}

/* Asks for the lines of one step; returns where those of the next are. */
TILE_INLINE const char *tile_fetch(const struct tile *t, const char *ahead) {
	for (int line = 0; line < t->lines; line++)
		__builtin_prefetch(ahead + line * 64, 0, 2);
	return ahead + TILE_STEP * t->ldb;
}

/* What a format does with one group of inputs: sum += each row's group number `group`, counted from
 * where x is, times the weights at b. */
typedef void tile_products(vec sum[ROWS_MAX][TILE_COLUMNS], const char *b,
                const struct tile_inputs *x, int group, int rows);

/*
 * All groups of a tile. `last` (NULL: there is no such group) does the last one where that is short.
 * One group has `group_bytes` of weights and `input_bytes` of a row. All but t are literal.
 */
TILE_INLINE void tile_run(const struct tile *t, tile_products *products, tile_products *last,
                const size_t group_bytes, const size_t input_bytes, const int rows) {
	vec sum[ROWS_MAX][TILE_COLUMNS];
	struct tile_inputs x;
	const char *b = t->b, *ahead = t->lines ? t->ahead : b;
	int groups = last && t->last ? t->count - 1 : t->count;
	int steps = groups / TILE_STEP, rest = groups % TILE_STEP;
	tile_begin(t, sum, rows);
	tile_inputs_begin(t, &x, rows);
	for (; steps > 0; steps--) {
		ahead = tile_fetch(t, ahead);
		UNROLL
		for (int k = 0; k < TILE_STEP; k++, b += group_bytes)
			products(sum, b, &x, k, rows);
		tile_inputs_pass(&x, TILE_STEP * input_bytes, rows);
	}
	for (; rest > 0; rest--, b += group_bytes) {
		products(sum, b, &x, 0, rows);
		tile_inputs_pass(&x, input_bytes, rows);
	}
	if (last && t->last)
		last(sum, b, &x, 0, rows);
	tile_end(t, sum, rows);
}

/* `name`_run for each number of rows, literal, and the table of these functions: `name`_tiles. */
#define TILE_FUNCTION(rows, name)                                                                  \
	static void name##_##rows(const struct tile *t) {                                          \
		name##_run(t, rows);                                                               \
	}
#define TILE_ENTRY(rows, name) [rows] = name##_##rows,
#define TILE_FUNCTIONS(name)                                                                       \
	TILE_EACH(TILE_FUNCTION, name)                                                             \
	static tile_function *const name##_tiles[ROWS_MAX + 1] = { TILE_EACH(TILE_ENTRY, name) };
