/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine in-process, without HTTP: prefill, decode, mixed depth and the cost of depth of one
 * model folder, each beside the machine's own limits measured in the same round.
 *
 * Decode is held against reading: bytes that a step must read (the kept layers, the head, the cached
 * keys and values) over the measured rate of memory. Prefill is held against the measured peak of
 * fused multiply-adds. Mixed depth runs c rows each at N, N/2 and N/4 layers in one step, and each
 * depth as its own batch. An encoder's texts go through one step, whole. Reported: medians over
 * rounds.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure/limits.h"
#include "model/model.h"
#include "model/threads.h"

enum {
	ROUNDS_MAX = 32,
	CONTEXT = 32,  /* positions before the first decoded token */
	TURNS = 6,     /* decode steps of one timing */
	PREFILL = 512, /* tokens of the longest prompt */
	ROWS = 1024,   /* of a step: tokens of an encoder's texts together */
	TEXT = 128,    /* tokens of a text */
	SEQUENCES = 48,
	DEPTHS = 12,
};

struct settings {
	int threads, rounds;
	bool json;
	const char *dir, *kernels;
	enum cpu_level level;
};

struct bench {
	struct model *model;
	struct team *team;
	struct workspace *w;
	enum cpu_level level;
	float *arena; /* read for the rate of memory */
	size_t arena_floats;
	int layers;
};

enum kind { KIND_PREFILL, KIND_DECODE, KIND_DEPTH, KIND_MIXED, KIND_IN_TURN, KIND_ENCODE };

/* One thing that is timed in every round. */
struct point {
	enum kind kind;
	int count;  /* prompt tokens, sequences of each depth, or texts */
	int length; /* KIND_ENCODE: tokens of each text */
	int depth;  /* KIND_MIXED and KIND_IN_TURN: three depths, from full down */
	double seconds[ROUNDS_MAX], memory_share[ROUNDS_MAX], flops_share[ROUNDS_MAX];
};

static _Noreturn void fail(const char *sentence) {
	fprintf(stderr, "engine: %s\n", sentence);
	exit(1);
}

static int compare(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(const double *values, int n) {
	double sorted[ROUNDS_MAX];
	memcpy(sorted, values, (size_t)n * sizeof *sorted);
	qsort(sorted, (size_t)n, sizeof *sorted, compare);
	return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static struct subnet subnet_of(const struct bench *b, int depth) {
	struct subnet subnet;
	if (!model_subnet(b->model, PLAN_RULE_EVEN, depth, &subnet))
		fail("the model has no such depth");
	return subnet;
}

static bool has_encoder(const struct bench *b) {
	return b->model->facts.stack[STACK_ENCODER].layers > 0;
}

/* Seconds of one step over `count` texts of `length` tokens through the whole encoder. */
static double time_encode(struct bench *b, int count, int length) {
	static struct row rows[ROWS];
	const struct stack_facts *facts = &b->model->facts.stack[STACK_ENCODER];
	struct sequence *s[SEQUENCES];
	struct subnet subnet = { 0 };
	int n = 0;
	plan_by_rule(PLAN_RULE_PREFIX, facts->layers, facts->layers, &subnet.stack[STACK_ENCODER]);
	for (int i = 0; i < count; i++) {
		s[i] = sequence_open_source(b->w, &subnet, 0, length);
		for (int k = 0; k < length; k++)
			rows[n++] = (struct row){ .sequence = s[i],
				.stack = STACK_ENCODER,
				.token = (k + i) * 7919 % facts->vocab,
				.position = k };
	}
	double start = limits_seconds();
	step_run(b->w, rows, n);
	double seconds = limits_seconds() - start;
	for (int i = 0; i < count; i++)
		sequence_close(b->w, s[i]);
	return seconds;
}

static struct row row_at(const struct bench *b, struct sequence *s, int position) {
	return (struct row){ .sequence = s,
		.stack = STACK_DECODER,
		.token = position * 7919 % b->model->facts.vocab,
		.position = position };
}

/* Seconds of one step over a prompt of n tokens and the logits of its last row. */
static double time_prefill(struct bench *b, int n) {
	static struct row rows[PREFILL];
	struct subnet subnet = subnet_of(b, b->layers);
	struct sequence *s = sequence_open(b->w, &subnet, n);
	for (int i = 0; i < n; i++)
		rows[i] = row_at(b, s, i);
	double start = limits_seconds();
	step_run(b->w, rows, n);
	step_logits(b->w, (int[]){ n - 1 }, 1);
	double seconds = limits_seconds() - start;
	sequence_close(b->w, s);
	return seconds;
}

/* Opens n sequences of one depth that stand at CONTEXT: one is run, the others are its forks. */
static void open_sequences(struct bench *b, struct sequence **ret, int n, int depth) {
	struct row rows[CONTEXT];
	struct subnet subnet = subnet_of(b, depth);
	ret[0] = sequence_open(b->w, &subnet, CONTEXT + TURNS + 1);
	for (int i = 0; i < CONTEXT; i++)
		rows[i] = row_at(b, ret[0], i);
	step_run(b->w, rows, CONTEXT);
	for (int i = 1; i < n; i++) {
		ret[i] = sequence_fork(b->w, ret[0], CONTEXT + TURNS + 1);
		if (!ret[i])
			fail("the KV pool is too small");
	}
}

static void decode_step(struct bench *b, struct sequence **s, int n) {
	struct row rows[SEQUENCES];
	int indices[SEQUENCES];
	for (int i = 0; i < n; i++) {
		rows[i] = row_at(b, s[i], sequence_length(s[i]));
		indices[i] = i;
	}
	step_run(b->w, rows, n);
	step_logits(b->w, indices, n);
}

/* Seconds of one decode step over n sequences, in batches of `batch`; they end longer by TURNS. */
static double time_decode(struct bench *b, struct sequence **s, int n, int batch) {
	double start = limits_seconds();
	for (int turn = 0; turn < TURNS; turn++)
		for (int i = 0; i < n; i += batch)
			decode_step(b, s + i, batch);
	return (limits_seconds() - start) / TURNS;
}

static double time_depths(struct bench *b, const int *depths, int n_depths, int count, bool mixed) {
	struct sequence *s[SEQUENCES];
	int n = n_depths * count;
	for (int i = 0; i < n_depths; i++)
		open_sequences(b, s + i * count, count, depths[i]);
	decode_step(b, s, n); /* blocks are taken and copied here, not in the timing */
	double seconds = time_decode(b, s, n, mixed ? n : count);
	for (int i = 0; i < n; i++)
		sequence_close(b->w, s[i]);
	return seconds;
}

static double time_point(struct bench *b, const struct point *p) {
	int thirds[3] = { b->layers, b->layers > 1 ? b->layers / 2 : 1,
		b->layers > 3 ? b->layers / 4 : 1 };
	if (p->kind == KIND_PREFILL)
		return time_prefill(b, p->count);
	if (p->kind == KIND_ENCODE)
		return time_encode(b, p->count, p->length);
	if (p->kind == KIND_MIXED || p->kind == KIND_IN_TURN)
		return time_depths(b, thirds, 3, p->count, p->kind == KIND_MIXED);
	return time_depths(b, &p->depth, 1, p->count, true);
}

/* Bytes that a decode step, or a prefill, reads at least. */
static double bytes_of(const struct bench *b, const struct point *p) {
	if (p->kind == KIND_ENCODE)
		return (double)b->model->weights.layer_bytes[STACK_ENCODER] * p->depth;
	struct subnet subnet = subnet_of(b, p->depth);
	double dim = b->model->facts.stack[STACK_DECODER].dim;
	double keys = p->kind == KIND_PREFILL ? 0 : p->count * (CONTEXT + TURNS / 2.0);
	return (double)model_subnet_bytes(b->model, &subnet) + keys * p->depth * 2 * dim * 4;
}

static double flops_of(const struct bench *b, const struct point *p) {
	enum stack stack = p->kind == KIND_ENCODE ? STACK_ENCODER : STACK_DECODER;
	const struct stack_facts *f = &b->model->facts.stack[stack];
	double dim = f->dim, rows = p->kind == KIND_ENCODE ? p->count * p->length : p->count;
	double layer = 2 * (4 * dim * dim + 2 * dim * f->ffn) * rows;
	if (p->kind == KIND_ENCODE)
		return p->depth * (layer + 4 * dim * rows * p->length);
	double keys = p->kind == KIND_PREFILL ? rows * (rows + 1) / 2 : rows * CONTEXT;
	double heads = p->kind == KIND_PREFILL ? 1 : rows; /* rows that need logits */
	return p->depth * (layer + 4 * dim * keys) + 2 * heads * dim * b->model->facts.vocab;
}

static void run_round(struct bench *b, struct point *points, int n, int round, double *flops,
                double *rate) {
	for (int i = 0; i < n; i++) {
		struct point *p = &points[i];
		if (i == 0 || p->kind != points[i - 1].kind) {
			flops[round] = limits_flops(b->team, b->level);
			rate[round] = limits_bandwidth(
			                b->team, b->level, b->arena, b->arena_floats);
		}
		p->seconds[round] = time_point(b, p);
		p->memory_share[round] = bytes_of(b, p) / rate[round] / p->seconds[round];
		p->flops_share[round] = flops_of(b, p) / flops[round] / p->seconds[round];
	}
}

static int add_points(const struct bench *b, struct point *points) {
	int n = 0, context = b->model->facts.context;
	const int texts[][2] = { { 1, TEXT }, { 8, TEXT }, { 2, 512 }, { 32, 16 }, { 8, 16 } };
	for (int i = 0; has_encoder(b) && i < 5; i++) {
		const struct stack_facts *encoder = &b->model->facts.stack[STACK_ENCODER];
		if (texts[i][1] <= encoder->context)
			points[n++] = (struct point){ .kind = KIND_ENCODE,
				.count = texts[i][0],
				.length = texts[i][1],
				.depth = encoder->layers };
	}
	if (has_encoder(b))
		return n;
	const int prompts[] = { 128, PREFILL }, batches[] = { 1, 4, 16 }, mixes[] = { 1, 2, 4 };
	for (int i = 0; i < 2; i++)
		if (prompts[i] <= context)
			points[n++] = (struct point){
				.kind = KIND_PREFILL, .count = prompts[i], .depth = b->layers
			};
	for (int i = 0; i < 3; i++)
		points[n++] = (struct point){
			.kind = KIND_DECODE, .count = batches[i], .depth = b->layers
		};
	for (int i = 1; i <= DEPTHS; i++) {
		int depth = b->layers * i / DEPTHS;
		if (depth > b->layers * (i - 1) / DEPTHS)
			points[n++] = (struct point){
				.kind = KIND_DEPTH, .count = 1, .depth = depth
			};
	}
	for (int i = 0; i < 3; i++)
		points[n++] = (struct point){
			.kind = KIND_MIXED, .count = mixes[i], .depth = b->layers
		};
	for (int i = 0; i < 3; i++)
		points[n++] = (struct point){
			.kind = KIND_IN_TURN, .count = mixes[i], .depth = b->layers
		};
	return n;
}

/* Least squares over the points of KIND_DEPTH: seconds = a + b depth. */
static void fit_depth(const struct point *points, int n, int rounds, double *ret_a, double *ret_b) {
	double count = 0, x = 0, y = 0, xx = 0, xy = 0;
	for (int i = 0; i < n; i++) {
		if (points[i].kind != KIND_DEPTH)
			continue;
		double d = points[i].depth, s = median(points[i].seconds, rounds);
		count++;
		x += d;
		y += s;
		xx += d * d;
		xy += d * s;
	}
	double spread = count * xx - x * x;
	*ret_b = spread > 0 ? (count * xy - x * y) / spread : 0;
	*ret_a = (y - *ret_b * x) / count;
}

static const struct point *partner(const struct point *points, int n, const struct point *mixed) {
	for (int i = 0; i < n; i++)
		if (points[i].kind == KIND_IN_TURN && points[i].count == mixed->count)
			return &points[i];
	return NULL;
}

static void print_point(const struct bench *b, const struct point *points, int n,
                const struct point *p, int rounds) {
	double ms = 1e3 * median(p->seconds, rounds);
	double memory = 100 * median(p->memory_share, rounds);
	double flops = 100 * median(p->flops_share, rounds);
	double a, slope;
	fit_depth(points, n, rounds, &a, &slope);
	switch (p->kind) {
	case KIND_PREFILL:
		printf("prefill %4d tokens    %9.2f ms  %8.0f tokens/s  %6.1f %% of FMA peak\n",
		                p->count, ms, p->count / ms * 1e3, flops);
		break;
	case KIND_DECODE:
		printf("decode  %4d sequences %9.2f ms  %8.0f tokens/s  %6.1f MB  %5.1f %% of "
		       "memory rate, %5.1f %% of FMA peak\n",
		                p->count, ms, p->count / ms * 1e3, bytes_of(b, p) / 1e6, memory,
		                flops);
		break;
	case KIND_DEPTH:
		printf("depth   %4d           %9.2f ms  a + b x depth is off by %+.1f %%, %5.1f %% "
		       "of memory rate\n",
		                p->depth, ms, 100 * ((a + slope * p->depth) * 1e3 / ms - 1),
		                memory);
		break;
	case KIND_MIXED:
		printf("mixed   %4d each depth %8.2f ms  in turn %.2f ms: %.2f x\n", p->count, ms,
		                1e3 * median(partner(points, n, p)->seconds, rounds),
		                1e3 * median(partner(points, n, p)->seconds, rounds) / ms);
		break;
	case KIND_ENCODE:
		printf("encode  %4d texts of %3d %8.2f ms  %8.0f tokens/s  %6.1f %% of FMA peak\n",
		                p->count, p->length, ms, p->count * p->length / ms * 1e3, flops);
		break;
	case KIND_IN_TURN:
		break;
	}
}

static void print_json(const struct bench *b, const struct point *points, int n, int rounds,
                const double *flops, const double *rate) {
	static const char *const names[] = { "prefill", "decode", "depth", "mixed", "in_turn",
		"encode" };
	printf("{\"model\": \"%s\", \"kernels\": \"%s\", \"threads\": %d, \"flops\": %.4g, "
	       "\"bandwidth\": %.4g, \"points\": [",
	                b->model->name, b->model->ops->name, team_size(b->team),
	                median(flops, rounds), median(rate, rounds));
	for (int i = 0; i < n; i++) {
		const struct point *p = &points[i];
		printf("%s\n{\"kind\": \"%s\", \"count\": %d, \"depth\": %d, \"seconds\": %.5g",
		                i ? "," : "", names[p->kind], p->count, p->depth,
		                median(p->seconds, rounds));
		if (p->kind == KIND_ENCODE)
			printf(", \"length\": %d", p->length);
		if (p->kind != KIND_MIXED && p->kind != KIND_IN_TURN)
			printf(", \"bytes\": %.0f, \"memory_share\": %.4f, \"flops_share\": %.4f",
			                bytes_of(b, p), median(p->memory_share, rounds),
			                median(p->flops_share, rounds));
		printf("}");
	}
	printf("]}\n");
}

static void parse_arguments(int argc, char **argv, struct settings *s) {
	static const struct option options[] = { { "threads", 1, NULL, 't' },
		{ "rounds", 1, NULL, 'n' }, { "kernels", 1, NULL, 'k' },
		{ "cpu-level", 1, NULL, 'l' }, { "json", 0, NULL, 'j' }, { NULL, 0, NULL, 0 } };
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 't')
			s->threads = atoi(optarg);
		else if (c == 'n')
			s->rounds = atoi(optarg);
		else if (c == 'k')
			s->kernels = optarg;
		else if (c == 'l' && !cpu_level_parse(optarg, &s->level))
			fail("cpu levels are auto, c, avx2 and avx512");
		else if (c == 'j')
			s->json = true;
		else if (c == '?')
			exit(2);
	}
	if (optind + 1 != argc || s->threads < 1 || s->rounds < 1 || s->rounds > ROUNDS_MAX)
		fail("usage: engine [--threads N] [--rounds N] [--kernels native|blas] "
		     "[--cpu-level auto|c|avx2|avx512] [--json] MODEL_FOLDER");
	s->dir = argv[optind];
}

static void start(struct bench *b, const struct settings *s) {
	char err[512];
	const struct ops *ops = ops_select(s->kernels, s->level, err, sizeof err);
	struct model_options options = { .ops = ops, .threads = s->threads };
	if (!ops || !(b->model = model_open(s->dir, &options, err, sizeof err))
	                || !(b->team = team_create(s->threads, err, sizeof err)))
		fail(err);
	b->layers = model_layers(b->model);
	b->level = s->level == CPU_LEVEL_AUTO ? cpu_level_detect() : s->level;
	if (!has_encoder(b) && b->model->facts.context < CONTEXT + TURNS + 1)
		fail("the model's context is too short");
	b->w = workspace_create(b->model,
	                &(struct workspace_options){ .team = b->team,
	                                .max_rows = has_encoder(b) ? ROWS : PREFILL,
	                                .max_logit_rows = SEQUENCES,
	                                .max_sequences = SEQUENCES,
	                                .kv_bytes = (size_t)2 << 30 },
	                err, sizeof err);
	if (!b->w)
		fail(err);
	b->arena_floats = (size_t)96 << 20;
	b->arena = aligned_alloc(1 << 21, b->arena_floats * sizeof *b->arena);
	if (!b->arena)
		fail("not enough memory");
	for (size_t i = 0; i < b->arena_floats; i++)
		b->arena[i] = (float)(i % 1021);
}

int main(int argc, char **argv) {
	static struct point points[32];
	double flops[ROUNDS_MAX], rate[ROUNDS_MAX];
	struct settings s = { .threads = threads_count(""), .rounds = 3, .kernels = "auto" };
	s.level = CPU_LEVEL_AUTO;
	parse_arguments(argc, argv, &s);
	struct bench b = { 0 };
	start(&b, &s);
	int n = add_points(&b, points);
	for (int round = 0; round < s.rounds; round++)
		run_round(&b, points, n, round, flops, rate);
	if (s.json) {
		print_json(&b, points, n, s.rounds, flops, rate);
	} else {
		printf("%s, %s kernels, %d threads: %.0f Gflop/s, %.1f GB/s (medians of %d "
		       "rounds)\n",
		                b.model->name, b.model->ops->name, s.threads,
		                median(flops, s.rounds) / 1e9, median(rate, s.rounds) / 1e9,
		                s.rounds);
		for (int i = 0; i < n; i++)
			print_point(&b, points, n, &points[i], s.rounds);
	}
	workspace_destroy(b.w);
	team_destroy(b.team);
	model_close(b.model);
	free(b.arena);
	return 0;
}
