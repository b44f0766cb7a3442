/* SPDX-License-Identifier: Apache-2.0 */
/* An SVG picture of quality against depth and against milliseconds, side by side. */
#ifndef FATHOM_CLI_CHART_H
#define FATHOM_CLI_CHART_H

#include <stdio.h>

struct chart_point {
	char name[32]; /* the depth as people write it */
	double share;  /* layers kept over all layers: its place on the axis of depth */
	double ms, quality;
};

struct chart {
	const char *title;
	const char *metric, *item; /* "perplexity", "token" */
	const struct chart_point *points;
	int n;
};

void chart_write(FILE *out, const struct chart *chart);

#endif
