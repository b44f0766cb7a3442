/* SPDX-License-Identifier: Apache-2.0 */
/* A model made in memory from random numbers. */
#include "tests/random_model.h"

#include "tests/check.h"

static uint64_t next(uint64_t *state) {
	uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

unsigned random_below(uint64_t *state, unsigned n) {
	return (unsigned)(next(state) >> 32) % n;
}

/* Weights share one arena, carved from its start. */
struct carver {
	char *arena;
	size_t used;
	uint64_t state;
	const struct ops *ops;
};

enum { ARENA = 64 << 20 };

static void *carve(struct carver *c, size_t bytes) {
	void *p = c->arena + c->used;
	c->used += (bytes + 63) / 64 * 64;
	if (c->used > ARENA)
		abort();
	return p;
}

/* Uniform in middle +- spread. */
static float *random_vector(struct carver *c, int n, float middle, float spread) {
	float *v = carve(c, (size_t)n * sizeof *v);
	for (int i = 0; i < n; i++)
		v[i] = middle + spread * ((float)random_below(&c->state, 2001) - 1000.0f) / 1000.0f;
	return v;
}

static struct matrix random_matrix(struct carver *c, int n_out, int n_in, float spread) {
	float *rows = malloc((size_t)n_out * (size_t)n_in * sizeof *rows);
	if (!rows)
		abort();
	for (size_t i = 0; i < (size_t)n_out * (size_t)n_in; i++)
		rows[i] = spread * ((float)random_below(&c->state, 2001) - 1000.0f) / 1000.0f;
	float *data = carve(c, c->ops->matrix_bytes(n_out, n_in));
	c->ops->pack(data, n_out, n_in, rows, 0, n_out);
	free(rows);
	return (struct matrix){ .n_out = n_out,
		.n_in = n_in,
		.n_panels = (n_out + c->ops->panel - 1) / c->ops->panel,
		.data = data };
}

static struct linear_weights random_linear(struct carver *c, int n_out, int n_in) {
	struct linear_weights w = { .w = random_matrix(c, n_out, n_in, 0.2f) };
	w.bias = random_vector(c, n_out, 0.0f, 0.1f);
	return w;
}

static struct norm_weights random_norm(struct carver *c, int dim) {
	struct norm_weights n = { .gain = random_vector(c, dim, 1.0f, 0.3f) };
	n.bias = random_vector(c, dim, 0.0f, 0.1f);
	return n;
}

struct model *random_model_create(const struct ops *ops, const struct stack_facts *shape, int vocab,
                int context, bool tied) {
	struct model *m = calloc(1, sizeof *m);
	struct carver c = { .arena = aligned_alloc(64, ARENA), .state = 7, .ops = ops };
	if (!m || !c.arena)
		abort();
	m->ops = ops;
	m->facts = (struct facts){ .vocab = vocab,
		.context = context,
		.tied_output = tied,
		.bos = -1,
		.eos = -1,
		.pad = -1 };
	struct stack_facts *facts = &m->facts.stack[STACK_DECODER];
	*facts = *shape;
	facts->head_dim = facts->dim / facts->heads;
	facts->norm_eps = 1e-5f;
	if (facts->embed_scale == 0)
		facts->embed_scale = 1;

	struct stack_weights *w = &m->weights.stack[STACK_DECODER];
	m->weights.arena = c.arena;
	w->embedding = random_matrix(&c, vocab, facts->dim, 0.5f);
	if (facts->positions != POSITIONS_NONE)
		w->positions = random_vector(
		                &c, (facts->position_offset + context) * facts->dim, 0, 0.5f);
	if (facts->embedding_norm)
		w->embedding_norm = random_norm(&c, facts->dim);
	w->layers = calloc((size_t)facts->layers, sizeof *w->layers);
	for (int l = 0; l < facts->layers; l++) {
		struct layer_weights *layer = &w->layers[l];
		layer->attn_norm = random_norm(&c, facts->dim);
		layer->qkv = random_linear(&c, 3 * facts->dim, facts->dim);
		layer->out = random_linear(&c, facts->dim, facts->dim);
		layer->ffn_norm = random_norm(&c, facts->dim);
		layer->up = random_linear(&c, facts->ffn, facts->dim);
		layer->down = random_linear(&c, facts->dim, facts->ffn);
	}
	if (facts->final_norm)
		w->final_norm = random_norm(&c, facts->dim);
	m->weights.output.w = tied ? w->embedding : random_matrix(&c, vocab, facts->dim, 0.5f);
	return m;
}

void random_model_destroy(struct model *model) {
	free(model->weights.stack[STACK_DECODER].layers);
	free(model->weights.arena);
	free(model);
}

struct model *random_model_prune(const struct model *model, const struct plan *plan) {
	struct model *pruned = malloc(sizeof *pruned);
	struct layer_weights *layers = calloc((size_t)plan->depth, sizeof *layers);
	if (!pruned || !layers)
		abort();
	*pruned = *model;
	pruned->facts.stack[STACK_DECODER].layers = plan->depth;
	for (int i = 0; i < plan->depth; i++)
		layers[i] = model->weights.stack[STACK_DECODER].layers[plan->layers[i]];
	pruned->weights.stack[STACK_DECODER].layers = layers;
	return pruned;
}

void random_model_destroy_pruned(struct model *pruned) {
	free(pruned->weights.stack[STACK_DECODER].layers);
	free(pruned);
}

struct subnet random_model_subnet(const struct plan *plan) {
	return (struct subnet){ .stack = { [STACK_DECODER] = *plan } };
}

int random_model_tables(const struct ops *tables[4]) {
	int n = 0;
	tables[n++] = ops_c();
	if (cpu_level_detect() >= CPU_LEVEL_AVX2 && ops_avx2())
		tables[n++] = ops_avx2();
	if (cpu_level_detect() >= CPU_LEVEL_AVX512 && ops_avx512())
		tables[n++] = ops_avx512();
	return n;
}
