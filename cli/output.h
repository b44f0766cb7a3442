/* SPDX-License-Identifier: Apache-2.0 */
/* Files that commands write. */
#ifndef FATHOM_CLI_OUTPUT_H
#define FATHOM_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/buffer.h"

/* Whether a file could be written, told before the work that fills it: what is there stays, and a
 * file that is not there is not left behind. NULL and "-" can. False with one sentence. */
bool output_check(const char *path, char *err, size_t errlen);

/* Writes a file; "-" is standard output. False with one sentence. */
bool output_write(const char *path, const struct buffer *b, char *err, size_t errlen);

/* The same beside the file and then in its place: who reads it sees the old one or the new one. */
bool output_replace(const char *path, const struct buffer *b, char *err, size_t errlen);

#endif
