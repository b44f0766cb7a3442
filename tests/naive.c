/* SPDX-License-Identifier: Apache-2.0 */
/* The forward pass in double precision. */
#include "tests/naive.h"

#include <math.h>

#include "tests/check.h"

enum { WIDE = 1024 }; /* more than any width of a test's model */

static double *memory(size_t n) {
	double *p = calloc(n, sizeof *p);
	CHECK(p);
	return p;
}

/* y = W x + bias */
static void linear(const struct model *m, const struct linear_weights *w, const double *x,
                double *ret_y) {
	float row[WIDE];
	CHECK(w->w.n_in <= WIDE);
	for (int o = 0; o < w->w.n_out; o++) {
		m->ops->formats[w->w.format].unpack_row(&w->w, o, row);
		ret_y[o] = w->bias ? w->bias[o] : 0;
		for (int k = 0; k < w->w.n_in; k++)
			ret_y[o] += row[k] * x[k];
	}
}

static double activate(double x, enum activation activation) {
	const double pi = acos(-1);
	switch (activation) {
	case ACTIVATION_NONE:
		return x;
	case ACTIVATION_RELU:
		return x > 0 ? x : 0;
	case ACTIVATION_GELU:
		return x / 2 * (1 + erf(x / sqrt(2)));
	case ACTIVATION_GELU_TANH:
		return x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
	case ACTIVATION_TANH:
		return tanh(x);
	case ACTIVATION_SILU:
		return x / (1 + exp(-x));
	}
	return NAN;
}

static void norm(
                const struct norm_weights *w, double eps, int dim, const double *x, double *ret_y) {
	double mean = 0, variance = 0;
	for (int i = 0; i < dim; i++)
		mean += x[i] / dim;
	for (int i = 0; i < dim; i++)
		variance += (x[i] - mean) * (x[i] - mean) / dim;
	for (int i = 0; i < dim; i++)
		ret_y[i] = (x[i] - mean) / sqrt(variance + eps) * w->gain[i] + w->bias[i];
}

/* One query over n keys of all heads; keys and values have rows of `ld`. */
static void attend(const struct stack_facts *f, const double *q, const double *k, const double *v,
                size_t ld, int n, double *ret_out) {
	double *weights = memory((size_t)n);
	for (int h = 0; h < f->heads; h++) {
		int first = h * f->head_dim, end = first + f->head_dim;
		double most = -INFINITY, total = 0;
		for (int i = 0; i < n; i++) {
			double dot = 0;
			for (int c = first; c < end; c++)
				dot += q[c] * k[(size_t)i * ld + (size_t)c];
			weights[i] = dot / sqrt(f->head_dim);
			most = fmax(most, weights[i]);
		}
		for (int i = 0; i < n; i++)
			total += weights[i] = exp(weights[i] - most);
		for (int c = first; c < end; c++) {
			ret_out[c] = 0;
			for (int i = 0; i < n; i++)
				ret_out[c] += weights[i] / total * v[(size_t)i * ld + (size_t)c];
		}
	}
	free(weights);
}

static void embed(const struct model *m, enum stack s, int32_t token, int32_t type, int position,
                double *ret_x) {
	const struct stack_facts *f = &m->facts.stack[s];
	const struct stack_weights *w = &m->weights.stack[s];
	float row[WIDE];
	if (w->bands) {
		double found[WIDE];
		int band = 0, start = 0;
		for (; token >= m->facts.input.end[band]; band++)
			start = m->facts.input.end[band];
		m->ops->formats[WEIGHTS_F32].unpack_row(&w->bands[band].table, token - start, row);
		for (int k = 0; k < m->facts.input.dim[band]; k++)
			found[k] = row[k];
		linear(m, &w->bands[band].project, found, ret_x);
	} else {
		m->ops->formats[w->embedding.format].unpack_row(&w->embedding, token, row);
		for (int k = 0; k < f->dim; k++)
			ret_x[k] = row[k];
	}
	for (int k = 0; k < f->dim; k++) {
		ret_x[k] *= f->embed_scale;
		if (w->positions)
			ret_x[k] += w->positions[(f->position_offset + position) * f->dim + k];
		if (w->types)
			ret_x[k] += w->types[type * f->dim + k];
	}
	if (f->embedding_norm)
		norm(&w->embedding_norm, f->norm_eps, f->dim, ret_x, ret_x);
}

/* The part of a layer in progress: what it reads, and how its result is added. */
struct part {
	const struct model *m;
	const struct stack_facts *f;
	const struct norm_weights *norm;
	const struct linear_weights *out;
	enum kv_format kv; /* of keys and values */
};

/* As 8 significant bits, the nearest, ties to even. */
static double rounded(double x) {
	int power;
	double m = frexp(x, &power);
	return ldexp(rint(ldexp(m, 8)), power - 8);
}

static void round_row(const struct part *p, double *row, size_t n) {
	for (size_t i = 0; p->kv == KV_BF16 && i < n; i++)
		row[i] = rounded(row[i]);
}

static void part_input(const struct part *p, const double *x, double *ret_input) {
	memcpy(ret_input, x, (size_t)p->f->dim * sizeof *x);
	if (p->f->norm == NORM_PRE)
		norm(p->norm, p->f->norm_eps, p->f->dim, x, ret_input);
}

static void part_output(const struct part *p, const double *y, double *x) {
	double add[WIDE];
	linear(p->m, p->out, y, add);
	for (int k = 0; k < p->f->dim; k++)
		x[k] += add[k];
	if (p->f->norm == NORM_POST)
		norm(p->norm, p->f->norm_eps, p->f->dim, x, x);
}

static void own_attention(const struct part *p, const struct linear_weights *qkv, bool causal,
                double *x, int n) {
	size_t dim = (size_t)p->f->dim;
	double *all = memory((size_t)n * 3 * dim), in[WIDE], out[WIDE];
	for (int i = 0; i < n; i++) {
		part_input(p, x + (size_t)i * dim, in);
		linear(p->m, qkv, in, all + (size_t)i * 3 * dim);
		round_row(p, all + (size_t)i * 3 * dim + dim, 2 * dim);
	}
	for (int i = 0; i < n; i++) {
		attend(p->f, all + (size_t)i * 3 * dim, all + dim, all + 2 * dim, 3 * dim,
		                causal ? i + 1 : n, out);
		part_output(p, out, x + (size_t)i * dim);
	}
	free(all);
}

static void source_attention(const struct part *p, const struct layer_weights *w, double *x, int n,
                const double *source, int n_source) {
	size_t dim = (size_t)p->f->dim, source_dim = (size_t)w->cross_kv.w.n_in;
	double *kv = memory((size_t)n_source * 2 * dim), in[WIDE], q[WIDE], out[WIDE];
	for (int i = 0; i < n_source; i++) {
		linear(p->m, &w->cross_kv, source + (size_t)i * source_dim,
		                kv + (size_t)i * 2 * dim);
		round_row(p, kv + (size_t)i * 2 * dim, 2 * dim);
	}
	for (int i = 0; i < n; i++) {
		part_input(p, x + (size_t)i * dim, in);
		linear(p->m, &w->cross_q, in, q);
		attend(p->f, q, kv, kv + dim, 2 * dim, n_source, out);
		part_output(p, out, x + (size_t)i * dim);
	}
	free(kv);
}

static void feed_forward(const struct part *p, const struct linear_weights *up, double *x, int n) {
	double in[WIDE], middle[WIDE];
	for (int i = 0; i < n; i++) {
		double *row = x + (size_t)i * (size_t)p->f->dim;
		part_input(p, row, in);
		linear(p->m, up, in, middle);
		for (int k = 0; k < p->f->ffn; k++)
			middle[k] = activate(middle[k], p->f->activation);
		part_output(p, middle, row);
	}
}

void naive_run(const struct model *m, enum stack stack, const struct plan *plan,
                const int32_t *tokens, const int32_t *types, int n, const double *source,
                int n_source, double *ret_states) {
	naive_run_kv(m, stack, plan, KV_F32, tokens, types, n, source, n_source, ret_states);
}

void naive_run_kv(const struct model *m, enum stack stack, const struct plan *plan,
                enum kv_format kv, const int32_t *tokens, const int32_t *types, int n,
                const double *source, int n_source, double *ret_states) {
	const struct stack_facts *f = &m->facts.stack[stack];
	const struct stack_weights *weights = &m->weights.stack[stack];
	double *x = ret_states;
	for (int i = 0; i < n; i++)
		embed(m, stack, tokens[i], types ? types[i] : 0, i, x + (size_t)i * (size_t)f->dim);
	for (int r = 0; r < plan->depth; r++) {
		const struct layer_weights *w = &weights->layers[plan->layers[r]];
		struct part p = { .m = m, .f = f, .norm = &w->attn_norm, .out = &w->out };
		p.kv = stack == STACK_DECODER ? kv : KV_F32;
		own_attention(&p, &w->qkv, stack == STACK_DECODER, x, n);
		p.norm = &w->cross_norm;
		p.out = &w->cross_out;
		if (f->cross)
			source_attention(&p, w, x, n, source, n_source);
		p.norm = &w->ffn_norm;
		p.out = &w->down;
		feed_forward(&p, &w->up, x, n);
	}
	for (int i = 0; i < n && f->final_norm; i++)
		norm(&weights->final_norm, f->norm_eps, f->dim, x + (size_t)i * (size_t)f->dim,
		                x + (size_t)i * (size_t)f->dim);
}

/* x[0..n) -= log sum exp(x) */
static void log_softmax(double *x, int n) {
	double most = -INFINITY, sum = 0;
	for (int i = 0; i < n; i++)
		most = fmax(most, x[i]);
	for (int i = 0; i < n; i++)
		sum += exp(x[i] - most);
	for (int i = 0; i < n; i++)
		x[i] -= most + log(sum);
}

static void adaptive(const struct model *m, const double *state, double *ret_scores) {
	const struct band_facts *bands = &m->facts.output;
	const struct adaptive_weights *w = &m->weights.adaptive;
	int head = bands->end[0];
	double *joined = memory((size_t)(head + bands->n)), reduced[WIDE];
	linear(m, &w->words, state, joined);
	linear(m, &w->classes, state, joined + head);
	log_softmax(joined, head + bands->n - 1);
	memcpy(ret_scores, joined, (size_t)head * sizeof *joined);
	for (int b = 1; b < bands->n; b++) {
		double *scores = ret_scores + bands->end[b - 1];
		int n = bands->end[b] - bands->end[b - 1];
		linear(m, &w->reduce[b - 1], state, reduced);
		linear(m, &w->tail[b - 1], reduced, scores);
		log_softmax(scores, n);
		for (int i = 0; i < n; i++)
			scores[i] += joined[head + b - 1];
	}
	free(joined);
}

void naive_scores(const struct model *m, const double *state, double *ret_scores) {
	const struct stack_facts *encoder = &m->facts.stack[STACK_ENCODER];
	double middle[WIDE];
	if (m->facts.output.n > 0) {
		adaptive(m, state, ret_scores);
		return;
	}
	if (m->facts.mlm_head) {
		linear(m, &m->weights.mlm.dense, state, middle);
		for (int k = 0; k < encoder->dim; k++)
			middle[k] = activate(middle[k], m->facts.mlm_activation);
		norm(&m->weights.mlm.norm, encoder->norm_eps, encoder->dim, middle, middle);
		state = middle;
	}
	linear(m, &m->weights.output, state, ret_scores);
}

void naive_classes(const struct model *m, int which, const double *state, double *ret_scores) {
	const struct classifier_weights *w = &m->weights.classifiers[which];
	double middle[WIDE];
	linear(m, &w->dense, state, middle);
	for (int k = 0; k < w->dense.w.n_out; k++)
		middle[k] = activate(middle[k], m->facts.classifiers[which].activation);
	linear(m, &w->out, middle, ret_scores);
}
