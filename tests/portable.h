/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-512 tables compiled without AVX-512, over tests/portable_vectors.h: they must give the
 * bits of the real ones, and let the kernels be tested where the processor has no such instructions.
 */
#ifndef FATHOM_TESTS_PORTABLE_H
#define FATHOM_TESTS_PORTABLE_H

#include "model/ops.h"

const struct ops *portable_avx512(void);
const struct ops *portable_avx512_vnni(void);
const struct ops *portable_avx512_bf16(void);

/* VDPBF16PS in one lane: sum, and two pairs of bf16 in the halves of 32 bits each. */
float portable_dot_bf16(float sum, uint32_t a, uint32_t b);

#endif
