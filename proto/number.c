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

void number_from_f32(char text[NUMBER_BYTES], float value) {
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
