/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vocabulary: token strings by id and ids by string.
 *
 * Files spell a token in the 256 printable characters that GPT-2 chose for the 256 bytes ("Ġthe" is
 * " the"). Here a token is its bytes. A spelling with any other character stands for itself: it can
 * be decoded, but no byte-level text ever reaches it.
 */
#ifndef FATHOM_MODEL_VOCAB_H
#define FATHOM_MODEL_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VOCAB_MAX_ID = (4 << 20) - 1,
	VOCAB_MAX_TOKEN = 16384, /* bytes of one token */
};

struct vocab;

/* NULL if memory ran out. */
struct vocab *vocab_create(void);
void vocab_destroy(struct vocab *v);

/*
 * Adds a token as a file spells it. False with a sentence (without the file's name) if the id is
 * out of range or taken, the spelling is too long, empty or taken, or memory ran out.
 */
bool vocab_add(struct vocab *v, const char *spelling, size_t len, int64_t id, char *err,
                size_t errlen);

/* As vocab_add, for a token given by its plain text (an added token). */
bool vocab_add_text(struct vocab *v, const char *text, size_t len, int64_t id, char *err,
                size_t errlen);

/* The id of a spelling, or -1. */
int32_t vocab_find(const struct vocab *v, const char *spelling, size_t len);

/* The id of a token that vocab_add_text added, or -1. */
int32_t vocab_find_text(const struct vocab *v, const char *text, size_t len);

/* The id of the token that byte-level text can reach and that has these bytes, or -1. */
int32_t vocab_find_bytes(const struct vocab *v, const char *bytes, size_t len);

/* The bytes of a token; NULL for an id that has none. Valid until the next vocab_add. */
const char *vocab_bytes(const struct vocab *v, int32_t id, size_t *ret_len);

/* One more than the largest id; the number of tokens; the bytes of the longest token. */
int32_t vocab_size(const struct vocab *v);
size_t vocab_count(const struct vocab *v);
size_t vocab_longest(const struct vocab *v);

#endif
