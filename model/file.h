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

/*
 * A file that is to take NAME's place whole: DIR/NAME.part, which this process alone may write. -1
 * with a sentence if it cannot be had, or another process writes it.
 */
int file_part_open(const char *dir, const char *name, char *err, size_t errlen);
/* Gives it its name if all went well (`ok`), else removes it; closes it. False with a sentence. */
bool file_part_finish(int fd, const char *dir, const char *name, bool ok, char *err, size_t errlen);
/* Removes DIR/PART, a file of this kind, unless a process writes it. */
void file_part_remove(const char *dir, const char *part);
/* All of `mem` to the descriptor at an offset; false with errno set. */
bool file_write(int fd, const void *mem, size_t len, size_t at);

/* Writes a small file whole, in the place of one that may be there. */
bool file_replace(const char *dir, const char *name, const void *mem, size_t len, char *err,
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
