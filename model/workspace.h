/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workspace from inside: scratch rows, the KV pool, the sequences, and the step in progress.
 * model.h has what callers see. Everything here belongs to one thread; the team reads and writes
 * it only inside step_run and step_logits.
 */
#ifndef FATHOM_MODEL_WORKSPACE_H
#define FATHOM_MODEL_WORKSPACE_H

#include "model/block.h"
#include "model/kv.h"
#include "model/model.h"

struct sequence {
	struct subnet subnet;
	int tokens;    /* at most */
	int length;    /* positions that have been through a step */
	int capacity;  /* blocks a kept layer may need: tokens / KV_TILE, rounded up */
	int blocks;    /* blocks each kept layer holds; capacity - blocks more are promised */
	float **table; /* block t of the layer of rank r: table[r * workspace::table_stride + t] */
	bool open;
	struct sequence *next; /* workspace::unused */
};

/* Consecutive rows of one sequence within a step. */
struct run {
	struct sequence *sequence;
	int first, count; /* rows */
	int position;     /* of the first row */
};

struct workspace {
	const struct model *model;
	const struct ops *ops;
	struct team *team;
	int max_rows, max_logit_rows, max_sequences, max_runs;

	struct kv_pool kv;
	struct sequence *sequences; /* [max_sequences] */
	struct sequence *unused;    /* list */
	float **tables;             /* [max_sequences][layers][table_stride] */
	int table_stride;           /* blocks that the longest sequence needs for one layer */

	/* Scratch. Rows are 64 bytes longer than their content, so that they do not all fall into
	 * one cache set. */
	float *x; /* residual stream [max_rows][dim] */
	size_t ldx;
	struct block_scratch scratch;
	float *logits; /* [max_logit_rows][vocab] */
	size_t ld_logits;

	/* The step in progress, or the last one. */
	const struct row *rows; /* during step_run only */
	int n_rows;
	struct run *runs; /* [max_runs] */
	int n_runs;
	struct block_rows *layers;    /* [layers]: the rows that each layer runs on */
	int32_t *layer_maps;          /* [layers][max_rows]: storage of layers[].map */
	struct block_run *layer_runs; /* [layers][max_runs]: storage of layers[].runs */
	const int32_t *logit_rows;    /* during step_logits only */
	int n_logit_rows;
};

/* Facts of the stack that generates. */
static inline const struct stack_facts *workspace_stack(const struct workspace *w) {
	return &w->model->facts.stack[STACK_DECODER];
}

/* Makes the blocks of the next `count` positions of a sequence writable: takes promised blocks and
 * separates a shared one. */
void sequence_extend(struct workspace *w, struct sequence *s, int count);

#endif
