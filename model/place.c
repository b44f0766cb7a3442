/* SPDX-License-Identifier: Apache-2.0 */
/* Which field of the weights a slot is. */
#include "model/place.h"

static struct norm_weights *norm_of(struct weights *w, const struct place *at) {
	struct stack_weights *s = &w->stack[at->stack];
	struct layer_weights *layer = slot_of_layer(at->slot) ? &s->layers[at->index] : NULL;
	switch (at->slot) {
	case SLOT_EMBEDDING_NORM:
		return &s->embedding_norm;
	case SLOT_FINAL_NORM:
		return &s->final_norm;
	case SLOT_MLM_NORM:
		return &w->mlm.norm;
	case SLOT_ATTN_NORM:
		return &layer->attn_norm;
	case SLOT_CROSS_NORM:
		return &layer->cross_norm;
	case SLOT_FFN_NORM:
		return &layer->ffn_norm;
	default:
		return NULL;
	}
}

static struct linear_weights *layer_linear_of(struct layer_weights *layer, enum slot slot) {
	switch (slot) {
	case SLOT_QKV:
		return &layer->qkv;
	case SLOT_OUT:
		return &layer->out;
	case SLOT_CROSS_Q:
		return &layer->cross_q;
	case SLOT_CROSS_KV:
		return &layer->cross_kv;
	case SLOT_CROSS_OUT:
		return &layer->cross_out;
	case SLOT_UP:
		return &layer->up;
	case SLOT_DOWN:
		return &layer->down;
	default:
		return NULL;
	}
}

static struct linear_weights *linear_of(struct weights *w, const struct place *at) {
	struct stack_weights *s = &w->stack[at->stack];
	if (slot_of_layer(at->slot))
		return layer_linear_of(&s->layers[at->index], at->slot);
	switch (at->slot) {
	case SLOT_BAND_PROJECT:
		return &s->bands[at->index].project;
	case SLOT_WORDS:
		return &w->adaptive.words;
	case SLOT_CLASSES:
		return &w->adaptive.classes;
	case SLOT_REDUCE:
	case SLOT_REDUCE_TIED:
		return &w->adaptive.reduce[at->index];
	case SLOT_TAIL:
		return &w->adaptive.tail[at->index];
	case SLOT_MLM_DENSE:
		return &w->mlm.dense;
	case SLOT_OUTPUT:
		return &w->output;
	case SLOT_CLASS_DENSE:
		return &w->classifiers[at->index].dense;
	case SLOT_CLASS_OUT:
		return &w->classifiers[at->index].out;
	default:
		return NULL;
	}
}

struct matrix *place_matrix(struct weights *w, const struct place *at) {
	if (at->slot == SLOT_EMBEDDING)
		return &w->stack[at->stack].embedding;
	if (at->slot == SLOT_BAND)
		return &w->stack[at->stack].bands[at->index].table;
	return &linear_of(w, at)->w;
}

const float **place_plain(struct weights *w, const struct place *at, enum tensor_role role) {
	if (at->slot == SLOT_POSITIONS)
		return &w->stack[at->stack].positions;
	if (at->slot == SLOT_TYPES)
		return &w->stack[at->stack].types;
	struct norm_weights *norm = norm_of(w, at);
	if (norm)
		return role == ROLE_GAIN ? &norm->gain : &norm->bias;
	return &linear_of(w, at)->bias;
}
