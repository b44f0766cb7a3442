/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vectors of the AVX-512 tables: 16 lanes. Panels are 32 columns (two cache lines of f32 for
 * each input); 12 rows by 2 vectors of sums leave 8 registers.
 */
#include <immintrin.h>

#include "model/ops.h"
#include "model/ops_shared.h"

typedef __m512 vec;
typedef __mmask16 vec_mask;

enum { LANES = 16, PANEL = 32, ROWS_MAX = 12 };
#define TILE_EACH(T, of)                                                                           \
	T(1, of)                                                                                   \
	T(2, of)                                                                                   \
	T(3, of) T(4, of) T(5, of) T(6, of) T(7, of) T(8, of) T(9, of) T(10, of) T(11, of) T(12, of)

static inline vec vec_zero(void) {
	return _mm512_setzero_ps();
}

static inline vec vec_set(float x) {
	return _mm512_set1_ps(x);
}

static inline vec vec_load(const float *p) {
	return _mm512_loadu_ps(p);
}

static inline void vec_store(float *p, vec v) {
	_mm512_storeu_ps(p, v);
}

/* The first n lanes; n may be out of 0 .. LANES. */
static inline __mmask16 first_lanes(int n) {
	return n >= LANES ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

/* The first n lanes from memory, 0 in the others. */
static inline vec vec_load_first(const float *p, int n) {
	return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

static inline void vec_store_first(float *p, vec v, int n) {
	_mm512_mask_storeu_ps(p, first_lanes(n), v);
}

/* The first n lanes of v, `other` in the rest. */
static inline vec vec_keep_first(vec v, vec other, int n) {
	return _mm512_mask_blend_ps(first_lanes(n), other, v);
}

static inline vec vec_add(vec a, vec b) {
	return _mm512_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b) {
	return _mm512_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b) {
	return _mm512_mul_ps(a, b);
}

static inline vec vec_div(vec a, vec b) {
	return _mm512_div_ps(a, b);
}

/* a * b + c, rounded once. */
static inline vec vec_fma(vec a, vec b, vec c) {
	return _mm512_fmadd_ps(a, b, c);
}

/* a > b ? a : b */
static inline vec vec_max(vec a, vec b) {
	return _mm512_max_ps(a, b);
}

/* a < b ? a : b */
static inline vec vec_min(vec a, vec b) {
	return _mm512_min_ps(a, b);
}

static inline vec vec_abs(vec a) {
	return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a);
}

static inline vec vec_copysign(vec magnitude, vec sign) {
	const vec bit = _mm512_set1_ps(-0.0f);
	return _mm512_or_ps(_mm512_andnot_ps(bit, magnitude), _mm512_and_ps(bit, sign));
}

static inline vec_mask vec_not_less(vec a, vec b) {
	return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}

/* mask ? a : b */
static inline vec vec_choose(vec_mask mask, vec a, vec b) {
	return _mm512_mask_blend_ps(mask, b, a);
}

/* p * 2^n, n being in the low bits of `shifted` (mathf_exp): rounded once, as its two steps are. */
static inline vec vec_scale(vec p, vec shifted) {
	return _mm512_scalef_ps(p, _mm512_sub_ps(shifted, vec_set(MATHF_ROUND)));
}

/* Keeps a sum in its register: the compiler may not look through this. */
#define vec_keep(v) __asm__("" : "+v"(v))

/* The bf16 numbers in the lower and in the upper halves of the lanes, widened. */
static inline vec vec_lower_bf16(vec v) {
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 16));
}

static inline vec vec_upper_bf16(vec v) {
	const vec upper = _mm512_castsi512_ps(_mm512_set1_epi32(-65536));
	return _mm512_and_ps(upper, v);
}

/* a[0] b[0] a[1] b[1] ...: the first half of that, then the second. */
static inline void vec_interleave(vec *a, vec *b) {
	const __m512i low =
	                _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
	const __m512i high = _mm512_setr_epi32(
	                8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
	vec first = _mm512_permutex2var_ps(*a, low, *b);
	*b = _mm512_permutex2var_ps(*a, high, *b);
	*a = first;
}

/* And back. */
static inline void vec_part(vec *a, vec *b) {
	const __m512i even = _mm512_setr_epi32(
	                0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
	const __m512i odd = _mm512_setr_epi32(
	                1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
	vec first = _mm512_permutex2var_ps(*a, even, *b);
	*b = _mm512_permutex2var_ps(*a, odd, *b);
	*a = first;
}

/* The 16 virtual lanes, joined 8, 4, 2 and 1 apart. */
static inline float lanes_sum(const vec lanes[1]) {
	__m256 upper = _mm512_extractf32x8_ps(lanes[0], 1);
	__m256 eight = _mm256_add_ps(_mm512_castps512_ps256(lanes[0]), upper);
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float lanes_max(const vec lanes[1]) {
	__m256 upper = _mm512_extractf32x8_ps(lanes[0], 1);
	__m256 eight = _mm256_max_ps(_mm512_castps512_ps256(lanes[0]), upper);
	__m128 s = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
	s = _mm_max_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
