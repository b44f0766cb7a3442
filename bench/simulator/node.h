/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated server: one scheduler with its cost model, one batch, and the requests that are there.
 * It mirrors the engine thread's loop: at a step boundary it takes what has come, does what the
 * scheduler says, and begins a step.
 */
#ifndef FATHOM_BENCH_SIMULATOR_NODE_H
#define FATHOM_BENCH_SIMULATOR_NODE_H

#include "bench/simulator/simulator.h"

/* A request while it is at a node. */
struct sim_active {
	struct scheduled s; /* first, so that one is the other */
	struct sim_run run;
	struct sim_request *request;
	int predicted_tokens;
	double late_ratio;       /* actual / predicted when it stepped down; 0: it did not */
	struct sim_active *next; /* sim_node::inbox, sim_pool::unused */
};

/* Memory of requests that are there; grows by blocks. */
struct sim_pool {
	struct sim_active *unused;
	struct sim_block *blocks;
};
void sim_pool_finish(struct sim_pool *pool);

struct sim_node {
	const struct sim_options *options;
	int index;
	struct sim_pool *pool;
	struct sim_batch batch;
	struct scheduler *scheduler;
	struct cost_model cost; /* as the server believes */
	struct cost_history history;
	struct cost_learner learner;
	struct sim_noise noise;
	struct sim_active *inbox, **inbox_last;
	int inboxed;
	int there;                    /* requests that have not ended */
	const struct cost_step *step; /* running; NULL: idle */
	double began_ms, until_ms;    /* the step */
	struct sim_totals totals;
	/* Called when a request has ended. */
	void (*ended)(void *arg, struct sim_request *r, double now_ms);
	void *ended_arg;
};

bool sim_node_init(struct sim_node *node, const struct sim_options *options, int index,
                struct sim_pool *pool);
void sim_node_finish(struct sim_node *node);

/* What the node foresees for a request that comes now: milliseconds until its end. */
double sim_node_foresee(const struct sim_node *node, const struct sim_request *r, double now_ms);

/* A request comes; it may be refused at once. False if memory ran out. */
bool sim_node_push(struct sim_node *node, struct sim_request *r, double now_ms);

/* A step boundary: the step that ran is over, if one did, and the next begins, if there is
 * anything to do. To be called at until_ms, or when a request comes to an idle node. */
void sim_node_turn(struct sim_node *node, double now_ms);

#endif
