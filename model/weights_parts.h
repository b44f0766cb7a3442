/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of loading: weights.c (the order of things), bind.c (which tensors make a slot,
 * checked) and arena.c (where everything lies).
 */
#ifndef FATHOM_MODEL_WEIGHTS_PARTS_H
#define FATHOM_MODEL_WEIGHTS_PARTS_H

#include "model/checkpoint.h"
#include "model/family.h"
#include "model/pack.h"
#include "model/weights.h"

/* What a job's place is written to: a matrix, or the pointer of plain numbers. */
struct field {
	enum slot slot;
	struct matrix *matrix; /* NULL: plain */
	const float **plain;
};

struct loader {
	const struct checkpoint *checkpoint;
	const struct facts *facts;
	const struct ops *ops;
	enum weight_format format; /* as asked for; AUTO is settled when all tensors are bound */
	const struct family_table *table;
	const char *prefix;
	struct weights *weights;
	struct pack_job *jobs;
	struct field *fields; /* [n_jobs] */
	size_t n_jobs;
	struct {
		size_t first, count;
	} layer_jobs[STACKS];         /* the jobs of layer 0 */
	size_t elements[DTYPE_OTHER]; /* by dtype */
	char *err;
	size_t errlen;
};

/* Every slot becomes jobs whose tensors are there and fit. False with a sentence. */
bool bind_all(struct loader *l);

/* The dtype of most numbers that were bound. */
enum dtype bind_dtype(const struct loader *l);

/* Counts what everything takes: weights::bytes and its parts. False if no memory is that large. */
bool arena_measure(struct loader *l);

/* Memory for it. */
bool arena_allocate(struct loader *l);

/* Gives every job and matrix its place in the arena that begins at `base`. Nothing is written. */
void arena_place(struct loader *l, const void *base);

/* What no job writes: gaps, sinusoids, types that every token has. Behind the jobs. */
void arena_complete(struct loader *l);

/* Pointers that are others': tied matrices, and tables that are folded into others. */
void arena_tie(struct loader *l);

#endif
