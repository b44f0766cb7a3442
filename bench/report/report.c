/* SPDX-License-Identifier: Apache-2.0 */
/* Results as HTML pages: the page around the data, and data that stay data. */
#include "bench/report/report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bench/report/report_page.h"

/*
 * In JSON a "<" can only stand inside a string, where "\u003c" means the same. Without it there is no
 * "</script", which would end the element, and no "<!--", which would change how its end is found.
 */
static void put_data(FILE *out, const char *json) {
	for (const char *next; (next = strchr(json, '<')) != NULL; json = next + 1) {
		fwrite(json, 1, next - json, out);
		fputs("\\u003c", out);
	}
	fputs(json, out);
}

bool report_write_html(const char *path, const char *json, char *err, size_t errlen) {
	FILE *out = fopen(path, "w");

	if (!out) {
		snprintf(err, errlen, "%s cannot be written: %s.", path, strerror(errno));
		return false;
	}
	fputs(report_page_head, out);
	put_data(out, json);
	fputs(report_page_tail, out);

	bool written = !ferror(out);

	if (fclose(out) != 0 || !written) {
		snprintf(err, errlen, "%s cannot be written: %s.", path, strerror(errno));
		return false;
	}
	return true;
}
