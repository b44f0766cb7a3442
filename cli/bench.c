/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fathom bench: sends a load to a server, fathom or any other with OpenAI's API, and tells what became
 * of it. Times count from when a request was meant to be sent.
 */
#include "cli/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/report/report.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/output.h"

enum { MOST_ARGS = 96 };

/* ---- flags ----------------------------------------------------------------------------------- */

/* The own flags: the same rows are read and shown. */
static const struct flag {
	const char *name, *value, *help;
	enum arg_kind kind;
	size_t offset;
	double min, max;
} flags[] = {
#define AT(member) offsetof(struct bench_options, member)
	{ NULL, "Who is asked:", NULL, 0, 0, 0, 0 },
	{ "url", "URL", "the server; default http://127.0.0.1:8080", ARG_TEXT, AT(url), 0, 0 },
	{ "api-key", "KEY", "sent as a bearer token", ARG_TEXT, AT(api_key), 0, 0 },
	{ "model", "NAME", "default: the first that the server lists", ARG_TEXT, AT(model), 0, 0 },
	{ "endpoint", "NAME", "completions (default), chat, embeddings or classify", ARG_TEXT,
	                AT(endpoint), 0, 0 },
	{ "plain", NULL,
	                "no fields of fathom's. Without it they are sent to servers that\n"
	                "answer /v1/depths. ignore_eos is always sent unless it is false",
	                ARG_FLAG, AT(plain), 0, 0 },
	{ "connections", "N", "at most N at once, kept alive; default 1000", ARG_INT,
	                AT(connections), 1, 60000 },
	{ "timeout", "S", "of a request; default 120", ARG_NUMBER, AT(timeout_s), 0.001, 86400 },
	{ "insecure", NULL, "do not check the server's certificate", ARG_FLAG, AT(insecure), 0, 0 },

	{ NULL, "Prompts:", NULL, 0, 0, 0, 0 },
	{ "prompts", "FILE",
	                "texts, one a line, in an order drawn from the seed. Default: common\n"
	                "words at random, as many as make --prompt-tokens tokens",
	                ARG_TEXT, AT(prompts), 0, 0 },
	{ "prompt-kind", "KIND", "text (default) or ids: token ids", ARG_TEXT, AT(prompt_kind), 0,
	                0 },

	{ NULL, "Several runs, each for all combinations:", NULL, 0, 0, 0, 0 },
	{ "depths", "LIST",
	                "1,3,6 or 12x6,6x3, or all that the server lists: each run asks all\n"
	                "its requests at one depth",
	                ARG_TEXT, AT(depths), 0, 0 },
	{ "rates", "LIST", "10,20,40: open loops, requests per second", ARG_TEXT, AT(rates), 0, 0 },
	{ "rounds", "N",
	                "each run N times, in turns, so that a disturbed minute does not hit\n"
	                "one run alone; they are counted together. --clients takes a list, too",
	                ARG_INT, AT(rounds), 1, 1000 },
	{ "find-capacity", NULL,
	                "the highest steady rate that the server sustains, at each of\n"
	                "--depths: first --clients at once (default 64), then rates between",
	                ARG_FLAG, AT(capacity), 0, 0 },

	{ NULL, "What is written:", NULL, 0, 0, 0, 0 },
	{ "json", "FILE", "the result; - is standard output", ARG_TEXT, AT(json), 0, 0 },
	{ "html", "FILE", "the result as one page with pictures", ARG_TEXT, AT(html), 0, 0 },
	{ "save-trace", "FILE",
	                "the requests of a single run as a CSV for --trace, with the lengths\n"
	                "that answers got",
	                ARG_TEXT, AT(save_trace), 0, 0 },
	{ "save-requests", "FILE", "what became of each request of a single run, as a CSV",
	                ARG_TEXT, AT(save_requests), 0, 0 },
	{ "quiet", NULL, "no progress", ARG_FLAG, AT(quiet), 0, 0 },
#undef AT
};
enum { FLAGS = sizeof flags / sizeof *flags };

static void print_help(void) {
	puts("usage: fathom bench [--url URL] [LOAD] [FLAGS]\n\n"
	     "Sends requests to a server and tells how long answers took, from when each request\n"
	     "was meant to be sent. Ctrl-C ends a run early and reports it.");
	for (int i = 0; i < FLAGS; i++) {
		if (!flags[i].name)
			printf("\n%s\n", flags[i].value);
		else
			load_args_help_line(flags[i].name, flags[i].value, flags[i].help);
	}
	puts("\nThe load (NUMBER: 128, 64..256 evenly between, or lognormal:MEDIAN:SIGMA):");
	load_args_help();
}

static int own_args(struct bench_options *o, struct arg *args) {
	int n = 0;
	for (int i = 0; i < FLAGS; i++) {
		if (flags[i].name)
			args[n++] = (struct arg){ flags[i].name, flags[i].kind,
				(char *)o + flags[i].offset, flags[i].min, flags[i].max };
	}
	return n;
}

/* Whether a flag of the load was given. */
static bool given(struct bench_options *o, const char *word) {
	return *load_args_word(&o->load, word);
}

static const char *wrong(struct bench_options *o) {
	const char **clients = load_args_word(&o->load, "clients");
	if (*clients && strchr(*clients, ',')) {
		o->client_counts = *clients;
		*clients = NULL;
	}
	if (strcmp(o->prompt_kind, "text") != 0 && strcmp(o->prompt_kind, "ids") != 0)
		return "--prompt-kind is text or ids";
	if (o->rates && o->client_counts)
		return "--rates and a list of --clients exclude each other";
	if (o->capacity && (o->rates || o->client_counts || given(o, "rate") || given(o, "phases")))
		return "--find-capacity finds the rates itself";
	if (o->rates && (given(o, "rate") || given(o, "phases")))
		return "--rates takes the place of --rate and --phases";
	if (o->rates && *clients)
		return "--rates and --clients exclude each other";
	if (o->client_counts && (given(o, "rate") || given(o, "phases")))
		return "a list of --clients and a rate exclude each other";
	if (o->depths && given(o, "depth"))
		return "--depths takes the place of --depth";
	if (o->capacity && (o->save_trace || o->save_requests))
		return "--save-trace and --save-requests are for a single run";
	if (o->plain && o->depths)
		return "--depths needs a fathom server, which --plain takes it not to be";
	return NULL;
}

static bool read_options(struct bench_options *o, int argc, char **argv, bool *ret_help) {
	struct arg args[MOST_ARGS];
	int words;
	*o = (struct bench_options){ .url = "http://127.0.0.1:8080",
		.endpoint = "completions",
		.prompt_kind = "text",
		.timeout_s = 120,
		.connections = 1000,
		.rounds = 1 };
	int n = own_args(o, args);
	n += load_args(&o->load, args + n);
	if (!args_read("bench", args, n, argc, argv, NULL, 0, &words, ret_help))
		return false;
	const char *why = *ret_help ? NULL : wrong(o);
	if (why)
		fprintf(stderr, "fathom bench: %s; fathom bench --help lists the flags\n", why);
	return !why;
}

/* ---- what is written ------------------------------------------------------------------------- */

static void put_run(struct buffer *out, const struct bench_run *run) {
	struct result_parameter parameters[3];
	char depth[LOAD_NAME + 2], rate[32], clients[16];
	int n = 0;
	if (run->depth[0]) {
		snprintf(depth, sizeof depth, "\"%s\"", run->depth);
		parameters[n++] = (struct result_parameter){ "depth", depth };
	}
	if (run->load.arrivals == LOAD_CLOSED) {
		snprintf(clients, sizeof clients, "%d", run->load.clients);
		parameters[n++] = (struct result_parameter){ "clients", clients };
	} else if (run->load.rate > 0) {
		snprintf(rate, sizeof rate, "%.10g", run->load.rate);
		parameters[n++] = (struct result_parameter){ "rate", rate };
	}
	result_write_run(out, run->label, parameters, n, &run->result, run->run.outcomes,
	                run->run.n);
}

static void put_capacity(struct buffer *out, const struct bench *b) {
	if (!b->options->capacity)
		return;
	buffer_puts(out, "],\"capacity\":[");
	for (int i = 0; i < b->n_depths; i++) {
		buffer_printf(out, "%s{\"depth\":", i ? "," : "");
		if (b->depths[i][0])
			buffer_json_string(out, b->depths[i], strlen(b->depths[i]));
		else
			buffer_puts(out, "null");
		buffer_puts(out, ",\"rate\":");
		buffer_json_f64(out, b->capacity[i]);
		buffer_puts(out, "}");
	}
}

static void put_result(struct buffer *out, const struct bench *b) {
	struct buffer depths = { 0 };
	const bool known = b->target.fathom && b->target.depths.len > 0;
	buffer_append(&depths, b->target.depths.data, known ? b->target.depths.len : 0);
	const struct result_head head = { .tool = "fathom bench",
		.started = b->started,
		.url = b->options->url,
		.model = b->target.model[0] ? b->target.model : NULL,
		.depths = known ? buffer_cstr(&depths) : NULL,
		.layers = b->target.layers[0] ? b->target.layers : NULL };
	bool first = true;
	result_open(out, &head, &b->runs[0].load);
	for (int i = 0; i < b->n_runs; i++) {
		if (!b->runs[i].done)
			continue;
		buffer_puts(out, first ? "" : ",");
		put_run(out, &b->runs[i]);
		first = false;
	}
	put_capacity(out, b);
	result_close(out);
	buffer_finish(&depths);
}

/* The load as it was run, with the lengths that answers got. */
static bool put_trace(struct buffer *out, const struct bench_run *run) {
	struct load_request *requests = calloc(run->run.n + 1, sizeof *requests);
	for (size_t i = 0; requests && i < run->run.n; i++) {
		const struct outcome *o = &run->run.outcomes[i];
		requests[i] = o->request;
		requests[i].length = outcome_is_answered(o) ? o->tokens : 0;
		if (o->prompt_tokens > 0)
			requests[i].prompt_tokens = o->prompt_tokens;
		if (requests[i].length > requests[i].max_tokens)
			requests[i].length = requests[i].max_tokens;
	}
	if (requests)
		trace_write(&run->load, requests, run->run.n, out);
	free(requests);
	return requests;
}

static bool write_files(const struct bench *b, char *err, size_t errlen) {
	const struct bench_options *o = b->options;
	struct buffer result = { 0 }, trace = { 0 }, lines = { 0 };
	bool ok = true;
	if (o->json || o->html)
		put_result(&result, b);
	if (o->save_trace && !put_trace(&trace, &b->runs[0]))
		trace.failed = true;
	if (o->save_requests)
		result_write_csv(&lines, &b->runs[0].load, b->runs[0].run.outcomes,
		                b->runs[0].run.n);
	if (o->json)
		ok = output_write(o->json, &result, err, errlen);
	if (ok && o->html && buffer_cstr(&result))
		ok = report_write_html(o->html, result.data, err, errlen);
	if (ok && o->save_trace)
		ok = output_write(o->save_trace, &trace, err, errlen);
	if (ok && o->save_requests)
		ok = output_write(o->save_requests, &lines, err, errlen);
	buffer_finish(&result);
	buffer_finish(&trace);
	buffer_finish(&lines);
	return ok;
}

/* ---- all ------------------------------------------------------------------------------------- */

static bool open_target(struct bench *b, char *err, size_t errlen) {
	const struct bench_options *o = b->options;
	const struct client_options client = { .url = o->url,
		.api_key = o->api_key,
		.connections = o->connections,
		.timeout_ms = o->timeout_s * 1000,
		.insecure = o->insecure };
	const struct target_options target = {
		.url = o->url, .endpoint = o->endpoint, .model = o->model, .plain = o->plain
	};
	b->client = client_create(&client, err, errlen);
	if (!b->client || !target_probe(&b->target, b->client, &target, err, errlen))
		return false;
	const struct prompts_options prompts = { .file = o->prompts,
		.ids = strcmp(o->prompt_kind, "ids") == 0,
		.seed = b->load.seed,
		.model = b->target.model };
	b->prompts = prompts_create(b->client, &prompts, err, errlen);
	return b->prompts;
}

/* An hour of load is not to end in a file that cannot be written. */
static bool check_files(const struct bench_options *o, char *err, size_t errlen) {
	return output_check(o->json, err, errlen) && output_check(o->html, err, errlen)
	                && output_check(o->save_trace, err, errlen)
	                && output_check(o->save_requests, err, errlen);
}

static bool bench(struct bench *b, char *err, size_t errlen) {
	const struct bench_options *o = b->options;
	time_t now = time(NULL);
	strftime(b->started, sizeof b->started, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
	if (!check_files(o, err, errlen) || !load_args_read(&b->load, &o->load, err, errlen)
	                || !open_target(b, err, errlen) || !bench_plan(b, err, errlen))
		return false;
	if ((o->save_trace || o->save_requests) && b->n_runs != 1) {
		snprintf(err, errlen, "--save-trace and --save-requests are for a single run");
		return false;
	}
	bool ok = o->capacity ? bench_find_capacity(b, err, errlen) : bench_run_all(b, err, errlen);
	bench_hide_progress(b);
	if (!ok)
		return false;
	if (!o->json || strcmp(o->json, "-") != 0)
		bench_show_results(b);
	bench_show_warnings(b);
	return write_files(b, err, errlen);
}

int bench_main(int argc, char **argv) {
	struct bench_options o;
	struct bench b = { .options = &o };
	char err[512] = "memory ran out";
	const char *why;
	bool help;
	if (!read_options(&o, argc, argv, &help))
		return 2;
	if (help) {
		print_help();
		return 0;
	}
	bool ok = client_is_present(&why);
	if (!ok)
		snprintf(err, sizeof err, "%s", why);
	ok = ok && bench(&b, err, sizeof err);
	bool answered = false;
	for (int i = 0; i < b.n_runs; i++)
		answered = answered || b.runs[i].result.answered > 0;
	bench_finish(&b);
	if (!ok)
		fprintf(stderr, "fathom bench: %s\n", err);
	return ok && answered ? 0 : 1;
}
