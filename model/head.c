/* SPDX-License-Identifier: Apache-2.0 */
/* The head: final norm and output matrix, for the rows whose logits somebody needs. */
#include <assert.h>
#include <string.h>

#include "model/workspace.h"

/* packed[i] = final_norm(x[logit_rows[i]]), or the row itself in models without a final norm. */
static void gather(struct workspace *w, int member) {
	const struct stack_facts *facts = workspace_stack(w);
	const struct norm_weights *norm = &w->model->weights.stack[STACK_DECODER].final_norm;
	struct block_scratch *s = &w->scratch;
	int first, end;
	team_share(w->n_logit_rows, member, team_size(w->team), &first, &end);
	if (facts->final_norm) {
		w->ops->norm(&(struct norm){ .x = w->x,
		                             .ldx = w->ldx,
		                             .x_rows = w->logit_rows,
		                             .gain = norm->gain,
		                             .bias = norm->bias,
		                             .eps = facts->norm_eps,
		                             .dim = facts->dim,
		                             .out = s->packed,
		                             .ldo = s->ld_packed },
		                first, end);
		return;
	}
	for (int i = first; i < end; i++)
		memcpy(s->packed + (size_t)i * s->ld_packed,
		                w->x + (size_t)w->logit_rows[i] * w->ldx,
		                (size_t)facts->dim * sizeof(float));
}

static void run_head(void *arg, int member) {
	struct workspace *w = arg;
	const struct linear_weights *output = &w->model->weights.output;
	gather(w, member);
	team_barrier(w->team, member);

	int first, end;
	team_share(output->w.n_panels, member, team_size(w->team), &first, &end);
	w->ops->linear(&(struct linear){ .w = &output->w,
	                               .bias = output->bias,
	                               .x = w->scratch.packed,
	                               .ldx = w->scratch.ld_packed,
	                               .y = w->logits,
	                               .ldy = w->ld_logits,
	                               .rows = w->n_logit_rows,
	                               .activation = ACTIVATION_NONE },
	                first, end);
}

const float *step_logits(struct workspace *w, const int *indices, int n) {
	assert(1 <= n && n <= w->max_logit_rows);
	_Static_assert(sizeof(int) == sizeof(int32_t), "rows are listed as int32_t");
	for (int i = 0; i < n; i++)
		assert(0 <= indices[i] && indices[i] < w->n_rows);
	w->logit_rows = indices;
	w->n_logit_rows = n;
	team_run(w->team, run_head, w);
	w->logit_rows = NULL;
	return w->logits;
}

size_t step_logits_stride(const struct workspace *w) {
	return w->ld_logits;
}
