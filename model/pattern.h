/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions. The only file that knows PCRE2: patterns are in its dialect, over UTF-8 with
 * Unicode properties. A pattern is immutable; any number of threads may use it at once.
 */
#ifndef FATHOM_MODEL_PATTERN_H
#define FATHOM_MODEL_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "model/text.h"

struct pattern;

/* Compiles a pattern; NULL with a sentence. */
struct pattern *pattern_create(const char *pattern, size_t len, char *err, size_t errlen);
void pattern_destroy(struct pattern *p);

/* Room for the place of a match, for one thread. NULL if memory ran out. */
struct pattern_match;
struct pattern_match *pattern_match_create(void);
void pattern_match_destroy(struct pattern_match *m);

enum pattern_found {
	PATTERN_FOUND,
	PATTERN_NOT_FOUND,
	PATTERN_FAILED, /* it would not end in reasonable time, or memory ran out */
};

/*
 * Looks for the first match at or after `from` in text[0..len), which must be well-formed UTF-8;
 * `from` lies between characters.
 */
enum pattern_found pattern_find(const struct pattern *p, struct pattern_match *m, const char *text,
                size_t len, size_t from, size_t *ret_begin, size_t *ret_end);

/*
 * Appends text[0..len) to `out` with every match, from left to right and none inside another,
 * replaced: $1 to $9 in `replacement` stand for groups, $$ for a dollar. False: as PATTERN_FAILED.
 */
bool pattern_replace(const struct pattern *p, struct pattern_match *m, const char *text, size_t len,
                const char *replacement, struct text *out);

/* White space as Unicode's White_Space (PCRE2's \s adds U+180E), for use inside a class. */
#define PATTERN_SPACES                                                                             \
	"\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}"         \
	"\\x{202F}\\x{205F}\\x{3000}"

#endif
