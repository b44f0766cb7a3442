/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Budgets on an invented machine under an invented clock: the model is fitted to noisy warm-up
 * measurements, then requests come one at a time, each with a budget between what the shallowest
 * and the deepest plan take. The scheduler must meet nearly all and yet go nearly as deep as was
 * possible, which is found by running every depth.
 */
#include <math.h>

#include "server/scheduler.h"
#include "tests/check.h"

enum { LAYERS = 12, REQUESTS = 200 };

static const struct cost_limits limits = { .max_rows = 512, .prefill_rows = 128, .sequences = 64 };
static const struct cost_load idle;
static const struct model model = { .facts.stack[STACK_DECODER].layers = LAYERS };

/* ---- the machine ---- */

struct machine {
	double jitter;  /* relative, of every step */
	double hiccups; /* probability that a step takes `hiccup_ms` more */
	double hiccup_ms;
	double drift; /* relative; swings over a few thousand steps */
	long steps;
	uint64_t state;
	struct cost_learner learner;
};

static double noise(struct machine *m) {
	m->state = m->state * 6364136223846793005u + 1442695040888963407u;
	return (double)(m->state >> 11) / (double)(1ull << 53);
}

static double step_ms(struct machine *m, int depth, int rows, double attended, int logit_rows) {
	double ridge = rows > 10 ? rows / 10.0 : 1;
	double ms = 0.15 + depth * 0.12 * ridge + 0.05 * attended + 0.06 * logit_rows;
	ms *= 1 + m->drift * sin((double)m->steps++ / 500);
	ms *= 1 + m->jitter * (2 * noise(m) - 1);
	return noise(m) < m->hiccups ? ms + m->hiccup_ms : ms;
}

/* As warmup.c measures: the second least of nine, and how far the median lies above. */
static double measured(struct machine *m, int depth, int rows, double attended, int logit_rows,
                struct cost_samples *s) {
	double ms[9];
	for (int i = 0; i < 9; i++) {
		double x = step_ms(m, depth, rows, attended, logit_rows);
		int k = i;
		for (; k > 0 && ms[k - 1] > x; k--)
			ms[k] = ms[k - 1];
		ms[k] = x;
	}
	s->level += ms[4] / ms[1];
	s->spread += ms[7] / ms[4];
	return ms[1];
}

static void warm_up(struct machine *m, struct cost_model *cost, struct cost_history *history) {
	struct cost_samples s;
	cost_samples_init(&s);
	s.level = s.spread = 0;
	s.attend_depth = LAYERS;
	s.attend_context = 400;
	struct cost_points *p = &s.stack[STACK_DECODER];
	p->attend_share = 0.3;
	for (int i = 0; i < COST_POINTS; i++) {
		int rows = cost_rows[i];
		p->deep[i] = LAYERS;
		p->shallow[i] = 1;
		p->deep_ms[i] = measured(m, LAYERS, rows, LAYERS * rows * rows * 0.5 / 1024, 0, &s);
		p->shallow_ms[i] = measured(m, 1, rows, rows * rows * 0.5 / 1024, 0, &s);
		s.head_ms[i] = 0.06 * rows;
	}
	s.attend_near_ms = measured(m, LAYERS, 1, 0, 0, &s);
	s.attend_far_ms = measured(m, LAYERS, 1, LAYERS * 400 / 1024.0, 0, &s);
	s.level /= 2 * COST_POINTS + 2;
	s.spread /= 2 * COST_POINTS + 2;
	cost_fit(&s, cost);
	cost_history_init(history, cost, s.spread);
}

/* ---- a request ---- */

struct run {
	struct cost_model *cost;
	struct subnet subnet;
	double total_ms;
	int changes;
	struct scheduled s;
};

static void step(struct machine *m, struct run *r, int rows, double attended, bool chunk) {
	int count[LAYERS] = { 0 };
	for (int i = 0; i < r->subnet.stack[STACK_DECODER].depth; i++)
		count[r->subnet.stack[STACK_DECODER].layers[i]] = rows;
	double ms = step_ms(m, r->subnet.stack[STACK_DECODER].depth, rows, attended, 1);
	r->total_ms += ms;
	struct cost_step s = { .layers = { [STACK_DECODER] = LAYERS },
		.row_count = { [STACK_DECODER] = count },
		.rows = rows,
		.logit_rows = 1 };
	*(chunk ? &s.chunk_attended : &s.attended) = attended;
	cost_learn_step(&m->learner, r->cost, &s, ms, m->learner.ended_ms + ms);
}

static bool always_fits(void *arg, const struct scheduled *r, const struct subnet *subnet) {
	(void)arg;
	(void)r;
	(void)subnet;
	return true;
}

/* What the scheduler says about the only request; false: it did not step down. */
static bool decide(struct scheduler *scheduler, struct run *r) {
	struct scheduler_action action;
	bool down = false;
	for (;;) {
		scheduler_next(scheduler, r->cost, r->total_ms, &action);
		if (action.verdict == SCHEDULER_STEP)
			return down;
		CHECK(action.verdict == SCHEDULER_JOIN || action.verdict == SCHEDULER_NARROW);
		down = action.verdict == SCHEDULER_NARROW;
		if (!down)
			r->s.progress = (struct scheduled_progress){
				.prompt_tokens = r->s.work.prompt_tokens,
				.coming_rows = 1,
				.coming_keys = r->s.work.prompt_tokens,
				.choices_left = 1
			};
		r->subnet = r->s.subnet;
	}
}

static void maybe_step_down(struct scheduler *scheduler, struct run *r, int prompt, int out) {
	if (!scheduler)
		return;
	r->s.progress = (struct scheduled_progress){ .rows = 1,
		.keys = prompt + out,
		.choices_left = 1,
		.tokens_out = out,
		.first_out = true,
		.can_end = true };
	r->changes += decide(scheduler, r);
}

/* `scheduler`: whom to ask before each step; NULL: nobody. */
static void run(struct machine *m, struct scheduler *scheduler, struct run *r, int prompt,
                int tokens) {
	step(m, r, prompt, r->subnet.stack[STACK_DECODER].depth * prompt * prompt * 0.5 / 1024,
	                true);
	for (int i = 1; i < tokens; i++) {
		maybe_step_down(scheduler, r, prompt, i);
		step(m, r, 1, r->subnet.stack[STACK_DECODER].depth * (prompt + i) / 1024.0, false);
	}
}

/* ---- many requests ---- */

struct outcome {
	double met;     /* share of the requests */
	double depth;   /* mean of the chosen ones over mean of the deepest that fitted */
	double changed; /* share that stepped down */
};

/* A request at an explicit depth, from which the model learns like from any other. */
static double run_alone(struct machine *m, struct cost_model *cost, struct cost_history *history,
                int depth, int prompt, int tokens) {
	struct run r = { .cost = cost };
	model_subnet(&model, PLAN_RULE_EVEN, depth, &r.subnet);
	struct cost_work work = { .subnet = &r.subnet,
		.prompt_tokens = prompt,
		.longest_prompt = prompt,
		.choices = 1,
		.output_tokens = tokens };
	struct cost_time time;
	cost_predict(cost, &limits, &idle, &work, &time);
	run(m, NULL, &r, prompt, tokens);
	cost_learn_ratio(history, cost, r.total_ms / time.total_ms);
	return r.total_ms;
}

static struct outcome serve(struct machine *m) {
	struct cost_model cost;
	struct cost_history history;
	int met = 0, depth = 0, best_depth = 0, changed = 0;
	struct ladder ladder;
	CHECK(ladder_init(&ladder, &model, PLAN_RULE_EVEN));
	struct scheduler_options options = { .limits = limits,
		.layers = { [STACK_DECODER] = LAYERS },
		.most_waiting = 1,
		.overload_min_depth = 1,
		.fits = always_fits };
	struct scheduler *scheduler = scheduler_create(&options);
	CHECK(scheduler);
	warm_up(m, &cost, &history);
	for (int i = 0; i < REQUESTS; i++) {
		int prompt = 4 + (int)(60 * noise(m)), tokens = 8 + (int)(40 * noise(m)), best = 1;
		double took[LAYERS + 1];
		for (int d = 1; d <= LAYERS; d++) {
			took[d] = run_alone(m, &cost, &history, d, prompt, tokens);
		}
		double low = 1.15 * took[1], high = 1.1 * took[LAYERS];
		double budget = low + (high - low) * noise(m);
		for (int d = 1; d <= LAYERS; d++)
			best = took[d] <= budget ? d : best;

		struct run r = { .cost = &cost };
		r.s = (struct scheduled){ .deadline_ms = INFINITY,
			.latency_ms = budget,
			.automatic = true,
			.may_step_down = true,
			.ladder = &ladder,
			.min_depth = { [STACK_DECODER] = 1 },
			.max_depth = { [STACK_DECODER] = LAYERS },
			.places = 1,
			.work = { .prompt_tokens = prompt,
			                .longest_prompt = prompt,
			                .choices = 1,
			                .output_tokens = tokens } };
		CHECK(scheduler_arrive(scheduler, &r.s, &cost, 0));
		decide(scheduler, &r);
		depth += r.subnet.stack[STACK_DECODER].depth;
		best_depth += best;
		run(m, scheduler, &r, prompt, tokens);
		scheduler_leave(scheduler, &r.s);
		met += r.total_ms <= budget;
		changed += r.changes > 0;
		double ratio = r.total_ms / r.s.predicted.total_ms;
		if (r.changes > 0 && ratio < cost.margin)
			ratio = cost.margin;
		cost_learn_ratio(&history, &cost, ratio);
	}
	scheduler_destroy(scheduler);
	ladder_finish(&ladder);
	return (struct outcome){ (double)met / REQUESTS, (double)depth / best_depth,
		(double)changed / REQUESTS };
}

TEST(on_a_quiet_machine_budgets_are_met_and_used) {
	struct machine m = { .jitter = 0.03, .state = 1 };
	struct outcome o = serve(&m);
	CHECK(o.met >= 0.95);
	CHECK(o.depth >= 0.9);
	CHECK(o.changed < 0.3);
}

TEST(hiccups_cost_few_budgets_and_little_depth) {
	/* One step in a hundred takes as long as five to twenty others. Where the budget hardly
	 * holds the shallowest plan, nothing can be saved. */
	struct machine m = { .jitter = 0.05, .hiccups = 0.01, .hiccup_ms = 8, .state = 2 };
	struct outcome o = serve(&m);
	CHECK(o.met >= 0.9);
	CHECK(o.depth >= 0.85);
}

TEST(a_machine_that_becomes_slower_and_faster_is_followed) {
	struct machine m = { .jitter = 0.03, .drift = 0.3, .state = 3 };
	struct outcome o = serve(&m);
	CHECK(o.met >= 0.95);
	CHECK(o.depth >= 0.85);
}
