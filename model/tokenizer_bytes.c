/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-level BPE: opening the folder, encoding and decoding. A text is cut at added tokens (added.c),
 * what is between them into pieces (pretoken.c), and each piece is merged (bpe.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"
#include "model/file.h"
#include "model/tokenizer_parts.h"

/* Parts that both readers use. */

static bool is_wordpiece(const struct tokenizer *t) {
	return t->kind == &tokenizer_wordpiece;
}

static bool add_spelling(struct tokenizer *t, const char *spelling, size_t len, int64_t id,
                char *err, size_t errlen) {
	return is_wordpiece(t) ? wordpiece_add(t->vocab, spelling, len, id, err, errlen)
	                       : vocab_add(t->vocab, spelling, len, id, err, errlen);
}

/* The id of a token as files spell it, or -1. */
static int32_t find_spelling(const struct tokenizer *t, const char *spelling, size_t len) {
	return is_wordpiece(t) ? wordpiece_find(t->vocab, spelling, len)
	                       : vocab_find(t->vocab, spelling, len);
}

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
		if (!add_spelling(t, spelling, strlen(spelling), id, why, sizeof why)) {
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
	int32_t known = find_spelling(t, token->text, token->len);
	const struct added_token *earlier = added_find_text(t->added, token->text, token->len);
	bool ok = true;
	if (known >= 0 && known != token->id) {
		snprintf(why, sizeof why, "added token %d has the id %d in the vocabulary",
		                token->id, known);
		ok = false;
	} else if (known < 0 && !earlier) {
		ok = is_wordpiece(t) ? wordpiece_add(
		                     t->vocab, token->text, token->len, token->id, why, sizeof why)
		                     : vocab_add_text(t->vocab, token->text, token->len, token->id,
		                                     why, sizeof why);
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

void tokenizer_destroy_parts(struct tokenizer *t) {
	bpe_destroy(t->bpe);
	vocab_destroy(t->vocab);
	pretoken_destroy(t->pretoken);
	added_destroy(t->added);
	wordpiece_destroy(t->wordpiece);
}

static struct tokenizer *create(char *err, size_t errlen) {
	struct tokenizer *t = tokenizer_create(&tokenizer_byte_level, err, errlen);
	if (!t)
		return NULL;
	t->vocab = vocab_create();
	t->pretoken = pretoken_create();
	t->added = added_create();
	t->bpe_options.unk = -1;
	if (!t->vocab || !t->pretoken || !t->added) {
		tokenizer_close(t);
		snprintf(err, errlen, "out of memory for the tokenizer");
		return NULL;
	}
	return t;
}

/* Seals the parts and checks what needs all of them. */
static bool seal(struct tokenizer *t, const char *file, char *err, size_t errlen) {
	char why[160];
	if (t->bpe && !bpe_seal(t->bpe, &t->bpe_options, why, sizeof why)) {
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
	t->size = vocab_size(t->vocab);
	t->longest = t->room = vocab_longest(t->vocab);
	t->per_text = t->prefix_space;
	if (!tokenizer_make_special(t, err, errlen))
		return false;
	size_t count;
	const struct added_token *tokens = added_tokens(t->added, &count);
	for (size_t i = 0; i < count; i++) {
		if (tokens[i].special)
			tokenizer_mark_special(t, tokens[i].id);
	}
	return true;
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
	if (!tokenizer_read_text(dir, "tokenizer.json", &json, err, errlen))
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
		{ "config.json", &f.model },
		{ "tokenizer_config.json", &f.config },
		{ "special_tokens_map.json", &f.special_map },
		{ "added_tokens.json", &f.added },
	};
	bool ok = true;
	for (size_t i = 0; ok && i < sizeof files / sizeof *files; i++)
		ok = tokenizer_read_text(dir, files[i].name, files[i].text, err, errlen);
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

static struct tokenizer *open_vocab_txt(const char *dir, char *err, size_t errlen) {
	struct tokenizer_text vocab = { 0 }, config = { 0 }, map = { 0 };
	bool read = tokenizer_read_text(dir, "vocab.txt", &vocab, err, errlen)
	                && tokenizer_read_text(dir, "tokenizer_config.json", &config, err, errlen)
	                && tokenizer_read_text(dir, "special_tokens_map.json", &map, err, errlen);
	struct tokenizer *t = read ? create(err, errlen) : NULL;
	read = t && tokenizer_read_vocab_txt(t, vocab, config, map, err, errlen);
	free((char *)vocab.text);
	free((char *)config.text);
	free((char *)map.text);
	return finish(t, read, "vocab.txt", err, errlen);
}

struct tokenizer *tokenizer_open_byte_level(const char *dir, char *err, size_t errlen) {
	if (file_exists(dir, "tokenizer.json"))
		return open_json(dir, err, errlen);
	if (file_exists(dir, "vocab.txt") && !file_exists(dir, "vocab.json"))
		return open_vocab_txt(dir, err, errlen);
	return open_folder(dir, err, errlen);
}

/* Encoding. */

struct encoding {
	const struct tokenizer *tokenizer;
	struct merges_scratch scratch;
	struct tokenizer_ids *ids;
};

static bool take_piece(void *arg, const char *piece, size_t len) {
	struct encoding *e = arg;
	size_t n;
	struct tokenizer_ids *ids = e->ids;
	if (!bpe_encode(e->tokenizer->bpe, &e->scratch, piece, len, ids->tokens + ids->count,
	                    ids->cap - ids->count, &n))
		return false;
	ids->count += n;
	return true;
}

static bool take_stretch(void *arg, const struct added_token *token, const char *text, size_t len) {
	struct encoding *e = arg;
	const struct tokenizer *t = e->tokenizer;
	if (token)
		return tokenizer_put(e->ids, token->id);
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

static bool encode(const struct tokenizer *t, const char *text, size_t len, bool pretokenized,
                struct tokenizer_ids *ids) {
	(void)pretokenized; /* spaces are part of the tokens */
	struct encoding e = { .tokenizer = t, .ids = ids };
	bool ok = added_split(t->added, text, len, take_stretch, &e);
	merges_scratch_finish(&e.scratch);
	return ok;
}

/* Decoding. */

static const char *bytes(const struct tokenizer *t, int32_t id, size_t *ret_len) {
	return vocab_bytes(t->vocab, id, ret_len);
}

static size_t stream_add(
                const struct tokenizer *t, struct tokenizer_stream *s, int32_t id, char *out) {
	(void)s;
	size_t len;
	const char *text = vocab_bytes(t->vocab, id, &len);
	if (!text || tokenizer_is_special(t, id))
		return 0;
	memcpy(out, text, len);
	return len;
}

static size_t stream_end(const struct tokenizer *t, struct tokenizer_stream *s, char *out) {
	(void)t, (void)s, (void)out;
	return 0;
}

const struct tokenizer_kind tokenizer_byte_level = {
	.encode = encode,
	.bytes = bytes,
	.stream_add = stream_add,
	.stream_end = stream_end,
	.destroy = tokenizer_destroy_parts,
};
