/* SPDX-License-Identifier: Apache-2.0 */
/* How much load a number of nodes carries. */
#ifndef FATHOM_BENCH_SIMULATOR_CAPACITY_H
#define FATHOM_BENCH_SIMULATOR_CAPACITY_H

#include "bench/simulator/study.h"

struct sim_capacity {
	double rate; /* requests per second, all nodes; 0: not even the least rate will do */
	struct sim_outcome outcome; /* of a run at that rate, without its requests */
	struct sim_summary summary;
};

/*
 * The highest rate of an open load without phases at which `target` of the budgets are met, to two
 * parts in a hundred; all else as the study says. It looks around the load's rate for each node.
 * False with a sentence.
 */
bool sim_find_capacity(const struct sim_study *study, const char *policy, double target,
                struct sim_capacity *ret, char *err, size_t errlen);

/*
 * The steady rate that one node sustains with every automatic request at half of the ladder, when
 * there is always work: answers per second while as many clients as it has places, and half as many
 * again, ask without a pause.
 */
bool sim_full_load(const struct sim_study *study, double *ret_rate, char *err, size_t errlen);

void sim_print_capacity_head(FILE *out);
void sim_print_capacity(const struct sim_study *study, const char *policy,
                const struct sim_capacity *capacity, FILE *out);

#endif
