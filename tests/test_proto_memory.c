/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that runs out, at every single allocation of parsing and writing in turn: an error with
 * its code or a buffer that says it failed, and nothing leaked (the sanitizer build sees leaks).
 * Linked with --wrap for malloc, calloc and realloc; jansson is given the same functions.
 */
#include <jansson.h>

#include "proto/answer.h"
#include "proto/request.h"
#include "tests/check.h"
#include "tests/documented_limits.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);

static long left = -1; /* allocations until one fails; negative: none does */
static bool failed;

static bool fails(void) {
	bool now = left == 0;
	failed |= now;
	left -= left >= 0;
	return now;
}

void *__wrap_malloc(size_t size) {
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size) {
	return fails() ? NULL : __real_realloc(p, size);
}

static const char completion[] =
                "{\"model\":\"m\",\"prompt\":[\"a\",[1,2]],\"layers\":[0,2],\"stop\":[\"x\",\"y\"],"
                "\"logit_bias\":{\"5\":1},\"min_p\":0,\"mine\":1,\"user\":\"u\"}";
static const char chat[] =
                "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"user\","
                "\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}]}],\"depth\":\"fast\"}";

static const char pairs[] =
                "{\"input\":[\"a\",{\"text\":\"b\",\"text_pair\":\"c\"}],\"head\":\"h\"}";
static const char targets[] = "{\"source\":[\"a\",[1]],\"target\":[[2],\"b\"],\"min_depth\":"
                              "{\"encoder\":1,\"decoder\":2}}";

/* Fails each allocation in turn until a run gets through without. Returns how many there were. */
static long sweep(enum request_kind kind, const char *body) {
	json_set_alloc_funcs(__wrap_malloc, free);
	for (long n = 0;; n++) {
		struct request request;
		struct error error = { 0 };
		left = n;
		failed = false;
		bool ok = request_parse(kind, body, strlen(body), &limits, &request, &error);
		left = -1;
		if (ok)
			request_finish(&request);
		if (!failed) {
			CHECK(ok);
			return n;
		}
		/* Of some failures jansson says that the text is at fault. */
		if (ok || (error.code != ERROR_INTERNAL && error.code != ERROR_INVALID_JSON))
			check_fail(__FILE__, __LINE__, "allocation %ld: %s", n, error.message);
	}
}

TEST(parsing_survives_every_failed_allocation) {
	CHECK(sweep(REQUEST_COMPLETION, completion) > 20);
	CHECK(sweep(REQUEST_CHAT, chat) > 20);
	CHECK(sweep(REQUEST_CLASSIFY, pairs) > 10);
	CHECK(sweep(REQUEST_LOGLIKELIHOOD, targets) > 10);
}

TEST(a_buffer_without_memory_says_so) {
	struct buffer b = { 0 };
	left = 1; /* the second piece of memory is refused */
	for (int i = 0; i < 1000; i++)
		buffer_json_string(&b, "some text", 9);
	left = -1;
	CHECK(b.failed);
	CHECK(!buffer_cstr(&b));
	buffer_clear(&b);
	buffer_puts(&b, "ok");
	CHECK_STR(buffer_cstr(&b), "ok");
	buffer_finish(&b);
}
