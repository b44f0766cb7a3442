/* SPDX-License-Identifier: Apache-2.0 */
/* The table of routes. */
#ifndef FATHOM_SERVER_ROUTES_H
#define FATHOM_SERVER_ROUTES_H

#include <stdbool.h>
#include <stddef.h>

struct call;

/* Who may call a route when there are API keys. */
enum access {
	ACCESS_PUBLIC,
	ACCESS_METRICS, /* public with metrics_public, and on the admin listener */
	ACCESS_KEY,
};

/* Which listeners have a route. */
enum { LISTENER_MAIN = 1, LISTENER_ADMIN = 2, LISTENER_BOTH = 3 };

struct route {
	const char *method, *pattern; /* "/v1/models/{id}": {id} takes the rest of the path */
	void (*handle)(struct call *call);
	enum access access;
	bool json; /* takes a JSON body */
	bool work; /* needs a warm model; refused while draining */
	int listeners;
};

/* The route of a method ("HEAD" finds GET's) and path, or NULL. */
const struct route *routes_find(bool admin, const char *method, const char *path);
/* The pattern that a path has whatever the method, or NULL: the label of metrics and logs. */
const char *routes_pattern(bool admin, const char *path);
/* "GET, HEAD, OPTIONS": the methods of a path; "" if no route has it. */
void routes_allow(bool admin, const char *path, char *ret_allow, size_t size);
/* The pattern closest to a path that no route has, by edit distance. */
const char *routes_nearest(bool admin, const char *path);
/* For /openapi.json's test and the docs: the i-th route, NULL at the end. */
const struct route *routes_at(size_t i);

#endif
