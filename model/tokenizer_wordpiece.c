/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BERT's tokenizers: encoding and decoding, and the files that come without a tokenizer.json:
 * vocab.txt, one token in a line, with what tokenizer_config.json says.
 */
#include <stdio.h>
#include <string.h>

#include "model/doc.h"
#include "model/tokenizer_parts.h"

/* Encoding. */

struct encoding {
	const struct tokenizer *tokenizer;
	struct tokenizer_ids *ids;
	struct text scratch;
};

static bool take_id(void *arg, int32_t id) {
	struct encoding *e = arg;
	return tokenizer_put(e->ids, id);
}

static bool take_stretch(void *arg, const struct added_token *token, const char *text, size_t len) {
	struct encoding *e = arg;
	const struct tokenizer *t = e->tokenizer;
	if (token)
		return tokenizer_put(e->ids, token->id);
	return wordpiece_encode(t->wordpiece, t->vocab, text, len, &e->scratch, take_id, e);
}

static bool encode(const struct tokenizer *t, const char *text, size_t len, bool pretokenized,
                struct tokenizer_ids *ids) {
	(void)pretokenized; /* words are cut at white space in any case */
	struct encoding e = { .tokenizer = t, .ids = ids };
	bool ok = added_split(t->added, text, len, take_stretch, &e);
	text_finish(&e.scratch);
	return ok;
}

/* Decoding. */

static const char *bytes(const struct tokenizer *t, int32_t id, size_t *ret_len) {
	const char *key = vocab_bytes(t->vocab, id, ret_len);
	if (!key || !tokenizer_is_special(t, id) || *key != ' ')
		return key;
	*ret_len -= 1;
	return key + 1;
}

static size_t stream_add(
                const struct tokenizer *t, struct tokenizer_stream *s, int32_t id, char *out) {
	size_t len;
	const char *key = vocab_bytes(t->vocab, id, &len);
	if (!key || tokenizer_is_special(t, id))
		return 0;
	size_t skipped = s->state[0] == 0 && *key == ' ';
	s->state[0] = 1;
	memcpy(out, key + skipped, len - skipped);
	return len - skipped;
}

static size_t stream_end(const struct tokenizer *t, struct tokenizer_stream *s, char *out) {
	(void)t, (void)s, (void)out;
	return 0;
}

const struct tokenizer_kind tokenizer_wordpiece = {
	.encode = encode,
	.bytes = bytes,
	.stream_add = stream_add,
	.stream_end = stream_end,
	.destroy = tokenizer_destroy_parts,
};

/* vocab.txt. */

static bool read_lines(struct tokenizer *t, struct tokenizer_text text, char *err, size_t errlen) {
	int64_t id = 0;
	char why[160];
	for (size_t i = 0; i < text.len; id++) {
		const char *newline = memchr(text.text + i, '\n', text.len - i);
		size_t len = newline ? (size_t)(newline - text.text) - i : text.len - i, end = len;
		while (end > 0 && text.text[i + end - 1] == '\r')
			end--;
		if (!wordpiece_add(t->vocab, text.text + i, end, id, why, sizeof why)) {
			snprintf(err, errlen, "vocab.txt: line %lld: %s", (long long)id + 1, why);
			return false;
		}
		i += len + 1;
	}
	return true;
}

/* Makes the token of a role special; its id, or -1 with a sentence. */
static int32_t add_role(struct tokenizer *t, const struct doc *config, const struct doc *map,
                const char *role, const char *fallback, char *err, size_t errlen) {
	const struct doc *value = doc_get(config, role);
	value = doc_kind(value) > DOC_NULL ? value : doc_get(map, role);
	if (doc_kind(value) == DOC_OBJECT)
		value = doc_get(value, "content");
	const char *text = doc_as_string(value, NULL);
	text = text ? text : fallback;
	struct added_token token = { .text = text, .len = strlen(text), .special = true };
	token.id = wordpiece_find(t->vocab, text, token.len);
	if (token.id < 0) {
		snprintf(err, errlen, "vocab.txt: %s is not in the vocabulary", role);
		return -1;
	}
	return tokenizer_add_token(t, &token, "vocab.txt", err, errlen) ? token.id : -1;
}

static bool put_around(struct tokenizer *t, int32_t cls, int32_t sep) {
	struct tokenizer_pair *p = &t->pair;
	*p = (struct tokenizer_pair){ .present = true, .typed = true, .between_first = 1 };
	t->before = p->before = (struct tokenizer_around){ { cls }, 1 };
	t->after = p->between = p->after = (struct tokenizer_around){ { sep }, 1 };
	return true;
}

static bool read_config(struct tokenizer *t, const struct doc *config, const struct doc *map,
                char *err, size_t errlen) {
	static const char *const roles[][2] = { { "unk_token", "[UNK]" }, { "cls_token", "[CLS]" },
		{ "sep_token", "[SEP]" }, { "pad_token", "[PAD]" }, { "mask_token", "[MASK]" } };
	enum { UNK, CLS, SEP, N = 5 };
	int32_t ids[N];
	for (int i = 0; i < N; i++) {
		ids[i] = add_role(t, config, map, roles[i][0], roles[i][1], err, errlen);
		if (ids[i] < 0)
			return false;
	}
	struct doc_reader r = {
		.object = config, .file = "tokenizer_config.json", .err = err, .errlen = errlen
	};
	bool lower = doc_read_bool(&r, "do_lower_case", true);
	struct wordpiece_options options = {
		.clean = true,
		.chinese_apart = doc_read_bool(&r, "tokenize_chinese_chars", true),
		.lower = lower,
		.strip_accents = doc_read_bool(&r, "strip_accents", lower),
		.unk = ids[UNK],
		.max_word = 100,
	};
	if (r.failed)
		return false;
	t->wordpiece = wordpiece_create(&options, err, errlen);
	return t->wordpiece && put_around(t, ids[CLS], ids[SEP]);
}

bool tokenizer_read_vocab_txt(struct tokenizer *t, struct tokenizer_text vocab,
                struct tokenizer_text config, struct tokenizer_text special_map, char *err,
                size_t errlen) {
	struct doc *settings = NULL, *map = NULL;
	t->kind = &tokenizer_wordpiece;
	bool ok = true;
	if (config.text)
		ok = (settings = doc_parse(config.text, config.len, "tokenizer_config.json", err,
		                      errlen))
		                != NULL;
	if (ok && special_map.text)
		ok = (map = doc_parse(special_map.text, special_map.len, "special_tokens_map.json",
		                      err, errlen))
		                != NULL;
	ok = ok && read_lines(t, vocab, err, errlen) && read_config(t, settings, map, err, errlen);
	doc_free(settings);
	doc_free(map);
	return ok;
}
