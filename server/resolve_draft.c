/* SPDX-License-Identifier: Apache-2.0 */
/* `speculative`: whether and how shallower plans may draft for a request. */
#include <string.h>

#include "server/resolve.h"
#include "server/resolve_parts.h"

/* The deepest plan that the decoder may run at. */
static int deepest(const struct depth_policy *policy) {
	return policy->automatic ? policy->max_depth[STACK_DECODER]
	                         : policy->subnet.stack[STACK_DECODER].depth;
}

static bool check_depth(const struct job *job, struct error *e) {
	int depth = deepest(&job->policy);
	int64_t draft = job->request.speculative.draft_depth;
	if (draft < depth)
		return true;
	return error_set(e, ERROR_INVALID_DEPTH, "speculative.draft_depth",
	                "A draft of %lld layers is no shallower than the request's %d; ask for "
	                "fewer, or leave draft_depth out.",
	                (long long)draft, depth);
}

bool resolve_draft(const struct config *config, struct job *job, struct error *e) {
	const struct speculative_spec *spec = &job->request.speculative;
	enum plan_rule rule = job->policy.rule;
	bool asked = spec->kind == SPECULATIVE_ON;
	if (asked && !check_depth(job, e))
		return false;
	if (spec->kind == SPECULATIVE_UNSET)
		asked = strcmp(config->speculative, "on") == 0;
	job->draft = (struct draft_policy){
		.on = asked && strcmp(config->speculative, "never") != 0 && job->num_beams == 0,
		.depth = (int)spec->draft_depth,
		.tokens = spec->draft_tokens > 0 ? (int)spec->draft_tokens : config->draft_tokens,
		.rule = rule == PLAN_RULE_ENDS || rule == PLAN_RULE_PREFIX ? rule : PLAN_RULE_EVEN,
	};
	return true;
}
