/* SPDX-License-Identifier: Apache-2.0 */
/* A load under one policy after another, and what became of it in numbers. */
#ifndef FATHOM_BENCH_SIMULATOR_STUDY_H
#define FATHOM_BENCH_SIMULATOR_STUDY_H

#include <stdio.h>

#include "bench/simulator/clairvoyant.h"
#include "bench/simulator/load.h"

/* Of some values; all 0 without any. */
struct sim_quantiles {
	size_t n;
	double mean, min, p50, p75, p90, p95, p99, p99_9, max;
};

/* A load that has been run. */
struct sim_outcome {
	char label[48]; /* the policy */
	struct sim_request *requests;
	size_t n;
	size_t counted_from; /* those before belong to the warm-up */
	struct sim_totals totals;
	double seconds; /* of simulated time, from the first arrival counted to the last end */
	double wall_seconds;
	int nodes;
};

struct sim_summary {
	size_t requests, answered, cut, expired, refused;
	struct clairvoyant_score score;
	double attainment; /* met / asked; 1 if nothing was asked */
	size_t changed;    /* requests that stepped down */
	double requests_per_s, goodput_per_s, tokens_per_s;
	double busy; /* share of the nodes' time */
	struct sim_quantiles latency_ms, ttft_ms, tpot_ms, queue_ms, error;
};

struct sim_study {
	const struct sim_machine *machine;
	struct load *load;          /* settled */
	struct sim_options options; /* of every run; machine and next are set here */
	int64_t search_steps;       /* of the clairvoyant */
	FILE *progress;             /* NULL: quiet */
};

/*
 * Runs the load under `policy`: "fathom", "fixed:D" (rung D of the ladder, 1 the lowest), or
 * "clairvoyant", which starts from what fathom did. False with a sentence. Free with
 * sim_outcome_finish.
 */
bool sim_study_run(const struct sim_study *study, const char *policy, struct sim_outcome *ret,
                char *err, size_t errlen);
void sim_outcome_finish(struct sim_outcome *outcome);

/* False if memory ran out. */
bool sim_summarise(const struct sim_outcome *outcome, struct sim_summary *ret);

/*
 * Whether an idle machine meets the budgets in `share` of their time, at the lowest depth that the
 * request allows. A budget is called feasible at 0.8: a fifth to spare.
 */
bool sim_is_feasible(const struct sim_machine *machine, const struct sim_request *r, double share);

/* The request as a load has it. */
void sim_load_request(const struct sim_study *study, const struct sim_request *r,
                struct load_request *ret);

/* A line for each request, and one with names before. */
void sim_write_csv(const struct sim_study *study, const struct sim_outcome *outcome,
                struct buffer *out);

/* The load as it was run, as a trace that load_schedule reads, but for budgets that are not feasible
 * in this share of their time; 1: all. */
void sim_write_trace(const struct sim_study *study, const struct sim_outcome *outcome,
                double feasible, struct buffer *out);

/* A table: its head, and a row for each outcome. */
void sim_print_head(const struct sim_study *study, FILE *out);
void sim_print_row(const struct sim_study *study, const struct sim_outcome *outcome,
                const struct sim_summary *summary, FILE *out);

/* A row of what no scheduler exceeds with the requests of this outcome. */
void sim_print_bound(const struct sim_study *study, const struct sim_outcome *outcome, FILE *out);

/* ---- results, as fathom bench writes them ---- */

/* Of all outcomes so far, as JSON. */
struct sim_results {
	struct buffer runs;
	int n;
};

/* False if memory ran out. */
bool sim_results_add(struct sim_results *results, const struct sim_study *study,
                const struct sim_outcome *outcome);
void sim_results_write(const struct sim_results *results, const struct sim_study *study,
                struct buffer *out);
void sim_results_finish(struct sim_results *results);

#endif
