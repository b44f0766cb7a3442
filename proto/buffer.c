/* SPDX-License-Identifier: Apache-2.0 */
/* The growable byte buffer, and JSON's two hard literals: strings and shortest numbers. */
#include "proto/buffer.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/*
 * Appends what printf wrote. A run of bytes that belong to no number is the locale's decimal
 * separator, and becomes a point.
 */
static void append_number(struct buffer *b, const char *text) {
	char out[64];
	size_t n = 0;
	bool separator = false;
	for (const char *p = text; *p && n < sizeof out; p++) {
		bool plain = strchr("0123456789+-e", *p) != NULL;
		if (plain)
			out[n++] = *p;
		else if (!separator)
			out[n++] = '.';
		separator = !plain;
	}
	buffer_append(b, out, n);
}

void buffer_json_f32(struct buffer *b, float value) {
	if (!isfinite(value)) {
		buffer_puts(b, "null");
		return;
	}
	/*
	 * A decimal of at most FLT_DIG digits survives the way to f32 and back, so %.6g finds it if
	 * there is one; below the normal range fewer digits may do.
	 */
	int digits = fabsf(value) >= FLT_MIN || value == 0.0f ? FLT_DIG : 1;
	char text[64];
	for (;; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, (double)value);
		if (digits >= FLT_DECIMAL_DIG || strtof(text, NULL) == value)
			break;
	}
	append_number(b, text);
}

void buffer_json_f64(struct buffer *b, double value) {
	if (!isfinite(value)) {
		buffer_puts(b, "null");
		return;
	}
	int digits = fabs(value) >= DBL_MIN || value == 0.0 ? DBL_DIG : 1;
	char text[64];
	for (;; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, value);
		if (digits >= DBL_DECIMAL_DIG || strtod(text, NULL) == value)
			break;
	}
	append_number(b, text);
}
