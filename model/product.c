/* SPDX-License-Identifier: Apache-2.0 */
/* One product of the team: rows are split for making inputs, panels for the sums. */
#include "model/product.h"

enum {
	CLAIM_PANELS = 4,          /* kernels take so many at once */
	CLAIM_NUMBERS = 128 << 10, /* weights read by one claim of few rows, */
	CLAIM_PRODUCTS = 8 << 20,  /* products of one claim of many */
};

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

/*
 * Panels of one claim: some tens of microseconds of reading and of arithmetic. 0: shares are so small
 * that dealing them costs more than it saves.
 */
static int panels_of_claim(const struct product *p) {
	const struct matrix *w = &p->weights->w;
	const double products = (double)w->n_in * p->ops->panel * p->rows;
	const double numbers = (double)w->n_in * p->ops->panel;
	double most = CLAIM_PRODUCTS / products, least = CLAIM_NUMBERS / numbers;
	int claim = (int)(most < least ? most : least);
	claim = claim < CLAIM_PANELS ? CLAIM_PANELS : claim / CLAIM_PANELS * CLAIM_PANELS;
	int each = w->n_panels / team_size(p->team);
	return each > claim ? claim : 0;
}

void product_run(const struct product *p, int member) {
	const struct format_ops *format = format_of(p);
	const struct matrix *w = &p->weights->w;
	struct linear linear = { .w = w,
		.bias = p->weights->bias,
		.x = format->input ? p->inputs->rows : p->x,
		.x_stride = format->input ? p->inputs->stride : p->ldx * sizeof(float),
		.y = p->y,
		.ldy = p->ldy,
		.y_rows = p->y_rows,
		.rows = p->rows,
		.activation = p->activation,
		.add = p->add };
	int own_first, own_end, first, end, claim = panels_of_claim(p);
	team_share(w->n_panels, member, team_size(p->team), &own_first, &own_end);
	if (claim == 0 || team_size(p->team) == 1) {
		format->linear(&linear, own_first, own_end);
		return;
	}
	struct dealing dealing;
	team_deal(p->team, member, w->n_panels, claim, &dealing);
	while (team_claim(&dealing, &first, &end)) {
		linear.ahead_end = first >= own_first ? own_end : 0;
		format->linear(&linear, first, end);
	}
}

void product_apply(const struct product *p, int member) {
	if (product_prepare(p, member))
		team_barrier(p->team, member);
	product_run(p, member);
}
