/* SPDX-License-Identifier: Apache-2.0 */
/* What a tokenizer with fairseq's dictionary is made of, for the two files that make and use it. */
#ifndef FATHOM_MODEL_FAIRSEQ_PARTS_H
#define FATHOM_MODEL_FAIRSEQ_PARTS_H

#include "model/dict.h"
#include "model/moses_stream.h"
#include "model/subword.h"
#include "model/tokenizer_parts.h"

enum fairseq_units {
	FAIRSEQ_WORDS,
	FAIRSEQ_SUBWORDS, /* "ab@@" goes on */
	FAIRSEQ_BYTES,    /* GPT-2's ids as decimal numbers */
};

struct fairseq {
	struct dict *dict;
	enum fairseq_units units;
	struct subword *subword; /* NULL: words are the dictionary's already */
	struct moses *moses;     /* NULL: texts are words between white space */
	int32_t mask;            /* id of <mask>; -1: the folder has none */
	/* With GPT-2's BPE, whose parts are the tokenizer's; else NULL. */
	int32_t *to_dict;  /* [GPT-2's ids] */
	int32_t *to_bytes; /* [dictionary's ids]: GPT-2's id, or -1 */
};

/* The size, and the bits of the three symbols that are no words; the dictionary is complete. */
bool fairseq_mark_symbols(struct tokenizer *t, char *err, size_t errlen);
/* How long tokens are; everything is there. */
void fairseq_measure(struct tokenizer *t);

#endif
