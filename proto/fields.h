/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of request fields: what a client may send on which route. request.c reads bodies by it
 * and the contract test holds openapi.yaml against it.
 */
#ifndef FATHOM_PROTO_FIELDS_H
#define FATHOM_PROTO_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/error.h"
#include "proto/request.h"

enum field_type {
	FIELD_BOOL,    /* bool */
	FIELD_INT,     /* int */
	FIELD_I64,     /* int64_t */
	FIELD_OPT_I64, /* struct opt_i64 */
	FIELD_F64,     /* double */
	FIELD_OPT_F64, /* struct opt_f64 */
	FIELD_STRING,  /* char *, NUL-terminated; the empty string is as good as none */
	FIELD_CHOICE,  /* int: index into words */
	FIELD_WORD,    /* char[16]: one of words */
	FIELD_CUSTOM,  /* read() knows */
};

/* Which member of struct request_limits bounds a number. */
enum field_bound {
	BOUND_NONE,
	BOUND_N,
	BOUND_BEST_OF,
	BOUND_BEAMS,
	BOUND_TOP_LOGPROBS,
	BOUND_FILL_TOP_K,
	BOUND_MAX_TOKENS,
	BOUND_DEADLINE,
};

/* One bit for each enum request_kind. */
enum {
	ON_COMPLETION = 1 << REQUEST_COMPLETION,
	ON_CHAT = 1 << REQUEST_CHAT,
	ON_LOGLIKELIHOOD = 1 << REQUEST_LOGLIKELIHOOD,
	ON_EMBEDDING = 1 << REQUEST_EMBEDDING,
	ON_CLASSIFY = 1 << REQUEST_CLASSIFY,
	ON_FILL_MASK = 1 << REQUEST_FILL_MASK,
	ON_TOKENIZE = 1 << REQUEST_TOKENIZE,
	ON_DETOKENIZE = 1 << REQUEST_DETOKENIZE,
	ON_GENERATION = ON_COMPLETION | ON_CHAT,
	ON_ENCODER = ON_EMBEDDING | ON_CLASSIFY | ON_FILL_MASK,
	ON_MODEL = ON_GENERATION | ON_LOGLIKELIHOOD
	                | ON_ENCODER, /* runs layers: takes depth and time */
	ON_TEXTS = ON_COMPLETION | ON_LOGLIKELIHOOD | ON_ENCODER | ON_TOKENIZE,
	ON_ALL = ON_MODEL | ON_TOKENIZE | ON_DETOKENIZE,
};

struct reader;
struct json_t;

struct field {
	const char *name;
	enum field_type type;
	unsigned on;   /* routes that know the field */
	size_t offset; /* of the member in struct request */
	/* Numbers: from min (or, with above_min, from above it) to max. No bound where infinite. */
	double min, max;
	bool above_min;
	enum field_bound bound;   /* the limit that takes the place of max */
	const char *const *words; /* CHOICE, WORD: ends with NULL */
	enum error_code code;     /* of a refusal; ERROR_NONE stands for invalid_request */
	bool own;                 /* ours, not OpenAI's: near misses of the name are refused */
	bool (*read)(struct reader *reader, const struct field *field, const struct json_t *value);
};

/* A known field that would change the answer and that is not implemented. */
struct refused_field {
	const char *name;
	unsigned on;
	const char *accepts; /* JSON list of the values that change nothing; null is always one */
	const char *advice;  /* the end of the sentence: what to do instead */
};

extern const struct field request_fields[];
extern const size_t request_fields_count;
extern const struct refused_field request_refused[];
extern const size_t request_refused_count;

/* The bound that holds under these limits. */
double field_max(const struct field *field, const struct request_limits *limits);

/* The field of that name on a route of these kinds, or NULL. */
const struct field *field_find(const char *name, unsigned on);
const struct refused_field *field_find_refused(const char *name, unsigned on);

/*
 * The own field that `name`, which is not a field itself, was probably meant to be; NULL if it is
 * not close to any.
 */
const char *field_near(const char *name, unsigned on);

#endif
