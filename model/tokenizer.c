/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front of the tokenizer: which kind a folder has, what is put around a text or a pair, and
 * questions about ids. The kinds are in tokenizer_bytes.c and tokenizer_fairseq.c.
 */
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "model/tokenizer_parts.h"

/* Opening. */

struct tokenizer *tokenizer_create(const struct tokenizer_kind *kind, char *err, size_t errlen) {
	struct tokenizer *t = calloc(1, sizeof *t);
	if (!t) {
		snprintf(err, errlen, "out of memory for the tokenizer");
		return NULL;
	}
	t->kind = kind;
	t->growth = 1;
	return t;
}

void tokenizer_close(struct tokenizer *t) {
	if (!t)
		return;
	t->kind->destroy(t);
	free(t->special);
	free(t);
}

bool tokenizer_make_special(struct tokenizer *t, char *err, size_t errlen) {
	t->special = calloc((size_t)t->size / 8 + 1, 1);
	if (!t->special)
		snprintf(err, errlen, "out of memory for the tokenizer");
	return t->special != NULL;
}

void tokenizer_mark_special(struct tokenizer *t, int32_t id) {
	t->special[id / 8] |= (uint8_t)(1 << id % 8);
}

bool tokenizer_read_text(const char *dir, const char *name, struct tokenizer_text *text, char *err,
                size_t errlen) {
	if (!file_exists(dir, name))
		return true;
	text->text = file_read(dir, name, TOKENIZER_MAX_FILE, &text->len, err, errlen);
	return text->text != NULL;
}

static bool has_pieces(const char *dir) {
	return file_exists(dir, TOKENIZER_MARIAN_FILE)
	                || (file_exists(dir, TOKENIZER_M2M_FILE) && file_exists(dir, "vocab.json"));
}

struct tokenizer *tokenizer_open(const char *dir, char *err, size_t errlen) {
	if (file_exists(dir, TOKENIZER_FAIRSEQ_FILE))
		return tokenizer_open_fairseq(dir, false, err, errlen);
	if (file_exists(dir, TOKENIZER_FSMT_FILE))
		return tokenizer_open_fsmt(dir, false, err, errlen);
	if (has_pieces(dir))
		return tokenizer_open_pieces(dir, false, err, errlen);
	return tokenizer_open_byte_level(dir, err, errlen);
}

struct tokenizer *tokenizer_open_target(const char *dir, char *err, size_t errlen) {
	if (errlen)
		err[0] = '\0';
	if (file_exists(dir, TOKENIZER_FAIRSEQ_FILE))
		return tokenizer_open_fairseq(dir, true, err, errlen);
	if (file_exists(dir, TOKENIZER_FSMT_FILE))
		return tokenizer_open_fsmt(dir, true, err, errlen);
	if (file_exists(dir, TOKENIZER_MARIAN_FILE))
		return tokenizer_open_pieces(dir, true, err, errlen);
	return NULL;
}

/* Encoding. */

bool tokenizer_put(struct tokenizer_ids *ids, int32_t id) {
	if (ids->count == ids->cap)
		return false;
	ids->tokens[ids->count++] = id;
	return true;
}

static bool put_around(struct tokenizer_ids *ids, const struct tokenizer_around *around) {
	for (int i = 0; i < around->count; i++) {
		if (!tokenizer_put(ids, around->ids[i]))
			return false;
	}
	return true;
}

void tokenizer_end_with(struct tokenizer *t, int32_t id) {
	struct tokenizer_around *after = &t->after;
	bool ends = after->count > 0 && after->ids[after->count - 1] == id;
	if (!ends && id >= 0 && after->count < TOKENIZER_MAX_AROUND)
		after->ids[after->count++] = id;
}

bool tokenizer_has_pairs(const struct tokenizer *t) {
	return t->pair.present;
}

const char *tokenizer_refusal(const struct tokenizer *t, const struct tokenizer_input *input) {
	if (input->pair && !t->pair.present)
		return "This model reads one text at a time: its folder has no form for a pair.";
	if (t->needs_words && !input->pretokenized)
		return "This model folder has no BPE codes: send text that is tokenized and cut "
		       "into the dictionary's subwords, with \"pretokenized\": true, or token ids.";
	return NULL;
}

/* Two texts; `ids` is empty. */
static bool encode_pair(const struct tokenizer *t, const struct tokenizer_input *input,
                struct tokenizer_ids *ids, size_t *ret_second) {
	const struct tokenizer_pair *pair = &t->pair;
	bool special = input->add_special;
	bool ok = (!special || put_around(ids, &pair->before))
	                && t->kind->encode(t, input->text, input->len, input->pretokenized, ids);
	size_t second = ids->count + (special ? (size_t)pair->between_first : 0);
	ok = ok && (!special || put_around(ids, &pair->between))
	                && t->kind->encode(
	                                t, input->pair, input->pair_len, input->pretokenized, ids)
	                && (!special || put_around(ids, &pair->after));
	*ret_second = pair->typed ? second : ids->count;
	return ok;
}

bool tokenizer_encode_input(const struct tokenizer *t, const struct tokenizer_input *input,
                int32_t *tokens, size_t cap, size_t *ret_count, size_t *ret_second) {
	struct tokenizer_ids ids = { .tokens = tokens, .cap = cap };
	bool special = input->add_special;
	size_t second = 0;
	if (tokenizer_refusal(t, input))
		return false;
	bool ok;
	if (input->pair) {
		ok = encode_pair(t, input, &ids, &second);
	} else {
		bool start = special
		                && !(t->kind->has_start
		                                && t->kind->has_start(t, input->text, input->len));
		ok = (!start || put_around(&ids, &t->before))
		                && t->kind->encode(t, input->text, input->len, input->pretokenized,
		                                &ids)
		                && (!special || put_around(&ids, &t->after));
		second = ids.count;
	}
	if (!ok)
		return false;
	*ret_count = ids.count;
	if (ret_second)
		*ret_second = second;
	return true;
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool add_special,
                int32_t *tokens, size_t cap, size_t *ret_count) {
	struct tokenizer_input input = { .text = text, .len = len, .add_special = add_special };
	return tokenizer_encode_input(t, &input, tokens, cap, ret_count, NULL);
}

size_t tokenizer_capacity(const struct tokenizer *t, size_t len) {
	const struct tokenizer_pair *p = &t->pair;
	size_t one = (size_t)(t->before.count + t->after.count) + t->per_text;
	size_t two = (size_t)(p->before.count + p->between.count + p->after.count)
	                + 2 * t->per_text;
	size_t ids;
	if (__builtin_mul_overflow(len, t->growth, &ids)
	                || __builtin_add_overflow(ids, one > two ? one : two, &ids))
		return SIZE_MAX;
	return ids;
}

/* Decoding. */

static void stream_begin(const struct tokenizer *t, struct tokenizer_stream *s, bool words) {
	*s = (struct tokenizer_stream){ 0 };
	if (t->kind->stream_begin)
		t->kind->stream_begin(t, s, words);
}

void tokenizer_stream_begin(const struct tokenizer *t, struct tokenizer_stream *s) {
	stream_begin(t, s, false);
}

void tokenizer_stream_begin_words(const struct tokenizer *t, struct tokenizer_stream *s) {
	stream_begin(t, s, true);
}

size_t tokenizer_stream_room(const struct tokenizer *t) {
	return t->room;
}

size_t tokenizer_stream_add(
                const struct tokenizer *t, struct tokenizer_stream *s, int32_t id, char *out) {
	return t->kind->stream_add(t, s, id, out);
}

size_t tokenizer_stream_end(const struct tokenizer *t, struct tokenizer_stream *s, char *out) {
	return t->kind->stream_end(t, s, out);
}

/* Questions. */

const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *ret_len) {
	return t->kind->bytes(t, id, ret_len);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id) {
	return id >= 0 && id < t->size && (t->special[id / 8] >> id % 8 & 1);
}

int32_t tokenizer_size(const struct tokenizer *t) {
	return t->size;
}

size_t tokenizer_longest(const struct tokenizer *t) {
	return t->longest;
}

int32_t tokenizer_bos(const struct tokenizer *t) {
	return t->before.count ? t->before.ids[0] : -1;
}

bool tokenizer_is_fairseq(const struct tokenizer *t) {
	return t->fairseq != NULL;
}
