/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the batch: batch.c (what runs and what a step holds) and batch_emit.c (what
 * its logits become). */
#ifndef FATHOM_SERVER_BATCH_PARTS_H
#define FATHOM_SERVER_BATCH_PARTS_H

#include "server/batch.h"

/* A row of the step whose logits are needed. */
enum want_kind {
	WANT_SCORE, /* the log-probability of prompt token index + 1 */
	WANT_FIRST, /* the first token of each choice of prompt `index`'s group */
	WANT_TOKEN, /* the next token of choice `index` */
};

struct want {
	struct ticket *ticket;
	enum want_kind kind;
	int prompt;
	int index; /* SCORE: position; TOKEN: choice */
	int row;
};

struct batch {
	const struct model *model;
	struct workspace *workspace;
	struct sampler *sampler;
	struct metrics *metrics;
	struct cost_limits limits;
	int max_logit_rows;

	struct ticket *running, **running_last;
	int jobs;
	int sequences;          /* open */
	size_t reserved_blocks; /* of all groups, for their forks */
	int reserved_sequences;

	/* one step */
	struct row *rows; /* [max_rows] */
	int n_rows, decode_rows;
	struct want *wants; /* [max_rows] */
	int n_wants;
	int row_count[MAX_LAYERS];
	double attended, chunk_attended;
	int *logit_rows; /* [max_logit_rows] */
	char *scratch;   /* for detokenise_add */
};

/* Closes a choice's sequence. */
void batch_close(struct batch *b, struct sequence **sequence);
/* Forgets what was kept free for the forks of a prompt's group. */
void batch_release_group(struct batch *b, struct run_prompt *p);

/* Turns the logits of the last step into tokens, text and log-probabilities. */
void batch_emit(struct batch *b);
/* A choice ends: its sequence closes, its text is complete. */
void batch_end_choice(struct batch *b, struct ticket *t, int choice, enum finish finish,
                enum finish_detail detail);
/* Ends the ticket if nothing of it is left to do. */
void batch_settle(struct batch *b, struct ticket *t);
/* Ends the ticket, with an error (may be NULL). */
void batch_end(struct batch *b, struct ticket *t, const struct error *error);

#endif
