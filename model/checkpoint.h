/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint: the tensors of a model folder while they are packed, from model.safetensors or from
 * the shards that model.safetensors.index.json names. The files stay mapped until it is closed.
 */
#ifndef FATHOM_MODEL_CHECKPOINT_H
#define FATHOM_MODEL_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>

#include "model/doc.h"
#include "model/file.h"
#include "model/safetensors.h"

struct shard {
	char name[256]; /* of the file */
	struct file_map map;
	struct tensor_table table;
};

struct checkpoint {
	struct shard *shards;
	size_t n_shards;
	struct doc *index;            /* NULL: a single file */
	const struct doc *weight_map; /* tensor to shard; part of index */
};

/* Every shard is mapped and its header checked. A sentence names the bad file. */
bool checkpoint_open(const char *dir, struct checkpoint *ret_checkpoint, char *err, size_t errlen);
void checkpoint_close(struct checkpoint *checkpoint);

/* The tensor, and the shard whose map holds its bytes at tensor->offset; NULL if absent. */
const struct tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name,
                const struct shard **ret_shard);

/* The shard whose map holds this byte. */
const struct shard *checkpoint_holding(const struct checkpoint *checkpoint, const void *byte);

/* Lets go of the pages that were read; they come back when they are read again. */
void checkpoint_release(const struct checkpoint *checkpoint);

/* The file that lists the tensors: what a sentence about a missing one names. */
const char *checkpoint_list_name(const struct checkpoint *checkpoint);

#endif
