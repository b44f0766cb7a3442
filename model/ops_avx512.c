/* SPDX-License-Identifier: Apache-2.0 */
/* The AVX-512 table (F, BW, DQ, VL): the algorithms of model/vector_ops.h over 16 lanes. */
#include "model/vector_avx512.h"

#include "model/vector_int_avx512.h"
#include "model/vector_ops.h"

const struct ops *ops_avx512(void) {
	static const struct ops table = VECTOR_TABLE("avx512", "AVX-512");
	return &table;
}
