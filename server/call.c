/* SPDX-License-Identifier: Apache-2.0 */
/* The checks that every call goes through, what every answer carries, and the log line. */
#include "server/call.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "server/clock.h"
#include "server/cors.h"
#include "server/log.h"
#include "server/respond.h"
#include "server/routes.h"
#include "server/submit.h"

enum { STATUS_CLIENT_LEFT = 499 }; /* for log and metrics only, as nginx counts them */

void fields_add(struct fields *fields, const char *name, const char *format, ...) {
	if (fields->n == sizeof fields->items / sizeof *fields->items)
		return;
	struct http_field *field = &fields->items[fields->n++];
	va_list args;
	va_start(args, format);
	field->name = name;
	vsnprintf(field->value, sizeof field->value, format, args);
	va_end(args);
}

void call_common_fields(const struct call *call, struct fields *ret_fields) {
	ret_fields->n = 0;
	fields_add(ret_fields, "X-Request-Id", "%s", call->request_id);
	fields_add(ret_fields, "X-Content-Type-Options", "nosniff");
	if (call->close || call->server->life >= LIFE_LEAVING)
		fields_add(ret_fields, "Connection", "close");
	cors_fields(call, ret_fields);
}

void call_answer(struct call *call, int status, const struct fields *extra, struct buffer *json) {
	struct fields fields;
	if (json->failed) {
		struct error e;
		buffer_finish(json);
		*json = (struct buffer){ 0 };
		error_set(&e, ERROR_INTERNAL, NULL, "The server ran out of memory.");
		if (call->error.code != ERROR_INTERNAL)
			call_fail(call, &e);
		return;
	}
	call_common_fields(call, &fields);
	if (json->len)
		fields_add(&fields, "Content-Type", "application/json");
	for (size_t i = 0; extra && i < extra->n; i++)
		fields_add(&fields, extra->items[i].name, "%s", extra->items[i].value);
	exchange_answer(call->x, status, fields.items, fields.n, json);
}

/* What a client's retry logic reads. */
static void retry_fields(
                const struct call *call, const struct error *e, int status, struct fields *fields) {
	int retry = error_should_retry(e->code);
	if (status == 503 || status == 429) {
		double ms = call->server->config->retry_after_ms;
		ms = e->retry_after_ms > ms ? e->retry_after_ms : ms;
		fields_add(fields, "Retry-After", "%lld", (long long)((ms + 999) / 1000));
		fields_add(fields, "retry-after-ms", "%lld", (long long)(ms + 0.5));
	}
	if (retry)
		fields_add(fields, "x-should-retry", retry > 0 ? "true" : "false");
}

void call_fail(struct call *call, const struct error *e) {
	struct fields fields = { .n = 0 };
	struct buffer body = { 0 };
	int status = error_status(e->code);
	call->error = *e;
	if (e->code == ERROR_SERVER_OVERLOADED)
		status = call->server->config->overload_status;
	if (status == 401)
		fields_add(&fields, "WWW-Authenticate", "Bearer");
	if (status == 405)
		fields_add(&fields, "Allow", "%s", call->allow);
	retry_fields(call, e, status, &fields);
	if (call->server->metrics && (status == 429 || status >= 503))
		metrics_rejected(call->server->metrics, error_name(e->code));
	error_write(&body, e, call->request_id);
	call_answer(call, status, &fields, &body);
}

const char *call_path_id(const struct call *call) {
	return exchange_path(call->x) + strcspn(call->route->pattern, "{");
}

/* ---- the checks ---- */

static bool is_request_id(const char *s) {
	size_t n = s ? strspn(s,
	                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789."
	                           "_-")
	             : 0;
	return n >= 1 && n <= 128 && !s[n];
}

static void name_call(struct call *call) {
	const char *sent = exchange_header(call->x, "X-Request-Id");
	const char *trace = exchange_header(call->x, "traceparent");
	if (is_request_id(sent)) {
		snprintf(call->request_id, sizeof call->request_id, "%s", sent);
	} else {
		unsigned char bytes[12];
		if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
			memset(bytes, 0, sizeof bytes);
		char *at = call->request_id + sprintf(call->request_id, "req_");
		for (size_t i = 0; i < sizeof bytes; i++)
			at += sprintf(at, "%02x", bytes[i]);
		call->own_id = true;
	}
	if (trace && strlen(trace) == 55 && strspn(trace, "0123456789abcdef-") == 55)
		memcpy(call->traceparent, trace, 56);
}

static bool check_access(struct call *call) {
	struct server *server = call->server;
	enum access access = call->route ? call->route->access : ACCESS_KEY;
	if (call->admin && exchange_header(call->x, "Origin"))
		return error_set(&call->error, ERROR_FORBIDDEN, NULL,
		                "The admin listener does not answer browsers' scripts.");
	if (access == ACCESS_METRICS && (call->admin || server->config->metrics_public))
		access = ACCESS_PUBLIC;
	if (access == ACCESS_PUBLIC)
		return true;
	const char *key = exchange_header(call->x, "Authorization");
	if (!key)
		key = exchange_header(call->x, "X-Api-Key");
	switch (auth_check(server->auth, key, clock_now_ns(), &call->grant)) {
	case AUTH_OK:
		return true;
	case AUTH_MISSING:
		return error_set(&call->error, ERROR_INVALID_API_KEY, NULL,
		                "This server needs an API key: send \"Authorization: Bearer "
		                "KEY\".");
	case AUTH_UNKNOWN:
		return error_set(&call->error, ERROR_INVALID_API_KEY, NULL,
		                "The API key is not one of this server's.");
	case AUTH_LIMITED:
		if (strcmp(exchange_method(call->x), "DELETE") == 0)
			return true; /* cancelling relieves the server */
		error_set(&call->error, ERROR_RATE_LIMIT_EXCEEDED, NULL,
		                "This API key has used up its rate; wait for Retry-After.");
		call->error.retry_after_ms = call->grant.retry_after_ms;
		return false;
	}
	return false;
}

static bool check_route(struct call *call) {
	const char *path = exchange_path(call->x), *method = exchange_method(call->x);
	if (call->route)
		return true;
	if (call->allow[0])
		return error_set(&call->error, ERROR_METHOD_NOT_ALLOWED, NULL,
		                "%s does not take %s; allowed: %s.", path, method, call->allow);
	return error_set(&call->error, ERROR_NOT_FOUND, NULL,
	                "There is no route %.100s; the nearest is %s.", path,
	                routes_nearest(call->admin, path));
}

/* "application/json; charset=utf-8" and "application/problem+json" are JSON. */
static bool is_json_type(const char *type) {
	size_t len = strcspn(type, "; \t");
	return (len == 16 && strncasecmp(type, "application/json", 16) == 0)
	                || (len > 5 && strncasecmp(type + len - 5, "+json", 5) == 0);
}

static bool check_body(struct call *call) {
	const char *type = exchange_header(call->x, "Content-Type");
	const char *encoding = exchange_header(call->x, "Content-Encoding");
	if (exchange_body_too_large(call->x))
		return error_set(&call->error, ERROR_REQUEST_TOO_LARGE, NULL,
		                "The body is larger than this server's %lld bytes.",
		                (long long)call->server->config->body_bytes);
	if (encoding && strcasecmp(encoding, "identity") != 0)
		return error_set(&call->error, ERROR_UNSUPPORTED_MEDIA_TYPE, NULL,
		                "Send the body as it is, without Content-Encoding.");
	if (call->route->json && type && *type && !is_json_type(type))
		return error_set(&call->error, ERROR_UNSUPPORTED_MEDIA_TYPE, NULL,
		                "Send JSON with the header \"Content-Type: application/json\".");
	return true;
}

static bool check_state(struct call *call) {
	const struct server *server = call->server;
	/* Told to stop while loading, it will have no model to serve on with. */
	enum life last = server->current ? LIFE_LEAVING : LIFE_SERVING;
	if (call->route->work && server->life > last)
		return error_set(&call->error, ERROR_SHUTTING_DOWN, NULL,
		                "The server is shutting down; send the request to another one.");
	if (call->route->work && !server->current)
		return error_set(&call->error, ERROR_MODEL_LOADING, NULL,
		                "The model is still loading; retry in a moment.");
	return true;
}

static bool check(struct call *call) {
	const char *method = exchange_method(call->x), *path = exchange_path(call->x);
	const char *refusal = exchange_refusal(call->x);
	const char *pattern = routes_pattern(call->admin, path);
	call->pattern = pattern ? pattern : "other";
	if (refusal)
		return error_set(&call->error, ERROR_INVALID_REQUEST, NULL, "%s", refusal);
	call->route = routes_find(call->admin, method, path);
	routes_allow(call->admin, path, call->allow, sizeof call->allow);
	if (cors_is_preflight(call) && call->allow[0])
		return true;
	if (!check_access(call))
		return false;
	if (strcmp(method, "OPTIONS") == 0 && call->allow[0])
		return true;
	return check_route(call) && check_state(call) && check_body(call);
}

/* ---- the life of a call ---- */

static struct call *call_create(struct server *server, bool admin, struct exchange *x) {
	struct call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->server = server;
	call->admin = admin;
	call->x = x;
	call->begun_ns = clock_now_ns();
	call->next = server->calls;
	if (call->next)
		call->next->prev = call;
	server->calls = call;
	server->n_calls++;
	name_call(call);
	exchange_set_user(x, call);
	return call;
}

static void begin(struct server *server, bool admin, struct exchange *x) {
	struct call *call = call_create(server, admin, x);
	if (!call) {
		exchange_answer_static(x, 500, NULL, 0, "", 0);
		return;
	}
	bool fine = check(call);
	if (fine && exchange_has_body(x) && (!call->route || !call->route->json))
		exchange_drop_body(x);
	if (fine)
		return;
	/* With an ordinary body to come, the refusal waits for it: so the connection lives on. */
	call->close = exchange_refusal(x) || exchange_body_too_large(x)
	                || (exchange_expects_100(x) && exchange_has_body(x));
	if (call->close)
		call_fail(call, &call->error);
	else
		exchange_drop_body(x);
}

static void begin_main(void *arg, struct exchange *x) {
	begin(arg, false, x);
}

static void begin_admin(void *arg, struct exchange *x) {
	begin(arg, true, x);
}

static void answer_options(struct call *call) {
	struct fields fields = { .n = 0 };
	struct buffer none = { 0 };
	fields_add(&fields, "Allow", "%s", call->allow);
	if (cors_is_preflight(call))
		cors_preflight_fields(call, &fields);
	call_answer(call, 204, &fields, &none);
}

static void ready(void *arg, struct exchange *x) {
	struct call *call = exchange_user(x);
	(void)arg;
	call->received_ns = clock_now_ns();
	if (call->error.code == ERROR_NONE && exchange_body_too_large(x)) {
		call->close = true;
		check_body(call);
	} else if (call->error.code == ERROR_NONE && exchange_body_crowded(x)) {
		error_set(&call->error, ERROR_SERVER_OVERLOADED, NULL,
		                "Too many large request bodies are arriving at once.");
	}
	if (call->error.code != ERROR_NONE)
		call_fail(call, &call->error);
	else if (strcmp(exchange_method(x), "OPTIONS") == 0)
		answer_options(call);
	else
		call->route->handle(call);
}

static void late(void *arg, struct exchange *x, struct buffer *out) {
	struct call *call = exchange_user(x);
	(void)arg;
	if (!call)
		return;
	error_set(&call->error, ERROR_REQUEST_TIMEOUT, NULL,
	                "The body did not arrive within %d ms.",
	                call->server->config->body_timeout_ms);
	error_write(out, &call->error, call->request_id);
}

/* One line, without anything that the client wrote but its ids. */
static void write_log(const struct call *call, int status, bool complete) {
	const struct call_summary *s = &call->summary;
	bool probe = call->route && call->route->access != ACCESS_KEY && status == 200;
	double total = clock_ms(clock_now_ns() - call->begun_ns);
	log_event(probe ? LOG_DEBUG : LOG_INFO, "request",
	                { "request_id", LOG_STR(call->request_id) },
	                { "method", LOG_STR(exchange_method(call->x)) },
	                { "route", LOG_STR(call->pattern) }, { "status", LOG_INT(status) },
	                { "complete", LOG_BOOL(complete) }, { "depth", LOG_INT(s->depth) },
	                { "encoder_depth", LOG_INT(s->encoder_depth) },
	                { "prompt_tokens", LOG_INT(s->prompt_tokens) },
	                { "tokens", LOG_INT(s->tokens) }, { "queue_ms", LOG_F64(s->queue_ms) },
	                { "prefill_ms", LOG_F64(s->prefill_ms) },
	                { "decode_ms", LOG_F64(s->decode_ms) }, { "total_ms", LOG_F64(total) },
	                { "key", LOG_STR(call->grant.name[0] ? call->grant.name : NULL) },
	                { "error",
	                                LOG_STR(call->error.code == ERROR_NONE
	                                                                ? NULL
	                                                                : error_name(call->error.code)) },
	                { "traceparent",
	                                LOG_STR(call->traceparent[0] ? call->traceparent : NULL) });
}

static void done(void *arg, struct exchange *x, bool complete) {
	struct call *call = exchange_user(x);
	struct server *server = arg;
	if (!call)
		return;
	int status = exchange_status(x) ? exchange_status(x) : STATUS_CLIENT_LEFT;
	submit_end(call); /* before the log line: it sums up an answer that was cut */
	write_log(call, status, complete);
	if (server->metrics)
		metrics_request(server->metrics, call->pattern, status);
	if (call->reloading)
		reload_forget(server, call);
	if (call->prev)
		call->prev->next = call->next;
	else
		server->calls = call->next;
	if (call->next)
		call->next->prev = call->prev;
	server->n_calls--;
	free(call);
	drain_check(server);
}

struct http_handler call_handler(struct server *server, bool admin) {
	return (struct http_handler){ admin ? begin_admin : begin_main, ready, late, done, server };
}
