/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The prefix cache: entries in one hash table by the hash of their text, and in one list by their
 * last use. A use marks a path from its end to its root, so an entry is never older than its
 * children and the oldest entry of all has none.
 */
#include "model/prefix.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "model/hash.h"

#define NO_BLOCK UINT32_MAX

enum { MOST_ROOTS = 4096, ROOT_BUCKETS = 512 };

struct root {
	struct plan plan;
	uint64_t tenant;
	char salt[PREFIX_SALT];
	size_t salt_len;
	uint64_t hash;
	size_t entries;    /* 0: unused */
	struct root *next; /* in its bucket, or prefix::unused_roots */
};

struct prefix_entry {
	uint64_t hash; /* of the text that ends with this tile */
	struct root *root;
	struct prefix_entry *parent; /* NULL: the first tile of a text */
	int children;
	uint32_t first;                     /* block of rank 0; prefix::next_block has the others */
	struct prefix_entry *next;          /* in its bucket, or prefix::unused */
	struct prefix_entry *older, *newer; /* by last use */
	int32_t tokens[KV_TILE];
};

struct prefix {
	struct kv_pool *pool;
	size_t most_blocks;
	struct prefix_entry *entries, *unused; /* [most_blocks], of which n_begun were ever used */
	size_t n_begun;
	struct prefix_entry **buckets; /* [n_buckets] a power of two */
	size_t n_buckets;
	struct prefix_entry *oldest, *newest;
	struct root *root_store, *unused_roots; /* [MOST_ROOTS], likewise */
	size_t n_begun_roots;
	struct root *roots[ROOT_BUCKETS]; /* by hash */
	uint32_t *next_block;             /* [total] of the same entry, one rank higher */
	struct prefix_counts counts;
	void (*notify)(void *arg, uint64_t hash, bool held);
	void *notify_arg;
};

/* ---- hashes ---- */

uint64_t prefix_hash_root(const struct plan *plan, const struct prefix_scope *scope) {
	const uint64_t begin[] = { scope->tenant, (uint64_t)plan->of, (uint64_t)plan->depth,
		scope->salt_len };
	uint64_t hash = hash_bytes(begin, sizeof begin, 0);
	hash = hash_bytes(plan->layers, (size_t)plan->depth * sizeof plan->layers[0], hash);
	return hash_bytes(scope->salt, scope->salt_len, hash);
}

uint64_t prefix_hash_tile(uint64_t hash, const int32_t tokens[KV_TILE]) {
	return hash_bytes(tokens, KV_TILE * sizeof tokens[0], hash);
}

/* ---- life ---- */

static void reclaim(void *arg);

struct prefix *prefix_create(struct kv_pool *pool, size_t most_blocks) {
	assert(most_blocks > 0);
	struct prefix *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	size_t most = most_blocks < pool->total ? most_blocks : pool->total;
	p->pool = pool;
	p->most_blocks = most;
	p->n_buckets = 64;
	while (p->n_buckets < most)
		p->n_buckets *= 2;
	p->entries = calloc(most, sizeof *p->entries);
	p->buckets = calloc(p->n_buckets, sizeof(struct prefix_entry *));
	p->root_store = calloc(MOST_ROOTS, sizeof *p->root_store);
	p->next_block = calloc(pool->total, sizeof *p->next_block);
	if (!p->entries || !p->buckets || !p->root_store || !p->next_block) {
		prefix_destroy(p);
		return NULL;
	}
	pool->reclaim = reclaim;
	pool->reclaim_arg = p;
	return p;
}

void prefix_watch(
                struct prefix *p, void (*notify)(void *arg, uint64_t hash, bool held), void *arg) {
	p->notify = notify;
	p->notify_arg = arg;
}

static void tell(const struct prefix *p, const struct prefix_entry *e, bool held) {
	if (p->notify)
		p->notify(p->notify_arg, e->hash, held);
}

void prefix_count(const struct prefix *p, struct prefix_counts *ret_counts) {
	*ret_counts = p->counts;
}

/* ---- roots ---- */

static bool is_root_of(const struct root *root, uint64_t hash, const struct plan *plan,
                const struct prefix_scope *scope) {
	return root->hash == hash && root->tenant == scope->tenant
	                && root->salt_len == scope->salt_len
	                && (scope->salt_len == 0
	                                || memcmp(root->salt, scope->salt, scope->salt_len) == 0)
	                && plan_equal(&root->plan, plan);
}

static struct root *find_root(const struct prefix *p, uint64_t hash, const struct plan *plan,
                const struct prefix_scope *scope) {
	struct root *root = p->roots[hash % ROOT_BUCKETS];
	while (root && !is_root_of(root, hash, plan, scope))
		root = root->next;
	return root;
}

static void release_root(struct prefix *p, struct root *root) {
	struct root **at = &p->roots[root->hash % ROOT_BUCKETS];
	while (*at != root)
		at = &(*at)->next;
	*at = root->next;
	root->next = p->unused_roots;
	p->unused_roots = root;
}

/* ---- the list by last use ---- */

static void unlink_use(struct prefix *p, struct prefix_entry *e) {
	*(e->older ? &e->older->newer : &p->oldest) = e->newer;
	*(e->newer ? &e->newer->older : &p->newest) = e->older;
}

static void link_newest(struct prefix *p, struct prefix_entry *e) {
	e->older = p->newest;
	e->newer = NULL;
	*(p->newest ? &p->newest->newer : &p->oldest) = e;
	p->newest = e;
}

/* A path is used: its end first, so that its root is the newest of all. */
static void use(struct prefix *p, struct prefix_entry *e) {
	for (; e; e = e->parent) {
		unlink_use(p, e);
		link_newest(p, e);
	}
}

/* ---- giving up ---- */

static bool has_idle(const struct prefix *p, const struct prefix_entry *e) {
	uint32_t block = e->first;
	for (int r = 0; r < e->root->plan.depth; r++, block = p->next_block[block]) {
		if (kv_idle(p->pool, kv_block(p->pool, block)))
			return true;
	}
	return false;
}

static struct prefix_entry **bucket_of(const struct prefix *p, uint64_t hash) {
	return &p->buckets[hash & (p->n_buckets - 1)];
}

static void give_up(struct prefix *p, struct prefix_entry *e) {
	struct root *root = e->root;
	struct prefix_entry **at = bucket_of(p, e->hash);
	assert(e->children == 0);
	tell(p, e, false);
	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	unlink_use(p, e);
	uint32_t block = e->first;
	for (int r = 0; r < root->plan.depth; r++) {
		uint32_t next = p->next_block[block];
		kv_drop(p->pool, kv_block(p->pool, block));
		block = next;
	}
	p->counts.blocks -= (size_t)root->plan.depth;
	p->counts.evicted += (uint64_t)root->plan.depth;
	p->counts.entries--;
	if (e->parent)
		e->parent->children--;
	if (--root->entries == 0)
		release_root(p, root);
	e->next = p->unused;
	p->unused = e;
}

/* The entry to give up next: the oldest without children, and if one of them frees a block, the
 * oldest of those. NULL: none may go. */
static struct prefix_entry *oldest_leaf(const struct prefix *p) {
	struct prefix_entry *leaf = NULL;
	for (struct prefix_entry *e = p->oldest; e; e = e->newer) {
		if (e->children > 0)
			continue;
		if (has_idle(p, e))
			return e;
		leaf = leaf ? leaf : e;
	}
	return leaf;
}

static bool evict(struct prefix *p) {
	struct prefix_entry *e = oldest_leaf(p);
	if (e)
		give_up(p, e);
	return e != NULL;
}

/* An idle block may lie above blocks that are in use: those go with it. */
static void reclaim(void *arg) {
	struct prefix *p = arg;
	while (p->pool->n_free == 0 && evict(p))
		;
}

void prefix_destroy(struct prefix *p) {
	if (!p)
		return;
	while (p->oldest)
		evict(p);
	if (p->pool->reclaim_arg == p)
		p->pool->reclaim = NULL;
	free(p->entries);
	free(p->buckets);
	free(p->root_store);
	free(p->next_block);
	free(p);
}

/* ---- finding ---- */

static struct prefix_entry *find_child(const struct prefix *p, const struct root *root,
                const struct prefix_entry *parent, uint64_t hash, const int32_t *tokens) {
	struct prefix_entry *e = *bucket_of(p, hash);
	while (e
	                && (e->hash != hash || e->root != root || e->parent != parent
	                                || memcmp(e->tokens, tokens, sizeof e->tokens) != 0))
		e = e->next;
	return e;
}

static size_t count_idle(const struct prefix *p, const struct prefix_entry *e) {
	size_t idle = 0;
	uint32_t block = e->first;
	for (int r = 0; r < e->root->plan.depth; r++, block = p->next_block[block])
		idle += kv_idle(p->pool, kv_block(p->pool, block));
	return idle;
}

void prefix_lookup(const struct prefix *p, const struct plan *plan,
                const struct prefix_scope *scope, const int32_t *tokens, int n,
                struct prefix_path *ret_path) {
	uint64_t hash = prefix_hash_root(plan, scope);
	const struct root *root = find_root(p, hash, plan, scope);
	struct prefix_path path = { NULL, 0, 0 };
	while (root && path.tiles < n / KV_TILE) {
		const int32_t *tile = tokens + (size_t)path.tiles * KV_TILE;
		hash = prefix_hash_tile(hash, tile);
		struct prefix_entry *e = find_child(p, root, path.last, hash, tile);
		if (!e)
			break;
		path.last = e;
		path.tiles++;
		path.idle += count_idle(p, e);
	}
	*ret_path = path;
}

int prefix_find(const struct prefix *p, const struct plan *plan, const struct prefix_scope *scope,
                const int32_t *tokens, int n) {
	struct prefix_path path;
	prefix_lookup(p, plan, scope, tokens, n, &path);
	return path.tiles * KV_TILE;
}

int prefix_most_tokens(const struct prefix *p, const struct plan *plan) {
	size_t tiles = plan->depth > 0 ? p->most_blocks / (size_t)plan->depth : 0;
	return tiles < INT_MAX / KV_TILE ? (int)tiles * KV_TILE : INT_MAX;
}

void prefix_take(struct prefix *p, const struct prefix_path *path, void **table, size_t stride) {
	const struct prefix_entry *e = path->last;
	for (int t = path->tiles; t-- > 0; e = e->parent) {
		uint32_t block = e->first;
		for (int r = 0; r < e->root->plan.depth; r++, block = p->next_block[block]) {
			void *at = kv_block(p->pool, block);
			kv_share(p->pool, at, false);
			table[(size_t)r * stride + (size_t)t] = at;
		}
	}
	use(p, path->last);
}

/* ---- entering ---- */

/* A root of its own for a text that enters; NULL if all are taken by texts that may not go. */
static struct root *add_root(struct prefix *p, uint64_t hash, const struct plan *plan,
                const struct prefix_scope *scope) {
	struct root *root = NULL, **bucket = &p->roots[hash % ROOT_BUCKETS];
	if (p->n_begun_roots < MOST_ROOTS) {
		root = &p->root_store[p->n_begun_roots++];
	} else {
		while (!p->unused_roots && evict(p))
			;
		root = p->unused_roots;
		if (!root)
			return NULL;
		p->unused_roots = root->next;
	}
	*root = (struct root){ .plan = *plan,
		.tenant = scope->tenant,
		.salt_len = scope->salt_len,
		.hash = hash,
		.next = *bucket };
	if (scope->salt_len > 0)
		memcpy(root->salt, scope->salt, scope->salt_len);
	*bucket = root;
	return root;
}

/* Makes room for an entry below `parent`, which stays; false if there is none. */
static bool make_room(struct prefix *p, struct prefix_entry *parent, size_t blocks) {
	bool room = blocks <= p->most_blocks;
	if (parent)
		parent->children++;
	while (room && p->counts.blocks + blocks > p->most_blocks)
		room = evict(p);
	if (parent)
		parent->children--;
	return room;
}

static struct prefix_entry *add_entry(struct prefix *p, struct root *root,
                struct prefix_entry *parent, uint64_t hash, const int32_t *tokens,
                void *const *blocks, size_t stride) {
	int depth = root->plan.depth;
	root->entries++; /* it stays while room is made */
	bool room = make_room(p, parent, (size_t)depth);
	if (!room) {
		root->entries--;
		return NULL;
	}
	struct prefix_entry *e = p->unused ? p->unused : &p->entries[p->n_begun++];
	if (e == p->unused)
		p->unused = e->next;
	e->hash = hash;
	e->root = root;
	e->parent = parent;
	e->children = 0;
	memcpy(e->tokens, tokens, sizeof e->tokens);
	uint32_t *at = &e->first;
	for (int r = 0; r < depth; r++) {
		void *block = blocks[(size_t)r * stride];
		kv_keep(p->pool, block);
		*at = (uint32_t)kv_index(p->pool, block);
		at = &p->next_block[*at];
	}
	*at = NO_BLOCK;
	if (parent)
		parent->children++;
	struct prefix_entry **bucket = bucket_of(p, hash);
	e->next = *bucket;
	*bucket = e;
	link_newest(p, e);
	p->counts.blocks += (size_t)depth;
	p->counts.entries++;
	tell(p, e, true);
	return e;
}

static void copy_tile(const struct prefix_text *text, int tile, int32_t ret_tokens[KV_TILE]) {
	for (int i = 0; i < KV_TILE; i++) {
		int at = tile * KV_TILE + i;
		ret_tokens[i] = at < text->n ? text->tokens[at] : text->more[at - text->n];
	}
}

void prefix_enter(struct prefix *p, const struct plan *plan, const struct prefix_scope *scope,
                const struct prefix_text *text, void *const *table, size_t stride) {
	int tiles = (text->n + text->n_more) / KV_TILE;
	uint64_t hash = prefix_hash_root(plan, scope);
	if (tiles == 0 || (size_t)plan->depth > p->most_blocks)
		return;
	struct root *root = find_root(p, hash, plan, scope);
	if (!root)
		root = add_root(p, hash, plan, scope);
	struct prefix_entry *last = NULL;
	for (int t = 0; root && t < tiles; t++) {
		int32_t tokens[KV_TILE];
		copy_tile(text, t, tokens);
		hash = prefix_hash_tile(hash, tokens);
		struct prefix_entry *e = find_child(p, root, last, hash, tokens);
		if (!e)
			e = add_entry(p, root, last, hash, tokens, table + t, stride);
		if (!e)
			break;
		last = e;
	}
	use(p, last);
	if (root && root->entries == 0)
		release_root(p, root);
}
