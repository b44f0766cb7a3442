/* SPDX-License-Identifier: Apache-2.0 */
/* Names that clients use: of the model, with what follows an '@', and of tiers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/resolve.h"
#include "server/resolve_parts.h"

const char *resolve_served_name(const struct model *model, const struct config *config) {
	return config->n_served_model_names > 0 ? config->served_model_names[0] : model->name;
}

static int layers_of_fraction(double fraction, int layers) {
	/* 0.7 x 10 is a little more than 7 in binary; it means 7. */
	int depth = (int)ceil(fraction * layers - 1e-9);
	return depth < 1 ? 1 : depth > layers ? layers : depth;
}

void resolve_main_stack(const struct model *model, int depth, int ret_depth[STACKS]) {
	for (int s = 0; s < STACKS; s++)
		ret_depth[s] = model->facts.stack[s].layers;
	ret_depth[model_main_stack(model)] = depth;
}

/* A part of every stack that the model has. */
static void all_stacks_at(const struct model *model, double fraction, int ret_depth[STACKS]) {
	for (int s = 0; s < STACKS; s++) {
		int layers = model->facts.stack[s].layers;
		ret_depth[s] = layers > 0 ? layers_of_fraction(fraction, layers) : 0;
	}
}

bool resolve_tier(const struct model *model, const struct config *config, const char *name,
                int ret_depth[STACKS]) {
	static const struct config_tier preset[] = { { "fast", 0.25, 0 }, { "balanced", 0.5, 0 },
		{ "full", 1.0, 0 } };
	int layers = model_layers(model);
	for (int i = 0; i < config->n_tiers; i++) {
		const struct config_tier *t = &config->tiers[i];
		if (strcmp(t->name, name) != 0)
			continue;
		if (t->fraction > 0)
			all_stacks_at(model, t->fraction, ret_depth);
		else
			resolve_main_stack(model, t->depth > layers ? layers : t->depth, ret_depth);
		return true;
	}
	for (size_t i = 0; i < sizeof preset / sizeof preset[0]; i++) {
		if (strcmp(preset[i].name, name) != 0)
			continue;
		all_stacks_at(model, preset[i].fraction, ret_depth);
		return true;
	}
	return false;
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

struct depth_spec resolve_suffix(const char *suffix) {
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
		depth = resolve_suffix(at + 1);
		int ignored[STACKS];
		if (depth.kind == DEPTH_NAME && !resolve_tier(model, config, depth.name, ignored))
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
