/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of kernels share: reproducible random numbers, memory, and comparison of bits. */
#ifndef FATHOM_TESTS_NUMBERS_H
#define FATHOM_TESTS_NUMBERS_H

#include <math.h>
#include <stdint.h>

#include "model/mathf.h"
#include "model/ops.h"
#include "tests/check.h"

static uint64_t random_state = 88172645463325252u;

static inline uint32_t random_bits(void) {
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32);
}

static inline int random_between(int low, int high) {
	return low + (int)(random_bits() % (uint32_t)(high - low + 1));
}

static inline float random_float(void) {
	return (float)(int32_t)random_bits() * 0x1p-31f;
}

/* Memory of the running test; freed when the next one begins. */
static void *taken[4096];
static int n_taken;

static inline void fresh_memory(void) {
	while (n_taken)
		free(taken[--n_taken]);
	random_state = 88172645463325252u;
}

/* Aligned, and no byte longer than asked for: the address sanitizer sees every read beyond. */
static inline float *take(size_t n) {
	void *p = NULL;
	if (posix_memalign(&p, 64, n * sizeof(float)) != 0
	                || n_taken == (int)(sizeof taken / sizeof *taken))
		abort();
	taken[n_taken++] = p;
	return p;
}

static inline float *take_random(size_t n) {
	float *p = take(n);
	for (size_t i = 0; i < n; i++)
		p[i] = random_float();
	return p;
}

static inline float *take_copy(const float *from, size_t n) {
	return memcpy(take(n), from, n * sizeof(float));
}

static inline bool same_bits(const float *a, const float *b, size_t n) {
	for (size_t i = 0; i < n; i++)
		if (mathf_bits(a[i]) != mathf_bits(b[i]) && !(isnan(a[i]) && isnan(b[i])))
			return false;
	return true;
}

/* Puts NaN, infinities, denormals, zeros and huge values into about one place in `every`. */
static inline void spoil(float *x, size_t n, int every) {
	static const float odd[] = { NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 0x1p-140f, -0x1p-130f,
		3e38f, -3e38f };
	for (size_t i = 0; i < n; i++)
		if (random_between(1, every) == 1)
			x[i] = odd[random_between(0, 8)];
}

/* The exact tables besides C that this machine can run. */
static inline const struct ops *overlay(enum cpu_level level) {
	if (cpu_level_detect() < level)
		SKIP("this processor has no %s", cpu_level_name(level));
	const struct ops *ops = ops_of_level(level);
	CHECK(ops != NULL);
	return ops;
}

#endif
