/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the clairvoyant scheduler: a trace under given choices, from the start or from
 * a moment before the first change. */
#ifndef FATHOM_BENCH_CLAIRVOYANT_REPLAY_H
#define FATHOM_BENCH_CLAIRVOYANT_REPLAY_H

#include "bench/simulator/clairvoyant.h"

/* What is chosen for a request. */
struct choice_of {
	int rung;
	double hold_ms; /* after its arrival it does not join before so long */
	double order;   /* the lowest of those that may join joins first */
};

/* And for all of them. */
struct limits_of {
	int running;     /* sequences side by side */
	int prompt_rows; /* of a step that also decodes */
};

/* What became of it: moments, < 0: it did not come to that. */
struct fate {
	double joined_ms, first_ms, done_ms;
	bool met;
};

/* The state before an arrival. */
struct moment {
	double now_ms;
	size_t next; /* arrival */
	int n_waiting, n_running;
	int *waiting;         /* [n], by order */
	int *running;         /* [sequences] */
	struct sim_run *runs; /* [sequences] */
};

enum { MOMENTS = 64 };

struct replay {
	const struct clairvoyant_options *options;
	const struct sim_request *requests;
	size_t n;
	struct subnet *subnets; /* [n_subnets]: the ladder, then those of explicit requests */
	double *value;          /* [n_subnets] depth */
	int n_subnets;
	int *low, *high; /* [n] subnets allowed; equal: bound */
	size_t asked, automatic;

	/* the best so far */
	struct choice_of *choices;
	struct fate *fates;
	bool *idle; /* [n] nothing was there when the request came */
	struct moment moments[MOMENTS];
	size_t met;
	double depth; /* sum over answered automatic requests */
	struct limits_of limits;

	/* a trial */
	struct choice_of *trial;
	struct fate *trial_fates;
	bool *trial_idle;
	struct moment trial_moments[MOMENTS];
	size_t trial_met;
	double trial_depth;
	struct limits_of trial_limits;

	struct sim_batch batch;
	struct sim_run *runs; /* [n] */
	int *waiting;         /* [n], by order */
	int n_waiting;
	int lost;      /* budgets that the best kept, less those that it did not */
	int64_t steps; /* simulated so far */
	double worth;  /* depth that a budget is worth */
};

/* False if memory ran out. */
bool replay_init(struct replay *r, const struct clairvoyant_options *options,
                const struct sim_request *requests, size_t n);
void replay_finish(struct replay *r);

/*
 * Runs `trial`, whose choices differ from those of the best between requests `from` and `to` only;
 * with `from` 0 from the very start, whatever was before. False if it was given up because it lost
 * more budgets than `patience` that the best kept, so far.
 */
bool replay_run(struct replay *r, size_t from, size_t to, int patience);
/* Whether the trial is at least as good, by what a budget is worth. */
bool replay_is_better(const struct replay *r);
/* The trial, run from `from` on, becomes the best; replay_revert takes its choices back. */
void replay_accept(struct replay *r, size_t from);
void replay_revert(struct replay *r, size_t from, size_t to);

/* ---- clairvoyant_bound.c ---- */

/* A request on an idle server; predicted by the true cost. */
void clairvoyant_alone(const struct clairvoyant_options *options, const struct sim_request *request,
                const struct subnet *subnet, struct cost_time *ret_time);
/* Whether an idle server that takes `factor` times as long would meet the budgets. */
bool clairvoyant_meets_alone(const struct clairvoyant_options *options,
                const struct sim_request *request, const struct subnet *subnet, double factor);

#endif
