/* SPDX-License-Identifier: Apache-2.0 */
/* How much load a number of nodes carries: the simulator, asked again and again. */
#include "bench/simulator/capacity.h"

#include <math.h>
#include <string.h>

#define CLOSE_ENOUGH 1.02
enum { MOST_DOUBLINGS = 24, FULL_REQUESTS = 3000 };

/* ---- budgets ---- */

static bool attains(const struct sim_study *study, const char *policy, double rate, double target,
                struct sim_capacity *ret, bool *ret_attains, char *err, size_t errlen) {
	struct load load = *study->load;
	struct sim_study at_rate = *study;
	struct sim_outcome outcome;
	struct sim_summary summary;
	load.rate = rate;
	at_rate.load = &load;
	at_rate.progress = NULL;
	if (!sim_study_run(&at_rate, policy, &outcome, err, errlen))
		return false;
	bool ok = sim_summarise(&outcome, &summary);
	sim_outcome_finish(&outcome);
	if (!ok) {
		snprintf(err, errlen, "not enough memory");
		return false;
	}
	if (summary.score.asked == 0) {
		snprintf(err, errlen,
		                "a capacity is the rate at which budgets are met, and no request "
		                "has one: give --latency-budget-ms, say");
		return false;
	}
	*ret_attains = summary.attainment >= target;
	if (*ret_attains && rate > ret->rate) {
		ret->rate = rate;
		ret->outcome = outcome;
		ret->summary = summary;
	}
	return true;
}

bool sim_find_capacity(const struct sim_study *study, const char *policy, double target,
                struct sim_capacity *ret, char *err, size_t errlen) {
	struct sim_capacity capacity = { 0 };
	double low = 0, high = study->load->rate * study->options.nodes;
	bool good = true;
	if (!load_is_open(study->load) || study->load->rate <= 0) {
		snprintf(err, errlen,
		                "a capacity is found for open loads with a --rate to begin at");
		return false;
	}
	for (int i = 0; good && i < MOST_DOUBLINGS; i++) {
		if (!attains(study, policy, high, target, &capacity, &good, err, errlen))
			return false;
		low = good ? high : low;
		high = good ? 2 * high : high;
	}
	/* The first rate may have been too high. */
	for (int i = 0; low == 0 && i < MOST_DOUBLINGS; i++) {
		if (!attains(study, policy, high / 2, target, &capacity, &good, err, errlen))
			return false;
		low = good ? high / 2 : 0;
		high = good ? high : high / 2;
	}
	while (low > 0 && high > low * CLOSE_ENOUGH) {
		double middle = sqrt(low * high);
		if (!attains(study, policy, middle, target, &capacity, &good, err, errlen))
			return false;
		*(good ? &low : &high) = middle;
	}
	*ret = capacity;
	return true;
}

/* ---- what 100 % stands for ---- */

bool sim_full_load(const struct sim_study *study, double *ret_rate, char *err, size_t errlen) {
	struct load load = *study->load;
	struct sim_study full = *study;
	struct sim_outcome out;
	char policy[32];
	load.arrivals = LOAD_CLOSED;
	load.clients = study->machine->limits.sequences * 3 / 2;
	load.think_ms = (struct load_number){ .kind = LOAD_FIXED };
	load.seconds = load.warmup_seconds = 0;
	load.requests = FULL_REQUESTS;
	for (int i = 0; i < load.n_classes; i++) {
		/* Nothing is refused or cut. */
		load.classes[i].on_miss = ON_MISS_DEGRADE;
		load.classes[i].deadline_ms = (struct load_number){ .kind = LOAD_FIXED };
	}
	full.load = &load;
	full.options.nodes = 1;
	full.options.queue_requests = load.clients;
	full.options.backlog_ms = 1e12;
	snprintf(policy, sizeof policy, "fixed:%d", (study->machine->ladder.n + 1) / 2);
	if (!sim_study_run(&full, policy, &out, err, errlen))
		return false;
	/* Between the first and the last third, when all places are taken. */
	size_t from = out.n / 5, to = out.n * 4 / 5;
	*ret_rate = (double)(to - from)
	                / (out.requests[to].arrival_ms - out.requests[from].arrival_ms) * 1e3;
	sim_outcome_finish(&out);
	return true;
}

/* ---- a table ---- */

void sim_print_capacity_head(FILE *out) {
	fprintf(out, "%-14s %6s %10s %10s %9s %7s %8s %8s %6s\n", "policy", "nodes", "requests/s",
	                "per node", "met", "depth", "p50 ms", "p99 ms", "busy");
}

void sim_print_capacity(const struct sim_study *study, const char *policy,
                const struct sim_capacity *c, FILE *out) {
	fprintf(out, "%-14s %6d %10.1f %10.2f %7.2f %% %7.2f %8.1f %8.1f %4.0f %%\n", policy,
	                study->options.nodes, c->rate, c->rate / study->options.nodes,
	                c->summary.attainment * 100, c->summary.score.depth,
	                c->summary.latency_ms.p50, c->summary.latency_ms.p99,
	                c->summary.busy * 100);
}
