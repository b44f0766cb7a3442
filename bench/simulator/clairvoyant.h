/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scheduler that knows the future: every arrival, every length, the disturbance of every step. It
 * gives each request a rung of the ladder, a moment before which it does not join, and a place in
 * the order, and looks for the choice with the most budgets kept and the greatest depth; a budget
 * is worth as much as two requests at the full depth. The judge is the simulated batch itself.
 *
 * The search starts from what an online scheduler did and from many simple rules, and goes on by
 * local changes. So what it finds is a lower bound of the best possible; clairvoyant_bound gives an
 * upper one.
 */
#ifndef FATHOM_BENCH_CLAIRVOYANT_H
#define FATHOM_BENCH_CLAIRVOYANT_H

#include "bench/simulator/simulator.h"

struct clairvoyant_options {
	const struct sim_machine *machine;
	struct sim_noise noise;
	double overhead_ms;
	int64_t steps; /* that the search may simulate */
	uint64_t seed;
	/* Called now and then, with the share done; may be NULL. */
	void (*progress)(void *arg, double share, size_t met, double depth);
	void *progress_arg;
};

/* How good an outcome is. */
struct clairvoyant_score {
	size_t asked, met; /* budgets */
	double depth;      /* mean depth of the automatic requests that were answered */
};

/* Of requests that have been simulated. */
struct clairvoyant_score clairvoyant_score(const struct sim_request *requests, size_t n);

/*
 * Searches from simple rules and from what online schedulers did with the same requests:
 * online[0..n_online), each [n]. `requests` receives the best outcome, which is at least as good as
 * that of each of them. False with a sentence.
 */
bool clairvoyant_search(const struct clairvoyant_options *options,
                const struct sim_request *const *online, int n_online, struct sim_request *requests,
                size_t n, char *err, size_t errlen);

/*
 * What no scheduler can exceed. Budgets: those that an idle server meets at the lowest rung. Depth:
 * each request has at most the rung at which an idle server meets its budgets, and in any slice of
 * time the work of those that come and are due in it, each row at the cheapest rate that the cost
 * model has for any number of rows, must fit; the least over many ways of slicing. A budget that is
 * given up frees its work, so with budgets missed the depth may be greater.
 */
struct clairvoyant_score clairvoyant_bound(const struct clairvoyant_options *options,
                const struct sim_request *requests, size_t n);

#endif
