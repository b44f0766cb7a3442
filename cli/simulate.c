/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fathom simulate: what a server, or many behind a balancer, would make of a load. The scheduler is
 * the server's own; time is simulated.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/report/report.h"
#include "bench/simulator/capacity.h"
#include "bench/simulator/study.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/load_args.h"
#include "cli/output.h"

enum { MOST_ARGS = 96, MOST_NAME = 32, MOST_LIST = 64 };

struct options {
	const char *cost, *model, *weights, *policy, *json, *html, *save_trace, *save_requests,
	                *save_cost, *replicas, *balance, *without, *spikes;
	struct load_options words; /* of the load */
	double max_itl_ms;         /* < 0: not given */
	double noise, level, misfit, overhead_ms, stale_ms, effort, target, feasible;
	int max_running, prefill_rows, kv_blocks, queue_requests;
	int overload_min_depth, overload_max_depth;
	bool frozen, full_load, busy, quiet;
};

static const char usage[] =
                "usage: fathom simulate --cost FILE [LOAD] [FLAGS]\n"
                "       fathom simulate --model DIR [LOAD] [FLAGS]\n\n"
                "What runs:\n"
                "  --cost FILE            a server's answer to GET /v1/depths\n"
                "  --model DIR            or a model folder, measured first\n"
                "  --weights NAME         of that folder, as for fathom serve\n"
                "  --save-cost FILE       what was measured, for --cost\n"
                "  --max-running N        instead of what the server has; so also\n"
                "  --prefill-rows N, --max-itl-ms MS, --kv-blocks N,\n"
                "  --queue-requests N (256)\n"
                "  --overload-min-depth D, --overload-max-depth D\n"
                "  --level X              steps take X times what the cost model says\n"
                "  --noise SIGMA          steps take exp(SIGMA x normal) times as long\n"
                "  --spikes SHARE:FACTOR  and a share of them FACTOR times as long again\n"
                "  --misfit SIGMA         the scheduler's cost model is off by so much at first\n"
                "  --frozen               the scheduler learns nothing\n"
                "  --overhead-ms MS       of each request outside the engine; default 0\n"
                "  --replicas LIST        1,2,4: so many nodes; default 1\n"
                "  --balance HOW          round-robin, least-requests, two-choices (default) or\n"
                "                         predicted-wait\n"
                "  --stale-ms MS          age of what the balancer knows of nodes; default 0\n\n"
                "What is asked:\n"
                "  --policy LIST          fathom (default), fixed:D (every auto request at rung D\n"
                "                         of the ladder), fixed:all, clairvoyant, which is\n"
                "                         followed by a bound that no scheduler exceeds\n"
                "  --without LIST         ideas of the scheduler to turn off: order, neighbours,\n"
                "                         step-down, hold, rests, lost, chunks, waiting\n"
                "  --effort N             million steps that clairvoyant may simulate; default 20\n"
                "  --target SHARE         finds the highest rate at which this share of budgets "
                "is\n"
                "                         met (0.99), for each policy and number of replicas\n"
                "  --full-load            prints the rate that 100 % stands for: what a server\n"
                "                         sustains with every auto request at half depth\n"
                "  --busy                 prints, at the end, the seconds that all nodes worked\n"
                "  --json FILE            results as fathom bench writes them\n"
                "  --html FILE            the same as one page with pictures\n"
                "  --save-requests FILE   a CSV line for each request of the last policy\n"
                "  --save-trace FILE      the load, as a trace for --trace\n"
                "  --feasible SHARE       with --save-trace: leave out requests whose budgets an\n"
                "                         idle server cannot meet in this share (0.8) of them\n"
                "  --quiet                no progress\n\n"
                "The load, as for fathom bench (NUMBER: 128, 64..256 evenly between, or\n"
                "lognormal:MEDIAN:SIGMA):\n";

/* ---- flags ---- */

static int own_args(struct options *o, struct arg *args) {
	const struct arg own[] = {
		{ "cost", ARG_TEXT, &o->cost, 0, 0 },
		{ "model", ARG_TEXT, &o->model, 0, 0 },
		{ "weights", ARG_TEXT, &o->weights, 0, 0 },
		{ "policy", ARG_TEXT, &o->policy, 0, 0 },
		{ "json", ARG_TEXT, &o->json, 0, 0 },
		{ "html", ARG_TEXT, &o->html, 0, 0 },
		{ "save-trace", ARG_TEXT, &o->save_trace, 0, 0 },
		{ "save-requests", ARG_TEXT, &o->save_requests, 0, 0 },
		{ "save-cost", ARG_TEXT, &o->save_cost, 0, 0 },
		{ "replicas", ARG_TEXT, &o->replicas, 0, 0 },
		{ "balance", ARG_TEXT, &o->balance, 0, 0 },
		{ "without", ARG_TEXT, &o->without, 0, 0 },
		{ "spikes", ARG_TEXT, &o->spikes, 0, 0 },
		{ "noise", ARG_NUMBER, &o->noise, 0, 2 },
		{ "level", ARG_NUMBER, &o->level, 0.001, 1000 },
		{ "misfit", ARG_NUMBER, &o->misfit, 0, 2 },
		{ "overhead-ms", ARG_NUMBER, &o->overhead_ms, 0, 1e4 },
		{ "stale-ms", ARG_NUMBER, &o->stale_ms, 0, 1e6 },
		{ "effort", ARG_NUMBER, &o->effort, 0, 1e6 },
		{ "target", ARG_NUMBER, &o->target, 0.01, 1 },
		{ "feasible", ARG_NUMBER, &o->feasible, 0.01, 1 },
		{ "max-running", ARG_INT, &o->max_running, 1, 8192 },
		{ "prefill-rows", ARG_INT, &o->prefill_rows, 1, 8192 },
		{ "max-itl-ms", ARG_NUMBER, &o->max_itl_ms, 0, 1e6 },
		{ "kv-blocks", ARG_INT, &o->kv_blocks, 1, 1e9 },
		{ "queue-requests", ARG_INT, &o->queue_requests, 1, 1e6 },
		{ "overload-min-depth", ARG_INT, &o->overload_min_depth, 0, MAX_LAYERS },
		{ "overload-max-depth", ARG_INT, &o->overload_max_depth, 0, MAX_LAYERS },
		{ "frozen", ARG_FLAG, &o->frozen, 0, 0 },
		{ "full-load", ARG_FLAG, &o->full_load, 0, 0 },
		{ "busy", ARG_FLAG, &o->busy, 0, 0 },
		{ "quiet", ARG_FLAG, &o->quiet, 0, 0 },
	};
	memcpy(args, own, sizeof own);
	return (int)(sizeof own / sizeof *own);
}

static bool read_options(struct options *o, int argc, char **argv, bool *ret_help) {
	struct arg args[MOST_ARGS];
	int n = own_args(o, args), words;
	*o = (struct options){ .policy = "fathom",
		.replicas = "1",
		.balance = "two-choices",
		.effort = 20,
		.level = 1,
		.max_itl_ms = -1,
		.queue_requests = 256,
		.feasible = 1 };
	n += load_args(&o->words, args + n);
	if (!args_read("simulate", args, n, argc, argv, NULL, 0, &words, ret_help))
		return false;
	if (*ret_help || !o->cost != !o->model)
		return true;
	fputs("fathom simulate: give --cost FILE or --model DIR; fathom simulate --help lists the "
	      "flags\n",
	                stderr);
	return false;
}

/* Cuts the next entry off a list with commas. */
static bool next_entry(const char **list, char *entry, size_t size) {
	size_t n = strcspn(*list, ",");
	if (!**list || n >= size)
		return false;
	memcpy(entry, *list, n);
	entry[n] = '\0';
	*list += n + ((*list)[n] == ',');
	return true;
}

static int find_name(const char *const *names, int n, const char *name) {
	for (int i = 0; i < n; i++) {
		if (strcmp(names[i], name) == 0)
			return i;
	}
	return -1;
}

static bool read_scheduler(
                const struct options *o, struct sim_options *sim, char *err, size_t errlen) {
	static const char *const ideas[] = { "order", "neighbours", "step-down", "hold", "rests",
		"lost", "chunks", "waiting" };
	static const char *const balances[] = { "round-robin", "least-requests", "two-choices",
		"predicted-wait" };
	char entry[MOST_NAME];
	for (const char *list = o->without; list && *list;) {
		int idea = next_entry(&list, entry, sizeof entry)
		                ? find_name(ideas, sizeof ideas / sizeof *ideas, entry)
		                : -1;
		if (idea < 0) {
			snprintf(err, errlen, "--without: \"%s\" is no idea of the scheduler",
			                o->without);
			return false;
		}
		sim->without |= 1u << idea;
	}
	int balance = find_name(balances, 4, o->balance);
	if (balance < 0)
		snprintf(err, errlen, "--balance: \"%s\" is no way to pick a node", o->balance);
	sim->balance = (enum sim_balance)balance;
	return balance >= 0;
}

static bool read_study(const struct options *o, struct sim_study *study, char *err, size_t errlen) {
	struct sim_options *sim = &study->options;
	*sim = (struct sim_options){ .noise = { .sigma = o->noise, .spike_factor = 1 },
		.misfit = o->misfit,
		.frozen = o->frozen,
		.overhead_ms = o->overhead_ms,
		.queue_requests = o->queue_requests,
		.overload_min_depth = o->overload_min_depth,
		.overload_max_depth = o->overload_max_depth,
		.stale_ms = o->stale_ms,
		.nodes = 1 };
	char end;
	if (o->spikes
	                && (sscanf(o->spikes, "%lf:%lf%c", &sim->noise.spike_share,
	                                    &sim->noise.spike_factor,
	                                    &end) != 2
	                                || !(sim->noise.spike_share <= 1)
	                                || !(sim->noise.spike_factor >= 1))) {
		snprintf(err, errlen, "--spikes takes SHARE:FACTOR, as 0.01:3");
		return false;
	}
	study->search_steps = (int64_t)(o->effort * 1e6);
	study->progress = !o->quiet && isatty(STDERR_FILENO) ? stderr : NULL;
	return read_scheduler(o, sim, err, errlen);
}

static bool open_machine(
                const struct options *o, struct sim_machine *machine, char *err, size_t errlen) {
	bool ok;
	if (o->cost) {
		ok = sim_machine_read(machine, o->cost, err, errlen);
	} else {
		struct config config;
		bool help;
		char *flags[] = { (char *)"--model", (char *)o->model, (char *)"--weights",
			(char *)(o->weights ? o->weights : "auto") };
		char ignored[64], *none[] = { NULL };
		ok = config_load(&config, 4, flags, none, &help, ignored, sizeof ignored, err,
		                     errlen)
		                && sim_machine_measure(machine, &config, err, errlen);
		config_finish(&config);
	}
	if (!ok)
		return false;
	machine->level = o->level;
	if (o->max_running > 0)
		machine->limits.sequences = o->max_running;
	if (o->prefill_rows > 0)
		machine->limits.prefill_rows = o->prefill_rows;
	if (o->max_itl_ms >= 0)
		machine->limits.most_step_ms = o->max_itl_ms;
	if (o->kv_blocks > 0)
		machine->kv_blocks = (size_t)o->kv_blocks;
	return true;
}

/* ---- running ---- */

/* What is written at the end. */
struct outputs {
	struct sim_outcome last;
	struct sim_results results;
};

static bool run_policy(struct sim_study *study, const char *policy, struct outputs *outputs,
                char *err, size_t errlen) {
	struct sim_outcome outcome;
	struct sim_summary summary;
	if (!sim_study_run(study, policy, &outcome, err, errlen))
		return false;
	if (!sim_summarise(&outcome, &summary)
	                || !sim_results_add(&outputs->results, study, &outcome)) {
		snprintf(err, errlen, "not enough memory");
		sim_outcome_finish(&outcome);
		return false;
	}
	sim_print_row(study, &outcome, &summary, stdout);
	if (strcmp(policy, "clairvoyant") == 0)
		sim_print_bound(study, &outcome, stdout);
	fflush(stdout);
	sim_outcome_finish(&outputs->last);
	outputs->last = outcome;
	return true;
}

static bool run_policies(struct sim_study *study, const struct options *o, struct outputs *outputs,
                char *err, size_t errlen) {
	char policy[MOST_NAME];
	for (const char *list = o->policy; next_entry(&list, policy, sizeof policy);) {
		if (strcmp(policy, "fixed:all") != 0) {
			if (!run_policy(study, policy, outputs, err, errlen))
				return false;
			continue;
		}
		for (int d = 1; d <= study->machine->ladder.n; d++) {
			snprintf(policy, sizeof policy, "fixed:%d", d);
			if (!run_policy(study, policy, outputs, err, errlen))
				return false;
		}
	}
	return true;
}

static bool run_target(struct sim_study *study, const struct options *o, char *err, size_t errlen) {
	char policy[MOST_NAME];
	for (const char *list = o->policy; next_entry(&list, policy, sizeof policy);) {
		struct sim_capacity capacity;
		if (!sim_find_capacity(study, policy, o->target, &capacity, err, errlen))
			return false;
		sim_print_capacity(study, policy, &capacity, stdout);
		fflush(stdout);
	}
	return true;
}

static bool run_replicas(struct sim_study *study, const struct options *o, struct outputs *outputs,
                char *err, size_t errlen) {
	char entry[MOST_NAME];
	if (o->target > 0)
		sim_print_capacity_head(stdout);
	else
		sim_print_head(study, stdout);
	for (const char *list = o->replicas; next_entry(&list, entry, sizeof entry);) {
		char *end;
		long nodes = strtol(entry, &end, 10);
		if (nodes < 1 || nodes > 100000 || *end) {
			snprintf(err, errlen, "--replicas: \"%s\" is no number of nodes", entry);
			return false;
		}
		study->options.nodes = (int)nodes;
		if (o->target > 0 ? !run_target(study, o, err, errlen)
		                  : !run_policies(study, o, outputs, err, errlen))
			return false;
	}
	return true;
}

static bool write_outputs(const struct sim_study *study, const struct options *o,
                const struct outputs *outputs, char *err, size_t errlen) {
	const struct sim_outcome *last = &outputs->last;
	struct buffer text = { 0 };
	bool ok = true;
	if (o->save_requests) {
		sim_write_csv(study, last, &text);
		ok = output_write(o->save_requests, &text, err, errlen);
	}
	buffer_clear(&text);
	if (ok && o->save_trace) {
		sim_write_trace(study, last, o->feasible, &text);
		ok = output_write(o->save_trace, &text, err, errlen);
	}
	buffer_clear(&text);
	if (ok && (o->json || o->html)) {
		sim_results_write(&outputs->results, study, &text);
		if (o->json)
			ok = output_write(o->json, &text, err, errlen);
		if (ok && o->html && buffer_cstr(&text))
			ok = report_write_html(o->html, text.data, err, errlen);
	}
	buffer_finish(&text);
	return ok;
}

static bool run(const struct options *o, struct sim_machine *machine, char *err, size_t errlen) {
	struct load load;
	struct sim_study study = { .machine = machine, .load = &load };
	struct outputs outputs = { 0 };
	if (!load_args_read(&load, &o->words, err, errlen) || !load_settle(&load, err, errlen)
	                || !read_study(o, &study, err, errlen))
		return false;
	study.options.seed = study.options.noise.seed = load.seed;
	if (o->full_load) {
		double rate;
		if (!sim_full_load(&study, &rate, err, errlen))
			return false;
		printf("%.4f\n", rate);
		return true;
	}
	bool ok = run_replicas(&study, o, &outputs, err, errlen)
	                && write_outputs(&study, o, &outputs, err, errlen);
	if (ok && o->busy)
		printf("%.6f\n", outputs.last.totals.busy_ms * 1e-3);
	sim_outcome_finish(&outputs.last);
	sim_results_finish(&outputs.results);
	return ok;
}

static bool save_cost(
                const struct sim_machine *machine, const char *path, char *err, size_t errlen) {
	struct buffer text = { 0 };
	sim_machine_write(machine, &text);
	bool ok = output_write(path, &text, err, errlen);
	buffer_finish(&text);
	return ok;
}

int simulate_main(int argc, char **argv) {
	struct options o;
	struct sim_machine machine = { 0 };
	char err[512] = "";
	bool help;
	if (!read_options(&o, argc, argv, &help))
		return 2;
	if (help) {
		fputs(usage, stdout);
		load_args_help();
		return 0;
	}
	bool ok = output_check(o.json, err, sizeof err) && output_check(o.html, err, sizeof err)
	                && output_check(o.save_trace, err, sizeof err)
	                && output_check(o.save_requests, err, sizeof err)
	                && output_check(o.save_cost, err, sizeof err)
	                && open_machine(&o, &machine, err, sizeof err)
	                && (!o.save_cost || save_cost(&machine, o.save_cost, err, sizeof err))
	                && run(&o, &machine, err, sizeof err);
	if (!ok)
		fprintf(stderr, "fathom simulate: %s\n", err);
	sim_machine_finish(&machine);
	return ok ? 0 : 1;
}
