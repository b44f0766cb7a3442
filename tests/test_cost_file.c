/* SPDX-License-Identifier: Apache-2.0 */
/* The cost model as JSON: what is written is read again, and what is wrong is named. */
#include "server/cost_file.h"

#include "tests/check.h"

/* Written by hand from the description of the format. */
static const char sample[] =
                "{\"layers\":{\"encoder\":0,\"decoder\":12},"
                "\"rows\":[1,2,4,8,12,16,32,64,128,512],"
                "\"layer_ms\":{\"decoder\":[1,2,3,4,5,6,7,8,9,10]},"
                "\"cross_ms\":[0,0,0,0,0,0,0,0,0,0],\"head_ms\":[1,1,1,1,1,1,1,1,1,2.5],"
                "\"attention_ms\":0.25,\"chunk_attention_ms\":0.125,\"source_attention_ms\":0,"
                "\"class_ms\":0,\"constant_ms\":0.5,\"row_ms\":0.001,\"pace\":1.5,"
                "\"mean_ratio\":1.03125,\"jitter\":1.015625,\"interference_ms\":0.0625,\"margin\":"
                "1.25,"
                "\"margin_rescued\":1.125,\"answer_ratio\":0.75,\"target_ratio\":1.5,"
                "\"step_error\":{\"decode\":{\"p50\":0.02,\"p95\":0.1}},"
                "\"request_error\":{\"p50\":0.04,\"p95\":0.2},"
                "\"limits\":{\"max_rows\":512,\"prefill_rows\":64,\"sequences\":16,"
                "\"source_tiles\":0},\"kv_blocks\":1234}";

static bool try_read(const char *text, struct cost_file *ret_file, char *err, size_t errlen) {
	struct doc *doc = doc_parse(text, strlen(text), "depths.json", err, errlen);
	CHECK(doc);
	bool read = cost_read(doc, "depths.json", ret_file, err, errlen);
	doc_free(doc);
	return read;
}

static struct cost_file must_read(const char *text) {
	char err[256] = "";
	struct cost_file file;
	if (!try_read(text, &file, err, sizeof err))
		check_fail(__FILE__, __LINE__, "refused: %s", err);
	return file;
}

/* The sample with `from` replaced by `to` is refused with a sentence that holds `reason`. */
static void refused(const char *from, const char *to, const char *reason) {
	char text[sizeof sample + 256], err[256] = "";
	struct cost_file file;
	const char *at = strstr(sample, from);
	CHECK(at);
	snprintf(text, sizeof text, "%.*s%s%s", (int)(at - sample), sample, to, at + strlen(from));
	if (try_read(text, &file, err, sizeof err) || !strstr(err, reason))
		check_fail(__FILE__, __LINE__, "%s: \"%s\"", to, err);
}

TEST(every_member_is_read) {
	struct cost_file file = must_read(sample);
	const struct cost_model *cost = &file.cost;
	CHECK(cost->fitted);
	CHECK_INT(file.layers[STACK_DECODER], 12);
	CHECK_INT(file.layers[STACK_ENCODER], 0);
	CHECK(cost->layer_ms[STACK_DECODER][0] == 1 && cost->layer_ms[STACK_DECODER][9] == 10);
	CHECK(cost->layer_ms[STACK_ENCODER][0] == 0 && cost->head_ms[9] == 2.5);
	CHECK(cost->attention_ms == 0.25 && cost->chunk_attention_ms == 0.125);
	CHECK(cost->constant_ms == 0.5 && cost->row_ms == 0.001 && cost->pace == 1.5);
	CHECK(cost->mean_ratio == 1.03125 && cost->interference_ms == 0.0625);
	CHECK(cost->jitter == 1.015625);
	CHECK(cost->margin == 1.25 && cost->margin_rescued == 1.125);
	CHECK(cost->answer_ratio == 0.75 && cost->target_ratio == 1.5);
	CHECK(cost->step_error[COST_DECODE].p50 == 0.02 && cost->step_error[COST_MIXED].p95 == 0);
	CHECK(cost->error_p50 == 0.04 && cost->error_p95 == 0.2);
	CHECK_INT(file.limits.max_rows, 512);
	CHECK_INT(file.limits.prefill_rows, 64);
	CHECK_INT(file.limits.sequences, 16);
	CHECK_INT(file.kv_blocks, 1234);
}

TEST(what_was_written_is_read_again) {
	struct cost_file file = must_read(sample);
	file.layers[STACK_ENCODER] = 6;
	for (int i = 0; i < COST_POINTS; i++)
		file.cost.layer_ms[STACK_ENCODER][i] = 1 / (3.0 + i);
	struct buffer out = { 0 };
	cost_write(&file, &out);
	struct cost_file again = must_read(buffer_cstr(&out));
	CHECK(memcmp(&again.cost, &file.cost, sizeof file.cost) == 0);
	CHECK(memcmp(&again.limits, &file.limits, sizeof file.limits) == 0);
	CHECK_INT(again.layers[STACK_ENCODER], 6);
	CHECK_INT(again.kv_blocks, 1234);
	buffer_finish(&out);
}

TEST(the_answer_around_it_is_read_too) {
	char text[sizeof sample + 64];
	snprintf(text, sizeof text, "{\"layers\":12,\"cost_model\":%s}", sample);
	CHECK(must_read(text).cost.margin == 1.25);
}

TEST(what_is_wrong_is_named) {
	refused("\"margin\":1.25,", "", "margin");
	refused("\"margin\":1.25", "\"margin\":0.5", "margin");
	refused("\"pace\":1.5", "\"pace\":\"fast\"", "pace");
	refused("7,8,9,10]", "7,8,9]", "decoder must be a list of 10 numbers");
	refused("7,8,9,10]", "7,8,9,-1]", "decoder[9]");
	refused("32,64,128,512", "32,64,128,256", "rows");
	refused("\"decoder\":12", "\"decoder\":0", "layers");
	refused("\"max_rows\":512,", "", "max_rows");
	refused("\"kv_blocks\":1234", "\"kv_blocks\":-1", "kv_blocks");
	refused("\"p95\":0.2", "\"p95\":-1", "p95");
}
