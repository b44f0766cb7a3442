/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to token ids and back.
 *
 * A tokenizer is immutable after it is opened and may be used by any number of threads at once.
 * Today there is one kind, byte-level BPE (GPT-2's), read from tokenizer.json or from vocab.json
 * and merges.txt; the interface leaves room for word dictionaries and subword units.
 */
#ifndef FATHOM_MODEL_TOKENIZER_H
#define FATHOM_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/*
 * Reads the tokenizer of the model folder `dir`. On failure returns NULL with one sentence in
 * `err`.
 */
struct tokenizer *tokenizer_open(const char *dir, char *err, size_t errlen);
void tokenizer_close(struct tokenizer *t);

/*
 * Encodes `len` bytes of UTF-8 (ill-formed bytes are encoded as bytes, never refused). Special
 * tokens that occur literally in the text become their ids, as Hugging Face tokenizers do.
 * `add_special` adds what the model folder says is added (a start symbol for instance). At most
 * `cap` ids are written; `len + tokenizer_added(t)` is always enough. Time is O(len log len)
 * whatever the text. False if `cap` is too small or memory ran out.
 */
bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool add_special,
                int32_t *tokens, size_t cap, size_t *ret_count);

/* A text, or two that an encoder reads as a pair. */
struct tokenizer_input {
	const char *text;
	size_t len;
	const char *pair; /* the second text, or NULL */
	size_t pair_len;
	bool add_special;
	bool pretokenized; /* words are separated by spaces already: no normalising, no Moses */
};

/*
 * Encodes `input` as the model was trained to read it. Refuses a pair where the model folder has no
 * form for one. `ret_second` (may be NULL) is the index of the first token of segment 1 in models
 * with token types, else the count. `cap` and failure as in tokenizer_encode.
 */
bool tokenizer_encode_input(const struct tokenizer *t, const struct tokenizer_input *input,
                int32_t *tokens, size_t cap, size_t *ret_count, size_t *ret_second);
bool tokenizer_has_pairs(const struct tokenizer *t);

/*
 * Text that grows token by token, as people read it: subwords joined, spaces where they belong,
 * detokenised where the folder says so. A stream needs no memory of its own; what it gives depends
 * on the tokens so far only, never on later ones.
 */
struct tokenizer_stream {
	uint64_t state[160]; /* the tokenizer's own */
};
void tokenizer_stream_begin(const struct tokenizer *t, struct tokenizer_stream *s);
/* Most bytes that one add, or the end, can give. */
size_t tokenizer_stream_room(const struct tokenizer *t);
/* Bytes that token `id` adds to the text, at most tokenizer_stream_room; special tokens add
 * nothing. A character may be torn between calls. */
size_t tokenizer_stream_add(
                const struct tokenizer *t, struct tokenizer_stream *s, int32_t id, char *out);
/* What was held back until the text ends. */
size_t tokenizer_stream_end(const struct tokenizer *t, struct tokenizer_stream *s, char *out);

/*
 * The most ids that a text can have beyond one for each byte: those that `add_special` adds, and one
 * where a space is put before the text (`add_prefix_space`).
 */
size_t tokenizer_added(const struct tokenizer *t);

/*
 * The raw bytes of one token (not NUL-terminated; a multibyte character may be torn between
 * tokens); NULL for an id that the tokenizer does not know. The memory belongs to the tokenizer.
 */
const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *ret_len);

/* Whether `id` is a special token: its text is left out of generated text. */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);

/* One more than the largest id known. */
int32_t tokenizer_size(const struct tokenizer *t);

/* Bytes of the longest token: an upper bound for the text of n tokens is n times this. */
size_t tokenizer_longest(const struct tokenizer *t);

/* The id that is added first by `add_special` (the start symbol), or -1. */
int32_t tokenizer_bos(const struct tokenizer *t);

#endif
