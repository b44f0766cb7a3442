/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator: servers under a simulated clock. The scheduler, its cost model and what requests
 * teach it are the server's own code; steps take what the machine's cost model and its noise say,
 * and nothing is computed.
 *
 *	sim_create      requests and machine
 *	sim_run_all     until every request has ended; many nodes behind a balancer, or one
 *
 * The same options and requests give the same outcome, bit by bit.
 */
#ifndef FATHOM_BENCH_SIMULATOR_H
#define FATHOM_BENCH_SIMULATOR_H

#include <stdint.h>

#include "bench/simulator/batch.h"
#include "bench/simulator/machine.h"
#include "server/scheduler.h"

/* How a request ended. */
enum sim_end {
	SIM_WAITING, /* not yet */
	SIM_ANSWERED,
	SIM_CUT,     /* at its deadline or budget, with what there was */
	SIM_EXPIRED, /* its deadline passed: 504 */
	SIM_REFUSED, /* 503 or 400; `refusal` says why */
};

/* A request: what is asked, and what became of it. Times in milliseconds. */
struct sim_request {
	/* asked */
	double arrival_ms; /* when it is sent */
	int client;        /* of a closed loop, which sends the next one after it; -1: none */
	int prompt_tokens; /* a source, where the model has an encoder */
	int max_tokens, length;
	bool max_tokens_set; /* the server plans for them; else for what it has learnt */
	int priority;
	double latency_ms, ttft_ms, tpot_ms; /* budgets; 0: none */
	double deadline_ms;                  /* hard, after arrival; 0: none */
	enum on_miss on_miss;
	bool automatic, may_step_down;
	int beams;                                /* 0: the server's own; 1: none */
	int depth[STACKS];                        /* binding; 0: all layers */
	int min_depth[STACKS], max_depth[STACKS]; /* of an automatic one; 0: no bound */
	int kind;                                 /* index of its class; -1: none */

	/* became */
	enum sim_end end;
	enum scheduler_refusal refusal;
	int node;
	double joined_ms, first_ms, done_ms; /* moments; 0: it did not come to that */
	double predicted_ms;                 /* when it joined: from arrival to the end; < 0: not */
	double start_ms; /* when it joined: by when work had to begin, less the moment; the slack */
	int tokens;
	int joined_depth[STACKS], final_depth[STACKS];
	double token_depth; /* sum over its tokens of the main stack's depth */
	int changes;
};

bool sim_has_budget(const struct sim_request *r);
/* Whether it was answered whole and in time. */
bool sim_is_met(const struct sim_request *r);
/* Of the main stack, over its tokens; 0 without any. */
double sim_mean_depth(const struct sim_request *r);

/* How the balancer picks a node. */
enum sim_balance {
	SIM_ROUND_ROBIN,
	SIM_LEAST_REQUESTS, /* fewest requests that it has sent there and that have not ended */
	SIM_TWO_CHOICES,    /* the better of two at random by that count */
	SIM_PREDICTED_WAIT, /* the better of two at random by what each foresees for the request */
};

struct sim_options {
	const struct sim_machine *machine;
	struct sim_noise noise;
	/* What the schedulers begin with: the machine's cost model with each entry off by exp(sigma x
	 * normal). 0: exact. */
	double misfit;
	bool frozen;        /* the schedulers learn nothing: exact predictions stay exact */
	double overhead_ms; /* of a request outside the engine: parsing, the socket */
	int queue_requests; /* most that wait at a node */
	int overload_min_depth, overload_max_depth;
	double backlog_ms; /* as in scheduler_options; 0: its default */
	unsigned without;  /* enum scheduler_without */
	int fixed_depth; /* > 0: all automatic requests are bound to this rung of the ladder (1..n) */
	int nodes;       /* >= 1 */
	enum sim_balance balance;
	double stale_ms; /* age of what a balancer knows of a node's load; 0: none */
	uint64_t seed;
	/* A closed loop: called when a request with a client has ended; returns the next one of the
	 * client or NULL. */
	struct sim_request *(*next)(void *arg, const struct sim_request *ended, double now_ms);
	void *next_arg;
};

struct sim_totals {
	double busy_ms; /* all nodes */
	double end_ms;  /* of the last step */
	int64_t steps;  /* and the rows in them */
	int64_t rows;
};

struct simulator;

/* NULL with a sentence. `options` is copied; what it points to must stay. */
struct simulator *sim_create(const struct sim_options *options, char *err, size_t errlen);
void sim_destroy(struct simulator *sim);

/* A request that comes at its arrival, which is not over; for the first ones of clients. */
void sim_add(struct simulator *sim, struct sim_request *request);

/*
 * Runs requests[0..n), ascending in arrival, and what `next` adds, until all have ended. False with
 * a sentence if memory ran out or a request can never be served.
 */
bool sim_run_all(struct simulator *sim, struct sim_request *requests, size_t n,
                struct sim_totals *ret_totals, char *err, size_t errlen);

/* What the request is to the engine: with an encoder its prompt is a source, and it is searched with
 * beams. */
struct sim_work sim_work_of(const struct sim_machine *machine, const struct sim_request *r);
/* The bounds of an automatic request on this machine, and the subnet that binds any other. */
void sim_bounds(const struct sim_machine *machine, const struct sim_request *r, int ret_min[STACKS],
                int ret_max[STACKS]);
bool sim_bound_subnet(const struct sim_machine *machine, const struct sim_request *r,
                struct subnet *ret_subnet);

#endif
