/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KV pool: blocks of KV_TILE absolute positions of one layer, reference-counted.
 *
 * What a block holds is in ops.h; here it is so many bytes of which zeros are all finite. The pool
 * is one mapping with a size limit; a block costs memory only from its first use.
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
	char *base; /* [total][block_bytes] */
	size_t block_bytes;
	size_t total;    /* blocks */
	size_t promised; /* free blocks that somebody may still take */
	uint32_t *refs;  /* [total] 0: free */
	bool *split;     /* [total] shared and partly filled: all sharers but one will copy it */
	uint32_t *free;  /* [total] stack of free blocks, n_free high */
	size_t n_free;
	bool *kept;    /* [total] one of the references is that of a cache */
	size_t n_idle; /* blocks that only a cache holds: as good as free */
	/* Makes at least one idle block free; called when a block is taken and none is. */
	void (*reclaim)(void *arg);
	void *reclaim_arg;
	struct kv_fresh *fresh; /* [total], n_fresh of them in use */
	size_t n_fresh;
};

/*
 * A block has `block_bytes`, a multiple of 64; `bytes` is rounded down to whole blocks. False with a
 * sentence if not even one fits or the mapping fails. A pool that is all zero may be finished.
 */
bool kv_init(struct kv_pool *pool, size_t block_bytes, size_t bytes, char *err, size_t errlen);
void kv_finish(struct kv_pool *pool);

size_t kv_used(const struct kv_pool *pool);      /* blocks handed out and not idle */
size_t kv_available(const struct kv_pool *pool); /* blocks free or idle, and not promised */

/* Promises n blocks; false if they are not available. */
bool kv_promise(struct kv_pool *pool, size_t n);
/* Gives back n promises that were not used. */
void kv_withdraw(struct kv_pool *pool, size_t n);

/* Hands out one promised block, with one reference. */
void *kv_take(struct kv_pool *pool);

/* Adds a reference. `partial` says that the block is partly filled: whoever writes to it first
 * must kv_separate it, and one block is promised for that; the caller has checked kv_available. */
void kv_share(struct kv_pool *pool, void *block, bool partial);

/* The block to write to instead of `block`: itself if nobody shares it, else a copy. */
void *kv_separate(struct kv_pool *pool, void *block);

/* Drops a reference. */
void kv_release(struct kv_pool *pool, void *block);

/* A cache keeps a block that is full and will not be written any more: one reference, which does
 * not stop the block from being available once nobody else holds it. At most one for a block. */
void kv_keep(struct kv_pool *pool, void *block);
void kv_drop(struct kv_pool *pool, void *block);
/* Whether only a cache holds it. Sharing such a block takes one that is available. */
bool kv_idle(const struct kv_pool *pool, const void *block);

/* The number of a block that is handed out, below `total`, and the other way round. */
size_t kv_index(const struct kv_pool *pool, const void *block);
void *kv_block(const struct kv_pool *pool, size_t index);

/* Clears and copies the blocks handed out since kv_forget. Run by every member of a team on its
 * share; after a barrier one of them calls kv_forget. */
void kv_settle(const struct kv_pool *pool, int member, int members);
void kv_forget(struct kv_pool *pool);

#endif
