/* SPDX-License-Identifier: Apache-2.0 */
/* The clocks: monotonic for durations, wall for time stamps. Only server/ and cli/ read them. */
#ifndef FATHOM_SERVER_CLOCK_H
#define FATHOM_SERVER_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline double clock_ms(int64_t ns) {
	return (double)ns * 1e-6;
}

#endif
