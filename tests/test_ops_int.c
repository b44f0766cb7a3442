/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with int8 and int4 weights. Plain C must equal a simple model of model/quantise.h, written
 * here from that page with sums in 64 bits; every other table must equal plain C bit by bit, and so
 * must each row by itself.
 */
#include "model/quantise.h"
#include "tests/portable.h"
#include "tests/products.h"

static const enum weight_format formats[] = { WEIGHTS_INT8, WEIGHTS_INT4 };

/* ---- the model ---- */

/* The nearest integer, the even one of two. */
static int nearest(float x) {
	return (int)lrint((double)x);
}

static float largest_of(const float *x, int n) {
	float largest = 0;
	for (int i = 0; i < n; i++) {
		if (!isfinite(x[i]))
			return NAN;
		largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
	}
	return largest;
}

/* Rows of inputs, and int8 weights. */
static float model_int8(const float *x, int n, int *q) {
	float m = largest_of(x, n);
	bool usable = m >= 0x1p-100f; /* false for NaN */
	for (int i = 0; i < n; i++)
		q[i] = usable ? nearest(x[i] * (127.0f / m)) : 0;
	return usable || isnan(m) ? m / 127.0f : 0;
}

/* int4 weights; s: the scales of the groups. The search is tested by itself. */
static float model_int4(const float *w, int n, int *q, int *s) {
	float m = largest_of(w, n), t[100] = { 0 }, largest = 0;
	bool usable = m >= 0x1p-100f;
	int groups = (n + INT4_GROUP - 1) / INT4_GROUP;
	for (int g = 0; g < groups; g++) {
		int from = g * INT4_GROUP, count = n - from < INT4_GROUP ? n - from : INT4_GROUP;
		if (usable)
			t[g] = quantise_int4_group(w + from, count);
		largest = fabsf(t[g]) > largest ? fabsf(t[g]) : largest;
	}
	float scale = isnan(m) ? NAN : largest / 32767.0f;
	for (int k = 0; k < n; k++) {
		int g = k / INT4_GROUP;
		s[g] = usable ? nearest(t[g] / scale) : 0;
		float v = s[g] ? w[k] * (1.0f / ((float)s[g] * scale)) : 0;
		q[k] = nearest(v < -8 ? -8 : v > 7 ? 7 : v);
	}
	return scale;
}

static float model_value(enum weight_format format, const float *x, const float *w, int n) {
	int a[1400], q[1400], s[100];
	float x_scale = model_int8(x, n, a), acc = 0;
	float w_scale = format == WEIGHTS_INT8 ? model_int8(w, n, q) : model_int4(w, n, q, s);
	int64_t sum = 0;
	for (int k = 0; k < n; k++) {
		sum += (int64_t)a[k] * q[k];
		if (format == WEIGHTS_INT4 && (k == n - 1 || k % INT4_GROUP == INT4_GROUP - 1)) {
			acc = fmaf((float)sum, (float)s[k / INT4_GROUP], acc);
			sum = 0;
		}
	}
	float value = format == WEIGHTS_INT8 ? (float)sum : acc;
	value = value * w_scale;
	return value * x_scale;
}

static void equals_model(const struct ops *ops, bool spoiled) {
	for (int i = 0; i < 60; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		enum weight_format format = formats[i % 2];
		int n_in = i % 3 ? random_between(1, 150) : random_between(1, 1400);
		struct problem p = problem_random(format, i % 7 + 1, n_in, random_between(1, 70));
		p.map = NULL;
		p.add = false;
		p.activation = ACTIVATION_NONE;
		if (spoiled) {
			spoil(p.x, (size_t)p.rows * p.ldx, 400);
			spoil(p.w, (size_t)p.n_out * (size_t)p.n_in, 4000);
		}
		float *y = problem_run(&p, ops);
		for (int row = 0; row < p.rows; row++) {
			for (int out = 0; out < p.n_out; out++) {
				float value = model_value(format, p.x + (size_t)row * p.ldx,
				                p.w + (size_t)out * (size_t)n_in, n_in);
				value = p.bias ? value + p.bias[out] : value;
				CHECK(same_bits(y + (size_t)row * p.ldy + out, &value, 1));
			}
		}
	}
}

TEST(c_equals_the_formulas) {
	equals_model(ops_c(), false);
}

TEST(c_equals_the_formulas_with_nan_and_infinity) {
	equals_model(ops_c(), true);
}

/* ---- levels ---- */

static void equals_c(const struct ops *ops) {
	for (int i = 0; i < 2; i++) {
		linear_equals(ops, ops_c(), formats[i], false);
		linear_equals(ops, ops_c(), formats[i], true);
	}
}

TEST(avx2_equals_c) {
	equals_c(overlay(CPU_LEVEL_AVX2));
}

TEST(avx512_equals_c) {
	equals_c(overlay(CPU_LEVEL_AVX512));
}

TEST(avx512_vnni_equals_c) {
	equals_c(overlay(CPU_LEVEL_AVX512_VNNI));
}

TEST(portable_avx512_equals_c) {
	equals_c(portable_avx512());
}

TEST(portable_avx512_vnni_equals_c) {
	equals_c(portable_avx512_vnni());
}

/* The tables of this machine and the portable ones. */
static const struct ops *table_at(int i) {
	if (i >= CPU_LEVELS)
		return i == CPU_LEVELS                ? portable_avx512()
		                : i == CPU_LEVELS + 1 ? portable_avx512_vnni()
		                                      : NULL;
	return i <= (int)cpu_level_detect() ? ops_of_level((enum cpu_level)i) : ops_c();
}

TEST(rows_do_not_depend_on_their_neighbours) {
	for (int i = 0; table_at(i); i++)
		for (int f = 0; f < 2; f++)
			rows_are_independent(table_at(i), formats[f], f ? 200 : 1100);
}

/* Sums at their largest: a saturating step or a narrow sum would show. */
TEST(largest_sums_are_exact) {
	for (int i = 0; table_at(i); i++) {
		for (int f = 0; f < 2; f++) {
			fresh_memory();
			struct problem p = problem_random(formats[f], 5, 1000, 40);
			p.map = NULL;
			p.add = false;
			p.bias = NULL;
			p.activation = ACTIVATION_NONE;
			for (size_t k = 0; k < (size_t)p.rows * p.ldx; k++)
				p.x[k] = k / p.ldx % 2 ? -1.0f : 1.0f;
			for (size_t k = 0; k < 40 * 1000; k++)
				p.w[k] = k / 1000 % 2 ? -1.0f : 1.0f;
			float *y = problem_run(&p, table_at(i));
			for (int row = 0; row < 5; row++)
				for (int out = 0; out < 40; out++) {
					float expected = row % 2 == out % 2 ? 1000.0f : -1000.0f;
					CHECK(fabsf(y[(size_t)row * p.ldy + (size_t)out] - expected)
					                < 0.01f);
				}
		}
	}
}

/* The largest sum of an int8 product: 32-bit sums of all levels hold it. */
TEST(sums_of_the_most_inputs_do_not_overflow) {
	for (int i = 0; table_at(i); i++) {
		const struct ops *ops = table_at(i);
		fresh_memory();
		struct problem p = problem_random(WEIGHTS_INT8, 2, INT_INPUTS_MAX, 3);
		p.map = NULL;
		p.add = false;
		p.bias = NULL;
		p.activation = ACTIVATION_NONE;
		for (size_t k = 0; k < 2 * p.ldx; k++)
			p.x[k] = k < p.ldx ? 1.0f : -1.0f;
		for (size_t k = 0; k < 3 * (size_t)p.n_in; k++)
			p.w[k] = 1.0f;
		float *y = problem_run(&p, ops);
		CHECK(fabsf(y[0] - (float)INT_INPUTS_MAX) < 1);
		CHECK(fabsf(y[p.ldy] + (float)INT_INPUTS_MAX) < 1);
		CHECK(ops->formats[WEIGHTS_INT8].matrix_bytes(1, INT_INPUTS_MAX) > 0);
		CHECK(ops->formats[WEIGHTS_INT8].matrix_bytes(1, INT_INPUTS_MAX + 1) == 0);
		CHECK(ops->formats[WEIGHTS_INT4].matrix_bytes(1, INT_INPUTS_MAX + 1) == 0);
	}
}

/* ---- odd rows ---- */

/* y of one output for a row of inputs, weights all 0.5. */
static float value_of(const struct ops *ops, enum weight_format format, float *x, int n_in) {
	struct problem p = { .format = format, .rows = 1, .n_in = n_in, .n_out = 1, .ldy = 1 };
	p.ldx = (size_t)n_in;
	p.x = x;
	p.w = take((size_t)n_in);
	for (int k = 0; k < n_in; k++)
		p.w[k] = 0.5f;
	p.y_before = take_random(1);
	p.y_size = 1;
	return problem_run(&p, ops)[0];
}

TEST(a_row_with_nan_or_infinity_gives_nan) {
	static const float odd[] = { NAN, INFINITY, -INFINITY };
	for (int i = 0; table_at(i); i++) {
		for (int at = 0; at < 70; at += 23) {
			for (int f = 0; f < 2; f++) {
				fresh_memory();
				float *x = take_random(70);
				x[at] = odd[at % 3];
				CHECK(isnan(value_of(table_at(i), formats[f], x, 70)));
			}
		}
	}
}

TEST(a_row_of_zeros_or_denormal_numbers_gives_zero) {
	static const float odd[] = { 0.0f, -0.0f, 0x1p-149f, -0x1p-126f, 0x1.fffffep-101f };
	for (int i = 0; table_at(i); i++) {
		for (int o = 0; o < 5; o++) {
			for (int f = 0; f < 2; f++) {
				fresh_memory();
				float *x = take(70);
				for (int k = 0; k < 70; k++)
					x[k] = odd[o];
				CHECK(value_of(table_at(i), formats[f], x, 70) == 0.0f);
			}
		}
	}
}

TEST(huge_and_tiny_rows_keep_their_scale) {
	static const float sizes[] = { 0x1p-100f, 0x1p-60f, 1.0f, 0x1p120f };
	for (int i = 0; table_at(i); i++) {
		for (int o = 0; o < 4; o++) {
			for (int f = 0; f < 2; f++) {
				fresh_memory();
				float *x = take(70), sum = 35.0f * sizes[o];
				for (int k = 0; k < 70; k++)
					x[k] = sizes[o];
				float y = value_of(table_at(i), formats[f], x, 70);
				CHECK(fabsf(y / sum - 1.0f) < 1e-4f);
			}
		}
	}
}

/* Halfway between two steps goes to the even one: 0.5 and 1.5 of 127 steps of 1. */
TEST(inputs_are_rounded_to_nearest_even) {
	static const float x[] = { 127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 3.49f };
	static const int8_t expected[] = { 127, 0, 2, 2, 0, -2, -2, 3 };
	int8_t q[8];
	CHECK(quantise_int8(x, 8, q) == 1.0f);
	CHECK(memcmp(q, expected, sizeof q) == 0);
}

/* ---- packing ---- */

static void packing_in_pieces(const struct ops *ops, enum weight_format format) {
	const struct format_ops *f = &ops->formats[format];
	enum { N_IN = 77 };
	fresh_memory();
	int n_out = 3 * ops->panel + 5;
	float *w = take_random((size_t)n_out * N_IN);
	struct matrix whole = pack(ops, format, w, n_out, N_IN);
	size_t bytes = f->matrix_bytes(n_out, N_IN);
	float *pieces = take_random(bytes / sizeof(float));
	f->pack(pieces, N_IN, w + (size_t)(2 * ops->panel) * N_IN, 2 * ops->panel, ops->panel + 5);
	f->pack(pieces, N_IN, w, 0, 2 * ops->panel);
	CHECK(memcmp(pieces, whole.data, bytes) == 0);
}

TEST(packing_in_pieces_is_packing_at_once) {
	for (int i = 0; table_at(i); i++)
		for (int f = 0; f < 2; f++)
			packing_in_pieces(table_at(i), formats[f]);
}

/* A row of inputs that is one 1 among zeros has exactly the weight as its value, scales apart. */
TEST(unpacked_rows_are_what_products_use) {
	enum { N_IN = 150, N_OUT = 45 };
	for (int i = 0; table_at(i); i++) {
		for (int f = 0; f < 2; f++) {
			const struct ops *ops = table_at(i);
			fresh_memory();
			struct problem p = problem_random(formats[f], N_IN, N_IN, N_OUT);
			p.map = NULL;
			p.add = false;
			p.bias = NULL;
			p.activation = ACTIVATION_NONE;
			memset(p.x, 0, (size_t)N_IN * p.ldx * sizeof *p.x);
			for (size_t k = 0; k < N_IN; k++)
				p.x[k * p.ldx + k] = 127.0f;
			float *y = problem_run(&p, ops), row[N_IN];
			struct matrix w = pack(ops, p.format, p.w, N_OUT, N_IN);
			for (int out = 0; out < N_OUT; out++) {
				ops->formats[p.format].unpack_row(&w, out, row);
				for (size_t k = 0; k < N_IN; k++) {
					float value = y[k * p.ldy + (size_t)out];
					CHECK(fabsf(value - 127.0f * row[k])
					                <= 1e-6f * fabsf(value));
				}
			}
		}
	}
}

/* Unpacked weights are the same floats in every table, and near the ones that were packed. */
TEST(every_table_has_the_same_weights) {
	enum { N_IN = 333, N_OUT = 70 };
	static const float most[] = { 1.0f / 253,
		0.18f }; /* the largest weight is 1; cut at most by 1.5 of 8.5 */
	for (int f = 0; f < 2; f++) {
		fresh_memory();
		float *w = take_random((size_t)N_OUT * N_IN), row[N_IN], other[N_IN];
		struct matrix first = pack(ops_c(), formats[f], w, N_OUT, N_IN);
		for (int i = 0; table_at(i); i++) {
			struct matrix m = pack(table_at(i), formats[f], w, N_OUT, N_IN);
			for (int out = 0; out < N_OUT; out++) {
				ops_c()->formats[formats[f]].unpack_row(&first, out, row);
				table_at(i)->formats[formats[f]].unpack_row(&m, out, other);
				CHECK(same_bits(row, other, N_IN));
				for (int k = 0; k < N_IN; k++)
					CHECK(fabsf(row[k] - w[out * N_IN + k]) <= most[f]);
			}
		}
	}
}

static double error_of(const float *w, int n, float t) {
	double error = 0;
	for (int k = 0; k < n; k++) {
		float q = t != 0 ? rintf(w[k] / t) : 0;
		q = q < -8 ? -8 : q > 7 ? 7 : q;
		error += pow((double)w[k] - (double)q * (double)t, 2);
	}
	return error;
}

/* The search is never worse than the plain choice, and on the whole clearly better. */
TEST(scales_of_groups_are_chosen_by_error) {
	double plain_all = 0, chosen_all = 0;
	for (int i = 0; i < 300; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		int n = i % 5 ? INT4_GROUP : random_between(1, INT4_GROUP);
		float *w = take_random((size_t)n), end = 0;
		for (int k = 0; k < n; k++) {
			w[k] = w[k] * w[k] * w[k]; /* few large ones, as in trained matrices */
			end = fabsf(w[k]) > fabsf(end) ? w[k] : end;
		}
		double plain = error_of(w, n, end / -8.0f);
		double chosen = error_of(w, n, quantise_int4_group(w, n));
		CHECK(chosen <= plain * 1.0001 + 1e-12);
		plain_all += plain;
		chosen_all += chosen;
	}
	CHECK(chosen_all < 0.95 * plain_all);
}

TEST(groups_of_odd_sizes_of_numbers_are_defined) {
	static const float sizes[] = { 0.0f, 0x1p-149f, 0x1p-101f, 0x1p-100f, 0x1p127f };
	for (int i = 0; i < 5; i++) {
		fresh_memory();
		float *w = take_random(INT4_GROUP);
		for (int k = 0; k < INT4_GROUP; k++)
			w[k] *= sizes[i];
		w[3] = sizes[i];
		float t = quantise_int4_group(w, INT4_GROUP);
		CHECK(isfinite(t));
		CHECK((t == 0) == (i < 3));
	}
}
