/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging over numbers. A pair finds its rank in an open-addressed table; a rank finds its result in
 * an array.
 */
#include "model/merges.h"

#include <stdlib.h>
#include <string.h>

#define NONE MERGES_NONE

struct pair {
	uint64_t key; /* left id << 32 | right id; UINT64_MAX: free */
	uint32_t rank;
};

struct merges {
	struct pair *pairs; /* [n_pairs], a power of two */
	size_t n_pairs;
	int32_t *results; /* [ranks]: what a merge makes */
	uint32_t ranks, rank_capacity;
};

struct merges *merges_create(void) {
	return calloc(1, sizeof(struct merges));
}

void merges_destroy(struct merges *m) {
	if (!m)
		return;
	free(m->pairs);
	free(m->results);
	free(m);
}

static struct pair *pair_slot(const struct merges *m, uint64_t key) {
	uint64_t h = key * UINT64_C(0x9e3779b97f4a7c15);
	size_t mask = m->n_pairs - 1, i = (h ^ h >> 32) & mask;
	while (m->pairs[i].key != key && m->pairs[i].key != UINT64_MAX)
		i = (i + 1) & mask;
	return &m->pairs[i];
}

static uint64_t pair_key(int32_t left, int32_t right) {
	return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static uint32_t pair_rank(const struct merges *m, int32_t left, int32_t right) {
	if (!m->ranks || left < 0 || right < 0)
		return NONE;
	const struct pair *slot = pair_slot(m, pair_key(left, right));
	return slot->key == UINT64_MAX ? NONE : slot->rank;
}

bool merges_has(const struct merges *m, int32_t left, int32_t right) {
	return pair_rank(m, left, right) != NONE;
}

uint32_t merges_count(const struct merges *m) {
	return m->ranks;
}

static bool grow_pairs(struct merges *m) {
	struct pair *old = m->pairs;
	size_t n_old = m->n_pairs;
	size_t n = n_old ? n_old * 2 : 1024;
	struct pair *pairs = malloc(n * sizeof *pairs);
	if (!pairs)
		return false;
	memset(pairs, 0xff, n * sizeof *pairs);
	m->pairs = pairs;
	m->n_pairs = n;
	for (size_t i = 0; i < n_old; i++) {
		if (old[i].key != UINT64_MAX)
			*pair_slot(m, old[i].key) = old[i];
	}
	free(old);
	return true;
}

static bool make_room(struct merges *m) {
	if (m->ranks == m->rank_capacity) {
		uint32_t capacity = m->rank_capacity ? m->rank_capacity * 2 : 1024;
		int32_t *results = realloc(m->results, capacity * sizeof *results);
		if (!results)
			return false;
		m->results = results;
		m->rank_capacity = capacity;
	}
	return m->n_pairs > (size_t)m->ranks * 2 + 1 || grow_pairs(m);
}

bool merges_add(struct merges *m, int32_t left, int32_t right, int32_t result) {
	if (m->ranks == NONE / 4 || !make_room(m))
		return false;
	uint64_t key = pair_key(left, right);
	*pair_slot(m, key) = (struct pair){ key, m->ranks };
	m->results[m->ranks++] = result;
	return true;
}

/* Scratch. */

bool merges_reserve(struct merges_scratch *scratch, size_t n) {
	if (n <= scratch->capacity)
		return true;
	if (n >= NONE / 2)
		return false;
	size_t capacity = n + n / 2 + 256;
	merges_scratch_finish(scratch);
	scratch->symbols = malloc(capacity * sizeof *scratch->symbols);
	scratch->heap = malloc(4 * capacity * sizeof *scratch->heap);
	scratch->capacity = capacity;
	if (!scratch->symbols || !scratch->heap) {
		merges_scratch_finish(scratch);
		return false;
	}
	return true;
}

void merges_scratch_finish(struct merges_scratch *scratch) {
	free(scratch->symbols);
	free(scratch->heap);
	*scratch = (struct merges_scratch){ 0 };
}

/*
 * The heap: a binary min-heap of rank << 32 | position, so that the lowest rank comes first and,
 * among equals, the leftmost.
 */
static void heap_sift_down(uint64_t *heap, size_t n, size_t i) {
	uint64_t entry = heap[i];
	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && heap[child + 1] < heap[child])
			child++;
		if (entry <= heap[child])
			break;
		heap[i] = heap[child];
	}
	heap[i] = entry;
}

static size_t heap_push(uint64_t *heap, size_t n, uint32_t rank, size_t position) {
	uint64_t entry = (uint64_t)rank << 32 | position;
	size_t i = n;
	for (; i > 0 && heap[(i - 1) / 2] > entry; i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = entry;
	return n + 1;
}

static uint64_t heap_pop(uint64_t *heap, size_t n) {
	uint64_t top = heap[0];
	heap[0] = heap[n - 1];
	heap_sift_down(heap, n - 1, 0);
	return top;
}

/* Links the symbols and makes a heap of the merges there are. */
static size_t begin(const struct merges *m, struct merge_symbol *s, uint64_t *heap, size_t n) {
	size_t entries = 0;
	for (size_t i = 0; i < n; i++) {
		s[i].prev = i ? (uint32_t)i - 1 : NONE;
		s[i].next = i + 1 < n ? (uint32_t)i + 1 : NONE;
		s[i].rank = i + 1 < n ? pair_rank(m, s[i].id, s[i + 1].id) : NONE;
		if (s[i].rank != NONE)
			heap[entries++] = (uint64_t)s[i].rank << 32 | i;
	}
	for (size_t i = entries / 2; i-- > 0;)
		heap_sift_down(heap, entries, i);
	return entries;
}

/* Merges the symbol at i with the next; returns the new number of entries. */
static size_t merge_at(const struct merges *m, struct merge_symbol *s, uint64_t *heap,
                size_t entries, uint32_t i) {
	uint32_t gone = s[i].next, next = s[gone].next, prev = s[i].prev;
	s[i].id = m->results[s[i].rank];
	s[i].next = next;
	s[i].rank = NONE;
	s[gone].rank = NONE;
	if (next != NONE) {
		s[next].prev = i;
		s[i].rank = pair_rank(m, s[i].id, s[next].id);
		if (s[i].rank != NONE)
			entries = heap_push(heap, entries, s[i].rank, i);
	}
	if (prev != NONE) {
		s[prev].rank = pair_rank(m, s[prev].id, s[i].id);
		if (s[prev].rank != NONE)
			entries = heap_push(heap, entries, s[prev].rank, prev);
	}
	return entries;
}

/*
 * An entry is current while its position still has its rank. Each merge takes one entry and adds at
 * most two, and there are fewer than n of them: the heap and what was taken from it for one round
 * never hold more than 2 n each.
 */
void merges_run(const struct merges *m, enum merges_order order, struct merges_scratch *scratch,
                size_t n) {
	struct merge_symbol *s = scratch->symbols;
	uint64_t *heap = scratch->heap, *round = scratch->heap + 2 * scratch->capacity;
	size_t entries = begin(m, s, heap, n);
	while (entries) {
		size_t taken = 0;
		uint32_t rank = (uint32_t)(heap[0] >> 32);
		do {
			round[taken++] = heap_pop(heap, entries--);
		} while (order == MERGES_TOGETHER && entries && heap[0] >> 32 == rank);
		for (size_t k = 0; k < taken; k++) {
			uint32_t i = (uint32_t)round[k];
			if (s[i].rank == rank)
				entries = merge_at(m, s, heap, entries, i);
		}
	}
}
