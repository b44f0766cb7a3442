/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that do nothing but multiply-adds, or nothing but loads. Every loop over sums is unrolled:
 * else gcc keeps the sums in memory.
 */
#include "bench/measure/limits.h"

#include <time.h>

enum { CHAINS = 12, FMA_ROUNDS = 400000, WAYS = 3 };

double limits_seconds(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A loop over one thread's share; returns something that depends on all of it. */
typedef float fma_loop(int rounds);
typedef float read_loop(const float *data, size_t n, int way);

static float fma_plain(int rounds) {
	float sums[CHAINS] = { 0 };
	for (int i = 0; i < rounds; i++)
		for (int c = 0; c < CHAINS; c++)
			sums[c] = __builtin_fmaf(sums[c], 0.999f, 1.0f);
	for (int c = 1; c < CHAINS; c++)
		sums[0] += sums[c];
	return sums[0];
}

static float read_plain(const float *data, size_t n, int way) {
	float sums[16] = { 0 };
	for (size_t i = 0; i + 16 <= n; i += 16)
		for (int j = 0; j < 16; j++)
			sums[j] += data[i + (size_t)j];
	for (int j = 1; j < 16; j++)
		sums[0] += sums[j];
	return sums[0];
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2,fma"))) static float fma_avx2(int rounds) {
	__m256 sums[CHAINS], factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(1.0f);
#pragma GCC unroll 16
	for (int c = 0; c < CHAINS; c++)
		sums[c] = _mm256_setzero_ps();
	for (int i = 0; i < rounds; i++)
#pragma GCC unroll 16
		for (int c = 0; c < CHAINS; c++) {
			sums[c] = _mm256_fmadd_ps(sums[c], factor, term);
			__asm__("" : "+x"(sums[c]));
		}
#pragma GCC unroll 16
	for (int c = 1; c < CHAINS; c++)
		sums[0] = _mm256_add_ps(sums[0], sums[c]);
	return _mm256_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f"))) static float fma_avx512(int rounds) {
	__m512 sums[CHAINS], factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(1.0f);
#pragma GCC unroll 16
	for (int c = 0; c < CHAINS; c++)
		sums[c] = _mm512_setzero_ps();
	for (int i = 0; i < rounds; i++)
#pragma GCC unroll 16
		for (int c = 0; c < CHAINS; c++) {
			sums[c] = _mm512_fmadd_ps(sums[c], factor, term);
			__asm__("" : "+v"(sums[c]));
		}
#pragma GCC unroll 16
	for (int c = 1; c < CHAINS; c++)
		sums[0] = _mm512_add_ps(sums[0], sums[c]);
	return _mm512_cvtss_f32(sums[0]);
}

/* Ways: as the hardware likes; with a prefetch some KiB ahead; two streams side by side. */
__attribute__((target("avx2"))) static float read_avx2(const float *data, size_t n, int way) {
	enum { STEP = 64 };
	size_t streams = way == 2 ? 2 : 1, each = n / streams, ahead = way == 1 ? 2048 : 0;
	__m256 sums[8];
#pragma GCC unroll 8
	for (int j = 0; j < 8; j++)
		sums[j] = _mm256_setzero_ps();
	for (size_t i = 0; i + STEP <= each; i += STEP) {
		for (size_t s = 0; s < streams; s++) {
			const float *at = data + s * each + i;
			if (ahead)
				for (int j = 0; j < STEP; j += 16)
					_mm_prefetch((const char *)(at + ahead + j), _MM_HINT_T0);
#pragma GCC unroll 8
			for (int j = 0; j < 8; j++)
				sums[j] = _mm256_add_ps(sums[j], _mm256_loadu_ps(at + j * 8));
		}
	}
#pragma GCC unroll 8
	for (int j = 1; j < 8; j++)
		sums[0] = _mm256_add_ps(sums[0], sums[j]);
	return _mm256_cvtss_f32(sums[0]);
}

static const struct {
	fma_loop *fma;
	read_loop *read;
} loops[] = { { fma_plain, read_plain }, { fma_avx2, read_avx2 }, { fma_avx512, read_avx2 } };
static const int loop_lanes[] = { 1, 8, 16 };
enum { LOOPS = 3 };
#else
static const struct {
	fma_loop *fma;
	read_loop *read;
} loops[] = { { fma_plain, read_plain } };
static const int loop_lanes[] = { 1 };
enum { LOOPS = 1 };
#endif

struct work {
	struct team *team;
	enum cpu_level level;
	const float *data;
	size_t n;
	int way;
	volatile float kept;
};

static void run_fma(void *arg, int member) {
	struct work *w = arg;
	float result = loops[w->level].fma(FMA_ROUNDS);
	if (member == 0)
		w->kept = result;
}

static void run_read(void *arg, int member) {
	struct work *w = arg;
	size_t each = w->n / (size_t)team_size(w->team) / 1024 * 1024;
	float result = loops[(int)w->level < (int)LOOPS ? (int)w->level : LOOPS - 1].read(
	                w->data + (size_t)member * each, each, w->way);
	if (member == 0)
		w->kept = result;
}

double limits_flops(struct team *team, enum cpu_level level) {
	struct work w = { .team = team };
	double best = 0;
	for (int l = CPU_LEVEL_C; l <= (int)level && l < (int)LOOPS; l++) {
		w.level = (enum cpu_level)l;
		for (int turn = 0; turn < 3; turn++) {
			double start = limits_seconds();
			team_run(team, run_fma, &w);
			double seconds = limits_seconds() - start;
			double flops = 2.0 * FMA_ROUNDS * CHAINS * loop_lanes[l] * team_size(team);
			best = flops / seconds > best ? flops / seconds : best;
		}
	}
	return best;
}

double limits_bandwidth(struct team *team, enum cpu_level level, const float *data, size_t n) {
	struct work w = { .team = team, .level = level, .data = data, .n = n };
	double best = 0;
	for (w.way = 0; w.way < WAYS; w.way++) {
		double start = limits_seconds();
		team_run(team, run_read, &w);
		double rate = (double)(n * sizeof(float)) / (limits_seconds() - start);
		best = rate > best ? rate : best;
	}
	return best;
}
