/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One product with a weight matrix, shared by the team: y[i] = act(W x[i] + bias), or added to y.
 *
 * Formats whose kernels do not read floats (ops.h, format_ops::input) have their inputs made first,
 * each row once: a member makes its share of the rows, a barrier, then the members split the panels.
 */
#ifndef FATHOM_MODEL_PRODUCT_H
#define FATHOM_MODEL_PRODUCT_H

#include "model/ops.h"
#include "model/team.h"
#include "model/weights.h"

/* Scratch for made inputs, 64-byte aligned. */
struct product_inputs {
	void *rows;
	size_t stride; /* bytes, a multiple of 64; at least every matrix's input_bytes */
};

struct product {
	const struct ops *ops;
	struct team *team;
	const struct product_inputs *inputs;
	const struct linear_weights *weights;
	const float *x; /* [rows, n_in], row stride ldx (floats) */
	size_t ldx;
	float *y; /* row i is y + (y_rows ? y_rows[i] : i) * ldy */
	size_t ldy;
	const int32_t *y_rows; /* scatter map or NULL */
	int rows;
	enum activation activation;
	bool add;
};

/*
 * Makes the inputs of this member's share of the rows (team_share) where the format needs that.
 * Returns whether it did: then a barrier must follow before product_run. The rows of that share
 * must be complete, and the product before must have been followed by a barrier.
 */
bool product_prepare(const struct product *p, int member);

/* This member's share of the panels. All inputs must be made. A barrier must follow. */
void product_run(const struct product *p, int member);

/* Both, with the barrier between them: for x that is complete, behind a barrier. */
void product_apply(const struct product *p, int member);

#endif
