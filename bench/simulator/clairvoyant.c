/* SPDX-License-Identifier: Apache-2.0 */
/* Searching the choices of a scheduler that knows the future. */
#include "bench/simulator/clairvoyant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/simulator/clairvoyant_replay.h"

#define BUDGET_WORTH 2.0 /* times the ladder */

struct search {
	struct replay r;
	const struct clairvoyant_options *options;
	uint64_t random;
	int64_t told; /* steps at which progress was told last */
};

/* ---- chance ---- */

/* SplitMix64. */
static uint64_t draw(struct search *s) {
	uint64_t x = s->random += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static int below(struct search *s, int n) {
	return n < 2 ? 0 : (int)((draw(s) >> 32) * (uint64_t)n >> 32);
}

static double unit(struct search *s) {
	return (double)(draw(s) >> 11) * 0x1p-53;
}

/* ---- requests alone ---- */

/* The highest rung that meets the budgets so; the lowest if none does. */
static int rung_alone(const struct replay *r, size_t i, double factor) {
	int rung = r->high[i];
	while (rung > r->low[i]
	                && !clairvoyant_meets_alone(
	                                r->options, &r->requests[i], &r->subnets[rung], factor))
		rung--;
	return rung;
}

/* The moment at which work must begin, alone and at its lowest rung. */
static double latest_start(const struct replay *r, size_t i) {
	const struct sim_request *request = &r->requests[i];
	struct cost_time t;
	clairvoyant_alone(r->options, request, &r->subnets[r->low[i]], &t);
	double start = request->arrival_ms + SCHEDULER_PATIENCE_MS;
	if (request->latency_ms > 0)
		start = fmin(start, request->arrival_ms + request->latency_ms - t.total_ms);
	if (request->ttft_ms > 0)
		start = fmin(start, request->arrival_ms + request->ttft_ms - t.first_ms);
	if (request->deadline_ms > 0)
		start = fmin(start, request->arrival_ms + request->deadline_ms - t.total_ms);
	return start;
}

/* ---- where it starts ---- */

static void try_all(struct search *s) {
	replay_run(&s->r, 0, s->r.n, (int)s->r.n);
	if (replay_is_better(&s->r))
		replay_accept(&s->r, 0);
}

static int clamp(int x, int low, int high) {
	return x < low ? low : x > high ? high : x;
}

/* Every request at the same rung, or at the highest that it could have alone with time to spare. */
static void try_rules(struct search *s, int running, int prompt_rows) {
	static const double spare[] = { 1, 1.2, 1.5, 2, 2.5, 3, 4, 6 };
	struct replay *r = &s->r;
	int rungs = s->options->machine->ladder.n, by = rungs / 12 + 1;
	r->trial_limits = (struct limits_of){ running, prompt_rows };
	for (int k = 0; k < rungs; k += by) {
		for (size_t i = 0; i < r->n; i++)
			r->trial[i].rung = clamp(k, r->low[i], r->high[i]);
		try_all(s);
	}
	for (size_t k = 0; k < sizeof spare / sizeof *spare; k++) {
		for (size_t i = 0; i < r->n; i++)
			r->trial[i].rung = rung_alone(r, i, spare[k]);
		try_all(s);
	}
}

/* What an online scheduler did: it joins then, at the depth that it had in the middle. */
static void try_online(struct search *s, const struct sim_request *online) {
	struct replay *r = &s->r;
	r->trial_limits = (struct limits_of){ s->options->machine->limits.sequences,
		s->options->machine->limits.prefill_rows };
	for (size_t i = 0; i < r->n; i++) {
		const struct sim_request *request = &online[i];
		struct choice_of *choice = &r->trial[i];
		double depth = request->joined_depth[STACK_ENCODER] + sim_mean_depth(request);
		choice->rung = r->low[i];
		while (choice->rung < r->high[i] && r->value[choice->rung + 1] <= depth + 0.5)
			choice->rung++;
		choice->hold_ms = 0;
		if (request->joined_ms > 0)
			choice->hold_ms = fmax(0,
			                request->joined_ms - request->arrival_ms
			                                - 0.5 * s->options->overhead_ms - 1e-6);
		choice->order = latest_start(r, i);
	}
	try_all(s);
	/* Without the waiting, in its order of joining. */
	for (size_t i = 0; i < r->n; i++) {
		if (online[i].joined_ms > 0)
			r->trial[i].order = online[i].joined_ms;
		r->trial[i].hold_ms = 0;
	}
	for (int running = s->options->machine->limits.sequences; running >= 2; running /= 2) {
		r->trial_limits.running = running;
		try_all(s);
	}
}

static void start(struct search *s, const struct sim_request *const *online, int n_online) {
	const struct cost_limits *limits = &s->options->machine->limits;
	struct replay *r = &s->r;
	for (size_t i = 0; i < r->n; i++) {
		r->trial[i] = (struct choice_of){ .rung = r->low[i], .order = latest_start(r, i) };
		r->choices[i] = r->trial[i];
	}
	r->depth = -1;
	r->worth = BUDGET_WORTH * s->options->machine->ladder.n;
	for (int running = limits->sequences; running >= 2; running /= 2)
		try_rules(s, running, limits->prefill_rows);
	for (int rows = limits->prefill_rows / 2; rows >= 16; rows /= 2)
		try_rules(s, r->limits.running, rows);
	for (int k = 0; k < n_online; k++)
		try_online(s, online[k]);
	memcpy(r->trial, r->choices, r->n * sizeof *r->trial);
	r->trial_limits = r->limits;
}

/* ---- local changes ---- */

/* Runs the trial, which differs from the best in [from, to], and keeps it or takes it back. */
static bool judge(struct search *s, size_t from, size_t to) {
	struct replay *r = &s->r;
	double gain = 0;
	for (size_t i = from; i <= to; i++)
		gain += r->value[r->trial[i].rung] - r->value[r->choices[i].rung];
	/* Budgets may be lost at first and won later, but seldom many. */
	int patience = 1 + (gain > 0 && !isinf(r->worth) ? (int)(gain / r->worth) : 0);
	bool better = replay_run(r, from, to, gain > 0 ? patience - 1 : patience + 2)
	                && replay_is_better(r);
	if (better)
		replay_accept(r, from);
	else
		replay_revert(r, from, to + 1);
	if (s->options->progress && r->steps > s->told + s->options->steps / 200) {
		s->told = r->steps;
		double depth = r->automatic ? r->depth / (double)r->automatic : 0;
		s->options->progress(s->options->progress_arg,
		                (double)r->steps / (double)s->options->steps, r->met, depth);
	}
	return better;
}

/* Some neighbours in time go up. */
static bool raise_window(struct search *s) {
	struct replay *r = &s->r;
	size_t width = (size_t)1 << below(s, 5);
	size_t from = (size_t)below(s, (int)r->n), to = from + width - 1;
	bool changed = false;
	to = to < r->n ? to : r->n - 1;
	int by = 1 + (below(s, 4) == 0) * below(s, 3);
	for (size_t i = from; i <= to; i++) {
		int rung = clamp(r->trial[i].rung + by, r->low[i], r->high[i]);
		changed = changed || rung != r->trial[i].rung;
		r->trial[i].rung = rung;
	}
	return changed && judge(s, from, to);
}

/* A request goes up, another one near it goes down by less. */
static bool trade(struct search *s) {
	struct replay *r = &s->r;
	size_t a = (size_t)below(s, (int)r->n);
	size_t b = a + 1 + (size_t)below(s, 12);
	if (b >= r->n)
		return false;
	size_t up = below(s, 2) ? a : b, down = up == a ? b : a;
	int rung = clamp(r->trial[up].rung + 1 + below(s, 3), r->low[up], r->high[up]);
	int lower = clamp(r->trial[down].rung - 1, r->low[down], r->high[down]);
	if (rung == r->trial[up].rung)
		return false;
	r->trial[up].rung = rung;
	r->trial[down].rung = lower;
	return judge(s, a, b);
}

/* A request waits longer, so that others are alone, or shorter. */
static bool hold(struct search *s) {
	struct replay *r = &s->r;
	size_t i = (size_t)below(s, (int)r->n);
	struct choice_of *choice = &r->trial[i];
	double slack = latest_start(r, i) - r->requests[i].arrival_ms;
	if (below(s, 3) == 0)
		choice->hold_ms *= below(s, 2) ? 0 : unit(s);
	else
		choice->hold_ms = fmax(slack, 0) * unit(s);
	if (below(s, 2))
		choice->rung = clamp(choice->rung + 1 - below(s, 2) * 2, r->low[i], r->high[i]);
	return judge(s, i, i);
}

/* The next missed budget after a random request; n: none. */
static size_t find_missed(struct search *s) {
	const struct replay *r = &s->r;
	size_t begin = (size_t)below(s, (int)r->n);
	for (size_t k = 0; k < r->n; k++) {
		size_t i = (begin + k) % r->n;
		if (sim_has_budget(&r->requests[i]) && !r->fates[i].met)
			return i;
	}
	return r->n;
}

/* Those who ran beside a missed request give way: they go down, or wait. */
static bool rescue(struct search *s) {
	struct replay *r = &s->r;
	size_t i = find_missed(s), from = i, to = i;
	if (i == r->n)
		return false;
	size_t reach = 4u << below(s, 5);
	from = i > reach ? i - reach : 0;
	to = i + reach < r->n ? i + reach : r->n - 1;
	double begins = r->requests[i].arrival_ms, ends = fmax(r->fates[i].done_ms, begins);
	int by = 1 + below(s, 4), how = below(s, 4);
	for (size_t k = from; k <= to; k++) {
		struct choice_of *choice = &r->trial[k];
		const struct fate *fate = &r->fates[k];
		bool beside = k != i && fate->done_ms >= begins
		                && r->requests[k].arrival_ms <= ends;
		bool lost = sim_has_budget(&r->requests[k]) && !fate->met;
		if (beside && (how > 0 || below(s, 2)))
			choice->rung = clamp(choice->rung - by, r->low[k], r->high[k]);
		/* A lost one may wait until the others are through. */
		if (beside && how == 3 && (lost || !sim_has_budget(&r->requests[k])))
			choice->hold_ms = fmax(choice->hold_ms, ends - r->requests[k].arrival_ms);
	}
	r->trial[i].rung =
	                how == 1 ? r->low[i] : clamp(r->trial[i].rung - by, r->low[i], r->high[i]);
	r->trial[i].hold_ms = 0;
	r->trial[i].order -= how == 2 ? 1000 : 0;
	return judge(s, from, to);
}

/* A budget that cannot be kept is given up: its request waits, and goes last. */
static bool give_up(struct search *s) {
	struct replay *r = &s->r;
	size_t i = find_missed(s);
	if (i == r->n)
		return false;
	r->trial[i].order = r->requests[i].arrival_ms + 1e6;
	r->trial[i].hold_ms = 500 * (1 + below(s, 8));
	return judge(s, i, i);
}

static void improve(struct search *s) {
	struct replay *r = &s->r;
	while (r->n > 0 && r->steps < s->options->steps) {
		int what = below(s, 16);
		/* Later few budgets are lost for depth. */
		if (r->steps > s->options->steps / 2)
			r->worth = 4 * BUDGET_WORTH * s->options->machine->ladder.n;
		int64_t before = r->steps;
		if (r->met < r->asked && what < 3)
			rescue(s);
		else if (r->met < r->asked && what == 3)
			give_up(s);
		else if (what < 6)
			hold(s);
		else if (what < 8)
			trade(s);
		else
			raise_window(s);
		r->steps += r->steps == before; /* nothing was left to try */
	}
}

/* ---- answers ---- */

struct clairvoyant_score clairvoyant_score(const struct sim_request *requests, size_t n) {
	struct clairvoyant_score score = { 0 };
	size_t answered = 0;
	double sum = 0;
	for (size_t i = 0; i < n; i++) {
		const struct sim_request *r = &requests[i];
		score.asked += sim_has_budget(r);
		score.met += sim_has_budget(r) && sim_is_met(r);
		if (!r->automatic || r->tokens == 0)
			continue;
		sum += r->joined_depth[STACK_ENCODER] + sim_mean_depth(r);
		answered++;
	}
	score.depth = answered ? sum / (double)answered : 0;
	return score;
}

static void tell(const struct replay *r, struct sim_request *requests) {
	for (size_t i = 0; i < r->n; i++) {
		struct sim_request *request = &requests[i];
		const struct fate *fate = &r->fates[i];
		const struct subnet *subnet = &r->subnets[r->choices[i].rung];
		bool answered = fate->joined_ms >= 0;
		request->end = answered ? SIM_ANSWERED : SIM_EXPIRED;
		request->joined_ms = answered ? fate->joined_ms : 0;
		request->first_ms = answered ? fate->first_ms : 0;
		request->done_ms = fate->done_ms;
		request->tokens = answered ? request->length : 0;
		request->changes = 0;
		request->predicted_ms = -1;
		for (int k = 0; k < STACKS; k++)
			request->joined_depth[k] = request->final_depth[k] =
			                answered ? subnet->stack[k].depth : 0;
		request->token_depth =
		                (double)request->tokens * request->final_depth[STACK_DECODER];
	}
}

/* In layers of depth, of all requests. */
static double worth_of(const struct search *s, const struct clairvoyant_score *score, size_t n) {
	return BUDGET_WORTH * s->options->machine->ladder.n * (double)score->met
	                + score->depth * (double)n;
}

bool clairvoyant_search(const struct clairvoyant_options *options,
                const struct sim_request *const *online, int n_online, struct sim_request *requests,
                size_t n, char *err, size_t errlen) {
	struct search s = { .options = options, .random = options->seed };
	bool ok = replay_init(&s.r, options, requests, n);
	if (ok) {
		start(&s, online, n_online);
		improve(&s);
		double depth = s.r.automatic ? s.r.depth / (double)s.r.automatic : 0;
		struct clairvoyant_score best = { s.r.asked, s.r.met, depth };
		tell(&s.r, requests);
		/* What steps down cannot be replayed: it may have been better. */
		for (int k = 0; k < n_online; k++) {
			struct clairvoyant_score score = clairvoyant_score(online[k], n);
			if (worth_of(&s, &score, n) <= worth_of(&s, &best, n))
				continue;
			memcpy(requests, online[k], n * sizeof *requests);
			best = score;
		}
	} else {
		snprintf(err, errlen, "not enough memory for the search");
	}
	replay_finish(&s.r);
	return ok;
}
