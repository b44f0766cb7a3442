/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cost model: how long a step takes, fitted while running. Pure: time comes in as numbers.
 *
 * A step with per-layer row counts costs  constant + sum over layers of table[rows of that layer] +
 * attention * sum over rows of (kept layers x context) + head * rows with logits. Extra rows are
 * free up to the machine's ridge and cost in proportion beyond it, so the layer's time is a table
 * over rows, interpolated, one for each stack.
 */
#ifndef FATHOM_SERVER_COST_H
#define FATHOM_SERVER_COST_H

#include <stdbool.h>
#include <stddef.h>

#include "model/plan.h"

enum { COST_POINTS = 10 };
extern const int cost_rows[COST_POINTS]; /* 1, 2, 4, 8, 12, 16, 32, 64, 128, 512 */

struct cost_model {
	double layer_ms[STACKS][COST_POINTS]; /* one layer at cost_rows[i] rows */
	double attention_ms;                  /* per kept layer, row and 1,024 keys of context */
	double head_ms[COST_POINTS];          /* the head at cost_rows[i] rows with logits */
	double constant_ms;                   /* of a step */
	double margin; /* predictions are multiplied by this; learnt from their own errors; >= 1 */
	double error_p50, error_p95; /* of |actual / predicted - 1|, recent requests */
	double answer_ratio;         /* learnt quantile of answer length over max_tokens */
	bool fitted;
};

#endif
