/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subword-nmt's byte-pair encoding. Symbols are strings, numbered as the codes file names them; a
 * character that it never names has no number and merges with nothing.
 */
#include "model/subword.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"
#include "model/vocab.h"

static const char END[] = "</w>";
enum { END_LEN = sizeof END - 1 };

struct subword {
	struct vocab *names; /* of symbols */
	struct merges *merges;
	bool own_end; /* version 0.1: the end of a word is a symbol of its own */
};

void subword_destroy(struct subword *s) {
	if (!s)
		return;
	vocab_destroy(s->names);
	merges_destroy(s->merges);
	free(s);
}

/* The number of a symbol, which it gets if it has none; -1 with a sentence's end. */
static int32_t number_of(struct subword *s, const char *name, size_t len, const char **ret_wrong) {
	int32_t id = vocab_find_text(s->names, name, len);
	if (id >= 0)
		return id;
	char why[160];
	id = vocab_size(s->names);
	if (vocab_add_text(s->names, name, len, id, why, sizeof why))
		return id;
	*ret_wrong = len > VOCAB_MAX_TOKEN ? "has a symbol of more than 16384 bytes"
	                                   : "does not fit into memory";
	return -1;
}

/* Adds the merge of one line; a sentence's end or NULL. */
static const char *add_line(struct subword *s, const char *line, size_t len, bool counted) {
	const char *space = memchr(line, ' ', len);
	size_t left = space ? (size_t)(space - line) : len, right = space ? len - left - 1 : 0;
	if (memchr(line, '\0', len))
		return "holds a NUL";
	if (unicode_valid_prefix(line, len) != len)
		return "is not UTF-8";
	if (left == 0 || right == 0)
		return "is not two symbols and a space";
	const char *third = memchr(space + 1, ' ', right);
	if (third && !counted)
		return "has more than two columns (only subword-nmt's codes are supported)";
	if (third)
		right = (size_t)(third - space) - 1;
	if (right == 0)
		return "is not two symbols and a space";
	if (left > VOCAB_MAX_TOKEN || right > VOCAB_MAX_TOKEN - left)
		return "makes a symbol of more than 16384 bytes";
	char both[VOCAB_MAX_TOKEN];
	memcpy(both, line, left);
	memcpy(both + left, space + 1, right);
	const char *wrong = NULL;
	int32_t a = number_of(s, line, left, &wrong);
	int32_t b = wrong ? -1 : number_of(s, space + 1, right, &wrong);
	int32_t c = wrong ? -1 : number_of(s, both, left + right, &wrong);
	if (wrong || merges_has(s->merges, a, b)) /* of two lines the first counts */
		return wrong;
	return merges_add(s->merges, a, b, c) ? NULL : "does not fit into memory";
}

/* Reads the line that names the version, if the file begins with one, and passes over it. */
static bool read_version(struct subword *s, const char *text, size_t len, size_t *ret_used) {
	static const char prefix[] = "#version:";
	size_t n = sizeof prefix - 1;
	s->own_end = true;
	*ret_used = 0;
	if (len < n || memcmp(text, prefix, n) != 0)
		return true;
	const char *newline = memchr(text, '\n', len);
	size_t end = newline ? (size_t)(newline - text) : len;
	*ret_used = end + (newline != NULL);
	while (end > n && (text[end - 1] == '\r' || text[end - 1] == ' '))
		end--;
	while (n < end && text[n] == ' ')
		n++;
	s->own_end = end - n == 3 && memcmp(text + n, "0.1", 3) == 0;
	return s->own_end || (end - n == 3 && memcmp(text + n, "0.2", 3) == 0);
}

static bool read_lines(struct subword *s, const char *text, size_t len, const char *file,
                bool counted, char *err, size_t errlen) {
	while (len > 0 && text[len - 1] == '\n')
		len--;
	size_t i, number = 1;
	if (counted)
		i = 0;
	else if (!read_version(s, text, len, &i)) {
		snprintf(err, errlen, "%s: the version is neither 0.1 nor 0.2", file);
		return false;
	}
	for (number += i > 0; i < len; number++) {
		const char *newline = memchr(text + i, '\n', len - i);
		size_t n = newline ? (size_t)(newline - text) - i : len - i, end = n;
		while (end > 0 && (text[i + end - 1] == '\r' || text[i + end - 1] == ' '))
			end--;
		const char *wrong = add_line(s, text + i, end, counted);
		if (wrong) {
			snprintf(err, errlen, "%s: line %zu %s", file, number, wrong);
			return false;
		}
		i += n + 1;
	}
	if (merges_count(s->merges) > 0)
		return true;
	snprintf(err, errlen, "%s: the file has no merges", file);
	return false;
}

struct subword *subword_parse(const char *text, size_t len, const char *file, bool counted,
                char *err, size_t errlen) {
	struct subword *s = calloc(1, sizeof *s);
	if (s) {
		s->names = vocab_create();
		s->merges = merges_create();
	}
	if (!s || !s->names || !s->merges)
		snprintf(err, errlen, "%s: out of memory", file);
	else if (read_lines(s, text, len, file, counted, err, errlen))
		return s;
	subword_destroy(s);
	return NULL;
}

/* Applying. */

/* The number of the character at text[0..len), with the end of the word behind it if it is last. */
static int32_t spell(const struct subword *s, const char *text, size_t len, bool last) {
	char name[4 + END_LEN];
	memcpy(name, text, len);
	if (last)
		memcpy(name + len, END, END_LEN);
	return vocab_find_text(s->names, name, len + (last ? END_LEN : 0));
}

/* Fills the symbols of a word; their number. */
static size_t spell_word(
                const struct subword *s, const char *word, size_t len, struct merge_symbol *to) {
	size_t count = 0;
	for (size_t i = 0, n; i < len; i += n) {
		n = unicode_decode(word + i, len - i, NULL);
		n = n ? n : 1; /* not reached with well-formed text */
		to[count++].id = spell(s, word + i, n, !s->own_end && i + n == len);
	}
	if (s->own_end)
		to[count++].id = vocab_find_text(s->names, END, END_LEN);
	return count;
}

/* The bytes of the next `count` characters of text[0..len), or all. */
static size_t characters(const char *text, size_t len, size_t count) {
	size_t i = 0;
	for (size_t n; count > 0 && i < len; count--, i += n) {
		n = unicode_decode(text + i, len - i, NULL);
		n = n ? n : 1;
	}
	return i;
}

static bool apply_to_word(const struct subword *s, struct merges_scratch *scratch, const char *word,
                size_t len, struct text *out) {
	if (!merges_reserve(scratch, len + 1))
		return false;
	struct merge_symbol *symbols = scratch->symbols;
	merges_run(s->merges, MERGES_TOGETHER, scratch, spell_word(s, word, len, symbols));
	size_t done = 0;
	for (uint32_t i = 0; done < len; i = symbols[i].next) {
		uint32_t next = symbols[i].next;
		size_t n = next == MERGES_NONE ? len - done
		                               : characters(word + done, len - done, next - i);
		if (done > 0)
			text_append(out, "@@ ", 3);
		text_append(out, word + done, n);
		done += n;
	}
	return !out->failed;
}

bool subword_apply(const struct subword *s, struct merges_scratch *scratch, const char *line,
                size_t len, bool marked, struct text *out) {
	bool joins = false, first = true; /* the word before carries the mark */
	for (size_t i = 0; i < len;) {
		const char *space = memchr(line + i, ' ', len - i);
		size_t n = space ? (size_t)(space - line) - i : len - i;
		const char *word = line + i;
		i += n + 1;
		if (n == 0)
			continue;
		if (!first)
			text_append(out, " ", 1);
		first = false;
		bool carries = marked && n >= 2 && memcmp(word + n - 2, "@@", 2) == 0;
		if (carries || joins)
			text_append(out, word, n);
		else if (!apply_to_word(s, scratch, word, n, out))
			return false;
		joins = carries;
	}
	return !out->failed;
}
