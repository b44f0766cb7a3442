/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary: one growing block of bytes, an array of entries by id, and an open-addressed hash
 * table of ids. A key is (reachable, bytes), so that a token which merely stands for itself never
 * answers for byte-level text.
 */
#include "model/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"

struct entry {
	uint32_t offset, len; /* len 0: no token has this id */
	bool reachable;
};

struct vocab {
	char *bytes;
	size_t used, capacity;
	struct entry *entries; /* [id_capacity] */
	int32_t size, id_capacity;
	int32_t *slots; /* [n_slots], a power of two; -1: free */
	size_t n_slots, count, longest;
};

/* GPT-2's alphabet: bytes that print stand for themselves, the other 68 for U+0100 and up. */
static bool plain(unsigned byte) {
	return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/* The byte that a character of the alphabet stands for, or -1. */
static int byte_of(uint32_t code) {
	if (code < 256)
		return plain(code) ? (int)code : -1;
	unsigned rank = code - 256;
	for (unsigned byte = 0; byte < 256 && code < 256 + 68; byte++) {
		if (!plain(byte) && rank-- == 0)
			return (int)byte;
	}
	return -1;
}

/*
 * Reads a spelling: writes the bytes it stands for to `out` (at most len bytes), returns true if
 * every character is one of the 256; else copies the spelling itself and returns false.
 */
static bool unspell(const char *spelling, size_t len, char *out, size_t *ret_len) {
	size_t i = 0, n = 0;
	while (i < len) {
		uint32_t code;
		size_t step = unicode_decode(spelling + i, len - i, &code);
		int byte = step ? byte_of(code) : -1;
		if (byte < 0) {
			memmove(out, spelling, len);
			*ret_len = len;
			return false;
		}
		out[n++] = (char)byte;
		i += step;
	}
	*ret_len = n;
	return true;
}

static uint64_t hash(const char *bytes, size_t len, bool reachable) {
	uint64_t h = len * 2 + reachable;
	for (; len >= 8; len -= 8, bytes += 8) {
		uint64_t word;
		memcpy(&word, bytes, 8);
		h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	uint64_t word = 0;
	memcpy(&word, bytes, len);
	h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 32;
}

struct vocab *vocab_create(void) {
	return calloc(1, sizeof(struct vocab));
}

void vocab_destroy(struct vocab *v) {
	if (!v)
		return;
	free(v->bytes);
	free(v->entries);
	free(v->slots);
	free(v);
}

/* The slot that holds the key, or the free one where it belongs. n_slots > count. */
static size_t slot_of(const struct vocab *v, const char *bytes, size_t len, bool reachable) {
	size_t mask = v->n_slots - 1;
	size_t i = hash(bytes, len, reachable) & mask;
	for (; v->slots[i] >= 0; i = (i + 1) & mask) {
		const struct entry *e = &v->entries[v->slots[i]];
		if (e->len == len && e->reachable == reachable
		                && memcmp(v->bytes + e->offset, bytes, len) == 0)
			break;
	}
	return i;
}

static int32_t find(const struct vocab *v, const char *bytes, size_t len, bool reachable) {
	if (v->count == 0 || len == 0 || len > v->longest)
		return -1;
	return v->slots[slot_of(v, bytes, len, reachable)];
}

int32_t vocab_find_bytes(const struct vocab *v, const char *bytes, size_t len) {
	return find(v, bytes, len, true);
}

int32_t vocab_find_text(const struct vocab *v, const char *text, size_t len) {
	return find(v, text, len, false);
}

int32_t vocab_find(const struct vocab *v, const char *spelling, size_t len) {
	char bytes[VOCAB_MAX_TOKEN];
	if (len > sizeof bytes)
		return -1;
	size_t n;
	bool reachable = unspell(spelling, len, bytes, &n);
	return find(v, bytes, n, reachable);
}

static bool grow_slots(struct vocab *v) {
	size_t n = v->n_slots ? v->n_slots * 2 : 1024;
	int32_t *slots = malloc(n * sizeof *slots);
	if (!slots)
		return false;
	free(v->slots);
	v->slots = slots;
	v->n_slots = n;
	memset(slots, 0xff, n * sizeof *slots);
	for (int32_t id = 0; id < v->size; id++) {
		const struct entry *e = &v->entries[id];
		if (e->len)
			slots[slot_of(v, v->bytes + e->offset, e->len, e->reachable)] = id;
	}
	return true;
}

/* Makes room for one more token of `len` bytes with this id. */
static bool make_room(struct vocab *v, size_t len, int32_t id) {
	if (v->used + len > v->capacity) {
		size_t capacity = (v->used + len) * 2 + 4096;
		char *bytes = capacity <= UINT32_MAX ? realloc(v->bytes, capacity) : NULL;
		if (!bytes)
			return false;
		v->bytes = bytes;
		v->capacity = capacity;
	}
	if (id >= v->id_capacity) {
		int32_t capacity = id + id / 2 + 1024;
		struct entry *entries = realloc(v->entries, (size_t)capacity * sizeof *entries);
		if (!entries)
			return false;
		memset(entries + v->id_capacity, 0,
		                (size_t)(capacity - v->id_capacity) * sizeof *entries);
		v->entries = entries;
		v->id_capacity = capacity;
	}
	return v->n_slots > v->count * 2 + 1 || grow_slots(v);
}

static bool add(struct vocab *v, const char *bytes, size_t len, bool reachable, int64_t id,
                char *err, size_t errlen) {
	if (id < 0 || id > VOCAB_MAX_ID) {
		snprintf(err, errlen, "a token has the id %lld, which is not in 0 .. %d",
		                (long long)id, VOCAB_MAX_ID);
		return false;
	}
	if (len == 0) {
		snprintf(err, errlen, "token %lld is empty", (long long)id);
		return false;
	}
	if (id < v->size && v->entries[id].len) {
		snprintf(err, errlen, "the id %lld is given to two tokens", (long long)id);
		return false;
	}
	if (!make_room(v, len, (int32_t)id)) {
		snprintf(err, errlen, "out of memory at token %lld", (long long)id);
		return false;
	}
	size_t slot = slot_of(v, bytes, len, reachable);
	if (v->slots[slot] >= 0) {
		snprintf(err, errlen, "tokens %d and %lld are the same", v->slots[slot],
		                (long long)id);
		return false;
	}
	v->slots[slot] = (int32_t)id;
	v->entries[id] = (struct entry){ (uint32_t)v->used, (uint32_t)len, reachable };
	memcpy(v->bytes + v->used, bytes, len);
	v->used += len;
	v->count++;
	if (id >= v->size)
		v->size = (int32_t)id + 1;
	if (len > v->longest)
		v->longest = len;
	return true;
}

static bool fits(size_t len, int64_t id, char *err, size_t errlen) {
	if (len > VOCAB_MAX_TOKEN) {
		snprintf(err, errlen, "token %lld is %zu bytes long, more than %d", (long long)id,
		                len, VOCAB_MAX_TOKEN);
		return false;
	}
	return true;
}

bool vocab_add(struct vocab *v, const char *spelling, size_t len, int64_t id, char *err,
                size_t errlen) {
	char bytes[VOCAB_MAX_TOKEN];
	if (!fits(len, id, err, errlen))
		return false;
	size_t n;
	bool reachable = unspell(spelling, len, bytes, &n);
	return add(v, bytes, n, reachable, id, err, errlen);
}

bool vocab_add_text(struct vocab *v, const char *text, size_t len, int64_t id, char *err,
                size_t errlen) {
	return fits(len, id, err, errlen) && add(v, text, len, false, id, err, errlen);
}

const char *vocab_bytes(const struct vocab *v, int32_t id, size_t *ret_len) {
	if (id < 0 || id >= v->size || v->entries[id].len == 0)
		return NULL;
	*ret_len = v->entries[id].len;
	return v->bytes + v->entries[id].offset;
}

int32_t vocab_size(const struct vocab *v) {
	return v->size;
}

size_t vocab_count(const struct vocab *v) {
	return v->count;
}

size_t vocab_longest(const struct vocab *v) {
	return v->longest;
}
