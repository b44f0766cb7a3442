/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine in-process, without HTTP: prefill, decode, mixed depth and the cost of depth of one
 * model folder, each beside the machine's own limits measured in the same round.
 *
 * Decode is held against reading: bytes that a step must read (the kept layers, the head, the cached
 * keys and values) over the measured rate of memory. Prefill and encoders are held against
 * arithmetic: products at the measured peak of the instruction that the format of the weights is
 * multiplied with, attention at the peak of f32. Mixed depth runs c rows each at N, N/2 and N/4
 * layers in one step, and each depth as its own batch. A timing in which other processes took more
 * than 3 % of the processors is repeated, up to six times. Reported: medians over rounds, after a
 * round that does not count.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure/engine.h"
#include "bench/measure/engine_parts.h"
#include "bench/measure/limits.h"
#include "model/threads.h"

enum { TRIES = 6 }; /* of a point in a round, until one was quiet */
static const double QUIET = 0.97;

struct settings {
	int threads, rounds, context;
	bool json, lines, parts;
	const char *dir, *kernels, *rows;
	enum cpu_level level;
	enum weight_format weights;
	enum kv_format kv;
};

/* The machine's limits, measured before every point. */
struct limits {
	float *arena; /* read for the rate of memory */
	size_t arena_floats;
	enum cpu_level level;
	double peak[ENGINE_ROUNDS], f32[ENGINE_ROUNDS],
	                rate[ENGINE_ROUNDS]; /* the best of a round */
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
	double sorted[ENGINE_ROUNDS];
	memcpy(sorted, values, (size_t)n * sizeof *sorted);
	qsort(sorted, (size_t)n, sizeof *sorted, compare);
	return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static double larger(double a, double b) {
	return a > b ? a : b;
}

/* ---- measuring ---- */

/* Measures the limits; the best of a round counts for arithmetic, what is near in time for memory. */
static double measure_limits(struct engine_bench *b, struct limits *l, int round) {
	double rate = limits_bandwidth(b->team, l->level, l->arena, l->arena_floats);
	double f32 = limits_peak(b->team, l->level, WEIGHTS_F32);
	double peak = limits_peak(b->team, l->level, b->model->weights.format);
	l->rate[round] = larger(l->rate[round], rate);
	l->f32[round] = larger(l->f32[round], f32);
	l->peak[round] = larger(l->peak[round], peak);
	return rate;
}

static void time_point(
                struct engine_bench *b, struct limits *l, struct engine_point *p, int round) {
	struct engine_work work = engine_work_of(b, p);
	struct engine_time best = { .busy = -1 };
	double rate = measure_limits(b, l, round), best_rate = 0;
	for (int i = 0; i < TRIES && best.busy < QUIET; i++) {
		struct engine_time time = engine_time(b, p);
		double after = measure_limits(b, l, round);
		if (time.busy > best.busy) {
			best = time;
			best_rate = larger(rate, after);
		}
		rate = after;
	}
	p->seconds[round] = best.seconds;
	p->busy[round] = best.busy;
	p->memory_share[round] = (work.weight_bytes + work.kv_bytes) / best_rate / best.seconds;
}

static void run_round(struct engine_bench *b, struct limits *l, struct engine_point *points, int n,
                int round) {
	l->rate[round] = l->f32[round] = l->peak[round] = 0;
	for (int i = 0; i < n; i++)
		time_point(b, l, &points[i], round);
	for (int i = 0; i < n; i++) {
		struct engine_work work = engine_work_of(b, &points[i]);
		points[i].peak_share[round] =
		                (work.products / l->peak[round] + work.attention / l->f32[round])
		                / points[i].seconds[round];
	}
}

/* ---- printing ---- */

/* Least squares over the points of ENGINE_DEPTH: seconds = a + b depth; false without such points. */
static bool fit_depth(const struct engine_point *points, int n, int rounds, double *ret_a,
                double *ret_b) {
	double count = 0, x = 0, y = 0, xx = 0, xy = 0;
	for (int i = 0; i < n; i++) {
		if (points[i].kind != ENGINE_DEPTH)
			continue;
		double d = points[i].depth, s = median(points[i].seconds, rounds);
		count++;
		x += d;
		y += s;
		xx += d * d;
		xy += d * s;
	}
	double spread = count * xx - x * x;
	if (spread <= 0)
		return false;
	*ret_b = (count * xy - x * y) / spread;
	*ret_a = (y - *ret_b * x) / count;
	return true;
}

/* How much faster the mix is than the point after it, which runs each depth by itself. */
static double gain(const struct engine_point *mixed, int rounds) {
	double ratios[ENGINE_ROUNDS];
	for (int i = 0; i < rounds; i++)
		ratios[i] = mixed[1].seconds[i] / mixed->seconds[i];
	return median(ratios, rounds);
}

static void print_point(const struct engine_bench *b, const struct engine_point *points, int n,
                const struct engine_point *p, int rounds) {
	double ms = 1e3 * median(p->seconds, rounds), a, slope;
	double memory = 100 * median(p->memory_share, rounds);
	double peak = 100 * median(p->peak_share, rounds);
	struct engine_work work = engine_work_of(b, p);
	switch (p->kind) {
	case ENGINE_PREFILL_ONE:
		printf("prefill %4d tokens    %9.2f ms  %8.0f tokens/s  %6.1f %% of peak", p->count,
		                ms, p->count / ms * 1e3, peak);
		break;
	case ENGINE_DECODE:
		printf("decode  %4d sequences %9.2f ms  %8.1f tokens/s  %6.1f MB  %5.1f %% of "
		       "memory rate, %5.1f %% of peak",
		                p->count, ms, p->count / ms * 1e3,
		                (work.weight_bytes + work.kv_bytes) / 1e6, memory, peak);
		break;
	case ENGINE_DEPTH:
		printf("depth   %4d           %9.2f ms  %5.1f %% of memory rate", p->depth, ms,
		                memory);
		if (fit_depth(points, n, rounds, &a, &slope))
			printf(", %+.1f %% off the line %.2f + %.3f x depth",
			                100 * (ms / 1e3 / (a + slope * p->depth) - 1), 1e3 * a,
			                1e3 * slope);
		break;
	case ENGINE_MIXED:
		printf("mixed   %4d each depth %8.2f ms  in turn %.2f ms: %.2f x", p->count, ms,
		                1e3 * median(p[1].seconds, rounds), gain(p, rounds));
		break;
	case ENGINE_ENCODE:
		printf("encode  %4d texts of %3d %8.2f ms  %8.0f tokens/s  %6.1f %% of peak",
		                p->count, p->length, ms, p->count * p->length / ms * 1e3, peak);
		break;
	default:
		return;
	}
	printf("%s\n", median(p->busy, rounds) < QUIET ? "  (disturbed)" : "");
}

static void print_json(const struct engine_bench *b, const struct limits *l,
                const struct engine_point *points, int n, int rounds) {
	printf("{\"model\": \"%s\", \"kernels\": \"%s\", \"threads\": %d, \"weights\": \"%s\", "
	       "\"kv\": \"%s\", \"instruction\": \"%s\", \"peak\": %.5g, \"peak_f32\": %.5g, "
	       "\"bandwidth\": %.5g, \"context\": %d, \"points\": [",
	                b->model->name, b->model->ops->name, team_size(b->team),
	                weight_format_name(b->model->weights.format), kv_format_name(b->kv),
	                limits_instruction(l->level, b->model->weights.format),
	                median(l->peak, rounds), median(l->f32, rounds), median(l->rate, rounds),
	                b->context);
	for (int i = 0; i < n; i++) {
		const struct engine_point *p = &points[i];
		struct engine_work work = engine_work_of(b, p);
		printf("%s{\"kind\": \"%s\", \"count\": %d, \"depth\": %d, \"seconds\": %.6g, "
		       "\"busy\": %.3f",
		                i ? ", " : "", engine_kind_name(p->kind), p->count, p->depth,
		                median(p->seconds, rounds), median(p->busy, rounds));
		if (p->kind == ENGINE_ENCODE)
			printf(", \"length\": %d", p->length);
		if (p->kind == ENGINE_MIXED)
			printf(", \"gain\": %.4f", gain(p, rounds));
		if (p->kind != ENGINE_MIXED && p->kind != ENGINE_IN_TURN)
			printf(", \"bytes\": %.0f, \"memory_share\": %.4f, \"peak_share\": %.4f",
			                work.weight_bytes + work.kv_bytes,
			                median(p->memory_share, rounds),
			                median(p->peak_share, rounds));
		printf("}");
	}
	printf("]}\n");
}

static void print_text(const struct engine_bench *b, const struct limits *l,
                const struct engine_point *points, int n, int rounds) {
	printf("%s, %s weights, %s keys and values, %s kernels, %d threads: %s %.0f G/s, "
	       "f32 %.0f Gflop/s, %.1f GB/s (medians of %d rounds)\n",
	                b->model->name, weight_format_name(b->model->weights.format),
	                kv_format_name(b->kv), b->model->ops->name, team_size(b->team),
	                limits_instruction(l->level, b->model->weights.format),
	                median(l->peak, rounds) / 1e9, median(l->f32, rounds) / 1e9,
	                median(l->rate, rounds) / 1e9, rounds);
	for (int i = 0; i < n; i++)
		print_point(b, points, n, &points[i], rounds);
}

/* Each point by itself, and where its time goes. */
static void print_parts(struct engine_bench *b, struct limits *l, struct engine_point *points,
                int n, int rounds) {
	for (int i = 0; i < n; i++) {
		struct engine_point *p = &points[i];
		run_round(b, l, p, 1, 0);
		engine_parts_forget();
		for (int round = 0; round < rounds; round++)
			run_round(b, l, p, 1, round);
		printf("%s %d", engine_kind_name(p->kind), p->count);
		if (p->length > 0)
			printf(" x %d", p->length);
		printf(", depth %d: %.2f ms, %.1f %% of peak, %.1f GB/s\n", p->depth,
		                1e3 * median(p->seconds, rounds),
		                100 * median(p->peak_share, rounds), median(l->rate, rounds) / 1e9);
		engine_parts_print(team_size(b->team), median(l->peak, rounds),
		                median(l->f32, rounds));
	}
}

/* ---- starting ---- */

static void parse_arguments(int argc, char **argv, struct settings *s) {
	static const struct option options[] = { { "threads", 1, NULL, 't' },
		{ "rounds", 1, NULL, 'n' }, { "kernels", 1, NULL, 'k' },
		{ "cpu-level", 1, NULL, 'l' }, { "weights", 1, NULL, 'w' }, { "kv", 1, NULL, 'v' },
		{ "rows", 1, NULL, 'r' }, { "context", 1, NULL, 'c' }, { "json", 0, NULL, 'j' },
		{ "lines", 0, NULL, 'i' }, { "parts", 0, NULL, 'p' }, { NULL, 0, NULL, 0 } };
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 't')
			s->threads = atoi(optarg);
		else if (c == 'n')
			s->rounds = atoi(optarg);
		else if (c == 'k')
			s->kernels = optarg;
		else if (c == 'l' && !cpu_level_parse(optarg, &s->level))
			fail("cpu levels are auto, c, avx2, avx512, avx512-vnni and avx512-bf16");
		else if (c == 'w' && !weight_format_parse(optarg, &s->weights))
			fail("--weights is auto, f32, bf16, int8 or int4");
		else if (c == 'v' && !kv_format_parse(optarg, &s->kv))
			fail("--kv is auto, f32 or bf16");
		else if (c == 'r')
			s->rows = optarg;
		else if (c == 'c')
			s->context = atoi(optarg);
		else if (c == 'j')
			s->json = true;
		else if (c == 'i')
			s->lines = true;
		else if (c == 'p')
			s->parts = true;
		else if (c == '?')
			exit(2);
	}
	if (optind + 1 != argc || s->threads < 1 || s->rounds < 1 || s->rounds > ENGINE_ROUNDS
	                || s->context < 1 || s->context > ENGINE_PREFILL)
		fail("usage: engine [--threads N] [--rounds N] [--weights auto|f32|bf16|int8|int4] "
		     "[--kv auto|f32|bf16] [--rows prefill:128,decode,mixed,depth,encode:8x128] "
		     "[--context 32] [--kernels native|blas] [--cpu-level LEVEL] [--json] "
		     "[--parts] MODEL_FOLDER");
	s->dir = argv[optind];
}

static void start(struct engine_bench *b, struct limits *l, const struct settings *s) {
	char err[512];
	const struct ops *ops = ops_select(s->kernels, s->level, err, sizeof err);
	if (ops && s->parts)
		ops = engine_parts_watch(ops);
	struct model_options options = { .ops = ops, .threads = s->threads, .weights = s->weights };
	b->context = s->context;
	if (!ops || !(b->model = model_open(s->dir, &options, err, sizeof err))
	                || !(b->team = team_create(s->threads, err, sizeof err))
	                || !engine_bench_prepare(b, s->kv, err, sizeof err))
		fail(err);
	l->level = s->level == CPU_LEVEL_AUTO ? cpu_level_detect() : s->level;
	l->arena_floats = (size_t)96 << 20;
	l->arena = aligned_alloc(1 << 21, l->arena_floats * sizeof *l->arena);
	if (!l->arena)
		fail("not enough memory");
	for (size_t i = 0; i < l->arena_floats; i++)
		l->arena[i] = (float)(i % 1021);
}

/*
 * Answers each line of standard input, a list of points, with one of JSON: for whoever runs others
 * in turn with this. The team sleeps in between.
 */
static bool answer_lines(struct engine_bench *b, struct limits *l) {
	static struct engine_point points[ENGINE_POINTS];
	char line[512];
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		int n = engine_points(b, line, points);
		if (n < 1)
			return false;
		run_round(b, l, points, n, 0);
		print_json(b, l, points, n, 1);
		fflush(stdout);
	}
	return true;
}

static const char unknown_rows[] =
                "--rows is a list of prefill, decode, depth, mixed and encode, each "
                "with :COUNT or :TEXTSxTOKENS if you like";

int main(int argc, char **argv) {
	static struct engine_point points[ENGINE_POINTS];
	static struct limits limits;
	struct engine_bench b = { 0 };
	struct settings s = { .threads = threads_count(""),
		.rounds = 5,
		.context = 32,
		.kernels = "auto",
		.level = CPU_LEVEL_AUTO,
		.weights = WEIGHTS_AUTO,
		.kv = KV_AUTO };
	parse_arguments(argc, argv, &s);
	start(&b, &limits, &s);
	if (s.lines) {
		if (!answer_lines(&b, &limits))
			fail(unknown_rows);
		return 0;
	}
	int n = engine_points(&b, s.rows, points);
	if (n < 1)
		fail(unknown_rows);
	if (s.parts) {
		print_parts(&b, &limits, points, n, s.rounds);
	} else {
		run_round(&b, &limits, points, n, 0);
		for (int round = 0; round < s.rounds; round++)
			run_round(&b, &limits, points, n, round);
		(s.json ? print_json : print_text)(&b, &limits, points, n, s.rounds);
	}
	workspace_destroy(b.w);
	team_destroy(b.team);
	model_close(b.model);
	free(limits.arena);
	return 0;
}
