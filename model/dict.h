/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fairseq's dictionaries: dict.txt, one "word count" in a line, and the ids that it gives.
 *
 * Ids 0 to 3 are <s>, <pad>, </s> and <unk>, which the file does not list; its lines follow from 4 on
 * in their order (fairseq/data/dictionary.py). A file whose first four lines are these symbols in
 * this order is read as listing them. Pure; immutable once it is filled.
 */
#ifndef FATHOM_MODEL_DICT_H
#define FATHOM_MODEL_DICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	DICT_BOS,
	DICT_PAD,
	DICT_EOS,
	DICT_UNK, /* what a word is that the dictionary lacks */
	DICT_SYMBOLS,
	DICT_MAX_WORDS = 10 * 1000 * 1000,
	DICT_MAX_WORD = 16384, /* bytes of one */
};

struct dict;

/*
 * Reads text[0..len), the contents of `file` (which the sentence names). Refused: a line that is not
 * a word, a space and a count; a word that comes twice (unless its line ends in
 * "#fairseq:overwrite": then the later id counts); ill-formed UTF-8; NULs.
 */
struct dict *dict_parse(const char *text, size_t len, const char *file, char *err, size_t errlen);
void dict_destroy(struct dict *d);

/* A dictionary of the four symbols alone; NULL if memory ran out. */
struct dict *dict_create(void);

/* Appends a symbol after the last id, or finds it if it is there. Its id; -1: no memory or too long. */
int32_t dict_add_symbol(struct dict *d, const char *symbol, size_t len);

/* The id of a word, or -1. */
int32_t dict_find(const struct dict *d, const char *word, size_t len);

/* A word, followed by a space beyond its end; NULL for an id that there is not. */
const char *dict_word(const struct dict *d, int32_t id, size_t *ret_len);

/* One more than the largest id; the bytes of the longest word. */
int32_t dict_size(const struct dict *d);
size_t dict_longest(const struct dict *d);

#endif
