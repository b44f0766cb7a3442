/* SPDX-License-Identifier: Apache-2.0 */
/* The loops of limits.c, by processor. */
#ifndef FATHOM_BENCH_LIMITS_LOOPS_H
#define FATHOM_BENCH_LIMITS_LOOPS_H

#include <stddef.h>
#include <stdint.h>

#include "model/ops.h"

/* Sums side by side, each waiting for itself: as many as hide the latency of any instruction. */
enum { CHAINS = 12 };

/* One instruction, or a pair that belongs together. */
struct peak_loop {
	const char *instruction;
	enum cpu_level level; /* from which on it exists */
	unsigned formats;     /* bit f: weights of format f are multiplied with it */
	int operations;       /* of one link of one chain */
	/* `rounds` links of CHAINS chains; returns something that depends on all of them. */
	float (*run)(int rounds);
};

/* Reads all of data; returns something that depends on all of it. */
struct read_loop {
	enum cpu_level level;
	float (*run)(const float *data, size_t n);
};

extern const struct peak_loop peak_loops[];
extern const size_t n_peak_loops;
extern const struct read_loop read_loops[];
extern const size_t n_read_loops;

#endif
