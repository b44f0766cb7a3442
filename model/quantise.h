/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of 8 and 4 bits: how weights and inputs are made into integers, how a product of them is
 * made into a float again, and how they lie in panels. This page is the definition; the plain C
 * table (model/scalar_int.h) is the same in code, and every other table gives its bits.
 *
 * All steps are single operations on f32, rounded to nearest even; fma is rounded once. round(v) is
 * the integer nearest to v, the even one of two. One rule comes before all: a row of inputs, or the
 * weights of one output, in which anything is NaN or infinite has the scale NaN and only integers 0;
 * one whose largest magnitude is below 2^-100 has the scale 0 and only integers 0.
 *
 * Inputs of both formats, one row x[0..n):
 *
 *	m     = largest |x[k]|
 *	scale = m / 127
 *	a[k]  = round(x[k] * (127 / m))                   in -127 .. 127
 *
 * int8, the weights w[0..n) of one output:
 *
 *	m     = largest |w[k]|
 *	scale = m / 127
 *	q[k]  = round(w[k] * (127 / m))                   in -127 .. 127
 *
 *	sum   = sum of a[k] q[k], exact: |sum| <= 127 * 127 * n < 2^31 for n <= INT_INPUTS_MAX
 *	value = ((float)sum * scale of the weights) * scale of the row
 *
 * int4, groups of INT4_GROUP inputs, the last one filled up with zeros:
 *
 *	t[g]  = the group's scale, found by search (quantise_int4_group)
 *	scale = largest |t[g]| / 32767
 *	s[g]  = round(t[g] / scale)                       in -32767 .. 32767
 *	q[k]  = round(w[k] * (1 / (s[g] * scale)))        cut to -8 .. 7; 0 where s[g] is 0
 *
 *	sum_g = sum of a[k] q[k] over the group, exact
 *	acc   = fma((float)sum_g, (float)s[g], acc) from 0, groups upwards
 *	value = (acc * scale of the weights) * scale of the row
 *
 * In both, y = value + bias and so on as in f32 (ops.h). A scale of NaN makes the value NaN. A group's
 * scale may be negative: so the end of -8 .. 7 that reaches further goes to the side that needs it.
 */
#ifndef FATHOM_MODEL_QUANTISE_H
#define FATHOM_MODEL_QUANTISE_H

#include <stddef.h>
#include <stdint.h>

struct matrix;

enum {
	/* More could overflow the sum of an int8 product: matrix_bytes is 0 then. */
	INT_INPUTS_MAX = 133144,
	INT4_GROUP = 64, /* inputs */
};

/* The scale by the rule above: NaN, 0, or m / 127; then ret_factor is 127 / m, else 0. */
float quantise_scale(const float *x, int n, float *ret_factor);

/* A row of inputs, or the int8 weights of one output. Returns its scale. */
float quantise_int8(const float *x, int n, int8_t *ret_q);

/*
 * The scale t of one group of `count` finite weights: of nine tries, the one that leaves the smallest
 * squared error. With e the weight of the largest magnitude (the first of equals; t is 0 if it is
 * below 2^-100) and v[k] = w[k] / e, a try takes q[k] = round(v[k] * f), 7 where that is 8, for f =
 * -8.5, 8.5, -8, 8, -7.5, 7.5, -7, -6.5, -6 (where nothing is cut, signs make no difference), and
 * t = e * (sum v q / sum q q), the best scale for these integers: the error is least where
 * (sum v q)^2 / sum q q is largest. The first of equals wins. Sums run in 8 lanes, v[k] in lane
 * k % 8, each product and sum rounded, joined upwards.
 */
float quantise_int4_group(const float *w, int count);

/*
 * Panels of int8: uint8_t [ceil(n_in / 4)][panel][4], q + 128; then the scales, float [panel].
 * Missing inputs and outputs are 128, missing scales 0. Bytes: 0 beyond INT_INPUTS_MAX inputs.
 */
size_t int8_panels_bytes(int panel, int n_out, int n_in);
void int8_panels_pack(int panel, void *data, int n_in, const float *src, int first, int count);
void int8_panels_unpack_row(int panel, const struct matrix *w, int out, float *dst);

/*
 * Panels of int4, group by group: the scales s, int16_t [panel]; then, for each half of the group,
 * uint8_t [INT4_GROUP / 16][panel][4], of which byte [j][c][i] holds q + 8 of the half's input
 * 4 j + i in its low four bits, and of input INT4_GROUP / 4 + 4 j + i in the high ones. After the
 * groups the scales, float [panel]. Missing inputs and outputs are 8, missing scales 0.
 */
size_t int4_panels_bytes(int panel, int n_out, int n_in);
void int4_panels_pack(int panel, void *data, int n_in, const float *src, int first, int count);
void int4_panels_unpack_row(int panel, const struct matrix *w, int out, float *dst);

#endif
