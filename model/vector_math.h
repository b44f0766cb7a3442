/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model/mathf.h over a vector: the same steps in the same order, so the same bits. Where the scalar
 * form branches, both sides are computed and one is taken. Included by the overlays after their
 * vector primitives.
 */
#include "model/mathf.h"

static inline vec vec_exp(vec x) {
	x = vec_max(vec_set(EXP_MIN), x);
	x = vec_min(vec_set(EXP_MAX), x);
	vec shifted = vec_fma(x, vec_set(EXP_LOG2E), vec_set(MATHF_ROUND));
	vec n = vec_sub(shifted, vec_set(MATHF_ROUND));
	vec r = vec_fma(n, vec_set(-EXP_LN2_HIGH), x);
	r = vec_fma(n, vec_set(-EXP_LN2_LOW), r);
	vec p = vec_set(EXP_Q4);
	p = vec_fma(p, r, vec_set(EXP_Q3));
	p = vec_fma(p, r, vec_set(EXP_Q2));
	p = vec_fma(p, r, vec_set(EXP_Q1));
	p = vec_fma(p, r, vec_set(EXP_Q0));
	p = vec_fma(p, r, vec_set(1.0f));
	p = vec_fma(p, r, vec_set(1.0f));
	return vec_scale(p, shifted);
}

static inline vec vec_tanh(vec x) {
	vec a = vec_abs(x);
	vec t = vec_add(vec_exp(vec_add(a, a)), vec_set(1.0f));
	t = vec_sub(vec_set(1.0f), vec_div(vec_set(2.0f), t));
	vec s = vec_mul(x, x);
	vec p = vec_set(TANH_T4);
	p = vec_fma(p, s, vec_set(TANH_T3));
	p = vec_fma(p, s, vec_set(TANH_T2));
	p = vec_fma(p, s, vec_set(TANH_T1));
	p = vec_fma(p, s, vec_set(TANH_T0));
	p = vec_fma(vec_mul(p, s), x, x);
	return vec_choose(vec_not_less(a, vec_set(TANH_LIMIT)), vec_copysign(t, x), p);
}

static inline vec vec_erf(vec x) {
	vec a = vec_abs(x);
	vec u = vec_min(vec_set(ERF_MAX), a);
	vec q = vec_set(ERF_L6);
	q = vec_fma(q, u, vec_set(ERF_L5));
	q = vec_fma(q, u, vec_set(ERF_L4));
	q = vec_fma(q, u, vec_set(ERF_L3));
	q = vec_fma(q, u, vec_set(ERF_L2));
	q = vec_fma(q, u, vec_set(ERF_L1));
	q = vec_fma(q, u, vec_set(ERF_L0));
	q = vec_sub(vec_set(1.0f), vec_exp(q));
	vec s = vec_mul(x, x);
	vec p = vec_set(ERF_S6);
	p = vec_fma(p, s, vec_set(ERF_S5));
	p = vec_fma(p, s, vec_set(ERF_S4));
	p = vec_fma(p, s, vec_set(ERF_S3));
	p = vec_fma(p, s, vec_set(ERF_S2));
	p = vec_fma(p, s, vec_set(ERF_S1));
	p = vec_fma(p, s, vec_set(ERF_S0));
	p = vec_fma(p, x, x);
	return vec_choose(vec_not_less(a, vec_set(ERF_LIMIT)), vec_copysign(q, x), p);
}

static inline vec vec_gelu(vec x) {
	vec one_and = vec_add(vec_set(1.0f), vec_erf(vec_mul(x, vec_set(GELU_SQRT_HALF))));
	return vec_mul(vec_mul(vec_set(0.5f), x), one_and);
}

static inline vec vec_gelu_tanh(vec x) {
	vec cube = vec_mul(vec_mul(x, x), vec_set(GELU_CUBE));
	vec inner = vec_mul(vec_fma(cube, x, x), vec_set(GELU_SQRT_2_OVER_PI));
	vec one_and = vec_add(vec_set(1.0f), vec_tanh(inner));
	return vec_mul(vec_mul(vec_set(0.5f), x), one_and);
}

static inline vec vec_silu(vec x) {
	vec e = vec_exp(vec_sub(vec_set(0.0f), x));
	return vec_div(x, vec_add(vec_set(1.0f), e));
}
