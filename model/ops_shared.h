/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel tables have in common and no vector instruction would help: where rows and heads
 * lie, and what becomes of sums in plain C. Private to the files that implement tables.
 */
#ifndef FATHOM_MODEL_OPS_SHARED_H
#define FATHOM_MODEL_OPS_SHARED_H

#include <string.h>

#include "model/mathf.h"
#include "model/ops.h"

enum { LANES_FIXED = 16 }; /* virtual lanes of every sum over a row */

/* The input row i of a linear layer that reads floats, and the output row of its row i. */
static inline const float *linear_input(const struct linear *l, int row) {
	return (const float *)((const char *)l->x + (size_t)row * l->x_stride);
}

static inline float *linear_row(const struct linear *l, int row) {
	return l->y + (size_t)(l->y_rows ? l->y_rows[row] : row) * l->ldy;
}

/* ---- plain C ---- */

static inline float scalar_activate(float x, enum activation activation) {
	switch (activation) {
	case ACTIVATION_NONE:
		return x;
	case ACTIVATION_RELU:
		return mathf_max(0.0f, x);
	case ACTIVATION_GELU:
		return mathf_gelu(x);
	case ACTIVATION_GELU_TANH:
		return mathf_gelu_tanh(x);
	case ACTIVATION_TANH:
		return mathf_tanh(x);
	case ACTIVATION_SILU:
		return mathf_silu(x);
	}
	return x;
}

/* y[0..count) = what the sums of the outputs from `first` on become: bias, activation, residual. */
static inline void scalar_finish(
                const struct linear *l, const float *sums, float *y, int first, int count) {
	for (int c = 0; c < count; c++) {
		float value = l->bias ? sums[c] + l->bias[first + c] : sums[c];
		value = scalar_activate(value, l->activation);
		y[c] = l->add ? y[c] + value : value;
	}
}

/* Input and output rows of a norm's row i. */
static inline const float *norm_in(const struct norm *n, int row) {
	return n->x + (size_t)(n->x_rows ? n->x_rows[row] : row) * n->ldx;
}

static inline float *norm_out(const struct norm *n, int row) {
	int to = n->out_rows ? n->out_rows[row] : row;
	if (n->out == n->x && !n->out_rows && n->x_rows)
		to = n->x_rows[row];
	return n->out + (size_t)to * n->ldo;
}

/* One head's keys, [head_dim][64], and values, [64][head_dim]: floats or bf16. */
static inline const void *block_head(const struct attend *a, int tile, int part) {
	size_t head = kv_block_bytes(a->format, 1, a->head_dim) / 2;
	return (const char *)a->blocks[tile]
	                + ((size_t)part * (size_t)a->n_heads + (size_t)a->head) * head;
}

static inline const void *block_keys(const struct attend *a, int tile) {
	return block_head(a, tile, 0);
}

static inline const void *block_values(const struct attend *a, int tile) {
	return block_head(a, tile, 1);
}

#endif
