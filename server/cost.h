/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cost model: how long a step takes, fitted while running. Pure: time comes in as numbers.
 *
 * A step with per-layer row counts costs  constant + sum over layers of table[rows of that layer] +
 * attention * sum over rows of (kept layers x context) + head * rows with logits. Extra rows are
 * free up to the machine's ridge and cost in proportion beyond it, so the layer's time is a table
 * over rows, interpolated, one for each stack.
 *
 * Attention has two rates: a decode row reads its whole cache for itself, the rows of a prompt
 * chunk share the reading.
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
	double attention_ms;                  /* per kept layer, decode row and 1,024 keys */
	double chunk_attention_ms;            /* the same for the rows of a prompt chunk */
	double head_ms[COST_POINTS];          /* the head at cost_rows[i] rows with logits */
	double constant_ms;                   /* of a step */
	double row_ms;                        /* of a row outside the layers: embedding */
	double margin; /* predictions are multiplied by this; learnt from their own errors; >= 1 */
	double margin_rescued; /* the same for requests that may step down when they fall behind */
	double error_p50, error_p95; /* of |actual / predicted - 1|, recent requests */
	double answer_ratio;         /* learnt quantile of answer length over max_tokens */
	bool fitted;
};

/* ---- one step -------------------------------------------------------------------------------- */

/* What a step does, as far as its time depends on it. */
struct cost_step {
	int layers;           /* of the stack */
	const int *row_count; /* [layers] rows that keep each layer */
	int rows;
	int logit_rows;
	double attended;       /* sum over decode rows of kept layers x context / 1,024 */
	double chunk_attended; /* the same over prompt rows */
};

double cost_step_ms(const struct cost_model *cost, const struct cost_step *step);

/*
 * Moves the model towards a measured step: every term changes by `rate` (0.02) times the relative
 * error times its share of the prediction. A request is a sum of steps, so the mean is what is
 * learnt, but no step counts as taking more than three times its prediction: one hiccup of the
 * machine moves little.
 */
void cost_refine(struct cost_model *cost, const struct cost_step *step, double actual_ms,
                double rate);

/* ---- a whole request ------------------------------------------------------------------------- */

/* What runs already: its rows share every step with the newcomer. All zero: an idle server. */
struct cost_load {
	int decode_rows;
	int rows[MAX_LAYERS]; /* decode rows that keep each layer */
	double attended;      /* as in cost_step */
	int pending;          /* prompt tokens that go before */
	int pending_rows[MAX_LAYERS];
};

/* What a request would do. */
struct cost_work {
	const struct plan *plan;
	int prompt_tokens;  /* of all its prompts */
	int longest_prompt; /* the context that its answers start with */
	int scored_tokens;  /* prompt tokens whose logits are needed */
	int choices;        /* sequences that decode side by side */
	int output_tokens;  /* of each choice; 0: the prompt is only scored */
};

/* How the engine cuts prompts. */
struct cost_limits {
	int max_rows;     /* of a step */
	int prefill_rows; /* of prompts in a step that also decodes */
	int sequences;    /* most that run side by side */
};

struct cost_time {
	double first_ms; /* until the first token is out, or until the prompt is scored */
	double token_ms; /* each further token */
	double total_ms; /* until the last token is out */
};

/* The prediction without a margin. */
void cost_predict(const struct cost_model *cost, const struct cost_limits *limits,
                const struct cost_load *load, const struct cost_work *work,
                struct cost_time *ret_time);

/* Lone decode step with a short past, and a prompt token in a chunk of 128, at `depth` layers. */
double cost_decode_ms(const struct cost_model *cost, int depth);
double cost_prefill_ms(const struct cost_model *cost, int depth);

/* ---- fitting --------------------------------------------------------------------------------- */

/*
 * Warm-up measurements in milliseconds: the time of a step with a chunk of cost_rows[i] prompt rows
 * from position 0 at two depths; a lone decode row and a chunk at a late position; the head. A
 * point that was not measured is negative and is extrapolated.
 */
struct cost_samples {
	int shallow[COST_POINTS],
	                deep[COST_POINTS]; /* depths; shallow < deep, or equal: one depth */
	double shallow_ms[COST_POINTS], deep_ms[COST_POINTS]; /* low quantiles: noise only adds */
	double head_ms[COST_POINTS];
	/* Bytes of 1,024 keys and values over the bytes of the weights of a layer: the same share of
	 * arithmetic. Measured attention is kept near it, since the difference that shows it is
	 * small. 0: unknown. */
	double attend_share;
	int attend_depth;   /* of the following */
	int attend_context; /* position of the late row; 0: not measured */
	double attend_near_ms, attend_far_ms;
	int chunk_rows; /* rows of the chunk at a late position; 0: not measured */
	int chunk_depth, chunk_context;
	double chunk_near_ms, chunk_far_ms;
	double level;  /* median over the low quantile that the times above are; at least 1 */
	double spread; /* a high quantile over the median, at least 1 */
};

void cost_fit(const struct cost_samples *samples, struct cost_model *ret_cost);

/* ---- learning from whole requests ------------------------------------------------------------ */

enum { COST_WINDOW = 64, COST_PRIOR = 16 };

/*
 * The last requests' actual / predicted time and answer length / max_tokens. Before there are any,
 * COST_PRIOR supposed ones stand in, which the first real ones replace; then the window grows.
 */
struct cost_history {
	double ratio[COST_WINDOW];
	double length[COST_WINDOW];
	size_t ratios, lengths; /* real ones; the window is a ring */
};

/* Supposes what the warm-up's spread suggests, and sets the margins from it. */
void cost_history_init(struct cost_history *history, struct cost_model *cost, double spread);

/* A request that ended: its ratio moves margin and errors. */
void cost_learn_ratio(struct cost_history *history, struct cost_model *cost, double ratio);
/* An answer that ended by itself or at its limit, never one that was cut. */
void cost_learn_length(struct cost_history *history, struct cost_model *cost, double ratio);

#endif
