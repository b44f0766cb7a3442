/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer's behaviour. Ids of whole vocabularies come from other tokenizers
 * (data/tokenizer-golden.json, written by tokenizer-oracle/golden.mjs); those of small folders are
 * worked out by hand. What is refused is in test_tokenizer_files.c.
 */
#include <pthread.h>

#include "model/doc.h"
#include "model/pretoken.h"
#include "model/tokenizer.h"
#include "tests/check.h"
#include "tests/toy_tokenizer.h"

/* Against other tokenizers. */

static void compare_case(const struct tokenizer *t, const struct doc *pair) {
	size_t len, count;
	const char *text = doc_as_string(doc_at(pair, 0), &len);
	const struct doc *ids = doc_at(pair, 1);
	int32_t tokens[512];
	CHECK(text && tokenizer_encode(t, text, len, false, tokens, 512, &count));
	CHECK_INT(count, doc_count(ids));
	for (size_t i = 0; i < count; i++) {
		int64_t id = -1;
		CHECK(doc_as_int(doc_at(ids, i), &id));
		CHECK_INT(tokens[i], id);
	}
}

static void compare_golden(const char *wanted) {
	size_t len;
	char err[400] = "", path[1024];
	char *json = check_read_file(check_data("tokenizer-golden.json"), &len);
	struct doc *root = doc_parse(json, len, "tokenizer-golden.json", err, sizeof err);
	free(json);
	CHECK_STR(err, "");
	for (size_t i = 0; i < doc_count(root); i++) {
		const char *folder = doc_as_string(doc_get(doc_at(root, i), "folder"), NULL);
		const struct doc *cases = doc_get(doc_at(root, i), "cases");
		if (strcmp(folder, wanted) != 0)
			continue;
		snprintf(path, sizeof path, "%s/%s", check_data("../.."), folder);
		struct tokenizer *t = tokenizer_open(path, err, sizeof err);
		CHECK_STR(err, "");
		CHECK(doc_count(cases) >= 100);
		for (size_t k = 0; k < doc_count(cases); k++)
			compare_case(t, doc_at(cases, k));
		tokenizer_close(t);
	}
	doc_free(root);
}

TEST(ids_of_the_demo_are_those_of_other_tokenizers) {
	compare_golden("deploy/demo");
}

TEST(ids_of_the_tiny_folder_are_those_of_other_tokenizers) {
	compare_golden("tests/data/tiny-opt");
}

/* Cutting. */

static bool join(void *arg, const char *piece, size_t len) {
	char *out = arg;
	size_t n = strlen(out);
	snprintf(out + n, 512 - n, "%s%.*s", n ? "|" : "", (int)len, piece);
	return true;
}

static void cuts_to(const struct pretoken *p, const char *text, const char *expected) {
	char out[512] = "";
	CHECK(pretoken_split(p, text, strlen(text), join, out));
	CHECK_STR(out, expected);
}

static struct pretoken *gpt2(void) {
	char err[200] = "";
	struct pretoken *p = pretoken_create();
	CHECK(p
	                && pretoken_add_regex(p, pretoken_gpt2, strlen(pretoken_gpt2),
	                                PRETOKEN_ISOLATE, err, sizeof err));
	return p;
}

TEST(the_gpt2_pattern_cuts_words_numbers_and_signs) {
	struct pretoken *p = gpt2();
	cuts_to(p, "Hello world, it's 42!", "Hello| world|,| it|'s| 42|!");
	cuts_to(p, "IT'S we'll ''s", "IT|'|S| we|'ll| ''|s");
	cuts_to(p, "a  b\n\n c   ", "a| | b|\n\n| c|   ");
	pretoken_destroy(p);
}

TEST(the_mongolian_vowel_separator_is_not_white_space) {
	struct pretoken *p = gpt2();
	cuts_to(p, "  \xe1\xa0\x8e+", " | \xe1\xa0\x8e+");
	cuts_to(p, "!\xe1\xa0\x8e!", "!\xe1\xa0\x8e!");
	cuts_to(p, "\xc2\x85\xc2\xa0+", "\xc2\x85|\xc2\xa0|+");
	pretoken_destroy(p);
}

TEST(letters_and_digits_of_unicode_16_are_known) {
	struct pretoken *p = gpt2();
	/* U+105C0 TODHRI LETTER A and U+10D40 GARAY DIGIT ZERO. */
	cuts_to(p, "a\xf0\x90\x97\x80!", "a\xf0\x90\x97\x80|!");
	cuts_to(p, "1\xf0\x90\xb5\x80!", "1\xf0\x90\xb5\x80|!");
	pretoken_destroy(p);
}

TEST(a_chain_cuts_the_pieces_of_the_step_before) {
	char err[200] = "";
	struct pretoken *p = pretoken_create();
	CHECK(pretoken_add_regex(p, "\\p{N}", 5, PRETOKEN_ISOLATE, err, sizeof err));
	CHECK(pretoken_add_text(p, ".", 1, PRETOKEN_ISOLATE, err, sizeof err));
	cuts_to(p, "ab12.c.", "ab|1|2|.|c|.");
	pretoken_destroy(p);
}

TEST(matches_only_drops_what_is_between) {
	char err[200] = "";
	struct pretoken *p = pretoken_create();
	CHECK(pretoken_add_regex(p, "[a-z]+", 6, PRETOKEN_MATCHES, err, sizeof err));
	cuts_to(p, "ab--cd-", "ab|cd");
	pretoken_destroy(p);
}

TEST(an_empty_match_cuts_and_the_search_goes_on) {
	char err[200] = "";
	struct pretoken *p = pretoken_create();
	CHECK(pretoken_add_regex(p, "(?=[A-Z])", 9, PRETOKEN_ISOLATE, err, sizeof err));
	cuts_to(p, "oneTwo\xc3\xa9Three", "one|Two\xc3\xa9|Three");
	pretoken_destroy(p);
}

TEST(patterns_that_libraries_read_differently_are_refused) {
	static const char *const patterns[] = { "^a", "a$", "\\h+", "[a&&b]", "[[:alpha:]]",
		"[a[b]]", "(?<n>a)", "(*UTF)a", "\\Ka", "\\w+", "[\\P{L}]", "a\\", "(", "[a",
		"(?R)" };
	struct pretoken *p = pretoken_create();
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
		char err[200] = "";
		CHECK(!pretoken_add_regex(p, patterns[i], strlen(patterns[i]), PRETOKEN_ISOLATE,
		                err, sizeof err));
		CHECK(strstr(err, "the pattern"));
	}
	pretoken_destroy(p);
}

TEST(a_pattern_that_explodes_is_stopped) {
	char err[200] = "", text[65];
	struct pretoken *p = pretoken_create();
	CHECK(pretoken_add_regex(p, "(?:a+)+(?:a+)+[bc]", 18, PRETOKEN_ISOLATE, err, sizeof err));
	memset(text, 'a', 64);
	text[64] = '!';
	char out[512] = "";
	CHECK(!pretoken_split(p, text, sizeof text, join, out));
	pretoken_destroy(p);
}

/* Merging. */

#define MERGES "\"a b\",\"ab c\",\"c d\""
#define VOCAB ",\"ab\":256,\"abc\":257,\"cd\":258"

TEST(the_merge_of_the_lowest_rank_goes_first) {
	toy_make();
	toy_json(VOCAB, MERGES, "", "");
	struct tokenizer *t = toy_open();
	encodes_to(t, "abcd", false, "257 100");
	encodes_to(t, "bcd", false, "98 258");
	encodes_to(t, "abab", false, "256 256");
	tokenizer_close(t);
}

TEST(the_leftmost_of_equal_merges_goes_first) {
	toy_make();
	toy_json(",\"aa\":256,\"aaaa\":257", "[\"a\",\"a\"],[\"aa\",\"aa\"]", "", "");
	struct tokenizer *t = toy_open();
	encodes_to(t, "aaa", false, "256 97");
	encodes_to(t, "aaaaaaa", false, "257 256 97");
	tokenizer_close(t);
}

TEST(of_a_merge_that_comes_twice_the_later_rank_counts) {
	toy_make();
	toy_json(",\"ab\":256,\"bc\":257", "\"a b\",\"b c\",\"a b\"", "", "");
	struct tokenizer *t = toy_open();
	encodes_to(t, "abc", false, "97 257");
	tokenizer_close(t);
}

TEST(a_token_that_merges_do_not_reach_needs_ignore_merges) {
	toy_make();
	toy_json(",\"xyz\":256", "", "", "");
	struct tokenizer *t = toy_open();
	encodes_to(t, "xyz", false, "120 121 122");
	tokenizer_close(t);
	toy_json(",\"xyz\":256", "", ",\"ignore_merges\":true", "");
	t = toy_open();
	encodes_to(t, "xyz", false, "256");
	encodes_to(t, "xyzz", false, "120 121 122 122");
	tokenizer_close(t);
}

TEST(bytes_without_a_token_become_unk) {
	toy_make();
	const char *bytes = toy_vocab('z', ",\"<unk>\":256");
	const char *format =
	                "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
	                "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{%s},"
	                "\"merges\":[],\"unk_token\":\"<unk>\",\"fuse_unk\":%s}}";
	toy_print("tokenizer.json", format, bytes, "false");
	struct tokenizer *t = toy_open();
	encodes_to(t, "azza", false, "97 256 256 97");
	tokenizer_close(t);
	toy_print("tokenizer.json", format, bytes, "true");
	t = toy_open();
	encodes_to(t, "azzaz", false, "97 256 97 256");
	tokenizer_close(t);
}

/* Added tokens. */

#define ADDED(id, content, flags) "{\"id\":" #id ",\"content\":\"" content "\"" flags "}"
#define SPECIAL ",\"special\":true"

TEST(special_tokens_in_the_text_become_their_ids_the_longest_first) {
	toy_make();
	toy_json("", "", "",
	                ",\"added_tokens\":[" ADDED(256, "<s>", SPECIAL) "," ADDED(
	                                257, "<s><t>", SPECIAL) "," ADDED(258, "st", "") "]");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a<s>b<s><t><s", false, "97 256 98 257 60 115");
	encodes_to(t, "<st>", false, "60 258 62");
	CHECK(tokenizer_is_special(t, 256) && !tokenizer_is_special(t, 258));
	CHECK(!tokenizer_is_special(t, 97) && !tokenizer_is_special(t, -1));
	CHECK(!tokenizer_is_special(t, 100000));
	tokenizer_close(t);
}

TEST(lstrip_and_rstrip_take_the_white_space_beside_a_token) {
	toy_make();
	toy_json("", "", "",
	                ",\"added_tokens\":[" ADDED(256, "<m>", ",\"lstrip\":true") "," ADDED(
	                                257, "<r>", ",\"rstrip\":true") "]");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a \xe2\x80\x83\n<m> b", false, "97 256 32 98");
	encodes_to(t, "a <r> \xc2\x85 b", false, "97 32 257 98");
	encodes_to(t, "<r>  <m>", false, "257 256");
	encodes_to(t, " <m>", false, "256");
	tokenizer_close(t);
}

TEST(tokens_that_are_not_normalized_are_looked_for_first) {
	toy_make();
	toy_json("", "", "",
	                ",\"added_tokens\":[" ADDED(256, "abc", ",\"normalized\":true") "," ADDED(
	                                257, "cd", ",\"normalized\":false") "," ADDED(258, "ax",
	                                ",\"normalized\":false") "]");
	struct tokenizer *t = toy_open();
	encodes_to(t, "abcd", false, "97 98 257");
	encodes_to(t, "abce", false, "256 101");
	tokenizer_close(t);
}

TEST(start_and_end_tokens_are_added_when_asked_for) {
	toy_make();
	toy_json("", "", "",
	                ",\"added_tokens\":[" ADDED(256, "<s>", SPECIAL) "," ADDED(
	                                257, "</s>", SPECIAL) "],\"post_processor\":{\"type\":"
	                                                      "\"RobertaProcessing\",\"sep\":[\"</"
	                                                      "s>\",257],\"cls\":[\"<s>\",256]}");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a", true, "256 97 257");
	encodes_to(t, "a", false, "97");
	encodes_to(t, "", true, "256 257");
	CHECK_INT(tokenizer_capacity(t, 0), 4);
	CHECK_INT(tokenizer_bos(t), 256);
	tokenizer_close(t);
}

/* Checks the ids of a pair and where its second segment begins. */
static void pair_encodes_to(const char *processor, const char *ids, size_t expected_second) {
	toy_make();
	char root[1024];
	snprintf(root, sizeof root,
	                ",\"added_tokens\":[" ADDED(256, "<s>", SPECIAL) "," ADDED(
	                                257, "</s>", SPECIAL) "],\"post_processor\":{%s}",
	                processor);
	toy_json("", "", "", root);
	struct tokenizer *t = toy_open();
	struct tokenizer_input input = {
		.text = "ab", .len = 2, .pair = "c", .pair_len = 1, .add_special = true
	};
	int32_t tokens[16];
	size_t count, second, n = 0;
	char written[200] = "";
	CHECK(tokenizer_has_pairs(t));
	CHECK(tokenizer_encode_input(t, &input, tokens, 16, &count, &second));
	CHECK(tokenizer_capacity(t, 3) >= count);
	for (size_t i = 0; i < count; i++)
		n += (size_t)snprintf(written + n, sizeof written - n, i ? " %d" : "%d", tokens[i]);
	CHECK_STR(written, ids);
	CHECK_INT(second, expected_second);
	tokenizer_close(t);
}

TEST(pairs_stand_as_roberta_and_bert_put_them) {
	static const char *const marks = "\"sep\":[\"</s>\",257],\"cls\":[\"<s>\",256]";
	char processor[200];
	snprintf(processor, sizeof processor, "\"type\":\"RobertaProcessing\",%s", marks);
	pair_encodes_to(processor, "256 97 98 257 257 99 257", 7);
	snprintf(processor, sizeof processor, "\"type\":\"BertProcessing\",%s", marks);
	pair_encodes_to(processor, "256 97 98 257 99 257", 4);
}

#define ITEM(kind, id, type) "{\"" kind "\":{\"id\":\"" id "\",\"type_id\":" #type "}}"

TEST(pairs_stand_as_a_template_puts_them) {
	pair_encodes_to("\"type\":\"TemplateProcessing\",\"single\":[" ITEM(
	                                "SpecialToken", "<s>", 0) "," ITEM("Sequence", "A",
	                                0) "],\"pair\":[" ITEM("Special"
	                                                       "Token",
	                                "<s>", 0) "," ITEM("Sequence", "A", 0) "," ITEM("Special"
	                                                                                "Token",
	                                "</s>", 0) "," ITEM("SpecialToken", "<s>",
	                                1) "," ITEM("Sequence", "B",
	                                1) "],\"special_tokens\":{\"<s>\":{\"ids\":[256]},\"</s>\":"
	                                   "{\"ids\":[257]}}",
	                "256 97 98 257 256 99", 4);
}

TEST(a_space_goes_before_every_stretch_that_lacks_one) {
	toy_make();
	toy_json(",\"\\u0120a\":256", "\"\\u0120 a\"", "",
	                ",\"added_tokens\":[" ADDED(257, "<s>",
	                                SPECIAL) "],\"pre_tokenizer\":{\"type\":\"ByteLevel\","
	                                         "\"add_prefix_space\":true}");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a", false, "256");
	encodes_to(t, " a", false, "256");
	encodes_to(t, "a<s>a", false, "256 257 256");
	encodes_to(t, "", false, "");
	tokenizer_close(t);
}

/* The older files. */

TEST(roles_of_the_configuration_make_special_tokens) {
	toy_make();
	toy_print("vocab.json", "{%s}", toy_vocab(-1, ",\"</s>\":256,\"<pad>\":257,\"ab\":258"));
	toy_print("merges.txt", "#version: 0.2\na b\n");
	toy_print("tokenizer_config.json",
	                "{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_bos_token\":true,\"bos_"
	                "token\":{\"__type\":\"AddedToken\",\"content\":\"</"
	                "s>\",\"lstrip\":false}}");
	toy_print("special_tokens_map.json", "{\"bos_token\":\"<pad>\",\"pad_token\":\"<pad>\"}");
	struct tokenizer *t = toy_open();
	encodes_to(t, "ab</s>", true, "256 258 256");
	encodes_to(t, "<pad>", false, "257");
	CHECK_INT(tokenizer_bos(t), 256);
	CHECK(tokenizer_is_special(t, 256) && tokenizer_is_special(t, 257));
	tokenizer_close(t);
}

TEST(roberta_folders_need_no_tokenizer_json) {
	static const char *const files[][2] = {
		{ "config.json", "{\"model_type\":\"roberta\"}" },
		{ "tokenizer_config.json", "{\"tokenizer_class\":\"BartTokenizer\"}" },
	};
	for (size_t i = 0; i < 2; i++) {
		toy_make();
		toy_print("vocab.json", "{%s}",
		                toy_vocab(-1,
		                                ",\"<s>\":256,\"<pad>\":257,\"</"
		                                "s>\":258,\"<unk>\":259,"
		                                "\"<mask>\":260"));
		toy_print("merges.txt", "#version: 0.2\n");
		toy_print(files[i][0], "%s", files[i][1]);
		struct tokenizer *t = toy_open();
		encodes_to(t, "a <mask> b", true, "256 97 260 32 98 258");
		struct tokenizer_input input = {
			.text = "a", .len = 1, .pair = "b", .pair_len = 1, .add_special = true
		};
		int32_t ids[16];
		size_t count;
		static const int32_t expected[] = { 256, 97, 258, 258, 98, 258 };
		CHECK(tokenizer_encode_input(t, &input, ids, 16, &count, NULL));
		CHECK(count == 6 && memcmp(ids, expected, sizeof expected) == 0);
		tokenizer_close(t);
	}
}

TEST(end_of_text_is_special_where_no_file_says_anything) {
	toy_make();
	toy_print("vocab.json", "{%s}", toy_vocab(-1, ",\"<|endoftext|>\":256"));
	toy_print("merges.txt", "#version: 0.2\n");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a<|endoftext|>", true, "97 256");
	CHECK_INT(tokenizer_bos(t), -1);
	CHECK_INT(tokenizer_capacity(t, 0), 0);
	CHECK(tokenizer_is_special(t, 256));
	tokenizer_close(t);
}

TEST(added_tokens_extend_the_vocabulary) {
	toy_make();
	toy_print("vocab.json", "{%s}", toy_vocab(-1, ""));
	toy_print("merges.txt", "#version: 0.2\n");
	toy_print("added_tokens.json", "{\"<x>\":300,\"<y>\":301}");
	toy_print("tokenizer_config.json",
	                "{\"added_tokens_decoder\":{\"301\":{\"content\":\"<y>\",\"special\":true,"
	                "\"lstrip\":true}},\"additional_special_tokens\":[\"<x>\"]}");
	struct tokenizer *t = toy_open();
	encodes_to(t, "a <x> <y>", false, "97 32 300 301");
	CHECK_INT(tokenizer_size(t), 302);
	CHECK(tokenizer_is_special(t, 300) && tokenizer_is_special(t, 301));
	size_t len;
	CHECK(!tokenizer_bytes(t, 299, &len) && !tokenizer_bytes(t, 302, &len));
	CHECK(memcmp(tokenizer_bytes(t, 300, &len), "<x>", 3) == 0 && len == 3);
	tokenizer_close(t);
}

/* Any bytes. */

static void comes_back(const struct tokenizer *t, const char *text, size_t len) {
	size_t cap = tokenizer_capacity(t, len), count, done = 0, n;
	int32_t *tokens = malloc((cap + 1) * sizeof *tokens);
	CHECK(tokens && tokenizer_encode(t, text, len, false, tokens, cap, &count));
	for (size_t i = 0; i < count; i++) {
		const char *bytes = tokenizer_bytes(t, tokens[i], &n);
		CHECK(bytes && n <= len - done && n <= tokenizer_longest(t));
		CHECK(memcmp(text + done, bytes, n) == 0);
		done += n;
	}
	CHECK_INT(done, len);
	free(tokens);
}

static struct tokenizer *demo(void) {
	char err[400] = "";
	struct tokenizer *t = tokenizer_open(check_data("../../deploy/demo"), err, sizeof err);
	CHECK_STR(err, "");
	return t;
}

TEST(ill_formed_bytes_come_back_as_they_were) {
	struct tokenizer *t = demo();
	char text[257];
	uint32_t state = 1;
	for (int round = 0; round < 3000; round++) {
		size_t len = (size_t)round % sizeof text;
		for (size_t i = 0; i < len; i++) {
			state = state * 1664525 + 1013904223;
			/* Half of the bytes would fit into UTF-8 somewhere. */
			text[i] = (char)(state & 0x100 ? state >> 24
			                               : "a \xc3\xa9\xf0\x9f<"[state >> 29]);
		}
		comes_back(t, text, len);
	}
	tokenizer_close(t);
}

TEST(a_nul_is_a_byte_like_any_other) {
	struct tokenizer *t = demo();
	comes_back(t, "a\0b\0\0", 5);
	tokenizer_close(t);
}

TEST(ill_formed_bytes_stand_apart_from_the_text_around_them) {
	toy_make();
	toy_json(",\"a\\u013b\":256", "\"a \\u013b\"", "", ""); /* a merge of "a" and byte 0x99 */
	struct tokenizer *t = toy_open();
	encodes_to(t,
	                "a\x99"
	                "b",
	                false, "97 153 98");
	encodes_to(t, "\xe2\x82", false, "226 130");
	tokenizer_close(t);
}

TEST(long_runs_of_one_character_end_and_come_back) {
	static const char fill[] = { 'a', ' ', '!', '\n', '\'', '9', '<', (char)0xff, (char)0xe4 };
	struct tokenizer *t = demo();
	size_t len = 1 << 19;
	char *text = malloc(len);
	CHECK(text);
	for (size_t i = 0; i < sizeof fill; i++) {
		memset(text, fill[i], len);
		comes_back(t, text, len);
		text[len - 1] = 'x';
		comes_back(t, text, len);
	}
	free(text);
	tokenizer_close(t);
}

TEST(too_little_room_is_reported_and_never_overrun) {
	struct tokenizer *t = demo();
	const char *text = "Hello</s> world \xff, it's fine";
	size_t len = strlen(text), count;
	int32_t all[64], some[64];
	CHECK(tokenizer_encode(t, text, len, true, all, 64, &count));
	for (size_t cap = 0; cap < 40; cap++) {
		size_t n = 99;
		memset(some, 0x55, sizeof some);
		CHECK(tokenizer_encode(t, text, len, true, some, cap, &n) == (cap >= count));
		CHECK_INT(some[cap], 0x55555555);
		CHECK_INT(n, cap >= count ? count : 99);
	}
	tokenizer_close(t);
}

static void *encode_again(void *arg) {
	const struct tokenizer *t = arg;
	const char *text = "It's 12 o'clock </s> and \xf0\x9f\x98\x80 \xff smiles.";
	int32_t first[64], again[64];
	size_t count, n;
	bool same = tokenizer_encode(t, text, strlen(text), true, first, 64, &count);
	for (int round = 0; same && round < 300; round++)
		same = tokenizer_encode(t, text, strlen(text), true, again, 64, &n) && n == count
		                && memcmp(first, again, n * sizeof *first) == 0;
	return same ? arg : NULL;
}

TEST(many_threads_may_encode_at_once) {
	struct tokenizer *t = demo();
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, encode_again, t) == 0);
	bool same = true;
	for (int i = 0; i < 4; i++) {
		void *result;
		pthread_join(threads[i], &result);
		same = same && result;
	}
	CHECK(same);
	tokenizer_close(t);
}
