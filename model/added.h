/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Added tokens: strings that become one id wherever they stand literally in a text, before it is cut
 * into pieces ("<|endoftext|>"). Immutable after added_seal.
 *
 * Meaning as in Hugging Face tokenizers (src/tokenizer/added_vocabulary.rs): of the tokens that
 * begin at the leftmost place the longest counts; `lstrip` and `rstrip` also take the white space
 * beside it; tokens with `normalized` false are looked for first, in the whole text, the others in
 * what is left.
 */
#ifndef FATHOM_MODEL_ADDED_H
#define FATHOM_MODEL_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	ADDED_MAX_TOKEN = 1024, /* bytes of one */
	ADDED_MAX_COUNT = 8192,
};

struct added_token {
	const char *text; /* copied by added_add */
	size_t len;
	int32_t id;
	bool special; /* left out of generated text */
	bool lstrip, rstrip, normalized;
};

struct added;

/* NULL if memory ran out. */
struct added *added_create(void);
void added_destroy(struct added *a);

/*
 * Adds a token. One with the text of an earlier one replaces it if the ids agree. False with a
 * sentence (without the file's name) if they do not, the text is empty or too long, there are too
 * many, or memory ran out.
 */
bool added_add(struct added *a, const struct added_token *token, char *err, size_t errlen);

void added_seal(struct added *a);

/* The token with this text; NULL if there is none. Time grows with their number. */
const struct added_token *added_find_text(const struct added *a, const char *text, size_t len);

const struct added_token *added_tokens(const struct added *a, size_t *ret_count);

/* Bytes of the shortest token; SIZE_MAX if there is none. */
size_t added_shortest(const struct added *a);

/*
 * Takes, in order, either a token (token not NULL; the text it covers is passed too) or a stretch of
 * text between tokens, never empty; returns false to stop.
 */
typedef bool added_sink(void *arg, const struct added_token *token, const char *text, size_t len);

/* Cuts text[0..len) at the added tokens. False only if the sink stopped. */
bool added_split(const struct added *a, const char *text, size_t len, added_sink *sink, void *arg);

#endif
