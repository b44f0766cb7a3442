/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next step: what runs and what it needs, who may join it, who rests, and how many rows of
 * prompts it has.
 *
 * A running request with t milliseconds and n tokens left needs steps of at most t / n: its pace.
 * Where a step of all takes longer than the tightest pace, those without a need rest, then those
 * that are due last, until it does not. So what is tight gets ahead, and all go on together.
 */
#include <math.h>
#include <string.h>

#include "server/scheduler_parts.h"

/* Whoever has rested so long takes turns with others of its kind, in a quarter of the rows that are
 * worth running side by side; alone it then rests three quarters of the time at most. */
#define MOST_REST_MS 100.0
#define REST_SHARE 3.0 /* of rest for each millisecond that it ran */
/* What waits without a need is held back so long at most. */
#define MOST_HOLD_MS 2000.0
/* A request joins if those due before it have so many times its prompt in hand. */
#define PROMPT_ROOM 4.0
/* Nor does it wait for others when no more than so many steps are left before it must begin. */
#define URGENT 4.0
/* So long after a request with a due time was there, places are kept free for the next. */
#define EXPECT_DUE_MS 10000.0
enum { LEAST_CHUNK = 8, KEPT_PLACES = 8 /* one in so many */ };

static double lesser(double a, double b) {
	return a < b ? a : b;
}

/* ---- sums ---- */

static void add_rows(const struct subnet *subnet, int rows, double keys, struct cost_load *load) {
	const struct plan *plan = &subnet->stack[STACK_DECODER];
	load->decode_rows += rows;
	load->attended += plan->depth * keys / 1024;
	for (int i = 0; i < plan->depth; i++)
		load->rows[plan->layers[i]] += rows;
}

void scheduler_add_load(const struct scheduled_progress *p, const struct subnet *subnet,
                struct cost_load *load) {
	const struct plan *encoder = &subnet->stack[STACK_ENCODER],
	                  *decoder = &subnet->stack[STACK_DECODER];
	add_rows(subnet, p->rows + p->coming_rows, p->keys + p->coming_keys, load);
	load->pending += p->prompt_tokens;
	for (int i = 0; p->prompt_tokens > 0 && i < decoder->depth; i++)
		load->pending_rows[decoder->layers[i]] += p->prompt_tokens;
	if (p->source_tokens == 0)
		return;
	load->pending_source += p->source_tokens;
	load->pending_source_attended += encoder->depth * p->source_squares;
	for (int i = 0; i < encoder->depth; i++)
		load->pending_source_rows[encoder->layers[i]] += p->source_tokens;
	for (int i = 0; i < decoder->depth; i++)
		load->pending_cross_rows[decoder->layers[i]] += p->source_tokens;
}

/* A step in which `load` decodes and `chunk` rows of a prompt of `r` (NULL: none) run beside. */
static double step_ms(const struct scheduler *s, const struct cost_model *cost,
                const struct cost_load *load, const struct scheduled *r, int chunk) {
	int rows[MAX_LAYERS];
	struct cost_step step = { .layers = { 0, s->options.layers[STACK_DECODER] },
		.row_count = { NULL, load->rows },
		.rows = load->decode_rows + chunk,
		.logit_rows = load->decode_rows,
		.attended = load->attended };
	if (r) {
		const struct plan *plan = &r->subnet.stack[STACK_DECODER];
		memcpy(rows, load->rows, (size_t)step.layers[STACK_DECODER] * sizeof rows[0]);
		for (int i = 0; i < plan->depth; i++)
			rows[plan->layers[i]] += chunk;
		step.row_count[STACK_DECODER] = rows;
		step.chunk_attended = plan->depth * chunk * (r->work.longest_prompt / 2048.0);
	}
	return cost_step_ms(cost, &step) * scheduler_mean_over_step(cost);
}

/* ---- needs ---- */

static bool no_need(const struct scheduler_need *need) {
	return isinf(need->left_ms) && isinf(need->token_ms);
}

/* What it takes alone at the shallowest depth that it may still go to. */
static double least_step_ms(const struct scheduler *s, const struct scheduled *r) {
	int depth[STACKS] = { r->subnet.stack[STACK_ENCODER].depth,
		r->subnet.stack[STACK_DECODER].depth };
	struct scheduler_work w;
	if (scheduler_may_narrow(s, r))
		depth[STACK_DECODER] = scheduler_lowest_depth(r);
	scheduler_work_left(&s->rates, r, depth, &w);
	return scheduler_alone_ms(&s->rates, &w);
}

static void find_need(const struct scheduler *s, struct scheduled *r, double now_ms,
                struct scheduler_need *ret_need) {
	const struct scheduled_progress *p = &r->progress;
	struct scheduler_need need = { INFINITY, 0, INFINITY };
	struct scheduler_work w;
	*ret_need = need;
	r->at.lost = r->at.given_up_ms > now_ms;
	bool due = isfinite(r->at.due_ms) && !(r->at.first_due && p->first_out);
	if (r->at.lost || (!due && r->tpot_ms <= 0))
		return;
	const int depth[STACKS] = { r->subnet.stack[STACK_ENCODER].depth,
		r->subnet.stack[STACK_DECODER].depth };
	scheduler_work_left(&s->rates, r, depth, &w);
	if (r->at.first_due)
		w.steps = 0;
	double least = least_step_ms(s, r);
	if (due) {
		need.left_ms = r->at.due_ms - now_ms - w.prompt_ms;
		need.tokens = w.steps;
	}
	if (r->tpot_ms > 0)
		need.token_ms = r->tpot_ms;
	r->at.lost = (due && need.left_ms < need.tokens * least) || need.token_ms < least;
	if (r->at.lost)
		return;
	/* Steps end when they end: one may be as long as the last. */
	need.left_ms -= s->last_ms;
	*ret_need = need;
}

bool scheduler_may_rest(const struct scheduler *s, const struct scheduled *r) {
	return no_need(&s->needs[r->at.index]) && !(s->options.without & SCHEDULER_WITHOUT_RESTS);
}

/* What is not due takes a part of every step. */
static void add_along(
                struct scheduler *s, const struct scheduled *r, const struct scheduler_need *n) {
	double rows = r->progress.rows + r->progress.coming_rows;
	double layers = rows * r->subnet.stack[STACK_DECODER].depth;
	if (isfinite(n->left_ms))
		return;
	if (!scheduler_may_rest(s, r)) {
		s->firm_rows += rows;
		s->firm_layers += layers;
		return;
	}
	s->filler_rows += rows / (1 + REST_SHARE);
	s->filler_layers += layers / (1 + REST_SHARE);
	double rest_ms = MOST_REST_MS - r->at.rested_ms;
	s->filler_rest_ms = lesser(s->filler_rest_ms, rest_ms > 0 ? rest_ms : 0);
}

/* Rows of a step in which those without a need take turns. */
static int turn_rows(const struct scheduler *s) {
	return s->rates.enough > 4 ? s->rates.enough / 4 : 1;
}

/* Under pressure those without a need take turns. */
static void limit_along(struct scheduler *s) {
	double most = turn_rows(s);
	if (s->filler_rows <= most)
		return;
	s->filler_layers *= most / s->filler_rows;
	s->filler_rows = most;
}

/* What runs while those without a need take turns. */
static void sum_least(struct scheduler *s) {
	int turns = turn_rows(s), fillers = 0;
	memset(&s->least_load, 0, sizeof s->least_load);
	for (int i = 0; i < s->n_running; i++) {
		const struct scheduled *r = s->running[i];
		const struct scheduled_progress *p = &r->progress;
		int rows = p->rows + p->coming_rows;
		if (!scheduler_may_rest(s, r)) {
			scheduler_add_load(p, &r->subnet, &s->least_load);
		} else if (fillers + rows <= turns) {
			fillers += rows;
			add_rows(&r->subnet, rows, p->keys + p->coming_keys, &s->least_load);
		}
	}
}

/* Layers that any row keeps are run: plans of different depths may share few. */
static void set_bias(struct scheduler *s, const struct cost_model *cost) {
	struct cost_load load;
	memset(&load, 0, sizeof load);
	for (int i = 0; i < s->n_running; i++) {
		const struct scheduled *r = s->running[i];
		const struct scheduled_progress *p = &r->progress;
		if (!scheduler_may_rest(s, r))
			add_rows(&r->subnet, p->rows + p->coming_rows, p->keys + p->coming_keys,
			                &load);
	}
	double average = scheduler_together_ms(s, 1, false);
	double ms = load.decode_rows > 0 ? step_ms(s, cost, &load, NULL, 0) : 0;
	if (average > 0 && ms > average)
		s->bias = lesser(ms / average, 1.5);
}

void scheduler_sum_up(struct scheduler *s, const struct cost_model *cost, double now_ms) {
	memset(&s->load, 0, sizeof s->load);
	s->firm_rows = s->firm_layers = s->filler_rows = s->filler_layers = 0;
	s->filler_rest_ms = MOST_REST_MS;
	s->pace_ms = s->token_ms = INFINITY;
	s->step_ms = 0;
	s->due_rows = 0;
	s->bias = 1;
	s->summed = true;
	bool needs = false;
	for (int i = 0; i < s->n_running; i++) {
		scheduler_refresh(s->running[i], now_ms);
		scheduler_add_load(&s->running[i]->progress, &s->running[i]->subnet, &s->load);
	}
	if (!cost->fitted)
		return;
	s->load.recent_rows = cost->recent_rows;
	s->load.recent_keys = cost->recent_keys;
	scheduler_set_rates(cost, s->options.limits.sequences,
	                0.5 * s->options.layers[STACK_DECODER], &s->rates);
	for (int i = 0; i < s->n_running; i++) {
		struct scheduler_need *n = &s->needs[i];
		find_need(s, s->running[i], now_ms, n);
		if (no_need(n))
			continue;
		needs = true;
		if (isfinite(n->left_ms))
			s->due_rows += s->running[i]->progress.rows
			                + s->running[i]->progress.coming_rows;
		s->token_ms = lesser(s->token_ms, n->token_ms);
		s->pace_ms = lesser(s->pace_ms, n->token_ms);
		if (n->tokens > 0)
			s->pace_ms = lesser(s->pace_ms, n->left_ms / n->tokens);
	}
	s->step_ms = step_ms(s, cost, &s->load, NULL, 0);
	sum_least(s);
	if (!needs && s->n_due == 0)
		return;
	s->due_seen_ms = now_ms;
	for (int i = 0; i < s->n_running; i++)
		add_along(s, s->running[i], &s->needs[i]);
	limit_along(s);
	set_bias(s, cost);
}

/* ---- joining ---- */

/* Whether every running need bears steps of `ms` after a pause of `pause_ms`. */
static bool bear(const struct scheduler *s, double ms, double pause_ms) {
	for (int i = 0; i < s->n_running; i++) {
		const struct scheduler_need *n = &s->needs[i];
		if (n->left_ms - pause_ms < n->tokens * ms || n->token_ms < ms)
			return false;
	}
	return true;
}

/* Whether those that are due before a request have room for its prompt, and for what it slows down
 * besides. It need not be in time itself: that was seen to when its depth was chosen. */
static bool leaves_room(struct scheduler *s, const struct cost_model *cost,
                const struct scheduled *r, double prompt_ms, double now_ms) {
	double slack_ms = INFINITY;
	scheduler_find_slack(s, scheduler_tolerance(cost), now_ms);
	for (int i = 0; i < s->n_due && s->due[i] != r; i++)
		slack_ms = s->slack[i];
	return slack_ms >= PROMPT_ROOM * prompt_ms;
}

/* No budget that could be kept. */
static bool is_filler(const struct scheduled *r) {
	return !scheduler_budgeted(r) || r->at.lost;
}

/* Whether a request has been held back as long as it may. */
static bool held_enough(struct scheduled *r, double now_ms) {
	if (r->at.held_ms < 0)
		r->at.held_ms = now_ms;
	return now_ms - r->at.held_ms > MOST_HOLD_MS;
}

bool scheduler_held(const struct scheduler *s, const struct cost_model *cost, struct scheduled *r,
                double now_ms) {
	if (!cost->fitted || s->n_running == 0 || r->texts
	                || (s->options.without & SCHEDULER_WITHOUT_HOLD))
		return false;
	int rows = r->work.choices, enough = s->rates.enough;
	if (is_filler(r)) {
		int most = s->options.limits.sequences;
		bool crowds = s->n_due > 0 && s->load.decode_rows + rows > enough;
		bool fills = now_ms - s->due_seen_ms < EXPECT_DUE_MS
		                && s->running_places + r->places > most - most / KEPT_PLACES;
		return (crowds || fills) && !held_enough(r, now_ms);
	}
	return isfinite(r->at.due_ms) && s->due_rows > 0 && s->due_rows + rows > enough
	                && r->at.start_ms - now_ms > URGENT * s->step_ms;
}

/* How much longer its prompt makes others wait: where layers cost the same for any row, a short one
 * takes a deep step of its own. */
static double pause_of(const struct scheduler *s, const struct cost_model *cost,
                const struct scheduled *r, const struct subnet *subnet, double prompt_ms) {
	struct scheduled fed = { .subnet = *subnet, .work = r->work };
	int rows = scheduler_prompt_tokens(r, subnet->stack[STACK_DECODER].depth);
	int most = cost_prompt_rows(cost, &s->options.limits, &s->load, subnet,
	                r->work.longest_prompt, s->options.limits.prefill_rows);
	double ms = step_ms(s, cost, &s->load, &fed, rows < most ? rows : most) - s->step_ms;
	return ms > prompt_ms ? ms : prompt_ms;
}

bool scheduler_welcome(struct scheduler *s, const struct cost_model *cost, struct scheduled *r,
                const struct subnet *subnet, double now_ms) {
	if (!cost->fitted || s->n_running == 0 || r->texts || isinf(s->pace_ms)
	                || (s->options.without & SCHEDULER_WITHOUT_HOLD))
		return true;
	const struct plan *plan = &subnet->stack[STACK_DECODER];
	const int depth[STACKS] = { subnet->stack[STACK_ENCODER].depth, plan->depth };
	struct cost_load load = s->load;
	struct scheduler_work w;
	scheduler_work_left(&s->rates, r, depth, &w);
	add_rows(subnet, r->work.choices,
	                (double)r->work.choices * (r->work.longest_prompt + r->work.longest_source),
	                &load);
	double after = step_ms(s, cost, &load, NULL, 0) * scheduler_tolerance(cost);
	double pause_ms = pause_of(s, cost, r, subnet, w.prompt_ms);
	if (bear(s, after, pause_ms))
		return true;
	if (!is_filler(r)) {
		/* What is due later can rest for it. A time per token cannot be made up for: such a
		 * neighbour makes it wait as long as it can. */
		bool neighbours = s->token_ms >= after;
		if (isinf(r->at.due_ms))
			return neighbours;
		double pace_ms =
		                (r->at.due_ms - now_ms - w.prompt_ms) / (w.steps > 0 ? w.steps : 1);
		if (neighbours ? leaves_room(s, cost, r, pause_ms, now_ms) : pace_ms < 1.5 * after)
			return true;
	}
	return held_enough(r, now_ms);
}

/* ---- resting ---- */

/* Who must have a row comes first, then what is due first, then those without a need. */
static double key_of(const struct scheduler *s, int i) {
	const struct scheduler_need *n = &s->needs[i];
	if (isfinite(n->token_ms))
		return -INFINITY;
	if (isfinite(n->left_ms))
		return s->running[i]->at.due_ms;
	return s->running[i]->at.turn ? -INFINITY : INFINITY;
}

/* Of those who have rested enough the ones who have rested longest. */
static void give_turns(struct scheduler *s) {
	for (int i = 0; i < s->n_running; i++)
		s->running[i]->at.turn = false;
	for (int left = turn_rows(s); left > 0;) {
		struct scheduled *next = NULL;
		for (int i = 0; i < s->n_running; i++) {
			struct scheduled *r = s->running[i];
			if (r->progress.rows > 0 && !r->at.turn && scheduler_may_rest(s, r)
			                && r->at.rested_ms >= MOST_REST_MS
			                && (!next || r->at.rested_ms > next->at.rested_ms))
				next = r;
		}
		if (!next)
			return;
		next->at.turn = true;
		left -= next->progress.rows;
	}
}

/* Those with rows by key; returns their number. */
static int sort_by_key(struct scheduler *s) {
	int n = 0;
	for (int i = 0; i < s->n_running; i++) {
		if (s->running[i]->progress.rows == 0)
			continue;
		double key = key_of(s, i);
		int at = n++;
		for (; at > 0 && s->keys[at - 1] > key; at--) {
			s->keys[at] = s->keys[at - 1];
			s->sorted[at] = s->sorted[at - 1];
		}
		s->keys[at] = key;
		s->sorted[at] = s->running[i];
	}
	return n;
}

static void load_of(const struct scheduler *s, int n, struct cost_load *ret_load) {
	memset(ret_load, 0, sizeof *ret_load);
	for (int i = 0; i < n; i++)
		add_rows(&s->sorted[i]->subnet, s->sorted[i]->progress.rows,
		                s->sorted[i]->progress.keys, ret_load);
}

static double pace_of(const struct scheduler_need *n) {
	double pace_ms = n->tokens > 0 && isfinite(n->left_ms) ? n->left_ms / n->tokens : INFINITY;
	return lesser(pace_ms, n->token_ms);
}

/* How many of the sorted can run together, so that the tightest of them bears it; at least one that
 * is not `must`. */
static int most_together(struct scheduler *s, const struct cost_model *cost, int must, int n) {
	int low = must + 1, high = n + 1;
	double tolerance = scheduler_tolerance(cost);
	struct cost_load load;
	while (high - low > 1) {
		int middle = (low + high) / 2;
		double pace_ms = INFINITY;
		for (int i = 0; i < middle; i++)
			pace_ms = lesser(pace_ms, pace_of(&s->needs[s->sorted[i]->at.index]));
		load_of(s, middle, &load);
		if (step_ms(s, cost, &load, NULL, 0) * tolerance <= pace_ms)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Lets those that are due last rest; `load` becomes that of the others. */
static void choose_rests(
                struct scheduler *s, const struct cost_model *cost, struct cost_load *load) {
	give_turns(s);
	int n = sort_by_key(s), must = 0;
	while (must < n && s->keys[must] == -INFINITY)
		must++;
	if (must == n)
		return;
	int run = most_together(s, cost, must, n);
	for (int i = run; i < n; i++)
		s->sorted[i]->rests = true;
	load_of(s, run, load);
}

static void count_rest(struct scheduler *s, double ms) {
	for (int i = 0; i < s->n_running; i++) {
		double *rested = &s->running[i]->at.rested_ms;
		if (s->running[i]->rests)
			*rested += ms;
		else if (*rested > 0)
			*rested = *rested > REST_SHARE * ms ? *rested - REST_SHARE * ms : 0;
	}
}

/* ---- rows of prompts ---- */

static int prompt_left(const struct scheduled *r) {
	return r->progress.prompt_tokens + r->progress.source_tokens;
}

static struct scheduled *first_fed(const struct scheduler *s) {
	for (int i = 0; i < s->n_running; i++) {
		if (prompt_left(s->running[i]) > 0)
			return s->running[i];
	}
	return NULL;
}

/* Of those whose prompts would share `rows` rows the one whose rows cost most. */
static const struct scheduled *deepest_fed(const struct scheduler *s, int rows) {
	const struct scheduled *deepest = NULL;
	for (int i = 0, taken = 0; i < s->n_running && taken < rows; i++) {
		const struct scheduled *r = s->running[i];
		int left = prompt_left(r);
		if (left > 0
		                && (!deepest
		                                || r->subnet.stack[STACK_DECODER].depth
		                                                > deepest->subnet.stack[STACK_DECODER]
		                                                                  .depth))
			deepest = r;
		taken += left;
	}
	return deepest;
}

/* What all that is due before a request has in hand. */
static double slack_before(const struct scheduler *s, const struct scheduled *r) {
	double slack_ms = INFINITY;
	for (int i = 0; i < s->n_due; i++) {
		if (s->due[i] == r && !r->at.lost)
			break;
		slack_ms = s->slack[i];
	}
	return slack_ms > 0 ? slack_ms : 0;
}

/* How many of at most `rows` rows of a prompt run beside `taken` others of prompts: a step takes no
 * more than a time per token allows, and no more from what is due before than that has in hand. */
static int rows_beside(const struct scheduler *s, const struct cost_model *cost,
                const struct cost_load *load, const struct scheduled *r, int taken, int rows,
                double ms) {
	double due_ms = ms + slack_before(s, r) / PROMPT_ROOM;
	int least = load->decode_rows == 0 && taken == 0 ? rows : 0;
	while (rows > least) {
		double step = step_ms(s, cost, load, r, taken + rows);
		if (step <= due_ms && (step <= s->token_ms || rows <= LEAST_CHUNK))
			break;
		rows = rows > 2 * LEAST_CHUNK ? rows / 2 : rows > LEAST_CHUNK ? LEAST_CHUNK : 0;
	}
	return rows;
}

static int prompt_rows(struct scheduler *s, const struct cost_model *cost,
                const struct cost_load *load, double ms, double now_ms) {
	const struct cost_limits *limits = &s->options.limits;
	int rows = limits->max_rows - load->decode_rows, taken = 0;
	struct scheduled *first = first_fed(s);
	if (load->decode_rows > 0 && rows > limits->prefill_rows)
		rows = limits->prefill_rows;
	if (!first || first->texts || !cost->fitted
	                || (s->options.without & SCHEDULER_WITHOUT_CHUNKS))
		return rows;
	const struct scheduled *deepest = deepest_fed(s, rows);
	rows = cost_prompt_rows(
	                cost, limits, load, &deepest->subnet, deepest->work.longest_prompt, rows);
	if (isinf(s->pace_ms))
		return rows;
	scheduler_find_slack(s, scheduler_tolerance(cost), now_ms);
	for (int i = 0; i < s->n_running && taken < rows; i++) {
		const struct scheduled *r = s->running[i];
		int left = prompt_left(r), most = left < rows - taken ? left : rows - taken;
		if (left == 0)
			continue;
		int more = rows_beside(s, cost, load, r, taken, most, ms);
		taken += more;
		if (more < most)
			break;
	}
	if (taken > 0)
		return taken;
	/* Nobody waits for ever. */
	first->at.rested_ms += ms;
	return first->at.rested_ms > MOST_REST_MS ? LEAST_CHUNK : 0;
}

void scheduler_compose(struct scheduler *s, const struct cost_model *cost, double now_ms,
                struct scheduler_action *action) {
	struct cost_load load;
	for (int i = 0; i < s->n_running; i++)
		s->running[i]->rests = false;
	memset(&load, 0, sizeof load);
	for (int i = 0; i < s->n_running; i++) {
		const struct scheduled *r = s->running[i];
		add_rows(&r->subnet, r->progress.rows, r->progress.keys, &load);
	}
	double ms = cost->fitted && load.decode_rows > 0 ? step_ms(s, cost, &load, NULL, 0) : 0;
	if (ms * scheduler_tolerance(cost) > s->pace_ms
	                && !(s->options.without & SCHEDULER_WITHOUT_RESTS)) {
		choose_rests(s, cost, &load);
		ms = step_ms(s, cost, &load, NULL, 0);
	}
	action->prompt_rows = prompt_rows(s, cost, &load, ms, now_ms);
	const struct scheduled *fed = first_fed(s);
	action->step_ms = ms;
	if (cost->fitted && fed && fed->progress.prompt_tokens > 0) {
		int rows = s->load.pending < action->prompt_rows ? s->load.pending
		                                                 : action->prompt_rows;
		action->step_ms = step_ms(s, cost, &load, fed, rows);
	}
	count_rest(s, action->step_ms);
	s->last_ms = action->step_ms;
	action->order = s->running;
	action->n_order = s->n_running;
}
