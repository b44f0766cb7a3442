/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers in the vectors of AVX-512: what int8 and int4 products are made of (vector_int8.h,
 * vector_int4.h).
 */
#include "model/vector_int_x86.h"

static inline __m512i int_of(vec v) {
	return _mm512_castps_si512(v);
}

static inline vec int_as(__m512i v) {
	return _mm512_castsi512_ps(v);
}

static inline vec vec_int_add(vec a, vec b) {
	return int_as(_mm512_add_epi32(int_of(a), int_of(b)));
}

static inline vec vec_int_max(vec a, vec b) {
	return int_as(_mm512_max_epi32(int_of(a), int_of(b)));
}

static inline vec vec_from_int(vec a) {
	return _mm512_cvtepi32_ps(int_of(a));
}

/* As many numbers of 16 bits as there are lanes. */
static inline vec vec_from_int16(const void *p) {
	return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(p)));
}

/* The low byte of each lane, in order. */
static inline void vec_store_bytes(int8_t *to, vec v) {
	_mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(int_of(v)));
}

/* Bytes 0 and 2, or 1 and 3, of each lane, in 16 bits. */
static inline vec vec_even_bytes(vec v) {
	return int_as(_mm512_and_si512(int_of(v), _mm512_set1_epi16(255)));
}

static inline vec vec_odd_bytes(vec v) {
	return int_as(_mm512_srli_epi16(int_of(v), 8));
}

/* sum + both products of numbers of 16 bits. */
static inline vec vec_dot_pairs(vec a, vec b, vec sum) {
	return int_as(_mm512_add_epi32(int_of(sum), _mm512_madd_epi16(int_of(a), int_of(b))));
}

/* The low, or the high, four bits of each byte. */
static inline vec vec_low_halves(vec v) {
	return int_as(_mm512_and_si512(int_of(v), _mm512_set1_epi8(15)));
}

static inline vec vec_high_halves(vec v) {
	__m512i high = _mm512_srli_epi16(int_of(v), 4);
	return int_as(_mm512_and_si512(high, _mm512_set1_epi8(15)));
}

/* Each 16 bits of sum + two products of an unsigned byte below 16 and a signed one; none saturates. */
static inline vec vec_dot_halves(vec u, vec s, vec sum) {
	return int_as(_mm512_add_epi16(int_of(sum), _mm512_maddubs_epi16(int_of(u), int_of(s))));
}

/* The sum of both numbers of 16 bits. */
static inline vec vec_join_pairs(vec v) {
	return int_as(_mm512_madd_epi16(int_of(v), _mm512_set1_epi16(1)));
}
