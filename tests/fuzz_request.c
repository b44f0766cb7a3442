/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the body of any route, and as the value of any time header: parsed or refused with a
 * sentence, never a crash. Built with clang and -Dfuzz=true; run as
 * `fuzz_request CORPUS_FOLDER tests/json`.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/request.h"

enum { PLAN = REQUEST_KINDS };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct request_limits limits = {
	.body_bytes = 1 << 16,
	.json_depth = 64,
	.json_values = 1000,
	.prompts = 32,
	.inputs = 64,
	.n = 8,
	.best_of = 8,
	.beams = 16,
	.stops = 16,
	.stop_bytes = 256,
	.logit_bias = 300,
	.top_logprobs = 20,
	.fill_top_k = 100,
	.max_tokens = 1000000,
	.deadline_ms = 600000,
	.priority_min = -10,
	.priority_max = 10,
};

/* A refusal has a code, a sentence, and a body that can be written. */
static void check_refusal(const struct error *error) {
	struct buffer b = { 0 };
	if (error->code == ERROR_NONE || !error->message[0])
		abort();
	error_write(&b, error, "id");
	buffer_finish(&b);
}

/* What other parts rely on. */
static void check_request(const struct request *r) {
	if (r->n < 1 || r->n > limits.n || r->best_of < r->n || r->best_of > limits.best_of)
		abort();
	bool many = r->kind == REQUEST_EMBEDDING || r->kind == REQUEST_CLASSIFY;
	if (r->n_inputs > (size_t)(many ? limits.inputs : limits.prompts)
	                || r->n_stops > (size_t)limits.stops)
		abort();
	if (r->priority < limits.priority_min || r->priority > limits.priority_max)
		abort();
	if (r->logprobs < -1 || r->logprobs > limits.top_logprobs || r->deadline_ms < 0)
		abort();
	for (size_t i = 0; i < r->n_inputs; i++)
		if (r->inputs[i].text && strlen(r->inputs[i].text) > r->inputs[i].text_len)
			abort();
	if (r->targets && r->n_targets != r->n_inputs)
		abort();
	if (r->num_beams.set && (r->num_beams.value < 1 || r->num_beams.value > limits.beams))
		abort();
	for (size_t i = 1; i < r->n_layers; i++)
		if (r->layers[i] <= r->layers[i - 1])
			abort();
}

static void apply_headers(struct request *r, const char *value) {
	static const char *const names[] = { "grpc-timeout", "x-envoy-expected-rq-timeout-ms",
		"Prefer", "x-slo-ttft-ms", "x-slo-tpot-ms", "Priority" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		request_apply_header(r, names[i], value, &limits);
}

static void parse_as(int route, const char *body, size_t len, const char *header) {
	struct request request = { 0 };
	struct error error = { 0 };
	bool ok = route == PLAN ? request_parse_plan(body, len, &limits, &request, &error)
	                        : request_parse((enum request_kind)route, body, len, &limits,
	                                        &request, &error);
	if (!ok)
		check_refusal(&error);
	apply_headers(&request, header);
	if (!ok)
		return;
	check_request(&request);
	request_finish(&request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	char *text = calloc(1, size + 1);
	if (!text)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	for (int route = 0; route <= PLAN; route++)
		parse_as(route, (const char *)data, size, text);
	free(text);
	return 0;
}
