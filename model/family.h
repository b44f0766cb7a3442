/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Families: which tensor of a checkpoint fills which slot of the one parametrised block.
 *
 * A slot is a matrix with its bias, or a norm with its gain and bias. A stack may have several of
 * one slot: one for each layer, band of an adaptive vocabulary, or classification head. A binding
 * says what tensor is a slot's matrix or vector, or a part of it where a checkpoint stores queries,
 * keys and values apart; of two bindings of one part the first whose tensor is there counts. The
 * shape follows from the slot and the facts, so that a binding has little to say. Pure.
 */
#ifndef FATHOM_MODEL_FAMILY_H
#define FATHOM_MODEL_FAMILY_H

#include <stdbool.h>
#include <stddef.h>

#include "model/facts.h"

enum slot {
	/* of a stack */
	SLOT_EMBEDDING,
	SLOT_POSITIONS,
	SLOT_TYPES,
	SLOT_EMBEDDING_NORM,
	SLOT_FINAL_NORM,
	/* of an adaptive vocabulary: of each band of the input, and of each band but the first of
	 * the output */
	SLOT_BAND,
	SLOT_BAND_PROJECT,
	SLOT_WORDS,
	SLOT_CLASSES,
	SLOT_REDUCE,
	SLOT_REDUCE_TIED, /* the same, from the input band's projection */
	SLOT_TAIL,
	/* of the heads */
	SLOT_MLM_DENSE,
	SLOT_MLM_NORM,
	SLOT_OUTPUT,
	SLOT_CLASS_DENSE, /* of each classification head */
	SLOT_CLASS_OUT,
	/* of a layer */
	SLOT_ATTN_NORM,
	SLOT_QKV,
	SLOT_OUT,
	SLOT_CROSS_NORM,
	SLOT_CROSS_Q,
	SLOT_CROSS_KV,
	SLOT_CROSS_OUT,
	SLOT_FFN_NORM,
	SLOT_UP,
	SLOT_DOWN,
	SLOTS,
};

enum tensor_role { ROLE_MATRIX, ROLE_GAIN, ROLE_BIAS };

/* A share of the slot's output channels. */
enum part { WHOLE, THIRD_Q, THIRD_K, THIRD_V, HALF_K, HALF_V };

struct binding {
	enum slot slot;
	enum tensor_role role;
	/* After the family's prefix, and for a layer's slot after "PREFIX LAYERS N ."; # is the number
	 * of the band or tail, + one more, @ the classification head's name. */
	const char *name;
	enum part part;
	bool transposed; /* stored [in, out] */
	bool bare;       /* the name takes no prefix */
	bool row;        /* a vector stored [1, n] */
	bool optional;   /* absent: the slot has no such part */
	bool if_tied;    /* counts only where the output is the embedding */
};

struct stack_table {
	const char *layers; /* what stands before a layer's number: "decoder.layers." */
	const struct binding *bindings;
	size_t n_bindings;
};

struct family_table {
	const char *const *prefixes; /* tried in this order, ended by NULL */
	struct stack_table stack[STACKS];
};

const struct family_table *family_table(enum family family);

/* Whether the slot is one of each layer. */
bool slot_of_layer(enum slot slot);
/* How many of this slot the stack has; tied ones count. */
int slot_count(const struct facts *facts, enum stack stack, enum slot slot);
/* Whether the slot's matrix is that of another slot. */
bool slot_tied(const struct facts *facts, enum stack stack, enum slot slot);
/* [n_out, n_in] of the slot's matrix; of a norm n_out = dim and n_in = 0. */
void slot_shape(const struct facts *facts, enum stack stack, enum slot slot, int index,
                int *ret_out, int *ret_in);
/* The part's first output channel of n_out, and how many it has. */
void part_rows(enum part part, int n_out, int *ret_first, int *ret_count);

enum { TENSOR_NAME_MAX = 224 };

/* The tensor's full name. `index` is the layer, band, tail or classification head. */
void binding_name(const struct facts *facts, const struct stack_table *table, const char *prefix,
                const struct binding *binding, int index, char name[TENSOR_NAME_MAX]);

/* The layer that a tensor's name speaks of, or -1. */
long family_layer_of(const struct stack_table *table, const char *prefix, const char *name);

#endif
