/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-512 table with BF16: that below it, but for products with bf16 weights, which take inputs
 * rounded to bf16 and two products a lane and instruction (VDPBF16PS).
 */
#include "model/vector_avx512.h"

#include "model/vector_linear.h"

/* Each lane: sum + the upper product, rounded, then + the lower product, rounded. */
static inline vec vec_dot_bf16(vec a, vec b, vec sum) {
	return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/* 32 floats as bf16, in order. Denormal numbers count as 0, as they do in the products. */
static inline vec vec_round_bf16(vec first, vec second) {
	return (vec)_mm512_cvtne2ps_pbh(second, first);
}

#include "model/vector_bf16_dot.h"

const struct ops *ops_avx512_bf16(void) {
	static struct ops table;
	if (!table.name) {
		table = *ops_avx512_vnni();
		dot_install(&table.formats[WEIGHTS_BF16]);
		table.name = "avx512-bf16";
	}
	return &table;
}
