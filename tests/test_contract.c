/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract (proto/openapi.yaml, as it is embedded) against the tables of proto/, both ways:
 * fields with their types, ranges and defaults, refused fields, errors.
 */
#include <jansson.h>
#include <math.h>

#include "proto/fields.h"
#include "proto/openapi.h"
#include "tests/check.h"
#include "tests/documented_limits.h"

static const struct {
	enum request_kind kind;
	const char *schema, *least; /* the least body that is accepted */
	const char *required;       /* the field that it cannot do without */
} routes[] = {
	{ REQUEST_COMPLETION, "CompletionRequest", "{\"prompt\":\"a\"}", "prompt" },
	{ REQUEST_CHAT, "ChatRequest", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
	                "messages" },
	{ REQUEST_LOGLIKELIHOOD, "LoglikelihoodRequest", "{\"input\":\"a\"}", "input" },
	{ REQUEST_EMBEDDING, "EmbeddingRequest", "{\"input\":\"a\"}", "input" },
	{ REQUEST_CLASSIFY, "ClassifyRequest", "{\"input\":\"a\"}", "input" },
	{ REQUEST_FILL_MASK, "FillMaskRequest", "{\"input\":\"a\"}", "input" },
	{ REQUEST_TOKENIZE, "TokenizeRequest", "{\"prompt\":\"a\"}", "prompt" },
	{ REQUEST_DETOKENIZE, "DetokenizeRequest", "{\"tokens\":[]}", "tokens" },
};
enum { ROUTES = sizeof routes / sizeof *routes };
_Static_assert(ROUTES == (int)REQUEST_KINDS, "every kind has its row");

static json_t *contract(void) {
	static json_t *root;
	if (!root)
		root = json_loadb(proto_openapi_json, proto_openapi_json_len,
		                JSON_REJECT_DUPLICATES, NULL);
	CHECK(root);
	return root;
}

static json_t *component(const char *section, const char *name) {
	json_t *part = json_object_get(json_object_get(contract(), "components"), section);
	if (name)
		part = json_object_get(part, name);
	if (!part)
		check_fail(__FILE__, __LINE__, "the contract has no %s %s", section,
		                name ? name : "");
	return part;
}

/* Follows {"$ref": "#/components/schemas/NAME"}. */
static json_t *resolved(json_t *schema) {
	const char *ref = json_string_value(json_object_get(schema, "$ref"));
	return ref ? component("schemas", strrchr(ref, '/') + 1) : schema;
}

/* All properties of a schema and of the schemas that it is made of. The caller frees. */
static json_t *properties_of(const char *name) {
	json_t *all = json_object(), *schema = component("schemas", name), *part;
	json_object_update(all, json_object_get(schema, "properties"));
	size_t i;
	json_array_foreach(json_object_get(schema, "allOf"), i, part) {
		json_object_update_missing(all, json_object_get(resolved(part), "properties"));
	}
	return all;
}

static bool has_word(const json_t *list, const char *word) {
	size_t i;
	json_t *item;
	json_array_foreach(list, i, item) {
		if (json_is_string(item) && strcmp(json_string_value(item), word) == 0)
			return true;
	}
	return false;
}

/* ---- fields ----------------------------------------------------------------------------------- */

static const char *json_type_of(enum field_type type) {
	switch (type) {
	case FIELD_BOOL:
		return "boolean";
	case FIELD_INT:
	case FIELD_I64:
	case FIELD_OPT_I64:
		return "integer";
	case FIELD_F64:
	case FIELD_OPT_F64:
		return "number";
	case FIELD_STRING:
	case FIELD_CHOICE:
	case FIELD_WORD:
		return "string";
	case FIELD_CUSTOM:
		break;
	}
	return NULL;
}

static void check_bound(
                const struct field *f, const json_t *schema, const char *keyword, double expected) {
	const json_t *value = json_object_get(schema, keyword);
	if (isinf(expected) ? value != NULL
	                    : !json_is_number(value) || json_number_value(value) != expected)
		check_fail(__FILE__, __LINE__, "%s: %s is not %g", f->name, keyword, expected);
}

static void check_words(const struct field *f, const json_t *schema) {
	const json_t *words = json_object_get(schema, "enum");
	size_t n = 0;
	for (; f->words[n]; n++)
		if (!has_word(words, f->words[n]))
			check_fail(__FILE__, __LINE__, "%s: %s is not in enum", f->name,
			                f->words[n]);
	CHECK_INT(json_array_size(words), n + 1); /* and null */
}

static void check_field(const struct field *f, const json_t *schema) {
	const char *type = json_type_of(f->type);
	if (!type)
		return; /* tests/json knows */
	if (!has_word(json_object_get(schema, "type"), type)
	                || !has_word(json_object_get(schema, "type"), "null"))
		check_fail(__FILE__, __LINE__, "%s: type is not [%s, null]", f->name, type);
	bool number = strcmp(type, "integer") == 0 || strcmp(type, "number") == 0;
	if (number) {
		check_bound(f, schema, "minimum", f->above_min ? INFINITY : f->min);
		check_bound(f, schema, "exclusiveMinimum", f->above_min ? f->min : INFINITY);
		check_bound(f, schema, "maximum", field_max(f, &limits));
	}
	if (f->words)
		check_words(f, schema);
}

TEST(every_field_is_in_the_contract_as_it_is_read) {
	for (int r = 0; r < ROUTES; r++) {
		json_t *properties = properties_of(routes[r].schema);
		for (size_t i = 0; i < request_fields_count; i++) {
			const struct field *f = &request_fields[i];
			if (!(f->on & 1u << routes[r].kind))
				continue;
			const json_t *schema = json_object_get(properties, f->name);
			if (!schema)
				check_fail(__FILE__, __LINE__, "%s has no %s", routes[r].schema,
				                f->name);
			check_field(f, schema);
		}
		json_decref(properties);
	}
}

TEST(every_field_of_the_contract_is_read) {
	for (int r = 0; r < ROUTES; r++) {
		json_t *properties = properties_of(routes[r].schema), *value;
		const char *name;
		CHECK(json_object_size(properties) > 0);
		json_object_foreach(properties, name, value) {
			if (!field_find(name, 1u << routes[r].kind))
				check_fail(__FILE__, __LINE__, "%s of %s is not read", name,
				                routes[r].schema);
		}
		json_decref(properties);
	}
}

/* What the struct holds when nothing was said, as JSON; NULL where that is "unset". */
static json_t *value_when_unset(const struct field *f, const struct request *request) {
	const void *at = (const char *)request + f->offset;
	switch (f->type) {
	case FIELD_BOOL:
		return json_boolean(*(const bool *)at);
	case FIELD_INT:
		return *(const int *)at >= 0 ? json_integer(*(const int *)at) : NULL;
	case FIELD_I64:
		return f->min == 0 || *(const int64_t *)at ? json_integer(*(const int64_t *)at)
		                                           : NULL;
	case FIELD_CHOICE:
		return json_string(f->words[*(const int *)at]);
	default:
		return NULL;
	}
}

TEST(defaults_are_those_of_the_contract) {
	for (int r = 0; r < ROUTES; r++) {
		struct request request;
		struct error error = { 0 };
		json_t *properties = properties_of(routes[r].schema);
		CHECK(request_parse(routes[r].kind, routes[r].least, strlen(routes[r].least),
		                &limits, &request, &error));
		for (size_t i = 0; i < request_fields_count; i++) {
			const struct field *f = &request_fields[i];
			bool elsewhere = f->offset == 0 || strcmp(f->name, "best_of") == 0;
			if (!(f->on & 1u << routes[r].kind) || elsewhere)
				continue;
			json_t *fallback = json_object_get(
			                json_object_get(properties, f->name), "default");
			json_t *unset = value_when_unset(f, &request);
			if (fallback != unset && !json_equal(fallback, unset))
				check_fail(__FILE__, __LINE__, "default of %s", f->name);
			json_decref(unset);
		}
		request_finish(&request);
		json_decref(properties);
	}
}

TEST(required_fields_are_required) {
	for (int r = 0; r < ROUTES; r++) {
		struct request request;
		struct error error = { 0 };
		CHECK(!request_parse(routes[r].kind, "{}", 2, &limits, &request, &error));
		CHECK_STR(error.param, routes[r].required);
		json_t *parts = json_object_get(component("schemas", routes[r].schema), "allOf");
		json_t *last = json_array_get(parts, json_array_size(parts) - 1);
		if (json_object_get(last, "oneOf")) /* one of several sets */
			last = json_array_get(json_object_get(last, "oneOf"), 0);
		CHECK(has_word(json_object_get(last, "required"), routes[r].required));
		CHECK_INT(json_array_size(json_object_get(last, "required")), 1);
	}
}

TEST(lists_are_bounded_as_the_contract_says) {
	json_t *generation = json_object_get(component("schemas", "Generation_"), "properties");
	json_t *stop = json_object_get(json_object_get(generation, "stop"), "oneOf");
	CHECK_INT(json_integer_value(json_object_get(json_array_get(stop, 1), "maxItems")),
	                limits.stops);
	CHECK_INT(json_integer_value(json_object_get(json_array_get(stop, 0), "maxLength")),
	                limits.stop_bytes);
	json_t *bias = json_object_get(generation, "logit_bias");
	CHECK_INT(json_integer_value(json_object_get(bias, "maxProperties")), limits.logit_bias);
	static const struct {
		const char *schema;
		int at, most;
	} lists[] = { { "Inputs", 2, limits.prompts }, { "PairInputs", 3, limits.prompts },
		{ "ManyInputs", 2, limits.inputs }, { "ManyPairs", 3, limits.inputs } };
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		json_t *forms = json_object_get(component("schemas", lists[i].schema), "oneOf");
		json_t *list = json_array_get(forms, (size_t)lists[i].at);
		CHECK_INT(json_integer_value(json_object_get(list, "maxItems")), lists[i].most);
	}
}

/* ---- refused fields --------------------------------------------------------------------------- */

static unsigned on_routes(const json_t *schemas) {
	unsigned on = 0;
	for (int r = 0; r < ROUTES; r++)
		if (has_word(schemas, routes[r].schema))
			on |= 1u << routes[r].kind;
	return on;
}

TEST(refused_fields_are_those_of_the_contract) {
	json_t *list = component("x-refused-fields", NULL), *row;
	CHECK_INT(json_array_size(list), request_refused_count);
	size_t i;
	json_array_foreach(list, i, row) {
		const char *name = json_string_value(json_object_get(row, "name"));
		unsigned on = on_routes(json_object_get(row, "in"));
		const struct refused_field *f = field_find_refused(name, on);
		if (!f || f->on != on)
			check_fail(__FILE__, __LINE__, "%s is not refused as written", name);
		json_t *accepts = json_loads(f->accepts, 0, NULL);
		bool same = json_equal(accepts, json_object_get(row, "accepts"));
		json_decref(accepts);
		if (!same)
			check_fail(__FILE__, __LINE__, "%s accepts something else", name);
	}
}

TEST(no_field_is_both_read_and_refused) {
	for (size_t i = 0; i < request_refused_count; i++)
		CHECK(!field_find(request_refused[i].name, request_refused[i].on));
}

/* ---- errors ----------------------------------------------------------------------------------- */

TEST(errors_are_those_of_the_contract) {
	json_t *list = component("x-errors", NULL);
	CHECK_INT(json_array_size(list), ERROR_CODES - 1);
	for (int code = ERROR_NONE + 1; code < ERROR_CODES; code++) {
		size_t i;
		json_t *row, *found = NULL;
		json_array_foreach(list, i, row) {
			const char *name = json_string_value(json_object_get(row, "code"));
			int status = (int)json_integer_value(json_object_get(row, "status"));
			if (strcmp(name, error_name(code)) == 0 && status == error_status(code))
				found = row;
		}
		if (!found)
			check_fail(__FILE__, __LINE__, "%s (%d) is not in the contract",
			                error_name(code), error_status(code));
		CHECK_STR(json_string_value(json_object_get(found, "type")), error_type(code));
		json_t *retry = json_object_get(found, "retry");
		CHECK_INT(!retry ? 0 : json_is_true(retry) ? 1 : -1, error_should_retry(code));
	}
}

TEST(the_error_schema_lists_every_code_and_type) {
	json_t *error = json_object_get(
	                json_object_get(component("schemas", "Error"), "properties"), "error");
	json_t *properties = json_object_get(error, "properties");
	json_t *codes = json_object_get(json_object_get(properties, "code"), "enum");
	json_t *types = json_object_get(json_object_get(properties, "type"), "enum");
	for (int code = ERROR_NONE + 1; code < ERROR_CODES; code++) {
		CHECK(has_word(codes, error_name(code)));
		CHECK(has_word(types, error_type(code)));
	}
}

TEST(every_error_status_of_a_route_has_a_code) {
	const char *path, *method, *status;
	json_t *methods, *operation, *response;
	json_object_foreach(json_object_get(contract(), "paths"), path, methods) {
		json_object_foreach(methods, method, operation) {
			json_object_foreach(
			                json_object_get(operation, "responses"), status, response) {
				int number = atoi(status), code = ERROR_NONE + 1;
				while (code < ERROR_CODES && error_status(code) != number)
					code++;
				if (number >= 400 && code == ERROR_CODES)
					check_fail(__FILE__, __LINE__, "%s: %s", path, status);
			}
		}
	}
}
