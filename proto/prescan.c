/* SPDX-License-Identifier: Apache-2.0 */
/* One pass over the bytes that knows strings, brackets and nothing else of JSON. */
#include "proto/prescan.h"

#include <string.h>

/* The index after the string that opens at body[at]; len if it does not close. */
static size_t skip_string(const char *body, size_t len, size_t at) {
	for (size_t i = at + 1; i < len; i++) {
		if (body[i] == '\\')
			i++;
		else if (body[i] == '"')
			return i + 1;
	}
	return len;
}

/* The index after the number or word at body[at]. */
static size_t skip_word(const char *body, size_t len, size_t at) {
	while (at < len && body[at] && !strchr(" \t\r\n[]{},:\"", body[at]))
		at++;
	return at;
}

static bool too_deep(const char *body, size_t at, int max_depth, struct error *e) {
	size_t line = 1, column = 1;
	for (size_t i = 0; i < at; i++) {
		bool newline = body[i] == '\n';
		line += newline;
		column = newline ? 1 : column + 1;
	}
	return error_set(e, ERROR_INVALID_JSON, NULL,
	                "The body nests deeper than %d levels (line %zu, column %zu).", max_depth,
	                line, column);
}

bool prescan_check(const char *body, size_t len, int max_depth, int max_values,
                struct error *ret_error) {
	int depth = 0, values = 0;
	for (size_t i = 0; i < len;) {
		char c = body[i];
		if (c == '\0' || strchr(" \t\r\n,:", c)) {
			i++;
			continue;
		}
		if (c == ']' || c == '}') {
			depth -= depth > 0;
			i++;
			continue;
		}
		if (c == '[' || c == '{') {
			if (++depth > max_depth)
				return too_deep(body, i, max_depth, ret_error);
			i++;
		} else if (c == '"') {
			i = skip_string(body, len, i);
		} else {
			i = skip_word(body, len, i);
		}
		if (++values > max_values)
			return error_set(ret_error, ERROR_REQUEST_TOO_LARGE, NULL,
			                "The body holds more than %d JSON values; send fewer "
			                "tokens or prompts in one request.",
			                max_values);
	}
	return true;
}
