/* SPDX-License-Identifier: Apache-2.0 */
/* bf16: the upper half of a float's bits, rounded to nearest even. Not a number by itself in C. */
#ifndef FATHOM_MODEL_BF16_H
#define FATHOM_MODEL_BF16_H

#include <stdint.h>

#include "model/mathf.h"

static inline float bf16_widen(uint16_t half) {
	return mathf_from_bits((uint32_t)half << 16);
}

/* Rounded to nearest even; beyond the largest number infinity; any NaN a quiet one. */
static inline uint16_t bf16_round(float x) {
	uint32_t bits = mathf_bits(x);
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

#endif
