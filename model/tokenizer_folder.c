/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the older set of tokenizer files: vocab.json and merges.txt, with what
 * tokenizer_config.json, special_tokens_map.json and added_tokens.json add to them, as Hugging
 * Face's GPT2Tokenizer does.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"
#include "model/tokenizer_parts.h"

static const char VOCAB[] = "vocab.json", MERGES[] = "merges.txt", ADDED[] = "added_tokens.json",
                  CONFIG[] = "tokenizer_config.json", SPECIAL_MAP[] = "special_tokens_map.json";

struct reading {
	struct tokenizer *t;
	struct doc *config, *special_map, *added; /* NULL: no such file */
	bool roberta; /* RobertaTokenizer and BartTokenizer: <s> text </s> */
	char *err;
	size_t errlen;
};

/* "FILE: KEY SENTENCE", false. */
static bool refuse(struct reading *in, const char *file, const char *key, const char *sentence) {
	snprintf(in->err, in->errlen, "%s: %s %s", file, key, sentence);
	return false;
}

static struct doc_reader reader(struct reading *in, const struct doc *object, const char *file) {
	return (struct doc_reader){
		.object = object, .file = file, .err = in->err, .errlen = in->errlen
	};
}

static bool read_vocab(struct reading *in, struct tokenizer_text text) {
	struct doc *root = doc_parse(text.text, text.len, VOCAB, in->err, in->errlen);
	if (!root)
		return false;
	bool ok = tokenizer_read_vocab(in->t, root, VOCAB, in->err, in->errlen);
	doc_free(root);
	return ok;
}

/* One line "left right", without its end; a sentence's end or NULL. */
static const char *read_merge(
                struct bpe *bpe, const char *line, size_t len, char *why, size_t size) {
	const char *space = memchr(line, ' ', len);
	size_t left = space ? (size_t)(space - line) : len, right = space ? len - left - 1 : 0;
	if (left == 0 || right == 0 || memchr(space + 1, ' ', right))
		return " is not two tokens and a space";
	if (bpe_add_merge(bpe, line, left, space + 1, right, why + 2, size - 2))
		return NULL;
	memcpy(why, ": ", 2);
	return why;
}

bool tokenizer_read_merges(struct tokenizer *t, struct tokenizer_text text, const char *file,
                char *err, size_t errlen) {
	char why[200];
	t->bpe = bpe_create(t->vocab);
	if (!t->bpe) {
		snprintf(err, errlen, "%s: out of memory", file);
		return false;
	}
	size_t number = 1;
	for (size_t i = 0; i < text.len; number++) {
		const char *line = text.text + i, *wrong = NULL;
		const char *newline = memchr(line, '\n', text.len - i);
		size_t len = newline ? (size_t)(newline - line) : text.len - i;
		i += len + 1;
		if (len && line[len - 1] == '\r')
			len--;
		bool version = len >= 8 && memcmp(line, "#version", 8) == 0;
		if (len && !version)
			wrong = read_merge(t->bpe, line, len, why, sizeof why);
		if (wrong) {
			snprintf(err, errlen, "%s: line %zu%s", file, number, wrong);
			return false;
		}
	}
	return true;
}

/* Added and special tokens. */

/* Reads the flags of a token written as an object; `single_word` is refused. */
static bool read_flags(struct reading *in, const struct doc *object, const char *file,
                struct added_token *token) {
	struct doc_reader r = reader(in, object, file);
	token->lstrip = doc_read_bool(&r, "lstrip", false);
	token->rstrip = doc_read_bool(&r, "rstrip", false);
	token->normalized = doc_read_bool(&r, "normalized", !token->special);
	if (doc_read_bool(&r, "single_word", false))
		doc_fail(&r, "single_word is not supported");
	return !r.failed;
}

/* added_tokens.json: text to id. */
static bool read_added(struct reading *in) {
	void *at = NULL;
	const char *text;
	const struct doc *value;
	while (doc_next(in->added, &at, &text, &value)) {
		int64_t id;
		if (!doc_as_int(value, &id) || id < 0 || id > VOCAB_MAX_ID)
			return refuse(in, ADDED, "has", "an id that is not a small whole number");
		struct added_token token = { .text = text, .len = strlen(text), .id = (int32_t)id };
		token.normalized = true;
		if (!tokenizer_add_token(in->t, &token, ADDED, in->err, in->errlen))
			return false;
	}
	return true;
}

/* added_tokens_decoder of tokenizer_config.json: id (as text) to a token with its flags. */
static bool read_decoder_list(struct reading *in) {
	void *at = NULL;
	const char *key;
	const struct doc *value;
	while (doc_next(doc_get(in->config, "added_tokens_decoder"), &at, &key, &value)) {
		char *end;
		errno = 0;
		long id = strtol(key, &end, 10);
		if (*end || end == key || errno || id < 0 || id > VOCAB_MAX_ID)
			return refuse(in, CONFIG, "added_tokens_decoder",
			                "has a key that is not a small whole number");
		struct doc_reader r = reader(in, value, CONFIG);
		struct added_token token = { .id = (int32_t)id };
		token.text = doc_read_string(&r, "content", "");
		token.len = strlen(token.text);
		token.special = doc_read_bool(&r, "special", false);
		if (r.failed || !read_flags(in, value, CONFIG, &token)
		                || !tokenizer_add_token(in->t, &token, CONFIG, in->err, in->errlen))
			return false;
	}
	return true;
}

/* Makes `text`, which a file calls special, an added token; `object` has its flags or is NULL. */
static bool add_special(struct reading *in, const char *text, const struct doc *object,
                const char *file, const char *key) {
	size_t len = strlen(text);
	const struct added_token *earlier = added_find_text(in->t->added, text, len);
	struct added_token token = { .text = text, .len = len };
	token.id = earlier ? earlier->id : vocab_find(in->t->vocab, text, len);
	token.special = true;
	if (token.id < 0)
		return refuse(in, file, key, "is not in the vocabulary");
	if (earlier && !object) {
		token = *earlier;
		token.special = true;
	} else if (object && !read_flags(in, object, file, &token)) {
		return false;
	}
	return tokenizer_add_token(in->t, &token, file, in->err, in->errlen);
}

/* The text of a token written as a string or as an object with `content`; NULL if it is neither. */
static const char *token_text(const struct doc *value, const struct doc **ret_object) {
	*ret_object = doc_kind(value) == DOC_OBJECT ? value : NULL;
	return doc_as_string(*ret_object ? doc_get(value, "content") : value, NULL);
}

/* What a role ("bos_token") is given as; tokenizer_config.json goes before the map. */
static const struct doc *role_value(
                const struct reading *in, const char *role, const char **ret_file) {
	const struct doc *value = doc_get(in->config, role);
	*ret_file = CONFIG;
	if (!value || doc_kind(value) == DOC_NULL) {
		value = doc_get(in->special_map, role);
		*ret_file = SPECIAL_MAP;
	}
	return value && doc_kind(value) != DOC_NULL ? value : NULL;
}

/* Adds the token of one role; *ret_id stays as it is if no file names it. */
static bool read_role(struct reading *in, const char *role, int32_t *ret_id) {
	const char *file;
	const struct doc *object, *value = role_value(in, role, &file);
	if (!value)
		return true;
	const char *text = token_text(value, &object);
	if (!text)
		return refuse(in, file, role, "is neither a string nor an object with content");
	if (!add_special(in, text, object, file, role))
		return false;
	*ret_id = added_find_text(in->t->added, text, strlen(text))->id;
	return true;
}

static bool read_additional(struct reading *in) {
	const char *key = "additional_special_tokens", *file;
	const struct doc *object, *list = role_value(in, key, &file);
	for (size_t i = 0; i < doc_count(list); i++) {
		const char *text = token_text(doc_at(list, i), &object);
		if (!text)
			return refuse(in, file, key, "has an element that is not a token");
		if (!add_special(in, text, object, file, key))
			return false;
	}
	return true;
}

/* The roles' ids; -1 where no file names one. */
struct roles {
	int32_t bos, eos, unk, other;
};

/* What RobertaTokenizer calls its tokens unless a file says otherwise. */
static bool read_roberta_roles(struct reading *in, struct roles *roles) {
	static const struct {
		const char *role, *text;
	} known[] = { { "bos_token", "<s>" }, { "eos_token", "</s>" }, { "unk_token", "<unk>" },
		{ "pad_token", "<pad>" }, { "mask_token", "<mask>" }, { "cls_token", "<s>" },
		{ "sep_token", "</s>" } };
	enum { UNK = 2, MASK = 4, CLS, SEP, N };
	int32_t ids[N];
	for (int i = 0; i < N; i++) {
		const char *file, *text = known[i].text;
		size_t len = strlen(text);
		ids[i] = -1;
		if (role_value(in, known[i].role, &file)) {
			if (!read_role(in, known[i].role, &ids[i]))
				return false;
			continue;
		}
		if (!add_special(in, text, NULL, VOCAB, text))
			return false;
		struct added_token token = *added_find_text(in->t->added, text, len);
		token.lstrip = token.lstrip || i == MASK; /* the space before it belongs to it */
		token.text = text;
		if (!tokenizer_add_token(in->t, &token, VOCAB, in->err, in->errlen))
			return false;
		ids[i] = token.id;
	}
	roles->bos = ids[CLS];
	roles->eos = ids[SEP];
	roles->unk = ids[UNK];
	return read_additional(in);
}

static bool read_roles(struct reading *in, struct roles *roles) {
	static const char *const others[] = { "pad_token", "sep_token", "cls_token", "mask_token" };
	*roles = (struct roles){ -1, -1, -1, -1 };
	if (in->roberta)
		return read_roberta_roles(in, roles);
	bool ok = read_role(in, "bos_token", &roles->bos) && read_role(in, "eos_token", &roles->eos)
	                && read_role(in, "unk_token", &roles->unk);
	for (size_t i = 0; ok && i < sizeof others / sizeof *others; i++)
		ok = read_role(in, others[i], &roles->other);
	/* GPT2Tokenizer's own default for all three. */
	static const char end_of_text[] = "<|endoftext|>";
	int32_t id = vocab_find(in->t->vocab, end_of_text, sizeof end_of_text - 1);
	if (ok && id >= 0 && (roles->bos < 0 || roles->eos < 0 || roles->unk < 0)) {
		ok = add_special(in, end_of_text, NULL, VOCAB, end_of_text);
		roles->bos = roles->bos < 0 ? id : roles->bos;
		roles->eos = roles->eos < 0 ? id : roles->eos;
		roles->unk = roles->unk < 0 ? id : roles->unk;
	}
	return ok && read_additional(in);
}

/* The whole. */

static bool check_class(struct reading *in) {
	static const char *const known[] = { "GPT2Tokenizer", "GPT2TokenizerFast",
		"CodeGenTokenizer", "CodeGenTokenizerFast", "PreTrainedTokenizerFast" };
	static const char *const roberta[] = { "RobertaTokenizer", "RobertaTokenizerFast",
		"BartTokenizer", "BartTokenizerFast" };
	struct doc_reader r = reader(in, in->config, CONFIG);
	const char *class =
	                doc_read_string(&r, "tokenizer_class", in->roberta ? roberta[0] : known[0]);
	in->roberta = false;
	for (size_t i = 0; i < sizeof roberta / sizeof *roberta; i++)
		in->roberta = in->roberta || strcmp(class, roberta[i]) == 0;
	if (in->roberta)
		return !r.failed;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (strcmp(class, known[i]) == 0)
			return !r.failed;
	}
	char name[60];
	doc_fail(&r, "tokenizer_class \"%s\" needs a tokenizer.json",
	                doc_printable(class, name, sizeof name));
	return false;
}

/* <s> text </s>, and <s> text </s></s> text </s>. */
static bool put_roberta(struct reading *in, const struct roles *roles) {
	struct tokenizer *t = in->t;
	struct tokenizer_pair *p = &t->pair;
	p->present = true;
	const struct {
		struct tokenizer_around *around;
		int32_t id;
	} puts[] = { { &t->before, roles->bos }, { &t->after, roles->eos },
		{ &p->before, roles->bos }, { &p->between, roles->eos },
		{ &p->between, roles->eos }, { &p->after, roles->eos } };
	for (size_t i = 0; i < sizeof puts / sizeof *puts; i++) {
		if (!tokenizer_put_around(t, puts[i].around, puts[i].id, CONFIG, "cls_token",
		                    in->err, in->errlen))
			return false;
	}
	return true;
}

/* Whether config.json says that the model is one that reads texts as RoBERTa does. */
static bool is_roberta(const struct doc *model) {
	static const char *const types[] = { "roberta", "bart", "longformer" };
	const char *type = doc_as_string(doc_get(model, "model_type"), NULL);
	for (size_t i = 0; type && i < sizeof types / sizeof *types; i++) {
		if (strcmp(type, types[i]) == 0)
			return true;
	}
	return false;
}

static bool read_config(struct reading *in) {
	struct roles roles;
	struct doc_reader r = reader(in, in->config, CONFIG);
	bool add_bos = doc_read_bool(&r, "add_bos_token", false);
	bool add_eos = doc_read_bool(&r, "add_eos_token", false);
	in->t->prefix_space = doc_read_bool(&r, "add_prefix_space", false);
	if (r.failed || !check_class(in) || !read_added(in) || !read_decoder_list(in)
	                || !read_roles(in, &roles))
		return false;
	in->t->bpe_options.unk = roles.unk;
	if (in->roberta)
		return put_roberta(in, &roles);
	if (add_bos && roles.bos < 0)
		return refuse(in, CONFIG, "add_bos_token", "is set, but there is no bos_token");
	if (add_eos && roles.eos < 0)
		return refuse(in, CONFIG, "add_eos_token", "is set, but there is no eos_token");
	if (add_bos
	                && !tokenizer_put_around(in->t, &in->t->before, roles.bos, CONFIG,
	                                "bos_token", in->err, in->errlen))
		return false;
	return !add_eos
	                || tokenizer_put_around(in->t, &in->t->after, roles.eos, CONFIG,
	                                "eos_token", in->err, in->errlen);
}

/* Parses a file that may be missing; it must hold an object. */
static bool parse(struct reading *in, struct tokenizer_text text, const char *file,
                struct doc **ret_doc) {
	if (!text.text)
		return true;
	*ret_doc = doc_parse(text.text, text.len, file, in->err, in->errlen);
	if (*ret_doc && doc_kind(*ret_doc) != DOC_OBJECT)
		return refuse(in, file, "the outermost value", "is not an object");
	return *ret_doc != NULL;
}

bool tokenizer_read_folder(struct tokenizer *t, const struct tokenizer_folder *folder, char *err,
                size_t errlen) {
	struct reading in = { .t = t, .err = err, .errlen = errlen };
	char why[200];
	struct doc *model = NULL;
	bool ok = pretoken_add_regex(t->pretoken, pretoken_gpt2, strlen(pretoken_gpt2),
	                PRETOKEN_ISOLATE, why, sizeof why);
	if (!ok)
		snprintf(err, errlen, "%s: %s", VOCAB, why);
	ok = ok && parse(&in, folder->model, "config.json", &model);
	in.roberta = is_roberta(model);
	doc_free(model);
	ok = ok && parse(&in, folder->config, CONFIG, &in.config)
	                && parse(&in, folder->special_map, SPECIAL_MAP, &in.special_map)
	                && parse(&in, folder->added, ADDED, &in.added)
	                && read_vocab(&in, folder->vocab)
	                && tokenizer_read_merges(t, folder->merges, MERGES, err, errlen)
	                && read_config(&in);
	doc_free(in.config);
	doc_free(in.special_map);
	doc_free(in.added);
	return ok;
}
