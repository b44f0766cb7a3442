/* SPDX-License-Identifier: Apache-2.0 */
/* Sub-networks as people write them on a command line. */
#ifndef FATHOM_CLI_DEPTHS_H
#define FATHOM_CLI_DEPTHS_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/args.h"
#include "model/model.h"
#include "proto/buffer.h"

struct depth_options {
	const char *depth;          /* "6", "12,6,3", "1..12", "all"; of two stacks "12x6,6x3" */
	const char *rule;           /* "even" and so on; NULL: the folder's own */
	const char *layers;         /* "0,2,4": one plan of the main stack */
	const char *encoder_layers; /* the same for the encoder of a seq2seq */
};

enum { DEPTHS_FLAGS = 5, DEPTHS_TEXT = STACKS * (MAX_LAYERS * 5 + 3) };

/* The flags for all of it, for args_read: DEPTHS_FLAGS of them, which is also returned. */
int depths_args(struct depth_options *o, struct arg *args);

/*
 * The subnets that the options ask for, in their order; free(*ret_subnets). Without any option:
 * every depth of a model with one stack, and of a seq2seq the ladder from all layers down to one
 * each. A number alone is the decoder's depth, beside the whole encoder. One sentence on failure.
 */
bool depths_read(const struct model *model, const struct depth_options *options,
                struct subnet **ret_subnets, int *ret_n, char *err, size_t errlen);

/* "6", or "12x6" for two stacks. */
void depths_name(const struct subnet *subnet, char *name, size_t size);
/* The kept layers of one stack: "0,2,4" with the separator ",". `size` is at least MAX_LAYERS * 5. */
void depths_list(const struct plan *plan, const char *separator, char *text, size_t size);
/* As people read them: "0 2 4", "0-11" for a run of at least three, "0-11 | 0 2 4" for two stacks. */
void depths_layers(const struct subnet *subnet, char *text, size_t size);
/* "encoder", "decoder" */
const char *depths_stack_name(enum stack stack);
/* facts_parameters of the subnet. */
uint64_t depths_parameters(const struct facts *facts, const struct subnet *subnet);

enum depths_what { DEPTHS_KEPT, DEPTHS_OF, DEPTHS_LAYERS };

/* As JSON: a number or a list, of two stacks an object with one for each. */
void depths_put(struct buffer *b, const struct subnet *subnet, enum depths_what what);

#endif
