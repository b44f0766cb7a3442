/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How close linear layers come to the machine's limits, for every number of rows, beside OpenBLAS.
 *
 * The roofline of a product is the longer of two times: its arithmetic at the measured peak, and its
 * weights at the measured rate of memory. Limits and products are timed in turn in every round, so
 * that a machine that changes its speed changes both. Weights come from an arena far larger than the
 * caches. Reported: the median over rounds of roofline time / time taken.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure/limits.h"
#include "model/threads.h"

enum { ROUNDS_MAX = 64, LIST_MAX = 32, ROWS_LIMIT = 4096, PAD = 16 };

struct shape {
	int n_in, n_out;
};

struct settings {
	int threads, rounds, n_rows, n_shapes;
	int rows[LIST_MAX];
	struct shape shapes[LIST_MAX];
	bool json;
	const char *kernels;
	enum cpu_level level;
};

/* What one timing of one table does. */
struct job {
	struct team *team;
	const struct ops *ops;
	struct shape shape;
	int rows, turns;
	size_t next, copies, stride; /* matrices in the arena, and floats of one */
	const float *arena;
	const float *x, *bias;
	float *y;
};

struct machine {
	struct team *team;
	const struct ops *own, *blas; /* blas: NULL if not built */
	float *arena, *x, *y;
	size_t arena_floats;
	double flops[ROUNDS_MAX], bandwidth[ROUNDS_MAX];
};

/* One row count of one shape: shares of the roofline and seconds, by round. */
struct result {
	struct shape shape;
	int rows;
	double seconds[2][ROUNDS_MAX], share[2][ROUNDS_MAX];
};

static _Noreturn void fail(const char *sentence) {
	fprintf(stderr, "kernels: %s\n", sentence);
	exit(1);
}

static float *allocate(size_t floats) {
	float *p = aligned_alloc(1 << 21, (floats * sizeof(float) + (1 << 21) - 1) >> 21 << 21);
	if (!p)
		fail("not enough memory");
	uint32_t seed = 12345;
	for (size_t i = 0; i < floats; i++) {
		seed = seed * 1664525u + 1013904223u;
		p[i] = (float)(int32_t)seed * 0x1p-31f;
	}
	return p;
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

static void run_job(void *arg, int member) {
	const struct job *j = arg;
	struct matrix w = { .n_out = j->shape.n_out, .n_in = j->shape.n_in };
	w.n_panels = (w.n_out + j->ops->panel - 1) / j->ops->panel;
	struct linear l = { .w = &w, .bias = j->bias, .x = j->x, .y = j->y, .rows = j->rows };
	l.x_stride = ((size_t)w.n_in + PAD) * sizeof(float);
	l.ldy = (size_t)w.n_out + PAD;
	int first, end;
	team_share(w.n_panels, member, team_size(j->team), &first, &end);
	for (int turn = 0; turn < j->turns; turn++) {
		w.data = j->arena + (j->next + (size_t)turn) % j->copies * j->stride;
		j->ops->formats[WEIGHTS_F32].linear(&l, first, end);
		team_barrier(j->team, member);
	}
}

/* Seconds of one product, over as many as fill some 15 ms. */
static double time_product(struct machine *m, const struct ops *ops, struct shape s, int rows,
                double roofline) {
	static size_t next;
	struct job j = { m->team, ops, s, rows };
	j.turns = (int)(0.015 / roofline) + 1;
	j.stride = ops->formats[WEIGHTS_F32].matrix_bytes(s.n_out, s.n_in) / sizeof(float);
	j.copies = m->arena_floats / j.stride;
	if (j.copies == 0)
		fail("a shape is larger than the arena");
	j.next = next;
	j.arena = m->arena;
	j.x = j.bias = m->x;
	j.y = m->y;
	double start = limits_seconds();
	team_run(m->team, run_job, &j);
	next += (size_t)j.turns;
	return (limits_seconds() - start) / j.turns;
}

static void run_round(
                struct machine *m, const struct settings *s, int round, struct result *results) {
	enum cpu_level level = s->level == CPU_LEVEL_AUTO ? cpu_level_detect() : s->level;
	for (int i = 0; i < s->n_shapes; i++) {
		struct shape shape = s->shapes[i];
		double flops = limits_flops(m->team, level);
		double rate = limits_bandwidth(m->team, level, m->arena, m->arena_floats);
		double weights = (double)shape.n_in * shape.n_out;
		for (int r = 0; r < s->n_rows; r++) {
			struct result *result = &results[i * s->n_rows + r];
			double arithmetic = 2 * weights * s->rows[r] / flops;
			double memory = 4 * weights / rate;
			double roofline = arithmetic > memory ? arithmetic : memory;
			for (int t = 0; t < (m->blas ? 2 : 1); t++) {
				double seconds = time_product(m, t ? m->blas : m->own, shape,
				                s->rows[r], roofline);
				result->shape = shape;
				result->rows = s->rows[r];
				result->seconds[t][round] = seconds;
				result->share[t][round] = roofline / seconds;
			}
		}
		m->flops[round] = flops;
		m->bandwidth[round] = rate;
	}
}

static void print_table(
                const struct machine *m, const struct settings *s, const struct result *results) {
	printf("%s kernels, %d threads: %.0f Gflop/s, %.1f GB/s (medians of %d rounds)\n",
	                m->own->name, s->threads, median(m->flops, s->rounds) / 1e9,
	                median(m->bandwidth, s->rounds) / 1e9, s->rounds);
	if (m->blas)
		printf("OpenBLAS: %s\n", ops_blas_description());
	printf("%12s %5s %10s %9s %9s %12s %10s\n", "in x out", "rows", "us", "roofline", "Gflop/s",
	                "OpenBLAS us", "x OpenBLAS");
	for (int i = 0; i < s->n_shapes * s->n_rows; i++) {
		const struct result *r = &results[i];
		double seconds = median(r->seconds[0], s->rounds);
		printf("%6d x %-5d %3d %10.1f %8.0f%% %9.1f", r->shape.n_in, r->shape.n_out,
		                r->rows, seconds * 1e6, 100 * median(r->share[0], s->rounds),
		                2e-9 * r->shape.n_in * r->shape.n_out * r->rows / seconds);
		if (m->blas)
			printf(" %12.1f %9.2fx", median(r->seconds[1], s->rounds) * 1e6,
			                median(r->seconds[1], s->rounds) / seconds);
		printf("\n");
	}
	printf("\n%12s %5s %10s %9s\n", "all shapes", "rows", "", "roofline");
	for (int r = 0; r < s->n_rows; r++) {
		double shares[LIST_MAX];
		for (int i = 0; i < s->n_shapes; i++)
			shares[i] = median(results[i * s->n_rows + r].share[0], s->rounds);
		printf("%12s %5d %10s %8.0f%%\n", "median", s->rows[r], "",
		                100 * median(shares, s->n_shapes));
	}
}

static void print_json(
                const struct machine *m, const struct settings *s, const struct result *results) {
	printf("{\"kernels\": \"%s\", \"threads\": %d, \"rounds\": %d, \"flops\": %.4g, "
	       "\"bandwidth\": %.4g, \"results\": [",
	                m->own->name, s->threads, s->rounds, median(m->flops, s->rounds),
	                median(m->bandwidth, s->rounds));
	for (int i = 0; i < s->n_shapes * s->n_rows; i++) {
		const struct result *r = &results[i];
		printf("%s\n{\"in\": %d, \"out\": %d, \"rows\": %d, \"seconds\": %.4g, "
		       "\"roofline_share\": %.4f",
		                i ? "," : "", r->shape.n_in, r->shape.n_out, r->rows,
		                median(r->seconds[0], s->rounds), median(r->share[0], s->rounds));
		if (m->blas)
			printf(", \"openblas_seconds\": %.4g, \"openblas_roofline_share\": %.4f",
			                median(r->seconds[1], s->rounds),
			                median(r->share[1], s->rounds));
		printf("}");
	}
	printf("]}\n");
}

/* "1,2,8" or "1024x3072,1024x1024" */
static int parse_list(const char *text, int *rows, struct shape *shapes) {
	int n = 0;
	while (*text && n < LIST_MAX) {
		char *end;
		long first = strtol(text, &end, 10), second = 1;
		if (shapes && *end == 'x')
			second = strtol(end + 1, &end, 10);
		if (first < 1 || second < 1 || first > 1 << 20 || second > 1 << 20
		                || (rows && first > ROWS_LIMIT) || (*end && *end != ','))
			fail("a list is rows like 1,8,64 or shapes like 1024x3072,1024x1024");
		if (rows)
			rows[n] = (int)first;
		else
			shapes[n] = (struct shape){ (int)first, (int)second };
		n++;
		text = *end ? end + 1 : end;
	}
	return n;
}

static void usage(void) {
	printf("usage: kernels [--threads N] [--rounds N] [--rows 1,8,64] [--shapes "
	       "1024x3072,...]\n"
	       "               [--kernels native|blas] [--cpu-level auto|c|avx2|avx512] "
	       "[--json]\n");
}

static void parse_arguments(int argc, char **argv, struct settings *s) {
	static const struct option options[] = { { "threads", 1, NULL, 't' },
		{ "rounds", 1, NULL, 'n' }, { "rows", 1, NULL, 'r' }, { "shapes", 1, NULL, 's' },
		{ "kernels", 1, NULL, 'k' }, { "cpu-level", 1, NULL, 'l' },
		{ "json", 0, NULL, 'j' }, { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 't')
			s->threads = atoi(optarg);
		else if (c == 'n')
			s->rounds = atoi(optarg);
		else if (c == 'r')
			s->n_rows = parse_list(optarg, s->rows, NULL);
		else if (c == 's')
			s->n_shapes = parse_list(optarg, NULL, s->shapes);
		else if (c == 'k')
			s->kernels = optarg;
		else if (c == 'l' && !cpu_level_parse(optarg, &s->level))
			fail("cpu levels are auto, c, avx2 and avx512");
		else if (c == 'j')
			s->json = true;
		else if (c == 'h' || c == '?') {
			usage();
			exit(c == 'h' ? 0 : 2);
		}
	}
	if (s->threads < 1 || s->rounds < 1 || s->rounds > ROUNDS_MAX)
		fail("threads and rounds are at least 1, rounds at most 64");
}

int main(int argc, char **argv) {
	char err[256];
	struct settings s = { .threads = threads_count(""), .rounds = 5, .kernels = "native" };
	s.level = CPU_LEVEL_AUTO;
	s.n_rows = parse_list("1,2,4,8,16,32,64,128,512", s.rows, NULL);
	s.n_shapes = parse_list("1024x3072,1024x1024,1024x4096,4096x1024", NULL, s.shapes);
	parse_arguments(argc, argv, &s);
	struct machine m = { .own = ops_select(s.kernels, s.level, err, sizeof err) };
	if (!m.own || !(m.team = team_create(s.threads, err, sizeof err)))
		fail(err);
	m.blas = m.own == ops_blas() ? NULL : ops_blas();
	int widest = 0, most_rows = 0;
	for (int i = 0; i < s.n_shapes; i++) {
		widest = s.shapes[i].n_in > widest ? s.shapes[i].n_in : widest;
		widest = s.shapes[i].n_out > widest ? s.shapes[i].n_out : widest;
	}
	for (int i = 0; i < s.n_rows; i++)
		most_rows = s.rows[i] > most_rows ? s.rows[i] : most_rows;
	m.arena_floats = (size_t)96 << 20;
	m.arena = allocate(m.arena_floats);
	m.x = allocate((size_t)most_rows * (size_t)(widest + PAD));
	m.y = allocate((size_t)most_rows * (size_t)(widest + PAD));
	struct result *results = calloc((size_t)(s.n_shapes * s.n_rows), sizeof *results);
	if (!results)
		fail("not enough memory");
	for (int round = 0; round < s.rounds; round++)
		run_round(&m, &s, round, results);
	(s.json ? print_json : print_table)(&m, &s, results);
	team_destroy(m.team);
	free(results);
	free(m.arena);
	free(m.x);
	free(m.y);
	return 0;
}
