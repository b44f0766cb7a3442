/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How weights lie in panels of PANEL outputs: what a table of ours gives as format_ops::matrix_bytes,
 * pack and unpack_row. Panels follow each other; outputs that a last panel lacks have weight 0. Part
 * of each table, after its PANEL; int8 and int4 are in model/quantise.h.
 */
#ifndef FATHOM_MODEL_PANELS_H
#define FATHOM_MODEL_PANELS_H

#include "model/bf16.h"
#include "model/ops.h"
#include "model/quantise.h"

enum { STRIP = 16 }; /* inputs packed at a time: one cache line of every source row */

static inline size_t panels_of(int n_out) {
	return ((size_t)n_out + PANEL - 1) / PANEL;
}

/* ---- f32: float [n_in][PANEL] ---- */

static inline size_t f32_matrix_bytes(int n_out, int n_in) {
	return panels_of(n_out) * PANEL * (size_t)n_in * sizeof(float);
}

static inline void f32_pack(void *data, int n_in, const float *src, int first, int count) {
	size_t inputs = (size_t)n_in;
	for (int row = 0; row < count; row += PANEL) {
		const float *from = src + (size_t)row * inputs;
		float *to = (float *)data + ((size_t)first + (size_t)row) * inputs;
		size_t valid = count - row < PANEL ? (size_t)(count - row) : PANEL;
		for (size_t strip = 0; strip < inputs; strip += STRIP) {
			size_t end = inputs - strip < STRIP ? inputs : strip + STRIP;
			for (size_t c = 0; c < PANEL; c++)
				for (size_t k = strip; k < end; k++)
					to[k * PANEL + c] = c < valid ? from[c * inputs + k] : 0.0f;
		}
	}
}

static inline void f32_unpack_row(const struct matrix *w, int out, float *dst) {
	size_t inputs = (size_t)w->n_in;
	const float *from = (const float *)w->data + (size_t)(out / PANEL) * PANEL * inputs
	                + out % PANEL;
	for (size_t k = 0; k < inputs; k++)
		dst[k] = from[k * PANEL];
}

/* ---- bf16: uint16_t [n_in / 2][PANEL][2], inputs in pairs; a missing last input has weight 0 ---- */

static inline size_t bf16_matrix_bytes(int n_out, int n_in) {
	return panels_of(n_out) * PANEL * (((size_t)n_in + 1) / 2) * 2 * sizeof(uint16_t);
}

/* Where the weight of an output and an input is, counted in numbers. */
static inline size_t bf16_at(int n_in, int out, int in) {
	size_t pairs = ((size_t)n_in + 1) / 2;
	size_t first = (size_t)(out / PANEL) * pairs * PANEL * 2;
	return first + ((size_t)in / 2 * PANEL + (size_t)(out % PANEL)) * 2 + (size_t)in % 2;
}

static inline void bf16_pack(void *data, int n_in, const float *src, int first, int count) {
	uint16_t *to = data;
	int end = (count + PANEL - 1) / PANEL * PANEL, inputs = (n_in + 1) / 2 * 2;
	for (int row = 0; row < end; row += PANEL) {
		for (int strip = 0; strip < inputs; strip += STRIP) {
			int last = inputs - strip < STRIP ? inputs : strip + STRIP;
			for (int r = row; r < row + PANEL; r++) {
				const float *from = src + (size_t)r * (size_t)n_in;
				for (int k = strip; k < last; k++)
					to[bf16_at(n_in, first + r, k)] = r < count && k < n_in
					                ? bf16_round(from[k])
					                : 0;
			}
		}
	}
}

static inline void bf16_unpack_row(const struct matrix *w, int out, float *dst) {
	const uint16_t *data = w->data;
	for (int k = 0; k < w->n_in; k++)
		dst[k] = bf16_widen(data[bf16_at(w->n_in, out, k)]);
}

/* ---- int8 and int4 ---- */

static inline size_t int8_matrix_bytes(int n_out, int n_in) {
	return int8_panels_bytes(PANEL, n_out, n_in);
}

static inline void int8_pack(void *data, int n_in, const float *src, int first, int count) {
	int8_panels_pack(PANEL, data, n_in, src, first, count);
}

static inline void int8_unpack_row(const struct matrix *w, int out, float *dst) {
	int8_panels_unpack_row(PANEL, w, out, dst);
}

static inline size_t int4_matrix_bytes(int n_out, int n_in) {
	return int4_panels_bytes(PANEL, n_out, n_in);
}

static inline void int4_pack(void *data, int n_in, const float *src, int first, int count) {
	int4_panels_pack(PANEL, data, n_in, src, first, count);
}

static inline void int4_unpack_row(const struct matrix *w, int out, float *dst) {
	int4_panels_unpack_row(PANEL, w, out, dst);
}

/* The three of a format in its struct format_ops. */
#define PANELS(format)                                                                             \
	.matrix_bytes = format##_matrix_bytes, .pack = format##_pack,                              \
	.unpack_row = format##_unpack_row

#endif
