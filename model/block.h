/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transformer block, one for all families: what differs is in struct stack_facts.
 *
 * Pre-norm:  x += out(attend(qkv(norm(x)))); x += down(act(up(norm(x)))).
 * Post-norm: x = norm(x + out(attend(qkv(x)))); x = norm(x + down(act(up(x)))).
 *
 * It runs on a set of rows of the residual stream and leaves the others alone: reading gathers them
 * (in the norm, or by a copy), writing scatters them (in the residual add).
 */
#ifndef FATHOM_MODEL_BLOCK_H
#define FATHOM_MODEL_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "model/facts.h"
#include "model/ops.h"
#include "model/team.h"
#include "model/weights.h"

/* Consecutive positions of one sequence among the rows of a layer. */
struct block_run {
	int first, count;     /* gathered rows */
	int position;         /* of the first of them */
	float *const *blocks; /* the sequence's KV blocks of this layer */
};

/* The rows that one layer runs on. */
struct block_rows {
	int n;
	const int32_t *map; /* [n] gathered row i is row map[i] of the residual stream */
	const struct block_run *runs;
	int n_runs;
};

/* Scratch rows, shared by the team; `attend` has a part for each member. */
struct block_scratch {
	float *packed; /* [rows][dim]: gathered input; later the heads' output */
	size_t ld_packed;
	float *qkv; /* [rows][3 dim] */
	size_t ld_qkv;
	float *ffn; /* [rows][ffn] */
	size_t ld_ffn;
	float *attend;
	size_t attend_stride;
};

struct block {
	const struct ops *ops;
	struct team *team;
	const struct stack_facts *facts;
	const struct layer_weights *weights;
	const struct block_rows *rows;
	const struct block_scratch *scratch;
	float *x; /* residual stream */
	size_t ldx;
	float attend_scale; /* multiplied into the queries: head_dim ^ -1/2 */
};

/* Runs the block; called by every member of the team side by side. Begins with reading x and ends
 * with a barrier. */
void block_apply(const struct block *b, int member);

#endif
