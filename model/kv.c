/* SPDX-License-Identifier: Apache-2.0 */
/* The KV pool: a stack of free blocks, reference counts, promises. */
#include "model/kv.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "model/team.h"

bool kv_init(struct kv_pool *pool, size_t block_bytes, size_t bytes, char *err, size_t errlen) {
	*pool = (struct kv_pool){ .block_bytes = block_bytes };
	size_t total = bytes / block_bytes;
	if (total >= KV_CLEAR)
		total = KV_CLEAR - 1;
	if (total == 0) {
		snprintf(err, errlen,
		                "the KV pool of %zu bytes is too small: one block takes %zu bytes",
		                bytes, block_bytes);
		return false;
	}
	void *map = mmap(NULL, total * block_bytes, PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED) {
		snprintf(err, errlen, "cannot map a KV pool of %zu bytes", total * block_bytes);
		return false;
	}
	pool->base = map;
	pool->total = total;
	pool->refs = calloc(total, sizeof *pool->refs);
	pool->split = calloc(total, sizeof *pool->split);
	pool->free = calloc(total, sizeof *pool->free);
	pool->fresh = calloc(total, sizeof *pool->fresh);
	pool->kept = calloc(total, sizeof *pool->kept);
	if (!pool->refs || !pool->split || !pool->free || !pool->fresh || !pool->kept) {
		snprintf(err, errlen, "not enough memory for the table of %zu KV blocks", total);
		kv_finish(pool);
		return false;
	}
	/* Low blocks come first, and the block freed last is used next: it may still be cached. */
	for (size_t i = 0; i < total; i++)
		pool->free[i] = (uint32_t)(total - 1 - i);
	pool->n_free = total;
	return true;
}

void kv_finish(struct kv_pool *pool) {
	if (pool->base)
		munmap(pool->base, pool->total * pool->block_bytes);
	free(pool->refs);
	free(pool->split);
	free(pool->free);
	free(pool->fresh);
	free(pool->kept);
	*pool = (struct kv_pool){ 0 };
}

size_t kv_used(const struct kv_pool *pool) {
	return pool->total - pool->n_free - pool->n_idle;
}

size_t kv_available(const struct kv_pool *pool) {
	return pool->n_free + pool->n_idle - pool->promised;
}

bool kv_promise(struct kv_pool *pool, size_t n) {
	if (n > kv_available(pool))
		return false;
	pool->promised += n;
	return true;
}

void kv_withdraw(struct kv_pool *pool, size_t n) {
	assert(n <= pool->promised);
	pool->promised -= n;
}

void *kv_block(const struct kv_pool *pool, size_t index) {
	return pool->base + index * pool->block_bytes;
}

size_t kv_index(const struct kv_pool *pool, const void *block) {
	size_t index = (size_t)((const char *)block - pool->base) / pool->block_bytes;
	assert(index < pool->total && pool->refs[index] > 0);
	return index;
}

static void *hand_out(struct kv_pool *pool, uint32_t from) {
	assert(pool->promised > 0);
	if (pool->n_free == 0)
		pool->reclaim(pool->reclaim_arg);
	assert(pool->n_free > 0);
	pool->promised--;
	uint32_t index = pool->free[--pool->n_free];
	pool->refs[index] = 1;
	pool->split[index] = false;
	pool->fresh[pool->n_fresh++] = (struct kv_fresh){ .block = index, .from = from };
	return kv_block(pool, index);
}

void *kv_take(struct kv_pool *pool) {
	return hand_out(pool, KV_CLEAR);
}

void kv_share(struct kv_pool *pool, void *block, bool partial) {
	size_t index = kv_index(pool, block);
	if (kv_idle(pool, block)) {
		assert(kv_available(pool) > 0);
		pool->n_idle--;
	}
	pool->refs[index]++;
	if (partial) {
		assert(kv_available(pool) > 0);
		pool->split[index] = true;
		pool->promised++;
	}
}

void *kv_separate(struct kv_pool *pool, void *block) {
	size_t index = kv_index(pool, block);
	if (pool->refs[index] == 1)
		return block;
	assert(pool->split[index]);
	if (--pool->refs[index] == 1)
		pool->split[index] = false;
	return hand_out(pool, (uint32_t)index);
}

void kv_release(struct kv_pool *pool, void *block) {
	size_t index = kv_index(pool, block);
	pool->refs[index]--;
	if (pool->split[index]) {
		pool->promised--; /* one copy less will be made */
		if (pool->refs[index] == 1)
			pool->split[index] = false;
	}
	if (pool->refs[index] == 0)
		pool->free[pool->n_free++] = (uint32_t)index;
	else if (kv_idle(pool, block))
		pool->n_idle++;
}

bool kv_idle(const struct kv_pool *pool, const void *block) {
	size_t index = kv_index(pool, block);
	return pool->kept[index] && pool->refs[index] == 1;
}

void kv_keep(struct kv_pool *pool, void *block) {
	size_t index = kv_index(pool, block);
	assert(!pool->kept[index] && !pool->split[index]);
	pool->kept[index] = true;
	pool->refs[index]++;
}

void kv_drop(struct kv_pool *pool, void *block) {
	size_t index = kv_index(pool, block);
	assert(pool->kept[index]);
	if (kv_idle(pool, block))
		pool->n_idle--;
	pool->kept[index] = false;
	kv_release(pool, block);
}

void kv_settle(const struct kv_pool *pool, int member, int members) {
	size_t bytes = pool->block_bytes;
	/* A block copied from may itself be fresh only if it was settled before: nothing is shared
	 * between being handed out and the step that settles it. */
	for (size_t i = (size_t)member; i < pool->n_fresh; i += (size_t)members) {
		const struct kv_fresh *fresh = &pool->fresh[i];
		if (fresh->from == KV_CLEAR)
			memset(kv_block(pool, fresh->block), 0, bytes);
		else
			memcpy(kv_block(pool, fresh->block), kv_block(pool, fresh->from), bytes);
	}
}

void kv_forget(struct kv_pool *pool) {
	pool->n_fresh = 0;
}
