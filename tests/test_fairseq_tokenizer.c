/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers of folders that come from fairseq: dictionaries, subwords, GPT-2's BPE through a
 * dictionary, symbols and streams. */
#include <unistd.h>

#include "model/doc.h"
#include "tests/check.h"
#include "tests/toy_tokenizer.h"

/* A folder with a dictionary of a, b, c, ... from id 4 on. */
static void make(const char *json, const char *dict) {
	toy_make();
	toy_print("fathom_tokenizer.json", "{\"kind\":\"fairseq\"%s}", json);
	toy_print("dict.txt", "%s", dict);
}

static void refused_dict(const char *dict, size_t len, const char *part) {
	toy_make();
	toy_print("fathom_tokenizer.json", "{\"kind\":\"fairseq\"}");
	toy_write("dict.txt", dict, len);
	toy_refused(part);
}

#define REFUSED_DICT(text, part) refused_dict(text, sizeof text - 1, part)

/* The text that ids give, all at once. */
static void streams_to(const struct tokenizer *t, const int32_t *ids, int n, const char *expected) {
	struct tokenizer_stream s;
	char text[1024], *out = malloc(tokenizer_stream_room(t));
	size_t len = 0;
	CHECK(out);
	tokenizer_stream_begin(t, &s);
	for (int i = 0; i <= n; i++) {
		size_t more = i < n ? tokenizer_stream_add(t, &s, ids[i], out)
		                    : tokenizer_stream_end(t, &s, out);
		CHECK(more <= tokenizer_stream_room(t) && len + more < sizeof text);
		memcpy(text + len, out, more);
		len += more;
	}
	text[len] = '\0';
	free(out);
	CHECK_STR(text, expected);
}

static void bytes_are(const struct tokenizer *t, int32_t id, const char *expected) {
	size_t len;
	const char *bytes = tokenizer_bytes(t, id, &len);
	CHECK(bytes && len == strlen(expected) && memcmp(bytes, expected, len) == 0);
}

/* Words. */

TEST(words_have_the_ids_of_their_lines) {
	make("", "the 10\nof 9\n<x> 8\nmadeupword0000 0\n");
	struct tokenizer *t = toy_open();
	CHECK_INT(tokenizer_size(t), 8);
	encodes_to(t, "of the unheard <x> madeupword0000", false, "5 4 3 6 7");
	tokenizer_close(t);
}

TEST(any_white_space_separates_words) {
	make("", "a 1\nb 1\n");
	struct tokenizer *t = toy_open();
	encodes_to(t,
	                "  a\tb\n\na\xc2\xa0"
	                "b\xe3\x80\x80"
	                "a\x1c"
	                "b\r\n",
	                false, "4 5 4 5 4 5");
	encodes_to(t, " \n ", true, "");
	encodes_to(t,
	                "a\xe2\x80\x8b"
	                "b",
	                false, "3"); /* a zero width space is none */
	tokenizer_close(t);
}

TEST(a_word_may_hold_spaces_and_end_at_the_last_of_its_line) {
	make("", "a b 1\nc 2\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a b c", false, "3 3 5");
	bytes_are(t, 4, "a b ");
	tokenizer_close(t);
}

TEST(symbols_in_a_text_are_unknown_words) {
	make("", "a 1\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "<s> a </s> <pad> <unk> a", false, "3 4 3 3 3 4");
	tokenizer_close(t);
}

TEST(a_dictionary_that_lists_the_four_symbols_first_is_read_as_it_is) {
	make("", "<s> 0\n<pad> 0\n</s> 0\n<unk> 0\na 5\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a", false, "4");
	tokenizer_close(t);
}

TEST(an_overwritten_word_has_its_later_id) {
	make("", "a 1\n<unk> 3\x20#fairseq:overwrite\na 1 #fairseq:overwrite\nb 1\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a <unk> b c", false, "6 5 7 3");
	tokenizer_close(t);
}

TEST(carriage_returns_end_lines_too) {
	make("", "a 1\r\nb 2 \r\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "b a", false, "5 4");
	tokenizer_close(t);
}

TEST(a_dictionary_that_is_none_is_refused_by_line) {
	REFUSED_DICT("a 1\nb\n", "dict.txt: line 2 is not a word, a space and a count");
	REFUSED_DICT("a 1\n\nb 1\n", "line 2 is not a word");
	REFUSED_DICT("a one\n", "line 1 is not a word");
	REFUSED_DICT("a 1 #fairseq:other\n", "line 1 is not a word");
	REFUSED_DICT("a #fairseq:overwrite\n", "line 1 is not a word");
	REFUSED_DICT(" 1\n", "line 1 has no word before its count");
	REFUSED_DICT("a 1\nb 2\na 3\n", "line 3 repeats a word");
	REFUSED_DICT("<unk> 1\n", "line 1 repeats a word");
	REFUSED_DICT("a 1\nb\xff 1\n", "line 2 is not UTF-8");
	REFUSED_DICT("a 1\nb\0 1\n", "line 2 holds a NUL");
	REFUSED_DICT("", "the dictionary is empty");
	REFUSED_DICT("\x80\x02}q\x00", "line 1 holds a NUL");
}

TEST(a_word_of_any_length_is_refused_not_read) {
	char *text = malloc(20000);
	memset(text, 'x', 20000);
	memcpy(text + 19990, " 1\n", 4);
	refused_dict(text, 19993, "line 1 has a word of more than 16384 bytes");
	free(text);
}

TEST(words_are_joined_by_single_spaces) {
	make("", "a 1\nb 1\nc@@ 1\n");
	struct tokenizer *t = toy_open();
	streams_to(t, (int32_t[]){ 2, 4, 5, 3, 1, 6, 4, 2 }, 8, "a b <unk> c@@ a");
	bytes_are(t, 4, "a ");
	bytes_are(t, 2, "</s>");
	CHECK(tokenizer_is_special(t, 0) && tokenizer_is_special(t, 1)
	                && tokenizer_is_special(t, 2));
	CHECK(!tokenizer_is_special(t, 3) && !tokenizer_is_special(t, 4));
	tokenizer_close(t);
}

/* Around texts. */

TEST(start_begins_a_text_of_a_language_model) {
	make(",\"start\":\"</s>\"", "a 1\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a a", true, "2 4 4");
	encodes_to(t, "a a", false, "4 4");
	CHECK_INT(tokenizer_bos(t), 2);
	CHECK(!tokenizer_has_pairs(t));
	tokenizer_close(t);
}

TEST(a_pair_stands_around_its_symbols) {
	make(",\"bos\":true,\"eos\":true,\"pair\":[\"</s>\",\"</s>\"]", "a 1\nb 1\n");
	struct tokenizer *t = toy_open();
	struct tokenizer_input input = { .text = "a a", .len = 3, .pair = "b", .pair_len = 1 };
	int32_t ids[16];
	size_t count, second;
	CHECK(tokenizer_encode_input(t, &input, ids, 16, &count, &second));
	CHECK(count == 3 && ids[0] == 4 && ids[1] == 4 && ids[2] == 5);
	input.add_special = true;
	CHECK(tokenizer_encode_input(t, &input, ids, 16, &count, &second));
	static const int32_t expected[] = { 0, 4, 4, 2, 2, 5, 2 };
	CHECK(count == 7 && memcmp(ids, expected, sizeof expected) == 0);
	CHECK_INT(second, 7); /* no token types */
	CHECK(tokenizer_capacity(t, 4) >= 7);
	CHECK(!tokenizer_encode_input(t, &input, ids, 6, &count, &second));
	tokenizer_close(t);
}

TEST(a_pair_is_refused_where_there_is_no_form_for_one) {
	make("", "a 1\n");
	struct tokenizer *t = toy_open();
	struct tokenizer_input input = { .text = "a", .len = 1, .pair = "a", .pair_len = 1 };
	int32_t ids[16];
	size_t count;
	CHECK(!tokenizer_encode_input(t, &input, ids, 16, &count, NULL));
	CHECK(strstr(tokenizer_refusal(t, &input), "no form for a pair"));
	input.pair = NULL;
	CHECK(!tokenizer_refusal(t, &input));
	tokenizer_close(t);
}

TEST(only_the_mask_is_read_from_a_text) {
	make(",\"extra_symbols\":[\"<mask>\",\"<x>\"]", "a 1\nb 1\n");
	struct tokenizer *t = toy_open();
	CHECK_INT(tokenizer_size(t), 8);
	encodes_to(t, "a <mask> b<mask> <x> a", false, "4 6 5 6 3 4");
	CHECK(tokenizer_is_special(t, 6) && tokenizer_is_special(t, 7));
	tokenizer_close(t);
}

TEST(a_symbol_that_the_dictionary_lists_is_not_appended_again) {
	make(",\"extra_symbols\":[\"<mask>\"]", "<mask> 1\na 1\n");
	struct tokenizer *t = toy_open();
	CHECK_INT(tokenizer_size(t), 6);
	encodes_to(t, "<mask> a", false, "4 5");
	tokenizer_close(t);
}

/* Subwords. */

#define SUBWORDS ",\"bpe\":\"subword_nmt\",\"codes\":\"codes\""

TEST(words_become_marked_subwords) {
	make(SUBWORDS ",\"eos\":true", "lo@@ 1\nw 1\nlow 1\ne@@ 1\nr 1\nlow@@ 1\nx 1\n");
	toy_print("codes", "#version: 0.2\nl o\nlo w</w>\nlo w\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "low  lower x", true, "6 9 7 8 10 2");
	streams_to(t, (int32_t[]){ 6, 9, 7, 8, 10, 2 }, 6, "low lower x");
	bytes_are(t, 9, "low");
	bytes_are(t, 8, "r ");
	tokenizer_close(t);
}

TEST(in_version_0_1_the_end_of_a_word_is_a_symbol_of_its_own) {
	make(SUBWORDS, "lo@@ 1\nw 1\nlow 1\n");
	toy_print("codes", "l o\nw </w>\nlo w</w>\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "low w lo", false, "6 5 3");
	tokenizer_close(t);
	toy_print("codes", "#version: 0.1\nl o\nw </w>\n");
	t = toy_open();
	encodes_to(t, "low", false, "4 5");
	tokenizer_close(t);
}

TEST(of_two_equal_merges_the_first_counts) {
	make(SUBWORDS, "ab@@ 1\nc 1\na@@ 1\nbc 1\n");
	toy_print("codes", "#version: 0.2\na b\nb c</w>\na b\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "abc", false, "4 5");
	tokenizer_close(t);
}

/* Merging "a bc" everywhere first leaves no "abc a"; one place at a time would make "abca bc". */
TEST(a_pair_is_merged_in_all_its_places_before_the_next) {
	make(SUBWORDS, "abc@@ 1\nabc 1\nabca@@ 1\nbc 1\nx 1\n");
	toy_print("codes", "#version: 0.2\nabc a\nb c\na bc\nx x</w>\nb c</w>\na bc</w>\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "abcabcx", false, "4 4 8");
	tokenizer_close(t);
}

TEST(pretokenized_subwords_stay_as_they_are) {
	make(SUBWORDS, "lo@@ 1\nw 1\nlow 1\n");
	toy_print("codes", "#version: 0.2\nl o\nlo w</w>\n");
	struct tokenizer *t = toy_open();
	struct tokenizer_input input = { .text = "lo@@ w low", .len = 10, .pretokenized = true };
	int32_t ids[16];
	size_t count;
	CHECK(tokenizer_encode_input(t, &input, ids, 16, &count, NULL));
	CHECK(count == 3 && ids[0] == 4 && ids[1] == 5 && ids[2] == 6);
	tokenizer_close(t);
}

TEST(without_codes_only_pretokenized_text_is_taken) {
	make(",\"bpe\":\"subword_nmt\"", "lo@@ 1\nw 1\n");
	struct tokenizer *t = toy_open();
	struct tokenizer_input input = { .text = "lo@@ w", .len = 6 };
	int32_t ids[16];
	size_t count;
	CHECK(!tokenizer_encode_input(t, &input, ids, 16, &count, NULL));
	CHECK(strstr(tokenizer_refusal(t, &input), "no BPE codes"));
	input.pretokenized = true;
	CHECK(!tokenizer_refusal(t, &input));
	CHECK(tokenizer_encode_input(t, &input, ids, 16, &count, NULL) && count == 2);
	streams_to(t, (int32_t[]){ 4, 5, 4 }, 3, "low lo");
	tokenizer_close(t);
}

TEST(codes_that_are_none_are_refused_by_line) {
	make(SUBWORDS, "a 1\n");
	toy_refused("codes: cannot be opened");
	static const struct {
		const char *codes, *part;
	} cases[] = {
		{ "#version: 0.2\na b\na b 5\n", "codes: line 3 has more than two columns" },
		{ "a b\nc\n", "line 2 is not two symbols and a space" },
		{ "a b\n\nc d\n", "line 2 is not two symbols" },
		{ "#version: 0.3\na b\n", "the version is neither 0.1 nor 0.2" },
		{ "a \xff\n", "line 1 is not UTF-8" },
		{ "", "the file has no merges" },
		{ "#version: 0.2\n", "the file has no merges" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		toy_print("codes", "%s", cases[i].codes);
		toy_refused(cases[i].part);
	}
	toy_write("codes", "a b\na \0b\n", 9);
	toy_refused("line 2 holds a NUL");
}

/* Half a million characters that all merge: quadratic time would be minutes. */
TEST(a_long_word_takes_no_long_time) {
	make(SUBWORDS, "a 1\n");
	toy_print("codes", "#version: 0.2\na a\naa aa\naaaa aaaa\n");
	struct tokenizer *t = toy_open();
	size_t len = 500000, count;
	char *text = malloc(len);
	int32_t *ids = malloc(tokenizer_capacity(t, len) * sizeof *ids);
	memset(text, 'a', len);
	CHECK(tokenizer_encode(t, text, len, true, ids, tokenizer_capacity(t, len), &count));
	CHECK(count >= len / 8);
	free(text);
	free(ids);
	tokenizer_close(t);
}

/* GPT-2's BPE through a dictionary. */

#define GPT2 ",\"bpe\":\"gpt2\",\"encoder\":\"encoder.json\",\"merges\":\"vocab.bpe\""

static void write_gpt2(void) {
	toy_print("encoder.json", "{%s}", toy_vocab(-1, ",\"ab\":256,\"\\u0120ab\":257"));
	toy_print("vocab.bpe", "#version: 0.2\na b\n\xc4\xa0 ab\n");
}

TEST(gpt2_ids_are_words_of_the_dictionary) {
	make(GPT2 ",\"extra_symbols\":[\"<mask>\"],\"bos\":true,\"eos\":true",
	                "257 9\n97 8\n256 7\n32 6\nmadeupword0000 0\n");
	write_gpt2();
	struct tokenizer *t = toy_open();
	CHECK_INT(tokenizer_size(t), 10);
	encodes_to(t, "aab ab b", true, "0 5 6 4 7 3 2");
	bytes_are(t, 4, " ab");
	bytes_are(t, 6, "ab");
	bytes_are(t, 9, "<mask>");
	streams_to(t, (int32_t[]){ 0, 5, 6, 4, 2 }, 5, "aab ab");
	tokenizer_close(t);
}

TEST(white_space_before_a_mask_and_at_the_end_is_dropped_as_in_fairseq) {
	make(GPT2 ",\"extra_symbols\":[\"<mask>\"]", "257 9\n97 8\n256 7\n32 6\n");
	write_gpt2();
	struct tokenizer *t = toy_open();
	encodes_to(t, "a <mask> ab ", false, "5 8 4");
	encodes_to(t, "a ab ", false, "5 4 7");
	tokenizer_close(t);
}

TEST(without_its_files_gpt2_takes_pretokenized_numbers) {
	make(",\"bpe\":\"gpt2\"", "13 9\n262 8\n");
	struct tokenizer *t = toy_open();
	struct tokenizer_input input = { .text = "262 13 7", .len = 8, .pretokenized = true };
	int32_t ids[16];
	size_t count;
	CHECK(tokenizer_encode_input(t, &input, ids, 16, &count, NULL));
	CHECK(count == 3 && ids[0] == 5 && ids[1] == 4 && ids[2] == 3);
	input.pretokenized = false;
	CHECK(tokenizer_refusal(t, &input));
	tokenizer_close(t);
}

TEST(a_dictionary_without_gpt2_ids_is_refused) {
	make(GPT2, "the 9\n");
	write_gpt2();
	toy_refused("no id in common");
}

/* Moses around the dictionary. */

#define MOSES ",\"tokenizer\":\"moses\",\"source_lang\":\"en\",\"target_lang\":\"de\""

TEST(moses_stands_around_the_dictionary) {
	make(MOSES SUBWORDS ",\"eos\":true",
	                "It 1\n&apos;s 1\n( 1\nno@@ 1\nw 1\n@-@ 1\n) 1\n. 1\n");
	toy_print("codes",
	                "#version: 0.2\nI t</w>\n& a\n&a p\n&ap o\n&apo s\n&apos ;\n&apos; s</w>\n"
	                "n o\n@ -\n@- @</w>\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "It's  (now-now).", true, "4 5 6 7 8 9 7 8 10 11 2");
	streams_to(t, (int32_t[]){ 4, 5, 6, 7, 8, 9, 7, 8, 10, 11, 2 }, 11, "It's (now-now).");
	struct tokenizer_input input = {
		.text = "It &apos;s no@@ w", .len = 17, .pretokenized = true
	};
	int32_t ids[32];
	size_t count;
	CHECK(tokenizer_encode_input(t, &input, ids, 32, &count, NULL));
	CHECK(count == 4 && ids[1] == 5 && ids[2] == 7 && ids[3] == 8);
	tokenizer_close(t);
}

TEST(a_stream_of_words_is_not_detokenized) {
	make(MOSES, "It 1\n&apos;s 1\n. 1\n");
	struct tokenizer *t = toy_open();
	struct tokenizer_stream s;
	char out[1024];
	CHECK(tokenizer_stream_room(t) <= sizeof out);
	tokenizer_stream_begin_words(t, &s);
	CHECK_INT(tokenizer_stream_add(t, &s, 4, out), 2);
	CHECK_INT(tokenizer_stream_add(t, &s, 5, out), 8);
	CHECK(memcmp(out, " &apos;s", 8) == 0);
	CHECK_INT(tokenizer_stream_add(t, &s, 6, out), 2);
	CHECK_INT(tokenizer_stream_end(t, &s, out), 0);
	tokenizer_close(t);
}

TEST(answers_have_their_own_language) {
	char err[400];
	make(MOSES, "It 1\n&apos;s 1\ngeht 1\n&apos; 1\ns 1\n");
	struct tokenizer *t = tokenizer_open_target(toy_path(), err, sizeof err);
	CHECK(t);
	encodes_to(t, "geht's", false, "6 7 8");
	tokenizer_close(t);
	t = toy_open();
	encodes_to(t, "It's", false, "4 5");
	tokenizer_close(t);
}

TEST(marks_and_quotes_can_become_more_ids_than_bytes) {
	make(MOSES SUBWORDS, "x 1\n");
	toy_print("codes", "#version: 0.2\nx y\n");
	struct tokenizer *t = toy_open();
	char text[64];
	int32_t ids[512];
	size_t count;
	memset(text, '"', sizeof text);
	CHECK(tokenizer_capacity(t, sizeof text) <= 512);
	CHECK(tokenizer_encode(t, text, sizeof text, true, ids, tokenizer_capacity(t, sizeof text),
	                &count));
	CHECK_INT(count, 6 * sizeof text);
	tokenizer_close(t);
}

/* The file itself. */

TEST(a_file_that_is_none_is_refused_by_key) {
	static const struct {
		const char *json, *part;
	} cases[] = {
		{ ",\"dictionary\":\"../dict.txt\"", "is not the name of a file of the folder" },
		{ ",\"dictionary\":\"missing.txt\"", "missing.txt: cannot be opened" },
		{ ",\"bpe\":\"sentencepiece\"", "\"bpe\" is none of" },
		{ ",\"tokenizer\":\"moses\",\"bpe\":\"gpt2\"", "exclude each other" },
		{ ",\"tokenizer\":\"spacy\"", "\"tokenizer\" is none of" },
		{ ",\"bpe\":\"gpt2\",\"merges\":\"m\"", "\"encoder\" is missing" },
		{ ",\"start\":\"<x>\"", "\"start\" names a symbol that is not in the dictionary" },
		{ ",\"start\":\"</s>\",\"bos\":true", "exclude each other" },
		{ ",\"pair\":[1]", "\"pair\" names a symbol" },
		{ ",\"pair\":\"</s>\"", "\"pair\" is not a list" },
		{ ",\"extra_symbols\":[\"\"]", "\"extra_symbols\" holds something" },
		{ ",\"bos\":1", "bos" },
		{ ",\"lower\":true", "\"lower\" is not a known key" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		make(cases[i].json, "a 1\n");
		toy_refused(cases[i].part);
	}
	toy_print("fathom_tokenizer.json", "{\"kind\":\"other\"}");
	toy_refused("\"kind\" is not \"fairseq\"");
	toy_print("fathom_tokenizer.json", "[]");
	toy_refused("fathom_tokenizer.json");
}

/* Files with bytes changed, lost or doubled are read or refused in a sentence. */
TEST(damaged_files_are_read_or_refused) {
	static const char *const names[] = { "fathom_tokenizer.json", "dict.txt", "codes" };
	unsigned state = 7;
	int opened = 0;
	for (int round = 0; round < 3000; round++) {
		char err[400] = "", text[400];
		const char *name = names[round % 3];
		make(SUBWORDS ",\"extra_symbols\":[\"<mask>\"],\"pair\":[\"</s>\"],\"start\":\"</"
		              "s>\"",
		                "lo@@ 10\nw 9\nlow 8 #fairseq:overwrite\n\xc3\xa4 7\n");
		toy_print("codes", "#version: 0.2\nl o\nlo w</w>\n\xc3\xa4 x</w>\n");
		char path[300];
		snprintf(path, sizeof path, "%s/%s", toy_path(), name);
		size_t len;
		char *whole = check_read_file(path, &len);
		CHECK(len < sizeof text);
		memcpy(text, whole, len);
		free(whole);
		for (int k = 0; k < 1 + round % 2; k++) {
			state = state * 1103515245u + 12345u;
			size_t at = (state >> 8) % len;
			if (state >> 30 == 0)
				memmove(text + at, text + at + 1, --len - at);
			else
				text[at] = (char)"\0\n \xff\"{@#"[state >> 27 & 7];
		}
		toy_write(name, text, len);
		struct tokenizer *t = tokenizer_open(toy_path(), err, sizeof err);
		CHECK(t || (err[0] && !strchr(err, '\n')));
		if (t) {
			int32_t ids[64];
			size_t count;
			CHECK(tokenizer_encode(
			                t, "low \xc3\xa4x<mask>", 13, true, ids, 64, &count));
			streams_to(t, ids, 0, "");
			opened++;
		}
		tokenizer_close(t);
	}
	CHECK(opened > 500 && opened < 2500);
}

TEST(answers_have_a_tokenizer_of_their_own_where_there_are_two_dictionaries) {
	char err[400] = "x";
	make(",\"target_dictionary\":\"dict.tgt.txt\"", "a 1\n");
	toy_print("dict.tgt.txt", "b 1\nc 1\n");
	struct tokenizer *t = tokenizer_open_target(toy_path(), err, sizeof err);
	CHECK(t && !err[0]);
	encodes_to(t, "c a", false, "5 3");
	tokenizer_close(t);
	toy_print("dict.tgt.txt", "b\n");
	CHECK(!tokenizer_open_target(toy_path(), err, sizeof err));
	CHECK(strstr(err, "dict.tgt.txt: line 1"));
	make("", "a 1\n");
	CHECK(!tokenizer_open_target(toy_path(), err, sizeof err));
	CHECK_STR(err, "");
}

/* Hugging Face's FSMT. */

TEST(fsmt_folders_are_read_as_fairseq_would) {
	char err[400];
	toy_make();
	toy_print("tokenizer_config.json", "{\"langs\":[\"en\",\"de\"],\"do_lower_case\":false}");
	toy_print("vocab-src.json",
	                "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3,\"lo\":4,\"w</w>\":5,"
	                "\"low</w>\":6,\"&apos;s</w>\":7}");
	toy_print("vocab-tgt.json",
	                "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3,\"w</w>\":4,\"lo\":5}");
	toy_print("merges.txt",
	                "l o 9\nlo w</w> 8\n& a 7\n&a p 6\n&ap o 5\n&apo s 4\n&apos ; 3\n"
	                "&apos; s</w> 2\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "low's loxw w", true, "6 7 4 3 5 5 2");
	streams_to(t, (int32_t[]){ 4, 5, 7, 6, 2 }, 5, "low's low");
	tokenizer_close(t);
	t = tokenizer_open_target(toy_path(), err, sizeof err);
	CHECK(t);
	encodes_to(t, "w", false, "4");
	streams_to(t, (int32_t[]){ 5, 4 }, 2, "low");
	tokenizer_close(t);
	toy_print("vocab-src.json", "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3,\"lo\":5}");
	toy_refused("vocab-src.json: the ids are not 0, 1, 2");
	toy_print("vocab-src.json", "{\"<s>\":1,\"<pad>\":0,\"</s>\":2,\"<unk>\":3,\"lo\":4}");
	toy_refused("vocab-src.json: token 0 is not one of fairseq's");
	toy_print("tokenizer_config.json", "{\"langs\":[\"en\"]}");
	toy_refused("langs is not two languages");
}

/* What fairseq itself made of texts, where the fixtures are there. */

static const char *shared(const char *name) {
	static char path[4096];
	const char *root = getenv("FATHOM_SOURCE_ROOT");
	snprintf(path, sizeof path, "%s/../shared/%s", root ? root : ".", name);
	return path;
}

/* Copies shared/FROM into the toy folder as `name`. */
static void copy(const char *from, const char *name) {
	size_t len;
	char *text = check_read_file(shared(from), &len);
	toy_write(name, text, len);
	free(text);
}

/* A folder for one fixture; skips without it. */
static void make_fixture(const char *name, const char *json) {
	char path[200];
	snprintf(path, sizeof path, "fixtures/%s/expected.json", name);
	if (access(shared(path), R_OK) != 0)
		SKIP("%s is not there", shared(path));
	toy_make();
	toy_print("fathom_tokenizer.json", "{\"kind\":\"fairseq\"%s}", json);
}

/* Checks the ids of every text of expected.json; `marks`: its texts are cut into subwords already. */
static void check_fixture(const char *name, const char *list, const char *text_key,
                const char *ids_key, bool marks) {
	char path[200], err[400];
	size_t len, checked = 0;
	snprintf(path, sizeof path, "fixtures/%s/expected.json", name);
	char *json = check_read_file(shared(path), &len);
	struct doc *root = doc_parse(json, len, path, err, sizeof err);
	CHECK(root);
	struct tokenizer *t = toy_open();
	const struct doc *cases = doc_get(root, "cases");
	for (size_t i = 0; i < doc_count(cases); i++) {
		const struct doc *texts = doc_get(doc_at(cases, i), list);
		for (size_t k = 0; k < doc_count(texts); k++) {
			const struct doc *ids = doc_get(doc_at(texts, k), ids_key);
			const char *text = doc_as_string(doc_get(doc_at(texts, k), text_key), &len);
			char joined[4096];
			int32_t tokens[4096];
			size_t n = 0, count;
			CHECK(text && len < sizeof joined);
			for (size_t c = 0; c < len; c++) {
				if (marks && strncmp(text + c, "@@ ", 3) == 0)
					c += 2;
				else
					joined[n++] = text[c];
			}
			CHECK(tokenizer_encode(t, joined, n, true, tokens, 4096, &count));
			/* A language model's texts are longer than what was scored of them. */
			CHECK(marks ? count == doc_count(ids) : count >= doc_count(ids));
			for (size_t c = 0; c < doc_count(ids); c++) {
				int64_t id;
				CHECK(doc_as_int(doc_at(ids, c), &id));
				CHECK_INT(tokens[c], id);
			}
			checked++;
		}
	}
	CHECK(checked >= 30);
	tokenizer_close(t);
	doc_free(root);
	free(json);
}

TEST(a_word_level_model_reads_texts_as_fairseq_did) {
	make_fixture("lm16-wikitext2", ",\"start\":\"</s>\"");
	copy("fixtures/lm16-wikitext2/dict.txt", "dict.txt");
	check_fixture("lm16-wikitext2", "sequences", "text", "input_ids", false);
}

TEST(a_translation_model_reads_sources_as_fairseq_did) {
	make_fixture("mt12x6-multi30k", SUBWORDS ",\"eos\":true");
	copy("fixtures/mt12x6-multi30k/dict.en.txt", "dict.txt");
	copy("fixtures/mt12x6-multi30k/bpecodes", "codes");
	check_fixture("mt12x6-multi30k", "outputs", "source", "source_ids", true);
}

TEST(an_encoder_reads_texts_as_fairseq_did) {
	make_fixture("roberta12-sst2",
	                GPT2 ",\"extra_symbols\":[\"<mask>\"],\"bos\":true,\"eos\":true");
	copy("fixtures/roberta12-sst2/dict.txt", "dict.txt");
	copy("data/gpt2/encoder.json", "encoder.json");
	copy("data/gpt2/vocab.bpe", "vocab.bpe");
	check_fixture("roberta12-sst2", "outputs", "text", "input_ids", true);
}
