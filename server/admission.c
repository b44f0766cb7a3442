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

bool admission_init(struct admission *a, const struct model *model,
                const struct cost_limits *limits, size_t kv_blocks) {
	memset(a, 0, sizeof *a);
	a->model = model;
	a->limits = *limits;
	a->kv_blocks = kv_blocks;
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

void admission_schedule(const struct admission *a, const struct cost_model *cost,
                const struct job *job, struct scheduled *ret_scheduled) {
	bool rescued = job->policy.automatic && job->policy.allow_step_down
	                && !job->want_prompt_logprobs && !only_encodes(job);
	struct scheduled *r = ret_scheduled;
	*r = (struct scheduled){ .priority = job->priority,
		.arrival_ms = clock_ms(job->times.received_ns),
		.deadline_ms = job->deadline_ns > 0 ? clock_ms(job->deadline_ns) : INFINITY,
		.latency_ms = job->latency_budget_ms,
		.ttft_ms = job->ttft_budget_ms,
		.tpot_ms = job->tpot_budget_ms,
		.on_miss = job->on_miss,
		.automatic = job->policy.automatic,
		.may_step_down = rescued,
		.texts = only_encodes(job),
		.places = ticket_places(job),
		.reason = job->policy.reason,
		.predicted_ms = -1 };
	admission_work(job, NULL, admission_predict_tokens(job, cost), &r->work);
	if (r->automatic) {
		r->ladder = ladder_of(a, job);
		bounds(a, job, r->min_depth, r->max_depth);
	} else {
		r->subnet = job->policy.subnet;
	}
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
static bool fitting_subnet(const struct admission *a, const struct cost_model *cost,
                const struct job *job, struct subnet *ret_subnet) {
	enum plan_rule rule =
	                job->policy.rule == PLAN_RULE_LAYERS ? PLAN_RULE_EVEN : job->policy.rule;
	const struct ladder *ladder = &a->ladders[rule];
	struct scheduler_budget budget = admission_budget(job, 0);
	struct scheduled r;
	admission_schedule(a, cost, job, &r);
	for (int i = ladder->n - 1; i >= 0; i--) {
		struct cost_time time;
		if (!ladder_subnet(ladder, ladder->rungs[i], ret_subnet))
			continue;
		r.work.subnet = ret_subnet;
		cost_predict(cost, &a->limits, &idle, &r.work, &time);
		if (scheduler_fits(&budget, &time, scheduler_margin(cost, &r)))
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

/* A budget, and what is predicted of the time that it is about. */
struct miss {
	const char *field, *what, *advice;
	double ms;
};

/* The first budget of the job that is not kept; the first one, where what is due before takes its
 * time. All predictions count with the margin. */
static struct miss find_miss(const struct admission *a, const struct cost_model *cost,
                const struct job *job, const struct admission_refusal *refusal) {
	struct scheduler_budget budget = admission_budget(job, 0);
	struct scheduled r;
	admission_schedule(a, cost, job, &r);
	double margin = scheduler_margin(cost, &r), spent = refusal->spent_ms;
	const struct cost_time *t = &refusal->time;
	const struct miss all[] = {
		{ "latency_budget_ms", "for the whole answer", " or ask for fewer tokens",
		                spent + t->total_ms * margin },
		{ "ttft_budget_ms", "until the first token", " or send a shorter prompt",
		                spent + t->first_ms * margin },
		{ "tpot_budget_ms", "for each further token", "", t->token_ms * margin },
	};
	const double limits[] = { budget.latency_ms, budget.ttft_ms, budget.tpot_ms };
	int first = -1;
	for (int i = 0; i < 3; i++) {
		if (limits[i] <= 0)
			continue;
		if (all[i].ms > limits[i])
			return all[i];
		first = first < 0 ? i : first;
	}
	return all[first < 0 ? 0 : first];
}

/* Not even an idle server could: says what was predicted, and which depth would do. */
static void refuse_unattainable(const struct admission *a, const struct cost_model *cost,
                const struct job *job, const struct miss *miss, struct error *e) {
	struct subnet fitting;
	char name[80];
	bool fits = fitting_subnet(a, cost, job, &fitting);
	if (fits)
		name_depth(&fitting, name, sizeof name);
	if (fits)
		error_set(e, ERROR_BUDGET_UNATTAINABLE, miss->field,
		                "Even an idle server would miss %s at the depths allowed: %.*f ms "
		                "are predicted %s. %s would keep it.",
		                miss->field, miss->ms < 10, miss->ms, miss->what, name);
	else
		error_set(e, ERROR_BUDGET_UNATTAINABLE, miss->field,
		                "Even an idle server would miss %s at any depth: %.*f ms are "
		                "predicted %s. Allow more time%s.",
		                miss->field, miss->ms < 10, miss->ms, miss->what,
		                only_encodes(job) ? " or send less text" : miss->advice);
	if (e)
		e->fitting_depth = fits ? fitting.stack[model_main_stack(a->model)].depth : 0;
}

bool admission_refuse(const struct admission *a, const struct cost_model *cost,
                const struct job *job, const struct admission_refusal *refusal, struct error *e) {
	const struct miss miss = find_miss(a, cost, job, refusal);
	if (refusal->why == SCHEDULER_UNATTAINABLE)
		refuse_unattainable(a, cost, job, &miss, e);
	else if (refusal->why == SCHEDULER_BUSY)
		error_set(e, ERROR_BUDGET_UNATTAINABLE_BUSY, miss.field,
		                "The server is too busy to keep %s: %.*f ms are predicted %s. Try "
		                "again later.",
		                miss.field, miss.ms < 10, miss.ms, miss.what);
	else
		error_set(e, ERROR_SERVER_OVERLOADED, "",
		                "The server is overloaded and would miss %s: %.*f ms are predicted "
		                "%s. Try again later.",
		                miss.field, miss.ms < 10, miss.ms, miss.what);
	if (e) {
		e->predicted_ms = miss.ms;
		if (refusal->why != SCHEDULER_UNATTAINABLE)
			e->retry_after_ms = refusal->retry_after_ms;
	}
	return false;
}
