/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of the routes for encoders, byte for byte: embeddings as OpenAI's API gives them, classes
 * as vLLM's, masks as ours. Base64 and probabilities were computed with Python (struct, base64,
 * math).
 */
#include "proto/answer.h"
#include "tests/check.h"

static const struct answer_usage usage = { 3, 0, 0 };
static const struct answer_meta meta = {
	.id = "x-1", .model = "demo", .created = 1700000000, .usage = &usage
};
static struct buffer out;

#define USAGE                                                                                      \
	"\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":0,\"total_tokens\":3,"               \
	"\"prompt_tokens_details\":{\"cached_tokens\":0}}"

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

TEST(embeddings_are_openais) {
	static const float a[] = { 0.5f, -0.1f }, b[] = { 1e-7f, 3.0f };
	answer_open_embeddings(&out, &meta);
	answer_put_embedding(&out, 0, a, 2, ENCODING_FLOAT);
	answer_put_embedding(&out, 1, b, 2, ENCODING_FLOAT);
	answer_close_embeddings(&out, &meta);
	WRITTEN("{\"id\":\"x-1\",\"object\":\"list\",\"created\":1700000000,\"model\":\"demo\","
	        "\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.5,-0.1]},"
	        "{\"object\":\"embedding\",\"index\":1,\"embedding\":[1e-07,3]}]," USAGE "}");
}

TEST(pieces_add_up) {
	static const float a[] = { 1.0f };
	answer_put_embedding(&out, 1, a, 1, ENCODING_FLOAT);
	WRITTEN(",{\"object\":\"embedding\",\"index\":1,\"embedding\":[1]}");
	answer_close_embeddings(&out, &meta);
	WRITTEN("]," USAGE "}");
}

static void check_base64(const float *values, size_t n, const char *expected) {
	char whole[128];
	answer_put_embedding(&out, 0, values, n, ENCODING_BASE64);
	snprintf(whole, sizeof whole, "{\"object\":\"embedding\",\"index\":0,\"embedding\":\"%s\"}",
	                expected);
	WRITTEN(whole);
}

TEST(base64_holds_little_endian_floats) {
	static const float one[] = { 1.0f }, two[] = { 1.0f, -0.5f },
	                   three[] = { 0.1f, 2.0f, -3.5f };
	check_base64(one, 1, "AACAPw==");
	check_base64(two, 2, "AACAPwAAAL8=");
	check_base64(three, 3, "zczMPQAAAEAAAGDA");
}

TEST(classes_have_labels_and_probabilities) {
	static const char *const labels[] = { "no", "yes", "per\"haps" };
	static const float first[] = { 1.0f, 3.0f, -0.5f };
	const float *scores[] = { first };
	struct answer_classifier c = { "main", labels, 3, false };
	answer_write_classes(&out, &meta, &c, scores, 1);
	WRITTEN("{\"id\":\"x-1\",\"object\":\"list\",\"created\":1700000000,\"model\":\"demo\","
	        "\"head\":\"main\",\"labels\":[\"no\",\"yes\",\"per\\\"haps\"],\"data\":[{"
	        "\"index\":0,"
	        "\"label\":\"yes\",\"probs\":[0.11611453467414116,0.8579768106084571,0."
	        "025908654717401523],\"num_classes\":3}]," USAGE "}");
}

TEST(one_class_has_a_logistic_probability) {
	static const char *const labels[] = { "spam" };
	static const float first[] = { 0.75f };
	const float *scores[] = { first };
	struct answer_classifier c = { "main", labels, 1, true };
	answer_write_classes(&out, &meta, &c, scores, 1);
	WRITTEN("{\"id\":\"x-1\",\"object\":\"list\",\"created\":1700000000,\"model\":\"demo\","
	        "\"head\":\"main\",\"labels\":[\"spam\"],\"data\":[{\"index\":0,\"label\":\"spam\","
	        "\"probs\":[0.679178699175393],\"num_classes\":1,\"logits\":[0.75]}]," USAGE "}");
}

TEST(large_scores_do_not_overflow) {
	static const char *const labels[] = { "a", "b" };
	static const float first[] = { 1e30f, -1e30f };
	const float *scores[] = { first };
	struct answer_classifier c = { "main", labels, 2, false };
	answer_write_classes(&out, &meta, &c, scores, 1);
	CHECK(strstr(buffer_cstr(&out), "\"label\":\"a\",\"probs\":[1,0],"));
	buffer_finish(&out);
}

TEST(masks_come_with_their_place_and_text) {
	static const struct answer_fill fills[] = {
		{ 7, " cat", 4, -0.5f, "a cat", 5 },
		{ 9, "\xac", 1, -1.5f, "a ?", 3 },
	};
	struct answer_mask masks[] = { { 0, 2, fills, 2 }, { 1, 4, fills, 1 } };
	answer_write_fills(&out, &meta, masks, 2);
	WRITTEN("{\"id\":\"x-1\",\"object\":\"fill_mask\",\"created\":1700000000,"
	        "\"model\":\"demo\",\"results\":[[{\"token\":\" "
	        "cat\",\"token_id\":7,\"prob\":0.6065306597126334,"
	        "\"text\":\"a "
	        "cat\"},{\"token\":\"bytes:\\\\xac\",\"token_id\":9,\"prob\":0.22313016014842982,"
	        "\"text\":"
	        "\"a ?\"}],[{\"token\":\" "
	        "cat\",\"token_id\":7,\"prob\":0.6065306597126334,\"text\":\"a cat\"}]],"
	        "\"masks\":[{\"index\":0,\"position\":2},{\"index\":1,\"position\":4}]," USAGE "}");
}
