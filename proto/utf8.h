/* SPDX-License-Identifier: Apache-2.0 */
/* One well-formed UTF-8 sequence at a time (Unicode 15, table 3-7). */
#ifndef FATHOM_PROTO_UTF8_H
#define FATHOM_PROTO_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Bytes of the well-formed sequence that starts at s (1 to 4), or 0 if there is none. Then
 * `ret_bad` (may be NULL) is the length of the longest start of a sequence, at least 1: what one
 * U+FFFD stands for. len >= 1.
 */
size_t utf8_sequence(const char *s, size_t len, size_t *ret_bad);

/* Whether the whole text is well formed. */
bool utf8_is_valid(const char *s, size_t len);

/* The longest prefix of at most `max` bytes that does not cut a sequence. */
size_t utf8_cut(const char *s, size_t len, size_t max);

#endif
