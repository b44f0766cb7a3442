/* SPDX-License-Identifier: Apache-2.0 */
/* What fathom bench shows: a line that moves while it runs, tables at its end, and doubts. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/columns.h"

enum { BAR = 20 };

static const double plain_every_s = 5;

/* ---- progress -------------------------------------------------------------------------------- */

static double share_done(const struct run_status *s) {
	double by_time = s->total_s > 0 ? s->elapsed_s / s->total_s : 0;
	double by_count = s->total > 0 ? (double)s->ended / (double)s->total : 0;
	return fmin(1, fmax(by_time, by_count));
}

static int describe(const struct run_status *s, char *text, size_t size) {
	int n = snprintf(text, size, "%.1f/s, %d in flight",
	                s->elapsed_s > 0 ? (double)s->answered / s->elapsed_s : 0, s->in_flight);
	if (s->asked > 0)
		n += snprintf(text + n, size - (size_t)n, ", %.1f %% met",
		                100 * (double)s->met / (double)s->asked);
	if (s->depth > 0)
		n += snprintf(text + n, size - (size_t)n, ", depth %.1f", s->depth);
	if (s->failed > 0)
		n += snprintf(text + n, size - (size_t)n, ", %zu failed", s->failed);
	return n;
}

static void show_bar(struct bench *b, const struct run_status *s, const char *label) {
	char line[400], text[160];
	double share = share_done(s);
	int filled = (int)(share * BAR), width = columns_terminal_width(stderr);
	describe(s, text, sizeof text);
	int n = snprintf(line, sizeof line, "%s [%.*s%.*s] %3.0f %%  %s", label, filled,
	                "####################", BAR - filled, "--------------------", share * 100,
	                text);
	if (share > 0.02 && share < 1)
		n += snprintf(line + n, sizeof line - (size_t)n, ", %.0f s left",
		                s->elapsed_s / share - s->elapsed_s);
	if (n >= width)
		n = width - 1;
	fprintf(stderr, "\r%.*s%*s", n, line, b->shown > n ? b->shown - n : 0, "");
	fflush(stderr);
	b->shown = n;
}

void bench_show_progress(void *arg, const struct run_status *status) {
	struct bench *b = arg;
	const char *label = b->current ? b->current->label : "";
	char text[160];
	if (isatty(STDERR_FILENO)) {
		show_bar(b, status, label);
		return;
	}
	if (status->elapsed_s < b->shown_s)
		b->shown_s = 0; /* another run */
	if (status->elapsed_s - b->shown_s < plain_every_s)
		return;
	b->shown_s = status->elapsed_s;
	describe(status, text, sizeof text);
	fprintf(stderr, "%s: %.0f s, %s\n", label, status->elapsed_s, text);
}

void bench_hide_progress(struct bench *b) {
	if (b->shown > 0)
		fprintf(stderr, "\r%*s\r", b->shown, "");
	b->shown = 0;
	b->shown_s = 0;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* Four digits, or "-" where there is none. */
static const char *number(double value, char text[24]) {
	if (isnan(value))
		snprintf(text, 24, "-");
	else
		snprintf(text, 24, "%.*f",
		                value >= 1000                  ? 0
		                                : value >= 100 ? 1
		                                : value >= 10  ? 2
		                                               : 3,
		                value);
	return text;
}

static void cell(double value, int width) {
	char text[24];
	printf(" %*s", width, number(value, text));
}

static double attainment(const struct result *r) {
	return r->asked ? 100 * (double)r->met / (double)r->asked : NAN;
}

static void quantile_row(const char *name, const struct histogram *h, double scale) {
	static const double quantiles[] = { 0.5, 0.75, 0.9, 0.95, 0.99, 0.999 };
	if (h->count == 0)
		return;
	printf("%-18s", name);
	cell(histogram_mean(h) * scale, 8);
	for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
		cell(histogram_quantile(h, quantiles[i]) * scale, 8);
	cell(h->max * scale, 8);
	putchar('\n');
}

static void show_errors(const struct result *r) {
	for (int i = 0; i < r->n_codes; i++)
		printf("%s%zu %s", i ? ", " : "failed: ", r->codes[i].n, r->codes[i].name);
	if (r->n_codes > 0)
		putchar('\n');
}

static void show_by_depth(const struct result *r) {
	if (r->n_depths < 2)
		return;
	printf("\n%-7s %8s %9s %9s %9s %9s\n", "depth", "requests", "p50 ms", "p95 ms", "ttft p50",
	                "tpot p50");
	for (int i = 0; i < r->n_depths; i++) {
		const struct result_depth *d = &r->by_depth[i];
		printf("%-7s %8zu", d->name, d->requests);
		cell(histogram_quantile(&d->latency, 0.5), 9);
		cell(histogram_quantile(&d->latency, 0.95), 9);
		cell(histogram_quantile(&d->ttft, 0.5), 9);
		cell(histogram_quantile(&d->tpot, 0.5), 9);
		putchar('\n');
	}
}

/* All about a single run. */
static void show_one(const struct bench_run *run) {
	const struct result *r = &run->result;
	printf("%s: %zu requests in %.1f s, %zu answered", run->label, r->requests, r->seconds,
	                r->answered);
	printf(", %.2f requests/s, %.1f tokens/s\n", r->requests_per_s, r->tokens_per_s);
	show_errors(r);
	if (r->asked > 0)
		printf("budgets: %zu of %zu met, %.2f %%; %.2f/s in time\n", r->met, r->asked,
		                attainment(r), r->goodput_per_s);
	if (r->n_depths > 0)
		printf("depth: %.2f on average, %.2f by tokens; %zu stepped down\n", r->mean_depth,
		                r->mean_depth_by_tokens, r->changed);
	printf("\n%-18s %8s %8s %8s %8s %8s %8s %8s %8s\n", "milliseconds", "mean", "p50", "p75",
	                "p90", "p95", "p99", "p99.9", "max");
	quantile_row("whole answer", &r->latency, 1);
	quantile_row("first token", &r->ttft, 1);
	quantile_row("per further token", &r->tpot, 1);
	quantile_row("between tokens", &r->itl, 1);
	quantile_row("queue (server's)", &r->queue, 1);
	quantile_row("prediction off, %", &r->error, 100);
	quantile_row("by server clock, %", &r->server_error, 100);
	quantile_row("sent late", &r->lag, 1);
	show_by_depth(r);
}

/* What a row of several runs shows; columns that no run has a number for are left out. */
enum table_column { REQUESTS_PER_S, TOKENS_PER_S, P50, P95, P99, TTFT, TPOT, MET, DEPTH, COLUMNS };

static const char *const heads[COLUMNS] = { "req/s", "tok/s", "p50 ms", "p95 ms", "p99 ms",
	"ttft p50", "tpot p50", "met %", "depth" };

static double column_value(const struct result *r, enum table_column c) {
	switch (c) {
	case REQUESTS_PER_S:
		return r->requests_per_s;
	case TOKENS_PER_S:
		return r->tokens_per_s > 0 ? r->tokens_per_s : NAN;
	case P50:
		return histogram_quantile(&r->latency, 0.5);
	case P95:
		return histogram_quantile(&r->latency, 0.95);
	case P99:
		return histogram_quantile(&r->latency, 0.99);
	case TTFT:
		return histogram_quantile(&r->ttft, 0.5);
	case TPOT:
		return histogram_quantile(&r->tpot, 0.5);
	case MET:
		return attainment(r);
	case DEPTH:
		return r->mean_depth;
	case COLUMNS:
		break;
	}
	return NAN;
}

static bool any_has(const struct bench *b, enum table_column c) {
	for (int i = 0; i < b->n_runs; i++) {
		if (b->runs[i].done && !isnan(column_value(&b->runs[i].result, c)))
			return true;
	}
	return false;
}

/* A line for each of several runs. */
static void show_many(const struct bench *b) {
	bool shown[COLUMNS];
	printf("%-20s %7s %6s", "run", "answers", "failed");
	for (int c = 0; c < COLUMNS; c++) {
		shown[c] = any_has(b, (enum table_column)c);
		if (shown[c])
			printf(" %8s", heads[c]);
	}
	puts(b->options->capacity ? "  kept up" : "");
	for (int i = 0; i < b->n_runs; i++) {
		const struct bench_run *run = &b->runs[i];
		if (!run->done)
			continue;
		printf("%-20s %7zu %6zu", run->label, run->result.answered,
		                run->result.requests - run->result.answered);
		for (int c = 0; c < COLUMNS; c++) {
			if (shown[c])
				cell(column_value(&run->result, (enum table_column)c), 8);
		}
		puts(run->sustained < 0 ? "" : run->sustained ? "  yes" : "  no");
	}
	for (int i = 0; i < b->n_runs; i++) {
		if (b->runs[i].result.n_codes > 0) {
			printf("%s ", b->runs[i].label);
			show_errors(&b->runs[i].result);
		}
	}
}

void bench_show_results(const struct bench *b) {
	if (b->n_runs == 1 && !b->options->capacity)
		show_one(&b->runs[0]);
	else
		show_many(b);
	for (int i = 0; b->options->capacity && i < b->n_depths; i++) {
		printf("%s%s", b->depths[i][0] ? "depth " : "", b->depths[i]);
		if (b->capacity[i] > 0)
			printf("%s%.2f requests/s sustained\n", b->depths[i][0] ? ": " : "",
			                b->capacity[i]);
		else
			printf("%sno rate that was tried was sustained\n",
			                b->depths[i][0] ? ": " : "");
	}
}

/* ---- doubts ---------------------------------------------------------------------------------- */

static void doubt_run(const struct bench *b, const struct bench_run *run) {
	const struct result *r = &run->result;
	const double lag = histogram_quantile(&r->lag, 0.99);
	const double median = histogram_quantile(&r->latency, 0.5);
	if (!isnan(lag) && lag > 5 && lag > 0.02 * median)
		fprintf(stderr,
		                "fathom bench: %s: the generator itself was late: 1 %% of requests "
		                "went out %.1f ms or more after their time (which counts as "
		                "latency); give it a core of its own or a lower rate\n",
		                run->label, lag);
	if (run->run.most_in_flight > b->options->connections)
		fprintf(stderr,
		                "fathom bench: %s: up to %d requests shared %d connections, and "
		                "some waited for one; --connections allows more\n",
		                run->label, run->run.most_in_flight, b->options->connections);
	if (run->run.lost)
		fprintf(stderr, "fathom bench: %s: the server took no more connections\n",
		                run->label);
	if (run->run.interrupted)
		fprintf(stderr, "fathom bench: %s: interrupted after %.1f s\n", run->label,
		                run->run.seconds);
}

void bench_show_warnings(const struct bench *b) {
	for (int i = 0; i < b->n_runs; i++) {
		if (b->runs[i].done)
			doubt_run(b, &b->runs[i]);
	}
	if (!b->options->prompts && !prompts_are_exact(b->prompts))
		fprintf(stderr,
		                "fathom bench: lengths of prompts are estimates: the server has no "
		                "/tokenize that counts words\n");
	if (!b->target.fathom && !b->options->plain)
		fprintf(stderr,
		                "fathom bench: no fathom server (it does not answer /v1/depths): "
		                "depths and budgets were not sent, only judged\n");
}
