/* SPDX-License-Identifier: Apache-2.0 */
/* Marks: 32 bits of each hash in a table of relaxed atomics. */
#include "server/marks.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { LEAST_PLACES = 1 << 10, MOST_PLACES = 1 << 18 };

struct marks {
	size_t places; /* a power of two */
	_Atomic uint32_t mark[];
};

struct marks *marks_create(size_t blocks) {
	size_t places = LEAST_PLACES;
	while (places < 2 * blocks && places < MOST_PLACES)
		places *= 2;
	struct marks *marks = calloc(1, sizeof *marks + places * sizeof marks->mark[0]);
	if (marks)
		marks->places = places;
	return marks;
}

void marks_destroy(struct marks *marks) {
	free(marks);
}

/* Never 0, which stands for none. */
static uint32_t mark_of(uint64_t hash) {
	return (uint32_t)(hash >> 32) | 1;
}

void marks_note(void *arg, uint64_t hash, bool held) {
	struct marks *marks = arg;
	_Atomic uint32_t *at = &marks->mark[hash & (marks->places - 1)];
	if (held)
		atomic_store_explicit(at, mark_of(hash), memory_order_relaxed);
	else if (atomic_load_explicit(at, memory_order_relaxed) == mark_of(hash))
		atomic_store_explicit(at, 0, memory_order_relaxed);
}

int marks_find(const struct marks *marks, const struct plan *plan, const struct prefix_scope *scope,
                const int32_t *tokens, int n) {
	uint64_t hash = prefix_hash_root(plan, scope);
	int at = 0;
	for (; at + KV_TILE <= n; at += KV_TILE) {
		hash = prefix_hash_tile(hash, tokens + at);
		const _Atomic uint32_t *place = &marks->mark[hash & (marks->places - 1)];
		if (atomic_load_explicit(place, memory_order_relaxed) != mark_of(hash))
			break;
	}
	return at;
}
