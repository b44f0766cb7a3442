/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warm-up: measures what the cost model is fitted to, on a batch that runs nothing yet. Engine
 * thread. It also touches weights and scratch, so that the first request finds them in memory.
 */
#ifndef FATHOM_SERVER_WARMUP_H
#define FATHOM_SERVER_WARMUP_H

#include "server/batch.h"

/*
 * Takes some hundred milliseconds for a small model and a few seconds for a large one.
 * `keep_going(arg)` is asked between steps; when it says no, the rest is left unmeasured.
 */
void warmup_measure(struct batch *b, const struct model *model, bool (*keep_going)(void *arg),
                void *arg, struct cost_samples *ret_samples);

/*
 * Whether costs that were measured earlier still hold: runs a few steps, a quarter of a second or
 * so, and moves `cost` by what they took against what it says. False if it is too far off.
 */
bool warmup_check(struct batch *b, const struct model *model, bool (*keep_going)(void *arg),
                void *arg, struct cost_model *cost);

#endif
