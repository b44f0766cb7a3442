/* SPDX-License-Identifier: Apache-2.0 */
/* The KV pool: a stack of free blocks, reference counts, promises. */
#include "model/kv.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "model/ops.h"
#include "model/team.h"

bool kv_init(struct kv_pool *pool, int n_heads, int head_dim, size_t bytes, char *err,
                size_t errlen) {
	*pool = (struct kv_pool){ .block_floats = 2 * (size_t)KV_TILE * (size_t)n_heads
		                * (size_t)head_dim };
	size_t block_bytes = pool->block_floats * sizeof(float), total = bytes / block_bytes;
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
	if (!pool->refs || !pool->split || !pool->free || !pool->fresh) {
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
		munmap(pool->base, pool->total * pool->block_floats * sizeof(float));
	free(pool->refs);
	free(pool->split);
	free(pool->free);
	free(pool->fresh);
	*pool = (struct kv_pool){ 0 };
}

size_t kv_used(const struct kv_pool *pool) {
	return pool->total - pool->n_free;
}

size_t kv_available(const struct kv_pool *pool) {
	return pool->n_free - pool->promised;
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

static float *address(const struct kv_pool *pool, size_t index) {
	return pool->base + index * pool->block_floats;
}

static size_t index_of(const struct kv_pool *pool, const float *block) {
	size_t index = (size_t)(block - pool->base) / pool->block_floats;
	assert(index < pool->total && pool->refs[index] > 0);
	return index;
}

static float *hand_out(struct kv_pool *pool, uint32_t from) {
	assert(pool->promised > 0 && pool->n_free > 0);
	pool->promised--;
	uint32_t index = pool->free[--pool->n_free];
	pool->refs[index] = 1;
	pool->split[index] = false;
	pool->fresh[pool->n_fresh++] = (struct kv_fresh){ .block = index, .from = from };
	return address(pool, index);
}

float *kv_take(struct kv_pool *pool) {
	return hand_out(pool, KV_CLEAR);
}

void kv_share(struct kv_pool *pool, float *block, bool partial) {
	size_t index = index_of(pool, block);
	pool->refs[index]++;
	if (partial) {
		assert(kv_available(pool) > 0);
		pool->split[index] = true;
		pool->promised++;
	}
}

float *kv_separate(struct kv_pool *pool, float *block) {
	size_t index = index_of(pool, block);
	if (pool->refs[index] == 1)
		return block;
	assert(pool->split[index]);
	if (--pool->refs[index] == 1)
		pool->split[index] = false;
	return hand_out(pool, (uint32_t)index);
}

void kv_release(struct kv_pool *pool, float *block) {
	size_t index = index_of(pool, block);
	pool->refs[index]--;
	if (pool->split[index]) {
		pool->promised--; /* one copy less will be made */
		if (pool->refs[index] == 1)
			pool->split[index] = false;
	}
	if (pool->refs[index] == 0)
		pool->free[pool->n_free++] = (uint32_t)index;
}

void kv_settle(const struct kv_pool *pool, int member, int members) {
	size_t bytes = pool->block_floats * sizeof(float);
	/* A block copied from may itself be fresh only if it was settled before: nothing is shared
	 * between being handed out and the step that settles it. */
	for (size_t i = (size_t)member; i < pool->n_fresh; i += (size_t)members) {
		const struct kv_fresh *fresh = &pool->fresh[i];
		if (fresh->from == KV_CLEAR)
			memset(address(pool, fresh->block), 0, bytes);
		else
			memcpy(address(pool, fresh->block), address(pool, fresh->from), bytes);
	}
}

void kv_forget(struct kv_pool *pool) {
	pool->n_fresh = 0;
}
