/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors format: a pure, bounds-checked parser. It reads a header from memory and never
 * touches a file.
 *
 * Format: 8 bytes little-endian header length, a JSON object { name: {dtype, shape, data_offsets}
 * }, then the data. Checked: header at most 16 MiB and inside the file, starts with '{', UTF-8, no
 * duplicate names, at most 65,536 tensors, rank at most 8, products of shapes without overflow, end
 * - begin equal to the product, offsets without gaps or overlap, the last end equal to the end of
 * the file.
 */
#ifndef FATHOM_MODEL_SAFETENSORS_H
#define FATHOM_MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_OTHER };

struct tensor {
	char *name; /* owned by the table */
	enum dtype dtype;
	int rank;
	size_t shape[8];
	size_t count;         /* elements */
	size_t offset, bytes; /* in the file, absolute */
};

/* The tensors of one file, sorted by name. */
struct tensor_table {
	struct tensor *tensors;
	size_t count;
};

/*
 * Parses the first bytes of a file that is `file_size` long; `len` bytes of it are at `mem` (at
 * least the header).
 */
bool safetensors_parse(const void *mem, size_t len, size_t file_size,
                struct tensor_table *ret_table, char *err, size_t errlen);
void safetensors_finish(struct tensor_table *table);

/* Binary search; NULL if absent. */
const struct tensor *safetensors_find(const struct tensor_table *table, const char *name);

/* "f32", "f16", "bf16", "other". */
const char *dtype_name(enum dtype dtype);
/* Bytes of one element; 0 for DTYPE_OTHER, which cannot be widened. */
size_t dtype_size(enum dtype dtype);
/* Widens `count` elements of F32, F16 or BF16 to f32, exactly; `src` may be unaligned. */
void dtype_widen(float *dst, const void *src, enum dtype dtype, size_t count);

#endif
