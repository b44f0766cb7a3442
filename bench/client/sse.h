/* SPDX-License-Identifier: Apache-2.0 */
/* Server-sent events out of bytes that come in pieces, cut anywhere. */
#ifndef FATHOM_BENCH_SSE_H
#define FATHOM_BENCH_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/buffer.h"

struct sse {
	/* Called for each event with its data lines, joined by line breaks. */
	void (*on_event)(void *arg, const char *data, size_t len);
	void *arg;
	struct buffer line, data;
	bool has_data, after_return;
};

/* Begins a stream; keeps the memory of the one before. */
void sse_begin(struct sse *s);
void sse_feed(struct sse *s, const char *bytes, size_t len);
void sse_finish(struct sse *s);

#endif
