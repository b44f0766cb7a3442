/* SPDX-License-Identifier: Apache-2.0 */
/* In place of client.c where libcurl was not at hand. */
#include <math.h>
#include <stdio.h>

#include "bench/client/client.h"

static const char why_not[] = "this build has no load generator: install libcurl's development "
                              "files and build again with -Dbench=enabled";

bool client_is_present(const char **ret_why) {
	*ret_why = why_not;
	return false;
}

struct client *client_create(const struct client_options *options, char *err, size_t errlen) {
	snprintf(err, errlen, "%s", why_not);
	return NULL;
}

void client_destroy(struct client *client) {
}

void client_exchange_init(struct client_exchange *x) {
	*x = (struct client_exchange){ 0 };
}

void client_exchange_finish(struct client_exchange *x) {
}

bool client_send(struct client *client, struct client_exchange *x, const char *path,
                const char *body, size_t len, char *err, size_t errlen) {
	snprintf(err, errlen, "%s", why_not);
	return false;
}

void client_cancel_all(struct client *client) {
}

int client_in_flight(const struct client *client) {
	return 0;
}

double client_now_ms(void) {
	return NAN;
}

void client_set_calls(struct client *client, const struct client_calls *calls) {
}

void client_wake_at(struct client *client, double at_ms) {
}

void client_run(struct client *client) {
}

void client_stop(struct client *client) {
}

bool client_fetch(struct client *client, const char *path, const char *body, size_t len,
                int *ret_status, struct buffer *out, char *err, size_t errlen) {
	snprintf(err, errlen, "%s", why_not);
	return false;
}
