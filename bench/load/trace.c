/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces: requests as lines of a CSV whose first line names the columns. Cells hold no commas and
 * need no quotes; quotes around a cell are taken off. Lines that are empty or begin with # are
 * passed over.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/parts.h"

enum column {
	COLUMN_ARRIVAL,
	COLUMN_PROMPT,
	COLUMN_MAX,
	COLUMN_LENGTH,
	COLUMN_DEPTH,
	COLUMN_LATENCY,
	COLUMN_TTFT,
	COLUMN_TPOT,
	COLUMN_DEADLINE,
	COLUMN_PRIORITY,
	COLUMN_CLASS,
	COLUMNS,
};

enum { CELL = 64 };

#define R(member) offsetof(struct load_request, member)

static const struct {
	const char *name;
	enum { IS_MS, IS_COUNT, IS_DEPTH, IS_CLASS } kind;
	size_t offset;
	double min, max;
} columns[COLUMNS] = {
	[COLUMN_ARRIVAL] = { "arrival_ms", IS_MS, R(arrival_ms), 0, 1e10 },
	[COLUMN_PROMPT] = { "prompt_tokens", IS_COUNT, R(prompt_tokens), 1, 1e6 },
	[COLUMN_MAX] = { "max_tokens", IS_COUNT, R(max_tokens), 0, 1e6 },
	[COLUMN_LENGTH] = { "length", IS_COUNT, R(length), 0, 1e6 },
	[COLUMN_DEPTH] = { "depth", IS_DEPTH, R(depth), 0, 0 },
	[COLUMN_LATENCY] = { "latency_budget_ms", IS_MS, R(latency_budget_ms), 0, 1e7 },
	[COLUMN_TTFT] = { "ttft_budget_ms", IS_MS, R(ttft_budget_ms), 0, 1e7 },
	[COLUMN_TPOT] = { "tpot_budget_ms", IS_MS, R(tpot_budget_ms), 0, 1e7 },
	[COLUMN_DEADLINE] = { "deadline_ms", IS_MS, R(deadline_ms), 0, 1e7 },
	[COLUMN_PRIORITY] = { "priority", IS_COUNT, R(priority), -1000, 1000 },
	[COLUMN_CLASS] = { "class", IS_CLASS, R(kind), 0, 0 },
};

/* ---- reading --------------------------------------------------------------------------------- */

struct reader {
	struct load *load;
	const char *file, *at, *end;
	int line;
	int order[COLUMNS]; /* enum column of each cell of a line */
	int n_order;
	struct load_request *requests;
	size_t n, cap;
	char *err;
	size_t errlen;
};

/* FILE: line L, column C (NAME): why. `cell` counts from 0; < 0: none. */
static bool complain(const struct reader *r, int cell, const char *why, const char *text) {
	char shown[CELL], place[80] = "";
	if (cell >= 0)
		snprintf(place, sizeof place, ", column %d%s%s%s", cell + 1,
		                cell < r->n_order ? " (" : "",
		                cell < r->n_order ? columns[r->order[cell]].name : "",
		                cell < r->n_order ? ")" : "");
	snprintf(r->err, r->errlen, "%.300s: line %d%s: %s%s%s%s", r->file, r->line, place,
	                text ? "\"" : "", text ? doc_printable(text, shown, sizeof shown) : "",
	                text ? "\" " : "", why);
	return false;
}

/* The next line that says something, without its end; false at the end. */
static bool next_line(struct reader *r, const char **ret_line, const char **ret_end) {
	while (r->at < r->end) {
		const char *line = r->at;
		const char *stop = memchr(line, '\n', (size_t)(r->end - line));
		r->at = stop ? stop + 1 : r->end;
		r->line++;
		stop = stop ? stop : r->end;
		if (r->line == 1 && stop - line >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0)
			line += 3;
		while (stop > line && isspace((unsigned char)stop[-1]))
			stop--;
		if (stop == line || *line == '#')
			continue;
		*ret_line = line;
		*ret_end = stop;
		return true;
	}
	return false;
}

/* The next cell of a line, NUL-terminated without blanks and quotes; false behind the last. */
static bool next_cell(const char **at, const char *end, char cell[CELL]) {
	if (!*at)
		return false;
	const char *stop = memchr(*at, ',', (size_t)(end - *at));
	const char *first = *at, *last = stop ? stop : end;
	*at = stop ? stop + 1 : NULL;
	while (first < last && isblank((unsigned char)*first))
		first++;
	while (last > first && isblank((unsigned char)last[-1]))
		last--;
	if (last - first >= 2 && *first == '"' && last[-1] == '"') {
		first++;
		last--;
	}
	size_t len = (size_t)(last - first);
	if (len >= CELL)
		len = CELL - 1;
	memcpy(cell, first, len);
	cell[len] = '\0';
	return true;
}

static bool read_head(struct reader *r) {
	const char *at, *end;
	char cell[CELL];
	bool seen[COLUMNS] = { false };
	if (!next_line(r, &at, &end)) {
		r->line = 1;
		return complain(r, -1, "the line that names the columns is missing", NULL);
	}
	while (next_cell(&at, end, cell)) {
		int c = 0;
		while (c < COLUMNS && strcmp(columns[c].name, cell) != 0)
			c++;
		if (c == COLUMNS)
			return complain(r, r->n_order, "is no column of a trace", cell);
		if (seen[c])
			return complain(r, r->n_order, "is there twice", cell);
		seen[c] = true;
		r->order[r->n_order++] = c;
	}
	return seen[COLUMN_ARRIVAL] || complain(r, -1, "the column arrival_ms is missing", NULL);
}

/* The class of that name; a load that was not mixed learns it. -1: unknown. */
static int find_class(struct load *load, const char *name) {
	for (int i = 0; i < load->n_classes; i++) {
		if (strcmp(load->classes[i].name, name) == 0)
			return i;
	}
	if (load->mixed || load->n_classes == LOAD_CLASSES || strlen(name) >= LOAD_NAME)
		return -1;
	struct load_class *class = &load->classes[load->n_classes];
	*class = load->base;
	snprintf(class->name, sizeof class->name, "%s", name);
	class->weight = 0;
	return load->n_classes++;
}

static bool set_cell(struct reader *r, int cell, const char *text, struct load_request *request) {
	const enum column c = (enum column)r->order[cell];
	void *at = (char *)request + columns[c].offset;
	char why[96], *end;
	if (!*text) /* what was drawn stays */
		return c != COLUMN_ARRIVAL || complain(r, cell, "is empty", NULL);
	if (columns[c].kind == IS_CLASS)
		return true;
	if (columns[c].kind == IS_DEPTH) {
		if (strlen(text) >= LOAD_NAME)
			return complain(r, cell, "is no depth", text);
		snprintf(at, LOAD_NAME, "%s", text);
		return true;
	}
	bool whole = columns[c].kind == IS_COUNT;
	errno = 0;
	double value = strtod(text, &end);
	if (end == text || *end || errno || !(value >= columns[c].min && value <= columns[c].max)
	                || (whole && value != floor(value))) {
		snprintf(why, sizeof why, "is no %snumber from %.10g to %.10g",
		                whole ? "whole " : "", columns[c].min, columns[c].max);
		return complain(r, cell, why, text);
	}
	if (whole)
		*(int *)at = (int)value;
	else
		*(double *)at = load_round_us(value);
	return true;
}

/* The class decides what is drawn, so its cell is read first. */
static bool read_class(
                struct reader *r, const char *at, const char *end, struct load_request *request) {
	char cell[CELL];
	for (int i = 0; next_cell(&at, end, cell); i++) {
		if (i >= r->n_order)
			return complain(r, i, "is one cell too many", cell);
		if (r->order[i] != COLUMN_CLASS || !*cell)
			continue;
		int kind = find_class(r->load, cell);
		if (kind < 0)
			return complain(r, i, "is no class of the load", cell);
		load_draw_class(r->load, r->n, kind, request);
	}
	return true;
}

static bool read_line(
                struct reader *r, const char *at, const char *end, struct load_request *request) {
	char cell[CELL];
	bool length = false, max = false;
	load_draw(r->load, r->n, request);
	request->think_ms = 0;
	if (!read_class(r, at, end, request))
		return false;
	int i = 0;
	for (; next_cell(&at, end, cell); i++) {
		if (!set_cell(r, i, cell, request))
			return false;
		length = length || (r->order[i] == COLUMN_LENGTH && *cell);
		max = max || (r->order[i] == COLUMN_MAX && *cell);
	}
	if (i < r->n_order)
		return complain(r, i, "is missing", NULL);
	if (request->length > request->max_tokens) {
		if (length && max)
			return complain(r, -1, "length is more than max_tokens", NULL);
		if (length)
			request->max_tokens = request->length;
		else
			request->length = request->max_tokens;
	}
	return true;
}

static bool append(struct reader *r, const struct load_request *request) {
	if (r->n == LOAD_MOST_REQUESTS)
		return complain(r, -1, "more requests than a run may have", NULL);
	if (r->n == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 256;
		struct load_request *at = realloc(r->requests, cap * sizeof *at);
		if (!at)
			return complain(r, -1, "memory ran out", NULL);
		r->requests = at;
		r->cap = cap;
	}
	r->requests[r->n++] = *request;
	return true;
}

bool trace_read(struct load *load, const char *text, size_t len, const char *file,
                struct load_request **ret, size_t *ret_n, char *err, size_t errlen) {
	struct reader r = { .load = load,
		.file = file,
		.at = text,
		.end = text + len,
		.err = err,
		.errlen = errlen };
	const char *line, *end;
	bool ok = read_head(&r);
	while (ok && next_line(&r, &line, &end)) {
		struct load_request request;
		ok = read_line(&r, line, end, &request) && append(&r, &request);
	}
	if (ok && r.n == 0)
		ok = complain(&r, -1, "no request follows", NULL);
	if (!ok) {
		free(r.requests);
		return false;
	}
	*ret = r.requests;
	*ret_n = r.n;
	return true;
}

/* ---- as a schedule --------------------------------------------------------------------------- */

/* In order of arrival; those of one moment stay in order of the file, which `think_ms` holds. */
static int by_arrival(const void *a, const void *b) {
	const struct load_request *x = a, *y = b;
	if (x->arrival_ms != y->arrival_ms)
		return x->arrival_ms < y->arrival_ms ? -1 : 1;
	return (x->think_ms > y->think_ms) - (x->think_ms < y->think_ms);
}

bool load_read_trace(struct load *load, struct load_request **ret, size_t *ret_n, char *err,
                size_t errlen) {
	struct buffer text = { 0 };
	struct load_request *at = NULL;
	size_t n = 0, kept = 0;
	bool ok = load_slurp(load->trace, &text, err, errlen)
	                && trace_read(load, text.data ? text.data : "", text.len, load->trace, &at,
	                                &n, err, errlen);
	buffer_finish(&text);
	if (!ok)
		return false;
	for (size_t i = 0; i < n; i++) {
		at[i].arrival_ms = load_round_us(at[i].arrival_ms / load->speed);
		at[i].think_ms = (double)i;
	}
	qsort(at, n, sizeof *at, by_arrival);
	while (kept < n && (load->requests == 0 || kept < (size_t)load->requests)
	                && (load->seconds == 0 || at[kept].arrival_ms < load->seconds * 1000))
		at[kept++].think_ms = 0;
	if (kept == 0) {
		snprintf(err, errlen, "%.300s: no request comes in this time", load->trace);
		free(at);
		return false;
	}
	*ret = at;
	*ret_n = kept;
	return true;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void put_cell(const struct load *load, const struct load_request *r, enum column c,
                struct buffer *out) {
	const void *at = (const char *)r + columns[c].offset;
	switch (columns[c].kind) {
	case IS_MS: /* whole microseconds */
		if (c == COLUMN_ARRIVAL || *(const double *)at > 0)
			buffer_json_f64(out, *(const double *)at);
		break;
	case IS_COUNT:
		if (c != COLUMN_LENGTH || *(const int *)at > 0)
			buffer_printf(out, "%d", *(const int *)at);
		break;
	case IS_DEPTH:
		buffer_puts(out, at);
		break;
	case IS_CLASS:
		buffer_puts(out, load->classes[*(const int *)at].name);
		break;
	}
}

void trace_write(const struct load *load, const struct load_request *requests, size_t n,
                struct buffer *out) {
	for (int c = 0; c < COLUMNS; c++)
		buffer_printf(out, "%s%s", c ? "," : "", columns[c].name);
	buffer_puts(out, "\n");
	for (size_t i = 0; i < n; i++) {
		for (int c = 0; c < COLUMNS; c++) {
			buffer_puts(out, c ? "," : "");
			put_cell(load, &requests[i], (enum column)c, out);
		}
		buffer_puts(out, "\n");
	}
}
