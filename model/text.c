/* SPDX-License-Identifier: Apache-2.0 */
/* Text that grows, and white space. */
#include "model/text.h"

#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"

bool text_reserve(struct text *t, size_t more) {
	if (t->failed)
		return false;
	if (more <= t->capacity - t->len)
		return true;
	size_t capacity;
	char *bytes = NULL;
	if (!__builtin_add_overflow(t->len, more, &capacity)
	                && !__builtin_add_overflow(capacity, capacity / 2 + 256, &capacity))
		bytes = realloc(t->bytes, capacity);
	if (!bytes) {
		t->failed = true;
		return false;
	}
	t->bytes = bytes;
	t->capacity = capacity;
	return true;
}

void text_append(struct text *t, const char *bytes, size_t len) {
	if (len == 0 || !text_reserve(t, len))
		return;
	memcpy(t->bytes + t->len, bytes, len);
	t->len += len;
}

void text_finish(struct text *t) {
	free(t->bytes);
	*t = (struct text){ 0 };
}

/* Unicode's White_Space and the four separators U+001C to U+001F. */
static bool is_space(uint32_t c) {
	if (c < 0x80)
		return c == ' ' || (c >= 0x9 && c <= 0xd) || (c >= 0x1c && c <= 0x1f);
	return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028
	                || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t text_space(const char *text, size_t len) {
	uint32_t code;
	size_t i = 0;
	for (size_t n; (n = unicode_decode(text + i, len - i, &code)) > 0 && is_space(code);)
		i += n;
	return i;
}

size_t text_without_space_behind(const char *text, size_t len) {
	while (len > 0) {
		size_t n = 1;
		while (n < 3 && n < len && ((unsigned char)text[len - n] & 0xc0) == 0x80)
			n++;
		uint32_t code;
		if (unicode_decode(text + len - n, n, &code) != n || !is_space(code))
			break;
		len -= n;
	}
	return len;
}
