/* SPDX-License-Identifier: Apache-2.0 */
/* BERT's tokenizing. What the ids are was worked out by hand from google-research/bert's rules. */
#include "tests/check.h"
#include "tests/toy_tokenizer.h"

/* Ids from 5 on, in this order. */
static const char *const words[] = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing",
	"##ed", "un", "##aff", "##able", ",", "cafe", "!", "\xe4\xb8\xad", "\xe6\x96\x87", "a", "$",
	"\xc3\xa9", "Play", "\xe1\x84\x80\xe1\x85\xa1" };

static void write_vocab(void) {
	char text[2048] = "";
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		strcat(strcat(text, words[i]), "\n");
	toy_print("vocab.txt", "%s", text);
}

TEST(words_are_cut_into_the_longest_pieces) {
	toy_make();
	write_vocab();
	struct tokenizer *t = toy_open();
	encodes_to(t, "Playing unaffable, played!", true, "2 5 6 8 9 10 11 5 7 13 3");
	encodes_to(t, "a,a$", false, "16 11 16 17");
	encodes_to(t, "", true, "2 3");
	tokenizer_close(t);
}

TEST(a_word_that_cannot_be_cut_is_unknown_as_a_whole) {
	toy_make();
	write_vocab();
	struct tokenizer *t = toy_open();
	encodes_to(t, "playx unaff xyz", false, "1 8 9 1");
	char text[300];
	memset(text, 'a', sizeof text);
	memcpy(text, "play", 4);
	text[101] = '\0';
	encodes_to(t, text, false, "1");
	tokenizer_close(t);
}

TEST(accents_go_where_letters_become_small) {
	toy_make();
	write_vocab();
	struct tokenizer *t = toy_open();
	encodes_to(t, "CAF\xc3\x89 cafe\xcc\x81", false, "12 12");
	encodes_to(t, "\xea\xb0\x80", false, "20"); /* a Hangul syllable is its letters */
	tokenizer_close(t);
	toy_print("tokenizer_config.json", "{\"do_lower_case\":false}");
	t = toy_open();
	encodes_to(t, "Playing caf\xc3\xa9 \xc3\xa9 \xc3\x89", false, "19 6 1 18 1");
	tokenizer_close(t);
	toy_print("tokenizer_config.json", "{\"strip_accents\":false}");
	t = toy_open();
	encodes_to(t, "Playing \xc3\x89", false, "5 6 18");
	tokenizer_close(t);
}

TEST(chinese_characters_are_words) {
	toy_make();
	write_vocab();
	struct tokenizer *t = toy_open();
	encodes_to(t, "a\xe4\xb8\xad\xe6\x96\x87", false, "16 14 15");
	tokenizer_close(t);
	toy_print("tokenizer_config.json", "{\"tokenize_chinese_chars\":false}");
	t = toy_open();
	encodes_to(t, "\xe4\xb8\xad\xe6\x96\x87", false, "1");
	tokenizer_close(t);
}

TEST(control_characters_and_ill_formed_bytes_are_left_out) {
	toy_make();
	write_vocab();
	struct tokenizer *t = toy_open();
	encodes_to(t,
	                "pl\x01"
	                "ay\xc2\xad\xff"
	                "ing\xe2\x80\x83"
	                "a\ta\xef\xbf\xbd",
	                false, "5 6 16 16");
	tokenizer_close(t);
}

TEST(pairs_have_token_types) {
	toy_make();
	write_vocab();
	struct tokenizer *t = toy_open();
	struct tokenizer_input input = {
		.text = "a a", .len = 3, .pair = "play", .pair_len = 4, .add_special = true
	};
	int32_t ids[16];
	size_t count, second;
	static const int32_t expected[] = { 2, 16, 16, 3, 5, 3 };
	CHECK(tokenizer_encode_input(t, &input, ids, 16, &count, &second));
	CHECK(count == 6 && memcmp(ids, expected, sizeof expected) == 0);
	CHECK_INT(second, 4);
	tokenizer_close(t);
}

TEST(pieces_come_back_as_words) {
	toy_make();
	write_vocab();
	struct tokenizer *t = toy_open();
	static const int32_t ids[] = { 2, 8, 9, 10, 5, 6, 3 };
	struct tokenizer_stream s;
	char text[256];
	size_t n = 0, len;
	CHECK(tokenizer_stream_room(t) <= 64);
	tokenizer_stream_begin(t, &s);
	for (int i = 0; i < 7; i++)
		n += tokenizer_stream_add(t, &s, ids[i], text + n);
	text[n] = '\0';
	CHECK_STR(text, "unaffable playing");
	const char *bytes = tokenizer_bytes(t, 5, &len);
	CHECK(len == 5 && memcmp(bytes, " play", 5) == 0);
	bytes = tokenizer_bytes(t, 4, &len);
	CHECK(len == 6 && memcmp(bytes, "[MASK]", 6) == 0);
	CHECK(tokenizer_is_special(t, 4));
	encodes_to(t, "a [MASK]!", false, "16 4 13");
	tokenizer_close(t);
}

TEST(the_same_comes_from_a_tokenizer_json) {
	toy_make();
	char vocab[2048] = "", entry[64];
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		snprintf(entry, sizeof entry, "%s\"%s\":%zu", i ? "," : "", words[i], i);
		strcat(vocab, entry);
	}
	static const char form[] =
	                "{\"added_tokens\":[{\"id\":4,\"content\":\"[MASK]\",\"special\":true}],"
	                "\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":true},"
	                "\"pre_tokenizer\":{\"type\":\"%s\"},\"decoder\":{\"type\":\"WordPiece\"},"
	                "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",3],"
	                "\"cls\":[\"[CLS]\",2]},"
	                "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"%s\",\"vocab\":{%s}}}";
	toy_print("tokenizer.json", form, "BertPreTokenizer", "[UNK]", vocab);
	struct tokenizer *t = toy_open();
	encodes_to(t, "Playing [MASK], xyz", true, "2 5 6 4 11 1 3");
	tokenizer_close(t);
	toy_print("tokenizer.json", form, "Whitespace", "[UNK]", vocab);
	toy_refused("pre_tokenizer: the type \"Whitespace\" is not supported");
	toy_print("tokenizer.json", form, "BertPreTokenizer", "<unk>", vocab);
	toy_refused("unk_token is not in the vocabulary");
}

TEST(a_vocabulary_that_is_none_is_refused) {
	toy_make();
	toy_print("vocab.txt", "a\nb\n");
	toy_refused("vocab.txt: unk_token is not in the vocabulary");
	toy_print("vocab.txt", "a\n\nb\n");
	toy_refused("vocab.txt: line 2: token 1 is");
	toy_print("vocab.txt", "a\nb\na\n");
	toy_refused("vocab.txt: line 3: tokens 0 and 2 are the same");
}
