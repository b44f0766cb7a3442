/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax over many columns, in a fixed order. */
#include "model/softmax.h"

#include "model/mathf.h"

int softmax_blocks(int n) {
	return (n + SOFTMAX_COLUMNS - 1) / SOFTMAX_COLUMNS;
}

struct softmax_sum softmax_block(const struct ops *ops, const float *x, int n, int block) {
	struct softmax_sum sum;
	int first = block * SOFTMAX_COLUMNS, left = n - first;
	ops->max_sum_exp(x + first, left < SOFTMAX_COLUMNS ? left : SOFTMAX_COLUMNS, &sum.max,
	                &sum.sum);
	if (sum.max == -INFINITY) /* there infinity was subtracted from infinity */
		sum.sum = 0;
	return sum;
}

static struct softmax_sum join(struct softmax_sum a, struct softmax_sum b) {
	float max = mathf_max(a.max, b.max);
	if (max == -INFINITY)
		return a;
	float sum_a = a.sum * mathf_exp(a.max - max);
	float sum_b = b.sum * mathf_exp(b.max - max);
	return (struct softmax_sum){ .max = max, .sum = sum_a + sum_b };
}

struct softmax_sum softmax_join(struct softmax_sum *blocks, int n) {
	while (n > 1) {
		int half = n / 2;
		for (int i = 0; i < half; i++)
			blocks[i] = join(blocks[2 * i], blocks[2 * i + 1]);
		if (n % 2)
			blocks[half++] = blocks[n - 1];
		n = half;
	}
	return blocks[0];
}
