/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights: every slot of the model becomes one job, whose tensors are found and checked against the
 * facts before a byte is allocated; then the jobs get their places in one arena and are packed, or
 * the arena is mapped from the packed file that an earlier start has left.
 */
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/hash.h"
#include "model/weights_parts.h"

enum { SAMPLE_BYTES = 64 }; /* of each tensor that a packed file is told by */

/* ---- formats ---- */

/*
 * Matrices of layers take the format. Vocabularies do too, but for int4, whose step is too coarse for
 * them (MODEL.md). The small matrices of heads stay f32: they cost nothing and decide much.
 */
static enum weight_format format_of(enum slot slot, enum weight_format format) {
	if (slot_of_layer(slot))
		return format;
	switch (slot) {
	case SLOT_EMBEDDING:
	case SLOT_BAND:
	case SLOT_WORDS:
	case SLOT_TAIL:
	case SLOT_OUTPUT:
		return format == WEIGHTS_INT4 ? WEIGHTS_INT8 : format;
	default:
		return WEIGHTS_F32;
	}
}

static bool has_format(const struct ops *ops, enum weight_format format) {
	return ops->formats[format].linear && ops->formats[format].pack;
}

/* AUTO is the checkpoint's own, where the table has it. */
static bool choose_formats(struct loader *l) {
	enum weight_format format = l->format;
	if (format == WEIGHTS_AUTO)
		format = bind_dtype(l) == DTYPE_BF16 && has_format(l->ops, WEIGHTS_BF16)
		                ? WEIGHTS_BF16
		                : WEIGHTS_F32;
	for (size_t i = 0; i < l->n_jobs; i++) {
		enum weight_format own = format_of(l->fields[i].slot, format);
		if (!l->fields[i].matrix)
			continue;
		if (!has_format(l->ops, own)) {
			snprintf(l->err, l->errlen,
			                "the kernels \"%s\" have no %s weights: choose other "
			                "kernels or other weights",
			                l->ops->name, weight_format_name(format));
			return false;
		}
		/* Sums of bytes have a longest row. */
		if (l->ops->formats[own].matrix_bytes(l->jobs[i].n_out, l->jobs[i].n_in) == 0) {
			snprintf(l->err, l->errlen, "%s weights cannot have rows of %d numbers",
			                weight_format_name(own), l->jobs[i].n_in);
			return false;
		}
		l->jobs[i].format = own;
		l->fields[i].matrix->format = own;
	}
	l->weights->format = format;
	return true;
}

/* ---- what a packed file must have been made of ---- */

static uint64_t hash_number(uint64_t number, uint64_t seed) {
	return hash_bytes(&number, sizeof number, seed);
}

/* A file's header says where each tensor lies; its bytes are known by size and time. */
static void hash_shard(const struct shard *shard, struct packed_identity *id) {
	const struct file_map *map = &shard->map;
	const size_t prefix = sizeof(uint64_t);
	uint64_t length = 0;
	memcpy(&length, map->mem, prefix); /* checked when it was parsed */
	id->source = hash_bytes(shard->name, strlen(shard->name), id->source);
	id->source = hash_number(map->size, id->source);
	id->source = hash_number((uint64_t)map->changed_s, id->source);
	id->source = hash_bytes(map->mem, prefix + length, id->source);
	/* Archives and images keep whole seconds only. */
	if (map->changed_ns != 0 || id->fraction != 0)
		id->fraction = hash_number((uint64_t)map->changed_ns, id->fraction);
}

/*
 * Some bytes from the middle of a tensor. Archives, images and copies give files of other content the
 * same time; what was trained anew differs somewhere in hundreds of samples.
 */
static uint64_t hash_sample(
                const struct pack_job *job, const struct pack_source *s, uint64_t seed) {
	size_t bytes = (size_t)s->rows * (size_t)job->n_in * dtype_size(s->dtype);
	size_t at = bytes / 2, left = bytes - at;
	return hash_bytes((const char *)s->data + at, left < SAMPLE_BYTES ? left : SAMPLE_BYTES,
	                seed);
}

static void hash_jobs(const struct loader *l, struct packed_identity *id) {
	for (size_t i = 0; i < l->n_jobs; i++) {
		const struct pack_job *job = &l->jobs[i];
		id->source = hash_number((uint64_t)l->fields[i].slot, id->source);
		id->source = hash_number((uint64_t)job->n_out, id->source);
		id->source = hash_number((uint64_t)job->n_in, id->source);
		id->source = hash_number(job->panels ? 1 + (uint64_t)job->format : 0, id->source);
		for (int k = 0; k < job->n_sources; k++) {
			const struct pack_source *s = &job->sources[k];
			const struct shard *shard = checkpoint_holding(l->checkpoint, s->data);
			size_t at = (size_t)((const char *)s->data - (const char *)shard->map.mem);
			id->source = hash_bytes(shard->name, strlen(shard->name), id->source);
			id->source = hash_number(at, id->source);
			id->source = hash_number((uint64_t)s->first, id->source);
			id->source = hash_number((uint64_t)s->rows, id->source);
			id->source = hash_number(s->transposed, id->source);
			id->source = hash_sample(job, s, id->source);
		}
	}
}

/* False if the panels' fingerprint cannot be taken. */
static bool identify(struct loader *l, const char *dir) {
	char ignored[300];
	struct packed_identity id = { .source = PACKED_VERSION };
	bool used[WEIGHT_FORMATS] = { false };
	size_t len = 0;
	char *config = file_exists(dir, "config.json")
	                ? file_read(dir, "config.json", 1 << 20, &len, ignored, sizeof ignored)
	                : NULL;
	if (config)
		id.source = hash_bytes(config, len, id.source);
	free(config);
	for (size_t i = 0; i < l->checkpoint->n_shards; i++)
		hash_shard(&l->checkpoint->shards[i], &id);
	hash_jobs(l, &id);
	for (size_t i = 0; i < l->n_jobs; i++) {
		if (l->jobs[i].panels)
			used[l->jobs[i].format] = true;
	}
	id.layout = packed_layout(l->ops, used);
	id.bytes = l->weights->bytes;
	if (id.layout == 0)
		return false;
	l->weights->identity = id;
	return true;
}

/* ---- loading ---- */

struct watcher {
	const struct checkpoint *checkpoint;
	const struct weights_options *options;
};

/* What has been packed need not be in memory twice. */
static void packed_some(void *arg, double share) {
	const struct watcher *watcher = arg;
	checkpoint_release(watcher->checkpoint);
	if (watcher->options->progress)
		watcher->options->progress(watcher->options->progress_arg, share);
}

static bool pack_all(struct loader *l, const struct weights_options *options) {
	struct watcher watcher = { l->checkpoint, options };
	if (!arena_allocate(l))
		return false;
	arena_place(l, l->weights->arena);
	if (!pack_run(l->jobs, l->n_jobs,
	                    &(struct pack_options){ .ops = l->ops,
	                                    .threads = options->threads,
	                                    .progress = packed_some,
	                                    .arg = &watcher },
	                    l->err, l->errlen))
		return false;
	arena_complete(l);
	return true;
}

/* The arena of an earlier start. */
static bool map_packed(struct loader *l, const char *dir, bool verify) {
	struct weights *w = l->weights;
	char name[64];
	packed_name(l->ops, w->format, name, sizeof name);
	w->packed = packed_open(dir, name, &w->identity, verify, &w->map, w->packed_why,
	                sizeof w->packed_why);
	if (w->packed != PACKED_USED)
		return false;
	arena_place(l, w->map.data);
	return true;
}

static bool begin(struct loader *l) {
	return bind_all(l) && choose_formats(l) && arena_measure(l);
}

static bool load(struct loader *l, const char *dir, const struct weights_options *options) {
	if (!begin(l))
		return false;
	bool wanted = options->packed != PACKED_IGNORED && identify(l, dir);
	bool mapped = wanted && map_packed(l, dir, options->packed == PACKED_VERIFIED);
	if (!mapped && !pack_all(l, options))
		return false;
	arena_tie(l);
	l->weights->dtype = dtype_name(bind_dtype(l));
	return true;
}

/* Without `dir` nothing is loaded: it is only counted. */
static bool run(const struct checkpoint *checkpoint, const char *dir, const struct facts *facts,
                const struct weights_options *options, struct weights *ret_weights, char *err,
                size_t errlen) {
	struct weights weights = { .packed = PACKED_ABSENT };
	struct loader l = {
		.checkpoint = checkpoint,
		.facts = facts,
		.ops = options->ops,
		.format = options->format,
		.table = family_table(facts->family),
		.weights = &weights,
		.err = err,
		.errlen = errlen,
	};
	bool ok = dir ? load(&l, dir, options) : begin(&l);
	free(l.jobs);
	free(l.fields);
	if (!ok) {
		weights_finish(&weights);
		return false;
	}
	*ret_weights = weights;
	return true;
}

bool weights_load(const char *dir, const struct facts *facts, const struct weights_options *options,
                struct weights *ret_weights, char *err, size_t errlen) {
	struct checkpoint checkpoint;
	if (!checkpoint_open(dir, &checkpoint, err, errlen))
		return false;
	bool ok = run(&checkpoint, dir, facts, options, ret_weights, err, errlen);
	checkpoint_close(&checkpoint);
	return ok;
}

bool weights_measure(const char *dir, const struct facts *facts, const struct ops *ops,
                enum weight_format format, struct weight_sizes *ret_sizes, char *err,
                size_t errlen) {
	struct weights_options options = { .ops = ops, .format = format };
	struct checkpoint checkpoint;
	struct weights weights;
	if (!checkpoint_open(dir, &checkpoint, err, errlen))
		return false;
	bool ok = run(&checkpoint, NULL, facts, &options, &weights, err, errlen);
	checkpoint_close(&checkpoint);
	if (!ok)
		return false;
	*ret_sizes = weights_sizes(&weights);
	weights_finish(&weights);
	return true;
}

struct weight_sizes weights_sizes(const struct weights *w) {
	size_t layers = w->bytes - w->fixed_bytes;
	return (struct weight_sizes){ .format = w->format,
		.layers = layers,
		.vocabulary = w->vocabulary_bytes,
		.other = w->fixed_bytes - w->vocabulary_bytes };
}

bool weights_keep(const struct weights *weights, const struct ops *ops, const char *dir,
                bool (*go_on)(void *arg), void *arg, char *err, size_t errlen) {
	char name[64];
	packed_name(ops, weights->format, name, sizeof name);
	if (weights->arena && weights->identity.bytes > 0)
		return packed_write(dir, name, &weights->identity, weights->arena, go_on, arg, err,
		                errlen);
	snprintf(err, errlen, "%s: there is nothing to write", name);
	return false;
}

void weights_finish(struct weights *weights) {
	if (!weights)
		return;
	for (int s = 0; s < STACKS; s++) {
		free(weights->stack[s].layers);
		free(weights->stack[s].bands);
	}
	free(weights->arena);
	packed_close(&weights->map);
	*weights = (struct weights){ 0 };
}
