/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fairseq's dictionaries: words, subwords marked with "@@", or GPT-2's BPE written as numbers. What a
 * folder has is read by fairseq_folder.c.
 *
 * A text becomes a line of the dictionary's words in fairseq's own order: Moses (unless the caller
 * has done that), subwords, white space, look-up. One thing differs from fairseq: a symbol that
 * stands literally in a text ("</s>") is an unknown word, so that no text can end itself; only
 * "<mask>" is read as the symbol, where the folder has it.
 */
#include <stdlib.h>
#include <string.h>

#include "model/fairseq_parts.h"
#include "model/unicode.h"

static const char MASK[] = "<mask>";
enum { MASK_LEN = sizeof MASK - 1 };

static void destroy(struct tokenizer *t) {
	struct fairseq *f = t->fairseq;
	bpe_destroy(t->bpe);
	vocab_destroy(t->vocab);
	pretoken_destroy(t->pretoken);
	if (!f)
		return;
	dict_destroy(f->dict);
	subword_destroy(f->subword);
	moses_destroy(f->moses);
	free(f->to_dict);
	free(f->to_bytes);
	free(f);
}

/* Encoding. */

struct encoding {
	const struct tokenizer *tokenizer;
	struct merges_scratch scratch;
	struct tokenizer_ids *ids;
	struct text words; /* the line as Moses leaves it */
	struct text cut;   /* the line with its words cut into subwords */
	bool pretokenized;
	bool masked; /* the text holds masks: fairseq drops the white space before each and at the end */
};

static int32_t look_up(const struct tokenizer *t, const char *word, size_t len) {
	int32_t id = dict_find(t->fairseq->dict, word, len);
	return id < 0 || tokenizer_is_special(t, id) ? DICT_UNK : id;
}

/* The words of a line between white space. */
static bool put_words(struct encoding *e, const char *line, size_t len) {
	for (size_t i = text_space(line, len); i < len;) {
		size_t begin = i, space = 0;
		while (i < len && (space = text_space(line + i, len - i)) == 0) {
			size_t n = unicode_decode(line + i, len - i, NULL);
			i += n ? n : 1;
		}
		if (!tokenizer_put(e->ids, look_up(e->tokenizer, line + begin, i - begin)))
			return false;
		i += space;
	}
	return true;
}

/* GPT-2's ids for a piece, which then become the dictionary's. */
static bool put_piece(void *arg, const char *piece, size_t len) {
	struct encoding *e = arg;
	struct tokenizer_ids *ids = e->ids;
	int32_t *to = ids->tokens + ids->count;
	size_t n;
	if (!bpe_encode(e->tokenizer->bpe, &e->scratch, piece, len, to, ids->cap - ids->count, &n))
		return false;
	for (size_t i = 0; i < n; i++)
		to[i] = e->tokenizer->fairseq->to_dict[to[i]];
	ids->count += n;
	return true;
}

static bool put_subwords(struct encoding *e, const char *line, size_t len) {
	e->cut.len = 0;
	return subword_apply(e->tokenizer->fairseq->subword, &e->scratch, line, len,
	                       e->pretokenized, &e->cut)
	                && put_words(e, e->cut.bytes, e->cut.len);
}

/* The text between two masks. */
static bool put_stretch(struct encoding *e, const char *text, size_t len) {
	const struct tokenizer *t = e->tokenizer;
	if (e->masked)
		len = text_without_space_behind(text, len);
	if (len == 0)
		return true;
	if (t->fairseq->moses && !e->pretokenized) {
		e->words.len = 0;
		if (!moses_tokenize(t->fairseq->moses, text, len, &e->words))
			return false;
		text = e->words.bytes;
		len = e->words.len;
	}
	if (t->bpe)
		return pretoken_split(t->pretoken, text, len, put_piece, e);
	return t->fairseq->subword ? put_subwords(e, text, len) : put_words(e, text, len);
}

static bool put_text(struct encoding *e, const char *text, size_t len) {
	int32_t mask = e->tokenizer->fairseq->mask;
	const char *at = mask >= 0 ? memmem(text, len, MASK, MASK_LEN) : NULL;
	e->masked = at != NULL;
	while (at) {
		size_t n = (size_t)(at - text);
		if (!put_stretch(e, text, n) || !tokenizer_put(e->ids, mask))
			return false;
		text += n + MASK_LEN;
		len -= n + MASK_LEN;
		at = memmem(text, len, MASK, MASK_LEN);
	}
	return put_stretch(e, text, len);
}

static bool encode(const struct tokenizer *t, const char *text, size_t len, bool pretokenized,
                struct tokenizer_ids *ids) {
	struct encoding e = { .tokenizer = t, .ids = ids, .pretokenized = pretokenized };
	struct text mended = { 0 };
	bool ok = true;
	if (!t->bpe && unicode_valid_prefix(text, len) != len) {
		ok = len <= SIZE_MAX / 3 && text_reserve(&mended, 3 * len);
		if (ok) {
			len = unicode_mend(text, len, mended.bytes);
			text = mended.bytes;
		}
	}
	ok = ok && put_text(&e, text, len);
	merges_scratch_finish(&e.scratch);
	text_finish(&e.words);
	text_finish(&e.cut);
	text_finish(&mended);
	return ok;
}

/* Decoding. */

static bool is_cut(const struct fairseq *f, const char *word, size_t len) {
	return f->units == FAIRSEQ_SUBWORDS && len >= 2 && memcmp(word + len - 2, "@@", 2) == 0;
}

static const char *bytes(const struct tokenizer *t, int32_t id, size_t *ret_len) {
	const struct fairseq *f = t->fairseq;
	const char *word = dict_word(f->dict, id, ret_len);
	if (!word || tokenizer_is_special(t, id))
		return word;
	if (f->to_bytes)
		return f->to_bytes[id] >= 0 ? vocab_bytes(t->vocab, f->to_bytes[id], ret_len)
		                            : word;
	if (is_cut(f, word, *ret_len))
		*ret_len -= 2;
	else
		*ret_len += 1; /* the space behind it */
	return word;
}

/* A stream of words. */
struct stream {
	bool begun;  /* a word came before */
	bool joined; /* it goes on with the next token */
	bool words;  /* nothing is detokenised */
	struct moses_stream moses;
};

_Static_assert(sizeof(struct stream) <= sizeof(struct tokenizer_stream), "the stream's state");

static void stream_begin(const struct tokenizer *t, struct tokenizer_stream *state, bool words) {
	((struct stream *)state)->words = words || !t->fairseq->moses;
}

static size_t stream_add(
                const struct tokenizer *t, struct tokenizer_stream *state, int32_t id, char *out) {
	struct stream *s = (struct stream *)state;
	const struct fairseq *f = t->fairseq;
	size_t len, n = 0;
	const char *word = bytes(t, id, &len);
	if (!word || tokenizer_is_special(t, id))
		return 0;
	if (f->to_bytes) {
		memcpy(out, word, len);
		return len;
	}
	bool ends = len > 0 && word[len - 1] == ' ';
	if (!s->words)
		return moses_stream_add(f->moses, &s->moses, word, len - ends, ends, out);
	if (s->begun && !s->joined)
		out[n++] = ' ';
	memcpy(out + n, word, len - ends);
	s->begun = true;
	s->joined = !ends;
	return n + len - ends;
}

static size_t stream_end(const struct tokenizer *t, struct tokenizer_stream *state, char *out) {
	struct stream *s = (struct stream *)state;
	return s->words ? 0 : moses_stream_end(t->fairseq->moses, &s->moses, out);
}

const struct tokenizer_kind tokenizer_fairseq = {
	.encode = encode,
	.bytes = bytes,
	.stream_begin = stream_begin,
	.stream_add = stream_add,
	.stream_end = stream_end,
	.destroy = destroy,
};
