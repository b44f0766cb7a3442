/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products of the AVX-512 table with BF16 over portable vectors, and what VDPBF16PS does.
 *
 * The semantics are those of Intel's manual (volume 2, VDPBF16PS): in each lane first the upper pair
 * is added, then the lower one, each by a fused multiply-add rounded to nearest even; denormal
 * inputs, sums included, count as 0 and denormal results become 0 of their sign, whatever MXCSR says.
 * What it leaves open was found by experiment on a Zen 4: a result is denormal if it is, rounded to
 * 24 bits with an exponent of any size, below 2^-126 ("tiny after rounding").
 */
#include "tests/portable.h"
#include "tests/portable_vectors.h"

#include "model/bf16.h"
#include "model/vector_linear.h"

/* Denormal numbers are 0. */
static float normal(float x) {
	return mathf_bits(x) & 0x7f800000u ? x : mathf_from_bits(mathf_bits(x) & 0x80000000u);
}

/* sum + a b in one rounding; all three normal or 0. */
static float fused(float a, float b, float sum) {
	const double least = 0x1p-126, tiny = 0x1p-126 - 0x1p-151;
	float r = __builtin_fmaf(a, b, sum);
	if (fabs((double)r) < least)
		return copysignf(0.0f, r);
	if (fabs((double)r) > least || isnan(r))
		return r;
	/* Was it below before it was rounded? The exact value is high + low. */
	double product = (double)a * b, high = product + sum, back = high - product;
	double low = (product - (high - back)) + (sum - back);
	double magnitude = fabs(high), rest = high < 0 ? -low : low;
	bool below = magnitude < tiny || (magnitude == tiny && rest < 0);
	return below ? copysignf(0.0f, r) : r;
}

static float upper(uint32_t pair) {
	return normal(mathf_from_bits(pair & 0xffff0000u));
}

static float lower(uint32_t pair) {
	return normal(mathf_from_bits(pair << 16));
}

float portable_dot_bf16(float sum, uint32_t a, uint32_t b) {
	sum = fused(upper(a), upper(b), normal(sum));
	return fused(lower(a), lower(b), sum);
}

static __attribute__((noinline)) vec vec_dot_bf16(vec a, vec b, vec sum) {
	for (int i = 0; i < LANES; i++)
		sum[i] = portable_dot_bf16(sum[i], ((vec_bits)a)[i], ((vec_bits)b)[i]);
	return sum;
}

static vec vec_round_bf16(vec first, vec second) {
	uint16_t halves[2 * LANES];
	for (int i = 0; i < LANES; i++) {
		halves[i] = bf16_round(normal(first[i]));
		halves[LANES + i] = bf16_round(normal(second[i]));
	}
	vec v;
	memcpy(&v, halves, sizeof v);
	return v;
}

#include "model/vector_bf16_dot.h"

const struct ops *portable_avx512_bf16(void) {
	static struct ops table;
	if (!table.name) {
		table = *portable_avx512_vnni();
		dot_install(&table.formats[WEIGHTS_BF16]);
		table.name = "avx512-bf16, portable";
	}
	return &table;
}
