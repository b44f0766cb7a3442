/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint's files: mapping them, checking their headers, finding tensors. */
#include "model/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"

enum { MAX_SHARDS = 1024, MAX_INDEX = 16 << 20 };

static struct shard *shard_of(const struct checkpoint *c, const char *name) {
	for (size_t i = 0; i < c->n_shards; i++) {
		if (strcmp(c->shards[i].name, name) == 0)
			return &c->shards[i];
	}
	return NULL;
}

/* Maps one more file and reads its header. */
static bool add_shard(
                struct checkpoint *c, const char *dir, const char *name, char *err, size_t errlen) {
	struct shard *grown = realloc(c->shards, (c->n_shards + 1) * sizeof *grown);
	if (!grown) {
		snprintf(err, errlen, "%s: out of memory", name);
		return false;
	}
	c->shards = grown;
	struct shard *shard = &c->shards[c->n_shards++];
	*shard = (struct shard){ 0 };
	snprintf(shard->name, sizeof shard->name, "%s", name);
	if (!file_map(dir, name, &shard->map, err, errlen))
		return false;
	char why[320];
	if (safetensors_parse(shard->map.mem, shard->map.size, shard->map.size, &shard->table, why,
	                    sizeof why))
		return true;
	snprintf(err, errlen, "%s: %s", name, why);
	return false;
}

/* A shard's name must be a plain one: the index must not lead out of the folder. */
static bool plain_name(const char *name) {
	size_t len = strlen(name);
	if (len == 0 || len >= sizeof((struct shard *)0)->name || name[0] == '.')
		return false;
	for (const char *p = name; *p; p++) {
		if (*p == '/' || *p == '\\' || *p < 32 || *p == 127)
			return false;
	}
	return true;
}

static bool add_indexed(struct checkpoint *c, const char *dir, char *err, size_t errlen) {
	size_t len;
	char *text = file_read(dir, INDEX, MAX_INDEX, &len, err, errlen);
	if (!text)
		return false;
	c->index = doc_parse(text, len, INDEX, err, errlen);
	free(text);
	if (!c->index)
		return false;
	c->weight_map = doc_get(c->index, "weight_map");
	if (doc_kind(c->weight_map) != DOC_OBJECT) {
		snprintf(err, errlen, INDEX ": \"weight_map\" is not a JSON object");
		return false;
	}
	void *at = NULL;
	const char *tensor;
	const struct doc *value;
	while (doc_next(c->weight_map, &at, &tensor, &value)) {
		char shown[128];
		const char *name = doc_as_string(value, NULL);
		if (!name || !plain_name(name)) {
			snprintf(err, errlen,
			                INDEX ": tensor \"%s\" is not mapped to a plain file name",
			                doc_printable(tensor, shown, sizeof shown));
			return false;
		}
		if (shard_of(c, name))
			continue;
		if (c->n_shards == MAX_SHARDS) {
			snprintf(err, errlen, INDEX ": more than %d files", MAX_SHARDS);
			return false;
		}
		if (!add_shard(c, dir, name, err, errlen))
			return false;
	}
	return true;
}

bool checkpoint_open(const char *dir, struct checkpoint *ret_checkpoint, char *err, size_t errlen) {
	struct checkpoint c = { 0 };
	bool ok = false;
	if (file_exists(dir, SINGLE))
		ok = add_shard(&c, dir, SINGLE, err, errlen);
	else if (file_exists(dir, INDEX))
		ok = add_indexed(&c, dir, err, errlen);
	else if (file_exists(dir, "pytorch_model.bin")
	                || file_exists(dir, "pytorch_model.bin.index.json"))
		snprintf(err, errlen,
		                SINGLE
		                ": absent, and pytorch_model.bin is not read: convert the folder "
		                "with tools/convert_hf.py %s --out NEW",
		                dir);
	else
		snprintf(err, errlen, SINGLE ": absent, and there is no " INDEX " either");
	if (!ok) {
		checkpoint_close(&c);
		return false;
	}
	*ret_checkpoint = c;
	return true;
}

void checkpoint_close(struct checkpoint *c) {
	if (!c)
		return;
	for (size_t i = 0; i < c->n_shards; i++) {
		safetensors_finish(&c->shards[i].table);
		file_unmap(&c->shards[i].map);
	}
	free(c->shards);
	doc_free(c->index);
	*c = (struct checkpoint){ 0 };
}

const struct tensor *checkpoint_find(
                const struct checkpoint *c, const char *name, const struct shard **ret_shard) {
	const struct shard *shard = c->n_shards ? &c->shards[0] : NULL;
	if (c->weight_map) {
		const char *file = doc_as_string(doc_get(c->weight_map, name), NULL);
		shard = file ? shard_of(c, file) : NULL;
	}
	const struct tensor *tensor = shard ? safetensors_find(&shard->table, name) : NULL;
	if (tensor)
		*ret_shard = shard;
	return tensor;
}

const struct shard *checkpoint_holding(const struct checkpoint *c, const void *byte) {
	uintptr_t at = (uintptr_t)byte;
	for (size_t i = 0; i < c->n_shards; i++) {
		uintptr_t from = (uintptr_t)c->shards[i].map.mem;
		if (from <= at && at - from < c->shards[i].map.size)
			return &c->shards[i];
	}
	return &c->shards[0]; /* an empty tensor at the end of a file */
}

void checkpoint_release(const struct checkpoint *c) {
	for (size_t i = 0; i < c->n_shards; i++)
		file_release(&c->shards[i].map);
}

const char *checkpoint_list_name(const struct checkpoint *c) {
	return c->weight_map ? INDEX : SINGLE;
}
