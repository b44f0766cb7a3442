/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenize_lines FOLDER [--add-special | --round-trip]: the tokenizer as a filter, for comparison
 * with others.
 *
 * Reads texts from stdin, each as its length in bytes in decimal, a newline, and the bytes; writes a
 * line of ids for each. Exits 1 with a sentence if the folder is refused, if a text cannot be
 * encoded, or, with --round-trip, if its ids do not decode to it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer.h"

enum mode { PLAIN, ADD_SPECIAL, ROUND_TRIP };

/* Whether the ids stand for exactly these bytes. */
static bool decodes_to(const struct tokenizer *t, const int32_t *ids, size_t count,
                const char *text, size_t len) {
	size_t done = 0;
	for (size_t i = 0; i < count; i++) {
		size_t n;
		const char *bytes = tokenizer_bytes(t, ids[i], &n);
		if (!bytes || n > len - done || memcmp(text + done, bytes, n) != 0)
			return false;
		done += n;
	}
	return done == len;
}

static bool tokenize(const struct tokenizer *t, const char *text, size_t len, enum mode mode) {
	size_t cap = tokenizer_capacity(t, len), count;
	int32_t *ids = malloc((cap + 1) * sizeof *ids);
	bool ok = ids && tokenizer_encode(t, text, len, mode == ADD_SPECIAL, ids, cap, &count);
	if (ok && mode == ROUND_TRIP && !decodes_to(t, ids, count, text, len)) {
		fprintf(stderr, "a text of %zu bytes does not come back\n", len);
		ok = false;
	}
	for (size_t i = 0; ok && i < count; i++)
		printf(i ? " %d" : "%d", ids[i]);
	if (ok)
		putchar('\n');
	free(ids);
	return ok;
}

int main(int argc, char **argv) {
	char err[400] = "usage: tokenize_lines FOLDER [--add-special | --round-trip]";
	struct tokenizer *t = argc >= 2 ? tokenizer_open(argv[1], err, sizeof err) : NULL;
	if (!t) {
		fprintf(stderr, "%s\n", err);
		return 1;
	}
	enum mode mode = argc < 3                               ? PLAIN
	                : strcmp(argv[2], "--add-special") == 0 ? ADD_SPECIAL
	                                                        : ROUND_TRIP;
	int status = 0;
	size_t len;
	while (!status && scanf("%zu", &len) == 1 && getchar() == '\n') {
		char *text = malloc(len + 1);
		if (!text || fread(text, 1, len, stdin) != len || !tokenize(t, text, len, mode))
			status = 1;
		free(text);
	}
	tokenizer_close(t);
	return status;
}
