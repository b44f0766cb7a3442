/* SPDX-License-Identifier: Apache-2.0 */
/* A result as JSON, and its requests as CSV. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/result/result.h"

enum { MOST_BINS = 1200 };

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_text(struct buffer *out, const char *text) {
	if (text)
		buffer_json_string(out, text, strlen(text));
	else
		buffer_puts(out, "null");
}

static void put_real(struct buffer *out, const char *name, double value) {
	buffer_printf(out, ",\"%s\":", name);
	buffer_json_f64(out, value);
}

static void put_count(struct buffer *out, const char *name, size_t n) {
	buffer_printf(out, ",\"%s\":%zu", name, n);
}

static void put_histogram(struct buffer *out, const char *name, const struct histogram *h) {
	buffer_printf(out, ",\"%s\":", name);
	histogram_write(h, out);
}

static void put_counts(struct buffer *out, const struct result *r) {
	put_count(out, "requests", r->requests);
	put_count(out, "completed", r->answered);
	put_count(out, "refused", r->refused);
	buffer_puts(out, ",\"errors\":{");
	for (int i = 0; i < r->n_codes; i++) {
		buffer_puts(out, i ? "," : "");
		put_text(out, r->codes[i].name);
		buffer_printf(out, ":%zu", r->codes[i].n);
	}
	buffer_puts(out, "},\"status\":{");
	for (int i = 0; i < r->n_statuses; i++)
		buffer_printf(out, "%s\"%d\":%zu", i ? "," : "", r->statuses[i].status,
		                r->statuses[i].n);
	buffer_printf(out, "},\"budget\":{\"asked\":%zu,\"met\":%zu,\"server_met\":%zu}", r->asked,
	                r->met, r->server_met);
}

static void put_depths(struct buffer *out, const struct result *r) {
	buffer_puts(out, ",\"depth\":");
	if (r->n_depths == 0) {
		buffer_puts(out, "null,\"by_depth\":{}");
		return;
	}
	buffer_puts(out, "{\"mean\":");
	buffer_json_f64(out, r->mean_depth);
	put_real(out, "by_tokens_mean", r->mean_depth_by_tokens);
	buffer_puts(out, ",\"histogram\":{");
	for (int i = 0; i < r->n_depths; i++)
		buffer_printf(out, "%s\"%s\":%zu", i ? "," : "", r->by_depth[i].name,
		                r->by_depth[i].requests);
	buffer_printf(out, "},\"changed\":%zu},\"by_depth\":{", r->changed);
	for (int i = 0; i < r->n_depths; i++) {
		const struct result_depth *d = &r->by_depth[i];
		buffer_printf(out, "%s\"%s\":{\"requests\":%zu", i ? "," : "", d->name,
		                d->requests);
		put_histogram(out, "latency_ms", &d->latency);
		put_histogram(out, "ttft_ms", &d->ttft);
		put_histogram(out, "tpot_ms", &d->tpot);
		buffer_puts(out, "}");
	}
	buffer_puts(out, "}");
}

/* ---- the timeline ---------------------------------------------------------------------------- */

struct bin {
	size_t arrived, completed, met, missed, depths;
	double depth;
};

/* A second, finer where that leaves few bins and coarser where it leaves too many. */
static double bin_seconds(double seconds) {
	static const double widths[] = { 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600 };
	const size_t n = sizeof widths / sizeof *widths;
	size_t i = 0;
	while (i + 1 < n && seconds / widths[i] > (widths[i] < 1 ? 60 : MOST_BINS))
		i++;
	return widths[i];
}

static void fill_bins(struct bin *bins, size_t n_bins, double width, const struct outcome *outcomes,
                size_t n) {
	for (size_t i = 0; i < n; i++) {
		const struct outcome *o = &outcomes[i];
		double at = o->request.arrival_ms / 1000 / width;
		double end = o->end_ms / 1000 / width;
		if (at >= 0 && at < (double)n_bins)
			bins[(size_t)at].arrived++;
		if (!(end >= 0 && end < (double)n_bins))
			continue;
		struct bin *bin = &bins[(size_t)end];
		bool asked = outcome_has_budget(o), met = outcome_is_met(o);
		bin->completed += outcome_is_answered(o);
		bin->met += asked && met;
		bin->missed += asked && !met;
		if (o->depth > 0) {
			bin->depths++;
			bin->depth += o->mean_depth;
		}
	}
}

static void put_timeline(struct buffer *out, const struct outcome *outcomes, size_t n) {
	double last = 0;
	for (size_t i = 0; i < n; i++)
		last = fmax(last, fmax(outcomes[i].end_ms, outcomes[i].request.arrival_ms));
	const double seconds = last / 1000;
	const double width = bin_seconds(seconds);
	size_t n_bins = n ? (size_t)(seconds / width) + 1 : 0;
	struct bin *bins = calloc(n_bins + 1, sizeof *bins);
	buffer_puts(out, ",\"timeline\":[");
	if (bins)
		fill_bins(bins, n_bins, width, outcomes, n);
	for (size_t i = 0; bins && i < n_bins; i++) {
		buffer_puts(out, i ? ",{\"t_s\":" : "{\"t_s\":");
		buffer_json_f64(out, floor((double)i * width * 10 + 0.5) / 10);
		put_count(out, "arrived", bins[i].arrived);
		put_count(out, "completed", bins[i].completed);
		put_count(out, "met", bins[i].met);
		put_count(out, "missed", bins[i].missed);
		put_real(out, "depth",
		                bins[i].depths ? bins[i].depth / (double)bins[i].depths : NAN);
		buffer_puts(out, "}");
	}
	buffer_puts(out, "]");
	free(bins);
}

/* ---- runs and the whole ---------------------------------------------------------------------- */

void result_write_run(struct buffer *out, const char *label,
                const struct result_parameter *parameters, int n_parameters, const struct result *r,
                const struct outcome *outcomes, size_t n) {
	buffer_puts(out, "{\"label\":");
	put_text(out, label);
	buffer_puts(out, ",\"parameter\":{");
	for (int i = 0; i < n_parameters; i++)
		buffer_printf(out, "%s\"%s\":%s", i ? "," : "", parameters[i].name,
		                parameters[i].value);
	buffer_puts(out, "}");
	put_real(out, "seconds", r->seconds);
	put_counts(out, r);
	put_real(out, "goodput_per_s", r->goodput_per_s);
	put_real(out, "requests_per_s", r->requests_per_s);
	put_real(out, "tokens_per_s", r->tokens_per_s);
	put_real(out, "prompt_tokens", r->prompt_tokens);
	put_real(out, "completion_tokens", r->tokens);
	put_depths(out, r);
	put_histogram(out, "latency_ms", &r->latency);
	put_histogram(out, "ttft_ms", &r->ttft);
	put_histogram(out, "tpot_ms", &r->tpot);
	put_histogram(out, "itl_ms", &r->itl);
	put_histogram(out, "queue_ms", &r->queue);
	put_histogram(out, "prediction_error", &r->error);
	put_histogram(out, "server_prediction_error", &r->server_error);
	put_histogram(out, "send_lag_ms", &r->lag);
	put_timeline(out, outcomes, n);
	buffer_puts(out, "}");
}

void result_open(struct buffer *out, const struct result_head *head, const struct load *load) {
	buffer_puts(out, "{\"format\":\"fathom-bench-1\",\"tool\":{\"name\":");
	put_text(out, head->tool);
	buffer_puts(out, ",\"version\":\"" FATHOM_VERSION "\"},\"started\":");
	put_text(out, head->started);
	buffer_puts(out, ",\"server\":{\"url\":");
	put_text(out, head->url);
	buffer_puts(out, ",\"model\":");
	put_text(out, head->model);
	buffer_printf(out, ",\"layers\":%s,\"depths\":", head->layers ? head->layers : "null");
	buffer_puts(out, head->depths ? head->depths : "null");
	buffer_puts(out, "},\"load\":");
	load_write(load, out);
	buffer_puts(out, ",\"runs\":[");
}

void result_close(struct buffer *out) {
	buffer_puts(out, "]}\n");
}

/* ---- CSV ------------------------------------------------------------------------------------- */

static void cell(struct buffer *out, double value, bool known) {
	if (known)
		buffer_printf(out, ",%.3f", value);
	else
		buffer_puts(out, ",");
}

void result_write_csv(struct buffer *out, const struct load *load, const struct outcome *outcomes,
                size_t n) {
	buffer_puts(out,
	                "arrival_ms,class,asked_depth,latency_budget_ms,ttft_budget_ms,"
	                "tpot_budget_ms,status,code,cut,prompt_tokens,tokens,depth,mean_depth,"
	                "changes,lag_ms,queue_ms,ttft_ms,tpot_ms,latency_ms,predicted_ms,"
	                "server_met,met\n");
	for (size_t i = 0; i < n; i++) {
		const struct outcome *o = &outcomes[i];
		const struct load_request *r = &o->request;
		char depth[16] = "";
		if (o->depth > 0)
			outcome_depth_name(o, depth, sizeof depth);
		buffer_printf(out, "%.3f,%s,%s", r->arrival_ms, load->classes[r->kind].name,
		                r->depth);
		cell(out, r->latency_budget_ms, r->latency_budget_ms > 0);
		cell(out, r->ttft_budget_ms, r->ttft_budget_ms > 0);
		cell(out, r->tpot_budget_ms, r->tpot_budget_ms > 0);
		buffer_printf(out, ",%d,%s,%d,%d,%d,%s", o->status, o->code, o->cut,
		                o->prompt_tokens, o->tokens, depth);
		cell(out, o->mean_depth, o->depth > 0);
		buffer_printf(out, ",%d", o->changes);
		cell(out, o->sent_ms - r->arrival_ms, true);
		cell(out, o->queue_ms, o->queue_ms >= 0);
		cell(out, outcome_ttft_ms(o), o->first_ms > 0);
		cell(out, outcome_tpot_ms(o), !isnan(outcome_tpot_ms(o)));
		cell(out, outcome_latency_ms(o), true);
		cell(out, o->predicted_ms, o->predicted_ms > 0);
		if (o->server_met >= 0)
			buffer_printf(out, ",%d", o->server_met);
		else
			buffer_puts(out, ",");
		buffer_puts(out,
		                !outcome_has_budget(o)              ? ",\n"
		                                : outcome_is_met(o) ? ",1\n"
		                                                    : ",0\n");
	}
}
