/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vectors of model/vector_avx512.h without AVX-512: 16 lanes by the compiler's own vectors, so
 * that the kernels above them can be tested on any machine. Slow. What only later levels have
 * stands in vec_dot_... functions that give the instruction's result bit for bit.
 */
#include "model/ops.h"
#include "model/ops_shared.h"

typedef float vec __attribute__((vector_size(64)));
typedef int32_t vec_mask __attribute__((vector_size(64)));
typedef uint32_t vec_bits __attribute__((vector_size(64)));

enum { LANES = 16, PANEL = 32, ROWS_MAX = 12 };
#define TILE_EACH(T, of)                                                                           \
	T(1, of)                                                                                   \
	T(2, of)                                                                                   \
	T(3, of) T(4, of) T(5, of) T(6, of) T(7, of) T(8, of) T(9, of) T(10, of) T(11, of) T(12, of)

static inline vec vec_zero(void) {
	return (vec){ 0 };
}

static inline vec vec_set(float x) {
	vec v;
	for (int i = 0; i < LANES; i++)
		v[i] = x;
	return v;
}

static inline vec vec_load(const float *p) {
	vec v;
	memcpy(&v, p, sizeof v);
	return v;
}

static inline void vec_store(float *p, vec v) {
	memcpy(p, &v, sizeof v);
}

static inline int lanes_of(int n) {
	return n > LANES ? LANES : n < 0 ? 0 : n;
}

/* The first n lanes from memory, 0 in the others; n may be out of 0 .. LANES. */
static inline vec vec_load_first(const float *p, int n) {
	vec v = vec_zero();
	memcpy(&v, p, (size_t)lanes_of(n) * sizeof *p);
	return v;
}

static inline void vec_store_first(float *p, vec v, int n) {
	memcpy(p, &v, (size_t)lanes_of(n) * sizeof *p);
}

/* mask ? a : b */
static inline vec vec_choose(vec_mask mask, vec a, vec b) {
	return (vec)((mask & (vec_mask)a) | (~mask & (vec_mask)b));
}

/* The first n lanes of v, `other` in the rest. */
static inline vec vec_keep_first(vec v, vec other, int n) {
	memcpy(&other, &v, (size_t)lanes_of(n) * sizeof(float));
	return other;
}

static inline vec vec_add(vec a, vec b) {
	return a + b;
}

static inline vec vec_sub(vec a, vec b) {
	return a - b;
}

static inline vec vec_mul(vec a, vec b) {
	return a * b;
}

static inline vec vec_div(vec a, vec b) {
	return a / b;
}

/* a * b + c, rounded once. */
static __attribute__((noinline)) vec vec_fma(vec a, vec b, vec c) {
	for (int i = 0; i < LANES; i++)
		c[i] = __builtin_fmaf(a[i], b[i], c[i]);
	return c;
}

/* a > b ? a : b */
static inline vec vec_max(vec a, vec b) {
	return vec_choose(a > b, a, b);
}

/* a < b ? a : b */
static inline vec vec_min(vec a, vec b) {
	return vec_choose(a < b, a, b);
}

static inline vec vec_abs(vec a) {
	return (vec)((vec_bits)a & 0x7fffffffu);
}

static inline vec vec_copysign(vec magnitude, vec sign) {
	return (vec)(((vec_bits)magnitude & 0x7fffffffu) | ((vec_bits)sign & 0x80000000u));
}

static inline vec_mask vec_not_less(vec a, vec b) {
	return a >= b;
}

/* p * 2^n in two steps, n being in the low bits of `shifted` (mathf_exp). */
static inline vec vec_scale(vec p, vec shifted) {
	vec_mask power = (vec_mask)((vec_bits)shifted - 0x4b400000u);
	vec_mask half = power >> 1, rest = power - half;
	p = p * (vec)((half + 127) << 23);
	return p * (vec)((rest + 127) << 23);
}

/* There is nothing to keep a compiler from: speed is not the point, but compiling soon is. */
#define vec_keep(v) ((void)(v))
#define UNROLL

/* The bf16 numbers in the lower and in the upper halves of the lanes, widened. */
static inline vec vec_lower_bf16(vec v) {
	return (vec)((vec_bits)v << 16);
}

static inline vec vec_upper_bf16(vec v) {
	return (vec)((vec_bits)v & 0xffff0000u);
}

/* a[0] b[0] a[1] b[1] ...: the first half of that, then the second. */
static inline void vec_interleave(vec *a, vec *b) {
	vec from_a = *a, from_b = *b;
	for (int i = 0; i < LANES; i++) {
		(*a)[i] = i % 2 ? from_b[i / 2] : from_a[i / 2];
		(*b)[i] = (i % 2 ? from_b : from_a)[LANES / 2 + i / 2];
	}
}

/* And back. */
static inline void vec_part(vec *a, vec *b) {
	vec first = *a, second = *b;
	for (int i = 0; i < LANES / 2; i++) {
		(*a)[i] = first[2 * i];
		(*b)[i] = first[2 * i + 1];
		(*a)[LANES / 2 + i] = second[2 * i];
		(*b)[LANES / 2 + i] = second[2 * i + 1];
	}
}

/* The 16 virtual lanes, joined 8, 4, 2 and 1 apart. */
static inline float lanes_sum(const vec lanes[1]) {
	vec v = lanes[0];
	for (int apart = LANES / 2; apart > 0; apart /= 2)
		for (int i = 0; i < apart; i++)
			v[i] += v[i + apart];
	return v[0];
}

static inline float lanes_max(const vec lanes[1]) {
	vec v = lanes[0];
	for (int apart = LANES / 2; apart > 0; apart /= 2)
		for (int i = 0; i < apart; i++)
			v[i] = v[i] > v[i + apart] ? v[i] : v[i + apart];
	return v[0];
}
