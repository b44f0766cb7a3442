/* SPDX-License-Identifier: Apache-2.0 */
/* The fields that say which layers run: depth, layers, and drafting. */
#include <stdio.h>
#include <string.h>

#include "proto/reader.h"

static const char depth_expected[] =
                "a whole number of at least 1, \"full\", \"auto\" or the name of a tier";

/* Tier names: letters, digits and . _ - ; the first is no digit, so that "6" is not one. */
static bool is_tier_name(const char *s, size_t len) {
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	return len > 0 && len < sizeof((struct depth_spec *)0)->name && strchr(letters, s[0])
	                && strspn(s + 1,
	                                   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	                                   "0123456789._-")
	                == len - 1;
}

/* {"encoder": e, "decoder": d} of the field `f`. */
static bool read_pair(struct reader *r, const struct field *f, const json_t *pair,
                int64_t *ret_encoder, int64_t *ret_decoder) {
	const char *const names[] = { "encoder", "decoder" };
	int64_t *const outs[] = { ret_encoder, ret_decoder };
	for (int i = 0; i < 2; i++) {
		const json_t *value = json_object_get(pair, names[i]);
		char name[32];
		snprintf(name, sizeof name, "%s.%s", f->name, names[i]);
		if (!value)
			return error_set(r->error, f->code, name,
			                "%s is missing; send {\"encoder\": e, \"decoder\": d}.",
			                name);
		if (!reader_int64(value, outs[i]) || *outs[i] < 1)
			return reader_wrong(r, f, name, "a whole number of at least 1", value);
	}
	if (json_object_size(pair) > 2)
		return error_set(r->error, f->code, f->name,
		                "%s as an object holds encoder and decoder only.", f->name);
	return true;
}

bool read_depth(struct reader *r, const struct field *f, const json_t *value) {
	struct depth_spec *out = &r->request->depth;
	if (json_is_object(value)) {
		out->kind = DEPTH_NUMBER;
		return read_pair(r, f, value, &out->encoder, &out->decoder);
	}
	if (json_is_string(value)) {
		const char *s = json_string_value(value);
		if (strcmp(s, "full") == 0) {
			out->kind = DEPTH_FULL;
		} else if (strcmp(s, "auto") == 0) {
			out->kind = DEPTH_AUTO;
		} else if (is_tier_name(s, json_string_length(value))) {
			out->kind = DEPTH_NAME;
			strcpy(out->name, s);
		} else {
			return reader_wrong(r, f, f->name, depth_expected, value);
		}
		return true;
	}
	if (!reader_int64(value, &out->decoder) || out->decoder < 1)
		return reader_wrong(r, f, f->name, depth_expected, value);
	out->kind = DEPTH_NUMBER;
	return true;
}

static bool read_bound(struct reader *r, const struct field *f, const json_t *value,
                int64_t *ret_encoder, int64_t *ret_decoder) {
	if (json_is_object(value))
		return read_pair(r, f, value, ret_encoder, ret_decoder);
	if (!reader_int64(value, ret_decoder) || *ret_decoder < 1)
		return reader_wrong(r, f, f->name, "a whole number of at least 1", value);
	return true;
}

bool read_min_depth(struct reader *r, const struct field *f, const json_t *value) {
	return read_bound(r, f, value, &r->request->encoder_min_depth, &r->request->min_depth);
}

bool read_max_depth(struct reader *r, const struct field *f, const json_t *value) {
	return read_bound(r, f, value, &r->request->encoder_max_depth, &r->request->max_depth);
}

/* Indices, ascending and unique. Whether the stack has them is the server's to check. */
static bool read_indices(struct reader *r, const struct field *f, const char *name,
                const json_t *value, int64_t **ret_layers, size_t *ret_n) {
	size_t n = json_array_size(value);
	if (n == 0)
		return reader_wrong(r, f, name, "a list of at least one layer index", value);
	int64_t *layers = arena_alloc(r->arena, n, sizeof *layers);
	if (!layers)
		return reader_no_memory(r);
	for (size_t i = 0; i < n; i++) {
		char at[48];
		snprintf(at, sizeof at, "%s[%zu]", name, i);
		const json_t *item = json_array_get(value, i);
		if (!reader_int64(item, &layers[i]) || layers[i] < 0)
			return reader_wrong(r, f, at, "a layer index of at least 0", item);
		if (i > 0 && layers[i] <= layers[i - 1])
			return error_set(r->error, f->code, f->name,
			                "%s must be ascending without repeats, but %lld follows "
			                "%lld.",
			                name, (long long)layers[i], (long long)layers[i - 1]);
	}
	*ret_layers = layers;
	*ret_n = n;
	return true;
}

bool read_layers(struct reader *r, const struct field *f, const json_t *value) {
	struct request *q = r->request;
	q->has_layers = true;
	if (json_is_array(value))
		return read_indices(r, f, f->name, value, &q->layers, &q->n_layers);
	const json_t *encoder = json_object_get(value, "encoder");
	const json_t *decoder = json_object_get(value, "decoder");
	if (!encoder || !decoder || json_object_size(value) != 2)
		return reader_wrong(r, f, f->name,
		                "a list of layer indices or {\"encoder\": [...], \"decoder\": "
		                "[...]}",
		                value);
	return read_indices(r, f, "layers.encoder", encoder, &q->encoder_layers,
	                       &q->n_encoder_layers)
	                && read_indices(r, f, "layers.decoder", decoder, &q->layers, &q->n_layers);
}

/* A member of `speculative`: a whole number from 1 to `most`; null and nothing leave it. */
static bool read_draft(struct reader *r, const struct field *f, const json_t *value,
                const char *member, int64_t most, int64_t *ret) {
	const json_t *number = json_object_get(value, member);
	char name[32], expected[64] = "a whole number of at least 1";
	if (!number || json_is_null(number))
		return true;
	snprintf(name, sizeof name, "%s.%s", f->name, member);
	if (most < INT64_MAX)
		snprintf(expected, sizeof expected, "a whole number from 1 to %lld",
		                (long long)most);
	if (!reader_int64(number, ret) || *ret < 1 || *ret > most)
		return reader_wrong(r, f, name, expected, number);
	return true;
}

bool read_speculative(struct reader *r, const struct field *f, const json_t *value) {
	struct speculative_spec *out = &r->request->speculative;
	out->kind = json_is_false(value) ? SPECULATIVE_OFF : SPECULATIVE_ON;
	if (json_is_boolean(value))
		return true;
	if (!json_is_object(value))
		return reader_wrong(r, f, f->name,
		                "true, false or {\"draft_depth\": d, \"draft_tokens\": k}", value);
	const char *key;
	json_t *member;
	json_object_foreach((json_t *)value, key, member) {
		if (strcmp(key, "draft_depth") != 0 && strcmp(key, "draft_tokens") != 0)
			return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
			                "%s as an object holds draft_depth and draft_tokens only.",
			                f->name);
	}
	return read_draft(r, f, value, "draft_depth", INT64_MAX, &out->draft_depth)
	                && read_draft(r, f, value, "draft_tokens", REQUEST_DRAFT_TOKENS,
	                                &out->draft_tokens);
}
