/* SPDX-License-Identifier: Apache-2.0 */
/* The outcomes of simulated loads in the format of fathom bench. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/simulator_study.h"

enum { MOST_DEPTHS = 64, MOST_SLICES = 600 };

static void put_number(struct buffer *b, const char *name, double value) {
	buffer_printf(b, ",\"%s\":", name);
	buffer_json_f64(b, value);
}

static void put_quantiles(struct buffer *b, const char *name, const struct sim_quantiles *q) {
	buffer_printf(b, ",\"%s\":", name);
	if (q->n == 0) {
		buffer_puts(b, "null");
		return;
	}
	buffer_printf(b, "{\"count\":%zu", q->n);
	put_number(b, "mean", q->mean);
	put_number(b, "min", q->min);
	put_number(b, "p50", q->p50);
	put_number(b, "p75", q->p75);
	put_number(b, "p90", q->p90);
	put_number(b, "p95", q->p95);
	put_number(b, "p99", q->p99);
	put_number(b, "p99_9", q->p99_9);
	put_number(b, "max", q->max);
	buffer_puts(b, "}");
}

/* ---- by depth ---- */

struct depths {
	int n;
	char name[MOST_DEPTHS][16];
	size_t count[MOST_DEPTHS];
};

static void name_of(const struct sim_request *r, char *name, size_t size) {
	const int *depth = r->joined_depth;
	if (depth[STACK_ENCODER] > 0)
		snprintf(name, size, "%dx%d", depth[STACK_ENCODER], depth[STACK_DECODER]);
	else
		snprintf(name, size, "%d", depth[STACK_DECODER]);
}

static void count_depths(const struct sim_outcome *out, struct depths *ret) {
	memset(ret, 0, sizeof *ret);
	for (size_t i = out->counted_from; i < out->n; i++) {
		char name[16];
		int k = 0;
		if (out->requests[i].tokens == 0)
			continue;
		name_of(&out->requests[i], name, sizeof name);
		while (k < ret->n && strcmp(ret->name[k], name) != 0)
			k++;
		if (k == MOST_DEPTHS)
			continue;
		if (k == ret->n)
			memcpy(ret->name[ret->n++], name, sizeof name);
		ret->count[k]++;
	}
}

static void put_depths(
                struct buffer *b, const struct sim_outcome *out, const struct sim_summary *s) {
	struct depths depths;
	double tokens = 0, sum = 0;
	count_depths(out, &depths);
	for (size_t i = out->counted_from; i < out->n; i++) {
		const struct sim_request *r = &out->requests[i];
		tokens += r->tokens;
		sum += r->token_depth + (double)r->tokens * r->joined_depth[STACK_ENCODER];
	}
	buffer_puts(b, ",\"depth\":{\"mean\":");
	buffer_json_f64(b, s->score.depth);
	put_number(b, "by_tokens_mean", tokens > 0 ? sum / tokens : 0);
	buffer_puts(b, ",\"histogram\":{");
	for (int k = 0; k < depths.n; k++)
		buffer_printf(b, "%s\"%s\":%zu", k ? "," : "", depths.name[k], depths.count[k]);
	buffer_printf(b, "},\"changed\":%zu}", s->changed);
}

static bool put_by_depth(struct buffer *b, const struct sim_outcome *out) {
	struct depths depths;
	struct sim_outcome one = *out;
	struct sim_summary s;
	one.counted_from = 0;
	one.requests = calloc(out->n + 1, sizeof *one.requests);
	if (!one.requests)
		return false;
	count_depths(out, &depths);
	buffer_puts(b, ",\"by_depth\":{");
	for (int k = 0; k < depths.n; k++) {
		char name[16];
		one.n = 0;
		for (size_t i = out->counted_from; i < out->n; i++) {
			name_of(&out->requests[i], name, sizeof name);
			if (out->requests[i].tokens > 0 && strcmp(name, depths.name[k]) == 0)
				one.requests[one.n++] = out->requests[i];
		}
		if (!sim_summarise(&one, &s))
			break;
		buffer_printf(b, "%s\"%s\":{\"requests\":%zu", k ? "," : "", depths.name[k], one.n);
		put_quantiles(b, "latency_ms", &s.latency_ms);
		put_quantiles(b, "ttft_ms", &s.ttft_ms);
		put_quantiles(b, "tpot_ms", &s.tpot_ms);
		buffer_puts(b, "}");
	}
	buffer_puts(b, "}");
	free(one.requests);
	return true;
}

/* ---- over time ---- */

struct slice {
	size_t arrived, completed, met, missed;
	double depth;
};

static void put_timeline(struct buffer *b, const struct sim_outcome *out) {
	static const double widths[] = { 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600 };
	struct slice *slices = calloc(MOST_SLICES, sizeof *slices);
	double end = 0, width = 0;
	size_t used = 0;
	for (size_t i = 0; i < out->n; i++)
		end = fmax(end, out->requests[i].done_ms * 1e-3);
	for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
		width = widths[i];
		if (end / width < MOST_SLICES / 4)
			break;
	}
	for (size_t i = 0; slices && i < out->n; i++) {
		const struct sim_request *r = &out->requests[i];
		size_t came = (size_t)(r->arrival_ms * 1e-3 / width),
		       went = (size_t)(r->done_ms * 1e-3 / width);
		if (came >= MOST_SLICES || went >= MOST_SLICES)
			continue;
		used = went >= used ? went + 1 : used;
		slices[came].arrived++;
		slices[went].completed += r->end == SIM_ANSWERED;
		slices[went].met += sim_has_budget(r) && sim_is_met(r);
		slices[went].missed += sim_has_budget(r) && !sim_is_met(r);
		if (r->end == SIM_ANSWERED)
			slices[went].depth += r->joined_depth[STACK_ENCODER] + sim_mean_depth(r);
	}
	buffer_puts(b, ",\"timeline\":[");
	for (size_t i = 0; slices && i < used; i++) {
		const struct slice *s = &slices[i];
		buffer_printf(b,
		                "%s{\"t_s\":%g,\"arrived\":%zu,\"completed\":%zu,\"met\":%zu,"
		                "\"missed\":%zu,\"depth\":",
		                i ? "," : "", (double)i * width, s->arrived, s->completed, s->met,
		                s->missed);
		if (s->completed > 0)
			buffer_json_f64(b, s->depth / (double)s->completed);
		else
			buffer_puts(b, "null");
		buffer_puts(b, "}");
	}
	buffer_puts(b, "]");
	free(slices);
}

/* ---- all ---- */

static void put_parameter(
                struct buffer *b, const struct sim_study *study, const struct sim_outcome *out) {
	buffer_printf(b, ",\"parameter\":{\"policy\":\"%s\",\"replicas\":%d", out->label,
	                out->nodes);
	if (study->load->arrivals == LOAD_CLOSED)
		buffer_printf(b, ",\"clients\":%d", study->load->clients);
	else if (study->load->rate > 0)
		put_number(b, "rate", study->load->rate);
	buffer_puts(b, "}");
}

bool sim_results_add(struct sim_results *results, const struct sim_study *study,
                const struct sim_outcome *out, const struct sim_summary *s) {
	struct buffer *b = &results->runs;
	buffer_printf(b, "%s{\"label\":\"%s\"", results->n++ ? "," : "", out->label);
	put_parameter(b, study, out);
	put_number(b, "seconds", out->seconds);
	buffer_printf(b,
	                ",\"requests\":%zu,\"completed\":%zu,\"errors\":{\"refused\":%zu,"
	                "\"deadline_exceeded\":%zu},\"status\":{\"200\":%zu,\"503\":%zu,"
	                "\"504\":%zu},\"budget\":{\"asked\":%zu,\"met\":%zu}",
	                s->requests, s->answered, s->refused, s->expired, s->answered + s->cut,
	                s->refused, s->expired, s->score.asked, s->score.met);
	put_number(b, "goodput_per_s", s->goodput_per_s);
	put_number(b, "requests_per_s", s->requests_per_s);
	put_number(b, "tokens_per_s", s->tokens_per_s);
	put_depths(b, out, s);
	put_quantiles(b, "latency_ms", &s->latency_ms);
	put_quantiles(b, "ttft_ms", &s->ttft_ms);
	put_quantiles(b, "tpot_ms", &s->tpot_ms);
	buffer_puts(b, ",\"itl_ms\":null");
	put_quantiles(b, "queue_ms", &s->queue_ms);
	put_quantiles(b, "prediction_error", &s->error);
	bool ok = put_by_depth(b, out);
	put_timeline(b, out);
	buffer_puts(b, "}");
	return ok && !b->failed;
}

static void put_started(struct buffer *b) {
	char text[32];
	time_t now = time(NULL);
	struct tm tm;
	gmtime_r(&now, &tm);
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
	buffer_printf(b, ",\"started\":\"%s\"", text);
}

void sim_results_write(const struct sim_results *results, const struct sim_study *study,
                struct buffer *out) {
	const struct stack_facts *stack = study->machine->model->facts.stack;
	buffer_puts(out,
	                "{\"format\":\"fathom-bench-1\",\"tool\":{\"name\":\"fathom simulate\","
	                "\"version\":\"" FATHOM_VERSION "\"}");
	put_started(out);
	buffer_puts(out, ",\"server\":{\"url\":null,\"model\":");
	buffer_json_string(out, study->machine->model->name, strlen(study->machine->model->name));
	if (stack[STACK_ENCODER].layers > 0)
		buffer_printf(out, ",\"layers\":{\"encoder\":%d,\"decoder\":%d}",
		                stack[STACK_ENCODER].layers, stack[STACK_DECODER].layers);
	else
		buffer_printf(out, ",\"layers\":%d", stack[STACK_DECODER].layers);
	buffer_puts(out, ",\"depths\":null},\"load\":");
	load_write(study->load, out);
	buffer_puts(out, ",\"runs\":[");
	if (results->runs.len > 0)
		buffer_append(out, results->runs.data, results->runs.len);
	buffer_puts(out, "]}\n");
}

void sim_results_finish(struct sim_results *results) {
	buffer_finish(&results->runs);
}
