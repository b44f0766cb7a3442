/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adaptive softmax (Grave et al. 2017, as fairseq does it): the head is a softmax over the frequent
 * words and one class for each further band; a word of a band has the band's own softmax times the
 * probability of its class. Scores are log-probabilities.
 *
 * A word is never more probable than its class. So a band is computed only for rows where somebody
 * wants all scores, or a word of the band, or where the class is at least as probable as the last of
 * the best words found so far; elsewhere its scores are minus infinity. Bands are looked at in their
 * order, so which of them a row computes depends on the row alone, and each band's weights are read
 * at most once.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/head.h"
#include "model/mathf.h"

/* Columns that are made into log-probabilities: a band of the vocabulary, for some rows. */
struct columns {
	int band;          /* 0: the head, whose last block are the classes */
	int first, n;      /* columns of the logits */
	int blocks;        /* of the softmax */
	int rows;          /* how many */
	const int32_t *at; /* [rows] which */
};

static int tails(const struct workspace *w) {
	return w->model->facts.output.n - 1;
}

static float *class_scores(const struct workspace *w, int row) {
	return w->adaptive.classes + (size_t)row * (MAX_BANDS - 1);
}

static struct columns columns_of(const struct workspace *w, int band, int rows) {
	const struct band_facts *bands = &w->model->facts.output;
	int first = band ? bands->end[band - 1] : 0, n = bands->end[band] - first;
	return (struct columns){
		.band = band,
		.first = first,
		.n = n,
		.blocks = softmax_blocks(n) + (band == 0),
		.rows = rows,
		.at = w->adaptive.rows,
	};
}

/* The columns of one block of one row. */
static float *block_at(const struct workspace *w, const struct columns *c, int row, int block,
                int *ret_n) {
	if (c->band == 0 && block == c->blocks - 1) {
		*ret_n = tails(w);
		return class_scores(w, row);
	}
	int left = c->n - block * SOFTMAX_COLUMNS;
	*ret_n = left < SOFTMAX_COLUMNS ? left : SOFTMAX_COLUMNS;
	return w->logits + (size_t)row * w->ld_logits + c->first + block * SOFTMAX_COLUMNS;
}

/* Scores to log-probabilities; those of a tail include its class. Ends with a barrier. */
static void normalise(struct workspace *w, const struct columns *c, int member) {
	struct adaptive_scratch *a = &w->adaptive;
	int members = team_size(w->team), first, end, n;
	team_share(c->rows * c->blocks, member, members, &first, &end);
	for (int i = first; i < end; i++) {
		int row = c->at[i / c->blocks], block = i % c->blocks;
		const float *x = block_at(w, c, row, block, &n);
		a->blocks[row * a->n_blocks + block] = softmax_block(w->ops, x, n, 0);
	}
	team_barrier(w->team, member);
	int first_row, end_row;
	team_share(c->rows, member, members, &first_row, &end_row);
	for (int i = first_row; i < end_row; i++) {
		int row = c->at[i];
		struct softmax_sum sum = softmax_join(a->blocks + row * a->n_blocks, c->blocks);
		a->sums[row] = (struct softmax_sum){ .max = sum.max, .sum = mathf_log(sum.sum) };
	}
	team_barrier(w->team, member);
	for (int i = first; i < end; i++) {
		int row = c->at[i / c->blocks];
		float *x = block_at(w, c, row, i % c->blocks, &n);
		float max = a->sums[row].max, log_sum = a->sums[row].sum;
		float class = c->band ? class_scores(w, row)[c->band - 1] : 0;
		for (int k = 0; k < n; k++)
			x[k] = x[k] - max - log_sum;
		for (int k = 0; c->band && k < n; k++)
			x[k] = x[k] + class;
	}
	team_barrier(w->team, member);
}

static bool wants_all(const struct workspace *w, int row) {
	return !w->needs || w->needs[row].top < 0 || w->needs[row].top > TOP_MOST;
}

/* Takes the scores of a band into the best of the rows. */
static void find_best(struct workspace *w, const struct columns *c, int member) {
	struct adaptive_scratch *a = &w->adaptive;
	int first, end;
	team_share(c->rows, member, team_size(w->team), &first, &end);
	for (int i = first; i < end; i++) {
		int row = c->at[i], top = wants_all(w, row) ? 0 : w->needs[row].top;
		const float *x = w->logits + (size_t)row * w->ld_logits + c->first;
		float *best = a->best + (size_t)row * TOP_MOST;
		for (int k = 0; top > 0 && k < c->n; k++) {
			if (!(x[k] > best[top - 1]))
				continue;
			int at = top - 1;
			for (; at > 0 && x[k] > best[at - 1]; at--)
				best[at] = best[at - 1];
			best[at] = x[k];
		}
	}
	team_barrier(w->team, member);
}

/* Whether a row needs the scores of a band beyond the head. */
static bool needs_band(const struct workspace *w, int row, const struct columns *c) {
	if (wants_all(w, row))
		return true;
	const struct logit_need *need = &w->needs[row];
	if (c->first <= need->target && need->target < c->first + c->n)
		return true;
	const float *best = w->adaptive.best + (size_t)row * TOP_MOST;
	return need->top > 0 && !(class_scores(w, row)[c->band - 1] < best[need->top - 1]);
}

/* Lists the rows that need a band, and gives the others their minus infinity. */
static struct columns choose_rows(struct workspace *w, int band, int member) {
	struct adaptive_scratch *a = &w->adaptive;
	struct columns c = columns_of(w, band, 0);
	int first, end;
	team_share(w->n_logit_rows, member, team_size(w->team), &first, &end);
	for (int row = first; row < end; row++) {
		a->needed[row] = needs_band(w, row, &c);
		float *x = w->logits + (size_t)row * w->ld_logits + c.first;
		for (int k = 0; !a->needed[row] && k < c.n; k++)
			x[k] = -INFINITY;
	}
	team_barrier(w->team, member);
	if (member == 0) {
		a->n_rows = 0;
		for (int row = 0; row < w->n_logit_rows; row++)
			if (a->needed[row])
				a->rows[a->n_rows++] = row;
	}
	team_barrier(w->team, member);
	c.rows = a->n_rows;
	return c;
}

/* Scores of a band beyond the head, for the listed rows. */
static void run_tail(struct workspace *w, const struct columns *c, int member) {
	const struct adaptive_weights *weights = &w->model->weights.adaptive;
	const struct linear_weights *tail = &weights->tail[c->band - 1];
	struct adaptive_scratch *a = &w->adaptive;
	size_t dim = (size_t)stack_facts(w, STACK_DECODER)->dim;
	int first, end;
	team_share(c->rows, member, team_size(w->team), &first, &end);
	for (int i = first; i < end; i++)
		memcpy(w->head + (size_t)i * w->ld_head,
		                w->scratch.gathered + (size_t)c->at[i] * w->scratch.ld_gathered,
		                dim * sizeof(float));
	team_barrier(w->team, member);
	head_product(w, &weights->reduce[c->band - 1],
	                &(struct head_product){ .x = w->head,
	                                .ldx = w->ld_head,
	                                .y = a->reduced,
	                                .ldy = a->ld_reduced,
	                                .rows = c->rows },
	                member);
	head_product(w, tail,
	                &(struct head_product){ .x = a->reduced,
	                                .ldx = a->ld_reduced,
	                                .y = w->logits + c->first,
	                                .ldy = w->ld_logits,
	                                .y_rows = c->at,
	                                .rows = c->rows },
	                member);
}

static void run_head(struct workspace *w, int member) {
	const struct adaptive_weights *weights = &w->model->weights.adaptive;
	struct adaptive_scratch *a = &w->adaptive;
	int first, end;
	team_share(w->n_logit_rows, member, team_size(w->team), &first, &end);
	for (int row = first; row < end; row++) {
		a->rows[row] = row;
		for (int k = 0; k < TOP_MOST; k++)
			a->best[(size_t)row * TOP_MOST + (size_t)k] = -INFINITY;
	}
	struct head_product p = {
		.x = w->scratch.gathered,
		.ldx = w->scratch.ld_gathered,
		.y = w->logits,
		.ldy = w->ld_logits,
		.rows = w->n_logit_rows,
	};
	head_product(w, &weights->words, &p, member);
	p.y = a->classes;
	p.ldy = MAX_BANDS - 1;
	head_product(w, &weights->classes, &p, member);
	struct columns c = columns_of(w, 0, w->n_logit_rows);
	normalise(w, &c, member);
	find_best(w, &c, member);
}

void adaptive_scores(struct workspace *w, int member) {
	run_head(w, member);
	for (int band = 1; band <= tails(w); band++) {
		struct columns c = choose_rows(w, band, member);
		if (c.rows == 0)
			continue;
		run_tail(w, &c, member);
		normalise(w, &c, member);
		find_best(w, &c, member);
	}
}

bool adaptive_init(struct workspace *w) {
	const struct band_facts *bands = &w->model->facts.output;
	struct adaptive_scratch *a = &w->adaptive;
	size_t rows = (size_t)w->max_logit_rows;
	if (bands->n == 0)
		return true;
	int widest = 0, longest = 0;
	for (int band = 0; band < bands->n; band++) {
		int blocks = columns_of(w, band, 0).blocks;
		longest = blocks > longest ? blocks : longest;
		if (band > 0 && bands->dim[band] > widest)
			widest = bands->dim[band];
	}
	a->n_blocks = longest;
	a->ld_reduced = workspace_row_stride(widest);
	a->reduced = workspace_rows(rows, a->ld_reduced);
	a->blocks = calloc(rows * (size_t)longest, sizeof *a->blocks);
	a->sums = calloc(rows, sizeof *a->sums);
	a->classes = calloc(rows * (MAX_BANDS - 1), sizeof *a->classes);
	a->best = calloc(rows * TOP_MOST, sizeof *a->best);
	a->needed = calloc(rows, sizeof *a->needed);
	a->rows = calloc(rows, sizeof *a->rows);
	return a->reduced && a->blocks && a->sums && a->classes && a->best && a->needed && a->rows;
}

void adaptive_finish(struct workspace *w) {
	free(w->adaptive.reduced);
	free(w->adaptive.blocks);
	free(w->adaptive.sums);
	free(w->adaptive.classes);
	free(w->adaptive.best);
	free(w->adaptive.needed);
	free(w->adaptive.rows);
}
