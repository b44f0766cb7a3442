/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ladders: the depths that the server may choose from for an `auto` request, from the cheapest to
 * the deepest. A model with one stack has a rung for each depth. A model with two walks pairs: those
 * that no measured pair beats in cost and quality, if its quality.json lists pairs, else
 * (ceil(E t / M), ceil(D t / M)) for t = 1 .. M = max(E, D).
 */
#ifndef FATHOM_SERVER_LADDER_H
#define FATHOM_SERVER_LADDER_H

#include "model/model.h"

/* Immutable after ladder_init. */
struct ladder {
	const struct model *model;
	enum plan_rule rule;
	int n;
	int (*rungs)[STACKS]; /* [n] depths; 0 for a stack that the model lacks */
};

/* EVEN, ENDS, PREFIX or TUNED; `model` must outlive the ladder. False if memory ran out. */
bool ladder_init(struct ladder *ladder, const struct model *model, enum plan_rule rule);
void ladder_finish(struct ladder *ladder);

/*
 * The subnet with these depths by the ladder's rule; all layers are one plan, whatever the rule.
 * False if a plan file does not list them.
 */
bool ladder_subnet(const struct ladder *ladder, const int depth[STACKS], struct subnet *ret_subnet);

/*
 * The pairs of the diagonal: [max(E, D)]. A stack without layers stays 0. Returns their number.
 */
int ladder_diagonal(const int layers[STACKS], int (*ret_rungs)[STACKS]);

/* Whether less of a metric is better ("perplexity" and its like). */
bool ladder_less_is_better(const char *metric);

/*
 * The entries that none of the others beats: ascending in cost, the sum of depth x layer_cost, and
 * in quality; [n]. Returns their number.
 */
int ladder_pareto(const struct depth_quality *quality, size_t n, const double layer_cost[STACKS],
                int (*ret_rungs)[STACKS]);

#endif
