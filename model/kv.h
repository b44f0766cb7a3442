/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KV pool: blocks of KV_TILE absolute positions of one layer, reference-counted.
 *
 * A block is float [n_heads][head_dim][64] keys, then float [n_heads][64][head_dim] values
 * (ops.h). The pool is one mapping with a size limit; a block costs memory only from its first use.
 * Every block that is handed out must first have been promised, and promises never exceed what is
 * free, so that taking a promised block cannot fail. This file knows nothing of sequences.
 *
 * A block handed out holds a stranger's values until kv_settle has run: it clears (or copies) all
 * blocks handed out since the last time. The unused positions of a block must be finite, because a
 * masked key has weight 0 and 0 x NaN is NaN.
 */
#ifndef FATHOM_MODEL_KV_H
#define FATHOM_MODEL_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A block handed out but not yet settled. */
struct kv_fresh {
	uint32_t block;
	uint32_t from; /* the block to copy, or KV_CLEAR */
};

#define KV_CLEAR UINT32_MAX

struct kv_pool {
	float *base; /* [total][block_floats] */
	size_t block_floats;
	size_t total;    /* blocks */
	size_t promised; /* free blocks that somebody may still take */
	uint32_t *refs;  /* [total] 0: free */
	bool *split;     /* [total] shared and partly filled: all sharers but one will copy it */
	uint32_t *free;  /* [total] stack of free blocks, n_free high */
	size_t n_free;
	struct kv_fresh *fresh; /* [total], n_fresh of them in use */
	size_t n_fresh;
};

/* `bytes` is rounded down to whole blocks. False with a sentence if not even one fits or the
 * mapping fails. A pool that is all zero may be finished. */
bool kv_init(struct kv_pool *pool, int n_heads, int head_dim, size_t bytes, char *err,
                size_t errlen);
void kv_finish(struct kv_pool *pool);

size_t kv_used(const struct kv_pool *pool);      /* blocks handed out */
size_t kv_available(const struct kv_pool *pool); /* blocks free and not promised */

/* Promises n blocks; false if they are not available. */
bool kv_promise(struct kv_pool *pool, size_t n);
/* Gives back n promises that were not used. */
void kv_withdraw(struct kv_pool *pool, size_t n);

/* Hands out one promised block, with one reference. */
float *kv_take(struct kv_pool *pool);

/* Adds a reference. `partial` says that the block is partly filled: whoever writes to it first
 * must kv_separate it, and one block is promised for that; the caller has checked kv_available. */
void kv_share(struct kv_pool *pool, float *block, bool partial);

/* The block to write to instead of `block`: itself if nobody shares it, else a copy. */
float *kv_separate(struct kv_pool *pool, float *block);

/* Drops a reference. */
void kv_release(struct kv_pool *pool, float *block);

/* Clears and copies the blocks handed out since kv_forget. Run by every member of a team on its
 * share; after a barrier one of them calls kv_forget. */
void kv_settle(const struct kv_pool *pool, int member, int members);
void kv_forget(struct kv_pool *pool);

#endif
