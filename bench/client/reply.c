/* SPDX-License-Identifier: Apache-2.0 */
/* Reading answers. Events that can only hold one more piece of text are not parsed as JSON. */
#include "bench/client/reply.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "model/doc.h"

static void on_event(void *arg, const char *data, size_t len);

void reply_begin(struct reply *r, bool stream) {
	struct reply fresh = { .on_gap = r->on_gap,
		.arg = r->arg,
		.sse = r->sse,
		.body = r->body,
		.stream = stream,
		.prompt_tokens = -1,
		.completion_tokens = -1,
		.queue_ms = -1,
		.predicted_ms = -1,
		.total_ms = -1,
		.met = -1 };
	*r = fresh;
	r->sse.on_event = on_event;
	r->sse.arg = r;
	sse_begin(&r->sse);
	buffer_clear(&r->body);
}

void reply_finish(struct reply *r) {
	sse_finish(&r->sse);
	buffer_finish(&r->body);
}

/* ---- objects of fathom's --------------------------------------------------------------------- */

static void read_int(const struct doc *value, int *ret) {
	int64_t n;
	if (doc_as_int(value, &n) && n >= 0 && n <= INT32_MAX)
		*ret = (int)n;
}

/* A number, or {"encoder", "decoder"}. */
static void read_used(const struct doc *used, int *encoder, int *depth) {
	if (doc_kind(used) == DOC_OBJECT) {
		read_int(doc_get(used, "encoder"), encoder);
		read_int(doc_get(used, "decoder"), depth);
	} else {
		read_int(used, depth);
	}
}

static void read_depth(struct reply *r, const struct doc *depth) {
	const struct doc *changes = doc_get(depth, "changes");
	int ignored = 0;
	if (doc_kind(depth) != DOC_OBJECT)
		return;
	read_used(doc_get(depth, "used"), &r->encoder, &r->depth);
	r->n_changes = 0;
	for (size_t i = 0; i < doc_count(changes) && i < REPLY_CHANGES; i++) {
		const struct doc *change = doc_at(changes, i);
		r->at_token[i] = r->to[i] = 0;
		read_int(doc_get(change, "at_token"), &r->at_token[i]);
		read_used(doc_get(change, "used"), &ignored, &r->to[i]);
		r->n_changes++;
	}
}

static void read_timings(struct reply *r, const struct doc *timings) {
	bool met;
	doc_as_number(doc_get(timings, "queue_ms"), &r->queue_ms);
	doc_as_number(doc_get(timings, "predicted_ms"), &r->predicted_ms);
	doc_as_number(doc_get(timings, "total_ms"), &r->total_ms);
	if (doc_as_bool(doc_get(timings, "budget_met"), &met))
		r->met = met;
}

static void read_error(struct reply *r, const struct doc *error) {
	const char *code = doc_as_string(doc_get(error, "code"), NULL);
	if (!code)
		code = doc_as_string(doc_get(error, "type"), NULL);
	if (doc_kind(error) == DOC_OBJECT || doc_kind(error) == DOC_STRING)
		doc_printable(code ? code : "error", r->code, sizeof r->code);
}

/* The reason why the first choice ended, and whether one of them has text. */
static bool read_choices(struct reply *r, const struct doc *choices) {
	bool text = false;
	for (size_t i = 0; i < doc_count(choices); i++) {
		const struct doc *choice = doc_at(choices, i), *inner = doc_get(choice, "delta");
		size_t len = 0, thought = 0;
		inner = inner ? inner : doc_get(choice, "message");
		if (!doc_as_string(doc_get(choice, "text"), &len))
			doc_as_string(doc_get(inner, "content"), &len);
		/* Where a server keeps what a model thinks apart, those are tokens, too. */
		doc_as_string(doc_get(inner, "reasoning_content"), &thought);
		text = text || len > 0 || thought > 0;
		r->finished = r->finished || doc_as_string(doc_get(choice, "finish_reason"), NULL);
		r->cut = r->cut || doc_as_string(doc_get(choice, "finish_detail"), NULL);
	}
	return text;
}

/* One object: a chunk or an answer. True if it has text. */
static bool read_object(struct reply *r, const struct doc *doc) {
	const struct doc *usage = doc_get(doc, "usage");
	read_error(r, doc_get(doc, "error"));
	read_depth(r, doc_get(doc, "depth"));
	read_timings(r, doc_get(doc, "timings"));
	read_int(doc_get(usage, "prompt_tokens"), &r->prompt_tokens);
	read_int(doc_get(usage, "completion_tokens"), &r->completion_tokens);
	return read_choices(r, doc_get(doc, "choices"));
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static bool holds(const char *data, size_t len, const char *word) {
	return memmem(data, len, word, strlen(word));
}

/* Whether a chunk may say more than one piece of text. Quotes inside text are escaped, so a name
 * with its quotes is a member's; if not, it is only parsed in vain. */
static bool says_more(const char *data, size_t len) {
	return !holds(data, len, "\"finish_reason\":null") || holds(data, len, "\"depth\"")
	                || holds(data, len, "\"timings\"") || holds(data, len, "\"usage\":{")
	                || holds(data, len, "\"usage\": {") || holds(data, len, "\"error\"");
}

/* An unparsed chunk with text that is not empty. */
static bool shows_text(const char *data, size_t len) {
	const char *at = memmem(data, len, "\"text\":\"", 8);
	size_t skip = 8;
	if (!at) {
		at = memmem(data, len, "\"content\":\"", 11);
		skip = 11;
	}
	return at && at + skip < data + len && at[skip] != '"';
}

static void note_text(struct reply *r) {
	if (r->pieces++ == 0)
		r->first_ms = r->now_ms;
	else if (r->on_gap)
		r->on_gap(r->arg, r->now_ms - r->last_ms);
	r->last_ms = r->now_ms;
}

static void on_event(void *arg, const char *data, size_t len) {
	struct reply *r = arg;
	char ignored[8];
	if (len == 6 && memcmp(data, "[DONE]", 6) == 0) {
		r->done = true;
		return;
	}
	if (!says_more(data, len) && shows_text(data, len)) {
		note_text(r);
		return;
	}
	struct doc *doc = doc_parse(data, len, "", ignored, sizeof ignored);
	if (!doc)
		snprintf(r->code, sizeof r->code, "bad_event");
	else if (read_object(r, doc))
		note_text(r);
	doc_free(doc);
}

bool reply_feed(struct reply *r, int status, const char *bytes, size_t len, double now_ms) {
	r->now_ms = now_ms;
	if (r->sse.line.len + r->sse.data.len + r->body.len + len > REPLY_MOST)
		return false;
	if (r->stream && status == 200)
		sse_feed(&r->sse, bytes, len);
	else
		buffer_append(&r->body, bytes, len);
	return true;
}

static void read_body(struct reply *r, int status) {
	char ignored[8];
	struct doc *doc = r->body.len
	                ? doc_parse(r->body.data, r->body.len, "", ignored, sizeof ignored)
	                : NULL;
	if (doc) {
		if (read_object(r, doc))
			r->pieces = 1;
		/* Routes without choices: the answer itself is the end. */
		if (status == 200 && !doc_get(doc, "choices") && !r->code[0])
			r->finished = true;
	}
	doc_free(doc);
}

void reply_end(struct reply *r, int status, enum client_failure failure, double now_ms) {
	static const char *const names[] = { [CLIENT_OK] = "incomplete",
		[CLIENT_CONNECT] = "connect",
		[CLIENT_TIMEOUT] = "timeout",
		[CLIENT_BROKEN] = "broken",
		[CLIENT_CANCELLED] = "cancelled" };
	if (failure == CLIENT_OK && !(r->stream && status == 200))
		read_body(r, status);
	r->now_ms = now_ms;
	if (r->code[0])
		r->finished = false;
	else if (status != 200 && failure == CLIENT_OK)
		snprintf(r->code, sizeof r->code, "http_%d", status);
	else if (failure != CLIENT_OK || !r->finished)
		snprintf(r->code, sizeof r->code, "%s", names[failure]);
	r->finished = r->finished && !r->code[0];
}

/* ---- what it comes to ------------------------------------------------------------------------ */

int reply_tokens(const struct reply *r) {
	return r->completion_tokens >= 0 ? r->completion_tokens : r->pieces;
}

int reply_final_depth(const struct reply *r) {
	return r->n_changes > 0 ? r->to[r->n_changes - 1] : r->depth;
}

double reply_mean_depth(const struct reply *r) {
	const int tokens = reply_tokens(r);
	double sum = 0;
	int from = 0, depth = r->depth;
	if (tokens == 0 || r->n_changes == 0)
		return depth;
	for (int i = 0; i < r->n_changes; i++) {
		int at = r->at_token[i] < tokens ? r->at_token[i] : tokens;
		if (at > from) {
			sum += (double)depth * (at - from);
			from = at;
		}
		depth = r->to[i];
	}
	return (sum + (double)depth * (tokens - from)) / tokens;
}
