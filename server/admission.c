/* SPDX-License-Identifier: Apache-2.0 */
/* Admission: from a job to the scheduler's questions, and from its answers to refusals. */
#include "server/admission.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/clock.h"
#include "server/ticket.h"

static const struct cost_load idle;

/* ---- ladders ---- */

bool admission_init(struct admission *a, const struct model *model, const struct config *config,
                const struct cost_limits *limits, size_t kv_blocks) {
	int layers = model_layers(model);
	memset(a, 0, sizeof *a);
	a->model = model;
	a->limits = *limits;
	a->kv_blocks = kv_blocks;
	a->overload_min_depth = config->overload_min_depth > 0 ? config->overload_min_depth : 1;
	for (int rule = 0; rule < PLAN_RULE_LAYERS; rule++) {
		struct subnet *subnets = calloc((size_t)layers, sizeof *subnets);
		int n = 0;
		a->ladders[rule].subnets = subnets;
		if (!subnets)
			return false;
		for (int d = 1; d <= layers; d++) {
			/* All layers are one plan, whatever the rule. */
			enum plan_rule by = d == layers ? PLAN_RULE_EVEN : (enum plan_rule)rule;
			if (model_subnet(model, by, d, &subnets[n]))
				n++;
		}
		a->ladders[rule].n = n;
	}
	return true;
}

void admission_finish(struct admission *a) {
	for (int rule = 0; rule < PLAN_RULE_LAYERS; rule++)
		free((struct subnet *)a->ladders[rule].subnets);
}

/* ---- a job in numbers ---- */

static int longest_prompt(const struct job *job) {
	int longest = 0;
	for (int i = 0; i < job->n_prompts; i++)
		longest = job->prompts[i].n_tokens > longest ? job->prompts[i].n_tokens : longest;
	return longest;
}

void admission_work(const struct job *job, const struct subnet *subnet, int output_tokens,
                struct cost_work *ret_work) {
	struct cost_work work = { .subnet = subnet,
		.longest_prompt = longest_prompt(job),
		.choices = job->n_choices,
		.output_tokens = output_tokens };
	for (int i = 0; i < job->n_prompts; i++)
		work.prompt_tokens += job->prompts[i].n_tokens;
	if (job->want_prompt_logprobs)
		work.scored_tokens = work.prompt_tokens;
	*ret_work = work;
}

int admission_predict_tokens(const struct job *job, const struct cost_model *cost) {
	return scheduler_predict_tokens(job->expected_tokens, job->max_tokens,
	                job->request.max_tokens.set, cost->fitted ? cost->answer_ratio : 1);
}

struct scheduler_budget admission_budget(const struct job *job, double spent_ms) {
	return (struct scheduler_budget){ .spent_ms = spent_ms,
		.latency_ms = job->latency_budget_ms,
		.ttft_ms = job->ttft_budget_ms,
		.tpot_ms = job->tpot_budget_ms };
}

int64_t admission_tokens(const struct job *job) {
	int64_t tokens = (int64_t)job->n_choices * job->max_tokens;
	for (int i = 0; i < job->n_prompts; i++)
		tokens += job->prompts[i].n_tokens;
	return tokens;
}

/* Blocks of the job's longest sequence for one layer. */
static size_t layer_blocks(const struct job *job) {
	int tokens = 0;
	for (int i = 0; i < job->n_prompts; i++) {
		int needed = ticket_sequence_tokens(job, i);
		tokens = needed > tokens ? needed : tokens;
	}
	return ((size_t)tokens + KV_TILE - 1) / KV_TILE;
}

/* The deepest plan that the pool can hold. */
static int pool_depth(const struct admission *a, const struct job *job) {
	size_t blocks = layer_blocks(job), depth = blocks ? a->kv_blocks / blocks : MAX_LAYERS;
	return depth > MAX_LAYERS ? MAX_LAYERS : (int)depth;
}

static const struct scheduler_ladder *ladder_of(const struct admission *a, const struct job *job) {
	return &a->ladders[job->policy.rule];
}

/* The shallowest plan that the job allows. */
static const struct subnet *shallowest(const struct admission *a, const struct job *job) {
	if (!job->policy.automatic)
		return &job->policy.subnet;
	const struct scheduler_ladder *ladder = ladder_of(a, job);
	int i = 0;
	while (i + 1 < ladder->n
	                && ladder->subnets[i].stack[STACK_DECODER].depth < job->policy.min_depth)
		i++;
	return &ladder->subnets[i];
}

/* The depths that the server may choose for the job. */
static void bounds(const struct admission *a, const struct job *job, int *ret_min, int *ret_max) {
	int pool = pool_depth(a, job), max = job->policy.max_depth;
	*ret_min = job->policy.min_depth;
	*ret_max = max < pool ? max : pool;
	if (*ret_max < *ret_min)
		*ret_max = *ret_min; /* admission_check_size has refused it */
}

/* ---- deciding ---- */

static double margin_of(const struct cost_model *cost, const struct job *job) {
	bool rescued = job->policy.automatic && job->policy.allow_step_down
	                && !job->want_prompt_logprobs;
	return rescued ? cost->margin_rescued : cost->margin;
}

static double spent_at(const struct job *job, int64_t now_ns, double wait_ms) {
	int64_t since = job->times.received_ns;
	return (since > 0 && now_ns > since ? clock_ms(now_ns - since) : 0) + wait_ms;
}

static void decide_bound(const struct admission *a, const struct admission_state *state,
                const struct job *job, struct admission_answer *answer) {
	struct cost_work work;
	answer->subnet = job->policy.subnet;
	answer->reason = job->policy.reason;
	admission_work(job, &answer->subnet, answer->predicted_tokens, &work);
	cost_predict(state->cost, &a->limits, state->load, &work, &answer->time);
	struct scheduler_budget budget = admission_budget(job, answer->spent_ms);
	answer->fits = scheduler_fits(&budget, &answer->time, margin_of(state->cost, job));
}

static void decide_free(const struct admission *a, const struct admission_state *state,
                const struct job *job, struct admission_answer *answer) {
	struct scheduler_question q = { .cost = state->cost,
		.limits = &a->limits,
		.load = state->load,
		.budget = admission_budget(job, answer->spent_ms),
		.margin = margin_of(state->cost, job),
		.ladder = *ladder_of(a, job) };
	bounds(a, job, &q.min_depth, &q.max_depth);
	admission_work(job, NULL, answer->predicted_tokens, &q.work);
	int floor = a->overload_min_depth > q.min_depth ? a->overload_min_depth : q.min_depth;
	q.overload_depth = scheduler_overload_depth(
	                floor, q.max_depth, state->waiting, a->limits.sequences);
	struct scheduler_choice choice;
	/* Without a depth in the bounds (a small pool and a tuned plan), the next one serves. */
	while (!scheduler_choose(&q, &choice)) {
		if (q.min_depth > 1)
			q.min_depth--;
		else
			q.max_depth++;
	}
	answer->subnet = q.ladder.subnets[choice.index];
	answer->reason = choice.reason;
	answer->time = choice.time;
	answer->fits = choice.fits;
}

void admission_decide(const struct admission *a, const struct admission_state *state,
                const struct job *job, int64_t now_ns, struct admission_answer *ret_answer) {
	struct admission_answer answer = { .spent_ms = spent_at(job, now_ns, state->wait_ms) };
	answer.predicted_tokens = admission_predict_tokens(job, state->cost);
	if (job->policy.automatic)
		decide_free(a, state, job, &answer);
	else
		decide_bound(a, state, job, &answer);
	answer.predicted_ms = state->cost->fitted ? answer.spent_ms + answer.time.total_ms : -1;
	*ret_answer = answer;
}

/* ---- refusals ---- */

bool admission_check_size(const struct admission *a, const struct job *job, struct error *e) {
	int depth = shallowest(a, job)->stack[STACK_DECODER].depth;
	if (depth <= pool_depth(a, job))
		return true;
	return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, "max_tokens",
	                "At depth %d this request needs %zu KV blocks of %d tokens, but the "
	                "server's pool has %zu; ask for fewer tokens or a shallower depth.",
	                depth, (size_t)depth * layer_blocks(job), KV_TILE, a->kv_blocks);
}

/* The deepest plan that an idle server would finish in time, 0 if there is none. */
static int fitting_depth(const struct admission *a, const struct admission_state *alone,
                const struct job *job, const struct admission_answer *answer) {
	enum plan_rule rule =
	                job->policy.rule == PLAN_RULE_LAYERS ? PLAN_RULE_EVEN : job->policy.rule;
	const struct scheduler_ladder *ladder = &a->ladders[rule];
	struct scheduler_budget budget = admission_budget(job, 0);
	for (int i = ladder->n - 1; i >= 0; i--) {
		const struct plan *plan = &ladder->subnets[i].stack[STACK_DECODER];
		struct cost_work work;
		struct cost_time time;
		admission_work(job, &ladder->subnets[i], answer->predicted_tokens, &work);
		cost_predict(alone->cost, &a->limits, alone->load, &work, &time);
		if (scheduler_fits(&budget, &time, margin_of(alone->cost, job)))
			return plan->depth;
	}
	return 0;
}

static const char *budget_field(const struct scheduler_budget *budget) {
	return budget->latency_ms > 0         ? "latency_budget_ms"
	                : budget->ttft_ms > 0 ? "ttft_budget_ms"
	                                      : "tpot_budget_ms";
}

/* Not even an idle server could: says what was predicted, and which depth would do. */
static bool refuse_unattainable(const struct admission *a, const struct admission_state *alone,
                const struct job *job, const struct admission_answer *best, struct error *e) {
	struct scheduler_budget budget = admission_budget(job, 0);
	const char *field = budget_field(&budget);
	double predicted = best->time.total_ms * margin_of(alone->cost, job);
	int depth = fitting_depth(a, alone, job, best);
	if (depth > 0)
		error_set(e, ERROR_BUDGET_UNATTAINABLE, field,
		                "Even an idle server would miss %s at the depths allowed: %.0f ms "
		                "are predicted. Depth %d would keep it.",
		                field, predicted, depth);
	else
		error_set(e, ERROR_BUDGET_UNATTAINABLE, field,
		                "Even an idle server would miss %s at any depth: %.0f ms are "
		                "predicted. Allow more time or ask for fewer tokens.",
		                field, predicted);
	if (e) {
		e->predicted_ms = predicted;
		e->fitting_depth = depth;
	}
	return false;
}

bool admission_check_budget(const struct admission *a, const struct admission_state *state,
                const struct job *job, const struct admission_answer *answer, struct error *e) {
	struct scheduler_budget budget = admission_budget(job, 0);
	if (job->on_miss != ON_MISS_REJECT || answer->fits || !scheduler_has_budget(&budget)
	                || !state->cost->fitted)
		return true;
	struct admission_state alone = { .cost = state->cost, .load = &idle };
	struct admission_answer best;
	admission_decide(a, &alone, job, job->times.received_ns, &best);
	if (!best.fits)
		return refuse_unattainable(a, &alone, job, &best, e);
	double predicted = answer->spent_ms + answer->time.total_ms * margin_of(state->cost, job);
	error_set(e, ERROR_BUDGET_UNATTAINABLE_BUSY, budget_field(&budget),
	                "The server is too busy to keep %s: the answer is predicted to take %.0f "
	                "ms. Try again later.",
	                budget_field(&budget), predicted);
	if (e) {
		e->predicted_ms = predicted;
		e->retry_after_ms = state->wait_ms;
	}
	return false;
}

void admission_entry(const struct admission *a, const struct cost_model *cost,
                const struct job *job, struct scheduler_entry *ret_entry, double *ret_prompt_ms) {
	struct cost_work work;
	struct cost_time time;
	admission_work(job, shallowest(a, job), admission_predict_tokens(job, cost), &work);
	cost_predict(cost, &a->limits, &idle, &work, &time);

	double arrival = clock_ms(job->times.received_ns), due = INFINITY;
	struct scheduler_entry entry = { .priority = job->priority, .arrival_ms = arrival };
	if (job->latency_budget_ms > 0)
		due = arrival + job->latency_budget_ms;
	if (job->deadline_ns > 0 && clock_ms(job->deadline_ns) < due)
		due = clock_ms(job->deadline_ns);
	entry.service_ms = time.total_ms;
	/* The first token in time may be the nearer concern. */
	double first_due = arrival + job->ttft_budget_ms;
	if (job->ttft_budget_ms > 0 && first_due - time.first_ms < due - time.total_ms) {
		due = first_due;
		entry.service_ms = time.first_ms;
	}
	entry.due_ms = due;
	*ret_entry = entry;
	*ret_prompt_ms = time.first_ms;
}
