/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that runs out while a tokenizer is opened or used: one sentence or false, and nothing
 * leaked (the sanitizer build sees leaks). Linked with --wrap for malloc, calloc and realloc;
 * jansson is given the same functions, PCRE2 keeps its own.
 */
#include <jansson.h>

#include "tests/check.h"
#include "tests/toy_tokenizer.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);

static long left = -1; /* allocations until one fails; negative: none does */

static bool fails(void) {
	bool now = left == 0;
	left -= left >= 0;
	return now;
}

void *__wrap_malloc(size_t size) {
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size) {
	return fails() ? NULL : __real_realloc(p, size);
}

/* Opens the toy folder with each allocation failing in turn; returns how many it makes. */
static long sweep_open(void) {
	json_set_alloc_funcs(__wrap_malloc, free);
	for (long n = 0;; n++) {
		char err[400] = "";
		left = n;
		struct tokenizer *t = tokenizer_open(toy_path(), err, sizeof err);
		bool reached = left < 0;
		left = -1;
		tokenizer_close(t);
		if (t && !reached)
			return n;
		CHECK(t || (err[0] && strlen(err) < 300));
		CHECK(n < 100000);
	}
}

TEST(opening_a_tokenizer_json_survives_every_failed_allocation) {
	toy_make();
	toy_json(",\"ab\":256", "\"a b\"", "",
	                ",\"added_tokens\":[{\"id\":257,\"content\":\"<s>\",\"special\":true}]");
	CHECK(sweep_open() > 50);
}

TEST(opening_vocabulary_and_merges_survives_every_failed_allocation) {
	toy_make();
	toy_print("vocab.json", "{%s}", toy_vocab(-1, ",\"ab\":256,\"</s>\":257"));
	toy_print("merges.txt", "#version: 0.2\na b\n");
	toy_print("tokenizer_config.json", "{\"bos_token\":\"</s>\",\"add_bos_token\":true}");
	CHECK(sweep_open() > 50);
}

TEST(opening_a_folder_from_fairseq_survives_every_failed_allocation) {
	toy_make();
	toy_print("fathom_tokenizer.json",
	                "{\"kind\":\"fairseq\",\"bpe\":\"subword_nmt\",\"codes\":\"codes\",\"extra_"
	                "symbols\":[\"<mask>\"],\"bos\":true,\"pair\":[\"</s>\"]}");
	toy_print("dict.txt", "ab@@ 1\nc 1\n");
	toy_print("codes", "#version: 0.2\na b\n");
	CHECK(sweep_open() > 20);
	toy_print("fathom_tokenizer.json",
	                "{\"kind\":\"fairseq\",\"bpe\":\"gpt2\",\"encoder\":\"encoder.json\","
	                "\"merges\":"
	                "\"vocab.bpe\"}");
	toy_print("dict.txt", "97 1\n");
	toy_print("encoder.json", "{%s}", toy_vocab(-1, ",\"ab\":256"));
	toy_print("vocab.bpe", "#version: 0.2\na b\n");
	CHECK(sweep_open() > 50);
}

TEST(encoding_by_a_dictionary_survives_every_failed_allocation) {
	toy_make();
	toy_print("fathom_tokenizer.json",
	                "{\"kind\":\"fairseq\",\"bpe\":\"subword_nmt\",\"codes\":\"codes\","
	                "\"tokenizer\":\"moses\"}");
	toy_print("dict.txt", "ab@@ 1\nc 1\n");
	toy_print("codes", "#version: 0.2\na b\n");
	struct tokenizer *t = toy_open();
	int32_t tokens[128];
	size_t count;
	for (left = 0;; left++) {
		long n = left;
		bool ok = tokenizer_encode(t, "abc \xff", 5, true, tokens, 128, &count);
		bool reached = left < 0;
		left = -1;
		CHECK(ok == !reached);
		if (ok) {
			CHECK(n >= 4);
			break;
		}
		left = n;
	}
	tokenizer_close(t);
}

TEST(encoding_survives_every_failed_allocation) {
	toy_make();
	toy_json(",\"ab\":256", "\"a b\"", "",
	                ",\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true}");
	struct tokenizer *t = toy_open();
	int32_t tokens[64];
	size_t count;
	long n = 0;
	for (;; n++) {
		left = n;
		bool ok = tokenizer_encode(t, "abab <s> ab", 11, true, tokens, 64, &count);
		bool reached = left < 0;
		left = -1;
		CHECK(ok == !reached);
		if (ok)
			break;
	}
	CHECK(n >= 2);
	tokenizer_close(t);
}
