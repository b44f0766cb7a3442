/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small tokenizer folders for tests, made in a temporary directory and removed at exit.
 *
 * The vocabulary is the 256 bytes in their own order (the id of a byte is its value) and, from 256
 * on, what a test adds.
 */
#ifndef FATHOM_TESTS_TOY_TOKENIZER_H
#define FATHOM_TESTS_TOY_TOKENIZER_H

#include "model/tokenizer.h"

/* An empty folder; the path is valid until the next call. */
const char *toy_make(void);
const char *toy_path(void);
/* Writes a file into the present folder. */
void toy_write(const char *name, const char *text, size_t len);
void toy_print(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * The members of a vocabulary object: the bytes, without `omit` (-1: none), then `more`, as JSON
 * text that begins with a comma or is empty. Static buffer.
 */
const char *toy_vocab(int omit, const char *more);

/*
 * tokenizer.json with the bytes and `vocab`, `merges` (elements), `model` (further members of the
 * model, each with a comma before it) and `root` (likewise of the file). A pre-tokenizer, decoder
 * and so on that `root` does not name are GPT-2's.
 */
void toy_json(const char *vocab, const char *merges, const char *model, const char *root);

/* Opens the present folder; fails the test with the sentence if it is refused. */
struct tokenizer *toy_open(void);
/* Checks that the present folder is refused with a sentence that holds `part`. */
void toy_refused(const char *part);

/* Checks the ids of a text, written as "1 2 3". */
void encodes_to(const struct tokenizer *t, const char *text, bool add_special, const char *ids);

#endif
