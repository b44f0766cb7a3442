/* SPDX-License-Identifier: Apache-2.0 */
/* Families: names built from bindings, and the shapes that follow from the facts. */
#include "model/family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool slot_of_layer(enum slot slot) {
	return slot >= SLOT_ATTN_NORM;
}

static int layer_slot_count(const struct stack_facts *s, enum slot slot) {
	bool cross = slot >= SLOT_CROSS_NORM && slot <= SLOT_CROSS_OUT;
	return cross && !s->cross ? 0 : s->layers;
}

/* Slots of the stack that speaks: the output, its bands and the heads. */
static int head_slot_count(const struct facts *facts, enum slot slot) {
	const int tails = facts->output.n > 0 ? facts->output.n - 1 : 0;
	switch (slot) {
	case SLOT_BAND:
	case SLOT_BAND_PROJECT:
		return facts->input.n;
	case SLOT_WORDS:
	case SLOT_CLASSES:
		return facts->output.n > 0;
	case SLOT_REDUCE:
		return facts->tied_projections ? 0 : tails;
	case SLOT_REDUCE_TIED:
		return facts->tied_projections ? tails : 0;
	case SLOT_TAIL:
		return tails;
	case SLOT_MLM_DENSE:
	case SLOT_MLM_NORM:
		return facts->mlm_head;
	case SLOT_OUTPUT:
		return facts->kind == KIND_ENCODER ? facts->mlm_head : facts->output.n == 0;
	default:
		return facts->n_classifiers;
	}
}

int slot_count(const struct facts *facts, enum stack stack, enum slot slot) {
	const struct stack_facts *s = &facts->stack[stack];
	enum stack main_stack = facts->kind == KIND_ENCODER ? STACK_ENCODER : STACK_DECODER;
	if (slot_of_layer(slot))
		return layer_slot_count(s, slot);
	switch (slot) {
	case SLOT_EMBEDDING:
		return stack == STACK_ENCODER || facts->input.n == 0;
	case SLOT_POSITIONS:
		return s->positions == POSITIONS_LEARNED;
	case SLOT_TYPES:
		return s->token_types > 0 || s->constant_types > 0;
	case SLOT_EMBEDDING_NORM:
		return s->embedding_norm;
	case SLOT_FINAL_NORM:
		return s->final_norm;
	default:
		return stack == main_stack ? head_slot_count(facts, slot) : 0;
	}
}

bool slot_tied(const struct facts *facts, enum stack stack, enum slot slot) {
	switch (slot) {
	case SLOT_EMBEDDING:
		return stack == STACK_ENCODER && facts->shared_embeddings;
	case SLOT_OUTPUT:
		return facts->tied_output;
	case SLOT_WORDS:
	case SLOT_TAIL:
		return facts->tied_bands;
	default:
		return false;
	}
}

static int band_size(const struct band_facts *bands, int b) {
	return bands->end[b] - (b ? bands->end[b - 1] : 0);
}

static void layer_shape(const struct facts *facts, enum stack stack, enum slot slot, int *ret_out,
                int *ret_in) {
	const struct stack_facts *s = &facts->stack[stack];
	*ret_out = *ret_in = s->dim;
	switch (slot) {
	case SLOT_ATTN_NORM:
	case SLOT_CROSS_NORM:
	case SLOT_FFN_NORM:
		*ret_in = 0;
		break;
	case SLOT_QKV:
		*ret_out = 3 * s->dim;
		break;
	case SLOT_CROSS_KV:
		*ret_out = 2 * s->dim;
		*ret_in = facts->stack[STACK_ENCODER].dim;
		break;
	case SLOT_UP:
		*ret_out = s->ffn;
		break;
	case SLOT_DOWN:
		*ret_in = s->ffn;
		break;
	default:
		break;
	}
}

/* Of the slots that a stack has several of, but for layers. */
static void band_shape(
                const struct facts *facts, enum slot slot, int index, int *ret_out, int *ret_in) {
	const struct band_facts *input = &facts->input, *output = &facts->output;
	switch (slot) {
	case SLOT_BAND:
		*ret_out = band_size(input, index);
		*ret_in = input->dim[index];
		break;
	case SLOT_BAND_PROJECT:
		*ret_in = input->dim[index];
		break;
	case SLOT_WORDS:
		*ret_out = output->end[0];
		break;
	case SLOT_CLASSES:
		*ret_out = output->n - 1;
		break;
	case SLOT_REDUCE:
	case SLOT_REDUCE_TIED:
		*ret_out = output->dim[index + 1];
		break;
	case SLOT_TAIL:
		*ret_out = band_size(output, index + 1);
		*ret_in = output->dim[index + 1];
		break;
	default:
		*ret_out = facts->classifiers[index].classes;
		break;
	}
}

void slot_shape(const struct facts *facts, enum stack stack, enum slot slot, int index,
                int *ret_out, int *ret_in) {
	const struct stack_facts *s = &facts->stack[stack];
	if (slot_of_layer(slot)) {
		layer_shape(facts, stack, slot, ret_out, ret_in);
		return;
	}
	*ret_out = *ret_in = s->dim;
	switch (slot) {
	case SLOT_EMBEDDING:
		*ret_out = s->vocab;
		break;
	case SLOT_OUTPUT:
		*ret_out = facts->vocab;
		break;
	case SLOT_POSITIONS:
		*ret_out = s->position_offset + s->context;
		break;
	case SLOT_TYPES:
		*ret_out = s->token_types + s->constant_types;
		break;
	case SLOT_EMBEDDING_NORM:
	case SLOT_FINAL_NORM:
	case SLOT_MLM_NORM:
		*ret_in = 0;
		break;
	case SLOT_MLM_DENSE:
	case SLOT_CLASS_DENSE:
		break;
	default:
		band_shape(facts, slot, index, ret_out, ret_in);
		break;
	}
}

void part_rows(enum part part, int n_out, int *ret_first, int *ret_count) {
	int pieces = part == WHOLE ? 1 : part <= THIRD_V ? 3 : 2;
	int first = part == WHOLE ? 0 : (int)part - (part <= THIRD_V ? THIRD_Q : HALF_K);
	*ret_count = n_out / pieces;
	*ret_first = first * *ret_count;
}

/* Appends `pattern` with its #, + and @ filled in. */
static void expand(const struct facts *facts, const char *pattern, int index, char *name,
                size_t used) {
	for (; *pattern && used + 1 < TENSOR_NAME_MAX; pattern++) {
		char *at = name + used;
		size_t room = TENSOR_NAME_MAX - used;
		if (*pattern == '#' || *pattern == '+')
			snprintf(at, room, "%d", index + (*pattern == '+'));
		else if (*pattern == '@')
			snprintf(at, room, "%s", facts->classifiers[index].name);
		else
			snprintf(at, room, "%c", *pattern);
		used += strlen(at);
	}
}

void binding_name(const struct facts *facts, const struct stack_table *table, const char *prefix,
                const struct binding *binding, int index, char name[TENSOR_NAME_MAX]) {
	int used;
	if (slot_of_layer(binding->slot))
		used = snprintf(name, TENSOR_NAME_MAX, "%s%s%d.", prefix, table->layers, index);
	else
		used = snprintf(name, TENSOR_NAME_MAX, "%s", binding->bare ? "" : prefix);
	expand(facts, binding->name, index, name, (size_t)used);
}

long family_layer_of(const struct stack_table *table, const char *prefix, const char *name) {
	size_t n_prefix = strlen(prefix), n_layers = strlen(table->layers);
	if (strncmp(name, prefix, n_prefix) != 0
	                || strncmp(name + n_prefix, table->layers, n_layers) != 0)
		return -1;
	const char *digits = name + n_prefix + n_layers;
	char *end;
	if (*digits < '0' || *digits > '9')
		return -1;
	long layer = strtol(digits, &end, 10);
	return *end == '.' ? layer : -1;
}
