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

enum {
	ALIGNMENT = 64,
	HUGE_PAGE = 2 << 20,
	LAYER_SLOTS = SLOTS - SLOT_ATTN_NORM,
};

struct loader {
	const struct checkpoint *checkpoint;
	const struct facts *facts;
	const struct ops *ops;
	const struct family_table *table;
	const char *prefix;
	struct weights *weights;
	struct pack_job *jobs;
	const float ***fields; /* where the job's place is written: [n_jobs] */
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

/* The tensor of `binding`, with exactly this shape (columns 0: a vector), as a source. */
static bool bind(struct loader *l, const struct binding *binding, int layer, int rows, int columns,
                struct pack_source *ret) {
	char name[TENSOR_NAME_MAX], has[200], needs[64];
	const struct shard *shard;
	binding_name(l->table, l->prefix, binding, layer, name);
	const struct tensor *t = checkpoint_find(l->checkpoint, name, &shard);
	if (!t)
		return refuse(l, checkpoint_list_name(l->checkpoint), name, "is missing");
	if (t->dtype == DTYPE_OTHER)
		return refuse(l, shard->name, name,
		                "has a dtype that cannot be used; F32, F16 and BF16 can");
	size_t shape[2] = { (size_t)rows, (size_t)columns };
	if (binding->transposed && columns) {
		shape[0] = (size_t)columns;
		shape[1] = (size_t)rows;
	}
	int rank = columns ? 2 : 1;
	if (t->rank != rank || memcmp(t->shape, shape, (size_t)rank * sizeof *shape) != 0) {
		format_shape(t->shape, t->rank, has, sizeof has);
		format_shape(shape, rank, needs, sizeof needs);
		return refuse(l, shard->name, name, "has shape %s, config.json asks for %s", has,
		                needs);
	}
	l->elements[t->dtype] += t->count;
	*ret = (struct pack_source){
		.data = (const char *)shard->map.mem + t->offset,
		.dtype = t->dtype,
		.transposed = binding->transposed && columns,
		.rows = rows,
	};
	return true;
}

/* ---- slots ---- */

static struct norm_weights *norm_of(
                struct weights *w, enum stack stack, enum slot slot, int layer) {
	struct stack_weights *s = &w->stack[stack];
	switch (slot) {
	case SLOT_EMBEDDING_NORM:
		return &s->embedding_norm;
	case SLOT_FINAL_NORM:
		return &s->final_norm;
	case SLOT_ATTN_NORM:
		return &s->layers[layer].attn_norm;
	case SLOT_FFN_NORM:
		return &s->layers[layer].ffn_norm;
	default:
		return NULL;
	}
}

static struct linear_weights *linear_of(
                struct weights *w, enum stack stack, enum slot slot, int layer) {
	struct stack_weights *s = &w->stack[stack];
	switch (slot) {
	case SLOT_OUTPUT:
		return &w->output;
	case SLOT_QKV:
		return &s->layers[layer].qkv;
	case SLOT_OUT:
		return &s->layers[layer].out;
	case SLOT_UP:
		return &s->layers[layer].up;
	case SLOT_DOWN:
		return &s->layers[layer].down;
	default:
		return NULL;
	}
}

/* The matrix that the kernels read in panels, or NULL. */
static struct matrix *matrix_of(struct weights *w, enum stack stack, enum slot slot, int layer) {
	if (slot == SLOT_EMBEDDING)
		return &w->stack[stack].embedding;
	struct linear_weights *linear = linear_of(w, stack, slot, layer);
	return linear ? &linear->w : NULL;
}

/* The pointer that is to hold the plain f32 of this part of the slot. */
static const float **plain_of(struct weights *w, enum stack stack, enum slot slot,
                enum tensor_role role, int layer) {
	if (slot == SLOT_POSITIONS)
		return &w->stack[stack].positions;
	struct norm_weights *norm = norm_of(w, stack, slot, layer);
	if (norm)
		return role == ROLE_GAIN ? &norm->gain : &norm->bias;
	struct linear_weights *linear = linear_of(w, stack, slot, layer);
	return linear ? &linear->bias : NULL;
}

/* One part of a slot becomes a job, if the family's table gives it any tensor. */
static bool add_job(struct loader *l, enum stack stack, enum slot slot, enum tensor_role role,
                int layer) {
	struct pack_job job = { .panels = role == ROLE_MATRIX && slot != SLOT_POSITIONS };
	int out, in;
	slot_shape(l->facts, stack, slot, &out, &in);
	int columns = role == ROLE_MATRIX ? in : 0;
	job.n_out = out;
	job.n_in = columns ? columns : 1;
	for (size_t i = 0; i < l->table->n_bindings; i++) {
		const struct binding *b = &l->table->bindings[i];
		if (b->slot != slot || b->role != role)
			continue;
		int rows = b->third == WHOLE ? out : out / 3;
		struct pack_source *source = &job.sources[job.n_sources++];
		if (!bind(l, b, layer, rows, columns, source))
			return false;
		source->first = b->third == WHOLE ? 0 : (int)b->third * rows;
	}
	if (job.n_sources == 0)
		return true;
	if (job.panels) {
		struct matrix *m = matrix_of(l->weights, stack, slot, layer);
		*m = (struct matrix){ .n_out = out, .n_in = in };
		m->n_panels = (int)(((int64_t)out + l->ops->panel - 1) / l->ops->panel);
		l->fields[l->n_jobs] = &m->data;
	} else {
		l->fields[l->n_jobs] = plain_of(l->weights, stack, slot, role, layer);
	}
	l->jobs[l->n_jobs++] = job;
	return true;
}

static bool add_slot(struct loader *l, enum stack stack, enum slot slot, int layer) {
	for (enum tensor_role role = ROLE_MATRIX; role <= ROLE_BIAS; role++) {
		if (!add_job(l, stack, slot, role, layer))
			return false;
	}
	return true;
}

/* ---- the whole model ---- */

/* The prefix that this checkpoint's names carry: that of the token embedding. */
static bool find_prefix(struct loader *l) {
	char name[TENSOR_NAME_MAX];
	const struct shard *shard;
	const struct binding *embedding = &l->table->bindings[0];
	for (const char *const *p = l->table->prefixes; *p; p++) {
		binding_name(l->table, *p, embedding, 0, name);
		if (checkpoint_find(l->checkpoint, name, &shard)) {
			l->prefix = *p;
			return true;
		}
	}
	binding_name(l->table, l->table->prefixes[0], embedding, 0, name);
	return refuse(l, checkpoint_list_name(l->checkpoint), name, "is missing");
}

/* More layers in the file than in config.json: one of the two is not this model's. */
static bool check_layer_count(struct loader *l, int layers) {
	for (size_t i = 0; i < l->checkpoint->n_shards; i++) {
		const struct shard *shard = &l->checkpoint->shards[i];
		for (size_t t = 0; t < shard->table.count; t++) {
			const char *name = shard->table.tensors[t].name;
			long layer = family_layer_of(l->table, l->prefix, name);
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
	w->layers = calloc((size_t)layers, sizeof *w->layers);
	if (!w->layers) {
		snprintf(l->err, l->errlen, "out of memory");
		return false;
	}
	if (!check_layer_count(l, layers))
		return false;
	for (enum slot slot = 0; slot < SLOT_ATTN_NORM; slot++) {
		if (slot_present(l->facts, stack, slot) && !add_slot(l, stack, slot, 0))
			return false;
	}
	l->layer_jobs[stack].first = l->n_jobs;
	for (int i = 0; i < layers; i++) {
		for (enum slot slot = SLOT_ATTN_NORM; slot < SLOTS; slot++) {
			if (!add_slot(l, stack, slot, i))
				return false;
		}
		if (i == 0)
			l->layer_jobs[stack].count = l->n_jobs - l->layer_jobs[stack].first;
	}
	return true;
}

/* ---- places ---- */

static bool add_size(size_t *total, size_t bytes) {
	return !__builtin_add_overflow(bytes, (size_t)(ALIGNMENT - 1), &bytes)
	                && !__builtin_add_overflow(*total, bytes / ALIGNMENT * ALIGNMENT, total);
}

static size_t job_bytes(const struct pack_job *job, const struct ops *ops) {
	return job->panels ? ops->matrix_bytes(job->n_out, job->n_in)
	                   : (size_t)job->n_out * (size_t)job->n_in * sizeof(float);
}

/* Rows of the position table that is computed instead of read; 0 if none. */
static size_t sinusoid_rows(const struct facts *facts, enum stack stack) {
	const struct stack_facts *s = &facts->stack[stack];
	bool has = s->layers > 0 && s->positions == POSITIONS_SINUSOIDAL;
	return has ? (size_t)s->position_offset + (size_t)facts->context : 0;
}

/*
 * fairseq's sinusoids: row p is [sin(p f_0) .. | cos(p f_0) ..], f_j = 10000^(-j / (dim/2 - 1)); a
 * last odd column is 0.
 */
static void fill_sinusoids(float *table, size_t rows, int dim) {
	const int half = dim / 2;
	for (size_t row = 0; row < rows; row++)
		table[(row + 1) * (size_t)dim - 1] = 0;
	for (int j = 0; j < half; j++) {
		double frequency = exp(-(double)j * (log(10000.0) / (half - 1)));
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
		l->jobs[i].data = (float *)((char *)w->arena + at);
		*l->fields[i] = l->jobs[i].data;
		add_size(&at, job_bytes(&l->jobs[i], l->ops));
	}
	for (int s = 0; s < STACKS; s++) {
		size_t rows = sinusoid_rows(l->facts, (enum stack)s);
		int dim = l->facts->stack[s].dim;
		if (rows == 0)
			continue;
		float *table = (float *)((char *)w->arena + at);
		fill_sinusoids(table, rows, dim);
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
	size_t most = 3 * (layers * LAYER_SLOTS + STACKS * (SLOTS - LAYER_SLOTS));
	l->jobs = calloc(most, sizeof *l->jobs);
	l->fields = calloc(most, sizeof *l->fields);
	if (!l->jobs || !l->fields) {
		snprintf(l->err, l->errlen, "out of memory");
		return false;
	}
	if (!find_prefix(l))
		return false;
	for (int s = 0; s < STACKS; s++) {
		if (l->facts->stack[s].layers > 0 && !add_stack(l, (enum stack)s))
			return false;
	}
	if (!place(l) || !pack_run(l->jobs, l->n_jobs, l->ops, threads, l->err, l->errlen))
		return false;
	if (l->facts->tied_output)
		l->weights->output.w = l->weights->stack[STACK_DECODER].embedding;
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
	for (int s = 0; s < STACKS; s++)
		free(weights->stack[s].layers);
	free(weights->arena);
	*weights = (struct weights){ 0 };
}
