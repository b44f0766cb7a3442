/* SPDX-License-Identifier: Apache-2.0 */
/* Which depths `auto` may choose, in which order. */
#include "server/ladder.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* An encoder's layer reads its weights for a whole source at once, a decoder's once for every token
 * of the answer. For a sentence and an answer of two or three dozen tokens each that is eight times
 * the work. */
#define DECODER_SHARE 8.0

int ladder_diagonal(const int layers[STACKS], int (*ret_rungs)[STACKS]) {
	int most = layers[0] > layers[1] ? layers[0] : layers[1];
	for (int t = 1; t <= most; t++) {
		for (int s = 0; s < STACKS; s++)
			ret_rungs[t - 1][s] = (layers[s] * t + most - 1) / most;
	}
	return most;
}

bool ladder_less_is_better(const char *metric) {
	static const char *const names[] = { "perplexity", "ppl", "loss", "nll", "nll_loss", "bpc",
		"bpb", "bits", "ter", "wer", "cer", "error", "error_rate" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (strcasecmp(metric, names[i]) == 0)
			return true;
	}
	return false;
}

/* ---- pairs in order of cost ---- */

struct candidate {
	int depth[STACKS];
	double cost, quality; /* quality: more is better */
};

/* By cost; of equal ones the better first, so that the others drop out behind it. */
static int compare_candidates(const void *a, const void *b) {
	const struct candidate *x = a, *y = b;
	if (x->cost != y->cost)
		return x->cost > y->cost ? 1 : -1;
	return (x->quality < y->quality) - (x->quality > y->quality);
}

static double cost_of(const int depth[STACKS], const double layer_cost[STACKS]) {
	double cost = 0;
	for (int s = 0; s < STACKS; s++)
		cost += depth[s] * layer_cost[s];
	return cost;
}

/* Those of ascending quality, in the order given. */
static int keep_better(const struct candidate *sorted, size_t n, int (*ret_rungs)[STACKS]) {
	int kept = 0;
	double best = 0;
	for (size_t i = 0; i < n; i++) {
		if (kept > 0 && sorted[i].quality <= best)
			continue;
		best = sorted[i].quality;
		memcpy(ret_rungs[kept++], sorted[i].depth, sizeof sorted[i].depth);
	}
	return kept;
}

int ladder_pareto(const struct depth_quality *quality, size_t n, const double layer_cost[STACKS],
                int (*ret_rungs)[STACKS]) {
	struct candidate *list = calloc(n + 1, sizeof *list);
	if (!list)
		return 0;
	for (size_t i = 0; i < n; i++) {
		const struct depth_quality *q = &quality[i];
		list[i] = (struct candidate){ { q->encoder_depth, q->depth } };
		list[i].cost = cost_of(list[i].depth, layer_cost);
		list[i].quality = ladder_less_is_better(q->metric) ? -q->value : q->value;
	}
	qsort(list, n, sizeof *list, compare_candidates);
	int kept = keep_better(list, n, ret_rungs);
	free(list);
	return kept;
}

/* ---- a model's ladder ---- */

static void layer_costs(const struct model *model, double ret_cost[STACKS]) {
	const size_t *bytes = model->weights.layer_bytes;
	bool known = bytes[STACK_ENCODER] > 0 && bytes[STACK_DECODER] > 0;
	for (int s = 0; s < STACKS; s++)
		ret_cost[s] = known ? (double)bytes[s] : 1;
	ret_cost[STACK_DECODER] *= DECODER_SHARE;
}

bool ladder_subnet(
                const struct ladder *ladder, const int depth[STACKS], struct subnet *ret_subnet) {
	const struct stack_facts *stack = ladder->model->facts.stack;
	bool whole = true;
	for (int s = 0; s < STACKS; s++)
		whole = whole && depth[s] == stack[s].layers;
	return model_subnet_pair(
	                ladder->model, whole ? PLAN_RULE_EVEN : ladder->rule, depth, ret_subnet);
}

/* The plan file's entries by cost, and the whole model. */
static int tuned_pairs(
                const struct model *model, const int layers[STACKS], int (*ret_rungs)[STACKS]) {
	size_t n = model->n_tuned;
	struct candidate *list = calloc(n + 1, sizeof *list);
	double layer_cost[STACKS];
	if (!list)
		return 0;
	layer_costs(model, layer_cost);
	for (size_t i = 0; i <= n; i++) {
		for (int s = 0; s < STACKS; s++)
			list[i].depth[s] = i < n ? model->tuned[i].stack[s].depth : layers[s];
		list[i].cost = list[i].quality = cost_of(list[i].depth, layer_cost);
	}
	qsort(list, n + 1, sizeof *list, compare_candidates);
	int kept = keep_better(list, n + 1, ret_rungs);
	free(list);
	return kept;
}

/* Leaves only what the rule can make. */
static void keep_existing(struct ladder *ladder) {
	struct subnet ignored;
	int kept = 0;
	for (int i = 0; i < ladder->n; i++) {
		if (ladder_subnet(ladder, ladder->rungs[i], &ignored))
			memmove(ladder->rungs[kept++], ladder->rungs[i], sizeof ladder->rungs[i]);
	}
	ladder->n = kept;
}

bool ladder_init(struct ladder *ladder, const struct model *model, enum plan_rule rule) {
	const struct stack_facts *stack = model->facts.stack;
	const int layers[STACKS] = { stack[STACK_ENCODER].layers, stack[STACK_DECODER].layers };
	bool pairs = layers[STACK_ENCODER] > 0 && layers[STACK_DECODER] > 0;
	double layer_cost[STACKS];
	*ladder = (struct ladder){ .model = model, .rule = rule };
	ladder->rungs = calloc(
	                MAX_LAYERS + model->n_quality + model->n_tuned + 1, sizeof *ladder->rungs);
	if (!ladder->rungs)
		return false;
	if (pairs && model->n_quality > 0) {
		layer_costs(model, layer_cost);
		ladder->n = ladder_pareto(
		                model->quality, model->n_quality, layer_cost, ladder->rungs);
		keep_existing(ladder);
	}
	/* A single measured pair leaves nothing to choose. */
	if (ladder->n < 2 && rule == PLAN_RULE_TUNED)
		ladder->n = tuned_pairs(model, layers, ladder->rungs);
	else if (ladder->n < 2)
		ladder->n = ladder_diagonal(layers, ladder->rungs);
	keep_existing(ladder);
	return ladder->n > 0;
}

void ladder_finish(struct ladder *ladder) {
	free(ladder->rungs);
	ladder->rungs = NULL;
}
