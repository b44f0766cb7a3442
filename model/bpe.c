/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-pair encoding over the ids of a vocabulary; merges.c does the merging. Most pieces of real
 * text are one token: for those tokens that their own merges reach, one look-up in the vocabulary
 * replaces the merging (`whole`, worked out once).
 */
#include "model/bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bpe {
	const struct vocab *vocab;
	struct merges *merges;
	struct bpe_options options;
	int32_t byte_ids[256]; /* -1: no token */
	uint8_t *whole; /* [ceil(vocab_size / 8)]: bit set if encoding the token's bytes gives it */
};

struct bpe *bpe_create(const struct vocab *vocab) {
	struct bpe *b = calloc(1, sizeof *b);
	if (!b)
		return NULL;
	b->vocab = vocab;
	b->merges = merges_create();
	if (!b->merges) {
		bpe_destroy(b);
		return NULL;
	}
	b->options.unk = -1;
	for (int byte = 0; byte < 256; byte++)
		b->byte_ids[byte] = vocab_find_bytes(vocab, &(char){ (char)byte }, 1);
	return b;
}

void bpe_destroy(struct bpe *b) {
	if (!b)
		return;
	merges_destroy(b->merges);
	free(b->whole);
	free(b);
}

bool bpe_add_merge(struct bpe *b, const char *left, size_t left_len, const char *right,
                size_t right_len, char *err, size_t errlen) {
	char both[VOCAB_MAX_TOKEN];
	int32_t left_id = vocab_find(b->vocab, left, left_len);
	int32_t right_id = vocab_find(b->vocab, right, right_len);
	if (left_id < 0 || right_id < 0) {
		snprintf(err, errlen, "the %s part of merge %u is not in the vocabulary",
		                left_id < 0 ? "first" : "second", merges_count(b->merges));
		return false;
	}
	int32_t result = -1;
	if (left_len + right_len <= sizeof both) {
		memcpy(both, left, left_len);
		memcpy(both + left_len, right, right_len);
		result = vocab_find(b->vocab, both, left_len + right_len);
	}
	if (result < 0) {
		snprintf(err, errlen, "the result of merge %u is not in the vocabulary",
		                merges_count(b->merges));
		return false;
	}
	if (!merges_add(b->merges, left_id, right_id, result)) {
		snprintf(err, errlen, "out of memory at merge %u", merges_count(b->merges));
		return false;
	}
	return true;
}

/* One symbol for each byte; with fuse_unk one for a run of unknown bytes. */
static size_t spell(const struct bpe *b, const char *piece, size_t len, struct merge_symbol *s) {
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

static bool encode_by_merging(const struct bpe *b, struct merges_scratch *scratch,
                const char *piece, size_t len, int32_t *tokens, size_t cap, size_t *ret_count) {
	if (!merges_reserve(scratch, len))
		return false;
	struct merge_symbol *s = scratch->symbols;
	merges_run(b->merges, b->options.order, scratch, spell(b, piece, len, s));
	size_t count = 0;
	for (uint32_t i = 0; i != MERGES_NONE; i = s[i].next) {
		if (count == cap)
			return false;
		tokens[count++] = s[i].id;
	}
	*ret_count = count;
	return true;
}

bool bpe_encode(const struct bpe *b, struct merges_scratch *scratch, const char *piece, size_t len,
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
	struct merges_scratch scratch = { 0 };
	bool ok = true;
	for (int32_t id = 0; ok && id < size; id++) {
		size_t len, count;
		const char *bytes = vocab_bytes(b->vocab, id, &len);
		if (!bytes || vocab_find_bytes(b->vocab, bytes, len) != id)
			continue;
		int32_t tokens[2];
		ok = merges_reserve(&scratch, len);
		if (ok && encode_by_merging(b, &scratch, bytes, len, tokens, 2, &count)
		                && count == 1 && tokens[0] == id)
			b->whole[id / 8] |= (uint8_t)(1 << id % 8);
	}
	merges_scratch_finish(&scratch);
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
