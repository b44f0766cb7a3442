/* SPDX-License-Identifier: Apache-2.0 */
/* A load under one policy after another. */
#include "bench/simulator/study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/simulator/clairvoyant_replay.h"
#include "server/clock.h"

/* ---- running ---- */

static bool copy_out(struct sim_load *l, struct sim_outcome *out) {
	out->n = l->n;
	if (l->requests) {
		out->requests = l->requests;
		l->requests = NULL;
		return true;
	}
	out->requests = calloc(l->n + 1, sizeof *out->requests);
	for (size_t i = 0; out->requests && i < l->n; i++)
		out->requests[i] = *sim_load_at(l, i);
	return out->requests;
}

static void measure_time(const struct sim_study *study, struct sim_outcome *out) {
	double warm_ms = study->load->warmup_seconds * 1e3, end = 0;
	for (size_t i = 0; i < out->n; i++)
		end = fmax(end, out->requests[i].done_ms);
	double first = out->n > 0 ? fmax(out->requests[0].arrival_ms, warm_ms) : 0;
	out->seconds = fmax(end - first, 1e-3) * 1e-3;
}

static bool run_online(const struct sim_study *study, int fixed_depth, struct sim_outcome *out,
                char *err, size_t errlen) {
	struct sim_options options = study->options;
	struct sim_load l;
	if (!sim_load_open(&l, study->load, study->machine, err, errlen))
		return false;
	bool open = load_is_open(study->load);
	options.machine = study->machine;
	options.fixed_depth = fixed_depth;
	options.next = open ? NULL : sim_load_next;
	options.next_arg = &l;
	struct simulator *sim = sim_create(&options, err, errlen);
	bool ok = sim;
	for (size_t i = 0; ok && !open && i < l.n && i < (size_t)study->load->clients; i++)
		sim_add(sim, sim_load_at(&l, i));
	ok = ok && sim_run_all(sim, l.requests, open ? l.n : 0, &out->totals, err, errlen);
	if (ok && (l.failed || !copy_out(&l, out))) {
		snprintf(err, errlen, "not enough memory");
		ok = false;
	}
	sim_destroy(sim);
	sim_load_close(&l);
	out->nodes = options.nodes;
	return ok;
}

enum { STARTS = 6 };

/* What the online scheduler does, also if fewer may run side by side. */
static bool run_starts(const struct sim_study *study, struct sim_outcome online[STARTS], int *n,
                char *err, size_t errlen) {
	struct sim_machine machine = *study->machine;
	struct sim_study fewer = *study;
	fewer.machine = &machine;
	for (; *n < STARTS && machine.limits.sequences >= 2; machine.limits.sequences /= 2) {
		if (!run_online(&fewer, 0, &online[*n], err, errlen))
			return false;
		++*n;
	}
	return true;
}

static void tell_progress(void *arg, double share, size_t met, double depth) {
	fprintf(arg, "\r  looking ahead: %3.0f %%, %zu budgets met, mean depth %.3f ", share * 100,
	                met, depth);
	fflush(arg);
}

static bool run_clairvoyant(
                const struct sim_study *study, struct sim_outcome *out, char *err, size_t errlen) {
	struct clairvoyant_options options = { .machine = study->machine,
		.noise = study->options.noise,
		.overhead_ms = study->options.overhead_ms,
		.steps = study->search_steps,
		.seed = study->options.seed,
		.progress = study->progress ? tell_progress : NULL,
		.progress_arg = study->progress };
	if (!load_is_open(study->load) || study->options.nodes != 1) {
		snprintf(err, errlen, "the clairvoyant policy knows open loads and one node only");
		return false;
	}
	struct sim_outcome online[STARTS] = { 0 };
	const struct sim_request *starts[STARTS];
	int n = 0;
	bool ok = run_starts(study, online, &n, err, errlen)
	                && run_online(study, 0, out, err, errlen);
	for (int i = 0; i < n; i++)
		starts[i] = online[i].requests;
	ok = ok && clairvoyant_search(&options, starts, n, out->requests, out->n, err, errlen);
	if (study->progress)
		fputs("\r                                                                    \r",
		                study->progress);
	for (int i = 0; i < n; i++)
		sim_outcome_finish(&online[i]);
	return ok;
}

bool sim_study_run(const struct sim_study *study, const char *policy, struct sim_outcome *ret,
                char *err, size_t errlen) {
	struct sim_outcome out = { 0 };
	char *end;
	bool ok = false;
	int64_t began_ns = clock_now_ns();
	snprintf(out.label, sizeof out.label, "%s", policy);
	if (strcmp(policy, "fathom") == 0) {
		ok = run_online(study, 0, &out, err, errlen);
	} else if (strcmp(policy, "clairvoyant") == 0) {
		ok = run_clairvoyant(study, &out, err, errlen);
	} else if (strncmp(policy, "fixed:", 6) == 0) {
		long depth = strtol(policy + 6, &end, 10);
		if (depth >= 1 && depth <= study->machine->ladder.n && !*end)
			ok = run_online(study, (int)depth, &out, err, errlen);
		else
			snprintf(err, errlen, "\"%s\": the ladder has rungs 1 to %d", policy,
			                study->machine->ladder.n);
	} else {
		snprintf(err, errlen,
		                "\"%s\" is no policy; there are fathom, fixed:D and clairvoyant",
		                policy);
	}
	out.wall_seconds = clock_ms(clock_now_ns() - began_ns) * 1e-3;
	if (!ok) {
		sim_outcome_finish(&out);
		return false;
	}
	measure_time(study, &out);
	double warm_ms = study->load->warmup_seconds * 1e3;
	while (out.counted_from < out.n && out.requests[out.counted_from].arrival_ms < warm_ms)
		out.counted_from++;
	*ret = out;
	return true;
}

void sim_outcome_finish(struct sim_outcome *outcome) {
	free(outcome->requests);
	outcome->requests = NULL;
}

/* ---- in numbers ---- */

static int compare_doubles(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static struct sim_quantiles quantiles(double *values, size_t n) {
	struct sim_quantiles q = { .n = n };
	double sum = 0;
	if (n == 0)
		return q;
	qsort(values, n, sizeof *values, compare_doubles);
	for (size_t i = 0; i < n; i++)
		sum += values[i];
		/* The least value that at least the share of all do not exceed. */
#define AT(share) values[(size_t)fmax(ceil((share) * (double)n) - 1, 0)]
	q.mean = sum / (double)n;
	q.min = values[0];
	q.p50 = AT(0.5);
	q.p75 = AT(0.75);
	q.p90 = AT(0.9);
	q.p95 = AT(0.95);
	q.p99 = AT(0.99);
	q.p99_9 = AT(0.999);
	q.max = values[n - 1];
#undef AT
	return q;
}

/* What of a request one column holds; NAN: nothing. */
enum column { LATENCY, TTFT, TPOT, QUEUE, ERROR };

static double value_of(const struct sim_request *r, enum column column) {
	bool whole = r->end == SIM_ANSWERED;
	switch (column) {
	case LATENCY:
		return whole ? r->done_ms - r->arrival_ms : NAN;
	case TTFT:
		return r->tokens > 0 ? r->first_ms - r->arrival_ms : NAN;
	case TPOT:
		return whole && r->tokens > 1 ? (r->done_ms - r->first_ms) / (r->tokens - 1) : NAN;
	case QUEUE:
		return r->joined_ms > 0 ? r->joined_ms - r->arrival_ms : NAN;
	case ERROR:
		return whole && r->predicted_ms > 0
		                ? fabs((r->done_ms - r->arrival_ms) / r->predicted_ms - 1)
		                : NAN;
	}
	return NAN;
}

static struct sim_quantiles column(
                const struct sim_outcome *out, enum column which, double *scratch) {
	size_t n = 0;
	for (size_t i = out->counted_from; i < out->n; i++) {
		double value = value_of(&out->requests[i], which);
		if (!isnan(value))
			scratch[n++] = value;
	}
	return quantiles(scratch, n);
}

static void count(const struct sim_outcome *out, struct sim_summary *s) {
	size_t good = 0;
	double tokens = 0;
	for (size_t i = out->counted_from; i < out->n; i++) {
		const struct sim_request *r = &out->requests[i];
		s->answered += r->end == SIM_ANSWERED;
		s->cut += r->end == SIM_CUT;
		s->expired += r->end == SIM_EXPIRED;
		s->refused += r->end == SIM_REFUSED;
		s->changed += r->changes > 0;
		good += sim_is_met(r);
		tokens += r->tokens;
	}
	s->requests = out->n - out->counted_from;
	s->requests_per_s = (double)s->answered / out->seconds;
	s->goodput_per_s = (double)good / out->seconds;
	s->tokens_per_s = tokens / out->seconds;
}

bool sim_summarise(const struct sim_outcome *out, struct sim_summary *ret) {
	struct sim_summary s = { 0 };
	double *scratch = calloc(out->n + 1, sizeof *scratch);
	if (!scratch)
		return false;
	count(out, &s);
	s.score = clairvoyant_score(out->requests + out->counted_from, out->n - out->counted_from);
	s.attainment = s.score.asked ? (double)s.score.met / (double)s.score.asked : 1;
	s.busy = out->totals.busy_ms * 1e-3 / out->seconds / out->nodes;
	s.latency_ms = column(out, LATENCY, scratch);
	s.ttft_ms = column(out, TTFT, scratch);
	s.tpot_ms = column(out, TPOT, scratch);
	s.queue_ms = column(out, QUEUE, scratch);
	s.error = column(out, ERROR, scratch);
	free(scratch);
	*ret = s;
	return true;
}

bool sim_is_feasible(const struct sim_machine *machine, const struct sim_request *r, double share) {
	struct clairvoyant_options options = { .machine = machine };
	struct subnet subnet;
	int min[STACKS], max[STACKS];
	sim_bounds(machine, r, min, max);
	bool known = r->automatic ? scheduler_lowest(&machine->ladder, min, max, &subnet)
	                          : sim_bound_subnet(machine, r, &subnet);
	return known && clairvoyant_meets_alone(&options, r, &subnet, 1 / share);
}
