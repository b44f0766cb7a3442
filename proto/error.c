/* SPDX-License-Identifier: Apache-2.0 */
/* The table of errors, and the one shape in which a client sees them. */
#include "proto/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct row {
	const char *name, *type;
	int status, retry; /* retry: +1 the client should, -1 it should not, 0 up to the client */
};

static const char invalid_request[] = "invalid_request_error", server[] = "server_error",
                  authentication[] = "authentication_error", not_found[] = "not_found_error",
                  rate_limit[] = "rate_limit_error", overloaded[] = "overloaded_error";

static const struct row rows[ERROR_CODES] = {
	[ERROR_NONE] = { "internal_error", server, 500, 0 },
	[ERROR_INVALID_JSON] = { "invalid_json", invalid_request, 400, 0 },
	[ERROR_INVALID_REQUEST] = { "invalid_request", invalid_request, 400, 0 },
	[ERROR_INVALID_DEPTH] = { "invalid_depth", invalid_request, 400, 0 },
	[ERROR_INVALID_LAYERS] = { "invalid_layers", invalid_request, 400, 0 },
	[ERROR_CONTEXT_LENGTH_EXCEEDED] = { "context_length_exceeded", invalid_request, 400, 0 },
	[ERROR_UNSUPPORTED_PARAMETER] = { "unsupported_parameter", invalid_request, 400, 0 },
	[ERROR_BUDGET_UNATTAINABLE] = { "budget_unattainable", invalid_request, 400, 0 },
	[ERROR_INVALID_API_KEY] = { "invalid_api_key", authentication, 401, 0 },
	[ERROR_FORBIDDEN] = { "invalid_api_key", authentication, 403, 0 },
	[ERROR_NOT_FOUND] = { "not_found", not_found, 404, 0 },
	[ERROR_MODEL_NOT_FOUND] = { "model_not_found", not_found, 404, 0 },
	[ERROR_METHOD_NOT_ALLOWED] = { "method_not_allowed", invalid_request, 405, 0 },
	[ERROR_REQUEST_TIMEOUT] = { "request_timeout", invalid_request, 408, 0 },
	/* SDKs repeat a 409 by themselves; one that was cancelled on purpose must stay so. */
	[ERROR_REQUEST_CANCELLED] = { "request_cancelled", invalid_request, 409, -1 },
	[ERROR_REQUEST_TOO_LARGE] = { "request_too_large", invalid_request, 413, 0 },
	[ERROR_UNSUPPORTED_MEDIA_TYPE] = { "unsupported_media_type", invalid_request, 415, 0 },
	[ERROR_RATE_LIMIT_EXCEEDED] = { "rate_limit_exceeded", rate_limit, 429, 0 },
	[ERROR_INTERNAL] = { "internal_error", server, 500, 0 },
	[ERROR_NOT_SUPPORTED] = { "not_supported", invalid_request, 501, -1 },
	[ERROR_SERVER_OVERLOADED] = { "server_overloaded", overloaded, 503, 1 },
	[ERROR_MODEL_LOADING] = { "model_loading", overloaded, 503, 1 },
	[ERROR_SHUTTING_DOWN] = { "shutting_down", overloaded, 503, 1 },
	[ERROR_BUDGET_UNATTAINABLE_BUSY] = { "budget_unattainable", overloaded, 503, 1 },
	[ERROR_DEADLINE_EXCEEDED] = { "deadline_exceeded", server, 504, -1 },
};

static const struct row *row_of(enum error_code code) {
	return code > ERROR_NONE && code < ERROR_CODES ? &rows[code] : &rows[ERROR_NONE];
}

int error_status(enum error_code code) {
	return row_of(code)->status;
}

const char *error_name(enum error_code code) {
	return row_of(code)->name;
}

const char *error_type(enum error_code code) {
	return row_of(code)->type;
}

int error_should_retry(enum error_code code) {
	return row_of(code)->retry;
}

bool error_set(struct error *e, enum error_code code, const char *param, const char *format, ...) {
	if (!e)
		return false;
	*e = (struct error){ .code = code };
	snprintf(e->param, sizeof e->param, "%s", param ? param : "");
	va_list args;
	va_start(args, format);
	vsnprintf(e->message, sizeof e->message, format, args);
	va_end(args);
	return false;
}

static void put_string(struct buffer *b, const char *key, const char *value) {
	buffer_printf(b, "\"%s\":", key);
	if (value && value[0])
		buffer_json_string(b, value, strlen(value));
	else
		buffer_puts(b, "null");
}

void error_write(struct buffer *b, const struct error *e, const char *request_id) {
	buffer_puts(b, "{\"error\":{\"message\":");
	buffer_json_string(b, e->message, strlen(e->message));
	buffer_puts(b, ",");
	put_string(b, "type", error_type(e->code));
	buffer_puts(b, ",");
	put_string(b, "param", e->param);
	buffer_puts(b, ",");
	put_string(b, "code", error_name(e->code));
	buffer_puts(b, ",");
	put_string(b, "request_id", request_id);
	if (e->predicted_ms > 0) {
		buffer_puts(b, ",\"predicted_ms\":");
		buffer_json_f64(b, e->predicted_ms);
	}
	if (e->fitting_depth > 0)
		buffer_printf(b, ",\"fitting_depth\":%d", e->fitting_depth);
	buffer_puts(b, "}}");
}
