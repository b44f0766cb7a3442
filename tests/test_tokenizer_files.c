/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizer files that are refused, each with one sentence that names the file and what is wrong. */
#include "tests/check.h"
#include "tests/toy_tokenizer.h"

static void json_refused(const char *vocab, const char *merges, const char *model, const char *root,
                const char *part) {
	toy_json(vocab, merges, model, root);
	toy_refused("tokenizer.json: ");
	toy_refused(part);
}

TEST(an_empty_folder_is_refused) {
	toy_make();
	toy_refused("neither tokenizer.json nor vocab.json");
	toy_print("vocab.json", "{}");
	toy_refused("merges.txt: ");
	toy_print("merges.txt", "%s", "");
	toy_refused("vocab.json: the vocabulary is empty");
}

TEST(ids_that_make_no_sense_are_refused) {
	toy_make();
	json_refused(",\"ab\":-1", "", "", "", "the id -1");
	json_refused(",\"ab\":4194304", "", "", "", "the id 4194304");
	json_refused(",\"ab\":9223372036854775807", "", "", "", "the id 9223372036854775807");
	json_refused(",\"ab\":92233720368547758080", "", "", "", "tokenizer.json");
	json_refused(",\"ab\":1.5", "", "", "", "\"ab\" is not an integer");
	json_refused(",\"ab\":\"7\"", "", "", "", "\"ab\" is not an integer");
	json_refused(",\"ab\":97", "", "", "", "the id 97 is given to two tokens");
	json_refused(",\"ab\":256,\"ab\":257", "", "", "", "tokenizer.json");
	json_refused(",\"\":256", "", "", "", "token 256 is empty");
}

TEST(merges_outside_the_vocabulary_are_refused) {
	toy_make();
	json_refused(",\"ab\":256", "\"a b\",\"ab zz\"", "", "", "second part of merge 1");
	json_refused(",\"ab\":256", "\"zz b\"", "", "", "first part of merge 0");
	json_refused(",\"ab\":256", "\"a c\"", "", "", "result of merge 0");
	json_refused("", "\"ab\"", "", "", "merge 0 is not a pair");
	json_refused("", "\"a b c\"", "", "", "merge 0 is not a pair");
	json_refused("", "[\"a\"]", "", "", "merge 0 is not a pair");
	json_refused("", "[\"a\",1]", "", "", "merge 0 is not a pair");
	json_refused("", "7", "", "", "merge 0 is not a pair");
}

TEST(model_options_that_are_not_honoured_are_refused_by_name) {
	toy_make();
	json_refused("", "", ",\"dropout\":0.1", "", "model: dropout");
	json_refused("", "", ",\"byte_fallback\":true", "", "model: byte_fallback");
	json_refused("", "", ",\"continuing_subword_prefix\":\"##\"", "",
	                "continuing_subword_prefix");
	json_refused("", "", ",\"end_of_word_suffix\":\"</w>\"", "", "end_of_word_suffix");
	json_refused("", "", ",\"ignore_merges\":\"yes\"", "", "ignore_merges");
	toy_print("tokenizer.json",
	                "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
	                "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"Unigram\"}}");
	toy_refused("tokenizer.json: model: the type \"Unigram\" is not supported");
}

TEST(model_options_that_change_nothing_are_accepted) {
	toy_make();
	toy_json("", "",
	                ",\"dropout\":0.0,\"byte_fallback\":false,\"end_of_word_suffix\":\"\","
	                "\"continuing_subword_prefix\":null,\"unk_token\":\"<gone>\"",
	                ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[]},\"truncation\":"
	                "{}");
	tokenizer_close(toy_open());
}

TEST(steps_that_are_not_honoured_are_refused_by_name) {
	toy_make();
	json_refused("", "", "", ",\"normalizer\":{\"type\":\"NFC\"}",
	                "normalizer: the type \"NFC\"");
	json_refused("", "", "", ",\"pre_tokenizer\":null", "pre_tokenizer");
	json_refused("", "", "", ",\"pre_tokenizer\":{\"type\":\"Metaspace\"}", "not ByteLevel");
	json_refused("", "", "", ",\"pre_tokenizer\":{\"type\":\"ByteLevel\"}", "add_prefix_space");
	json_refused("", "", "", ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[]}",
	                "empty");
	json_refused("", "", "", ",\"decoder\":{\"type\":\"Metaspace\"}",
	                "decoder: the type \"Metaspace\"");
	json_refused("", "", "", ",\"decoder\":null", "decoder is missing");
	json_refused("", "", "", ",\"post_processor\":{\"type\":\"Odd\"}",
	                "post_processor: the type \"Odd\"");
	json_refused("", "", "",
	                ",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",999],"
	                "\"sep\":[\"y\",1]}",
	                "the id 999, which no token has");
	json_refused("", "", "",
	                ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}",
	                "no Sequence \"A\"");
}

static void split_refused(const char *split, const char *part) {
	char root[1024];
	snprintf(root, sizeof root,
	                ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
	                "\"Split\","
	                "%s},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":"
	                "false}]}",
	                split);
	json_refused("", "", "", root, part);
}

TEST(splits_that_are_not_honoured_are_refused_by_name) {
	toy_make();
	split_refused("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"MergedWithNext\"", "behavior");
	split_refused("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Removed\"", "behavior");
	split_refused("\"pattern\":{},\"behavior\":\"Isolated\"", "neither Regex nor String");
	split_refused("\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"",
	                "the pattern is not valid");
	split_refused("\"pattern\":{\"Regex\":\"^a\"},\"behavior\":\"Isolated\"",
	                "the pattern has ^");
	split_refused("\"pattern\":{\"String\":\"\"},\"behavior\":\"Isolated\"", "0 bytes long");
}

#define ADDED(members) ",\"added_tokens\":[{" members "}]"

TEST(added_tokens_that_make_no_sense_are_refused) {
	toy_make();
	json_refused("", "", "", ADDED("\"id\":97,\"content\":\"<s>\""),
	                "the id 97 is given to two tokens");
	json_refused("", "", "", ADDED("\"id\":300,\"content\":\"a\""),
	                "added token 300 has the id 97");
	json_refused("", "", "", ADDED("\"id\":-5,\"content\":\"<s>\""), "id");
	json_refused("", "", "", ADDED("\"id\":300"), "token 300 is empty");
	json_refused("", "", "", ADDED("\"content\":\"<s>\""), "id");
	json_refused("", "", "", ADDED("\"id\":300,\"content\":\"<s>\",\"single_word\":true"),
	                "single_word");
	json_refused("", "", "", ",\"added_tokens\":{}", "added_tokens is not an array");
	json_refused("", "", "",
	                ",\"added_tokens\":[{\"id\":300,\"content\":\"\\u00a7\\u0020\"}],\"pre_"
	                "tokenizer\":{\"type\":\"Digits\"}",
	                "not ByteLevel");
	json_refused("", "", "",
	                ",\"added_tokens\":[{\"id\":300,\"content\":\"\\n\"}],\"pre_tokenizer\":{"
	                "\"type\":\"ByteLevel\",\"add_prefix_space\":true}",
	                "add_prefix_space");
}

TEST(a_byte_without_a_token_and_without_unk_is_refused) {
	toy_make();
	toy_print("vocab.json", "{%s}", toy_vocab(0xe9, ""));
	toy_print("merges.txt", "#version: 0.2\n");
	toy_refused("vocab.json: no token is the byte 0xe9 alone and there is no unk_token");
}

TEST(lines_of_merges_that_make_no_sense_are_refused_by_number) {
	static const char *const lines[] = { "a", "a b c", " a", "a ", "a  b", "a\tb" };
	toy_make();
	toy_print("vocab.json", "{%s}", toy_vocab(-1, ",\"ab\":256"));
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		toy_print("merges.txt", "#version: 0.2\na b\n%s\n", lines[i]);
		toy_refused("merges.txt: line 3 is not two tokens");
	}
	toy_print("merges.txt", "a b\nab zz\n");
	toy_refused("merges.txt: line 2: the second part of merge 1");
	toy_write("merges.txt", "a b\na\0 b\n", 9);
	toy_refused("merges.txt: line 2: the first part of merge 1");
}

TEST(lines_of_merges_may_end_as_on_windows) {
	toy_make();
	toy_print("vocab.json", "{%s}", toy_vocab(-1, ",\"ab\":256"));
	toy_print("merges.txt", "#version: 0.2\r\na b\r\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "ab", false, "256");
	tokenizer_close(t);
}

static void config_refused(const char *config, const char *part) {
	toy_print("tokenizer_config.json", "%s", config);
	toy_refused("tokenizer_config.json: ");
	toy_refused(part);
}

TEST(configurations_that_are_not_honoured_are_refused_by_name) {
	toy_make();
	toy_print("vocab.json", "{%s}", toy_vocab(-1, ""));
	toy_print("merges.txt", "#version: 0.2\n");
	config_refused("{", "JSON");
	config_refused("[]", "not an object");
	config_refused("{\"tokenizer_class\":\"LlamaTokenizer\"}",
	                "tokenizer_class \"LlamaTokenizer\"");
	config_refused("{\"add_bos_token\":true}", "add_bos_token is set");
	config_refused("{\"add_eos_token\":true}", "add_eos_token is set");
	config_refused("{\"add_prefix_space\":1}", "add_prefix_space");
	config_refused("{\"bos_token\":7}", "bos_token");
	config_refused("{\"pad_token\":\"[PAD]\"}", "pad_token is not in the vocabulary");
	config_refused("{\"pad_token\":{\"content\":\"a\",\"single_word\":true}}", "single_word");
	config_refused("{\"added_tokens_decoder\":{\"x\":{\"content\":\"<s>\"}}}",
	                "added_tokens_decoder");
	config_refused("{\"additional_special_tokens\":[1]}", "additional_special_tokens");
}

TEST(companions_that_make_no_sense_are_refused) {
	toy_make();
	toy_print("vocab.json", "{%s}", toy_vocab(-1, ""));
	toy_print("merges.txt", "#version: 0.2\n");
	toy_print("added_tokens.json", "{\"<x>\":-3}");
	toy_refused("added_tokens.json: has an id");
	toy_print("added_tokens.json", "{\"<x>\":97}");
	toy_refused("added_tokens.json: the id 97 is given to two tokens");
	toy_print("added_tokens.json", "{}");
	toy_print("special_tokens_map.json", "{\"eos_token\":\"<gone>\"}");
	toy_refused("special_tokens_map.json: eos_token is not in the vocabulary");
}

TEST(a_huge_token_is_refused) {
	toy_make();
	size_t len = 3 << 20;
	char *text = malloc(len + 1);
	CHECK(text);
	memset(text, 'a', len);
	text[len] = '\0';
	toy_print("vocab.json", "{%s,\"%s\":256}", toy_vocab(-1, ""), text);
	toy_print("merges.txt", "#version: 0.2\n");
	toy_refused("vocab.json: token 256 is 3145728 bytes long");
	toy_print("vocab.json", "{%s}", toy_vocab(-1, ""));
	toy_print("merges.txt", "%s b\n", text);
	toy_refused("merges.txt: line 1: the first part");
	toy_print("merges.txt", "#version: 0.2\n");
	toy_print("added_tokens.json", "{\"%s\":256}", text);
	toy_refused("added_tokens.json: token 256 is 3145728 bytes long");
	free(text);
}

TEST(a_file_cut_anywhere_is_refused_or_harmless) {
	char path[256];
	snprintf(path, sizeof path, "%s/tokenizer.json", toy_make());
	toy_json(",\"ab\":256,\"<s>\":257", "\"a b\"", "",
	                ",\"added_tokens\":[{\"id\":257,\"content\":\"<s>\",\"special\":true}]");
	size_t len;
	char *text = check_read_file(path, &len);
	for (size_t cut = 0; cut < len; cut += 7) {
		toy_write("tokenizer.json", text, cut);
		toy_refused("tokenizer.json: ");
	}
	free(text);
}

TEST(a_file_with_one_byte_changed_never_crashes) {
	char path[256], err[400];
	snprintf(path, sizeof path, "%s/tokenizer.json", toy_make());
	toy_json(",\"ab\":256,\"<s>\":257", "\"a b\"", "",
	                ",\"added_tokens\":[{\"id\":257,\"content\":\"<s>\",\"special\":true}]");
	size_t len;
	char *text = check_read_file(path, &len);
	uint32_t state = 7;
	for (int round = 0; round < 500; round++) {
		state = state * 1664525 + 1013904223;
		size_t at = (state >> 8) % len;
		char was = text[at];
		text[at] = "\"{}[]:,0a\\-\x80\xc3 e9"[state >> 28];
		toy_write("tokenizer.json", text, len);
		text[at] = was;
		struct tokenizer *t = tokenizer_open(toy_path(), err, sizeof err);
		int32_t tokens[16];
		size_t count;
		if (t)
			CHECK(tokenizer_encode(t, "ab <s>abc", 9, false, tokens, 16, &count));
		tokenizer_close(t);
	}
	free(text);
}
