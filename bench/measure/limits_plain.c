/* SPDX-License-Identifier: Apache-2.0 */
/* Loops in plain C, for processors without overlays. */
#include "bench/measure/limits_loops.h"

static float fma_plain(int rounds) {
	float sums[CHAINS] = { 0 };
	for (int i = 0; i < rounds; i++)
		for (int c = 0; c < CHAINS; c++)
			sums[c] = __builtin_fmaf(sums[c], 0.999f, 1.0f);
	for (int c = 1; c < CHAINS; c++)
		sums[0] += sums[c];
	return sums[0];
}

static float read_plain(const float *data, size_t n) {
	float sums[16] = { 0 };
	for (size_t i = 0; i + 16 <= n; i += 16)
		for (int j = 0; j < 16; j++)
			sums[j] += data[i + (size_t)j];
	for (int j = 1; j < 16; j++)
		sums[0] += sums[j];
	return sums[0];
}

const struct peak_loop peak_loops[] = { { "fma", CPU_LEVEL_C, ~0u, 2, fma_plain } };
const size_t n_peak_loops = 1;
const struct read_loop read_loops[] = { { CPU_LEVEL_C, read_plain } };
const size_t n_read_loops = 1;
