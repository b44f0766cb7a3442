/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fathom search: which layers to keep, found on data, written to the model folder's plans.json for
 * `plan_rule: "tuned"`. Use validation data: what is found on a text flatters that text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/depths.h"
#include "cli/output.h"
#include "cli/strategy.h"
#include "cli/task.h"
#include "proto/buffer.h"

enum { MOST_ARGS = 48 };

struct options {
	struct session_options session;
	struct task_options task;
	const char *strategy, *out;
	int budget, beam, exhaustive, shallowest;
};

static const char usage[] =
                "usage: fathom search MODEL --data FILE [FLAGS]\n\n"
                "  --strategy NAME        valid: try plans on the data (exhaustively where a\n"
                "                         depth has few, else layer by layer with a beam);\n"
                "                         data-driven: learn what each layer is worth\n"
                "  --budget N             plans to try in each stack; default 200. The rules'\n"
                "                         own plans and those found are tried in any case\n"
                "  --beam N               valid: plans that go on from each depth; default 3\n"
                "  --exhaustive N         valid: try a depth whole if it has at most N plans;\n"
                "                         default 12\n"
                "  --shallowest D         no plans below this depth; default 1\n"
                "  --out FILE             default: plans.json in the model folder\n";

static bool read_options(struct options *o, int argc, char **argv, bool *ret_help) {
	*o = (struct options){ .session = session_defaults,
		.task = task_defaults,
		.strategy = "valid",
		.budget = 200,
		.beam = 3,
		.exhaustive = 12,
		.shallowest = 1 };
	struct arg args[MOST_ARGS] = {
		{ "strategy", ARG_TEXT, &o->strategy, 0, 0 },
		{ "budget", ARG_INT, &o->budget, 1, 1e6 },
		{ "beam", ARG_INT, &o->beam, 1, 16 },
		{ "exhaustive", ARG_INT, &o->exhaustive, 1, 1e6 },
		{ "shallowest", ARG_INT, &o->shallowest, 1, MAX_LAYERS },
		{ "out", ARG_TEXT, &o->out, 0, 0 },
	};
	const int own = 6;
	int words, n = own + task_args(&o->task, &o->session, args + own);
	if (!args_read("search", args, n, argc, argv, &o->session.model, 1, &words, ret_help))
		return false;
	const char *wrong = words != 1  ? "the model folder is missing"
	                : !o->task.data ? "--data is missing"
	                : strcmp(o->strategy, "valid") != 0
	                                && strcmp(o->strategy, "data-driven") != 0
	                ? "--strategy is valid or data-driven"
	                : NULL;
	if (*ret_help || !wrong)
		return true;
	fprintf(stderr, "fathom search: %s; fathom search --help lists the flags\n", wrong);
	return false;
}

/* ---- one stack ---- */

/* A stack that is searched, beside all layers of the other. */
struct hunt {
	const struct options *options;
	struct session *session;
	struct task *task;
	enum stack stack;
	struct subnet full;
	int evaluations;
	bool shows;
	char *err;
	size_t errlen;
	struct strategy_result results[MAX_LAYERS]; /* by depth - 1 */
};

static bool find_loss(void *arg, const struct plan *plan, double *ret_loss) {
	struct hunt *h = arg;
	struct subnet subnet = h->full;
	struct task_score score;
	subnet.stack[h->stack] = *plan;
	if (!task_run(h->task, &subnet, false, NULL, NULL, &score, h->err, h->errlen))
		return false;
	h->evaluations++;
	if (h->shows) {
		fprintf(stderr, "\r%d plans tried, depth %d     ", h->evaluations, plan->depth);
		fflush(stderr);
	}
	*ret_loss = score.loss;
	return true;
}

static void print_results(const struct hunt *h, int layers, const double *importance) {
	struct subnet shown = { 0 };
	char list[DEPTHS_TEXT];
	printf("%-6s %11s %11s %8s   %s\n", "depth", "loss, even", "loss, found", "better",
	                "layers");
	for (int depth = layers - 1; depth >= 1; depth--) {
		const struct strategy_result *r = &h->results[depth - 1];
		if (!r->found)
			continue;
		shown.stack[h->stack] = r->plan;
		depths_layers(&shown, list, sizeof list);
		printf("%-6d %11.4f %11.4f %7.2f%%   %s\n", depth, r->even_loss, r->loss,
		                100 * (1 - r->loss / r->even_loss), list);
	}
	if (importance) {
		printf("importance (what a layer takes off the loss):");
		for (int i = 0; i < layers; i++)
			printf(" %.4f", importance[i]);
		putchar('\n');
	}
}

static bool search_stack(struct hunt *h, enum stack stack) {
	const struct options *o = h->options;
	const int layers = h->session->model->facts.stack[stack].layers;
	double importance[MAX_LAYERS];
	const bool learnt = strcmp(o->strategy, "data-driven") == 0;
	h->stack = stack;
	h->evaluations = 0;
	struct strategy s = { .layers = layers,
		.shallowest = o->shallowest,
		.budget = o->budget,
		.beam = o->beam,
		.exhaustive = o->exhaustive,
		.loss = find_loss,
		.arg = h };
	int used = learnt ? strategy_importance(&s, importance, h->results)
	                  : strategy_search(&s, h->results);
	if (h->shows)
		fputs("\r                                        \r", stderr);
	if (used < 0)
		return false;
	printf("%s: %d plans tried\n", depths_stack_name(stack), used);
	print_results(h, layers, learnt ? importance : NULL);
	return true;
}

/* ---- plans.json ---- */

/*
 * One stack: its depths. Two: every pair, each stack's plan as it was found beside all of the
 * other.
 */
static void put_plans(struct buffer *b, const struct hunt *encoder, const struct hunt *decoder,
                const struct subnet *full) {
	const struct plan *e_full = &full->stack[STACK_ENCODER],
	                  *d_full = &full->stack[STACK_DECODER];
	const char *comma = "";
	buffer_puts(b, "{\"plans\": [");
	for (int e = e_full->of; e >= (e_full->of > 0); e--) {
		for (int d = d_full->of; d >= (d_full->of > 0); d--) {
			bool e_all = e == e_full->of, d_all = d == d_full->of;
			if ((e_all && d_all) || (!e_all && !encoder->results[e - 1].found)
			                || (!d_all && !decoder->results[d - 1].found))
				continue;
			struct subnet found = *full;
			if (!e_all)
				found.stack[STACK_ENCODER] = encoder->results[e - 1].plan;
			if (!d_all)
				found.stack[STACK_DECODER] = decoder->results[d - 1].plan;
			buffer_printf(b, "%s\n  {\"depth\": ", comma);
			depths_put(b, &found, DEPTHS_KEPT);
			buffer_puts(b, ", \"layers\": ");
			depths_put(b, &found, DEPTHS_LAYERS);
			buffer_puts(b, "}");
			comma = ",";
		}
	}
	buffer_puts(b, "\n]}\n");
}

static bool write_plans(const struct options *o, const struct buffer *b, char *err, size_t errlen) {
	char path[4300];
	if (o->out)
		snprintf(path, sizeof path, "%.4096s", o->out);
	else
		snprintf(path, sizeof path, "%.4096s/plans.json", o->session.model);
	if (!output_replace(path, b, err, errlen))
		return false;
	printf("%s written; \"plan_rule\": \"tuned\" uses it\n", path);
	return true;
}

/* ---- all ---- */

static bool search(const struct options *o, struct session *s, char *err, size_t errlen) {
	const struct facts *facts = &s->model->facts;
	struct hunt *hunts = calloc(STACKS, sizeof *hunts);
	struct task *task = hunts ? task_open(s, &o->task, err, errlen) : NULL;
	bool ok = task != NULL;
	for (int i = 0; ok && i < STACKS; i++) {
		hunts[i] = (struct hunt){ .options = o,
			.session = s,
			.task = task,
			.shows = isatty(STDERR_FILENO),
			.err = err,
			.errlen = errlen };
		ok = model_subnet(s->model, PLAN_RULE_EVEN, model_layers(s->model), &hunts[i].full);
		if (ok && facts->stack[i].layers > 0)
			ok = search_stack(&hunts[i], (enum stack)i);
	}
	if (ok) {
		struct buffer b = { 0 };
		put_plans(&b, &hunts[STACK_ENCODER], &hunts[STACK_DECODER], &hunts[0].full);
		ok = write_plans(o, &b, err, errlen);
		buffer_finish(&b);
	}
	task_close(task);
	free(hunts);
	return ok;
}

int search_main(int argc, char **argv) {
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
	                && search(&o, &session, err, sizeof err);
	session_close(&session);
	if (!ok)
		fprintf(stderr, "fathom search: %s\n", err);
	return ok ? 0 : 1;
}
