/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What our own kernel tables have in common and no vector instruction would help: the layout of
 * packed panels and of KV blocks. A panel is float [n_in][panel]: one row of weights per input, the
 * output channels side by side; panels follow each other. Private to the files that implement
 * tables.
 */
#ifndef FATHOM_MODEL_OPS_SHARED_H
#define FATHOM_MODEL_OPS_SHARED_H

#include <string.h>

#include "model/bf16.h"
#include "model/ops.h"

enum { LANES_FIXED = 16 }; /* virtual lanes of every sum over a row */

static inline size_t panels_bytes(int panel, int n_out, int n_in) {
	size_t panels = ((size_t)n_out + (size_t)panel - 1) / (size_t)panel;
	return panels * (size_t)panel * (size_t)n_in * sizeof(float);
}

static inline void panels_pack(
                int panel, float *data, int n_in, const float *src, int first, int count) {
	enum { STRIP = 16 }; /* inputs at a time: one cache line of every source row */
	size_t inputs = (size_t)n_in, width = (size_t)panel;
	for (int row = 0; row < count; row += panel) {
		const float *from = src + (size_t)row * inputs;
		float *to = data + ((size_t)first + (size_t)row) * inputs;
		size_t valid = count - row < panel ? (size_t)(count - row) : width;
		for (size_t strip = 0; strip < inputs; strip += STRIP) {
			size_t end = inputs - strip < STRIP ? inputs : strip + STRIP;
			for (size_t c = 0; c < width; c++)
				for (size_t k = strip; k < end; k++)
					to[k * width + c] = c < valid ? from[c * inputs + k] : 0.0f;
		}
	}
}

static inline void panels_unpack_row(int panel, const struct matrix *w, int out, float *dst) {
	size_t width = (size_t)panel, inputs = (size_t)w->n_in;
	const float *from = (const float *)w->data + (size_t)(out / panel) * width * inputs
	                + out % panel;
	for (size_t k = 0; k < inputs; k++)
		dst[k] = from[k * width];
}

/* Panels of bf16: uint16_t [n_in / 2][panel][2], inputs in pairs; a missing last input has weight 0. */
static inline size_t bf16_panels_bytes(int panel, int n_out, int n_in) {
	size_t panels = ((size_t)n_out + (size_t)panel - 1) / (size_t)panel;
	return panels * (size_t)panel * (((size_t)n_in + 1) / 2) * 2 * sizeof(uint16_t);
}

/* Where the weight of an output and an input is, counted in numbers. */
static inline size_t bf16_panels_at(int panel, int n_in, int out, int in) {
	size_t pairs = ((size_t)n_in + 1) / 2, width = (size_t)panel;
	size_t first = (size_t)(out / panel) * pairs * width * 2;
	return first + ((size_t)in / 2 * width + (size_t)(out % panel)) * 2 + (size_t)in % 2;
}

static inline void bf16_panels_pack(
                int panel, uint16_t *data, int n_in, const float *src, int first, int count) {
	enum { STRIP = 16 };
	int end = (count + panel - 1) / panel * panel, inputs = (n_in + 1) / 2 * 2;
	for (int row = 0; row < end; row += panel) {
		for (int strip = 0; strip < inputs; strip += STRIP) {
			int last = inputs - strip < STRIP ? inputs : strip + STRIP;
			for (int r = row; r < row + panel; r++) {
				const float *from = src + (size_t)r * (size_t)n_in;
				for (int k = strip; k < last; k++)
					data[bf16_panels_at(panel, n_in, first + r, k)] =
					                r < count && k < n_in ? bf16_round(from[k])
					                                      : 0;
			}
		}
	}
}

static inline void bf16_panels_unpack_row(int panel, const struct matrix *w, int out, float *dst) {
	const uint16_t *data = w->data;
	for (int k = 0; k < w->n_in; k++)
		dst[k] = bf16_widen(data[bf16_panels_at(panel, w->n_in, out, k)]);
}

/* The input row i of a linear layer that reads floats, and the output row of its row i. */
static inline const float *linear_input(const struct linear *l, int row) {
	return (const float *)((const char *)l->x + (size_t)row * l->x_stride);
}

static inline float *linear_row(const struct linear *l, int row) {
	return l->y + (size_t)(l->y_rows ? l->y_rows[row] : row) * l->ldy;
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
