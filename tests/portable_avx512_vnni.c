/* SPDX-License-Identifier: Apache-2.0 */
/* The products of the AVX-512 table with VNNI over portable vectors, and what VPDPBUSD does. */
#include "tests/portable.h"
#include "tests/portable_vectors.h"

#include "tests/portable_int.h"

#include "model/vector_linear.h"

static __attribute__((noinline)) vec vec_dot_bytes(vec u, vec s, vec sum) {
	union parts x = { .v = u }, y = { .v = s };
	vec_bits to = (vec_bits)sum;
	for (int i = 0; i < 4 * LANES; i++)
		to[i / 4] += (uint32_t)(x.unsigned_bytes[i] * y.bytes[i]);
	return (vec)to;
}

#include "model/vector_int.h"

#include "model/vector_int_dot.h"

const struct ops *portable_avx512_vnni(void) {
	static struct ops table;
	if (!table.name) {
		table = *portable_avx512();
		table.formats[WEIGHTS_INT8] = int8_dot;
		table.formats[WEIGHTS_INT4] = int4_dot;
		table.name = "avx512-vnni, portable";
	}
	return &table;
}
