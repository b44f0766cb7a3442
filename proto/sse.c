/* SPDX-License-Identifier: Apache-2.0 */
/* Events of a stream. JSON text holds no raw line break, so that one line is one event. */
#include "proto/answer_parts.h"

void answer_write_chunk(struct buffer *b, const struct answer *a) {
	buffer_puts(b, "data: ");
	answer_write_chunk_body(b, a);
	buffer_puts(b, "\n\n");
}

void answer_write_done(struct buffer *b) {
	buffer_puts(b, "data: [DONE]\n\n");
}

void answer_write_ping(struct buffer *b) {
	buffer_puts(b, ": ping\n\n");
}

void answer_write_error_event(struct buffer *b, const struct error *e, const char *request_id) {
	buffer_puts(b, "data: ");
	error_write(b, e, request_id);
	buffer_puts(b, "\n\n");
}
