/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the micro-kernels of all formats have in common: rows x vectors of sums, kept in registers
 * while groups of inputs go by. One function for each number of rows.
 */
enum {
	TILE_STEP = 4, /* groups of inputs between prefetches */
	TILE_WIDE = KV_TILE / LANES < 8 ? KV_TILE / LANES : 8, /* most vectors of a row */
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
	int lanes;  /* of b that exist, where the last vector is not whole; the others count as 0 */
	/*
	 * Every TILE_STEP groups, `lines` cache lines are asked for, from `ahead` on and one step of
	 * b further each time: the next slice of weights travels during the arithmetic on this one.
	 */
	const char *ahead;
	int lines;
};

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
 * These are always inlined with literal `rows`, `vectors` and `partial`, and all loops over sums
 * unrolled: only so do compilers keep them in registers. Each sum is named to the compiler after its
 * update (vec_keep): else gcc 12 moves products about and spills sums.
 */
#define TILE_INLINE static inline __attribute__((always_inline))

TILE_INLINE void tile_begin(const struct tile *t, vec sum[ROWS_MAX][TILE_WIDE], const int rows,
                const int vectors) {
	UNROLL
	for (int r = 0; r < rows; r++) {
		const float *c = (const float *)t->c + (size_t)r * t->ldc;
		UNROLL
		for (int j = 0; j < vectors; j++)
			sum[r][j] = t->fresh ? vec_zero() : vec_load(c + j * LANES);
	}
}

TILE_INLINE void tile_end(const struct tile *t, vec sum[ROWS_MAX][TILE_WIDE], const int rows,
                const int vectors) {
	UNROLL
	for (int r = 0; r < rows; r++) {
		UNROLL
		for (int j = 0; j < vectors; j++)
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
