/* SPDX-License-Identifier: Apache-2.0 */
/* The page that draws a result, made from report/ when building: what stands before and after the JSON. */
#ifndef FATHOM_BENCH_REPORT_PAGE_H
#define FATHOM_BENCH_REPORT_PAGE_H

extern const char report_page_head[];
extern const char report_page_tail[];

#endif
