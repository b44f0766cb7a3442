/* SPDX-License-Identifier: Apache-2.0 */
/* Processors for which there is no overlay yet: plain C is the only level of our own kernels. */
#include "model/ops.h"

enum cpu_level cpu_level_detect(void) {
	return CPU_LEVEL_C;
}

const struct ops *ops_avx2(void) {
	return NULL;
}

const struct ops *ops_avx512(void) {
	return NULL;
}

const struct ops *ops_avx512_vnni(void) {
	return NULL;
}

const struct ops *ops_avx512_bf16(void) {
	return NULL;
}
