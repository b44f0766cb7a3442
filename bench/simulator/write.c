/* SPDX-License-Identifier: Apache-2.0 */
/* What became of a simulated load: for people, and for other programs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/simulator/study.h"

/* ---- requests ---- */

static const char *end_name(const struct sim_request *r) {
	static const char *const names[] = { [SIM_WAITING] = "waiting",
		[SIM_ANSWERED] = "answered",
		[SIM_CUT] = "cut",
		[SIM_EXPIRED] = "expired",
		[SIM_REFUSED] = "refused" };
	return names[r->end];
}

static const char *refusal_name(const struct sim_request *r) {
	static const char *const names[] = { [SCHEDULER_ACCEPTED] = "",
		[SCHEDULER_TOO_LARGE] = "too_large",
		[SCHEDULER_UNATTAINABLE] = "unattainable",
		[SCHEDULER_BUSY] = "busy",
		[SCHEDULER_OVERLOADED] = "overloaded" };
	return r->end == SIM_REFUSED ? names[r->refusal] : "";
}

static void put_depth(const int depth[STACKS], struct buffer *out) {
	if (depth[STACK_ENCODER] > 0)
		buffer_printf(out, ",%dx%d", depth[STACK_ENCODER], depth[STACK_DECODER]);
	else
		buffer_printf(out, ",%d", depth[STACK_DECODER]);
}

/* A number, or nothing. */
static void put(double value, bool known, struct buffer *out) {
	if (known)
		buffer_printf(out, ",%.3f", value);
	else
		buffer_puts(out, ",");
}

static void put_request(
                const struct sim_study *study, const struct sim_request *r, struct buffer *out) {
	bool asks = sim_has_budget(r), joined = r->joined_ms > 0;
	double spent = r->done_ms - r->arrival_ms;
	put(r->latency_ms, r->latency_ms > 0, out);
	put(r->ttft_ms, r->ttft_ms > 0, out);
	put(r->tpot_ms, r->tpot_ms > 0, out);
	buffer_printf(out, ",%s,%s,%s,%d,%d",
	                !asks                                                     ? ""
	                                : sim_is_feasible(study->machine, r, 0.8) ? "1"
	                                                                          : "0",
	                end_name(r), refusal_name(r), r->node, r->tokens);
	put(r->predicted_ms, joined && r->predicted_ms >= 0, out);
	put(r->joined_ms - r->arrival_ms, joined, out);
	put(r->start_ms, joined && isfinite(r->start_ms), out);
	put(r->first_ms - r->arrival_ms, r->first_ms > 0, out);
	put(spent, r->end != SIM_WAITING, out);
	put((r->done_ms - r->first_ms) / (r->tokens - 1.0), r->tokens > 1, out);
	put_depth(r->joined_depth, out);
	put_depth(r->final_depth, out);
	buffer_printf(out, ",%.3f,%d,%s\n", sim_mean_depth(r), r->changes,
	                !asks                           ? ""
	                                : sim_is_met(r) ? "1"
	                                                : "0");
}

void sim_write_csv(const struct sim_study *study, const struct sim_outcome *outcome,
                struct buffer *out) {
	buffer_puts(out,
	                "arrival_ms,class,prompt_tokens,max_tokens,length,latency_budget_ms,"
	                "ttft_budget_ms,tpot_budget_ms,feasible,end,refusal,node,tokens,"
	                "predicted_ms,queue_ms,slack_ms,ttft_ms,latency_ms,tpot_ms,joined_depth,"
	                "final_depth,mean_depth,changes,met\n");
	for (size_t i = 0; i < outcome->n; i++) {
		const struct sim_request *r = &outcome->requests[i];
		buffer_printf(out, "%.3f,%s,%d,%d,%d", r->arrival_ms,
		                r->kind >= 0 ? study->load->classes[r->kind].name : "",
		                r->prompt_tokens, r->max_tokens, r->length);
		put_request(study, r, out);
	}
}

void sim_write_trace(const struct sim_study *study, const struct sim_outcome *outcome,
                double feasible, struct buffer *out) {
	struct load_request *requests = calloc(outcome->n + 1, sizeof *requests);
	size_t n = 0;
	out->failed = out->failed || !requests;
	for (size_t i = 0; requests && i < outcome->n; i++) {
		const struct sim_request *r = &outcome->requests[i];
		if (!sim_has_budget(r) || feasible >= 1
		                || sim_is_feasible(study->machine, r, feasible))
			sim_load_request(study, r, &requests[n++]);
	}
	if (requests)
		trace_write(study->load, requests, n, out);
	free(requests);
}

/* ---- a table ---- */

void sim_print_head(const struct sim_study *study, FILE *out) {
	(void)study;
	fprintf(out, "%-14s %5s %8s %8s %9s %7s %7s %6s %6s %8s %8s %8s %8s %8s %5s %7s\n",
	                "policy", "nodes", "requests", "budgets", "met", "missed", "refused",
	                "depth", "down", "p50 ms", "p95 ms", "p99 ms", "ttft p95", "tpot p95",
	                "busy", "speed");
}

void sim_print_row(const struct sim_study *study, const struct sim_outcome *outcome,
                const struct sim_summary *s, FILE *out) {
	(void)study;
	fprintf(out,
	                "%-14s %5d %8zu %8zu %7.2f %% %7zu %7zu %6.2f %6zu %8.1f %8.1f %8.1f %8.1f "
	                "%8.2f %3.0f %% %6.0fx\n",
	                outcome->label, outcome->nodes, s->requests, s->score.asked,
	                s->attainment * 100, s->score.asked - s->score.met, s->refused,
	                s->score.depth, s->changed, s->latency_ms.p50, s->latency_ms.p95,
	                s->latency_ms.p99, s->ttft_ms.p95, s->tpot_ms.p95, s->busy * 100,
	                outcome->seconds / outcome->wall_seconds);
}

void sim_print_bound(const struct sim_study *study, const struct sim_outcome *outcome, FILE *out) {
	struct clairvoyant_options options = { .machine = study->machine,
		.noise = study->options.noise,
		.overhead_ms = study->options.overhead_ms };
	struct clairvoyant_score score =
	                clairvoyant_bound(&options, outcome->requests + outcome->counted_from,
	                                outcome->n - outcome->counted_from);
	fprintf(out,
	                "%-14s %5d %8zu %8zu %7.2f %% %7zu %7s %6.2f %6s %8s %8s %8s %8s %8s %5s "
	                "%7s\n",
	                "bound", outcome->nodes, outcome->n - outcome->counted_from, score.asked,
	                score.asked ? 100.0 * (double)score.met / (double)score.asked : 100,
	                score.asked - score.met, "-", score.depth, "-", "-", "-", "-", "-", "-",
	                "-", "-");
}
