/* SPDX-License-Identifier: Apache-2.0 */
/* The header guard against the desynchronisation cases that libmicrohttpd lets through. */
#include "server/guard.h"
#include "tests/check.h"

enum { MOST = 8 };

/* "Name: value" lines; the name ends at the first colon, one blank after it is dropped. */
static const char *guard(const char *version, const char *const *lines) {
	struct guard_header headers[MOST];
	size_t n = 0;
	for (; lines[n]; n++) {
		const char *colon = strchr(lines[n], ':'), *value = colon + 1 + (colon[1] == ' ');
		headers[n] = (struct guard_header){ lines[n], value, (size_t)(colon - lines[n]),
			strlen(value) };
	}
	return guard_headers(version, headers, n);
}

#define GUARD(version, ...) guard(version, (const char *const[]){ __VA_ARGS__, NULL })

TEST(an_ordinary_request_passes) {
	CHECK(!GUARD("HTTP/1.1", "Host: a", "Content-Length: 12", "User-Agent: curl/8 (x; y)"));
}

TEST(a_chunked_request_passes) {
	CHECK(!GUARD("HTTP/1.1", "Host: a", "transfer-encoding: Chunked"));
}

TEST(an_empty_value_and_high_bytes_pass) {
	CHECK(!GUARD("HTTP/1.1", "host: a", "X-Empty:", "X-Name: J\xc3\xb6rg\tK"));
}

TEST(http_1_0_needs_no_host) {
	CHECK(!GUARD("HTTP/1.0", "Accept: */*"));
}

TEST(length_with_encoding_is_refused) {
	CHECK(GUARD("HTTP/1.1", "Host: a", "Content-Length: 4", "Transfer-Encoding: chunked"));
}

TEST(two_lengths_are_refused_even_if_equal) {
	CHECK(GUARD("HTTP/1.1", "Host: a", "Content-Length: 4", "Content-Length: 4"));
}

TEST(two_encodings_are_refused) {
	CHECK(GUARD("HTTP/1.1", "Host: a", "Transfer-Encoding: chunked",
	                "Transfer-Encoding: chunked"));
}

TEST(a_list_of_lengths_is_refused) {
	CHECK(GUARD("HTTP/1.1", "Host: a", "Content-Length: 4, 4"));
}

TEST(signed_hexadecimal_and_endless_lengths_are_refused) {
	CHECK(GUARD("HTTP/1.1", "Host: a", "Content-Length: +4"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "Content-Length: -1"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "Content-Length: 0x4"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "Content-Length:"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "Content-Length: 99999999999999999999"));
}

TEST(a_blank_before_the_colon_is_refused) {
	CHECK(GUARD("HTTP/1.1", "Host: a", "Content-Length : 3"));
}

TEST(an_empty_name_is_refused) {
	CHECK(GUARD("HTTP/1.1", "Host: a", ": 3"));
}

TEST(encodings_other_than_chunked_are_refused) {
	CHECK(GUARD("HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "Transfer-Encoding: identity"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "Transfer-Encoding: xchunked"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "Transfer-Encoding: chunked "));
}

TEST(http_1_0_with_an_encoding_is_refused) {
	CHECK(GUARD("HTTP/1.0", "Transfer-Encoding: chunked"));
}

TEST(http_1_1_needs_exactly_one_host) {
	CHECK(GUARD("HTTP/1.1", "Accept: */*"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "Host: b"));
}

TEST(control_bytes_in_values_are_refused) {
	CHECK(GUARD("HTTP/1.1", "Host: a", "X-A: a\rb"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "X-A: a\x01"));
	CHECK(GUARD("HTTP/1.1", "Host: a", "X-A: a\x7f"));
}

TEST(a_nul_in_the_target_is_refused) {
	CHECK(guard_target("/v1/models/%00"));
	CHECK(!guard_target("/v1/models/%20a%2F?x=%"));
	CHECK(guard_target("/v1/mod\x01"));
}
