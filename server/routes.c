/* SPDX-License-Identifier: Apache-2.0 */
/* Static: what is not in this table is a 404. */
#include "server/routes.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "server/handlers.h"

static const struct route routes[] = {
	{ "POST", "/v1/completions", handle_completions, ACCESS_KEY, true, true, LISTENER_MAIN },
	{ "POST", "/v1/chat/completions", handle_chat, ACCESS_KEY, true, true, LISTENER_MAIN },
	{ "POST", "/v1/loglikelihood", handle_loglikelihood, ACCESS_KEY, true, true,
	                LISTENER_MAIN },
	{ "POST", "/v1/plan", handle_plan, ACCESS_KEY, true, true, LISTENER_MAIN },
	{ "POST", "/v1/embeddings", handle_embeddings, ACCESS_KEY, true, true, LISTENER_MAIN },
	{ "POST", "/classify", handle_classify, ACCESS_KEY, true, true, LISTENER_MAIN },
	{ "POST", "/fill-mask", handle_fill_mask, ACCESS_KEY, true, true, LISTENER_MAIN },
	{ "POST", "/tokenize", handle_tokenize, ACCESS_KEY, true, true, LISTENER_MAIN },
	{ "POST", "/detokenize", handle_detokenize, ACCESS_KEY, true, true, LISTENER_MAIN },
	{ "GET", "/v1/models", handle_models, ACCESS_KEY, false, false, LISTENER_MAIN },
	{ "GET", "/v1/models/{id}", handle_model, ACCESS_KEY, false, false, LISTENER_MAIN },
	{ "GET", "/v1/depths", handle_depths, ACCESS_KEY, false, false, LISTENER_MAIN },
	{ "DELETE", "/v1/requests/{id}", handle_cancel, ACCESS_KEY, false, false, LISTENER_MAIN },
	{ "GET", "/livez", handle_livez, ACCESS_PUBLIC, false, false, LISTENER_BOTH },
	{ "GET", "/readyz", handle_readyz, ACCESS_PUBLIC, false, false, LISTENER_BOTH },
	{ "GET", "/health", handle_readyz, ACCESS_PUBLIC, false, false, LISTENER_BOTH },
	{ "GET", "/metrics", handle_metrics, ACCESS_METRICS, false, false, LISTENER_BOTH },
	{ "GET", "/version", handle_version, ACCESS_KEY, false, false, LISTENER_BOTH },
	{ "GET", "/openapi.json", handle_openapi, ACCESS_PUBLIC, false, false, LISTENER_MAIN },
	{ "GET", "/", handle_page, ACCESS_PUBLIC, false, false, LISTENER_MAIN },
	{ "POST", "/drain", handle_drain, ACCESS_KEY, false, false, LISTENER_ADMIN },
	{ "POST", "/reload", handle_reload, ACCESS_KEY, true, false, LISTENER_ADMIN },
};

enum { ROUTES = sizeof routes / sizeof *routes, LONGEST = 64 };

const struct route *routes_at(size_t i) {
	return i < ROUTES ? &routes[i] : NULL;
}

static bool on_listener(const struct route *route, bool admin) {
	return (route->listeners & (admin ? LISTENER_ADMIN : LISTENER_MAIN)) != 0;
}

static bool matches(const struct route *route, const char *path) {
	const char *id = strchr(route->pattern, '{');
	if (!id)
		return strcmp(route->pattern, path) == 0;
	size_t len = (size_t)(id - route->pattern);
	return strncmp(route->pattern, path, len) == 0 && path[len];
}

const struct route *routes_find(bool admin, const char *method, const char *path) {
	if (strcmp(method, "HEAD") == 0)
		method = "GET";
	for (size_t i = 0; i < ROUTES; i++)
		if (on_listener(&routes[i], admin) && strcmp(routes[i].method, method) == 0
		                && matches(&routes[i], path))
			return &routes[i];
	return NULL;
}

const char *routes_pattern(bool admin, const char *path) {
	for (size_t i = 0; i < ROUTES; i++)
		if (on_listener(&routes[i], admin) && matches(&routes[i], path))
			return routes[i].pattern;
	return NULL;
}

void routes_allow(bool admin, const char *path, char *ret_allow, size_t size) {
	size_t n = 0;
	ret_allow[0] = '\0';
	bool all = strcmp(path, "*") == 0; /* OPTIONS * */
	for (size_t i = 0; i < ROUTES && n < size && !all; i++) {
		if (!on_listener(&routes[i], admin) || !matches(&routes[i], path))
			continue;
		n += (size_t)snprintf(ret_allow + n, size - n, "%s%s, ", routes[i].method,
		                strcmp(routes[i].method, "GET") == 0 ? ", HEAD" : "");
	}
	if (all)
		snprintf(ret_allow, size, "GET, HEAD, POST, DELETE, OPTIONS");
	else if (n && n < size)
		snprintf(ret_allow + n, size - n, "OPTIONS");
}

/* Levenshtein's distance of the first LONGEST bytes. */
static int distance(const char *a, const char *b) {
	int row[LONGEST + 1];
	size_t n = strnlen(b, LONGEST), m = strnlen(a, LONGEST);
	for (size_t j = 0; j <= n; j++)
		row[j] = (int)j;
	for (size_t i = 1; i <= m; i++) {
		int diagonal = row[0];
		row[0] = (int)i;
		for (size_t j = 1; j <= n; j++) {
			int change = diagonal + (a[i - 1] != b[j - 1]);
			int shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
			diagonal = row[j];
			row[j] = change < shorter ? change : shorter;
		}
	}
	return row[n];
}

const char *routes_nearest(bool admin, const char *path) {
	const char *best = routes[0].pattern;
	int least = INT32_MAX;
	for (size_t i = 0; i < ROUTES; i++) {
		if (!on_listener(&routes[i], admin))
			continue;
		int d = distance(path, routes[i].pattern);
		if (d < least) {
			least = d;
			best = routes[i].pattern;
		}
	}
	return best;
}
