/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine in a page.
 *
 * A **model** is facts and weights: one full LayerDrop-trained checkpoint, immutable, shared by
 * every thread, no locks. Its matrices are f32, bf16, int8 or int4, packed into the panels that the
 * kernels of this processor read (ops.h); a packed file beside the checkpoint spares the next start
 * that work (packed.h).
 *
 * A **plan** is the list of layers that a request keeps; a **subnet** is one plan per stack.
 * Running a subnet is bit-identical to running a checkpoint that was physically pruned to it. It
 * costs nothing to choose: no copy, no reload.
 *
 * A **workspace** is everything that changes while running: scratch rows, the KV pool, and the
 * prefix cache, which keeps blocks of texts that have run for others that begin in the same way
 * (prefix.h). It belongs to one thread; inside a step a **team** of threads shares the work
 * (team.h).
 *
 * A **sequence** is one text in the workspace: a subnet and the cached keys and values of its kept
 * layers, so that memory is proportional to depth. Blocks for its whole length are reserved when it
 * opens: it never runs dry. It can be forked, step down to a nested plan, and forget its last
 * positions.
 *
 * A **step** advances any set of **rows** at once; a row is one token of one sequence. Rows of
 * different depths share a step: it goes over layers 0 .. N-1 once, and at layer l gathers the rows
 * whose plan keeps l, runs the block on them and scatters the result back. So each layer's weights
 * are read at most once per step, whatever the mix of depths. A row can also run at a plan nested
 * in its sequence's own: a **draft**, whose tokens a later step at the whole plan verifies.
 *
 *        rows      a(0,2,4)  b(0,4)  c(0..5)          after step_run, step_logits gives the
 *        layer 0      x        x       x              scores of the rows that need them.
 *        layer 1      .        .       x
 *        layer 2      x        .       x              An answer does not depend on the other
 *        layer 3      .        .       x              rows of its steps, nor on how a prompt was
 *        layer 4      x        x       x              cut into chunks: per output element the
 *        layer 5      .        .       x              order of additions is fixed (ops.h).
 *
 * Three kinds of models run so, by the stacks that they have (facts.h):
 *
 *	decoder            rows of a text in chunks of any size, then one per new token; step_logits
 *	encoder            a text whole, in one step; step_hidden, step_classes, or step_logits by
 *	                   the masked-LM head. Nothing of it is cached.
 *	encoder-decoder    the source whole in one step, which leaves its keys and values in each
 *	                   kept decoder layer; decoder rows in that step or later; forks share the
 *	                   source, so that beam.h can search.
 *
 * A step walks the encoder, hands finished sources to the decoder, then walks the decoder; so rows
 * of both stacks share it.
 *
 * Typical use, of a language model:
 *
 *	struct model_options how = { .ops = ops, .weights = WEIGHTS_AUTO, .threads = 2 };
 *	struct model *m = model_open(dir, &how, err, sizeof err);
 *	struct workspace *w = workspace_create(m, &options, err, sizeof err);
 *	struct sequence *s = sequence_open(w, &subnet, n_prompt + max_tokens);
 *	step_run(w, rows, n_prompt);       // the prompt: rows of positions 0 .. n_prompt - 1
 *	logits = step_logits(w, &last, 1); // then sample a token, make it a row, and so on
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
	int encoder_depth; /* seq2seq; else 0 */
	char metric[32];   /* "perplexity" */
	double value;
};

struct model {
	char name[128]; /* the folder's base name */
	struct facts facts;
	struct generation_defaults defaults;
	struct weights weights;
	struct tokenizer *tokenizer;        /* of prompts and sources */
	struct tokenizer *target_tokenizer; /* of answers: the same one unless a seq2seq has two */
	char ***labels; /* [n_classifiers][classes] names of the classes; NULL without classifiers */
	const struct ops *ops;
	char dtype[8];                 /* of the checkpoint's tensors: "f32", "f16", "bf16" */
	struct depth_quality *quality; /* NULL if not measured */
	size_t n_quality;
	struct subnet *tuned; /* plans.json: [n_tuned], at most one per depth; NULL if there is none */
	size_t n_tuned;
	/* `fathom_note` of config.json: what a reader must know ("random weights: for speed only"). */
	char note[160];
};

struct model_options {
	const struct ops *ops;
	enum weight_format weights; /* how matrices are kept; AUTO: as the checkpoint has them */
	int threads;                /* for packing */
	bool without_weights;   /* facts, tokenizers and what was measured only; nothing can run */
	enum packed_use packed; /* the packed file beside the checkpoint */
	/* Called on the caller's thread now and then while packing; may be NULL. */
	void (*progress)(void *arg, double share);
	void *progress_arg;
};

/* Loads a Hugging Face style model folder. NULL with one sentence in err. */
struct model *model_open(
                const char *dir, const struct model_options *options, char *err, size_t errlen);
void model_close(struct model *model);

/*
 * Leaves the packed file for the next start (weights.h), as long as `go_on(arg)` says so. False with
 * a sentence that names it. Any thread, while the model is in use.
 */
bool model_keep_packed(const struct model *model, const char *dir, bool (*go_on)(void *arg),
                void *arg, char *err, size_t errlen);

/* One sentence on the arithmetic of the model's products. */
const char *model_arithmetic(const struct model *model);

/* Whether answers have the same bits on every processor: BF16's own instruction rounds its own way. */
bool model_exact(const struct model *model);

/* What AUTO stands for. */
enum kv_format model_kv_format(const struct model *model, enum kv_format wanted);

/* The stack that a single depth speaks of: the decoder, else the encoder. */
enum stack model_main_stack(const struct model *model);
/* Number of layers of that stack. */
int model_layers(const struct model *model);

/*
 * The subnet that keeps `depth` layers of the main stack by `rule`, and of a seq2seq model the
 * whole encoder; false if the rule has no such depth.
 */
bool model_subnet(const struct model *model, enum plan_rule rule, int depth,
                struct subnet *ret_subnet);
/*
 * The same with a depth for each stack that the model has (others are not read). TUNED: the plan
 * file's pair.
 */
bool model_subnet_pair(const struct model *model, enum plan_rule rule, const int depth[STACKS],
                struct subnet *ret_subnet);

/* Packed bytes that one decode step at this subnet reads: the weights' share of the cost. */
size_t model_subnet_bytes(const struct model *model, const struct subnet *subnet);

/* ---- running ---- */

struct workspace;
struct sequence;
struct prefix; /* prefix.h */
struct prefix_scope;
struct prefix_text;

struct workspace_options {
	struct team *team;  /* not owned; used only inside step_run and step_logits */
	int max_rows;       /* rows of one step */
	int max_logit_rows; /* rows of one step_logits */
	int max_sequences;
	size_t kv_bytes;   /* size limit of the KV pool */
	enum kv_format kv; /* AUTO: f32 with f32 weights, else bf16 */
	/* Most of the pool that the prefix cache may hold; 0, or a decoder with sources: none. */
	int prefix_percent;
};

struct row {
	struct sequence *sequence;
	enum stack stack; /* STACK_DECODER for language models */
	int32_t token;
	/* 0-based; rows of one sequence and stack are consecutive in a step, their positions
	 * ascending by one. */
	int32_t position;
	int32_t type; /* encoder rows of a model with token types: 0, or 1 in the second text of a pair */
	/* Decoder rows: what it runs at, nested in the sequence's subnet (of which only the decoder's
	 * plan counts), the same for all rows of the sequence in a step; NULL: the sequence's own. It
	 * reads and writes the cache of those layers only: a draft, to be forgotten by
	 * sequence_rewind. */
	const struct subnet *at;
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
/* Bytes of scratch rows; those that no step has used yet cost no memory. */
size_t workspace_scratch_bytes(const struct workspace *w);

/*
 * Opens a sequence of at most `tokens` tokens and reserves its blocks; NULL if they are not free
 * now.
 */
struct sequence *sequence_open(struct workspace *w, const struct subnet *subnet, int tokens);

/*
 * A sequence with a source of `source_tokens` tokens. Encoder only: `tokens` is 0 and no block is
 * needed. Seq2seq: blocks for the keys and values of the source in each kept decoder layer are
 * reserved too; forks share them. `source_tokens` is at most max_rows and the encoder's context.
 */
struct sequence *sequence_open_source(
                struct workspace *w, const struct subnet *subnet, int tokens, int source_tokens);
/* KV blocks that the source of such a sequence needs beside workspace_blocks_needed. */
size_t workspace_source_blocks(
                const struct workspace *w, const struct subnet *subnet, int source_tokens);
/*
 * A text enters the encoder whole, in one step, and takes ceil(tokens / 64) tiles of that step,
 * which has this many (at least those of the longest text).
 */
int workspace_source_tiles(const struct workspace *w);

/*
 * A second sequence with the same past (positions 0 .. sequence_length-1), sharing its full blocks
 * and copying a partly filled one when either writes to it. `tokens` as in sequence_open. NULL if
 * the blocks it may need are not free.
 */
struct sequence *sequence_fork(struct workspace *w, const struct sequence *s, int tokens);

/*
 * The same with a past that the prefix cache holds: the longest part of tokens[0..n) at this plan
 * in whole tiles, but for the last token, which must run for its scores. sequence_length says how
 * much that is. It needs as many blocks as sequence_open, less workspace_blocks_shared.
 */
struct sequence *sequence_open_cached(struct workspace *w, const struct subnet *subnet, int tokens,
                const struct prefix_scope *scope, const int32_t *prompt, int n);
/*
 * A sequence that is being fed goes on behind what the prefix cache holds by now of its prompt, which
 * is as above: its own blocks of that part are given back. Returns sequence_length, which stays as it
 * is if no more is held, or if the sequence stepped down.
 */
int sequence_catch_up(struct workspace *w, struct sequence *s, const struct prefix_scope *scope,
                const int32_t *prompt, int n);
/* Of the blocks that sequence_open_cached would share, those that somebody holds already: so many
 * fewer must be free. */
size_t workspace_blocks_shared(const struct workspace *w, const struct subnet *subnet,
                const struct prefix_scope *scope, const int32_t *prompt, int n);
/*
 * Enters the whole tiles of the sequence's past into the prefix cache, where `text` are the tokens
 * of its first positions (no more than its length; those beyond have run in vain and do not
 * count). Nothing of a sequence that stepped down.
 */
void sequence_remember(struct workspace *w, const struct sequence *s,
                const struct prefix_scope *scope, const struct prefix_text *text);
/* prefix.h; NULL: there is none. */
struct prefix *workspace_prefix(const struct workspace *w);

void sequence_close(struct workspace *w, struct sequence *s);

int sequence_length(const struct sequence *s); /* positions that have been through a step */
const struct subnet *sequence_subnet(const struct sequence *s); /* what it runs at now */

/*
 * Steps down to a plan nested in the present one (rank by rank the kept layers' cache stays, the
 * others' blocks are freed). False if it is not nested.
 */
bool sequence_narrow(struct workspace *w, struct sequence *s, const struct subnet *nested);

/*
 * Forgets the positions from `length` on, 0 <= length <= sequence_length: the next rows of the
 * sequence start there. No block is given back. `clear`: some of those positions may hold what is
 * not finite, which would show in later positions; they are cleared.
 */
void sequence_rewind(struct workspace *w, struct sequence *s, int length, bool clear);

/*
 * Runs one step over rows[0..n), 1 <= n <= max_rows. A sequence's decoder rows must start at its
 * length. Its encoder rows are its whole source, from position 0, in one step; its decoder rows may
 * be in the same step or in later ones.
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

/*
 * What of a row's scores somebody reads. With an adaptive softmax the scores are log-probabilities,
 * and bands that cannot matter are not computed: their scores are minus infinity.
 */
struct logit_need {
	int top;        /* the best `top` must be exact (beyond 64: all); -1: all scores */
	int32_t target; /* and the score of this token; -1: none */
};

/*
 * step_logits with needs[n]; NULL: all scores of every row. Rows of an encoder go through its
 * masked-LM head.
 */
const float *step_logits_needed(
                struct workspace *w, const int *indices, const struct logit_need *needs, int n);

/*
 * The final hidden state of an encoder row of the last step, [dim] of the encoder, after the final
 * norm if there is one. Valid until the next step.
 */
const float *step_hidden(const struct workspace *w, int row);

/*
 * Scores of classifier `which` for the encoder rows `indices[0..n)` of the last step (first tokens
 * of texts), n <= max_logit_rows: row i at result + i * step_classes_stride. Valid until the next
 * call.
 */
const float *step_classes(struct workspace *w, int which, const int *indices, int n);
size_t step_classes_stride(const struct workspace *w);

#endif
