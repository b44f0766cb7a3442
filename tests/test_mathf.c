/* SPDX-License-Identifier: Apache-2.0 */
/* exp, tanh, erf and log of model/mathf.h against the C library in double precision. */
#include <math.h>

#include "model/mathf.h"
#include "tests/check.h"

/* Error of `value` in units of the last place of the exact result as an f32. */
static double ulps(float value, double exact) {
	float nearest = (float)exact;
	if (isinf(nearest) || isnan(nearest))
		return mathf_bits(value) == mathf_bits(nearest) || (isnan(value) && isnan(nearest))
		                ? 0
		                : INFINITY;
	double magnitude = fabs(exact) < 0x1p-126 ? 0x1p-126 : fabs(exact);
	double unit = ldexp(1, ilogb(magnitude) - 23);
	return fabs((double)value - exact) / unit;
}

/* Worst error over every `step`-th bit pattern between two positive numbers, both signs. */
static double worst(float (*ours)(float), double (*exact)(double), float low, float high,
                uint32_t step, bool both_signs) {
	double result = 0;
	for (uint32_t bits = mathf_bits(low); bits <= mathf_bits(high); bits += step) {
		float x = mathf_from_bits(bits);
		double error = ulps(ours(x), exact(x));
		result = error > result ? error : result;
		if (both_signs) {
			error = ulps(ours(-x), exact(-(double)x));
			result = error > result ? error : result;
		}
	}
	printf("# worst error %.3f units in the last place\n", result);
	return result;
}

TEST(exp_is_within_two_ulps_from_zero_to_overflow) {
	CHECK(worst(mathf_exp, exp, 0x1p-30f, 110.0f, 311, true) < 2);
}

TEST(exp_of_special_values) {
	CHECK(mathf_exp(0.0f) == 1.0f);
	CHECK(mathf_exp(-0.0f) == 1.0f);
	CHECK(mathf_exp(INFINITY) == INFINITY);
	CHECK(mathf_bits(mathf_exp(-INFINITY)) == 0);
	CHECK(mathf_bits(mathf_exp(-1e30f)) == 0);
	CHECK(mathf_exp(1e30f) == INFINITY);
	CHECK(isnan(mathf_exp(NAN)));
}

TEST(tanh_is_within_two_ulps) {
	CHECK(worst(mathf_tanh, tanh, 0x1p-126f, 100.0f, 1009, true) < 2);
}

TEST(tanh_of_special_values) {
	CHECK(mathf_tanh(INFINITY) == 1.0f);
	CHECK(mathf_tanh(-INFINITY) == -1.0f);
	CHECK(isnan(mathf_tanh(NAN)));
	CHECK(mathf_tanh(-0.0f) == 0.0f);
}

TEST(erf_is_within_two_ulps) {
	CHECK(worst(mathf_erf, erf, 0x1p-120f, 100.0f, 1009, true) < 2);
}

TEST(erf_of_special_values) {
	CHECK(mathf_erf(INFINITY) == 1.0f);
	CHECK(mathf_erf(-INFINITY) == -1.0f);
	CHECK(isnan(mathf_erf(NAN)));
	CHECK(mathf_erf(0.0f) == 0.0f);
}

TEST(log_is_within_two_ulps_over_all_positive_numbers) {
	CHECK(worst(mathf_log, log, 0x1p-149f, 0x1.fffffep+127f, 1511, false) < 2);
	CHECK(worst(mathf_log, log, 0.5f, 2.0f, 7, false) < 2);
}

TEST(log_of_special_values) {
	CHECK(mathf_log(1.0f) == 0.0f);
	CHECK(mathf_log(0.0f) == -INFINITY);
	CHECK(mathf_log(-0.0f) == -INFINITY);
	CHECK(mathf_log(INFINITY) == INFINITY);
	CHECK(isnan(mathf_log(-1.0f)));
	CHECK(isnan(mathf_log(NAN)));
}

static double exact_gelu(double x) {
	return 0.5 * x * (1 + erf(x / sqrt(2)));
}

static double exact_gelu_tanh(double x) {
	return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

/* Both cancel for negative x, as everybody's f32 GELU does: the error is bounded against |x|. */
TEST(gelu_is_close_to_the_definition) {
	for (int i = -200000; i <= 200000; i++) {
		float x = (float)i * 1e-4f;
		CHECK(fabs(mathf_gelu(x) - exact_gelu(x)) <= 2e-7 * fabs(x));
		CHECK(fabs(mathf_gelu_tanh(x) - exact_gelu_tanh(x)) <= 2e-7 * fabs(x));
	}
}

TEST(silu_is_close_to_the_definition) {
	for (int i = -200000; i <= 200000; i++) {
		float x = (float)i * 1e-4f;
		CHECK(fabs(mathf_silu(x) - x / (1 + exp(-(double)x))) <= 2e-7 * fabs(x));
	}
	CHECK(mathf_silu(-1000.0f) == 0 && mathf_silu(1000.0f) == 1000);
}
