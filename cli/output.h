/* SPDX-License-Identifier: Apache-2.0 */
/* Files that commands write. */
#ifndef FATHOM_CLI_OUTPUT_H
#define FATHOM_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/buffer.h"

/* Writes a file; "-" is standard output. False with one sentence. */
bool output_write(const char *path, const struct buffer *b, char *err, size_t errlen);

/* The same beside the file and then in its place: who reads it sees the old one or the new one. */
bool output_replace(const char *path, const struct buffer *b, char *err, size_t errlen);

#endif
