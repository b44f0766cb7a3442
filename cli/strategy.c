/* SPDX-License-Identifier: Apache-2.0 */
/* Searching keep lists and learning what layers are worth. */
#include "cli/strategy.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A plan that was evaluated. */
struct tried {
	struct plan plan;
	double loss;
};

struct search {
	const struct strategy *s;
	struct tried *tried;
	int n, cap;
	int used;      /* evaluations */
	int allowance; /* no more than so many in all, for now */
	bool failed;
};

/* ---- evaluating each plan once ---- */

static const struct tried *known(const struct search *x, const struct plan *plan) {
	for (int i = 0; i < x->n; i++) {
		if (plan_equal(&x->tried[i].plan, plan))
			return &x->tried[i];
	}
	return NULL;
}

/* False if the budget or the memory is used up, or evaluating failed. `must`: whatever the budget. */
static bool evaluate(struct search *x, const struct plan *plan, bool must, double *ret_loss) {
	const struct tried *old = known(x, plan);
	if (old) {
		*ret_loss = old->loss;
		return true;
	}
	if (x->failed || (!must && x->used >= x->allowance))
		return false;
	if (x->n == x->cap) {
		int cap = x->cap ? 2 * x->cap : 256;
		struct tried *grown = realloc(x->tried, (size_t)cap * sizeof *grown);
		x->failed = !grown;
		if (!grown)
			return false;
		x->tried = grown;
		x->cap = cap;
	}
	if (!x->s->loss(x->s->arg, plan, ret_loss)) {
		x->failed = true;
		return false;
	}
	x->used++;
	x->tried[x->n++] = (struct tried){ *plan, *ret_loss };
	return true;
}

/* The best plans of a depth, best first; returns how many, at most `most`. */
static int best_of_depth(
                const struct search *x, int depth, struct plan *plans, double *losses, int most) {
	int n = 0;
	for (int i = 0; i < x->n; i++) {
		if (x->tried[i].plan.depth != depth
		                || (n == most && x->tried[i].loss >= losses[n - 1]))
			continue;
		int at = n < most ? n++ : n - 1;
		for (; at > 0 && x->tried[i].loss < losses[at - 1]; at--) {
			losses[at] = losses[at - 1];
			plans[at] = plans[at - 1];
		}
		losses[at] = x->tried[i].loss;
		plans[at] = x->tried[i].plan;
	}
	return n;
}

static void try_rules(struct search *x, int depth, struct strategy_result *result) {
	static const enum plan_rule rules[] = { PLAN_RULE_EVEN, PLAN_RULE_ENDS };
	struct plan plan;
	double loss;
	for (int i = 0; i < 2; i++) {
		plan_by_rule(rules[i], x->s->layers, depth, &plan);
		if (evaluate(x, &plan, true, &loss) && i == 0)
			result->even_loss = loss;
	}
}

static void conclude(const struct search *x, int depth, struct strategy_result *result) {
	struct plan plan;
	double loss;
	result->found = best_of_depth(x, depth, &plan, &loss, 1) == 1;
	if (!result->found)
		return;
	result->plan = plan;
	result->loss = loss;
}

/* ---- search on valid ---- */

/* Plans of depth r out of n, no more than `most` + 1. */
static int count_plans(int n, int r, int most) {
	double count = 1;
	for (int i = 1; i <= r; i++)
		count = count * (n - r + i) / i;
	return count > most ? most + 1 : (int)(count + 0.5);
}

static void try_all(struct search *x, int depth) {
	struct plan plan = { .of = x->s->layers, .depth = depth };
	double loss;
	for (int i = 0; i < depth; i++)
		plan.layers[i] = (int16_t)i;
	while (evaluate(x, &plan, false, &loss)) {
		/* The next combination. */
		int i = depth - 1;
		while (i >= 0 && plan.layers[i] == x->s->layers - depth + i)
			i--;
		if (i < 0)
			return;
		plan.layers[i]++;
		for (int k = i + 1; k < depth; k++)
			plan.layers[k] = (int16_t)(plan.layers[k - 1] + 1);
	}
}

/* Every way to take one layer off the best plans of depth + 1. */
static void try_children(struct search *x, int depth) {
	enum { MOST = 16 };
	struct plan parents[MOST];
	double losses[MOST], loss;
	int beam = x->s->beam < MOST ? x->s->beam : MOST;
	int n = best_of_depth(x, depth + 1, parents, losses, beam);
	for (int i = 0; i < n; i++) {
		for (int out = 0; out <= depth; out++) {
			struct plan child = { .of = x->s->layers, .depth = depth };
			for (int k = 0; k < depth; k++)
				child.layers[k] = parents[i].layers[k + (k >= out)];
			if (!evaluate(x, &child, false, &loss))
				return;
		}
	}
}

int strategy_search(const struct strategy *s, struct strategy_result *results) {
	struct search x = { .s = s };
	struct plan full;
	double loss;
	memset(results, 0, (size_t)s->layers * sizeof *results);
	plan_by_rule(PLAN_RULE_EVEN, s->layers, s->layers, &full);
	evaluate(&x, &full, true, &loss);
	/* The rules first: they are the floor of every depth. */
	for (int depth = s->layers - 1; depth >= s->shallowest; depth--)
		try_rules(&x, depth, &results[depth - 1]);
	for (int depth = s->layers - 1; depth >= s->shallowest; depth--) {
		/* What is left is shared out evenly, so that shallow depths get their part. */
		int left = s->budget - x.used, depths = depth - s->shallowest + 1;
		x.allowance = x.used + (left > 0 ? (left + depths - 1) / depths : 0);
		if (count_plans(s->layers, depth, s->exhaustive) <= s->exhaustive)
			try_all(&x, depth);
		else
			try_children(&x, depth);
		conclude(&x, depth, &results[depth - 1]);
	}
	free(x.tried);
	return x.failed ? -1 : x.used;
}

/* ---- importance ---- */

static uint32_t draw(uint64_t *state, uint32_t below) {
	/* splitmix64 (Steele, Lea, Flood 2014) */
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ (z >> 31)) % below);
}

/* `depth` layers, each set as likely as any other. */
static void random_plan(uint64_t *state, int layers, int depth, struct plan *ret) {
	*ret = (struct plan){ .of = layers };
	for (int i = 0; i < layers && ret->depth < depth; i++) {
		if ((int)draw(state, (uint32_t)(layers - i)) < depth - ret->depth)
			ret->layers[ret->depth++] = (int16_t)i;
	}
}

/* Solves a x = b for a symmetric positive definite a [n][n], in place (Cholesky). */
static void solve(double *a, double *b, int n) {
	for (int i = 0; i < n; i++) {
		for (int j = 0; j <= i; j++) {
			double sum = a[i * n + j];
			for (int k = 0; k < j; k++)
				sum -= a[i * n + k] * a[j * n + k];
			a[i * n + j] = i == j ? sqrt(sum) : sum / a[j * n + j];
		}
	}
	for (int i = 0; i < n; i++) {
		for (int k = 0; k < i; k++)
			b[i] -= a[i * n + k] * b[k];
		b[i] /= a[i * n + i];
	}
	for (int i = n - 1; i >= 0; i--) {
		for (int k = i + 1; k < n; k++)
			b[i] -= a[k * n + i] * b[k];
		b[i] /= a[i * n + i];
	}
}

/* Adds the plans of a depth to the normal equations a [n][n], b [n]. */
static void add_depth(const struct search *x, int depth, double *a, double *b) {
	const int n = x->s->layers;
	double mean[MAX_LAYERS] = { 0 }, kept[MAX_LAYERS], level = 0;
	int count = 0;
	for (int i = 0; i < x->n; i++) {
		const struct tried *t = &x->tried[i];
		if (t->plan.depth != depth)
			continue;
		count++;
		level += t->loss;
		for (int k = 0; k < depth; k++)
			mean[t->plan.layers[k]]++;
	}
	for (int i = 0; i < x->n && count > 1; i++) {
		const struct tried *t = &x->tried[i];
		if (t->plan.depth != depth)
			continue;
		for (int p = 0; p < n; p++)
			kept[p] = (plan_rank(&t->plan, p) >= 0) - mean[p] / count;
		for (int p = 0; p < n; p++) {
			b[p] -= kept[p] * (t->loss - level / count);
			for (int q = 0; q < n; q++)
				a[p * n + q] += kept[p] * kept[q];
		}
	}
}

/*
 * Losses on what is kept, both less their means over the plans of a depth: so that a depth's own
 * level does not count.
 */
static bool regress(const struct search *x, double *importance) {
	const int n = x->s->layers;
	double *a = calloc((size_t)n * (size_t)n, sizeof *a);
	if (!a)
		return false;
	memset(importance, 0, (size_t)n * sizeof *importance);
	for (int depth = 1; depth < n; depth++)
		add_depth(x, depth, a, importance);
	for (int i = 0; i < n; i++)
		a[i * n + i] += 1;
	solve(a, importance, n);
	free(a);
	return true;
}

/* The r most important layers; of equal ones the lower. */
static void keep_top(const double *importance, int layers, int depth, struct plan *ret) {
	*ret = (struct plan){ .of = layers };
	for (int i = 0; i < layers; i++) {
		int better = 0;
		for (int k = 0; k < layers; k++)
			better += importance[k] > importance[i]
			                || (importance[k] == importance[i] && k < i);
		if (better < depth)
			ret->layers[ret->depth++] = (int16_t)i;
	}
}

int strategy_importance(
                const struct strategy *s, double *importance, struct strategy_result *results) {
	struct search x = { .s = s, .allowance = s->budget };
	uint64_t state = 1;
	double loss;
	memset(results, 0, (size_t)s->layers * sizeof *results);
	/* Half of the layers or more: below, losses say little about single layers. */
	int low = s->layers / 2 > 1 ? s->layers / 2 : 1;
	for (int tries = 0;
	                low < s->layers && x.used < s->budget && tries < 8 * s->budget && !x.failed;
	                tries++) {
		struct plan plan;
		random_plan(&state, s->layers, low + (int)draw(&state, (uint32_t)(s->layers - low)),
		                &plan);
		evaluate(&x, &plan, false, &loss);
	}
	bool ok = !x.failed && regress(&x, importance);
	for (int depth = s->layers - 1; ok && depth >= s->shallowest; depth--) {
		struct strategy_result *r = &results[depth - 1];
		struct plan even;
		keep_top(importance, s->layers, depth, &r->plan);
		plan_by_rule(PLAN_RULE_EVEN, s->layers, depth, &even);
		r->found = evaluate(&x, &r->plan, true, &r->loss)
		                && evaluate(&x, &even, true, &r->even_loss);
	}
	free(x.tried);
	return ok && !x.failed ? x.used : -1;
}
