/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model made in memory from random numbers, for tests of the engine that need no checkpoint. The
 * same shape gives the same weights whatever the kernel table.
 */
#ifndef FATHOM_TESTS_RANDOM_MODEL_H
#define FATHOM_TESTS_RANDOM_MODEL_H

#include "model/model.h"

/* The format of layers and vocabularies of the models made from now on; f32 at first. */
void random_model_use(enum weight_format format);

/* `layers`, `dim`, `heads`, `ffn`, and what else differs between families; the rest is filled in. */
struct model *random_model_create(const struct ops *ops, const struct stack_facts *shape, int vocab,
                int context, bool tied);
/* The same for any kind of model: the facts that say what there is. */
struct model *random_model_of(const struct ops *ops, const struct facts *shape);
void random_model_destroy(struct model *model);

/* The model that keeps only the layers of `plan`, renumbered from 0; it borrows the weights. */
struct model *random_model_prune(const struct model *model, const struct plan *plan);
struct model *random_model_prune_to(const struct model *model, const struct subnet *subnet);
void random_model_destroy_pruned(struct model *pruned);

/* A subnet of a decoder-only model. */
struct subnet random_model_subnet(const struct plan *plan);

/* Uniform in [0, n), from a state that the caller keeps. */
unsigned random_below(uint64_t *state, unsigned n);

/* The exact tables that this machine can run, C first; returns how many. */
int random_model_tables(const struct ops *tables[CPU_LEVELS + 1]);

#endif
