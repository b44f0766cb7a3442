/* SPDX-License-Identifier: Apache-2.0 */
/* One run: a load is sent to a server, and what became of each request is kept. */
#ifndef FATHOM_BENCH_RUN_H
#define FATHOM_BENCH_RUN_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/client/client.h"
#include "bench/client/prompt.h"
#include "bench/client/target.h"
#include "bench/result/result.h"

/* How far a run is. */
struct run_status {
	double elapsed_s, total_s; /* total 0: not known */
	size_t sent, ended, total; /* requests; total 0: not known */
	int in_flight;
	size_t answered, failed, asked, met; /* of those that ended */
	double depth;                        /* mean; 0: not said */
};

struct run_options {
	struct client *client;
	const struct target *target;
	const struct prompts *prompts;
	struct load *load; /* settled */
	const char *depth; /* of every request, whatever the load says; NULL: the load's */
	int number;        /* of the run: its prompts differ from those of other numbers */
	/* Called ten times a second; may be NULL. */
	void (*progress)(void *arg, const struct run_status *status);
	void *arg;
};

struct run {
	struct outcome *outcomes; /* in order of arrival; those that were cancelled are left out */
	size_t n;
	struct histogram itl;
	double seconds; /* the window of rates: from the warm-up until no more requests are sent, or,
	                 * where their number ends the run, until the last answer */
	int most_in_flight;
	bool interrupted; /* by Ctrl-C */
	bool lost;        /* the server stopped taking connections */
};

/* False with one sentence if the load cannot be run at all. Finish it also after a failure. */
bool run_load(const struct run_options *options, struct run *ret, char *err, size_t errlen);
void run_finish(struct run *run);

/* Puts another run of the same load behind a run, and finishes it. False if memory ran out. */
bool run_append(struct run *run, struct run *more);

/*
 * Requests in flight per second by which a run's backlog grew in the second half of its arrivals,
 * by least squares. About 0 if the server keeps up.
 */
double run_growth_per_s(const struct run *run);

#endif
