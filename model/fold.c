/* SPDX-License-Identifier: Apache-2.0 */
/* Looking characters up in the tables of fold_data.h. */
#include "model/fold.h"

#include "model/fold_data.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

size_t fold_small(uint32_t code, uint32_t out[FOLD_MAX]) {
	out[0] = code;
	if (code == 0x130) { /* the one letter whose small form is two characters */
		out[0] = 'i';
		out[1] = 0x307;
		return 2;
	}
	size_t low = 0, high = COUNT(small);
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (small[middle].last < code)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < COUNT(small) && small[low].first <= code
	                && (code - small[low].first) % (uint32_t)small[low].step == 0)
		out[0] = (uint32_t)((int32_t)code + small[low].add);
	return 1;
}

/* Hangul syllables decompose by arithmetic (The Unicode Standard, 3.12). */
static size_t decompose_hangul(uint32_t code, uint32_t out[FOLD_MAX]) {
	uint32_t index = code - 0xac00;
	out[0] = 0x1100 + index / 588;
	out[1] = 0x1161 + index % 588 / 28;
	out[2] = 0x11a7 + index % 28;
	return index % 28 ? 3 : 2;
}

size_t fold_plain(uint32_t code, uint32_t out[FOLD_MAX]) {
	out[0] = code;
	if (code < 0x80 || code > 0xffff)
		return 1;
	if (code >= 0xac00 && code <= 0xd7a3)
		return decompose_hangul(code, out);
	for (size_t i = 0; i < COUNT(plain_pairs); i++) {
		if (plain_pairs[i][0] == code) {
			out[0] = plain_pairs[i][1];
			out[1] = plain_pairs[i][2];
			return 2;
		}
	}
	size_t low = 0, high = COUNT(plain);
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (plain[middle][0] < code)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < COUNT(plain) && plain[low][0] == code)
		out[0] = plain[low][1];
	return 1;
}
