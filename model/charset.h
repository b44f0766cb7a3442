/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets of characters that have a Unicode property, as ranges that can be asked without a library
 * call: for code that looks at one character at a time. Immutable.
 */
#ifndef FATHOM_MODEL_CHARSET_H
#define FATHOM_MODEL_CHARSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A set may be empty (all zero). */
struct charset {
	uint32_t (*ranges)[2]; /* [count] first and last, ascending */
	size_t count;
};

/*
 * Fills `set` with the characters that the class `members` names, as it stands between brackets in a
 * pattern ("\\p{Nd}_"). False with a sentence.
 */
bool charset_init(struct charset *set, const char *members, char *err, size_t errlen);
void charset_finish(struct charset *set);

bool charset_has(const struct charset *set, uint32_t code);

#endif
