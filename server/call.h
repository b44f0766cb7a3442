/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call: one exchange as the server sees it. It finds the route, checks access, media type and
 * size, runs the route's handler, and writes the log line when the exchange is over. Handlers
 * answer through call_answer or call_fail, so that every answer carries the same headers.
 */
#ifndef FATHOM_SERVER_CALL_H
#define FATHOM_SERVER_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"
#include "proto/error.h"
#include "server/auth.h"
#include "server/http.h"
#include "server/server.h"

struct route;
struct respond; /* respond.c: how far an answer has been written */
struct input_task;

/* What the log line says about the work that was done. */
struct call_summary {
	int depth, encoder_depth; /* 0: none chosen, or no such stack */
	int64_t prompt_tokens, tokens;
	double queue_ms, prefill_ms, decode_ms, total_ms;
};

struct call {
	struct server *server;
	struct exchange *x;
	bool admin;                /* came through the admin listener */
	const struct route *route; /* NULL: none */
	const char *pattern;       /* of the path, for log and metrics; "other" */
	char request_id[132];
	bool own_id; /* the server made it */
	char traceparent[64];
	struct auth_grant grant;
	struct error error; /* why it was refused or failed; code NONE: it was not */
	char allow[64];     /* methods of the path */
	bool close;         /* the connection ends with this answer */
	int64_t begun_ns, received_ns;
	struct call_summary summary;

	/* work in progress */
	struct generation *generation; /* held */
	struct job *job;               /* ours, or in the engine if submitted */
	bool submitted;                /* the engine has the job */
	struct input_task *task;       /* the tokeniser has the request */
	struct respond *respond;
	bool reloading; /* waits for a reload */

	struct call *prev, *next; /* server::calls */
};

/* The functions that a listener calls. */
struct http_handler call_handler(struct server *server, bool admin);

/* What follows {id} in the route's pattern. */
const char *call_path_id(const struct call *call);

/* A list of answer headers. */
struct fields {
	struct http_field items[24];
	size_t n;
};
void fields_add(struct fields *fields, const char *name, const char *format, ...)
                __attribute__((format(printf, 3, 4)));
/* X-Request-Id, CORS, Connection and the like: those that every answer has. */
void call_common_fields(const struct call *call, struct fields *ret_fields);

/*
 * Answers with JSON, which is emptied; `extra` may be NULL. A buffer that failed becomes a 500.
 */
void call_answer(struct call *call, int status, const struct fields *extra, struct buffer *json);
/* Answers with an error of error.h. */
void call_fail(struct call *call, const struct error *e);

#endif
