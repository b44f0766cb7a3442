/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fairseq's dictionaries: one growing block of words, their places by id, and an open-addressed hash
 * table of ids.
 */
#include "model/dict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"

struct place {
	uint32_t offset, len;
};

struct dict {
	char *bytes; /* every word with a space after it */
	size_t used, capacity;
	struct place *places; /* [place_capacity] */
	int32_t size, place_capacity;
	int32_t *slots; /* [n_slots], a power of two; -1: free */
	size_t n_slots, longest;
};

static const char *const symbols[DICT_SYMBOLS] = { "<s>", "<pad>", "</s>", "<unk>" };

void dict_destroy(struct dict *d) {
	if (!d)
		return;
	free(d->bytes);
	free(d->places);
	free(d->slots);
	free(d);
}

static uint64_t hash(const char *bytes, size_t len) {
	uint64_t h = len;
	for (; len >= 8; len -= 8, bytes += 8) {
		uint64_t word;
		memcpy(&word, bytes, 8);
		h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	uint64_t word = 0;
	memcpy(&word, bytes, len);
	h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 32;
}

/* The slot that holds the word, or the free one where it belongs. */
static size_t slot_of(const struct dict *d, const char *word, size_t len) {
	size_t mask = d->n_slots - 1, i = hash(word, len) & mask;
	for (; d->slots[i] >= 0; i = (i + 1) & mask) {
		const struct place *p = &d->places[d->slots[i]];
		if (p->len == len && memcmp(d->bytes + p->offset, word, len) == 0)
			break;
	}
	return i;
}

int32_t dict_find(const struct dict *d, const char *word, size_t len) {
	if (len == 0 || len > d->longest)
		return -1;
	return d->slots[slot_of(d, word, len)];
}

static bool grow_slots(struct dict *d) {
	size_t n = d->n_slots ? d->n_slots * 2 : 1024;
	int32_t *slots = malloc(n * sizeof *slots);
	if (!slots)
		return false;
	free(d->slots);
	d->slots = slots;
	d->n_slots = n;
	memset(slots, 0xff, n * sizeof *slots);
	/* In the order of ids: of a word that comes twice the later id stays. */
	for (int32_t id = 0; id < d->size; id++) {
		const struct place *p = &d->places[id];
		slots[slot_of(d, d->bytes + p->offset, p->len)] = id;
	}
	return true;
}

static bool make_room(struct dict *d, size_t len) {
	if (d->used + len + 1 > d->capacity) {
		size_t capacity = (d->used + len + 1) * 2 + 4096;
		char *bytes = capacity <= UINT32_MAX ? realloc(d->bytes, capacity) : NULL;
		if (!bytes)
			return false;
		d->bytes = bytes;
		d->capacity = capacity;
	}
	if (d->size == d->place_capacity) {
		int32_t capacity = d->size * 2 + 1024;
		struct place *places = realloc(d->places, (size_t)capacity * sizeof *places);
		if (!places)
			return false;
		d->places = places;
		d->place_capacity = capacity;
	}
	return d->n_slots > (size_t)d->size * 2 + 1 || grow_slots(d);
}

/* Appends a word under the next id, which from now on is the word's. */
static bool append(struct dict *d, const char *word, size_t len) {
	if (d->size == DICT_MAX_WORDS || len > DICT_MAX_WORD || !make_room(d, len))
		return false;
	d->places[d->size] = (struct place){ (uint32_t)d->used, (uint32_t)len };
	memcpy(d->bytes + d->used, word, len);
	d->bytes[d->used + len] = ' ';
	d->used += len + 1;
	d->slots[slot_of(d, word, len)] = d->size++;
	if (len > d->longest)
		d->longest = len;
	return true;
}

int32_t dict_add_symbol(struct dict *d, const char *symbol, size_t len) {
	int32_t id = dict_find(d, symbol, len);
	if (id >= 0)
		return id;
	return append(d, symbol, len) ? d->size - 1 : -1;
}

const char *dict_word(const struct dict *d, int32_t id, size_t *ret_len) {
	if (id < 0 || id >= d->size)
		return NULL;
	*ret_len = d->places[id].len;
	return d->bytes + d->places[id].offset;
}

int32_t dict_size(const struct dict *d) {
	return d->size;
}

size_t dict_longest(const struct dict *d) {
	return d->longest;
}

/* Reading the file. */

struct line {
	const char *word;
	size_t len;
	bool overwrite;
};

/* The place of the last space in text[0..len), or len. */
static size_t last_space(const char *text, size_t len) {
	size_t i = len;
	while (i > 0 && text[i - 1] != ' ')
		i--;
	return i > 0 ? i - 1 : len;
}

static bool is_count(const char *text, size_t len) {
	size_t i = len > 0 && (*text == '-' || *text == '+');
	if (i == len)
		return false;
	while (i < len && text[i] >= '0' && text[i] <= '9')
		i++;
	return i == len;
}

/* Takes a line apart; a sentence's end if it is not a word and a count, else NULL. */
static const char *read_line(const char *text, size_t len, struct line *ret) {
	static const char overwrite[] = "#fairseq:overwrite";
	if (memchr(text, '\0', len))
		return "holds a NUL";
	if (unicode_valid_prefix(text, len) != len)
		return "is not UTF-8";
	while (len > 0 && strchr(" \t\r\f\v", text[len - 1]))
		len--;
	size_t space = last_space(text, len), field = len - space;
	ret->overwrite = field == sizeof overwrite
	                && memcmp(text + space + 1, overwrite, sizeof overwrite - 1) == 0;
	if (ret->overwrite) {
		len = space;
		space = last_space(text, len);
	}
	if (space == len || !is_count(text + space + 1, len - space - 1))
		return "is not a word, a space and a count";
	if (space == 0)
		return "has no word before its count";
	if (space > DICT_MAX_WORD)
		return "has a word of more than 16384 bytes";
	ret->word = text;
	ret->len = space;
	return NULL;
}

/* Adds the word of a line; a sentence's end or NULL. */
static const char *add_line(struct dict *d, const struct line *line, size_t number) {
	size_t i = number - 1;
	/* A file that lists the four symbols first. */
	if (i < DICT_SYMBOLS && d->size == DICT_SYMBOLS && !line->overwrite
	                && dict_find(d, line->word, line->len) == (int32_t)i)
		return NULL;
	if (!line->overwrite && dict_find(d, line->word, line->len) >= 0)
		return "repeats a word that the dictionary has already";
	if (d->size == DICT_MAX_WORDS)
		return "is beyond the ten millionth word";
	return append(d, line->word, line->len) ? NULL : "does not fit into memory";
}

static bool read_lines(struct dict *d, const char *text, size_t len, const char *file, char *err,
                size_t errlen) {
	size_t number = 1;
	for (size_t i = 0; i < len; number++) {
		const char *newline = memchr(text + i, '\n', len - i);
		size_t n = newline ? (size_t)(newline - text) - i : len - i;
		struct line line;
		const char *wrong = read_line(text + i, n, &line);
		wrong = wrong ? wrong : add_line(d, &line, number);
		if (wrong) {
			snprintf(err, errlen, "%s: line %zu %s", file, number, wrong);
			return false;
		}
		i += n + 1;
	}
	if (d->size > DICT_SYMBOLS)
		return true;
	snprintf(err, errlen, "%s: the dictionary is empty", file);
	return false;
}

struct dict *dict_create(void) {
	struct dict *d = calloc(1, sizeof *d);
	bool ok = d != NULL;
	for (int i = 0; ok && i < DICT_SYMBOLS; i++)
		ok = append(d, symbols[i], strlen(symbols[i]));
	if (ok)
		return d;
	dict_destroy(d);
	return NULL;
}

struct dict *dict_parse(const char *text, size_t len, const char *file, char *err, size_t errlen) {
	struct dict *d = dict_create();
	if (!d)
		snprintf(err, errlen, "%s: out of memory", file);
	else if (read_lines(d, text, len, file, err, errlen))
		return d;
	dict_destroy(d);
	return NULL;
}
