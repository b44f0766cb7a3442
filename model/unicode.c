/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8. One scanner (scan) knows the table of well-formed sequences; everything else asks it.
 */
#include "model/unicode.h"

#include <string.h>

enum outcome { WELL_FORMED, ILL_FORMED, CUT_OFF };

/*
 * Looks at the character that begins at text[0], len >= 1. ret_len is its length when well-formed;
 * when ill-formed, the length of its maximal well-formed beginning (at least 1); when the text ends
 * inside it, all of len.
 */
static enum outcome scan(const unsigned char *text, size_t len, size_t *ret_len) {
	unsigned lead = text[0];
	if (lead < 0x80) {
		*ret_len = 1;
		return WELL_FORMED;
	}
	*ret_len = 1;
	if (lead < 0xc2 || lead > 0xf4)
		return ILL_FORMED;
	size_t need = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
	/* The second byte's range is narrower after four lead bytes; the others are 80..BF. */
	unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	for (size_t i = 1; i < need; i++) {
		*ret_len = i;
		if (i == len)
			return CUT_OFF;
		if (text[i] < low || text[i] > high)
			return ILL_FORMED;
		low = 0x80;
		high = 0xbf;
	}
	*ret_len = need;
	return WELL_FORMED;
}

size_t unicode_decode(const char *text, size_t len, uint32_t *ret_code) {
	const unsigned char *b = (const unsigned char *)text;
	size_t n;
	if (len == 0 || scan(b, len, &n) != WELL_FORMED)
		return 0;
	if (ret_code) {
		uint32_t code = n == 1 ? b[0] : b[0] & (0x7fu >> n);
		for (size_t i = 1; i < n; i++)
			code = code << 6 | (b[i] & 0x3f);
		*ret_code = code;
	}
	return n;
}

size_t unicode_encode(uint32_t code, char out[4]) {
	if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	static const unsigned char mark[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	for (size_t i = n - 1; i > 0; i--) {
		out[i] = (char)(0x80 | (code & 0x3f));
		code >>= 6;
	}
	out[0] = (char)(mark[n] | code);
	return n;
}

/* The number of bytes at the start of text that are ASCII, eight at a time. */
static size_t ascii_prefix(const unsigned char *text, size_t len) {
	size_t i = 0;
	for (; i + 8 <= len; i += 8) {
		uint64_t word;
		memcpy(&word, text + i, sizeof word);
		if (word & UINT64_C(0x8080808080808080))
			break;
	}
	while (i < len && text[i] < 0x80)
		i++;
	return i;
}

size_t unicode_valid_prefix(const char *text, size_t len) {
	const unsigned char *b = (const unsigned char *)text;
	size_t i = 0;
	while (i < len) {
		if (b[i] < 0x80) {
			i += ascii_prefix(b + i, len - i);
			continue;
		}
		size_t n;
		if (scan(b + i, len - i, &n) != WELL_FORMED)
			break;
		i += n;
	}
	return i;
}

size_t unicode_complete(const char *text, size_t len) {
	const unsigned char *b = (const unsigned char *)text;
	for (size_t back = 1; back <= 3 && back <= len; back++) {
		unsigned byte = b[len - back];
		if (byte < 0x80)
			break;
		if (byte < 0xc0)
			continue; /* inside a character: its lead byte is further left */
		size_t n;
		return scan(b + len - back, back, &n) == CUT_OFF ? len - back : len;
	}
	return len;
}

size_t unicode_mend(const char *text, size_t len, char *out) {
	const unsigned char *b = (const unsigned char *)text;
	size_t i = 0, written = 0;
	while (i < len) {
		size_t n = unicode_valid_prefix(text + i, len - i);
		memcpy(out + written, text + i, n);
		i += n;
		written += n;
		if (i == len)
			break;
		scan(b + i, len - i, &n);
		memcpy(out + written, "\xef\xbf\xbd", 3);
		written += 3;
		i += n;
	}
	return written;
}
