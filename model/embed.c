/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Embedding: x[row] = embedding[token] * scale + type + position, then a norm in some models. Each
 * step is rounded on its own.
 *
 * An adaptive embedding looks a token up in the table of its band and projects what it finds: the
 * rows of a step are sorted by band, so that a band's projection is read once.
 */
#include <assert.h>

#include "model/workspace.h"

static int band_of(const struct band_facts *bands, int32_t token) {
	int band = 0;
	while (token >= bands->end[band])
		band++;
	return band;
}

void embed_prepare(struct workspace *w) {
	const struct band_facts *bands = &w->model->facts.input;
	const int32_t *rows = w->stack_rows[STACK_DECODER];
	int n = 0;
	for (int band = 0; band < bands->n; band++) {
		w->band_first[band] = n;
		for (int i = 0; i < w->n_stack_rows[STACK_DECODER]; i++)
			if (band_of(bands, w->rows[rows[i]].token) == band)
				w->band_rows[n++] = rows[i];
	}
	w->band_first[bands->n] = n;
}

/* x[row] = project(table[token]) for all decoder rows. */
static void look_up_bands(struct workspace *w, int member) {
	const struct band_facts *facts = &w->model->facts.input;
	const struct band_weights *bands = w->model->weights.stack[STACK_DECODER].bands;
	const struct block_scratch *s = &w->scratch;
	int first, end;
	team_share(w->n_stack_rows[STACK_DECODER], member, team_size(w->team), &first, &end);
	for (int i = first; i < end; i++) {
		int32_t token = w->rows[w->band_rows[i]].token;
		int band = band_of(facts, token);
		int start = band ? facts->end[band - 1] : 0;
		const struct matrix *table = &bands[band].table;
		w->ops->formats[table->format].unpack_row(
		                table, token - start, s->gathered + (size_t)i * s->ld_gathered);
	}
	team_barrier(w->team, member);
	bool used = false;
	for (int band = 0; band < facts->n; band++) {
		int from = w->band_first[band], rows = w->band_first[band + 1] - from;
		if (rows == 0)
			continue;
		/* The bands share the scratch of made inputs. */
		if (used)
			team_barrier(w->team, member);
		product_apply(&(struct product){ .ops = w->ops,
		                              .team = w->team,
		                              .inputs = &s->inputs,
		                              .weights = &bands[band].project,
		                              .x = s->gathered + (size_t)from * s->ld_gathered,
		                              .ldx = s->ld_gathered,
		                              .y = w->x,
		                              .ldy = w->ldx,
		                              .y_rows = w->band_rows + from,
		                              .rows = rows },
		                member);
		used = true;
	}
	team_barrier(w->team, member);
}

static void add(float *x, const float *value, int dim) {
	for (int k = 0; k < dim; k++)
		x[k] = x[k] + value[k];
}

static void embed_row(struct workspace *w, enum stack stack, int index) {
	const struct stack_facts *facts = stack_facts(w, stack);
	const struct stack_weights *weights = &w->model->weights.stack[stack];
	const struct row *row = &w->rows[index];
	size_t dim = (size_t)facts->dim;
	float *x = w->x + (size_t)index * w->ldx;
	const struct matrix *table = &weights->embedding;
	if (!weights->bands)
		w->ops->formats[table->format].unpack_row(table, row->token, x);
	if (facts->embed_scale != 1.0f) {
		for (size_t k = 0; k < dim; k++)
			x[k] = x[k] * facts->embed_scale;
	}
	if (weights->types)
		add(x, weights->types + (size_t)row->type * dim, facts->dim);
	if (weights->positions) {
		size_t position = (size_t)(facts->position_offset + row->position);
		add(x, weights->positions + position * dim, facts->dim);
	}
}

void stack_norm(struct workspace *w, enum stack stack, const struct norm_weights *norm,
                int member) {
	const struct stack_facts *facts = stack_facts(w, stack);
	const int32_t *rows = w->stack_rows[stack];
	int first, end;
	team_share(w->n_stack_rows[stack], member, team_size(w->team), &first, &end);
	w->ops->norm(&(struct norm){ .x = w->x,
	                             .ldx = w->ldx,
	                             .x_rows = rows,
	                             .gain = norm->gain,
	                             .bias = norm->bias,
	                             .eps = facts->norm_eps,
	                             .dim = facts->dim,
	                             .out = w->x,
	                             .ldo = w->ldx,
	                             .out_rows = rows },
	                first, end);
}

static void embed_stack(struct workspace *w, enum stack stack, int member) {
	int first, end;
	team_share(w->n_stack_rows[stack], member, team_size(w->team), &first, &end);
	for (int i = first; i < end; i++)
		embed_row(w, stack, w->stack_rows[stack][i]);
	/* A member norms the rows that it embedded: no barrier between. */
	if (stack_facts(w, stack)->embedding_norm)
		stack_norm(w, stack, &w->model->weights.stack[stack].embedding_norm, member);
}

void embed(struct workspace *w, int member) {
	if (w->model->weights.stack[STACK_DECODER].bands)
		look_up_bands(w, member);
	for (int s = 0; s < STACKS; s++)
		embed_stack(w, (enum stack)s, member);
	team_barrier(w->team, member);
}
