/* SPDX-License-Identifier: Apache-2.0 */
/* Replays recorded steps: the cost model predicts each, then learns from it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure/steps.h"

enum { MOST_LINE = 1 << 16, MOST_CLIENTS = 64, MOST_NAME = 80, KINDS = COST_KINDS + 1 };

/* Errors of one kind of step, or of requests, in one phase. */
struct errors {
	double *ratio;
	size_t n, room;
};

struct running {
	double joined_ms;
	struct cost_work work;
	struct cost_load load;
	struct cost_model cost; /* at joining */
	struct subnet subnet;
};

struct replay {
	const char *path;
	struct cost_file file;
	struct cost_learner learner;
	struct running clients[MOST_CLIENTS];
	int row_count[STACKS][MAX_LAYERS], source_count[MAX_LAYERS], decode_count[MAX_LAYERS];
	char phase[MOST_NAME];
	struct errors errors[KINDS], all[KINDS]; /* the last: requests */
};

static _Noreturn void fail(const char *path, const char *sentence) {
	fprintf(stderr, "steps: %s: %s\n", path, sentence);
	exit(1);
}

/* ---- errors ---- */

static void add(struct errors *e, double ratio) {
	if (e->n == e->room) {
		e->room = e->room ? 2 * e->room : 1024;
		e->ratio = realloc(e->ratio, e->room * sizeof *e->ratio);
		if (!e->ratio)
			fail("errors", "not enough memory");
	}
	e->ratio[e->n++] = ratio;
}

static int compare(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void print_errors(struct errors *e, const char *phase, const char *name) {
	if (e->n == 0)
		return;
	qsort(e->ratio, e->n, sizeof *e->ratio, compare);
	double median = e->ratio[e->n / 2];
	for (size_t i = 0; i < e->n; i++)
		e->ratio[i] = fabs(e->ratio[i] - 1);
	qsort(e->ratio, e->n, sizeof *e->ratio, compare);
	printf("%-24s %-8s %7zu  median of actual/predicted %5.2f  error p50 %5.1f %%  p95 %6.1f "
	       "%%\n",
	                phase, name, e->n, median, 100 * e->ratio[e->n / 2],
	                100 * e->ratio[(size_t)(0.95 * (double)(e->n - 1))]);
	e->n = 0;
}

static void end_phase(struct replay *r) {
	for (int k = 0; k < KINDS; k++)
		print_errors(&r->errors[k], r->phase,
		                k < COST_KINDS ? cost_kind_name((enum cost_kind)k) : "requests");
}

/* ---- lines ---- */

/* The next number of a line, whose groups are parted by bars. */
static double number(const struct replay *r, char **at) {
	char *end;
	while (**at == '|' || **at == ' ')
		++*at;
	double value = strtod(*at, &end);
	if (end == *at)
		fail(r->path, "a line is too short");
	*at = end;
	return value;
}

static int whole(const struct replay *r, char **at) {
	return (int)number(r, at);
}

static void counts(const struct replay *r, char **at, int *count, int layers) {
	for (int l = 0; l < layers; l++)
		count[l] = whole(r, at);
}

/* The counts of a model without the stack are left out. */
static void read_step(struct replay *r, char *at) {
	int encoder = r->file.layers[STACK_ENCODER], decoder = r->file.layers[STACK_DECODER];
	double now = number(r, &at), ms = number(r, &at);
	struct cost_step s = { .layers = { encoder, decoder },
		.row_count = { encoder ? r->row_count[STACK_ENCODER] : NULL,
		                r->row_count[STACK_DECODER] },
		.decode_count = r->decode_count };
	s.rows = whole(r, &at);
	s.decode_rows = whole(r, &at);
	s.logit_rows = whole(r, &at);
	s.class_rows = whole(r, &at);
	s.attended = number(r, &at);
	s.chunk_attended = number(r, &at);
	s.source_attended = number(r, &at);
	counts(r, &at, r->row_count[STACK_ENCODER], encoder);
	counts(r, &at, r->row_count[STACK_DECODER], decoder);
	if (encoder) {
		counts(r, &at, r->source_count, decoder);
		s.source_count = r->source_count;
	}
	counts(r, &at, r->decode_count, decoder);
	cost_keep_pace(&r->learner, &r->file.cost, now - ms);
	double ratio = ms / cost_step_ms(&r->file.cost, &s);
	add(&r->errors[cost_kind_of(&s)], ratio);
	add(&r->all[cost_kind_of(&s)], ratio);
	cost_learn_step(&r->learner, &r->file.cost, &s, ms, now);
}

static struct running *client(struct replay *r, char **at) {
	int i = whole(r, at);
	if (i < 0 || i >= MOST_CLIENTS)
		fail(r->path, "there is no such client");
	return &r->clients[i];
}

static void read_join(struct replay *r, char *at) {
	int encoder = r->file.layers[STACK_ENCODER], decoder = r->file.layers[STACK_DECODER];
	struct running *c = client(r, &at);
	struct cost_work *w = &c->work;
	memset(c, 0, sizeof *c);
	c->joined_ms = number(r, &at);
	cost_keep_pace(&r->learner, &r->file.cost, c->joined_ms);
	int depth[STACKS] = { whole(r, &at) };
	depth[STACK_DECODER] = whole(r, &at);
	for (int k = 0; k < STACKS; k++) {
		if (depth[k] > 0)
			plan_by_rule(PLAN_RULE_EVEN, r->file.layers[k], depth[k],
			                &c->subnet.stack[k]);
	}
	w->subnet = &c->subnet;
	w->prompt_tokens = whole(r, &at);
	w->longest_prompt = whole(r, &at);
	w->choices = whole(r, &at);
	w->output_tokens = whole(r, &at);
	w->sources = whole(r, &at);
	w->source_tokens = whole(r, &at);
	w->longest_source = whole(r, &at);
	w->source_tiles = whole(r, &at);
	w->source_attended = number(r, &at);
	c->load.decode_rows = whole(r, &at);
	c->load.attended = number(r, &at);
	c->load.pending = whole(r, &at);
	c->load.pending_source = whole(r, &at);
	c->load.pending_source_attended = number(r, &at);
	counts(r, &at, c->load.rows, decoder);
	counts(r, &at, c->load.pending_rows, decoder);
	counts(r, &at, c->load.pending_source_rows, encoder);
	counts(r, &at, c->load.pending_cross_rows, decoder);
	c->cost = r->file.cost;
	c->load.recent_rows = c->cost.recent_rows;
	c->load.recent_keys = c->cost.recent_keys;
}

/* What was predicted at joining, for as many tokens as it became. */
static void read_end(struct replay *r, char *at) {
	struct running *c = client(r, &at);
	double took = number(r, &at) - c->joined_ms;
	struct cost_time time;
	if (!c->work.subnet)
		return;
	c->work.output_tokens = whole(r, &at);
	cost_predict(&c->cost, &r->file.limits, &c->load, &c->work, &time);
	add(&r->errors[COST_KINDS], took / time.total_ms);
	add(&r->all[COST_KINDS], took / time.total_ms);
	c->work.subnet = NULL;
}

static void read_model(struct replay *r, const char *line) {
	char err[256];
	struct doc *doc = doc_parse(line, strlen(line), r->path, err, sizeof err);
	if (!doc || !cost_read(doc, r->path, &r->file, err, sizeof err))
		fail(r->path, err);
	doc_free(doc);
}

void steps_replay(const char *path) {
	static struct replay r;
	static char line[MOST_LINE];
	FILE *f = fopen(path, "r");
	r.path = path;
	if (!f || !fgets(line, sizeof line, f))
		fail(path, "the file cannot be read");
	read_model(&r, line);
	while (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == 'p') {
			end_phase(&r);
			snprintf(r.phase, sizeof r.phase, "%.*s", MOST_NAME - 1, line + 2);
		} else if (line[0] == 's') {
			read_step(&r, line + 2);
		} else if (line[0] == 'j') {
			read_join(&r, line + 2);
		} else if (line[0] == 'e') {
			read_end(&r, line + 2);
		}
	}
	end_phase(&r);
	snprintf(r.phase, sizeof r.phase, "all");
	memcpy(r.errors, r.all, sizeof r.errors);
	end_phase(&r);
	fclose(f);
}
