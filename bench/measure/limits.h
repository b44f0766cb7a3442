/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's own limits, measured beside what is compared with them: fused multiply-adds from
 * registers, and reading from memory. Each is the best of several ways of writing the loop.
 */
#ifndef FATHOM_BENCH_LIMITS_H
#define FATHOM_BENCH_LIMITS_H

#include <stddef.h>

#include "model/ops.h"
#include "model/team.h"

/* Seconds of a clock that only goes forward. */
double limits_seconds(void);

/* f32 operations a second (a fused multiply-add is two) of the whole team, up to `level`. */
double limits_flops(struct team *team, enum cpu_level level);

/* Bytes a second that the whole team reads from data[0..n), which must be far larger than all caches. */
double limits_bandwidth(struct team *team, enum cpu_level level, const float *data, size_t n);

#endif
