/* SPDX-License-Identifier: Apache-2.0 */
/* The AVX-512 table with BF16: that below it, but for products with bf16 weights. */
#include "model/ops.h"

const struct ops *ops_avx512_bf16(void) {
	static struct ops table;
	if (!table.name) {
		table = *ops_avx512_vnni();
		table.name = "avx512-bf16";
	}
	return &table;
}
