/* SPDX-License-Identifier: Apache-2.0 */
/* From outcomes to numbers, worked out by hand. */
#include <math.h>

#include "bench/client/run.h"
#include "bench/result/result.h"
#include "model/doc.h"
#include "tests/check.h"

/* Meant for `at`, answered after `latency` with ten tokens, the first after `ttft`. */
static struct outcome answered(double at, double ttft, double latency) {
	return (struct outcome){ .request = { .arrival_ms = at, .latency_budget_ms = 100 },
		.sent_ms = at + 1,
		.first_ms = at + ttft,
		.last_ms = at + latency,
		.end_ms = at + latency,
		.status = 200,
		.tokens = 10,
		.pieces = 10,
		.depth = 6,
		.mean_depth = 6,
		.queue_ms = 2,
		.predicted_ms = 80,
		.server_ms = 40,
		.server_met = 1,
		.counted = true,
		.in_window = true };
}

TEST(a_time_counts_from_when_the_request_was_meant_to_be_sent) {
	struct outcome o = answered(1000, 19, 100);
	o.sent_ms = 1050;
	CHECK(outcome_latency_ms(&o) == 100);
	CHECK(outcome_ttft_ms(&o) == 19);
	CHECK(fabs(outcome_tpot_ms(&o) - 9) < 1e-9);
}

TEST(a_budget_is_met_by_a_whole_answer_in_time_only) {
	struct outcome o = answered(0, 10, 100);
	CHECK(outcome_is_met(&o));
	o.cut = true;
	CHECK(!outcome_is_met(&o));
	o = answered(0, 10, 100.5);
	CHECK(!outcome_is_met(&o));
	o = answered(0, 10, 90);
	o.request.ttft_budget_ms = 9;
	CHECK(!outcome_is_met(&o));
	o.request.ttft_budget_ms = 10;
	o.request.tpot_budget_ms = 80.0 / 9 - 0.01;
	CHECK(!outcome_is_met(&o));
	o.request.tpot_budget_ms = 80.0 / 9 + 0.01;
	CHECK(outcome_is_met(&o));
	o.status = 503;
	CHECK(!outcome_is_met(&o) && outcome_is_refused(&o));
}

TEST(a_run_is_counted_as_by_hand) {
	struct outcome all[5] = { answered(10, 10, 50), answered(20, 20, 150), answered(30, 10, 60),
		answered(40, 5, 40), answered(5, 1, 20) };
	struct histogram itl = { 0 };
	struct result r;
	all[1].depth = 12;
	all[1].mean_depth = 9;
	all[1].tokens = 30;
	all[1].changes = 1;
	all[2] = (struct outcome){ .request = { .arrival_ms = 30, .latency_budget_ms = 100 },
		.sent_ms = 30,
		.end_ms = 33,
		.status = 503,
		.code = "server_overloaded",
		.queue_ms = -1,
		.predicted_ms = -1,
		.server_ms = -1,
		.server_met = -1,
		.counted = true,
		.in_window = true };
	all[3].in_window = false;
	all[4].counted = false;
	result_init(&r, all, 5, 2, &itl);
	CHECK_INT(r.requests, 4);
	CHECK_INT(r.answered, 3);
	CHECK_INT(r.refused, 1);
	CHECK_INT(r.asked, 4);
	CHECK_INT(r.met, 2);
	CHECK_INT(r.changed, 1);
	/* In the window: 0, 1 and 4; of these 0 and 4 are in time. */
	CHECK(r.requests_per_s == 1.5 && r.goodput_per_s == 1 && r.tokens_per_s == 25);
	CHECK(fabs(r.mean_depth - 7) < 1e-12);
	CHECK(fabs(r.mean_depth_by_tokens - (60 + 270 + 60) / 50.0) < 1e-12);
	CHECK(r.latency.count == 3 && r.latency.max == 150);
	/* |50/80 - 1|, |150/80 - 1|, |40/80 - 1| */
	CHECK(fabs(histogram_quantile(&r.error, 0.5) - 0.5) < 1e-3 && r.error.max == 0.875);
	CHECK(r.server_error.count == 3 && r.server_error.min == 0.5);
	CHECK_INT(r.n_depths, 2);
	CHECK_STR(r.by_depth[0].name, "6");
	CHECK_STR(r.by_depth[1].name, "12");
	CHECK_STR(r.codes[0].name, "server_overloaded");
	result_finish(&r);
}

TEST(a_written_result_is_json_with_what_was_counted) {
	struct outcome all[2] = { answered(10, 10, 50), answered(1500, 20, 150) };
	struct load load;
	struct result r;
	struct buffer out = { 0 };
	char err[256];
	const struct result_parameter parameter = { "rate", "40" };
	const struct result_head head = { "fathom bench", "2026-01-01T00:00:00Z", "http://x", "m",
		NULL, "12" };
	load_init(&load);
	CHECK(load_settle(&load, err, sizeof err));
	result_init(&r, all, 2, 2, NULL);
	result_open(&out, &head, &load);
	result_write_run(&out, "a \"run\"", &parameter, 1, &r, all, 2);
	result_close(&out);
	struct doc *doc = doc_parse(out.data, out.len, "result", err, sizeof err);
	CHECK(doc);
	const struct doc *run = doc_at(doc_get(doc, "runs"), 0);
	int64_t n;
	CHECK(doc_as_int(doc_get(run, "completed"), &n) && n == 2);
	CHECK(doc_as_int(doc_get(doc_get(run, "budget"), "met"), &n) && n == 1);
	CHECK(doc_as_int(doc_get(doc_get(run, "parameter"), "rate"), &n) && n == 40);
	CHECK_INT(doc_kind(doc_get(run, "itl_ms")), DOC_NULL);
	CHECK_INT(doc_kind(doc_get(doc_get(doc, "server"), "depths")), DOC_NULL);
	CHECK(doc_as_int(doc_get(doc_get(run, "latency_ms"), "max"), &n) && n == 150);
	doc_free(doc);
	buffer_finish(&out);
	result_finish(&r);
}

TEST(a_backlog_that_grows_is_seen_and_a_steady_one_is_not) {
	enum { N = 400 };
	struct outcome all[N];
	struct run run = { .outcomes = all, .n = N };
	/* One each 10 ms, each takes 100 ms: always ten in flight. */
	for (int i = 0; i < N; i++)
		all[i] = answered(10 * i, 1, 100);
	CHECK(fabs(run_growth_per_s(&run)) < 1);
	/* Served at 80 per second of 100 that come: 20 more in each second. */
	for (int i = 0; i < N; i++)
		all[i] = answered(10 * i, 1, 12.5 * (i + 1) - 10 * i);
	CHECK(fabs(run_growth_per_s(&run) - 20) < 1);
}
