/* SPDX-License-Identifier: Apache-2.0 */
/* Where the time of a step goes: a kernel table that stands before another and times its calls. */
#ifndef FATHOM_BENCH_ENGINE_PARTS_H
#define FATHOM_BENCH_ENGINE_PARTS_H

#include "model/ops.h"

/* The table that times `ops`; one for the process. Its name and its results are those of `ops`. */
const struct ops *engine_parts_watch(const struct ops *ops);

/* What is called from begin to end counts; end adds the wall's time between them. By the thread that
 * runs steps, between steps. Without a watched table they do nothing that anybody sees. */
void engine_parts_begin(void);
void engine_parts_end(double seconds);

/*
 * Prints what each part took of the time of `threads` threads, and how much of its own limit each
 * reached: products of `peak` operations a second, attention of `f32`. What is in no part is waiting
 * at barriers, embedding and copies.
 */
void engine_parts_print(int threads, double peak, double f32);

/* Forgets what was counted so far. */
void engine_parts_forget(void);

#endif
