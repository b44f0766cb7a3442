/* SPDX-License-Identifier: Apache-2.0 */
/* What the heads share: products over the gathered rows. Private to model/. */
#ifndef FATHOM_MODEL_HEAD_H
#define FATHOM_MODEL_HEAD_H

#include "model/workspace.h"

struct head_product {
	const float *x;
	size_t ldx;
	float *y;
	size_t ldy;
	const int32_t *y_rows; /* scatter map or NULL */
	int rows;
	enum activation activation;
};

/* y = act(W x + bias); the members share the panels. Ends with a barrier. */
void head_product(struct workspace *w, const struct linear_weights *weights,
                const struct head_product *p, int member);

/* Scores of an adaptive softmax for the rows gathered in scratch.gathered, as w->needs wants them.
 * Run by every member. */
void adaptive_scores(struct workspace *w, int member);

/* Memory of adaptive_scores: none if the softmax is plain. False if it is not to be had. */
bool adaptive_init(struct workspace *w);
void adaptive_finish(struct workspace *w);

#endif
