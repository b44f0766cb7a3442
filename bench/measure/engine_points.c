/* SPDX-License-Identifier: Apache-2.0 */
/* Which points there are, how they are timed, and what each must read and compute. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/measure/engine.h"
#include "bench/measure/engine_parts.h"
#include "bench/measure/limits.h"

enum {
	ROWS = 1024, /* of a step: tokens of an encoder's texts together */
	SEQUENCES = 48,
	DEPTHS = 12,
	MULTIPLIER = 7919, /* spreads token ids */
};

/* Counts of each kind: those that are timed where none is named. */
static const struct {
	const char *name;
	int counts[7]; /* ended by 0 */
	int lengths[6];
} kinds[ENGINE_KINDS] = {
	[ENGINE_PREFILL_ONE] = { "prefill", { 128, ENGINE_PREFILL }, { 0 } },
	[ENGINE_DECODE] = { "decode", { 1, 4, 8, 12, 16, 32 }, { 0 } },
	[ENGINE_DEPTH] = { "depth", { 1 }, { 0 } },
	[ENGINE_MIXED] = { "mixed", { 1, 2, 4 }, { 0 } },
	[ENGINE_IN_TURN] = { "in_turn", { 1, 2, 4 }, { 0 } },
	[ENGINE_ENCODE] = { "encode", { 1, 8, 2, 32, 8 }, { 128, 128, 512, 16, 16 } },
};

const char *engine_kind_name(enum engine_kind kind) {
	return kinds[kind].name;
}

static bool is_encoder(const struct engine_bench *b) {
	return b->model->facts.stack[STACK_ENCODER].layers > 0;
}

/* ---- which ---- */

static int add_point(const struct engine_bench *b, struct engine_point *points, int n,
                struct engine_point p) {
	const struct facts *facts = &b->model->facts;
	bool fits = p.count > 0 && n < ENGINE_POINTS;
	if (p.kind == ENGINE_ENCODE)
		fits = fits && p.length > 0 && p.length <= facts->stack[STACK_ENCODER].context
		                && p.count * p.length <= ROWS;
	else if (p.kind == ENGINE_PREFILL_ONE)
		fits = fits && p.count <= ENGINE_PREFILL && p.count <= facts->context;
	else
		fits = fits && p.count <= (p.kind == ENGINE_DECODE ? SEQUENCES : SEQUENCES / 3);
	if (fits && (p.kind == ENGINE_ENCODE) == is_encoder(b))
		points[n++] = p;
	return n;
}

/* Points of a kind with one count, and of a mix also what it is held against. */
static int add_count(const struct engine_bench *b, struct engine_point *points, int n,
                enum engine_kind kind, int count, int length) {
	struct engine_point p = { .kind = kind, .count = count, .length = length };
	p.depth = kind == ENGINE_ENCODE ? b->model->facts.stack[STACK_ENCODER].layers : b->layers;
	if (kind == ENGINE_DEPTH) {
		for (int i = 1; i <= DEPTHS; i++) {
			p.depth = b->layers * i / DEPTHS;
			if (p.depth > b->layers * (i - 1) / DEPTHS)
				n = add_point(b, points, n, p);
		}
		return n;
	}
	n = add_point(b, points, n, p);
	if (kind == ENGINE_MIXED) {
		p.kind = ENGINE_IN_TURN;
		n = add_point(b, points, n, p);
	}
	return n;
}

static int add_kind(const struct engine_bench *b, struct engine_point *points, int n,
                enum engine_kind kind) {
	for (int i = 0; kinds[kind].counts[i]; i++)
		n = add_count(b, points, n, kind, kinds[kind].counts[i],
		                i < 6 ? kinds[kind].lengths[i] : 0);
	return n;
}

/* "decode", "decode:16" or "encode:8x128". */
static int add_word(const struct engine_bench *b, struct engine_point *points, int n, char *word) {
	char *colon = strchr(word, ':'), *x = colon ? strchr(colon, 'x') : NULL;
	if (colon)
		*colon = '\0';
	for (enum engine_kind kind = 0; kind < ENGINE_KINDS; kind++)
		if (kind != ENGINE_IN_TURN && !strcmp(word, kinds[kind].name))
			return colon ? add_count(b, points, n, kind, atoi(colon + 1),
			                       x ? atoi(x + 1) : 0)
			             : add_kind(b, points, n, kind);
	return -1;
}

int engine_points(const struct engine_bench *b, const char *wanted,
                struct engine_point points[ENGINE_POINTS]) {
	static const char all[] = "prefill,decode,depth,mixed,encode";
	char words[512], *rest = words;
	int n = 0;
	snprintf(words, sizeof words, "%s", wanted ? wanted : all);
	for (char *word; n >= 0 && (word = strsep(&rest, ","));)
		n = add_word(b, points, n, word);
	return n;
}

/* ---- how long ---- */

bool engine_bench_prepare(struct engine_bench *b, enum kv_format kv, char *err, size_t errlen) {
	bool encoder = is_encoder(b);
	enum weight_format weights = b->model->weights.format;
	b->layers = model_layers(b->model);
	b->kv = kv != KV_AUTO ? kv : weights == WEIGHTS_F32 ? KV_F32 : KV_BF16;
	if (!encoder && b->model->facts.context < b->context + ENGINE_TURNS + 1) {
		snprintf(err, errlen, "the model's context is too short");
		return false;
	}
	b->w = workspace_create(b->model,
	                &(struct workspace_options){ .team = b->team,
	                                .max_rows = encoder ? ROWS : ENGINE_PREFILL,
	                                .max_logit_rows = SEQUENCES,
	                                .max_sequences = SEQUENCES,
	                                .kv_bytes = (size_t)2 << 30,
	                                .kv = b->kv },
	                err, errlen);
	return b->w;
}

/* A clock of the wall and one of the processor time that all threads of the process got. */
struct clocks {
	double wall, cpu;
};

static struct clocks clocks_now(void) {
	struct timespec cpu;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	return (struct clocks){ limits_seconds(), (double)cpu.tv_sec + (double)cpu.tv_nsec * 1e-9 };
}

static struct clocks start_timing(void) {
	engine_parts_begin();
	return clocks_now();
}

/* Since `start`, for each of `steps` steps. */
static struct engine_time time_since(const struct engine_bench *b, struct clocks start, int steps) {
	struct clocks now = clocks_now();
	double wall = now.wall - start.wall;
	engine_parts_end(wall);
	return (struct engine_time){ .seconds = wall / steps,
		.busy = (now.cpu - start.cpu) / (wall * team_size(b->team)) };
}

static struct subnet subnet_of(const struct engine_bench *b, int depth) {
	struct subnet subnet = { 0 };
	model_subnet(b->model, PLAN_RULE_EVEN, depth, &subnet);
	return subnet;
}

static struct sequence *opened(struct sequence *s) {
	if (!s) {
		fprintf(stderr, "engine: the KV pool is too small\n");
		exit(1);
	}
	return s;
}

static struct engine_time time_encode(struct engine_bench *b, int count, int length) {
	static struct row rows[ROWS];
	const struct stack_facts *facts = &b->model->facts.stack[STACK_ENCODER];
	struct sequence *s[ROWS];
	struct subnet subnet = { 0 };
	int n = 0;
	plan_by_rule(PLAN_RULE_PREFIX, facts->layers, facts->layers, &subnet.stack[STACK_ENCODER]);
	for (int i = 0; i < count; i++) {
		s[i] = opened(sequence_open_source(b->w, &subnet, 0, length));
		for (int k = 0; k < length; k++)
			rows[n++] = (struct row){ .sequence = s[i],
				.stack = STACK_ENCODER,
				.token = (k + i) * MULTIPLIER % facts->vocab,
				.position = k };
	}
	struct clocks start = start_timing();
	step_run(b->w, rows, n);
	struct engine_time time = time_since(b, start, 1);
	for (int i = 0; i < count; i++)
		sequence_close(b->w, s[i]);
	return time;
}

static struct row row_at(const struct engine_bench *b, struct sequence *s, int position) {
	return (struct row){ .sequence = s,
		.stack = STACK_DECODER,
		.token = position * MULTIPLIER % b->model->facts.vocab,
		.position = position };
}

static struct engine_time time_prefill(struct engine_bench *b, int n) {
	static struct row rows[ENGINE_PREFILL];
	struct subnet subnet = subnet_of(b, b->layers);
	struct sequence *s = opened(sequence_open(b->w, &subnet, n));
	for (int i = 0; i < n; i++)
		rows[i] = row_at(b, s, i);
	struct clocks start = start_timing();
	step_run(b->w, rows, n);
	step_logits(b->w, (int[]){ n - 1 }, 1);
	struct engine_time time = time_since(b, start, 1);
	sequence_close(b->w, s);
	return time;
}

/* Opens n sequences of one depth with the context in them: one is run, the others are its forks. */
static void open_sequences(struct engine_bench *b, struct sequence **ret, int n, int depth) {
	static struct row rows[ENGINE_PREFILL];
	struct subnet subnet = subnet_of(b, depth);
	int length = b->context + ENGINE_TURNS + 1;
	ret[0] = opened(sequence_open(b->w, &subnet, length));
	for (int i = 0; i < b->context; i++)
		rows[i] = row_at(b, ret[0], i);
	step_run(b->w, rows, b->context);
	for (int i = 1; i < n; i++)
		ret[i] = opened(sequence_fork(b->w, ret[0], length));
}

static void decode_step(struct engine_bench *b, struct sequence **s, int n) {
	struct row rows[SEQUENCES];
	int indices[SEQUENCES];
	for (int i = 0; i < n; i++) {
		rows[i] = row_at(b, s[i], sequence_length(s[i]));
		indices[i] = i;
	}
	step_run(b->w, rows, n);
	step_logits(b->w, indices, n);
}

/* Seconds of one decode step over `count` sequences of each depth, together or a batch each. */
static struct engine_time time_depths(
                struct engine_bench *b, const int *depths, int n_depths, int count, bool together) {
	struct sequence *s[SEQUENCES];
	int n = n_depths * count, batch = together ? n : count;
	for (int i = 0; i < n_depths; i++)
		open_sequences(b, s + i * count, count, depths[i]);
	decode_step(b, s, n); /* blocks are taken and copied here, not in the timing */
	struct clocks start = start_timing();
	for (int turn = 0; turn < ENGINE_TURNS; turn++)
		for (int i = 0; i < n; i += batch)
			decode_step(b, s + i, batch);
	struct engine_time time = time_since(b, start, ENGINE_TURNS);
	for (int i = 0; i < n; i++)
		sequence_close(b->w, s[i]);
	return time;
}

struct engine_time engine_time(struct engine_bench *b, const struct engine_point *p) {
	int thirds[3] = { b->layers, b->layers > 1 ? b->layers / 2 : 1,
		b->layers > 3 ? b->layers / 4 : 1 };
	switch (p->kind) {
	case ENGINE_PREFILL_ONE:
		return time_prefill(b, p->count);
	case ENGINE_ENCODE:
		return time_encode(b, p->count, p->length);
	case ENGINE_MIXED:
	case ENGINE_IN_TURN:
		return time_depths(b, thirds, 3, p->count, p->kind == ENGINE_MIXED);
	default:
		return time_depths(b, &p->depth, 1, p->count, true);
	}
}

/* ---- how much ---- */

/* Of all layers of one stack over `rows` rows which see `pairs` keys together. */
static struct engine_work layers_work(
                const struct stack_facts *f, int depth, double rows, double pairs) {
	double dim = f->dim;
	return (struct engine_work){ .products = depth * rows * 2
		                * (4 * dim * dim + 2 * dim * f->ffn),
		.attention = depth * 4 * dim * pairs };
}

struct engine_work engine_work_of(const struct engine_bench *b, const struct engine_point *p) {
	const struct weights *weights = &b->model->weights;
	double rows = p->count, length = p->length;
	if (p->kind == ENGINE_ENCODE) {
		struct engine_work work = layers_work(&b->model->facts.stack[STACK_ENCODER],
		                p->depth, rows * length, rows * length * length);
		work.weight_bytes = (double)weights->layer_bytes[STACK_ENCODER] * p->depth;
		return work;
	}
	const struct stack_facts *f = &b->model->facts.stack[STACK_DECODER];
	bool prefill = p->kind == ENGINE_PREFILL_ONE;
	/* Decode: the mean over the turns, the new token's own key with them. */
	double keys = b->context + 1 + (ENGINE_TURNS + 1) / 2.0, heads = prefill ? 1 : rows;
	struct subnet subnet = subnet_of(b, p->depth);
	struct engine_work work = layers_work(
	                f, p->depth, rows, prefill ? rows * (rows + 1) / 2 : rows * keys);
	work.products += 2 * heads * f->dim * b->model->facts.vocab;
	work.weight_bytes = (double)model_subnet_bytes(b->model, &subnet);
	if (!prefill)
		work.kv_bytes = rows * keys * p->depth * 2 * f->dim * (b->kv == KV_BF16 ? 2 : 4);
	return work;
}
