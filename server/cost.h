/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cost model: how long a step takes, fitted while running. Pure: time comes in as numbers.
 *
 * A step with per-layer row counts costs  constant + sum over the layers of both stacks of
 * table[rows of that layer] + sum over decoder layers of cross[source rows projected for it] +
 * attention * sum over rows of (kept layers x keys) + head * rows with logits. Extra rows are free
 * up to the machine's ridge and cost in proportion beyond it, so the layer's time is a table over
 * rows, interpolated, one for each stack.
 *
 * Attention has three rates: a decode row reads its whole cache for itself, the rows of a prompt
 * chunk share the reading, and so do the rows of an encoder's text, each of which sees all of it.
 */
#ifndef FATHOM_SERVER_COST_H
#define FATHOM_SERVER_COST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/plan.h"

enum { COST_POINTS = 10 };
extern const int cost_rows[COST_POINTS]; /* 1, 2, 4, 8, 12, 16, 32, 64, 128, 512 */

/* Steps of running answers only, of prompts only, of both, and of texts for an encoder without
 * running answers. */
enum cost_kind { COST_DECODE, COST_PREFILL, COST_MIXED, COST_ENCODE, COST_KINDS };

const char *cost_kind_name(enum cost_kind kind); /* "decode", ... */

/* Quantiles of |actual / predicted - 1|; both 0: none were seen. */
struct cost_error {
	double p50, p95;
};

struct cost_model {
	double layer_ms[STACKS][COST_POINTS]; /* one layer at cost_rows[i] rows */
	double cross_ms[COST_POINTS]; /* keys and values of cost_rows[i] source rows, one layer */
	double attention_ms;          /* per kept layer, decode row and 1,024 keys */
	double chunk_attention_ms;    /* the same for the rows of a prompt chunk */
	double source_attention_ms;   /* and of an encoder's text */
	double head_ms[COST_POINTS];  /* the head at cost_rows[i] rows with logits */
	double class_ms;              /* a row that a classifier scores */
	double constant_ms;           /* of a step */
	double row_ms;                /* of a row outside the layers: embedding */
	/* The tables hold the median step of an undisturbed machine. Beside them stand two factors
	 * and a rate that are learnt apart; 0 stands for "not known", which changes nothing. */
	double pace;            /* actual over the tables in the last steps: contention raises it */
	double mean_ratio;      /* the same in the mean of the last second: for sums of steps */
	double jitter;          /* actual over what the pace said, in the mean of the last second */
	double interference_ms; /* what others' prompts add to a step, for each row of theirs */
	double recent_rows;     /* of running answers, in the mean of the last steps */
	double recent_keys;     /* that such a row attends to, in cost_step's unit */
	double recent_prompt_ms; /* of what an answer reads before it begins, by the tables */
	double margin; /* predictions are multiplied by this; learnt from their own errors; >= 1 */
	double margin_rescued; /* the same for requests that may step down when they fall behind */
	double error_p50, error_p95;              /* of |actual / predicted - 1|, recent requests */
	struct cost_error step_error[COST_KINDS]; /* the same of recent steps */
	double answer_ratio; /* learnt quantile of answer length over max_tokens */
	double target_ratio; /* the same of a seq2seq's answers over their sources */
	bool fitted;
};

/* ---- one step -------------------------------------------------------------------------------- */

/* What a step does, as far as its time depends on it. */
struct cost_step {
	int layers[STACKS];           /* of each stack; 0: the model has no such stack */
	const int *row_count[STACKS]; /* [layers] rows that keep each layer; NULL: no such stack */
	/* [decoder layers] source rows whose keys and values are projected for that layer; NULL:
	 * no layer attends to a source. */
	const int *source_count;
	int rows; /* of both stacks */
	/* Of these, the rows of running answers, and how many of them keep each decoder layer; NULL:
	 * unknown. What a step takes beyond them is what others' prompts cost running answers. */
	int decode_rows;
	const int *decode_count;
	int drafted_rows; /* of decode_rows, those that verify drafted tokens: not answers */
	int logit_rows;   /* through the language model's or the masked-token head */
	int class_rows;   /* through a classifier */
	/* Sums over rows of kept layers x keys / 1,024. A decoder's keys are its own past, itself
	 * included, and its source; an encoder's are its whole text. */
	double attended;        /* decode rows */
	double chunk_attended;  /* rows of prompts */
	double source_attended; /* encoder rows */
};

/* At the machine's present pace: the median, not the mean. */
double cost_step_ms(const struct cost_model *cost, const struct cost_step *step);
/* What a step is. */
enum cost_kind cost_kind_of(const struct cost_step *step);

/* ---- a whole request ------------------------------------------------------------------------- */

/* What runs already: its rows share every step with the newcomer. All zero: an idle server. */
struct cost_load {
	int decode_rows;
	int rows[MAX_LAYERS]; /* decode rows that keep each layer of the decoder */
	double attended;      /* as in cost_step */
	int pending;          /* decoder prompt tokens that go before */
	int pending_rows[MAX_LAYERS];
	int pending_source; /* encoder tokens that go before */
	int pending_source_rows[MAX_LAYERS];
	int pending_cross_rows[MAX_LAYERS]; /* source rows to be projected, by decoder layer */
	double pending_source_attended;     /* as in cost_step */
	/* cost_model's recent_rows and recent_keys: clients whose answers have just ended will ask
	 * again, and answers that have just begun will grow. 0: nothing is expected. */
	double recent_rows, recent_keys;
};

/* What a request would do. */
struct cost_work {
	const struct subnet *subnet;
	int prompt_tokens;  /* the decoder's, of all its prompts */
	int cached_tokens;  /* of these, those whose keys and values are there already */
	int longest_prompt; /* the own past that its answers start with */
	int scored_tokens; /* prompt tokens, or masked tokens of an encoder, whose logits are needed */
	int choices;       /* sequences that decode side by side; of a beam search, all beams */
	int output_tokens; /* of each choice; 0: the prompt is only scored */
	int sources;       /* texts of the encoder */
	int source_tokens; /* of all of them */
	int longest_source;
	int source_tiles;       /* of all of them, as in cost_limits */
	double source_attended; /* sum over them of length x length / 1,024 */
	int class_rows;         /* texts that a classifier scores */
};

/* How the engine cuts prompts. */
struct cost_limits {
	int max_rows;     /* of a step */
	int prefill_rows; /* of prompts in a step that also decodes */
	int sequences;    /* most that run side by side */
	int source_tiles; /* of a step: a text takes ceil(tokens / 64) of them; 0: no limit */
	/* Beside running answers prompts are cut so that a step takes no longer than this, answers
	 * included, where it can be helped (cost_prompt_rows); 0: no such bound. */
	double most_step_ms;
};

enum { COST_LEAST_ROWS = 8 };
#define COST_LEAST_SHARE 0.25

struct cost_time {
	double first_ms; /* until the first token is out, or until the prompt is scored */
	double token_ms; /* each further token */
	double total_ms; /* until the last token is out */
};

/*
 * How many of at most `rows` rows of a prompt at `subnet` a step may have beside `load`, so that it
 * stays within limits->most_step_ms, with room for the errors of such predictions. Each row sees
 * `keys` keys. Where a step of the load alone takes nearly as long, prompts get COST_LEAST_SHARE of
 * it nevertheless, and never fewer than COST_LEAST_ROWS rows.
 */
int cost_prompt_rows(const struct cost_model *cost, const struct cost_limits *limits,
                const struct cost_load *load, const struct subnet *subnet, double keys, int rows);

/* The prediction without a margin. */
void cost_predict(const struct cost_model *cost, const struct cost_limits *limits,
                const struct cost_load *load, const struct cost_work *work,
                struct cost_time *ret_time);

/*
 * By the depths of a subnet: a lone decode step with a short past, and a token of a lone prompt of
 * 128. A model with an encoder reads its prompts there, and projects them for each decoder layer.
 */
double cost_decode_ms(const struct cost_model *cost, const int depth[STACKS]);
double cost_prefill_ms(const struct cost_model *cost, const int depth[STACKS]);

/* ---- fitting --------------------------------------------------------------------------------- */

/*
 * One stack's part of the warm-up, in milliseconds: steps of cost_rows[i] rows at two depths, in
 * whole texts from position 0 on. A point that was not measured is negative and is extrapolated.
 */
struct cost_points {
	int shallow[COST_POINTS], deep[COST_POINTS]; /* shallow <= deep; equal: one depth */
	double shallow_ms[COST_POINTS], deep_ms[COST_POINTS]; /* low quantiles: noise only adds */
	int text[COST_POINTS]; /* tokens of the longest text; 0: as many as rows */
	/* Bytes of 1,024 keys and values over the bytes of the weights of a layer: the same share of
	 * arithmetic. Measured attention is kept near it, since the difference that shows it is
	 * small. 0: unknown. */
	double attend_share;
};

/*
 * Warm-up measurements: layers, the head, and attention as the difference between two steps of
 * equal rows. Where a model has two stacks, its encoder is measured with one decoder layer to
 * project for, and its decoder with sources of one token.
 */
struct cost_samples {
	struct cost_points stack[STACKS]; /* deep[i] is 0 where nothing was measured */
	int cross[COST_POINTS];           /* decoder layers of the following; at most 1: none */
	double cross_ms[COST_POINTS];     /* the shallow encoder step, projected for that many */
	double head_ms[COST_POINTS];
	double class_ms; /* of a row that a classifier scores */
	/* A lone decode row at the start and at a late position. */
	int attend_depth;
	int attend_context; /* position of the late row; 0: not measured */
	double attend_near_ms, attend_far_ms;
	int chunk_rows; /* rows of the chunk at a late position; 0: not measured */
	int chunk_depth, chunk_context;
	double chunk_near_ms, chunk_far_ms;
	int source_rows; /* encoder rows in short and in long texts; 0: not measured */
	int source_depth, source_context; /* tokens of a long text less those of a short one */
	double source_near_ms, source_far_ms;
	double level;  /* median over the low quantile that the times above are; at least 1 */
	double spread; /* a high quantile over the median, at least 1 */
};

/* Nothing measured yet. */
void cost_samples_init(struct cost_samples *samples);

void cost_fit(const struct cost_samples *samples, struct cost_model *ret_cost);

/* ---- learning from steps --------------------------------------------------------------------- */

enum { COST_PACE = 5, COST_STEPS = 256, COST_BUCKETS = 72 };

/* The errors of recent steps of one kind: a ring of buckets, and how many lie in each. */
struct cost_window {
	uint8_t ring[COST_STEPS];
	uint16_t count[COST_BUCKETS];
	size_t steps;
};

/* What the last steps were like, beside what the model keeps. All zero: nothing was seen. */
struct cost_learner {
	double ratio[COST_PACE],
	                idle_at[COST_PACE]; /* a ring: actual over tables, and idle_ms then */
	size_t steps;
	double ended_ms; /* the last one */
	double drift;    /* mean of recent moves of the tables, apart from what the pace moves */
	double idle_ms;  /* between steps, in all */
	double typical[COST_KINDS]; /* a running median of errors, beyond which they count as it */
	double actual_ms, table_ms, paced_ms;     /* sums that fade: mean_ratio, jitter */
	double extra_ms, rows;                    /* the same of interference_ms */
	double prompts_ms, begun;                 /* the same of recent_prompt_ms */
	double recent_rows, recent_keys, step_ms; /* means of some steps, as of the last one */
	struct cost_window errors[COST_KINDS];
};

/*
 * A step took actual_ms and ended at now_ms of any one clock. Moves the tables, with Huber's steps,
 * so that they follow the median and no hiccup counts for more than a usual error; the pace, by the
 * median of the last COST_PACE steps; the other factors and rates, and step_error. Returns actual
 * over predicted; 0 if nothing could be learnt.
 */
double cost_learn_step(struct cost_learner *learner, struct cost_model *cost,
                const struct cost_step *step, double actual_ms, double now_ms);

/* Forgets the pace of steps that are long past. Before predictions are made at now_ms. */
void cost_keep_pace(struct cost_learner *learner, struct cost_model *cost, double now_ms);

/* ---- learning from whole requests ------------------------------------------------------------ */

enum { COST_WINDOW = 64, COST_PRIOR = 16 };

/*
 * The last requests' actual / predicted time, and answer length / max_tokens or, where there is a
 * source, / its length. Before there are any, COST_PRIOR supposed ones stand in, which the first
 * real ones replace; then the window grows.
 */
struct cost_history {
	double ratio[COST_WINDOW];
	double length[COST_WINDOW];
	double target[COST_WINDOW];
	size_t ratios, lengths, targets; /* real ones; the window is a ring */
};

/* Supposes what the warm-up's spread suggests, and sets the margins from it. */
void cost_history_init(struct cost_history *history, struct cost_model *cost, double spread);

/* A request that ended: its ratio moves margin and errors. */
void cost_learn_ratio(struct cost_history *history, struct cost_model *cost, double ratio);
/* An answer that ended by itself or at its limit, never one that was cut. */
void cost_learn_length(struct cost_history *history, struct cost_model *cost, double ratio);
void cost_learn_target(struct cost_history *history, struct cost_model *cost, double ratio);

#endif
