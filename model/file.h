/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a model folder: read whole, or mapped. Only regular files are opened; every sentence
 * in `err` starts with the file's name. Any thread.
 */
#ifndef FATHOM_MODEL_FILE_H
#define FATHOM_MODEL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether `dir` holds something called `name`. */
bool file_exists(const char *dir, const char *name);

/* The file's bytes, NUL-terminated beyond `ret_len`; free() them. NULL if over `max` bytes long. */
char *file_read(const char *dir, const char *name, size_t max, size_t *ret_len, char *err,
                size_t errlen);

/* A read-only mapping. A file that is cut while it is mapped ends the process: map briefly. */
struct file_map {
	const void *mem; /* NULL if the file is empty */
	size_t size;
	int64_t changed_s; /* the file's modification time, seconds since the epoch */
	int64_t changed_ns;
};

bool file_map(const char *dir, const char *name, struct file_map *ret_map, char *err,
                size_t errlen);
/* The pages that were read may leave memory; they are read again when they are needed. */
void file_release(const struct file_map *map);
void file_unmap(struct file_map *map);

#endif
