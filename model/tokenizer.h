/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to token ids and back.
 *
 * A tokenizer is immutable after it is opened and may be used by any number of threads at once.
 * Kinds: byte-level BPE (GPT-2's), read from tokenizer.json or from vocab.json and merges.txt; and
 * fairseq's dictionaries of words, of subwords ("ab@@") or of GPT-2's BPE, with Moses' tokenizing
 * around them where fathom_tokenizer.json says so.
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
/*
 * The tokenizer of the answers, where it is not the one of the sources: another dictionary, or
 * another language. NULL with an empty `err` where the folder has only one.
 */
struct tokenizer *tokenizer_open_target(const char *dir, char *err, size_t errlen);
void tokenizer_close(struct tokenizer *t);

/*
 * Makes `add_special` end every text with `id` (a model's end symbol, which its sources need) where
 * the folder's files do not say so themselves. Before anybody else uses the tokenizer.
 */
void tokenizer_end_with(struct tokenizer *t, int32_t id);

/*
 * Encodes `len` bytes of UTF-8 (ill-formed bytes are encoded as bytes, never refused). Special
 * tokens that occur literally in the text become their ids, as Hugging Face tokenizers do.
 * `add_special` adds what the model folder says is added (a start symbol for instance). At most
 * `cap` ids are written; tokenizer_capacity is always enough. Time is O(len log len) whatever the
 * text. False if `cap` is too small, memory ran out or tokenizer_refusal has something to say.
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
 * Encodes `input` as the model was trained to read it. `ret_second` (may be NULL) is the index of the
 * first token of segment 1 in models with token types, else the count. `cap` and failure as in
 * tokenizer_encode.
 */
bool tokenizer_encode_input(const struct tokenizer *t, const struct tokenizer_input *input,
                int32_t *tokens, size_t cap, size_t *ret_count, size_t *ret_second);
bool tokenizer_has_pairs(const struct tokenizer *t);

/*
 * NULL if the tokenizer takes such an input; else a sentence that says why not: a pair where the
 * folder has no form for one, a raw text where it has no BPE codes. Static.
 */
const char *tokenizer_refusal(const struct tokenizer *t, const struct tokenizer_input *input);

/* The most ids that a text, or a pair, of `len` bytes can have, those of `add_special` included. */
size_t tokenizer_capacity(const struct tokenizer *t, size_t len);

/*
 * Text that grows token by token, as people read it: subwords joined, spaces where they belong,
 * detokenised where the folder says so. A stream needs no memory of its own; what it gives depends
 * on the tokens so far only, never on later ones.
 */
struct tokenizer_stream {
	uint64_t state[160]; /* the tokenizer's own */
};
void tokenizer_stream_begin(const struct tokenizer *t, struct tokenizer_stream *s);
/* As tokenizer_stream_begin, but words stay as the model writes them: nothing is detokenised. */
void tokenizer_stream_begin_words(const struct tokenizer *t, struct tokenizer_stream *s);
/* Most bytes that one add, or the end, can give. */
size_t tokenizer_stream_room(const struct tokenizer *t);
/* Bytes that token `id` adds to the text, at most tokenizer_stream_room; special tokens add
 * nothing. A character may be torn between calls. */
size_t tokenizer_stream_add(
                const struct tokenizer *t, struct tokenizer_stream *s, int32_t id, char *out);
/* What was held back until the text ends. */
size_t tokenizer_stream_end(const struct tokenizer *t, struct tokenizer_stream *s, char *out);

/*
 * The bytes of one token (not NUL-terminated; a multibyte character may be torn between tokens); NULL
 * for an id that the tokenizer does not know. Where tokens are words, one that ends a word has a
 * space after it ("word "), and the marks of subwords are left out ("ab" for "ab@@"): put together
 * they are the text, but for detokenising. The memory belongs to the tokenizer.
 */
const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *ret_len);

/* Whether `id` is a special token: its text is left out of generated text. */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);

/* One more than the largest id known. */
int32_t tokenizer_size(const struct tokenizer *t);

/* Bytes of the longest token: an upper bound for the text of n tokens is n times this, also as a
 * stream gives it. */
size_t tokenizer_longest(const struct tokenizer *t);

/* The id that is added first by `add_special` (the start symbol), or -1. */
int32_t tokenizer_bos(const struct tokenizer *t);

/* Whether the ids are those of a fairseq dictionary. */
bool tokenizer_is_fairseq(const struct tokenizer *t);

#endif
