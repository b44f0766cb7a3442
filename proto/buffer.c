/* SPDX-License-Identifier: Apache-2.0 */
/* The growable byte buffer, and JSON's literals in it. */
#include "proto/buffer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/number.h"
#include "proto/utf8.h"

void buffer_finish(struct buffer *b) {
	free(b->data);
	*b = (struct buffer){ 0 };
}

void buffer_clear(struct buffer *b) {
	b->len = 0;
	b->failed = false;
}

/* Makes room for `more` bytes and one NUL beyond them. */
static bool reserve(struct buffer *b, size_t more) {
	if (b->failed)
		return false;
	if (more >= SIZE_MAX / 4 - b->len) {
		b->failed = true;
		return false;
	}
	size_t need = b->len + more + 1;
	if (need <= b->cap)
		return true;
	size_t cap = b->cap ? b->cap : 256;
	while (cap < need)
		cap *= 2;
	char *grown = realloc(b->data, cap);
	if (!grown) {
		b->failed = true;
		return false;
	}
	b->data = grown;
	b->cap = cap;
	return true;
}

void buffer_append(struct buffer *b, const void *data, size_t len) {
	if (len == 0 || !reserve(b, len))
		return;
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

void buffer_puts(struct buffer *b, const char *s) {
	buffer_append(b, s, strlen(s));
}

void buffer_printf(struct buffer *b, const char *format, ...) {
	va_list args;
	va_start(args, format);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0) {
		b->failed = true;
		return;
	}
	if (!reserve(b, (size_t)n))
		return;
	va_start(args, format);
	vsnprintf(b->data + b->len, (size_t)n + 1, format, args);
	va_end(args);
	b->len += (size_t)n;
}

const char *buffer_cstr(struct buffer *b) {
	if (!reserve(b, 0))
		return NULL;
	b->data[b->len] = '\0';
	return b->data;
}

/* Escapes one byte below 0x20, or one of the two that JSON reserves. */
static void escape(struct buffer *b, unsigned char c) {
	static const char shorts[] = "\bb\tt\nn\ff\rr\"\"\\\\";
	for (const char *p = shorts; *p; p += 2) {
		if ((unsigned char)p[0] == c) {
			buffer_append(b, (char[]){ '\\', p[1] }, 2);
			return;
		}
	}
	buffer_printf(b, "\\u%04x", c);
}

void buffer_json_string(struct buffer *b, const char *s, size_t len) {
	buffer_append(b, "\"", 1);
	if (len == 0)
		s = "";          /* it may be NULL then */
	size_t start = 0, i = 0; /* s[start..i) is to be copied as it is */
	while (i < len) {
		unsigned char c = (unsigned char)s[i];
		size_t bad = 1, n = utf8_sequence(s + i, len - i, &bad);
		if (n > 0 && c >= 0x20 && c != '"' && c != '\\') {
			i += n;
			continue;
		}
		buffer_append(b, s + start, i - start);
		if (n > 0)
			escape(b, c);
		else
			buffer_append(b, "\xef\xbf\xbd", 3); /* U+FFFD */
		i += n > 0 ? n : bad;
		start = i;
	}
	buffer_append(b, s + start, i - start);
	buffer_append(b, "\"", 1);
}

void buffer_json_f32(struct buffer *b, float value) {
	char text[NUMBER_BYTES] = "null";
	if (isfinite(value))
		number_from_f32(text, value);
	buffer_puts(b, text);
}

void buffer_json_f64(struct buffer *b, double value) {
	char text[NUMBER_BYTES] = "null";
	if (isfinite(value))
		number_from_f64(text, value);
	buffer_puts(b, text);
}
