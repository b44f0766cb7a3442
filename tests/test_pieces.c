/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentencepiece folders, with the 1,000 piece model of google/sentencepiece's own tests where it is
 * at hand. Which pieces a text has was printed by sentencepiece's Python package.
 */
#include <unistd.h>

#include "model/pieces.h"
#include "tests/check.h"
#include "tests/toy_tokenizer.h"

/* Puts the model into the toy folder as `name`; skips without it or without the library. */
static void copy_model(const char *name) {
	static char path[4096], err[200];
	const char *root = getenv("FATHOM_SOURCE_ROOT");
	size_t len;
	snprintf(path, sizeof path, "%s/../shared/data/sentencepiece/test_model.model",
	                root ? root : ".");
	if (access(path, R_OK) != 0)
		SKIP("%s is not there", path);
	char *model = check_read_file(path, &len);
	struct pieces *p = pieces_load(model, len, err, sizeof err);
	toy_write(name, model, len);
	free(model);
	if (!p)
		SKIP("%s", err);
	pieces_close(p);
}

/* "I saw a girl with a telescope." */
#define PIECES                                                                                     \
	"\"\u2581I\":4,\"\u2581saw\":5,\"\u2581a\":6,\"\u2581girl\":7,\"\u2581with\":8,"           \
	"\"\u2581\":9,"                                                                            \
	"\"te\":10,\"le\":11,\"s\":12,\"c\":13,\"o\":14,\".\":15"
#define TEXT "I saw a girl with a telescope."
#define IDS "4 5 6 7 8 6 9 10 11 12 13 14 3 15" /* "pe" is not in the vocabulary */

TEST(marian_folders_have_a_model_for_each_side) {
	char err[400];
	toy_make();
	toy_print("vocab.json", "{\"</s>\":0,\"<pad>\":1,\">>fra<<\":2,\"<unk>\":3," PIECES "}");
	copy_model("source.spm");
	copy_model("target.spm");
	struct tokenizer *t = toy_open();
	encodes_to(t, TEXT, true, IDS " 0");
	encodes_to(t, ">>fra<< " TEXT, true, "2 " IDS " 0");
	encodes_to(t, "", true, "0");
	CHECK_INT(tokenizer_size(t), 16);
	CHECK(tokenizer_is_special(t, 0) && !tokenizer_is_special(t, 3));
	tokenizer_close(t);
	t = tokenizer_open_target(toy_path(), err, sizeof err);
	CHECK(t);
	encodes_to(t, TEXT, false, IDS);
	tokenizer_close(t);
}

TEST(pieces_come_back_as_text) {
	toy_make();
	toy_print("vocab.json", "{\"</s>\":0,\"<pad>\":1,\"<unk>\":3," PIECES "}");
	copy_model("source.spm");
	struct tokenizer *t = toy_open();
	static const int32_t ids[] = { 4, 5, 6, 7, 9, 10, 11, 15, 0 };
	struct tokenizer_stream s;
	char text[256];
	size_t n = 0;
	tokenizer_stream_begin(t, &s);
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		n += tokenizer_stream_add(t, &s, ids[i], text + n);
	text[n] = '\0';
	CHECK_STR(text, "I saw a girl tele.");
	tokenizer_close(t);
}

TEST(m2m_texts_begin_with_their_language) {
	toy_make();
	toy_print("vocab.json", "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3," PIECES "}");
	toy_print("special_tokens_map.json",
	                "{\"additional_special_tokens\":[\"__en__\",\"__fr__\"]}");
	copy_model("sentencepiece.bpe.model");
	struct tokenizer *t = toy_open();
	encodes_to(t, TEXT, true, "16 " IDS " 2");
	encodes_to(t, "__fr__ " TEXT, true, "17 " IDS " 2");
	CHECK(tokenizer_is_special(t, 17));
	CHECK_INT(tokenizer_size(t), 18);
	tokenizer_close(t);
	toy_print("tokenizer_config.json", "{\"src_lang\":\"fr\"}");
	t = toy_open();
	encodes_to(t, "a", true, "17 6 2");
	tokenizer_close(t);
	toy_print("tokenizer_config.json", "{\"src_lang\":\"de\"}");
	toy_refused("src_lang is not one of the languages");
}

/* Without the library the sentence names what is missing. */
TEST(a_model_that_is_none_is_refused_by_name) {
	toy_make();
	toy_print("vocab.json", "{\"</s>\":0,\"<unk>\":1}");
	toy_print("source.spm", "no model");
	toy_refused("source.spm: ");
	toy_refused("sentencepiece");
}
