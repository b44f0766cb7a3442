/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histograms of times from a microsecond to an hour, exact to 0.05 %: counts in cells that are
 * equally wide within each power of two. The idea is Gil Tene's (HdrHistogram): memory does not
 * grow with what is recorded, and the far quantiles are as exact as the near ones.
 */
#ifndef FATHOM_BENCH_HISTOGRAM_H
#define FATHOM_BENCH_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/buffer.h"

struct histogram {
	uint64_t *cells; /* NULL: nothing was recorded */
	uint64_t count;
	double sum, min, max; /* exact */
	bool failed;          /* memory ran out: counts and quantiles are missing */
};

/* All zero is an empty histogram. */
void histogram_finish(struct histogram *h);

/* Records milliseconds, or any number whose millionth parts do not matter. Negative ones count as
 * 0, those above an hour (3.6e6) as they are in sum and max and as 4.3e6 in quantiles. */
void histogram_record(struct histogram *h, double value);

/* Records all that `from` has. */
void histogram_add(struct histogram *to, const struct histogram *from);

/* The least value such that a share `q` of all is not above it; NAN without any. The middle of its
 * cell, but never outside min and max. */
double histogram_quantile(const struct histogram *h, double q);
double histogram_mean(const struct histogram *h);

/* {"count", "mean", "min", "p50", ... "max"}; null if it is empty. */
void histogram_write(const struct histogram *h, struct buffer *out);

#endif
