/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front of the tokenizer: opens the folder, encodes, answers questions about ids. A text is cut
 * at added tokens (added.c), what is between them into pieces (pretoken.c), and each piece is merged
 * (bpe.c).
 */
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"
#include "model/file.h"
#include "model/tokenizer_parts.h"

enum { MAX_FILE = 256 << 20 };

/* Parts that both readers use. */

bool tokenizer_read_vocab(struct tokenizer *t, const struct doc *object, const char *file,
                char *err, size_t errlen) {
	void *at = NULL;
	const char *spelling;
	const struct doc *value;
	char why[160];
	while (doc_next(object, &at, &spelling, &value)) {
		int64_t id;
		if (!doc_as_int(value, &id)) {
			char name[60];
			snprintf(err, errlen, "%s: the id of token \"%s\" is not an integer", file,
			                doc_printable(spelling, name, sizeof name));
			return false;
		}
		if (!vocab_add(t->vocab, spelling, strlen(spelling), id, why, sizeof why)) {
			snprintf(err, errlen, "%s: %s", file, why);
			return false;
		}
	}
	if (vocab_count(t->vocab) == 0) {
		snprintf(err, errlen, "%s: the vocabulary is empty", file);
		return false;
	}
	return true;
}

bool tokenizer_add_token(struct tokenizer *t, const struct added_token *token, const char *file,
                char *err, size_t errlen) {
	char why[160];
	int32_t known = vocab_find(t->vocab, token->text, token->len);
	const struct added_token *earlier = added_find_text(t->added, token->text, token->len);
	bool ok = true;
	if (known >= 0 && known != token->id) {
		snprintf(why, sizeof why, "added token %d has the id %d in the vocabulary",
		                token->id, known);
		ok = false;
	} else if (known < 0 && !earlier) {
		ok = vocab_add_text(t->vocab, token->text, token->len, token->id, why, sizeof why);
	}
	ok = ok && added_add(t->added, token, why, sizeof why);
	if (!ok)
		snprintf(err, errlen, "%s: %s", file, why);
	return ok;
}

bool tokenizer_put_around(struct tokenizer *t, struct tokenizer_around *around, int64_t id,
                const char *file, const char *key, char *err, size_t errlen) {
	size_t len;
	if (id < 0 || id > VOCAB_MAX_ID || !vocab_bytes(t->vocab, (int32_t)id, &len)) {
		snprintf(err, errlen, "%s: %s names the id %lld, which no token has", file, key,
		                (long long)id);
		return false;
	}
	if (around->count == TOKENIZER_MAX_AROUND) {
		snprintf(err, errlen, "%s: %s adds more than %d tokens", file, key,
		                TOKENIZER_MAX_AROUND);
		return false;
	}
	around->ids[around->count++] = (int32_t)id;
	return true;
}

/* Opening. */

void tokenizer_close(struct tokenizer *t) {
	if (!t)
		return;
	bpe_destroy(t->bpe);
	vocab_destroy(t->vocab);
	pretoken_destroy(t->pretoken);
	added_destroy(t->added);
	free(t->special);
	free(t);
}

static struct tokenizer *create(char *err, size_t errlen) {
	struct tokenizer *t = calloc(1, sizeof *t);
	if (t) {
		t->vocab = vocab_create();
		t->pretoken = pretoken_create();
		t->added = added_create();
		t->bpe_options.unk = -1;
	}
	if (!t || !t->vocab || !t->pretoken || !t->added) {
		tokenizer_close(t);
		snprintf(err, errlen, "out of memory for the tokenizer");
		return NULL;
	}
	return t;
}

/* Seals the parts and checks what needs all of them. */
static bool seal(struct tokenizer *t, const char *file, char *err, size_t errlen) {
	char why[160];
	if (!bpe_seal(t->bpe, &t->bpe_options, why, sizeof why)) {
		snprintf(err, errlen, "%s: %s", file, why);
		return false;
	}
	/* With a space before every stretch, tokens of one byte would make more ids than bytes. */
	if (t->prefix_space && added_shortest(t->added) < 2) {
		snprintf(err, errlen,
		                "%s: add_prefix_space with an added token of one byte is not "
		                "supported",
		                file);
		return false;
	}
	added_seal(t->added);
	int32_t size = vocab_size(t->vocab);
	t->special = calloc((size_t)size / 8 + 1, 1);
	if (!t->special) {
		snprintf(err, errlen, "out of memory for the tokenizer");
		return false;
	}
	size_t count;
	const struct added_token *tokens = added_tokens(t->added, &count);
	for (size_t i = 0; i < count; i++) {
		if (tokens[i].special)
			t->special[tokens[i].id / 8] |= (uint8_t)(1 << tokens[i].id % 8);
	}
	return true;
}

/* Reads a file of the folder if it is there; false only if it is and cannot be read. */
static bool read_text(const char *dir, const char *name, struct tokenizer_text *text, char *err,
                size_t errlen) {
	if (!file_exists(dir, name))
		return true;
	text->text = file_read(dir, name, MAX_FILE, &text->len, err, errlen);
	return text->text != NULL;
}

/* What a reader says becomes a sealed tokenizer, or NULL. */
static struct tokenizer *finish(
                struct tokenizer *t, bool read, const char *file, char *err, size_t errlen) {
	if (read && seal(t, file, err, errlen))
		return t;
	tokenizer_close(t);
	return NULL;
}

struct tokenizer *tokenizer_parse_json(struct tokenizer_text json, char *err, size_t errlen) {
	struct tokenizer *t = create(err, errlen);
	bool read = t && tokenizer_read_json(t, json, err, errlen);
	return finish(t, read, "tokenizer.json", err, errlen);
}

struct tokenizer *tokenizer_parse_folder(
                const struct tokenizer_folder *folder, char *err, size_t errlen) {
	struct tokenizer *t = create(err, errlen);
	bool read = t && tokenizer_read_folder(t, folder, err, errlen);
	return finish(t, read, "vocab.json", err, errlen);
}

static struct tokenizer *open_json(const char *dir, char *err, size_t errlen) {
	struct tokenizer_text json = { 0 };
	if (!read_text(dir, "tokenizer.json", &json, err, errlen))
		return NULL;
	struct tokenizer *t = tokenizer_parse_json(json, err, errlen);
	free((char *)json.text);
	return t;
}

static struct tokenizer *open_folder(const char *dir, char *err, size_t errlen) {
	struct tokenizer_folder f = { 0 };
	struct {
		const char *name;
		struct tokenizer_text *text;
	} files[] = {
		{ "vocab.json", &f.vocab },
		{ "merges.txt", &f.merges },
		{ "tokenizer_config.json", &f.config },
		{ "special_tokens_map.json", &f.special_map },
		{ "added_tokens.json", &f.added },
	};
	bool ok = true;
	for (size_t i = 0; ok && i < sizeof files / sizeof *files; i++)
		ok = read_text(dir, files[i].name, files[i].text, err, errlen);
	if (ok && (!f.vocab.text || !f.merges.text)) {
		snprintf(err, errlen,
		                "%s: the folder has neither tokenizer.json nor vocab.json and "
		                "merges.txt",
		                f.vocab.text ? "merges.txt" : "vocab.json");
		ok = false;
	}
	struct tokenizer *t = ok ? tokenizer_parse_folder(&f, err, errlen) : NULL;
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		free((char *)files[i].text->text);
	return t;
}

struct tokenizer *tokenizer_open(const char *dir, char *err, size_t errlen) {
	if (file_exists(dir, "tokenizer.json"))
		return open_json(dir, err, errlen);
	return open_folder(dir, err, errlen);
}

/* Encoding. */

struct encoding {
	const struct tokenizer *tokenizer;
	struct bpe_scratch scratch;
	int32_t *tokens;
	size_t cap, count;
};

static bool put(struct encoding *e, int32_t id) {
	if (e->count == e->cap)
		return false;
	e->tokens[e->count++] = id;
	return true;
}

static bool put_around(struct encoding *e, const struct tokenizer_around *around) {
	for (int i = 0; i < around->count; i++) {
		if (!put(e, around->ids[i]))
			return false;
	}
	return true;
}

static bool take_piece(void *arg, const char *piece, size_t len) {
	struct encoding *e = arg;
	size_t n;
	if (!bpe_encode(e->tokenizer->bpe, &e->scratch, piece, len, e->tokens + e->count,
	                    e->cap - e->count, &n))
		return false;
	e->count += n;
	return true;
}

static bool take_stretch(void *arg, const struct added_token *token, const char *text, size_t len) {
	struct encoding *e = arg;
	const struct tokenizer *t = e->tokenizer;
	if (token)
		return put(e, token->id);
	if (!t->prefix_space || text[0] == ' ')
		return pretoken_split(t->pretoken, text, len, take_piece, e);
	char *spaced = malloc(len + 1);
	if (!spaced)
		return false;
	spaced[0] = ' ';
	memcpy(spaced + 1, text, len);
	bool ok = pretoken_split(t->pretoken, spaced, len + 1, take_piece, e);
	free(spaced);
	return ok;
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool add_special,
                int32_t *tokens, size_t cap, size_t *ret_count) {
	struct encoding e = { .tokenizer = t, .tokens = tokens, .cap = cap };
	bool ok = (!add_special || put_around(&e, &t->before))
	                && added_split(t->added, text, len, take_stretch, &e)
	                && (!add_special || put_around(&e, &t->after));
	bpe_scratch_finish(&e.scratch);
	if (ok)
		*ret_count = e.count;
	return ok;
}

/* Questions. */

size_t tokenizer_added(const struct tokenizer *t) {
	return (size_t)(t->before.count + t->after.count) + t->prefix_space;
}

const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *ret_len) {
	return vocab_bytes(t->vocab, id, ret_len);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id) {
	return id >= 0 && id < vocab_size(t->vocab) && (t->special[id / 8] >> id % 8 & 1);
}

int32_t tokenizer_size(const struct tokenizer *t) {
	return vocab_size(t->vocab);
}

size_t tokenizer_longest(const struct tokenizer *t) {
	return vocab_longest(t->vocab);
}

int32_t tokenizer_bos(const struct tokenizer *t) {
	return t->before.count ? t->before.ids[0] : -1;
}
