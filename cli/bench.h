/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of fathom bench: its flags, its runs, what it shows. */
#ifndef FATHOM_CLI_BENCH_H
#define FATHOM_CLI_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/client/run.h"
#include "cli/load_args.h"

struct bench_options {
	const char *url, *api_key, *model, *endpoint, *prompts, *prompt_kind;
	const char *depths, *rates, *client_counts;
	const char *json, *html, *save_trace, *save_requests;
	double timeout_s;
	int connections, rounds;
	bool plain, insecure, capacity, quiet;
	struct load_options load;
};

/* One run, or several rounds of it. */
struct bench_run {
	char label[96];
	char depth[LOAD_NAME]; /* of every request; "": the load's */
	double rate;           /* 0: the load's */
	int clients;           /* 0: the load's */
	struct load load;      /* settled */
	struct run run;
	struct result result;
	bool done;
	int sustained; /* looking for the capacity: whether the server kept up; -1: not asked */
};

struct bench {
	const struct bench_options *options;
	struct client *client;
	struct target target;
	struct prompts *prompts;
	struct load load; /* not settled: runs set their own rate */
	struct bench_run *runs;
	int n_runs, cap;
	int number; /* of the next run, for its prompts */
	char started[32];
	double capacity[64]; /* found, of each depth in order of depths */
	char (*depths)[LOAD_NAME];
	int n_depths;
	int shown; /* of the progress line */
	double shown_s;
	const struct bench_run *current;
};

/* ---- bench_plan.c: which runs there are, and running them ---- */

/* Makes the runs that the flags ask for. False with one sentence. */
bool bench_plan(struct bench *b, char *err, size_t errlen);
/* Runs them all, or until Ctrl-C. False with one sentence. */
bool bench_run_all(struct bench *b, char *err, size_t errlen);
/* Finds the highest rate that is sustained at each depth. */
bool bench_find_capacity(struct bench *b, char *err, size_t errlen);
bool bench_was_interrupted(const struct bench *b);
void bench_finish(struct bench *b);

/* ---- bench_show.c: for people ---- */

void bench_show_progress(void *arg, const struct run_status *status);
/* Takes the progress line away. */
void bench_hide_progress(struct bench *b);
void bench_show_results(const struct bench *b);
/* What casts doubt on the numbers, on stderr. */
void bench_show_warnings(const struct bench *b);

#endif
