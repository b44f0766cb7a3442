/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: the rules, the checks, and nesting. Pure integer arithmetic, no memory of its own. */
#include "model/plan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const rule_names[] = {
	[PLAN_RULE_EVEN] = "even",
	[PLAN_RULE_ENDS] = "ends",
	[PLAN_RULE_PREFIX] = "prefix",
	[PLAN_RULE_TUNED] = "tuned",
	[PLAN_RULE_LAYERS] = "layers",
};

/* The i-th layer of `depth` layers out of `of`. */
static int rule_layer(enum plan_rule rule, int of, int depth, int i) {
	switch (rule) {
	case PLAN_RULE_EVEN:
		return i * of / depth;
	case PLAN_RULE_ENDS:
		/* i (of - 1) / (depth - 1) rounded to the nearest, halves upwards. */
		return depth == 1 ? 0 : (2 * i * (of - 1) + depth - 1) / (2 * (depth - 1));
	case PLAN_RULE_PREFIX:
		return i;
	case PLAN_RULE_TUNED:
	case PLAN_RULE_LAYERS:
		break;
	}
	assert(!"a rule without a formula");
	return i;
}

void plan_by_rule(enum plan_rule rule, int of, int depth, struct plan *ret_plan) {
	assert(1 <= depth && depth <= of && of <= MAX_LAYERS);
	memset(ret_plan, 0, sizeof *ret_plan);
	ret_plan->of = of;
	ret_plan->depth = depth;
	for (int i = 0; i < depth; i++)
		ret_plan->layers[i] = (int16_t)rule_layer(rule, of, depth, i);
}

bool plan_from_list(int of, const int64_t *layers, size_t n, struct plan *ret_plan, char *err,
                size_t errlen) {
	assert(1 <= of && of <= MAX_LAYERS);
	if (n == 0) {
		snprintf(err, errlen, "the list of layers is empty: keep at least one of 0 to %d",
		                of - 1);
		return false;
	}
	struct plan plan = { .of = of };
	for (size_t i = 0; i < n; i++) {
		if (layers[i] < 0 || layers[i] >= of) {
			snprintf(err, errlen,
			                "layer %" PRId64 " does not exist: layers go from 0 to %d",
			                layers[i], of - 1);
			return false;
		}
		if (i > 0 && layers[i] == layers[i - 1]) {
			snprintf(err, errlen, "layer %" PRId64 " is listed twice", layers[i]);
			return false;
		}
		if (i > 0 && layers[i] < layers[i - 1]) {
			snprintf(err, errlen,
			                "layer %" PRId64 " follows layer %" PRId64
			                ": list the layers in ascending order",
			                layers[i], layers[i - 1]);
			return false;
		}
		plan.layers[plan.depth++] = (int16_t)layers[i]; /* ascending, so at most `of` */
	}
	*ret_plan = plan;
	return true;
}

void plan_nested(const struct plan *plan, enum plan_rule rule, int depth, struct plan *ret_plan) {
	assert(1 <= depth && depth <= plan->depth);
	/* Choice i is one of plan->layers[i .. i + slack]. best[i][s]: the least distance of choices
	 * i .. depth - 1 when choice i is at least plan->layers[i + s]; at most 255 * 256. The
	 * window has at most 128 x 129 places. */
	int slack = plan->depth - depth, width = slack + 1;
	uint16_t best[(MAX_LAYERS / 2) * (MAX_LAYERS / 2 + 1)];
	for (int i = depth - 1; i >= 0; i--) {
		int target = rule_layer(rule, plan->of, depth, i);
		for (int s = slack; s >= 0; s--) {
			int cost = abs(plan->layers[i + s] - target);
			if (i + 1 < depth)
				cost += best[(i + 1) * width + s];
			if (s < slack && best[i * width + s + 1] < cost)
				cost = best[i * width + s + 1];
			best[i * width + s] = (uint16_t)cost;
		}
	}
	struct plan nested = { .of = plan->of, .depth = depth };
	for (int i = 0, s = 0; i < depth; i++) {
		/* Pass over a layer only if that is strictly better. */
		while (s < slack && best[i * width + s + 1] == best[i * width + s]) {
			int cost = abs(plan->layers[i + s] - rule_layer(rule, plan->of, depth, i));
			if (i + 1 < depth)
				cost += best[(i + 1) * width + s];
			if (cost == best[i * width + s])
				break;
			s++;
		}
		nested.layers[i] = plan->layers[i + s];
	}
	*ret_plan = nested;
}

bool plan_equal(const struct plan *a, const struct plan *b) {
	return a->of == b->of && a->depth == b->depth
	                && memcmp(a->layers, b->layers, (size_t)a->depth * sizeof a->layers[0])
	                == 0;
}

bool plan_contains(const struct plan *outer, const struct plan *inner) {
	if (outer->of != inner->of)
		return false;
	int o = 0;
	for (int i = 0; i < inner->depth; i++) {
		while (o < outer->depth && outer->layers[o] < inner->layers[i])
			o++;
		if (o == outer->depth || outer->layers[o] != inner->layers[i])
			return false;
	}
	return true;
}

int plan_rank(const struct plan *plan, int layer) {
	int low = 0, high = plan->depth;
	while (low < high) {
		int middle = (low + high) / 2;
		if (plan->layers[middle] < layer)
			low = middle + 1;
		else
			high = middle;
	}
	return low < plan->depth && plan->layers[low] == layer ? low : -1;
}

const char *plan_rule_name(enum plan_rule rule) {
	return rule_names[rule];
}

bool plan_rule_parse(const char *name, enum plan_rule *ret_rule) {
	for (size_t i = 0; i < sizeof rule_names / sizeof rule_names[0]; i++) {
		if (strcmp(name, rule_names[i]) == 0) {
			*ret_rule = (enum plan_rule)i;
			return true;
		}
	}
	return false;
}
