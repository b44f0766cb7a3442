/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 by the table of well-formed byte sequences: no overlong forms, no surrogates. */
#include "proto/utf8.h"

size_t utf8_sequence(const char *s, size_t len, size_t *ret_bad) {
	const unsigned char *p = (const unsigned char *)s;
	unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte */
	size_t need;
	if (p[0] < 0x80) {
		return 1;
	} else if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		need = 2;
	} else if (p[0] >= 0xe0 && p[0] <= 0xef) {
		need = 3;
		if (p[0] == 0xe0)
			low = 0xa0;
		if (p[0] == 0xed)
			high = 0x9f;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		need = 4;
		if (p[0] == 0xf0)
			low = 0x90;
		if (p[0] == 0xf4)
			high = 0x8f;
	} else {
		need = 0;
	}
	size_t i = 1;
	while (i < need && i < len && p[i] >= low && p[i] <= high) {
		low = 0x80;
		high = 0xbf;
		i++;
	}
	if (need > 0 && i == need)
		return need;
	if (ret_bad)
		*ret_bad = i;
	return 0;
}

bool utf8_is_valid(const char *s, size_t len) {
	for (size_t i = 0; i < len;) {
		size_t n = utf8_sequence(s + i, len - i, NULL);
		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

size_t utf8_cut(const char *s, size_t len, size_t max) {
	if (len <= max)
		return len;
	while (max > 0 && ((unsigned char)s[max] & 0xc0) == 0x80)
		max--;
	return max;
}
