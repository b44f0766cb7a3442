/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of an overlay. A tile of 64 keys passes by CHUNK queries in groups of up to ROWS_MAX:
 * scores (queries x dims x keys), their exponentials, and sums of values (queries x keys x dims),
 * all sums of a group in registers. Part of model/vector_ops.h.
 */
#include "model/vector_kv.h"

enum {
	CHUNK = 96, /* queries; a multiple of ROWS_MAX */
	KEY_GROUPS = KV_TILE / LANES_FIXED,
	PASS_WIDE = KV_TILE / LANES < 8 ? KV_TILE / LANES
	                                : 8, /* vectors side by side of one query */
};

/* The queries of a chunk and what they have seen. The arrays by query end with a whole vector. */
struct chunk {
	const struct attend *a;
	int dim, first, queries; /* first: of its queries, within a */
	size_t ld_acc;
	float *q;                        /* [groups][head_dim][ROWS_MAX] scaled */
	float *acc;                      /* [CHUNK][ld_acc] sums of values */
	float *weights;                  /* [ROWS_MAX][KV_TILE] of one group and tile */
	float *largest, *total, *shrink; /* [CHUNK + LANES] */
};

static size_t round_up(size_t n, size_t unit) {
	return (n + unit - 1) / unit * unit;
}

static size_t vec_attend_scratch(int head_dim) {
	size_t dim = (size_t)head_dim;
	return CHUNK * (dim + round_up(dim, LANES)) + ROWS_MAX * KV_TILE + 3 * (CHUNK + LANES);
}

static void chunk_begin(struct chunk *c, const struct attend *a, int first, int queries) {
	*c = (struct chunk){ .a = a, .dim = a->head_dim, .first = first, .queries = queries };
	c->ld_acc = round_up((size_t)c->dim, LANES);
	c->weights = a->scratch;
	c->largest = c->weights + ROWS_MAX * KV_TILE;
	c->total = c->largest + CHUNK + LANES;
	c->shrink = c->total + CHUNK + LANES;
	c->acc = c->shrink + CHUNK + LANES;
	c->q = c->acc + CHUNK * c->ld_acc;
	memset(c->acc, 0, (size_t)queries * c->ld_acc * sizeof(float));
	for (int r = 0; r < queries + LANES; r++) {
		c->largest[r] = -INFINITY;
		c->total[r] = 0;
	}
	for (int r = 0; r < queries; r++) {
		const float *from = a->q + (size_t)(first + r) * a->ldq;
		float *to = c->q + r / ROWS_MAX * ROWS_MAX * c->dim + r % ROWS_MAX;
		if (r + ROWS_AHEAD < queries)
			for (int d = 0; d < c->dim; d += 64 / (int)sizeof *from)
				__builtin_prefetch(from + ROWS_AHEAD * a->ldq + d);
		for (int d = 0; d < c->dim; d++)
			to[d * ROWS_MAX] = from[d] * a->scale;
	}
}

/* Some queries of a group and one tile. */
struct pass {
	int rows; /* queries */
	int keys; /* that the last of them sees */
	int dim;
	enum kv_format format;
	const float *q;              /* [dim][ROWS_MAX] */
	const void *k, *v;           /* of one head */
	const void *next_k, *next_v; /* read after them, or NULL */
	float *weights;              /* [rows][KV_TILE] */
	float *acc;                  /* [rows][ld_acc] */
	const float *shrink;         /* [rows] */
	size_t ld_acc;
};

/*
 * A single query waits for memory: while it reads a matrix of one tile, as many bytes of that matrix of
 * the next tile (NULL: none) are asked for; after the last tile comes the first one of the next task.
 */
TILE_INLINE void fetch(const void *next, size_t from, size_t count, const int rows,
                const enum kv_format format) {
	size_t size = format == KV_BF16 ? 2 : 4;
	if (rows == 1 && next)
		for (size_t byte = from * size; byte < (from + count) * size; byte += 64)
			__builtin_prefetch((const char *)next + byte, 0, 2);
}

/* weights[r][key] = the dot of query r and key, for `vectors` vectors of keys. */
TILE_INLINE void scores_run(const struct pass *p, int key, const int rows, const int vectors,
                const enum kv_format format) {
	vec sum[ROWS_MAX][PASS_WIDE], k[PASS_WIDE];
	const float *q = p->q;
	UNROLL
	for (int r = 0; r < rows; r++) {
		UNROLL
		for (int j = 0; j < vectors; j++)
			sum[r][j] = vec_zero();
	}
	for (int d = 0; d < p->dim; d++, q += ROWS_MAX) {
		size_t at = (size_t)d * KV_TILE;
		fetch(p->next_k, at, KV_TILE, rows, format);
		kv_load_all(k, p->k, at + (size_t)key, vectors, format);
		UNROLL
		for (int r = 0; r < rows; r++) {
			vec from = vec_set(q[r]);
			UNROLL
			for (int j = 0; j < vectors; j++) {
				sum[r][j] = vec_fma(from, k[j], sum[r][j]);
				vec_keep(sum[r][j]);
			}
		}
	}
	UNROLL
	for (int r = 0; r < rows; r++) {
		join_pairs(sum[r], vectors, format);
		UNROLL
		for (int j = 0; j < vectors; j++)
			vec_store(p->weights + r * KV_TILE + key + j * LANES, sum[r][j]);
	}
}

/* acc[r][d] = acc[r][d] shrink[r] + the sum of weights[r][key] v[key][d], for `vectors` of d;
 * `partial`: one vector, of which `lanes` exist. */
TILE_INLINE void values_run(const struct pass *p, int d, int lanes, const int rows,
                const int vectors, const bool partial, const enum kv_format format) {
	vec sum[ROWS_MAX][PASS_WIDE], v[PASS_WIDE];
	size_t at = (size_t)d;
	const float *weights = p->weights;
	float *acc = p->acc + d;
	UNROLL
	for (int r = 0; r < rows; r++) {
		vec shrink = vec_set(p->shrink[r]);
		UNROLL
		for (int j = 0; j < vectors; j++)
			sum[r][j] = vec_mul(
			                vec_load(acc + (size_t)r * p->ld_acc + j * LANES), shrink);
		part_pairs(sum[r], vectors, format);
	}
	for (int key = 0; key < p->keys; key++, at += (size_t)p->dim) {
		fetch(p->next_v, at, (size_t)(vectors * LANES), rows, format);
		if (partial)
			v[0] = kv_load_first(p->v, at, lanes, format);
		else
			kv_load_all(v, p->v, at, vectors, format);
		UNROLL
		for (int r = 0; r < rows; r++) {
			vec from = vec_set(weights[r * KV_TILE + key]);
			UNROLL
			for (int j = 0; j < vectors; j++) {
				sum[r][j] = vec_fma(from, v[j], sum[r][j]);
				vec_keep(sum[r][j]);
			}
		}
	}
	UNROLL
	for (int r = 0; r < rows; r++) {
		join_pairs(sum[r], vectors, format);
		UNROLL
		for (int j = 0; j < vectors; j++)
			vec_store(acc + (size_t)r * p->ld_acc + j * LANES, sum[r][j]);
	}
}

/* All keys and all dims of a pass. A few queries take more vectors side by side. */
#define PASS(rows, name, format)                                                                   \
	static void scores_##name##_##rows(const struct pass *p) {                                 \
		const int wide = rows == 1 ? PASS_WIDE : 2;                                        \
		int key = 0;                                                                       \
		for (; key < p->keys - (rows == 1 ? 0 : LANES); key += wide * LANES)               \
			scores_run(p, key, rows, wide, format);                                    \
		for (; key < p->keys; key += LANES)                                                \
			scores_run(p, key, rows, 1, format);                                       \
	}                                                                                          \
	static void values_##name##_##rows(const struct pass *p) {                                 \
		const int wide = rows == 1 ? PASS_WIDE : 2;                                        \
		int d = 0;                                                                         \
		for (; d + wide * LANES <= p->dim; d += wide * LANES)                              \
			values_run(p, d, LANES, rows, wide, false, format);                        \
		for (; d + LANES <= p->dim; d += LANES)                                            \
			values_run(p, d, LANES, rows, 1, false, format);                           \
		if (d < p->dim)                                                                    \
			values_run(p, d, p->dim - d, rows, 1, true, format);                       \
	}
#define PASS_F32(rows, name) PASS(rows, name, KV_F32)
#define PASS_BF16(rows, name) PASS(rows, name, KV_BF16)

TILE_EACH(PASS_F32, f32)
TILE_EACH(PASS_BF16, bf16)

typedef void pass_function(const struct pass *p);
static pass_function *const pass_scores[KV_FORMATS][ROWS_MAX + 1] = {
	[KV_F32] = { TILE_EACH(TILE_ENTRY, scores_f32) },
	[KV_BF16] = { TILE_EACH(TILE_ENTRY, scores_bf16) },
};
static pass_function *const pass_values[KV_FORMATS][ROWS_MAX + 1] = {
	[KV_F32] = { TILE_EACH(TILE_ENTRY, values_f32) },
	[KV_BF16] = { TILE_EACH(TILE_ENTRY, values_bf16) },
};

/* Queries of a pass and what they see of its tile: the first `seen` keys, each next one `more` more,
 * but at most as many as the last one. */
struct view {
	int seen, more;
	float *largest, *total, *shrink; /* of the first query */
};

static inline int view_of(const struct pass *p, const struct view *view, int r) {
	int seen = view->seen + view->more * r;
	return seen < p->keys ? seen : p->keys;
}

/* The largest of the first `seen` scores, in `groups` groups of 16. */
TILE_INLINE float seen_largest(const float *scores, int seen, const int groups) {
	vec v[KEY_GROUPS * GROUP];
	UNROLL
	for (int i = 0; i < groups * GROUP; i++)
		v[i] = vec_load(scores + i * LANES);
	if (seen < groups * LANES_FIXED) {
		UNROLL
		for (int i = 0; i < groups * GROUP; i++)
			v[i] = vec_keep_first(v[i], vec_set(-INFINITY), seen - i * LANES);
	}
	UNROLL
	for (int i = GROUP; i < groups * GROUP; i++)
		v[i % GROUP] = vec_max(v[i], v[i % GROUP]);
	return lanes_max(v);
}

/* Scores to weights relative to `largest`; keys from `seen` on get 0. Returns their sum. */
TILE_INLINE float weigh(float *scores, int seen, float largest, const int groups) {
	vec v[KEY_GROUPS * GROUP];
	UNROLL
	for (int i = 0; i < groups * GROUP; i++)
		v[i] = vec_exp(vec_sub(vec_load(scores + i * LANES), vec_set(largest)));
	if (seen < groups * LANES_FIXED) {
		UNROLL
		for (int i = 0; i < groups * GROUP; i++)
			v[i] = vec_keep_first(v[i], vec_zero(), seen - i * LANES);
	}
	UNROLL
	for (int i = 0; i < groups * GROUP; i++)
		vec_store(scores + i * LANES, v[i]);
	UNROLL
	for (int i = GROUP; i < groups * GROUP; i++)
		v[i % GROUP] = vec_add(v[i % GROUP], v[i]);
	return lanes_sum(v);
}

/* All queries of a pass: scores to weights, and what is known of their maxima and sums so far. */
TILE_INLINE void weigh_pass(const struct pass *p, const struct view *view, const int groups) {
	float sums[ROWS_MAX + LANES];
	for (int r = 0; r < p->rows; r++)
		sums[r] = seen_largest(p->weights + r * KV_TILE, view_of(p, view, r), groups);
	for (int r = 0; r < p->rows; r += LANES) {
		int left = p->rows - r;
		vec old = vec_load(view->largest + r);
		vec now = vec_max(vec_load_first(sums + r, left), old);
		vec_store_first(view->shrink + r, vec_exp(vec_sub(old, now)), left);
		vec_store_first(view->largest + r, now, left);
	}
	for (int r = 0; r < p->rows; r++)
		sums[r] = weigh(p->weights + r * KV_TILE, view_of(p, view, r), view->largest[r],
		                groups);
	for (int r = 0; r < p->rows; r += LANES) {
		vec sum = vec_fma(vec_load(view->total + r), vec_load(view->shrink + r),
		                vec_load_first(sums + r, p->rows - r));
		vec_store_first(view->total + r, sum, p->rows - r);
	}
}

/* The queries [row, end) of a chunk, all of one group, and one tile; the first sees `seen` of its
 * keys. */
static void chunk_tile(
                struct chunk *c, const struct pass *tile, int row, int end, int seen, int more) {
	struct pass p = *tile;
	struct view view = { .seen = seen, .more = more };
	view.largest = c->largest + row;
	view.total = c->total + row;
	view.shrink = c->shrink + row;
	p.rows = end - row;
	p.q = c->q + row / ROWS_MAX * ROWS_MAX * c->dim + row % ROWS_MAX;
	p.acc = c->acc + (size_t)row * c->ld_acc;
	p.shrink = view.shrink;
	if (seen + more * (p.rows - 1) < p.keys)
		p.keys = seen + more * (p.rows - 1);
	pass_scores[p.format][p.rows](&p);
	switch ((p.keys + LANES_FIXED - 1) / LANES_FIXED) {
	case 1:
		weigh_pass(&p, &view, 1);
		break;
	case 2:
		weigh_pass(&p, &view, 2);
		break;
	case 3:
		weigh_pass(&p, &view, 3);
		break;
	default:
		weigh_pass(&p, &view, KEY_GROUPS);
	}
	pass_values[p.format][p.rows](&p);
}

static void chunk_end(const struct chunk *c) {
	const struct attend *a = c->a;
	for (int r = 0; r < c->queries; r++) {
		float *out = a->out + (size_t)(c->first + r) * a->ldo;
		vec inverse = vec_set(1.0f / c->total[r]);
		for (int d = 0; d < c->dim; d += LANES) {
			vec sum = vec_load(c->acc + (size_t)r * c->ld_acc + d);
			vec_store_first(out + d, vec_fma(sum, inverse, vec_zero()), c->dim - d);
		}
	}
}

static void attend_chunk(const struct attend *a, int query, int queries) {
	struct chunk c;
	bool causal = a->keys == 0;
	int first = a->first + query, all = causal ? first + queries : a->keys;
	chunk_begin(&c, a, query, queries);
	struct pass p = { .dim = c.dim, .format = a->format, .weights = c.weights };
	p.ld_acc = c.ld_acc;
	for (int tile = 0; tile * KV_TILE < all; tile++) {
		int base = tile * KV_TILE; /* queries before this position have seen all their keys */
		int row = causal && first < base ? base - first : 0;
		p.keys = all - base < KV_TILE ? all - base : KV_TILE;
		p.k = block_keys(a, tile);
		p.v = block_values(a, tile);
		const struct attend *after = base + KV_TILE < all ? a : a->next;
		p.next_k = after ? block_keys(after, after == a ? tile + 1 : 0) : NULL;
		p.next_v = after ? block_values(after, after == a ? tile + 1 : 0) : NULL;
		for (int end; row < queries; row = end) {
			end = (row / ROWS_MAX + 1) * ROWS_MAX;
			end = end < queries ? end : queries;
			chunk_tile(&c, &p, row, end, causal ? first + row - base + 1 : p.keys,
			                causal);
		}
	}
	chunk_end(&c);
}

static void vec_attend(const struct attend *a) {
	for (int query = 0; query < a->queries; query += CHUNK) {
		int left = a->queries - query;
		attend_chunk(a, query, left < CHUNK ? left : CHUNK);
	}
}
