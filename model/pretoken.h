/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting text into pieces before byte-pair encoding: a chain of regular expressions, each applied
 * to the pieces of the one before.
 *
 * Patterns are written as Hugging Face's tokenizer.json writes them (Oniguruma's dialect). What
 * PCRE2 reads differently is rewritten or refused: `\s` is Unicode's White_Space (PCRE2 adds
 * U+180E), and `\p{L}` and `\p{N}` are those of Unicode 16 even where the library is older.
 */
#ifndef FATHOM_MODEL_PRETOKEN_H
#define FATHOM_MODEL_PRETOKEN_H

#include <stdbool.h>
#include <stddef.h>

/* GPT-2's pattern (openai/gpt-2, src/encoder.py). */
extern const char *const pretoken_gpt2;

enum pretoken_keep {
	PRETOKEN_ISOLATE, /* matches and the text between them are pieces */
	PRETOKEN_MATCHES, /* only matches are; the text between them is dropped */
};

struct pretoken;

/* An empty chain: the whole text is one piece. NULL if memory ran out. */
struct pretoken *pretoken_create(void);
void pretoken_destroy(struct pretoken *p);

/*
 * Adds a step. False with a sentence (without the file's name) if the pattern is not valid, uses
 * what is not known to mean the same here, or there are more than 16 steps.
 */
bool pretoken_add_regex(struct pretoken *p, const char *pattern, size_t len,
                enum pretoken_keep keep, char *err, size_t errlen);
/* A step that looks for this very text. */
bool pretoken_add_text(struct pretoken *p, const char *text, size_t len, enum pretoken_keep keep,
                char *err, size_t errlen);

/* Takes one piece, never empty; returns false to stop. */
typedef bool pretoken_sink(void *arg, const char *piece, size_t len);

/*
 * Cuts text[0..len) and hands the pieces over in order. A run of bytes that is not UTF-8 is a piece
 * of its own, whatever the patterns. Any number of threads may do this at once. False if the sink
 * stopped, memory ran out, or a pattern would not end in reasonable time (GPT-2's always does).
 */
bool pretoken_split(const struct pretoken *p, const char *text, size_t len, pretoken_sink *sink,
                void *arg);

#endif
