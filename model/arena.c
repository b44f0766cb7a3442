/* SPDX-License-Identifier: Apache-2.0 */
/* The arena: where everything lies, what it takes, and the tables that are computed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "model/weights_parts.h"

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

/* A type vector that every token gets is added to the positions once. */
static bool folds_types(const struct loader *l, enum stack stack) {
	const struct stack_weights *w = &l->weights->stack[stack];
	return l->facts->stack[stack].constant_types > 0 && w->types && w->positions;
}

static void fold_types(const struct loader *l, enum stack stack) {
	const struct stack_facts *facts = &l->facts->stack[stack];
	const struct stack_weights *w = &l->weights->stack[stack];
	size_t dim = (size_t)facts->dim;
	size_t rows = (size_t)facts->position_offset + (size_t)facts->context;
	float *positions = (float *)w->positions;
	for (size_t i = 0; i < rows * dim; i++)
		positions[i] += w->types[i % dim];
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

/* Bytes of stack's computed position table; 0 if none. */
static size_t sinusoid_bytes(const struct facts *facts, enum stack stack) {
	return sinusoid_rows(facts, stack) * (size_t)facts->stack[stack].dim * sizeof(float);
}

/* Which part of the memory the slot is told as. */
static bool of_vocabulary(enum slot slot) {
	return slot == SLOT_EMBEDDING || slot == SLOT_BAND || slot == SLOT_BAND_PROJECT
	                || slot == SLOT_WORDS || slot == SLOT_CLASSES || slot == SLOT_REDUCE
	                || slot == SLOT_REDUCE_TIED || slot == SLOT_TAIL || slot == SLOT_OUTPUT;
}

bool arena_measure(struct loader *l) {
	struct weights *w = l->weights;
	bool fits = true;
	w->bytes = w->vocabulary_bytes = 0;
	for (size_t i = 0; i < l->n_jobs; i++) {
		size_t before = w->bytes;
		fits = fits && add_size(&w->bytes, job_bytes(&l->jobs[i], l->ops));
		if (of_vocabulary(l->fields[i].slot))
			w->vocabulary_bytes += w->bytes - before;
	}
	for (int s = 0; s < STACKS; s++)
		fits = fits && add_size(&w->bytes, sinusoid_bytes(l->facts, (enum stack)s));
	w->fixed_bytes = w->bytes;
	for (int s = 0; s < STACKS; s++) {
		const struct pack_job *jobs = &l->jobs[l->layer_jobs[s].first];
		w->layer_bytes[s] = 0;
		for (size_t i = 0; i < l->layer_jobs[s].count; i++)
			add_size(&w->layer_bytes[s], job_bytes(&jobs[i], l->ops));
		w->fixed_bytes -= w->layer_bytes[s] * (size_t)l->facts->stack[s].layers;
	}
	if (!fits)
		snprintf(l->err, l->errlen, "out of memory: the packed weights are too large");
	return fits;
}

bool arena_allocate(struct loader *l) {
	struct weights *w = l->weights;
	size_t alignment = w->bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
	if (posix_memalign(&w->arena, alignment, w->bytes ? w->bytes : ALIGNMENT)) {
		w->arena = NULL;
		snprintf(l->err, l->errlen, "out of memory: the packed weights need %zu MiB",
		                w->bytes >> 20);
		return false;
	}
#ifdef MADV_HUGEPAGE
	if (w->bytes >= HUGE_PAGE)
		madvise(w->arena, w->bytes, MADV_HUGEPAGE);
#endif
	return true;
}

void arena_place(struct loader *l, const void *base) {
	size_t at = 0;
	for (size_t i = 0; i < l->n_jobs; i++) {
		struct pack_job *job = &l->jobs[i];
		void *data = (char *)(uintptr_t)base + at;
		job->data = data;
		if (l->fields[i].matrix)
			l->fields[i].matrix->data = data;
		else
			*l->fields[i].plain = data;
		add_size(&at, job_bytes(job, l->ops));
	}
	for (int s = 0; s < STACKS; s++) {
		size_t bytes = sinusoid_bytes(l->facts, (enum stack)s);
		if (bytes == 0)
			continue;
		l->weights->stack[s].positions = (const float *)((const char *)base + at);
		add_size(&at, bytes);
	}
}

/* Zeros from the end of a job's bytes to the next job: the arena may become a file. */
static void clear_gap(void *data, size_t bytes) {
	size_t whole = 0;
	add_size(&whole, bytes);
	memset((char *)data + bytes, 0, whole - bytes);
}

void arena_complete(struct loader *l) {
	for (size_t i = 0; i < l->n_jobs; i++)
		clear_gap(l->jobs[i].data, job_bytes(&l->jobs[i], l->ops));
	for (int s = 0; s < STACKS; s++) {
		const struct stack_facts *facts = &l->facts->stack[s];
		float *table = (float *)l->weights->stack[s].positions;
		size_t bytes = sinusoid_bytes(l->facts, (enum stack)s);
		if (bytes > 0) {
			fill_sinusoids(table, sinusoid_rows(l->facts, (enum stack)s), facts->dim,
			                facts->positions);
			clear_gap(table, bytes);
		}
		if (folds_types(l, (enum stack)s))
			fold_types(l, (enum stack)s);
	}
}

void arena_tie(struct loader *l) {
	for (int s = 0; s < STACKS; s++) {
		if (folds_types(l, (enum stack)s))
			l->weights->stack[s].types = NULL;
	}
	tie(l);
}
