/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moses' detokenizing, word by word: what detokenizer.perl of moses-smt/mosesdecoder makes of a line,
 * given out as soon as no later word can change it. Held back are marks alone between spaces, until
 * it is clear that the word ends there. English has rules of its own; the others are the same for
 * all languages.
 */
#ifndef FATHOM_MODEL_MOSES_STREAM_H
#define FATHOM_MODEL_MOSES_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/moses.h"

enum {
	MOSES_RUN = 512, /* bytes of a word of marks; a longer one is given out as far as it goes */
	MOSES_QUOTES = 32,           /* kinds of quotation marks that are open at once */
	MOSES_HELD = MOSES_RUN + 64, /* most bytes that one call gives beyond those of its word */
};

enum moses_word {
	MOSES_EMPTY,
	MOSES_OPENING, /* brackets, currencies: no space after */
	MOSES_CLOSING, /* stops, brackets: no space before */
	MOSES_QUOTING, /* opens or closes */
	MOSES_GIVEN,   /* anything else: given out already */
};

/* All zero at the beginning. */
struct moses_stream {
	bool begun;    /* there is text */
	bool no_space; /* the next word stands close */
	/* "@-@" becomes a hyphen between its neighbours. */
	bool space_taken; /* by the "@-@" before */
	bool in_word;
	bool ended; /* the word before is complete if this one is not "@-@" */
	uint8_t n_mark;
	/* &apos; and the like. */
	uint8_t n_entity;
	char entity[8];
	/* The word that is being built. */
	enum moses_word word;
	uint32_t last, before; /* its last character, and that of the word before; 0: none */
	uint16_t n_run;
	uint16_t n_open;
	uint64_t open[MOSES_QUOTES]; /* the kinds of quotation marks that are open */
	char run[MOSES_RUN];         /* of a word of marks */
};

/*
 * Appends a part of a word, well-formed UTF-8 without spaces; `ends`: it is the last. Returns the
 * bytes written to `out`: at most len + MOSES_HELD.
 */
size_t moses_stream_add(const struct moses *m, struct moses_stream *s, const char *part, size_t len,
                bool ends, char *out);

/* After the last word: what was held back, at most MOSES_HELD bytes. */
size_t moses_stream_end(const struct moses *m, struct moses_stream *s, char *out);

#endif
