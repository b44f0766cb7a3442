/* SPDX-License-Identifier: Apache-2.0 */
/* The table of errors that clients can get: code, status, type. One sentence says what to do. */
#ifndef FATHOM_PROTO_ERROR_H
#define FATHOM_PROTO_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/buffer.h"

enum error_code {
	ERROR_NONE,
	ERROR_INVALID_JSON,
	ERROR_INVALID_REQUEST,
	ERROR_INVALID_DEPTH,
	ERROR_INVALID_LAYERS,
	ERROR_CONTEXT_LENGTH_EXCEEDED,
	ERROR_UNSUPPORTED_PARAMETER,
	ERROR_BUDGET_UNATTAINABLE,    /* 400: not even an idle server could */
	ERROR_INVALID_API_KEY,        /* 401 */
	ERROR_FORBIDDEN,              /* 403, code invalid_api_key: a key that may not do this */
	ERROR_NOT_FOUND,              /* 404 */
	ERROR_MODEL_NOT_FOUND,        /* 404 */
	ERROR_METHOD_NOT_ALLOWED,     /* 405 */
	ERROR_REQUEST_TIMEOUT,        /* 408 */
	ERROR_REQUEST_CANCELLED,      /* 409 */
	ERROR_REQUEST_TOO_LARGE,      /* 413 */
	ERROR_UNSUPPORTED_MEDIA_TYPE, /* 415 */
	ERROR_RATE_LIMIT_EXCEEDED,    /* 429 */
	ERROR_INTERNAL,               /* 500 */
	ERROR_NOT_SUPPORTED,          /* 501 */
	ERROR_SERVER_OVERLOADED,      /* 503 */
	ERROR_MODEL_LOADING,          /* 503 */
	ERROR_SHUTTING_DOWN,          /* 503 */
	ERROR_BUDGET_UNATTAINABLE_BUSY, /* 503, code budget_unattainable: only the queue prevents it */
	ERROR_DEADLINE_EXCEEDED,        /* 504 */
	ERROR_CODES,
};

/* One failure on its way to the client. */
struct error {
	enum error_code code;
	char message[512];
	char param[64];        /* "" : null */
	double predicted_ms;   /* budget_unattainable: what was predicted; 0: absent */
	int fitting_depth;     /* budget_unattainable: the depth that would fit; 0: absent */
	double retry_after_ms; /* 503, 429: Retry-After and retry-after-ms; 0: the server's default */
};

int error_status(enum error_code code);
const char *error_name(enum error_code code); /* "invalid_depth" */
const char *error_type(enum error_code code); /* "invalid_request_error" */
/* x-should-retry: +1 true, -1 false, 0 no header. */
int error_should_retry(enum error_code code);

/* Fills `e` (may be NULL) and returns false, so that callers can `return error_set(...)`. */
bool error_set(struct error *e, enum error_code code, const char *param, const char *format, ...)
                __attribute__((format(printf, 4, 5)));

/* Appends {"error": {...}} to `b`. */
void error_write(struct buffer *b, const struct error *e, const char *request_id);

#endif
