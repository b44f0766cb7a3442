/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP: listeners, connections and exchanges. http.c is the only file that knows libmicrohttpd; what
 * it offers here has nothing of it. Loop thread only.
 *
 * An exchange is one request and its answer. It goes through the handler's functions in this order:
 *
 *	begin   the head has been read
 *	ready   the body has been read (not if begin answered)
 *	done    the answer is out, or the client has left, or the connection died
 *
 * Between ready and done, as long as there is no answer, the connection rests and is watched: a
 * client that leaves ends the exchange. `done` is always called, once, and frees the user's state.
 */
#ifndef FATHOM_SERVER_HTTP_H
#define FATHOM_SERVER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"
#include "server/loop.h"

struct http;     /* a listener with its connections */
struct exchange; /* a request and its answer */

struct http_handler {
	/*
	 * May answer at once (the connection is then closed if a body is still to come), or return.
	 */
	void (*begin)(void *arg, struct exchange *x);
	/* Answers, begins a stream, or returns to answer later. */
	void (*ready)(void *arg, struct exchange *x);
	/* The body took too long: the body of the 408 answer goes to `out`. */
	void (*late)(void *arg, struct exchange *x, struct buffer *out);
	/* `complete`: the whole answer was handed to the system. */
	void (*done)(void *arg, struct exchange *x, bool complete);
	void *arg;
};

struct http_options {
	struct loop *loop;
	const char *host;
	int port; /* 0: a free one */
	int connections;
	size_t header_bytes; /* memory of one connection's head */
	size_t body_bytes;   /* longer bodies are read but dropped */
	size_t bodies_bytes; /* and so are those that would make all bodies together longer */
	int header_timeout_ms, body_timeout_ms, idle_timeout_ms;
	bool half_close_leaves;
	struct http_handler handler;
};

/* Binds and listens. NULL with one sentence in err. */
struct http *http_open(const struct http_options *options, char *err, size_t errlen);
/* "http://127.0.0.1:41234", with the port really taken. */
const char *http_url(const struct http *http);
int http_connections(const struct http *http); /* open now */
/* Takes what waits in the backlog, then closes the listening socket. Connections go on. */
void http_close_listener(struct http *http);
/* "libmicrohttpd 0.9.75" */
const char *http_library(void);
/* Ends all exchanges and connections and frees all. Accepts NULL. */
void http_close(struct http *http);

/* What was asked. Strings live as long as the exchange. */
void exchange_set_user(struct exchange *x, void *user);
void *exchange_user(const struct exchange *x);
/* NULL, or one sentence why the head is refused (guard.h): answer 400 and close. */
const char *exchange_refusal(const struct exchange *x);
const char *exchange_method(const struct exchange *x);
const char *exchange_path(const struct exchange *x); /* decoded, without the query */
/* The first header of that name in any case, or NULL. */
const char *exchange_header(const struct exchange *x, const char *name);
void exchange_each_header(const struct exchange *x,
                void (*call)(void *arg, const char *name, const char *value), void *arg);
bool exchange_has_body(const struct exchange *x);    /* a body was announced */
bool exchange_expects_100(const struct exchange *x); /* the client waits before it sends the body */
/* Dropped because the bodies of all exchanges together took too much memory. */
bool exchange_body_crowded(const struct exchange *x);
bool exchange_body_too_large(const struct exchange *x); /* announced, or dropped while reading */
const char *exchange_body(const struct exchange *x, size_t *ret_len);
/* Forgets the body: what is still to come is read and dropped. */
void exchange_drop_body(struct exchange *x);

struct http_field {
	const char *name;
	char value[512];
};

/* Answers with the bytes of `body`, which is emptied. The exchange must not be answered already. */
void exchange_answer(struct exchange *x, int status, const struct http_field *fields, size_t n,
                struct buffer *body);
/* Like exchange_answer, with constant bytes that are never freed. */
void exchange_answer_static(struct exchange *x, int status, const struct http_field *fields,
                size_t n, const void *body, size_t len);

enum fill {
	FILL_MORE, /* call again when what was appended is out; if nothing was, after exchange_wake */
	FILL_END,  /* the stream ends properly after what was appended */
	FILL_FAIL, /* the connection is cut */
};
/*
 * Answers with a stream whose bytes come from `fill(user, out)`: it is called whenever the client
 * can take more, so that a slow reader bounds the memory, and must not answer or wake by itself.
 */
void exchange_stream(struct exchange *x, int status, const struct http_field *fields, size_t n,
                enum fill (*fill)(void *user, struct buffer *out));
/* There may be something to fill in. */
void exchange_wake(struct exchange *x);
bool exchange_answered(const struct exchange *x); /* an answer or a stream was begun */
int exchange_status(const struct exchange *x);    /* 0: not answered */

#endif
