/* SPDX-License-Identifier: Apache-2.0 */
/* What other threads see of the scheduler, and what they foresee with it. */
#include <math.h>
#include <string.h>

#include "server/scheduler_parts.h"

/* ---- the view ---- */

static struct scheduler_queue queue_of(const struct scheduler *s, const struct scheduled *but) {
	struct scheduler_queue q = { .waiting = s->n_waiting - (but != NULL),
		.slots = s->options.limits.sequences,
		.shortest_tokens = INFINITY,
		.step_ms = s->step_ms };
	for (int i = 0; i < s->n_waiting; i++) {
		const struct scheduled *r = s->waiting[i];
		if (r == but)
			continue;
		q.waiting_prompt_ms += r->at.prompt_ms;
		q.waiting_tokens += (double)r->work.output_tokens * r->work.choices;
	}
	for (int i = 0; i < s->n_running; i++) {
		const struct scheduled *r = s->running[i];
		int left = r->work.output_tokens - r->progress.tokens_out;
		left = left > 1 ? left : 1;
		q.running += r->progress.rows + r->progress.coming_rows;
		q.running_tokens += (double)left * r->progress.choices_left;
		if (left < q.shortest_tokens)
			q.shortest_tokens = left;
	}
	if (isinf(q.shortest_tokens))
		q.shortest_tokens = 1;
	return q;
}

double scheduler_wait(const struct scheduler *s, const struct scheduled *but) {
	struct scheduler_queue q = queue_of(s, but);
	return scheduler_wait_ms(&q);
}

static double wait_for_a_place(const struct scheduler *s) {
	struct scheduler_queue q = queue_of(s, NULL);
	q.waiting = 0;
	return scheduler_wait_ms(&q);
}

/* The curve of the work that is due, in at most SCHEDULER_KNOTS points: where several fall
 * together, all their work counts at the first. */
static void draw_curve(const struct scheduler *s, struct scheduler_view *view) {
	struct scheduler_sum sum = { 0 };
	int most = (s->n_due + SCHEDULER_KNOTS - 1) / SCHEDULER_KNOTS, in_knot = most;
	for (int i = 0; i < s->n_due; i++) {
		double work_ms, own_ms;
		if (!scheduler_add_due(s, s->due[i], 1, true, &sum, &work_ms, &own_ms))
			continue;
		if (in_knot == most) {
			view->knots[view->n_knots++].due_ms = s->due[i]->at.due_ms;
			in_knot = 0;
		}
		view->knots[view->n_knots - 1].work_ms = work_ms;
		in_knot++;
	}
}

void scheduler_view(const struct scheduler *s, struct scheduler_view *ret_view) {
	struct scheduler_view *v = ret_view;
	v->limits = s->options.limits;
	v->layers[STACK_ENCODER] = s->options.layers[STACK_ENCODER];
	v->layers[STACK_DECODER] = s->options.layers[STACK_DECODER];
	v->overload_min_depth = s->options.overload_min_depth;
	v->overload_max_depth = s->options.overload_max_depth;
	v->backlog_bound_ms = s->options.backlog_ms;
	v->without = s->options.without;
	v->cache = (struct scheduler_cache){ NULL, NULL };
	v->waiting = s->n_waiting;
	v->waiting_places = s->waiting_places;
	v->running_places = 0;
	v->backlog_ms = 0;
	v->tightest_ms = s->pace_ms;
	v->n_knots = 0;
	memset(&v->load, 0, sizeof v->load);
	for (int i = 0; i < s->n_running; i++) {
		scheduler_add_load(&s->running[i]->progress, &s->running[i]->subnet, &v->load);
		v->running_places +=
		                s->running[i]->progress.rows + s->running[i]->progress.coming_rows;
	}
	for (int i = 0; i < s->n_waiting; i++) {
		const struct scheduled *r = s->waiting[i];
		if (r->at.lost || isinf(r->at.due_ms))
			v->backlog_ms += r->at.low_ms;
	}
	v->least_load = s->load.decode_rows > 0 ? s->least_load : v->load;
	v->wait_ms = scheduler_wait(s, NULL);
	v->place_ms = wait_for_a_place(s);
	draw_curve(s, v);
}

/* ---- foreseeing ---- */

/* The work that is due before a moment, and the least that is free by any later one. */
static void look_up(const struct scheduler_view *v, double due_ms, double now_ms, double margin,
                double *ret_before_ms, double *ret_free_ms) {
	*ret_before_ms = 0;
	*ret_free_ms = INFINITY;
	for (int i = 0; i < v->n_knots; i++) {
		const struct scheduler_knot *k = &v->knots[i];
		if (k->due_ms <= due_ms) {
			*ret_before_ms = k->work_ms;
			continue;
		}
		double free_ms = (k->due_ms - now_ms) / margin - k->work_ms;
		*ret_free_ms = free_ms < *ret_free_ms ? free_ms : *ret_free_ms;
	}
}

static void alone_terms(struct scheduler_terms *terms) {
	static const struct cost_load idle;
	terms->load = terms->least_load = &idle;
	terms->waiting_places = 0;
	terms->wait_ms = 0;
	terms->level = terms->layers[terms->main_stack];
}

void scheduler_foresee(const struct scheduler_view *view, const struct cost_model *cost,
                const struct scheduled *r, double now_ms, struct scheduler_foresight *ret) {
	struct scheduler_terms terms = { .limits = view->limits,
		.layers = { view->layers[0], view->layers[1] },
		.main_stack = view->layers[STACK_DECODER] > 0 ? STACK_DECODER : STACK_ENCODER,
		.overload_min_depth = view->overload_min_depth,
		.overload_max_depth = view->overload_max_depth,
		.without = view->without,
		.cache = &view->cache,
		.load = &view->load,
		.least_load = &view->least_load,
		.waiting_places = view->waiting_places,
		.wait_ms = view->wait_ms };
	struct scheduler_terms alone = terms;
	double margin = scheduler_margin(cost, r), free_ms = INFINITY, before_ms = 0;
	double all_ms = view->n_knots > 0 ? view->knots[view->n_knots - 1].work_ms : 0;
	struct scheduled_place at;
	scheduler_place(&view->limits, cost, &view->cache, view->without, r, &at);
	bool due = cost->fitted && isfinite(at.due_ms);
	alone_terms(&alone);
	terms.level = alone.level;
	if (due) {
		/* What is due later waits for it, and what has no budget; but whoever runs stays. */
		look_up(view, at.due_ms, now_ms, cost->margin, &before_ms, &free_ms);
		terms.wait_ms *= all_ms > 0 ? before_ms / all_ms : 0;
		terms.wait_ms = terms.wait_ms < before_ms ? terms.wait_ms : before_ms;
		terms.wait_ms = terms.wait_ms > view->place_ms ? terms.wait_ms : view->place_ms;
	}
	scheduler_decide(&terms, cost, r, now_ms, ret);
	if (!cost->fitted || !scheduler_budgeted(r))
		return;
	struct scheduler_foresight best;
	scheduler_decide(&alone, cost, r, r->arrival_ms, &best);
	ret->alone = best.time;
	ret->retry_after_ms = view->wait_ms;
	bool lost = due
	                && (at.low_ms > free_ms
	                                || (before_ms + at.low_ms) * margin > at.due_ms - now_ms);
	lost = lost || !ret->fits;
	ret->in_time = !lost;
	if (lost && r->on_miss == ON_MISS_REJECT && !ret->fits)
		ret->refusal = best.fits ? SCHEDULER_BUSY : SCHEDULER_UNATTAINABLE;
	else if (lost && view->backlog_ms > view->backlog_bound_ms)
		ret->refusal = SCHEDULER_OVERLOADED;
}
