/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of RFC 9112, sections 3.2, 5.1, 6.1 and 6.3, where they protect against smuggling. */
#include "server/guard.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

static bool is_token_byte(unsigned char c) {
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')
	                || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(const char *s, size_t len) {
	for (size_t i = 0; i < len; i++)
		if (!is_token_byte((unsigned char)s[i]))
			return false;
	return len > 0;
}

static bool has_control_byte(const char *s, size_t len) {
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return true;
	}
	return false;
}

static bool named(const struct guard_header *h, const char *name) {
	return h->name_len == strlen(name) && strncasecmp(h->name, name, h->name_len) == 0;
}

static bool is_number(const char *s, size_t len) {
	for (size_t i = 0; i < len; i++)
		if (s[i] < '0' || s[i] > '9')
			return false;
	return len > 0 && len <= 18;
}

static bool is_chunked(const struct guard_header *h) {
	return h->value_len == 7 && strncasecmp(h->value, "chunked", 7) == 0;
}

const char *guard_headers(const char *version, const struct guard_header *headers, size_t n) {
	size_t lengths = 0, encodings = 0, hosts = 0;
	bool old = strcmp(version, "HTTP/1.0") == 0;
	for (size_t i = 0; i < n; i++) {
		const struct guard_header *h = &headers[i];
		if (!is_token(h->name, h->name_len))
			return "A header name holds a byte that is not allowed in names.";
		if (has_control_byte(h->value, h->value_len))
			return "A header value holds a control character.";
		if (named(h, "Content-Length")) {
			lengths++;
			if (!is_number(h->value, h->value_len))
				return "Content-Length is not a plain decimal number.";
		} else if (named(h, "Transfer-Encoding")) {
			encodings++;
			if (!is_chunked(h))
				return "Transfer-Encoding must be chunked or absent.";
		} else if (named(h, "Host")) {
			hosts++;
		}
	}
	if (lengths > 1)
		return "Content-Length was sent more than once.";
	if (encodings > 1)
		return "Transfer-Encoding was sent more than once.";
	if (lengths && encodings)
		return "Content-Length and Transfer-Encoding exclude each other.";
	if (old && encodings)
		return "HTTP/1.0 has no Transfer-Encoding; send Content-Length.";
	if (hosts > 1 || (!old && hosts == 0))
		return "An HTTP/1.1 request needs exactly one Host header.";
	return NULL;
}

const char *guard_target(const char *target) {
	if (has_control_byte(target, strlen(target)))
		return "The address holds a control character.";
	for (const char *s = target; (s = strchr(s, '%')) != NULL; s++)
		if (s[1] == '0' && s[2] == '0')
			return "The address holds a NUL byte (%00).";
	return NULL;
}
