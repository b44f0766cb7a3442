/* SPDX-License-Identifier: Apache-2.0 */
/* Flags of a command that has its own: "--name value", "--name=value" or a bare "--name". */
#ifndef FATHOM_CLI_ARGS_H
#define FATHOM_CLI_ARGS_H

#include <stdbool.h>

enum arg_kind {
	ARG_TEXT,   /* const char * */
	ARG_INT,    /* int, from min to max */
	ARG_NUMBER, /* double, from min to max */
	ARG_FLAG,   /* bool; takes no value */
};

struct arg {
	const char *name; /* without the dashes */
	enum arg_kind kind;
	void *value;
	double min, max;
};

/*
 * Reads argv[1..argc). What is no flag goes to `words` in order, at most `max_words`; "--" ends the
 * flags. False with a sentence on stderr that begins with "fathom COMMAND"; `*ret_help` is set if
 * --help was asked for.
 */
bool args_read(const char *command, const struct arg *args, int n_args, int argc, char **argv,
                const char **words, int max_words, int *ret_words, bool *ret_help);

#endif
