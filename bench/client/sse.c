/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines end with \n, \r or \r\n, events with an empty line; other fields than data are passed over.
 * Source: the HTML standard, 9.2.6.
 */
#include "bench/client/sse.h"

#include <string.h>

void sse_begin(struct sse *s) {
	buffer_clear(&s->line);
	buffer_clear(&s->data);
	s->has_data = s->after_return = false;
}

void sse_finish(struct sse *s) {
	buffer_finish(&s->line);
	buffer_finish(&s->data);
}

static void end_line(struct sse *s, const char *line, size_t len) {
	if (len == 0) {
		if (s->has_data && !s->data.failed)
			s->on_event(s->arg, s->data.data ? s->data.data : "", s->data.len);
		buffer_clear(&s->data);
		s->has_data = false;
		return;
	}
	if (len < 5 || memcmp(line, "data:", 5) != 0)
		return;
	size_t skip = len > 5 && line[5] == ' ' ? 6 : 5;
	if (s->has_data)
		buffer_puts(&s->data, "\n");
	buffer_append(&s->data, line + skip, len - skip);
	s->has_data = true;
}

void sse_feed(struct sse *s, const char *bytes, size_t len) {
	const char *at = bytes, *end = bytes + len;
	if (at < end && s->after_return && *at == '\n')
		at++;
	if (len > 0)
		s->after_return = false;
	while (at < end) {
		const char *stop = at;
		while (stop < end && *stop != '\n' && *stop != '\r')
			stop++;
		if (stop == end) {
			buffer_append(&s->line, at, (size_t)(end - at));
			return;
		}
		if (s->line.len == 0) {
			end_line(s, at, (size_t)(stop - at));
		} else {
			buffer_append(&s->line, at, (size_t)(stop - at));
			end_line(s, s->line.data, s->line.len);
			buffer_clear(&s->line);
		}
		at = stop + 1;
		if (*stop == '\r' && at < end && *at == '\n')
			at++;
		else if (*stop == '\r' && at == end)
			s->after_return = true;
	}
}
