/* SPDX-License-Identifier: Apache-2.0 */
/* From a load to simulated requests: what fathom bench would send, as the engine would see it. */
#ifndef FATHOM_BENCH_SIMULATOR_LOAD_H
#define FATHOM_BENCH_SIMULATOR_LOAD_H

#include "bench/load/load.h"
#include "bench/simulator/simulator.h"

/* A closed loop's clients while they run, or an open loop's requests. */
struct sim_load {
	const struct load *load;
	const struct sim_machine *machine;
	struct sim_request **blocks; /* of a closed loop: they do not move while it runs */
	size_t n_blocks;
	struct sim_request *requests; /* an open loop's */
	size_t n;                     /* of either */
	bool failed;
};

/*
 * The requests of a settled load, sorted by arrival: all of an open loop, the first of each client
 * of a closed one. False with one sentence.
 */
bool sim_load_open(struct sim_load *l, struct load *load, const struct sim_machine *machine,
                char *err, size_t errlen);
void sim_load_close(struct sim_load *l);

struct sim_request *sim_load_at(const struct sim_load *l, size_t index);

/* sim_options::next of a closed loop, with a struct sim_load. */
struct sim_request *sim_load_next(void *arg, const struct sim_request *ended, double now_ms);

#endif
