/* SPDX-License-Identifier: Apache-2.0 */
/* The workspace: all memory that running needs, allocated once. */
#include "model/workspace.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/head.h"

enum { ALIGNMENT = 64 };

size_t workspace_row_stride(int columns) {
	size_t line = ALIGNMENT / sizeof(float);
	return ((size_t)columns + line - 1) / line * line + line;
}

float *workspace_rows(size_t rows, size_t stride) {
	size_t count, bytes;
	if (__builtin_mul_overflow(rows, stride, &count)
	                || __builtin_mul_overflow(count, sizeof(float), &bytes))
		return NULL;
	bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	return aligned_alloc(ALIGNMENT, bytes ? bytes : ALIGNMENT);
}

static int larger(int a, int b) {
	return a > b ? a : b;
}

static int smaller(int a, int b) {
	return a < b ? a : b;
}

/* Columns of the scratch rows: every stack and every head fits. */
struct widths {
	int dim, qkv, ffn, attend, classes;
};

static struct widths widths_of(const struct workspace *w) {
	const struct facts *facts = &w->model->facts;
	struct widths max = { 0 };
	for (int s = 0; s < STACKS; s++) {
		const struct stack_facts *stack = &facts->stack[s];
		if (stack->layers == 0)
			continue;
		max.dim = larger(max.dim, stack->dim);
		max.qkv = larger(max.qkv, 3 * stack->dim);
		max.ffn = larger(max.ffn, stack->ffn);
		max.attend = larger(max.attend, (int)w->ops->attend_scratch(stack->head_dim));
	}
	for (int b = 0; b < facts->input.n; b++)
		max.dim = larger(max.dim, facts->input.dim[b]);
	for (int b = 0; b < facts->output.n; b++)
		max.dim = larger(max.dim, facts->output.dim[b]);
	for (int c = 0; c < facts->n_classifiers; c++)
		max.classes = larger(max.classes, facts->classifiers[c].classes);
	return max;
}

/* Most bytes that the inputs of a product take in any format (format_ops::input). */
static size_t input_stride(const struct ops *ops, int n_in) {
	size_t most = 0;
	for (int f = 0; f < WEIGHT_FORMATS; f++) {
		const struct format_ops *format = &ops->formats[f];
		size_t bytes = format->input ? format->input_bytes(n_in) : 0;
		most = bytes > most ? bytes : most;
	}
	return most ? most + ALIGNMENT : 0; /* not all rows in one cache set */
}

static bool scratch_init(struct workspace *w) {
	const struct facts *facts = &w->model->facts;
	struct widths width = widths_of(w);
	struct block_scratch *s = &w->scratch;
	size_t rows = (size_t)w->max_rows, logit_rows = (size_t)w->max_logit_rows;
	int members = team_size(w->team);

	w->ldx = workspace_row_stride(width.dim);
	s->ld_gathered = workspace_row_stride(width.dim);
	s->ld_qkv = workspace_row_stride(width.qkv);
	s->ld_ffn = workspace_row_stride(width.ffn);
	s->inputs.stride = input_stride(w->ops, larger(width.dim, width.ffn));
	s->attend_stride = workspace_row_stride(width.attend);
	w->ld_logits = workspace_row_stride(facts->vocab);
	w->ld_head = workspace_row_stride(width.dim);
	w->ld_classes = workspace_row_stride(width.classes);

	w->x = workspace_rows(rows, w->ldx);
	/* Heads gather up to max_logit_rows rows into `gathered`. */
	s->gathered = workspace_rows(rows > logit_rows ? rows : logit_rows, s->ld_gathered);
	s->qkv = workspace_rows(rows, s->ld_qkv);
	s->ffn = workspace_rows(rows, s->ld_ffn);
	s->inputs.rows = workspace_rows(
	                rows > logit_rows ? rows : logit_rows, s->inputs.stride / sizeof(float));
	s->attend = workspace_rows((size_t)members, s->attend_stride);
	w->logits = workspace_rows(has_scores(facts) ? logit_rows : 0, w->ld_logits);
	w->head = workspace_rows(logit_rows, w->ld_head);
	w->classes = workspace_rows(logit_rows, w->ld_classes);
	size_t dim = (size_t)stack_facts(w, STACK_DECODER)->dim;
	w->zeros = workspace_rows(1, workspace_row_stride((int)dim));
	if (w->zeros)
		memset(w->zeros, 0, dim * sizeof *w->zeros);
	return w->x && s->gathered && s->qkv && s->ffn && s->inputs.rows && s->attend && w->logits
	                && w->head && w->classes && w->zeros;
}

/*
 * Tiles for the sources of one step: enough for the longest text, and for a step full of texts of 8
 * tokens or more. Tiles that are never used cost no memory.
 */
static bool tiles_init(struct workspace *w) {
	const struct stack_facts *facts = stack_facts(w, STACK_ENCODER);
	if (facts->layers == 0)
		return true;
	int longest = kv_tiles(smaller(facts->context, w->max_rows));
	w->n_source_tiles = larger(longest, (w->max_rows + 7) / 8);
	size_t n = (size_t)w->n_source_tiles, tile = 2 * KV_TILE * (size_t)facts->dim;
	w->source_kv = workspace_rows(n, tile);
	w->source_tiles = calloc(n, sizeof *w->source_tiles);
	if (!w->source_kv || !w->source_tiles)
		return false;
	for (size_t t = 0; t < n; t++)
		w->source_tiles[t] = w->source_kv + t * tile;
	return true;
}

static bool walk_init(struct workspace *w, enum walk walk, int layers) {
	size_t n = (size_t)layers;
	struct walk_rows *lists = &w->walks[walk];
	lists->n_layers = layers;
	lists->layers = calloc(n + 1, sizeof *lists->layers);
	lists->maps = calloc(n + 1, (size_t)w->max_rows * sizeof *lists->maps);
	lists->runs = calloc(n + 1, (size_t)w->max_runs * sizeof *lists->runs);
	return lists->layers && lists->maps && lists->runs;
}

static bool step_init(struct workspace *w) {
	int encoder = stack_facts(w, STACK_ENCODER)->layers;
	int decoder = stack_facts(w, STACK_DECODER)->layers;
	size_t rows = (size_t)w->max_rows;
	w->max_runs = smaller(w->max_rows, w->max_sequences * (encoder && decoder ? 2 : 1));
	w->runs = calloc((size_t)w->max_runs, sizeof *w->runs);
	w->row_stacks = calloc(rows, sizeof *w->row_stacks);
	w->band_rows = calloc(rows, sizeof *w->band_rows);
	for (int s = 0; s < STACKS; s++) {
		w->stack_rows[s] = calloc(rows, sizeof *w->stack_rows[s]);
		if (!w->stack_rows[s])
			return false;
	}
	bool cross = stack_facts(w, STACK_DECODER)->cross;
	return w->runs && w->row_stacks && w->band_rows && walk_init(w, WALK_ENCODER, encoder)
	                && walk_init(w, WALK_DECODER, decoder)
	                && walk_init(w, WALK_SOURCE, cross ? decoder : 0);
}

static bool sequences_init(struct workspace *w) {
	const struct facts *facts = &w->model->facts;
	size_t n = (size_t)w->max_sequences, layers = (size_t)facts->stack[STACK_DECODER].layers;
	w->table_stride = layers ? kv_tiles(facts->context) : 0;
	if (layers && facts->stack[STACK_DECODER].cross)
		w->source_stride = kv_tiles(facts->stack[STACK_ENCODER].context);
	w->sequences = calloc(n, sizeof *w->sequences);
	/* One more, so that nothing is also a size. */
	w->tables = calloc(n * layers * (size_t)w->table_stride + 1, sizeof *w->tables);
	w->source_tables =
	                calloc(n * layers * (size_t)w->source_stride + 1, sizeof *w->source_tables);
	if (!w->sequences || !w->tables || !w->source_tables)
		return false;
	for (size_t i = n; i-- > 0;) {
		struct sequence *s = &w->sequences[i];
		s->table = w->tables + i * layers * (size_t)w->table_stride;
		s->source_table = w->source_tables + i * layers * (size_t)w->source_stride;
		s->next = w->unused;
		w->unused = s;
	}
	return true;
}

/* A source's keys and values are not a matter of tokens alone: no prefix is shared behind one. */
static bool prefix_init(struct workspace *w, int percent) {
	const struct stack_facts *facts = stack_facts(w, STACK_DECODER);
	size_t most_blocks = w->kv.total / 100 * (size_t)percent
	                + w->kv.total % 100 * (size_t)percent / 100;
	if (most_blocks == 0 || facts->layers == 0 || facts->cross)
		return true;
	w->prefix = prefix_create(&w->kv, most_blocks);
	return w->prefix;
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
	w->kv_format = model_kv_format(model, options->kv);

	const struct stack_facts *facts = stack_facts(w, STACK_DECODER);
	if (facts->layers > 0
	                && !kv_init(&w->kv,
	                                kv_block_bytes(w->kv_format, facts->heads, facts->head_dim),
	                                options->kv_bytes, err, errlen)) {
		workspace_destroy(w);
		return NULL;
	}
	if (!prefix_init(w, options->prefix_percent) || !scratch_init(w) || !tiles_init(w)
	                || !adaptive_init(w) || !step_init(w) || !sequences_init(w)) {
		snprintf(err, errlen,
		                "not enough memory for a workspace of %d rows, %d rows of logits "
		                "and %d sequences",
		                w->max_rows, w->max_logit_rows, w->max_sequences);
		workspace_destroy(w);
		return NULL;
	}
	return w;
}

void workspace_destroy(struct workspace *w) {
	if (!w)
		return;
	prefix_destroy(w->prefix);
	kv_finish(&w->kv);
	free(w->x);
	free(w->scratch.gathered);
	free(w->scratch.qkv);
	free(w->scratch.ffn);
	free(w->scratch.inputs.rows);
	free(w->scratch.attend);
	free(w->logits);
	adaptive_finish(w);
	free(w->head);
	free(w->classes);
	free(w->zeros);
	free(w->source_kv);
	free(w->source_tiles);
	free(w->runs);
	free(w->row_stacks);
	free(w->band_rows);
	for (int s = 0; s < STACKS; s++)
		free(w->stack_rows[s]);
	for (int walk = 0; walk < WALKS; walk++) {
		free(w->walks[walk].layers);
		free(w->walks[walk].maps);
		free(w->walks[walk].runs);
	}
	free(w->sequences);
	free(w->tables);
	free(w->source_tables);
	free(w);
}

size_t workspace_blocks_needed(const struct workspace *w, const struct subnet *subnet, int tokens) {
	(void)w;
	return (size_t)subnet->stack[STACK_DECODER].depth * (size_t)kv_tiles(tokens);
}

size_t workspace_source_blocks(
                const struct workspace *w, const struct subnet *subnet, int source_tokens) {
	(void)w;
	return (size_t)subnet->stack[STACK_DECODER].depth * (size_t)kv_tiles(source_tokens);
}

int workspace_source_tiles(const struct workspace *w) {
	return w->n_source_tiles;
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

size_t workspace_scratch_bytes(const struct workspace *w) {
	const struct block_scratch *s = &w->scratch;
	const struct facts *facts = &w->model->facts;
	size_t rows = (size_t)w->max_rows, logit_rows = (size_t)w->max_logit_rows;
	size_t most = rows > logit_rows ? rows : logit_rows;
	size_t tile = 2 * KV_TILE * (size_t)facts->stack[STACK_ENCODER].dim;
	size_t floats = rows * (w->ldx + s->ld_qkv + s->ld_ffn)
	                + most * (s->ld_gathered + s->inputs.stride / sizeof(float))
	                + (size_t)team_size(w->team) * s->attend_stride
	                + logit_rows
	                                * ((has_scores(facts) ? w->ld_logits : 0) + w->ld_head
	                                                + w->ld_classes)
	                + (size_t)w->n_source_tiles * tile;
	return floats * sizeof(float);
}

size_t workspace_block_bytes(const struct workspace *w) {
	return w->kv.block_bytes;
}

struct prefix *workspace_prefix(const struct workspace *w) {
	return w->prefix;
}
