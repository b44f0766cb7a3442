/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the tokenizer of a folder that comes from fairseq: fathom_tokenizer.json and the dictionary
 * and codes that it names. MODEL.md has the keys.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"
#include "model/fairseq_parts.h"
#include "model/file.h"

#define FILE_NAME TOKENIZER_FAIRSEQ_FILE

/* The reading of one folder. */
struct reading {
	struct tokenizer *t;
	const char *dir;
	const struct doc *root;
	char *err;
	size_t errlen;
};

/* What fathom_tokenizer.json says, but for lists. */
struct settings {
	const char *dictionary, *target_dictionary, *bpe, *codes, *encoder, *merges;
	const char *tokenizer, *source_lang, *target_lang, *start;
	bool bos, eos;
};

static bool refuse(struct reading *in, const char *key, const char *sentence) {
	snprintf(in->err, in->errlen, FILE_NAME ": \"%s\" %s", key, sentence);
	return false;
}

static bool check_keys(struct reading *in) {
	static const char *const known[] = { "kind", "dictionary", "target_dictionary",
		"extra_symbols", "bpe", "codes", "encoder", "merges", "tokenizer", "source_lang",
		"target_lang", "bos", "eos", "start", "pair" };
	void *at = NULL;
	const char *key;
	const struct doc *value;
	while (doc_next(in->root, &at, &key, &value)) {
		size_t i = 0, n = sizeof known / sizeof *known;
		while (i < n && strcmp(key, known[i]) != 0)
			i++;
		char name[60];
		if (i == n)
			return refuse(in, doc_printable(key, name, sizeof name),
			                "is not a known key");
	}
	return true;
}

static bool read_settings(struct reading *in, struct settings *s) {
	struct doc_reader r = {
		.object = in->root, .file = FILE_NAME, .err = in->err, .errlen = in->errlen
	};
	const char *kind = doc_read_string(&r, "kind", "");
	*s = (struct settings){
		.dictionary = doc_read_string(&r, "dictionary", "dict.txt"),
		.target_dictionary = doc_read_string(&r, "target_dictionary", NULL),
		.bpe = doc_read_string(&r, "bpe", "none"),
		.codes = doc_read_string(&r, "codes", NULL),
		.encoder = doc_read_string(&r, "encoder", NULL),
		.merges = doc_read_string(&r, "merges", NULL),
		.tokenizer = doc_read_string(&r, "tokenizer", "none"),
		.source_lang = doc_read_string(&r, "source_lang", NULL),
		.target_lang = doc_read_string(&r, "target_lang", NULL),
		.start = doc_read_string(&r, "start", NULL),
		.bos = doc_read_bool(&r, "bos", false),
		.eos = doc_read_bool(&r, "eos", false),
	};
	if (r.failed)
		return false;
	if (strcmp(kind, "fairseq") != 0)
		return refuse(in, "kind", "is not \"fairseq\"");
	return check_keys(in);
}

/* A file that the folder must have, by a name without folders. */
static bool read_file(struct reading *in, const char *name, struct tokenizer_text *ret_text) {
	char printable[60];
	if (!*name || strchr(name, '/')) {
		snprintf(in->err, in->errlen,
		                FILE_NAME ": \"%s\" is not the name of a file of the folder",
		                doc_printable(name, printable, sizeof printable));
		return false;
	}
	ret_text->text = file_read(
	                in->dir, name, TOKENIZER_MAX_FILE, &ret_text->len, in->err, in->errlen);
	return ret_text->text != NULL;
}

static bool read_dict(struct reading *in, const char *name) {
	struct tokenizer_text text = { 0 };
	if (!read_file(in, name, &text))
		return false;
	in->t->fairseq->dict = dict_parse(text.text, text.len, name, in->err, in->errlen);
	free((char *)text.text);
	return in->t->fairseq->dict != NULL;
}

static bool read_symbols(struct reading *in) {
	struct fairseq *f = in->t->fairseq;
	const struct doc *list = doc_get(in->root, "extra_symbols");
	f->mask = -1;
	if (doc_kind(list) != DOC_ABSENT && doc_kind(list) != DOC_ARRAY)
		return refuse(in, "extra_symbols", "is not a list");
	for (size_t i = 0; i < doc_count(list); i++) {
		size_t len;
		const char *symbol = doc_as_string(doc_at(list, i), &len);
		if (!symbol || len == 0)
			return refuse(in, "extra_symbols", "holds something that is not a word");
		int32_t id = dict_add_symbol(f->dict, symbol, len);
		if (id < 0)
			return refuse(in, "extra_symbols", "does not fit into the dictionary");
		if (strcmp(symbol, "<mask>") == 0)
			f->mask = id;
	}
	return true;
}

bool fairseq_mark_symbols(struct tokenizer *t, char *err, size_t errlen) {
	static const char *const symbols[] = { "<s>", "<pad>", "</s>" };
	t->size = dict_size(t->fairseq->dict);
	if (!tokenizer_make_special(t, err, errlen))
		return false;
	for (int32_t id = 0; id < DICT_UNK; id++) {
		tokenizer_mark_special(t, id);
		/* Where the file overwrites one, its other id is one too. */
		tokenizer_mark_special(
		                t, dict_find(t->fairseq->dict, symbols[id], strlen(symbols[id])));
	}
	return true;
}

static bool mark_symbols(struct reading *in) {
	struct tokenizer *t = in->t;
	const struct doc *list = doc_get(in->root, "extra_symbols");
	if (!fairseq_mark_symbols(t, in->err, in->errlen))
		return false;
	for (size_t i = 0; i < doc_count(list); i++) {
		size_t len;
		const char *symbol = doc_as_string(doc_at(list, i), &len);
		tokenizer_mark_special(t, dict_find(t->fairseq->dict, symbol, len));
	}
	return true;
}

/* GPT-2's ids are the dictionary's words, as decimal numbers. */
static bool map_ids(struct reading *in) {
	struct tokenizer *t = in->t;
	struct fairseq *f = t->fairseq;
	int32_t size = vocab_size(t->vocab), words = dict_size(f->dict);
	f->to_dict = malloc((size_t)size * sizeof *f->to_dict);
	f->to_bytes = malloc((size_t)words * sizeof *f->to_bytes);
	if (!f->to_dict || !f->to_bytes) {
		snprintf(in->err, in->errlen, "out of memory for the tokenizer");
		return false;
	}
	for (int32_t id = 0; id < words; id++)
		f->to_bytes[id] = -1;
	bool any = false;
	for (int32_t id = 0; id < size; id++) {
		char number[16];
		size_t len;
		int n = snprintf(number, sizeof number, "%d", id);
		int32_t word = vocab_bytes(t->vocab, id, &len)
		                ? dict_find(f->dict, number, (size_t)n)
		                : -1;
		f->to_dict[id] = word < 0 || tokenizer_is_special(t, word) ? DICT_UNK : word;
		any = any || word >= 0;
		if (word >= 0)
			f->to_bytes[word] = id;
	}
	return any
	                || refuse(in, "encoder",
	                                "and the dictionary have no id in common: the dictionary "
	                                "does not list GPT-2's ids");
}

static bool read_gpt2_files(struct reading *in, const struct settings *s,
                struct tokenizer_text *encoder, struct tokenizer_text *merges) {
	struct tokenizer *t = in->t;
	char why[200];
	if (!read_file(in, s->encoder, encoder) || !read_file(in, s->merges, merges))
		return false;
	struct doc *root = doc_parse(encoder->text, encoder->len, s->encoder, in->err, in->errlen);
	if (!root)
		return false;
	bool ok = tokenizer_read_vocab(t, root, s->encoder, in->err, in->errlen);
	doc_free(root);
	ok = ok && tokenizer_read_merges(t, *merges, s->merges, in->err, in->errlen);
	if (!ok)
		return false;
	t->bpe_options = (struct bpe_options){ .unk = -1, .order = MERGES_TOGETHER };
	if (!bpe_seal(t->bpe, &t->bpe_options, why, sizeof why)) {
		snprintf(in->err, in->errlen, "%s: %s", s->encoder, why);
		return false;
	}
	if (!pretoken_add_regex(t->pretoken, pretoken_gpt2, strlen(pretoken_gpt2), PRETOKEN_ISOLATE,
	                    why, sizeof why)) {
		snprintf(in->err, in->errlen, "%s: %s", s->encoder, why);
		return false;
	}
	return true;
}

static bool read_gpt2(struct reading *in, const struct settings *s) {
	struct tokenizer *t = in->t;
	struct tokenizer_text encoder = { 0 }, merges = { 0 };
	t->vocab = vocab_create();
	t->pretoken = pretoken_create();
	if (!t->vocab || !t->pretoken) {
		snprintf(in->err, in->errlen, "out of memory for the tokenizer");
		return false;
	}
	bool ok = read_gpt2_files(in, s, &encoder, &merges);
	free((char *)encoder.text);
	free((char *)merges.text);
	return ok && map_ids(in);
}

static bool read_codes(struct reading *in, const char *name) {
	struct tokenizer_text text = { 0 };
	if (!read_file(in, name, &text))
		return false;
	in->t->fairseq->subword =
	                subword_parse(text.text, text.len, name, false, in->err, in->errlen);
	free((char *)text.text);
	return in->t->fairseq->subword != NULL;
}

static bool read_bpe(struct reading *in, const struct settings *s) {
	struct tokenizer *t = in->t;
	struct fairseq *f = t->fairseq;
	if (strcmp(s->bpe, "none") == 0) {
		f->units = FAIRSEQ_WORDS;
		return true;
	}
	if (strcmp(s->bpe, "subword_nmt") == 0) {
		f->units = FAIRSEQ_SUBWORDS;
		t->needs_words = !s->codes;
		return !s->codes || read_codes(in, s->codes);
	}
	if (strcmp(s->bpe, "gpt2") != 0)
		return refuse(in, "bpe", "is none of \"none\", \"subword_nmt\" and \"gpt2\"");
	f->units = FAIRSEQ_BYTES;
	if (!s->encoder != !s->merges)
		return refuse(in, s->encoder ? "merges" : "encoder", "is missing");
	t->needs_words = !s->encoder;
	return !s->encoder || read_gpt2(in, s);
}

/* Around a text. */

static void put(struct tokenizer_around *around, int32_t id) {
	around->ids[around->count++] = id;
}

static bool put_named(struct reading *in, struct tokenizer_around *around, const char *key,
                const char *symbol) {
	int32_t id = symbol ? dict_find(in->t->fairseq->dict, symbol, strlen(symbol)) : -1;
	if (id < 0)
		return refuse(in, key, "names a symbol that is not in the dictionary");
	if (around->count == TOKENIZER_MAX_AROUND)
		return refuse(in, key, "names too many symbols");
	put(around, id);
	return true;
}

static bool read_around(struct reading *in, const struct settings *s) {
	struct tokenizer *t = in->t;
	const struct doc *pair = doc_get(in->root, "pair");
	if (s->start && s->bos)
		return refuse(in, "start", "and \"bos\" exclude each other");
	if (s->start && !put_named(in, &t->before, "start", s->start))
		return false;
	if (s->bos)
		put(&t->before, DICT_BOS);
	if (s->eos)
		put(&t->after, DICT_EOS);
	if (doc_kind(pair) == DOC_ABSENT || doc_kind(pair) == DOC_NULL)
		return true;
	if (doc_kind(pair) != DOC_ARRAY)
		return refuse(in, "pair", "is not a list");
	t->pair = (struct tokenizer_pair){
		.present = true, .before = t->before, .after = t->after
	};
	for (size_t i = 0; i < doc_count(pair); i++) {
		if (!put_named(in, &t->pair.between, "pair", doc_as_string(doc_at(pair, i), NULL)))
			return false;
	}
	return true;
}

static bool read_moses(struct reading *in, const struct settings *s, bool target) {
	struct fairseq *f = in->t->fairseq;
	const char *language = target ? s->target_lang : s->source_lang;
	char why[200];
	if (strcmp(s->tokenizer, "none") == 0)
		return true;
	if (strcmp(s->tokenizer, "moses") != 0)
		return refuse(in, "tokenizer", "is none of \"none\" and \"moses\"");
	if (f->units == FAIRSEQ_BYTES)
		return refuse(in, "tokenizer", "and GPT-2's BPE exclude each other");
	f->moses = moses_create(language ? language : "en", why, sizeof why);
	if (!f->moses)
		snprintf(in->err, in->errlen, "Moses: %s", why);
	in->t->growth = MOSES_GROWTH;
	return f->moses != NULL;
}

/* Whether answers are read as sources are. */
static bool one_for_both(const struct settings *s) {
	const char *source = s->source_lang ? s->source_lang : "en";
	const char *target = s->target_lang ? s->target_lang : "en";
	bool moses = strcmp(s->tokenizer, "moses") == 0;
	return (!s->target_dictionary || strcmp(s->target_dictionary, s->dictionary) == 0)
	                && (!moses || strcmp(source, target) == 0);
}

void fairseq_measure(struct tokenizer *t) {
	const struct fairseq *f = t->fairseq;
	t->longest = dict_longest(f->dict) + 1; /* a space with each */
	if (t->vocab && vocab_longest(t->vocab) > t->longest)
		t->longest = vocab_longest(t->vocab);
	t->room = t->longest + (f->moses ? MOSES_HELD : 0);
}

static bool read_folder(struct reading *in, bool target, bool *ret_same) {
	struct settings s;
	if (!read_settings(in, &s))
		return false;
	const char *dictionary = s.dictionary;
	if (target) {
		*ret_same = one_for_both(&s);
		if (*ret_same)
			return false;
		dictionary = s.target_dictionary ? s.target_dictionary : s.dictionary;
	}
	if (!read_dict(in, dictionary) || !read_symbols(in) || !mark_symbols(in)
	                || !read_bpe(in, &s) || !read_moses(in, &s, target) || !read_around(in, &s))
		return false;
	fairseq_measure(in->t);
	return true;
}

struct tokenizer *tokenizer_open_fairseq(const char *dir, bool target, char *err, size_t errlen) {
	struct tokenizer_text text = { 0 };
	if (!tokenizer_read_text(dir, FILE_NAME, &text, err, errlen))
		return NULL;
	struct doc *root = doc_parse(text.text, text.len, FILE_NAME, err, errlen);
	struct tokenizer *t = root ? tokenizer_create(&tokenizer_fairseq, err, errlen) : NULL;
	bool ok = false, same = false;
	if (t) {
		struct reading in = {
			.t = t, .dir = dir, .root = root, .err = err, .errlen = errlen
		};
		t->fairseq = calloc(1, sizeof *t->fairseq);
		if (t->fairseq)
			ok = read_folder(&in, target, &same);
		else
			snprintf(err, errlen, "out of memory for the tokenizer");
	}
	doc_free(root);
	free((char *)text.text);
	if (ok)
		return t;
	tokenizer_close(t);
	return NULL;
}
