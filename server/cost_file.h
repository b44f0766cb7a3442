/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cost model as JSON: the object `cost_model` of /v1/depths. Written by a server that has measured
 * itself, read by programs that simulate it.
 */
#ifndef FATHOM_SERVER_COST_FILE_H
#define FATHOM_SERVER_COST_FILE_H

#include "model/doc.h"
#include "proto/buffer.h"
#include "server/cost.h"

struct cost_file {
	struct cost_model cost;
	struct cost_limits limits;
	int64_t kv_blocks; /* of one layer, 64 positions each */
	int layers[STACKS];
};

/* A cost model that outlives the process that measured it. */
struct cost_kept {
	struct cost_file file;
	double spread; /* cost_samples::spread */
};

/* Appends the object. */
void cost_write(const struct cost_file *file, struct buffer *out);

/*
 * Reads that object, or the whole answer of /v1/depths around it. False with one sentence naming
 * the member that is missing or out of range; `name` stands for the document in it.
 */
bool cost_read(const struct doc *doc, const char *name, struct cost_file *ret_file, char *err,
                size_t errlen);

#endif
