/* SPDX-License-Identifier: Apache-2.0 */
/* The workspace: all memory that running needs, allocated once. */
#include "model/workspace.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { ALIGNMENT = 64 };

/* Floats from one row to the next: whole cache lines, and one more. */
static size_t row_stride(int columns) {
	size_t line = ALIGNMENT / sizeof(float);
	return ((size_t)columns + line - 1) / line * line + line;
}

/* rows x stride floats, 64-byte aligned; NULL if they are not to be had. Not cleared, so that rows
 * which are never used cost no memory. */
static float *rows_of(size_t rows, size_t stride) {
	size_t count, bytes;
	if (__builtin_mul_overflow(rows, stride, &count)
	                || __builtin_mul_overflow(count, sizeof(float), &bytes))
		return NULL;
	bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	return aligned_alloc(ALIGNMENT, bytes ? bytes : ALIGNMENT);
}

static bool scratch_init(struct workspace *w) {
	const struct stack_facts *facts = workspace_stack(w);
	struct block_scratch *s = &w->scratch;
	size_t rows = (size_t)w->max_rows;
	int members = team_size(w->team);

	w->ldx = row_stride(facts->dim);
	s->ld_packed = row_stride(facts->dim);
	s->ld_qkv = row_stride(3 * facts->dim);
	s->ld_ffn = row_stride(facts->ffn);
	w->ld_logits = row_stride(w->model->facts.vocab);
	s->attend_stride = row_stride((int)w->ops->attend_scratch(facts->head_dim));

	w->x = rows_of(rows, w->ldx);
	/* step_logits gathers up to max_logit_rows rows into `packed`. */
	size_t packed_rows = rows;
	if (w->max_logit_rows > w->max_rows)
		packed_rows = (size_t)w->max_logit_rows;
	s->packed = rows_of(packed_rows, s->ld_packed);
	s->qkv = rows_of(rows, s->ld_qkv);
	s->ffn = rows_of(rows, s->ld_ffn);
	s->attend = rows_of((size_t)members, s->attend_stride);
	w->logits = rows_of((size_t)w->max_logit_rows, w->ld_logits);
	return w->x && s->packed && s->qkv && s->ffn && s->attend && w->logits;
}

static bool step_init(struct workspace *w) {
	size_t layers = (size_t)workspace_stack(w)->layers, rows = (size_t)w->max_rows;
	w->max_runs = w->max_rows < w->max_sequences ? w->max_rows : w->max_sequences;
	size_t runs = (size_t)w->max_runs;
	w->runs = calloc(runs, sizeof *w->runs);
	w->layers = calloc(layers, sizeof *w->layers);
	w->layer_maps = calloc(layers * rows, sizeof *w->layer_maps);
	w->layer_runs = calloc(layers * runs, sizeof *w->layer_runs);
	return w->runs && w->layers && w->layer_maps && w->layer_runs;
}

static bool sequences_init(struct workspace *w) {
	size_t n = (size_t)w->max_sequences, layers = (size_t)workspace_stack(w)->layers;
	w->table_stride = (w->model->facts.context + KV_TILE - 1) / KV_TILE;
	w->sequences = calloc(n, sizeof *w->sequences);
	w->tables = calloc(n * layers, (size_t)w->table_stride * sizeof *w->tables);
	if (!w->sequences || !w->tables)
		return false;
	for (size_t i = n; i-- > 0;) {
		struct sequence *s = &w->sequences[i];
		s->table = w->tables + i * layers * (size_t)w->table_stride;
		s->next = w->unused;
		w->unused = s;
	}
	return true;
}

struct workspace *workspace_create(const struct model *model,
                const struct workspace_options *options, char *err, size_t errlen) {
	assert(options->team && options->max_rows >= 1 && options->max_logit_rows >= 1
	                && options->max_sequences >= 1);
	struct workspace *w = calloc(1, sizeof *w);
	if (!w) {
		snprintf(err, errlen, "not enough memory for a workspace");
		return NULL;
	}
	w->model = model;
	w->ops = model->ops;
	w->team = options->team;
	w->max_rows = options->max_rows;
	w->max_logit_rows = options->max_logit_rows;
	w->max_sequences = options->max_sequences;

	const struct stack_facts *facts = workspace_stack(w);
	if (!kv_init(&w->kv, facts->heads, facts->head_dim, options->kv_bytes, err, errlen)) {
		workspace_destroy(w);
		return NULL;
	}
	if (!scratch_init(w) || !step_init(w) || !sequences_init(w)) {
		snprintf(err, errlen,
		                "not enough memory for a workspace of %d rows, %d rows of logits "
		                "and "
		                "%d sequences",
		                w->max_rows, w->max_logit_rows, w->max_sequences);
		workspace_destroy(w);
		return NULL;
	}
	return w;
}

void workspace_destroy(struct workspace *w) {
	if (!w)
		return;
	kv_finish(&w->kv);
	free(w->x);
	free(w->scratch.packed);
	free(w->scratch.qkv);
	free(w->scratch.ffn);
	free(w->scratch.attend);
	free(w->logits);
	free(w->runs);
	free(w->layers);
	free(w->layer_maps);
	free(w->layer_runs);
	free(w->sequences);
	free(w->tables);
	free(w);
}

size_t workspace_blocks_needed(const struct workspace *w, const struct subnet *subnet, int tokens) {
	return (size_t)subnet->stack[STACK_DECODER].depth
	                * (((size_t)tokens + KV_TILE - 1) / KV_TILE);
}

size_t workspace_blocks_total(const struct workspace *w) {
	return w->kv.total;
}

size_t workspace_blocks_reserved(const struct workspace *w) {
	return kv_used(&w->kv) + w->kv.promised;
}

size_t workspace_blocks_used(const struct workspace *w) {
	return kv_used(&w->kv);
}

size_t workspace_block_bytes(const struct workspace *w) {
	return w->kv.block_floats * sizeof(float);
}
