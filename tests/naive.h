/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass in double precision, as the formulas read: one token after another, no cache, no
 * batch. What the engine is held against where PyTorch is not at hand. Fails the test if memory is
 * not to be had.
 */
#ifndef FATHOM_TESTS_NAIVE_H
#define FATHOM_TESTS_NAIVE_H

#include "model/model.h"

/*
 * States of a text after the kept layers and the final norm: [n][dim]. `types` may be NULL. Of a
 * decoder that attends to an encoder, `source` is that one's states, [n_source][its dim].
 */
void naive_run(const struct model *m, enum stack stack, const struct plan *plan,
                const int32_t *tokens, const int32_t *types, int n, const double *source,
                int n_source, double *ret_states);

/* The same with the keys and values that a decoder caches, of its own and of its source, rounded as
 * `kv` keeps them. */
void naive_run_kv(const struct model *m, enum stack stack, const struct plan *plan,
                enum kv_format kv, const int32_t *tokens, const int32_t *types, int n,
                const double *source, int n_source, double *ret_states);

/* Scores of a state over the vocabulary: logits, or log-probabilities where the head is adaptive. An
 * encoder's go through its masked-LM head. */
void naive_scores(const struct model *m, const double *state, double *ret_scores);

/* Scores of classifier `which`. */
void naive_classes(const struct model *m, int which, const double *state, double *ret_scores);

#endif
