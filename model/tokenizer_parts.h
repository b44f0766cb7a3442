/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tokenizer is made of, for the files that read one. Not for callers: they see tokenizer.h.
 *
 * The readers are pure: they take the contents of files, fill a zeroed struct and on failure leave
 * it for tokenizer_close. They add tokens and merges; tokenizer.c seals and checks what is common.
 */
#ifndef FATHOM_MODEL_TOKENIZER_PARTS_H
#define FATHOM_MODEL_TOKENIZER_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/added.h"
#include "model/bpe.h"
#include "model/pretoken.h"
#include "model/tokenizer.h"
#include "model/vocab.h"
#include "model/wordpiece.h"

enum {
	TOKENIZER_MAX_AROUND = 8,
	TOKENIZER_MAX_FILE = 256 << 20,
};

/* Ids that add_special puts before, or after, a text. */
struct tokenizer_around {
	int32_t ids[TOKENIZER_MAX_AROUND];
	int count;
};

/* The text of one file; NULL: the folder has none. Texts are NUL-terminated beyond `len`. */
struct tokenizer_text {
	const char *text;
	size_t len;
};

/* How two texts stand: before, the first, between, the second, after. */
struct tokenizer_pair {
	bool present;
	bool typed;        /* the model has token types */
	int between_first; /* how many of `between` belong to the first segment */
	struct tokenizer_around before, between, after;
};

/* Ids while they are written. */
struct tokenizer_ids {
	int32_t *tokens;
	size_t cap, count;
};

/* False if there is no room. */
bool tokenizer_put(struct tokenizer_ids *ids, int32_t id);

/* What differs between the kinds of tokenizer. */
struct tokenizer_kind {
	/* Whether the text brings the symbols that add_special puts before one; NULL: never. */
	bool (*has_start)(const struct tokenizer *t, const char *text, size_t len);
	/* Appends the ids of a text, without those that add_special adds. */
	bool (*encode)(const struct tokenizer *t, const char *text, size_t len, bool pretokenized,
	                struct tokenizer_ids *ids);
	const char *(*bytes)(const struct tokenizer *t, int32_t id, size_t *ret_len);
	/* Streams; `s` is all zero at the beginning, but for what stream_begin (may be NULL) does. */
	void (*stream_begin)(const struct tokenizer *t, struct tokenizer_stream *s, bool words);
	size_t (*stream_add)(const struct tokenizer *t, struct tokenizer_stream *s, int32_t id,
	                char *out);
	size_t (*stream_end)(const struct tokenizer *t, struct tokenizer_stream *s, char *out);
	/* Frees what the kind has put into the tokenizer, which may be half-built. */
	void (*destroy)(struct tokenizer *t);
};

extern const struct tokenizer_kind tokenizer_byte_level, tokenizer_wordpiece, tokenizer_fairseq,
                tokenizer_pieces;

struct tokenizer {
	const struct tokenizer_kind *kind;
	struct tokenizer_around before, after;
	struct tokenizer_pair pair;
	int32_t size;     /* one more than the largest id */
	size_t longest;   /* bytes of the longest token */
	size_t room;      /* most bytes that a stream gives at once */
	size_t growth;    /* ids that one byte of text can become */
	size_t per_text;  /* ids that a text can have beyond those */
	uint8_t *special; /* [ceil(size / 8)] bits */
	bool needs_words; /* takes pretokenised text only */

	/* Byte-level BPE. */
	struct vocab *vocab; /* added tokens included */
	struct bpe *bpe;
	struct pretoken *pretoken;
	struct added *added;
	bool prefix_space; /* a stretch that does not begin with a space gets one */
	struct bpe_options bpe_options;

	struct wordpiece *wordpiece; /* BERT's, with `vocab` and `added` */
	struct fairseq *fairseq;

	/* Sentencepiece, with `vocab`. */
	struct pieces *pieces;
	int32_t unk;
};

/*
 * A tokenizer of this kind with nothing in it; NULL with a sentence. free() is not enough, close it.
 */
struct tokenizer *tokenizer_create(const struct tokenizer_kind *kind, char *err, size_t errlen);
/* Frees everything but what is fairseq's. */
void tokenizer_destroy_parts(struct tokenizer *t);
/* Makes the bits of special ids, all clear, once `size` is known. False with a sentence. */
bool tokenizer_make_special(struct tokenizer *t, char *err, size_t errlen);
void tokenizer_mark_special(struct tokenizer *t, int32_t id);

/* Reads a file of the folder if it is there; false only if it is and cannot be read. */
bool tokenizer_read_text(const char *dir, const char *name, struct tokenizer_text *text, char *err,
                size_t errlen);

/* Opens a folder of this kind. */
struct tokenizer *tokenizer_open_byte_level(const char *dir, char *err, size_t errlen);
/* `target`: the tokenizer of answers; NULL with an empty sentence if the folder has only one. */
struct tokenizer *tokenizer_open_fairseq(const char *dir, bool target, char *err, size_t errlen);
#define TOKENIZER_FAIRSEQ_FILE "fathom_tokenizer.json"
/* The same for the files of Hugging Face's FSMT. */
struct tokenizer *tokenizer_open_fsmt(const char *dir, bool target, char *err, size_t errlen);
#define TOKENIZER_FSMT_FILE "vocab-src.json"
/* The same for sentencepiece folders of Marian and M2M-100. */
struct tokenizer *tokenizer_open_pieces(const char *dir, bool target, char *err, size_t errlen);
#define TOKENIZER_MARIAN_FILE "source.spm"
#define TOKENIZER_M2M_FILE "sentencepiece.bpe.model"

/* Reads tokenizer.json. */
bool tokenizer_read_json(struct tokenizer *t, struct tokenizer_text json, char *err, size_t errlen);

/* The files that come instead of a tokenizer.json. */
struct tokenizer_folder {
	struct tokenizer_text vocab, merges;              /* vocab.json, merges.txt */
	struct tokenizer_text model;                      /* config.json: the kind of model */
	struct tokenizer_text config, special_map, added; /* tokenizer_config.json, */
	/* special_tokens_map.json, added_tokens.json */
};

bool tokenizer_read_folder(struct tokenizer *t, const struct tokenizer_folder *folder, char *err,
                size_t errlen);

/* Reads vocab.txt and what goes with it; the last two may be absent. */
bool tokenizer_read_vocab_txt(struct tokenizer *t, struct tokenizer_text vocab,
                struct tokenizer_text config, struct tokenizer_text special_map, char *err,
                size_t errlen);

/* A whole byte-level tokenizer from the contents of files; NULL with a sentence. */
struct tokenizer *tokenizer_parse_json(struct tokenizer_text json, char *err, size_t errlen);
struct tokenizer *tokenizer_parse_folder(
                const struct tokenizer_folder *folder, char *err, size_t errlen);

/* Shared by the readers: a vocabulary from the members of an object, with `file` in the sentence. */
struct doc;
bool tokenizer_read_vocab(struct tokenizer *t, const struct doc *object, const char *file,
                char *err, size_t errlen);

/* A bpe from "left right" lines; the vocabulary is complete. */
bool tokenizer_read_merges(struct tokenizer *t, struct tokenizer_text text, const char *file,
                char *err, size_t errlen);

/*
 * An added token: its text joins the vocabulary under its id, unless the vocabulary spells it and
 * agrees.
 */
bool tokenizer_add_token(struct tokenizer *t, const struct added_token *token, const char *file,
                char *err, size_t errlen);

/* Appends an id to `around`; false with a sentence if it is unknown or they are too many. */
bool tokenizer_put_around(struct tokenizer *t, struct tokenizer_around *around, int64_t id,
                const char *file, const char *key, char *err, size_t errlen);

#endif
