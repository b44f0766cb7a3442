/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a body to a request: parse, then read each field by the table, then look at the names that
 * the table does not know. What several fields together must be is checked in request_check.c.
 */
#include "proto/request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/prescan.h"
#include "proto/reader.h"
#include "proto/utf8.h"

enum {
	FIELDS = 256, /* of one body: a name that is not ours costs a search for near ones */
	UNKNOWN_LISTED = 16,
	UNKNOWN_BYTES = 64,
};

/* ---- parsing ---------------------------------------------------------------------------------- */

static bool bad_json(struct error *e, const json_error_t *json) {
	const char *why = json->text;
	bool memory = json_error_code(json) == json_error_out_of_memory;
	if (memory || !why[0]) /* of some of its allocations jansson says nothing */
		return error_set(e, ERROR_INTERNAL, NULL, "Memory ran out while reading the body.");
	if (json_error_code(json) == json_error_null_character
	                || json_error_code(json) == json_error_null_byte_in_key)
		why = "strings may not hold \\u0000";
	return error_set(e, ERROR_INVALID_JSON, NULL,
	                "The body is not valid JSON: %s (line %d, column %d).", why,
	                json->line > 0 ? json->line : 1, json->column > 0 ? json->column : 1);
}

static json_t *load(const char *body, size_t len, const struct request_limits *limits,
                struct error *e) {
	if (len > limits->body_bytes) {
		error_set(e, ERROR_REQUEST_TOO_LARGE, NULL,
		                "The body has %zu bytes; at most %zu are read.", len,
		                limits->body_bytes);
		return NULL;
	}
	if (!prescan_check(body, len, limits->json_depth, limits->json_values, e))
		return NULL;
	json_error_t json;
	json_t *root = json_loadb(len > 0 ? body : "", len, JSON_REJECT_DUPLICATES, &json);
	if (!root) {
		bad_json(e, &json);
	} else if (!json_is_object(root)) {
		error_set(e, ERROR_INVALID_REQUEST, NULL, "The body must be a JSON object.");
		json_decref(root);
		root = NULL;
	} else if (json_object_size(root) > FIELDS) {
		error_set(e, ERROR_REQUEST_TOO_LARGE, NULL,
		                "The body has %zu fields; at most %d are read.",
		                json_object_size(root), FIELDS);
		json_decref(root);
		root = NULL;
	}
	return root;
}

/* ---- what readers of fields share ------------------------------------------------------------- */

bool reader_no_memory(struct reader *r) {
	return error_set(r->error, ERROR_INTERNAL, NULL, "Memory ran out while reading the body.");
}

/* strtod alone would also take spaces, hexadecimal digits, "inf" and "nan". */
static bool looks_like_number(const char *s) {
	char *end;
	strtod(s, &end);
	return end != s && *end == '\0' && strspn(s, "0123456789.eE+-") == strlen(s);
}

static void describe(const json_t *value, char *out, size_t size) {
	enum { SHOWN_BYTES = 40 };
	switch (json_typeof(value)) {
	case JSON_STRING:
		if (json_string_length(value) > SHOWN_BYTES)
			snprintf(out, size, "a longer string was sent");
		else if (looks_like_number(json_string_value(value)))
			snprintf(out, size, "the string \"%s\" was sent; write %s without quotes",
			                json_string_value(value), json_string_value(value));
		else
			snprintf(out, size, "the string \"%s\" was sent", json_string_value(value));
		break;
	case JSON_INTEGER:
		snprintf(out, size, "%lld was sent", (long long)json_integer_value(value));
		break;
	case JSON_REAL:
		snprintf(out, size, "%.15g was sent", json_real_value(value));
		break;
	case JSON_ARRAY:
		snprintf(out, size, "a list was sent");
		break;
	case JSON_OBJECT:
		snprintf(out, size, "an object was sent");
		break;
	default:
		snprintf(out, size, "%s was sent",
		                json_is_null(value)                   ? "null"
		                                : json_is_true(value) ? "true"
		                                                      : "false");
		break;
	}
}

bool reader_wrong(struct reader *r, const struct field *field, const char *name,
                const char *expected, const json_t *value) {
	char sent[160];
	describe(value, sent, sizeof sent);
	return error_set(r->error, field->code ? field->code : ERROR_INVALID_REQUEST, name,
	                "%s must be %s, but %s.", name, expected, sent);
}

bool reader_int64(const json_t *value, int64_t *ret_value) {
	if (json_is_integer(value)) {
		*ret_value = json_integer_value(value);
		return true;
	}
	double real = json_is_real(value) ? json_real_value(value) : 0.5;
	if (real != floor(real) || fabs(real) > 9007199254740992.0)
		return false;
	*ret_value = (int64_t)real;
	return true;
}

bool reader_double(const json_t *value, double *ret_value) {
	if (!json_is_number(value))
		return false;
	*ret_value = json_number_value(value);
	return true;
}

/* ---- fields whose type the table tells -------------------------------------------------------- */

static void expected_number(const struct field *f, double max, char *out, size_t size) {
	const char *noun = f->type == FIELD_F64 || f->type == FIELD_OPT_F64 ? "a number"
	                                                                    : "a whole number";
	if (f->above_min && isinf(max))
		snprintf(out, size, "%s greater than %.15g", noun, f->min);
	else if (f->above_min)
		snprintf(out, size, "%s greater than %.15g and at most %.15g", noun, f->min, max);
	else if (isinf(f->min))
		snprintf(out, size, "%s", noun);
	else if (isinf(max))
		snprintf(out, size, "%s of at least %.15g", noun, f->min);
	else
		snprintf(out, size, "%s from %.15g to %.15g", noun, f->min, max);
}

static bool in_range(const struct field *f, double max, double value) {
	return value <= max && (f->above_min ? value > f->min : value >= f->min);
}

/* A whole number within the field's bounds. */
static bool read_int64(
                struct reader *r, const struct field *f, const json_t *value, int64_t *ret_whole) {
	double max = field_max(f, r->limits);
	if (reader_int64(value, ret_whole) && in_range(f, max, (double)*ret_whole))
		return true;
	char expected[96];
	expected_number(f, max, expected, sizeof expected);
	return reader_wrong(r, f, f->name, expected, value);
}

static bool read_whole(struct reader *r, const struct field *f, const json_t *value, void *out) {
	int64_t whole;
	if (!read_int64(r, f, value, &whole))
		return false;
	if (f->type == FIELD_INT)
		*(int *)out = (int)whole;
	else if (f->type == FIELD_I64)
		*(int64_t *)out = whole;
	else
		*(struct opt_i64 *)out = (struct opt_i64){ true, whole };
	return true;
}

static bool read_real(struct reader *r, const struct field *f, const json_t *value, void *out) {
	double real, max = field_max(f, r->limits);
	if (!reader_double(value, &real) || !in_range(f, max, real)) {
		char expected[96];
		expected_number(f, max, expected, sizeof expected);
		return reader_wrong(r, f, f->name, expected, value);
	}
	if (f->type == FIELD_F64)
		*(double *)out = real;
	else
		*(struct opt_f64 *)out = (struct opt_f64){ true, real };
	return true;
}

static bool read_string(struct reader *r, const struct field *f, const json_t *value, char **out) {
	if (!json_is_string(value))
		return reader_wrong(r, f, f->name, "a string", value);
	if (json_string_length(value) == 0)
		return true;
	*out = arena_copy(r->arena, json_string_value(value), json_string_length(value));
	return *out || reader_no_memory(r);
}

static bool read_words(struct reader *r, const struct field *f, const json_t *value, void *out) {
	char expected[96] = "one of";
	for (int i = 0; f->words[i]; i++) {
		if (json_is_string(value) && strcmp(json_string_value(value), f->words[i]) == 0) {
			if (f->type == FIELD_CHOICE)
				*(int *)out = i;
			else
				strcpy(out, f->words[i]);
			return true;
		}
		size_t n = strlen(expected);
		snprintf(expected + n, sizeof expected - n, "%s \"%s\"", i > 0 ? "," : "",
		                f->words[i]);
	}
	return reader_wrong(r, f, f->name, expected, value);
}

static bool read_plain(struct reader *r, const struct field *f, const json_t *value) {
	void *out = (char *)r->request + f->offset;
	switch (f->type) {
	case FIELD_BOOL:
		if (!json_is_boolean(value))
			return reader_wrong(r, f, f->name, "true or false", value);
		*(bool *)out = json_is_true(value);
		return true;
	case FIELD_INT:
	case FIELD_I64:
	case FIELD_OPT_I64:
		return read_whole(r, f, value, out);
	case FIELD_F64:
	case FIELD_OPT_F64:
		return read_real(r, f, value, out);
	case FIELD_STRING:
		return read_string(r, f, value, out);
	case FIELD_CHOICE:
	case FIELD_WORD:
		return read_words(r, f, value, out);
	case FIELD_CUSTOM:
		break;
	}
	return true;
}

bool read_max_tokens(struct reader *r, const struct field *f, const json_t *value) {
	struct opt_i64 before = r->request->max_tokens;
	if (!read_plain(r, f, value))
		return false;
	if (before.set && before.value != r->request->max_tokens.value)
		return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
		                "max_tokens and max_completion_tokens mean the same; send one of "
		                "them.");
	return true;
}

bool read_cache_salt(struct reader *r, const struct field *f, const json_t *value) {
	size_t len = json_is_string(value) ? json_string_length(value) : 0;
	const char *text = json_string_value(value);
	if (len < 1 || len > REQUEST_SALT || strlen(text) != len)
		return reader_wrong(r, f, f->name, "a string of 1 to 128 bytes", value);
	r->request->cache_salt = arena_copy(r->arena, text, len);
	return r->request->cache_salt || reader_no_memory(r);
}

bool read_priority(struct reader *r, const struct field *f, const json_t *value) {
	int64_t priority;
	if (!reader_int64(value, &priority))
		return reader_wrong(r, f, f->name, "a whole number", value);
	if (priority < r->limits->priority_min)
		priority = r->limits->priority_min;
	if (priority > r->limits->priority_max)
		priority = r->limits->priority_max;
	r->request->priority = (int)priority;
	r->request->priority_set = true;
	return true;
}

bool read_logprobs(struct reader *r, const struct field *f, const json_t *value) {
	if (!json_is_boolean(value))
		return reader_wrong(r, f, f->name,
		                "true or false here, with the number in top_logprobs", value);
	r->request->logprobs = json_is_true(value) ? 0 : -1;
	return true;
}

bool read_top_logprobs(struct reader *r, const struct field *f, const json_t *value) {
	int64_t top;
	if (!read_int64(r, f, value, &top))
		return false;
	if (top > 0 && r->request->logprobs < 0)
		return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
		                "top_logprobs needs \"logprobs\": true.");
	if (r->request->logprobs >= 0)
		r->request->logprobs = (int)top;
	return true;
}

/* ---- the body as a whole ---------------------------------------------------------------------- */

static bool check_refused(struct reader *r, const struct refused_field *f, const json_t *value) {
	json_t *accepted = json_loads(f->accepts, 0, NULL);
	if (!accepted)
		return reader_no_memory(r);
	bool same = json_is_null(value);
	for (size_t i = 0; i < json_array_size(accepted) && !same; i++) {
		const json_t *a = json_array_get(accepted, i);
		same = json_is_number(a) && json_is_number(value)
		                ? json_number_value(a) == json_number_value(value)
		                : json_equal(a, value);
	}
	json_decref(accepted);
	if (same)
		return true;
	return error_set(r->error, ERROR_UNSUPPORTED_PARAMETER, f->name,
	                "%s is not supported on this route at this value. %s", f->name, f->advice);
}

static bool note_unknown(struct reader *r, const char *name) {
	struct request *q = r->request;
	if (q->n_unknown == UNKNOWN_LISTED)
		return true;
	if (!q->unknown)
		q->unknown = arena_alloc(r->arena, UNKNOWN_LISTED, sizeof *q->unknown);
	char *copy = arena_copy(r->arena, name, utf8_cut(name, strlen(name), UNKNOWN_BYTES));
	if (!q->unknown || !copy)
		return reader_no_memory(r);
	q->unknown[q->n_unknown++] = copy;
	return true;
}

/* Names that no field of this route has: known elsewhere, mistyped, or none of our business. */
static bool read_other_names(struct reader *r, json_t *root, const char *besides) {
	unsigned on = 1u << r->kind;
	const char *name;
	json_t *value;
	json_object_foreach(root, name, value) {
		if (field_find(name, on) || (besides && strcmp(name, besides) == 0))
			continue;
		const struct refused_field *refused = field_find_refused(name, on);
		if (refused) {
			if (!check_refused(r, refused, value))
				return false;
			continue;
		}
		const char *near = field_near(name, on);
		if (near) {
			char param[UNKNOWN_BYTES];
			snprintf(param, sizeof param, "%.*s",
			                (int)utf8_cut(name, strlen(name), sizeof param - 1), name);
			return error_set(r->error, ERROR_INVALID_REQUEST, param,
			                "%s is not a field of this route; %s is.", param, near);
		}
		if (!note_unknown(r, name))
			return false;
	}
	return true;
}

static bool read_body(struct reader *r, json_t *root, const char *besides) {
	for (size_t i = 0; i < request_fields_count; i++) {
		const struct field *f = &request_fields[i];
		const json_t *value = f->on & 1u << r->kind ? json_object_get(root, f->name) : NULL;
		if (!value || json_is_null(value))
			continue;
		if (!(f->read ? f->read : read_plain)(r, f, value))
			return false;
	}
	return read_other_names(r, root, besides) && request_check(r, root);
}

/* Reads `root`, and gives it back. `besides` is a name that this caller has read. */
static bool read_root(enum request_kind kind, json_t *root, const char *besides,
                const struct request_limits *limits, struct request *ret_request,
                struct error *ret_error) {
	struct arena *arena = arena_create();
	struct request request = {
		.kind = kind,
		.allow_step_down = true,
		.cache_prompt = true,
		.add_special_tokens = true,
		.normalize = true,
		.fill_top_k = 5,
		.n = 1,
		.logprobs = -1,
		.arena = arena,
	};
	struct reader reader = { kind, limits, &request, arena, ret_error };
	bool ok = arena ? read_body(&reader, root, besides) : reader_no_memory(&reader);
	json_decref(root);
	if (ok)
		*ret_request = request;
	else
		arena_destroy(arena);
	return ok;
}

bool request_parse(enum request_kind kind, const char *body, size_t len,
                const struct request_limits *limits, struct request *ret_request,
                struct error *ret_error) {
	json_t *root = load(body, len, limits, ret_error);
	return root && read_root(kind, root, NULL, limits, ret_request, ret_error);
}

bool request_parse_plan(const char *body, size_t len, const struct request_limits *limits,
                struct request *ret_request, struct error *ret_error) {
	static const struct {
		const char *route;
		enum request_kind kind;
	} routes[] = {
		{ "/v1/completions", REQUEST_COMPLETION },
		{ "/v1/chat/completions", REQUEST_CHAT },
		{ "/v1/loglikelihood", REQUEST_LOGLIKELIHOOD },
		{ "/v1/embeddings", REQUEST_EMBEDDING },
		{ "/classify", REQUEST_CLASSIFY },
		{ "/fill-mask", REQUEST_FILL_MASK },
	};
	json_t *root = load(body, len, limits, ret_error);
	if (!root)
		return false;
	const json_t *route = json_object_get(root, "route");
	const char *name =
	                !route || json_is_null(route) ? routes[0].route : json_string_value(route);
	for (size_t i = 0; name && i < sizeof routes / sizeof routes[0]; i++)
		if (strcmp(name, routes[i].route) == 0)
			return read_root(routes[i].kind, root, "route", limits, ret_request,
			                ret_error);
	json_decref(root);
	return error_set(ret_error, ERROR_INVALID_REQUEST, "route",
	                "route must be \"/v1/completions\", \"/v1/chat/completions\", "
	                "\"/v1/loglikelihood\", \"/v1/embeddings\", \"/classify\" or "
	                "\"/fill-mask\".");
}

void request_finish(struct request *r) {
	arena_destroy(r->arena);
	*r = (struct request){ 0 };
}
