/* SPDX-License-Identifier: Apache-2.0 */
/* Counting parameters as fairseq and Hugging Face do: each trainable number once. */
#include "model/facts.h"

static uint64_t linear(int n_out, int n_in, bool bias) {
	return (uint64_t)n_out * (uint64_t)n_in + (bias ? (uint64_t)n_out : 0);
}

static uint64_t norm(int dim) {
	return 2 * (uint64_t)dim;
}

static uint64_t layer_parameters(const struct stack_facts *s, const struct stack_facts *encoder) {
	uint64_t attention = 4 * linear(s->dim, s->dim, true) + norm(s->dim);
	uint64_t feed_forward =
	                linear(s->ffn, s->dim, true) + linear(s->dim, s->ffn, true) + norm(s->dim);
	uint64_t cross = 2 * linear(s->dim, s->dim, true) + 2 * linear(s->dim, encoder->dim, true)
	                + norm(s->dim);
	return attention + feed_forward + (s->cross ? cross : 0);
}

/* An adaptive embedding: each band's table and its projection. */
static uint64_t band_parameters(const struct band_facts *bands, int dim) {
	uint64_t total = 0;
	for (int b = 0; b < bands->n; b++)
		total += linear(bands->end[b] - (b ? bands->end[b - 1] : 0), bands->dim[b], false)
		                + linear(dim, bands->dim[b], false);
	return total;
}

static uint64_t adaptive_parameters(const struct facts *facts, int dim) {
	const struct band_facts *bands = &facts->output;
	uint64_t total = linear(bands->n - 1, dim, false);
	if (!facts->tied_bands)
		total += linear(bands->end[0], dim, false);
	for (int b = 1; b < bands->n; b++) {
		if (!facts->tied_bands)
			total += linear(bands->end[b] - bands->end[b - 1], bands->dim[b], false);
		if (!facts->tied_projections)
			total += linear(bands->dim[b], dim, false);
	}
	return total;
}

static uint64_t stack_parameters(const struct facts *facts, enum stack stack, int depth) {
	const struct stack_facts *s = &facts->stack[stack];
	uint64_t total = (uint64_t)depth * layer_parameters(s, &facts->stack[STACK_ENCODER]);
	if (stack == STACK_DECODER && facts->input.n)
		total += band_parameters(&facts->input, s->dim);
	else if (stack == STACK_DECODER || !facts->shared_embeddings)
		total += linear(s->vocab, s->dim, false);
	if (s->positions == POSITIONS_LEARNED)
		total += linear(s->position_offset + s->context, s->dim, false);
	total += linear(s->token_types + s->constant_types, s->dim, false);
	total += s->embedding_norm ? norm(s->dim) : 0;
	return total + (s->final_norm ? norm(s->dim) : 0);
}

static uint64_t head_parameters(const struct facts *facts) {
	bool encoder = facts->kind == KIND_ENCODER;
	int dim = facts->stack[encoder ? STACK_ENCODER : STACK_DECODER].dim;
	uint64_t total = 0;
	if (facts->output.n)
		total += adaptive_parameters(facts, dim);
	else if (!facts->tied_output && (!encoder || facts->mlm_head))
		total += linear(facts->vocab, dim, false);
	/* The output bias of a seq2seq is a buffer, not a parameter. */
	if (facts->mlm_head)
		total += linear(dim, dim, true) + norm(dim) + (uint64_t)facts->vocab;
	for (int c = 0; c < facts->n_classifiers; c++)
		total += linear(dim, dim, true) + linear(facts->classifiers[c].classes, dim, true);
	return total;
}

uint64_t facts_parameters(const struct facts *facts, const int depth[STACKS]) {
	uint64_t total = head_parameters(facts);
	for (int i = 0; i < STACKS; i++) {
		if (facts->stack[i].layers > 0)
			total += stack_parameters(facts, (enum stack)i, depth[i]);
	}
	return total;
}
