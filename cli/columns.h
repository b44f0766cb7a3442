/* SPDX-License-Identifier: Apache-2.0 */
/* Texts side by side on a terminal, or one below another where it is too narrow. */
#ifndef FATHOM_CLI_COLUMNS_H
#define FATHOM_CLI_COLUMNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { COLUMN_HEADS = 4 };

struct column {
	char heads[COLUMN_HEADS][512]; /* lines above the text; "": absent */
	const char *text;              /* well-formed UTF-8 */
	size_t len;
};

/* `width` is the terminal's; text is broken at spaces and, where a word is too long, inside. */
void columns_print(FILE *out, const struct column *columns, int n, int width);

/* Columns of the terminal that `out` is, else of COLUMNS, else 100. */
int columns_terminal_width(FILE *out);

#endif
