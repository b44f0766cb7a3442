/* SPDX-License-Identifier: Apache-2.0 */
/* The limits that the contract documents: the server's own without any configuration. */
#ifndef FATHOM_TESTS_DOCUMENTED_LIMITS_H
#define FATHOM_TESTS_DOCUMENTED_LIMITS_H

#include "proto/request.h"

__attribute__((unused)) static const struct request_limits limits = {
	.body_bytes = 1 << 20,
	.json_depth = 64,
	.json_values = 100000,
	.prompts = 32,
	.inputs = 2048,
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

#endif
