/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a job's progress to its answer: one JSON body at the end, or a stream of events. A stream is
 * written when the client can take it, from what the job holds, so that a slow reader costs no
 * memory. The 200 goes out with the first token or the first ping; until then a refusal keeps its
 * status. Loop thread only.
 */
#ifndef FATHOM_SERVER_RESPOND_H
#define FATHOM_SERVER_RESPOND_H

#include "server/call.h"
#include "server/compose.h"

/* Before the call's job is submitted; false if memory ran out. */
bool respond_open(struct call *call);
/* After engine_collect brought news of the call's job. */
void respond_progress(struct call *call);
/* A moment has passed: a stream that was silent for --ping gets one. */
void respond_tick(struct call *call, int64_t now_ns);
/* Fills in what is known of an answer that was cut, and frees the state. */
void respond_close(struct call *call);

/* ---- respond_body.c: bodies of finished jobs ---- */

void respond_write_answer(struct call *call, struct buffer *out);
void respond_write_loglikelihood(struct call *call, struct buffer *out);

/* What stands beside the results of a finished job; `meta` points to the rest. */
struct respond_meta {
	struct answer_usage usage;
	struct answer_depth depth;
	struct answer_change changes[COMPOSE_CHANGES];
	struct answer_timings timings;
	struct answer_meta meta;
};
void respond_meta(const struct call *call, struct respond_meta *ret_meta);

/* ---- respond_encoder.c: answers of encoders ---- */

void respond_write_classes(struct call *call, struct buffer *out);
void respond_write_fills(struct call *call, struct buffer *out);
/* Whether an answer of embeddings is so long that it should go out in pieces. */
bool respond_embeddings_are_long(const struct call *call);
/* Appends the next embeddings, as a stream asks for them. */
enum fill respond_fill_embeddings(void *call, struct buffer *out);

/* ---- respond_stream.c: events ---- */

struct respond {
	struct choice_progress *seen; /* [n_choices] as of the last collect */
	struct sent *sent;            /* [n_choices] */
	struct subnet subnet;         /* copied at the first progress */
	enum depth_reason reason;
	bool has_depth; /* subnet and reason are set */
	bool job_done;
	bool depth_sent, ping_due, usage_sent;
	char **warnings;
	size_t n_warnings;
	int64_t last_out_ns; /* something was written */
	int embedded;        /* embeddings that have been written */
};

/* How much of a choice has been written. */
struct sent {
	bool begun, echoed, finished;
	int tokens;
	size_t text, text_offset;
};

/* Appends the events that are due. */
enum fill respond_fill_stream(void *call, struct buffer *out);

#endif
