/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to choose layers, on losses whose best plans are known by construction. */
#include <math.h>

#include "cli/strategy.h"
#include "tests/check.h"

enum { LAYERS = 10 };

/* What each layer takes off the loss: all different, no order. */
static const double worth[LAYERS] = { 9, 2.5, 3.25, 1.5, 6, 0.5, 4, 0.25, 5, 8 };

struct world {
	int asked;
	int fail_at; /* 0: never */
};

static bool additive(void *arg, const struct plan *plan, double *ret_loss) {
	struct world *w = arg;
	double loss = 100;
	for (int i = 0; i < plan->depth; i++)
		loss -= worth[plan->layers[i]];
	*ret_loss = loss;
	return ++w->asked != w->fail_at;
}

static struct strategy strategy_of(struct world *w, int budget) {
	return (struct strategy){ .layers = LAYERS,
		.shallowest = 1,
		.budget = budget,
		.beam = 1,
		.exhaustive = 1,
		.loss = additive,
		.arg = w };
}

/* Whether the plan holds the `depth` layers that are worth most. */
static bool is_best(const struct plan *plan) {
	for (int i = 0; i < LAYERS; i++) {
		int better = 0;
		for (int k = 0; k < LAYERS; k++)
			better += worth[k] > worth[i];
		if ((better < plan->depth) != (plan_rank(plan, i) >= 0))
			return false;
	}
	return true;
}

TEST(a_greedy_search_finds_what_adds_up) {
	struct world w = { 0 };
	struct strategy s = strategy_of(&w, 1000);
	struct strategy_result results[LAYERS];
	int used = strategy_search(&s, results);
	CHECK_INT(used, w.asked);
	for (int depth = 1; depth < LAYERS; depth++) {
		CHECK(results[depth - 1].found);
		CHECK_INT(results[depth - 1].plan.depth, depth);
		CHECK(is_best(&results[depth - 1].plan));
		CHECK(results[depth - 1].loss <= results[depth - 1].even_loss);
	}
}

/* Layers 3 and 7 are worth something only together: a search that walks one by one misses it. */
static bool together(void *arg, const struct plan *plan, double *ret_loss) {
	double loss;
	additive(arg, plan, &loss);
	bool both = plan_rank(plan, 3) >= 0 && plan_rank(plan, 7) >= 0;
	*ret_loss = loss - (both && plan->depth == 2 ? 90 : 0);
	return true;
}

TEST(a_depth_with_few_plans_is_tried_whole) {
	struct world w = { 0 };
	struct strategy s = strategy_of(&w, 1000);
	struct strategy_result results[LAYERS];
	s.loss = together;
	strategy_search(&s, results);
	CHECK(plan_rank(&results[1].plan, 3) < 0);
	s.exhaustive = 45; /* 10 over 2 */
	strategy_search(&s, results);
	CHECK_INT(results[1].plan.layers[0], 3);
	CHECK_INT(results[1].plan.layers[1], 7);
}

TEST(no_plan_is_evaluated_twice_and_the_budget_holds) {
	struct strategy_result results[LAYERS];
	for (int budget = 20; budget < 80; budget += 13) {
		struct world w = { 0 };
		struct strategy s = strategy_of(&w, budget);
		s.beam = 3;
		CHECK_INT(strategy_search(&s, results), w.asked);
		/* The whole model, and two rules at each depth, whatever the budget. */
		CHECK(w.asked <= (budget > 1 + 2 * (LAYERS - 1) ? budget : 1 + 2 * (LAYERS - 1)));
		for (int depth = 1; depth < LAYERS; depth++)
			CHECK(results[depth - 1].found
			                && results[depth - 1].loss <= results[depth - 1].even_loss);
	}
}

TEST(importance_is_learnt_and_the_top_kept) {
	struct world w = { 0 };
	struct strategy s = strategy_of(&w, 400);
	struct strategy_result results[LAYERS];
	double importance[LAYERS];
	CHECK(strategy_importance(&s, importance, results) > 0);
	for (int i = 0; i < LAYERS; i++) {
		for (int k = 0; k < LAYERS; k++)
			CHECK((worth[i] > worth[k]) == (importance[i] > importance[k]));
	}
	for (int depth = 1; depth < LAYERS; depth++)
		CHECK(is_best(&results[depth - 1].plan));
}

TEST(a_loss_that_cannot_be_had_ends_the_search) {
	struct strategy_result results[LAYERS];
	double importance[LAYERS];
	struct world w = { .fail_at = 30 }, v = { .fail_at = 30 };
	struct strategy s = strategy_of(&w, 1000), t = strategy_of(&v, 1000);
	CHECK_INT(strategy_search(&s, results), -1);
	CHECK_INT(w.asked, 30);
	CHECK_INT(strategy_importance(&t, importance, results), -1);
	CHECK_INT(v.asked, 30);
}

TEST(a_model_of_one_layer_has_nothing_to_search) {
	struct world w = { 0 };
	struct strategy s = strategy_of(&w, 100);
	struct strategy_result results[LAYERS];
	s.layers = 1;
	CHECK_INT(strategy_search(&s, results), 1);
	double importance[LAYERS];
	CHECK_INT(strategy_importance(&s, importance, results), 0);
}
