/* SPDX-License-Identifier: Apache-2.0 */
/* What requests teach the cost model, and stepping down while they run. */
#include "server/clock.h"
#include "server/engine_parts.h"

const char *engine_reason_name(enum depth_reason reason) {
	static const char *const names[] = { [REASON_EXPLICIT] = "explicit",
		[REASON_BUDGET] = "budget",
		[REASON_OVERLOAD] = "overload",
		[REASON_DEFAULT] = "default" };
	return names[reason];
}

/* What joining predicted for an answer of `tokens` tokens. */
static double predicted_for(const struct ticket *t, int tokens) {
	const struct cost_time *p = &t->predicted;
	if (tokens <= 1)
		return p->first_ms;
	if (t->predicted_tokens <= 1)
		return p->first_ms + p->token_ms * (tokens - 1);
	return p->first_ms + (p->total_ms - p->first_ms) * (tokens - 1) / (t->predicted_tokens - 1);
}

static bool was_cut(const struct ticket *t) {
	for (int i = 0; i < t->job->n_choices; i++) {
		if (t->progress[i].detail != DETAIL_NONE)
			return true;
	}
	return false;
}

/* Lengths of answers over those of their sources, in steps: a search runs as long as its longest
 * hypothesis. */
static void learn_targets(struct engine *engine, const struct ticket *t) {
	const struct job *job = t->job;
	for (int i = 0; i < job->n_prompts; i++) {
		int steps = t->prompts[i].searched, source = ticket_source_tokens(job, i);
		bool stopped = true;
		for (int k = i * job->best_of; k < (i + 1) * job->best_of; k++) {
			const struct choice_progress *p = &t->progress[k];
			steps = p->n_tokens > steps ? p->n_tokens : steps;
			stopped = stopped && p->finish == FINISH_STOP;
		}
		/* A client's own limit says nothing about other answers. */
		if (source > 0 && (stopped || !job->request.max_tokens.set))
			cost_learn_target(&engine->history, &engine->cost, (double)steps / source);
	}
}

static void learn_lengths(struct engine *engine, const struct ticket *t) {
	const struct job *job = t->job;
	if (job->max_tokens == 0 || job->n_choices == 0)
		return;
	if (ticket_source_tokens(job, 0) > 0) {
		learn_targets(engine, t);
		return;
	}
	/* Only a default limit is planned by the learnt length. */
	if (job->request.max_tokens.set)
		return;
	for (int i = 0; i < job->n_choices; i++)
		cost_learn_length(&engine->history, &engine->cost,
		                (double)t->progress[i].n_tokens / job->max_tokens);
}

static void count_budget(struct engine *engine, const struct ticket *t) {
	const struct job *job = t->job;
	const struct job_times *times = &t->report.times;
	struct scheduler_budget budget = admission_budget(job, 0);
	if (!scheduler_has_budget(&budget))
		return;
	int tokens = ticket_most_tokens(t);
	struct cost_time actual = { .total_ms = clock_ms(times->done_ns - times->received_ns) };
	actual.first_ms = times->first_token_ns > 0
	                ? clock_ms(times->first_token_ns - times->received_ns)
	                : actual.total_ms;
	actual.token_ms = tokens > 1 ? t->report.decode_ms / (tokens - 1) : 0;
	metrics_budget(engine->metrics, scheduler_fits(&budget, &actual, 1));
}

void engine_learn(struct engine *engine, const struct ticket *t) {
	const struct job *job = t->job;
	const struct job_times *times = &t->report.times;
	int tokens = 0, prompt = 0;
	for (int i = 0; i < job->n_choices; i++)
		tokens += t->progress[i].n_tokens;
	for (int i = 0; i < job->n_prompts; i++)
		prompt += job->prompts[i].n_tokens;
	metrics_tokens(engine->metrics, prompt, tokens, &job->subnet);
	metrics_job_done(engine->metrics, &job->subnet,
	                clock_ms(times->done_ns - times->received_ns) * 1e-3);
	if (job->error.code != ERROR_NONE)
		return;
	count_budget(engine, t);
	double predicted = predicted_for(t, ticket_most_tokens(t));
	/* Predictions know of no drafts. */
	bool drafted = job->accepted_tokens + job->rejected_tokens > 0;
	if (was_cut(t) || !engine->cost.fitted || predicted <= 0)
		return;
	learn_lengths(engine, t);
	if (drafted)
		return;
	double ratio = clock_ms(times->done_ns - times->joined_ns) / predicted;
	/* One that stepped down would have been late. */
	if (t->late_ratio > 0)
		ratio = t->late_ratio > engine->cost.margin ? t->late_ratio : engine->cost.margin;
	metrics_prediction(engine->metrics, ratio);
	cost_learn_ratio(&engine->history, &engine->cost, ratio);
}

void engine_learn_step(struct engine *engine, const struct batch_stats *stats, int64_t began_ns) {
	const struct cost_step *step = &stats->step;
	int64_t now_ns = clock_now_ns();
	if (!engine->cost.fitted)
		return;
	enum cost_kind kind = cost_kind_of(step);
	double ratio = cost_learn_step(&engine->learner, &engine->cost, step,
	                clock_ms(now_ns - began_ns) - stats->draft_ms, clock_ms(now_ns));
	if (ratio <= 0)
		return;
	metrics_step_prediction(engine->metrics, kind, ratio);
	batch_learn_ratio(engine->batch, stats, ratio);
}

void engine_keep_pace(struct engine *engine, int64_t now_ns) {
	if (engine->cost.fitted)
		cost_keep_pace(&engine->learner, &engine->cost, clock_ms(now_ns));
}

/* ---- stepping down ---- */

void engine_fell_behind(const struct engine *engine, struct ticket *t, int64_t now_ns) {
	double expected = predicted_for(t, ticket_most_tokens(t));
	if (engine->cost.fitted && t->late_ratio <= 0 && expected > 0)
		t->late_ratio = clock_ms(now_ns - t->report.times.joined_ns) / expected;
}
