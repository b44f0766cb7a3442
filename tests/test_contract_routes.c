/* SPDX-License-Identifier: Apache-2.0 */
/* The contract against the server: paths and the table of routes, bounds and configured limits. */
#include <jansson.h>
#include <strings.h>

#include "proto/openapi.h"
#include "server/routes.h"
#include "server/submit.h"
#include "tests/check.h"
#include "tests/documented_limits.h"

static json_t *paths(void) {
	static json_t *root;
	if (!root)
		root = json_loadb(proto_openapi_json, proto_openapi_json_len, 0, NULL);
	CHECK(root);
	return json_object_get(root, "paths");
}

/* The operation of a route, or NULL. */
static json_t *operation_of(const struct route *route) {
	const char *method;
	json_t *operation;
	json_object_foreach(json_object_get(paths(), route->pattern), method, operation) {
		if (strcasecmp(method, route->method) == 0)
			return operation;
	}
	return NULL;
}

TEST(every_route_is_in_the_contract) {
	for (size_t i = 0; routes_at(i); i++)
		if (!operation_of(routes_at(i)))
			check_fail(__FILE__, __LINE__, "%s %s", routes_at(i)->method,
			                routes_at(i)->pattern);
	CHECK(routes_at(0));
}

TEST(every_path_of_the_contract_is_a_route) {
	const char *path, *method;
	json_t *methods, *operation;
	json_object_foreach(paths(), path, methods) {
		json_object_foreach(methods, method, operation) {
			size_t i = 0;
			while (routes_at(i)
			                && (strcmp(routes_at(i)->pattern, path) != 0
			                                || strcasecmp(routes_at(i)->method, method)
			                                                != 0))
				i++;
			if (!routes_at(i))
				check_fail(__FILE__, __LINE__, "%s %s", method, path);
		}
	}
}

TEST(routes_are_public_where_the_contract_asks_for_no_key) {
	for (size_t i = 0; routes_at(i); i++) {
		const json_t *security = json_object_get(operation_of(routes_at(i)), "security");
		bool public = security && json_array_size(security) == 0;
		if (public != (routes_at(i)->access == ACCESS_PUBLIC))
			check_fail(__FILE__, __LINE__, "%s", routes_at(i)->pattern);
	}
}

TEST(only_routes_that_run_the_model_have_deadlines) {
	for (size_t i = 0; routes_at(i); i++) {
		json_t *responses = json_object_get(operation_of(routes_at(i)), "responses");
		if (json_object_get(responses, "504") && !routes_at(i)->work)
			check_fail(__FILE__, __LINE__, "%s", routes_at(i)->pattern);
	}
}

TEST(admin_routes_are_marked) {
	for (size_t i = 0; routes_at(i); i++) {
		const json_t *mark = json_object_get(operation_of(routes_at(i)), "x-listener");
		if ((mark != NULL) != (routes_at(i)->listeners == LISTENER_ADMIN))
			check_fail(__FILE__, __LINE__, "%s", routes_at(i)->pattern);
	}
}

TEST(limits_without_configuration_are_the_documented_ones) {
	char *argv[] = { NULL }, *environment[] = { NULL }, err[256];
	struct config config;
	struct request_limits got;
	bool help;
	CHECK(config_load(&config, 0, argv, environment, &help, NULL, 0, err, sizeof err));
	submit_limits(&config, &got);
	config_finish(&config);
	CHECK_INT(got.body_bytes, limits.body_bytes);
	CHECK_INT(got.json_depth, limits.json_depth);
	CHECK_INT(got.json_values, limits.json_values);
	CHECK_INT(got.prompts, limits.prompts);
	CHECK_INT(got.inputs, limits.inputs);
	CHECK_INT(got.beams, limits.beams);
	CHECK_INT(got.fill_top_k, limits.fill_top_k);
	CHECK_INT(got.n, limits.n);
	CHECK_INT(got.best_of, limits.best_of);
	CHECK_INT(got.stops, limits.stops);
	CHECK_INT(got.stop_bytes, limits.stop_bytes);
	CHECK_INT(got.logit_bias, limits.logit_bias);
	CHECK_INT(got.top_logprobs, limits.top_logprobs);
	CHECK_INT(got.max_tokens, limits.max_tokens);
	CHECK(got.deadline_ms == limits.deadline_ms);
}
