/* SPDX-License-Identifier: Apache-2.0 */
/* The AVX-512 table with VNNI: that below it, but for products with int8 and int4 weights. */
#include "model/ops.h"

const struct ops *ops_avx512_vnni(void) {
	static struct ops table;
	if (!table.name) {
		table = *ops_avx512();
		table.name = "avx512-vnni";
	}
	return &table;
}
