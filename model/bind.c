/* SPDX-License-Identifier: Apache-2.0 */
/* Binding: every slot of the model becomes one job, whose tensors are found and checked against the
 * facts. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/place.h"
#include "model/weights_parts.h"

_Static_assert(MAX_BANDS <= 16 && MAX_CLASSIFIERS <= 16, "MOST_OF_A_SLOT");

enum {
	LAYER_SLOTS = SLOTS - SLOT_ATTN_NORM,
	MOST_OF_A_SLOT = 16, /* bands or classification heads */
};

static bool refuse(struct loader *l, const char *file, const char *tensor, const char *format, ...)
                __attribute__((format(printf, 4, 5)));

/* `FILE: tensor "NAME" ...`. Returns false. */
static bool refuse(
                struct loader *l, const char *file, const char *tensor, const char *format, ...) {
	char shown[TENSOR_NAME_MAX], why[240];
	va_list args;
	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	snprintf(l->err, l->errlen, "%s: tensor \"%s\" %s", file,
	                doc_printable(tensor, shown, sizeof shown), why);
	return false;
}

/* ---- finding and checking tensors ---- */

static void format_shape(const size_t *shape, int rank, char *buf, size_t size) {
	size_t used = (size_t)snprintf(buf, size, "[");
	for (int i = 0; i < rank && used < size; i++)
		used += (size_t)snprintf(buf + used, size - used, "%s%zu", i ? ", " : "", shape[i]);
	if (used < size)
		snprintf(buf + used, size - used, "]");
}

/* A slot's part as it must be in the checkpoint; columns 0: a vector. */
struct need {
	const struct binding *binding;
	int rows, columns;
	char name[TENSOR_NAME_MAX];
};

/* Whether a tensor that is there has a shape and dtype that can be used. */
static bool check_tensor(struct loader *l, const struct need *need, const struct tensor *t,
                const struct shard *shard) {
	char has[200], needs[64];
	if (t->dtype == DTYPE_OTHER)
		return refuse(l, shard->name, need->name,
		                "has a dtype that cannot be used; F32, F16 and BF16 can");
	size_t shape[2] = { (size_t)need->rows, (size_t)need->columns };
	if (need->columns && need->binding->transposed) {
		shape[0] = (size_t)need->columns;
		shape[1] = (size_t)need->rows;
	} else if (need->binding->row) {
		shape[0] = 1;
		shape[1] = (size_t)need->rows;
	}
	int rank = need->columns || need->binding->row ? 2 : 1;
	if (t->rank == rank && memcmp(t->shape, shape, (size_t)rank * sizeof *shape) == 0)
		return true;
	format_shape(t->shape, t->rank, has, sizeof has);
	format_shape(shape, rank, needs, sizeof needs);
	return refuse(l, shard->name, need->name, "has shape %s, config.json asks for %s", has,
	                needs);
}

/*
 * The tensor of `need` as the job's next source, unless the job has this part already: then it only
 * must fit. False if it does not; *found says whether it is there.
 */
static bool bind(struct loader *l, const struct need *need, int first, struct pack_job *job,
                bool *found) {
	const struct shard *shard;
	const struct tensor *t = checkpoint_find(l->checkpoint, need->name, &shard);
	if (!t)
		return true;
	if (!check_tensor(l, need, t, shard))
		return false;
	if (*found)
		return true;
	*found = true;
	l->elements[t->dtype] += t->count;
	job->sources[job->n_sources++] = (struct pack_source){
		.data = (const char *)shard->map.mem + t->offset,
		.dtype = t->dtype,
		.transposed = need->binding->transposed && need->columns,
		.first = first,
		.rows = need->rows,
	};
	return true;
}

/* One part of the slot: of its names the first that is there counts, and all that are there must
 * fit. */
static bool add_part(struct loader *l, const struct place *at, enum tensor_role role,
                enum part part, struct pack_job *job) {
	const struct stack_table *table = &l->table->stack[at->stack];
	const struct binding *missing = NULL;
	struct need need;
	bool found = false;
	int first, rows;
	part_rows(part, job->n_out, &first, &rows);
	for (size_t i = 0; i < table->n_bindings; i++) {
		const struct binding *b = &table->bindings[i];
		if (b->slot != at->slot || b->role != role || b->part != part
		                || (b->if_tied && !l->facts->tied_output))
			continue;
		need.binding = b;
		need.rows = rows;
		need.columns = role == ROLE_MATRIX ? job->n_in : 0;
		binding_name(l->facts, table, l->prefix, b, at->index, need.name);
		if (!bind(l, &need, first, job, &found))
			return false;
		if (!missing && !b->optional)
			missing = b;
	}
	bool tied = role == ROLE_MATRIX && slot_tied(l->facts, at->stack, at->slot);
	if (found || !missing || tied)
		return true;
	binding_name(l->facts, table, l->prefix, missing, at->index, need.name);
	return refuse(l, checkpoint_list_name(l->checkpoint), need.name, "is missing");
}

/* ---- slots ---- */

/* One role of a slot becomes a job, if the family's table gives it any tensor. */
static bool add_job(struct loader *l, const struct place *at, enum tensor_role role) {
	bool plain = at->slot == SLOT_POSITIONS || at->slot == SLOT_TYPES;
	struct pack_job job = { .panels = role == ROLE_MATRIX && !plain };
	int out, in;
	slot_shape(l->facts, at->stack, at->slot, at->index, &out, &in);
	job.n_out = out;
	job.n_in = role == ROLE_MATRIX ? in : 1;
	for (enum part part = WHOLE; part <= HALF_V; part++) {
		if (!add_part(l, at, role, part, &job))
			return false;
	}
	if (job.n_sources == 0 || (role == ROLE_MATRIX && slot_tied(l->facts, at->stack, at->slot)))
		return true;
	if (job.panels) {
		struct matrix *m = place_matrix(l->weights, at);
		*m = (struct matrix){ .n_out = out, .n_in = in };
		m->n_panels = (int)(((int64_t)out + l->ops->panel - 1) / l->ops->panel);
		l->fields[l->n_jobs].matrix = m;
	} else {
		l->fields[l->n_jobs].plain = place_plain(l->weights, at, role);
	}
	l->fields[l->n_jobs].slot = at->slot;
	l->jobs[l->n_jobs++] = job;
	return true;
}

static bool add_slot(struct loader *l, const struct place *at) {
	for (enum tensor_role role = ROLE_MATRIX; role <= ROLE_BIAS; role++) {
		if (!add_job(l, at, role))
			return false;
	}
	return true;
}

/* ---- the whole model ---- */

/* Whether any tensor is of a layer under this prefix. */
static bool has_layers(const struct loader *l, const char *prefix) {
	for (size_t i = 0; i < l->checkpoint->n_shards; i++) {
		const struct tensor_table *table = &l->checkpoint->shards[i].table;
		for (size_t t = 0; t < table->count; t++) {
			for (int s = 0; s < STACKS; s++) {
				if (l->facts->stack[s].layers > 0
				                && family_layer_of(&l->table->stack[s], prefix,
				                                   table->tensors[t].name)
				                                >= 0)
					return true;
			}
		}
	}
	return false;
}

/* The prefix that this checkpoint's names carry; the family's first if none fits. */
static void find_prefix(struct loader *l) {
	for (const char *const *p = l->table->prefixes; *p; p++) {
		if (has_layers(l, *p)) {
			l->prefix = *p;
			return;
		}
	}
	l->prefix = l->table->prefixes[0];
}

/* More layers in the file than in config.json: one of the two is not this model's. */
static bool check_layer_count(struct loader *l, enum stack stack, int layers) {
	for (size_t i = 0; i < l->checkpoint->n_shards; i++) {
		const struct shard *shard = &l->checkpoint->shards[i];
		for (size_t t = 0; t < shard->table.count; t++) {
			const char *name = shard->table.tensors[t].name;
			long layer = family_layer_of(&l->table->stack[stack], l->prefix, name);
			if (layer >= layers)
				return refuse(l, shard->name, name,
				                "is of layer %ld, but by config.json the last is "
				                "%d",
				                layer, layers - 1);
		}
	}
	return true;
}

static bool add_stack(struct loader *l, enum stack stack) {
	struct stack_weights *w = &l->weights->stack[stack];
	const int layers = l->facts->stack[stack].layers;
	const int bands = slot_count(l->facts, stack, SLOT_BAND);
	w->layers = calloc((size_t)layers, sizeof *w->layers);
	w->bands = bands ? calloc((size_t)bands, sizeof *w->bands) : NULL;
	if (!w->layers || (bands && !w->bands)) {
		snprintf(l->err, l->errlen, "out of memory");
		return false;
	}
	if (!check_layer_count(l, stack, layers))
		return false;
	struct place at = { .stack = stack };
	for (at.slot = 0; at.slot < SLOT_ATTN_NORM; at.slot++) {
		const int count = slot_count(l->facts, stack, at.slot);
		for (at.index = 0; at.index < count; at.index++) {
			if (!add_slot(l, &at))
				return false;
		}
	}
	l->layer_jobs[stack].first = l->n_jobs;
	for (at.index = 0; at.index < layers; at.index++) {
		for (at.slot = SLOT_ATTN_NORM; at.slot < SLOTS; at.slot++) {
			if (slot_count(l->facts, stack, at.slot) > 0 && !add_slot(l, &at))
				return false;
		}
		if (at.index == 0)
			l->layer_jobs[stack].count = l->n_jobs - l->layer_jobs[stack].first;
	}
	return true;
}

bool bind_all(struct loader *l) {
	size_t layers = 0;
	for (int s = 0; s < STACKS; s++)
		layers += (size_t)l->facts->stack[s].layers;
	size_t most = 3 * (layers * LAYER_SLOTS + STACKS * MOST_OF_A_SLOT * (SLOTS - LAYER_SLOTS));
	l->jobs = calloc(most, sizeof *l->jobs);
	l->fields = calloc(most, sizeof *l->fields);
	if (!l->jobs || !l->fields) {
		snprintf(l->err, l->errlen, "out of memory");
		return false;
	}
	find_prefix(l);
	for (int s = 0; s < STACKS; s++) {
		if (l->facts->stack[s].layers > 0 && !add_stack(l, (enum stack)s))
			return false;
	}
	return true;
}

enum dtype bind_dtype(const struct loader *l) {
	enum dtype most = DTYPE_F32;
	for (enum dtype d = DTYPE_F32; d < DTYPE_OTHER; d++) {
		if (l->elements[d] > l->elements[most])
			most = d;
	}
	return most;
}
