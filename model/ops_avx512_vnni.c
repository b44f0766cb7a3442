/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-512 table with VNNI: that below it, but for products with int8 and int4 weights, which take
 * four products a lane and instruction (VPDPBUSD).
 */
#include "model/vector_avx512.h"

#include "model/vector_int_avx512.h"
#include "model/vector_linear.h"

/* Each lane: sum + four products of an unsigned byte of u and a signed one of s. */
static inline vec vec_dot_bytes(vec u, vec s, vec sum) {
	return int_as(_mm512_dpbusd_epi32(int_of(sum), int_of(u), int_of(s)));
}

#include "model/vector_int.h"

#include "model/vector_int_dot.h"

const struct ops *ops_avx512_vnni(void) {
	static struct ops table;
	if (!table.name) {
		table = *ops_avx512();
		table.formats[WEIGHTS_INT8] = int8_dot;
		table.formats[WEIGHTS_INT4] = int4_dot;
		table.name = "avx512-vnni";
	}
	return &table;
}
