/* SPDX-License-Identifier: Apache-2.0 */
/* From outcomes to numbers. */
#include "bench/result/result.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one request ----------------------------------------------------------------------------- */

bool outcome_has_budget(const struct outcome *o) {
	const struct load_request *r = &o->request;
	return r->latency_budget_ms > 0 || r->ttft_budget_ms > 0 || r->tpot_budget_ms > 0
	                || r->deadline_ms > 0;
}

bool outcome_is_answered(const struct outcome *o) {
	return o->status == 200 && !o->code[0];
}

bool outcome_is_refused(const struct outcome *o) {
	return o->status == 429 || o->status == 503;
}

double outcome_latency_ms(const struct outcome *o) {
	return o->end_ms - o->request.arrival_ms;
}

double outcome_ttft_ms(const struct outcome *o) {
	return o->first_ms > 0 ? o->first_ms - o->request.arrival_ms : NAN;
}

double outcome_tpot_ms(const struct outcome *o) {
	if (o->tokens < 2 || o->pieces < 2)
		return NAN;
	return (o->last_ms - o->first_ms) / (o->tokens - 1);
}

static bool keeps(double budget, double took) {
	return budget == 0 || isnan(took) || took <= budget;
}

bool outcome_is_met(const struct outcome *o) {
	const struct load_request *r = &o->request;
	return outcome_is_answered(o) && !o->cut
	                && keeps(r->latency_budget_ms, outcome_latency_ms(o))
	                && keeps(r->deadline_ms, outcome_latency_ms(o))
	                && keeps(r->ttft_budget_ms, outcome_ttft_ms(o))
	                && keeps(r->tpot_budget_ms, outcome_tpot_ms(o));
}

void outcome_depth_name(const struct outcome *o, char *name, size_t size) {
	if (o->encoder > 0)
		snprintf(name, size, "%dx%d", o->encoder, o->depth);
	else
		snprintf(name, size, "%d", o->depth);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void count_code(struct result *r, const char *code) {
	int i = 0;
	while (i < r->n_codes && strcmp(r->codes[i].name, code) != 0)
		i++;
	if (i == RESULT_CODES)
		return;
	if (i == r->n_codes)
		snprintf(r->codes[r->n_codes++].name, OUTCOME_CODE, "%s", code);
	r->codes[i].n++;
}

static void count_status(struct result *r, int status) {
	int i = 0;
	while (i < r->n_statuses && r->statuses[i].status != status)
		i++;
	if (i == RESULT_STATUSES)
		return;
	if (i == r->n_statuses)
		r->statuses[r->n_statuses++].status = status;
	r->statuses[i].n++;
}

static struct result_depth *find_depth(struct result *r, const struct outcome *o) {
	char name[16];
	int i = 0;
	outcome_depth_name(o, name, sizeof name);
	while (i < r->n_depths && strcmp(r->by_depth[i].name, name) != 0)
		i++;
	if (i == RESULT_DEPTHS)
		return NULL;
	if (i == r->n_depths)
		memcpy(r->by_depth[r->n_depths++].name, name, sizeof name);
	return &r->by_depth[i];
}

static void add_times(struct result *r, const struct outcome *o) {
	const double latency = outcome_latency_ms(o), ttft = outcome_ttft_ms(o),
	             tpot = outcome_tpot_ms(o);
	struct result_depth *depth = o->depth > 0 ? find_depth(r, o) : NULL;
	histogram_record(&r->latency, latency);
	if (!isnan(ttft))
		histogram_record(&r->ttft, ttft);
	if (!isnan(tpot))
		histogram_record(&r->tpot, tpot);
	if (o->queue_ms >= 0)
		histogram_record(&r->queue, o->queue_ms);
	/* What was promised against what the client saw. */
	if (o->predicted_ms > 0)
		histogram_record(&r->error, fabs(latency / o->predicted_ms - 1));
	if (o->predicted_ms > 0 && o->server_ms >= 0)
		histogram_record(&r->server_error, fabs(o->server_ms / o->predicted_ms - 1));
	if (!depth)
		return;
	depth->requests++;
	histogram_record(&depth->latency, latency);
	if (!isnan(ttft))
		histogram_record(&depth->ttft, ttft);
	if (!isnan(tpot))
		histogram_record(&depth->tpot, tpot);
}

/* Sums for means of depth. */
struct depths {
	double sum, by_tokens, tokens;
	size_t n;
};

static void add_answer(struct result *r, const struct outcome *o, struct depths *depths) {
	r->answered++;
	r->tokens += o->tokens;
	r->prompt_tokens += o->prompt_tokens > 0 ? o->prompt_tokens : 0;
	r->changed += o->changes > 0;
	add_times(r, o);
	if (o->depth > 0) {
		depths->n++;
		depths->sum += o->mean_depth;
		depths->by_tokens += o->mean_depth * o->tokens;
		depths->tokens += o->tokens;
	}
}

static int by_layers(const void *a, const void *b) {
	const struct result_depth *x = a, *y = b;
	int xe, xd, ye, yd;
	load_parse_depth(x->name, &xe, &xd);
	load_parse_depth(y->name, &ye, &yd);
	return xe + xd != ye + yd ? xe + xd - ye - yd : xe - ye;
}

void result_init(struct result *r, const struct outcome *outcomes, size_t n, double seconds,
                struct histogram *itl) {
	struct depths depths = { 0 };
	size_t ended = 0, met = 0;
	double tokens = 0;
	memset(r, 0, sizeof *r);
	r->seconds = seconds;
	for (size_t i = 0; i < n; i++) {
		const struct outcome *o = &outcomes[i];
		bool answered = outcome_is_answered(o);
		if (answered && o->in_window) {
			ended++;
			tokens += o->tokens;
			met += outcome_has_budget(o) && outcome_is_met(o);
		}
		if (!o->counted)
			continue;
		r->requests++;
		r->refused += outcome_is_refused(o);
		if (o->status > 0)
			count_status(r, o->status);
		if (o->code[0])
			count_code(r, o->code);
		histogram_record(&r->lag, o->sent_ms - o->request.arrival_ms);
		if (outcome_has_budget(o)) {
			r->asked++;
			r->met += outcome_is_met(o);
			r->server_met += o->server_met == 1;
		}
		if (answered)
			add_answer(r, o, &depths);
	}
	r->requests_per_s = r->seconds > 0 ? (double)ended / r->seconds : 0;
	r->tokens_per_s = r->seconds > 0 ? tokens / r->seconds : 0;
	r->goodput_per_s = r->asked == 0 ? NAN : r->seconds > 0 ? (double)met / r->seconds : 0;
	r->mean_depth = depths.n ? depths.sum / (double)depths.n : NAN;
	r->mean_depth_by_tokens = depths.tokens > 0 ? depths.by_tokens / depths.tokens : NAN;
	qsort(r->by_depth, (size_t)r->n_depths, sizeof *r->by_depth, by_layers);
	if (itl) {
		r->itl = *itl;
		*itl = (struct histogram){ 0 };
	}
}

void result_finish(struct result *r) {
	struct histogram *const all[] = { &r->latency, &r->ttft, &r->tpot, &r->itl, &r->queue,
		&r->error, &r->server_error, &r->lag };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		histogram_finish(all[i]);
	for (int i = 0; i < r->n_depths; i++) {
		histogram_finish(&r->by_depth[i].latency);
		histogram_finish(&r->by_depth[i].ttft);
		histogram_finish(&r->by_depth[i].tpot);
	}
	r->n_depths = 0;
}
