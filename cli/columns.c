/* SPDX-License-Identifier: Apache-2.0 */
/* Breaking text into lines, and lines beside each other. */
#include "cli/columns.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { GAP = 3, LEAST_WIDTH = 24, DEFAULT_WIDTH = 100 };

int columns_terminal_width(FILE *out) {
	struct winsize size;
	if (isatty(fileno(out)) && ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		return size.ws_col;
	const char *text = getenv("COLUMNS");
	int width = text ? atoi(text) : 0;
	return width > 0 ? width : DEFAULT_WIDTH;
}

/* A text that is given out line by line. */
struct flow {
	const char *at, *end;
};

static bool is_continuation(char c) {
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* Takes the next line of at most `width` characters; its bytes and characters. False at the end. */
static bool take_line(struct flow *f, int width, const char **ret_line, size_t *ret_len,
                int *ret_characters) {
	if (f->at == f->end)
		return false;
	const char *line = f->at, *p = line, *space = NULL;
	int characters = 0, at_space = 0;
	while (p < f->end && *p != '\n' && characters < width) {
		if (*p == ' ' && p > line) {
			space = p;
			at_space = characters;
		}
		p++;
		while (p < f->end && is_continuation(*p))
			p++;
		characters++;
	}
	if (p < f->end && *p != '\n' && *p != ' ' && space) {
		p = space;
		characters = at_space;
	}
	*ret_line = line;
	*ret_len = (size_t)(p - line);
	*ret_characters = characters;
	if (p < f->end && (*p == '\n' || *p == ' '))
		p++;
	f->at = p;
	return true;
}

static void pad(FILE *out, int n) {
	fprintf(out, "%*s", n, "");
}

/* One line of each flow; false when all are at their end. */
static bool print_row(FILE *out, struct flow *flows, int n, int width) {
	bool any = false;
	int owed = 0; /* blanks that are written only before more text */
	for (int i = 0; i < n; i++) {
		const char *line;
		size_t len;
		int characters = 0;
		if (take_line(&flows[i], width, &line, &len, &characters)) {
			any = true;
			pad(out, owed);
			owed = 0;
			fwrite(line, 1, len, out);
		}
		owed += width - characters + GAP;
	}
	if (any)
		fputc('\n', out);
	return any;
}

void columns_print(FILE *out, const struct column *columns, int n, int width) {
	int each = (width - GAP * (n - 1)) / n;
	if (each < LEAST_WIDTH && n > 1) {
		for (int i = 0; i < n; i++) {
			if (i > 0)
				fputc('\n', out);
			columns_print(out, &columns[i], 1, width);
		}
		return;
	}
	if (each < LEAST_WIDTH)
		each = LEAST_WIDTH;
	struct flow *flows = calloc((size_t)n, sizeof *flows);
	if (!flows)
		return;
	for (int h = 0; h < COLUMN_HEADS; h++) {
		for (int i = 0; i < n; i++) {
			const char *head = columns[i].heads[h];
			flows[i] = (struct flow){ head, head + strlen(head) };
		}
		while (print_row(out, flows, n, each))
			;
	}
	fputc('\n', out);
	for (int i = 0; i < n; i++)
		flows[i] = (struct flow){ columns[i].text, columns[i].text + columns[i].len };
	while (print_row(out, flows, n, each))
		;
	free(flows);
}
