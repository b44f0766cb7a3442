/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte buffer. When memory runs out it remembers so (`failed`) and ignores further
 * appends, so that callers check once, at the end.
 */
#ifndef FATHOM_PROTO_BUFFER_H
#define FATHOM_PROTO_BUFFER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
	char *data; /* not NUL-terminated unless buffer_cstr was called */
	size_t len, cap;
	bool failed;
};

void buffer_finish(struct buffer *b);
void buffer_clear(struct buffer *b); /* keeps the memory */
void buffer_append(struct buffer *b, const void *data, size_t len);
void buffer_puts(struct buffer *b, const char *s);
void buffer_printf(struct buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends a JSON string literal with quotes; ill-formed UTF-8 becomes U+FFFD. */
void buffer_json_string(struct buffer *b, const char *s, size_t len);
/*
 * Appends a finite number as short as it reads back exactly (f32 or f64); not finite: null. Locale-
 * independent.
 */
void buffer_json_f32(struct buffer *b, float value);
void buffer_json_f64(struct buffer *b, double value);
/* NUL-terminates; NULL if the buffer failed. */
const char *buffer_cstr(struct buffer *b);

#endif
