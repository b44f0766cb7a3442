/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the tokenizer of Hugging Face's FSMT, which is fairseq's written another way: words carry
 * "</w>" at their end where fairseq's subwords carry "@@", and the merges are fastBPE's. The
 * dictionaries are vocab-src.json and vocab-tgt.json, the languages stand in tokenizer_config.json.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"
#include "model/fairseq_parts.h"
#include "model/file.h"

static const char CONFIG[] = "tokenizer_config.json", MERGES[] = "merges.txt";

/* The reading of one folder. */
struct reading {
	struct tokenizer *t;
	const char *dir;
	bool target;
	char *err;
	size_t errlen;
};

static bool refuse(struct reading *in, const char *file, const char *sentence) {
	snprintf(in->err, in->errlen, "%s: %s", file, sentence);
	return false;
}

static struct doc *read_json(struct reading *in, const char *file) {
	size_t len;
	char *text = file_read(in->dir, file, TOKENIZER_MAX_FILE, &len, in->err, in->errlen);
	struct doc *root = text ? doc_parse(text, len, file, in->err, in->errlen) : NULL;
	free(text);
	return root;
}

/* The token with id `id` as fairseq's dictionary has it. */
static bool add_word(struct reading *in, const char *token, size_t len, int32_t id) {
	struct dict *d = in->t->fairseq->dict;
	char word[DICT_MAX_WORD];
	bool ends = len > 4 && memcmp(token + len - 4, "</w>", 4) == 0;
	if (id < DICT_SYMBOLS)
		return dict_find(d, token, len) == id;
	if (len + 2 > sizeof word)
		return false;
	memcpy(word, token, len);
	memcpy(word + len - (ends ? 4 : 0), "@@", ends ? 0 : 2);
	return dict_add_symbol(d, word, ends ? len - 4 : len + 2) == id;
}

/* Puts the tokens in the order of their ids, each id once. */
static bool sort(struct reading *in, const char *file, const struct doc *root, const char **tokens,
                size_t count) {
	void *at = NULL;
	const char *token;
	const struct doc *value;
	while (doc_next(root, &at, &token, &value)) {
		int64_t id;
		if (!doc_as_int(value, &id) || id < 0 || (uint64_t)id >= count || tokens[id])
			return refuse(in, file, "the ids are not 0, 1, 2 and so on, each once");
		tokens[id] = token;
	}
	return true;
}

static bool read_dict(struct reading *in, const char *file) {
	struct doc *root = read_json(in, file);
	size_t count = doc_count(root);
	const char **tokens = root ? calloc(count + 1, sizeof *tokens) : NULL;
	struct dict *d = in->t->fairseq->dict = tokens ? dict_create() : NULL;
	bool ok = d != NULL;
	if (root && !ok)
		refuse(in, file, "out of memory");
	if (ok && count <= DICT_SYMBOLS)
		ok = refuse(in, file, "the vocabulary is empty");
	ok = ok && sort(in, file, root, tokens, count);
	for (size_t id = 0; ok && id < count; id++) {
		if (!add_word(in, tokens[id], strlen(tokens[id]), (int32_t)id)) {
			char why[120];
			snprintf(why, sizeof why, "token %zu is not one of fairseq's", id);
			ok = refuse(in, file, why);
		}
	}
	free(tokens);
	doc_free(root);
	return ok;
}

static bool read_merges(struct reading *in) {
	size_t len;
	char *text = file_read(in->dir, MERGES, TOKENIZER_MAX_FILE, &len, in->err, in->errlen);
	if (!text)
		return false;
	in->t->fairseq->subword = subword_parse(text, len, MERGES, true, in->err, in->errlen);
	free(text);
	return in->t->fairseq->subword != NULL;
}

/* The two languages; "langs": ["en", "ru"]. */
static bool read_config(struct reading *in, char languages[2][16]) {
	struct doc *root = read_json(in, CONFIG);
	if (!root)
		return false;
	struct doc_reader r = {
		.object = root, .file = CONFIG, .err = in->err, .errlen = in->errlen
	};
	bool lower = doc_read_bool(&r, "do_lower_case", false), ok = !r.failed;
	if (ok && lower)
		ok = refuse(in, CONFIG, "do_lower_case is not supported");
	for (size_t i = 0; ok && i < 2; i++) {
		const char *language = doc_as_string(doc_at(doc_get(root, "langs"), i), NULL);
		ok = language != NULL || refuse(in, CONFIG, "langs is not two languages");
		snprintf(languages[i], sizeof languages[i], "%s", language ? language : "");
	}
	doc_free(root);
	return ok;
}

static bool read_folder(struct reading *in) {
	struct tokenizer *t = in->t;
	struct fairseq *f = t->fairseq;
	char languages[2][16], why[200];
	if (!read_config(in, languages)
	                || !read_dict(in, in->target ? "vocab-tgt.json" : TOKENIZER_FSMT_FILE)
	                || !fairseq_mark_symbols(t, in->err, in->errlen) || !read_merges(in))
		return false;
	f->units = FAIRSEQ_SUBWORDS;
	f->mask = -1;
	f->moses = moses_create(languages[in->target], why, sizeof why);
	if (!f->moses)
		return refuse(in, "Moses", why);
	t->growth = MOSES_GROWTH;
	t->after = (struct tokenizer_around){ { DICT_EOS }, 1 };
	fairseq_measure(t);
	return true;
}

struct tokenizer *tokenizer_open_fsmt(const char *dir, bool target, char *err, size_t errlen) {
	struct tokenizer *t = tokenizer_create(&tokenizer_fairseq, err, errlen);
	if (!t)
		return NULL;
	struct reading in = { .t = t, .dir = dir, .target = target, .err = err, .errlen = errlen };
	t->fairseq = calloc(1, sizeof *t->fairseq);
	if (!t->fairseq)
		snprintf(err, errlen, "out of memory for the tokenizer");
	else if (read_folder(&in))
		return t;
	tokenizer_close(t);
	return NULL;
}
