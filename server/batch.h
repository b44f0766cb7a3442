/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running batch: which sequences are open, what the next step holds, and what its logits
 * become. It knows no queue, no lock and no other thread: the engine thread owns it. Times come in
 * as arguments, but for the moment at which a token is out.
 *
 * A step of a model that generates holds one row for each running choice and each live beam, then
 * sources, whole, and chunks of the prompts that are not through. Who rests has no row. A job joins at a step boundary with a group: a prompt and the choices, or the beams, that
 * share its blocks. More groups begin when there is room. A step of an encoder alone holds whole
 * texts of many jobs.
 */
#ifndef FATHOM_SERVER_BATCH_H
#define FATHOM_SERVER_BATCH_H

#include "config/config.h"
#include "model/prefix.h"
#include "server/cost.h"
#include "server/metrics.h"
#include "server/ticket.h"

struct batch;
struct batch_stats;

struct batch_options {
	const struct config *config;
	struct team *team;
	struct metrics *metrics;
	size_t kv_bytes;
};

struct batch *batch_create(const struct model *model, const struct batch_options *options,
                char *err, size_t errlen);
void batch_destroy(struct batch *b);

struct workspace *batch_workspace(struct batch *b);
struct sampler *batch_sampler(struct batch *b);
const struct cost_limits *batch_limits(const struct batch *b);
int batch_max_logit_rows(const struct batch *b);

/* The running tickets, in the order in which they joined. */
struct ticket *batch_running(const struct batch *b);
int batch_jobs(const struct batch *b);
int batch_sequences(const struct batch *b); /* open, and kept free for forks */

/* Whether the next group of `t` fits now at `subnet`; always false if all its groups have begun. */
bool batch_fits(const struct batch *b, const struct ticket *t, const struct subnet *subnet);
bool batch_has_more(const struct ticket *t);

/* Whose prompts a job's may be served from: its key's, or everybody's; apart by its salt. */
struct prefix_scope batch_scope(const struct job *job, bool shared);
/* Tokens of its prompts that the prefix cache holds at `subnet` and that need not run. */
int batch_cached(const struct batch *b, const struct job *job, const struct subnet *subnet);

/* A waiting ticket joins at t->subnet with its first group, which must fit. */
void batch_join(struct batch *b, struct ticket *t, int64_t now_ns);
/* The next group of a running ticket begins; it must fit. */
void batch_begin_group(struct batch *b, struct ticket *t);

/* What runs, as the cost model sees it; `without` (may be NULL) is left out. */
void batch_load(const struct batch *b, const struct ticket *without, struct cost_load *ret_load);

/* How far a running ticket is, as the scheduler sees it. */
void batch_progress(const struct ticket *t, struct scheduled_progress *ret_progress);

/* Ends a running ticket, which can end (batch_can_end), with what it has. It leaves as in
 * batch_step. */
void batch_cut(struct batch *b, struct ticket *t, enum finish_detail detail);
/* Whether it could: a token is out, and what was asked of the prompts is done. */
bool batch_can_end(const struct ticket *t);

/* Ends one running ticket with an error. It leaves as in batch_step. */
void batch_fail(struct batch *b, struct ticket *t, const struct error *error);

/* Goes on at a nested plan of the decoder. */
void batch_narrow(struct batch *b, struct ticket *t, const struct plan *plan);

/*
 * For the next step only: in which order the prompts of the running tickets are fed, [n], valid
 * until the step, and how many rows they may have while others decode. Without it: in the order in
 * which they joined, and as many as are configured.
 */
void batch_arrange(struct batch *b, struct scheduled *const *order, int n, int prompt_rows);

/*
 * For the next step only: answers whose jobs allow it are drafted for where `cost` says that it
 * pays (speculate.h). Without it nothing is drafted.
 */
void batch_speculate(struct batch *b, const struct cost_model *cost);
/* The step that followed the drafts, or was plain though some could have been made, took `ratio`
 * times what was predicted. */
void batch_learn_ratio(struct batch *b, const struct batch_stats *stats, double ratio);

/* What a step did. */
struct batch_stats {
	struct cost_step step; /* its arrays are valid until the next step */
	int decode_rows, prompt_rows;
	double draft_ms;  /* of its time, that drafts took */
	bool could_draft; /* somebody allows it */
};

/* Runs one step. Something must be running and not rest. Allocates nothing. */
void batch_step(struct batch *b, struct batch_stats *ret_stats);

/* Takes a ticket that has ended (its report says JOB_DONE) out of the batch; NULL if none has. */
struct ticket *batch_take_ended(struct batch *b);

#endif
