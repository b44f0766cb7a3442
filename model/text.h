/* SPDX-License-Identifier: Apache-2.0 */
/* Text that grows while it is written. */
#ifndef FATHOM_MODEL_TEXT_H
#define FATHOM_MODEL_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Zero it first. */
struct text {
	char *bytes; /* not NUL-terminated */
	size_t len, capacity;
	bool failed; /* memory ran out; nothing is appended any more */
};

void text_append(struct text *t, const char *bytes, size_t len);
/* Room for `more` bytes behind the text; false (and failed) without memory. */
bool text_reserve(struct text *t, size_t more);
void text_finish(struct text *t);

/* Bytes of the white space that text[0..len) begins with, as Python's str.isspace sees it. */
size_t text_space(const char *text, size_t len);
/* Bytes of text[0..len) without the white space at its end. */
size_t text_without_space_behind(const char *text, size_t len);

#endif
