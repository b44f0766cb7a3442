/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of an overlay: up to ROWS_MAX queries side by side through the micro-kernel, once as
 * queries x dims x keys and once as queries x keys x dims, with the softmax of each row between.
 * Part of model/vector_ops.h.
 */

/* Scratch of one group of queries: three matrices, a row for each query. */
struct group {
	int dim;
	size_t ldq, ld_acc;
	float *q;       /* [ROWS_MAX][ldq] scaled queries */
	float *acc;     /* [ROWS_MAX][ld_acc] sums of values */
	float *weights; /* [ROWS_MAX][64] of one tile */
	float largest[ROWS_MAX], total[ROWS_MAX];
};

static size_t round_up(size_t n, size_t unit) {
	return (n + unit - 1) / unit * unit;
}

static size_t vec_attend_scratch(int head_dim) {
	return ROWS_MAX * (2 * round_up((size_t)head_dim, 2 * LANES) + KV_TILE);
}

static void group_begin(struct group *g, const struct attend *a, int query, int queries) {
	g->dim = a->head_dim;
	g->ldq = g->ld_acc = round_up((size_t)a->head_dim, 2 * LANES);
	g->q = a->scratch;
	g->acc = g->q + ROWS_MAX * g->ldq;
	g->weights = g->acc + ROWS_MAX * g->ld_acc;
	memset(g->acc, 0, (size_t)queries * g->ld_acc * sizeof(float));
	for (int r = 0; r < queries; r++) {
		const float *q = a->q + (size_t)(query + r) * a->ldq;
		for (int d = 0; d < a->head_dim; d++)
			g->q[(size_t)r * g->ldq + (size_t)d] = q[d] * a->scale;
		g->largest[r] = -INFINITY;
		g->total[r] = 0;
	}
}

/*
 * A single query waits for memory: while it reads one matrix of a tile, the next one (NULL: none) is
 * fetched, as many bytes at a time.
 */
static void fetch_next(struct tile *t, int rows, const float *next) {
	if (rows > 1 || !next)
		return;
	t->ahead = (const char *)next;
	t->lines = TILE_STEP * (int)t->ldb / 64;
}

/* weights[r][key] = the dot of query r and key, for keys below `keys` at least. */
static void group_scores(struct group *g, const float *block, const float *next, int row, int rows,
                int keys) {
	struct tile t = { .ldc = KV_TILE, .fresh = true };
	t.ldx = g->ldq * sizeof(float);
	t.ldb = KV_TILE * sizeof(float);
	t.x = g->q + (size_t)row * g->ldq;
	t.count = g->dim;
	int pair = rows == 1 ? TILE_WIDE * LANES : 2 * LANES;
	tile_function *run = rows == 1 ? tile_one : tiles_pair[rows];
	fetch_next(&t, rows, next);
	for (int key = 0; key < keys; key += pair) {
		t.b = block + key;
		t.c = g->weights + row * KV_TILE + key;
		run(&t);
	}
}

/*
 * Turns query r's scores into weights relative to the largest so far and scales its sums to it.
 * Weights of keys from `seen` up to `keys` become 0.
 */
static void group_weigh(struct group *g, int r, int seen, int keys) {
	float *weights = g->weights + r * KV_TILE, *acc = g->acc + (size_t)r * g->ld_acc;
	float now = mathf_max(row_max(weights, seen), g->largest[r]);
	float shrink = mathf_exp(g->largest[r] - now);
	vec lanes[GROUP];
	for (int i = 0; i < GROUP; i++)
		lanes[i] = vec_zero();
	for (int key = 0; key < keys; key += LANES_FIXED) {
		for (int i = 0; i < GROUP; i++) {
			float *at = weights + key + i * LANES;
			vec w = vec_exp(vec_sub(vec_load(at), vec_set(now)));
			w = vec_keep_first(w, vec_zero(), seen - key - i * LANES);
			lanes[i] = vec_add(lanes[i], w);
			vec_store(at, w);
		}
	}
	g->largest[r] = now;
	g->total[r] = __builtin_fmaf(g->total[r], shrink, lanes_sum(lanes));
	for (size_t d = 0; d < g->ld_acc; d += LANES)
		vec_store(acc + d, vec_mul(vec_load(acc + d), vec_set(shrink)));
}

/* acc[r][d] += weights[r][key] * values[key][d] */
static void group_values(struct group *g, const float *block, const float *next, int row, int rows,
                int keys) {
	struct tile t = { .ldc = g->ld_acc };
	t.ldx = KV_TILE * sizeof(float);
	t.ldb = (size_t)g->dim * sizeof(float);
	t.x = g->weights + row * KV_TILE;
	t.count = keys;
	fetch_next(&t, rows, next);
	for (int d = 0; d < g->dim;) {
		int left = g->dim - d;
		t.b = block + d;
		t.c = g->acc + (size_t)row * g->ld_acc + d;
		if (rows == 1 && left >= TILE_WIDE * LANES) {
			tile_one(&t);
			d += TILE_WIDE * LANES;
		} else if (left >= 2 * LANES) {
			tiles_pair[rows](&t);
			d += 2 * LANES;
		} else {
			t.lanes = left;
			tiles_rest[rows](&t);
			d += LANES;
		}
		t.lines = 0;
	}
}

static void attend_group(const struct attend *a, int query, int queries) {
	struct group g;
	bool causal = a->keys == 0;
	int first = a->first + query, all = causal ? first + queries : a->keys;
	group_begin(&g, a, query, queries);
	for (int tile = 0; tile * KV_TILE < all; tile++) {
		int base = tile * KV_TILE; /* queries before this position have seen all their keys */
		int row = causal && first < base ? base - first : 0;
		int keys = all - base < KV_TILE ? all - base : KV_TILE;
		const float *values = block_values(a, tile);
		const float *next = base + KV_TILE < all ? block_keys(a, tile + 1) : NULL;
		group_scores(&g, block_keys(a, tile), values, row, queries - row, keys);
		for (int r = row; r < queries; r++) {
			int seen = causal ? first + r - base + 1 : keys;
			group_weigh(&g, r, seen < keys ? seen : keys, keys);
		}
		group_values(&g, values, next, row, queries - row, keys);
	}
	for (int r = 0; r < queries; r++) {
		float *out = a->out + (size_t)(query + r) * a->ldo;
		vec inverse = vec_set(1.0f / g.total[r]);
		for (int d = 0; d < g.dim; d += LANES) {
			vec sum = vec_load(g.acc + (size_t)r * g.ld_acc + d);
			vec_store_first(out + d, vec_fma(sum, inverse, vec_zero()), g.dim - d);
		}
	}
}

static void vec_attend(const struct attend *a) {
	for (int query = 0; query < a->queries; query += ROWS_MAX) {
		int left = a->queries - query;
		attend_group(a, query, left < ROWS_MAX ? left : ROWS_MAX);
	}
}
