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
	enum weight_format format; /* of layers */
};

static enum weight_format chosen_format;

void random_model_use(enum weight_format format) {
	chosen_format = format;
}

/* As weights.c has it: int4 is too coarse for a vocabulary. */
static enum weight_format vocabulary_format(const struct carver *c) {
	return c->format == WEIGHTS_INT4 ? WEIGHTS_INT8 : c->format;
}

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

static struct matrix random_matrix(
                struct carver *c, enum weight_format format, int n_out, int n_in, float spread) {
	const struct format_ops *ops = &c->ops->formats[format];
	float *rows = malloc((size_t)n_out * (size_t)n_in * sizeof *rows);
	if (!rows)
		abort();
	for (size_t i = 0; i < (size_t)n_out * (size_t)n_in; i++)
		rows[i] = spread * ((float)random_below(&c->state, 2001) - 1000.0f) / 1000.0f;
	void *data = carve(c, ops->matrix_bytes(n_out, n_in));
	ops->pack(data, n_in, rows, 0, n_out);
	free(rows);
	return (struct matrix){ .n_out = n_out,
		.n_in = n_in,
		.n_panels = (n_out + c->ops->panel - 1) / c->ops->panel,
		.format = format,
		.data = data };
}

static struct linear_weights random_linear(
                struct carver *c, enum weight_format format, int n_out, int n_in) {
	struct linear_weights w = { .w = random_matrix(c, format, n_out, n_in, 0.2f) };
	w.bias = random_vector(c, n_out, 0.0f, 0.1f);
	return w;
}

static struct norm_weights random_norm(struct carver *c, int dim) {
	struct norm_weights n = { .gain = random_vector(c, dim, 1.0f, 0.3f) };
	n.bias = random_vector(c, dim, 0.0f, 0.1f);
	return n;
}

/* What a shape need not say. */
static void complete_stack(struct stack_facts *facts, int vocab, int context) {
	facts->head_dim = facts->dim / facts->heads;
	facts->norm_eps = 1e-5f;
	if (facts->embed_scale == 0)
		facts->embed_scale = 1;
	if (facts->vocab == 0)
		facts->vocab = vocab;
	if (facts->context == 0)
		facts->context = context;
}

static void random_layer(struct carver *c, const struct stack_facts *facts, int source_dim,
                struct layer_weights *layer) {
	int dim = facts->dim;
	layer->attn_norm = random_norm(c, dim);
	layer->qkv = random_linear(c, c->format, 3 * dim, dim);
	layer->out = random_linear(c, c->format, dim, dim);
	if (facts->cross) {
		layer->cross_norm = random_norm(c, dim);
		layer->cross_q = random_linear(c, c->format, dim, dim);
		layer->cross_kv = random_linear(c, c->format, 2 * dim, source_dim);
		layer->cross_out = random_linear(c, c->format, dim, dim);
	}
	layer->ffn_norm = random_norm(c, dim);
	layer->up = random_linear(c, c->format, facts->ffn, dim);
	layer->down = random_linear(c, c->format, dim, facts->ffn);
}

static struct linear_weights random_product(
                struct carver *c, enum weight_format format, int n_out, int n_in, float spread) {
	return (struct linear_weights){ .w = random_matrix(c, format, n_out, n_in, spread) };
}

static struct band_weights *random_bands(
                struct carver *c, const struct band_facts *facts, int dim) {
	struct band_weights *bands = calloc((size_t)facts->n, sizeof *bands);
	if (!bands)
		abort();
	for (int b = 0; b < facts->n; b++) {
		int size = facts->end[b] - (b ? facts->end[b - 1] : 0);
		bands[b].table = random_matrix(c, vocabulary_format(c), size, facts->dim[b], 0.5f);
		bands[b].project = random_product(c, WEIGHTS_F32, dim, facts->dim[b], 0.5f);
	}
	return bands;
}

static void random_stack(
                struct carver *c, const struct facts *facts, enum stack s, struct weights *all) {
	const struct stack_facts *stack = &facts->stack[s];
	struct stack_weights *w = &all->stack[s];
	if (s == STACK_DECODER && facts->input.n > 0)
		w->bands = random_bands(c, &facts->input, stack->dim);
	else
		w->embedding = random_matrix(
		                c, vocabulary_format(c), stack->vocab, stack->dim, 0.5f);
	if (stack->positions != POSITIONS_NONE)
		w->positions = random_vector(
		                c, (stack->position_offset + stack->context) * stack->dim, 0, 0.5f);
	if (stack->token_types > 0)
		w->types = random_vector(c, stack->token_types * stack->dim, 0, 0.5f);
	if (stack->embedding_norm)
		w->embedding_norm = random_norm(c, stack->dim);
	w->layers = calloc((size_t)stack->layers, sizeof *w->layers);
	if (!w->layers)
		abort();
	for (int l = 0; l < stack->layers; l++)
		random_layer(c, stack, facts->stack[STACK_ENCODER].dim, &w->layers[l]);
	if (stack->final_norm)
		w->final_norm = random_norm(c, stack->dim);
}

static void random_adaptive(
                struct carver *c, const struct facts *facts, struct adaptive_weights *w) {
	const struct band_facts *bands = &facts->output;
	int dim = facts->stack[STACK_DECODER].dim;
	w->words = random_product(c, vocabulary_format(c), bands->end[0], dim, 0.5f);
	w->classes = random_product(c, WEIGHTS_F32, bands->n - 1, dim, 0.5f);
	for (int b = 1; b < bands->n; b++) {
		w->reduce[b - 1] = random_product(c, WEIGHTS_F32, bands->dim[b], dim, 0.3f);
		w->tail[b - 1] = random_product(c, vocabulary_format(c),
		                bands->end[b] - bands->end[b - 1], bands->dim[b], 0.5f);
	}
}

static void random_heads(struct carver *c, const struct facts *facts, struct weights *w) {
	bool decoder = facts->stack[STACK_DECODER].layers > 0;
	enum stack main_stack = decoder ? STACK_DECODER : STACK_ENCODER;
	int dim = facts->stack[main_stack].dim;
	if (facts->output.n > 0)
		random_adaptive(c, facts, &w->adaptive);
	else if (facts->tied_output)
		w->output.w = w->stack[main_stack].embedding;
	else if (decoder || facts->mlm_head)
		w->output.w = random_matrix(c, vocabulary_format(c), facts->vocab, dim, 0.5f);
	if (facts->output_bias)
		w->output.bias = random_vector(c, facts->vocab, 0, 0.5f);
	if (facts->mlm_head) {
		w->mlm.dense = random_linear(c, WEIGHTS_F32, dim, dim);
		w->mlm.norm = random_norm(c, dim);
	}
	for (int i = 0; i < facts->n_classifiers; i++) {
		w->classifiers[i].dense = random_linear(c, WEIGHTS_F32, dim, dim);
		w->classifiers[i].out =
		                random_linear(c, WEIGHTS_F32, facts->classifiers[i].classes, dim);
	}
}

struct model *random_model_of(const struct ops *ops, const struct facts *shape) {
	struct model *m = calloc(1, sizeof *m);
	struct carver c = {
		.arena = aligned_alloc(64, ARENA), .state = 7, .ops = ops, .format = chosen_format
	};
	if (!m || !c.arena)
		abort();
	m->ops = ops;
	m->facts = *shape;
	m->facts.bos = m->facts.eos = m->facts.pad = m->facts.mask = m->facts.forced_bos = -1;
	m->weights.arena = c.arena;
	m->weights.format = chosen_format;
	for (int s = 0; s < STACKS; s++) {
		struct stack_facts *stack = &m->facts.stack[s];
		if (stack->layers == 0)
			continue;
		complete_stack(stack, shape->vocab, shape->context);
		random_stack(&c, &m->facts, (enum stack)s, &m->weights);
	}
	random_heads(&c, &m->facts, &m->weights);
	return m;
}

struct model *random_model_create(const struct ops *ops, const struct stack_facts *shape, int vocab,
                int context, bool tied) {
	struct facts facts = { .vocab = vocab, .context = context, .tied_output = tied };
	facts.stack[STACK_DECODER] = *shape;
	return random_model_of(ops, &facts);
}

void random_model_destroy(struct model *model) {
	for (int s = 0; s < STACKS; s++)
		free(model->weights.stack[s].layers);
	free(model->weights.stack[STACK_DECODER].bands);
	free(model->weights.arena);
	free(model);
}

struct model *random_model_prune_to(const struct model *model, const struct subnet *subnet) {
	struct model *pruned = malloc(sizeof *pruned);
	if (!pruned)
		abort();
	*pruned = *model;
	for (int s = 0; s < STACKS; s++) {
		const struct plan *plan = &subnet->stack[s];
		struct layer_weights *layers = calloc((size_t)plan->depth + 1, sizeof *layers);
		if (!layers)
			abort();
		for (int i = 0; i < plan->depth; i++)
			layers[i] = model->weights.stack[s].layers[plan->layers[i]];
		pruned->facts.stack[s].layers = plan->depth;
		pruned->weights.stack[s].layers = layers;
	}
	return pruned;
}

struct model *random_model_prune(const struct model *model, const struct plan *plan) {
	struct subnet subnet = random_model_subnet(plan);
	return random_model_prune_to(model, &subnet);
}

void random_model_destroy_pruned(struct model *pruned) {
	for (int s = 0; s < STACKS; s++)
		free(pruned->weights.stack[s].layers);
	free(pruned);
}

struct subnet random_model_subnet(const struct plan *plan) {
	return (struct subnet){ .stack = { [STACK_DECODER] = *plan } };
}

int random_model_tables(const struct ops *tables[CPU_LEVELS + 1]) {
	int n = 0;
	tables[n++] = ops_c();
	for (int i = CPU_LEVEL_AVX2; i <= (int)cpu_level_detect(); i++)
		tables[n++] = ops_of_level((enum cpu_level)i);
	return n;
}
