/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of loading share: writing checkpoints whose every number is known from its
 * tensor's name, loading them, and comparing what came back.
 */
#ifndef FATHOM_TESTS_WEIGHTS_CHECK_H
#define FATHOM_TESTS_WEIGHTS_CHECK_H

#include "model/weights.h"

#include "tests/check.h"
#include "tests/folder.h"

static char err[400];

/* ---- writing folders ---- */

struct writer {
	struct tensor_file file;
	const char *prefix, *dtype, *skip;
};

static inline void add(struct writer *w, const char *name, size_t rows, size_t columns) {
	char full[200];
	snprintf(full, sizeof full, "%s%s", w->prefix, name);
	if (!w->skip || strcmp(w->skip, full) != 0)
		tensor_file_add(&w->file, full, w->dtype, rows, columns);
}

static inline void add_pair(
                struct writer *w, const char *name, size_t rows, size_t columns, size_t bias) {
	char full[160];
	snprintf(full, sizeof full, "%s.weight", name);
	add(w, full, rows, columns);
	snprintf(full, sizeof full, "%s.bias", name);
	add(w, full, bias, 0);
}

static inline void add_layer(struct writer *w, const char *prefix, int layer, const char *name,
                size_t rows, size_t columns, size_t bias) {
	char full[120];
	snprintf(full, sizeof full, "%s%d.%s", prefix, layer, name);
	add_pair(w, full, rows, columns, bias);
}

/* A folder with one file of weights. */
static inline char *folder_of(unsigned char *bytes, size_t len) {
	char *dir = folder_create();
	folder_write(dir, "model.safetensors", bytes, len);
	free(bytes);
	return dir;
}

static inline bool load(const char *dir, const struct facts *f, const struct ops *ops,
                struct weights *weights) {
	err[0] = '\0';
	struct weights_options options = { .ops = ops, .threads = 2 };
	return weights_load(dir, f, &options, weights, err, sizeof err);
}

static inline void check_refused(const char *dir, const struct facts *f, const char *why) {
	struct weights w;
	CHECK(!load(dir, f, ops_c(), &w));
	if (!strstr(err, why) || !is_sentence(err))
		check_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", err, why);
}

/* ---- what must be where ---- */

/* Rows [first, first + rows) of a packed matrix are the tensor [rows, n_in], or its transpose. */
static inline void check_rows(const struct ops *ops, const struct matrix *m, int first, int rows,
                const char *name, bool transposed) {
	float *row = malloc((size_t)m->n_in * sizeof *row);
	CHECK(row != NULL);
	CHECK(first + rows <= m->n_out);
	for (int r = 0; r < rows; r++) {
		ops->formats[m->format].unpack_row(m, first + r, row);
		for (int k = 0; k < m->n_in; k++) {
			size_t at = transposed ? (size_t)k * (size_t)rows + (size_t)r
			                       : (size_t)r * (size_t)m->n_in + (size_t)k;
			if (row[k] != tensor_value(name, at))
				check_fail(__FILE__, __LINE__, "%s: row %d, column %d differs",
				                name, r, k);
		}
	}
	free(row);
}

static inline void check_vector(const float *v, size_t n, const char *name) {
	CHECK(v != NULL);
	for (size_t i = 0; i < n; i++) {
		if (v[i] != tensor_value(name, i))
			check_fail(__FILE__, __LINE__, "%s: element %zu differs", name, i);
	}
}

/* Each table that this machine has. */
static inline int tables(const struct ops *list[CPU_LEVELS + 1]) {
	int n = 0;
	list[n++] = ops_c();
	for (int i = CPU_LEVEL_AVX2; i <= (int)cpu_level_detect(); i++)
		list[n++] = ops_of_level((enum cpu_level)i);
	if (ops_blas())
		list[n++] = ops_blas();
	return n;
}

#endif
