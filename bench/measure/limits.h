/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's own limits, measured beside what is compared with them: the instructions that a
 * format of weights is multiplied with, from registers, and reading from memory. Each is the best of
 * several ways of writing the loop.
 */
#ifndef FATHOM_BENCH_LIMITS_H
#define FATHOM_BENCH_LIMITS_H

#include <stddef.h>

#include "model/ops.h"
#include "model/team.h"

/* Seconds of a clock that only goes forward. */
double limits_seconds(void);

/*
 * Operations a second (a multiplication and an addition are two) of the whole team, with the
 * instructions that weights of `format` are multiplied with at `level`: fused multiply-adds for f32,
 * and for bf16 where there is nothing better; sums of products of 2 bf16, of 4 bytes.
 */
double limits_peak(struct team *team, enum cpu_level level, enum weight_format format);
/* What limits_peak measures, in a word or two. */
const char *limits_instruction(enum cpu_level level, enum weight_format format);

/* limits_peak of f32. */
double limits_flops(struct team *team, enum cpu_level level);

/* Bytes a second that the whole team reads from data[0..n), which must be far larger than all caches. */
double limits_bandwidth(struct team *team, enum cpu_level level, const float *data, size_t n);

#endif
