/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer entry: a tokenizer from hostile files, and a text through it. The first byte chooses the
 * files; a zero byte ends each of them; the rest is the text.
 */
#include <stdlib.h>
#include <string.h>

#include "model/fairseq_parts.h"
#include "model/tokenizer.h"
#include "model/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next file of the input, in NUL-terminated memory that the caller frees. */
static struct tokenizer_text take(const uint8_t **data, size_t *size) {
	const uint8_t *end = memchr(*data, 0, *size);
	size_t len = end ? (size_t)(end - *data) : *size;
	char *copy = malloc(len + 1);
	if (!copy)
		abort();
	memcpy(copy, *data, len);
	copy[len] = '\0';
	*data += len + (end != NULL);
	*size -= len + (end != NULL);
	return (struct tokenizer_text){ copy, len };
}

/* A dictionary, the codes of subwords, and a line through both and through Moses. */
static void read_fairseq(const uint8_t *data, size_t size) {
	static struct moses *moses;
	char err[400] = "";
	struct tokenizer_text dict = take(&data, &size), codes = take(&data, &size);
	struct dict *d = dict_parse(dict.text, dict.len, "dict.txt", err, sizeof err);
	struct subword *s = subword_parse(codes.text, codes.len, "codes", false, err, sizeof err);
	struct text line = { 0 }, words = { 0 }, cut = { 0 };
	struct merges_scratch scratch = { 0 };
	if (!moses)
		moses = moses_create("de", err, sizeof err);
	if ((!d || !s || !moses) && !err[0])
		abort();
	if (moses && text_reserve(&line, 3 * size + 1)) {
		line.len = unicode_mend((const char *)data, size, line.bytes);
		if (!moses_tokenize(moses, line.bytes, line.len, &words))
			abort();
		if (s && !subword_apply(s, &scratch, words.bytes, words.len, true, &cut))
			abort();
		for (size_t i = 0; d && i < cut.len; i++)
			dict_find(d, cut.bytes + i, cut.len - i);
	}
	text_finish(&line);
	text_finish(&words);
	text_finish(&cut);
	merges_scratch_finish(&scratch);
	dict_destroy(d);
	subword_destroy(s);
	free((char *)dict.text);
	free((char *)codes.text);
}

static struct tokenizer *make(const uint8_t **data, size_t *size) {
	char err[400] = "";
	struct tokenizer *t;
	bool json_file = **data & 1;
	++*data;
	--*size;
	if (json_file) {
		struct tokenizer_text json = take(data, size);
		t = tokenizer_parse_json(json, err, sizeof err);
		free((char *)json.text);
	} else {
		struct tokenizer_folder f = { .vocab = take(data, size),
			.merges = take(data, size) };
		f.config = take(data, size);
		t = tokenizer_parse_folder(&f, err, sizeof err);
		free((char *)f.vocab.text);
		free((char *)f.merges.text);
		free((char *)f.config.text);
	}
	if (!t && !err[0])
		abort();
	return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	if (size == 0)
		return 0;
	if (*data & 2) {
		read_fairseq(data + 1, size - 1);
		return 0;
	}
	struct tokenizer *t = make(&data, &size);
	if (!t)
		return 0;
	size_t cap = tokenizer_capacity(t, size), count;
	int32_t *tokens = malloc((cap + 1) * sizeof *tokens);
	if (tokens && tokenizer_encode(t, (const char *)data, size, true, tokens, cap, &count)) {
		size_t len;
		for (size_t i = 0; i < count; i++) {
			if (!tokenizer_bytes(t, tokens[i], &len))
				abort();
		}
	}
	free(tokens);
	tokenizer_close(t);
	return 0;
}
