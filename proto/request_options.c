/* SPDX-License-Identifier: Apache-2.0 */
/* Generation fields that are lists or objects: stop, logit_bias, stream_options. */
#include <stdio.h>
#include <string.h>

#include "proto/reader.h"

static bool read_one_stop(struct reader *r, const struct field *f, const json_t *value) {
	struct request *q = r->request;
	size_t len = json_string_length(value);
	if (!json_is_string(value) || len == 0)
		return reader_wrong(r, f, f->name,
		                "a string or a list of strings, none of them empty", value);
	if (len > (size_t)r->limits->stop_bytes)
		return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
		                "A stop string has %zu bytes; at most %d are allowed.", len,
		                r->limits->stop_bytes);
	char *copy = arena_copy(r->arena, json_string_value(value), len);
	if (!copy)
		return reader_no_memory(r);
	q->stops[q->n_stops] = copy;
	q->stop_lens[q->n_stops++] = len;
	return true;
}

bool read_stop(struct reader *r, const struct field *f, const json_t *value) {
	struct request *q = r->request;
	size_t n = json_is_array(value) ? json_array_size(value) : 1;
	if (n > (size_t)r->limits->stops)
		return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
		                "stop holds %zu strings; at most %d are allowed.", n,
		                r->limits->stops);
	q->stops = arena_alloc(r->arena, n, sizeof *q->stops);
	q->stop_lens = arena_alloc(r->arena, n, sizeof *q->stop_lens);
	if (!q->stops || !q->stop_lens)
		return reader_no_memory(r);
	if (!json_is_array(value))
		return read_one_stop(r, f, value);
	for (size_t i = 0; i < n; i++)
		if (!read_one_stop(r, f, json_array_get(value, i)))
			return false;
	return true;
}

/* A token id in decimal, as JSON has to write it in a key. */
static bool parse_id(const char *s, int32_t *ret_id) {
	int64_t id = 0;
	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return false;
		id = id * 10 + (*s - '0');
		if (id > INT32_MAX)
			return false;
	}
	*ret_id = (int32_t)id;
	return true;
}

bool read_logit_bias(struct reader *r, const struct field *f, const json_t *value) {
	struct request *q = r->request;
	if (!json_is_object(value))
		return reader_wrong(r, f, f->name, "an object of token ids and numbers", value);
	size_t n = json_object_size(value);
	if (n > (size_t)r->limits->logit_bias)
		return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
		                "logit_bias holds %zu tokens; at most %d are allowed.", n,
		                r->limits->logit_bias);
	q->logit_bias = arena_alloc(r->arena, n, sizeof *q->logit_bias);
	if (!q->logit_bias)
		return reader_no_memory(r);
	const char *key;
	json_t *item;
	json_object_foreach((json_t *)value, key, item) {
		struct bias_entry *entry = &q->logit_bias[q->n_logit_bias++];
		double bias;
		if (!parse_id(key, &entry->token))
			return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
			                "The keys of logit_bias must be token ids, such as "
			                "\"42\".");
		for (size_t i = 0; i + 1 < q->n_logit_bias; i++)
			if (q->logit_bias[i].token == entry->token)
				return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
				                "logit_bias names token %d twice.", entry->token);
		if (!reader_double(item, &bias) || bias < -100 || bias > 100) {
			char name[32];
			snprintf(name, sizeof name, "logit_bias.%d", entry->token);
			return reader_wrong(r, f, name, "a number from -100 to 100", item);
		}
		entry->bias = (float)bias;
	}
	return true;
}

bool read_stream_options(struct reader *r, const struct field *f, const json_t *value) {
	if (!json_is_object(value))
		return reader_wrong(r, f, f->name, "an object", value);
	const json_t *usage = json_object_get(value, "include_usage");
	if (usage && !json_is_null(usage)) {
		if (!json_is_boolean(usage))
			return reader_wrong(r, f, "stream_options.include_usage", "true or false",
			                usage);
		r->request->include_usage = json_is_true(usage);
	}
	const json_t *each = json_object_get(value, "continuous_usage_stats");
	if (each && !json_is_null(each) && !json_is_false(each))
		return error_set(r->error, ERROR_UNSUPPORTED_PARAMETER,
		                "stream_options.continuous_usage_stats",
		                "Usage comes once, at the end of the stream; use include_usage.");
	return true;
}
