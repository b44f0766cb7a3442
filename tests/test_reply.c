/* SPDX-License-Identifier: Apache-2.0 */
/* Answers as a client reads them: streams cut anywhere, bodies, errors. */
#include <math.h>

#include "bench/client/reply.h"
#include "tests/check.h"

/* As fathom streams: three tokens, a step down, usage. */
static const char stream[] =
                ": ping\n\n"
                "data: {\"choices\":[{\"index\":0,\"text\":\" a\",\"finish_reason\":null}],"
                "\"depth\":{\"requested\":\"auto\",\"used\":6,\"of\":12}}\n\n"
                "data: {\"choices\":[{\"index\":0,\"text\":\" \\\"depth\\\"\","
                "\"finish_reason\":null}]}\r\n\r\n"
                "data: {\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":null}]}\n\n"
                "data: {\"choices\":[{\"index\":0,\"text\":\" c\",\"finish_reason\":\"length\"}],"
                "\"depth\":{\"used\":6,\"of\":12,\"changes\":[{\"at_token\":2,\"used\":4}]},"
                "\"timings\":{\"queue_ms\":1.5,\"predicted_ms\":20,\"budget_met\":true}}\n\n"
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,"
                "\"completion_tokens\":4}}\n\n"
                "data: [DONE]\n\n";

static double gaps;
static int n_gaps;

static void on_gap(void *arg, double ms) {
	gaps += ms;
	n_gaps++;
}

static void begin(struct reply *r, bool streams) {
	r->on_gap = on_gap;
	gaps = n_gaps = 0;
	reply_begin(r, streams);
}

static void check_stream(const struct reply *r) {
	CHECK(r->finished && !r->cut);
	CHECK_STR(r->code, "");
	CHECK_INT(r->pieces, 3);
	CHECK_INT(reply_tokens(r), 4);
	CHECK_INT(r->prompt_tokens, 7);
	CHECK(r->queue_ms == 1.5 && r->predicted_ms == 20);
	CHECK_INT(r->met, 1);
	CHECK_INT(r->depth, 6);
	CHECK_INT(reply_final_depth(r), 4);
	/* Two tokens at 6 layers, two at 4. */
	CHECK(reply_mean_depth(r) == 5);
	CHECK_INT(n_gaps, 2);
}

TEST(a_stream_reads_the_same_however_its_bytes_are_cut_in_two) {
	struct reply r = { 0 };
	const size_t len = sizeof stream - 1;
	for (size_t cut = 0; cut <= len; cut++) {
		begin(&r, true);
		reply_feed(&r, 200, stream, cut, 10);
		reply_feed(&r, 200, stream + cut, len - cut, 30);
		reply_end(&r, 200, CLIENT_OK, 30);
		check_stream(&r);
		CHECK(r.first_ms == 10 || r.first_ms == 30);
		CHECK(gaps == r.last_ms - r.first_ms);
	}
	reply_finish(&r);
}

TEST(a_stream_reads_the_same_byte_by_byte) {
	struct reply r = { 0 };
	begin(&r, true);
	for (size_t i = 0; i < sizeof stream - 1; i++)
		reply_feed(&r, 200, stream + i, 1, (double)i);
	reply_end(&r, 200, CLIENT_OK, 1000);
	check_stream(&r);
	/* Text is there when the empty line behind it is. */
	CHECK(r.first_ms == (double)(strstr(stream, "12}}\n\n") + 5 - stream));
	reply_finish(&r);
}

TEST(lines_end_with_returns_too_and_data_may_have_several_lines) {
	static const char bytes[] = "data: {\"choices\":\rdata:[{\"text\":\"x\",\r\n"
	                            "event: x\rdata: \"finish_reason\":\"stop\"}]}\r\r";
	struct reply r = { 0 };
	for (size_t cut = 0; cut < sizeof bytes; cut++) {
		begin(&r, true);
		reply_feed(&r, 200, bytes, cut, 1);
		reply_feed(&r, 200, bytes + cut, sizeof bytes - 1 - cut, 2);
		reply_end(&r, 200, CLIENT_OK, 3);
		CHECK(r.finished && r.pieces == 1);
	}
	reply_finish(&r);
}

TEST(chat_chunks_count_their_content_but_not_the_role) {
	static const char bytes[] =
	                "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
	                "\"finish_reason\":null}]}\n\n"
	                "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},"
	                "\"finish_reason\":null}]}\n\n"
	                "data: {\"choices\":[{\"delta\":{\"content\":\" you\"}, "
	                "\"finish_reason\": null}]}\n\n"
	                "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	                "data: [DONE]\n\n";
	struct reply r = { 0 };
	begin(&r, true);
	reply_feed(&r, 200, bytes, sizeof bytes - 1, 5);
	reply_end(&r, 200, CLIENT_OK, 6);
	CHECK(r.finished);
	CHECK_INT(reply_tokens(&r), 2);
	CHECK_INT(r.depth, 0);
	reply_finish(&r);
}

static struct reply whole(const char *body, int status) {
	struct reply r = { 0 };
	begin(&r, false);
	reply_feed(&r, status, body, strlen(body), 4);
	reply_end(&r, status, CLIENT_OK, 5);
	reply_finish(&r);
	return r;
}

TEST(a_whole_answer_says_its_pair_of_depths) {
	struct reply r = whole("{\"choices\":[{\"text\":\"Ja\",\"finish_reason\":\"stop\"}],"
	                       "\"depth\":{\"used\":{\"encoder\":12,\"decoder\":3}},"
	                       "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}",
	                200);
	CHECK(r.finished && r.encoder == 12 && r.depth == 3);
	CHECK_INT(reply_tokens(&r), 2);
}

TEST(an_answer_without_choices_is_whole_as_it_is) {
	struct reply r = whole("{\"data\":[{\"embedding\":\"AAAA\"}],\"depth\":{\"used\":2}}", 200);
	CHECK(r.finished && r.depth == 2);
}

TEST(an_answer_that_was_cut_says_so) {
	CHECK(whole("{\"choices\":[{\"text\":\"J\",\"finish_reason\":\"length\","
	            "\"finish_detail\":\"deadline\"}]}",
	                200)
	                                .cut);
}

TEST(a_body_or_a_line_without_an_end_is_given_up) {
	static char piece[1 << 20];
	memset(piece, 'x', sizeof piece);
	for (int streams = 0; streams < 2; streams++) {
		struct reply r = { 0 };
		int fed = 0;
		begin(&r, streams);
		while (fed < 1000 && reply_feed(&r, 200, piece, sizeof piece, 1))
			fed++;
		CHECK_INT(fed, 64);
		reply_end(&r, 200, CLIENT_BROKEN, 2);
		CHECK_STR(r.code, "broken");
		reply_finish(&r);
	}
}

TEST(errors_are_named_by_their_code_else_by_their_status) {
	CHECK_STR(whole("{\"error\":{\"code\":\"server_overloaded\",\"type\":\"x\"}}", 503).code,
	                "server_overloaded");
	CHECK_STR(whole("{\"error\":{\"code\":null,\"type\":\"BadRequest\"}}", 400).code,
	                "BadRequest");
	CHECK_STR(whole("<html>", 502).code, "http_502");
	CHECK_STR(whole("", 504).code, "http_504");
	CHECK_STR(whole("{\"choices\":[]}", 200).code, "incomplete");
}

TEST(an_error_in_a_stream_and_a_stream_that_breaks_off_are_no_answers) {
	static const char error[] = "data: {\"error\":{\"code\":\"internal_error\"}}\n\n";
	struct reply r = { 0 };
	begin(&r, true);
	reply_feed(&r, 200, error, sizeof error - 1, 1);
	reply_end(&r, 200, CLIENT_OK, 2);
	CHECK(!r.finished);
	CHECK_STR(r.code, "internal_error");
	begin(&r, true);
	reply_feed(&r, 200, stream, 200, 1);
	reply_end(&r, 200, CLIENT_OK, 2);
	CHECK_STR(r.code, "incomplete");
	begin(&r, true);
	reply_feed(&r, 200, stream, 200, 1);
	reply_end(&r, 200, CLIENT_BROKEN, 2);
	CHECK_STR(r.code, "broken");
	reply_finish(&r);
}
