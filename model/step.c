/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The step: one walk over the layers for rows of any depth.
 *
 * Before the walk, serially: rows are cut into runs of one sequence, and every run gets its KV
 * blocks. Then the team runs side by side: it clears fresh blocks, embeds, lists for each layer the
 * rows whose plan keeps it, and goes over the layers once, skipping those that no row keeps.
 */
#include <assert.h>
#include <math.h>

#include "model/workspace.h"

static void cut_into_runs(struct workspace *w, const struct row *rows, int n) {
	w->n_runs = 0;
	for (int i = 0; i < n; i++) {
		const struct row *row = &rows[i];
		assert(row->stack == STACK_DECODER);
		assert(0 <= row->token && row->token < w->model->facts.vocab);
		struct run *run = w->n_runs ? &w->runs[w->n_runs - 1] : NULL;
		if (!run || run->sequence != row->sequence) {
			assert(w->n_runs < w->max_runs);
			assert(row->position == row->sequence->length);
			run = &w->runs[w->n_runs++];
			*run = (struct run){
				.sequence = row->sequence, .first = i, .position = row->position
			};
		}
		assert(row->position == run->position + run->count);
		run->count++;
	}
}

/* Lists the rows and runs whose plan keeps `layer`. */
static void list_rows(struct workspace *w, int layer) {
	int32_t *map = w->layer_maps + (size_t)layer * (size_t)w->max_rows;
	struct block_run *runs = w->layer_runs + (size_t)layer * (size_t)w->max_runs;
	struct block_rows *rows = &w->layers[layer];
	*rows = (struct block_rows){ .map = map, .runs = runs };
	for (int r = 0; r < w->n_runs; r++) {
		const struct run *run = &w->runs[r];
		const struct sequence *s = run->sequence;
		int rank = plan_rank(&s->subnet.stack[STACK_DECODER], layer);
		if (rank < 0)
			continue;
		runs[rows->n_runs++] = (struct block_run){
			.first = rows->n,
			.count = run->count,
			.position = run->position,
			.blocks = s->table + (size_t)rank * (size_t)w->table_stride,
		};
		for (int i = 0; i < run->count; i++)
			map[rows->n++] = run->first + i;
	}
}

/* x[row] = embedding[token] * scale + positions[position]. Each step is rounded on its own. */
static void embed_row(struct workspace *w, int row) {
	const struct stack_facts *facts = workspace_stack(w);
	const struct stack_weights *weights = &w->model->weights.stack[STACK_DECODER];
	float *x = w->x + (size_t)row * w->ldx;
	w->ops->unpack_row(&weights->embedding, w->rows[row].token, x);
	if (facts->embed_scale != 1.0f) {
		for (int k = 0; k < facts->dim; k++)
			x[k] = x[k] * facts->embed_scale;
	}
	if (weights->positions) {
		const float *position = weights->positions
		                + (size_t)(facts->position_offset + w->rows[row].position)
		                                * (size_t)facts->dim;
		for (int k = 0; k < facts->dim; k++)
			x[k] = x[k] + position[k];
	}
}

static void embed(struct workspace *w, int member) {
	const struct stack_facts *facts = workspace_stack(w);
	const struct norm_weights *norm = &w->model->weights.stack[STACK_DECODER].embedding_norm;
	int first, end;
	team_share(w->n_rows, member, team_size(w->team), &first, &end);
	for (int i = first; i < end; i++)
		embed_row(w, i);
	if (!facts->embedding_norm)
		return;
	w->ops->norm(&(struct norm){ .x = w->x,
	                             .ldx = w->ldx,
	                             .gain = norm->gain,
	                             .bias = norm->bias,
	                             .eps = facts->norm_eps,
	                             .dim = facts->dim,
	                             .out = w->x,
	                             .ldo = w->ldx },
	                first, end);
}

static void walk(void *arg, int member) {
	struct workspace *w = arg;
	const struct stack_facts *facts = workspace_stack(w);
	int members = team_size(w->team);

	kv_settle(&w->kv, member, members);
	for (int l = member; l < facts->layers; l += members)
		list_rows(w, l);
	embed(w, member);
	team_barrier(w->team, member);

	struct block block = {
		.ops = w->ops,
		.team = w->team,
		.facts = facts,
		.scratch = &w->scratch,
		.x = w->x,
		.ldx = w->ldx,
		.attend_scale = (float)(1.0 / sqrt((double)facts->head_dim)),
	};
	for (int l = 0; l < facts->layers; l++) {
		if (w->layers[l].n == 0)
			continue;
		block.weights = &w->model->weights.stack[STACK_DECODER].layers[l];
		block.rows = &w->layers[l];
		block_apply(&block, member);
	}
}

void step_run(struct workspace *w, const struct row *rows, int n) {
	assert(1 <= n && n <= w->max_rows);
	cut_into_runs(w, rows, n);
	for (int r = 0; r < w->n_runs; r++) {
		const struct run *run = &w->runs[r];
		assert(run->position
		                == run->sequence->length); /* one run of a sequence in a step */
		sequence_extend(w, run->sequence, run->count);
		run->sequence->length += run->count;
	}
	w->rows = rows;
	w->n_rows = n;
	team_run(w->team, walk, w);
	w->rows = NULL;
	kv_forget(&w->kv);
}
