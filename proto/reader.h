/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of proto/: what the readers of single fields share while one body is parsed. */
#ifndef FATHOM_PROTO_READER_H
#define FATHOM_PROTO_READER_H

#include <jansson.h>

#include "proto/arena.h"
#include "proto/fields.h"

struct reader {
	enum request_kind kind;
	const struct request_limits *limits;
	struct request *request;
	struct arena *arena;
	struct error *error;
};

/* All return false, so that a reader can `return reader_...(...)`. */
bool reader_no_memory(struct reader *r);
/* "NAME must be EXPECTED, but a string was sent." with a hint where a number stands in quotes. */
bool reader_wrong(struct reader *r, const struct field *field, const char *name,
                const char *expected, const json_t *value);

/*
 * A whole number: an integer, or a real without fraction below 2^53. False, with nothing reported,
 * if it is none.
 */
bool reader_int64(const json_t *value, int64_t *ret_value);
/* Any number. */
bool reader_double(const json_t *value, double *ret_value);
/* A list of token ids, 0 to 2^31 - 1. Reports. */
bool reader_token_ids(struct reader *r, const struct field *field, const char *name,
                const json_t *value, int32_t **ret_tokens, size_t *ret_n);

/* Readers of the fields of type FIELD_CUSTOM. Each stores into reader->request. */
bool read_depth(struct reader *r, const struct field *f, const json_t *value);
bool read_layers(struct reader *r, const struct field *f, const json_t *value);
bool read_min_depth(struct reader *r, const struct field *f, const json_t *value);
bool read_max_depth(struct reader *r, const struct field *f, const json_t *value);
bool read_cache_salt(struct reader *r, const struct field *f, const json_t *value);
bool read_priority(struct reader *r, const struct field *f, const json_t *value);
bool read_prompt(struct reader *r, const struct field *f, const json_t *value);
bool read_source(struct reader *r, const struct field *f, const json_t *value);
bool read_target(struct reader *r, const struct field *f, const json_t *value);
bool read_tokens(struct reader *r, const struct field *f, const json_t *value);
bool read_messages(struct reader *r, const struct field *f, const json_t *value);
bool read_max_tokens(struct reader *r, const struct field *f, const json_t *value);
bool read_logprobs(struct reader *r, const struct field *f, const json_t *value);
bool read_top_logprobs(struct reader *r, const struct field *f, const json_t *value);
bool read_stop(struct reader *r, const struct field *f, const json_t *value);
bool read_logit_bias(struct reader *r, const struct field *f, const json_t *value);
bool read_stream_options(struct reader *r, const struct field *f, const json_t *value);
bool read_speculative(struct reader *r, const struct field *f, const json_t *value);

/* What only several fields together can break, and what must not be missing (request_check.c). */
bool request_check(struct reader *r, const json_t *root);

#endif
