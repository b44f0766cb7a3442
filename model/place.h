/* SPDX-License-Identifier: Apache-2.0 */
/* Places: which field of the weights a family's slot is. Pure. */
#ifndef FATHOM_MODEL_PLACE_H
#define FATHOM_MODEL_PLACE_H

#include "model/family.h"
#include "model/weights.h"

/* One slot of one stack; the index is the layer, band, tail or classification head. */
struct place {
	enum stack stack;
	enum slot slot;
	int index;
};

/* The matrix of a slot that the kernels read in panels. */
struct matrix *place_matrix(struct weights *weights, const struct place *at);
/* The pointer that is to hold the plain f32 of this role of the slot. */
const float **place_plain(struct weights *weights, const struct place *at, enum tensor_role role);

#endif
