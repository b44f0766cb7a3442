/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler: one pure object that makes all decisions about the requests of an engine. Who joins
 * the batch, at which depth, who steps down, rests, is refused, expires or is cut; how many rows of
 * prompts a step has, and whose. Time comes in as numbers, so that it runs under a clock of its
 * caller: the engine thread, the simulator, a test. The policy in a page:
 *
 * Order. By priority class, then by the latest moment at which work must begin (earliest due time
 *	first, less the work), then by arrival. Classes fall with waiting, and what has no budget is
 *	due PATIENCE after arrival, so nobody starves. A budget that can no longer be met is lost: it
 *	counts as none, and runs shallow. An expired deadline ends the request.
 * Demand. Requests in the order in which they are due, each with what is left of it at the depth that
 *	it has or would get: those due by a moment must fit before it (scheduler_demand.c). If they do
 *	not even at the lowest depths, the largest are given up until the others are in time.
 * Depth. A request with a budget joins at the highest level at which it, all that runs and all that
 *	waits are in time, with a margin for error and a reserve for what may come, in proportion to
 *	what is ahead; on an idle server this is the deepest that fits. One without a budget joins at
 *	the ceiling, and lower the more wait, down to the floor. Explicit depths are never touched.
 * Stepping down. When what runs would be late with all that waits at the lowest depths, the requests
 *	that may step down do so together, to the highest level at which all are in time: alone it
 *	would gain little, since a step is shared. At most four times, each by a sixth at least, and
 *	never below the lowest rung of the ladder.
 * Side by side. No more requests with due times run at once than give three quarters of the most
 *	tokens a second (a table of the cost model): more would each be slower and gain little. What
 *	waits can still choose its depth. A tight newcomer joins nevertheless, and those due last rest.
 *	Beside requests with due times, those without join in numbers as small, and for ten seconds
 *	after leave one place in eight free; they are held back two seconds at most.
 * Rests. Where a step of all takes longer than the tightest request bears, those without a need rest,
 *	then those due last. Who has rested 100 ms without a need takes turns with its like, longest
 *	rested first, in a quarter of the rows that are worth running side by side; a lone one rests
 *	three quarters of the time at most. What has a time per token never rests.
 * Prompts are fed in order, as many rows as what is due before has slack for, and the steps no longer
 *	than the tightest time per token, nor than limits.most_step_ms. What of a prompt is cached at a
 *	depth counts as done, so that the depth is chosen by what is left to run at each.
 * Budgets that reject are refused in the queue as soon as no depth would keep them, also alone, and
 *	when their turn comes if none would beside what runs.
 * Refusals at the door, from a published view (scheduler_foresee): budgets that reject; and lost ones
 *	once more than BACKLOG_MS of budgetless and lost work waits, so that hopeless work does not
 *	eat what can be met.
 */
#ifndef FATHOM_SERVER_SCHEDULER_H
#define FATHOM_SERVER_SCHEDULER_H

#include <stdbool.h>

#include "server/cost.h"
#include "server/job.h"
#include "server/ladder.h"

/* ---- order ----------------------------------------------------------------------------------- */

enum {
	SCHEDULER_PATIENCE_MS =
	                10000,       /* a request without a budget is due this long after arrival */
	SCHEDULER_AGING_MS = 10000,  /* each such time of waiting makes a request more urgent */
	SCHEDULER_BACKLOG_MS = 1000, /* see scheduler_options */
};

/* ---- depth ----------------------------------------------------------------------------------- */

/* Soft limits in milliseconds; 0: none. `spent_ms` has passed since the request was received. */
struct scheduler_budget {
	double spent_ms;
	double latency_ms, ttft_ms, tpot_ms;
};

bool scheduler_has_budget(const struct scheduler_budget *budget);

/* Whether a request predicted so keeps its budgets. */
bool scheduler_fits(
                const struct scheduler_budget *budget, const struct cost_time *time, double margin);

/* The lowest rung within the bounds; false if none exists. */
bool scheduler_lowest(const struct ladder *ladder, const int min_depth[STACKS],
                const int max_depth[STACKS], struct subnet *ret_subnet);

/* The rung that `auto` requests go up to while `waiting` sequences wait for `slots`: from `max` when
 * none waits down to `min` when as many wait as can run. */
int scheduler_overload_rung(int min, int max, int waiting, int slots);

/* What predictions are multiplied by for a request. */
struct scheduled;
double scheduler_margin(const struct cost_model *cost, const struct scheduled *r);

/* ---- length and waiting ---------------------------------------------------------------------- */

/*
 * Tokens that an answer is planned for: what the client expects, else its own max_tokens, else what
 * was learnt. At least 1 and at most max_tokens; 0 if max_tokens is 0.
 */
int scheduler_predict_tokens(
                int expected_tokens, int max_tokens, bool max_tokens_set, double learnt_tokens);

struct scheduler_queue {
	int waiting;              /* requests */
	double waiting_prompt_ms; /* their prompts, alone */
	double waiting_tokens;    /* tokens that they will generate, all sequences */
	int running, slots;       /* sequences */
	double running_tokens;    /* tokens that the running ones still generate, all of them */
	double shortest_tokens;   /* and the one that ends first */
	double step_ms;           /* of the running batch */
};

/* Milliseconds until a request that comes now would join. */
double scheduler_wait_ms(const struct scheduler_queue *queue);

/* ---- the scheduler --------------------------------------------------------------------------- */

/* No clock, no lock, no allocation after creation. Times are milliseconds of any one clock. */
struct scheduler;

/* How far a running request is: true whenever scheduler_next is called. All zero while it waits. */
struct scheduled_progress {
	int rows;           /* decode rows that it has in the next step, unless it rests */
	double keys;        /* that they see, summed; their source included */
	int coming_rows;    /* decode rows that its prompts being fed will become, */
	double coming_keys; /* and what those will see at first */
	int prompt_tokens;  /* the decoder's, still to be fed: of groups that have begun, */
	int later_tokens;   /* and of those that have not */
	int sources;        /* texts that the encoder still has to read, begun or not */
	int source_tokens;  /* of all of them */
	int source_tiles;
	double source_squares; /* sum of length x length / 1,024 */
	int choices_left;      /* answers, or live beams, that have not ended */
	int tokens_out;        /* of the longest answer */
	bool first_out;        /* a token is out: a time to first token is kept or lost */
	bool can_end;          /* it could be cut now and be an answer */
	bool more;             /* it has groups to begin */
};

/*
 * What of a request's prompts is cached at a subnet, in tokens: they need not run. By the one who
 * holds the request; tokens NULL: nothing is. An answer may be out of date when it joins.
 */
struct scheduled;
struct scheduler_cache {
	int (*tokens)(void *arg, const struct scheduled *r, const struct subnet *subnet);
	void *arg;
};

/* A request as the scheduler sees it: embedded in the engine's tickets, and in the simulator's
 * requests. */
struct scheduled {
	/* Set before scheduler_arrive; constant afterwards. */
	int priority;                        /* lower is more urgent */
	double arrival_ms;                   /* when it was received */
	double deadline_ms;                  /* hard, a moment; INFINITY: none */
	double latency_ms, ttft_ms, tpot_ms; /* soft budgets, from arrival_ms on; 0: none */
	enum on_miss on_miss;
	bool automatic;              /* the scheduler chooses the depth; else `subnet` binds */
	bool may_step_down;          /* while it runs; only with `automatic` and a budget */
	bool texts;                  /* for an encoder alone: it never decodes */
	const struct ladder *ladder; /* with `automatic`; must outlive the request */
	/* With `automatic`; 1 <= min <= max of a stack that the model has, 0 else. */
	int min_depth[STACKS], max_depth[STACKS];
	int places; /* sequences that it takes of cost_limits.sequences, most of all its groups */
	/* All that it is to do, as predicted; `subnet` is not read. output_tokens is the length that
	 * it is planned for. */
	struct cost_work work;

	/* Written by the engine or the simulator. */
	struct scheduled_progress progress;

	/* Decided: valid from SCHEDULER_JOIN on. The binding ones are set before scheduler_arrive. */
	struct subnet subnet;
	enum depth_reason reason;
	/* From joining, the median; with REFUSE for a budget: what it would take now or, if
	 * UNATTAINABLE, on an idle server. */
	struct cost_time predicted;
	double predicted_ms; /* from arrival_ms on; < 0: no cost model */
	int changes;         /* times that it stepped down */
	bool rests;          /* it has no row in the next step */

	/* The scheduler's own. */
	struct scheduled_place {
		bool waiting, running;
		double class;      /* priority less what waiting has gained */
		double start_ms;   /* latest moment at which work must begin; lost ones: patience */
		double stale_ms;   /* when the two must be computed again */
		double due_ms;     /* end of its nearest budget or deadline; INFINITY: none */
		double service_ms; /* at the shallowest depth, alone */
		double low_ms;     /* its share of a busy engine's time at the shallowest depth */
		bool first_due;    /* due_ms is that of its first token */
		double prompt_ms;  /* until its first token, alone at the shallowest depth */
		bool lost;         /* its budget can no longer be met, or was given up for others */
		double given_up_ms; /* until this moment; < 0: it was not */
		double rested_ms;   /* how long it has rested, less what it has run since */
		bool turn;          /* it has rested enough: it is in the next step */
		double held_ms;     /* since when it is held back in the queue; < 0: it is not */
		int index;          /* in the array of the waiting or the running */
		/* Tiles of its prompts that were cached when it came, by depth of the decoder less one;
		 * only of depths that it may run at, and that are asked for. */
		uint16_t cached[MAX_LAYERS];
	} at;
};

/* Ideas that can be turned off, for comparison. 0: all on. */
enum scheduler_without {
	SCHEDULER_WITHOUT_ORDER = 1 << 0,      /* first come, first served within a class */
	SCHEDULER_WITHOUT_NEIGHBOURS = 1 << 1, /* depth by the own budget only */
	SCHEDULER_WITHOUT_STEP_DOWN = 1 << 2,
	SCHEDULER_WITHOUT_HOLD = 1 << 3, /* nothing is held back in the queue */
	SCHEDULER_WITHOUT_RESTS = 1 << 4,
	SCHEDULER_WITHOUT_LOST = 1 << 5,    /* no budget is given up for others */
	SCHEDULER_WITHOUT_CHUNKS = 1 << 6,  /* prompts are cut by cost_limits only */
	SCHEDULER_WITHOUT_WAITING = 1 << 7, /* depth regardless of what waits */
};

struct scheduler_options {
	struct cost_limits limits;
	int layers[STACKS];     /* of the model; 0: no such stack */
	int most_waiting;       /* requests; more are not taken */
	int overload_min_depth; /* of the main stack, `auto` without a budget: floor under load, */
	int overload_max_depth; /* and where it begins; 0: all layers */
	double backlog_ms; /* of budgetless and lost work beyond which lost requests are refused; 0:
	                    * SCHEDULER_BACKLOG_MS */
	unsigned without;  /* enum scheduler_without */
	/* Whether the next group of a request has room at `subnet`: places, and blocks of the pool. */
	bool (*fits)(void *arg, const struct scheduled *r, const struct subnet *subnet);
	void *arg;
	struct scheduler_cache cache;
};

/* NULL if memory ran out. */
struct scheduler *scheduler_create(const struct scheduler_options *options);
void scheduler_destroy(struct scheduler *s);

/* A request begins to wait. False: as many wait as may. `cost` may be unfitted: then nothing is
 * predicted and budgets choose nothing. */
bool scheduler_arrive(struct scheduler *s, struct scheduled *r, const struct cost_model *cost,
                double now_ms);
/* A request leaves: it ended, was cancelled, refused, has expired or was cut. */
void scheduler_leave(struct scheduler *s, struct scheduled *r);

int scheduler_waiting(const struct scheduler *s);
int scheduler_running(const struct scheduler *s);

enum scheduler_verdict {
	SCHEDULER_STEP,   /* nothing else is to be done: run a step, if anything runs */
	SCHEDULER_JOIN,   /* `who` begins its first group at who->subnet */
	SCHEDULER_MORE,   /* `who`, which runs, begins its next group */
	SCHEDULER_NARROW, /* `who` goes on at `plan` of the decoder (who->subnet has it already) */
	SCHEDULER_REFUSE, /* `who`, which waits, is refused; `refusal` says why */
	SCHEDULER_EXPIRE, /* the deadline of `who` has passed without an answer: 504 */
	SCHEDULER_CUT, /* `who` ends with what it has, at its deadline or (`budget`) its budget */
};

enum scheduler_refusal {
	SCHEDULER_ACCEPTED,
	SCHEDULER_TOO_LARGE,    /* the pool can never hold it */
	SCHEDULER_UNATTAINABLE, /* on_miss reject: an idle server would miss the budget, too */
	SCHEDULER_BUSY,         /* on_miss reject: only the load makes it miss */
	SCHEDULER_OVERLOADED,   /* the budget is lost and too much such work waits already */
};

struct scheduler_action {
	enum scheduler_verdict verdict;
	struct scheduled *who; /* NULL with STEP */
	struct plan plan;      /* NARROW */
	enum scheduler_refusal refusal;
	double retry_after_ms; /* REFUSE: until one that came now would join, had this one left */
	bool budget;           /* CUT: at the latency budget; else at the deadline */
	/* STEP: most rows of prompts; a source, which cannot be parted, may be the first to pass it.
	 * 0: none, and only if something decodes. */
	int prompt_rows;
	double step_ms; /* predicted; 0: no cost model */
	/* STEP: the running requests in the order in which their prompts are fed. At least one of
	 * them does not rest and has rows or prompts. Valid until the next call. */
	struct scheduled *const *order;
	int n_order;
};

/*
 * To be called at every step boundary until it says SCHEDULER_STEP, doing each time what it says:
 *	JOIN, MORE   begin the group and write who->progress
 *	NARROW       go on with the plan
 *	REFUSE, EXPIRE, CUT   end it and call scheduler_leave
 * Requests that ended in the step before have left by then.
 */
void scheduler_next(struct scheduler *s, const struct cost_model *cost, double now_ms,
                struct scheduler_action *ret_action);

/* Adds what a running request asks of every step, and of the next ones, to a load. */
void scheduler_add_load(const struct scheduled_progress *progress, const struct subnet *subnet,
                struct cost_load *load);
/* Whether the work of a goes before that of b, which both run. */
bool scheduler_precedes(const struct scheduled *a, const struct scheduled *b);

/* ---- seen from outside ----------------------------------------------------------------------- */

enum { SCHEDULER_KNOTS = 24 };

/*
 * What another thread needs to foresee what would become of a request: a plain copy, published at
 * step boundaries. The work that is due is a curve over due times.
 */
struct scheduler_view {
	struct cost_limits limits;
	int layers[STACKS];
	int overload_min_depth, overload_max_depth;
	double backlog_bound_ms;
	unsigned without;
	struct scheduler_cache cache; /* none: for those who foresee to set */
	struct cost_load load;        /* what runs */
	struct cost_load least_load;  /* the same while what has no need takes turns */
	int waiting, waiting_places;
	int running_places;
	double wait_ms;     /* until a request without a budget that comes now would join */
	double place_ms;    /* until a place is free for the first of all who wait */
	double backlog_ms;  /* of budgetless and lost requests that wait */
	double tightest_ms; /* most that a step may take; INFINITY: no need */
	int n_knots;
	struct scheduler_knot {
		double due_ms;  /* a moment */
		double work_ms; /* of the engine, due by then, at the shallowest depths allowed */
	} knots[SCHEDULER_KNOTS];
};
/* Engine thread. */
void scheduler_view(const struct scheduler *s, struct scheduler_view *ret_view);

struct scheduler_foresight {
	struct subnet subnet;
	enum depth_reason reason;
	struct cost_time time; /* from joining; the median */
	double queue_ms;       /* until it would join */
	double predicted_ms;   /* from arrival_ms on, without a margin; < 0: no cost model */
	bool fits;             /* its budgets, with the margin */
	bool in_time; /* it has a budget, which is predicted to be kept with all that is due */
	enum scheduler_refusal refusal; /* ACCEPTED, UNATTAINABLE, BUSY or OVERLOADED */
	struct cost_time alone; /* the median on an idle server, at the best allowed depth */
	double retry_after_ms;  /* when trying again may help */
};

/* Any thread. What would become of a request that arrived now; `r` is as for scheduler_arrive. */
void scheduler_foresee(const struct scheduler_view *view, const struct cost_model *cost,
                const struct scheduled *r, double now_ms,
                struct scheduler_foresight *ret_foresight);

#endif
