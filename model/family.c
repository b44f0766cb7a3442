/* SPDX-License-Identifier: Apache-2.0 */
/* Families: the binding tables, and the shapes that follow from the facts. */
#include "model/family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
#define MATRIX(slot, name) { slot, ROLE_MATRIX, name, WHOLE, false, false }
#define OUTPUT_MATRIX(name) { SLOT_OUTPUT, ROLE_MATRIX, name, WHOLE, false, true }
#define NORM(slot, name) \
	{ slot, ROLE_GAIN, name ".weight", WHOLE, false, false }, \
	{ slot, ROLE_BIAS, name ".bias", WHOLE, false, false }
#define LINEAR(slot, name, third, transposed) \
	{ slot, ROLE_MATRIX, name ".weight", third, transposed, false }, \
	{ slot, ROLE_BIAS, name ".bias", third, false, false }

#define FAIRSEQ_LAYER \
	LINEAR(SLOT_QKV, "self_attn.q_proj", THIRD_Q, false), \
	LINEAR(SLOT_QKV, "self_attn.k_proj", THIRD_K, false), \
	LINEAR(SLOT_QKV, "self_attn.v_proj", THIRD_V, false), \
	LINEAR(SLOT_OUT, "self_attn.out_proj", WHOLE, false), \
	NORM(SLOT_ATTN_NORM, "self_attn_layer_norm"), \
	LINEAR(SLOT_UP, "fc1", WHOLE, false), \
	LINEAR(SLOT_DOWN, "fc2", WHOLE, false), \
	NORM(SLOT_FFN_NORM, "final_layer_norm")
/* clang-format on */

/* Hugging Face OPT: fairseq's names, with a final norm of its own name. */
static const struct binding opt[] = {
	MATRIX(SLOT_EMBEDDING, "decoder.embed_tokens.weight"),
	MATRIX(SLOT_POSITIONS, "decoder.embed_positions.weight"),
	NORM(SLOT_FINAL_NORM, "decoder.final_layer_norm"),
	OUTPUT_MATRIX("lm_head.weight"),
	FAIRSEQ_LAYER,
};

/* fairseq's transformer_lm with a plain embedding and softmax. */
static const struct binding fathom_lm[] = {
	MATRIX(SLOT_EMBEDDING, "decoder.embed_tokens.weight"),
	MATRIX(SLOT_POSITIONS, "decoder.embed_positions.weight"),
	NORM(SLOT_EMBEDDING_NORM, "decoder.layernorm_embedding"),
	NORM(SLOT_FINAL_NORM, "decoder.layer_norm"),
	MATRIX(SLOT_OUTPUT, "decoder.output_projection.weight"),
	FAIRSEQ_LAYER,
};

/* Hugging Face GPT-2: Conv1D stores [in, out], and c_attn holds queries, keys and values. */
static const struct binding gpt2[] = {
	MATRIX(SLOT_EMBEDDING, "wte.weight"),
	MATRIX(SLOT_POSITIONS, "wpe.weight"),
	NORM(SLOT_FINAL_NORM, "ln_f"),
	OUTPUT_MATRIX("lm_head.weight"),
	NORM(SLOT_ATTN_NORM, "ln_1"),
	LINEAR(SLOT_QKV, "attn.c_attn", WHOLE, true),
	LINEAR(SLOT_OUT, "attn.c_proj", WHOLE, true),
	NORM(SLOT_FFN_NORM, "ln_2"),
	LINEAR(SLOT_UP, "mlp.c_fc", WHOLE, true),
	LINEAR(SLOT_DOWN, "mlp.c_proj", WHOLE, true),
};

static const char *const model_prefixes[] = { "model.", "", NULL };
static const char *const bare_first[] = { "", "model.", NULL };
static const char *const transformer_prefixes[] = { "transformer.", "", NULL };

const struct family_table *family_table(enum family family) {
	static const struct family_table tables[] = {
		[FAMILY_OPT] = { model_prefixes, "decoder.layers.", opt, sizeof opt / sizeof *opt },
		[FAMILY_GPT2] = { transformer_prefixes, "h.", gpt2, sizeof gpt2 / sizeof *gpt2 },
		[FAMILY_FATHOM_LM] = { bare_first, "decoder.layers.", fathom_lm,
		                sizeof fathom_lm / sizeof *fathom_lm },
	};
	return &tables[family];
}

bool slot_of_layer(enum slot slot) {
	return slot >= SLOT_ATTN_NORM;
}

bool slot_present(const struct facts *facts, enum stack stack, enum slot slot) {
	const struct stack_facts *s = &facts->stack[stack];
	switch (slot) {
	case SLOT_POSITIONS:
		return s->positions == POSITIONS_LEARNED;
	case SLOT_EMBEDDING_NORM:
		return s->embedding_norm;
	case SLOT_FINAL_NORM:
		return s->final_norm;
	case SLOT_OUTPUT:
		return !facts->tied_output;
	default:
		return true;
	}
}

void slot_shape(const struct facts *facts, enum stack stack, enum slot slot, int *ret_out,
                int *ret_in) {
	const struct stack_facts *s = &facts->stack[stack];
	int out = s->dim, in = s->dim;
	switch (slot) {
	case SLOT_EMBEDDING:
	case SLOT_OUTPUT:
		out = facts->vocab;
		break;
	case SLOT_POSITIONS:
		out = s->position_offset + facts->context;
		break;
	case SLOT_QKV:
		out = 3 * s->dim;
		break;
	case SLOT_UP:
		out = s->ffn;
		break;
	case SLOT_DOWN:
		in = s->ffn;
		break;
	case SLOT_EMBEDDING_NORM:
	case SLOT_FINAL_NORM:
	case SLOT_ATTN_NORM:
	case SLOT_FFN_NORM:
		in = 0;
		break;
	case SLOT_OUT:
	case SLOTS:
		break;
	}
	*ret_out = out;
	*ret_in = in;
}

void binding_name(const struct family_table *table, const char *prefix,
                const struct binding *binding, int layer, char name[TENSOR_NAME_MAX]) {
	if (slot_of_layer(binding->slot))
		snprintf(name, TENSOR_NAME_MAX, "%s%s%d.%s", prefix, table->layers, layer,
		                binding->name);
	else
		snprintf(name, TENSOR_NAME_MAX, "%s%s", binding->bare ? "" : prefix, binding->name);
}

long family_layer_of(const struct family_table *table, const char *prefix, const char *name) {
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
