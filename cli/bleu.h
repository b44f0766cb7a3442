/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BLEU of a corpus as sacrebleu computes it by default: tokenisation 13a, case kept, up to
 * 4-grams, exponential smoothing, one reference. Source: Post 2018, sacrebleu 2 (metrics/bleu.py,
 * tokenizers/tokenizer_13a.py, tokenizer_re.py).
 */
#ifndef FATHOM_CLI_BLEU_H
#define FATHOM_CLI_BLEU_H

#include <stdbool.h>
#include <stddef.h>

enum { BLEU_ORDER = 4 };

/* Counts over a corpus; begin with all zero. */
struct bleu {
	long correct[BLEU_ORDER], total[BLEU_ORDER];
	long hypothesis_len, reference_len; /* tokens */
};

/* Adds one sentence (UTF-8, `len` bytes each). False if memory ran out. */
bool bleu_add(struct bleu *b, const char *hypothesis, size_t hypothesis_len, const char *reference,
                size_t reference_len);

/* 0 to 100. */
double bleu_score(const struct bleu *b);

/*
 * The words of `text` after 13a tokenisation, separated by single spaces, NUL-terminated; free it.
 * NULL if memory ran out.
 */
char *bleu_tokenise(const char *text, size_t len);

#endif
