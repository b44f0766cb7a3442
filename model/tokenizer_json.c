/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads tokenizer.json, the file of Hugging Face's tokenizers library, as far as it describes a
 * byte-level BPE or BERT's pieces of words. What would change the ids and cannot be honoured is
 * refused by name; what cannot change them (truncation, padding, offsets) is passed over.
 */
#include <stdio.h>
#include <string.h>

#include "model/doc.h"
#include "model/tokenizer_parts.h"

#define FILE_NAME "tokenizer.json"

/* The reading of one file: its tokenizer and the place for a sentence. */
struct reading {
	struct tokenizer *t;
	char *err;
	size_t errlen;
};

static struct doc_reader reader(struct reading *in, const struct doc *object, const char *place) {
	return (struct doc_reader){
		.object = object, .file = place, .err = in->err, .errlen = in->errlen
	};
}

/* "PLACE: SENTENCE", false. */
static bool refuse(struct reading *in, const char *place, const char *sentence) {
	snprintf(in->err, in->errlen, "%s: %s", place, sentence);
	return false;
}

static bool refuse_type(struct reading *in, const char *place, const char *type) {
	char name[60];
	snprintf(in->err, in->errlen, "%s: the type \"%s\" is not supported", place,
	                doc_printable(type, name, sizeof name));
	return false;
}

/* An object's "type", or "" */
static const char *type_of(const struct doc *object) {
	const char *type = doc_as_string(doc_get(object, "type"), NULL);
	return type ? type : "";
}

static bool absent(const struct doc *value) {
	return !value || doc_kind(value) == DOC_NULL;
}

/* The model. */

/* Finds the two parts of a merge, written as "a b" or as ["a", "b"]. */
static bool merge_parts(const struct doc *merge, const char *part[2], size_t len[2]) {
	if (doc_kind(merge) == DOC_ARRAY) {
		part[0] = doc_as_string(doc_at(merge, 0), &len[0]);
		part[1] = doc_as_string(doc_at(merge, 1), &len[1]);
		return doc_count(merge) == 2 && part[0] && part[1];
	}
	size_t total;
	part[0] = doc_as_string(merge, &total);
	const char *space = part[0] ? strchr(part[0], ' ') : NULL;
	if (!space || strchr(space + 1, ' '))
		return false;
	len[0] = (size_t)(space - part[0]);
	part[1] = space + 1;
	len[1] = total - len[0] - 1;
	return true;
}

static bool read_merges(struct reading *in, const struct doc *merges) {
	char why[200];
	if (doc_kind(merges) != DOC_ARRAY)
		return refuse(in, FILE_NAME ": model", "merges is not an array");
	for (size_t i = 0; i < doc_count(merges); i++) {
		const char *part[2];
		size_t len[2];
		if (!merge_parts(doc_at(merges, i), part, len)) {
			snprintf(why, sizeof why, "merge %zu is not a pair of tokens", i);
			return refuse(in, FILE_NAME ": model", why);
		}
		if (!bpe_add_merge(in->t->bpe, part[0], len[0], part[1], len[1], why, sizeof why))
			return refuse(in, FILE_NAME ": model", why);
	}
	return true;
}

/* Options that change ids in ways that are not supported. */
static bool check_model(struct reading *in, const struct doc *model) {
	const char *place = FILE_NAME ": model";
	struct doc_reader r = reader(in, model, place);
	const char *type = doc_read_string(&r, "type", "BPE");
	double dropout = doc_read_number(&r, "dropout", 0, 1, 0);
	const char *prefix = doc_read_string(&r, "continuing_subword_prefix", "");
	const char *suffix = doc_read_string(&r, "end_of_word_suffix", "");
	bool byte_fallback = doc_read_bool(&r, "byte_fallback", false);
	if (r.failed)
		return false;
	if (strcmp(type, "BPE") != 0)
		return refuse_type(in, place, type);
	if (dropout > 0)
		return refuse(in, place, "dropout is not supported");
	if (*prefix)
		return refuse(in, place, "continuing_subword_prefix is not supported");
	if (*suffix)
		return refuse(in, place, "end_of_word_suffix is not supported");
	if (byte_fallback)
		return refuse(in, place, "byte_fallback is not supported");
	return true;
}

static bool read_model_vocab(struct reading *in, const struct doc *model) {
	const char *place = FILE_NAME ": model";
	const struct doc *vocab = doc_get(model, "vocab");
	if (doc_kind(vocab) != DOC_OBJECT)
		return refuse(in, place, "vocab is not an object");
	return tokenizer_read_vocab(in->t, vocab, place, in->err, in->errlen);
}

static bool read_model(struct reading *in, const struct doc *model) {
	const char *place = FILE_NAME ": model";
	if (doc_kind(model) != DOC_OBJECT)
		return refuse(in, FILE_NAME, "model is missing");
	if (!check_model(in, model) || !read_model_vocab(in, model))
		return false;
	struct doc_reader r = reader(in, model, place);
	const char *unk = doc_read_string(&r, "unk_token", NULL);
	in->t->bpe_options.ignore_merges = doc_read_bool(&r, "ignore_merges", false);
	in->t->bpe_options.fuse_unk = doc_read_bool(&r, "fuse_unk", false);
	if (r.failed)
		return false;
	if (unk) /* one that the vocabulary lacks is missed only if a byte is missing too */
		in->t->bpe_options.unk = vocab_find(in->t->vocab, unk, strlen(unk));
	in->t->bpe = bpe_create(in->t->vocab);
	if (!in->t->bpe)
		return refuse(in, place, "out of memory");
	return read_merges(in, doc_get(model, "merges"));
}

/* Before the model. */

static bool check_normalizer(struct reading *in, const struct doc *normalizer) {
	if (absent(normalizer))
		return true;
	if (strcmp(type_of(normalizer), "Sequence") == 0
	                && doc_count(doc_get(normalizer, "normalizers")) == 0)
		return true;
	return refuse_type(in, FILE_NAME ": normalizer", type_of(normalizer));
}

static bool read_split(struct reading *in, const struct doc *split) {
	const char *place = FILE_NAME ": pre_tokenizer Split";
	struct doc_reader r = reader(in, split, place);
	const char *behavior = doc_read_string(&r, "behavior", "");
	bool invert = doc_read_bool(&r, "invert", false);
	if (r.failed)
		return false;
	enum pretoken_keep keep = PRETOKEN_ISOLATE;
	if (strcmp(behavior, "Removed") == 0 && invert)
		keep = PRETOKEN_MATCHES;
	else if (strcmp(behavior, "Isolated") != 0)
		return refuse(in, place, "only the behavior \"Isolated\" is supported");
	size_t len;
	const struct doc *pattern = doc_get(split, "pattern");
	const char *regex = doc_as_string(doc_get(pattern, "Regex"), &len);
	const char *text = regex ? NULL : doc_as_string(doc_get(pattern, "String"), &len);
	if (!regex && !text)
		return refuse(in, place, "pattern has neither Regex nor String");
	char why[200];
	bool ok = regex ? pretoken_add_regex(in->t->pretoken, regex, len, keep, why, sizeof why)
	                : pretoken_add_text(in->t->pretoken, text, len, keep, why, sizeof why);
	return ok || refuse(in, place, why);
}

static bool add_regex(struct reading *in, const char *place, const char *pattern) {
	char why[200];
	return pretoken_add_regex(in->t->pretoken, pattern, strlen(pattern), PRETOKEN_ISOLATE, why,
	                       sizeof why)
	                || refuse(in, place, why);
}

static bool read_digits(struct reading *in, const struct doc *digits) {
	struct doc_reader r = reader(in, digits, FILE_NAME ": pre_tokenizer Digits");
	bool individual = doc_read_bool(&r, "individual_digits", false);
	return !r.failed && add_regex(in, r.file, individual ? "\\p{N}" : "\\p{N}+");
}

static bool read_byte_level(struct reading *in, const struct doc *byte_level, bool first) {
	struct doc_reader r = reader(in, byte_level, FILE_NAME ": pre_tokenizer ByteLevel");
	doc_require(&r, "add_prefix_space");
	in->t->prefix_space = doc_read_bool(&r, "add_prefix_space", false);
	bool use_regex = doc_read_bool(&r, "use_regex", true);
	if (r.failed)
		return false;
	if (in->t->prefix_space && !first)
		return refuse(in, r.file, "add_prefix_space after another step is not supported");
	return !use_regex || add_regex(in, r.file, pretoken_gpt2);
}

/* One step of the chain; ByteLevel must be the last one. */
static bool read_step(struct reading *in, const struct doc *step, bool first, bool last) {
	const char *place = FILE_NAME ": pre_tokenizer", *type = type_of(step);
	if (strcmp(type, "ByteLevel") == 0 && last)
		return read_byte_level(in, step, first);
	if (last)
		return refuse(in, place, "the last step is not ByteLevel");
	if (strcmp(type, "Split") == 0)
		return read_split(in, step);
	if (strcmp(type, "Digits") == 0)
		return read_digits(in, step);
	return refuse_type(in, place, type);
}

static bool read_pre_tokenizer(struct reading *in, const struct doc *pre_tokenizer) {
	if (strcmp(type_of(pre_tokenizer), "Sequence") != 0)
		return read_step(in, pre_tokenizer, true, true);
	const struct doc *steps = doc_get(pre_tokenizer, "pretokenizers");
	size_t count = doc_count(steps);
	if (count == 0)
		return refuse(in, FILE_NAME ": pre_tokenizer", "the sequence is empty");
	for (size_t i = 0; i < count; i++) {
		if (!read_step(in, doc_at(steps, i), i == 0, i + 1 == count))
			return false;
	}
	return true;
}

/* After the model. */

static bool check_decoder(struct reading *in, const struct doc *decoder) {
	if (strcmp(type_of(decoder), "ByteLevel") == 0)
		return true;
	if (absent(decoder))
		return refuse(in, FILE_NAME, "decoder is missing; ByteLevel is expected");
	return refuse_type(in, FILE_NAME ": decoder", type_of(decoder));
}

static bool put_around(struct reading *in, struct tokenizer_around *around, const struct doc *id) {
	int64_t number;
	if (!doc_as_int(id, &number))
		return refuse(in, FILE_NAME ": post_processor", "an id is not an integer");
	return tokenizer_put_around(
	                in->t, around, number, FILE_NAME, "post_processor", in->err, in->errlen);
}

/* Where an item of a template is put. */
struct template {
	struct tokenizer_around *slots[3]; /* before the first text, after it, after the second */
	int texts;                         /* seen so far */
	int64_t second_type;               /* of the second text */
	int between_first; /* special tokens after the first text that have its token type */
};

/* The token type that an item gives; 0 where it says nothing. */
static int64_t item_type(const struct doc *item) {
	int64_t type = 0;
	doc_as_int(doc_get(item, "type_id"), &type);
	return type;
}

static bool read_item(struct reading *in, struct template *t, const struct doc *item,
                const struct doc *specials, int most_texts) {
	const struct doc *sequence = doc_get(item, "Sequence"), *special;
	const char *id = doc_as_string(doc_get(sequence, "id"), NULL);
	if (id && t->texts < most_texts && strcmp(id, t->texts == 0 ? "A" : "B") == 0) {
		if (t->texts++ == 1)
			t->second_type = item_type(sequence);
		return true;
	}
	special = doc_get(item, "SpecialToken");
	const char *name = doc_as_string(doc_get(special, "id"), NULL);
	const struct doc *ids = name ? doc_get(doc_get(specials, name), "ids") : NULL;
	if (doc_count(ids) == 0)
		return refuse(in, FILE_NAME ": post_processor TemplateProcessing",
		                "has an item that is not supported");
	for (size_t k = 0; k < doc_count(ids); k++) {
		if (!put_around(in, t->slots[t->texts], doc_at(ids, k)))
			return false;
		t->between_first += t->texts == 1 && item_type(special) == 0;
	}
	return true;
}

/* TemplateProcessing: lists of special tokens with the texts among them. */
static bool read_template(struct reading *in, const struct doc *processor) {
	const char *place = FILE_NAME ": post_processor TemplateProcessing";
	const struct doc *single = doc_get(processor, "single");
	const struct doc *pair = doc_get(processor, "pair");
	const struct doc *specials = doc_get(processor, "special_tokens");
	struct tokenizer *t = in->t;
	struct template one = { .slots = { &t->before, &t->after, &t->after } };
	for (size_t i = 0; i < doc_count(single); i++) {
		if (!read_item(in, &one, doc_at(single, i), specials, 1))
			return false;
	}
	if (one.texts != 1)
		return refuse(in, place, "single has no Sequence \"A\"");
	struct tokenizer_pair *p = &t->pair;
	struct template two = { .slots = { &p->before, &p->between, &p->after } };
	for (size_t i = 0; i < doc_count(pair); i++) {
		if (!read_item(in, &two, doc_at(pair, i), specials, 2))
			return false;
	}
	p->present = two.texts == 2;
	p->typed = two.second_type != 0;
	p->between_first = two.between_first;
	return true;
}

/* RobertaProcessing and BertProcessing: two special tokens around a text, and between two. */
static bool read_cls_and_sep(struct reading *in, const struct doc *processor, bool roberta) {
	struct tokenizer *t = in->t;
	struct tokenizer_pair *p = &t->pair;
	const struct doc *cls = doc_at(doc_get(processor, "cls"), 1);
	const struct doc *sep = doc_at(doc_get(processor, "sep"), 1);
	*p = (struct tokenizer_pair){ .present = true, .typed = !roberta, .between_first = 1 };
	return put_around(in, &t->before, cls) && put_around(in, &t->after, sep)
	                && put_around(in, &p->before, cls) && put_around(in, &p->between, sep)
	                && (!roberta || put_around(in, &p->between, sep))
	                && put_around(in, &p->after, sep);
}

static bool read_processor(struct reading *in, const struct doc *processor, bool nested) {
	const char *type = type_of(processor);
	if (absent(processor) || strcmp(type, "ByteLevel") == 0)
		return true;
	if (strcmp(type, "TemplateProcessing") == 0)
		return read_template(in, processor);
	bool roberta = strcmp(type, "RobertaProcessing") == 0;
	if (roberta || strcmp(type, "BertProcessing") == 0)
		return read_cls_and_sep(in, processor, roberta);
	const struct doc *list = doc_get(processor, "processors");
	if (nested || strcmp(type, "Sequence") != 0)
		return refuse_type(in, FILE_NAME ": post_processor", type);
	for (size_t i = 0; i < doc_count(list); i++) {
		if (!read_processor(in, doc_at(list, i), true))
			return false;
	}
	return true;
}

static bool read_added(struct reading *in, const struct doc *list) {
	if (!absent(list) && doc_kind(list) != DOC_ARRAY)
		return refuse(in, FILE_NAME, "added_tokens is not an array");
	for (size_t i = 0; i < doc_count(list); i++) {
		struct doc_reader r = reader(in, doc_at(list, i), FILE_NAME ": added_tokens");
		struct added_token token = {
			.id = (int32_t)doc_need_int(&r, "id", 0, VOCAB_MAX_ID),
			.text = doc_read_string(&r, "content", ""),
			.special = doc_read_bool(&r, "special", false),
			.lstrip = doc_read_bool(&r, "lstrip", false),
			.rstrip = doc_read_bool(&r, "rstrip", false),
		};
		token.len = strlen(token.text);
		token.normalized = doc_read_bool(&r, "normalized", !token.special);
		bool single_word = doc_read_bool(&r, "single_word", false);
		if (r.failed)
			return false;
		if (single_word)
			return refuse(in, r.file, "single_word is not supported");
		if (!tokenizer_add_token(in->t, &token, FILE_NAME, in->err, in->errlen))
			return false;
	}
	return true;
}

/* BERT's. */

/* The normalizer's options; the vocabulary is there. */
static bool read_bert_options(
                struct reading *in, const struct doc *root, struct wordpiece_options *options) {
	const struct doc *model = doc_get(root, "model"), *normalizer = doc_get(root, "normalizer");
	struct doc_reader n = reader(in, normalizer, FILE_NAME ": normalizer");
	struct doc_reader m = reader(in, model, FILE_NAME ": model");
	bool lower = doc_read_bool(&n, "lowercase", true);
	*options = (struct wordpiece_options){
		.clean = doc_read_bool(&n, "clean_text", true),
		.chinese_apart = doc_read_bool(&n, "handle_chinese_chars", true),
		.lower = lower,
		.strip_accents = doc_read_bool(&n, "strip_accents", lower),
		.max_word = (int)doc_read_int(&m, "max_input_chars_per_word", 1, 10000, 100),
	};
	const char *unk = doc_read_string(&m, "unk_token", "[UNK]");
	const char *prefix = doc_read_string(&m, "continuing_subword_prefix", "##");
	if (n.failed || m.failed)
		return false;
	if (strcmp(prefix, "##") != 0)
		return refuse(in, m.file, "continuing_subword_prefix is not \"##\"");
	options->unk = wordpiece_find(in->t->vocab, unk, strlen(unk));
	return options->unk >= 0 || refuse(in, m.file, "unk_token is not in the vocabulary");
}

/* A step of the file that must be of BERT's type; `optional`: or absent. */
static bool check_bert_step(struct reading *in, const struct doc *root, const char *key,
                const char *type, bool optional) {
	const struct doc *step = doc_get(root, key);
	char place[60];
	snprintf(place, sizeof place, FILE_NAME ": %s", key);
	return (optional && absent(step)) || strcmp(type_of(step), type) == 0
	                || refuse_type(in, place, type_of(step));
}

static bool read_bert(struct reading *in, const struct doc *root) {
	struct wordpiece_options options;
	char why[200];
	in->t->kind = &tokenizer_wordpiece;
	if (!check_bert_step(in, root, "normalizer", "BertNormalizer", false)
	                || !check_bert_step(in, root, "pre_tokenizer", "BertPreTokenizer", false)
	                || !check_bert_step(in, root, "decoder", "WordPiece", true)
	                || !read_model_vocab(in, doc_get(root, "model"))
	                || !read_bert_options(in, root, &options))
		return false;
	in->t->wordpiece = wordpiece_create(&options, why, sizeof why);
	return in->t->wordpiece || refuse(in, FILE_NAME, why);
}

/* Byte-level BPE. */
static bool read_bpe(struct reading *in, const struct doc *root) {
	/* The bpe looks bytes up when it is made, added tokens only ever stand for themselves. */
	return check_normalizer(in, doc_get(root, "normalizer"))
	                && read_pre_tokenizer(in, doc_get(root, "pre_tokenizer"))
	                && check_decoder(in, doc_get(root, "decoder"))
	                && read_model(in, doc_get(root, "model"));
}

bool tokenizer_read_json(
                struct tokenizer *t, struct tokenizer_text json, char *err, size_t errlen) {
	struct reading in = { t, err, errlen };
	struct doc *root = doc_parse(json.text, json.len, FILE_NAME, err, errlen);
	if (!root)
		return false;
	bool bert = strcmp(type_of(doc_get(root, "model")), "WordPiece") == 0;
	bool ok = (bert ? read_bert(&in, root) : read_bpe(&in, root))
	                && read_added(&in, doc_get(root, "added_tokens"))
	                && read_processor(&in, doc_get(root, "post_processor"), false);
	doc_free(root);
	return ok;
}
