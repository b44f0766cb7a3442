/* SPDX-License-Identifier: Apache-2.0 */
/* A machine measured here: what fathom serve does before it is ready. */
#include <stdio.h>
#include <string.h>

#include "bench/simulator/machine.h"
#include "model/threads.h"
#include "server/batch.h"
#include "server/load_with.h"
#include "server/memory.h"
#include "server/warmup.h"

enum { DEFAULT_BEAMS = 5 }; /* of a server */

static bool never_stop(void *arg) {
	(void)arg;
	return true;
}

static void take_limits(struct sim_machine *machine, struct batch *b) {
	machine->limits = *batch_limits(b);
	machine->kv_blocks = workspace_blocks_total(batch_workspace(b));
}

static bool measure(struct sim_machine *machine, const struct config *config, struct team *team,
                char *err, size_t errlen) {
	struct metrics *metrics = metrics_create(&machine->model->facts);
	struct batch_options options = { .config = config,
		.team = team,
		.metrics = metrics,
		.kv_bytes = memory_kv_bytes(config, machine->model, 0) };
	struct cost_samples samples;
	struct batch *b = NULL;
	if (metrics)
		b = batch_create(machine->model, &options, err, errlen);
	else
		snprintf(err, errlen, "not enough memory");
	if (b) {
		warmup_measure(b, machine->model, never_stop, NULL, &samples);
		cost_fit(&samples, &machine->cost);
		machine->level = 1;
		take_limits(machine, b);
	}
	batch_destroy(b);
	metrics_destroy(metrics);
	return b;
}

static bool open_model(struct sim_machine *machine, const struct config *config, int threads,
                char *err, size_t errlen) {
	struct load_with with = load_with_of(config);
	struct model_options options;
	with.threads = threads;
	if (load_with_read(&with, &options, err, errlen))
		machine->model = model_open(config->model, &options, err, errlen);
	machine->opened = machine->model;
	return machine->model;
}

static bool find_rule(struct sim_machine *machine, const struct config *config) {
	machine->rule = machine->model->facts.plan_rule;
	if (config->plan_rule[0])
		plan_rule_parse(config->plan_rule, &machine->rule);
	return ladder_init(&machine->ladder, machine->model, machine->rule);
}

bool sim_machine_measure(struct sim_machine *machine, const struct config *config, char *err,
                size_t errlen) {
	int threads = config->threads > 0 ? config->threads : threads_count("");
	memset(machine, 0, sizeof *machine);
	if (!open_model(machine, config, threads, err, errlen))
		return false;
	struct team *team = team_create(threads, err, errlen);
	bool measured = team && measure(machine, config, team, err, errlen);
	team_destroy(team);
	if (measured && !find_rule(machine, config)) {
		snprintf(err, errlen, "not enough memory");
		measured = false;
	}
	if (machine->model->facts.kind == KIND_SEQ2SEQ)
		machine->beams = machine->model->defaults.num_beams > 0
		                ? machine->model->defaults.num_beams
		                : DEFAULT_BEAMS;
	if (!measured)
		sim_machine_finish(machine);
	return measured;
}
