/* SPDX-License-Identifier: Apache-2.0 */
/* Random problems for products with weights, and what must hold for every table and format. */
#ifndef FATHOM_TESTS_PRODUCTS_H
#define FATHOM_TESTS_PRODUCTS_H

#include "tests/numbers.h"

static inline struct matrix pack(const struct ops *ops, enum weight_format format, const float *w,
                int n_out, int n_in) {
	const struct format_ops *f = &ops->formats[format];
	void *data = take(f->matrix_bytes(n_out, n_in) / sizeof(float));
	f->pack(data, n_in, w, 0, n_out);
	return (struct matrix){ n_out, n_in, (n_out + ops->panel - 1) / ops->panel, format, data };
}

/* One problem: shapes, inputs, and what y holds before. */
struct problem {
	enum weight_format format;
	int rows, n_in, n_out;
	size_t ldx, ldy, y_size;
	float *w, *bias, *x, *y_before;
	int32_t *map;
	enum activation activation;
	bool add;
};

static inline struct problem problem_random(
                enum weight_format format, int rows, int n_in, int n_out) {
	struct problem p = { .format = format, .rows = rows, .n_in = n_in, .n_out = n_out };
	p.ldx = (size_t)(n_in + random_between(0, 17));
	p.ldy = (size_t)(n_out + random_between(0, 17));
	p.w = take_random((size_t)n_out * (size_t)n_in);
	p.x = take_random((size_t)rows * p.ldx);
	p.bias = random_between(0, 3) ? take_random((size_t)n_out) : NULL;
	p.y_size = (size_t)(rows + 3) * p.ldy;
	p.y_before = take_random(p.y_size);
	if (random_between(0, 1)) {
		p.map = (int32_t *)take((size_t)rows);
		int gap = random_between(0, 3);
		for (int i = 0; i < rows; i++)
			p.map[i] = i < gap ? i : i + 3;
	}
	p.add = random_between(0, 2) == 0;
	p.activation = p.add ? ACTIVATION_NONE : (enum activation)random_between(0, 5);
	return p;
}

/* Makes the inputs as the format's products read them. */
static inline void make_inputs(
                const struct problem *p, const struct format_ops *f, struct linear *l) {
	l->x = p->x;
	l->x_stride = p->ldx * sizeof(float);
	if (!f->input)
		return;
	l->x_stride = f->input_bytes(p->n_in) + (size_t)random_between(0, 2) * 64;
	char *made = (char *)take((size_t)p->rows * l->x_stride / sizeof(float));
	for (int i = 0; i < p->rows; i++)
		f->input(p->x + (size_t)i * p->ldx, p->n_in, made + (size_t)i * l->x_stride);
	l->x = made;
}

/* All of y after the layer, computed in ranges of panels cut at random places. */
static inline float *problem_run(const struct problem *p, const struct ops *ops) {
	const struct format_ops *f = &ops->formats[p->format];
	struct matrix w = pack(ops, p->format, p->w, p->n_out, p->n_in);
	float *y = take_copy(p->y_before, p->y_size);
	struct linear l = { .w = &w, .bias = p->bias, .y = y };
	make_inputs(p, f, &l);
	l.ldy = p->ldy;
	l.y_rows = p->map;
	l.rows = p->rows;
	l.activation = p->activation;
	l.add = p->add;
	for (int first = 0; first < w.n_panels;) {
		int end = random_between(first + 1, w.n_panels);
		f->linear(&l, first, end);
		first = end;
	}
	return y;
}

/* Two tables give the same bits for random problems of all sizes. */
static inline void linear_equals(const struct ops *ops, const struct ops *other,
                enum weight_format format, bool spoiled) {
	static const int rows[] = { 70, 139, 128, 257 };
	for (int i = 0; i < 120; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		int m = i < 80 ? i % 40 + 1 : i < 84 ? rows[i - 80] : random_between(1, 45);
		int n_in = i % 3 ? random_between(1, 150) : random_between(1, 1400);
		struct problem p = problem_random(format, m, n_in, random_between(1, 110));
		if (spoiled) {
			spoil(p.x, (size_t)m * p.ldx, 400);
			spoil(p.w, (size_t)p.n_out * (size_t)p.n_in, 4000);
			spoil(p.y_before, p.y_size, 20);
		}
		CHECK(same_bits(problem_run(&p, ops), problem_run(&p, other), p.y_size));
	}
}

/* Each row alone has the bits that it has among others: the property batching rests on. */
static inline void rows_are_independent(
                const struct ops *ops, enum weight_format format, int n_in) {
	for (int rows = 1; rows <= 139; rows += rows < 40 ? 1 : 33) {
		fresh_memory();
		struct problem p = problem_random(format, rows, n_in, 37);
		p.map = NULL;
		float *together = problem_run(&p, ops);
		int step = rows < 8 ? 1 : 5;
		for (int i = 0; i < rows; i += step) {
			struct problem alone = p;
			alone.rows = 1;
			alone.x = p.x + (size_t)i * p.ldx;
			alone.y_before = p.y_before + (size_t)i * p.ldy;
			alone.y_size = p.ldy;
			float *y = problem_run(&alone, ops);
			CHECK(same_bits(y, together + (size_t)i * p.ldy, (size_t)p.n_out));
		}
	}
}

#endif
