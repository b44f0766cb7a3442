/* SPDX-License-Identifier: Apache-2.0 */
/*
 * API keys. The key file holds one key per line, `KEY [rate=N/s|N/min] [priority=P] [name=LABEL]`;
 * '#' starts a comment. Keys are compared in constant time; logs name a key by its label, never by
 * its text. Loop thread only.
 */
#ifndef FATHOM_SERVER_AUTH_H
#define FATHOM_SERVER_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct auth;

/*
 * NULL path: no keys, everything is allowed. NULL with one sentence naming file and line if the
 * file is bad.
 */
struct auth *auth_open(const char *path, char *err, size_t errlen);
void auth_close(struct auth *auth);

bool auth_required(const struct auth *auth);

enum auth_result { AUTH_OK, AUTH_MISSING, AUTH_UNKNOWN, AUTH_LIMITED };

struct auth_grant {
	uint64_t key;          /* a number for "same key", 0 without keys */
	char name[64];         /* for logs */
	int best_priority;     /* lowest (most urgent) priority that the key may ask for */
	double retry_after_ms; /* LIMITED: when a request would be allowed */
};

/*
 * `authorization` is the header's value ("Bearer KEY"; also a bare key from x-api-key) or NULL.
 * `now_ns` drives the limits.
 */
enum auth_result auth_check(struct auth *auth, const char *authorization, int64_t now_ns,
                struct auth_grant *ret_grant);

#endif
