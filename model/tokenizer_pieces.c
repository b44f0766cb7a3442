/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentencepiece folders: Marian's (source.spm, target.spm) and M2M-100's (sentencepiece.bpe.model).
 * The library cuts texts into pieces; vocab.json gives their ids. In the vocabulary a piece is its
 * text, with a space where the file has U+2581.
 *
 * A text may begin with the tag of its language: ">>fra<<" for Marian, "__fr__" for M2M-100, which
 * then takes the place of the folder's own source language.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"
#include "model/file.h"
#include "model/pieces.h"
#include "model/tokenizer_parts.h"
#include "model/unicode.h"

static const char SPACE[] = "\xe2\x96\x81"; /* U+2581 */
enum {
	SPACE_LEN = sizeof SPACE - 1,
	GROWTH = 6, /* one character of three bytes can be normalised to eighteen */
};

/* Encoding. */

struct encoding {
	const struct tokenizer *tokenizer;
	struct tokenizer_ids *ids;
};

/* The text of a piece; at most len bytes. */
static size_t unescape(const char *piece, size_t len, char *out) {
	size_t n = 0;
	for (size_t i = 0; i < len;) {
		bool space = len - i >= SPACE_LEN && memcmp(piece + i, SPACE, SPACE_LEN) == 0;
		out[n++] = space ? ' ' : piece[i];
		i += space ? SPACE_LEN : 1;
	}
	return n;
}

static bool take_piece(void *arg, const char *piece, size_t len) {
	struct encoding *e = arg;
	const struct tokenizer *t = e->tokenizer;
	char text[VOCAB_MAX_TOKEN];
	int32_t id = -1;
	if (len <= sizeof text)
		id = vocab_find_text(t->vocab, text, unescape(piece, len, text));
	return tokenizer_put(e->ids, id < 0 || tokenizer_is_special(t, id) ? t->unk : id);
}

/* The tag that a text begins with: its id, or -1, and its bytes with the white space behind it. */
static int32_t tag_of(const struct tokenizer *t, const char *text, size_t len, size_t *ret_len) {
	const char *ends[2][2] = { { ">>", "<<" }, { "__", "__" } };
	for (int i = 0; i < 2; i++) {
		if (len < 5 || memcmp(text, ends[i][0], 2) != 0)
			continue;
		size_t most = len < 32 ? len : 32;
		const char *end = memmem(text + 2, most - 2, ends[i][1], 2);
		if (!end)
			continue;
		size_t n = (size_t)(end - text) + 2;
		*ret_len = n + text_space(text + n, len - n);
		int32_t id = vocab_find_text(t->vocab, text, n);
		if (id >= 0)
			return id;
	}
	return -1;
}

static bool has_start(const struct tokenizer *t, const char *text, size_t len) {
	size_t n;
	return tag_of(t, text, len, &n) >= 0;
}

static bool encode(const struct tokenizer *t, const char *text, size_t len, bool pretokenized,
                struct tokenizer_ids *ids) {
	(void)pretokenized; /* the library normalises in any case */
	struct encoding e = { t, ids };
	struct text mended = { 0 };
	size_t n;
	int32_t tag = tag_of(t, text, len, &n);
	if (tag >= 0) {
		text += n;
		len -= n;
	}
	bool ok = tag < 0 || tokenizer_put(ids, tag);
	if (ok && unicode_valid_prefix(text, len) != len) {
		ok = len <= SIZE_MAX / 3 && text_reserve(&mended, 3 * len);
		if (ok) {
			len = unicode_mend(text, len, mended.bytes);
			text = mended.bytes;
		}
	}
	ok = ok && pieces_encode(t->pieces, text, len, take_piece, &e);
	text_finish(&mended);
	return ok;
}

/* Decoding. */

static const char *bytes(const struct tokenizer *t, int32_t id, size_t *ret_len) {
	return vocab_bytes(t->vocab, id, ret_len);
}

static size_t stream_add(
                const struct tokenizer *t, struct tokenizer_stream *s, int32_t id, char *out) {
	size_t len;
	const char *text = vocab_bytes(t->vocab, id, &len);
	if (!text || tokenizer_is_special(t, id))
		return 0;
	size_t skipped = s->state[0] == 0 && *text == ' ';
	s->state[0] = 1;
	memcpy(out, text + skipped, len - skipped);
	return len - skipped;
}

static size_t stream_end(const struct tokenizer *t, struct tokenizer_stream *s, char *out) {
	(void)t, (void)s, (void)out;
	return 0;
}

static void destroy(struct tokenizer *t) {
	pieces_close(t->pieces);
	tokenizer_destroy_parts(t);
}

const struct tokenizer_kind tokenizer_pieces = {
	.encode = encode,
	.has_start = has_start,
	.bytes = bytes,
	.stream_add = stream_add,
	.stream_end = stream_end,
	.destroy = destroy,
};

/* Opening. */

struct reading {
	struct tokenizer *t;
	const char *dir;
	bool target;
	struct doc *config, *map; /* tokenizer_config.json, special_tokens_map.json; may be NULL */
	char *err;
	size_t errlen;
};

static bool refuse(struct reading *in, const char *file, const char *sentence) {
	snprintf(in->err, in->errlen, "%s: %s", file, sentence);
	return false;
}

/* Reads a JSON file; false if it is there and is not one. */
static bool read_json(struct reading *in, const char *file, struct doc **ret_doc) {
	struct tokenizer_text text = { 0 };
	if (!tokenizer_read_text(in->dir, file, &text, in->err, in->errlen))
		return false;
	if (text.text)
		*ret_doc = doc_parse(text.text, text.len, file, in->err, in->errlen);
	bool ok = !text.text || *ret_doc;
	free((char *)text.text);
	return ok;
}

static bool add_token(struct reading *in, const char *file, const char *spelling, int64_t id) {
	char text[VOCAB_MAX_TOKEN], why[160];
	size_t len = strlen(spelling);
	if (len > sizeof text)
		return refuse(in, file, "a token is longer than 16384 bytes");
	len = unescape(spelling, len, text);
	return vocab_add_text(in->t->vocab, text, len, id, why, sizeof why)
	                || refuse(in, file, why);
}

static bool read_vocab(struct reading *in, const char *file) {
	struct doc *root = NULL;
	void *at = NULL;
	const char *token;
	const struct doc *value;
	bool ok = read_json(in, file, &root);
	if (ok && doc_count(root) == 0)
		ok = refuse(in, file, "the vocabulary is missing or empty");
	while (ok && doc_next(root, &at, &token, &value)) {
		int64_t id;
		ok = doc_as_int(value, &id) ? add_token(in, file, token, id)
		                            : refuse(in, file, "an id is not an integer");
	}
	doc_free(root);
	return ok;
}

/* M2M-100's tags follow the vocabulary in the order of their list. */
static bool add_tags(struct reading *in) {
	const char *key = "additional_special_tokens";
	const struct doc *list = doc_get(in->map, key);
	if (doc_count(list) == 0)
		list = doc_get(in->config, key);
	if (doc_count(list) == 0)
		return refuse(in, "special_tokens_map.json",
		                "additional_special_tokens does not list the languages");
	int32_t first = vocab_size(in->t->vocab);
	for (size_t i = 0; i < doc_count(list); i++) {
		const struct doc *value = doc_at(list, i);
		const char *tag = doc_as_string(
		                doc_kind(value) == DOC_OBJECT ? doc_get(value, "content") : value,
		                NULL);
		if (!tag)
			return refuse(in, "special_tokens_map.json", "a language is not a token");
		if (!add_token(in, "special_tokens_map.json", tag, first + (int64_t)i))
			return false;
	}
	return true;
}

static int32_t id_of(const struct tokenizer *t, const char *text) {
	return vocab_find_text(t->vocab, text, strlen(text));
}

static bool load_pieces(struct reading *in, const char *file) {
	size_t len;
	char why[200];
	char *model = file_read(in->dir, file, TOKENIZER_MAX_FILE, &len, in->err, in->errlen);
	if (!model)
		return false;
	in->t->pieces = pieces_load(model, len, why, sizeof why);
	free(model);
	return in->t->pieces || refuse(in, file, why);
}

/* Specials and what stands around a text; the vocabulary is complete. */
static bool finish(struct reading *in, const char *file, int32_t tags) {
	struct tokenizer *t = in->t;
	int32_t eos = id_of(t, "</s>"), pad = id_of(t, "<pad>"), bos = id_of(t, "<s>");
	t->unk = id_of(t, "<unk>");
	t->size = vocab_size(t->vocab);
	t->longest = t->room = vocab_longest(t->vocab);
	t->growth = GROWTH;
	t->per_text = 2;
	if (eos < 0 || t->unk < 0)
		return refuse(in, file, "</s> or <unk> is missing");
	if (!tokenizer_make_special(t, in->err, in->errlen))
		return false;
	tokenizer_mark_special(t, eos);
	if (pad >= 0)
		tokenizer_mark_special(t, pad);
	if (bos >= 0)
		tokenizer_mark_special(t, bos);
	for (int32_t id = tags; id < t->size; id++)
		tokenizer_mark_special(t, id);
	t->after = (struct tokenizer_around){ { eos }, 1 };
	return true;
}

static bool read_marian(struct reading *in) {
	struct doc_reader r = { .object = in->config,
		.file = "tokenizer_config.json",
		.err = in->err,
		.errlen = in->errlen };
	bool separate = doc_read_bool(&r, "separate_vocabs", false);
	const char *vocab = in->target && separate ? "target_vocab.json" : "vocab.json";
	return !r.failed && load_pieces(in, in->target ? "target.spm" : "source.spm")
	                && read_vocab(in, vocab) && finish(in, vocab, INT32_MAX);
}

static bool read_m2m_100(struct reading *in) {
	struct tokenizer *t = in->t;
	struct doc_reader r = { .object = in->config,
		.file = "tokenizer_config.json",
		.err = in->err,
		.errlen = in->errlen };
	const char *language = doc_read_string(&r, "src_lang", "en");
	char tag[40];
	snprintf(tag, sizeof tag, "__%.30s__", language);
	if (r.failed || !load_pieces(in, "sentencepiece.bpe.model")
	                || !read_vocab(in, "vocab.json"))
		return false;
	int32_t tags = vocab_size(t->vocab);
	if (!add_tags(in) || !finish(in, "vocab.json", tags))
		return false;
	int32_t id = id_of(t, tag);
	if (id < 0)
		return refuse(in, "tokenizer_config.json", "src_lang is not one of the languages");
	t->before = (struct tokenizer_around){ { id }, 1 };
	return true;
}

struct tokenizer *tokenizer_open_pieces(const char *dir, bool target, char *err, size_t errlen) {
	struct tokenizer *t = tokenizer_create(&tokenizer_pieces, err, errlen);
	if (!t)
		return NULL;
	struct reading in = { .t = t, .dir = dir, .target = target, .err = err, .errlen = errlen };
	t->vocab = vocab_create();
	bool ok = t->vocab || refuse(&in, "vocab.json", "out of memory");
	ok = ok && read_json(&in, "tokenizer_config.json", &in.config)
	                && read_json(&in, "special_tokens_map.json", &in.map)
	                && (file_exists(dir, TOKENIZER_MARIAN_FILE) ? read_marian(&in)
	                                                            : read_m2m_100(&in));
	doc_free(in.config);
	doc_free(in.map);
	if (ok)
		return t;
	tokenizer_close(t);
	return NULL;
}
