/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The result of a run as one HTML page with pictures. The page holds the JSON and draws it itself: it
 * asks nobody for anything, so it can be opened from a file, mailed, or printed.
 */
#ifndef FATHOM_BENCH_REPORT_H
#define FATHOM_BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Writes the page of `json`, the text of one object in the format "fathom-bench-1", to the file `path`,
 * which is replaced. The text is put into the page such that nothing in it, a model's name for one, can
 * end the place where data stands. It is not checked: the page says itself what it cannot show. False
 * with one sentence in `err` if the file cannot be written.
 */
bool report_write_html(const char *path, const char *json, char *err, size_t errlen);

#endif
