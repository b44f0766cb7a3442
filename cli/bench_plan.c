/* SPDX-License-Identifier: Apache-2.0 */
/* The runs of fathom bench: all combinations of what is varied, in rounds; and looking for capacity. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"

enum { MOST_VALUES = 64, CAPACITY_CLIENTS = 64, CAPACITY_STEPS = 6 };

static const double keeps_up = 0.02; /* share of the rate by which a backlog may grow */

/* ---- lists ----------------------------------------------------------------------------------- */

/* Numbers between commas; 0 with a sentence. */
static int read_numbers(const char *flag, const char *text, double min, double max,
                double values[MOST_VALUES], char *err, size_t errlen) {
	int n = 0;
	for (const char *at = text; at && n < MOST_VALUES; n++) {
		char *end;
		errno = 0;
		values[n] = strtod(at, &end);
		if (end == at || errno || !(values[n] >= min && values[n] <= max)
		                || (*end && *end != ','))
			break;
		at = *end ? end + 1 : NULL;
		if (!at)
			return n + 1;
	}
	snprintf(err, errlen, "--%s takes up to %d numbers from %.10g to %.10g such as 1,4,16",
	                flag, MOST_VALUES, min, max);
	return 0;
}

static bool read_depths(struct bench *b, const char *text, char *err, size_t errlen) {
	const char *at = text;
	int e, d;
	if (strcmp(text, "all") == 0) {
		b->n_depths = target_depths(&b->target, &b->depths);
		if (b->n_depths == 0)
			snprintf(err, errlen,
			                "the server does not list its depths: it is no "
			                "fathom server");
		if (b->n_depths > MOST_VALUES)
			b->n_depths = MOST_VALUES;
		return b->n_depths > 0;
	}
	b->depths = calloc(MOST_VALUES, sizeof *b->depths);
	while (b->depths && b->n_depths < MOST_VALUES) {
		size_t len = strcspn(at, ",");
		if (len > 0 && len < LOAD_NAME) {
			memcpy(b->depths[b->n_depths], at, len);
			b->depths[b->n_depths][len] = '\0';
		}
		const char *name = b->depths[b->n_depths];
		if (!load_parse_depth(name, &e, &d) && strcmp(name, "full") != 0
		                && strcmp(name, "auto") != 0)
			break;
		b->n_depths++;
		if (!at[len])
			return true;
		at += len + 1;
	}
	snprintf(err, errlen, "--depths takes all, or depths such as 1,3,6 or 12x6,6x3");
	return false;
}

/* ---- planning -------------------------------------------------------------------------------- */

static void name_run(struct bench_run *run, bool varied) {
	const struct load *load = &run->load;
	char depth[48] = "";
	if (run->depth[0])
		snprintf(depth, sizeof depth, "depth %s%s", run->depth, varied ? ", " : "");
	if (run->depth[0] && !varied)
		snprintf(run->label, sizeof run->label, "%s", depth);
	else if (load->arrivals == LOAD_CLOSED)
		snprintf(run->label, sizeof run->label, "%s%d client%s", depth, load->clients,
		                load->clients == 1 ? "" : "s");
	else if (load->rate > 0)
		snprintf(run->label, sizeof run->label, "%s%.4g/s", depth, load->rate);
	else
		snprintf(run->label, sizeof run->label, "%s%s", depth,
		                load->n_phases > 0 ? "phases" : "trace");
}

/* A run with its own load, settled. NULL with one sentence. */
static struct bench_run *add_run(struct bench *b, const char *depth, double rate, int clients,
                char *err, size_t errlen) {
	if (b->n_runs == b->cap) {
		int cap = b->cap ? 2 * b->cap : 16;
		struct bench_run *more = realloc(b->runs, (size_t)cap * sizeof *more);
		if (!more) {
			snprintf(err, errlen, "memory ran out");
			return NULL;
		}
		b->runs = more;
		b->cap = cap;
	}
	struct bench_run *run = &b->runs[b->n_runs];
	memset(run, 0, sizeof *run);
	run->load = b->load;
	run->rate = rate;
	run->clients = clients;
	run->sustained = -1;
	snprintf(run->depth, sizeof run->depth, "%s", depth);
	if (rate > 0) {
		run->load.rate = rate;
		run->load.n_phases = 0;
	}
	if (clients > 0)
		run->load.clients = clients;
	if (!load_settle(&run->load, err, errlen))
		return NULL;
	b->n_runs++;
	return run;
}

static bool wants_fathom(const struct bench *b, char *err, size_t errlen) {
	if (b->target.fathom || !b->options->depths)
		return true;
	snprintf(err, errlen,
	                "--depths needs a fathom server, and %.200s does not answer "
	                "/v1/depths as one",
	                b->options->url);
	return false;
}

bool bench_plan(struct bench *b, char *err, size_t errlen) {
	const struct bench_options *o = b->options;
	double values[MOST_VALUES] = { 0 };
	int n = 1;
	if (!wants_fathom(b, err, errlen) || (o->depths && !read_depths(b, o->depths, err, errlen)))
		return false;
	if (b->n_depths == 0) {
		b->depths = calloc(1, sizeof *b->depths);
		b->n_depths = b->depths ? 1 : 0;
	}
	if (o->rates)
		n = read_numbers("rates", o->rates, 1e-3, 1e6, values, err, errlen);
	else if (o->client_counts)
		n = read_numbers("clients", o->client_counts, 1, 1e5, values, err, errlen);
	if (o->capacity)
		return true;
	for (int v = 0; v < n; v++) {
		for (int d = 0; d < b->n_depths; d++) {
			struct bench_run *run = add_run(b, b->depths[d], o->rates ? values[v] : 0,
			                o->client_counts ? (int)values[v] : 0, err, errlen);
			if (!run)
				return false;
			name_run(run, n > 1 || b->n_depths == 1);
		}
	}
	return n > 0;
}

/* ---- running --------------------------------------------------------------------------------- */

static void count(struct bench_run *run) {
	struct histogram itl = { 0 };
	histogram_add(&itl, &run->run.itl);
	result_finish(&run->result);
	result_init(&run->result, run->run.outcomes, run->run.n, run->run.seconds, &itl);
	run->done = true;
}

static bool run_once(struct bench *b, int index, char *err, size_t errlen) {
	struct bench_run *run = &b->runs[index];
	struct run round;
	const struct run_options options = { .client = b->client,
		.target = &b->target,
		.prompts = b->prompts,
		.load = &run->load,
		.depth = run->depth[0] ? run->depth : NULL,
		.number = b->number++,
		.progress = b->options->quiet ? NULL : bench_show_progress,
		.arg = b };
	b->current = run;
	bool ok = run_load(&options, &round, err, errlen);
	b->current = NULL;
	bench_hide_progress(b);
	if (!ok) {
		run_finish(&round);
		return false;
	}
	if (!run_append(&run->run, &round)) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	count(run);
	if (run->run.lost)
		snprintf(err, errlen, "the server at %.200s takes no more connections",
		                b->options->url);
	return !run->run.lost || run->result.answered > 0;
}

bool bench_was_interrupted(const struct bench *b) {
	for (int i = 0; i < b->n_runs; i++) {
		if (b->runs[i].run.interrupted || b->runs[i].run.lost)
			return true;
	}
	return false;
}

bool bench_run_all(struct bench *b, char *err, size_t errlen) {
	for (int round = 0; round < b->options->rounds; round++) {
		for (int i = 0; i < b->n_runs; i++) {
			if (!run_once(b, i, err, errlen))
				return false;
			if (bench_was_interrupted(b))
				return true;
		}
	}
	return true;
}

void bench_finish(struct bench *b) {
	for (int i = 0; i < b->n_runs; i++) {
		result_finish(&b->runs[i].result);
		run_finish(&b->runs[i].run);
	}
	free(b->runs);
	free(b->depths);
	prompts_destroy(b->prompts);
	target_finish(&b->target);
	client_destroy(b->client);
}

/* ---- capacity -------------------------------------------------------------------------------- */

/* Answered all of it without the backlog growing. */
static bool kept_up(const struct bench_run *run) {
	return run->result.answered == run->result.requests
	                && run_growth_per_s(&run->run) <= keeps_up * run->load.rate;
}

/* As many requests as the server takes: an upper bound of the rate. */
static bool saturate(
                struct bench *b, const char *depth, double *ret_rate, char *err, size_t errlen) {
	int clients = *load_args_word((struct load_options *)&b->options->load, "clients")
	                ? b->load.clients
	                : CAPACITY_CLIENTS;
	struct bench_run *run = add_run(b, depth, 0, clients, err, errlen);
	if (!run)
		return false;
	name_run(run, true);
	if (!run_once(b, b->n_runs - 1, err, errlen))
		return false;
	*ret_rate = b->runs[b->n_runs - 1].result.requests_per_s;
	if (*ret_rate == 0 && !bench_was_interrupted(b))
		snprintf(err, errlen,
		                "no request was answered in time to know a rate: take more "
		                "--seconds");
	return *ret_rate > 0 || bench_was_interrupted(b);
}

static bool try_rate(struct bench *b, const char *depth, double rate, bool *ret_kept, char *err,
                size_t errlen) {
	struct bench_run *run = add_run(b, depth, rate, 0, err, errlen);
	if (!run)
		return false;
	name_run(run, true);
	if (!run_once(b, b->n_runs - 1, err, errlen))
		return false;
	run = &b->runs[b->n_runs - 1];
	*ret_kept = kept_up(run);
	run->sustained = *ret_kept;
	return true;
}

static bool find_at(
                struct bench *b, const char *depth, double *ret_rate, char *err, size_t errlen) {
	double top, low = 0, high;
	struct load given = b->load;
	b->load.arrivals = LOAD_CLOSED;
	b->load.arrivals_set = true;
	b->load.rate = 0;
	if (!saturate(b, depth, &top, err, errlen))
		return false;
	b->load = given;
	b->load.arrivals = LOAD_UNIFORM;
	b->load.arrivals_set = true;
	high = top * 1.1;
	double rate = top * 0.95;
	for (int i = 0; i < CAPACITY_STEPS && !bench_was_interrupted(b); i++) {
		bool kept;
		if (!try_rate(b, depth, rate, &kept, err, errlen))
			return false;
		if (kept)
			low = rate;
		else
			high = rate;
		/* The closed loop is near the answer: halve only once there is a rate that held. */
		rate = low > 0 ? (low + high) / 2 : rate * 0.85;
	}
	b->load = given;
	*ret_rate = low;
	return true;
}

bool bench_find_capacity(struct bench *b, char *err, size_t errlen) {
	for (int d = 0; d < b->n_depths && !bench_was_interrupted(b); d++) {
		if (!find_at(b, b->depths[d], &b->capacity[d], err, errlen))
			return false;
	}
	return true;
}
