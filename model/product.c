/* SPDX-License-Identifier: Apache-2.0 */
/* One product of the team: rows are split for making inputs, panels for the sums. */
#include "model/product.h"

static const struct format_ops *format_of(const struct product *p) {
	return &p->ops->formats[p->weights->w.format];
}

bool product_prepare(const struct product *p, int member) {
	const struct format_ops *format = format_of(p);
	int first, end;
	if (!format->input)
		return false;
	team_share(p->rows, member, team_size(p->team), &first, &end);
	for (int i = first; i < end; i++)
		format->input(p->x + (size_t)i * p->ldx, p->weights->w.n_in,
		                (char *)p->inputs->rows + (size_t)i * p->inputs->stride);
	return true;
}

void product_run(const struct product *p, int member) {
	const struct format_ops *format = format_of(p);
	const struct matrix *w = &p->weights->w;
	int first, end;
	team_share(w->n_panels, member, team_size(p->team), &first, &end);
	format->linear(&(struct linear){ .w = w,
	                               .bias = p->weights->bias,
	                               .x = format->input ? p->inputs->rows : p->x,
	                               .x_stride = format->input ? p->inputs->stride
	                                                         : p->ldx * sizeof(float),
	                               .y = p->y,
	                               .ldy = p->ldy,
	                               .y_rows = p->y_rows,
	                               .rows = p->rows,
	                               .activation = p->activation,
	                               .add = p->add },
	                first, end);
}

void product_apply(const struct product *p, int member) {
	if (product_prepare(p, member))
		team_barrier(p->team, member);
	product_run(p, member);
}
