/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heads: scores over the vocabulary (plain, masked-LM, or adaptive: model/adaptive.c) and
 * classes, for the rows whose scores somebody needs.
 */
#include "model/head.h"

#include <assert.h>
#include <string.h>

/* gathered[i] = x[logit_rows[i]]; of the decoder, through its final norm. The encoder's final norm
 * is part of the step. */
static void gather(struct workspace *w, enum stack stack, int member) {
	const struct stack_facts *facts = stack_facts(w, stack);
	const struct norm_weights *norm = &w->model->weights.stack[stack].final_norm;
	struct block_scratch *s = &w->scratch;
	int first, end;
	team_share(w->n_logit_rows, member, team_size(w->team), &first, &end);
	if (stack == STACK_DECODER && facts->final_norm) {
		w->ops->norm(&(struct norm){ .x = w->x,
		                             .ldx = w->ldx,
		                             .x_rows = w->logit_rows,
		                             .gain = norm->gain,
		                             .bias = norm->bias,
		                             .eps = facts->norm_eps,
		                             .dim = facts->dim,
		                             .out = s->gathered,
		                             .ldo = s->ld_gathered },
		                first, end);
	} else {
		for (int i = first; i < end; i++)
			memcpy(s->gathered + (size_t)i * s->ld_gathered,
			                w->x + (size_t)w->logit_rows[i] * w->ldx,
			                (size_t)facts->dim * sizeof(float));
	}
	team_barrier(w->team, member);
}

void head_product(struct workspace *w, const struct linear_weights *weights,
                const struct head_product *p, int member) {
	product_apply(&(struct product){ .ops = w->ops,
	                              .team = w->team,
	                              .inputs = &w->scratch.inputs,
	                              .weights = weights,
	                              .x = p->x,
	                              .ldx = p->ldx,
	                              .y = p->y,
	                              .ldy = p->ldy,
	                              .y_rows = p->y_rows,
	                              .rows = p->rows,
	                              .activation = p->activation },
	                member);
	team_barrier(w->team, member);
}

/* A layer between: head = act(W gathered + bias). */
static void dense(struct workspace *w, const struct linear_weights *weights,
                enum activation activation, int member) {
	head_product(w, weights,
	                &(struct head_product){ .x = w->scratch.gathered,
	                                .ldx = w->scratch.ld_gathered,
	                                .y = w->head,
	                                .ldy = w->ld_head,
	                                .rows = w->n_logit_rows,
	                                .activation = activation },
	                member);
}

static void run_masked(struct workspace *w, int member) {
	const struct facts *facts = &w->model->facts;
	const struct mlm_weights *mlm = &w->model->weights.mlm;
	dense(w, &mlm->dense, facts->mlm_activation, member);
	int first, end;
	team_share(w->n_logit_rows, member, team_size(w->team), &first, &end);
	w->ops->norm(&(struct norm){ .x = w->head,
	                             .ldx = w->ld_head,
	                             .gain = mlm->norm.gain,
	                             .bias = mlm->norm.bias,
	                             .eps = facts->stack[STACK_ENCODER].norm_eps,
	                             .dim = facts->stack[STACK_ENCODER].dim,
	                             .out = w->head,
	                             .ldo = w->ld_head },
	                first, end);
	team_barrier(w->team, member);
}

static void run_scores(void *arg, int member) {
	struct workspace *w = arg;
	bool masked = stack_facts(w, STACK_DECODER)->layers == 0;
	gather(w, masked ? STACK_ENCODER : STACK_DECODER, member);
	if (w->model->facts.output.n > 0) {
		adaptive_scores(w, member);
		return;
	}
	if (masked)
		run_masked(w, member);
	head_product(w, &w->model->weights.output,
	                &(struct head_product){ .x = masked ? w->head : w->scratch.gathered,
	                                .ldx = masked ? w->ld_head : w->scratch.ld_gathered,
	                                .y = w->logits,
	                                .ldy = w->ld_logits,
	                                .rows = w->n_logit_rows },
	                member);
}

static void run_classes(void *arg, int member) {
	struct workspace *w = arg;
	const struct classifier_weights *weights = &w->model->weights.classifiers[w->classifier];
	gather(w, STACK_ENCODER, member);
	dense(w, &weights->dense, w->model->facts.classifiers[w->classifier].activation, member);
	head_product(w, &weights->out,
	                &(struct head_product){ .x = w->head,
	                                .ldx = w->ld_head,
	                                .y = w->classes,
	                                .ldy = w->ld_classes,
	                                .rows = w->n_logit_rows },
	                member);
}

/* Runs a head over the rows `indices[0..n)` of `stack`. */
static void run(struct workspace *w, void (*head)(void *arg, int member), enum stack stack,
                const int *indices, int n) {
	assert(1 <= n && n <= w->max_logit_rows);
	_Static_assert(sizeof(int) == sizeof(int32_t), "rows are listed as int32_t");
	for (int i = 0; i < n; i++)
		assert(0 <= indices[i] && indices[i] < w->n_rows
		                && w->row_stacks[indices[i]] == stack);
	(void)stack;
	w->logit_rows = indices;
	w->n_logit_rows = n;
	team_run(w->team, head, w);
	w->logit_rows = NULL;
}

const float *step_logits_needed(
                struct workspace *w, const int *indices, const struct logit_need *needs, int n) {
	assert(has_scores(&w->model->facts));
	bool masked = stack_facts(w, STACK_DECODER)->layers == 0;
	w->needs = needs;
	run(w, run_scores, masked ? STACK_ENCODER : STACK_DECODER, indices, n);
	w->needs = NULL;
	return w->logits;
}

const float *step_logits(struct workspace *w, const int *indices, int n) {
	return step_logits_needed(w, indices, NULL, n);
}

size_t step_logits_stride(const struct workspace *w) {
	return w->ld_logits;
}

const float *step_classes(struct workspace *w, int which, const int *indices, int n) {
	assert(0 <= which && which < w->model->facts.n_classifiers);
	w->classifier = which;
	run(w, run_classes, STACK_ENCODER, indices, n);
	return w->classes;
}

size_t step_classes_stride(const struct workspace *w) {
	return w->ld_classes;
}
