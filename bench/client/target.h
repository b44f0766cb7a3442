/* SPDX-License-Identifier: Apache-2.0 */
/* The server that is measured: what it is, and how a request to it looks. */
#ifndef FATHOM_BENCH_TARGET_H
#define FATHOM_BENCH_TARGET_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/client/client.h"
#include "bench/load/load.h"
#include "proto/buffer.h"

enum endpoint { ENDPOINT_COMPLETIONS, ENDPOINT_CHAT, ENDPOINT_EMBEDDINGS, ENDPOINT_CLASSIFY };

struct target {
	enum endpoint endpoint;
	char model[256];      /* "": none is sent */
	bool fathom;          /* it answers /v1/depths: depths and budgets are sent */
	struct buffer depths; /* the body of /v1/depths */
	char layers[64];      /* as JSON; "": not known */
};

struct target_options {
	const char *url;      /* for sentences */
	const char *endpoint; /* completions, chat, embeddings, classify */
	const char *model;    /* NULL: the first one that the server lists */
	bool plain;           /* send nothing that OpenAI's API does not know, but ignore_eos */
};

/* Asks the server what it is. False with one sentence. */
bool target_probe(struct target *target, struct client *client,
                const struct target_options *options, char *err, size_t errlen);
void target_finish(struct target *target);

const char *target_route(const struct target *target);
/* Whether the request's answer comes in events. */
bool target_streams(const struct target *target, const struct load_class *class);

/* The body of a request; `prompt` is a JSON value. */
void target_write_body(const struct target *target, const struct load_class *class,
                const struct load_request *request, const struct buffer *prompt,
                struct buffer *out);

/* The depths of one stack or the pairs of two that the server lists, as load depths: "1", "2", ...;
 * free(*ret). 0: none. */
int target_depths(const struct target *target, char (**ret)[LOAD_NAME]);

#endif
