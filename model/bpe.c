/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-pair encoding over ids. A pair of ids finds its rank in an open-addressed table; a rank finds
 * its result in an array. Most pieces of real text are one token: for those tokens that their own
 * merges reach, one look-up in the vocabulary replaces the merging (`whole`, worked out once).
 */
#include "model/bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct bpe_symbol {
	int32_t id;
	uint32_t prev, next; /* NONE at the ends */
	uint32_t rank;       /* of the merge with `next`; NONE: there is none, or merged away */
};

struct pair {
	uint64_t key; /* left id << 32 | right id; UINT64_MAX: free */
	uint32_t rank;
};

struct bpe {
	const struct vocab *vocab;
	struct bpe_options options;
	int32_t byte_ids[256]; /* -1: no token */
	struct pair *pairs;    /* [n_pairs], a power of two */
	size_t n_pairs;
	int32_t *results; /* [ranks]: what a merge makes */
	uint32_t ranks, rank_capacity;
	uint8_t *whole; /* [ceil(vocab_size / 8)]: bit set if encoding the token's bytes gives it */
};

struct bpe *bpe_create(const struct vocab *vocab) {
	struct bpe *b = calloc(1, sizeof *b);
	if (!b)
		return NULL;
	b->vocab = vocab;
	b->options.unk = -1;
	for (int byte = 0; byte < 256; byte++)
		b->byte_ids[byte] = vocab_find_bytes(vocab, &(char){ (char)byte }, 1);
	return b;
}

void bpe_destroy(struct bpe *b) {
	if (!b)
		return;
	free(b->pairs);
	free(b->results);
	free(b->whole);
	free(b);
}

static struct pair *pair_slot(const struct bpe *b, uint64_t key) {
	uint64_t h = key * UINT64_C(0x9e3779b97f4a7c15);
	size_t mask = b->n_pairs - 1, i = (h ^ h >> 32) & mask;
	while (b->pairs[i].key != key && b->pairs[i].key != UINT64_MAX)
		i = (i + 1) & mask;
	return &b->pairs[i];
}

static uint64_t pair_key(int32_t left, int32_t right) {
	return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static uint32_t pair_rank(const struct bpe *b, int32_t left, int32_t right) {
	if (!b->ranks)
		return NONE;
	const struct pair *slot = pair_slot(b, pair_key(left, right));
	return slot->key == UINT64_MAX ? NONE : slot->rank;
}

static bool grow_pairs(struct bpe *b) {
	struct pair *old = b->pairs;
	size_t n_old = b->n_pairs;
	size_t n = n_old ? n_old * 2 : 1024;
	struct pair *pairs = malloc(n * sizeof *pairs);
	if (!pairs)
		return false;
	memset(pairs, 0xff, n * sizeof *pairs);
	b->pairs = pairs;
	b->n_pairs = n;
	for (size_t i = 0; i < n_old; i++) {
		if (old[i].key != UINT64_MAX)
			*pair_slot(b, old[i].key) = old[i];
	}
	free(old);
	return true;
}

static bool make_room(struct bpe *b) {
	if (b->ranks == b->rank_capacity) {
		uint32_t capacity = b->rank_capacity ? b->rank_capacity * 2 : 1024;
		int32_t *results = realloc(b->results, capacity * sizeof *results);
		if (!results)
			return false;
		b->results = results;
		b->rank_capacity = capacity;
	}
	return b->n_pairs > (size_t)b->ranks * 2 + 1 || grow_pairs(b);
}

bool bpe_add_merge(struct bpe *b, const char *left, size_t left_len, const char *right,
                size_t right_len, char *err, size_t errlen) {
	char both[VOCAB_MAX_TOKEN];
	int32_t left_id = vocab_find(b->vocab, left, left_len);
	int32_t right_id = vocab_find(b->vocab, right, right_len);
	if (left_id < 0 || right_id < 0) {
		snprintf(err, errlen, "the %s part of merge %u is not in the vocabulary",
		                left_id < 0 ? "first" : "second", b->ranks);
		return false;
	}
	int32_t result = -1;
	if (left_len + right_len <= sizeof both) {
		memcpy(both, left, left_len);
		memcpy(both + left_len, right, right_len);
		result = vocab_find(b->vocab, both, left_len + right_len);
	}
	if (result < 0) {
		snprintf(err, errlen, "the result of merge %u is not in the vocabulary", b->ranks);
		return false;
	}
	if (b->ranks == NONE - 1 || !make_room(b)) {
		snprintf(err, errlen, "out of memory at merge %u", b->ranks);
		return false;
	}
	uint64_t key = pair_key(left_id, right_id);
	*pair_slot(b, key) = (struct pair){ key, b->ranks };
	b->results[b->ranks++] = result;
	return true;
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

/*
 * Merges the n symbols, n >= 1; the first stays first. An entry of the heap is current while its
 * position still has its rank. Each merge takes one entry and adds at most two, and there are fewer
 * than n of them: the heap never holds 2 n.
 */
static void merge_all(const struct bpe *b, struct bpe_symbol *s, uint64_t *heap, size_t n) {
	size_t entries = 0;
	for (size_t i = 0; i < n; i++) {
		s[i].prev = i ? (uint32_t)i - 1 : NONE;
		s[i].next = i + 1 < n ? (uint32_t)i + 1 : NONE;
		s[i].rank = i + 1 < n ? pair_rank(b, s[i].id, s[i + 1].id) : NONE;
		if (s[i].rank != NONE)
			heap[entries++] = (uint64_t)s[i].rank << 32 | i;
	}
	for (size_t i = entries / 2; i-- > 0;)
		heap_sift_down(heap, entries, i);
	while (entries) {
		uint64_t top = heap_pop(heap, entries--);
		uint32_t i = (uint32_t)top, rank = (uint32_t)(top >> 32);
		if (s[i].rank != rank)
			continue;
		uint32_t gone = s[i].next, next = s[gone].next, prev = s[i].prev;
		s[i].id = b->results[rank];
		s[i].next = next;
		s[i].rank = NONE;
		s[gone].rank = NONE;
		if (next != NONE) {
			s[next].prev = i;
			s[i].rank = pair_rank(b, s[i].id, s[next].id);
			if (s[i].rank != NONE)
				entries = heap_push(heap, entries, s[i].rank, i);
		}
		if (prev != NONE) {
			s[prev].rank = pair_rank(b, s[prev].id, s[i].id);
			if (s[prev].rank != NONE)
				entries = heap_push(heap, entries, s[prev].rank, prev);
		}
	}
}

static bool reserve(struct bpe_scratch *scratch, size_t n) {
	if (n <= scratch->capacity)
		return true;
	size_t capacity = n + n / 2 + 256;
	bpe_scratch_finish(scratch);
	scratch->symbols = malloc(capacity * sizeof *scratch->symbols);
	scratch->heap = malloc(2 * capacity * sizeof *scratch->heap);
	scratch->capacity = capacity;
	if (!scratch->symbols || !scratch->heap) {
		bpe_scratch_finish(scratch);
		return false;
	}
	return true;
}

void bpe_scratch_finish(struct bpe_scratch *scratch) {
	free(scratch->symbols);
	free(scratch->heap);
	*scratch = (struct bpe_scratch){ 0 };
}

/* One symbol for each byte; with fuse_unk one for a run of unknown bytes. */
static size_t spell(const struct bpe *b, const char *piece, size_t len, struct bpe_symbol *s) {
	size_t n = 0;
	bool after_unknown = false;
	for (size_t i = 0; i < len; i++) {
		int32_t id = b->byte_ids[(unsigned char)piece[i]];
		bool unknown = id < 0;
		if (!(unknown && after_unknown && b->options.fuse_unk))
			s[n++].id = unknown ? b->options.unk : id;
		after_unknown = unknown;
	}
	return n;
}

static bool encode_by_merging(const struct bpe *b, struct bpe_scratch *scratch, const char *piece,
                size_t len, int32_t *tokens, size_t cap, size_t *ret_count) {
	if (len >= NONE / 2 || !reserve(scratch, len))
		return false;
	struct bpe_symbol *s = scratch->symbols;
	merge_all(b, s, scratch->heap, spell(b, piece, len, s));
	size_t count = 0;
	for (uint32_t i = 0; i != NONE; i = s[i].next) {
		if (count == cap)
			return false;
		tokens[count++] = s[i].id;
	}
	*ret_count = count;
	return true;
}

bool bpe_encode(const struct bpe *b, struct bpe_scratch *scratch, const char *piece, size_t len,
                int32_t *tokens, size_t cap, size_t *ret_count) {
	if (len == 0) {
		*ret_count = 0;
		return true;
	}
	int32_t id = vocab_find_bytes(b->vocab, piece, len);
	if (id >= 0 && (b->options.ignore_merges || (b->whole[id / 8] >> id % 8 & 1))) {
		if (cap == 0)
			return false;
		tokens[0] = id;
		*ret_count = 1;
		return true;
	}
	return encode_by_merging(b, scratch, piece, len, tokens, cap, ret_count);
}

/* Finds out for every token whether its own bytes encode to it. */
static bool mark_whole(struct bpe *b) {
	int32_t size = vocab_size(b->vocab);
	b->whole = calloc((size_t)size / 8 + 1, 1);
	if (!b->whole)
		return false;
	struct bpe_scratch scratch = { 0 };
	bool ok = true;
	for (int32_t id = 0; ok && id < size; id++) {
		size_t len, count;
		const char *bytes = vocab_bytes(b->vocab, id, &len);
		if (!bytes || vocab_find_bytes(b->vocab, bytes, len) != id)
			continue;
		int32_t tokens[2];
		ok = reserve(&scratch, len);
		if (ok && encode_by_merging(b, &scratch, bytes, len, tokens, 2, &count)
		                && count == 1 && tokens[0] == id)
			b->whole[id / 8] |= (uint8_t)(1 << id % 8);
	}
	bpe_scratch_finish(&scratch);
	return ok;
}

bool bpe_seal(struct bpe *b, const struct bpe_options *options, char *err, size_t errlen) {
	b->options = *options;
	for (int byte = 0; byte < 256 && options->unk < 0; byte++) {
		if (b->byte_ids[byte] < 0) {
			snprintf(err, errlen,
			                "no token is the byte 0x%02x alone and there is no "
			                "unk_token",
			                (unsigned)byte);
			return false;
		}
	}
	if (!mark_whole(b)) {
		snprintf(err, errlen, "out of memory");
		return false;
	}
	return true;
}
