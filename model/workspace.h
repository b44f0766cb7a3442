/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workspace from inside: scratch rows, the KV pool, the sequences, and the step in progress.
 * model.h has what callers see. Everything here belongs to one thread; the team reads and writes
 * it only inside step_run, step_logits and step_classes.
 */
#ifndef FATHOM_MODEL_WORKSPACE_H
#define FATHOM_MODEL_WORKSPACE_H

#include "model/block.h"
#include "model/kv.h"
#include "model/model.h"
#include "model/prefix.h"
#include "model/softmax.h"

struct sequence {
	struct subnet subnet;
	int tokens;   /* at most */
	int length;   /* positions that have been through a step */
	int capacity; /* blocks a kept layer may need: tokens / KV_TILE, rounded up */
	int blocks;   /* blocks each kept layer holds; capacity - blocks more are promised */
	void **table; /* block t of the layer of rank r: table[r * workspace::table_stride + t] */
	int source_tokens;   /* 0: no source */
	bool source_done;    /* the source has been through a step */
	int source_blocks;   /* that a kept decoder layer holds for it, or is promised until then */
	void **source_table; /* as `table`, with workspace::source_stride */
	bool narrowed; /* its past ran at a deeper plan: a text at this plan would be another */
	bool open;
	struct sequence *next; /* workspace::unused */
};

/* Consecutive rows of one sequence and stack within a step. */
struct run {
	struct sequence *sequence;
	enum stack stack;
	int first, count;        /* rows */
	int position;            /* of the first row */
	const struct subnet *at; /* what its rows run at: the sequence's own subnet, or a draft's */
	void *const *tiles;      /* of an encoder run: keys and values of the layer in progress */
};

/* What a step does to the rows of some layer. */
enum walk {
	WALK_ENCODER, /* encoder layers on encoder rows */
	WALK_DECODER, /* decoder layers on decoder rows */
	WALK_SOURCE,  /* decoder layers on encoder rows: keys and values of the source */
	WALKS,
};

/* The rows that each layer of a walk runs on. */
struct walk_rows {
	struct block_rows *layers; /* [n_layers] */
	int n_layers;
	int32_t *maps;          /* [n_layers][max_rows]: storage of layers[].map */
	struct block_run *runs; /* [n_layers][max_runs]: storage of layers[].runs */
};

enum { TOP_MOST = 64 }; /* who needs more of the best scores gets all of them */

/* Scratch of an adaptive softmax; a row is one of the n rows whose scores are asked for. */
struct adaptive_scratch {
	float *classes;             /* [rows][MAX_BANDS - 1] of each tail */
	struct softmax_sum *blocks; /* [rows][n_blocks] */
	int n_blocks;
	struct softmax_sum *
	                sums; /* [rows] maximum and logarithm of the sum, of the band in progress */
	float *best;          /* [rows][TOP_MOST] scores, best first */
	bool *needed;         /* [rows] whether the band in progress is */
	int32_t *rows;        /* [n_rows] those for which it is */
	int n_rows;
	float *reduced; /* [n_rows][dim of the band] */
	size_t ld_reduced;
};

struct workspace {
	const struct model *model;
	const struct ops *ops;
	struct team *team;
	int max_rows, max_logit_rows, max_sequences, max_runs;

	struct kv_pool kv;          /* of the decoder; empty if there is none */
	enum kv_format kv_format;   /* of its blocks */
	struct prefix *prefix;      /* of its blocks; NULL: none */
	struct sequence *sequences; /* [max_sequences] */
	struct sequence *unused;    /* list */
	void **tables;              /* [max_sequences][decoder layers][table_stride] */
	int table_stride;           /* blocks that the longest sequence needs for one layer */
	void **source_tables;       /* [max_sequences][decoder layers][source_stride] */
	int source_stride;

	/* Keys and values of the encoder layer in progress: KV_TILE tokens of one text in a tile. */
	float *source_kv;    /* f32, whatever kv_format is: it lives for one layer */
	void **source_tiles; /* [n_source_tiles] their addresses */
	int n_source_tiles;

	/* Scratch. Rows are 64 bytes longer than their content, so that they do not all fall into
	 * one cache set. */
	float *x; /* residual stream [max_rows][dim] of both stacks */
	size_t ldx;
	struct block_scratch scratch;
	float *logits; /* [max_logit_rows][vocab] */
	size_t ld_logits;
	float *head; /* [max_logit_rows][dim] between the products of a head */
	size_t ld_head;
	float *classes; /* [max_logit_rows][most classes] */
	size_t ld_classes;
	float *zeros; /* [dim] of the decoder */
	struct adaptive_scratch adaptive;

	/* The step in progress, or the last one. */
	const struct row *rows; /* during step_run only */
	int n_rows;
	uint8_t *row_stacks; /* [max_rows] */
	struct run *runs;    /* [max_runs] */
	int n_runs;
	int32_t *stack_rows[STACKS]; /* [max_rows] rows of each stack, ascending */
	int n_stack_rows[STACKS];
	int32_t *band_rows; /* [max_rows] decoder rows by band of their token */
	int band_first[MAX_BANDS + 1];
	struct walk_rows walks[WALKS];
	const int32_t *logit_rows; /* during step_logits and step_classes only */
	int n_logit_rows;
	const struct logit_need *needs; /* [n_logit_rows] or NULL, likewise */
	int classifier;                 /* during step_classes only */
};

/* Blocks of KV_TILE positions that hold so many tokens. */
static inline int kv_tiles(int tokens) {
	return (tokens + KV_TILE - 1) / KV_TILE;
}

static inline const struct stack_facts *stack_facts(const struct workspace *w, enum stack stack) {
	return &w->model->facts.stack[stack];
}

/* Whether rows have scores over the vocabulary. */
static inline bool has_scores(const struct facts *facts) {
	return facts->stack[STACK_DECODER].layers > 0 || facts->mlm_head;
}

/* Floats from one scratch row to the next: whole cache lines, and one more. */
size_t workspace_row_stride(int columns);
/* rows x stride floats, 64-byte aligned; NULL if they are not to be had. Not cleared, so that rows
 * which are never used cost no memory. */
float *workspace_rows(size_t rows, size_t stride);

/* Makes the blocks of the next `count` positions of a sequence writable: takes promised blocks and
 * separates a shared one. */
void sequence_extend(struct workspace *w, struct sequence *s, int count);

/* Takes the promised blocks of a sequence's source, which enters this step. */
void sequence_begin_source(struct workspace *w, struct sequence *s);

/*
 * Norms x of a stack's rows in place: each member the share of them that team_share gives it. Run by
 * every member; no barrier.
 */
void stack_norm(struct workspace *w, enum stack stack, const struct norm_weights *norm, int member);

/* The input of every stack: x of all rows. Run by every member; ends with a barrier. */
void embed(struct workspace *w, int member);
/* Sorts the decoder rows by band, where the embedding is adaptive. Before embed, by one thread. */
void embed_prepare(struct workspace *w);

#endif
