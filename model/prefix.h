/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The prefix cache: keys and values of texts that have run, for those that begin in the same way.
 *
 * An entry is one tile, KV_TILE tokens, and a block for each layer of the plan that it ran at. Its
 * place is its parent, the entry of the tile before, so that a path from a root is a text; a root is
 * a plan and a scope, whose texts share nothing with those of others. Paths are found by hashes, but
 * the tokens themselves are compared: an entry is hit only by exactly its text.
 *
 * Blocks stay in the pool and are counted there (kv.h): while a sequence holds them, too, they are
 * in use; those that only the cache holds are as good as free, and are given up when the pool needs
 * them or the cache is full, the entry first whose last use is longest ago, and never before its
 * children. Whoever uses an entry uses its ancestors, so they stay longer.
 *
 * Keys and values depend on all tokens before and on all layers below. So nothing enters that was
 * written at another plan, and callers name only text that has been verified.
 *
 * Decoders without a source only. Belongs to a workspace and to its thread; allocates nothing after
 * creation. Finding and entering n tokens takes O(n).
 */
#ifndef FATHOM_MODEL_PREFIX_H
#define FATHOM_MODEL_PREFIX_H

#include "model/kv.h"
#include "model/ops.h"
#include "model/plan.h"

enum { PREFIX_SALT = 128 };

/* Whose texts share blocks: those of equal tenant and salt. */
struct prefix_scope {
	uint64_t tenant;
	const char *salt; /* [salt_len]; NULL: none */
	size_t salt_len;  /* at most PREFIX_SALT */
};

/* A text in two parts, such as a prompt and its answer. */
struct prefix_text {
	const int32_t *tokens; /* [n] */
	int n;
	const int32_t *more; /* [n_more] */
	int n_more;
};

/* What the cache holds now, and how many blocks it has given up. */
struct prefix_counts {
	size_t blocks, entries;
	uint64_t evicted;
};

struct prefix;

/* Holds at most `most_blocks` (>= 1) blocks of `pool`, whose reclaim it becomes. NULL if memory ran
 * out. The pool must outlive it. */
struct prefix *prefix_create(struct kv_pool *pool, size_t most_blocks);
/* Drops all its blocks. Accepts NULL. */
void prefix_destroy(struct prefix *p);

/*
 * `notify` (may be NULL) is told the hash of each text of whole tiles that enters or leaves, so that
 * others can guess from outside what is held.
 */
void prefix_watch(struct prefix *p, void (*notify)(void *arg, uint64_t hash, bool held), void *arg);
/* The hash of an empty text, and that of a text with another tile behind it. */
uint64_t prefix_hash_root(const struct plan *plan, const struct prefix_scope *scope);
uint64_t prefix_hash_tile(uint64_t hash, const int32_t tokens[KV_TILE]);

/* How many of the first tokens[0..n) are held, in whole tiles. Uses none of them. */
int prefix_find(const struct prefix *p, const struct plan *plan, const struct prefix_scope *scope,
                const int32_t *tokens, int n);

/* Tokens of one text that it can hold at a plan. */
int prefix_most_tokens(const struct prefix *p, const struct plan *plan);

/* A path: the entries of the tiles of a text, from the first on. */
struct prefix_path {
	struct prefix_entry *last; /* NULL: empty */
	int tiles;
	size_t idle; /* blocks of it that nobody else holds */
};
/* The longest held path of tokens[0..n). */
void prefix_lookup(const struct prefix *p, const struct plan *plan,
                const struct prefix_scope *scope, const int32_t *tokens, int n,
                struct prefix_path *ret_path);
/* Adds a reference to each of its blocks, writes those of tile t and rank r to
 * table[r * stride + t], and marks it as just used. path->idle blocks must be available. */
void prefix_take(struct prefix *p, const struct prefix_path *path, void **table, size_t stride);

/*
 * Enters the whole tiles of a text, whose blocks are table[rank * stride + tile]. A tile that is
 * held already stays as it is. Stops where the bound allows no more.
 */
void prefix_enter(struct prefix *p, const struct plan *plan, const struct prefix_scope *scope,
                const struct prefix_text *text, void *const *table, size_t stride);

void prefix_count(const struct prefix *p, struct prefix_counts *ret_counts);

#endif
