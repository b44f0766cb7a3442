/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics: every name of the contract is there, histograms add up, the text is well-formed line by line. */
#include "server/metrics.h"

#include <ctype.h>

#include "tests/check.h"

static const struct metrics_gauges gauges = { .running = 2,
	.waiting = 3,
	.version = "0.1.0",
	.family = "opt",
	.dtype = "bf16",
	.arithmetic = "f32",
	.layers = { [STACK_DECODER] = 4 },
	.layerdrop = { [STACK_DECODER] = 0.2 },
	.cost = { .pace = 1.5,
	                .interference_ms = 0.25,
	                .margin = 1.25,
	                .margin_rescued = 1.125,
	                .error_p50 = 0.05,
	                .error_p95 = 0.2,
	                .step_error[COST_DECODE] = { 0.03, 0.11 },
	                .fitted = true } };

static const struct facts four = { .stack[STACK_DECODER].layers = 4 };
static const struct facts two = { .stack[STACK_DECODER].layers = 2 };

static char *render(struct metrics *m) {
	struct buffer out = { 0 };
	metrics_write(m, &gauges, &out);
	char *text = strdup(buffer_cstr(&out));
	buffer_finish(&out);
	return text;
}

/* The number after `series ` at the start of a line. */
static double value_of(const char *text, const char *series) {
	size_t len = strlen(series);
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, series, len) == 0 && line[len] == ' ')
			return strtod(line + len, NULL);
	}
	check_fail(__FILE__, __LINE__, "no series %s", series);
}

TEST(every_metric_of_the_contract_is_there) {
	static const char *const names[] = { "requests_total", "requests_running",
		"requests_waiting", "queue_tokens", "request_duration_seconds",
		"request_queue_seconds", "time_to_first_token_seconds",
		"inter_token_latency_seconds", "prompt_tokens_total", "generation_tokens_total",
		"step_seconds", "step_rows", "layer_rows_total", "depth_selected_total",
		"budget_requests_total", "prediction_error_ratio", "kv_cache_usage_ratio",
		"rejected_total", "deadline_exceeded_total", "cancelled_total",
		"speculative_drafted_total", "speculative_accepted_total", "predicted_wait_seconds",
		"engine_busy_seconds_total", "connections", "build_info", "model_info",
		"step_prediction_error_ratio", "machine_pace_ratio", "machine_mean_ratio",
		"interference_seconds", "margin_ratio", "step_prediction_error_quantile",
		"request_prediction_error_quantile" };
	struct metrics *m = metrics_create(&four);
	char *text = render(m);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char line[128];
		snprintf(line, sizeof line, "# TYPE fathom_%s ", names[i]);
		if (!strstr(text, line))
			check_fail(__FILE__, __LINE__, "fathom_%s is missing", names[i]);
	}
	free(text);
	metrics_destroy(m);
}

TEST(counts_come_out_as_they_went_in) {
	struct metrics *m = metrics_create(&four);
	metrics_request(m, "/v1/completions", 200);
	metrics_request(m, "/v1/completions", 200);
	metrics_request(m, "other", 404);
	struct subnet subnet = { .stack[STACK_DECODER] = { .of = 4, .depth = 3 } };
	metrics_tokens(m, 10, 7, &subnet);
	metrics_depth_selected(m, &subnet, "budget");
	metrics_budget(m, true);
	metrics_step(m, PHASE_DECODE, 0.003, 5,
	                (const int *const[STACKS]){
	                                [STACK_DECODER] = (const int[]){ 5, 0, 2, 0 } });
	char *text = render(m);
	CHECK(value_of(text, "fathom_requests_total{route=\"/v1/completions\",code=\"200\"}") == 2);
	CHECK(value_of(text, "fathom_requests_total{route=\"other\",code=\"404\"}") == 1);
	CHECK(value_of(text, "fathom_generation_tokens_total{depth=\"3\"}") == 7);
	CHECK(value_of(text, "fathom_prompt_tokens_total") == 10);
	CHECK(value_of(text, "fathom_depth_selected_total{depth=\"3\",reason=\"budget\"}") == 1);
	CHECK(value_of(text, "fathom_budget_requests_total{met=\"true\"}") == 1);
	CHECK(value_of(text, "fathom_layer_rows_total{layer=\"2\"}") == 2);
	CHECK(value_of(text, "fathom_requests_waiting") == 3);
	CHECK(value_of(text, "fathom_step_seconds_bucket{phase=\"decode\",le=\"0.002\"}") == 0);
	CHECK(value_of(text, "fathom_step_seconds_bucket{phase=\"decode\",le=\"0.005\"}") == 1);
	CHECK(value_of(text, "fathom_step_seconds_bucket{phase=\"decode\",le=\"+Inf\"}") == 1);
	CHECK(value_of(text, "fathom_step_seconds_count{phase=\"decode\"}") == 1);
	CHECK(value_of(text, "process_resident_memory_bytes") > 100000);
	CHECK(value_of(text, "process_start_time_seconds") > 1.6e9);
	free(text);
	metrics_destroy(m);
}

TEST(two_stacks_are_labelled_by_the_pairs_that_ran) {
	static const struct facts facts = { .stack = { { .layers = 12 }, { .layers = 6 } } };
	struct subnet subnet = { .stack = { { .depth = 12 }, { .depth = 3 } } };
	struct metrics *m = metrics_create(&facts);
	metrics_tokens(m, 10, 7, &subnet);
	metrics_job_done(m, &subnet, 0.003);
	static const int encoder[12] = { 0, 9 }, decoder[6] = { 2 };
	metrics_step(m, PHASE_MIXED, 0.003, 11, (const int *const[STACKS]){ encoder, decoder });
	char *text = render(m);
	static const char pair[] = "{encoder_depth=\"12\",depth=\"3\"}";
	char name[128];
	snprintf(name, sizeof name, "fathom_generation_tokens_total%s", pair);
	CHECK(value_of(text, name) == 7);
	snprintf(name, sizeof name, "fathom_request_duration_seconds_count%s", pair);
	CHECK(value_of(text, name) == 1);
	CHECK(!strstr(text, "encoder_depth=\"12\",depth=\"6\""));
	/* Nor what was never seen of this pair. */
	CHECK(!strstr(text, "fathom_time_to_first_token_seconds_count{"));
	CHECK(!strstr(text, "fathom_depth_selected_total{"));
	CHECK(!strstr(text, "{depth="));
	CHECK(value_of(text, "fathom_layer_rows_total{stack=\"encoder\",layer=\"1\"}") == 9);
	CHECK(value_of(text, "fathom_layer_rows_total{stack=\"decoder\",layer=\"0\"}") == 2);
	free(text);
	metrics_destroy(m);
}

TEST(an_encoder_alone_is_labelled_like_a_decoder) {
	static const struct facts facts = { .stack[STACK_ENCODER].layers = 4 };
	struct subnet subnet = { .stack[STACK_ENCODER].depth = 2 };
	struct metrics *m = metrics_create(&facts);
	metrics_depth_selected(m, &subnet, "explicit");
	static const int rows[4] = { 5, 0, 5, 0 };
	metrics_step(m, PHASE_PREFILL, 0.003, 5,
	                (const int *const[STACKS]){ [STACK_ENCODER] = rows });
	char *text = render(m);
	CHECK(value_of(text, "fathom_depth_selected_total{depth=\"2\",reason=\"explicit\"}") == 1);
	CHECK(value_of(text, "fathom_layer_rows_total{layer=\"2\"}") == 5);
	CHECK(!strstr(text, "encoder_depth"));
	free(text);
	metrics_destroy(m);
}

TEST(predictions_and_their_errors_are_told) {
	struct metrics *m = metrics_create(&four);
	metrics_step_prediction(m, COST_DECODE, 1.02);
	metrics_step_prediction(m, COST_ENCODE, 3);
	char *text = render(m);
	CHECK(value_of(text, "fathom_step_prediction_error_ratio_bucket{phase=\"decode\",le=\"1\"}")
	                == 0);
	CHECK(value_of(text,
	                      "fathom_step_prediction_error_ratio_bucket{phase=\"decode\",le=\"1."
	                      "05\"}")
	                == 1);
	CHECK(value_of(text, "fathom_step_prediction_error_ratio_sum{phase=\"encode\"}") == 3);
	CHECK(value_of(text, "fathom_machine_pace_ratio") == 1.5);
	CHECK(value_of(text, "fathom_machine_mean_ratio") == 1);
	CHECK(value_of(text, "fathom_interference_seconds") == 0.00025);
	CHECK(value_of(text, "fathom_margin_ratio{requests=\"all\"}") == 1.25);
	CHECK(value_of(text, "fathom_margin_ratio{requests=\"rescued\"}") == 1.125);
	CHECK(value_of(text,
	                      "fathom_step_prediction_error_quantile{phase=\"decode\",quantile=\"0."
	                      "95\"}")
	                == 0.11);
	CHECK(!strstr(text, "fathom_step_prediction_error_quantile{phase=\"mixed\""));
	CHECK(value_of(text, "fathom_request_prediction_error_quantile{quantile=\"0.5\"}") == 0.05);
	free(text);
	metrics_destroy(m);
}

TEST(every_line_is_a_comment_or_a_sample) {
	struct metrics *m = metrics_create(&two);
	metrics_rejected(m, "server_overloaded");
	char *text = render(m), *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (line[0] == '#')
			continue;
		char *space = strrchr(line, ' '), *end;
		CHECK(space && (islower((unsigned char)line[0])));
		strtod(space + 1, &end);
		CHECK(end != space + 1 && !*end);
	}
	free(text);
	metrics_destroy(m);
}
