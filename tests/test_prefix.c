/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The prefix cache: what it holds and gives up, held against a list of texts kept by hand; and that
 * a sequence which begins with cached blocks computes the same bits as one that runs all of its
 * text, at every depth, with either format of keys and values, and whatever was evicted between.
 */
#include "model/prefix.h"

#include "model/model.h"
#include "model/workspace.h"
#include "tests/allocations.h"
#include "tests/check.h"
#include "tests/random_model.h"

/* ---- against a list of texts ----------------------------------------------------------------- */

enum { PLANS = 3, SCOPES = 3, MOST_TILES = 5, MOST_HELD = 256, BLOCKS = 40, LIVE = 5 };

/* A text is a row of tiles, and a tile is 64 times one of three tokens. */
struct text {
	int plan, scope, tiles;
	int tile[MOST_TILES];
};

struct held {
	struct text text;
	size_t block[4]; /* of its last tile, by rank */
	long used;       /* when */
};

/* A sequence: the blocks of its text, taken from the cache or its own. */
struct live {
	bool open;
	struct text text;
	void *table[4 * MOST_TILES];
};

static struct plan plans[PLANS];
static const struct prefix_scope scopes[SCOPES] = { { 0, NULL, 0 }, { 7, NULL, 0 },
	{ 0, "pepper", 6 } };

struct world {
	struct kv_pool pool;
	struct prefix *prefix;
	size_t most;
	struct held held[MOST_HELD];
	int n_held;
	long now;
	uint64_t evicted;
	struct live live[LIVE];
};

static void make_plans(void) {
	for (int i = 0; i < PLANS; i++)
		plan_by_rule(PLAN_RULE_EVEN, 4, i + 1, &plans[i]);
}

static void world_open(struct world *w, size_t most) {
	char err[100];
	memset(w, 0, sizeof *w);
	make_plans();
	CHECK(kv_init(&w->pool, 64, (size_t)BLOCKS * 64, err, sizeof err));
	w->prefix = prefix_create(&w->pool, most);
	CHECK(w->prefix);
	w->most = most;
}

static void world_close(struct world *w) {
	prefix_destroy(w->prefix);
	CHECK_INT(w->pool.n_free, BLOCKS);
	CHECK_INT(w->pool.n_idle, 0);
	kv_finish(&w->pool);
}

static struct text random_text(uint64_t *seed) {
	struct text t = { .plan = (int)random_below(seed, PLANS),
		.scope = (int)random_below(seed, SCOPES),
		.tiles = 1 + (int)random_below(seed, MOST_TILES) };
	for (int i = 0; i < t.tiles; i++)
		t.tile[i] = (int)random_below(seed, 3);
	return t;
}

static int write_tokens(const struct text *t, int32_t *tokens) {
	for (int i = 0; i < t->tiles * KV_TILE; i++)
		tokens[i] = t->tile[i / KV_TILE] + 10;
	return t->tiles * KV_TILE;
}

static struct text cut(struct text t, int tiles) {
	t.tiles = tiles;
	return t;
}

/* Whether `a` begins with all of `b`, at the same plan and scope. */
static bool begins_with(const struct text *a, const struct text *b) {
	return a->plan == b->plan && a->scope == b->scope && a->tiles >= b->tiles
	                && memcmp(a->tile, b->tile, (size_t)b->tiles * sizeof b->tile[0]) == 0;
}

static struct held *naive_find(struct world *w, struct text t) {
	for (int i = 0; i < w->n_held; i++) {
		if (w->held[i].text.tiles == t.tiles && begins_with(&w->held[i].text, &t))
			return &w->held[i];
	}
	return NULL;
}

static bool naive_is_leaf(const struct world *w, const struct held *h) {
	for (int i = 0; i < w->n_held; i++) {
		if (&w->held[i] != h && begins_with(&w->held[i].text, &h->text))
			return false;
	}
	return true;
}

static bool naive_in_use(const struct world *w, size_t block) {
	for (int i = 0; i < LIVE; i++) {
		const struct live *l = &w->live[i];
		for (int k = 0; l->open && k < 4 * MOST_TILES; k++) {
			if (l->table[k] && kv_index(&w->pool, l->table[k]) == block)
				return true;
		}
	}
	return false;
}

static bool naive_is_idle(const struct world *w, const struct held *h) {
	for (int r = 0; r <= h->text.plan; r++) {
		if (!naive_in_use(w, h->block[r]))
			return true;
	}
	return false;
}

/* The one that must go first: without children, idle if there is such a one, then the oldest. */
static struct held *naive_victim(struct world *w, const struct held *keep) {
	struct held *victim = NULL;
	for (int idle = 1; idle >= 0 && !victim; idle--) {
		for (int i = 0; i < w->n_held; i++) {
			struct held *h = &w->held[i];
			if (h == keep || !naive_is_leaf(w, h) || (idle && !naive_is_idle(w, h)))
				continue;
			if (!victim || h->used < victim->used)
				victim = h;
		}
	}
	return victim;
}

static void naive_evict(struct world *w, struct held *h) {
	w->evicted += (uint64_t)h->text.plan + 1;
	*h = w->held[--w->n_held];
}

static size_t naive_blocks(const struct world *w) {
	size_t n = 0;
	for (int i = 0; i < w->n_held; i++)
		n += (size_t)w->held[i].text.plan + 1;
	return n;
}

static int naive_longest(struct world *w, const struct text *t) {
	int tiles = 0;
	while (tiles < t->tiles && naive_find(w, cut(*t, tiles + 1)))
		tiles++;
	return tiles;
}

/* The end of a path is used first, its root last. */
static void naive_use(struct world *w, const struct text *t, int tiles) {
	for (; tiles > 0; tiles--)
		naive_find(w, cut(*t, tiles))->used = ++w->now;
}

static void naive_enter(struct world *w, const struct live *l) {
	int tiles = 0;
	for (; tiles < l->text.tiles; tiles++) {
		struct text t = cut(l->text, tiles + 1);
		if (naive_find(w, t))
			continue;
		size_t depth = (size_t)t.plan + 1;
		if (depth > w->most)
			break;
		while (naive_blocks(w) + depth > w->most) {
			/* What it hangs on stays. */
			struct held *parent = tiles > 0 ? naive_find(w, cut(t, tiles)) : NULL;
			struct held *victim = naive_victim(w, parent);
			if (!victim)
				goto full;
			naive_evict(w, victim);
		}
		CHECK(w->n_held < MOST_HELD);
		struct held *h = &w->held[w->n_held++];
		*h = (struct held){ .text = t, .used = ++w->now };
		for (size_t r = 0; r < depth; r++)
			h->block[r] = kv_index(&w->pool, l->table[r * MOST_TILES + (size_t)tiles]);
	}
full:
	naive_use(w, &l->text, tiles);
}

static void check_same(struct world *w, uint64_t *seed) {
	int32_t tokens[MOST_TILES * KV_TILE];
	struct prefix_counts counts;
	prefix_count(w->prefix, &counts);
	CHECK_INT(counts.blocks, naive_blocks(w));
	CHECK_INT(counts.entries, w->n_held);
	CHECK_INT(counts.evicted, w->evicted);
	CHECK(counts.blocks <= w->most);
	size_t idle = 0;
	for (int i = 0; i < w->n_held; i++) {
		for (int r = 0; r <= w->held[i].text.plan; r++)
			idle += !naive_in_use(w, w->held[i].block[r]);
	}
	CHECK_INT(w->pool.n_idle, idle);
	for (int i = 0; i < 8; i++) {
		struct text t = random_text(seed);
		int n = write_tokens(&t, tokens);
		CHECK_INT(prefix_find(w->prefix, &plans[t.plan], &scopes[t.scope], tokens, n),
		                naive_longest(w, &t) * KV_TILE);
	}
}

/* Blocks are taken as a step would, and the cache gives way. */
static void take_rest(struct world *w, struct live *l, int from) {
	for (int r = 0; r <= l->text.plan; r++) {
		for (int t = from; t < l->text.tiles; t++) {
			for (bool freed = w->pool.n_free > 0; !freed;) {
				struct held *victim = naive_victim(w, NULL);
				freed = naive_is_idle(w, victim);
				naive_evict(w, victim);
			}
			l->table[r * MOST_TILES + t] = kv_take(&w->pool);
		}
	}
	kv_forget(&w->pool);
}

static void begin(struct world *w, struct live *l, uint64_t *seed) {
	int32_t tokens[MOST_TILES * KV_TILE];
	struct prefix_path path;
	struct text t = random_text(seed);
	int n = write_tokens(&t, tokens), depth = t.plan + 1;
	prefix_lookup(w->prefix, &plans[t.plan], &scopes[t.scope], tokens, n, &path);
	CHECK_INT(path.tiles, naive_longest(w, &t));
	size_t needed = (size_t)(depth * (t.tiles - path.tiles));
	if (needed + path.idle > kv_available(&w->pool))
		return;
	memset(l, 0, sizeof *l);
	l->text = t;
	prefix_take(w->prefix, &path, l->table, MOST_TILES);
	for (int tile = 0; tile < path.tiles; tile++) {
		const struct held *h = naive_find(w, cut(t, tile + 1));
		for (int r = 0; r < depth; r++)
			CHECK_INT(kv_index(&w->pool, l->table[r * MOST_TILES + tile]), h->block[r]);
	}
	l->open = true;
	naive_use(w, &t, path.tiles);
	CHECK(kv_promise(&w->pool, needed));
	take_rest(w, l, path.tiles);
}

static void finish(struct world *w, struct live *l, bool enters) {
	int32_t tokens[MOST_TILES * KV_TILE];
	int n = write_tokens(&l->text, tokens), part = n / 3;
	struct prefix_text text = { tokens, part, tokens + part, n - part };
	if (enters) {
		prefix_enter(w->prefix, &plans[l->text.plan], &scopes[l->text.scope], &text,
		                l->table, MOST_TILES);
		naive_enter(w, l);
	}
	l->open = false;
	for (int i = 0; i < 4 * MOST_TILES; i++) {
		if (l->table[i])
			kv_release(&w->pool, l->table[i]);
	}
}

static void run_world(size_t most, uint64_t seed, int steps) {
	struct world w;
	world_open(&w, most);
	for (int i = 0; i < steps; i++) {
		struct live *l = &w.live[random_below(&seed, LIVE)];
		if (!l->open)
			begin(&w, l, &seed);
		else
			finish(&w, l, random_below(&seed, 4) > 0);
		check_same(&w, &seed);
	}
	for (int i = 0; i < LIVE; i++) {
		if (w.live[i].open)
			finish(&w, &w.live[i], false);
	}
	world_close(&w);
}

TEST(what_is_held_and_given_up_is_what_a_list_of_texts_says) {
	for (uint64_t seed = 1; seed <= 6; seed++) {
		run_world(BLOCKS, seed, 1500);
		run_world(12, seed + 100, 1500);
		run_world(2, seed + 200, 500);
	}
}

static void count_texts(void *arg, uint64_t hash, bool held) {
	int64_t *sum = arg;
	(void)hash;
	*sum += held ? 1 : -1;
}

TEST(who_watches_is_told_of_each_text_that_comes_and_goes) {
	struct world w;
	struct prefix_counts counts;
	int64_t sum = 0;
	uint64_t seed = 5;
	world_open(&w, 10);
	prefix_watch(w.prefix, count_texts, &sum);
	for (int i = 0; i < 300; i++) {
		struct live *l = &w.live[0];
		if (!l->open)
			begin(&w, l, &seed);
		else
			finish(&w, l, true);
		prefix_count(w.prefix, &counts);
		CHECK_INT(sum, counts.entries);
	}
	CHECK(counts.evicted > 0);
	if (w.live[0].open)
		finish(&w, &w.live[0], false);
	world_close(&w);
}

TEST(more_scopes_than_there_is_room_for_push_out_the_oldest) {
	struct world w;
	char salt[8];
	world_open(&w, 4);
	for (int i = 0; i < 10000; i++) {
		int32_t tokens[KV_TILE] = { 1 };
		struct prefix_scope scope = { 0, salt, 0 };
		scope.salt_len = (size_t)snprintf(salt, sizeof salt, "%d", i);
		CHECK(kv_promise(&w.pool, 1));
		void *block = kv_take(&w.pool);
		kv_forget(&w.pool);
		prefix_enter(w.prefix, &plans[0], &scope, &(struct prefix_text){ tokens, KV_TILE },
		                &block, 1);
		kv_release(&w.pool, block);
		CHECK_INT(prefix_find(w.prefix, &plans[0], &scope, tokens, KV_TILE), KV_TILE);
	}
	CHECK_INT(w.pool.n_idle, 4);
	world_close(&w);
}

/* ---- in a workspace -------------------------------------------------------------------------- */

enum { VOCAB = 89, CONTEXT = 320, ROWS = 96, SEQUENCES = 12, PROMPT = 210, LAYERS = 6 };

static const struct prefix_scope anybody = { 0, NULL, 0 };

struct rig {
	struct model *model;
	struct team *team;
	struct workspace *w, *plain; /* with and without a cache */
};

static struct workspace *workspace_for(
                const struct rig *rig, enum kv_format kv, size_t bytes, int percent) {
	char err[200] = "";
	struct workspace_options options = { .team = rig->team,
		.max_rows = ROWS,
		.max_logit_rows = 4,
		.max_sequences = SEQUENCES,
		.kv_bytes = bytes,
		.kv = kv,
		.prefix_percent = percent };
	struct workspace *w = workspace_create(rig->model, &options, err, sizeof err);
	if (!w)
		check_fail(__FILE__, __LINE__, "%s", err);
	return w;
}

static void rig_open(struct rig *rig, enum kv_format kv, size_t bytes) {
	static const struct stack_facts shape = { .layers = LAYERS,
		.dim = 32,
		.heads = 2,
		.ffn = 64,
		.norm = NORM_PRE,
		.final_norm = true,
		.activation = ACTIVATION_GELU_TANH,
		.positions = POSITIONS_LEARNED };
	const struct ops *tables[CPU_LEVELS + 1];
	const struct ops *best = tables[random_model_tables(tables) - 1];
	char err[200] = "";
	rig->model = random_model_create(best, &shape, VOCAB, CONTEXT, true);
	rig->team = team_create(2, err, sizeof err);
	CHECK(rig->team);
	rig->w = workspace_for(rig, kv, bytes, 100);
	rig->plain = workspace_for(rig, kv, (size_t)16 << 20, 0);
}

static void rig_close(struct rig *rig) {
	CHECK_INT(workspace_blocks_reserved(rig->w), 0);
	workspace_destroy(rig->w);
	workspace_destroy(rig->plain);
	team_destroy(rig->team);
	random_model_destroy(rig->model);
}

static struct subnet subnet_of(int depth) {
	struct plan plan;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, depth, &plan);
	return random_model_subnet(&plan);
}

static void random_tokens(uint64_t seed, int32_t *tokens, int n) {
	for (int i = 0; i < n; i++)
		tokens[i] = (int32_t)random_below(&seed, VOCAB);
}

/* Runs the rest of tokens[0..n) in chunks, and takes the last one's scores. */
static void run_text(struct workspace *w, struct sequence *s, const int32_t *tokens, int n,
                int chunk, float *ret_logits) {
	struct row rows[ROWS];
	int count = 0;
	while (sequence_length(s) < n) {
		int from = sequence_length(s);
		for (count = 0; count < chunk && from + count < n; count++)
			rows[count] = (struct row){ .sequence = s,
				.stack = STACK_DECODER,
				.token = tokens[from + count],
				.position = from + count };
		step_run(w, rows, count);
	}
	int last = count - 1;
	memcpy(ret_logits, step_logits(w, &last, 1), VOCAB * sizeof *ret_logits);
}

static void plain_logits(struct rig *rig, const struct subnet *subnet, const int32_t *tokens, int n,
                float *ret_logits) {
	struct sequence *s = sequence_open(rig->plain, subnet, n);
	CHECK(s);
	run_text(rig->plain, s, tokens, n, 37, ret_logits);
	sequence_close(rig->plain, s);
}

static void remember(struct rig *rig, const struct sequence *s, const int32_t *tokens, int n) {
	sequence_remember(rig->w, s, &anybody, &(struct prefix_text){ tokens, n, NULL, 0 });
}

/* Opens with what is cached, runs the rest and compares; returns the tokens that were cached. */
static int check_bits(struct rig *rig, const struct subnet *subnet, const int32_t *tokens, int n,
                int chunk, bool keep) {
	float expected[VOCAB], logits[VOCAB];
	struct sequence *s = sequence_open_cached(rig->w, subnet, n + 5, &anybody, tokens, n);
	CHECK(s);
	int cached = sequence_length(s);
	CHECK(cached % KV_TILE == 0 && cached < n);
	run_text(rig->w, s, tokens, n, chunk, logits);
	plain_logits(rig, subnet, tokens, n, expected);
	CHECK(memcmp(logits, expected, sizeof logits) == 0);
	if (keep)
		remember(rig, s, tokens, n);
	sequence_close(rig->w, s);
	return cached;
}

static void check_every_depth(enum kv_format kv) {
	struct rig rig;
	int32_t tokens[PROMPT + 60];
	rig_open(&rig, kv, (size_t)8 << 20);
	random_tokens(3, tokens, PROMPT + 60);
	for (int depth = 1; depth <= LAYERS; depth++) {
		struct subnet subnet = subnet_of(depth);
		/* Each plan is its own. */
		CHECK_INT(check_bits(&rig, &subnet, tokens, PROMPT, 50, true), 0);
		CHECK_INT(check_bits(&rig, &subnet, tokens, PROMPT, 96, true), 192);
		CHECK_INT(check_bits(&rig, &subnet, tokens, PROMPT + 60, 7, true), 192);
		CHECK_INT(check_bits(&rig, &subnet, tokens, PROMPT + 60, 7, true), 256);
		/* Another tail. */
		tokens[150]++;
		CHECK_INT(check_bits(&rig, &subnet, tokens, PROMPT, 30, false), 128);
		tokens[150]--;
	}
	rig_close(&rig);
}

TEST(a_cached_beginning_changes_no_bit_at_any_depth) {
	check_every_depth(KV_F32);
	check_every_depth(KV_BF16);
}

TEST(the_last_token_of_a_prompt_always_runs) {
	struct rig rig;
	int32_t tokens[192];
	struct subnet subnet = subnet_of(3);
	rig_open(&rig, KV_F32, (size_t)8 << 20);
	random_tokens(4, tokens, 192);
	check_bits(&rig, &subnet, tokens, 192, 64, true);
	CHECK_INT(check_bits(&rig, &subnet, tokens, 128, 64, false), 64);
	CHECK_INT(check_bits(&rig, &subnet, tokens, 129, 64, false), 128);
	CHECK_INT(check_bits(&rig, &subnet, tokens, 64, 64, false), 0);
	CHECK_INT(check_bits(&rig, &subnet, tokens, 1, 64, false), 0);
	rig_close(&rig);
}

TEST(scopes_share_nothing) {
	struct rig rig;
	int32_t tokens[100];
	struct subnet subnet = subnet_of(2);
	const struct plan *plan = &subnet.stack[STACK_DECODER];
	const struct prefix_scope own = { 1, NULL, 0 }, salted = { 1, "a", 1 },
	                          other = { 1, "b", 1 };
	rig_open(&rig, KV_F32, (size_t)8 << 20);
	random_tokens(5, tokens, 100);
	struct sequence *s = sequence_open_cached(rig.w, &subnet, 100, &salted, tokens, 100);
	float ignored[VOCAB];
	run_text(rig.w, s, tokens, 100, 50, ignored);
	sequence_remember(rig.w, s, &salted, &(struct prefix_text){ tokens, 100, NULL, 0 });
	sequence_close(rig.w, s);
	const struct prefix *prefix = workspace_prefix(rig.w);
	CHECK_INT(prefix_find(prefix, plan, &salted, tokens, 100), 64);
	CHECK_INT(prefix_find(prefix, plan, &own, tokens, 100), 0);
	CHECK_INT(prefix_find(prefix, plan, &other, tokens, 100), 0);
	CHECK_INT(prefix_find(prefix, plan, &anybody, tokens, 100), 0);
	rig_close(&rig);
}

TEST(nothing_of_a_sequence_that_stepped_down_enters) {
	struct rig rig;
	int32_t tokens[PROMPT];
	float ignored[VOCAB];
	struct prefix_counts counts;
	struct subnet full = subnet_of(6), half = subnet_of(3);
	rig_open(&rig, KV_F32, (size_t)8 << 20);
	random_tokens(6, tokens, PROMPT);
	struct sequence *s = sequence_open(rig.w, &full, PROMPT);
	run_text(rig.w, s, tokens, 130, 65, ignored);
	CHECK(sequence_narrow(rig.w, s, &half));
	run_text(rig.w, s, tokens, PROMPT, 65, ignored);
	struct sequence *fork = sequence_fork(rig.w, s, PROMPT);
	remember(&rig, s, tokens, PROMPT);
	remember(&rig, fork, tokens, PROMPT);
	prefix_count(workspace_prefix(rig.w), &counts);
	CHECK_INT(counts.blocks, 0);
	sequence_close(rig.w, s);
	sequence_close(rig.w, fork);
	rig_close(&rig);
}

TEST(a_sequence_may_step_down_from_cached_blocks) {
	struct rig rig;
	int32_t tokens[PROMPT];
	float ignored[VOCAB];
	struct subnet full = subnet_of(6), half = subnet_of(3);
	rig_open(&rig, KV_F32, (size_t)8 << 20);
	random_tokens(7, tokens, PROMPT);
	check_bits(&rig, &full, tokens, PROMPT, 64, true);
	struct sequence *s = sequence_open_cached(rig.w, &full, PROMPT, &anybody, tokens, PROMPT);
	CHECK_INT(sequence_length(s), 192);
	CHECK(sequence_narrow(rig.w, s, &half));
	run_text(rig.w, s, tokens, PROMPT, 64, ignored);
	sequence_close(rig.w, s);
	/* What the full plan has is whole. */
	CHECK_INT(check_bits(&rig, &full, tokens, PROMPT, 64, false), 192);
	CHECK_INT(check_bits(&rig, &half, tokens, PROMPT, 64, false), 0);
	rig_close(&rig);
}

TEST(rows_beyond_the_text_do_not_enter) {
	struct rig rig;
	int32_t tokens[PROMPT], other[PROMPT];
	float ignored[VOCAB];
	struct subnet subnet = subnet_of(4);
	rig_open(&rig, KV_F32, (size_t)8 << 20);
	random_tokens(8, tokens, PROMPT);
	memcpy(other, tokens, sizeof other);
	for (int i = 120; i < PROMPT; i++)
		other[i] = (tokens[i] + 1) % VOCAB;
	/* 120 tokens are the text; what was run behind them was a draft. */
	struct sequence *s = sequence_open(rig.w, &subnet, PROMPT);
	run_text(rig.w, s, other, PROMPT, 64, ignored);
	remember(&rig, s, tokens, 120);
	sequence_close(rig.w, s);
	CHECK_INT(check_bits(&rig, &subnet, tokens, PROMPT, 64, false), 64);
	rig_close(&rig);
}

TEST(forks_share_cached_blocks) {
	struct rig rig;
	int32_t tokens[PROMPT + 40], tail[PROMPT + 40];
	float expected[VOCAB], logits[VOCAB];
	struct subnet subnet = subnet_of(5);
	rig_open(&rig, KV_BF16, (size_t)8 << 20);
	random_tokens(9, tokens, PROMPT + 40);
	memcpy(tail, tokens, sizeof tail);
	random_tokens(10, tail + PROMPT, 40);
	check_bits(&rig, &subnet, tokens, PROMPT, 64, true);
	struct sequence *a =
	                sequence_open_cached(rig.w, &subnet, PROMPT + 40, &anybody, tokens, PROMPT);
	run_text(rig.w, a, tokens, PROMPT, 64, logits);
	struct sequence *b = sequence_fork(rig.w, a, PROMPT + 40);
	CHECK(b);
	run_text(rig.w, a, tokens, PROMPT + 40, 1, logits);
	plain_logits(&rig, &subnet, tokens, PROMPT + 40, expected);
	CHECK(memcmp(logits, expected, sizeof logits) == 0);
	remember(&rig, a, tokens, PROMPT + 40);
	run_text(rig.w, b, tail, PROMPT + 40, 1, logits);
	plain_logits(&rig, &subnet, tail, PROMPT + 40, expected);
	CHECK(memcmp(logits, expected, sizeof logits) == 0);
	remember(&rig, b, tail, PROMPT + 40);
	sequence_close(rig.w, a);
	sequence_close(rig.w, b);
	rig_close(&rig);
}

/* Blocks of one layer at this shape, in f32. */
static size_t pool_of(size_t blocks) {
	return blocks * 2 * KV_TILE * 32 * sizeof(float);
}

TEST(cached_blocks_give_way_and_answers_stay) {
	struct rig rig;
	int32_t tokens[8][PROMPT];
	uint64_t seed = 11;
	struct prefix_counts counts;
	/* Two texts at full depth and a little. */
	rig_open(&rig, KV_F32, pool_of(2 * 4 * LAYERS + 5));
	for (int i = 0; i < 8; i++) {
		random_tokens(20 + (uint64_t)i % 4, tokens[i], PROMPT);
		random_tokens(40 + (uint64_t)i, tokens[i] + 100, PROMPT - 100);
	}
	int hits = 0;
	for (int i = 0; i < 60; i++) {
		struct subnet subnet = subnet_of(1 + (int)random_below(&seed, LAYERS));
		int n = 65 + (int)random_below(&seed, PROMPT - 65);
		hits += check_bits(&rig, &subnet, tokens[random_below(&seed, 8)], n, 41, true) > 0;
		CHECK_INT(workspace_blocks_reserved(rig.w), 0);
	}
	CHECK(hits > 0);
	prefix_count(workspace_prefix(rig.w), &counts);
	CHECK(counts.evicted > 0);
	/* All of the pool can still be had at once. */
	size_t total = workspace_blocks_total(rig.w);
	struct sequence *open[SEQUENCES];
	int n_open = 0;
	struct subnet full = subnet_of(LAYERS);
	float ignored[VOCAB];
	for (size_t left = total; left >= 4 * LAYERS; left -= 4 * LAYERS) {
		open[n_open] = sequence_open(rig.w, &full, PROMPT);
		CHECK(open[n_open]);
		run_text(rig.w, open[n_open++], tokens[0], PROMPT, 64, ignored);
	}
	CHECK_INT(n_open, 2);
	CHECK(!sequence_open(rig.w, &full, PROMPT));
	for (int i = 0; i < n_open; i++)
		sequence_close(rig.w, open[i]);
	rig_close(&rig);
}

TEST(promised_blocks_are_not_taken_by_hits) {
	struct rig rig;
	int32_t tokens[PROMPT];
	float ignored[VOCAB];
	struct subnet full = subnet_of(LAYERS);
	rig_open(&rig, KV_F32, pool_of(2 * 4 * LAYERS));
	random_tokens(12, tokens, PROMPT);
	check_bits(&rig, &full, tokens, PROMPT, 64, true);
	/* Promises all but one text's room; nothing of it is taken yet. */
	struct sequence *first = sequence_open(rig.w, &full, PROMPT);
	struct sequence *second =
	                sequence_open_cached(rig.w, &full, PROMPT, &anybody, tokens, PROMPT);
	CHECK(first && second);
	CHECK_INT(sequence_length(second), 192);
	CHECK_INT(workspace_blocks_reserved(rig.w), workspace_blocks_total(rig.w));
	/* What is in use is shared and needs no room; one more tile does. */
	CHECK(!sequence_open_cached(rig.w, &full, PROMPT, &anybody, tokens, PROMPT));
	run_text(rig.w, first, tokens, PROMPT, 64, ignored);
	run_text(rig.w, second, tokens, PROMPT, 64, ignored);
	sequence_close(rig.w, first);
	sequence_close(rig.w, second);
	rig_close(&rig);
}

TEST(a_hit_is_refused_where_its_idle_blocks_are_promised_to_others) {
	struct rig rig;
	int32_t tokens[PROMPT];
	struct subnet full = subnet_of(LAYERS);
	rig_open(&rig, KV_F32, pool_of(2 * 4 * LAYERS));
	random_tokens(15, tokens, PROMPT);
	check_bits(&rig, &full, tokens, PROMPT, 64, true);
	/* Five tiles of eight are promised: of four, three are cached, there are but three. */
	struct sequence *first = sequence_open(rig.w, &full, 5 * KV_TILE);
	CHECK(first);
	CHECK(!sequence_open_cached(rig.w, &full, PROMPT, &anybody, tokens, PROMPT));
	sequence_close(rig.w, first);
	CHECK_INT(check_bits(&rig, &full, tokens, PROMPT, 64, false), 192);
	rig_close(&rig);
}

TEST(finding_and_entering_allocate_nothing) {
	struct rig rig;
	int32_t tokens[PROMPT];
	struct subnet full = subnet_of(LAYERS);
	rig_open(&rig, KV_F32, (size_t)8 << 20);
	random_tokens(13, tokens, PROMPT);
	check_bits(&rig, &full, tokens, PROMPT, 64, false);
	int before = allocations();
	for (int i = 0; i < 5; i++) {
		tokens[70] = i;
		check_bits(&rig, &full, tokens, PROMPT, 64, true);
	}
	CHECK_INT(allocations(), before);
	rig_close(&rig);
}

TEST(without_a_share_there_is_no_cache) {
	struct rig rig;
	int32_t tokens[PROMPT];
	float ignored[VOCAB];
	struct subnet full = subnet_of(LAYERS);
	rig_open(&rig, KV_F32, (size_t)8 << 20);
	random_tokens(14, tokens, PROMPT);
	CHECK(!workspace_prefix(rig.plain));
	for (int i = 0; i < 2; i++) {
		struct sequence *s = sequence_open_cached(
		                rig.plain, &full, PROMPT, &anybody, tokens, PROMPT);
		CHECK_INT(sequence_length(s), 0);
		run_text(rig.plain, s, tokens, PROMPT, 64, ignored);
		sequence_remember(rig.plain, s, &anybody,
		                &(struct prefix_text){ tokens, PROMPT, NULL, 0 });
		sequence_close(rig.plain, s);
	}
	rig_close(&rig);
}
