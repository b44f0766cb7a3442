/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a simulated server is made of: the layers of its model, how long steps really take, how large
 * they and the KV pool may be, and which depths `auto` walks. Read from what a server says at
 * /v1/depths, or measured from a model folder.
 */
#ifndef FATHOM_BENCH_SIMULATOR_MACHINE_H
#define FATHOM_BENCH_SIMULATOR_MACHINE_H

#include "config/config.h"
#include "model/doc.h"
#include "proto/buffer.h"
#include "server/cost.h"
#include "server/ladder.h"

/*
 * A machine whose neighbours disturb it. The disturbance is a function of the seed and the time, not
 * of what runs, so that two schedulers meet the same weather. All zero: none.
 */
struct sim_noise {
	double sigma;       /* of the logarithm of a step's time over its undisturbed time */
	double spike_share; /* of steps that take spike_factor times as long */
	double spike_factor;
	uint64_t seed;
};

/* What a step that begins at `now_ms` takes over its undisturbed time; about 1. */
double sim_noise_factor(const struct sim_noise *noise, double now_ms);

/* Each entry of the tables times exp(sigma x normal): a cost model that was fitted badly. */
void sim_misfit(struct cost_model *cost, double sigma, uint64_t seed);

/* Immutable after it was read. */
struct sim_machine {
	struct model *model;  /* at least the facts of the stacks and tuned plans */
	bool opened;          /* from a folder: model_close, else free */
	struct ladder ladder; /* by the model's own rule */
	enum plan_rule rule;
	struct cost_model cost; /* what undisturbed steps take */
	struct cost_limits limits;
	size_t kv_blocks;
	double level;       /* steps take so many times as long, on the average */
	struct doc *depths; /* what was read; NULL if it was measured */
	char *text;         /* the same as text, if it is the whole of /v1/depths; else NULL */
	int beams;          /* of a request that does not stream; 0: no beam search */
};

/* The /v1/depths of a server, or its cost model alone, from a file. False with a sentence. */
bool sim_machine_read(struct sim_machine *machine, const char *path, char *err, size_t errlen);

/* Measures config->model as a server with `config` would at its start; takes seconds. */
bool sim_machine_measure(
                struct sim_machine *machine, const struct config *config, char *err, size_t errlen);

/* The cost model alone, as sim_machine_read reads it. */
void sim_machine_write(const struct sim_machine *machine, struct buffer *out);

/* A machine by its numbers; for tests. Its ladder goes over all depths by rule even. */
bool sim_machine_init(struct sim_machine *machine, const int layers[STACKS],
                const struct cost_model *cost, const struct cost_limits *limits, size_t kv_blocks);

void sim_machine_finish(struct sim_machine *machine);

/* What a step that begins at `now_ms` takes. */
double sim_machine_step_ms(const struct sim_machine *machine, const struct sim_noise *noise,
                const struct cost_step *step, double now_ms);

/* The subnet at rung `index` of the ladder; false if the rule has none. */
bool sim_machine_rung(const struct sim_machine *machine, int index, struct subnet *ret_subnet);

#endif
