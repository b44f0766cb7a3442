/* SPDX-License-Identifier: Apache-2.0 */
/* Admission: from a job to the scheduler's questions, and from its answers to refusals. */
#include "server/admission.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "server/clock.h"
#include "server/ticket.h"

static const struct cost_load idle;

/* ---- ladders ---- */

bool admission_init(struct admission *a, const struct model *model, const struct config *config,
                const struct cost_limits *limits, size_t kv_blocks) {
	memset(a, 0, sizeof *a);
	a->model = model;
	a->limits = *limits;
	a->kv_blocks = kv_blocks;
	a->overload_min_depth = config->overload_min_depth > 0 ? config->overload_min_depth : 1;
	for (int rule = 0; rule < PLAN_RULE_LAYERS; rule++) {
		if (!ladder_init(&a->ladders[rule], model, (enum plan_rule)rule))
			return false;
	}
	return true;
}

void admission_finish(struct admission *a) {
	for (int rule = 0; rule < PLAN_RULE_LAYERS; rule++)
		ladder_finish(&a->ladders[rule]);
}

/* ---- a job in numbers ---- */

/* Whether the prompts are sources, which an encoder reads for a decoder. */
static bool has_source(const struct job *job) {
	return job->n_prompts > 0 && job->prompts[0].target;
}

/* Whether an encoder alone does the work. */
static bool only_encodes(const struct job *job) {
	return job->work != WORK_GENERATE;
}

static int tiles(int tokens) {
	return (tokens + KV_TILE - 1) / KV_TILE;
}

void admission_work(const struct job *job, const struct subnet *subnet, int output_tokens,
                struct cost_work *ret_work) {
	struct cost_work work = {
		.subnet = subnet, .choices = ticket_places(job), .output_tokens = output_tokens
	};
	for (int i = 0; i < job->n_prompts; i++) {
		int prompt = ticket_past(job, i).n, source = ticket_source_tokens(job, i);
		work.prompt_tokens += prompt;
		work.longest_prompt = prompt > work.longest_prompt ? prompt : work.longest_prompt;
		work.sources += source > 0;
		work.source_tokens += source;
		work.longest_source = source > work.longest_source ? source : work.longest_source;
		work.source_tiles += tiles(source);
		work.source_attended += (double)source * source / 1024;
		work.scored_tokens += job->work == WORK_FILL_MASK ? job->prompts[i].n_masks : 0;
	}
	if (job->want_prompt_logprobs)
		work.scored_tokens = work.prompt_tokens;
	if (job->work == WORK_CLASSIFY)
		work.class_rows = job->n_prompts;
	*ret_work = work;
}

int admission_predict_tokens(const struct job *job, const struct cost_model *cost) {
	double learnt = job->max_tokens;
	int source = 0;
	for (int i = 0; has_source(job) && i < job->n_prompts; i++)
		source = job->prompts[i].n_tokens > source ? job->prompts[i].n_tokens : source;
	if (cost->fitted)
		learnt = has_source(job) ? cost->target_ratio * source
		                         : cost->answer_ratio * job->max_tokens;
	return scheduler_predict_tokens(
	                job->expected_tokens, job->max_tokens, job->request.max_tokens.set, learnt);
}

struct scheduler_budget admission_budget(const struct job *job, double spent_ms) {
	return (struct scheduler_budget){ .spent_ms = spent_ms,
		.latency_ms = job->latency_budget_ms,
		.ttft_ms = job->ttft_budget_ms,
		.tpot_ms = job->tpot_budget_ms };
}

int64_t admission_tokens(const struct job *job) {
	int64_t tokens = (int64_t)ticket_places(job) * job->max_tokens;
	for (int i = 0; i < job->n_prompts; i++)
		tokens += job->prompts[i].n_tokens;
	return tokens;
}

/* Blocks for one decoder layer of the prompt that needs most: its answer, or all the beams that run
 * at once, and its source. */
static size_t layer_blocks(const struct job *job) {
	size_t most = 0;
	for (int i = 0; i < job->n_prompts && !only_encodes(job); i++) {
		size_t blocks = (size_t)tiles(ticket_sequence_tokens(job, i))
		                * (size_t)(job->num_beams > 1 ? job->num_beams : 1);
		blocks += (size_t)tiles(ticket_source_tokens(job, i));
		most = blocks > most ? blocks : most;
	}
	return most;
}

/* The deepest plan that the pool can hold. */
static int pool_depth(const struct admission *a, const struct job *job) {
	size_t blocks = layer_blocks(job), depth = blocks ? a->kv_blocks / blocks : MAX_LAYERS;
	return depth > MAX_LAYERS ? MAX_LAYERS : (int)depth;
}

static const struct ladder *ladder_of(const struct admission *a, const struct job *job) {
	return &a->ladders[job->policy.rule];
}

/* The cheapest plan that the job allows. */
static void shallowest(
                const struct admission *a, const struct job *job, struct subnet *ret_subnet) {
	const struct depth_policy *policy = &job->policy;
	const struct ladder *ladder = ladder_of(a, job);
	if (!policy->automatic)
		*ret_subnet = policy->subnet;
	else if (!scheduler_lowest(ladder, policy->min_depth, policy->max_depth, ret_subnet))
		ladder_subnet(ladder, ladder->rungs[ladder->n - 1], ret_subnet);
}

/* The depths that the server may choose for the job: no more of the decoder than the pool holds. */
static void bounds(const struct admission *a, const struct job *job, int ret_min[STACKS],
                int ret_max[STACKS]) {
	int pool = pool_depth(a, job), *max = &ret_max[STACK_DECODER];
	memcpy(ret_min, job->policy.min_depth, sizeof job->policy.min_depth);
	memcpy(ret_max, job->policy.max_depth, sizeof job->policy.max_depth);
	*max = *max < pool ? *max : pool;
	if (*max < ret_min[STACK_DECODER])
		*max = ret_min[STACK_DECODER]; /* admission_check_size has refused it */
}

/* ---- deciding ---- */

static double margin_of(const struct cost_model *cost, const struct job *job) {
	bool rescued = job->policy.automatic && job->policy.allow_step_down
	                && !job->want_prompt_logprobs && !only_encodes(job);
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
		.ladder = ladder_of(a, job),
		.waiting = state->waiting,
		.slots = a->limits.sequences,
		.overload_min_depth = a->overload_min_depth };
	bounds(a, job, q.min_depth, q.max_depth);
	admission_work(job, NULL, answer->predicted_tokens, &q.work);
	struct scheduler_choice choice;
	/* Without a plan in the bounds (a small pool and a tuned plan), the next one serves. */
	while (!scheduler_choose(&q, &choice)) {
		for (int s = 0; s < STACKS; s++) {
			if (q.min_depth[s] > 1)
				q.min_depth[s]--;
			else if (q.max_depth[s] < a->model->facts.stack[s].layers)
				q.max_depth[s]++;
		}
	}
	answer->subnet = choice.subnet;
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
	struct subnet subnet;
	shallowest(a, job, &subnet);
	int depth = subnet.stack[STACK_DECODER].depth;
	if (depth <= pool_depth(a, job))
		return true;
	return error_set(e, ERROR_CONTEXT_LENGTH_EXCEEDED, "max_tokens",
	                "At depth %d this request needs %zu KV blocks of %d tokens, but the "
	                "server's pool has %zu; ask for fewer tokens%s or a shallower depth.",
	                depth, (size_t)depth * layer_blocks(job), KV_TILE, a->kv_blocks,
	                job->num_beams > 1 ? ", fewer beams" : "");
}

/* The highest rung that an idle server would finish in time; false if there is none. */
static bool fitting_subnet(const struct admission *a, const struct admission_state *alone,
                const struct job *job, const struct admission_answer *answer,
                struct subnet *ret_subnet) {
	enum plan_rule rule =
	                job->policy.rule == PLAN_RULE_LAYERS ? PLAN_RULE_EVEN : job->policy.rule;
	const struct ladder *ladder = &a->ladders[rule];
	struct scheduler_budget budget = admission_budget(job, 0);
	for (int i = ladder->n - 1; i >= 0; i--) {
		struct cost_work work;
		struct cost_time time;
		if (!ladder_subnet(ladder, ladder->rungs[i], ret_subnet))
			continue;
		admission_work(job, ret_subnet, answer->predicted_tokens, &work);
		cost_predict(alone->cost, &a->limits, alone->load, &work, &time);
		if (scheduler_fits(&budget, &time, margin_of(alone->cost, job)))
			return true;
	}
	return false;
}

/* "Depth 6", or "An encoder of 8 and a decoder of 4 layers". */
static void name_depth(const struct subnet *subnet, char *text, size_t size) {
	int encoder = subnet->stack[STACK_ENCODER].depth,
	    decoder = subnet->stack[STACK_DECODER].depth;
	if (encoder > 0 && decoder > 0)
		snprintf(text, size, "An encoder of %d and a decoder of %d layers", encoder,
		                decoder);
	else
		snprintf(text, size, "Depth %d", encoder + decoder);
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
	struct subnet fitting;
	char name[80];
	bool fits = fitting_subnet(a, alone, job, best, &fitting);
	name_depth(fits ? &fitting : &best->subnet, name, sizeof name);
	if (fits)
		error_set(e, ERROR_BUDGET_UNATTAINABLE, field,
		                "Even an idle server would miss %s at the depths allowed: %.0f ms "
		                "are predicted. %s would keep it.",
		                field, predicted, name);
	else
		error_set(e, ERROR_BUDGET_UNATTAINABLE, field,
		                "Even an idle server would miss %s at any depth: %.0f ms are "
		                "predicted. Allow more time or ask for %s.",
		                field, predicted, only_encodes(job) ? "less text" : "fewer tokens");
	if (e) {
		e->predicted_ms = predicted;
		e->fitting_depth = fits ? fitting.stack[model_main_stack(a->model)].depth : 0;
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
                const struct job *job, struct scheduler_entry *ret_entry, double *ret_prompt_ms,
                double *ret_answer_tokens) {
	struct cost_work work;
	struct cost_time time;
	struct subnet subnet;
	shallowest(a, job, &subnet);
	int tokens = admission_predict_tokens(job, cost);
	admission_work(job, &subnet, tokens, &work);
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
	*ret_answer_tokens = (double)tokens * work.choices;
}
