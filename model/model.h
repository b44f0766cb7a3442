/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine in a page.
 *
 * A **model** is facts and weights: one full LayerDrop-trained checkpoint, immutable, shared by
 * every thread, no locks.
 *
 * A **plan** is the list of layers that a request keeps; a **subnet** is one plan per stack.
 * Running a subnet is bit-identical to running a checkpoint that was physically pruned to it. It
 * costs nothing to choose: no copy, no reload.
 *
 * A **workspace** is everything that changes while running: scratch rows and the KV pool. It
 * belongs to one thread.
 *
 * A **sequence** is one text in the workspace: a subnet and the cached keys and values of its kept
 * layers, so that memory is proportional to depth. Blocks for its whole length are reserved when it
 * opens: it never runs dry.
 *
 * A **step** advances any set of **rows** at once; a row is one token of one sequence. Rows of
 * different depths share a step: it goes over layers 0 .. N-1 once, and at layer l gathers the rows
 * whose plan keeps l, runs the block on them and scatters the result back. So each layer's weights
 * are read at most once per step, whatever the mix of depths.
 *
 *        rows      a(0,2,4)  b(0,4)  c(0..5)          after step_run, step_logits gives the
 *        layer 0      x        x       x              scores of the rows that need them.
 *        layer 1      .        .       x
 *        layer 2      x        .       x              An answer does not depend on the other
 *        layer 3      .        .       x              rows of its steps, nor on how a prompt was
 *        layer 4      x        x       x              cut into chunks: per output element the
 *        layer 5      .        .       x              order of additions is fixed (ops.h).
 *
 * Typical use:
 *
 *	struct model *m = model_open(dir, &(struct model_options){ .ops = ops, .threads = 2 }, err, sizeof err);
 *	struct workspace *w = workspace_create(m, &options, err, sizeof err);
 *	struct sequence *s = sequence_open(w, &subnet, n_prompt + max_tokens);
 *	step_run(w, rows, n_prompt);                  // the prompt: rows of positions 0 .. n_prompt-1
 *	logits = step_logits(w, &last, 1);            // then sample a token, make it a row, and so on
 *	sequence_close(w, s);
 */
#ifndef FATHOM_MODEL_MODEL_H
#define FATHOM_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/facts.h"
#include "model/ops.h"
#include "model/plan.h"
#include "model/team.h"
#include "model/tokenizer.h"
#include "model/weights.h"

/* Quality of one depth as the model folder's quality.json gives it. */
struct depth_quality {
	int depth;
	char metric[32]; /* "perplexity" */
	double value;
};

struct model {
	char name[128]; /* the folder's base name */
	struct facts facts;
	struct generation_defaults defaults;
	struct weights weights;
	struct tokenizer *tokenizer;
	const struct ops *ops;
	char dtype[8];                 /* of the checkpoint's tensors: "f32", "f16", "bf16" */
	struct depth_quality *quality; /* NULL if not measured */
	size_t n_quality;
	struct subnet *tuned; /* plans.json: [n_tuned], at most one per depth; NULL if there is none */
	size_t n_tuned;
	char note[160]; /* `fathom_note` of config.json: what a reader must know ("random weights: for speed only") */
};

struct model_options {
	const struct ops *ops;
	int threads; /* for packing */
};

/* Loads a Hugging Face style model folder. NULL with one sentence in err. */
struct model *model_open(
                const char *dir, const struct model_options *options, char *err, size_t errlen);
void model_close(struct model *model);

/* Number of layers in the stack that generates (the decoder, else the encoder). */
int model_layers(const struct model *model);

/*
 * The subnet of a decoder-only model that keeps `depth` layers by `rule`; false if the rule has no
 * such depth.
 */
bool model_subnet(const struct model *model, enum plan_rule rule, int depth,
                struct subnet *ret_subnet);

/* Packed bytes that one decode step at this subnet reads: the weights' share of the cost. */
size_t model_subnet_bytes(const struct model *model, const struct subnet *subnet);

/*
 * ---- running ------------------------------------------------------------------------------------
 * ----------------
 */

struct workspace;
struct sequence;

struct workspace_options {
	struct team *team;  /* not owned; used only inside step_run and step_logits */
	int max_rows;       /* rows of one step */
	int max_logit_rows; /* rows of one step_logits */
	int max_sequences;
	size_t kv_bytes; /* size limit of the KV pool */
};

struct row {
	struct sequence *sequence;
	enum stack stack; /* STACK_DECODER for language models */
	int32_t token;
	int32_t position; /* 0-based; rows of one sequence are consecutive in a step, their positions ascending by one */
};

struct workspace *workspace_create(const struct model *model,
                const struct workspace_options *options, char *err, size_t errlen);
void workspace_destroy(struct workspace *w);

/*
 * KV blocks that a sequence of `tokens` tokens needs at `subnet`, and the pool's total, reserved
 * and really used.
 */
size_t workspace_blocks_needed(const struct workspace *w, const struct subnet *subnet, int tokens);
size_t workspace_blocks_total(const struct workspace *w);
size_t workspace_blocks_reserved(const struct workspace *w);
size_t workspace_blocks_used(const struct workspace *w);
size_t workspace_block_bytes(const struct workspace *w);

/*
 * Opens a sequence of at most `tokens` tokens and reserves its blocks; NULL if they are not free
 * now.
 */
struct sequence *sequence_open(struct workspace *w, const struct subnet *subnet, int tokens);

/*
 * A second sequence with the same past (positions 0 .. sequence_length-1), sharing its full blocks
 * and copying a partly filled one when either writes to it. `tokens` as in sequence_open. NULL if
 * the blocks it may need are not free.
 */
struct sequence *sequence_fork(struct workspace *w, const struct sequence *s, int tokens);

void sequence_close(struct workspace *w, struct sequence *s);

int sequence_length(const struct sequence *s); /* positions that have been through a step */
const struct subnet *sequence_subnet(const struct sequence *s);

/*
 * Steps down to a plan nested in the present one (rank by rank the kept layers' cache stays, the
 * others' blocks are freed). False if it is not nested.
 */
bool sequence_narrow(struct workspace *w, struct sequence *s, const struct subnet *nested);

/*
 * Runs one step over rows[0..n), 1 <= n <= max_rows. A sequence's rows must start at its length.
 * Allocates nothing. Afterwards the workspace holds the final hidden state of every row until the
 * next step.
 */
void step_run(struct workspace *w, const struct row *rows, int n);

/*
 * Logits of the rows `indices[0..n)` of the last step, 1 <= n <= max_logit_rows: row i at result +
 * i * step_logits_stride. Valid until the next call. Allocates nothing.
 */
const float *step_logits(struct workspace *w, const int *indices, int n);
size_t step_logits_stride(const struct workspace *w);

#endif
