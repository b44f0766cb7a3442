/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler: who joins the batch next, at which depth, and who steps down. Pure functions on
 * plain structs; time comes in as numbers (milliseconds of any one clock), so that tests run it
 * under a clock of their own. It holds no queue: engine.c does.
 */
#ifndef FATHOM_SERVER_SCHEDULER_H
#define FATHOM_SERVER_SCHEDULER_H

#include <stdbool.h>

#include "server/cost.h"
#include "server/job.h"
#include "server/ladder.h"

/* ---- order ----------------------------------------------------------------------------------- */

enum {
	SCHEDULER_PATIENCE_MS =
	                10000,      /* a request without a budget is due this long after arrival */
	SCHEDULER_AGING_MS = 10000, /* each such time of waiting makes a request more urgent */
};

/* A request that could join. */
struct scheduler_entry {
	int priority;      /* lower is more urgent */
	double arrival_ms; /* when it was received */
	double due_ms;     /* end of its nearest budget or deadline; INFINITY: none */
	double service_ms; /* predicted at the shallowest depth that it allows */
};

/*
 * Whether a goes before b: by priority class, then by the latest moment at which work must begin,
 * then by arrival. A budget that can no longer be met counts as none, so that a lost request does
 * not push aside one that can still be on time. Nobody starves: classes fall with waiting, and a
 * request without a budget has a due time that does not move.
 */
bool scheduler_before(
                const struct scheduler_entry *a, const struct scheduler_entry *b, double now_ms);

/* ---- depth ----------------------------------------------------------------------------------- */

/* Soft limits in milliseconds; 0: none. `spent_ms` has passed since the request was received. */
struct scheduler_budget {
	double spent_ms;
	double latency_ms, ttft_ms, tpot_ms;
};

bool scheduler_has_budget(const struct scheduler_budget *budget);

/* Whether a request predicted so keeps its budgets. */
bool scheduler_fits(
                const struct scheduler_budget *budget, const struct cost_time *time, double margin);

struct scheduler_question {
	const struct cost_model *cost;
	const struct cost_limits *limits;
	const struct cost_load *load;
	struct cost_work work; /* `subnet` is not read */
	struct scheduler_budget budget;
	double margin; /* predictions are multiplied by it */
	const struct ladder *ladder;
	/* Every rung is moved into these bounds: 1 <= min <= max of a stack that the model has. */
	int min_depth[STACKS], max_depth[STACKS];
	/* `auto` goes lower while sequences wait for slots, but not below this depth of the main
	 * stack. */
	int waiting, slots, overload_min_depth;
};

struct scheduler_choice {
	struct subnet subnet;
	enum depth_reason reason;
	bool fits; /* all budgets; true without one */
	struct cost_time time;
};

/*
 * The highest rung within the bounds whose predicted finish, with the margin, fits the budgets; the
 * lowest one, with `fits` false, if none does. False if no rung exists within the bounds.
 */
bool scheduler_choose(
                const struct scheduler_question *question, struct scheduler_choice *ret_choice);

/* The lowest rung within the bounds; false if none exists. */
bool scheduler_lowest(const struct ladder *ladder, const int min_depth[STACKS],
                const int max_depth[STACKS], struct subnet *ret_subnet);

/* The rung that `auto` requests go up to while `waiting` sequences wait for `slots`: from `max` when
 * none waits down to `min` when as many wait as can run. */
int scheduler_overload_rung(int min, int max, int waiting, int slots);

/* A running request that may step down. */
struct scheduler_progress {
	const struct cost_model *cost;
	const struct cost_limits *limits;
	const struct cost_load *load; /* the other requests only */
	struct cost_work work; /* what is left: prompt_tokens still to run, tokens still to come */
	struct scheduler_budget budget;
	enum plan_rule rule;
	int min_depth; /* of the decoder */
};

/*
 * Whether the request falls behind and where it should go on: the deepest plan nested in the
 * decoder's of work.subnet that is predicted to be in time, or the shallowest allowed if none is.
 * False if it is on time or has nowhere to go. An encoder's work is done at once: it never steps
 * down.
 */
bool scheduler_step_down(const struct scheduler_progress *progress, struct plan *ret_plan);

/* ---- length and waiting ---------------------------------------------------------------------- */

/*
 * Tokens that an answer is planned for: what the client expects, else its own max_tokens, else what
 * was learnt. At least 1 and at most max_tokens; 0 if max_tokens is 0.
 */
int scheduler_predict_tokens(
                int expected_tokens, int max_tokens, bool max_tokens_set, double learnt_tokens);

struct scheduler_queue {
	int waiting;              /* requests */
	double waiting_prompt_ms; /* their prompts, alone */
	double waiting_tokens;    /* tokens that they will generate, all sequences */
	int running, slots;       /* sequences */
	double running_tokens;    /* tokens that the running ones still generate, all of them */
	double shortest_tokens;   /* and the one that ends first */
	double step_ms;           /* of the running batch */
};

/* Milliseconds until a request that comes now would join. */
double scheduler_wait_ms(const struct scheduler_queue *queue);

#endif
