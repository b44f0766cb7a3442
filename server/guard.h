/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header guard: refuses requests that two HTTP parsers could read differently (request
 * smuggling), and addresses with bytes that no route has. Pure functions over what was received.
 * What it cannot see: bare line feeds, folded lines and NUL bytes, which libmicrohttpd has already
 * taken for line ends.
 */
#ifndef FATHOM_SERVER_GUARD_H
#define FATHOM_SERVER_GUARD_H

#include <stddef.h>

struct guard_header {
	const char *name, *value;
	size_t name_len, value_len;
};

/*
 * `version` is "HTTP/1.0" or "HTTP/1.1". NULL if the headers are sound, else one sentence (static)
 * that says what is wrong.
 */
const char *guard_headers(const char *version, const struct guard_header *headers, size_t n);

/* The raw request target, before any decoding. */
const char *guard_target(const char *target);

#endif
