/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine of numbers for tests of the scheduler: it does what the scheduler says, steps take what
 * its own cost model says, and the clock is the test's. Requests have one prompt and one answer.
 */
#ifndef FATHOM_TESTS_TOY_ENGINE_H
#define FATHOM_TESTS_TOY_ENGINE_H

#include "server/scheduler.h"

enum { TOY_LAYERS = 12, TOY_REQUESTS = 1024 };

struct toy_request {
	struct scheduled s;
	int length;                /* tokens that it really gets */
	int fed;                   /* prompt tokens */
	double joined_ms, done_ms; /* < 0: not yet */
	int joined_depth, steps, rests;
	enum scheduler_verdict end; /* REFUSE, EXPIRE, CUT, or STEP: it ran to its end */
	enum scheduler_refusal refusal;
	double retry_after_ms;
	bool by_budget; /* cut there, not at the deadline */
};

struct toy {
	struct scheduler *scheduler;
	struct cost_model cost;    /* what the scheduler believes */
	struct cost_model machine; /* what steps take */
	double now_ms;
	struct toy_request requests[TOY_REQUESTS];
	int n;
	int places, sequences;        /* taken, and there are */
	int prompt_rows;              /* of the last step */
	double step_ms;               /* of the last step */
	struct scheduler_cache cache; /* what of prompts is cached: it does not run */
};

/* A layer takes 1 ms whatever the rows, a step 2 ms besides. */
struct cost_model toy_flat_cost(void);
extern struct ladder toy_ladder; /* every depth of TOY_LAYERS, rule even */

/* 512 rows, 128 of prompts beside answers, `sequences` places; what the scheduler lacks `without`. */
void toy_open(struct toy *toy, const struct cost_model *cost, int sequences, unsigned without);
/* The same with a bound on steps and a prefix cache; before anything arrives. */
void toy_open_with(struct toy *toy, const struct cost_model *cost, int sequences,
                double most_step_ms, const struct scheduler_cache *cache);
void toy_close(struct toy *toy);

/* A request of 10 prompt tokens at `depth` (0: auto) that has not arrived. */
struct toy_request *toy_request(struct toy *toy, int depth, int tokens, double latency_ms);
/* It arrives now. */
void toy_arrive(struct toy *toy, struct toy_request *r);
/* One boundary and one step; false: nothing runs. */
bool toy_turn(struct toy *toy);
/* Until all that arrived has ended. */
void toy_run(struct toy *toy);
/* Whether it ran to its end within its latency budget. */
bool toy_met(const struct toy_request *r);
int toy_depth(const struct toy_request *r);

#endif
