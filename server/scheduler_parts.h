/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of the scheduler:
 *	scheduler.c          who waits and who runs; what is to be done at a step boundary
 *	scheduler_order.c    who goes before whom, and whose budget is lost
 *	scheduler_demand.c   the work that is due, and the highest level at which all are in time
 *	scheduler_depth.c    the depth of a request that joins, and of those that step down
 *	scheduler_compose.c  the next step: who rests, how many rows of prompts
 *	scheduler_view.c     what other threads foresee
 */
#ifndef FATHOM_SERVER_SCHEDULER_PARTS_H
#define FATHOM_SERVER_SCHEDULER_PARTS_H

#include "server/scheduler.h"

/* The cost model, as far as the work that is due needs it, times what contention adds. */
struct scheduler_rates {
	double constant, row_ms, attention;
	double layer_ms[COST_POINTS], head_ms[COST_POINTS]; /* as in cost_model; of the decoder */
	double prompt_layer, prompt_attention;              /* of a prompt token, one layer */
	double source_layer, cross_layer, source_attention, class_ms;
	int sequences; /* most that run side by side */
	int enough;    /* rows of a step beyond which more of them gain little throughput */
};

/* What a running request needs, worked out at every boundary. */
struct scheduler_need {
	double left_ms;  /* until it is due, less its own prompt; INFINITY: no need */
	double tokens;   /* that it must still get in this time */
	double token_ms; /* most that a step may take by its tpot budget; INFINITY */
};

/* What a depth is chosen by. */
struct scheduler_terms {
	struct cost_limits limits;
	int layers[STACKS], main_stack;
	int overload_min_depth, overload_max_depth;
	unsigned without;
	const struct scheduler_cache *cache;
	const struct cost_load *load;
	const struct cost_load *least_load; /* while what has no need takes turns */
	int waiting_places;                 /* that others wait for */
	int level;                          /* highest for requests with a budget */
	double wait_ms;                     /* until joining */
};

struct scheduler {
	struct scheduler_options options;
	int main_stack;
	struct scheduled **waiting; /* [most_waiting] in no order */
	int n_waiting, waiting_places;
	struct scheduled **running; /* [most_running] by class, then latest start */
	int n_running, most_running;
	int running_places;     /* that all of them take, or will take */
	double due_seen_ms;     /* when a request with a due time was last there */
	struct scheduled **due; /* [both] with a due time, waiting or running, by it */
	int n_due;
	double next_deadline_ms; /* no deadline passes before this moment */

	/* of this boundary */
	bool stepped;  /* the last answer was STEP: a boundary begins */
	bool summed;   /* load, needs and step_ms are those of what runs now */
	bool relieved; /* stepping down was looked at */
	bool levelled; /* `level` is known */
	struct scheduler_rates rates;
	struct cost_load load;
	struct cost_load least_load;  /* the same while what has no need takes turns */
	struct scheduler_need *needs; /* [most_running], of running[i] */
	/* Rows, and rows times layers, of those that are not due: of what has a time per token, which
	 * is in every step, and of what has no need and can rest for filler_rest_ms from now on. */
	double firm_rows, firm_layers, filler_rows, filler_layers, filler_rest_ms;
	double calm_ms;  /* before this moment nothing that is known can be late */
	int due_rows;    /* of those that are due */
	double last_ms;  /* of the last step */
	double step_ms;  /* of all decode rows */
	double bias;     /* of which over what the chords say; at least 1 */
	double pace_ms;  /* the tightest need: most that a step may take */
	double token_ms; /* the same of those that cannot rest */
	int level;       /* that requests with a budget may join at */
	int narrow_to;   /* level that the running ones step down to; 0: none */

	/* scratch of [most_running] */
	double *slack; /* [both] */
	struct scheduled **sorted;
	double *keys;
};

/* ---- scheduler_order.c ---- */

/* Works out where a request that arrives stands. */
void scheduler_place(const struct cost_limits *limits, const struct cost_model *cost,
                const struct scheduler_cache *cache, unsigned without, const struct scheduled *r,
                struct scheduled_place *ret_place);
/* Tokens of its prompts that are cached at a subnet, now. */
int scheduler_cached(const struct scheduler_cache *cache, const struct scheduled *r,
                const struct subnet *subnet);
/* Tokens of its prompts that must run if it joins at a depth of the decoder, as of its arrival. */
int scheduler_prompt_tokens(const struct scheduled *r, int depth);
/* Class, latest start, and whether the budget is lost: as of now. */
void scheduler_refresh(struct scheduled *r, double now_ms);
/* Its budget is given up for the sake of others, for a while. */
void scheduler_give_up(struct scheduled *r, double now_ms);

/* ---- scheduler_demand.c ---- */

/* `depth`: a usual one of the decoder. */
void scheduler_set_rates(const struct cost_model *cost, int sequences, double depth,
                struct scheduler_rates *ret_rates);
/* What steps take in the mean over what cost_step_ms says. */
double scheduler_mean_over_step(const struct cost_model *cost);
/* What a request still takes at a depth. */
struct scheduler_work {
	double steps, rows;  /* tokens, of so many answers side by side */
	double depth;        /* of the decoder */
	double attention_ms; /* of each row */
	double prompt_ms;    /* of its prompts */
};
void scheduler_work_left(const struct scheduler_rates *rates, const struct scheduled *r,
                const int depth[STACKS], struct scheduler_work *ret_work);
/* A step of it alone, and all its work at a busy engine's cost of a row. */
double scheduler_alone_ms(const struct scheduler_rates *rates, const struct scheduler_work *work);
double scheduler_busy_ms(const struct scheduler_rates *rates, const struct scheduler_work *work);
/* The depths that level 1 .. (layers of the main stack) gives to an `auto` request. */
void scheduler_level_depth(const struct scheduler *s, const struct scheduled *r, int level,
                int ret_depth[STACKS]);
/* Whether all that is due is in time if what waits joins at `level`, and, with `narrow`, those that
 * run and may go down to it have done so. All times count `margin` times, and what others add to a
 * request's own time `reserve` times more. */
bool scheduler_in_time(struct scheduler *s, int level, bool narrow, double margin, double reserve,
                double now_ms);
/* slack[i] becomes the least that those due up to due[i] have in hand. */
void scheduler_find_slack(struct scheduler *s, double margin, double now_ms);
/* Gives up budgets, the largest first, until the others are in time at the lowest level. */
void scheduler_sacrifice(struct scheduler *s, double margin, double now_ms);

/* What the requests looked at so far take together, in the order in which they are due. */
struct scheduler_sum {
	double longest, tokens, layers; /* steps of the longest; rows of all, and times depth */
	double other_ms;                /* prompts and attention */
	double chain_ms;                /* the longest of them alone */
};
/* Adds one, with `narrow` as below; false if it is not due at all. *ret_ms: what all take;
 * *ret_own_ms: what it would take alone. */
bool scheduler_add_due(const struct scheduler *s, const struct scheduled *r, int level, bool narrow,
                struct scheduler_sum *sum, double *ret_ms, double *ret_own_ms);
/* Milliseconds of a step of all that runs and cannot rest as long as it likes, at a level. */
double scheduler_together_ms(const struct scheduler *s, int level, bool narrow);

/* ---- scheduler_depth.c ---- */

bool scheduler_budgeted(const struct scheduled *r);
/* How late a running request must be predicted before it is thought late; what is below is noise. */
double scheduler_tolerance(const struct cost_model *cost);
/* The depth of the decoder below which it never steps: its bound, or what the ladder begins with. */
int scheduler_lowest_depth(const struct scheduled *r);
bool scheduler_may_narrow(const struct scheduler *s, const struct scheduled *r);
/* Subnet, reason and prediction for joining after terms->wait_ms; whether the budgets are kept. */
void scheduler_decide(const struct scheduler_terms *terms, const struct cost_model *cost,
                const struct scheduled *r, double now_ms, struct scheduler_foresight *ret);
/* The highest level at which all that is known is in time. */
int scheduler_highest_level(
                struct scheduler *s, const struct cost_model *cost, bool narrow, double now_ms);
/* The level that a request may join at: s->level, or a higher one at which it has less to run, since
 * more of its prompt is cached there, and all are in time. */
int scheduler_cached_level(struct scheduler *s, const struct cost_model *cost,
                const struct scheduled *r, double now_ms);
/* The next of the running that steps down; NULL: none. Its subnet is changed. */
struct scheduled *scheduler_narrow(
                struct scheduler *s, const struct cost_model *cost, double now_ms);

/* ---- scheduler_view.c ---- */

/* How long what is ahead, but for one that waits (NULL: all), keeps a request without a budget
 * waiting. */
double scheduler_wait(const struct scheduler *s, const struct scheduled *but);

/* ---- scheduler_compose.c ---- */

/* Whether one that runs has no need: it may rest for those that have one. */
bool scheduler_may_rest(const struct scheduler *s, const struct scheduled *r);

/* Sums of what runs, what each needs, and whose budget is lost. */
void scheduler_sum_up(struct scheduler *s, const struct cost_model *cost, double now_ms);
/* Whether a request must wait whatever its depth, because enough run side by side. */
bool scheduler_held(const struct scheduler *s, const struct cost_model *cost, struct scheduled *r,
                double now_ms);
/* Whether a request at `subnet` may join without making others late. */
bool scheduler_welcome(struct scheduler *s, const struct cost_model *cost, struct scheduled *r,
                const struct subnet *subnet, double now_ms);
/* Who rests, and the rows of prompts. */
void scheduler_compose(struct scheduler *s, const struct cost_model *cost, double now_ms,
                struct scheduler_action *action);

#endif
