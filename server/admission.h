/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: a job in the scheduler's numbers, whether it can be served at all, and what is said when
 * it is refused. Between the scheduler and the engine. Immutable after creation; any thread.
 */
#ifndef FATHOM_SERVER_ADMISSION_H
#define FATHOM_SERVER_ADMISSION_H

#include "server/scheduler.h"

struct admission {
	const struct model *model;
	struct cost_limits limits;
	size_t kv_blocks;
	struct ladder ladders[PLAN_RULE_LAYERS]; /* by rule */
};

bool admission_init(struct admission *a, const struct model *model,
                const struct cost_limits *limits, size_t kv_blocks);
void admission_finish(struct admission *a);

/*
 * The job as the scheduler sees it. Lengths are predicted by `cost`. The job's times are set but for
 * /v1/plan, where the request counts as received at 0.
 */
void admission_schedule(const struct admission *a, const struct cost_model *cost,
                const struct job *job, struct scheduled *ret_scheduled);

/* Refuses what no pool of this size could ever hold, at the shallowest depth that it allows. */
bool admission_check_size(const struct admission *a, const struct job *job, struct error *e);

struct admission_refusal {
	enum scheduler_refusal why; /* not ACCEPTED or TOO_LARGE */
	struct cost_time time;      /* predicted from joining on, the median: no margin yet */
	double spent_ms;            /* from receiving it to joining */
	double retry_after_ms;      /* when trying again may help */
};

/* Says why a job is refused, with the time that its first budget not kept is about. Returns false. */
bool admission_refuse(const struct admission *a, const struct cost_model *cost,
                const struct job *job, const struct admission_refusal *refusal, struct error *e);

/* What a job runs at `subnet`; `output_tokens` of each choice. */
void admission_work(const struct job *job, const struct subnet *subnet, int output_tokens,
                struct cost_work *ret_work);
/* Its soft limits, `spent_ms` after it was received. */
struct scheduler_budget admission_budget(const struct job *job, double spent_ms);

/* Tokens that each of its answers is planned for. */
int admission_predict_tokens(const struct job *job, const struct cost_model *cost);

/* Tokens of prompts and answers: what the queue's bound counts. */
int64_t admission_tokens(const struct job *job);

#endif
