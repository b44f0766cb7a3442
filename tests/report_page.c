/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the page of a result for the tests in a browser: report_page RESULT.json PAGE.html */
#include <stdio.h>
#include <stdlib.h>

#include "bench/report/report.h"

int main(int argc, char **argv) {
	FILE *file = argc == 3 ? fopen(argv[1], "r") : NULL;
	char *json = NULL, err[512];
	size_t size = 0;

	if (!file || getdelim(&json, &size, '\0', file) < 0) {
		fputs("report_page RESULT.json PAGE.html\n", stderr);
		return 2;
	}
	fclose(file);

	bool written = report_write_html(argv[2], json, err, sizeof err);

	free(json);
	if (!written)
		fprintf(stderr, "%s\n", err);
	return written ? 0 : 1;
}
