/* SPDX-License-Identifier: Apache-2.0 */
/* Cells: a value in millionths below 2,048 has one of its own; above, each power of two has 1,024. */
#include "bench/result/histogram.h"

#include <math.h>
#include <stdlib.h>

enum { EXACT_BITS = 11, SUB_BITS = 10, MOST_BITS = 42 };
enum { CELLS = (1 << EXACT_BITS) + ((MOST_BITS - EXACT_BITS) << SUB_BITS) };

static const double unit = 1e-6;

static uint32_t cell_of(uint64_t n) {
	if (n >= (uint64_t)1 << MOST_BITS)
		return CELLS - 1;
	if (n < 1u << EXACT_BITS)
		return (uint32_t)n;
	int bits = 64 - __builtin_clzll(n); /* 2^(bits - 1) <= n */
	int shift = bits - 1 - SUB_BITS;
	return (1u << EXACT_BITS) + ((uint32_t)(bits - 1 - EXACT_BITS) << SUB_BITS)
	                + (uint32_t)((n >> shift) - (1u << SUB_BITS));
}

/* The middle of a cell. */
static double value_of(uint32_t cell) {
	if (cell < 1u << EXACT_BITS)
		return cell * unit;
	uint32_t above = cell - (1u << EXACT_BITS);
	int shift = (int)(above >> SUB_BITS) + EXACT_BITS - SUB_BITS;
	uint64_t low = (uint64_t)((above & ((1u << SUB_BITS) - 1)) + (1u << SUB_BITS)) << shift;
	return ((double)low + (double)((uint64_t)1 << shift) / 2) * unit;
}

void histogram_finish(struct histogram *h) {
	free(h->cells);
	*h = (struct histogram){ 0 };
}

static bool has_cells(struct histogram *h) {
	if (!h->cells && !h->failed) {
		h->cells = calloc(CELLS, sizeof *h->cells);
		h->failed = !h->cells;
	}
	return !h->failed;
}

void histogram_record(struct histogram *h, double value) {
	if (isnan(value) || !has_cells(h))
		return;
	if (value < 0)
		value = 0;
	h->min = h->count == 0 || value < h->min ? value : h->min;
	h->max = h->count == 0 || value > h->max ? value : h->max;
	h->count++;
	h->sum += value;
	h->cells[value < 4e12 * unit ? cell_of((uint64_t)(value / unit + 0.5)) : CELLS - 1]++;
}

void histogram_add(struct histogram *to, const struct histogram *from) {
	if (from->count == 0 || !has_cells(to))
		return;
	to->min = to->count == 0 ? from->min : fmin(to->min, from->min);
	to->max = to->count == 0 ? from->max : fmax(to->max, from->max);
	to->count += from->count;
	to->sum += from->sum;
	for (uint32_t i = 0; i < CELLS; i++)
		to->cells[i] += from->cells[i];
}

double histogram_mean(const struct histogram *h) {
	return h->count ? h->sum / (double)h->count : NAN;
}

double histogram_quantile(const struct histogram *h, double q) {
	if (h->count == 0)
		return NAN;
	/* The share may be off by a rounding: 0.9 x 10 must be the 9th, not the 10th. */
	double exact = q * (double)h->count;
	uint64_t rank = (uint64_t)ceil(exact - 1e-9 * exact), seen = 0;
	if (rank < 1)
		return h->min;
	if (rank >= h->count)
		return h->max;
	for (uint32_t i = 0; i < CELLS; i++) {
		seen += h->cells[i];
		if (seen >= rank)
			return fmin(h->max, fmax(h->min, value_of(i)));
	}
	return h->max;
}

void histogram_write(const struct histogram *h, struct buffer *out) {
	static const struct {
		const char *name;
		double q;
	} quantiles[] = { { "p50", 0.5 }, { "p75", 0.75 }, { "p90", 0.9 }, { "p95", 0.95 },
		{ "p99", 0.99 }, { "p99_9", 0.999 } };
	if (h->count == 0) {
		buffer_puts(out, "null");
		return;
	}
	buffer_printf(out, "{\"count\":%llu,\"mean\":", (unsigned long long)h->count);
	buffer_json_f64(out, histogram_mean(h));
	buffer_puts(out, ",\"min\":");
	buffer_json_f64(out, h->min);
	for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
		buffer_printf(out, ",\"%s\":", quantiles[i].name);
		buffer_json_f64(out, histogram_quantile(h, quantiles[i].q));
	}
	buffer_puts(out, ",\"max\":");
	buffer_json_f64(out, h->max);
	buffer_puts(out, "}");
}
