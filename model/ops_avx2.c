/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX2 + FMA table: the algorithms of model/vector_ops.h over 8 lanes. Panels are 16 columns
 * (one cache line for each k); 6 rows by 2 vectors of sums fill the 16 registers.
 */
#include <immintrin.h>

#include "model/ops.h"
#include "model/ops_shared.h"

typedef __m256 vec;
typedef __m256 vec_mask;

enum { LANES = 8, PANEL = 16, ROWS_MAX = 6 };
#define TILE_EACH(T, of) T(1, of) T(2, of) T(3, of) T(4, of) T(5, of) T(6, of)

static inline vec vec_zero(void) {
	return _mm256_setzero_ps();
}

static inline vec vec_set(float x) {
	return _mm256_set1_ps(x);
}

static inline vec vec_load(const float *p) {
	return _mm256_loadu_ps(p);
}

static inline void vec_store(float *p, vec v) {
	_mm256_storeu_ps(p, v);
}

/* All bits set in the first n lanes; n may be out of 0 .. LANES. */
static inline __m256i first_lanes(int n) {
	const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), index);
}

/* The first n lanes from memory, 0 in the others. */
static inline vec vec_load_first(const float *p, int n) {
	return _mm256_maskload_ps(p, first_lanes(n));
}

static inline void vec_store_first(float *p, vec v, int n) {
	_mm256_maskstore_ps(p, first_lanes(n), v);
}

/* The first n lanes of v, `other` in the rest. */
static inline vec vec_keep_first(vec v, vec other, int n) {
	return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(first_lanes(n)));
}

static inline vec vec_add(vec a, vec b) {
	return _mm256_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b) {
	return _mm256_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b) {
	return _mm256_mul_ps(a, b);
}

static inline vec vec_div(vec a, vec b) {
	return _mm256_div_ps(a, b);
}

/* a * b + c, rounded once. */
static inline vec vec_fma(vec a, vec b, vec c) {
	return _mm256_fmadd_ps(a, b, c);
}

/* a > b ? a : b */
static inline vec vec_max(vec a, vec b) {
	return _mm256_max_ps(a, b);
}

/* a < b ? a : b */
static inline vec vec_min(vec a, vec b) {
	return _mm256_min_ps(a, b);
}

static inline vec vec_abs(vec a) {
	return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

static inline vec vec_copysign(vec magnitude, vec sign) {
	const vec bit = _mm256_set1_ps(-0.0f);
	return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
}

static inline vec_mask vec_not_less(vec a, vec b) {
	return _mm256_cmp_ps(a, b, _CMP_GE_OQ);
}

/* mask ? a : b */
static inline vec vec_choose(vec_mask mask, vec a, vec b) {
	return _mm256_blendv_ps(b, a, mask);
}

/* p * 2^n in two steps, n being in the low bits of `shifted` (mathf_exp). */
static inline vec vec_scale(vec p, vec shifted) {
	const __m256i bias = _mm256_set1_epi32(127),
	              round = _mm256_castps_si256(vec_set(MATHF_ROUND));
	__m256i power = _mm256_sub_epi32(_mm256_castps_si256(shifted), round);
	__m256i half = _mm256_srai_epi32(power, 1);
	__m256i rest = _mm256_sub_epi32(power, half);
	__m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
	__m256i second = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
	p = _mm256_mul_ps(p, _mm256_castsi256_ps(first));
	return _mm256_mul_ps(p, _mm256_castsi256_ps(second));
}

/* Keeps a sum in its register: the compiler may not look through this. */
#define vec_keep(v) __asm__("" : "+x"(v))

/* The bf16 numbers in the lower and in the upper halves of the lanes, widened. */
static inline vec vec_lower_bf16(vec v) {
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 16));
}

static inline vec vec_upper_bf16(vec v) {
	const vec upper = _mm256_castsi256_ps(_mm256_set1_epi32(-65536));
	return _mm256_and_ps(upper, v);
}

/* a[0] b[0] a[1] b[1] ...: the first half of that, then the second. */
static inline void vec_interleave(vec *a, vec *b) {
	vec low = _mm256_unpacklo_ps(*a, *b), high = _mm256_unpackhi_ps(*a, *b);
	*a = _mm256_permute2f128_ps(low, high, 0x20);
	*b = _mm256_permute2f128_ps(low, high, 0x31);
}

/* And back. */
static inline void vec_part(vec *a, vec *b) {
	vec low = _mm256_permute2f128_ps(*a, *b, 0x20), high = _mm256_permute2f128_ps(*a, *b, 0x31);
	*a = _mm256_shuffle_ps(low, high, 0x88);
	*b = _mm256_shuffle_ps(low, high, 0xdd);
}

/* The 16 virtual lanes, joined 8, 4, 2 and 1 apart. */
static inline float lanes_sum(const vec lanes[2]) {
	vec eight = _mm256_add_ps(lanes[0], lanes[1]);
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float lanes_max(const vec lanes[2]) {
	vec eight = _mm256_max_ps(lanes[0], lanes[1]);
	__m128 s = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
	s = _mm_max_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

#include "model/vector_int_avx2.h"
#include "model/vector_ops.h"

const struct ops *ops_avx2(void) {
	static const struct ops table = VECTOR_TABLE("avx2", "AVX2");
	return &table;
}
