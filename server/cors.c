/* SPDX-License-Identifier: Apache-2.0 */
/* The Fetch standard's CORS protocol, as far as a JSON API without cookies needs it. */
#include "server/cors.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The configured origin that allows the call's, or NULL. */
static const char *allowed_origin(const struct call *call) {
	const struct config *config = call->server->config;
	const char *origin = exchange_header(call->x, "Origin");
	for (int i = 0; origin && i < config->n_cors_origins; i++)
		if (strcmp(config->cors_origins[i], "*") == 0
		                || strcmp(config->cors_origins[i], origin) == 0)
			return config->cors_origins[i];
	return NULL;
}

bool cors_is_preflight(const struct call *call) {
	return strcmp(exchange_method(call->x), "OPTIONS") == 0
	                && exchange_header(call->x, "Origin")
	                && exchange_header(call->x, "Access-Control-Request-Method");
}

void cors_fields(const struct call *call, struct fields *fields) {
	const char *origin = allowed_origin(call);
	if (call->server->config->n_cors_origins > 0)
		fields_add(fields, "Vary", "Origin");
	if (!origin)
		return;
	fields_add(fields, "Access-Control-Allow-Origin", "%s", origin);
	fields_add(fields, "Access-Control-Expose-Headers",
	                "X-Request-Id, X-Depth, Server-Timing, Retry-After, retry-after-ms");
}

/* "authorization, content-type" and of the x-stainless-* those that were asked for. */
static void allowed_headers(const char *asked, char *out, size_t size) {
	size_t n = (size_t)snprintf(out, size, "authorization, content-type, x-request-id");
	while (asked && *asked) {
		asked += strspn(asked, ", \t");
		size_t len = strcspn(asked, ", \t");
		if (len > 12 && strncasecmp(asked, "x-stainless-", 12) == 0 && n + len + 3 < size)
			n += (size_t)snprintf(out + n, size - n, ", %.*s", (int)len, asked);
		asked += len;
	}
}

void cors_preflight_fields(const struct call *call, struct fields *fields) {
	char headers[400];
	if (!allowed_origin(call))
		return;
	allowed_headers(exchange_header(call->x, "Access-Control-Request-Headers"), headers,
	                sizeof headers);
	fields_add(fields, "Access-Control-Allow-Methods", "%s", call->allow);
	fields_add(fields, "Access-Control-Allow-Headers", "%s", headers);
	fields_add(fields, "Access-Control-Max-Age", "600");
}
