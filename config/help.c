/* SPDX-License-Identifier: Apache-2.0 */
/* What people read about the configuration: --help, the reference in the docs, and the dump. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config/options.h"

static const char *type_name(const struct option *option) {
	switch (option->type) {
	case OPTION_STRING:
	case OPTION_WORD:
		return option->choices ? option->choices + strspn(option->choices, "|") : "TEXT";
	case OPTION_INT:
		return "N";
	case OPTION_BYTES:
		return "BYTES";
	case OPTION_MS:
		return "TIME";
	case OPTION_BOOL:
		return "";
	case OPTION_LIST:
		return "TEXT ...";
	case OPTION_TIERS:
		return "NAME=DEPTH ...";
	}
	return "";
}

static const char *preset_text(const struct option *option) {
	if (option->type == OPTION_TIERS)
		return "fast=0.25, balanced=0.5, full=1.0";
	return option->preset && *option->preset ? option->preset : "none";
}

/* FATHOM_QUEUE_REQUESTS */
static void variable_name(const struct option *option, char out[96]) {
	int n = snprintf(out, 96, "FATHOM_%s", option->name);
	for (int i = 7; i < n; i++)
		out[i] = out[i] == '-'
		                ? '_'
		                : (char)(out[i] >= 'a' && out[i] <= 'z' ? out[i] - 32 : out[i]);
}

static void print_plain(FILE *out, const struct option *option) {
	char left[160];
	snprintf(left, sizeof left, "--%s %s", option->name, type_name(option));
	fprintf(out, "  %-34s %s (default: %s)\n", left, option->meaning, preset_text(option));
}

/* "auto|native|blas" -> "auto, native, blas" */
static void list_choices(const char *choices, char *out, size_t size) {
	size_t n = 0;
	for (choices += strspn(choices, "|"); *choices && n + 3 < size; choices++) {
		out[n++] = *choices == '|' ? ',' : *choices;
		if (*choices == '|')
			out[n++] = ' ';
	}
	out[n] = '\0';
}

static void print_row(FILE *out, const struct option *option) {
	char variable[96], range[80] = "";
	variable_name(option, variable);
	if (option->most > option->least && option->type != OPTION_BOOL)
		snprintf(range, sizeof range, "%lld to %lld", (long long)option->least,
		                (long long)option->most);
	else if (option->choices)
		list_choices(option->choices, range, sizeof range);
	fprintf(out, "| `--%s` | `%s` | %s | %s | %s |\n", option->name, variable,
	                preset_text(option), range, option->meaning);
}

void config_help(FILE *out, bool markdown) {
	const char *section = NULL;
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &option_table[i];
		if (section != option->section) {
			section = option->section;
			if (markdown)
				fprintf(out,
				                "\n### %s\n\n| flag | variable | default | allowed "
				                "| meaning |\n"
				                "|---|---|---|---|---|\n",
				                section);
			else
				fprintf(out, "\n%s\n", section);
		}
		if (markdown)
			print_row(out, option);
		else
			print_plain(out, option);
	}
	if (!markdown)
		fprintf(out,
		                "\nEach option is also a key of the file that --config FILE (or "
		                "FATHOM_CONFIG) names, with\n"
		                "underscores, and an environment variable FATHOM_NAME. Flags win "
		                "over the environment,\n"
		                "the environment over the file. Times take ms, s or min; sizes "
		                "take K, M or G.\n"
		                "What may be repeated is a list in the file, with commas in the "
		                "environment, and replaces\n"
		                "what the level below says; tiers are an object in the file. A "
		                "switch is turned off by\n"
		                "--no-NAME or --NAME=false.\n");
}

static json_t *option_value(const struct option *option, const struct config *config) {
	const char *field = (const char *)config + option->offset;
	const int *count = (const int *)((const char *)config + option->count_offset);
	json_t *value;
	switch (option->type) {
	case OPTION_STRING:
		return *(char *const *)field ? json_string(*(char *const *)field) : json_null();
	case OPTION_WORD:
		return json_string(field);
	case OPTION_INT:
	case OPTION_MS:
		return json_integer(*(const int *)field);
	case OPTION_BYTES:
		return json_integer(*(const int64_t *)field);
	case OPTION_BOOL:
		return json_boolean(*(const bool *)field);
	case OPTION_LIST:
		value = json_array();
		for (int i = 0; i < *count; i++)
			json_array_append_new(value, json_string(((char *const *)field)[i]));
		return value;
	case OPTION_TIERS:
		value = json_object();
		for (int i = 0; i < *count; i++) {
			const struct config_tier *tier = &config->tiers[i];
			json_object_set_new(value, tier->name,
			                tier->depth ? json_integer(tier->depth)
			                            : json_real(tier->fraction));
		}
		return value;
	}
	return json_null();
}

void config_dump(const struct config *config, FILE *out) {
	json_t *root = json_object();
	for (size_t i = 0; i < option_count; i++) {
		char key[96];
		snprintf(key, sizeof key, "%s", option_table[i].name);
		for (char *c = key; *c; c++)
			*c = *c == '-' ? '_' : *c;
		json_object_set_new(root, key, option_value(&option_table[i], config));
	}
	json_dumpf(root, out, JSON_INDENT(2));
	fputc('\n', out);
	json_decref(root);
}
