/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp, tanh, erf and log in f32 as fixed sequences of IEEE operations: the same bits on every
 * processor. The vector form (model/vector_math.h) runs the same steps in the same order with the
 * same constants.
 *
 * Every constant is a minimax fit made for this file, rounded to f32 from the lowest power up.
 * Errors stay within two units in the last place (tests/test_mathf.c).
 */
#ifndef FATHOM_MODEL_MATHF_H
#define FATHOM_MODEL_MATHF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Added to a number far below 2^22 it leaves the nearest integer (of two the even one) in the low
 * bits. */
#define MATHF_ROUND 0x1.8p+23f

/* exp(x) = 2^n exp(r), r = x - n ln 2; exp(r) = 1 + r (1 + r Q(r)). */
#define EXP_MIN -104.0f /* exp is 0 from here down */
#define EXP_MAX 89.0f   /* and infinite from here up */
#define EXP_LOG2E 0x1.715476p+0f
#define EXP_LN2_HIGH 0x1.62e430p-1f
#define EXP_LN2_LOW -0x1.05c610p-29f
#define EXP_Q0 0x1.fffffcp-2f
#define EXP_Q1 0x1.555490p-3f
#define EXP_Q2 0x1.5558a2p-5f
#define EXP_Q3 0x1.123ac8p-7f
#define EXP_Q4 0x1.6a5e02p-10f

/* tanh(x) = x + x s T(s), s = x^2, below the limit; 1 - 2 / (exp(2 x) + 1) beyond. */
#define TANH_LIMIT 0.625f
#define TANH_T0 -0x1.555532p-2f
#define TANH_T1 0x1.1106f2p-3f
#define TANH_T2 -0x1.b8347ap-5f
#define TANH_T3 0x1.51ed16p-6f
#define TANH_T4 -0x1.74c75ap-8f

/* erf(x) = x + x S(s), s = x^2, below the limit; 1 - exp(L(x)) beyond; 1 from 4 on. */
#define ERF_LIMIT 0.93f
#define ERF_MAX 4.0f
#define ERF_S0 0x1.06eba8p-3f
#define ERF_S1 -0x1.812742p-2f
#define ERF_S2 0x1.ce2deap-4f
#define ERF_S3 -0x1.b80c94p-6f
#define ERF_S4 0x1.54b7eap-8f
#define ERF_S5 -0x1.a9c20ep-11f
#define ERF_S6 0x1.5b5c8ep-14f
#define ERF_L0 -0x1.99ea66p-13f
#define ERF_L1 -0x1.20af6ap+0f
#define ERF_L2 -0x1.463c82p-1f
#define ERF_L3 -0x1.a9b620p-4f
#define ERF_L4 0x1.6c2ec4p-6f
#define ERF_L5 -0x1.8eeb64p-9f
#define ERF_L6 0x1.9afbc8p-13f

#define GELU_SQRT_HALF 0x1.6a09e6p-1f      /* sqrt(1/2) */
#define GELU_SQRT_2_OVER_PI 0x1.988454p-1f /* sqrt(2/pi) */
#define GELU_CUBE 0x1.6e4e26p-5f           /* 0.044715 */

static inline uint32_t mathf_bits(float x) {
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

static inline float mathf_from_bits(uint32_t bits) {
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

/* a > b ? a : b, as the x86 instruction does it: b where either is NaN. */
static inline float mathf_max(float a, float b) {
	return a > b ? a : b;
}

static inline float mathf_exp(float x) {
	x = x < EXP_MIN ? EXP_MIN : x;
	x = x > EXP_MAX ? EXP_MAX : x;
	float shifted = __builtin_fmaf(x, EXP_LOG2E, MATHF_ROUND);
	float n = shifted - MATHF_ROUND;
	float r = __builtin_fmaf(n, -EXP_LN2_HIGH, x);
	r = __builtin_fmaf(n, -EXP_LN2_LOW, r);
	float p = EXP_Q4;
	p = __builtin_fmaf(p, r, EXP_Q3);
	p = __builtin_fmaf(p, r, EXP_Q2);
	p = __builtin_fmaf(p, r, EXP_Q1);
	p = __builtin_fmaf(p, r, EXP_Q0);
	p = __builtin_fmaf(p, r, 1.0f);
	p = __builtin_fmaf(p, r, 1.0f);
	/* 2^n in two factors, so that neither leaves the range of normal numbers. */
	int32_t power = (int32_t)(mathf_bits(shifted) - mathf_bits(MATHF_ROUND));
	int32_t half = power >> 1;
	float first = mathf_from_bits((uint32_t)(half + 127) << 23);
	float second = mathf_from_bits(((uint32_t)power - (uint32_t)half + 127u) << 23);
	return p * first * second;
}

static inline float mathf_tanh(float x) {
	float a = __builtin_fabsf(x);
	if (a >= TANH_LIMIT) {
		float t = 1.0f - 2.0f / (mathf_exp(a + a) + 1.0f);
		return __builtin_copysignf(t, x);
	}
	float s = x * x;
	float p = TANH_T4;
	p = __builtin_fmaf(p, s, TANH_T3);
	p = __builtin_fmaf(p, s, TANH_T2);
	p = __builtin_fmaf(p, s, TANH_T1);
	p = __builtin_fmaf(p, s, TANH_T0);
	return __builtin_fmaf(p * s, x, x);
}

static inline float mathf_erf(float x) {
	float a = __builtin_fabsf(x);
	if (a >= ERF_LIMIT) {
		a = a > ERF_MAX ? ERF_MAX : a;
		float p = ERF_L6;
		p = __builtin_fmaf(p, a, ERF_L5);
		p = __builtin_fmaf(p, a, ERF_L4);
		p = __builtin_fmaf(p, a, ERF_L3);
		p = __builtin_fmaf(p, a, ERF_L2);
		p = __builtin_fmaf(p, a, ERF_L1);
		p = __builtin_fmaf(p, a, ERF_L0);
		return __builtin_copysignf(1.0f - mathf_exp(p), x);
	}
	float s = x * x;
	float p = ERF_S6;
	p = __builtin_fmaf(p, s, ERF_S5);
	p = __builtin_fmaf(p, s, ERF_S4);
	p = __builtin_fmaf(p, s, ERF_S3);
	p = __builtin_fmaf(p, s, ERF_S2);
	p = __builtin_fmaf(p, s, ERF_S1);
	p = __builtin_fmaf(p, s, ERF_S0);
	return __builtin_fmaf(p, x, x);
}

/* x/2 (1 + erf(x / sqrt 2)) */
static inline float mathf_gelu(float x) {
	return 0.5f * x * (1.0f + mathf_erf(x * GELU_SQRT_HALF));
}

/* x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static inline float mathf_gelu_tanh(float x) {
	float inner = __builtin_fmaf(x * x * GELU_CUBE, x, x) * GELU_SQRT_2_OVER_PI;
	return 0.5f * x * (1.0f + mathf_tanh(inner));
}

/* x / (1 + exp(-x)) */
static inline float mathf_silu(float x) {
	return x / (1.0f + mathf_exp(0.0f - x));
}

/* Natural logarithm: -infinity at 0, NaN below. x = 2^e (1 + f), f in [sqrt(1/2) - 1, sqrt(2) - 1]. */
static inline float mathf_log(float x) {
	static const float c[] = { 0x1.555546p-2f, -0x1.fffff0p-3f, 0x1.99a544p-3f, -0x1.55627ap-3f,
		0x1.233288p-3f, -0x1.fb5080p-4f, 0x1.e660e2p-4f, -0x1.e2a474p-4f, 0x1.1acda0p-4f };
	if (!(x > 0) || x > 0x1.fffffep+127f)
		return x == 0 ? -INFINITY : x < 0 ? NAN : x;
	int32_t e = 0;
	if (x < 0x1p-126f) {
		x *= 0x1p+24f;
		e = -24;
	}
	int32_t shift = (int32_t)(mathf_bits(x) - mathf_bits(0x1.6a09e6p-1f)) >> 23;
	float f = mathf_from_bits(mathf_bits(x) - ((uint32_t)shift << 23)) - 1.0f;
	float n = (float)(e + shift);
	float p = c[8];
	for (int i = 7; i >= 0; i--)
		p = __builtin_fmaf(p, f, c[i]);
	float s = f * f;
	p = p * f * s;
	p = __builtin_fmaf(n, EXP_LN2_LOW, p);
	p = __builtin_fmaf(-0.5f, s, p);
	return __builtin_fmaf(n, EXP_LN2_HIGH, f + p);
}

#endif
