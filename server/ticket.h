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

#include "model/beam.h"
#include "server/detokenise.h"
#include "server/job.h"
#include "server/scheduler.h"
#include "server/speculate.h"

/* A choice while it runs. */
struct run_choice {
	struct sequence *sequence; /* NULL before its prompt is through and after its end */
	struct detokeniser text;
	int64_t last_token_ns;
	/* During a step: tokens drafted after the last one, and how many of them were right. */
	int drafted, accepted;
	bool drafts_end; /* no more can be drafted */
	bool spoiled;    /* what is to be forgotten is not finite */
};

/* A prompt while it runs. Its choices begin in one or several groups that share its blocks. */
struct run_prompt {
	struct sequence *
	                sequence; /* while its tokens are fed; then the first choice's, or beam's */
	bool source_fed;          /* of the present group; a source enters a step whole */
	int fed;                  /* tokens of ticket_past given to steps, or cached */
	int fed_before;           /* the same before the present step */
	int led;                  /* so many of them another prompt will have fed */
	int cached;               /* so many were cached, for the first group */
	int begun;                /* choices that have begun or are in the present group */
	int group;                /* choices of the present group; its first is begun - group */
	struct beam *beam;        /* NULL: no beam search */
	bool searching;           /* the search has live beams: they own the group's sequences */
	int searched;             /* tokens of each live beam */
	int64_t last_token_ns;    /* of a search */
	size_t reserved_blocks;   /* kept free for the group's forks */
	int reserved_sequences;
	bool scored;  /* its tokens' log-probabilities are complete */
	bool through; /* no group runs or is still to come */
};

/*
 * The texts of a job for an encoder, which enter steps whole and in order. `served` is the job's
 * place among others: how much has been done for it (batch_text.c).
 */
struct run_texts {
	int next;       /* index of the first text that has not entered a step */
	double served;  /* rows */
	int64_t tokens; /* of the texts from `next` on */
	int64_t all_tokens;
	double squares; /* sum of their lengths x lengths / 1,024 */
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
	struct scheduled scheduled; /* as the scheduler sees it */
	struct ticket *next;        /* engine::inbox, engine::waiting or batch::running */
	struct ticket *outbox_next; /* engine::outbox; mailbox lock */
	int64_t tokens;             /* counted against the queue's bound until it joins */

	/* engine thread */
	enum error_code ending;           /* `cancel`, seen by the engine */
	struct run_prompt *prompts;       /* [n_prompts] */
	int n_beams;                      /* prompts that have one */
	struct run_choice *choices;       /* [n_choices] */
	struct choice_progress *progress; /* [n_choices] */
	struct run_texts texts;           /* of an encoder */
	struct run_report report;
	struct subnet subnet; /* at present */
	struct drafter draft;
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
/* The job may be gone already. Accepts NULL. */
void ticket_destroy(struct ticket *t);

static inline struct ticket *ticket_of(struct scheduled *scheduled) {
	return (struct ticket *)((char *)scheduled - offsetof(struct ticket, scheduled));
}

/* The prompt that a choice belongs to while it runs. */
static inline int ticket_prompt_of(const struct ticket *t, int choice) {
	return choice / t->job->best_of;
}

/* What an answer follows: the prompt, or after a source what the decoder begins with. */
struct past {
	const int32_t *tokens;
	int n;
};

static inline struct past ticket_past(const struct job *job, int prompt) {
	const struct job_prompt *p = &job->prompts[prompt];
	if (job->work != WORK_GENERATE)
		return (struct past){ NULL, 0 };
	return p->target ? (struct past){ p->target, p->n_target }
	                 : (struct past){ p->tokens, p->n_tokens };
}

/* Tokens that an encoder reads first. */
static inline int ticket_source_tokens(const struct job *job, int prompt) {
	const struct job_prompt *p = &job->prompts[prompt];
	return p->target || job->work != WORK_GENERATE ? p->n_tokens : 0;
}

/*
 * Tokens that a sequence of this prompt must hold: the last token drawn is never fed, but in a beam
 * search, which may take the end symbol's score after it.
 */
static inline int ticket_sequence_tokens(const struct job *job, int prompt) {
	int answer = job->max_tokens > 0 && job->num_beams == 0 ? job->max_tokens - 1
	                                                        : job->max_tokens;
	return ticket_past(job, prompt).n + answer;
}

/*
 * Whether its prompts may come from the prefix cache, and enter it: not if the client said no, nor
 * where the prompt's own scores or an echo are wanted, nor behind a source.
 */
static inline bool ticket_uses_cache(const struct job *job) {
	return job->work == WORK_GENERATE && job->request.cache_prompt && !job->request.echo
	                && !job->want_prompt_logprobs && job->max_tokens > 0 && job->n_prompts > 0
	                && !job->prompts[0].target;
}

/* Places that the job takes, or will take, among those that run at once. */
static inline int ticket_places(const struct job *job) {
	if (job->work != WORK_GENERATE)
		return 1;
	return job->num_beams > 0 ? job->n_prompts * job->num_beams : job->n_choices;
}

/* Tokens of the longest answer so far. */
int ticket_most_tokens(const struct ticket *t);

/* report and progress -> mail; mailbox lock held. */
void ticket_publish(struct ticket *t);
/* mail -> job; loop thread, mailbox lock held. A finished best_of is sorted. */
void ticket_deliver(struct ticket *t);

#endif
