/* SPDX-License-Identifier: Apache-2.0 */
/* A list of blocks, each filled from the front. */
#include "proto/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 4096 };

struct block {
	struct block *next;
	size_t used, cap;
	alignas(max_align_t) char data[];
};

struct arena {
	struct block *first;
};

struct arena *arena_create(void) {
	return calloc(1, sizeof(struct arena));
}

void arena_destroy(struct arena *a) {
	if (!a)
		return;
	while (a->first) {
		struct block *next = a->first->next;
		free(a->first);
		a->first = next;
	}
	free(a);
}

void *arena_alloc(struct arena *a, size_t count, size_t size) {
	size_t align = alignof(max_align_t), bytes;
	if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2)
		return NULL;
	bytes = (bytes + align) / align * align; /* at least one byte more than asked for */
	if (!a->first || a->first->cap - a->first->used < bytes) {
		size_t cap = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
		struct block *b = calloc(1, sizeof *b + cap);
		if (!b)
			return NULL;
		b->cap = cap;
		b->next = a->first;
		a->first = b;
	}
	void *p = a->first->data + a->first->used;
	a->first->used += bytes;
	return p;
}

char *arena_copy(struct arena *a, const char *s, size_t len) {
	char *copy = len < SIZE_MAX ? arena_alloc(a, len + 1, 1) : NULL;
	if (copy)
		memcpy(copy, s, len);
	return copy;
}
