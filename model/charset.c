/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of characters: one pattern looks for runs in the text of all characters. */
#include "model/charset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/pattern.h"
#include "model/unicode.h"

enum { CHARACTERS = 0x110000 };

/* Appends the character at `from` to `set`, as a range of its own or to the last one. */
static bool add_range(struct charset *set, size_t *capacity, uint32_t first, uint32_t last) {
	if (set->count == *capacity) {
		size_t more = *capacity * 2 + 64;
		void *grown = realloc(set->ranges, more * sizeof *set->ranges);
		if (!grown)
			return false;
		set->ranges = grown;
		*capacity = more;
	}
	set->ranges[set->count][0] = first;
	set->ranges[set->count++][1] = last;
	return true;
}

/* The character that begins at text[at]. */
static uint32_t character(const struct text *text, size_t at) {
	uint32_t code = 0;
	unicode_decode(text->bytes + at, text->len - at, &code);
	return code;
}

/* The character that ends at text[end]. */
static uint32_t character_before(const struct text *text, size_t end) {
	size_t at = end - 1;
	while (at > 0 && ((unsigned char)text->bytes[at] & 0xc0) == 0x80)
		at--;
	return character(text, at);
}

static bool find_ranges(struct charset *set, const struct pattern *p, struct pattern_match *m,
                const struct text *all) {
	size_t capacity = 0, from = 0, begin, end;
	for (;;) {
		enum pattern_found found =
		                pattern_find(p, m, all->bytes, all->len, from, &begin, &end);
		if (found != PATTERN_FOUND)
			return found == PATTERN_NOT_FOUND;
		if (!add_range(set, &capacity, character(all, begin), character_before(all, end)))
			return false;
		from = end;
	}
}

bool charset_init(struct charset *set, const char *members, char *err, size_t errlen) {
	char run[200];
	struct text all = { 0 };
	*set = (struct charset){ 0 };
	snprintf(run, sizeof run, "[%s]+", members);
	struct pattern *p = pattern_create(run, strlen(run), err, errlen);
	if (!p)
		return false;
	struct pattern_match *m = pattern_match_create();
	for (uint32_t code = 0; code < CHARACTERS; code++) {
		char bytes[4];
		text_append(&all, bytes, unicode_encode(code, bytes));
	}
	bool ok = m && !all.failed && find_ranges(set, p, m, &all);
	if (!ok) {
		snprintf(err, errlen, "out of memory");
		charset_finish(set);
	}
	text_finish(&all);
	pattern_match_destroy(m);
	pattern_destroy(p);
	return ok;
}

void charset_finish(struct charset *set) {
	free(set->ranges);
	*set = (struct charset){ 0 };
}

bool charset_has(const struct charset *set, uint32_t code) {
	size_t low = 0, high = set->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (set->ranges[middle][1] < code)
			low = middle + 1;
		else
			high = middle;
	}
	return low < set->count && set->ranges[low][0] <= code;
}
