/* SPDX-License-Identifier: Apache-2.0 */
/* Shortest numbers by trying: as few digits as are sure to be enough first, then more. */
#include "proto/number.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A run of bytes that belong to no number is the locale's decimal separator: it becomes a point. */
static void put_point(char *text) {
	char *out = text;
	bool separator = false;
	for (const char *p = text; *p; p++) {
		bool plain = strchr("0123456789+-e", *p) != NULL;
		if (plain)
			*out++ = *p;
		else if (!separator)
			*out++ = '.';
		separator = !plain;
	}
	*out = '\0';
}

/*
 * A decimal of at most FLT_DIG digits survives the way to f32 and back, so %.6g finds it if there
 * is one; below the normal range fewer digits may do.
 */
static double print_f32(char text[NUMBER_BYTES], float value) {
	int digits = fabsf(value) >= FLT_MIN || value == 0.0f ? FLT_DIG : 1;
	for (;; digits++) {
		snprintf(text, NUMBER_BYTES, "%.*g", digits, (double)value);
		if (digits >= FLT_DECIMAL_DIG || strtof(text, NULL) == value)
			return strtod(text, NULL);
	}
}

/* Where 0 <= n < 10^9 and `scale` of its digits follow the point; zeros at its end are left out. */
static void print_scaled(char text[NUMBER_BYTES], bool negative, int64_t n, int scale) {
	char digits[24];
	for (; scale > 0 && n % 10 == 0; scale--)
		n /= 10;
	int count = snprintf(digits, sizeof digits, "%0*lld", scale + 1, (long long)n);
	int whole = count - scale;
	snprintf(text, NUMBER_BYTES, "%s%.*s%s%s", negative ? "-" : "", whole, digits,
	                scale > 0 ? "." : "", digits + whole);
}

/*
 * The same text as print_f32 for most numbers of common size, many times faster: lists of them fill
 * whole answers. All products below are exact, because 24 bits times 5^12 fit in 53. False where a
 * decimal lies so close to the middle of two floats that only a correct strtof can tell.
 */
static bool print_common_f32(char text[NUMBER_BYTES], float value) {
	static const double powers[] = { 1e-4, 1e-3, 1e-2, 1e-1, 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6,
		1e7, 1e8, 1e9, 1e10, 1e11, 1e12 };
	enum { ONE = 4, LEAST = -4, MOST = 6 };
	double size = fabs((double)value);
	if (!(size >= powers[ONE + LEAST] && size < powers[ONE + MOST]))
		return false;
	int exponent = LEAST;
	while (size >= powers[ONE + exponent + 1])
		exponent++;
	double below = size - (double)nextafterf((float)size, 0);
	double above = (double)nextafterf((float)size, INFINITY) - size;
	for (int digits = FLT_DIG; digits <= FLT_DECIMAL_DIG; digits++) {
		int scale = digits - 1 - exponent;
		int64_t n = llrint(size * powers[ONE + scale]);
		double off = (double)n / powers[ONE + scale] - size;
		double part = off < 0 ? -off / below
		                      : off / above; /* of the gap to the next float */
		if (part > 0.499 && part < 0.501)
			return false;
		if (part <= 0.499) {
			print_scaled(text, value < 0, n, scale);
			return true;
		}
	}
	return false;
}

void number_from_f32(char text[NUMBER_BYTES], float value) {
	if (print_common_f32(text, value))
		return;
	print_f32(text, value);
	put_point(text);
}

void number_from_f64(char text[NUMBER_BYTES], double value) {
	int digits = fabs(value) >= DBL_MIN || value == 0.0 ? DBL_DIG : 1;
	for (;; digits++) {
		snprintf(text, NUMBER_BYTES, "%.*g", digits, value);
		if (digits >= DBL_DECIMAL_DIG || strtod(text, NULL) == value)
			break;
	}
	put_point(text);
}

double number_read_back(float value) {
	char text[NUMBER_BYTES];
	return print_f32(text, value);
}
