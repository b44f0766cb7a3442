/* SPDX-License-Identifier: Apache-2.0 */
/* The AVX-512 table over portable vectors. */
#include "tests/portable.h"
#include "tests/portable_vectors.h"

#include "tests/portable_int.h"

#include "model/vector_ops.h"

const struct ops *portable_avx512(void) {
	static const struct ops table = VECTOR_TABLE("avx512, portable", "portable vectors");
	return &table;
}
