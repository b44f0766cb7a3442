/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV blocks of an overlay: widening what is cached, and storing positions. Only shifts, masks and
 * copies, which compilers make of plain vector types whatever the instruction set; the arithmetic
 * is in model/vector_attend.h. Part of model/vector_ops.h.
 */
#include "model/bf16.h"

typedef uint16_t halves __attribute__((vector_size(LANES * 2)));
typedef uint32_t words __attribute__((vector_size(LANES * 4)));
typedef int32_t signed_words __attribute__((vector_size(LANES * 4)));
typedef uint32_t words4 __attribute__((vector_size(16)));
typedef int32_t signed_words4 __attribute__((vector_size(16)));

/* LANES numbers of a block from index `at` on, widened. */
static inline __attribute__((always_inline)) vec kv_load(
                const void *block, size_t at, const enum kv_format format) {
	if (format == KV_F32)
		return vec_load((const float *)block + at);
	halves narrow;
	memcpy(&narrow, (const uint16_t *)block + at, sizeof narrow);
	words wide = __builtin_convertvector(narrow, words) << 16;
	vec v;
	memcpy(&v, &wide, sizeof v);
	return v;
}

/*
 * `vectors` vectors of them, literal. Pairs of vectors of bf16 come parted, which costs one operation
 * each: the first has the numbers with even indices, the second those with odd ones.
 */
static inline __attribute__((always_inline)) void kv_load_all(vec *to, const void *block, size_t at,
                const int vectors, const enum kv_format format) {
	if (format == KV_BF16 && vectors % 2 == 0) {
		UNROLL
		for (int j = 0; j < vectors; j += 2) {
			vec both;
			memcpy(&both, (const uint16_t *)block + at + (size_t)(j * LANES),
			                sizeof both);
			to[j] = vec_lower_bf16(both);
			to[j + 1] = vec_upper_bf16(both);
		}
	} else {
		UNROLL
		for (int j = 0; j < vectors; j++)
			to[j] = kv_load(block, at + (size_t)(j * LANES), format);
	}
}

/* Puts sums of what kv_load_all gave into the order of memory, and back. */
static inline __attribute__((always_inline)) void join_pairs(
                vec *sums, const int vectors, const enum kv_format format) {
	if (format == KV_BF16 && vectors % 2 == 0) {
		UNROLL
		for (int j = 0; j < vectors; j += 2)
			vec_interleave(&sums[j], &sums[j + 1]);
	}
}

static inline __attribute__((always_inline)) void part_pairs(
                vec *sums, const int vectors, const enum kv_format format) {
	if (format == KV_BF16 && vectors % 2 == 0) {
		UNROLL
		for (int j = 0; j < vectors; j += 2)
			vec_part(&sums[j], &sums[j + 1]);
	}
}

/* The first `lanes` < LANES of them, 0 in the others; nothing behind them is read. */
static inline __attribute__((always_inline)) vec kv_load_first(
                const void *block, size_t at, int lanes, const enum kv_format format) {
	if (format == KV_F32)
		return vec_load_first((const float *)block + at, lanes);
	uint16_t some[LANES] = { 0 };
	memcpy(some, (const uint16_t *)block + at, (size_t)lanes * sizeof *some);
	return kv_load(some, 0, KV_BF16);
}

/* bf16_round of each lane, in the lower half of it. */
#define DEFINE_ROUND(name, type, signed_type)                                                      \
	static inline type name(type bits) {                                                       \
		type odd = bits >> 16 & 1, nan = bits >> 16 | 0x40;                                \
		type near = (bits + 0x7fff + odd) >> 16;                                           \
		type is_nan = (type)((signed_type)(bits & 0x7fffffff) > 0x7f800000);               \
		return (nan & is_nan) | (near & ~is_nan);                                          \
	}

DEFINE_ROUND(round_words, words, signed_words)
DEFINE_ROUND(round_words4, words4, signed_words4)

static void narrow_row(uint16_t *to, const float *from, int n) {
	int i = 0;
	for (; i + LANES <= n; i += LANES) {
		words bits;
		memcpy(&bits, from + i, sizeof bits);
		halves narrow = __builtin_convertvector(round_words(bits), halves);
		memcpy(to + i, &narrow, sizeof narrow);
	}
	for (; i < n; i++)
		to[i] = bf16_round(from[i]);
}

/* Four rows become four columns. */
static inline void turn(words4 row[4]) {
	words4 a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
	words4 b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
	words4 c = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
	words4 d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
	row[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
	row[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
	row[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
	row[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

static inline words4 load4(const float *from) {
	words4 v;
	memcpy(&v, from, sizeof v);
	return v;
}

/* The keys of some positions become columns: `four` of them are a multiple of 4 (bf16: 8). */
static void store_keys_turned(const struct kv_rows *rows, int from, int end, size_t channel,
                size_t channels_end) {
	size_t slot = (size_t)rows->position % KV_TILE;
	int step = rows->format == KV_BF16 ? 8 : 4;
	size_t size = rows->format == KV_BF16 ? 2 : 4;
	for (size_t c = channel; c + 4 <= channels_end; c += 4) {
		for (int i = from; i < end; i += step) {
			const float *k = rows->k + (size_t)i * rows->ld + c;
			words4 row[4];
			for (int r = 0; r < 4 && step == 4; r++)
				row[r] = load4(k + (size_t)r * rows->ld);
			for (int r = 0; r < 4 && step == 8; r++) { /* two positions in a word */
				words4 low = load4(k + (size_t)(2 * r) * rows->ld);
				words4 high = load4(k + (size_t)(2 * r + 1) * rows->ld);
				row[r] = round_words4(low) | round_words4(high) << 16;
			}
			turn(row);
			char *to = (char *)rows->block + (c * KV_TILE + slot + (size_t)i) * size;
			for (int r = 0; r < 4; r++)
				memcpy(to + (size_t)r * KV_TILE * size, &row[r], sizeof row[r]);
		}
	}
}

/* The keys of one position: channels [first, end). */
static void store_key(const struct kv_rows *rows, int i, size_t first, size_t end) {
	size_t slot = (size_t)rows->position % KV_TILE + (size_t)i;
	const float *k = rows->k + (size_t)i * rows->ld;
	if (rows->format == KV_F32)
		for (size_t c = first; c < end; c++)
			((float *)rows->block)[c * KV_TILE + slot] = k[c];
	else
		for (size_t c = first; c < end; c++)
			((uint16_t *)rows->block)[c * KV_TILE + slot] = bf16_round(k[c]);
}

static void store_values(const struct kv_rows *rows, int i) {
	size_t slot = (size_t)rows->position % KV_TILE + (size_t)i, dim = (size_t)rows->head_dim;
	size_t channels = (size_t)rows->n_heads * dim, head = (size_t)rows->head;
	for (size_t h = head; h < head + (size_t)rows->heads; h++) {
		const float *v = rows->v + (size_t)i * rows->ld + h * dim;
		size_t at = (channels + h * dim) * KV_TILE + slot * dim;
		if (rows->format == KV_F32)
			memcpy((float *)rows->block + at, v, dim * sizeof(float));
		else
			narrow_row((uint16_t *)rows->block + at, v, rows->head_dim);
	}
}

static void vec_kv_store(const struct kv_rows *rows) {
	size_t first = (size_t)rows->head * (size_t)rows->head_dim;
	size_t channels = (size_t)rows->heads * (size_t)rows->head_dim;
	int step = rows->format == KV_BF16 ? 8 : 4, turned = rows->count / step * step;
	store_keys_turned(rows, 0, turned, first, first + channels);
	for (int i = 0; i < rows->count; i++) {
		store_key(rows, i, first + (i < turned ? channels / 4 * 4 : 0), first + channels);
		store_values(rows, i);
	}
}
