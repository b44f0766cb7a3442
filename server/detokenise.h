/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens become text, one at a time: bytes that begin a character wait for the rest of it, and text
 * that may begin a stop string is held back until that is decided. Pure; allocates nothing.
 */
#ifndef FATHOM_SERVER_DETOKENISE_H
#define FATHOM_SERVER_DETOKENISE_H

#include <stdbool.h>
#include <stddef.h>

struct detokeniser {
	char *text; /* well-formed; not owned */
	size_t len;
	char torn[4]; /* the start of a character */
	size_t n_torn;
	size_t searched; /* no stop string ends before here */
};

/* Bytes of scratch that detokenise_add needs for a token of `longest` bytes. */
#define DETOKENISE_SCRATCH(longest) ((longest) + 4)

/* `text` has room for three times the bytes of all tokens to come, and 16 more. */
void detokenise_begin(struct detokeniser *d, char *text);

/* Appends a token's bytes. Ill-formed bytes become U+FFFD. */
void detokenise_add(struct detokeniser *d, const char *bytes, size_t len, char *scratch);

/* After the last token: the torn start of a character becomes U+FFFD. */
void detokenise_end(struct detokeniser *d);

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
