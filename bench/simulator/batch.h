/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running batch in numbers: how many rows a step has at each layer, how long it takes, and what it
 * moves on, as the server's batch would with these requests. Nothing is computed. Not a scheduler:
 * who joins, at which depth and in which order prompts are fed is told from outside.
 */
#ifndef FATHOM_BENCH_SIMULATOR_BATCH_H
#define FATHOM_BENCH_SIMULATOR_BATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "server/cost.h"

/* What a request really asks of the engine: one prompt and the answers that follow it. */
struct sim_work {
	int prompt;     /* tokens that the decoder reads before it answers */
	int source;     /* tokens that an encoder reads first; 0: no encoder */
	int places;     /* sequences that decode side by side: answers, or all beams */
	bool beams;     /* they are beams: parted from the first token on, never before it */
	int max_tokens; /* blocks are kept for so many */
	int length;     /* tokens that each answer really gets; 0: the prompt only */
};

/* A request in a batch. Plain data: a copy of it is a snapshot. */
struct sim_run {
	struct sim_work work;
	const struct subnet *subnet; /* not owned; sim_batch_narrow goes to another */
	int fed;                     /* prompt tokens that were in a step */
	bool source_fed;
	bool answering; /* the prompt is through: `places` rows in every step */
	bool rests;     /* has no row in the next step */
	int out;        /* tokens of each answer */
	size_t blocks;  /* of the pool */

	/* one step */
	int chunk;       /* prompt rows in this step */
	bool source_now; /* the source is in this step */
	bool row_now;    /* its answers have rows in this step */
};

struct sim_batch {
	struct cost_limits limits;
	int layers[STACKS];
	size_t kv_blocks;
	struct sim_run **runs; /* [limits.sequences], not owned; prompts are fed in this order */
	int n;
	int sequences;
	size_t blocks;

	/* one step */
	int row_count[STACKS][MAX_LAYERS], source_count[MAX_LAYERS], decode_count[MAX_LAYERS];
	struct cost_step step;
};

/* False if memory ran out. */
bool sim_batch_init(struct sim_batch *b, const struct cost_limits *limits, const int layers[STACKS],
                size_t kv_blocks);
void sim_batch_finish(struct sim_batch *b);

/* Blocks that the request would hold at `subnet`. */
size_t sim_batch_blocks(const struct sim_work *work, const struct subnet *subnet);
/* Whether it fits beside what runs. */
bool sim_batch_fits(const struct sim_batch *b, const struct sim_work *work,
                const struct subnet *subnet);

/* It must fit; `run` and `subnet` stay where they are while it runs. */
void sim_batch_join(struct sim_batch *b, struct sim_run *run, const struct sim_work *work,
                const struct subnet *subnet);
void sim_batch_leave(struct sim_batch *b, struct sim_run *run);
/* Goes on at `subnet`, whose decoder's plan is nested in the present one. */
void sim_batch_narrow(struct sim_batch *b, struct sim_run *run, const struct subnet *subnet);

/* The rows of the next step: at most `prompt_rows` of prompts while answers grow, but for a first
 * source. NULL: nothing has a row. Valid until the next call. */
const struct cost_step *sim_batch_form(struct sim_batch *b, int prompt_rows);

/* The step is over: tokens are out. Each run's `out` has moved on; who is through has out ==
 * length (and, with length 0, `answering`) and is still in the batch. */
void sim_batch_advance(struct sim_batch *b);
bool sim_run_is_done(const struct sim_run *run);

#endif
