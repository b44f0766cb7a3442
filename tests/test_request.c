/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests: a corpus of bodies (tests/json: y_ROUTE_*.json must parse, n_ROUTE_*.json must give the
 * code and param that `expected` lists), what the parsed structs hold, and headers.
 */
#include <dirent.h>
#include <math.h>

#include "proto/request.h"
#include "tests/check.h"
#include "tests/documented_limits.h"

static struct request request;
static struct error error;

static bool parse(enum request_kind kind, const char *body) {
	error = (struct error){ 0 };
	return request_parse(kind, body, strlen(body), &limits, &request, &error);
}

static bool parse_completion(const char *body) {
	return parse(REQUEST_COMPLETION, body);
}

/* ---- the corpus ------------------------------------------------------------------------------- */

static const char *corpus_path(const char *name) {
	static char path[4096];
	const char *root = getenv("FATHOM_SOURCE_ROOT");
	snprintf(path, sizeof path, "%s/tests/json/%s", root ? root : ".", name);
	return path;
}

static enum request_kind kind_of(const char *name) {
	static const char *const kinds[REQUEST_KINDS] = { "completion_", "chat_", "loglikelihood_",
		"embedding_", "classify_", "fill_", "tokenize_", "detokenize_" };
	for (int i = 0; i < REQUEST_KINDS; i++)
		if (strncmp(name + 2, kinds[i], strlen(kinds[i])) == 0)
			return (enum request_kind)i;
	check_fail(__FILE__, __LINE__, "%s names no route", name);
}

static bool parse_file(const char *name) {
	size_t len;
	char *body = check_read_file(corpus_path(name), &len);
	error = (struct error){ 0 };
	bool ok = request_parse(kind_of(name), body, len, &limits, &request, &error);
	free(body);
	return ok;
}

TEST(every_good_body_of_the_corpus_parses) {
	DIR *dir = opendir(corpus_path(""));
	CHECK(dir);
	int seen = 0;
	for (struct dirent *d; (d = readdir(dir));) {
		if (strncmp(d->d_name, "y_", 2) != 0)
			continue;
		if (!parse_file(d->d_name))
			check_fail(__FILE__, __LINE__, "%s: %s", d->d_name, error.message);
		request_finish(&request);
		seen++;
	}
	closedir(dir);
	CHECK(seen >= 40);
}

TEST(every_bad_body_of_the_corpus_is_refused_as_expected) {
	char *list = check_read_file(corpus_path("expected"), NULL), *save, *save_word;
	int seen = 0;
	for (char *line = strtok_r(list, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *name = strtok_r(line, " ", &save_word);
		const char *code = strtok_r(NULL, " ", &save_word);
		const char *param = strtok_r(NULL, " ", &save_word);
		if (parse_file(name))
			check_fail(__FILE__, __LINE__, "%s was accepted", name);
		if (strcmp(error_name(error.code), code) != 0
		                || strcmp(error.param[0] ? error.param : "-", param) != 0)
			check_fail(__FILE__, __LINE__, "%s: %s, param %s: %s", name,
			                error_name(error.code), error.param, error.message);
		CHECK(error.message[0] && error.message[strlen(error.message) - 1] == '.');
		seen++;
	}
	free(list);
	CHECK(seen >= 130);
}

TEST(every_bad_body_is_listed) {
	DIR *dir = opendir(corpus_path(""));
	CHECK(dir);
	char *list = check_read_file(corpus_path("expected"), NULL);
	for (struct dirent *d; (d = readdir(dir));)
		if (strncmp(d->d_name, "n_", 2) == 0 && !strstr(list, d->d_name))
			check_fail(__FILE__, __LINE__, "%s is not in tests/json/expected",
			                d->d_name);
	closedir(dir);
	free(list);
}

/* ---- what the structs hold -------------------------------------------------------------------- */

TEST(a_bare_prompt_leaves_the_defaults) {
	CHECK(parse_completion("{\"prompt\": \"a\"}"));
	CHECK_INT(request.depth.kind, DEPTH_UNSET);
	CHECK_INT(request.n, 1);
	CHECK_INT(request.best_of, 1);
	CHECK_INT(request.logprobs, -1);
	CHECK_INT(request.on_miss, ON_MISS_DEGRADE);
	CHECK(request.allow_step_down && request.cache_prompt && request.add_special_tokens);
	CHECK(!request.stream && !request.echo && !request.ignore_eos && !request.include_usage);
	CHECK(!request.max_tokens.set && !request.temperature.set && !request.seed.set);
	CHECK(request.latency_budget_ms == 0 && request.deadline_ms == 0);
	CHECK(!request.priority_set && !request.has_layers && !request.model);
	request_finish(&request);
}

TEST(one_text_is_no_batch) {
	CHECK(parse_completion("{\"prompt\": \"a\\u00fcb\"}"));
	CHECK(!request.inputs_were_list);
	CHECK_INT(request.n_inputs, 1);
	CHECK_STR(request.inputs[0].text,
	                "a\xc3\xbc"
	                "b");
	CHECK_INT(request.inputs[0].text_len, 4);
	request_finish(&request);
}

TEST(one_list_of_token_ids_is_no_batch) {
	CHECK(parse_completion("{\"prompt\": [7, 8.0]}"));
	CHECK(!request.inputs_were_list && !request.inputs[0].text);
	CHECK_INT(request.inputs[0].n_tokens, 2);
	CHECK_INT(request.inputs[0].tokens[1], 8);
	request_finish(&request);
}

TEST(a_list_of_one_text_is_a_batch) {
	CHECK(parse_completion("{\"prompt\": [\"a\"]}"));
	CHECK(request.inputs_were_list);
	CHECK_INT(request.n_inputs, 1);
	request_finish(&request);
}

TEST(six_point_zero_is_depth_six) {
	CHECK(parse_completion("{\"prompt\": \"a\", \"depth\": 6.0}"));
	CHECK_INT(request.depth.kind, DEPTH_NUMBER);
	CHECK_INT(request.depth.decoder, 6);
	CHECK_INT(request.depth.encoder, 0);
	request_finish(&request);
}

TEST(a_depth_in_quotes_gets_a_hint) {
	CHECK(!parse_completion("{\"prompt\": \"a\", \"depth\": \"6\"}"));
	CHECK(strstr(error.message, "without quotes"));
}

TEST(a_number_in_quotes_gets_a_hint) {
	CHECK(!parse_completion("{\"prompt\": \"a\", \"max_tokens\": \"16\"}"));
	CHECK(strstr(error.message, "write 16 without quotes"));
}

TEST(words_in_quotes_that_json_cannot_write_get_no_hint) {
	static const char *const words[] = { "nan", "inf", "0x6", " 6" };
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		char body[64];
		snprintf(body, sizeof body, "{\"prompt\": \"a\", \"top_p\": \"%s\"}", words[i]);
		CHECK(!parse_completion(body));
		CHECK(strstr(error.message, words[i]) && !strstr(error.message, "quotes"));
	}
}

TEST(depth_takes_words_names_and_pairs) {
	CHECK(parse_completion("{\"prompt\": \"a\", \"depth\": \"auto\"}"));
	CHECK_INT(request.depth.kind, DEPTH_AUTO);
	request_finish(&request);
	CHECK(parse_completion("{\"prompt\": \"a\", \"depth\": \"full\"}"));
	CHECK_INT(request.depth.kind, DEPTH_FULL);
	request_finish(&request);
	CHECK(parse_completion("{\"prompt\": \"a\", \"depth\": \"fast\"}"));
	CHECK_INT(request.depth.kind, DEPTH_NAME);
	CHECK_STR(request.depth.name, "fast");
	request_finish(&request);
	CHECK(parse_completion(
	                "{\"prompt\": \"a\", \"depth\": {\"encoder\": 12, \"decoder\": 3}}"));
	CHECK_INT(request.depth.encoder, 12);
	CHECK_INT(request.depth.decoder, 3);
	request_finish(&request);
}

TEST(layers_become_indices) {
	CHECK(parse_completion("{\"prompt\": \"a\", \"layers\": [0, 3, 11]}"));
	CHECK(request.has_layers);
	CHECK_INT(request.n_layers, 3);
	CHECK_INT(request.layers[2], 11);
	CHECK_INT(request.depth.kind, DEPTH_UNSET);
	request_finish(&request);
}

TEST(every_option_arrives) {
	CHECK(parse_file("y_completion_every_option.json"));
	CHECK_STR(request.model, "m@6");
	CHECK_STR(request.plan_rule, "ends");
	CHECK(!request.allow_step_down && !request.cache_prompt && request.ignore_eos);
	CHECK(request.ttft_budget_ms == 20 && request.tpot_budget_ms == 5);
	CHECK(request.deadline_ms == 600000);
	CHECK_INT(request.on_miss, ON_MISS_REJECT);
	CHECK_INT(request.expected_tokens, 12);
	CHECK(request.priority_set);
	CHECK_INT(request.priority, -2);
	CHECK_INT(request.max_tokens.value, 16);
	CHECK_INT(request.min_tokens, 2);
	CHECK(request.temperature.value == 0.7 && request.top_p.value == 0.9);
	CHECK_INT(request.top_k.value, 40);
	CHECK(request.repetition_penalty.value == 1.1);
	CHECK(request.presence_penalty.value == -2 && request.frequency_penalty.value == 2);
	CHECK_INT(request.n_logit_bias, 2);
	CHECK_INT(request.logit_bias[0].token, 50256);
	CHECK(request.logit_bias[0].bias == -100 && request.logit_bias[1].bias == 1.5);
	CHECK_INT(request.seed.value, 42);
	CHECK_INT(request.n, 2);
	CHECK_INT(request.best_of, 3);
	CHECK_INT(request.n_stops, 2);
	CHECK_STR(request.stops[1], "END");
	CHECK_INT(request.stop_lens[0], 1);
	CHECK_INT(request.logprobs, 5);
	CHECK(request.return_token_ids);
	CHECK_STR(request.user, "u");
	request_finish(&request);
}

TEST(null_is_as_good_as_nothing) {
	CHECK(parse_file("y_completion_all_null.json"));
	CHECK_INT(request.depth.kind, DEPTH_UNSET);
	CHECK(!request.has_layers && !request.max_tokens.set && request.cache_prompt);
	CHECK_INT(request.n_unknown, 0);
	request_finish(&request);
}

TEST(unknown_fields_are_listed) {
	CHECK(parse_file("y_completion_unknown_fields.json"));
	CHECK_INT(request.n_unknown, 3);
	CHECK_STR(request.unknown[0], "metadata");
	CHECK_STR(request.unknown[2], "x_mine");
	request_finish(&request);
}

TEST(a_near_miss_names_the_right_field) {
	CHECK(!parse_completion("{\"prompt\": \"a\", \"latencyBudget\": 5}"));
	CHECK(strstr(error.message, "latency_budget_ms"));
}

TEST(fields_of_others_are_no_near_misses) {
	static const char *const names[] = { "store", "top_a", "max_length", "max_new_tokens",
		"n_tokens", "metadata", "prompt_cache_key", "service_tier", "best", "rank" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		char body[128];
		snprintf(body, sizeof body, "{\"prompt\": \"a\", \"%s\": 1}", names[i]);
		if (!parse_completion(body))
			check_fail(__FILE__, __LINE__, "%s", error.message);
		CHECK_INT(request.n_unknown, 1);
		request_finish(&request);
	}
}

TEST(priority_is_clamped_to_its_bounds) {
	CHECK(parse_completion("{\"prompt\": \"a\", \"priority\": -1000000000000}"));
	CHECK_INT(request.priority, -10);
	request_finish(&request);
}

TEST(chat_logprobs_are_a_flag_and_a_number) {
	CHECK(parse_file("y_chat_logprobs.json"));
	CHECK_INT(request.logprobs, 3);
	CHECK_INT(request.max_tokens.value, 5);
	request_finish(&request);
}

TEST(text_parts_are_joined) {
	CHECK(parse_file("y_chat_text_parts.json"));
	CHECK_INT(request.n_messages, 1);
	CHECK_STR(request.messages[0].role, "user");
	CHECK_STR(request.messages[0].content, "Good day");
	CHECK_INT(request.messages[0].content_len, 8);
	request_finish(&request);
}

TEST(no_tokens_at_all_can_be_detokenized) {
	CHECK(parse(REQUEST_DETOKENIZE, "{\"tokens\": []}"));
	CHECK_INT(request.n_inputs, 1);
	CHECK_INT(request.inputs[0].n_tokens, 0);
	CHECK(!request.inputs[0].text);
	request_finish(&request);
}

/* ---- bounds ----------------------------------------------------------------------------------- */

TEST(bad_json_says_line_and_column) {
	CHECK(!parse_completion("{\n  \"prompt\": oops\n}"));
	CHECK_INT(error.code, ERROR_INVALID_JSON);
	CHECK(strstr(error.message, "(line 2, column "));
}

TEST(deep_nesting_says_line_and_column) {
	char body[256] = "{\"x\":\n";
	memset(body + 6, '[', 100);
	CHECK(!parse_completion(body));
	CHECK_INT(error.code, ERROR_INVALID_JSON);
	CHECK(strstr(error.message, "64 levels (line 2, column 64)"));
}

/* A body of one item repeated behind `head`. */
static bool parse_repeated(const char *head, const char *item, size_t times) {
	size_t n = strlen(item), len = strlen(head);
	char *body = malloc(len + n * times + 3);
	CHECK(body);
	memcpy(body, head, len);
	for (size_t i = 0; i < times; i++, len += n)
		memcpy(body + len, item, n);
	memcpy(body + len - 1, "]}", 2);
	error = (struct error){ 0 };
	bool ok = request_parse(REQUEST_COMPLETION, body, len + 1, &limits, &request, &error);
	free(body);
	return ok;
}

TEST(a_flood_of_values_is_too_large) {
	CHECK(!parse_repeated("{\"prompt\":[", "{},", 100000));
	CHECK_INT(error.code, ERROR_REQUEST_TOO_LARGE);
}

/* Each name that is not ours is compared with all that are. */
TEST(a_flood_of_names_is_too_large) {
	for (int names = 255; names <= 256; names++) {
		char body[8192] = "{\"prompt\": \"a\"";
		size_t len = strlen(body);
		for (int i = 0; i < names; i++)
			len += (size_t)snprintf(body + len, sizeof body - len, ",\"x%d\":1", i);
		snprintf(body + len, sizeof body - len, "}");
		bool ok = parse_completion(body);
		CHECK(ok == (names == 255));
		if (ok)
			request_finish(&request);
	}
	CHECK_INT(error.code, ERROR_REQUEST_TOO_LARGE);
	CHECK(strstr(error.message, "257 fields"));
}

TEST(brackets_in_a_string_are_not_values) {
	CHECK(parse_completion(
	                "{\"prompt\": \"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
	                "[[[[[[[[[[[[[[[[[[\\\"[[[[[[[\"}"));
	request_finish(&request);
}

TEST(token_ids_below_the_bound_of_values_pass) {
	CHECK(parse_repeated("{\"prompt\":[", "7,", 99990));
	CHECK_INT(request.inputs[0].n_tokens, 99990);
	request_finish(&request);
}

TEST(a_body_over_the_limit_is_too_large) {
	char *body = calloc(1, limits.body_bytes + 1);
	CHECK(body);
	CHECK(!request_parse(REQUEST_COMPLETION, body, limits.body_bytes + 1, &limits, &request,
	                &error));
	CHECK_INT(error.code, ERROR_REQUEST_TOO_LARGE);
	free(body);
}

/* ---- /v1/plan --------------------------------------------------------------------------------- */

static bool parse_plan(const char *body) {
	error = (struct error){ 0 };
	return request_parse_plan(body, strlen(body), &limits, &request, &error);
}

TEST(a_plan_is_for_completions_unless_it_says) {
	CHECK(parse_plan("{\"prompt\": \"a\", \"latency_budget_ms\": 50}"));
	CHECK_INT(request.kind, REQUEST_COMPLETION);
	CHECK(request.latency_budget_ms == 50);
	request_finish(&request);
}

TEST(a_plan_can_be_for_another_route) {
	CHECK(parse_plan("{\"route\": \"/v1/chat/completions\", "
	                 "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}"));
	CHECK_INT(request.kind, REQUEST_CHAT);
	CHECK_INT(request.n_unknown, 0);
	request_finish(&request);
}

TEST(a_plan_for_an_unknown_route_is_refused) {
	CHECK(!parse_plan("{\"prompt\": \"a\", \"route\": \"/v1/nothing\"}"));
	CHECK_STR(error.param, "route");
	CHECK(!parse_plan("{\"prompt\": \"a\", \"route\": 5}"));
	CHECK_STR(error.param, "route");
}

/* ---- headers ---------------------------------------------------------------------------------- */

static void header(const char *name, const char *value) {
	request_apply_header(&request, name, value, &limits);
}

TEST(grpc_timeout_is_a_deadline) {
	static const struct {
		const char *value;
		double ms;
	} cases[] = { { "1H", 600000 }, { "2M", 120000 }, { "3S", 3000 }, { "250m", 250 },
		{ "5000u", 5 }, { "1000000n", 1 }, { " 7S ", 7000 }, { "99999999S", 600000 },
		{ "123456789S", 0 }, { "5", 0 }, { "5s", 0 }, { "S", 0 }, { "", 0 }, { "1 S", 0 } };
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		request = (struct request){ 0 };
		header("grpc-timeout", cases[i].value);
		if (fabs(request.deadline_ms - cases[i].ms) > 1e-9)
			check_fail(__FILE__, __LINE__, "%s is %g", cases[i].value,
			                request.deadline_ms);
		CHECK(!request.deadline_expired);
	}
}

TEST(headers_only_shorten) {
	request = (struct request){ .deadline_ms = 100, .latency_budget_ms = 50 };
	header("X-Envoy-Expected-Rq-Timeout-Ms", "200");
	CHECK(request.deadline_ms == 100);
	header("x-envoy-expected-rq-timeout-ms", "60");
	CHECK(request.deadline_ms == 60);
	header("grpc-timeout", "80m");
	CHECK(request.deadline_ms == 60);
	header("Prefer", "wait=1");
	CHECK(request.latency_budget_ms == 50);
}

TEST(prefer_wait_is_a_soft_budget_in_seconds) {
	request = (struct request){ 0 };
	header("Prefer", "respond-async, WAIT = 10; x=1");
	CHECK(request.latency_budget_ms == 10000);
	CHECK(request.deadline_ms == 0);
	header("Prefer", "wait=\"2\"");
	CHECK(request.latency_budget_ms == 2000);
	header("Prefer", "note=\"a, wait=1\"");
	CHECK(request.latency_budget_ms == 2000);
}

TEST(slo_headers_are_budgets) {
	request = (struct request){ 0 };
	header("x-slo-ttft-ms", "150.5");
	header("x-slo-tpot-ms", "20");
	CHECK(request.ttft_budget_ms == 150.5);
	CHECK(request.tpot_budget_ms == 20);
}

TEST(a_time_of_zero_or_less_has_expired) {
	static const char *const headers[][2] = { { "grpc-timeout", "0S" },
		{ "grpc-timeout", "-1S" }, { "x-envoy-expected-rq-timeout-ms", "0" },
		{ "x-slo-ttft-ms", "-5" }, { "prefer", "wait=0" } };
	for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
		request = (struct request){ 0 };
		header(headers[i][0], headers[i][1]);
		if (!request.deadline_expired)
			check_fail(__FILE__, __LINE__, "%s: %s", headers[i][0], headers[i][1]);
	}
}

TEST(ill_formed_times_are_ignored) {
	request = (struct request){ 0 };
	header("x-envoy-expected-rq-timeout-ms", "soon");
	header("x-slo-ttft-ms", "5ms");
	header("x-slo-tpot-ms", "");
	header("prefer", "wait=later");
	header("x-other", "0");
	CHECK(!request.deadline_expired && request.deadline_ms == 0 && request.ttft_budget_ms == 0);
	CHECK(request.tpot_budget_ms == 0 && request.latency_budget_ms == 0);
}

TEST(urgency_counts_from_three) {
	request = (struct request){ 0 };
	header("Priority", "u=1, i");
	CHECK(request.priority_set);
	CHECK_INT(request.priority, -2);
}

TEST(the_less_urgent_of_body_and_header_wins) {
	request = (struct request){ .priority = 2, .priority_set = true };
	header("Priority", "u=0");
	CHECK_INT(request.priority, 2);
	header("Priority", "i, u=7");
	CHECK_INT(request.priority, 4);
}

TEST(an_urgency_out_of_range_is_ignored) {
	request = (struct request){ 0 };
	header("Priority", "u=8");
	header("Priority", "u=-1");
	header("Priority", "u=10");
	header("Priority", "i");
	CHECK(!request.priority_set);
}

/* ---- errors ----------------------------------------------------------------------------------- */

TEST(an_error_is_one_object) {
	struct buffer b = { 0 };
	struct error e;
	CHECK(!error_set(&e, ERROR_INVALID_DEPTH, "depth", "Say \"%s\".", "6"));
	error_write(&b, &e, "req-1");
	CHECK_STR(buffer_cstr(&b),
	                "{\"error\":{\"message\":\"Say "
	                "\\\"6\\\".\",\"type\":\"invalid_request_error\","
	                "\"param\":\"depth\",\"code\":\"invalid_depth\",\"request_id\":\"req-1\"}"
	                "}");
	buffer_finish(&b);
}

TEST(an_unattainable_budget_says_what_would_fit) {
	struct buffer b = { 0 };
	struct error e;
	error_set(&e, ERROR_BUDGET_UNATTAINABLE_BUSY, "latency_budget_ms", "Too busy.");
	e.predicted_ms = 120.5;
	e.fitting_depth = 3;
	error_write(&b, &e, "r");
	CHECK(strstr(buffer_cstr(&b), "\"predicted_ms\":120.5,\"fitting_depth\":3}}"));
	CHECK(strstr(buffer_cstr(&b), "\"type\":\"overloaded_error\""));
	CHECK_INT(error_status(e.code), 503);
	CHECK_INT(error_should_retry(e.code), 1);
	buffer_finish(&b);
}

TEST(an_error_without_param_has_null) {
	struct buffer b = { 0 };
	struct error e;
	error_set(&e, ERROR_NOT_FOUND, NULL, "No.");
	error_write(&b, &e, "r");
	CHECK(strstr(buffer_cstr(&b), "\"param\":null"));
	buffer_finish(&b);
}
