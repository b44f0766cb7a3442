/* SPDX-License-Identifier: Apache-2.0 */
/* The words of a load as flags, for the commands that run loads. */
#ifndef FATHOM_CLI_LOAD_ARGS_H
#define FATHOM_CLI_LOAD_ARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/load/load.h"
#include "cli/args.h"

enum { LOAD_FLAGS = 48 };

struct load_options {
	const char *file;              /* --load */
	const char *words[LOAD_FLAGS]; /* as load_words; NULL: not given */
	char names[LOAD_FLAGS][LOAD_NAME];
};

/* The flags, for args_read; at most LOAD_FLAGS, returns how many. */
int load_args(struct load_options *o, struct arg *args);
/* The value of a flag, by its word; NULL: not given. */
const char **load_args_word(struct load_options *o, const char *name);
/* The load that the file and, above it, the flags describe; not settled. False with one sentence. */
bool load_args_read(struct load *load, const struct load_options *o, char *err, size_t errlen);

/* One line of --help: a flag, what it takes, what it means (lines apart by \n). */
void load_args_help_line(const char *name, const char *value, const char *help);
/* The words of a load, for --help. */
void load_args_help(void);

#endif
