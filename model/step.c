/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The step: one walk over the layers for rows of any depth.
 *
 * Before the walk, serially: rows are cut into runs of one sequence and stack, and every run gets
 * its KV blocks. Then the team runs side by side: it clears fresh blocks, embeds, lists for each
 * layer the rows whose plan keeps it, and goes over the layers once, skipping those that no row
 * keeps: first the encoder's, then the decoder's. A decoder layer first makes the keys and values of
 * the sources that came through the encoder in this step.
 */
#include <assert.h>
#include <math.h>

#include "model/workspace.h"

static int vocab_of(const struct workspace *w, enum stack stack) {
	const struct facts *facts = &w->model->facts;
	return stack == STACK_ENCODER ? facts->stack[STACK_ENCODER].vocab : facts->vocab;
}

static void check_row(const struct workspace *w, const struct row *row) {
	const struct stack_facts *facts = stack_facts(w, row->stack);
	assert(facts->layers > 0);
	assert(0 <= row->token && row->token < vocab_of(w, row->stack));
	assert(facts->token_types == 0 || (0 <= row->type && row->type < facts->token_types));
	if (row->at)
		assert(row->stack == STACK_DECODER
		                && plan_contains(&row->sequence->subnet.stack[STACK_DECODER],
		                                &row->at->stack[STACK_DECODER]));
	(void)facts;
}

static void cut_into_runs(struct workspace *w, const struct row *rows, int n) {
	w->n_runs = 0;
	for (int s = 0; s < STACKS; s++)
		w->n_stack_rows[s] = 0;
	for (int i = 0; i < n; i++) {
		const struct row *row = &rows[i];
		check_row(w, row);
		struct run *run = w->n_runs ? &w->runs[w->n_runs - 1] : NULL;
		if (!run || run->sequence != row->sequence || run->stack != row->stack) {
			assert(w->n_runs < w->max_runs);
			assert(row->stack == STACK_ENCODER
			                || row->position == row->sequence->length);
			run = &w->runs[w->n_runs++];
			*run = (struct run){ .sequence = row->sequence,
				.stack = row->stack,
				.first = i,
				.position = row->position,
				.at = row->at ? row->at : &row->sequence->subnet };
		}
		assert(run->at == (row->at ? row->at : &row->sequence->subnet));
		assert(row->position == run->position + run->count);
		run->count++;
		w->row_stacks[i] = (uint8_t)row->stack;
		w->stack_rows[row->stack][w->n_stack_rows[row->stack]++] = i;
	}
}

/* Sources enter whole. Each takes tiles of its own for the keys of the layer in progress. */
static void begin_sources(struct workspace *w) {
	int tiles = 0;
	for (int r = 0; r < w->n_runs; r++) {
		struct run *run = &w->runs[r];
		if (run->stack != STACK_ENCODER)
			continue;
		assert(run->position == 0 && run->count == run->sequence->source_tokens);
		run->tiles = w->source_tiles + tiles;
		tiles += kv_tiles(run->count);
		assert(tiles <= w->n_source_tiles);
		sequence_begin_source(w, run->sequence);
	}
}

static void extend_sequences(struct workspace *w) {
	for (int r = 0; r < w->n_runs; r++) {
		const struct run *run = &w->runs[r];
		if (run->stack != STACK_DECODER)
			continue;
		/* One run of a sequence in a step; its source has come before, or comes now. */
		assert(run->position == run->sequence->length);
		assert(run->sequence->source_done || !stack_facts(w, STACK_DECODER)->cross);
		sequence_extend(w, run->sequence, run->count);
		run->sequence->length += run->count;
	}
}

/* The run of a layer of a walk that has this rank in the plan of the run's sequence. Its cache goes
 * by that plan, whatever the rows run at. */
static struct block_run layer_run(
                const struct workspace *w, enum walk walk, const struct run *run, int rank) {
	const struct sequence *s = run->sequence;
	struct block_run layer = { .count = run->count, .position = run->position };
	layer.format = walk == WALK_ENCODER ? KV_F32 : w->kv_format;
	void *const *source = s->source_table + (size_t)rank * (size_t)w->source_stride;
	switch (walk) {
	case WALK_ENCODER:
		layer.keys = run->count;
		layer.blocks = run->tiles;
		break;
	case WALK_DECODER:
		layer.blocks = s->table + (size_t)rank * (size_t)w->table_stride;
		layer.source = source;
		layer.source_keys = s->source_tokens;
		break;
	default:
		layer.blocks = source;
	}
	return layer;
}

/* Lists the rows and runs whose plan keeps `layer`. */
static void list_rows(struct workspace *w, enum walk walk, int layer) {
	enum stack stack = walk == WALK_DECODER ? STACK_DECODER : STACK_ENCODER;
	enum stack kept_by = walk == WALK_ENCODER ? STACK_ENCODER : STACK_DECODER;
	struct walk_rows *lists = &w->walks[walk];
	int32_t *map = lists->maps + (size_t)layer * (size_t)w->max_rows;
	struct block_run *runs = lists->runs + (size_t)layer * (size_t)w->max_runs;
	struct block_rows *rows = &lists->layers[layer];
	*rows = (struct block_rows){ .map = map, .runs = runs };
	for (int r = 0; r < w->n_runs; r++) {
		const struct run *run = &w->runs[r];
		if (run->stack != stack)
			continue;
		if (plan_rank(&run->at->stack[kept_by], layer) < 0)
			continue;
		int rank = plan_rank(&run->sequence->subnet.stack[kept_by], layer);
		struct block_run *to = &runs[rows->n_runs++];
		*to = layer_run(w, walk, run, rank);
		to->first = rows->n;
		for (int i = 0; i < run->count; i++)
			map[rows->n++] = run->first + i;
	}
}

static struct block block_of(struct workspace *w, enum stack stack) {
	const struct stack_facts *facts = stack_facts(w, stack);
	return (struct block){
		.ops = w->ops,
		.team = w->team,
		.facts = facts,
		.scratch = &w->scratch,
		.x = w->x,
		.ldx = w->ldx,
		.attend_scale = (float)(1.0 / sqrt((double)facts->head_dim)),
	};
}

static void walk_encoder(struct workspace *w, int member) {
	const struct stack_facts *facts = stack_facts(w, STACK_ENCODER);
	const struct stack_weights *weights = &w->model->weights.stack[STACK_ENCODER];
	struct block block = block_of(w, STACK_ENCODER);
	for (int l = 0; l < facts->layers; l++) {
		block.weights = &weights->layers[l];
		block.rows = &w->walks[WALK_ENCODER].layers[l];
		if (block.rows->n > 0)
			block_apply(&block, member);
	}
	if (!facts->final_norm)
		return;
	stack_norm(w, STACK_ENCODER, &weights->final_norm, member);
	team_barrier(w->team, member);
}

static void walk_decoder(struct workspace *w, int member) {
	const struct stack_facts *facts = stack_facts(w, STACK_DECODER);
	int source_dim = stack_facts(w, STACK_ENCODER)->dim;
	struct block block = block_of(w, STACK_DECODER);
	for (int l = 0; l < facts->layers; l++) {
		block.weights = &w->model->weights.stack[STACK_DECODER].layers[l];
		block.rows = &w->walks[WALK_SOURCE].layers[l];
		if (facts->cross && block.rows->n > 0)
			block_source(&block, source_dim, member);
		block.rows = &w->walks[WALK_DECODER].layers[l];
		if (block.rows->n > 0)
			block_apply(&block, member);
	}
}

static void walk(void *arg, int member) {
	struct workspace *w = arg;
	int members = team_size(w->team);
	kv_settle(&w->kv, member, members);
	for (int walk = 0; walk < WALKS; walk++)
		for (int l = member; l < w->walks[walk].n_layers; l += members)
			list_rows(w, (enum walk)walk, l);
	embed(w, member);
	if (w->n_stack_rows[STACK_ENCODER] > 0)
		walk_encoder(w, member);
	walk_decoder(w, member);
}

void step_run(struct workspace *w, const struct row *rows, int n) {
	assert(1 <= n && n <= w->max_rows);
	w->rows = rows;
	w->n_rows = n;
	cut_into_runs(w, rows, n);
	begin_sources(w);
	extend_sequences(w);
	embed_prepare(w);
	team_run(w->team, walk, w);
	w->rows = NULL;
	kv_forget(&w->kv);
}

const float *step_hidden(const struct workspace *w, int row) {
	assert(0 <= row && row < w->n_rows && w->row_stacks[row] == STACK_ENCODER);
	return w->x + (size_t)row * w->ldx;
}
