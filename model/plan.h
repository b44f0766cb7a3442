/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans: which layers of a stack a request runs.
 *
 * A plan is data, not a model: an ordered list of kept layers. A layer that is not kept is the
 * identity; nothing is rescaled. Source of the rule `even`: Fan, Grave, Joulin 2019 ("every other")
 * as fairseq documents it, written with integers: layer floor(i N / r) for i = 0 .. r - 1.
 */
#ifndef FATHOM_MODEL_PLAN_H
#define FATHOM_MODEL_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_LAYERS = 256 };

enum stack { STACK_ENCODER, STACK_DECODER, STACKS };

enum plan_rule {
	PLAN_RULE_EVEN,
	PLAN_RULE_ENDS,   /* evenly spaced with the first and the last layer kept */
	PLAN_RULE_PREFIX, /* the first r layers */
	PLAN_RULE_TUNED,  /* from the model folder's plan file */
	PLAN_RULE_LAYERS, /* an explicit list */
};

/* The kept layers of one stack, ascending. A stack that a model does not have is all zero. */
struct plan {
	int of;    /* layers in the stack */
	int depth; /* layers kept */
	int16_t layers[MAX_LAYERS];
};

/* What a request runs: one plan per stack. */
struct subnet {
	struct plan stack[STACKS];
};

/* The plan that `rule` (EVEN, ENDS or PREFIX) gives for 1 <= depth <= of <= MAX_LAYERS. */
void plan_by_rule(enum plan_rule rule, int of, int depth, struct plan *ret_plan);

/*
 * Checks an explicit list: 1..of entries, ascending, unique, in range; else false with a sentence
 * that says which.
 */
bool plan_from_list(int of, const int64_t *layers, size_t n, struct plan *ret_plan, char *err,
                size_t errlen);

/*
 * nested(P, d): the order-preserving choice of d layers of P with the least total distance to
 * rule(of, d), lower layers on ties; it equals rule(of, d) wherever that lies in P. 1 <= depth <=
 * P->depth; rule is EVEN, ENDS or PREFIX.
 */
void plan_nested(const struct plan *plan, enum plan_rule rule, int depth, struct plan *ret_plan);

bool plan_equal(const struct plan *a, const struct plan *b);
/* Whether every layer of `inner` is kept by `outer`. */
bool plan_contains(const struct plan *outer, const struct plan *inner);
/* Index of `layer` among the kept layers, or -1. */
int plan_rank(const struct plan *plan, int layer);

/* "even", "ends", "prefix", "tuned", "layers". */
const char *plan_rule_name(enum plan_rule rule);
bool plan_rule_parse(const char *name, enum plan_rule *ret_rule);

#endif
