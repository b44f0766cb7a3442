/* SPDX-License-Identifier: Apache-2.0 */
/* Flags out of the table of a load's words. */
#include "cli/load_args.h"

#include <stdio.h>
#include <string.h>

enum { COLUMN = 25 };

static void put_dashes(char *name) {
	for (; *name; name++)
		*name = *name == '_' ? '-' : *name;
}

int load_args(struct load_options *o, struct arg *args) {
	int n = 0;
	for (const struct load_word *w = load_words; w->name; w++) {
		if (w->where == LOAD_OF_CLASS)
			continue;
		snprintf(o->names[n], LOAD_NAME, "%s", w->name);
		put_dashes(o->names[n]);
		args[n] = (struct arg){ o->names[n], ARG_TEXT, &o->words[n], 0, 0 };
		n++;
	}
	args[n++] = (struct arg){ "load", ARG_TEXT, &o->file, 0, 0 };
	return n;
}

const char **load_args_word(struct load_options *o, const char *name) {
	int n = 0;
	for (const struct load_word *w = load_words; w->name; w++) {
		if (w->where == LOAD_OF_CLASS)
			continue;
		if (strcmp(w->name, name) == 0)
			return &o->words[n];
		n++;
	}
	return NULL;
}

bool load_args_read(struct load *load, const struct load_options *o, char *err, size_t errlen) {
	load_init(load);
	if (o->file && !load_read_file(load, o->file, err, errlen))
		return false;
	for (int n = 0; n < LOAD_FLAGS && o->names[n][0]; n++) {
		char why[300];
		if (!o->words[n] || load_set(load, o->names[n], o->words[n], why, sizeof why))
			continue;
		snprintf(err, errlen, "--%s", why);
		put_dashes(err);
		return false;
	}
	return true;
}

void load_args_help_line(const char *name, const char *value, const char *help) {
	char left[80];
	int n = snprintf(left, sizeof left, "  --%s%s%s", name, value ? " " : "",
	                value ? value : "");
	put_dashes(left);
	printf("%-*s", COLUMN, left);
	if (n >= COLUMN)
		printf("\n%*s", COLUMN, "");
	for (; *help; help++) {
		putchar(*help);
		if (*help == '\n')
			printf("%*s", COLUMN, "");
	}
	putchar('\n');
}

void load_args_help(void) {
	for (const struct load_word *w = load_words; w->name; w++) {
		if (w->where != LOAD_OF_CLASS)
			load_args_help_line(w->name, w->value, w->help);
	}
	load_args_help_line(
	                "load", "FILE", "a load in JSON, with the same words; flags go above it");
}
