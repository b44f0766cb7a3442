/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Temporary model folders for tests of the loader, and safetensors files whose numbers are a
 * function of their tensor's name, so that a test knows what must be where without the loader.
 */
#ifndef FATHOM_TESTS_FOLDER_H
#define FATHOM_TESTS_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A fresh empty folder under $TMPDIR; the caller removes it with folder_remove. */
char *folder_create(void);
void folder_remove(char *dir);
void folder_write(const char *dir, const char *name, const void *data, size_t len);
void folder_write_text(const char *dir, const char *name, const char *text);

/* Element `index` of tensor `name`: a multiple of 1/64 in [-2, 2), exact in f32, f16 and bf16. */
float tensor_value(const char *name, size_t index);

/* A safetensors file in the making. Start from zero. */
struct tensor_file {
	char *header;
	unsigned char *data;
	size_t header_len, data_len;
};

/* Adds a tensor full of tensor_value; dtype "F32", "F16" or "BF16"; columns 0: a vector. */
void tensor_file_add(struct tensor_file *file, const char *name, const char *dtype, size_t rows,
                size_t columns);
/* The file's bytes in malloc'd memory, the data at a multiple of 8; finishes `file`. */
unsigned char *tensor_file_finish(struct tensor_file *file, size_t *ret_len);

/* A small generator for damage: splitmix64. */
uint64_t damage_next(uint64_t *state);
/*
 * A damaged copy of data[0..len): some bits flipped, a piece cut out, doubled or overwritten with
 * another piece, or the end cut off. malloc'd, exactly *ret_len (at least 1) bytes.
 */
unsigned char *damage(const unsigned char *data, size_t len, uint64_t *state, size_t *ret_len);

/* Whether `err` is one plain line of text. */
bool is_sentence(const char *err);

#endif
