/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BERT's tokenizing: a text is cleaned and cut into words and marks, and each of these is cut, from
 * the left, into the longest pieces that the vocabulary has (google-research/bert, tokenization.py;
 * Hugging Face's BertNormalizer, BertPreTokenizer and WordPiece). Immutable.
 *
 * In the vocabulary a piece that begins a word has a space before it (" play"), one that goes on has
 * none ("ing" for "##ing"): put together they are the text.
 */
#ifndef FATHOM_MODEL_WORDPIECE_H
#define FATHOM_MODEL_WORDPIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/text.h"
#include "model/vocab.h"

struct wordpiece;

struct wordpiece_options {
	bool clean;         /* control characters are left out */
	bool chinese_apart; /* each Chinese character is a word */
	bool lower;
	bool strip_accents;
	int32_t unk;
	int max_word; /* characters; a longer word is unknown */
};

/* NULL with a sentence. */
struct wordpiece *wordpiece_create(
                const struct wordpiece_options *options, char *err, size_t errlen);
void wordpiece_destroy(struct wordpiece *w);

/*
 * Adds a token as files spell it, or finds one. False, and -1, as vocab_add_text and vocab_find_text.
 */
bool wordpiece_add(struct vocab *v, const char *spelling, size_t len, int64_t id, char *err,
                size_t errlen);
int32_t wordpiece_find(const struct vocab *v, const char *spelling, size_t len);

/* Takes one id; false to stop. */
typedef bool wordpiece_sink(void *arg, int32_t id);

/*
 * Encodes text[0..len), any bytes: ill-formed ones are left out as BERT leaves out U+FFFD. `scratch`
 * is emptied first. False if the sink stopped or memory ran out.
 */
bool wordpiece_encode(const struct wordpiece *w, const struct vocab *v, const char *text,
                size_t len, struct text *scratch, wordpiece_sink *sink, void *arg);

#endif
