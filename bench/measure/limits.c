/* SPDX-License-Identifier: Apache-2.0 */
/* The loops of limits_loops.h on a team; the best of a few turns counts. */
#include "bench/measure/limits.h"

#include <time.h>

#include "bench/measure/limits_loops.h"

enum { ROUNDS = 200000, TURNS = 3 };

struct work {
	struct team *team;
	const struct peak_loop *peak;
	const struct read_loop *read;
	const float *data;
	size_t n;
	volatile float kept;
};

double limits_seconds(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void run_peak(void *arg, int member) {
	struct work *w = arg;
	float result = w->peak->run(ROUNDS);
	if (member == 0)
		w->kept = result;
}

static void run_read(void *arg, int member) {
	struct work *w = arg;
	size_t each = w->n / (size_t)team_size(w->team) / 1024 * 1024;
	float result = w->read->run(w->data + (size_t)member * each, each);
	if (member == 0)
		w->kept = result;
}

/* Of the highest level up to `level`: within a level the best counts. */
static bool peak_counts(
                const struct peak_loop *p, enum cpu_level level, enum weight_format format) {
	return p->level <= level && (p->formats & 1u << format);
}

static double time_peak(struct team *team, const struct peak_loop *loop) {
	struct work w = { .team = team, .peak = loop };
	double best = 0;
	for (int turn = 0; turn < TURNS; turn++) {
		double start = limits_seconds();
		team_run(team, run_peak, &w);
		double seconds = limits_seconds() - start;
		double done = (double)ROUNDS * CHAINS * loop->operations * team_size(team);
		best = done / seconds > best ? done / seconds : best;
	}
	return best;
}

double limits_peak(struct team *team, enum cpu_level level, enum weight_format format) {
	double best = 0;
	for (size_t i = 0; i < n_peak_loops; i++) {
		const struct peak_loop *loop = &peak_loops[i];
		/* What is no vector is only measured where there is no other. */
		if (!peak_counts(loop, level, format)
		                || (level > CPU_LEVEL_C && loop->level == CPU_LEVEL_C))
			continue;
		double rate = time_peak(team, loop);
		best = rate > best ? rate : best;
	}
	return best > 0 ? best : time_peak(team, &peak_loops[0]);
}

const char *limits_instruction(enum cpu_level level, enum weight_format format) {
	const char *name = peak_loops[0].instruction;
	for (size_t i = 0; i < n_peak_loops; i++)
		if (peak_counts(&peak_loops[i], level, format))
			name = peak_loops[i].instruction;
	return name;
}

double limits_flops(struct team *team, enum cpu_level level) {
	return limits_peak(team, level, WEIGHTS_F32);
}

double limits_bandwidth(struct team *team, enum cpu_level level, const float *data, size_t n) {
	struct work w = { .team = team, .data = data, .n = n };
	double best = 0;
	for (size_t i = 0; i < n_read_loops; i++) {
		w.read = &read_loops[i];
		if (w.read->level > level || (level > CPU_LEVEL_C && w.read->level == CPU_LEVEL_C))
			continue;
		double start = limits_seconds();
		team_run(team, run_read, &w);
		double rate = (double)(n * sizeof(float)) / (limits_seconds() - start);
		best = rate > best ? rate : best;
	}
	return best;
}
