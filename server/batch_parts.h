/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of the batch:
 *	batch.c        what runs: joining, leaving, a step from end to end
 *	batch_cache.c  what is taken from the prefix cache, and what enters it
 *	batch_group.c  groups and the blocks and places that they need
 *	batch_form.c   the rows of a step: answers, sources, prompts
 *	batch_text.c   texts for an encoder alone: whose turn it is, rows, results
 *	batch_draft.c  tokens that shallower plans guess
 *	batch_emit.c   what the scores of a step become
 *	batch_search.c beam searches
 *	batch_end.c    how choices and tickets end
 *	batch_load.c   what runs, as the scheduler and the cost model see it
 */
#ifndef FATHOM_SERVER_BATCH_PARTS_H
#define FATHOM_SERVER_BATCH_PARTS_H

#include "server/batch.h"

/* A row of the step whose scores are needed. */
enum want_kind {
	WANT_SCORE, /* the log-probability of token index + 1 of the past */
	WANT_FIRST, /* the first token of each choice of prompt `prompt`'s group */
	WANT_TOKEN, /* the next token of choice `index` */
	WANT_DRAFT, /* what may be the next token of choice `index`, after those drafted before */
	WANT_BEAM, /* live beam `index` of prompt `prompt`; those of one search follow each other */
	WANT_MASK, /* the best tokens for mask `index` of text `prompt` */
};

struct want {
	struct ticket *ticket;
	enum want_kind kind;
	int prompt;
	int index;
	int row;
	int drafted; /* TOKEN: so many drafted tokens go before */
};

/* A text in a step, for an encoder alone. */
struct step_text {
	struct ticket *ticket;
	int prompt;
	struct sequence *sequence;
	int row; /* of its first token */
};

struct batch {
	const struct model *model;
	struct workspace *workspace;
	struct sampler *sampler;
	struct metrics *metrics;
	struct speculator *speculator;
	struct speculate_party *parties; /* [limits.sequences] */
	bool shared_prefixes;            /* among keys */
	struct cost_limits limits;
	int max_logit_rows;

	struct ticket *running, **running_last;
	int jobs;
	int sequences;          /* open from step to step */
	size_t reserved_blocks; /* of all groups, for their forks */
	int reserved_sequences;
	double served; /* of the text that entered a step last: where newcomers begin */

	/* one step */
	struct scheduled *const *order; /* in which prompts are fed; NULL: as they joined */
	int n_order, prompt_rows;
	const struct cost_model *cost; /* by which drafts are weighed; NULL: none are made */
	struct row *rows;              /* [max_rows] */
	int n_rows, decode_rows;
	int source_tiles;   /* taken */
	struct want *wants; /* [max_rows] */
	int n_wants;
	struct step_text *texts; /* [limits.sequences] */
	int n_texts, class_rows;
	int row_count[STACKS][MAX_LAYERS];
	int source_count[MAX_LAYERS];
	int decode_count[MAX_LAYERS]; /* of row_count, rows of running answers */
	double attended, chunk_attended, source_attended;
	double draft_ms;          /* that the drafts before it took, */
	int drafted_rows;         /* its rows that verify them, */
	bool may_draft;           /* and whether there was somebody to draft for */
	int *logit_rows;          /* [max_logit_rows] */
	struct logit_need *needs; /* [max_logit_rows] */
	double *pool;             /* [dim of the encoder] */
	char *scratch;            /* for detokenise_add */
};

/* ---- batch_cache.c ---- */

/* The first sequence of a prompt's next group, whose blocks must be free; with a past if the prefix
 * cache holds one. */
struct sequence *batch_open(struct batch *b, struct ticket *t, int prompt);
/* Blocks that this sequence would share with others that run. */
size_t batch_shared(const struct batch *b, const struct job *job, int prompt,
                const struct subnet *subnet);
/* Before a step: prompts go on behind what is cached of them by now. */
void batch_catch_up(struct batch *b);
/* Whether a prompt has no rows in the step being formed, since another one's rows in it are those
 * that it would have. */
bool batch_is_led(const struct batch *b, const struct ticket *t, int prompt);
/* Works out what of each prompt others will have fed. */
void batch_find_leaders(struct batch *b);
/* After a step: the tiles that prompts have filled in it enter the cache. */
void batch_remember_fed(struct batch *b);
/* A sequence (may be NULL) holds the prompt and answer[0..n): their whole tiles enter the cache. */
void batch_remember(struct batch *b, const struct ticket *t, int prompt, const struct sequence *s,
                const int32_t *answer, int n);
/* The same with what a running choice has got so far. */
void batch_remember_choice(struct batch *b, const struct ticket *t, int choice);

/* ---- batch_group.c ---- */

/* Closes a sequence that stayed open from step to step. */
void batch_close(struct batch *b, struct sequence **sequence);
/* Forgets what was kept free for the forks of a prompt's group. */
void batch_release_group(struct batch *b, struct run_prompt *p);

/* ---- batch_form.c ---- */

/* Rows of answers, then of sources and prompts. */
void batch_form(struct batch *b);
/* The rows of a whole text of the encoder; they and its tiles must be free. */
void batch_add_source(struct batch *b, struct ticket *t, int prompt, struct sequence *s);
/* Whether a step has room for a text of `tokens` tokens, and more rows, beside what it holds. */
bool batch_has_room(const struct batch *b, int tokens, int more_rows);
/* The last row's scores are needed. */
void batch_want(struct batch *b, struct ticket *t, enum want_kind kind, int prompt, int index);

/* ---- batch_draft.c ---- */

/* Before a step: runs steps of drafts, if b->cost says that they pay. */
void batch_draft(struct batch *b);
/* The scores of a draft for a choice become its next drafted token. */
void batch_propose(struct batch *b, struct ticket *t, int choice, const float *logits);
/* After a step: forgets what was drafted in vain, and learns. */
void batch_settle_drafts(struct batch *b);

/* ---- batch_text.c ---- */

/* Rows of texts for an encoder alone. */
void batch_form_texts(struct batch *b);
/* Features and classes of the texts of the last step, after which they are through; fills come
 * with batch_emit, which goes first. */
void batch_finish_texts(struct batch *b);
/* What is written for mask `index` of text `prompt`. */
void batch_fill_mask(struct batch *b, struct ticket *t, int prompt, int index, const float *logits);

/* ---- batch_emit.c ---- */

/* Turns the scores of the last step into tokens, text and log-probabilities. */
void batch_emit(struct batch *b);
/* The token that a choice draws from logits after `drafted` tokens that are not out; false if they
 * cannot be used. */
bool batch_pick(struct batch *b, const struct ticket *t, int choice, const float *logits,
                int drafted, int32_t *ret_token);
/* Whether an answer ends with this token. */
bool batch_ends(const struct batch *b, const struct ticket *t, int32_t token);
/* Appends a token to the choice's text; `ends`: it is an end symbol, which leaves none. */
void batch_add_text(struct batch *b, struct ticket *t, int choice, int32_t token, bool ends);
/* A token is out; *last_ns is when the one before was. */
void batch_note_time(struct batch *b, struct ticket *t, int64_t *last_ns);

/* ---- batch_search.c ---- */

/* The prompt's sequence becomes the first live beam; its last row is in the step being formed. */
void batch_begin_search(struct batch *b, struct ticket *t, int prompt);
/* Moves a search on by the scores of its live beams, and ends it if it is over. */
void batch_advance_search(
                struct batch *b, struct ticket *t, int prompt, const float *logits, size_t stride);
/* Ends a search where it is; its hypotheses so far become the choices. */
void batch_cut_search(struct batch *b, struct ticket *t, int prompt, enum finish_detail detail);
/* Closes a search without an answer. */
void batch_close_search(struct batch *b, struct run_prompt *p);

/* ---- batch_end.c ---- */

/* A choice ends: its sequence closes, its text is complete. */
void batch_end_choice(struct batch *b, struct ticket *t, int choice, enum finish finish,
                enum finish_detail detail);
/* Ends the ticket if nothing of it is left to do. */
void batch_settle(struct batch *b, struct ticket *t);
/* Ends the ticket, with an error (may be NULL). */
void batch_end(struct batch *b, struct ticket *t, const struct error *error);
/* The ticket's scores cannot be used: it ends at the end of the step. */
void batch_fail_not_finite(struct ticket *t);

#endif
