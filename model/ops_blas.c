/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OpenBLAS table: weights stay as they are in the checkpoint, [n_out][n_in]. Its sums depend on
 * the shape of a call, so it is not exact. OpenBLAS runs on the calling thread only; the compute
 * team splits the output channels. The only file that knows cblas.h.
 */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/ops.h"
#include "model/ops_shared.h"

enum {
	PANEL = 64,    /* output channels in a unit of work */
	GEMV_ROWS = 8, /* below, one product with a vector for each row: sgemm repacks the weights */
	TILE_ROWS = 128, /* a tile of results on the stack, where they cannot go to y at once */
	TILE_COLUMNS = 128,
};

static size_t blas_matrix_bytes(int n_out, int n_in) {
	return (size_t)n_out * (size_t)n_in * sizeof(float);
}

static void blas_pack(void *data, int n_in, const float *src, int first, int count) {
	memcpy((float *)data + (size_t)first * (size_t)n_in, src,
	                (size_t)count * (size_t)n_in * sizeof(float));
}

static void blas_unpack_row(const struct matrix *w, int out, float *dst) {
	memcpy(dst, (const float *)w->data + (size_t)out * (size_t)w->n_in,
	                (size_t)w->n_in * sizeof(float));
}

static void multiply(const struct linear *l, int row, int rows, int first, int count, float *to,
                size_t ld) {
	int n_in = l->w->n_in;
	const float *w = (const float *)l->w->data + (size_t)first * (size_t)n_in;
	const float *x = linear_input(l, row);
	size_t ldx = l->x_stride / sizeof *x;
	if (rows >= GEMV_ROWS) {
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, count, n_in, 1, x,
		                (int)ldx, w, n_in, 0, to, (int)ld);
		return;
	}
	for (int i = 0; i < rows; i++)
		cblas_sgemv(CblasRowMajor, CblasNoTrans, count, n_in, 1, w, n_in,
		                x + (size_t)i * ldx, 1, 0, to + (size_t)i * ld, 1);
}

/* Results that must not overwrite y before they are complete go through a tile. */
static void linear_by_tiles(const struct linear *l, int first, int end) {
	_Alignas(64) float tile[TILE_ROWS * TILE_COLUMNS];
	for (int row = 0; row < l->rows; row += TILE_ROWS) {
		int rows = l->rows - row < TILE_ROWS ? l->rows - row : TILE_ROWS;
		for (int c = first; c < end; c += TILE_COLUMNS) {
			int count = end - c < TILE_COLUMNS ? end - c : TILE_COLUMNS;
			multiply(l, row, rows, c, count, tile, TILE_COLUMNS);
			for (int i = 0; i < rows; i++)
				scalar_finish(l, tile + i * TILE_COLUMNS,
				                linear_row(l, row + i) + c, c, count);
		}
	}
}

static void blas_linear(const struct linear *l, int first_panel, int end_panel) {
	int first = first_panel * PANEL, n_out = l->w->n_out;
	int end = end_panel * PANEL < n_out ? end_panel * PANEL : n_out;
	if (first >= end)
		return;
	if (l->add || l->y_rows) {
		linear_by_tiles(l, first, end);
		return;
	}
	multiply(l, 0, l->rows, first, end - first, l->y + first, l->ldy);
	if (!l->bias && l->activation == ACTIVATION_NONE)
		return;
	for (int i = 0; i < l->rows; i++) {
		float *y = linear_row(l, i) + first;
		scalar_finish(l, y, y, first, end - first);
	}
}

const struct ops *ops_blas(void) {
	static struct ops table;
	if (table.name)
		return &table;
	openblas_set_num_threads(1);
	enum cpu_level level = cpu_level_detect();
	table = level >= CPU_LEVEL_AVX512         ? *ops_avx512()
	                : level == CPU_LEVEL_AVX2 ? *ops_avx2()
	                                          : *ops_c();
	table.name = "blas";
	table.exact = false;
	table.panel = PANEL;
	memset(table.formats, 0, sizeof table.formats);
	table.formats[WEIGHTS_F32] = (struct format_ops){
		.arithmetic = "f32, OpenBLAS: sums depend on the processor and on the batch",
		.matrix_bytes = blas_matrix_bytes,
		.pack = blas_pack,
		.unpack_row = blas_unpack_row,
		.linear = blas_linear,
	};
	return &table;
}

const char *ops_blas_description(void) {
	static char text[256];
	snprintf(text, sizeof text, "%s core; %s", openblas_get_corename(), openblas_get_config());
	return text;
}

/* Reproducible numbers in [-1, 1). */
static void fill(float *x, size_t n, uint32_t seed) {
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525u + 1013904223u;
		x[i] = (float)(int32_t)seed * 0x1p-31f;
	}
}

/* Whether one product of `rows` rows agrees with the C table. */
static bool agrees(const float *weights, const float *x, float *packed, float *ours, float *theirs,
                int rows, int n_out, int n_in) {
	/* Sums of some hundred products of numbers below 1 differ by rounding only: far below this. */
	const float tolerance = 1e-3f;
	const struct ops *tables[2] = { ops_c(), ops_blas() };
	float *results[2] = { ours, theirs };
	for (int i = 0; i < 2; i++) {
		const struct ops *ops = tables[i];
		int panels = (n_out + ops->panel - 1) / ops->panel;
		const struct format_ops *f32 = &ops->formats[WEIGHTS_F32];
		f32->pack(packed, n_in, weights, 0, n_out);
		struct matrix w = { n_out, n_in, panels, WEIGHTS_F32, packed };
		struct linear l = { .w = &w, .x = x, .y = results[i] };
		l.x_stride = (size_t)n_in * sizeof(float);
		l.ldy = (size_t)n_out;
		l.rows = rows;
		f32->linear(&l, 0, panels);
	}
	for (int i = 0; i < rows * n_out; i++)
		if (!(fabsf(ours[i] - theirs[i]) < tolerance))
			return false;
	return true;
}

bool ops_blas_check(char *err, size_t errlen) {
	enum { OUT = 200, IN = 300, ROWS = 40 };
	size_t n_packed = (size_t)(OUT + PANEL) * IN;
	float *memory = malloc((OUT * IN + ROWS * IN + n_packed + 2 * ROWS * OUT) * sizeof(float));
	if (!memory) {
		snprintf(err, errlen, "no memory to check OpenBLAS");
		return false;
	}
	float *weights = memory, *x = weights + OUT * IN, *packed = x + ROWS * IN;
	float *ours = packed + n_packed, *theirs = ours + ROWS * OUT;
	fill(weights, OUT * IN, 1);
	fill(x, ROWS * IN, 2);
	bool right = true;
	static const int rows[] = { 1, 4, 8, 33, ROWS };
	for (size_t i = 0; i < sizeof rows / sizeof *rows && right; i++)
		right = agrees(weights, x, packed, ours, theirs, rows[i], OUT, IN);
	free(memory);
	if (!right)
		snprintf(err, errlen,
		                "OpenBLAS (%s core) multiplies wrongly on this processor: use "
		                "other kernels, or set OPENBLAS_CORETYPE",
		                openblas_get_corename());
	return right;
}
