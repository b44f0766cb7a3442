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

enum { TOKENIZER_MAX_AROUND = 8 };

/* Ids that add_special puts before, or after, a text. */
struct tokenizer_around {
	int32_t ids[TOKENIZER_MAX_AROUND];
	int count;
};

struct tokenizer {
	struct vocab *vocab; /* added tokens included */
	struct bpe *bpe;
	struct pretoken *pretoken;
	struct added *added;
	bool prefix_space; /* a stretch that does not begin with a space gets one */
	struct tokenizer_around before, after;
	struct bpe_options bpe_options;
	uint8_t *special; /* [ceil(vocab_size / 8)] bits; made by tokenizer.c */
};

/* The text of one file; NULL: the folder has none. Texts are NUL-terminated beyond `len`. */
struct tokenizer_text {
	const char *text;
	size_t len;
};

/* Reads tokenizer.json. */
bool tokenizer_read_json(struct tokenizer *t, struct tokenizer_text json, char *err, size_t errlen);

/* The files that come instead of a tokenizer.json. */
struct tokenizer_folder {
	struct tokenizer_text vocab, merges;              /* vocab.json, merges.txt */
	struct tokenizer_text config, special_map, added; /* tokenizer_config.json, */
	/* special_tokens_map.json, added_tokens.json */
};

bool tokenizer_read_folder(struct tokenizer *t, const struct tokenizer_folder *folder, char *err,
                size_t errlen);

/* A whole tokenizer from the contents of files; NULL with a sentence. */
struct tokenizer *tokenizer_parse_json(struct tokenizer_text json, char *err, size_t errlen);
struct tokenizer *tokenizer_parse_folder(
                const struct tokenizer_folder *folder, char *err, size_t errlen);

/* Shared by the readers: a vocabulary from the members of an object, with `file` in the sentence. */
struct doc;
bool tokenizer_read_vocab(struct tokenizer *t, const struct doc *object, const char *file,
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
