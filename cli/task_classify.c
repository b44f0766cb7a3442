/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accuracy on a tab-separated file whose first line names its columns, as GLUE's files are. Texts
 * of any lengths share a step, without padding.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/task_parts.h"

enum { ROWS = 1024, MOST_TEXTS = 64 };

struct example {
	struct ids ids;
	int label;
};

struct classify {
	struct example *examples;
	int n, cap;
	int head;
	struct row *rows;
};

/* ---- the file ---- */

struct columns {
	int text, pair, label; /* pair -1: none */
};

/* The field `index` of a line; false if there are fewer. */
static bool field(const char *line, size_t len, int index, const char **ret, size_t *ret_len) {
	const char *end = line + len;
	for (int i = 0;; i++) {
		const char *tab = memchr(line, '\t', (size_t)(end - line));
		if (i == index) {
			*ret = line;
			*ret_len = (size_t)((tab ? tab : end) - line);
			return true;
		}
		if (!tab)
			return false;
		line = tab + 1;
	}
}

static int column_called(const char *header, size_t len, const char *name) {
	const char *at;
	size_t n;
	for (int i = 0; field(header, len, i, &at, &n); i++) {
		if (strlen(name) == n && memcmp(at, name, n) == 0)
			return i;
	}
	return -1;
}

/* The column that was asked for, else the first of the usual names. -2: it is not there. */
static int choose(const char *header, size_t len, const char *asked, const char *const *usual) {
	if (asked) {
		int column = column_called(header, len, asked);
		return column < 0 ? -2 : column;
	}
	for (; *usual; usual++) {
		int column = column_called(header, len, *usual);
		if (column >= 0)
			return column;
	}
	return -1;
}

static bool read_header(struct task *t, const char *header, size_t len, struct columns *ret,
                char *err, size_t errlen) {
	static const char *const texts[] = { "sentence", "sentence1", "text", "premise", "question",
		"question1", NULL };
	static const char *const pairs[] = { "sentence2", "text_pair", "hypothesis", "question2",
		NULL };
	static const char *const labels[] = { "label", "gold_label", "quality", "is_duplicate",
		NULL };
	const struct task_options *o = &t->options;
	ret->text = choose(header, len, o->text_column, texts);
	ret->pair = choose(header, len, o->pair_column, pairs);
	ret->label = choose(header, len, o->label_column, labels);
	/* QNLI's second text has the first one's usual name. */
	int sentence = column_called(header, len, "sentence");
	if (!o->text_column && !o->pair_column && column_called(header, len, "question") >= 0
	                && sentence >= 0) {
		ret->text = column_called(header, len, "question");
		ret->pair = sentence;
	}
	const char *missing = ret->text < 0 ? "text" : ret->label < 0 ? "label" : NULL;
	if (!missing && ret->pair == -2)
		missing = "pair";
	if (!missing)
		return true;
	snprintf(err, errlen, "%s: the first line names no %s column; --%s-column says which it is",
	                o->data, missing, missing);
	return false;
}

/* ---- reading ---- */

static int label_of(const struct model *model, int head, const char *text, size_t len) {
	for (int i = 0; i < model->facts.classifiers[head].classes; i++) {
		const char *label = model->labels[head][i];
		if (strlen(label) == len && memcmp(label, text, len) == 0)
			return i;
	}
	return -1;
}

static bool add_example(struct task *t, struct classify *c, const struct columns *columns,
                const char *line, size_t len, int number, char *err, size_t errlen) {
	const struct model *model = t->session->model;
	const char *text, *pair = NULL, *label;
	size_t text_len, pair_len = 0, label_len;
	if (!field(line, len, columns->text, &text, &text_len)
	                || !field(line, len, columns->label, &label, &label_len)
	                || (columns->pair >= 0
	                                && !field(line, len, columns->pair, &pair, &pair_len))) {
		snprintf(err, errlen, "%s: line %d has too few columns", t->options.data, number);
		return false;
	}
	int which = label_of(model, c->head, label, label_len);
	if (which < 0) {
		snprintf(err, errlen, "%s: line %d: \"%.*s\" is none of the head's labels",
		                t->options.data, number, (int)(label_len < 60 ? label_len : 60),
		                label);
		return false;
	}
	if (c->n == c->cap) {
		int cap = c->cap ? 2 * c->cap : 1024;
		struct example *grown = realloc(c->examples, (size_t)cap * sizeof *grown);
		if (!grown) {
			snprintf(err, errlen, "memory ran out");
			return false;
		}
		c->examples = grown;
		c->cap = cap;
	}
	struct example *e = &c->examples[c->n];
	e->label = which;
	if (!task_encode(t, model->tokenizer, text, text_len, pair, pair_len, true, &e->ids, err,
	                    errlen))
		return false;
	/* As fairseq and others do, what is beyond the context is cut, but for the end symbol. */
	int context = model->facts.stack[STACK_ENCODER].context;
	if (e->ids.n > context) {
		e->ids.at[context - 1] = e->ids.at[e->ids.n - 1];
		e->ids.n = context;
	}
	c->n++;
	return true;
}

static bool read_examples(struct task *t, struct classify *c, char *err, size_t errlen) {
	size_t len = 0, n;
	char *file = task_read_file(t->options.data, &len, err, errlen);
	const char *at = file, *line, *end = file + len;
	struct columns columns;
	bool ok = file != NULL;
	if (ok && !task_next_line(&at, end, &line, &n)) {
		snprintf(err, errlen, "%s: empty", t->options.data);
		ok = false;
	}
	ok = ok && read_header(t, line, n, &columns, err, errlen);
	for (int number = 2; ok && (t->options.limit == 0 || c->n < t->options.limit)
	                && task_next_line(&at, end, &line, &n);
	                number++)
		ok = n == 0 || add_example(t, c, &columns, line, n, number, err, errlen);
	free(file);
	if (ok && c->n == 0) {
		snprintf(err, errlen, "%s: no text", t->options.data);
		ok = false;
	}
	return ok;
}

static bool choose_head(struct task *t, struct classify *c, char *err, size_t errlen) {
	const struct facts *facts = &t->session->model->facts;
	const char *name = t->options.head;
	if (facts->n_classifiers == 0) {
		snprintf(err, errlen, "the model has no classification head");
		return false;
	}
	for (int i = 0; name && i < facts->n_classifiers; i++) {
		if (strcmp(facts->classifiers[i].name, name) == 0) {
			c->head = i;
			return true;
		}
	}
	if (name)
		snprintf(err, errlen, "the model has no classification head \"%s\"", name);
	return !name;
}

static bool open_classify(struct task *t, char *err, size_t errlen) {
	struct classify *c = t->data = calloc(1, sizeof *c);
	if (!c) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	if (!choose_head(t, c, err, errlen) || !read_examples(t, c, err, errlen))
		return false;
	t->items = c->n;
	int context = t->session->model->facts.stack[STACK_ENCODER].context;
	int rows = context > ROWS ? context : ROWS;
	int texts = t->options.batch > 0 && t->options.batch < MOST_TEXTS ? t->options.batch
	                                                                  : MOST_TEXTS;
	c->rows = calloc((size_t)rows, sizeof *c->rows);
	if (!c->rows) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	return session_prepare(t->session,
	                &(struct session_size){ .rows = rows,
	                                .logit_rows = texts,
	                                .sequences = texts,
	                                .source_tokens = context },
	                err, errlen);
}

static void close_classify(struct task *t) {
	struct classify *c = t->data;
	if (!c)
		return;
	for (int i = 0; i < c->n; i++)
		free(c->examples[i].ids.at);
	free(c->examples);
	free(c->rows);
	free(c);
}

/* ---- running ---- */

static int add_text(struct classify *c, int n, const struct ids *ids, struct sequence *s) {
	for (int i = 0; i < ids->n; i++)
		c->rows[n + i] = (struct row){ .sequence = s,
			.stack = STACK_ENCODER,
			.token = ids->at[i],
			.position = i,
			.type = i >= ids->second };
	return n + ids->n;
}

/* Whether the label has the highest score, and what it costs. */
static bool judge(const float *scores, int classes, int label, long *correct, double *loss) {
	int best = 0;
	double sum = 0;
	for (int i = 1; i < classes; i++)
		best = scores[i] > scores[best] ? i : best;
	for (int i = 0; i < classes; i++)
		sum += exp((double)scores[i] - (double)scores[best]);
	*correct += best == label;
	double cost = log(sum) + (double)scores[best] - (double)scores[label];
	*loss += cost;
	return isfinite(cost);
}

/* Runs as many texts as a step holds, from `from` on; returns how many, 0 on failure. */
static int run_step(struct task *t, const struct subnet *subnet, int from, long *correct,
                double *loss, char *err, size_t errlen) {
	struct classify *c = t->data;
	struct session *s = t->session;
	struct sequence *open[MOST_TEXTS];
	int first[MOST_TEXTS], n = 0, count = 0, tiles = 0;
	while (from + count < c->n && count < s->max_sequences) {
		const struct ids *ids = &c->examples[from + count].ids;
		tiles += (ids->n + KV_TILE - 1) / KV_TILE;
		if (n + ids->n > s->max_rows || tiles > workspace_source_tiles(s->w))
			break;
		open[count] = sequence_open_source(s->w, subnet, 0, ids->n);
		if (!open[count])
			break;
		first[count] = n;
		n = add_text(c, n, ids, open[count++]);
	}
	if (count == 0) {
		snprintf(err, errlen, "memory ran out");
		return 0;
	}
	step_run(s->w, c->rows, n);
	const float *scores = step_classes(s->w, c->head, first, count);
	bool ok = true;
	for (int i = 0; i < count; i++) {
		ok = ok
		                && judge(scores + (size_t)i * step_classes_stride(s->w),
		                                s->model->facts.classifiers[c->head].classes,
		                                c->examples[from + i].label, correct, loss);
		sequence_close(s->w, open[i]);
	}
	if (!ok)
		snprintf(err, errlen, "the model's scores are not finite");
	return ok ? count : 0;
}

static bool run_classify(struct task *t, const struct subnet *subnet, bool quality,
                struct task_score *score, char *err, size_t errlen) {
	struct classify *c = t->data;
	long correct = 0;
	double loss = 0, began = task_now_ms();
	for (int i = 0; i < c->n;) {
		int done = run_step(t, subnet, i, &correct, &loss, err, errlen);
		if (done == 0)
			return false;
		i += done;
		task_report(t, (double)i / c->n);
	}
	score->ms = task_now_ms() - began;
	score->items = c->n;
	score->loss = loss / c->n;
	if (quality)
		score->quality = (double)correct / c->n;
	return true;
}

const struct task_kind task_classify = { .name = "classify",
	.metric = "accuracy",
	.item = "text",
	.model = KIND_ENCODER,
	.open = open_classify,
	.close = close_classify,
	.run = run_classify };
