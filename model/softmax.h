/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax over many columns in one fixed order: blocks of SOFTMAX_COLUMNS by a kernel, then a tree
 * of neighbours. Neither threads nor the other rows show in the result.
 */
#ifndef FATHOM_MODEL_SOFTMAX_H
#define FATHOM_MODEL_SOFTMAX_H

#include "model/ops.h"

enum { SOFTMAX_COLUMNS = 1024 }; /* of one block */

/* Mass of columns: sum of exp(x - max). No mass: max is minus infinity and sum 0. */
struct softmax_sum {
	float max, sum;
};

/* Blocks of n columns. */
int softmax_blocks(int n);

/* The mass of block `block` of x[0..n). Columns may be minus infinity. */
struct softmax_sum softmax_block(const struct ops *ops, const float *x, int n, int block);

/* Joins neighbours pairwise until one is left. Overwrites `blocks`; n >= 1. */
struct softmax_sum softmax_join(struct softmax_sum *blocks, int n);

#endif
