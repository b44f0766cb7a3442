/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transformer block, one for all families: what differs is in struct stack_facts.
 *
 * Pre-norm:  x += out(attend(qkv(norm(x)))); x += down(act(up(norm(x)))).
 * Post-norm: x = norm(x + out(attend(qkv(x)))); x = norm(x + down(act(up(x)))).
 *
 * It runs on a set of rows of the residual stream and leaves the others alone: reading gathers them
 * (in the norm, or by a copy), writing scatters them (in the residual add).
 *
 * A decoder that attends to an encoder does so between the two, in the same manner: pre-norm
 * x += out(attend(q(norm(x)), source)). block_source makes the source's keys and values.
 */
#ifndef FATHOM_MODEL_BLOCK_H
#define FATHOM_MODEL_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "model/facts.h"
#include "model/ops.h"
#include "model/product.h"
#include "model/team.h"
#include "model/weights.h"

/* Consecutive positions of one sequence among the rows of a layer. */
struct block_run {
	int first, count;    /* gathered rows */
	int position;        /* of the first of them */
	int keys;            /* every row sees the keys 0 .. keys - 1; 0: those up to its own */
	void *const *blocks; /* the sequence's KV blocks of this layer */
	void *const *source; /* blocks of its source, of `source_keys` tokens, if the layer looks there */
	int source_keys;
	enum kv_format format; /* of all these blocks */
};

/* The rows that one layer runs on. */
struct block_rows {
	int n;
	const int32_t *map; /* [n] gathered row i is row map[i] of the residual stream */
	const struct block_run *runs;
	int n_runs;
};

/*
 * Scratch rows, shared by the team and wide enough for every stack; `attend` has a part for each
 * member.
 */
struct block_scratch {
	float *gathered; /* [rows][dim]: input of the part in progress; later the heads' output */
	size_t ld_gathered;
	float *qkv; /* [rows][3 dim] or q of a source's attention, or a source's k and v */
	size_t ld_qkv;
	float *ffn; /* [rows][ffn] */
	size_t ld_ffn;
	struct product_inputs inputs; /* [rows] of the product in progress */
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

/*
 * Writes the keys and values that this layer's attention to the source needs into the blocks of
 * the rows' runs. The rows are those of the encoder, [source_dim], and `x` holds its output. Like
 * block_apply, but it ends without a barrier; block_apply or itself may follow at once.
 */
void block_source(const struct block *b, int source_dim, int member);

#endif
