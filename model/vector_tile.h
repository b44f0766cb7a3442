/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The micro-kernel of linear layers and of attention, over the vectors of the including overlay.
 *
 *	c[r][j] = fma(x[r][k], b[k][j], c[r][j]) for k = 0 .. count - 1, upwards
 *
 * for the rows r and for the lanes j of a few vectors, all sums in registers. One function for each
 * number of rows: tiles_pair[rows] is two vectors wide, tiles_rest[rows] one vector of which only
 * some lanes exist, tile_one one row and several pairs.
 */
enum {
	TILE_STEP = 8, /* groups of inputs between prefetches */
	TILE_WIDE = KV_TILE / LANES < 8 ? KV_TILE / LANES : 8, /* vectors of tile_one */
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
	bool fresh; /* start from 0, not from c */
	int lanes;  /* tiles_rest: lanes of b that exist; the others count as 0 */
	/*
	 * Every TILE_STEP groups, `lines` cache lines are asked for, from `ahead` on and one step of
	 * b further each time: the next slice of weights travels during the arithmetic on this one.
	 */
	const char *ahead;
	int lines;
};

/* Each compiler has its own word for it. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/*
 * Always inlined with literal `rows`, `vectors` and `partial`, and all loops over sums unrolled: only
 * so do compilers keep them in registers.
 */
static inline __attribute__((always_inline)) void tile_run(
                const struct tile *t, const int rows, const int vectors, const bool partial) {
	vec sum[ROWS_MAX][TILE_WIDE], w[TILE_WIDE];
	const float *b = t->b, *x = t->x;
	const char *ahead = t->lines ? t->ahead : (const char *)b;
	size_t ldb = t->ldb / sizeof *b, ldx = t->ldx / sizeof *x;
	UNROLL
	for (int r = 0; r < rows; r++) {
		const float *c = (const float *)t->c + (size_t)r * t->ldc;
		UNROLL
		for (int j = 0; j < vectors; j++)
			sum[r][j] = t->fresh ? vec_zero() : vec_load(c + j * LANES);
	}
	for (int k = 0, end = 0; k < t->count;) {
		end = t->count - k < TILE_STEP ? t->count : k + TILE_STEP;
		for (int line = 0; line < t->lines; line++)
			__builtin_prefetch(ahead + line * 64, 0, 2);
		ahead += TILE_STEP * ldb * sizeof(float);
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
					/* Else gcc 12 moves products about and spills sums. */
					__asm__("" : "+v"(sum[r][j]));
				}
			}
		}
	}
	UNROLL
	for (int r = 0; r < rows; r++) {
		UNROLL
		for (int j = 0; j < vectors; j++)
			vec_store((float *)t->c + (size_t)r * t->ldc + j * LANES, sum[r][j]);
	}
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

typedef void tile_function(const struct tile *t);
#define TILE_PAIR(rows) [rows] = tile_pair_##rows,
#define TILE_REST(rows) [rows] = tile_rest_##rows,
static tile_function *const tiles_pair[ROWS_MAX + 1] = { TILE_EACH(TILE_PAIR) };
static tile_function *const tiles_rest[ROWS_MAX + 1] = { TILE_EACH(TILE_REST) };
