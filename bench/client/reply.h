/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client learns from one answer while it comes: when its tokens came, how it ended, and what
 * a fathom server says about depth and time. Answers of other servers have less in them.
 */
#ifndef FATHOM_BENCH_REPLY_H
#define FATHOM_BENCH_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/client/client.h"
#include "bench/client/sse.h"

enum { REPLY_CHANGES = 16, REPLY_CODE = 40 };

enum { REPLY_MOST = 64 << 20 }; /* bytes of a body, or of an event */

struct reply {
	/* Called when text comes after text; may be NULL. */
	void (*on_gap)(void *arg, double ms);
	void *arg;

	/* times of the client's clock; 0: it did not come to that */
	double first_ms, last_ms; /* text */
	int pieces;               /* events or answers with text */

	/* from the answer */
	int prompt_tokens, completion_tokens; /* -1: not said */
	bool finished;         /* a finish reason, or the whole answer of a route that has none */
	bool cut;              /* by a deadline or a budget */
	char code[REPLY_CODE]; /* of an error; "": none */
	double queue_ms, predicted_ms, total_ms; /* < 0: not said */
	int met;                                 /* what the server says of the budget: -1, 0, 1 */
	int encoder, depth; /* layers when it joined; encoder 0: no pair; depth 0: not said */
	int n_changes;      /* steps down: */
	int at_token[REPLY_CHANGES], to[REPLY_CHANGES];

	/* its own */
	bool stream, done;
	double now_ms;
	struct sse sse;
	struct buffer body; /* of an answer that is not a stream */
};

/* Zero it first; keeps its memory from one answer to the next. */
void reply_begin(struct reply *r, bool stream);
/* A piece of the body of an answer with that status. False: a body, or an event of a stream, is longer
 * than any answer, and no more is kept. */
bool reply_feed(struct reply *r, int status, const char *bytes, size_t len, double now_ms);
/* The answer ended; fills in `code` if it was not whole. */
void reply_end(struct reply *r, int status, enum client_failure failure, double now_ms);
void reply_finish(struct reply *r);

/* Tokens of the answer: what the server counted, else pieces. */
int reply_tokens(const struct reply *r);
/* Layers of the main stack when it ended, and the mean over its tokens. 0: not said. */
int reply_final_depth(const struct reply *r);
double reply_mean_depth(const struct reply *r);

#endif
