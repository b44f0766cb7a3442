/* SPDX-License-Identifier: Apache-2.0 */
/* Defaults, file, environment and flags, in this order; the help and the dump. */
#include "config/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "config/options.h"

enum { NAME_SIZE = 96 };

static bool set_defaults(struct config *config, char *err, size_t errlen) {
	static const char *const tiers[] = { "fast=0.25", "balanced=0.5", "full=1.0" };
	const struct option *tier_option = option_find("tiers", 5);
	for (size_t i = 0; i < 3; i++)
		if (!option_set(tier_option, config, tiers[i], "default", err, errlen))
			return false;
	for (size_t i = 0; i < option_count; i++)
		if (option_table[i].preset
		                && !option_set(&option_table[i], config, option_table[i].preset,
		                                option_table[i].name, err, errlen))
			return false;
	return true;
}

/* One JSON value as the text that option_set reads; lists and tiers are walked by the caller. */
static bool set_scalar(const struct option *option, struct config *config, const json_t *value,
                const char *source, char *err, size_t errlen) {
	char number[64];
	bool wants_text = option->type == OPTION_STRING || option->type == OPTION_WORD
	                || option->type == OPTION_LIST;
	if (json_is_string(value) && option->type != OPTION_BOOL && option->type != OPTION_INT)
		return option_set(option, config, json_string_value(value), source, err, errlen);
	if (json_is_boolean(value) && option->type == OPTION_BOOL)
		return option_set(option, config, json_is_true(value) ? "true" : "false", source,
		                err, errlen);
	if (json_is_number(value) && (!wants_text || strcmp(option->name, "default-depth") == 0)
	                && option->type != OPTION_BOOL) {
		snprintf(number, sizeof number, "%.17g", json_number_value(value));
		return option_set(option, config, number, source, err, errlen);
	}
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
	snprintf(err, errlen, "%s: the value %.80s has the wrong type; expected is %s", source,
	                text ? text : "?",
	                option->type == OPTION_BOOL  ? "true or false"
	                                : wants_text ? "a string"
	                                : option->type == OPTION_INT
	                                ? "a number"
	                                : "a number or a string with a unit");
	free(text);
	return false;
}

static bool set_tiers(const struct option *option, struct config *config, json_t *value,
                const char *source, char *err, size_t errlen) {
	const char *name;
	json_t *item;
	if (!json_is_object(value)) {
		snprintf(err, errlen, "%s: the value must be an object of name and depth", source);
		return false;
	}
	json_object_foreach(value, name, item) {
		char text[128];
		if (json_is_integer(item))
			snprintf(text, sizeof text, "%.63s=%lld", name,
			                (long long)json_integer_value(item));
		else if (json_is_real(item))
			/* All digits: 2/3 of 12 layers are 8, 0.666667 of them are 9. */
			snprintf(text, sizeof text, "%.63s=%.20f", name, json_real_value(item));
		else
			snprintf(text, sizeof text, "%.63s=?", name);
		if (strlen(name) > 63 || !option_set(option, config, text, source, err, errlen)) {
			if (strlen(name) > 63)
				snprintf(err, errlen, "%s: a tier's name is longer than 63 bytes",
				                source);
			return false;
		}
	}
	return true;
}

static bool set_from_json(const struct option *option, struct config *config, json_t *value,
                const char *source, char *err, size_t errlen) {
	option_clear(option, config);
	if (option->type == OPTION_TIERS)
		return set_tiers(option, config, value, source, err, errlen);
	if (option->type != OPTION_LIST || json_is_string(value))
		return set_scalar(option, config, value, source, err, errlen);
	if (!json_is_array(value)) {
		snprintf(err, errlen, "%s: the value must be a string or a list of strings",
		                source);
		return false;
	}
	for (size_t i = 0; i < json_array_size(value); i++)
		if (!set_scalar(option, config, json_array_get(value, i), source, err, errlen))
			return false;
	return true;
}

static bool load_file(struct config *config, const char *path, char *err, size_t errlen) {
	json_error_t error;
	json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
	if (!root) {
		if (error.line < 0)
			snprintf(err, errlen, "%s: the configuration file cannot be read", path);
		else
			snprintf(err, errlen, "%s: %s (line %d, column %d)", path, error.text,
			                error.line, error.column);
		return false;
	}
	bool ok = json_is_object(root);
	if (!ok)
		snprintf(err, errlen, "%s: the file must hold a JSON object", path);
	const char *key;
	json_t *value;
	json_object_foreach(root, key, value) {
		const struct option *option = option_find(key, strlen(key));
		char source[4096];
		snprintf(source, sizeof source, "%s: %s", path, key);
		if (!ok)
			break;
		if (!option) {
			char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
			snprintf(err, errlen, "%s: unknown key \"%s\" (value %.80s)", path, key,
			                text ? text : "?");
			free(text);
			ok = false;
		} else if (!json_is_null(value)) {
			ok = set_from_json(option, config, value, source, err, errlen);
		}
	}
	json_decref(root);
	return ok;
}

static bool starts(const char *text, const char *prefix) {
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/*
 * What Kubernetes injects for a service called fathom: FATHOM_PORT=tcp://..., FATHOM_PORT_*,
 * FATHOM_SERVICE_*; and for one called fathom-NAME: FATHOM_NAME_PORT=tcp://...,
 * FATHOM_NAME_PORT_80_TCP and so on, FATHOM_NAME_SERVICE_HOST, FATHOM_NAME_SERVICE_PORT*.
 */
static bool is_injected(const char *name, const char *value) {
	if (starts(name, "PORT_") || starts(name, "SERVICE_"))
		return true;
	for (const char *word = name; word && word < value; word = strchr(word, '_')) {
		word += *word == '_';
		if (starts(word, "SERVICE_HOST=") || starts(word, "SERVICE_PORT=")
		                || starts(word, "SERVICE_PORT_")
		                || (starts(word, "PORT=") && strstr(value, "://"))
		                || (starts(word, "PORT_") && word[5] >= '0' && word[5] <= '9'))
			return true;
	}
	return false;
}

static bool load_variable(struct config *config, const char *name, char *ignored,
                size_t ignored_len, char *err, size_t errlen) {
	const char *equals = strchr(name, '=');
	if (!equals)
		return true;
	const char *value = equals + 1;
	if (is_injected(name, value)) {
		if (ignored)
			snprintf(ignored + strlen(ignored), ignored_len - strlen(ignored),
			                "%sFATHOM_%.*s", *ignored ? ", " : "", (int)(equals - name),
			                name);
		return true;
	}
	char lower[NAME_SIZE];
	size_t len = (size_t)(equals - name);
	for (size_t i = 0; i < len && i < NAME_SIZE - 1; i++)
		lower[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
	const struct option *option = len < NAME_SIZE ? option_find(lower, len) : NULL;
	char source[160];
	snprintf(source, sizeof source, "environment FATHOM_%.*s", (int)len, name);
	if (!option) {
		snprintf(err, errlen, "%s: there is no such option (value \"%.80s\")", source,
		                value);
		return false;
	}
	if (option->type != OPTION_LIST && option->type != OPTION_TIERS)
		return option_set(option, config, value, source, err, errlen);
	option_clear(option, config);
	char *copy = strdup(value), *save = NULL;
	bool ok = copy != NULL;
	for (char *part = copy ? strtok_r(copy, ",", &save) : NULL; ok && part;
	                part = strtok_r(NULL, ",", &save))
		ok = option_set(option, config, part, source, err, errlen);
	free(copy);
	return ok;
}

static bool load_environment(struct config *config, char **variables, char *ignored,
                size_t ignored_len, char *err, size_t errlen) {
	for (char **v = variables; v && *v; v++)
		if (strncmp(*v, "FATHOM_", 7) == 0 && strncmp(*v + 7, "CONFIG=", 7) != 0
		                && !load_variable(
		                                config, *v + 7, ignored, ignored_len, err, errlen))
			return false;
	return true;
}

/* One flag at argv[i]; advances i past its value. */
static bool load_flag(struct config *config, int argc, char **argv, int *i, bool *seen, char *err,
                size_t errlen) {
	const char *flag = argv[*i];
	if (strncmp(flag, "--", 2) != 0) {
		snprintf(err, errlen,
		                "unexpected argument \"%s\"; flags start with --, and a model "
		                "folder is named with "
		                "--model",
		                flag);
		return false;
	}
	const char *name = flag + 2;
	size_t len = strcspn(name, "=");
	const char *value = name[len] ? name + len + 1 : NULL;
	const struct option *option = option_find(name, len);
	bool negated = false;
	if (!option && len > 3 && strncmp(name, "no-", 3) == 0) {
		option = option_find(name + 3, len - 3);
		negated = option && option->type == OPTION_BOOL && !value;
		option = negated ? option : NULL;
	}
	if (!option) {
		snprintf(err, errlen, "unknown flag --%.*s; fathom serve --help lists all",
		                (int)len, name);
		return false;
	}
	if (option->type == OPTION_BOOL && !value)
		value = negated ? "false" : "true";
	if (!value && *i + 1 < argc)
		value = argv[++*i];
	if (!value) {
		snprintf(err, errlen, "--%s needs a value", option->name);
		return false;
	}
	char source[NAME_SIZE + 2];
	snprintf(source, sizeof source, "--%s", option->name);
	if (!seen[option - option_table])
		option_clear(option, config);
	seen[option - option_table] = true;
	return option_set(option, config, value, source, err, errlen);
}

static bool load_flags(struct config *config, int argc, char **argv, bool *help, char *err,
                size_t errlen) {
	bool seen[256] = { false };
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			*help = true;
		else if (strcmp(argv[i], "--config") == 0)
			i++;
		else if (strncmp(argv[i], "--config=", 9) != 0
		                && !load_flag(config, argc, argv, &i, seen, err, errlen))
			return false;
	}
	return true;
}

/* The configuration file: the flag, else FATHOM_CONFIG. False if --config stands last. */
static bool find_file(int argc, char **argv, char **variables, const char **ret_path) {
	*ret_path = NULL;
	for (char **v = variables; v && *v; v++)
		if (strncmp(*v, "FATHOM_CONFIG=", 14) == 0 && (*v)[14])
			*ret_path = *v + 14;
	for (int i = 0; i < argc; i++) {
		if (strncmp(argv[i], "--config=", 9) == 0)
			*ret_path = argv[i] + 9;
		else if (strcmp(argv[i], "--config") == 0 && i + 1 == argc)
			return false;
		else if (strcmp(argv[i], "--config") == 0)
			*ret_path = argv[i + 1];
	}
	return true;
}

static bool check_together(const struct config *config, char *err, size_t errlen) {
	if (config->overload_status != 503 && config->overload_status != 429) {
		snprintf(err, errlen, "overload-status: %d is not 503 or 429",
		                config->overload_status);
		return false;
	}
	if (config->prefill_rows > config->max_rows) {
		snprintf(err, errlen, "prefill-rows: %d is more than max-rows (%d)",
		                config->prefill_rows, config->max_rows);
		return false;
	}
	return true;
}

bool config_load(struct config *ret_config, int argc, char **argv, char **environ_, bool *ret_help,
                char *ret_ignored, size_t ignored_len, char *err, size_t errlen) {
	const char *path;
	memset(ret_config, 0, sizeof *ret_config);
	*ret_help = false;
	if (ret_ignored && ignored_len)
		*ret_ignored = '\0';
	if (!find_file(argc, argv, environ_, &path)) {
		snprintf(err, errlen, "--config needs a value");
		return false;
	}
	return set_defaults(ret_config, err, errlen)
	                && (!path || load_file(ret_config, path, err, errlen))
	                && load_environment(ret_config, environ_, ignored_len ? ret_ignored : NULL,
	                                ignored_len, err, errlen)
	                && load_flags(ret_config, argc, argv, ret_help, err, errlen)
	                && check_together(ret_config, err, errlen);
}

void config_finish(struct config *config) {
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &option_table[i];
		if (option->type == OPTION_LIST)
			option_clear(option, config);
		else if (option->type == OPTION_STRING) {
			char **field = (char **)((char *)config + option->offset);
			free(*field);
			*field = NULL;
		}
	}
}
