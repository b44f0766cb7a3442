/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for ops_blas.c in a build without OpenBLAS. */
#include <stdio.h>

#include "model/ops.h"

const struct ops *ops_blas(void) {
	return NULL;
}

bool ops_blas_check(char *err, size_t errlen) {
	snprintf(err, errlen, "this build has no OpenBLAS");
	return false;
}

const char *ops_blas_description(void) {
	return NULL;
}
