/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that do nothing but one instruction, or nothing but loads, by instruction set. All sums are
 * of whole registers; each is named to the compiler after its update, so that it stays in one.
 */
#include <immintrin.h>

#include "bench/measure/limits_loops.h"

static float fma_scalar(int rounds) {
	float sums[CHAINS] = { 0 };
	for (int i = 0; i < rounds; i++)
		for (int c = 0; c < CHAINS; c++)
			sums[c] = __builtin_fmaf(sums[c], 0.999f, 1.0f);
	for (int c = 1; c < CHAINS; c++)
		sums[0] += sums[c];
	return sums[0];
}

#define EACH_CHAIN _Pragma("GCC unroll 16") for (int c = 0; c < CHAINS; c++)

/* Chains of `link`, an expression over the sum s and the factors a and b, of registers of `type`. */
#define PEAK(name, set, type, factors, link)                                                       \
	__attribute__((target(set))) static float name(int rounds) {                               \
		type sums[CHAINS], a = factors, b = factors;                                       \
		__asm__("" : "+v"(a), "+v"(b));                                                    \
		EACH_CHAIN sums[c] = a;                                                            \
		for (int i = 0; i < rounds; i++) {                                                 \
			EACH_CHAIN {                                                               \
				type s = sums[c];                                                  \
				s = link;                                                          \
				__asm__("" : "+v"(s));                                             \
				sums[c] = s;                                                       \
			}                                                                          \
		}                                                                                  \
		float first;                                                                       \
		EACH_CHAIN __asm__("" : "+v"(sums[0]) : "v"(sums[c]));                             \
		__builtin_memcpy(&first, &sums[0], sizeof first);                                  \
		return first;                                                                      \
	}

#define AVX2 "avx2,fma"
#define AVX512 "avx512f,avx512bw,avx512vl"

PEAK(fma_avx2, AVX2, __m256, _mm256_set1_ps(0.5f), _mm256_fmadd_ps(s, a, b))
PEAK(words_avx2, AVX2, __m256i, _mm256_set1_epi16(3), _mm256_add_epi32(s, _mm256_madd_epi16(s, b)))
PEAK(bytes_avx2, AVX2, __m256i, _mm256_set1_epi8(3),
                _mm256_add_epi16(s, _mm256_maddubs_epi16(s, b)))
PEAK(fma_avx512, AVX512, __m512, _mm512_set1_ps(0.5f), _mm512_fmadd_ps(s, a, b))
PEAK(words_avx512, AVX512, __m512i, _mm512_set1_epi32(0x30003),
                _mm512_add_epi32(s, _mm512_madd_epi16(s, b)))
PEAK(bytes_avx512, AVX512, __m512i, _mm512_set1_epi32(0x3030303),
                _mm512_add_epi16(s, _mm512_maddubs_epi16(s, b)))
PEAK(bytes_vnni, AVX512 ",avx512vnni", __m512i, _mm512_set1_epi32(0x3030303),
                _mm512_dpbusd_epi32(s, a, b))
PEAK(pairs_bf16, AVX512 ",avx512bf16", __m512, _mm512_set1_ps(0.5f),
                _mm512_dpbf16_ps(s, (__m512bh)a, (__m512bh)b))

enum {
	F32 = 1 << WEIGHTS_F32,
	BF16 = 1 << WEIGHTS_BF16,
	INT8 = 1 << WEIGHTS_INT8,
	INT4 = 1 << WEIGHTS_INT4
};

const struct peak_loop peak_loops[] = {
	{ "fma", CPU_LEVEL_C, F32 | BF16 | INT8 | INT4, 2, fma_scalar },
	{ "256-bit vfmadd", CPU_LEVEL_AVX2, F32 | BF16, 16, fma_avx2 },
	{ "256-bit vpmaddwd + vpaddd", CPU_LEVEL_AVX2, INT8, 32, words_avx2 },
	{ "256-bit vpmaddubsw + vpaddw", CPU_LEVEL_AVX2, INT4, 64, bytes_avx2 },
	{ "512-bit vfmadd", CPU_LEVEL_AVX512, F32 | BF16, 32, fma_avx512 },
	{ "512-bit vpmaddwd + vpaddd", CPU_LEVEL_AVX512, INT8, 64, words_avx512 },
	{ "512-bit vpmaddubsw + vpaddw", CPU_LEVEL_AVX512, INT4, 128, bytes_avx512 },
	{ "512-bit vpdpbusd", CPU_LEVEL_AVX512_VNNI, INT8 | INT4, 128, bytes_vnni },
	{ "512-bit vdpbf16ps", CPU_LEVEL_AVX512_BF16, BF16, 64, pairs_bf16 },
};
const size_t n_peak_loops = sizeof peak_loops / sizeof *peak_loops;

static float read_sse(const float *data, size_t n) {
	__m128 sums[4] = { _mm_setzero_ps(), _mm_setzero_ps(), _mm_setzero_ps(), _mm_setzero_ps() };
	for (size_t i = 0; i + 16 <= n; i += 16)
		for (int j = 0; j < 4; j++)
			sums[j] = _mm_add_ps(sums[j], _mm_loadu_ps(data + i + j * 4));
	return _mm_cvtss_f32(sums[0] + sums[1] + sums[2] + sums[3]);
}

/*
 * Reads `streams` parts of data side by side, a line of each in turn, with a prefetch `ahead` bytes
 * before (0: none).
 */
#define READ(name, set, type, load, add, streams, ahead)                                           \
	__attribute__((target(set))) static float name(const float *data, size_t n) {              \
		enum { LINE = 16, EACH = LINE * sizeof(float) / sizeof(type), STEP = 4 * LINE };   \
		size_t part = n / (streams);                                                       \
		type sums[4 * EACH] = { 0 };                                                       \
		for (size_t i = 0; i + STEP <= part; i += STEP) {                                  \
			for (size_t s = 0; s < (streams); s++) {                                   \
				const float *at = data + s * part + i;                             \
				for (int line = 0; line < 4 && (ahead); line++)                    \
					_mm_prefetch((const char *)(at + line * LINE) + (ahead),   \
					                _MM_HINT_T0);                              \
				_Pragma("GCC unroll 16") for (int j = 0; j < 4 * EACH;             \
				                              j++) sums[j] = add(sums[j],          \
				                load(at + (size_t)j * sizeof(type) / 4));          \
			}                                                                          \
		}                                                                                  \
		_Pragma("GCC unroll 16") for (int j = 1; j < 4 * EACH; j++) sums[0] =              \
		                add(sums[0], sums[j]);                                             \
		return sums[0][0];                                                                 \
	}

READ(read_ymm, AVX2, __m256, _mm256_loadu_ps, _mm256_add_ps, 1, 0)
READ(read_ymm_ahead, AVX2, __m256, _mm256_loadu_ps, _mm256_add_ps, 1, 8192)
READ(read_ymm_two, AVX2, __m256, _mm256_loadu_ps, _mm256_add_ps, 2, 0)
READ(read_zmm, AVX512, __m512, _mm512_loadu_ps, _mm512_add_ps, 1, 0)
READ(read_zmm_ahead, AVX512, __m512, _mm512_loadu_ps, _mm512_add_ps, 1, 4096)
READ(read_zmm_two, AVX512, __m512, _mm512_loadu_ps, _mm512_add_ps, 2, 4096)

const struct read_loop read_loops[] = {
	{ CPU_LEVEL_C, read_sse },
	{ CPU_LEVEL_AVX2, read_ymm },
	{ CPU_LEVEL_AVX2, read_ymm_ahead },
	{ CPU_LEVEL_AVX2, read_ymm_two },
	{ CPU_LEVEL_AVX512, read_zmm },
	{ CPU_LEVEL_AVX512, read_zmm_ahead },
	{ CPU_LEVEL_AVX512, read_zmm_two },
};
const size_t n_read_loops = sizeof read_loops / sizeof *read_loops;
