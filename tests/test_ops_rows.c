/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Norm, attention and softmax: every exact table must equal plain C bit by bit, and plain C must be
 * right against naive double precision. Attention is tested with both formats of cached keys and
 * values.
 */
#include "tests/numbers.h"
#include "tests/portable.h"

/* ---- norm ---- */

static struct norm norm_random(int rows, int dim) {
	struct norm n = { .dim = dim, .eps = 1e-5f };
	n.ldx = (size_t)(dim + random_between(0, 9));
	n.ldo = (size_t)(dim + random_between(0, 9));
	float *x = take_random((size_t)(2 * rows) * n.ldx);
	for (size_t i = 0; i < (size_t)(2 * rows) * n.ldx; i++)
		x[i] = x[i] * 3 + 0.5f;
	n.x = x;
	n.gain = take_random((size_t)dim);
	n.bias = take_random((size_t)dim);
	int32_t *from = (int32_t *)take((size_t)rows), *to = (int32_t *)take((size_t)rows);
	for (int i = 0; i < rows; i++) {
		from[i] = 2 * i + random_between(0, 1);
		to[i] = rows - 1 - i;
	}
	n.x_rows = random_between(0, 1) ? from : NULL;
	n.out_rows = random_between(0, 1) ? to : NULL;
	return n;
}

static float *norm_run(struct norm n, const struct ops *ops, int rows) {
	n.out = take((size_t)rows * n.ldo);
	memset(n.out, 0, (size_t)rows * n.ldo * sizeof(float));
	int cut = random_between(0, rows);
	ops->norm(&n, cut, rows);
	ops->norm(&n, 0, cut);
	return n.out;
}

static void norm_equals_c(const struct ops *ops) {
	static const int dims[] = { 256, 768, 1024, 1030, 1600 };
	for (int i = 1; i < 90; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		int dim = i < 85 ? i : dims[i - 85], rows = random_between(1, 9);
		struct norm n = norm_random(rows, dim);
		size_t size = (size_t)rows * n.ldo;
		CHECK(same_bits(norm_run(n, ops, rows), norm_run(n, ops_c(), rows), size));
		spoil((float *)n.x, (size_t)(2 * rows) * n.ldx, 100);
		CHECK(same_bits(norm_run(n, ops, rows), norm_run(n, ops_c(), rows), size));
	}
}

TEST(avx2_norm_equals_c) {
	norm_equals_c(overlay(CPU_LEVEL_AVX2));
}

TEST(avx512_norm_equals_c) {
	norm_equals_c(overlay(CPU_LEVEL_AVX512));
}

TEST(portable_vectors_norm_equals_c) {
	norm_equals_c(portable_avx512());
}

TEST(norm_is_right) {
	for (int dim = 2; dim < 1200; dim = dim * 3 / 2 + 1) {
		fresh_memory();
		int rows = 5;
		struct norm n = norm_random(rows, dim);
		float *out = norm_run(n, ops_c(), rows);
		for (int i = 0; i < rows; i++) {
			const float *x = n.x + (size_t)(n.x_rows ? n.x_rows[i] : i) * n.ldx;
			double mean = 0, variance = 0;
			for (int d = 0; d < dim; d++)
				mean += x[d] / (double)dim;
			for (int d = 0; d < dim; d++)
				variance += (x[d] - mean) * (x[d] - mean) / dim;
			double deviation = sqrt(variance + 1e-5),
			       tolerance = 2e-6 * (1 + 4 / deviation);
			for (int d = 0; d < dim; d++) {
				double exact = (x[d] - mean) / deviation * n.gain[d] + n.bias[d];
				int to = n.out_rows ? n.out_rows[i] : i;
				CHECK(fabs(out[(size_t)to * n.ldo + (size_t)d] - exact)
				                < tolerance);
			}
		}
	}
}

TEST(norm_in_place_follows_the_gather) {
	fresh_memory();
	enum { DIM = 40, ROWS = 3 };
	float *x = take_random(8 * DIM), *gain = take_random(DIM), *bias = take_random(DIM);
	float *before = take_copy(x, 8 * DIM), *packed = take(ROWS * DIM);
	int32_t rows[ROWS] = { 6, 1, 4 };
	struct norm n = { .x = before, .ldx = DIM, .x_rows = rows, .gain = gain, .bias = bias };
	n.eps = 1e-5f;
	n.dim = DIM;
	n.out = packed;
	n.ldo = DIM;
	ops_c()->norm(&n, 0, ROWS);
	n.x = n.out = x;
	ops_c()->norm(&n, 0, ROWS);
	for (int i = 0; i < ROWS; i++)
		CHECK(same_bits(x + rows[i] * DIM, packed + i * DIM, DIM));
	CHECK(same_bits(x, before, DIM));
	CHECK(same_bits(x + 7 * DIM, before + 7 * DIM, DIM));
}

/* ---- attention ---- */

enum { TILES = 5 };

/* A sequence of `length` tokens with its cache. */
struct text {
	int length, heads, dim;
	enum kv_format format;
	float *q, *k, *v; /* [length][heads * dim] */
	void *blocks[TILES];
};

static size_t block_bytes(const struct text *t) {
	return kv_block_bytes(t->format, t->heads, t->dim);
}

/* Stores the keys and values of the positions [0, length), up to `chunk` at a time, in two groups of heads. */
static void text_store(struct text *t, const struct ops *ops, int length, int chunk) {
	size_t width = (size_t)(t->heads * t->dim);
	for (int i = 0, count; i < length; i += count) {
		int left = KV_TILE - i % KV_TILE;
		count = length - i < left ? length - i : left;
		count = count < chunk ? count : chunk;
		struct kv_rows rows = { .block = t->blocks[i / KV_TILE],
			.format = t->format,
			.k = t->k + (size_t)i * width,
			.v = t->v + (size_t)i * width,
			.ld = width,
			.position = i,
			.count = count,
			.n_heads = t->heads,
			.head_dim = t->dim,
			.heads = t->heads / 2 };
		ops->kv_store(&rows);
		rows.head = rows.heads;
		rows.heads = t->heads - rows.head;
		ops->kv_store(&rows);
	}
}

static struct text text_random(
                const struct ops *ops, enum kv_format format, int length, int heads, int dim) {
	struct text t = { length, heads, dim, format };
	size_t width = (size_t)(heads * dim);
	t.q = take_random((size_t)length * width);
	t.k = take_random((size_t)length * width);
	t.v = take_random((size_t)length * width);
	for (size_t i = 0; i < (size_t)length * width; i++)
		t.q[i] *= 8;
	for (int tile = 0; tile < TILES; tile++) {
		uint16_t *block = (uint16_t *)take(block_bytes(&t) / sizeof(float));
		for (size_t i = 0; i < block_bytes(&t) / 2; i++)
			block[i] = (uint16_t)(random_bits() & 0xbfff); /* finite in both formats */
		t.blocks[tile] = block;
	}
	text_store(&t, ops, length, random_between(1, KV_TILE));
	return t;
}

/* Attention of positions [first, length) in calls of `chunk` queries; [length][heads * dim]. */
static float *text_attend(const struct text *t, const struct ops *ops, int first, int chunk) {
	size_t width = (size_t)(t->heads * t->dim);
	float *out = take((size_t)t->length * width);
	memset(out, 0, (size_t)t->length * width * sizeof(float));
	struct attend a = { .ldq = width, .ldo = width, .n_heads = t->heads, .head_dim = t->dim };
	a.scale = 1 / sqrtf((float)t->dim);
	a.blocks = t->blocks;
	a.format = t->format;
	a.scratch = take(ops->attend_scratch(t->dim));
	for (int at = first; at < t->length; at += chunk) {
		a.first = at;
		a.queries = t->length - at < chunk ? t->length - at : chunk;
		for (a.head = 0; a.head < t->heads; a.head++) {
			size_t offset = (size_t)at * width + (size_t)(a.head * t->dim);
			a.q = t->q + offset;
			a.out = out + offset;
			ops->attend(&a);
		}
	}
	return out;
}

static const int head_dims[] = { 1, 3, 8, 15, 16, 24, 31, 32, 33, 40, 48, 64, 80, 96, 104, 128 };
enum { HEAD_DIMS = sizeof head_dims / sizeof *head_dims };

/* Rounded to bf16 by arithmetic: 8 significant bits, nearest, ties to even. */
static float rounded(float x) {
	int power;
	double m = frexp((double)x, &power);
	return power < -125 ? (float)(rint(ldexp((double)x, 133)) * 0x1p-133)
	                    : (float)ldexp(rint(ldexp(m, 8)), power - 8);
}

/* NaN is as good as any other; all else is equal bit by bit. */
static bool same_number(float a, float b) {
	return same_bits(&a, &b, 1);
}

/* What a block holds of a text, number by number. */
static void stored_is_right(const struct ops *ops, enum kv_format format) {
	for (int i = 0; i < 2 * HEAD_DIMS; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		int heads = random_between(1, 3), dim = head_dims[i % HEAD_DIMS];
		struct text t = text_random(ops, format, random_between(1, 130), heads, dim);
		size_t width = (size_t)(heads * dim), n = (size_t)t.length * width;
		spoil(t.k, n, 50);
		spoil(t.v, n, 50);
		/* A NaN that cutting would make infinite. */
		t.k[n / 2] = t.v[n / 3] = mathf_from_bits(0x7f800001);
		text_store(&t, ops, t.length, random_between(1, KV_TILE));
		for (size_t at = 0; at < n; at++) {
			size_t position = at / width, c = at % width, slot = position % KV_TILE;
			size_t head = c / (size_t)dim, d = c % (size_t)dim;
			size_t key = c * KV_TILE + slot;
			size_t value = (width + head * (size_t)dim) * KV_TILE + slot * (size_t)dim
			                + d;
			const void *block = t.blocks[position / KV_TILE];
			if (format == KV_F32) {
				CHECK(same_number(((const float *)block)[key], t.k[at]));
				CHECK(same_number(((const float *)block)[value], t.v[at]));
			} else {
				const uint16_t *halves = block;
				float k = mathf_from_bits((uint32_t)halves[key] << 16);
				float v = mathf_from_bits((uint32_t)halves[value] << 16);
				CHECK(same_number(k, rounded(t.k[at])));
				CHECK(same_number(v, rounded(t.v[at])));
			}
		}
	}
}

static void all_stored_is_right(const struct ops *ops) {
	stored_is_right(ops, KV_F32);
	stored_is_right(ops, KV_BF16);
}

TEST(c_stores_keys_and_values_where_they_belong) {
	all_stored_is_right(ops_c());
}

TEST(avx2_stores_keys_and_values_where_they_belong) {
	all_stored_is_right(overlay(CPU_LEVEL_AVX2));
}

TEST(avx512_stores_keys_and_values_where_they_belong) {
	all_stored_is_right(overlay(CPU_LEVEL_AVX512));
}

TEST(portable_vectors_store_keys_and_values_where_they_belong) {
	all_stored_is_right(portable_avx512());
}

static void attend_equals_c(const struct ops *ops) {
	for (int i = 0; i < 6 * HEAD_DIMS; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		int length = random_between(1, 64 * TILES), heads = random_between(1, 3);
		struct text t = text_random(ops, i % 2 ? KV_BF16 : KV_F32, length, heads,
		                head_dims[i / 2 % HEAD_DIMS]);
		size_t size = (size_t)(length * t.heads * t.dim);
		int first = random_between(0, length - 1);
		int chunk = random_between(1, i % 3 ? 40 : 250);
		float *ours = text_attend(&t, ops, first, chunk);
		CHECK(same_bits(ours, text_attend(&t, ops_c(), first, length), size));
	}
}

TEST(avx2_attention_equals_c) {
	attend_equals_c(overlay(CPU_LEVEL_AVX2));
}

TEST(avx512_attention_equals_c) {
	attend_equals_c(overlay(CPU_LEVEL_AVX512));
}

TEST(portable_vectors_attention_equals_c) {
	attend_equals_c(portable_avx512());
}

/* A prompt in one piece, in chunks, or token by token. */
static void attend_ignores_chunks(const struct ops *ops) {
	for (int i = 0; i < 2 * HEAD_DIMS; i++) {
		fresh_memory();
		int length = random_between(60, 210);
		struct text t = text_random(
		                ops, i % 2 ? KV_BF16 : KV_F32, length, 1, head_dims[i / 2]);
		/* Products of the smallest number round to zeros of both signs. */
		for (int p = 0; p < length * t.dim; p += 3)
			t.v[p] = copysignf(i % 2 ? 0x1p-133f : 0x1p-149f, t.v[p]);
		text_store(&t, ops, length, KV_TILE);
		float *whole = text_attend(&t, ops, 0, length);
		for (int chunk = 1; chunk <= 13; chunk++)
			CHECK(same_bits(whole, text_attend(&t, ops, 0, chunk),
			                (size_t)(length * t.dim)));
	}
}

TEST(c_attention_does_not_depend_on_chunks) {
	attend_ignores_chunks(ops_c());
}

TEST(avx2_attention_does_not_depend_on_chunks) {
	attend_ignores_chunks(overlay(CPU_LEVEL_AVX2));
}

TEST(avx512_attention_does_not_depend_on_chunks) {
	attend_ignores_chunks(overlay(CPU_LEVEL_AVX512));
}

/* NaN, infinities and extreme scores in keys and values that every query of the call sees. */
static void attend_equals_c_with_nan(const struct ops *ops) {
	for (int i = 0; i < 80; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		int dim = head_dims[i / 2 % HEAD_DIMS], first = random_between(1, 200);
		struct text t = text_random(ops, i % 2 ? KV_BF16 : KV_F32,
		                first + random_between(1, 30), 1, dim);
		spoil(t.k, (size_t)(first * dim), 500);
		spoil(t.v, (size_t)(first * dim), 500);
		text_store(&t, ops, t.length, KV_TILE);
		float *ours = text_attend(&t, ops, first, 30);
		CHECK(same_bits(ours, text_attend(&t, ops_c(), first, 30),
		                (size_t)(t.length * dim)));
	}
}

TEST(avx2_attention_equals_c_with_nan_and_infinity) {
	attend_equals_c_with_nan(overlay(CPU_LEVEL_AVX2));
}

TEST(avx512_attention_equals_c_with_nan_and_infinity) {
	attend_equals_c_with_nan(overlay(CPU_LEVEL_AVX512));
}

TEST(portable_vectors_attention_equals_c_with_nan_and_infinity) {
	attend_equals_c_with_nan(portable_avx512());
}

/* One query's answer over keys 0 .. position, in double precision. */
static void exact_attention(const struct text *t, int position, int head, double *ret_out) {
	size_t width = (size_t)(t->heads * t->dim), offset = (size_t)(head * t->dim);
	double weights[64 * TILES], largest = -INFINITY, total = 0;
	for (int key = 0; key <= position; key++) {
		double dot = 0;
		for (int d = 0; d < t->dim; d++)
			dot += (double)t->q[(size_t)position * width + offset + (size_t)d]
			                * t->k[(size_t)key * width + offset + (size_t)d];
		weights[key] = dot / sqrt(t->dim);
		largest = fmax(largest, weights[key]);
	}
	for (int key = 0; key <= position; key++) {
		weights[key] = exp(weights[key] - largest);
		total += weights[key];
	}
	for (int d = 0; d < t->dim; d++) {
		ret_out[d] = 0;
		for (int key = 0; key <= position; key++)
			ret_out[d] += weights[key] / total
			                * t->v[(size_t)key * width + offset + (size_t)d];
	}
}

static void attention_is_right_for(const struct text *t) {
	size_t width = (size_t)(t->heads * t->dim);
	float *out = text_attend(t, ops_c(), 0, 17);
	for (int p = 0; p < t->length; p += 7) {
		for (int head = 0; head < t->heads; head++) {
			double exact[128];
			exact_attention(t, p, head, exact);
			for (int d = 0; d < t->dim; d++) {
				size_t at = (size_t)p * width + (size_t)(head * t->dim + d);
				CHECK(fabs(out[at] - exact[d]) < 5e-5);
			}
		}
	}
}

TEST(attention_is_right) {
	for (int i = 0; i < HEAD_DIMS; i++) {
		fresh_memory();
		struct text t = text_random(
		                ops_c(), KV_F32, random_between(1, 200), 2, head_dims[i]);
		attention_is_right_for(&t);
	}
}

TEST(attention_with_bf16_keys_and_values_is_that_of_rounded_ones) {
	for (int i = 0; i < HEAD_DIMS; i++) {
		fresh_memory();
		struct text t = text_random(
		                ops_c(), KV_BF16, random_between(1, 200), 2, head_dims[i]);
		for (int n = 0; n < t.length * t.heads * t.dim; n++) {
			t.k[n] = rounded(t.k[n]);
			t.v[n] = rounded(t.v[n]);
		}
		attention_is_right_for(&t);
	}
}

/* Scores around -300: their exponentials are 0 unless they are taken relative to the largest. */
TEST(attention_is_right_where_all_scores_are_low) {
	fresh_memory();
	struct text t = text_random(ops_c(), KV_F32, 150, 1, 16);
	for (int i = 0; i < t.length * t.dim; i++) {
		t.q[i] = 75 + t.q[i] / 8;
		t.k[i] = -1 + t.k[i] / 64;
	}
	text_store(&t, ops_c(), t.length, KV_TILE);
	attention_is_right_for(&t);
}

/* ---- attention over all keys ---- */

/*
 * Every query of the text over the keys 0 .. keys - 1, in calls of `chunk` queries. The blocks hold
 * NaN from `keys` on.
 */
static float *text_attend_all(struct text *t, const struct ops *ops, int keys, int chunk) {
	size_t width = (size_t)(t->heads * t->dim);
	for (int tile = 0; tile < TILES; tile++)
		memset(t->blocks[tile], 0xff, block_bytes(t)); /* NaN */
	text_store(t, ops, keys, KV_TILE);
	float *out = take((size_t)t->length * width);
	struct attend a = { .ldq = width, .ldo = width, .n_heads = t->heads, .head_dim = t->dim };
	a.scale = 1 / sqrtf((float)t->dim);
	a.blocks = t->blocks;
	a.format = t->format;
	a.scratch = take(ops->attend_scratch(t->dim));
	a.keys = keys;
	a.first = 1 << 20; /* is not read */
	for (int at = 0; at < t->length; at += chunk) {
		a.queries = t->length - at < chunk ? t->length - at : chunk;
		for (a.head = 0; a.head < t->heads; a.head++) {
			size_t offset = (size_t)at * width + (size_t)(a.head * t->dim);
			a.q = t->q + offset;
			a.out = out + offset;
			ops->attend(&a);
		}
	}
	return out;
}

static const int key_counts[] = { 1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 200, 320 };
enum { KEY_COUNTS = sizeof key_counts / sizeof *key_counts };

static void attend_all_equals_c(const struct ops *ops) {
	for (int i = 0; i < 2 * KEY_COUNTS * HEAD_DIMS; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		int keys = key_counts[i % KEY_COUNTS], heads = random_between(1, 3);
		struct text t = text_random(ops, i < KEY_COUNTS * HEAD_DIMS ? KV_F32 : KV_BF16,
		                keys, heads, head_dims[i / KEY_COUNTS % HEAD_DIMS]);
		t.length = random_between(1, keys < 30 ? keys : 30);
		size_t size = (size_t)(t.length * t.heads * t.dim);
		float *c = text_attend_all(&t, ops_c(), keys, t.length);
		float *ours = text_attend_all(&t, ops, keys, random_between(1, 13));
		for (size_t k = 0; k < size; k++)
			CHECK(isfinite(c[k]));
		CHECK(same_bits(ours, c, size));
	}
}

TEST(avx2_attention_over_all_keys_equals_c_whatever_lies_behind_them) {
	attend_all_equals_c(overlay(CPU_LEVEL_AVX2));
}

TEST(avx512_attention_over_all_keys_equals_c_whatever_lies_behind_them) {
	attend_all_equals_c(overlay(CPU_LEVEL_AVX512));
}

TEST(attention_over_all_keys_is_right) {
	for (int i = 0; i < KEY_COUNTS; i++) {
		fresh_memory();
		int keys = key_counts[i];
		struct text t = text_random(ops_c(), KV_F32, keys, 2, 24);
		size_t width = (size_t)(t.heads * t.dim);
		float *q = take_copy(t.q, (size_t)keys * width);
		float *out = text_attend_all(&t, ops_c(), keys, 7);
		for (int p = 0; p < keys; p += 5) {
			/* The last query sees all keys in causal attention too. */
			memcpy(t.q + (size_t)(keys - 1) * width, q + (size_t)p * width,
			                width * sizeof *q);
			for (int head = 0; head < t.heads; head++) {
				double exact[24];
				exact_attention(&t, keys - 1, head, exact);
				for (int d = 0; d < t.dim; d++)
					CHECK(fabs(out[(size_t)p * width
					                           + (size_t)(head * t.dim + d)]
					                      - exact[d])
					                < 5e-5);
			}
		}
	}
}

/* ---- softmax ---- */

static void softmax_equals_c(const struct ops *ops) {
	for (int n = 1; n < 1100; n += n < 100 ? 1 : 61) {
		fresh_memory();
		float *x = take_random((size_t)n), a[2], b[2];
		for (int i = 0; i < n; i++)
			x[i] = x[i] * 30 - (float)(n % 3) * 40; /* also all below zero */
		for (int turn = 0; turn < 20; turn++) {
			ops->max_sum_exp(x, n, &a[0], &a[1]);
			ops_c()->max_sum_exp(x, n, &b[0], &b[1]);
			CHECK(same_bits(a, b, 2));
			spoil(x, (size_t)n, 30);
		}
	}
}

TEST(avx2_softmax_equals_c) {
	softmax_equals_c(overlay(CPU_LEVEL_AVX2));
}

TEST(avx512_softmax_equals_c) {
	softmax_equals_c(overlay(CPU_LEVEL_AVX512));
}

TEST(portable_vectors_softmax_equals_c) {
	softmax_equals_c(portable_avx512());
}

TEST(softmax_is_right) {
	for (int n = 1; n < 1100; n = n * 2 + 1) {
		fresh_memory();
		float *x = take_random((size_t)n), largest, sum;
		double exact = 0, most = -INFINITY;
		for (int i = 0; i < n; i++)
			most = fmax(most, x[i] *= 20);
		for (int i = 0; i < n; i++)
			exact += exp(x[i] - most);
		ops_c()->max_sum_exp(x, n, &largest, &sum);
		CHECK(largest == most);
		CHECK(fabs(sum - exact) < 1e-6 * exact);
	}
}
