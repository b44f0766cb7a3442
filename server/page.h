/* SPDX-License-Identifier: Apache-2.0 */
/* The page at /, made from server/page/ when building. */
#ifndef FATHOM_SERVER_PAGE_H
#define FATHOM_SERVER_PAGE_H

#include <stddef.h>

extern const char page_html[];
extern const size_t page_html_len;
/* Content-Security-Policy: only the page's own script and style (by their hashes), only this server. */
extern const char page_policy[];

#endif
