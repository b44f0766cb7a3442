/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights: every slot of the model becomes one job, whose tensors are found and checked against the
 * facts before a byte is allocated; then the jobs get their places in one arena and are packed.
 */
#include "model/weights.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "model/checkpoint.h"
#include "model/family.h"
#include "model/pack.h"
#include "model/place.h"

_Static_assert(MAX_BANDS <= 16 && MAX_CLASSIFIERS <= 16, "MOST_OF_A_SLOT");

enum {
	ALIGNMENT = 64,
	HUGE_PAGE = 2 << 20,
	LAYER_SLOTS = SLOTS - SLOT_ATTN_NORM,
	MOST_OF_A_SLOT = 16, /* bands or classification heads */
};

/* The pointer that will hold a job's data: of panels, or of plain numbers. */
struct field {
	const void **panels;
	const float **plain;
};

struct loader {
	const struct checkpoint *checkpoint;
	const struct facts *facts;
	const struct ops *ops;
	const struct family_table *table;
	const char *prefix;
	struct weights *weights;
	struct pack_job *jobs;
	struct field *fields; /* where the job's place is written: [n_jobs] */
	size_t n_jobs;
	struct {
		size_t first, count;
	} layer_jobs[STACKS];         /* the jobs of layer 0 */
	size_t elements[DTYPE_OTHER]; /* by dtype */
	char *err;
	size_t errlen;
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

/* One part of the slot: of its names the first that is there counts, and all that are there must fit. */
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
		*m = (struct matrix){ .n_out = out, .n_in = in, .format = job.format };
		m->n_panels = (int)(((int64_t)out + l->ops->panel - 1) / l->ops->panel);
		l->fields[l->n_jobs].panels = &m->data;
	} else {
		l->fields[l->n_jobs].plain = place_plain(l->weights, at, role);
	}
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

/* Matrices that are others' panels. */
static void tie(struct loader *l) {
	const struct facts *facts = l->facts;
	struct weights *w = l->weights;
	struct stack_weights *encoder = &w->stack[STACK_ENCODER];
	struct stack_weights *decoder = &w->stack[STACK_DECODER];
	if (facts->shared_embeddings)
		encoder->embedding = decoder->embedding;
	if (facts->kind == KIND_ENCODER) {
		if (facts->mlm_head && facts->tied_output)
			w->output.w = encoder->embedding;
	} else if (facts->tied_output) {
		w->output.w = decoder->embedding;
	}
	if (!facts->tied_bands)
		return;
	w->adaptive.words.w = decoder->bands[0].table;
	for (int b = 1; b < facts->output.n; b++)
		w->adaptive.tail[b - 1].w = decoder->bands[b].table;
}

/* A type vector that every token gets is added to the positions once. */
static void fold_types(struct loader *l) {
	for (int s = 0; s < STACKS; s++) {
		const struct stack_facts *facts = &l->facts->stack[s];
		struct stack_weights *w = &l->weights->stack[s];
		if (facts->constant_types == 0 || !w->types || !w->positions)
			continue;
		size_t dim = (size_t)facts->dim;
		size_t rows = (size_t)facts->position_offset + (size_t)facts->context;
		float *positions = (float *)w->positions;
		for (size_t i = 0; i < rows * dim; i++)
			positions[i] += w->types[i % dim];
		w->types = NULL;
	}
}

/* ---- places ---- */

static bool add_size(size_t *total, size_t bytes) {
	return !__builtin_add_overflow(bytes, (size_t)(ALIGNMENT - 1), &bytes)
	                && !__builtin_add_overflow(*total, bytes / ALIGNMENT * ALIGNMENT, total);
}

static size_t job_bytes(const struct pack_job *job, const struct ops *ops) {
	return job->panels ? ops->formats[job->format].matrix_bytes(job->n_out, job->n_in)
	                   : (size_t)job->n_out * (size_t)job->n_in * sizeof(float);
}

/* Rows of the position table that is computed instead of read; 0 if none. */
static size_t sinusoid_rows(const struct facts *facts, enum stack stack) {
	const struct stack_facts *s = &facts->stack[stack];
	bool has = s->layers > 0
	                && (s->positions == POSITIONS_SINUSOIDAL
	                                || s->positions == POSITIONS_SINUSOIDAL_MARIAN);
	return has ? (size_t)s->position_offset + (size_t)s->context : 0;
}

/*
 * Row p is [sin(p f_0) .. | cos(p f_0) ..]; a last odd column is 0. fairseq's f_j is 10000^(-j /
 * (dim/2 - 1)), Marian's 10000^(-2j / dim).
 */
static void fill_sinusoids(float *table, size_t rows, int dim, enum positions positions) {
	const int half = dim / 2;
	const double steps = positions == POSITIONS_SINUSOIDAL_MARIAN ? dim / 2.0 : half - 1;
	for (size_t row = 0; row < rows; row++)
		table[(row + 1) * (size_t)dim - 1] = 0;
	for (int j = 0; j < half; j++) {
		double frequency = exp(-(double)j * (log(10000.0) / steps));
		for (size_t row = 0; row < rows; row++) {
			float *at = table + row * (size_t)dim + j;
			at[0] = (float)sin((double)row * frequency);
			at[half] = (float)cos((double)row * frequency);
		}
	}
}

/* Counts the arena, allocates it and gives every job its place. */
static bool place(struct loader *l) {
	struct weights *w = l->weights;
	size_t total = 0;
	bool fits = true;
	for (size_t i = 0; i < l->n_jobs; i++)
		fits = fits && add_size(&total, job_bytes(&l->jobs[i], l->ops));
	for (int s = 0; s < STACKS; s++)
		fits = fits
		                && add_size(&total,
		                                sinusoid_rows(l->facts, (enum stack)s)
		                                                * (size_t)l->facts->stack[s].dim
		                                                * sizeof(float));
	if (!fits || posix_memalign(&w->arena, total >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT, total)) {
		w->arena = NULL;
		snprintf(l->err, l->errlen, "out of memory: the packed weights need %zu MiB",
		                total >> 20);
		return false;
	}
#ifdef MADV_HUGEPAGE
	if (total >= HUGE_PAGE)
		madvise(w->arena, total, MADV_HUGEPAGE);
#endif
	w->bytes = total;
	size_t at = 0;
	for (size_t i = 0; i < l->n_jobs; i++) {
		l->jobs[i].data = (char *)w->arena + at;
		if (l->jobs[i].panels)
			*l->fields[i].panels = l->jobs[i].data;
		else
			*l->fields[i].plain = l->jobs[i].data;
		add_size(&at, job_bytes(&l->jobs[i], l->ops));
	}
	for (int s = 0; s < STACKS; s++) {
		size_t rows = sinusoid_rows(l->facts, (enum stack)s);
		int dim = l->facts->stack[s].dim;
		if (rows == 0)
			continue;
		float *table = (float *)((char *)w->arena + at);
		fill_sinusoids(table, rows, dim, l->facts->stack[s].positions);
		w->stack[s].positions = table;
		add_size(&at, rows * (size_t)dim * sizeof(float));
	}
	return true;
}

/* Bytes of one layer, and of what is in no layer. */
static void count_bytes(struct loader *l) {
	struct weights *w = l->weights;
	w->fixed_bytes = w->bytes;
	for (int s = 0; s < STACKS; s++) {
		const struct pack_job *jobs = &l->jobs[l->layer_jobs[s].first];
		for (size_t i = 0; i < l->layer_jobs[s].count; i++)
			add_size(&w->layer_bytes[s], job_bytes(&jobs[i], l->ops));
		w->fixed_bytes -= w->layer_bytes[s] * (size_t)l->facts->stack[s].layers;
	}
}

static const char *main_dtype(const size_t elements[DTYPE_OTHER]) {
	enum dtype most = DTYPE_F32;
	for (enum dtype d = DTYPE_F32; d < DTYPE_OTHER; d++) {
		if (elements[d] > elements[most])
			most = d;
	}
	return dtype_name(most);
}

static bool load(struct loader *l, int threads) {
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
	if (!place(l) || !pack_run(l->jobs, l->n_jobs, l->ops, threads, l->err, l->errlen))
		return false;
	fold_types(l);
	tie(l);
	l->weights->dtype = main_dtype(l->elements);
	count_bytes(l);
	return true;
}

bool weights_load(const char *dir, const struct facts *facts, const struct ops *ops, int threads,
                struct weights *ret_weights, char *err, size_t errlen) {
	struct checkpoint checkpoint;
	if (!checkpoint_open(dir, &checkpoint, err, errlen))
		return false;
	struct weights weights = { 0 };
	struct loader l = {
		.checkpoint = &checkpoint,
		.facts = facts,
		.ops = ops,
		.table = family_table(facts->family),
		.weights = &weights,
		.err = err,
		.errlen = errlen,
	};
	bool ok = load(&l, threads);
	free(l.jobs);
	free(l.fields);
	checkpoint_close(&checkpoint);
	if (!ok) {
		weights_finish(&weights);
		return false;
	}
	*ret_weights = weights;
	return true;
}

void weights_finish(struct weights *weights) {
	if (!weights)
		return;
	for (int s = 0; s < STACKS; s++) {
		free(weights->stack[s].layers);
		free(weights->stack[s].bands);
	}
	free(weights->arena);
	*weights = (struct weights){ 0 };
}
