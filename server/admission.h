/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: what a job is predicted to cost, at which depth it would run, and whether it can be
 * served at all. Between the scheduler, which knows numbers only, and the engine. Immutable after
 * creation: the loop thread asks for refusals and /v1/plan, the engine thread when a job joins.
 */
#ifndef FATHOM_SERVER_ADMISSION_H
#define FATHOM_SERVER_ADMISSION_H

#include "config/config.h"
#include "server/scheduler.h"

struct admission {
	const struct model *model;
	struct cost_limits limits;
	size_t kv_blocks;
	int overload_min_depth;
	struct ladder ladders[PLAN_RULE_LAYERS]; /* by rule */
};

bool admission_init(struct admission *a, const struct model *model, const struct config *config,
                const struct cost_limits *limits, size_t kv_blocks);
void admission_finish(struct admission *a);

/* What else asks for the engine's time. */
struct admission_state {
	const struct cost_model *cost;
	const struct cost_load *load;
	double wait_ms; /* until the job would join */
	int waiting;    /* sequences that wait besides this job */
};

struct admission_answer {
	struct subnet subnet;
	enum depth_reason reason;
	struct cost_time time; /* from joining; the median */
	double spent_ms;       /* from receiving to joining */
	double predicted_ms;   /* spent and time, without the margin; < 0: no cost model */
	int predicted_tokens;
	bool fits; /* the budgets */
};

/* The plan that the job would run at if it joined after state->wait_ms. */
void admission_decide(const struct admission *a, const struct admission_state *state,
                const struct job *job, int64_t now_ns, struct admission_answer *ret_answer);

/* Refuses what no pool of this size could ever hold, at the shallowest depth that it allows. */
bool admission_check_size(const struct admission *a, const struct job *job, struct error *e);

/*
 * With on_miss reject: refuses a job whose budgets `answer` misses. 400 with the fitting depth if
 * an idle server could not meet them either, else 503 with retry_after_ms = state->wait_ms.
 */
bool admission_check_budget(const struct admission *a, const struct admission_state *state,
                const struct job *job, const struct admission_answer *answer, struct error *e);

/* What a job runs at `subnet`; `output_tokens` of each choice. */
void admission_work(const struct job *job, const struct subnet *subnet, int output_tokens,
                struct cost_work *ret_work);
/* Its place in the queue's order, what its prompts take alone, and the tokens of all its answers. */
void admission_entry(const struct admission *a, const struct cost_model *cost,
                const struct job *job, struct scheduler_entry *ret_entry, double *ret_prompt_ms,
                double *ret_answer_tokens);
/* Its soft limits, `spent_ms` after it was received. */
struct scheduler_budget admission_budget(const struct job *job, double spent_ms);

/* Tokens that each of its answers is planned for. */
int admission_predict_tokens(const struct job *job, const struct cost_model *cost);

/* Tokens of prompts and answers: what the queue's bound counts. */
int64_t admission_tokens(const struct job *job);

#endif
