/* SPDX-License-Identifier: Apache-2.0 */
/* Histograms against sorting. */
#include <math.h>

#include "bench/load/load.h"
#include "bench/result/histogram.h"
#include "tests/check.h"

static int by_value(const void *a, const void *b) {
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* The value of rank ceil(q n). */
static double sorted_quantile(const double *sorted, size_t n, double q) {
	size_t rank = (size_t)ceil(q * (double)n - 1e-6);
	return sorted[rank < 1 ? 0 : rank - 1];
}

TEST(quantiles_are_within_a_thousandth_of_sorting_from_a_microsecond_to_an_hour) {
	enum { N = 50000 };
	static double values[N];
	static const double q[] = { 0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1 };
	struct load_random random;
	struct histogram h = { 0 };
	double sum = 0;
	load_random_init(&random, 11);
	for (int i = 0; i < N; i++) {
		/* Evenly over the logarithm: 1e-3 ms to 3.6e6 ms. */
		values[i] = 1e-3 * pow(3.6e9, load_random_unit(&random));
		histogram_record(&h, values[i]);
		sum += values[i];
	}
	qsort(values, N, sizeof *values, by_value);
	for (size_t i = 0; i < sizeof q / sizeof *q; i++) {
		double exact = sorted_quantile(values, N, q[i]);
		CHECK(fabs(histogram_quantile(&h, q[i]) / exact - 1) <= 0.001);
	}
	CHECK(h.min == values[0] && h.max == values[N - 1]);
	CHECK(fabs(histogram_mean(&h) / (sum / N) - 1) < 1e-12);
	histogram_finish(&h);
}

TEST(every_value_is_within_a_thousandth_of_its_cell) {
	for (double value = 1e-3; value < 3.6e6; value *= 1.00371) {
		struct histogram h = { 0 };
		histogram_record(&h, value / 2);
		histogram_record(&h, value);
		histogram_record(&h, value * 2);
		CHECK(fabs(histogram_quantile(&h, 0.5) / value - 1) <= 0.001);
		histogram_finish(&h);
	}
}

TEST(few_values_have_the_quantiles_of_their_ranks) {
	struct histogram h = { 0 };
	for (int i = 1; i <= 10; i++)
		histogram_record(&h, i);
	CHECK(fabs(histogram_quantile(&h, 0.5) / 5 - 1) <= 0.001);
	CHECK(fabs(histogram_quantile(&h, 0.9) / 9 - 1) <= 0.001);
	CHECK(fabs(histogram_quantile(&h, 0.95) / 10 - 1) <= 0.001);
	CHECK(histogram_quantile(&h, 0) == 1 && histogram_quantile(&h, 1) == 10);
	histogram_finish(&h);
}

TEST(adding_two_histograms_is_recording_both) {
	struct histogram a = { 0 }, b = { 0 }, both = { 0 };
	for (int i = 1; i <= 100; i++) {
		histogram_record(i % 3 ? &a : &b, i);
		histogram_record(&both, i);
	}
	histogram_add(&a, &b);
	CHECK(a.count == both.count && a.sum == both.sum && a.min == 1 && a.max == 100);
	for (double q = 0; q <= 1; q += 0.1)
		CHECK(histogram_quantile(&a, q) == histogram_quantile(&both, q));
	histogram_finish(&a);
	histogram_finish(&b);
	histogram_finish(&both);
}

TEST(an_empty_histogram_has_no_numbers) {
	struct histogram h = { 0 };
	struct buffer text = { 0 };
	CHECK(isnan(histogram_quantile(&h, 0.5)) && isnan(histogram_mean(&h)));
	histogram_write(&h, &text);
	CHECK_STR(buffer_cstr(&text), "null");
	buffer_finish(&text);
}

TEST(zero_negative_and_endless_times_do_no_harm) {
	struct histogram h = { 0 };
	histogram_record(&h, -1);
	histogram_record(&h, 0);
	histogram_record(&h, 1e12);
	CHECK(h.min == 0 && h.max == 1e12 && h.count == 3);
	CHECK(histogram_quantile(&h, 0.5) == 0 && histogram_quantile(&h, 1) == 1e12);
	histogram_finish(&h);
}
