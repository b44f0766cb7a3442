/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Families: which tensor of a checkpoint fills which slot of the one parametrised block.
 *
 * A slot is a matrix with its bias, or a norm with its gain and bias. A binding says what tensor is
 * a slot's matrix or vector, or one third of it where a checkpoint stores queries, keys and values
 * apart. The shape follows from the slot and the facts, so that a binding has little to say. Pure.
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
	SLOT_EMBEDDING_NORM,
	SLOT_FINAL_NORM,
	SLOT_OUTPUT,
	/* of a layer */
	SLOT_ATTN_NORM,
	SLOT_QKV,
	SLOT_OUT,
	SLOT_FFN_NORM,
	SLOT_UP,
	SLOT_DOWN,
	SLOTS,
};

enum tensor_role { ROLE_MATRIX, ROLE_GAIN, ROLE_BIAS };

enum third { THIRD_Q, THIRD_K, THIRD_V, WHOLE };

struct binding {
	enum slot slot;
	enum tensor_role role;
	const char *name; /* after the family's prefix, and for a layer's slot after "PREFIX LAYERS N ." */
	enum third third; /* of the slot's output channels */
	bool transposed;  /* stored [in, out] */
	bool bare;        /* the name takes no prefix */
};

struct family_table {
	const char *const *prefixes; /* tried in this order, ended by NULL */
	const char *layers;          /* what stands before a layer's number: "decoder.layers." */
	const struct binding *bindings;
	size_t n_bindings;
};

const struct family_table *family_table(enum family family);

/* Whether the slot is one of each layer. */
bool slot_of_layer(enum slot slot);
/* Whether a model of these facts reads the slot from the checkpoint. */
bool slot_present(const struct facts *facts, enum stack stack, enum slot slot);
/* [n_out, n_in] of the slot's matrix; of a norm n_out = dim and n_in = 0. */
void slot_shape(const struct facts *facts, enum stack stack, enum slot slot, int *ret_out,
                int *ret_in);

enum { TENSOR_NAME_MAX = 160 };

/* The tensor's full name. `layer` is read for a layer's slot only. */
void binding_name(const struct family_table *table, const char *prefix,
                const struct binding *binding, int layer, char name[TENSOR_NAME_MAX]);

/* The layer that a tensor's name speaks of, or -1. */
long family_layer_of(const struct family_table *table, const char *prefix, const char *name);

#endif
