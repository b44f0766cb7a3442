/* SPDX-License-Identifier: Apache-2.0 */
/* Reading flags by a table. */
#include "cli/args.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool refuse(const char *command, const char *format, ...)
                __attribute__((format(printf, 2, 3)));

static bool refuse(const char *command, const char *format, ...) {
	va_list list;
	fprintf(stderr, "fathom %s: ", command);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fprintf(stderr, "; fathom %s --help lists the flags\n", command);
	return false;
}

static bool take(const char *command, const struct arg *arg, const char *text) {
	char *end;
	errno = 0;
	double value = arg->kind == ARG_TEXT ? 0 : strtod(text, &end);
	switch (arg->kind) {
	case ARG_TEXT:
		*(const char **)arg->value = text;
		return true;
	case ARG_INT:
	case ARG_NUMBER:
		if (end == text || *end || errno || !(value >= arg->min && value <= arg->max)
		                || (arg->kind == ARG_INT && value != floor(value)))
			return refuse(command,
			                "--%s takes a %snumber from %.10g to %.10g, not \"%s\"",
			                arg->name, arg->kind == ARG_INT ? "whole " : "", arg->min,
			                arg->max, text);
		if (arg->kind == ARG_INT)
			*(int *)arg->value = (int)value;
		else
			*(double *)arg->value = value;
		return true;
	case ARG_FLAG:
		break;
	}
	return refuse(command, "--%s takes no value", arg->name);
}

static const struct arg *find(const struct arg *args, int n, const char *name, size_t len) {
	for (int i = 0; i < n; i++) {
		if (strlen(args[i].name) == len && memcmp(args[i].name, name, len) == 0)
			return &args[i];
	}
	return NULL;
}

bool args_read(const char *command, const struct arg *args, int n_args, int argc, char **argv,
                const char **words, int max_words, int *ret_words, bool *ret_help) {
	bool flags = true;
	*ret_help = false;
	*ret_words = 0;
	for (int i = 1; i < argc; i++) {
		const char *text = argv[i];
		if (flags && strcmp(text, "--") == 0) {
			flags = false;
			continue;
		}
		if (!flags || text[0] != '-' || strcmp(text, "-") == 0) {
			if (*ret_words == max_words)
				return refuse(command, "\"%s\" is one argument too many", text);
			words[(*ret_words)++] = text;
			continue;
		}
		if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
			*ret_help = true;
			return true;
		}
		const char *value = strchr(text, '=');
		size_t skip = strncmp(text, "--", 2) == 0 ? 2 : 0;
		size_t len = value ? (size_t)(value - text) - skip : strlen(text) - skip;
		const struct arg *arg = skip ? find(args, n_args, text + skip, len) : NULL;
		if (!arg)
			return refuse(command, "there is no flag %s", text);
		if (arg->kind == ARG_FLAG && !value) {
			*(bool *)arg->value = true;
			continue;
		}
		if (!value && i + 1 == argc)
			return refuse(command, "%s needs a value", text);
		if (!take(command, arg, value ? value + 1 : argv[++i]))
			return false;
	}
	return true;
}
