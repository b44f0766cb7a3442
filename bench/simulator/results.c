/* SPDX-License-Identifier: Apache-2.0 */
/* The outcomes of simulated loads as those of fathom bench, and so in its format. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/result/result.h"
#include "bench/simulator/study.h"

/* ---- one request ---- */

static void say_end(const struct sim_request *r, struct outcome *o) {
	static const char *const refusals[] = { [SCHEDULER_ACCEPTED] = "server_overloaded",
		[SCHEDULER_TOO_LARGE] = "context_length_exceeded",
		[SCHEDULER_UNATTAINABLE] = "budget_unattainable",
		[SCHEDULER_BUSY] = "budget_unattainable",
		[SCHEDULER_OVERLOADED] = "server_overloaded" };
	o->status = 200;
	o->cut = r->end == SIM_CUT;
	if (r->end == SIM_EXPIRED) {
		o->status = 504;
		snprintf(o->code, sizeof o->code, "deadline_exceeded");
	} else if (r->end == SIM_REFUSED) {
		bool never = r->refusal == SCHEDULER_TOO_LARGE
		                || r->refusal == SCHEDULER_UNATTAINABLE;
		o->status = never ? 400 : 503;
		snprintf(o->code, sizeof o->code, "%s", refusals[r->refusal]);
	}
}

void sim_load_request(const struct sim_study *study, const struct sim_request *r,
                struct load_request *ret) {
	*ret = (struct load_request){ .arrival_ms = r->arrival_ms,
		.kind = r->kind,
		.prompt_tokens = r->prompt_tokens,
		.max_tokens = r->max_tokens,
		.length = r->length,
		.priority = r->priority,
		.latency_budget_ms = r->latency_ms,
		.ttft_budget_ms = r->ttft_ms,
		.tpot_budget_ms = r->tpot_ms,
		.deadline_ms = r->deadline_ms };
	snprintf(ret->depth, sizeof ret->depth, "%s", study->load->classes[r->kind].depth);
}

static void tell(const struct sim_study *study, const struct sim_outcome *out, size_t i,
                struct outcome *o) {
	const struct sim_request *r = &out->requests[i];
	bool answered = r->tokens > 0;
	*o = (struct outcome){ .sent_ms = r->arrival_ms,
		.first_ms = r->first_ms,
		.last_ms = answered ? r->done_ms : 0,
		.end_ms = r->done_ms,
		.tokens = r->tokens,
		.prompt_tokens = r->prompt_tokens,
		.pieces = r->tokens,
		.encoder = r->joined_depth[STACK_ENCODER],
		.depth = r->final_depth[STACK_DECODER],
		.mean_depth = sim_mean_depth(r),
		.changes = r->changes,
		.queue_ms = r->joined_ms > 0 ? r->joined_ms - r->arrival_ms : -1,
		.predicted_ms = answered ? r->predicted_ms : -1,
		.server_ms = -1,
		.server_met = -1,
		.counted = i >= out->counted_from };
	sim_load_request(study, r, &o->request);
	say_end(r, o);
	o->in_window = o->counted;
}

/* ---- runs ---- */

bool sim_results_add(struct sim_results *results, const struct sim_study *study,
                const struct sim_outcome *out) {
	struct outcome *outcomes = calloc(out->n + 1, sizeof *outcomes);
	struct result r;
	char policy[64], replicas[16], rate[32];
	if (!outcomes)
		return false;
	for (size_t i = 0; i < out->n; i++)
		tell(study, out, i, &outcomes[i]);
	result_init(&r, outcomes, out->n, out->seconds, NULL);
	snprintf(policy, sizeof policy, "\"%s\"", out->label);
	snprintf(replicas, sizeof replicas, "%d", out->nodes);
	snprintf(rate, sizeof rate, "%.10g", study->load->rate);
	const struct result_parameter parameters[] = { { "policy", policy },
		{ "replicas", replicas }, { "rate", rate } };
	bool rated = load_is_open(study->load) && study->load->rate > 0;
	if (results->n++ > 0)
		buffer_puts(&results->runs, ",");
	result_write_run(&results->runs, out->label, parameters, rated ? 3 : 2, &r, outcomes,
	                out->n);
	result_finish(&r);
	free(outcomes);
	return !results->runs.failed;
}

void sim_results_write(const struct sim_results *results, const struct sim_study *study,
                struct buffer *out) {
	const struct stack_facts *stack = study->machine->model->facts.stack;
	char started[32], layers[64];
	time_t now = time(NULL);
	struct tm tm;
	gmtime_r(&now, &tm);
	strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (stack[STACK_ENCODER].layers > 0)
		snprintf(layers, sizeof layers, "{\"encoder\":%d,\"decoder\":%d}",
		                stack[STACK_ENCODER].layers, stack[STACK_DECODER].layers);
	else
		snprintf(layers, sizeof layers, "%d", stack[STACK_DECODER].layers);
	struct result_head head = { .tool = "fathom simulate",
		.started = started,
		.model = study->machine->model->name[0] ? study->machine->model->name : NULL,
		.depths = study->machine->text,
		.layers = layers };
	result_open(out, &head, study->load);
	if (results->runs.len > 0)
		buffer_append(out, results->runs.data, results->runs.len);
	result_close(out);
}

void sim_results_finish(struct sim_results *results) {
	buffer_finish(&results->runs);
}
