/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job: one accepted request from the moment its prompts are tokens until its answer is written.
 *
 * Ownership: the loop thread builds a job (resolve.h), hands it to the engine thread
 * (engine_submit) and gets it back with its last progress report; between the two, the loop may
 * only read what was published. Choices are append-only arrays allocated when the job is built (the
 * most tokens are known then), so that nothing is allocated while running. The engine appends and
 * publishes counters under the mailbox lock; the loop reads up to the published counters.
 */
#ifndef FATHOM_SERVER_JOB_H
#define FATHOM_SERVER_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"
#include "model/sample.h"
#include "proto/error.h"
#include "proto/request.h"

enum job_state { JOB_NEW, JOB_QUEUED, JOB_RUNNING, JOB_DONE };

/* What the engine does with the prompts. */
enum job_work {
	WORK_GENERATE, /* max_tokens 0: their tokens are scored */
	WORK_EMBED,
	WORK_CLASSIFY,
	WORK_FILL_MASK,
};

enum finish { FINISH_NONE, FINISH_STOP, FINISH_LENGTH };
enum finish_detail { DETAIL_NONE, DETAIL_DEADLINE, DETAIL_BUDGET };
enum depth_reason { REASON_EXPLICIT, REASON_BUDGET, REASON_OVERLOAD, REASON_DEFAULT };

/* What the client allows the server to choose from. */
struct depth_policy {
	bool automatic;       /* the server chooses; else `subnet` binds */
	struct subnet subnet; /* binding plan */
	enum plan_rule rule;
	/* Bounds of what the server chooses; 0 for a stack that the model lacks. */
	int min_depth[STACKS], max_depth[STACKS];
	enum depth_reason reason; /* of a binding plan: EXPLICIT or DEFAULT */
	char requested[80];       /* as the client said it, for the answer */
	bool allow_step_down;
};

/* Whether a plan nested in the request's own may draft for it (speculate.h). */
struct draft_policy {
	bool on;
	int depth;  /* 0: the server chooses */
	int tokens; /* at most so many at a time */
	enum plan_rule rule;
};

/* Tokens of one prompt; shared by its choices. */
struct job_prompt {
	int32_t *tokens;
	int n_tokens;
	/* loglikelihood and echo with logprobs: of tokens[i] given those before it, filled by the
	 * engine and complete before the prompt's first choice makes progress. logprobs[0] is valid
	 * only if has_first (nothing precedes tokens[0], so no model has it today). */
	float *logprobs;
	struct token_logprob *tops; /* [n_tokens][n_top] or NULL */
	bool has_first;
	bool starts_with_bos; /* tokens[0] was added by the tokenizer: it is not the client's */

	/* seq2seq: `tokens` is the source; the decoder's own prompt is the start symbol, then what
	 * every answer must begin with, or the text to be scored. logprobs are then of target[i]. */
	int32_t *target;
	int n_target;
	int n_forced; /* of target's tokens those before the client's: the start, and what is forced */

	/* encoders */
	int second;     /* first token of the second text of a pair; n_tokens without one */
	float *output;  /* EMBED [dim]; CLASSIFY [classes] raw scores; filled before JOB_DONE */
	int32_t *masks; /* FILL_MASK: [n_masks] positions of mask tokens; */
	int n_masks;
	struct token_logprob *fills; /* and [n_masks][n_top] the best tokens for each */
};

/* How much of a choice the loop may read. */
struct choice_progress {
	int n_tokens;
	size_t text_len;
	enum finish finish;
	enum finish_detail detail;
};

/*
 * One continuation: choice i belongs to prompt i / best_of while the job runs. With best_of > n
 * (never streamed) engine_collect sorts a finished job, so that choices 0 .. n_prompts * n - 1 are
 * the answers, choice i then belongs to prompt i / n, and the rest was generated but not chosen.
 */
struct choice {
	int32_t *tokens; /* [cap] */
	int cap;
	float *logprobs;            /* [cap] or NULL */
	struct token_logprob *tops; /* [cap][n_top] or NULL */
	size_t *token_text_end;     /* [cap] bytes of text after each token, not counting bytes that
	                         * await the rest of a character; NULL without logprobs */
	char *text; /* [text_cap] well-formed UTF-8; up to text_len stop strings are cut; what is
	             * beyond, up to the last published token's end, may be read too */
	size_t text_cap;
	int stop_index;                   /* which stop string ended it, or -1 */
	double logprob_sum;               /* for best_of */
	double score;                     /* of a beam search's hypothesis */
	struct choice_progress published; /* under the mailbox lock */
};

struct job_change {
	int at_token;
	struct plan plan;
};

/* Milliseconds are from clock_now_ns; 0: not yet. */
struct job_times {
	int64_t received_ns; /* last body byte read */
	int64_t queued_ns, joined_ns, first_token_ns, done_ns;
};

struct job {
	/* identity (loop) */
	char id[64];          /* "cmpl-..." */
	char request_id[132]; /* X-Request-Id */
	uint64_t key;         /* which API key; 0 without */
	enum request_kind kind;
	int64_t created;
	struct request request; /* owned; strings and limits the engine needs stay valid while the job lives */

	/* work (built by resolve, read by the engine) */
	struct job_prompt *prompts;
	int n_prompts;
	struct choice *choices;
	int n_choices; /* n_prompts * best_of */
	int n, best_of;
	int max_tokens; /* per choice; 0: score only */
	int min_tokens;
	int n_top; /* alternatives per token; 0 with logprobs: the chosen one only */
	bool want_logprobs, want_prompt_logprobs, stream;
	struct sampling sampling; /* bias and banned point to the next two */
	struct logit_bias *bias;
	int32_t *banned;
	int n_never; /* so many of `banned` are banned after min_tokens, too */
	struct depth_policy policy;
	enum job_work work;
	int num_beams; /* seq2seq: beam search of this width, and the choices of a prompt are its n
	                * best hypotheses; 0: none (greedy or sampled) */
	double length_penalty;
	struct draft_policy draft;
	bool mean_pooling, normalize; /* EMBED */
	int classifier;               /* CLASSIFY */

	/* time */
	int64_t deadline_ns;                                      /* hard; 0: none */
	double latency_budget_ms, ttft_budget_ms, tpot_budget_ms; /* 0: none */
	enum on_miss on_miss;
	int expected_tokens; /* 0: unknown */
	int priority;

	/* outcome (engine writes; the loop reads after JOB_DONE, `subnet` and `reason` after the first progress) */
	enum job_state state; /* published */
	struct subnet subnet;
	enum depth_reason reason;
	struct job_change changes[4];
	int n_changes;
	double predicted_ms; /* at joining; < 0: no prediction */
	int predicted_tokens;
	int64_t cached_tokens;                    /* of the prompts, those that did not run */
	int64_t accepted_tokens, rejected_tokens; /* of those drafted */
	struct error error;                       /* code NONE: answered */
	struct job_times times;
	double prefill_ms, decode_ms;

	/* links */
	struct job *next;  /* of those that engine_collect returned */
	void *owner;       /* the loop's connection state; the engine never touches it */
	void *engine_data; /* the engine's own state; the loop never touches it */
};

/*
 * Allocates the arrays of choices, and of prompts what the engine fills (logprobs, output, fills),
 * for the numbers set and for answers of `model`; false with error_internal if memory ran out.
 */
bool job_allocate(struct job *job, const struct model *model, struct error *e);
/* Frees the job and everything it owns, the request included. Accepts NULL and half-built jobs. */
void job_destroy(struct job *job);

#endif
