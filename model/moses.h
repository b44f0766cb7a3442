/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moses' tokenizing: what the scripts normalize-punctuation.perl, remove-non-printing-char.perl and
 * tokenizer.perl -a of moses-smt/mosesdecoder make of a line, in this order, as the texts of WMT
 * models were prepared. English and German; another language goes by the rules that are the same for
 * all, with English abbreviations, as in Moses where a language has no list of its own. The way back
 * is moses_stream.h. Immutable.
 */
#ifndef FATHOM_MODEL_MOSES_H
#define FATHOM_MODEL_MOSES_H

#include <stdbool.h>
#include <stddef.h>

#include "model/charset.h"
#include "model/text.h"

struct moses;

enum { MOSES_GROWTH = 6 }; /* the most characters that one byte becomes: &quot; */

/* `language`: "en", "de" or another code of ISO 639-1. NULL with a sentence. */
struct moses *moses_create(const char *language, char *err, size_t errlen);
void moses_destroy(struct moses *m);

/*
 * Appends text[0..len), well-formed UTF-8, to `out` as words with spaces between. Line ends are
 * white space. Time is O(len). False if memory ran out.
 */
bool moses_tokenize(const struct moses *m, const char *text, size_t len, struct text *out);

/* For moses_stream.c. */
bool moses_is_english(const struct moses *m);
struct moses_sets {
	struct charset alphabetic, alphanumeric, currency;
};
const struct moses_sets *moses_sets(const struct moses *m);

#endif
