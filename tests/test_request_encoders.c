/* SPDX-License-Identifier: Apache-2.0 */
/* What parsed requests hold on the routes of encoders and of encoder-decoders. */
#include "proto/request.h"
#include "tests/check.h"
#include "tests/documented_limits.h"

static struct request request;
static struct error error;

static bool parse(enum request_kind kind, const char *body) {
	error = (struct error){ 0 };
	return request_parse(kind, body, strlen(body), &limits, &request, &error);
}

TEST(a_bare_embedding_leaves_the_defaults) {
	CHECK(parse(REQUEST_EMBEDDING, "{\"input\": \"a\"}"));
	CHECK_INT(request.encoding_format, ENCODING_FLOAT);
	CHECK(request.normalize && !request.truncate && !request.pretokenized);
	CHECK(!request.dimensions.set && !request.pooling[0]);
	request_finish(&request);
}

TEST(embedding_options_arrive) {
	CHECK(parse(REQUEST_EMBEDDING,
	                "{\"input\": [[1, 2], \"b\"], \"encoding_format\": \"base64\", "
	                "\"pooling\": "
	                "\"mean\", \"normalize\": false, \"dimensions\": 12, \"truncate\": true}"));
	CHECK_INT(request.n_inputs, 2);
	CHECK(request.inputs_were_list);
	CHECK_INT(request.inputs[0].n_tokens, 2);
	CHECK_STR(request.inputs[1].text, "b");
	CHECK_INT(request.encoding_format, ENCODING_BASE64);
	CHECK_STR(request.pooling, "mean");
	CHECK(!request.normalize && request.truncate);
	CHECK_INT(request.dimensions.value, 12);
	request_finish(&request);
}

TEST(two_strings_are_two_texts_and_an_object_is_a_pair) {
	CHECK(parse(REQUEST_CLASSIFY, "{\"input\": [\"a\", \"b\"]}"));
	CHECK_INT(request.n_inputs, 2);
	CHECK(!request.inputs[0].pair && !request.inputs[1].pair);
	request_finish(&request);
	CHECK(parse(REQUEST_CLASSIFY, "{\"input\": {\"text\": \"a\", \"text_pair\": \"bc\"}}"));
	CHECK_INT(request.n_inputs, 1);
	CHECK(!request.inputs_were_list);
	CHECK_STR(request.inputs[0].text, "a");
	CHECK_STR(request.inputs[0].pair, "bc");
	CHECK_INT(request.inputs[0].pair_len, 2);
	request_finish(&request);
}

TEST(a_pair_of_one_is_a_text) {
	CHECK(parse(REQUEST_CLASSIFY, "{\"input\": [{\"text\": \"a\", \"text_pair\": null}]}"));
	CHECK_STR(request.inputs[0].text, "a");
	CHECK(!request.inputs[0].pair);
	request_finish(&request);
}

TEST(an_empty_second_text_is_still_a_pair) {
	CHECK(parse(REQUEST_CLASSIFY, "{\"input\": {\"text\": \"a\", \"text_pair\": \"\"}}"));
	CHECK(request.inputs[0].pair);
	CHECK_INT(request.inputs[0].pair_len, 0);
	request_finish(&request);
}

/* `n` texts in one list. */
static bool parse_texts(enum request_kind kind, size_t n) {
	struct buffer body = { 0 };
	buffer_puts(&body, "{\"input\":[\"a\"");
	for (size_t i = 1; i < n; i++)
		buffer_puts(&body, ",\"a\"");
	buffer_puts(&body, "]}");
	bool ok = parse(kind, buffer_cstr(&body));
	buffer_finish(&body);
	return ok;
}

TEST(embeddings_and_classes_take_more_texts_than_other_routes) {
	CHECK(parse_texts(REQUEST_EMBEDDING, 2048));
	CHECK_INT(request.n_inputs, 2048);
	request_finish(&request);
	CHECK(!parse_texts(REQUEST_EMBEDDING, 2049));
	CHECK_STR(error.param, "input");
	CHECK(strstr(error.message, "at most 2048"));
	CHECK(parse_texts(REQUEST_CLASSIFY, 2048));
	request_finish(&request);
	CHECK(parse_texts(REQUEST_FILL_MASK, 32));
	request_finish(&request);
	CHECK(!parse_texts(REQUEST_FILL_MASK, 33));
}

TEST(a_mask_gets_five_tokens_unless_told_otherwise) {
	CHECK(parse(REQUEST_FILL_MASK, "{\"input\": \"a <mask>\"}"));
	CHECK_INT(request.fill_top_k, 5);
	CHECK(!request.top_k.set);
	request_finish(&request);
	CHECK(parse(REQUEST_FILL_MASK, "{\"input\": \"a <mask>\", \"top_k\": 2}"));
	CHECK_INT(request.fill_top_k, 2);
	request_finish(&request);
}

TEST(beams_arrive) {
	CHECK(parse(REQUEST_COMPLETION,
	                "{\"prompt\": \"a\", \"num_beams\": 4, \"n\": 2, "
	                "\"length_penalty\": 0.6, \"pretokenized\": true}"));
	CHECK(request.num_beams.set && request.num_beams.value == 4);
	CHECK(request.length_penalty.set && request.length_penalty.value == 0.6);
	CHECK(request.pretokenized);
	CHECK_INT(request.best_of, 2);
	request_finish(&request);
}

TEST(sources_and_targets_are_lists_of_one_length) {
	CHECK(parse(REQUEST_LOGLIKELIHOOD, "{\"source\": [\"a\", [1]], \"target\": [[2], \"b\"]}"));
	CHECK_INT(request.n_inputs, 2);
	CHECK_INT(request.n_targets, 2);
	CHECK_STR(request.inputs[0].text, "a");
	CHECK_INT(request.targets[0].tokens[0], 2);
	CHECK_STR(request.targets[1].text, "b");
	request_finish(&request);
}

TEST(bounds_of_depth_are_numbers_or_pairs) {
	CHECK(parse(REQUEST_COMPLETION,
	                "{\"prompt\": \"a\", \"min_depth\": 2, \"max_depth\": "
	                "{\"encoder\": 12, \"decoder\": 6}}"));
	CHECK_INT(request.min_depth, 2);
	CHECK_INT(request.encoder_min_depth, 0);
	CHECK_INT(request.max_depth, 6);
	CHECK_INT(request.encoder_max_depth, 12);
	request_finish(&request);
}

TEST(a_plan_can_be_asked_of_every_route_that_runs_the_model) {
	static const char body[] = "{\"route\": \"/v1/embeddings\", \"input\": \"a\"}";
	CHECK(request_parse_plan(body, sizeof body - 1, &limits, &request, &error));
	CHECK_INT(request.kind, REQUEST_EMBEDDING);
	request_finish(&request);
}
