/* SPDX-License-Identifier: Apache-2.0 */
/* The depth fields of a request become a policy. */
#include <stdio.h>
#include <string.h>

#include "server/resolve.h"
#include "server/resolve_parts.h"

static bool has_pairs(const struct model *model) {
	return model->facts.stack[STACK_ENCODER].layers > 0
	                && model->facts.stack[STACK_DECODER].layers > 0;
}

static bool choose_rule(const struct model *model, const struct config *config,
                const struct request *request, enum plan_rule *ret_rule, struct error *e) {
	const char *name = request->plan_rule[0] ? request->plan_rule : config->plan_rule;
	*ret_rule = model->facts.plan_rule;
	if (!name[0])
		return true;
	if (!plan_rule_parse(name, ret_rule) || *ret_rule == PLAN_RULE_LAYERS)
		return error_set(e, ERROR_INVALID_REQUEST, "plan_rule",
		                "plan_rule must be \"even\", \"ends\", \"prefix\" or \"tuned\".");
	if (*ret_rule == PLAN_RULE_TUNED && model->n_tuned == 0)
		return error_set(e, ERROR_INVALID_DEPTH, "plan_rule",
		                "This model has no tuned plans; use \"even\", \"ends\" or "
		                "\"prefix\".");
	return true;
}

/* The tuned plans' depths, "2, 4, 6" or "6/3, 12/3". */
static void list_tuned(const struct model *model, bool pairs, char *text, size_t size) {
	size_t n = 0;
	text[0] = '\0';
	for (size_t i = 0; i < model->n_tuned && n + 16 < size; i++) {
		const struct plan *stack = model->tuned[i].stack;
		n += (size_t)snprintf(text + n, size - n, "%s", i ? ", " : "");
		if (pairs)
			n += (size_t)snprintf(text + n, size - n, "%d/", stack[0].depth);
		n += (size_t)snprintf(
		                text + n, size - n, "%d", stack[model_main_stack(model)].depth);
	}
}

bool resolve_subnet(const struct model *model, enum plan_rule rule, const int depth[STACKS],
                struct subnet *ret_subnet, struct error *e) {
	bool whole = true;
	for (int s = 0; s < STACKS; s++)
		whole = whole && depth[s] == model->facts.stack[s].layers;
	/* All layers are one plan, whatever the rule. */
	if (model_subnet_pair(model, whole ? PLAN_RULE_EVEN : rule, depth, ret_subnet))
		return true;
	char depths[256];
	list_tuned(model, has_pairs(model), depths, sizeof depths);
	if (has_pairs(model))
		return error_set(e, ERROR_INVALID_DEPTH, "depth",
		                "The tuned plans of this model have no encoder of %d with a "
		                "decoder of %d layers; they have %s (encoder/decoder).",
		                depth[STACK_ENCODER], depth[STACK_DECODER], depths);
	return error_set(e, ERROR_INVALID_DEPTH, "depth",
	                "The tuned plans of this model have no depth %d; they have %s.",
	                depth[model_main_stack(model)], depths);
}

/* One stack's part of `field`, a pair or a number; `value` 0 was not given. */
static bool check_stack(const struct model *model, const char *field, enum stack stack, bool pair,
                int64_t value, struct error *e) {
	int layers = model->facts.stack[stack].layers;
	bool encoder = stack == STACK_ENCODER;
	char name[32];
	if (value == 0 || (value >= 1 && value <= layers))
		return true;
	if (layers == 0 && encoder)
		return error_set(e, ERROR_INVALID_DEPTH, field,
		                "This model has no encoder; send %s as a number from 1 to %d.",
		                field, model_layers(model));
	if (layers == 0)
		return error_set(e, ERROR_INVALID_DEPTH, field,
		                "This model is an encoder alone; send %s as a number from 1 to %d.",
		                field, model_layers(model));
	if (!pair)
		return error_set(e, ERROR_INVALID_DEPTH, field,
		                "%s is %lld, but this model%s has %d layers; use 1 to %d.", field,
		                (long long)value, has_pairs(model) ? "'s decoder" : "", layers,
		                layers);
	snprintf(name, sizeof name, "%s.%s", field, encoder ? "encoder" : "decoder");
	return error_set(e, ERROR_INVALID_DEPTH, name,
	                "%s must be 1..%d, the layers of this model's %s, but it is %lld.", name,
	                layers, encoder ? "encoder" : "decoder", (long long)value);
}

/*
 * What a field such as {"encoder": 12, "decoder": 6} says for each stack, 0 where it says nothing. A
 * single number speaks of the main stack; the parser puts it where the decoder's goes.
 */
static bool read_stacks(const struct model *model, const char *field, int64_t encoder,
                int64_t decoder, int ret_depth[STACKS], struct error *e) {
	int64_t value[STACKS] = { encoder, decoder };
	if (model->facts.stack[STACK_DECODER].layers == 0 && encoder == 0) {
		value[STACK_ENCODER] = decoder;
		value[STACK_DECODER] = 0;
	}
	for (int s = 0; s < STACKS; s++) {
		if (!check_stack(model, field, (enum stack)s, encoder > 0, value[s], e))
			return false;
		ret_depth[s] = (int)value[s];
	}
	return true;
}

/* Layers that a spec stands for: none for auto; false with a sentence for what does not exist. */
bool resolve_spec(const struct model *model, const struct config *config,
                const struct depth_spec *spec, int ret_depth[STACKS], struct error *e) {
	int layers = model_layers(model);
	memset(ret_depth, 0, STACKS * sizeof ret_depth[0]);
	switch (spec->kind) {
	case DEPTH_UNSET:
	case DEPTH_AUTO:
		return true;
	case DEPTH_FULL:
		resolve_main_stack(model, layers, ret_depth);
		return true;
	case DEPTH_NAME:
		if (resolve_tier(model, config, spec->name, ret_depth))
			return true;
		return error_set(e, ERROR_INVALID_DEPTH, "depth",
		                "\"%.60s\" is no tier of this server; use a number from 1 to %d, "
		                "\"full\", \"auto\" or a tier such as \"fast\".",
		                spec->name, layers);
	case DEPTH_NUMBER:
		if (!read_stacks(model, "depth", spec->encoder, spec->decoder, ret_depth, e))
			return false;
		if (ret_depth[STACK_ENCODER] == 0 && ret_depth[STACK_DECODER] == 0)
			return error_set(e, ERROR_INVALID_DEPTH, "depth",
			                "depth is 0, but this model has %d layers; use 1 to %d.",
			                layers, layers);
		/* A stack that is not spoken of runs whole. */
		for (int s = 0; s < STACKS; s++) {
			if (ret_depth[s] == 0)
				ret_depth[s] = model->facts.stack[s].layers;
		}
		return true;
	}
	return true;
}

static bool is_none(const int depth[STACKS]) {
	return depth[STACK_ENCODER] == 0 && depth[STACK_DECODER] == 0;
}

static void name_spec(const struct depth_spec *spec, char *text, size_t size) {
	switch (spec->kind) {
	case DEPTH_UNSET:
		snprintf(text, size, "default");
		break;
	case DEPTH_NUMBER:
		if (spec->encoder > 0 && spec->decoder > 0)
			snprintf(text, size, "%lld,%lld", (long long)spec->encoder,
			                (long long)spec->decoder);
		else
			snprintf(text, size, "%lld",
			                (long long)(spec->decoder > 0 ? spec->decoder
			                                              : spec->encoder));
		break;
	case DEPTH_FULL:
		snprintf(text, size, "full");
		break;
	case DEPTH_AUTO:
		snprintf(text, size, "auto");
		break;
	case DEPTH_NAME:
		snprintf(text, size, "%s", spec->name);
		break;
	}
}

static bool read_bounds(const struct model *model, const struct request *request,
                struct depth_policy *policy, struct error *e) {
	static const char *const names[STACKS] = { "encoder", "decoder" };
	if (!read_stacks(model, "min_depth", request->encoder_min_depth, request->min_depth,
	                    policy->min_depth, e)
	                || !read_stacks(model, "max_depth", request->encoder_max_depth,
	                                request->max_depth, policy->max_depth, e))
		return false;
	for (int s = 0; s < STACKS; s++) {
		int layers = model->facts.stack[s].layers;
		int *min = &policy->min_depth[s], *max = &policy->max_depth[s];
		if (layers > 0 && *min == 0)
			*min = 1;
		if (*max == 0)
			*max = layers;
		if (*min <= *max)
			continue;
		const char *of = has_pairs(model) ? names[s] : NULL;
		return error_set(e, ERROR_INVALID_DEPTH, "min_depth",
		                "min_depth%s%s is %d and max_depth%s%s %d; the first must not be "
		                "greater.",
		                of ? "." : "", of ? of : "", *min, of ? "." : "", of ? of : "",
		                *max);
	}
	return true;
}

/* One stack of an explicit plan; NULL: all of it. */
static bool use_stack(const struct model *model, enum stack stack, const int64_t *layers, size_t n,
                struct plan *ret_plan, struct error *e) {
	char sentence[200], name[24] = "layers";
	int of = model->facts.stack[stack].layers;
	if (of == 0)
		return true;
	if (!layers) {
		plan_by_rule(PLAN_RULE_EVEN, of, of, ret_plan);
		return true;
	}
	if (plan_from_list(of, layers, n, ret_plan, sentence, sizeof sentence))
		return true;
	if (has_pairs(model))
		snprintf(name, sizeof name, "layers.%s",
		                stack == STACK_ENCODER ? "encoder" : "decoder");
	return error_set(e, ERROR_INVALID_LAYERS, name, "In %s, %s.", name, sentence);
}

/* An explicit plan. */
static bool use_layers(const struct model *model, const struct request *request,
                struct depth_policy *policy, struct error *e) {
	const int64_t *lists[STACKS] = { request->encoder_layers, request->layers };
	size_t n[STACKS] = { request->n_encoder_layers, request->n_layers };
	const struct stack_facts *stack = model->facts.stack;
	if (stack[STACK_ENCODER].layers == 0 && lists[STACK_ENCODER])
		return error_set(e, ERROR_INVALID_LAYERS, "layers",
		                "This model has no encoder; send layers as one list.");
	if (stack[STACK_DECODER].layers == 0 && lists[STACK_ENCODER] && lists[STACK_DECODER])
		return error_set(e, ERROR_INVALID_LAYERS, "layers",
		                "This model is an encoder alone; send layers as one list.");
	if (stack[STACK_DECODER].layers == 0 && !lists[STACK_ENCODER]) {
		lists[STACK_ENCODER] = lists[STACK_DECODER];
		n[STACK_ENCODER] = n[STACK_DECODER];
	}
	memset(&policy->subnet, 0, sizeof policy->subnet);
	policy->rule = PLAN_RULE_LAYERS;
	policy->reason = REASON_EXPLICIT;
	snprintf(policy->requested, sizeof policy->requested, "layers");
	for (int s = 0; s < STACKS; s++) {
		if (!use_stack(model, (enum stack)s, lists[s], n[s], &policy->subnet.stack[s], e))
			return false;
	}
	return true;
}

/* Whether the plan file, or the whole model, lies within the bounds. */
static bool tuned_within(const struct model *model, const struct depth_policy *policy) {
	for (size_t i = 0; i <= model->n_tuned; i++) {
		bool within = true;
		for (int s = 0; s < STACKS; s++) {
			int depth = i < model->n_tuned ? model->tuned[i].stack[s].depth
			                               : model->facts.stack[s].layers;
			within = within && depth >= policy->min_depth[s]
			                && depth <= policy->max_depth[s];
		}
		if (within)
			return true;
	}
	return false;
}

/* The server chooses: some depth within the bounds must exist. */
static bool use_auto(const struct model *model, struct depth_policy *policy, struct error *e) {
	policy->automatic = true;
	policy->reason = REASON_BUDGET;
	if (policy->rule != PLAN_RULE_TUNED || tuned_within(model, policy))
		return true;
	enum stack stack = model_main_stack(model);
	if (has_pairs(model))
		return error_set(e, ERROR_INVALID_DEPTH, "min_depth",
		                "The tuned plans of this model have no pair of depths within "
		                "min_depth and max_depth.");
	return error_set(e, ERROR_INVALID_DEPTH, "min_depth",
	                "The tuned plans of this model have no depth from %d to %d.",
	                policy->min_depth[stack], policy->max_depth[stack]);
}

bool resolve_check_config(
                const struct model *model, const struct config *config, char *err, size_t errlen) {
	const char *name = config->default_depth[0] ? config->default_depth : "full";
	struct depth_spec spec = resolve_suffix(name);
	struct request bare = { 0 };
	struct subnet ignored;
	enum plan_rule rule;
	struct error e;
	int depth[STACKS];
	if (!choose_rule(model, config, &bare, &rule, &e)) {
		snprintf(err, errlen, "plan-rule \"%s\" does not fit this model: %s",
		                config->plan_rule, e.message);
		return false;
	}
	if (resolve_spec(model, config, &spec, depth, &e)
	                && (is_none(depth) || resolve_subnet(model, rule, depth, &ignored, &e)))
		return true;
	snprintf(err, errlen, "default-depth \"%s\" does not fit this model: %s", name, e.message);
	return false;
}

/* `default_depth` of the config; a loaded model has passed resolve_check_config. */
static void default_depth(const struct model *model, const struct config *config,
                struct depth_spec *ret_spec, int ret_depth[STACKS]) {
	struct error ignored;
	*ret_spec = resolve_suffix(config->default_depth[0] ? config->default_depth : "full");
	if (resolve_spec(model, config, ret_spec, ret_depth, &ignored))
		return;
	ret_spec->kind = DEPTH_FULL;
	resolve_main_stack(model, model_layers(model), ret_depth);
}

static bool use_default(const struct model *model, const struct config *config,
                struct depth_policy *policy, struct error *e) {
	struct depth_spec spec;
	int depth[STACKS];
	default_depth(model, config, &spec, depth);
	name_spec(&spec, policy->requested, sizeof policy->requested);
	if (is_none(depth))
		return use_auto(model, policy, e);
	policy->reason = REASON_DEFAULT;
	/* The client's bounds hold for what the server chooses by default, too. */
	for (int s = 0; s < STACKS; s++) {
		if (depth[s] < policy->min_depth[s])
			depth[s] = policy->min_depth[s];
		if (depth[s] > policy->max_depth[s])
			depth[s] = policy->max_depth[s];
	}
	return resolve_subnet(model, policy->rule, depth, &policy->subnet, e);
}

/* A binding depth must keep to the client's own bounds. */
static bool within_bounds(const struct model *model, const struct depth_policy *policy,
                const int depth[STACKS], struct error *e) {
	static const char *const names[STACKS] = { ".encoder", ".decoder" };
	for (int s = 0; s < STACKS; s++) {
		int min = policy->min_depth[s], max = policy->max_depth[s];
		if (depth[s] >= min && depth[s] <= max)
			continue;
		return error_set(e, ERROR_INVALID_DEPTH, "depth",
		                "depth%s is %d, outside of min_depth and max_depth (%d to %d).",
		                has_pairs(model) ? names[s] : "", depth[s], min, max);
	}
	return true;
}

bool resolve_policy(const struct model *model, const struct config *config,
                const struct request *request, struct depth_policy *ret_policy, struct error *e) {
	struct depth_policy policy = { .allow_step_down = request->allow_step_down };
	struct depth_spec suffix, spec = request->depth;
	if (!resolve_model_name(model, config, request, &suffix, e)
	                || !choose_rule(model, config, request, &policy.rule, e)
	                || !read_bounds(model, request, &policy, e))
		return false;

	int depth[STACKS], suffix_layers[STACKS];
	if (!resolve_spec(model, config, &spec, depth, e)
	                || !resolve_spec(model, config, &suffix, suffix_layers, e))
		return false;
	if (suffix.kind != DEPTH_UNSET) {
		if (request->has_layers
		                || (spec.kind != DEPTH_UNSET
		                                && memcmp(depth, suffix_layers, sizeof depth) != 0))
			return error_set(e, ERROR_INVALID_DEPTH, "depth",
			                "The model name asks for another depth than %s; send one "
			                "of "
			                "them.",
			                request->has_layers ? "layers" : "depth");
		if (spec.kind == DEPTH_UNSET) {
			spec = suffix;
			memcpy(depth, suffix_layers, sizeof depth);
		}
	}

	*ret_policy = policy;
	if (request->has_layers)
		return use_layers(model, request, ret_policy, e);
	bool budget = request->latency_budget_ms > 0 || request->ttft_budget_ms > 0
	                || request->tpot_budget_ms > 0;
	if (spec.kind == DEPTH_UNSET && budget)
		spec.kind = DEPTH_AUTO;
	if (spec.kind == DEPTH_UNSET)
		return use_default(model, config, ret_policy, e);
	name_spec(&spec, ret_policy->requested, sizeof ret_policy->requested);
	if (spec.kind == DEPTH_AUTO)
		return use_auto(model, ret_policy, e);
	ret_policy->reason = REASON_EXPLICIT;
	return within_bounds(model, &policy, depth, e)
	                && resolve_subnet(model, policy.rule, depth, &ret_policy->subnet, e);
}
