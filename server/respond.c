/* SPDX-License-Identifier: Apache-2.0 */
/* When to answer: progress, pings, ends. */
#include "server/respond.h"

#include <stdlib.h>

#include "server/clock.h"
#include "server/compose.h"

bool respond_open(struct call *call) {
	struct job *job = call->job;
	struct respond *r = calloc(1, sizeof *r);
	if (!r)
		return false;
	call->respond = r;
	size_t n = (size_t)job->n_choices + 1;
	r->seen = calloc(n, sizeof *r->seen);
	r->sent = calloc(n, sizeof *r->sent);
	r->warnings = compose_warnings(job, &r->n_warnings);
	r->last_out_ns = call->received_ns;
	return r->seen && r->sent;
}

/* What the log line says. */
static void sum_up(struct call *call) {
	const struct job *job = call->job;
	const struct respond *r = call->respond;
	struct call_summary *s = &call->summary;
	if (r->has_depth) {
		s->depth = r->subnet.stack[STACK_DECODER].depth;
		s->encoder_depth = r->subnet.stack[STACK_ENCODER].depth;
	}
	s->tokens = 0;
	s->prompt_tokens = compose_prompt_tokens(job);
	for (int i = 0; i < job->n_choices; i++)
		s->tokens += r->seen[i].n_tokens;
	if (!r->job_done)
		return;
	struct answer_timings t;
	compose_timings(job, &t);
	s->queue_ms = t.queue_ms;
	s->prefill_ms = t.prefill_ms;
	s->decode_ms = t.decode_ms;
	s->total_ms = t.total_ms;
}

void respond_close(struct call *call) {
	struct respond *r = call->respond;
	if (!r)
		return;
	if (r->seen && r->sent)
		sum_up(call);
	compose_warnings_free(r->warnings, r->n_warnings);
	free(r->seen);
	free(r->sent);
	free(r);
	call->respond = NULL;
}

/* "6", or of two stacks "12,6": the encoder's first. */
static void depth_field(const struct respond *r, struct fields *fields) {
	int encoder = r->subnet.stack[STACK_ENCODER].depth;
	int decoder = r->subnet.stack[STACK_DECODER].depth;
	if (!r->has_depth)
		return;
	if (encoder > 0 && decoder > 0)
		fields_add(fields, "X-Depth", "%d,%d", encoder, decoder);
	else if (encoder + decoder > 0)
		fields_add(fields, "X-Depth", "%d", encoder + decoder);
}

static void final_fields(const struct call *call, struct fields *fields) {
	struct answer_timings t;
	compose_timings(call->job, &t);
	depth_field(call->respond, fields);
	fields_add(fields, "Server-Timing",
	                "queue;dur=%.1f, prefill;dur=%.1f, decode;dur=%.1f, total;dur=%.1f",
	                t.queue_ms, t.prefill_ms, t.decode_ms, t.total_ms);
}

/* A body of many megabytes: written as it is taken, and the loop does other work in between. */
static void stream_embeddings(struct call *call) {
	struct fields fields;
	call_common_fields(call, &fields);
	fields_add(&fields, "Content-Type", "application/json");
	final_fields(call, &fields);
	exchange_stream(call->x, 200, fields.items, fields.n, respond_fill_embeddings);
}

static void write_embeddings(struct call *call, struct buffer *out) {
	while (respond_fill_embeddings(call, out) == FILL_MORE)
		;
}

static void answer_whole(struct call *call) {
	static void (*const writers[REQUEST_KINDS])(struct call * call, struct buffer * out) = {
		[REQUEST_COMPLETION] = respond_write_answer,
		[REQUEST_CHAT] = respond_write_answer,
		[REQUEST_LOGLIKELIHOOD] = respond_write_loglikelihood,
		[REQUEST_EMBEDDING] = write_embeddings,
		[REQUEST_CLASSIFY] = respond_write_classes,
		[REQUEST_FILL_MASK] = respond_write_fills,
	};
	struct fields extra = { .n = 0 };
	struct buffer body = { 0 };
	if (call->job->kind == REQUEST_EMBEDDING && respond_embeddings_are_long(call)) {
		stream_embeddings(call);
		return;
	}
	final_fields(call, &extra);
	writers[call->job->kind](call, &body);
	call_answer(call, 200, &extra, &body);
}

static void begin_stream(struct call *call) {
	struct fields fields;
	const struct job_times *t = &call->job->times;
	call_common_fields(call, &fields);
	fields_add(&fields, "Content-Type", "text/event-stream; charset=utf-8");
	fields_add(&fields, "Cache-Control", "no-store");
	fields_add(&fields, "X-Accel-Buffering", "no");
	depth_field(call->respond, &fields);
	if (call->respond->has_depth && t->joined_ns)
		fields_add(&fields, "Server-Timing", "queue;dur=%.1f",
		                clock_ms(t->joined_ns - call->received_ns));
	exchange_stream(call->x, 200, fields.items, fields.n, respond_fill_stream);
}

void respond_progress(struct call *call) {
	struct job *job = call->job;
	struct respond *r = call->respond;
	bool tokens = false;
	r->job_done = job->state == JOB_DONE;
	for (int i = 0; i < job->n_choices; i++) {
		r->seen[i] = job->choices[i].published;
		tokens = tokens || r->seen[i].n_tokens > 0;
	}
	if (!r->has_depth && (tokens || r->job_done)) {
		r->subnet = job->subnet;
		r->reason = job->reason;
		r->has_depth = true;
	}
	if (r->job_done && job->error.code != ERROR_NONE) {
		call->error = job->error; /* for the log; a stream writes it as an event */
		if (!exchange_answered(call->x)) {
			call_fail(call, &job->error);
			return;
		}
	}
	if (job->stream) {
		if (exchange_answered(call->x))
			exchange_wake(call->x);
		else if (tokens || r->job_done)
			begin_stream(call);
	} else if (r->job_done) {
		answer_whole(call);
	}
}

void respond_tick(struct call *call, int64_t now_ns) {
	struct respond *r = call->respond;
	int64_t silence_ns = (int64_t)call->server->config->ping_ms * 1000000;
	if (!r || !call->submitted || !call->job->stream || now_ns - r->last_out_ns < silence_ns)
		return;
	r->ping_due = true;
	r->last_out_ns = now_ns;
	if (exchange_answered(call->x))
		exchange_wake(call->x);
	else
		begin_stream(call);
}
