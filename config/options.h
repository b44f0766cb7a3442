/* SPDX-License-Identifier: Apache-2.0 */
/* The table of options: one row gives an option its place, type, range, default and meaning. */
#ifndef FATHOM_CONFIG_OPTIONS_H
#define FATHOM_CONFIG_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

enum option_type {
	OPTION_STRING, /* char *: any text, owned */
	OPTION_WORD,   /* char[width]: one of `choices`, or any short text if there are none */
	OPTION_INT,    /* int */
	OPTION_BYTES,  /* int64_t; accepts K, M, G (binary) suffixes */
	OPTION_MS,     /* int milliseconds; accepts ms, s, min suffixes */
	OPTION_BOOL,   /* bool; as a flag `--name` or `--no-name` */
	OPTION_LIST, /* char *[limit] with a count; repeatable flag, JSON list, comma-separated variable */
	OPTION_TIERS, /* tiers: {"name": depth or fraction}; flag and variable NAME=VALUE */
};

struct option {
	const char *section; /* heading in --help */
	const char *name; /* "queue-requests": flag; JSON key and FATHOM_ variable have underscores */
	enum option_type type;
	size_t offset;       /* in struct config */
	size_t count_offset; /* LIST, TIERS */
	size_t width;        /* WORD: size of the array; LIST, TIERS: most entries */
	const char *preset;  /* default, as text; NULL: unset */
	int64_t least, most; /* INT, BYTES, MS */
	const char *choices; /* WORD: "auto|c|avx2", NULL: free text */
	const char *meaning;
};

extern const struct option option_table[];
extern const size_t option_count;

/* The option whose name is `name` with '-' and '_' taken as equal; NULL if there is none. */
const struct option *option_find(const char *name, size_t len);

/* Sets an option from text. `source` ("--port", "FATHOM_PORT", "FILE: port") goes into the sentence. */
bool option_set(const struct option *option, struct config *config, const char *text,
                const char *source, char *err, size_t errlen);

/* Empties a list before a stronger source fills it. */
void option_clear(const struct option *option, struct config *config);

#endif
