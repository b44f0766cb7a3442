/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ticket is the engine's own record of a job: what runs, how far it is, and the two sides of what
 * it reports. It is made on the loop thread when a job is submitted, so that the engine thread
 * allocates nothing, and freed there when the finished job is collected.
 *
 * While the engine has a job, it writes to it only what the loop does not read yet: tokens and text
 * beyond the published counters, the plan before the first progress, changes beyond n_changes, the
 * error before JOB_DONE. Counters go from `report` to `mail` under the mailbox lock (engine), and
 * from `mail` into the job under the same lock (loop, engine_collect).
 */
#ifndef FATHOM_SERVER_TICKET_H
#define FATHOM_SERVER_TICKET_H

#include "server/detokenise.h"
#include "server/job.h"
#include "server/scheduler.h"

/* A choice while it runs. */
struct run_choice {
	struct sequence *sequence; /* NULL before its prompt is through and after its end */
	struct detokeniser text;
	int64_t last_token_ns;
};

/* A prompt while it runs. Its choices begin in one or several groups that share its blocks. */
struct run_prompt {
	struct sequence *sequence; /* while its tokens are fed; then the first choice's */
	int fed;                   /* tokens given to steps */
	int begun;                 /* choices that have begun or are in the present group */
	int group;                 /* choices of the present group; its first is begun - group */
	size_t reserved_blocks;    /* kept free for the group's forks */
	int reserved_sequences;
	bool scored;  /* its tokens' log-probabilities are complete */
	bool through; /* no group runs or is still to come */
};

/* What a job reports besides its choices. */
struct run_report {
	enum job_state state;
	int n_changes;
	struct job_times times;
	double prefill_ms, decode_ms;
};

struct ticket {
	struct job *job;
	struct ticket *next;        /* engine::inbox, engine::waiting or batch::running */
	struct ticket *outbox_next; /* engine::outbox; mailbox lock */
	int64_t tokens;             /* counted against the queue's bound until it joins */

	/* engine thread */
	struct scheduler_entry entry;     /* its place in the order */
	double prompt_ms;                 /* predicted for its prompts, alone */
	enum error_code ending;           /* `cancel`, seen by the engine */
	struct run_prompt *prompts;       /* [n_prompts] */
	struct run_choice *choices;       /* [n_choices] */
	struct choice_progress *progress; /* [n_choices] */
	struct run_report report;
	struct subnet subnet; /* at present */
	int prompts_through, choices_done;
	bool failed;                /* error is set; ends at the end of the step */
	bool news;                  /* progress or report changed since the last publication */
	struct cost_time predicted; /* at joining */
	int predicted_tokens;
	double late_ratio; /* actual / predicted when it stepped down; 0: it did not */

	/* mailbox lock */
	struct choice_progress *mail; /* [n_choices] */
	struct run_report mail_report;
	bool in_outbox;
	enum error_code cancel; /* ERROR_NONE: go on */
};

/*
 * A ticket for a job that is ready to be submitted, with `answers`, the tokenizer of what is
 * generated; NULL if memory ran out.
 */
struct ticket *ticket_create(struct job *job, const struct tokenizer *answers);
void ticket_destroy(struct ticket *t);

/* The prompt that a choice belongs to while it runs. */
static inline int ticket_prompt_of(const struct ticket *t, int choice) {
	return choice / t->job->best_of;
}

/* Tokens that a sequence of this prompt must hold: the last token drawn is never fed. */
static inline int ticket_sequence_tokens(const struct job *job, int prompt) {
	int answer = job->max_tokens > 0 ? job->max_tokens - 1 : 0;
	return job->prompts[prompt].n_tokens + answer;
}

/* Whether any token has been drawn. */
bool ticket_has_token(const struct ticket *t);

/* report and progress -> mail; mailbox lock held. */
void ticket_publish(struct ticket *t);
/* mail -> job; loop thread, mailbox lock held. A finished best_of is sorted. */
void ticket_deliver(struct ticket *t);

#endif
