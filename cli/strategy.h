/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paper's other ways to choose layers: searching on validation data, and importance learnt from
 * data. Both see a model as a function from a plan to a loss. Source: Fan, Grave, Joulin 2019, "Search
 * on Valid" and "Data Driven Pruning".
 */
#ifndef FATHOM_CLI_STRATEGY_H
#define FATHOM_CLI_STRATEGY_H

#include <stdbool.h>

#include "model/plan.h"

/* The loss of a plan: lower is better. False: it cannot be had, and the search ends. */
typedef bool strategy_loss(void *arg, const struct plan *plan, double *ret_loss);

struct strategy {
	int layers;
	int shallowest; /* depths from here to layers - 1 are wanted */
	int budget;     /* evaluations, at most */
	int beam;       /* search: plans that go on from each depth */
	int exhaustive; /* search: a depth with at most this many plans is tried whole */
	strategy_loss *loss;
	void *arg;
};

struct strategy_result {
	bool found;
	struct plan plan;
	double loss;      /* of it */
	double even_loss; /* of the even rule's plan */
};

/*
 * Search on valid: from all layers down, the best `beam` plans of each depth lose one layer more in
 * every way; depths with few plans are tried whole. The rules' own plans are always tried, so that
 * no depth gets worse than they are. `results` is [layers], by depth - 1. The budget is shared
 * out evenly over the depths; where a depth's share ends, the best plan so far is its own. Returns how
 * many plans were evaluated, or -1 on failure.
 */
int strategy_search(const struct strategy *s, struct strategy_result *results);

/*
 * Data driven: random plans of random depths are evaluated, and the importance of a layer is what
 * it takes off the loss among plans of its depth, by ridge regression. The top r are kept, in
 * order; the importances go to `importance` [layers].
 */
int strategy_importance(
                const struct strategy *s, double *importance, struct strategy_result *results);

#endif
