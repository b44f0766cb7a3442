/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts: words at random, each prompt another, so that no cache of prefixes hides the work; as
 * many tokens long as the request says, where the server tells what a token is. Or lines of a file.
 */
#ifndef FATHOM_BENCH_PROMPT_H
#define FATHOM_BENCH_PROMPT_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/client/client.h"
#include "bench/load/load.h"
#include "proto/buffer.h"

struct prompts;

struct prompts_options {
	const char *file; /* a text on each line, in an order drawn from the seed; NULL: words */
	bool ids;         /* token ids in place of text */
	uint64_t seed;
	const char *model; /* for /tokenize */
};

/* Asks the server's /tokenize, if it has one, what words are in tokens. NULL with one sentence. */
struct prompts *prompts_create(struct client *client, const struct prompts_options *options,
                char *err, size_t errlen);
void prompts_destroy(struct prompts *p);

/* Whether lengths are in the server's own tokens. */
bool prompts_are_exact(const struct prompts *p);

/* Appends the prompt of the index-th request as a JSON value. */
void prompts_write(const struct prompts *p, const struct load_request *request, size_t index,
                struct buffer *out);

/* Common words, one blank between them. */
extern const char prompt_words[];

#endif
