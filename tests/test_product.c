/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of a team, large enough to be dealt: every number is that of the kernel called by itself
 * over ranges cut elsewhere. Also run under ThreadSanitizer.
 */
#include "model/product.h"

#include "tests/products.h"

/* Some products one after another, each into its own y, as layers do: only barriers between. */
enum { PRODUCTS = 3 };

struct run {
	struct product products[PRODUCTS];
};

static void apply_all(void *arg, int member) {
	struct run *run = arg;
	for (int i = 0; i < PRODUCTS; i++) {
		product_apply(&run->products[i], member);
		team_barrier(run->products[i].team, member);
	}
}

static void equals_the_kernel(enum weight_format format, int rows, int threads) {
	char err[256] = "";
	const struct ops *ops = ops_select("native", CPU_LEVEL_AUTO, err, sizeof err);
	struct team *team = team_create(threads, err, sizeof err);
	CHECK(ops && team);
	fresh_memory();
	struct problem p = problem_random(format, rows, 256, 8000);
	float *expected = problem_run(&p, ops), *y[PRODUCTS];
	struct linear_weights weights = { pack(ops, format, p.w, p.n_out, p.n_in), p.bias };
	struct product_inputs inputs = { NULL, 0 };
	if (ops->formats[format].input) {
		inputs.stride = ops->formats[format].input_bytes(p.n_in);
		inputs.rows = take((size_t)rows * inputs.stride / sizeof(float));
	}
	struct run run;
	for (int i = 0; i < PRODUCTS; i++) {
		y[i] = take_copy(p.y_before, p.y_size);
		run.products[i] = (struct product){ .ops = ops,
			.team = team,
			.inputs = &inputs,
			.weights = &weights,
			.x = p.x,
			.ldx = p.ldx,
			.y = y[i],
			.ldy = p.ldy,
			.y_rows = p.map,
			.rows = rows,
			.activation = p.activation,
			.add = p.add };
	}
	team_run(team, apply_all, &run);
	for (int i = 0; i < PRODUCTS; i++)
		CHECK(same_bits(y[i], expected, p.y_size));
	team_destroy(team);
}

static void every_size(enum weight_format format) {
	static const int rows[] = { 1, 5, 37, 150 };
	for (int i = 0; i < 4; i++)
		for (int threads = 1; threads <= 4; threads++)
			equals_the_kernel(format, rows[i], threads);
}

TEST(f32_products_of_a_team_are_those_of_the_kernel) {
	every_size(WEIGHTS_F32);
}

TEST(bf16_products_of_a_team_are_those_of_the_kernel) {
	every_size(WEIGHTS_BF16);
}

TEST(int8_products_of_a_team_are_those_of_the_kernel) {
	every_size(WEIGHTS_INT8);
}

TEST(int4_products_of_a_team_are_those_of_the_kernel) {
	every_size(WEIGHTS_INT4);
}
