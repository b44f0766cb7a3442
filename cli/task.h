/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks: data on which a sub-network is measured, and how. Language modelling (perplexity),
 * classification (accuracy), translation (BLEU). A task is read and tokenised once and then run at
 * any number of subnets.
 */
#ifndef FATHOM_CLI_TASK_H
#define FATHOM_CLI_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "cli/args.h"
#include "cli/session.h"

struct task_options {
	const char *kind;   /* "lm", "classify", "translate"; NULL: by the model */
	const char *data;   /* file; "-" is not taken */
	const char *target; /* translate: file of references, line by line; NULL: `data` is a tsv */
	int limit;          /* texts, at most; 0: all */
	int batch;          /* texts or blocks at once; 0: as many as do well */
	bool pretokenized;

	/* lm: fairseq's rules */
	int tokens_per_sample;         /* 0: the model's context, at most 512 */
	int context_window;            /* tokens before a block that are seen and not scored */
	const char *sample_break_mode; /* "none", "complete", "eos" */
	const char *unit;              /* what the end symbol closes: "line", "paragraph", "file" */

	/* classify */
	const char *text_column, *pair_column, *label_column; /* names in the tsv's first line */
	const char *head;

	/* translate */
	int num_beams;
	double length_penalty; /* < 0: the folder's own */
	double max_len_a;
	int max_len_b;
	FILE *output; /* hypotheses, in the order of the data; NULL: none */
};

extern const struct task_options task_defaults;

/* Flags for all of it and of the session, for args_read; returns how many. */
int task_args(struct task_options *o, struct session_options *s, struct arg *args);
/* The same for --help. */
extern const char task_usage[];

struct task_score {
	double loss;    /* nats per token, per text, or per target token: lower is better */
	double quality; /* perplexity, accuracy (0 to 1) or BLEU; NAN if it was not asked for */
	long items;     /* tokens, texts or sentences */
	double ms;      /* of computing, all items */
};

/* Called now and then with a share of the work, 0 to 1; may be NULL. */
typedef void task_progress(void *arg, double share);

struct task;

struct task *task_open(struct session *session, const struct task_options *options, char *err,
                size_t errlen);
void task_close(struct task *task);

/*
 * Runs a subnet over the data. Without `quality` only the loss is found, which for translation is
 * much faster: nothing is generated. False with one sentence.
 */
bool task_run(struct task *task, const struct subnet *subnet, bool quality, task_progress *progress,
                void *arg, struct task_score *ret_score, char *err, size_t errlen);

const char *task_metric(const struct task *task); /* "perplexity", "accuracy", "bleu" */
const char *task_item(const struct task *task);   /* "token", "text", "sentence" */
long task_items(const struct task *task);

#endif
