/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subword-nmt's byte-pair encoding: words between spaces become subwords, all but the last of a word
 * marked with "@@". Over characters, with the end of a word as part of the last one. Versions 0.1 and
 * 0.2 of the codes file (rsennrich/subword-nmt, apply_bpe.py). Immutable.
 */
#ifndef FATHOM_MODEL_SUBWORD_H
#define FATHOM_MODEL_SUBWORD_H

#include <stdbool.h>
#include <stddef.h>

#include "model/merges.h"
#include "model/text.h"

struct subword;

/*
 * Reads text[0..len), the contents of `file` (which the sentence names). `counted`: lines have a third
 * column, which does not matter, and there is no version (it is 0.2): fastBPE's codes.
 */
struct subword *subword_parse(const char *text, size_t len, const char *file, bool counted,
                char *err, size_t errlen);
void subword_destroy(struct subword *s);

/*
 * Cuts the words of line[0..len), well-formed UTF-8, and appends the result to `out`, with single
 * spaces between. `marked`: words that carry "@@" already, and those that they join, stay as they
 * are. Time is O(len log len). False if memory ran out.
 */
bool subword_apply(const struct subword *s, struct merges_scratch *scratch, const char *line,
                size_t len, bool marked, struct text *out);

#endif
