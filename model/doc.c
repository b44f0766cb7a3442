/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Documents over jansson. `struct doc` is never defined: a `struct doc *` is a `json_t *` that the
 * rest of model/ cannot look into.
 */
#include "model/doc.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A bound on what a hostile file can make jansson allocate: some 80 bytes per value. */
#define MAX_VALUES (4u << 20)

static json_t *json(const struct doc *value) {
	return (json_t *)(uintptr_t)value;
}

static struct doc *doc(json_t *value) {
	return (struct doc *)value;
}

/* Upper bound of the number of values, seen without parsing: separators outside strings. */
static size_t count_values(const char *text, size_t len) {
	size_t count = 1;
	bool quoted = false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (quoted && c == '\\')
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted && (c == ',' || c == '[' || c == '{'))
			count++;
	}
	return count;
}

struct doc *doc_parse(const char *text, size_t len, const char *file, char *err, size_t errlen) {
	if (count_values(text, len) > MAX_VALUES) {
		snprintf(err, errlen, "%s: more than %u JSON values", file, MAX_VALUES);
		return NULL;
	}
	json_error_t error;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	if (!root && error.line < 0 && !error.text[0]) {
		snprintf(err, errlen, "%s: out of memory", file); /* jansson has no words for it */
	} else if (!root) {
		/* jansson adds the text near the error, which may be anything. */
		char why[80];
		doc_printable(error.text, why, sizeof why);
		char *near = strstr(why, " near ");
		if (near)
			*near = '\0';
		snprintf(err, errlen, "%s: not valid JSON at line %d, column %d: %s", file,
		                error.line, error.column, why);
	}
	return doc(root);
}

void doc_free(struct doc *value) {
	json_decref(json(value));
}

static bool change(json_t *root, const struct doc_change *c) {
	json_t *object = root;
	const char *key = c->path, *dot;
	while ((dot = strchr(key, '.'))) {
		object = json_object_getn(object, key, (size_t)(dot - key));
		key = dot + 1;
	}
	if (!json_is_object(object))
		return false;
	if (c->how == DOC_REMOVE) {
		json_object_del(object, key);
		return true;
	}
	json_t *value = c->how == DOC_SET_INT ? json_integer(c->value) : json_array();
	for (int i = 0; c->how == DOC_SET_LIST && i < c->n_list; i++)
		json_array_append_new(value, json_integer(c->list[i]));
	return json_object_set_new(object, key, value) == 0;
}

char *doc_change(const struct doc *root, const struct doc_change *changes, size_t n) {
	json_t *copy = json_deep_copy(json(root));
	bool ok = copy != NULL;
	for (size_t i = 0; ok && i < n; i++)
		ok = change(copy, &changes[i]);
	char *text = ok ? json_dumps(copy,
	                             JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15))
	                : NULL;
	json_decref(copy);
	return text;
}

enum doc_kind doc_kind(const struct doc *value) {
	if (!value)
		return DOC_ABSENT;
	switch (json_typeof(json(value))) {
	case JSON_OBJECT:
		return DOC_OBJECT;
	case JSON_ARRAY:
		return DOC_ARRAY;
	case JSON_STRING:
		return DOC_STRING;
	case JSON_INTEGER:
		return DOC_INT;
	case JSON_REAL:
		return DOC_REAL;
	case JSON_TRUE:
	case JSON_FALSE:
		return DOC_BOOL;
	case JSON_NULL:
		break;
	}
	return DOC_NULL;
}

const struct doc *doc_get(const struct doc *object, const char *key) {
	return doc(json_object_get(json(object), key));
}

size_t doc_count(const struct doc *value) {
	return json_is_array(json(value)) ? json_array_size(json(value))
	                                  : json_object_size(json(value));
}

const struct doc *doc_at(const struct doc *array, size_t index) {
	return doc(json_array_get(json(array), index));
}

bool doc_next(const struct doc *object, void **at, const char **ret_key,
                const struct doc **ret_value) {
	*at = *at ? json_object_iter_next(json(object), *at) : json_object_iter(json(object));
	if (!*at)
		return false;
	*ret_key = json_object_iter_key(*at);
	*ret_value = doc(json_object_iter_value(*at));
	return true;
}

bool doc_as_int(const struct doc *value, int64_t *ret) {
	if (doc_kind(value) != DOC_INT)
		return false;
	*ret = json_integer_value(json(value));
	return true;
}

bool doc_as_number(const struct doc *value, double *ret) {
	enum doc_kind kind = doc_kind(value);
	if (kind != DOC_INT && kind != DOC_REAL)
		return false;
	*ret = json_number_value(json(value));
	return true;
}

bool doc_as_bool(const struct doc *value, bool *ret) {
	if (doc_kind(value) != DOC_BOOL)
		return false;
	*ret = json_is_true(json(value));
	return true;
}

const char *doc_as_string(const struct doc *value, size_t *ret_len) {
	if (doc_kind(value) != DOC_STRING)
		return NULL;
	if (ret_len)
		*ret_len = json_string_length(json(value));
	return json_string_value(json(value));
}

void doc_fail(struct doc_reader *r, const char *format, ...) {
	if (r->failed)
		return;
	r->failed = true;
	int n = snprintf(r->err, r->errlen, "%s: ", r->file);
	if (n < 0 || (size_t)n >= r->errlen)
		return;
	va_list args;
	va_start(args, format);
	vsnprintf(r->err + n, r->errlen - n, format, args);
	va_end(args);
}

/* The member, or NULL where the default applies. */
static const struct doc *member(const struct doc_reader *r, const char *key) {
	const struct doc *value = doc_get(r->object, key);
	return doc_kind(value) == DOC_NULL ? NULL : value;
}

int64_t doc_read_int(
                struct doc_reader *r, const char *key, int64_t min, int64_t max, int64_t fallback) {
	const struct doc *value = member(r, key);
	int64_t got;
	if (!value)
		return fallback;
	if (doc_as_int(value, &got) && got >= min && got <= max)
		return got;
	doc_fail(r, "\"%s\" must be a whole number from %lld to %lld", key, (long long)min,
	                (long long)max);
	return fallback;
}

double doc_read_number(
                struct doc_reader *r, const char *key, double min, double max, double fallback) {
	const struct doc *value = member(r, key);
	double got;
	if (!value)
		return fallback;
	if (doc_as_number(value, &got) && got >= min && got <= max)
		return got;
	doc_fail(r, "\"%s\" must be a number from %g to %g", key, min, max);
	return fallback;
}

bool doc_read_bool(struct doc_reader *r, const char *key, bool fallback) {
	const struct doc *value = member(r, key);
	bool got;
	if (!value)
		return fallback;
	if (doc_as_bool(value, &got))
		return got;
	doc_fail(r, "\"%s\" must be true or false", key);
	return fallback;
}

const char *doc_read_string(struct doc_reader *r, const char *key, const char *fallback) {
	const struct doc *value = member(r, key);
	if (!value)
		return fallback;
	const char *got = doc_as_string(value, NULL);
	if (got)
		return got;
	doc_fail(r, "\"%s\" must be a string", key);
	return fallback;
}

int64_t doc_need_int(struct doc_reader *r, const char *key, int64_t min, int64_t max) {
	doc_require(r, key);
	return doc_read_int(r, key, min, max, min);
}

void doc_require(struct doc_reader *r, const char *key) {
	if (!member(r, key))
		doc_fail(r, "\"%s\" is missing", key);
}

const char *doc_printable(const char *text, char *buf, size_t size) {
	size_t n = 0;
	for (; text[n] && n + 1 < size; n++)
		buf[n] = text[n] >= 32 && text[n] < 127 ? text[n] : '?';
	buf[n] = '\0';
	return buf;
}
