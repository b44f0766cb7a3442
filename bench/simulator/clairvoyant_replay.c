/* SPDX-License-Identifier: Apache-2.0 */
/* A trace under given choices. */
#include "bench/simulator/clairvoyant_replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

static bool init_moments(struct moment *moments, size_t n, size_t sequences) {
	bool ok = true;
	for (int i = 0; i < MOMENTS; i++) {
		moments[i].waiting = calloc(n + 1, sizeof *moments[i].waiting);
		moments[i].running = calloc(sequences, sizeof *moments[i].running);
		moments[i].runs = calloc(sequences, sizeof *moments[i].runs);
		ok = ok && moments[i].waiting && moments[i].running && moments[i].runs;
	}
	return ok;
}

static void finish_moments(struct moment *moments) {
	for (int i = 0; i < MOMENTS; i++) {
		free(moments[i].waiting);
		free(moments[i].running);
		free(moments[i].runs);
	}
}

static bool allocate(struct replay *r, size_t n, size_t sequences, size_t rungs) {
	r->subnets = calloc(rungs + n, sizeof *r->subnets);
	r->value = calloc(rungs + n, sizeof *r->value);
	r->low = calloc(n + 1, sizeof *r->low);
	r->high = calloc(n + 1, sizeof *r->high);
	r->choices = calloc(n + 1, sizeof *r->choices);
	r->trial = calloc(n + 1, sizeof *r->trial);
	r->fates = calloc(n + 1, sizeof *r->fates);
	r->trial_fates = calloc(n + 1, sizeof *r->trial_fates);
	r->idle = calloc(n + 1, sizeof *r->idle);
	r->trial_idle = calloc(n + 1, sizeof *r->trial_idle);
	r->runs = calloc(n + 1, sizeof *r->runs);
	r->waiting = calloc(n + 1, sizeof *r->waiting);
	bool moments = init_moments(r->moments, n, sequences);
	moments = init_moments(r->trial_moments, n, sequences) && moments;
	return moments && r->subnets && r->value && r->low && r->high && r->choices && r->trial
	                && r->fates && r->trial_fates && r->idle && r->trial_idle && r->runs
	                && r->waiting;
}

void replay_finish(struct replay *r) {
	free(r->subnets);
	free(r->value);
	free(r->low);
	free(r->high);
	free(r->choices);
	free(r->trial);
	free(r->fates);
	free(r->trial_fates);
	free(r->idle);
	free(r->trial_idle);
	free(r->runs);
	free(r->waiting);
	finish_moments(r->moments);
	finish_moments(r->trial_moments);
	sim_batch_finish(&r->batch);
}

/* ---- which subnets ---- */

/* The depth that a mean counts: layers of the main stack, or of both stacks. */
static double depth_of(const int depth[STACKS]) {
	return depth[STACK_ENCODER] + depth[STACK_DECODER];
}

static double value_of(const struct subnet *subnet) {
	const int depth[STACKS] = { subnet->stack[STACK_ENCODER].depth,
		subnet->stack[STACK_DECODER].depth };
	return depth_of(depth);
}

static bool same(const struct subnet *a, const struct subnet *b) {
	return plan_equal(&a->stack[STACK_ENCODER], &b->stack[STACK_ENCODER])
	                && plan_equal(&a->stack[STACK_DECODER], &b->stack[STACK_DECODER]);
}

/* The index of a subnet, which may be new. */
static int intern(struct replay *r, const struct subnet *subnet) {
	for (int i = 0; i < r->n_subnets; i++) {
		if (same(&r->subnets[i], subnet))
			return i;
	}
	r->subnets[r->n_subnets] = *subnet;
	r->value[r->n_subnets] = value_of(subnet);
	return r->n_subnets++;
}

static bool within(const int depth[STACKS], const int min[STACKS], const int max[STACKS]) {
	bool inside = true;
	for (int s = 0; s < STACKS; s++)
		inside = inside && depth[s] >= min[s] && depth[s] <= max[s];
	return inside;
}

static void bound_request(struct replay *r, size_t i, int rungs) {
	const struct sim_machine *machine = r->options->machine;
	const struct sim_request *request = &r->requests[i];
	struct subnet subnet;
	int min[STACKS], max[STACKS];
	r->low[i] = -1;
	sim_bounds(machine, request, min, max);
	for (int k = 0; request->automatic && k < rungs; k++) {
		if (!within(machine->ladder.rungs[k], min, max))
			continue;
		r->low[i] = r->low[i] < 0 ? k : r->low[i];
		r->high[i] = k;
	}
	if (r->low[i] >= 0)
		return;
	struct sim_request bound = *request;
	for (int s = 0; request->automatic && s < STACKS; s++)
		bound.depth[s] = max[s];
	sim_bound_subnet(machine, &bound, &subnet);
	r->low[i] = r->high[i] = intern(r, &subnet);
}

bool replay_init(struct replay *r, const struct clairvoyant_options *options,
                const struct sim_request *requests, size_t n) {
	const struct sim_machine *machine = options->machine;
	const struct stack_facts *stack = machine->model->facts.stack;
	const int layers[STACKS] = { stack[STACK_ENCODER].layers, stack[STACK_DECODER].layers };
	memset(r, 0, sizeof *r);
	r->options = options;
	r->requests = requests;
	r->n = n;
	r->limits = (struct limits_of){ machine->limits.sequences, machine->limits.prefill_rows };
	r->trial_limits = r->limits;
	if (!sim_batch_init(&r->batch, &machine->limits, layers, machine->kv_blocks)
	                || !allocate(r, n, (size_t)machine->limits.sequences,
	                                (size_t)machine->ladder.n))
		return false;
	for (int k = 0; k < machine->ladder.n; k++) {
		if (sim_machine_rung(machine, k, &r->subnets[k]))
			r->value[k] = value_of(&r->subnets[k]);
	}
	r->n_subnets = machine->ladder.n;
	for (size_t i = 0; i < n; i++) {
		bound_request(r, i, machine->ladder.n);
		r->asked += sim_has_budget(&requests[i]);
		r->automatic += requests[i].automatic;
	}
	return true;
}

/* ---- moments ---- */

static size_t stride(const struct replay *r) {
	return r->n / MOMENTS + 1;
}

static void save(struct replay *r, size_t slot, double now_ms, size_t next) {
	struct moment *m = &r->trial_moments[slot];
	m->now_ms = now_ms;
	m->next = next;
	m->n_waiting = r->n_waiting;
	memcpy(m->waiting, r->waiting, (size_t)r->n_waiting * sizeof *r->waiting);
	m->n_running = r->batch.n;
	for (int i = 0; i < r->batch.n; i++) {
		m->running[i] = (int)(r->batch.runs[i] - r->runs);
		m->runs[i] = *r->batch.runs[i];
	}
}

static void restore(struct replay *r, const struct moment *m) {
	r->n_waiting = m->n_waiting;
	memcpy(r->waiting, m->waiting, (size_t)m->n_waiting * sizeof *r->waiting);
	r->batch.n = m->n_running;
	r->batch.sequences = 0;
	r->batch.blocks = 0;
	for (int i = 0; i < m->n_running; i++) {
		struct sim_run *run = &r->runs[m->running[i]];
		*run = m->runs[i];
		r->batch.runs[i] = run;
		r->batch.sequences += run->work.places;
		r->batch.blocks += run->blocks;
	}
}

/* ---- running ---- */

static double arrival(const struct replay *r, size_t i) {
	return r->requests[i].arrival_ms + 0.5 * r->options->overhead_ms;
}

/* Into the waiting list, which is by order, the last first. */
static void wait_for(struct replay *r, int i) {
	double order = r->trial[i].order;
	int at = r->n_waiting++;
	for (; at > 0 && r->trial[r->waiting[at - 1]].order < order; at--)
		r->waiting[at] = r->waiting[at - 1];
	r->waiting[at] = i;
}

/* When the earliest of those that are held may join; INFINITY: none waits. */
static double next_release(const struct replay *r) {
	double ms = INFINITY;
	for (int k = 0; k < r->n_waiting; k++) {
		int i = r->waiting[k];
		double at = arrival(r, (size_t)i) + r->trial[i].hold_ms;
		ms = at < ms ? at : ms;
	}
	return ms;
}

static bool deadline_passed(const struct replay *r, int i, double now_ms) {
	double deadline = r->requests[i].deadline_ms;
	return deadline > 0 && now_ms >= arrival(r, (size_t)i) + deadline;
}

static void lose(struct replay *r, int i, double now_ms) {
	r->trial_fates[i] = (struct fate){ .joined_ms = -1, .first_ms = -1, .done_ms = now_ms };
}

/* Prompts are fed by order, too. */
static void place_last(struct replay *r) {
	struct sim_run **runs = r->batch.runs;
	int at = r->batch.n - 1;
	for (; at > 0; at--) {
		if (r->trial[runs[at - 1] - r->runs].order <= r->trial[runs[at] - r->runs].order)
			break;
		struct sim_run *earlier = runs[at - 1];
		runs[at - 1] = runs[at];
		runs[at] = earlier;
	}
}

static void let_in(struct replay *r, double now_ms) {
	for (int k = r->n_waiting - 1; k >= 0; k--) {
		int i = r->waiting[k];
		const struct subnet *subnet = &r->subnets[r->trial[i].rung];
		bool gone = deadline_passed(r, i, now_ms);
		if (!gone && now_ms < arrival(r, (size_t)i) + r->trial[i].hold_ms)
			continue;
		struct sim_work work = sim_work_of(r->options->machine, &r->requests[i]);
		if (!gone
		                && (!sim_batch_fits(&r->batch, &work, subnet)
		                                || (r->batch.n > 0
		                                                && r->batch.sequences + work.places
		                                                                > r->trial_limits.running)))
			return;
		r->n_waiting--;
		memmove(r->waiting + k, r->waiting + k + 1,
		                (size_t)(r->n_waiting - k) * sizeof *r->waiting);
		lose(r, i, now_ms);
		if (gone)
			continue;
		r->trial_fates[i].joined_ms = now_ms;
		sim_batch_join(&r->batch, &r->runs[i], &work, subnet);
		place_last(r);
	}
}

static void judge(struct replay *r, int i) {
	const struct sim_request *asked = &r->requests[i];
	struct fate *fate = &r->trial_fates[i];
	struct sim_request became = *asked;
	became.end = SIM_ANSWERED;
	became.first_ms = fate->first_ms;
	became.done_ms = fate->done_ms;
	became.tokens = asked->length;
	fate->met = sim_has_budget(asked) && sim_is_met(&became);
	r->lost += r->fates[i].met - fate->met;
}

static void take_step(struct replay *r, double now_ms) {
	double half = 0.5 * r->options->overhead_ms;
	sim_batch_advance(&r->batch);
	for (int k = r->batch.n - 1; k >= 0; k--) {
		struct sim_run *run = r->batch.runs[k];
		int i = (int)(run - r->runs);
		if (run->answering && run->chunk > 0)
			r->trial_fates[i].first_ms = now_ms + half;
		if (sim_run_is_done(run)) {
			r->trial_fates[i].done_ms = now_ms + half;
			judge(r, i);
			sim_batch_leave(&r->batch, run);
		} else if (deadline_passed(r, i, now_ms)) {
			lose(r, i, now_ms);
			sim_batch_leave(&r->batch, run);
		}
	}
}

/* Those that came up to now; the state before some of them is kept. */
static size_t take_arrivals(struct replay *r, size_t next, double now_ms, size_t *slot) {
	bool empty = r->batch.n == 0 && r->n_waiting == 0;
	while (*slot < MOMENTS && *slot * stride(r) < r->n
	                && arrival(r, *slot * stride(r)) <= now_ms)
		save(r, (*slot)++, now_ms, next);
	for (; next < r->n && arrival(r, next) <= now_ms; next++) {
		r->trial_idle[next] = empty && r->n_waiting == 0 && now_ms == arrival(r, next);
		wait_for(r, (int)next);
	}
	return next;
}

/* From here on nothing differs from the best: it was idle at this arrival, too. */
static void take_rest(struct replay *r, size_t next, size_t slot) {
	size_t left = r->n - next;
	memcpy(r->trial_fates + next, r->fates + next, left * sizeof *r->fates);
	memcpy(r->trial_idle + next, r->idle + next, left * sizeof *r->idle);
	for (; slot < MOMENTS && slot * stride(r) < r->n; slot++) {
		const struct moment *m = &r->moments[slot];
		restore(r, m);
		save(r, slot, m->now_ms, m->next);
	}
	r->batch.n = r->n_waiting = 0;
}

static void sum_up(struct replay *r) {
	r->trial_met = 0;
	r->trial_depth = 0;
	for (size_t i = 0; i < r->n; i++) {
		const struct fate *fate = &r->trial_fates[i];
		r->trial_met += fate->met;
		if (r->requests[i].automatic && fate->joined_ms >= 0)
			r->trial_depth += r->value[r->trial[i].rung];
	}
}

bool replay_run(struct replay *r, size_t from, size_t to, int patience) {
	size_t slot = from / stride(r), next = 0;
	double now_ms = r->n > 0 ? arrival(r, 0) : 0;
	r->batch.n = r->batch.sequences = r->n_waiting = 0;
	r->batch.blocks = 0;
	r->lost = 0;
	if (slot > 0) {
		const struct moment *m = &r->moments[slot];
		memcpy(r->trial_fates, r->fates, r->n * sizeof *r->fates);
		memcpy(r->trial_idle, r->idle, r->n * sizeof *r->idle);
		now_ms = m->now_ms;
		next = m->next;
		restore(r, m);
	}
	for (;;) {
		if (r->batch.n == 0 && r->n_waiting == 0) {
			if (next == r->n)
				break;
			now_ms = fmax(now_ms, arrival(r, next));
			if (next > to && r->idle[next]) {
				take_rest(r, next, slot);
				break;
			}
		}
		next = take_arrivals(r, next, now_ms, &slot);
		let_in(r, now_ms);
		const struct cost_step *step =
		                sim_batch_form(&r->batch, r->trial_limits.prompt_rows);
		if (!step) {
			double arrives = next < r->n ? arrival(r, next) : INFINITY;
			now_ms = fmin(arrives, next_release(r));
			continue;
		}
		now_ms += sim_machine_step_ms(
		                r->options->machine, &r->options->noise, step, now_ms);
		r->steps++;
		take_step(r, now_ms);
		if (r->lost > patience)
			return false;
	}
	sum_up(r);
	return true;
}

bool replay_is_better(const struct replay *r) {
	double depth = r->trial_depth - r->depth + 1e-9;
	return depth + r->worth * ((double)r->trial_met - (double)r->met) >= 0;
}

void replay_accept(struct replay *r, size_t from) {
	for (size_t slot = from / stride(r); slot < MOMENTS; slot++) {
		struct moment m = r->moments[slot];
		r->moments[slot] = r->trial_moments[slot];
		r->trial_moments[slot] = m;
	}
	memcpy(r->choices, r->trial, r->n * sizeof *r->choices);
	memcpy(r->fates, r->trial_fates, r->n * sizeof *r->fates);
	memcpy(r->idle, r->trial_idle, r->n * sizeof *r->idle);
	r->met = r->trial_met;
	r->depth = r->trial_depth;
	r->limits = r->trial_limits;
}

void replay_revert(struct replay *r, size_t from, size_t to) {
	memcpy(r->trial + from, r->choices + from, (to - from) * sizeof *r->choices);
	r->trial_limits = r->limits;
}
