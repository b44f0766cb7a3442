/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fathom eval: what each depth is worth on data, and what it costs. Perplexity with fairseq's rules
 * of blocks, accuracy, BLEU as sacrebleu computes it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/args.h"
#include "cli/chart.h"
#include "cli/cli.h"
#include "cli/depths.h"
#include "cli/output.h"
#include "cli/task.h"
#include "proto/buffer.h"

enum { MOST_ARGS = 48 };

struct options {
	struct session_options session;
	struct task_options task;
	struct depth_options depths;
	const char *json, *svg, *output;
	bool save;
};

/* What one subnet gave. */
struct result {
	struct subnet subnet;
	struct task_score score;
	uint64_t parameters;
};

static const char usage[] =
                "usage: fathom eval MODEL --data FILE [FLAGS]\n\n"
                "  --depth LIST           12,6,3 or 1..12 or all; encoder-decoders: 12x6,6x3\n"
                "                         (encoder x decoder); default: every depth, of an\n"
                "                         encoder-decoder from all layers to one each\n"
                "  --rule NAME            even, ends, prefix or tuned\n"
                "  --layers LIST          exactly these layers; --encoder-layers LIST beside it\n"
                "  --json FILE            results as JSON; - for standard output, and the\n"
                "                         table then goes to standard error\n"
                "  --svg FILE             a picture: quality against depth and milliseconds\n"
                "  --save                 write quality.json into the model folder\n"
                "  --output FILE          the translations; one depth only\n";

static bool read_options(struct options *o, int argc, char **argv, bool *ret_help) {
	*o = (struct options){ .session = session_defaults, .task = task_defaults };
	struct arg args[MOST_ARGS] = {
		{ "json", ARG_TEXT, &o->json, 0, 0 },
		{ "svg", ARG_TEXT, &o->svg, 0, 0 },
		{ "save", ARG_FLAG, &o->save, 0, 0 },
		{ "output", ARG_TEXT, &o->output, 0, 0 },
	};
	int words, n = 4;
	n += depths_args(&o->depths, args + n);
	n += task_args(&o->task, &o->session, args + n);
	if (!args_read("eval", args, n, argc, argv, &o->session.model, 1, &words, ret_help))
		return false;
	if (*ret_help || (words == 1 && o->task.data))
		return true;
	fprintf(stderr, "fathom eval: %s; fathom eval --help lists the flags\n",
	                words == 1 ? "--data is missing" : "the model folder is missing");
	return false;
}

/* ---- running ---- */

static void show_progress(void *arg, double share) {
	const char *name = arg;
	static int shown = -1;
	int percent = (int)(share * 100);
	if (percent == shown && share > 0)
		return;
	shown = percent;
	fprintf(stderr, "\rdepth %-7s %3d %%", name, percent);
	if (share >= 1)
		fputs("\r                     \r", stderr);
	fflush(stderr);
}

static double ms_per_item(const struct result *r) {
	return r->score.ms / (double)r->score.items;
}

static void print_head(FILE *out, const struct task *task, bool two) {
	fprintf(out, "%-7s %12s  %10s  %12s   %s\n", "depth", "parameters", task_metric(task),
	                "ms per", two ? "layers (encoder | decoder)" : "layers");
	fprintf(out, "%-7s %12s  %10s  %12s\n", "", "", "", task_item(task));
}

static void print_result(FILE *out, const struct task *task, const struct result *r) {
	char name[32], layers[DEPTHS_TEXT];
	const int digits = strcmp(task_metric(task), "accuracy") == 0 ? 6 : 2;
	depths_name(&r->subnet, name, sizeof name);
	depths_layers(&r->subnet, layers, sizeof layers);
	fprintf(out, "%-7s %12llu  %10.*f  %12.4f   %s\n", name, (unsigned long long)r->parameters,
	                digits, r->score.quality, ms_per_item(r), layers);
	fflush(out);
}

/* The table goes to `out`. */
static bool run_all(struct session *s, struct task *task, struct result *results, int n, FILE *out,
                char *err, size_t errlen) {
	bool shows = isatty(STDERR_FILENO);
	print_head(out, task, s->model->facts.kind == KIND_SEQ2SEQ);
	for (int i = 0; i < n; i++) {
		char name[32];
		depths_name(&results[i].subnet, name, sizeof name);
		if (!task_run(task, &results[i].subnet, true, shows ? show_progress : NULL, name,
		                    &results[i].score, err, errlen))
			return false;
		results[i].parameters = depths_parameters(&s->model->facts, &results[i].subnet);
		print_result(out, task, &results[i]);
	}
	return true;
}

/* ---- files ---- */

/* quality.json holds depths and values; a report holds all that is known. */
static void put_results(struct buffer *b, const struct options *o, const struct session *s,
                const struct task *task, const struct result *results, int n, bool report) {
	buffer_puts(b, "{\n  ");
	if (report) {
		buffer_puts(b, "\"model\": ");
		buffer_json_string(b, s->model->name, strlen(s->model->name));
		buffer_puts(b, ",\n  \"data\": ");
		buffer_json_string(b, o->task.data, strlen(o->task.data));
		buffer_printf(b, ",\n  \"%ss\": %ld,\n  ", task_item(task), task_items(task));
	}
	buffer_printf(b, "\"metric\": \"%s\",\n  \"depths\": [", task_metric(task));
	for (int i = 0; i < n; i++) {
		const struct result *r = &results[i];
		buffer_printf(b, "%s\n    {\"depth\": ", i ? "," : "");
		depths_put(b, &r->subnet, DEPTHS_KEPT);
		buffer_printf(b, ", \"%s\": %.6g", task_metric(task), r->score.quality);
		if (report) {
			buffer_puts(b, ", \"layers\": ");
			depths_put(b, &r->subnet, DEPTHS_LAYERS);
			buffer_printf(b, ", \"parameters\": %llu, \"loss\": %.8g, ",
			                (unsigned long long)r->parameters, r->score.loss);
			buffer_printf(b, "\"ms_per_%s\": %.6g", task_item(task), ms_per_item(r));
		}
		buffer_puts(b, "}");
	}
	buffer_puts(b, "\n  ]\n}\n");
}

static bool write_report(const struct options *o, const struct session *s, const struct task *task,
                const struct result *results, int n, char *err, size_t errlen) {
	struct buffer b = { 0 };
	put_results(&b, o, s, task, results, n, true);
	bool ok = output_write(o->json, &b, err, errlen);
	buffer_finish(&b);
	return ok;
}

static double share_of(const struct subnet *subnet) {
	int kept = 0, of = 0;
	for (int s = 0; s < STACKS; s++) {
		kept += subnet->stack[s].depth;
		of += subnet->stack[s].of;
	}
	return (double)kept / of;
}

static bool write_svg(const struct options *o, const struct session *s, const struct task *task,
                const struct result *results, int n, char *err, size_t errlen) {
	struct chart_point *points = calloc((size_t)n, sizeof *points);
	FILE *out = points ? fopen(o->svg, "w") : NULL;
	for (int i = 0; out && i < n; i++) {
		depths_name(&results[i].subnet, points[i].name, sizeof points[i].name);
		points[i].share = share_of(&results[i].subnet);
		points[i].ms = ms_per_item(&results[i]);
		points[i].quality = results[i].score.quality;
	}
	if (out)
		chart_write(out,
		                &(struct chart){ .title = s->model->name,
		                                .metric = task_metric(task),
		                                .item = task_item(task),
		                                .points = points,
		                                .n = n });
	bool ok = out && !ferror(out);
	if (out)
		ok = fclose(out) == 0 && ok;
	free(points);
	if (!ok)
		snprintf(err, errlen, "%s could not be written", o->svg);
	return ok;
}

/* Into the model folder, so that /v1/depths shows it. */
static bool save_quality(const struct options *o, const struct session *s, const struct task *task,
                const struct result *results, int n, char *err, size_t errlen) {
	struct buffer b = { 0 };
	char path[4200];
	if (o->depths.layers || o->depths.encoder_layers || o->depths.rule) {
		snprintf(err, errlen, "--save is for depths by the folder's own rule");
		return false;
	}
	snprintf(path, sizeof path, "%.4096s/quality.json", o->session.model);
	put_results(&b, o, s, task, results, n, false);
	bool ok = output_replace(path, &b, err, errlen);
	buffer_finish(&b);
	return ok;
}

/* ---- all ---- */

/* Opens --output, which needs translations of one depth. */
static bool open_output(
                struct options *o, const struct session *s, int n, char *err, size_t errlen) {
	if (!o->output)
		return true;
	if (s->model->facts.kind != KIND_SEQ2SEQ || n != 1) {
		snprintf(err, errlen, "--output takes the translations of one depth");
		return false;
	}
	o->task.output = fopen(o->output, "w");
	if (!o->task.output)
		snprintf(err, errlen, "%s could not be written", o->output);
	return o->task.output;
}

static bool close_output(struct options *o, char *err, size_t errlen) {
	if (!o->task.output)
		return true;
	bool ok = !ferror(o->task.output);
	ok = fclose(o->task.output) == 0 && ok;
	if (!ok)
		snprintf(err, errlen, "%s could not be written", o->output);
	return ok;
}

static bool evaluate(struct options *o, struct session *s, char *err, size_t errlen) {
	struct subnet *subnets = NULL;
	struct result *results = NULL;
	struct task *task = NULL;
	/* Standard output is one thing or the other. */
	FILE *table = o->json && strcmp(o->json, "-") == 0 ? stderr : stdout;
	int n;
	bool ok = depths_read(s->model, &o->depths, &subnets, &n, err, errlen)
	                && open_output(o, s, n, err, errlen);
	if (ok) {
		results = calloc((size_t)n, sizeof *results);
		task = results ? task_open(s, &o->task, err, errlen) : NULL;
		ok = task != NULL;
	}
	for (int i = 0; ok && i < n; i++)
		results[i].subnet = subnets[i];
	ok = ok && run_all(s, task, results, n, table, err, errlen);
	ok = ok && (!o->json || write_report(o, s, task, results, n, err, errlen));
	ok = ok && (!o->svg || write_svg(o, s, task, results, n, err, errlen));
	ok = ok && (!o->save || save_quality(o, s, task, results, n, err, errlen));
	ok = close_output(o, err, errlen) && ok;
	task_close(task);
	free(results);
	free(subnets);
	return ok;
}

int eval_main(int argc, char **argv) {
	struct options o;
	struct session session;
	char err[512] = "memory ran out";
	bool help;
	if (!read_options(&o, argc, argv, &help))
		return 2;
	if (help) {
		fputs(usage, stdout);
		fputs(task_usage, stdout);
		return 0;
	}
	bool ok = session_open(&session, &o.session, err, sizeof err)
	                && evaluate(&o, &session, err, sizeof err);
	session_close(&session);
	if (!ok)
		fprintf(stderr, "fathom eval: %s\n", err);
	return ok ? 0 : 1;
}
