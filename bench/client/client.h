/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP client for many requests at once on one thread: libcurl's multi interface on libuv's loop,
 * with connections kept alive. It knows nothing of models. It also keeps the time of the one moment
 * at which its user wants to be called, to a few microseconds.
 *
 *	client_create; client_send ...; client_run until client_stop; client_destroy
 */
#ifndef FATHOM_BENCH_CLIENT_H
#define FATHOM_BENCH_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"

struct client;
struct client_exchange;

struct client_options {
	const char *url;     /* "http://127.0.0.1:8080"; a "/" or "/v1" at its end is left out */
	const char *api_key; /* NULL: none */
	int connections;     /* at most; further requests wait for one */
	double timeout_ms;   /* of a request */
	bool insecure;       /* do not check certificates */
};

enum client_failure {
	CLIENT_OK, /* the answer came to its end, whatever its status */
	CLIENT_CONNECT,
	CLIENT_TIMEOUT,
	CLIENT_BROKEN,    /* the connection ended within the answer, or what came was not HTTP */
	CLIENT_CANCELLED, /* by client_cancel_all */
};

/* Whether this build has a client, else the sentence that says why not. */
bool client_is_present(const char **ret_why);

/* NULL with a sentence. */
struct client *client_create(const struct client_options *options, char *err, size_t errlen);
void client_destroy(struct client *client);

/* A request; its owner embeds it. It may be used again when it has ended. */
struct client_exchange {
	/* Called for every piece of the body; `status` is known by then. */
	void (*on_data)(struct client_exchange *x, const char *bytes, size_t len);
	/* Called once, at the end; the exchange may be sent again from here. */
	void (*on_end)(struct client_exchange *x, enum client_failure failure);
	int status;     /* HTTP; 0 before the head came */
	bool enough;    /* on_data sets it: no more is wanted, and it ends as CLIENT_BROKEN */
	double sent_ms; /* when it was handed to the connection's queue */
	char why[128];  /* of a failure */
	struct client *client; /* the client's own from here on */
	void *handle;
	struct client_exchange *next, **before; /* of those in flight */
};

void client_exchange_init(struct client_exchange *x);
void client_exchange_finish(struct client_exchange *x);

/*
 * Sends a POST of `len` bytes of JSON, or with body NULL a GET, to a path such as
 * "/v1/completions". The body must stay until on_end. False with a sentence only if nothing can be
 * sent at all; then on_end is not called.
 */
bool client_send(struct client *client, struct client_exchange *x, const char *path,
                const char *body, size_t len, char *err, size_t errlen);

/* Ends all that are in flight: their on_end is called with CLIENT_CANCELLED before it returns. */
void client_cancel_all(struct client *client);
int client_in_flight(const struct client *client);

/* Milliseconds of a clock that only goes forward. */
double client_now_ms(void);

/* What client_run calls; `arg` is the first argument of each. Any may be NULL. */
struct client_calls {
	void (*on_wake)(void *arg);      /* at the moment of client_wake_at */
	void (*on_tick)(void *arg);      /* every 100 ms */
	void (*on_interrupt)(void *arg); /* Ctrl-C or SIGTERM; a second one ends the process */
	void *arg;
};
void client_set_calls(struct client *client, const struct client_calls *calls);
/* One moment at a time; a later call replaces it; INFINITY: none. */
void client_wake_at(struct client *client, double at_ms);

/* Serves requests and calls until client_stop. */
void client_run(struct client *client);
void client_stop(struct client *client);

/*
 * One request, waited for. False with one sentence if no whole answer came; *ret_status is the
 * HTTP status otherwise, and the body is appended to `out`.
 */
bool client_fetch(struct client *client, const char *path, const char *body, size_t len,
                int *ret_status, struct buffer *out, char *err, size_t errlen);

#endif
