/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear layers and the choice of a table. Every exact table must equal plain C bit by bit, whatever
 * the shape, the other rows and the cut into panels; and the results must be right: against sums in
 * double precision and against OpenBLAS.
 */
#include <fenv.h>

#include "model/bf16.h"
#include "tests/numbers.h"
#include "tests/portable.h"
#include "tests/products.h"

/* ---- linear ---- */

TEST(avx2_f32_equals_c) {
	linear_equals(overlay(CPU_LEVEL_AVX2), ops_c(), WEIGHTS_F32, false);
}

TEST(avx512_f32_equals_c) {
	linear_equals(overlay(CPU_LEVEL_AVX512), ops_c(), WEIGHTS_F32, false);
}

TEST(portable_f32_equals_c) {
	linear_equals(portable_avx512(), ops_c(), WEIGHTS_F32, false);
}

TEST(avx2_f32_equals_c_with_nan_and_infinity) {
	linear_equals(overlay(CPU_LEVEL_AVX2), ops_c(), WEIGHTS_F32, true);
}

TEST(avx512_f32_equals_c_with_nan_and_infinity) {
	linear_equals(overlay(CPU_LEVEL_AVX512), ops_c(), WEIGHTS_F32, true);
}

TEST(portable_f32_equals_c_with_nan_and_infinity) {
	linear_equals(portable_avx512(), ops_c(), WEIGHTS_F32, true);
}

TEST(avx2_bf16_equals_c) {
	linear_equals(overlay(CPU_LEVEL_AVX2), ops_c(), WEIGHTS_BF16, false);
}

TEST(avx512_bf16_weights_equal_c) {
	linear_equals(overlay(CPU_LEVEL_AVX512), ops_c(), WEIGHTS_BF16, false);
}

TEST(portable_bf16_weights_equal_c) {
	linear_equals(portable_avx512(), ops_c(), WEIGHTS_BF16, false);
}

TEST(avx2_bf16_equals_c_with_nan_and_infinity) {
	linear_equals(overlay(CPU_LEVEL_AVX2), ops_c(), WEIGHTS_BF16, true);
}

TEST(avx512_bf16_weights_equal_c_with_nan_and_infinity) {
	linear_equals(overlay(CPU_LEVEL_AVX512), ops_c(), WEIGHTS_BF16, true);
}

TEST(portable_bf16_weights_equal_c_with_nan_and_infinity) {
	linear_equals(portable_avx512(), ops_c(), WEIGHTS_BF16, true);
}

TEST(products_of_the_bf16_instruction_equal_portable_ones) {
	linear_equals(overlay(CPU_LEVEL_AVX512_BF16), portable_avx512_bf16(), WEIGHTS_BF16, false);
}

TEST(products_of_the_bf16_instruction_equal_portable_ones_with_nan_and_infinity) {
	linear_equals(overlay(CPU_LEVEL_AVX512_BF16), portable_avx512_bf16(), WEIGHTS_BF16, true);
}

/* A bf16 number, widened: any bits; near 1; what is odd; or near the square root of the least one. */
static float bf16_of_kind(int kind) {
	static const uint16_t odd[] = { 0, 0x8000, 1, 0x8001, 0x7f, 0x80, 0x8080, 0x7f7f, 0xff7f,
		0x7f80, 0xff80, 0x7fc0, 0x3f80, 0xbf80, 0x2000, 0x2080, 0x1f80 };
	uint32_t sign = random_bits() & 0x8000u, fraction = random_bits() & 0x7fu;
	uint16_t bits = (uint16_t)random_bits();
	if (kind == 1)
		bits = (uint16_t)(sign | (uint32_t)random_between(117, 137) << 7 | fraction);
	if (kind == 2)
		bits = odd[random_between(0, 16)];
	if (kind == 3)
		bits = (uint16_t)(sign | (uint32_t)random_between(50, 66) << 7 | fraction);
	return bf16_widen(bits);
}

/*
 * VDPBF16PS against what stands in for it: chains of three pairs, 4 million of them. In kind 3 sums
 * and products lie around 2^-126, where results are flushed to 0.
 */
TEST(the_bf16_instruction_does_what_its_stand_in_does) {
	const struct ops *ops = overlay(CPU_LEVEL_AVX512_BF16);
	for (int turn = 0; turn < 16; turn++) {
		fresh_memory();
		random_state += (uint64_t)turn;
		struct problem p = { .format = WEIGHTS_BF16, .rows = 500, .n_in = 6, .n_out = 512 };
		p.ldx = 6;
		p.ldy = 512;
		p.y_size = 500 * 512;
		p.w = take(512 * 6);
		p.x = take(500 * 6);
		p.y_before = take_random(p.y_size);
		for (int i = 0; i < 512 * 6; i++)
			p.w[i] = bf16_of_kind(turn % 4);
		for (int i = 0; i < 500 * 6; i++)
			p.x[i] = bf16_of_kind(turn % 4);
		CHECK(same_bits(problem_run(&p, ops), problem_run(&p, portable_avx512_bf16()),
		                p.y_size));
	}
}

/* bf16 weights in f32 arithmetic are the f32 product of weights that bf16 can hold. */
TEST(bf16_weights_equal_the_same_weights_in_f32) {
	for (int i = 0; i < 20; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		struct problem p = problem_random(WEIGHTS_BF16, i + 1, random_between(1, 300), 50);
		for (size_t k = 0; k < (size_t)p.n_out * (size_t)p.n_in; k++)
			p.w[k] = mathf_from_bits(mathf_bits(p.w[k]) & 0xffff0000u);
		float *bf16 = problem_run(&p, ops_c());
		p.format = WEIGHTS_F32;
		CHECK(same_bits(bf16, problem_run(&p, ops_c()), p.y_size));
	}
}

/* The activation of every 4099th float. */
static void activation_equals_c(enum cpu_level level) {
	const struct ops *ops = overlay(level);
	enum { ROWS = 4096 };
	for (uint64_t start = 0; start < 1ull << 32; start += 4099ull * ROWS) {
		fresh_memory();
		struct problem p = { .rows = ROWS, .n_in = 1, .n_out = 1, .ldx = 1, .ldy = 1 };
		p.y_size = ROWS;
		p.w = take(1);
		p.w[0] = 1.0f;
		p.x = take(ROWS);
		p.y_before = take_random(ROWS);
		for (uint64_t i = 0; i < ROWS; i++)
			p.x[i] = mathf_from_bits((uint32_t)(start + 4099 * i));
		for (int a = ACTIVATION_RELU; a <= ACTIVATION_SILU; a++) {
			p.activation = (enum activation)a;
			CHECK(same_bits(problem_run(&p, ops), problem_run(&p, ops_c()), ROWS));
		}
	}
}

TEST(avx2_activations_equal_c_over_the_whole_range) {
	activation_equals_c(CPU_LEVEL_AVX2);
}

TEST(avx512_activations_equal_c_over_the_whole_range) {
	activation_equals_c(CPU_LEVEL_AVX512);
}

TEST(c_rows_do_not_depend_on_their_neighbours) {
	rows_are_independent(ops_c(), WEIGHTS_F32, 130);
	rows_are_independent(ops_c(), WEIGHTS_BF16, 130);
}

TEST(avx2_rows_do_not_depend_on_their_neighbours) {
	rows_are_independent(overlay(CPU_LEVEL_AVX2), WEIGHTS_F32, 1100);
	rows_are_independent(overlay(CPU_LEVEL_AVX2), WEIGHTS_BF16, 1100);
}

TEST(avx512_rows_do_not_depend_on_their_neighbours) {
	rows_are_independent(overlay(CPU_LEVEL_AVX512), WEIGHTS_F32, 1100);
	rows_are_independent(overlay(CPU_LEVEL_AVX512), WEIGHTS_BF16, 1100);
}

TEST(avx512_bf16_rows_do_not_depend_on_their_neighbours) {
	rows_are_independent(overlay(CPU_LEVEL_AVX512_BF16), WEIGHTS_BF16, 2200);
}

TEST(portable_rows_do_not_depend_on_their_neighbours) {
	rows_are_independent(portable_avx512(), WEIGHTS_F32, 530);
	rows_are_independent(portable_avx512(), WEIGHTS_BF16, 530);
	rows_are_independent(portable_avx512_bf16(), WEIGHTS_BF16, 1030);
}

/* One output of a problem in double precision, and the sum of magnitudes its rounding scales with. */
static double exact_output(const struct problem *p, int row, int out, double *ret_scale) {
	double sum = 0, scale = 0;
	for (int k = 0; k < p->n_in; k++) {
		double term = (double)p->x[(size_t)row * p->ldx + (size_t)k]
		                * p->w[(size_t)out * (size_t)p->n_in + (size_t)k];
		sum += term;
		scale += fabs(term);
	}
	sum += p->bias ? p->bias[out] : 0;
	scale += 1;
	if (p->activation == ACTIVATION_RELU)
		sum = sum > 0 ? sum : 0;
	if (p->activation == ACTIVATION_GELU)
		sum = 0.5 * sum * (1 + erf(sum / sqrt(2)));
	if (p->activation == ACTIVATION_GELU_TANH)
		sum = 0.5 * sum * (1 + tanh(sqrt(2 / acos(-1)) * (sum + 0.044715 * sum * sum * sum)));
	if (p->activation == ACTIVATION_TANH)
		sum = tanh(sum);
	if (p->activation == ACTIVATION_SILU)
		sum = sum / (1 + exp(-sum));
	int to = p->map ? p->map[row] : row;
	if (p->add)
		sum += p->y_before[(size_t)to * p->ldy + (size_t)out];
	*ret_scale = scale;
	return sum;
}

/* Keeps of each number what bf16 holds. */
static void shorten(float *x, size_t n) {
	for (size_t i = 0; i < n; i++)
		x[i] = mathf_from_bits(mathf_bits(x[i]) & 0xffff0000u);
}

static void linear_is_right(const struct ops *ops, enum weight_format format) {
	for (int i = 0; i < 60; i++) {
		fresh_memory();
		random_state += (uint64_t)i;
		struct problem p = problem_random(format, random_between(1, 50),
		                random_between(1, 600), random_between(1, 150));
		if (format == WEIGHTS_BF16) {
			shorten(p.w, (size_t)p.n_out * (size_t)p.n_in);
			shorten(p.x, (size_t)p.rows * p.ldx);
		}
		float *y = problem_run(&p, ops);
		for (int row = 0; row < p.rows; row++) {
			for (int out = 0; out < p.n_out; out++) {
				double scale, exact = exact_output(&p, row, out, &scale);
				int to = p.map ? p.map[row] : row;
				double got = y[(size_t)to * p.ldy + (size_t)out];
				CHECK(fabs(got - exact) < 1e-6 * scale);
			}
		}
		/* Nothing else is touched: rows outside the map, and what follows n_out. */
		for (size_t row = 0; row < (size_t)p.rows + 3; row++) {
			bool written = false;
			for (int r = 0; r < p.rows; r++)
				written |= (p.map ? p.map[r] : r) == (int)row;
			for (size_t c = written ? (size_t)p.n_out : 0; c < p.ldy; c++)
				CHECK(y[row * p.ldy + c] == p.y_before[row * p.ldy + c]);
		}
	}
}

TEST(c_linear_is_right) {
	linear_is_right(ops_c(), WEIGHTS_F32);
	linear_is_right(ops_c(), WEIGHTS_BF16);
}

TEST(avx2_linear_is_right) {
	linear_is_right(overlay(CPU_LEVEL_AVX2), WEIGHTS_F32);
	linear_is_right(overlay(CPU_LEVEL_AVX2), WEIGHTS_BF16);
}

TEST(avx512_linear_is_right) {
	linear_is_right(overlay(CPU_LEVEL_AVX512), WEIGHTS_F32);
	linear_is_right(overlay(CPU_LEVEL_AVX512), WEIGHTS_BF16);
}

TEST(avx512_bf16_linear_is_right) {
	linear_is_right(overlay(CPU_LEVEL_AVX512_BF16), WEIGHTS_BF16);
}

TEST(portable_linear_is_right) {
	linear_is_right(portable_avx512(), WEIGHTS_F32);
	linear_is_right(portable_avx512(), WEIGHTS_BF16);
	linear_is_right(portable_avx512_bf16(), WEIGHTS_BF16);
}

TEST(blas_linear_is_right) {
	if (!ops_blas())
		SKIP("this build has no OpenBLAS");
	linear_is_right(ops_blas(), WEIGHTS_F32);
}

TEST(own_linear_agrees_with_openblas) {
	char err[256];
	if (!ops_blas())
		SKIP("this build has no OpenBLAS");
	const struct ops *own = ops_select("native", CPU_LEVEL_AUTO, err, sizeof err);
	static const int rows[] = { 1, 3, 8, 17, 64, 200 };
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		fresh_memory();
		struct problem p = problem_random(WEIGHTS_F32, rows[i], 1024, 300);
		float *a = problem_run(&p, own), *b = problem_run(&p, ops_blas());
		for (size_t j = 0; j < p.y_size; j++)
			CHECK(fabsf(a[j] - b[j]) < 1e-4f);
	}
}

static void packing_round_trip(const struct ops *ops, enum weight_format format) {
	const struct format_ops *f = &ops->formats[format];
	fresh_memory();
	int n_out = 3 * ops->panel + 5, n_in = 37;
	float *w = take_random((size_t)n_out * (size_t)n_in), row[37];
	if (format == WEIGHTS_BF16)
		shorten(w, (size_t)n_out * (size_t)n_in);
	struct matrix whole = pack(ops, format, w, n_out, n_in);
	size_t bytes = f->matrix_bytes(n_out, n_in);
	float *pieces = take(bytes / sizeof(float));
	f->pack(pieces, n_in, w + (size_t)(2 * ops->panel) * 37, 2 * ops->panel, ops->panel + 5);
	f->pack(pieces, n_in, w, 0, 2 * ops->panel);
	CHECK(memcmp(pieces, whole.data, bytes) == 0);
	for (int out = 0; out < n_out; out++) {
		f->unpack_row(&whole, out, row);
		CHECK(memcmp(row, w + (size_t)out * 37, sizeof row) == 0);
	}
}

TEST(c_packing_can_be_undone_and_done_in_pieces) {
	packing_round_trip(ops_c(), WEIGHTS_F32);
	packing_round_trip(ops_c(), WEIGHTS_BF16);
}

TEST(avx2_packing_can_be_undone_and_done_in_pieces) {
	packing_round_trip(overlay(CPU_LEVEL_AVX2), WEIGHTS_F32);
	packing_round_trip(overlay(CPU_LEVEL_AVX2), WEIGHTS_BF16);
}

TEST(avx512_packing_can_be_undone_and_done_in_pieces) {
	packing_round_trip(overlay(CPU_LEVEL_AVX512), WEIGHTS_F32);
	packing_round_trip(overlay(CPU_LEVEL_AVX512), WEIGHTS_BF16);
}

TEST(portable_packing_can_be_undone_and_done_in_pieces) {
	packing_round_trip(portable_avx512(), WEIGHTS_F32);
	packing_round_trip(portable_avx512(), WEIGHTS_BF16);
}

TEST(blas_packing_can_be_undone_and_done_in_pieces) {
	if (!ops_blas())
		SKIP("this build has no OpenBLAS");
	packing_round_trip(ops_blas(), WEIGHTS_F32);
}

/* Halfway goes to the even neighbour; a NaN stays one though its upper bits alone are infinity's. */
TEST(bf16_is_rounded_to_nearest_even) {
	static const uint32_t cases[][2] = { { 0x3f808000, 0x3f80 }, { 0x3f818000, 0x3f82 },
		{ 0x3f808001, 0x3f81 }, { 0x3f807fff, 0x3f80 }, { 0xbf818000, 0xbf82 },
		{ 0x7f7f8000, 0x7f80 }, { 0x7f7f7fff, 0x7f7f }, { 0x80000000, 0x8000 },
		{ 0x00008000, 0 }, { 0x00018000, 2 }, { 0x7f800000, 0x7f80 },
		{ 0x7f800001, 0x7fc0 }, { 0xffffffff, 0xffff } };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		CHECK_INT(bf16_round(mathf_from_bits(cases[i][0])), cases[i][1]);
}

/* ---- the choice of a table ---- */

TEST(levels_have_names) {
	enum cpu_level level;
	for (int i = CPU_LEVEL_AUTO; i < CPU_LEVELS; i++) {
		CHECK(cpu_level_parse(cpu_level_name((enum cpu_level)i), &level));
		CHECK_INT(level, i);
	}
	CHECK(!cpu_level_parse("avx", &level));
	CHECK(!cpu_level_parse("", &level));
}

TEST(every_level_up_to_the_machines_own_can_be_chosen) {
	char err[256];
	for (int i = CPU_LEVEL_C; i <= (int)cpu_level_detect(); i++) {
		const struct ops *ops = ops_select("native", (enum cpu_level)i, err, sizeof err);
		CHECK(ops != NULL);
		CHECK_STR(ops->name, cpu_level_name((enum cpu_level)i));
		CHECK(ops->exact);
	}
}

TEST(a_level_above_the_machines_own_is_refused) {
	char err[256] = "";
	if (cpu_level_detect() == CPU_LEVELS - 1)
		SKIP("this processor has the highest level");
	CHECK(ops_select("native", CPU_LEVELS - 1, err, sizeof err) == NULL);
	CHECK(strstr(err, "avx512-bf16") != NULL);
}

TEST(unknown_kernels_are_refused) {
	char err[256] = "";
	CHECK(ops_select("fast", CPU_LEVEL_AUTO, err, sizeof err) == NULL);
	CHECK(strstr(err, "fast") != NULL);
}

TEST(blas_is_chosen_by_name_and_says_what_it_is) {
	char err[256] = "";
	const struct ops *ops = ops_select("blas", CPU_LEVEL_AUTO, err, sizeof err);
	if (!ops_blas()) {
		CHECK(ops == NULL && err[0] != '\0');
		SKIP("this build has no OpenBLAS");
	}
	CHECK(ops != NULL);
	CHECK(!ops->exact);
	CHECK(strlen(ops_blas_description()) > 0);
}

TEST(auto_takes_the_highest_level) {
	char err[256];
	if (cpu_level_detect() == CPU_LEVEL_C)
		SKIP("no overlay for this processor");
	const struct ops *ops = ops_select("auto", CPU_LEVEL_AUTO, err, sizeof err);
	CHECK_STR(ops->name, cpu_level_name(cpu_level_detect()));
}

TEST(another_rounding_mode_is_noticed) {
	CHECK(ops_float_env_ok());
	static const int modes[] = { FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO };
	for (int i = 0; i < 3; i++) {
		fesetround(modes[i]);
		bool ok = ops_float_env_ok();
		fesetround(FE_TONEAREST);
		CHECK(!ok);
	}
	CHECK(ops_float_env_ok());
}
