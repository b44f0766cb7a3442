/* SPDX-License-Identifier: Apache-2.0 */
/* Request targets: origin form and absolute form (RFC 9112, section 3.2). */
#include "server/target.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int hex_digit(char c) {
	return c >= '0' && c <= '9'            ? c - '0'
	                : c >= 'a' && c <= 'f' ? c - 'a' + 10
	                : c >= 'A' && c <= 'F' ? c - 'A' + 10
	                                       : -1;
}

char *target_path(const char *target) {
	const char *s = target;
	if (strncasecmp(s, "http://", 7) == 0 || strncasecmp(s, "https://", 8) == 0) {
		s = strchr(s + 8, '/');
		s = s ? s : "/";
	}
	char *path = malloc(strlen(s) + 1), *out = path;
	if (!path)
		return NULL;
	for (; *s && *s != '?' && *s != '#'; s++) {
		int high = *s == '%' ? hex_digit(s[1]) : -1;
		int low = high >= 0 ? hex_digit(s[2]) : -1;
		if (low >= 0)
			s += 2;
		*out++ = low >= 0 ? (char)(high * 16 + low) : *s;
	}
	*out = '\0';
	return path;
}
