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
                "  --rule NAME            even, ends, prefix or tuned\n"
                "  --layers LIST          exactly these layers; --encoder-layers LIST beside it\n"
                "  --json FILE            results as JSON (- for standard output)\n"
                "  --svg FILE             a picture: quality against depth and milliseconds\n"
                "  --save                 write quality.json into the model folder\n"
                "  --output FILE          the translations; one depth only\n";

static bool read_options(struct options *o, int argc, char **argv, bool *ret_help) {
	*o = (struct options){ .session = session_defaults, .task = task_defaults };
	struct arg args[MOST_ARGS] = {
		{ "depth", ARG_TEXT, &o->depths.depth, 0, 0 },
		{ "rule", ARG_TEXT, &o->depths.rule, 0, 0 },
		{ "layers", ARG_TEXT, &o->depths.layers, 0, 0 },
		{ "decoder-layers", ARG_TEXT, &o->depths.layers, 0, 0 },
		{ "encoder-layers", ARG_TEXT, &o->depths.encoder_layers, 0, 0 },
		{ "json", ARG_TEXT, &o->json, 0, 0 },
		{ "svg", ARG_TEXT, &o->svg, 0, 0 },
		{ "save", ARG_FLAG, &o->save, 0, 0 },
		{ "output", ARG_TEXT, &o->output, 0, 0 },
	};
	const int own = 9;
	int n = own + task_args(&o->task, &o->session, args + own);
	int words;
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

static void print_head(const struct task *task, bool two) {
	printf("%-7s %12s  %10s  %12s   %s\n", "depth", "parameters", task_metric(task), "ms per",
	                two ? "layers (encoder | decoder)" : "layers");
	printf("%-7s %12s  %10s  %12s\n", "", "", "", task_item(task));
}

static void print_quality(const struct task *task, double quality) {
	if (strcmp(task_metric(task), "accuracy") == 0)
		printf("  %10.6f", quality);
	else
		printf("  %10.2f", quality);
}

static void print_result(const struct task *task, const struct result *r) {
	char name[32], layers[MAX_LAYERS * 5];
	depths_name(&r->subnet, name, sizeof name);
	printf("%-7s %12llu", name, (unsigned long long)r->parameters);
	print_quality(task, r->score.quality);
	printf("  %12.4f  ", ms_per_item(r));
	for (int s = 0, shown = 0; s < STACKS; s++) {
		if (r->subnet.stack[s].depth == 0)
			continue;
		depths_list(&r->subnet.stack[s], " ", layers, sizeof layers);
		printf("%s %s", shown++ ? " |" : "", layers);
	}
	putchar('\n');
	fflush(stdout);
}

static bool run_all(struct session *s, struct task *task, struct result *results, int n, char *err,
                size_t errlen) {
	bool shows = isatty(STDERR_FILENO);
	print_head(task, s->model->facts.kind == KIND_SEQ2SEQ);
	for (int i = 0; i < n; i++) {
		char name[32];
		depths_name(&results[i].subnet, name, sizeof name);
		if (!task_run(task, &results[i].subnet, true, shows ? show_progress : NULL, name,
		                    &results[i].score, err, errlen))
			return false;
		int depth[STACKS];
		for (int k = 0; k < STACKS; k++)
			depth[k] = results[i].subnet.stack[k].depth;
		results[i].parameters = facts_parameters(&s->model->facts, depth);
		print_result(task, &results[i]);
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

static bool write_file(const char *path, const struct buffer *b, char *err, size_t errlen) {
	FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
	bool ok = out && !b->failed && fwrite(b->data, 1, b->len, out) == b->len;
	if (out && out != stdout)
		ok = fclose(out) == 0 && ok;
	if (!ok)
		snprintf(err, errlen, "%s could not be written", path);
	return ok;
}

static bool write_json(const struct options *o, const struct session *s, const struct task *task,
                const struct result *results, int n, bool report, const char *path, char *err,
                size_t errlen) {
	struct buffer b = { 0 };
	put_results(&b, o, s, task, results, n, report);
	bool ok = write_file(path, &b, err, errlen);
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

/* Into the model folder, so that /v1/depths shows it; replaced by rename. */
static bool save_quality(const struct options *o, const struct session *s, const struct task *task,
                const struct result *results, int n, char *err, size_t errlen) {
	char path[4200], fresh[4200];
	if (o->depths.layers || o->depths.encoder_layers || o->depths.rule) {
		snprintf(err, errlen, "--save is for depths by the folder's own rule");
		return false;
	}
	snprintf(path, sizeof path, "%s/quality.json", o->session.model);
	snprintf(fresh, sizeof fresh, "%s/quality.json.new", o->session.model);
	if (!write_json(o, s, task, results, n, false, fresh, err, errlen))
		return false;
	if (rename(fresh, path) == 0)
		return true;
	snprintf(err, errlen, "%.400s could not be replaced", path);
	return false;
}

/* ---- all ---- */

static bool evaluate(struct options *o, struct session *s, char *err, size_t errlen) {
	struct subnet *subnets = NULL;
	struct result *results = NULL;
	struct task *task = NULL;
	int n;
	bool ok = depths_read(s->model, &o->depths, &subnets, &n, err, errlen);
	if (ok && o->output && n != 1) {
		snprintf(err, errlen, "--output takes the translations of one depth");
		ok = false;
	}
	if (ok && o->output && !(o->task.output = fopen(o->output, "w"))) {
		snprintf(err, errlen, "%s could not be written", o->output);
		ok = false;
	}
	if (ok) {
		results = calloc((size_t)n, sizeof *results);
		task = results ? task_open(s, &o->task, err, errlen) : NULL;
		ok = task != NULL;
	}
	for (int i = 0; ok && i < n; i++)
		results[i].subnet = subnets[i];
	ok = ok && run_all(s, task, results, n, err, errlen);
	ok = ok && (!o->json || write_json(o, s, task, results, n, true, o->json, err, errlen));
	ok = ok && (!o->svg || write_svg(o, s, task, results, n, err, errlen));
	ok = ok && (!o->save || save_quality(o, s, task, results, n, err, errlen));
	if (o->task.output)
		fclose(o->task.output);
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
