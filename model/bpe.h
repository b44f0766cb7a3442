/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-level byte-pair encoding: one piece of text (a word, as pretoken cuts them) to ids.
 *
 * Over bytes as in GPT-2: begin with one symbol for each byte, then merge (merges.h): O(n log n) in
 * the bytes of the piece. Immutable after bpe_seal.
 */
#ifndef FATHOM_MODEL_BPE_H
#define FATHOM_MODEL_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/merges.h"
#include "model/vocab.h"

struct bpe;

struct bpe_options {
	bool ignore_merges; /* a piece that is a token becomes it, whatever the merges say */
	int32_t unk;        /* stands for a byte that the vocabulary lacks; -1: none */
	bool fuse_unk;      /* one `unk` for a run of such bytes */
	enum merges_order order;
};

/* `vocab` must be complete and must outlive the bpe. NULL if memory ran out. */
struct bpe *bpe_create(const struct vocab *vocab);
void bpe_destroy(struct bpe *b);

/*
 * Adds the next merge, as a file spells its two parts; of a pair that comes twice the later rank
 * counts. False with a sentence (without the file's name) if a part or the result is not in the
 * vocabulary, or memory ran out.
 */
bool bpe_add_merge(struct bpe *b, const char *left, size_t left_len, const char *right,
                size_t right_len, char *err, size_t errlen);

/* Ends building. False with a sentence if a byte has neither a token nor `unk`. */
bool bpe_seal(struct bpe *b, const struct bpe_options *options, char *err, size_t errlen);

/*
 * Encodes one piece, writing at most `len` ids to tokens[0..cap). Any bytes are allowed. False if
 * cap is too small or memory ran out.
 */
bool bpe_encode(const struct bpe *b, struct merges_scratch *scratch, const char *piece, size_t len,
                int32_t *tokens, size_t cap, size_t *ret_count);

#endif
