/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers against texts written from OpenAI's API and from ours, byte for byte; numbers against
 * shortest forms known from IEEE 754 arithmetic elsewhere (Python's repr, NumPy's float32).
 */
#include <float.h>
#include <locale.h>
#include <math.h>

#include "proto/answer.h"
#include "tests/check.h"

static struct buffer out;

/* Compares what was written, and forgets it. */
static void check_written(int line, const char *expected) {
	const char *written = buffer_cstr(&out);
	bool same = written && strcmp(written, expected) == 0;
	static char copy[2048];
	snprintf(copy, sizeof copy, "%s", written ? written : "(failed)");
	buffer_finish(&out);
	if (!same)
		check_fail(__FILE__, line, "wrote %s, expected %s", copy, expected);
}
#define WRITTEN(expected) check_written(__LINE__, expected)

/* ---- the buffer ------------------------------------------------------------------------------- */

TEST(strings_are_escaped) {
	static const char text[] = "a\"b\\c\n\t\r\b\f\x01\x7f/\xc3\xbc";
	buffer_json_string(&out, text, sizeof text - 1);
	WRITTEN("\"a\\\"b\\\\c\\n\\t\\r\\b\\f\\u0001\x7f/\xc3\xbc\"");
}

TEST(a_nul_is_escaped) {
	buffer_json_string(&out, "a\0b", 3);
	WRITTEN("\"a\\u0000b\"");
}

TEST(nothing_is_an_empty_string) {
	buffer_json_string(&out, NULL, 0);
	WRITTEN("\"\"");
}

/* Unicode 15, section 3.9, "U+FFFD substitution of maximal subparts", tables 3-8 and 3-11. */
TEST(ill_formed_utf8_becomes_replacement_characters) {
	static const char text[] = "\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41";
	buffer_json_string(&out, text, sizeof text - 1);
#define R "\xef\xbf\xbd"
	WRITTEN("\"" R R R R R R R R "A\"");
	static const char truncated[] = "\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41";
	buffer_json_string(&out, truncated, sizeof truncated - 1);
	WRITTEN("\"" R R R R "A\"");
	buffer_json_string(&out, "\xed\xa0\x80", 3);
	WRITTEN("\"" R R R "\"");
}

TEST(f32_numbers_are_as_short_as_they_read_back) {
	static const struct {
		float value;
		const char *text;
	} cases[] = { { 0.0f, "0" }, { 1.0f, "1" }, { 0.1f, "0.1" }, { -0.5f, "-0.5" },
		{ 1.0f / 3.0f, "0.33333334" }, { 16777216.0f, "16777216" },
		{ FLT_MAX, "3.4028235e+38" }, { FLT_MIN, "1.1754944e-38" }, { 1e-45f, "1e-45" },
		{ 3.14159274f, "3.1415927" }, { -11.731234f, "-11.731234" } };
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		buffer_json_f32(&out, cases[i].value);
		WRITTEN(cases[i].text);
	}
}

/* Against the C library, digit by digit; above all numbers of the size that embeddings have. */
TEST(f32_numbers_of_common_size_are_the_shortest_of_the_library) {
	unsigned state = 7;
	for (int i = 0; i < 50000; i++) {
		state = state * 1664525u + 1013904223u;
		float value = (float)(int32_t)state / (float)(1u << (i % 31));
		char expected[64];
		for (int digits = FLT_DIG; digits <= FLT_DECIMAL_DIG; digits++) {
			snprintf(expected, sizeof expected, "%.*g", digits, (double)value);
			if (strtof(expected, NULL) == value)
				break;
		}
		buffer_clear(&out);
		buffer_json_f32(&out, value);
		if (strcmp(buffer_cstr(&out), expected) != 0)
			check_fail(__FILE__, __LINE__, "%s became %s", expected, out.data);
	}
	buffer_finish(&out);
}

TEST(every_f32_reads_back) {
	unsigned state = 1;
	for (int i = 0; i < 20000; i++) {
		state = state * 1664525u + 1013904223u;
		float value;
		memcpy(&value, &state, sizeof value);
		if (!isfinite(value))
			continue;
		buffer_clear(&out);
		buffer_json_f32(&out, value);
		if (strtof(buffer_cstr(&out), NULL) != value)
			check_fail(__FILE__, __LINE__, "%.9g became %s", (double)value, out.data);
	}
	buffer_finish(&out);
}

TEST(f64_numbers_are_as_short_as_they_read_back) {
	static const struct {
		double value;
		const char *text;
	} cases[] = { { 0.1, "0.1" }, { 1.0 / 3.0, "0.3333333333333333" }, { 1e21, "1e+21" },
		{ 0.1 + 0.2, "0.30000000000000004" }, { 4.9406564584124654e-324, "5e-324" },
		{ DBL_MAX, "1.7976931348623157e+308" }, { 130, "130" } };
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		buffer_json_f64(&out, cases[i].value);
		WRITTEN(cases[i].text);
	}
}

TEST(what_is_not_finite_is_null) {
	buffer_json_f32(&out, INFINITY);
	WRITTEN("null");
	buffer_json_f64(&out, NAN);
	WRITTEN("null");
}

TEST(numbers_do_not_follow_the_locale) {
	static const char *const commas[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE" };
	const char *set = NULL;
	for (size_t i = 0; !set && i < sizeof commas / sizeof commas[0]; i++)
		set = setlocale(LC_NUMERIC, commas[i]);
	if (!set)
		SKIP("no locale with a decimal comma is installed");
	buffer_json_f32(&out, 0.25f);
	setlocale(LC_NUMERIC, "C");
	WRITTEN("0.25");
}

/* ---- a small vocabulary ----------------------------------------------------------------------- */

static const char *const words[] = { " the", " cat", "\xe2\x82", "\xac", " cat" };

static const char *word(const void *context, int32_t token, size_t *ret_len) {
	*ret_len = strlen(words[token]);
	return words[token];
}

static const struct answer_vocab vocab = { NULL, word };

static struct answer_token token(int32_t id, float logprob, size_t offset) {
	return (struct answer_token){ .token = id,
		.bytes = words[id],
		.len = strlen(words[id]),
		.has_logprob = true,
		.logprob = logprob,
		.text_offset = offset };
}

static struct answer answer_of(
                enum request_kind kind, const struct answer_choice *choices, size_t n) {
	return (struct answer){ .kind = kind,
		.id = kind == REQUEST_CHAT ? "chatcmpl-1" : "cmpl-1",
		.model = "demo",
		.created = 1700000000,
		.choices = choices,
		.n_choices = n,
		.vocab = &vocab };
}

/* ---- completions ------------------------------------------------------------------------------ */

TEST(a_completion_is_openais_with_depth_and_timings) {
	static const int16_t layers[] = { 0, 2, 4, 6, 8, 10 };
	struct answer_choice choice = { .text = " Hi\n", .text_len = 4, .finish_reason = "stop" };
	struct answer_usage usage = { 3, 2, 1 };
	struct answer_depth depth = { .requested = "auto",
		.used = 6,
		.of = 12,
		.layers = layers,
		.rule = "even",
		.reason = "budget" };
	struct answer_timings timings = { 1.2, 8.0, 120.4, 129.9, 131.0, 150, 0, 1 };
	struct answer a = answer_of(REQUEST_COMPLETION, &choice, 1);
	a.usage = &usage;
	a.depth = &depth;
	a.timings = &timings;
	answer_write(&out, &a);
	WRITTEN("{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,"
	        "\"model\":\"demo\",\"choices\":[{\"index\":0,\"text\":\" "
	        "Hi\\n\",\"logprobs\":null,"
	        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":"
	        "2,"
	        "\"total_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":1}},"
	        "\"depth\":{\"requested\":\"auto\",\"used\":6,\"of\":12,\"layers\":[0,2,4,6,8,10],"
	        "\"rule\":\"even\",\"reason\":\"budget\"},\"timings\":{\"queue_ms\":1.2,"
	        "\"prefill_ms\":8,\"decode_ms\":120.4,\"total_ms\":129.9,\"predicted_ms\":131,"
	        "\"budget_ms\":150,\"budget_met\":true}}");
}

TEST(choices_carry_what_was_asked_for) {
	static const int32_t ids[] = { 5, 6 };
	struct answer_choice choices[2] = {
		{ .index = 0,
		                .text = "a",
		                .text_len = 1,
		                .finish_reason = "length",
		                .finish_detail = "deadline",
		                .token_ids = ids,
		                .n_token_ids = 2 },
		{ .index = 1,
		                .text = "b",
		                .text_len = 1,
		                .finish_reason = "stop",
		                .stop_reason = "END",
		                .token_ids = ids,
		                .n_token_ids = 0 },
	};
	static const char *const warnings[] = { "x_mine was ignored." };
	struct answer a = answer_of(REQUEST_COMPLETION, choices, 2);
	a.warnings = warnings;
	a.n_warnings = 1;
	answer_write(&out, &a);
	WRITTEN("{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,"
	        "\"model\":\"demo\",\"choices\":[{\"index\":0,\"text\":\"a\",\"logprobs\":null,"
	        "\"finish_reason\":\"length\",\"finish_detail\":\"deadline\",\"token_ids\":[5,6]},"
	        "{\"index\":1,\"text\":\"b\",\"logprobs\":null,\"finish_reason\":\"stop\","
	        "\"stop_reason\":\"END\",\"token_ids\":[]}],\"warnings\":[\"x_mine was "
	        "ignored.\"]}");
}

TEST(a_hypothesis_has_a_score) {
	struct answer_choice choice = { .text = "a",
		.text_len = 1,
		.finish_reason = "stop",
		.has_score = true,
		.score = -0.375 };
	struct answer a = answer_of(REQUEST_COMPLETION, &choice, 1);
	answer_write(&out, &a);
	WRITTEN("{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,"
	        "\"model\":\"demo\",\"choices\":[{\"index\":0,\"text\":\"a\",\"logprobs\":null,"
	        "\"finish_reason\":\"stop\",\"score\":-0.375}]}");
}

TEST(a_chunk_is_one_event) {
	struct answer_choice choice = { .index = 1, .text = "a\nb", .text_len = 3 };
	struct answer a = answer_of(REQUEST_COMPLETION, &choice, 1);
	answer_write_chunk(&out, &a);
	WRITTEN("data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,"
	        "\"model\":\"demo\",\"choices\":[{\"index\":1,\"text\":\"a\\nb\",\"logprobs\":null,"
	        "\"finish_reason\":null}]}\n\n");
}

TEST(the_usage_chunk_has_no_choices) {
	struct answer_usage usage = { 1, 2, 0 };
	struct answer a = answer_of(REQUEST_COMPLETION, NULL, 0);
	a.usage = &usage;
	answer_write_chunk(&out, &a);
	WRITTEN("data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,"
	        "\"model\":\"demo\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,"
	        "\"completion_tokens\":2,\"total_tokens\":3,\"prompt_tokens_details\":"
	        "{\"cached_tokens\":0}}}\n\n");
}

/* ---- chat ------------------------------------------------------------------------------------- */

TEST(a_chat_answer_has_a_message) {
	struct answer_choice choice = { .text = "Hi", .text_len = 2, .finish_reason = "stop" };
	struct answer a = answer_of(REQUEST_CHAT, &choice, 1);
	answer_write(&out, &a);
	WRITTEN("{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,"
	        "\"model\":\"demo\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
	        "\"content\":\"Hi\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}"
	        "]}");
}

TEST(the_first_chat_chunk_has_the_role) {
	struct answer_choice choice = { .text = "H", .text_len = 1, .first = true };
	struct answer a = answer_of(REQUEST_CHAT, &choice, 1);
	answer_write_chunk(&out, &a);
	WRITTEN("data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
	        "\"created\":1700000000,\"model\":\"demo\",\"choices\":[{\"index\":0,\"delta\":"
	        "{\"role\":\"assistant\",\"content\":\"H\"},\"logprobs\":null,"
	        "\"finish_reason\":null}]}\n\n");
}

TEST(the_last_chat_chunk_has_an_empty_delta) {
	struct answer_choice choice = { .finish_reason = "stop" };
	struct answer a = answer_of(REQUEST_CHAT, &choice, 1);
	answer_write_chunk(&out, &a);
	WRITTEN("data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
	        "\"created\":1700000000,\"model\":\"demo\",\"choices\":[{\"index\":0,\"delta\":{},"
	        "\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
}

/* ---- log-probabilities ------------------------------------------------------------------------ */

/* Writes only the choices' logprobs of an answer, by cutting the text around them off. */
static void write_logprobs(enum request_kind kind, const struct answer_token *tokens, size_t n) {
	struct answer_choice choice = { .text = "",
		.logprobs = true,
		.tokens = tokens,
		.n_tokens = n,
		.finish_reason = "stop" };
	struct answer a = answer_of(kind, &choice, 1);
	struct buffer whole = { 0 };
	answer_write(&whole, &a);
	const char *text = buffer_cstr(&whole), *begin = strstr(text, "\"logprobs\":") + 11;
	buffer_append(&out, begin, (size_t)(strstr(begin, ",\"finish_reason\"") - begin));
	buffer_finish(&whole);
}

TEST(legacy_logprobs_have_four_lists) {
	const struct answer_top top[] = { { 0, -0.5f }, { 1, -1.5f } };
	struct answer_token tokens[2] = { token(0, 0, 0), token(1, -1.5f, 4) };
	tokens[0].has_logprob = false; /* the first token of an echoed prompt */
	tokens[1].top = top;
	tokens[1].n_top = 2;
	write_logprobs(REQUEST_COMPLETION, tokens, 2);
	WRITTEN("{\"tokens\":[\" the\",\" cat\"],\"token_logprobs\":[null,-1.5],"
	        "\"top_logprobs\":[null,{\" the\":-0.5,\" cat\":-1.5}],\"text_offset\":[0,4]}");
}

TEST(the_chosen_token_is_always_among_the_alternatives) {
	const struct answer_top top[] = { { 0, -0.25f } };
	struct answer_token t = token(1, -3.75f, 0);
	t.top = top;
	t.n_top = 1;
	write_logprobs(REQUEST_COMPLETION, &t, 1);
	WRITTEN("{\"tokens\":[\" cat\"],\"token_logprobs\":[-3.75],"
	        "\"top_logprobs\":[{\" the\":-0.25,\" cat\":-3.75}],\"text_offset\":[0]}");
}

TEST(the_chosen_token_has_one_number) {
	const struct answer_top top[] = { { 1, -1.5000001f } };
	struct answer_token t = token(1, -1.5f, 0);
	t.top = top;
	t.n_top = 1;
	write_logprobs(REQUEST_COMPLETION, &t, 1);
	WRITTEN("{\"tokens\":[\" cat\"],\"token_logprobs\":[-1.5],"
	        "\"top_logprobs\":[{\" cat\":-1.5}],\"text_offset\":[0]}");
}

TEST(an_alternative_that_prints_like_the_chosen_token_gives_way) {
	const struct answer_top top[] = { { 4, -0.5f }, { 1, -1.5f } };
	struct answer_token t = token(1, -1.5f, 0);
	t.top = top;
	t.n_top = 2;
	write_logprobs(REQUEST_COMPLETION, &t, 1);
	WRITTEN("{\"tokens\":[\" cat\"],\"token_logprobs\":[-1.5],"
	        "\"top_logprobs\":[{\" cat\":-1.5}],\"text_offset\":[0]}");
}

TEST(minus_infinity_is_a_number) {
	struct answer_token t = token(0, -INFINITY, 0);
	write_logprobs(REQUEST_COMPLETION, &t, 1);
	WRITTEN("{\"tokens\":[\" the\"],\"token_logprobs\":[-9999.0],"
	        "\"top_logprobs\":[{\" the\":-9999.0}],\"text_offset\":[0]}");
}

TEST(torn_bytes_stay_distinct) {
	struct answer_token tokens[2] = { token(2, -1, 0), token(3, -2, 0) };
	write_logprobs(REQUEST_COMPLETION, tokens, 2);
	WRITTEN("{\"tokens\":[\"bytes:\\\\xe2\\\\x82\",\"bytes:\\\\xac\"],"
	        "\"token_logprobs\":[-1,-2],\"top_logprobs\":[{\"bytes:\\\\xe2\\\\x82\":-1},"
	        "{\"bytes:\\\\xac\":-2}],\"text_offset\":[0,0]}");
}

TEST(a_text_that_looks_torn_is_told_apart) {
	answer_write_token_text(&out, "bytes:\\xac", 10);
	WRITTEN("\"bytes:\\\\x62\\\\x79\\\\x74\\\\x65\\\\x73\\\\x3a\\\\x5c\\\\x78\\\\x61\\\\x63\"");
}

TEST(chat_logprobs_have_a_content_list) {
	const struct answer_top top[] = { { 3, -0.5f }, { 0, -1.25f } };
	struct answer_token t = token(0, -1.25f, 0);
	t.top = top;
	t.n_top = 2;
	write_logprobs(REQUEST_CHAT, &t, 1);
	WRITTEN("{\"content\":[{\"token\":\" the\",\"logprob\":-1.25,\"bytes\":[32,116,104,101],"
	        "\"top_logprobs\":[{\"token\":\"bytes:\\\\xac\",\"logprob\":-0.5,\"bytes\":[172]},"
	        "{\"token\":\" the\",\"logprob\":-1.25,\"bytes\":[32,116,104,101]}]}],"
	        "\"refusal\":null}");
}

/* ---- parts ------------------------------------------------------------------------------------ */

TEST(a_step_down_adds_changes) {
	static const int16_t layers[] = { 0, 1, 2, 3 }, fewer[] = { 0, 2 };
	struct answer_change change = { 17, 2, fewer };
	struct answer_depth depth = { .requested = "auto",
		.used = 4,
		.of = 4,
		.layers = layers,
		.rule = "even",
		.reason = "budget",
		.changes = &change,
		.n_changes = 1 };
	answer_write_depth(&out, &depth);
	WRITTEN("{\"requested\":\"auto\",\"used\":4,\"of\":4,\"layers\":[0,1,2,3],\"rule\":"
	        "\"even\","
	        "\"reason\":\"budget\",\"changes\":[{\"at_token\":17,\"used\":2,\"layers\":[0,2]}]"
	        "}");
}

TEST(a_number_that_was_requested_is_a_number) {
	static const int16_t layers[] = { 0 };
	struct answer_depth depth = { .requested = "1",
		.used = 1,
		.of = 4,
		.layers = layers,
		.rule = "even",
		.reason = "explicit" };
	answer_write_depth(&out, &depth);
	WRITTEN("{\"requested\":1,\"used\":1,\"of\":4,\"layers\":[0],\"rule\":\"even\","
	        "\"reason\":\"explicit\"}");
}

TEST(two_stacks_have_two_depths) {
	static const int16_t encoder[] = { 0, 1, 2 }, decoder[] = { 0, 2 }, fewer[] = { 2 };
	struct answer_change change = { 5, 1, fewer };
	struct answer_depth depth = { .requested = "3,2",
		.used = 2,
		.of = 4,
		.layers = decoder,
		.encoder_used = 3,
		.encoder_of = 6,
		.encoder_layers = encoder,
		.rule = "even",
		.reason = "explicit",
		.changes = &change,
		.n_changes = 1 };
	answer_write_depth(&out, &depth);
	WRITTEN("{\"requested\":{\"encoder\":3,\"decoder\":2},\"used\":{\"encoder\":3,"
	        "\"decoder\":2},\"of\":{\"encoder\":6,\"decoder\":4},\"layers\":{\"encoder\":"
	        "[0,1,2],\"decoder\":[0,2]},\"rule\":\"even\",\"reason\":\"explicit\","
	        "\"changes\":[{\"at_token\":5,\"used\":{\"encoder\":3,\"decoder\":1},"
	        "\"layers\":{\"encoder\":[0,1,2],\"decoder\":[2]}}]}");
}

TEST(negative_timings_are_absent) {
	struct answer_timings timings = { -1, -1, -1, 12.34567, -1, -1, 40, -1 };
	answer_write_timings(&out, &timings);
	WRITTEN("{\"total_ms\":12.346,\"predicted_tokens\":40}");
}

/* ---- our own routes --------------------------------------------------------------------------- */

static const struct answer_meta meta = { .id = "ll-1", .model = "demo", .created = 1700000000 };

TEST(loglikelihood_sums_what_it_prints) {
	struct answer_token tokens[3] = { token(0, 0, 0), token(1, -1.5f, 4), token(3, -0.5f, 8) };
	tokens[0].has_logprob = false;
	struct answer_score score = { tokens, 3 };
	answer_write_loglikelihood(&out, &meta, &score, 1);
	WRITTEN("{\"id\":\"ll-1\",\"object\":\"loglikelihood\",\"created\":1700000000,"
	        "\"model\":\"demo\",\"results\":["
	        "{\"token_ids\":[0,1,3],\"tokens\":[\" the\",\" cat\",\"bytes:\\\\xac\"],"
	        "\"logprobs\":[null,-1.5,-0.5],\"sum\":-2,\"perplexity\":2.718281828459045}]}");
}

TEST(the_sum_is_that_of_the_printed_numbers) {
	struct answer_token tokens[2] = { token(0, -0.1f, 0), token(1, -0.2f, 4) };
	struct answer_score score = { tokens, 2 };
	answer_write_loglikelihood(&out, &meta, &score, 1);
	bool found = strstr(buffer_cstr(&out), "\"sum\":-0.30000000000000004,") != NULL;
	buffer_finish(&out);
	CHECK(found);
}

TEST(tokenize_counts) {
	static const int32_t ids[] = { 0, 2 };
	struct answer_tokenized item = { ids, 2 };
	answer_write_tokenize(&out, &item, 1, false, 512, false, &vocab);
	WRITTEN("{\"tokens\":[0,2],\"count\":2,\"max_model_len\":512}");
}

TEST(tokenize_of_a_list_gives_a_list) {
	static const int32_t ids[] = { 0, 2 };
	struct answer_tokenized items[2] = { { ids, 2 }, { ids, 0 } };
	answer_write_tokenize(&out, items, 2, true, 512, true, &vocab);
	WRITTEN("{\"results\":[{\"tokens\":[0,2],\"count\":2,\"max_model_len\":512,"
	        "\"token_strs\":[\" the\",\"bytes:\\\\xe2\\\\x82\"]},{\"tokens\":[],\"count\":0,"
	        "\"max_model_len\":512,\"token_strs\":[]}]}");
}

TEST(detokenize_answers_under_both_names) {
	answer_write_detokenize(&out, "a\xff", 2);
	WRITTEN("{\"prompt\":\"a\xef\xbf\xbd\",\"text\":\"a\xef\xbf\xbd\"}");
}

/* ---- events ----------------------------------------------------------------------------------- */

TEST(the_other_events_are_as_documented) {
	answer_write_done(&out);
	WRITTEN("data: [DONE]\n\n");
	answer_write_ping(&out);
	WRITTEN(": ping\n\n");
	struct error e;
	error_set(&e, ERROR_REQUEST_CANCELLED, NULL, "Cancelled.");
	answer_write_error_event(&out, &e, "r");
	WRITTEN("data: {\"error\":{\"message\":\"Cancelled.\",\"type\":\"invalid_request_error\","
	        "\"param\":null,\"code\":\"request_cancelled\",\"request_id\":\"r\"}}\n\n");
}
