/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens become text, one at a time, as the tokenizer joins them: bytes that begin a character wait
 * for the rest of it, and text that may begin a stop string is held back until that is decided.
 * Pure; allocates nothing.
 */
#ifndef FATHOM_SERVER_DETOKENISE_H
#define FATHOM_SERVER_DETOKENISE_H

#include <stdbool.h>
#include <stddef.h>

#include "model/tokenizer.h"

struct detokeniser {
	const struct tokenizer *tokenizer;
	struct tokenizer_stream stream;
	char *text; /* well-formed; not owned */
	size_t len;
	char torn[4]; /* the start of a character */
	size_t n_torn;
	size_t searched; /* no stop string ends before here */
	bool cut;        /* at a stop string: what the tokenizer holds back is not wanted */
};

/* Bytes of scratch that detokenise_add and detokenise_end need. */
size_t detokenise_scratch(const struct tokenizer *t);

/*
 * `text` has room for three times tokenizer_longest for each token to come, and 16 more. `words`: as
 * the model writes them, nothing detokenised.
 */
void detokenise_begin(struct detokeniser *d, const struct tokenizer *t, bool words, char *text);

/*
 * The text follows on one that ended with the token `before`: a space that stands between words
 * comes first. `cap` bytes of the text's memory, which is still unused, serve as scratch.
 */
void detokenise_follow(struct detokeniser *d, int32_t before, size_t cap);

/* Appends what a token adds to the text. Ill-formed bytes become U+FFFD. */
void detokenise_add(struct detokeniser *d, int32_t token, char *scratch);

/*
 * After the last token: what the tokenizer held back is appended, and the torn start of a character
 * becomes U+FFFD. Whether anything was held back: a stop string may end in it.
 */
bool detokenise_end(struct detokeniser *d, char *scratch);

/* Stop strings that end in the text added since the last call will not be looked for. */
void detokenise_skip(struct detokeniser *d);

/*
 * Looks for stop strings that end in the text added since the last call. If there is one, cuts the
 * text at the one that begins first (of several, the first listed) and returns its index; else -1.
 */
int detokenise_stop(struct detokeniser *d, char *const *stops, const size_t *lens, size_t n);

/*
 * How much of the text may be shown: all but the longest end that begins a stop string. Never
 * less than it was before.
 */
size_t detokenise_shown(
                const struct detokeniser *d, char *const *stops, const size_t *lens, size_t n);

#endif
