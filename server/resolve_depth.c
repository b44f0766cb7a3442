/* SPDX-License-Identifier: Apache-2.0 */
/* The depth half of resolve.h: model names, tiers, and the depth fields of a request. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/resolve.h"
#include "server/resolve_parts.h"

/* ---- names and tiers ---- */

const char *resolve_served_name(const struct model *model, const struct config *config) {
	return config->n_served_model_names > 0 ? config->served_model_names[0] : model->name;
}

static int layers_of_fraction(double fraction, int layers) {
	/* 0.7 x 10 is a little more than 7 in binary; it means 7. */
	int depth = (int)ceil(fraction * layers - 1e-9);
	return depth < 1 ? 1 : depth > layers ? layers : depth;
}

int resolve_tier(const struct model *model, const struct config *config, const char *name) {
	static const struct config_tier preset[] = { { "fast", 0.25, 0 }, { "balanced", 0.5, 0 },
		{ "full", 1.0, 0 } };
	int layers = model_layers(model);
	for (int i = 0; i < config->n_tiers; i++) {
		const struct config_tier *t = &config->tiers[i];
		if (strcmp(t->name, name) == 0)
			return t->fraction > 0 ? layers_of_fraction(t->fraction, layers)
			                : t->depth > layers ? layers
			                                    : t->depth;
	}
	for (size_t i = 0; i < sizeof preset / sizeof preset[0]; i++) {
		if (strcmp(preset[i].name, name) == 0)
			return layers_of_fraction(preset[i].fraction, layers);
	}
	return 0;
}

static bool is_served(const struct model *model, const struct config *config, const char *name,
                size_t len) {
	for (int i = 0; i < config->n_served_model_names; i++) {
		const char *served = config->served_model_names[i];
		if (strlen(served) == len && memcmp(served, name, len) == 0)
			return true;
	}
	return config->n_served_model_names == 0 && strlen(model->name) == len
	                && memcmp(model->name, name, len) == 0;
}

/* The part after '@': a number or a word that depth takes too. */
static struct depth_spec suffix_depth(const char *suffix) {
	struct depth_spec depth = { .kind = DEPTH_NAME };
	char *end;
	long number = strtol(suffix, &end, 10);
	if (suffix[0] >= '0' && suffix[0] <= '9' && *end == '\0') {
		depth.kind = DEPTH_NUMBER;
		depth.decoder = number;
	} else if (strcmp(suffix, "auto") == 0) {
		depth.kind = DEPTH_AUTO;
	} else if (strcmp(suffix, "full") == 0) {
		depth.kind = DEPTH_FULL;
	} else {
		snprintf(depth.name, sizeof depth.name, "%s", suffix);
	}
	return depth;
}

bool resolve_model_name(const struct model *model, const struct config *config,
                const struct request *request, struct depth_spec *ret_depth, struct error *e) {
	struct depth_spec depth = { .kind = DEPTH_UNSET };
	const char *name = request->model;
	if (name && name[0] && !is_served(model, config, name, strlen(name))) {
		const char *at = strrchr(name, '@');
		if (!at || !is_served(model, config, name, (size_t)(at - name)))
			return error_set(e, ERROR_MODEL_NOT_FOUND, "model",
			                "This server has no model of that name; it serves %.200s "
			                "(also "
			                "as %.100s@DEPTH).",
			                resolve_served_name(model, config),
			                resolve_served_name(model, config));
		depth = suffix_depth(at + 1);
		if (depth.kind == DEPTH_NAME && resolve_tier(model, config, depth.name) == 0)
			return error_set(e, ERROR_MODEL_NOT_FOUND, "model",
			                "\"@%.60s\" is neither a depth nor a tier of this model; "
			                "use "
			                "%.200s, or it followed by @1 to @%d or a tier such as "
			                "@fast.",
			                depth.name, resolve_served_name(model, config),
			                model_layers(model));
	}
	*ret_depth = depth;
	return true;
}

/* ---- policy ---- */

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

bool resolve_subnet(const struct model *model, enum plan_rule rule, int64_t depth,
                struct subnet *ret_subnet, struct error *e) {
	int layers = model_layers(model);
	if (depth < 1 || depth > layers)
		return error_set(e, ERROR_INVALID_DEPTH, "depth",
		                "depth is %lld, but this model has %d layers; use 1 to %d.",
		                (long long)depth, layers, layers);
	/* All layers are one plan, whatever the rule. */
	if (depth == layers)
		rule = PLAN_RULE_EVEN;
	if (model_subnet(model, rule, (int)depth, ret_subnet))
		return true;
	char depths[256] = "";
	size_t n = 0;
	for (size_t i = 0; i < model->n_tuned && n < sizeof depths - 8; i++)
		n += (size_t)snprintf(depths + n, sizeof depths - n, "%s%d", i ? ", " : "",
		                model->tuned[i].stack[STACK_DECODER].depth);
	return error_set(e, ERROR_INVALID_DEPTH, "depth",
	                "The tuned plans of this model have no depth %lld; they have %s.",
	                (long long)depth, depths);
}

/* Layers that a spec stands for: 0 for auto; false with a sentence for what does not exist. */
static bool spec_layers(const struct model *model, const struct config *config,
                const struct depth_spec *spec, int64_t *ret_depth, struct error *e) {
	int layers = model_layers(model);
	switch (spec->kind) {
	case DEPTH_UNSET:
	case DEPTH_AUTO:
		*ret_depth = 0;
		return true;
	case DEPTH_FULL:
		*ret_depth = layers;
		return true;
	case DEPTH_NAME:
		*ret_depth = resolve_tier(model, config, spec->name);
		if (*ret_depth > 0)
			return true;
		return error_set(e, ERROR_INVALID_DEPTH, "depth",
		                "\"%.60s\" is no tier of this server; use a number from 1 to %d, "
		                "\"full\", \"auto\" or a tier such as \"fast\".",
		                spec->name, layers);
	case DEPTH_NUMBER:
		if (spec->encoder != 0)
			return error_set(e, ERROR_INVALID_DEPTH, "depth",
			                "This model has no encoder; send depth as a number from 1 "
			                "to %d.",
			                layers);
		if (spec->decoder < 1 || spec->decoder > layers)
			return error_set(e, ERROR_INVALID_DEPTH, "depth",
			                "depth is %lld, but this model has %d layers; use 1 to %d.",
			                (long long)spec->decoder, layers, layers);
		*ret_depth = spec->decoder;
		return true;
	}
	return true;
}

static void name_spec(const struct depth_spec *spec, char *text, size_t size) {
	switch (spec->kind) {
	case DEPTH_UNSET:
		snprintf(text, size, "default");
		break;
	case DEPTH_NUMBER:
		snprintf(text, size, "%lld", (long long)spec->decoder);
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

static bool check_bound(const char *name, int64_t value, int layers, struct error *e) {
	if (value >= 0 && value <= layers)
		return true;
	return error_set(e, ERROR_INVALID_DEPTH, name,
	                "%s is %lld, but this model has %d layers; use 1 to %d.", name,
	                (long long)value, layers, layers);
}

static bool read_bounds(const struct model *model, const struct request *request,
                struct depth_policy *policy, struct error *e) {
	int layers = model_layers(model);
	if (!check_bound("min_depth", request->min_depth, layers, e)
	                || !check_bound("max_depth", request->max_depth, layers, e))
		return false;
	policy->min_depth = request->min_depth > 0 ? (int)request->min_depth : 1;
	policy->max_depth = request->max_depth > 0 ? (int)request->max_depth : layers;
	if (policy->min_depth <= policy->max_depth)
		return true;
	return error_set(e, ERROR_INVALID_DEPTH, "min_depth",
	                "min_depth is %d and max_depth %d; the first must not be greater.",
	                policy->min_depth, policy->max_depth);
}

/* An explicit plan. */
static bool use_layers(const struct model *model, const struct request *request,
                struct depth_policy *policy, struct error *e) {
	char sentence[200];
	if (request->encoder_layers)
		return error_set(e, ERROR_INVALID_LAYERS, "layers",
		                "This model has no encoder; send layers as one list.");
	memset(&policy->subnet, 0, sizeof policy->subnet);
	policy->rule = PLAN_RULE_LAYERS;
	policy->reason = REASON_EXPLICIT;
	snprintf(policy->requested, sizeof policy->requested, "layers");
	if (plan_from_list(model_layers(model), request->layers, request->n_layers,
	                    &policy->subnet.stack[STACK_DECODER], sentence, sizeof sentence))
		return true;
	return error_set(e, ERROR_INVALID_LAYERS, "layers", "In layers, %s.", sentence);
}

/* The server chooses: some depth within the bounds must exist. */
static bool use_auto(const struct model *model, struct depth_policy *policy, struct error *e) {
	policy->automatic = true;
	policy->reason = REASON_BUDGET;
	struct subnet subnet;
	for (int d = policy->min_depth; d <= policy->max_depth; d++) {
		if (model_subnet(model, policy->rule, d, &subnet) || d == model_layers(model))
			return true;
	}
	return error_set(e, ERROR_INVALID_DEPTH, "min_depth",
	                "The tuned plans of this model have no depth from %d to %d.",
	                policy->min_depth, policy->max_depth);
}

bool resolve_check_config(
                const struct model *model, const struct config *config, char *err, size_t errlen) {
	const char *name = config->default_depth[0] ? config->default_depth : "full";
	struct depth_spec spec = suffix_depth(name);
	struct request bare = { 0 };
	struct subnet ignored;
	enum plan_rule rule;
	struct error e;
	int64_t depth;
	if (!choose_rule(model, config, &bare, &rule, &e)) {
		snprintf(err, errlen, "plan-rule \"%s\" does not fit this model: %s",
		                config->plan_rule, e.message);
		return false;
	}
	if (spec_layers(model, config, &spec, &depth, &e)
	                && (depth == 0 || resolve_subnet(model, rule, depth, &ignored, &e)))
		return true;
	snprintf(err, errlen, "default-depth \"%s\" does not fit this model: %s", name, e.message);
	return false;
}

/* `default_depth` of the config; a loaded model has passed resolve_check_config. */
static int64_t default_depth(const struct model *model, const struct config *config,
                struct depth_spec *ret_spec) {
	int64_t depth;
	struct error ignored;
	*ret_spec = suffix_depth(config->default_depth[0] ? config->default_depth : "full");
	if (!spec_layers(model, config, ret_spec, &depth, &ignored)) {
		ret_spec->kind = DEPTH_FULL;
		depth = model_layers(model);
	}
	return depth;
}

static bool use_default(const struct model *model, const struct config *config,
                struct depth_policy *policy, struct error *e) {
	struct depth_spec spec;
	int64_t depth = default_depth(model, config, &spec);
	name_spec(&spec, policy->requested, sizeof policy->requested);
	if (depth == 0)
		return use_auto(model, policy, e);
	policy->reason = REASON_DEFAULT;
	/* The client's bounds hold for what the server chooses by default, too. */
	if (depth < policy->min_depth)
		depth = policy->min_depth;
	if (depth > policy->max_depth)
		depth = policy->max_depth;
	return resolve_subnet(model, policy->rule, depth, &policy->subnet, e);
}

bool resolve_policy(const struct model *model, const struct config *config,
                const struct request *request, struct depth_policy *ret_policy, struct error *e) {
	struct depth_policy policy = { .allow_step_down = request->allow_step_down };
	struct depth_spec suffix, spec = request->depth;
	if (!resolve_model_name(model, config, request, &suffix, e)
	                || !choose_rule(model, config, request, &policy.rule, e)
	                || !read_bounds(model, request, &policy, e))
		return false;

	int64_t depth, suffix_layers;
	if (!spec_layers(model, config, &spec, &depth, e)
	                || !spec_layers(model, config, &suffix, &suffix_layers, e))
		return false;
	if (suffix.kind != DEPTH_UNSET) {
		if (request->has_layers || (spec.kind != DEPTH_UNSET && depth != suffix_layers))
			return error_set(e, ERROR_INVALID_DEPTH, "depth",
			                "The model name asks for another depth than %s; send one "
			                "of "
			                "them.",
			                request->has_layers ? "layers" : "depth");
		if (spec.kind == DEPTH_UNSET) {
			spec = suffix;
			depth = suffix_layers;
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
	if (depth < policy.min_depth || depth > policy.max_depth)
		return error_set(e, ERROR_INVALID_DEPTH, "depth",
		                "depth is %lld, outside of min_depth and max_depth (%d to %d).",
		                (long long)depth, policy.min_depth, policy.max_depth);
	return resolve_subnet(model, policy.rule, depth, &ret_policy->subnet, e);
}
