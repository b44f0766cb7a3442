/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How close linear layers come to the machine's limits, for every number of rows, beside OpenBLAS
 * and oneDNN.
 *
 * The roofline of a product is the longer of two times: its arithmetic at the measured peak of the
 * instruction that the format is multiplied with, and its weights at the measured rate of memory.
 * Limits and products are timed in turn in every round, so that a machine that changes its speed
 * changes all of them. Reported: medians over rounds, of roofline time / time taken, and of what
 * others took / what ours took.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure/limits.h"
#include "bench/measure/rival.h"
#include "model/threads.h"

enum { ROUNDS_MAX = 64, LIST_MAX = 32, ROWS_LIMIT = 4096, RIVALS = 3, PAD = 64 };

struct shape {
	int n_in, n_out;
};

struct settings {
	int threads, rounds, n_rows, n_shapes;
	int rows[LIST_MAX];
	struct shape shapes[LIST_MAX];
	bool json, alone; /* alone: without others */
	const char *kernels;
	enum cpu_level level;
	enum weight_format format;
	enum activation activation;
};

struct machine {
	struct team *team;
	const struct ops *own;
	enum cpu_level level;
	struct rival *rivals[RIVALS];              /* ours first; NULL: not there */
	float *weights, *x, *y, *bias, *memory;    /* memory: read for its rate */
	double peak[ROUNDS_MAX], rate[ROUNDS_MAX]; /* of the last product */
};

/* One row count of one shape: seconds by round, 0 where there is no such product. */
struct result {
	struct shape shape;
	int rows;
	double roofline[ROUNDS_MAX], seconds[RIVALS][ROUNDS_MAX];
	double bytes; /* of the weights */
	bool bound_by_memory;
};

static _Noreturn void fail(const char *sentence) {
	fprintf(stderr, "kernels: %s\n", sentence);
	exit(1);
}

/* Reproducible numbers in [-1, 1). */
static float *allocate(size_t floats) {
	float *p = aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
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

/* The median over rounds of above / below. */
static double median_ratio(const double *above, const double *below, int rounds) {
	double ratios[ROUNDS_MAX];
	for (int i = 0; i < rounds; i++)
		ratios[i] = above[i] / below[i];
	return median(ratios, rounds);
}

/* Seconds of one product, over as many as fill some 15 ms; the first ones do not count. */
static double time_product(struct rival *rival, double roofline) {
	int turns = (int)(0.015 / roofline) + 1;
	rival->run(rival, turns / 8 + 1);
	double start = limits_seconds();
	rival->run(rival, turns);
	double seconds = (limits_seconds() - start) / turns;
	rival->rest(rival);
	return seconds;
}

static void run_product(struct machine *m, const struct settings *s, struct result *result) {
	struct product_case c = { .format = s->format, .activation = s->activation };
	bool there[RIVALS] = { false };
	c.n_in = result->shape.n_in;
	c.n_out = result->shape.n_out;
	c.rows = result->rows;
	c.weights = m->weights;
	c.x = m->x;
	c.y = m->y;
	c.bias = m->bias;
	for (int r = 0; r < RIVALS; r++)
		there[r] = m->rivals[r] && m->rivals[r]->prepare(m->rivals[r], &c);
	if (!there[0])
		fail("this table has no such product, or a shape is larger than the arena");
	result->bytes = (double)m->own->formats[s->format].matrix_bytes(c.n_out, c.n_in);
	for (int round = 0; round < s->rounds; round++) {
		m->peak[round] = limits_peak(m->team, m->level, s->format);
		m->rate[round] = limits_bandwidth(
		                m->team, m->level, m->memory, ARENA_BYTES / sizeof(float));
		double arithmetic = 2.0 * c.n_in * c.n_out * c.rows / m->peak[round];
		double memory = result->bytes / m->rate[round];
		result->bound_by_memory = memory > arithmetic;
		result->roofline[round] = memory > arithmetic ? memory : arithmetic;
		for (int r = 0; r < RIVALS; r++)
			if (there[r])
				result->seconds[r][round] =
				                time_product(m->rivals[r], result->roofline[round]);
	}
}

/* By row count, over all shapes. */
static void print_medians(
                const struct machine *m, const struct settings *s, const struct result *results) {
	printf("\n%12s %5s %21s", "all shapes", "rows", "roofline");
	for (int v = 1; v < RIVALS; v++)
		if (m->rivals[v])
			printf(" %14s", m->rivals[v]->name);
	printf("\n");
	for (int r = 0; r < s->n_rows; r++) {
		double shares[RIVALS][LIST_MAX];
		for (int i = 0; i < s->n_shapes; i++) {
			const struct result *one = &results[i * s->n_rows + r];
			shares[0][i] = median_ratio(one->roofline, one->seconds[0], s->rounds);
			for (int v = 1; v < RIVALS; v++)
				shares[v][i] = median_ratio(
				                one->seconds[v], one->seconds[0], s->rounds);
		}
		printf("%12s %5d %20.1f%%", "median", s->rows[r],
		                100 * median(shares[0], s->n_shapes));
		for (int v = 1; v < RIVALS; v++)
			if (m->rivals[v])
				printf(" %13.2fx", median(shares[v], s->n_shapes));
		printf("\n");
	}
}

static void print_table(
                const struct machine *m, const struct settings *s, const struct result *results) {
	printf("%s kernels, %s weights, %d threads: %.0f Gop/s (%s), %.1f GB/s; medians of %d "
	       "rounds\n",
	                m->own->name, weight_format_name(s->format), s->threads,
	                median(m->peak, s->rounds) / 1e9, limits_instruction(m->level, s->format),
	                median(m->rate, s->rounds) / 1e9, s->rounds);
	if (m->rivals[1])
		printf("OpenBLAS: %s\n", ops_blas_description());
	printf("%12s %5s %9s %9s %8s %8s", "in x out", "rows", "us", "roofline", "Gop/s", "GB/s");
	for (int v = 1; v < RIVALS; v++)
		if (m->rivals[v])
			printf(" %12s us %8s", m->rivals[v]->name, "x");
	printf("\n");
	for (int i = 0; i < s->n_shapes * s->n_rows; i++) {
		const struct result *r = &results[i];
		double seconds = median(r->seconds[0], s->rounds);
		printf("%6d x %-5d %3d %9.1f %6.1f%% %s %8.1f %8.1f", r->shape.n_in, r->shape.n_out,
		                r->rows, seconds * 1e6,
		                100 * median_ratio(r->roofline, r->seconds[0], s->rounds),
		                r->bound_by_memory ? "m" : "a",
		                2e-9 * r->shape.n_in * r->shape.n_out * r->rows / seconds,
		                1e-9 * r->bytes / seconds);
		for (int v = 1; v < RIVALS; v++)
			if (m->rivals[v])
				printf(" %15.1f %7.2fx", median(r->seconds[v], s->rounds) * 1e6,
				                median_ratio(r->seconds[v], r->seconds[0],
				                                s->rounds));
		printf("\n");
	}
	print_medians(m, s, results);
}

static void print_json(
                const struct machine *m, const struct settings *s, const struct result *results) {
	printf("{\"kernels\": \"%s\", \"weights\": \"%s\", \"threads\": %d, \"rounds\": %d, "
	       "\"peak\": %.4g, \"bandwidth\": %.4g, \"results\": [",
	                m->own->name, weight_format_name(s->format), s->threads, s->rounds,
	                median(m->peak, s->rounds), median(m->rate, s->rounds));
	for (int i = 0; i < s->n_shapes * s->n_rows; i++) {
		const struct result *r = &results[i];
		printf("%s\n{\"in\": %d, \"out\": %d, \"rows\": %d, \"seconds\": %.4g, "
		       "\"roofline_share\": %.4f",
		                i ? "," : "", r->shape.n_in, r->shape.n_out, r->rows,
		                median(r->seconds[0], s->rounds),
		                median_ratio(r->roofline, r->seconds[0], s->rounds));
		for (int v = 1; v < RIVALS; v++)
			if (m->rivals[v] && r->seconds[v][0] > 0)
				printf(", \"%s\": {\"seconds\": %.4g, \"ours_is_faster_by\": %.4f}",
				                m->rivals[v]->name,
				                median(r->seconds[v], s->rounds),
				                median_ratio(r->seconds[v], r->seconds[0],
				                                s->rounds));
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
	       "               [--format f32|bf16|int8|int4] [--gelu] [--alone]\n"
	       "               [--kernels native|blas] [--cpu-level auto|c|avx2|avx512|...] "
	       "[--json]\n"
	       "--gelu: with GELU on the results; --alone: without OpenBLAS and oneDNN beside\n");
}

static void parse_arguments(int argc, char **argv, struct settings *s) {
	static const struct option options[] = { { "threads", 1, NULL, 't' },
		{ "rounds", 1, NULL, 'n' }, { "rows", 1, NULL, 'r' }, { "shapes", 1, NULL, 's' },
		{ "kernels", 1, NULL, 'k' }, { "cpu-level", 1, NULL, 'l' },
		{ "format", 1, NULL, 'f' }, { "gelu", 0, NULL, 'g' }, { "alone", 0, NULL, 'a' },
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
			fail("there is no such cpu level");
		else if (c == 'f' && (!weight_format_parse(optarg, &s->format) || s->format < 0))
			fail("formats are f32, bf16, int8 and int4");
		else if (c == 'g')
			s->activation = ACTIVATION_GELU;
		else if (c == 'a')
			s->alone = true;
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

/* Memory for the largest of what is asked for. */
static void machine_allocate(struct machine *m, const struct settings *s) {
	size_t weights = 0, widest = 0, rows = 0;
	for (int i = 0; i < s->n_shapes; i++) {
		size_t in = (size_t)s->shapes[i].n_in, out = (size_t)s->shapes[i].n_out;
		weights = in * out > weights ? in * out : weights;
		widest = in > widest ? in : widest;
		widest = out > widest ? out : widest;
	}
	for (int i = 0; i < s->n_rows; i++)
		rows = (size_t)s->rows[i] > rows ? (size_t)s->rows[i] : rows;
	m->weights = allocate(weights);
	m->x = allocate(rows * widest);
	m->y = allocate(rows * (widest + PAD));
	m->bias = allocate(widest);
	m->memory = arena_create();
	if (!m->memory)
		fail("not enough memory");
	memset(m->memory, 0, ARENA_BYTES);
}

int main(int argc, char **argv) {
	char err[256];
	struct settings s = { .threads = threads_count(""), .rounds = 5, .kernels = "native" };
	s.level = CPU_LEVEL_AUTO;
	s.n_rows = parse_list("1,2,4,8,12,16,32,64,128,512", s.rows, NULL);
	s.n_shapes = parse_list("1024x3072,1024x1024,1024x4096,4096x1024", NULL, s.shapes);
	parse_arguments(argc, argv, &s);
	struct machine m = { .own = ops_select(s.kernels, s.level, err, sizeof err) };
	if (!m.own || !(m.team = team_create(s.threads, err, sizeof err)))
		fail(err);
	m.level = s.level == CPU_LEVEL_AUTO ? cpu_level_detect() : s.level;
	machine_allocate(&m, &s);
	m.rivals[0] = rival_table(m.own, m.team);
	if (!m.rivals[0])
		fail("not enough memory");
	if (!s.alone && m.own != ops_blas() && s.format == WEIGHTS_F32)
		m.rivals[1] = rival_table(ops_blas(), m.team);
	if (!s.alone && s.format != WEIGHTS_INT4 && s.activation == ACTIVATION_NONE)
		m.rivals[2] = rival_onednn(s.threads); /* it is not asked for what it lacks */
	struct result *results = calloc((size_t)(s.n_shapes * s.n_rows), sizeof *results);
	if (!results)
		fail("not enough memory");
	for (int i = 0; i < s.n_shapes * s.n_rows; i++) {
		results[i].shape = s.shapes[i / s.n_rows];
		results[i].rows = s.rows[i % s.n_rows];
		run_product(&m, &s, &results[i]);
	}
	(s.json ? print_json : print_table)(&m, &s, results);
	for (int r = 0; r < RIVALS; r++)
		if (m.rivals[r])
			m.rivals[r]->destroy(m.rivals[r]);
	team_destroy(m.team);
	free(results);
	free(m.weights);
	free(m.x);
	free(m.y);
	free(m.bias);
	free(m.memory);
	return 0;
}
