/* SPDX-License-Identifier: Apache-2.0 */
/* The fields that hold what is to be read: prompts, token ids, chat messages. */
#include <stdio.h>
#include <string.h>

#include "proto/reader.h"

bool reader_token_ids(struct reader *r, const struct field *field, const char *name,
                const json_t *value, int32_t **ret_tokens, size_t *ret_n) {
	size_t n = json_array_size(value);
	int32_t *tokens = arena_alloc(r->arena, n, sizeof *tokens);
	if (!tokens)
		return reader_no_memory(r);
	for (size_t i = 0; i < n; i++) {
		int64_t id;
		const json_t *item = json_array_get(value, i);
		if (!reader_int64(item, &id) || id < 0 || id > INT32_MAX) {
			char at[64];
			snprintf(at, sizeof at, "%s[%zu]", name, i);
			return reader_wrong(r, field, at, "a token id", item);
		}
		tokens[i] = (int32_t)id;
	}
	*ret_tokens = tokens;
	*ret_n = n;
	return true;
}

static bool copy_text(struct reader *r, const json_t *value, char **ret_text, size_t *ret_len) {
	*ret_len = json_string_length(value);
	*ret_text = arena_copy(r->arena, json_string_value(value), *ret_len);
	return *ret_text || reader_no_memory(r);
}

/* Whether {"text": T, "text_pair": T'} is taken for a text. */
static bool takes_pairs(const struct reader *r) {
	return r->kind == REQUEST_CLASSIFY || r->kind == REQUEST_TOKENIZE;
}

static bool read_text_pair(struct reader *r, const struct field *f, const char *name,
                const json_t *value, struct input *out) {
	const json_t *text = json_object_get(value, "text");
	const json_t *pair = json_object_get(value, "text_pair");
	bool lone = !pair || json_is_null(pair);
	size_t known = 1 + (pair != NULL);
	if (!json_is_string(text) || (!lone && !json_is_string(pair))
	                || json_object_size(value) != known)
		return reader_wrong(r, f, name,
		                "a text, token ids or {\"text\": \"...\", \"text_pair\": "
		                "\"...\"}",
		                value);
	return copy_text(r, text, &out->text, &out->text_len)
	                && (lone || copy_text(r, pair, &out->pair, &out->pair_len));
}

/* A text, where they are taken a pair of texts, or a list of token ids. */
static bool read_input(struct reader *r, const struct field *f, const char *name,
                const json_t *value, struct input *out) {
	if (json_is_array(value) && json_array_size(value) > 0)
		return reader_token_ids(r, f, name, value, &out->tokens, &out->n_tokens);
	if (json_is_object(value) && takes_pairs(r))
		return read_text_pair(r, f, name, value, out);
	if (!json_is_string(value))
		return reader_wrong(r, f, name, "a text or a list of token ids that is not empty",
		                value);
	return copy_text(r, value, &out->text, &out->text_len);
}

/* A list of numbers is one text; any other list is a batch. */
static bool is_batch(const json_t *value) {
	return json_is_array(value) && !json_is_number(json_array_get(value, 0));
}

static bool read_inputs(struct reader *r, const struct field *f, const json_t *value,
                struct input **ret_inputs, size_t *ret_n) {
	bool many = r->kind == REQUEST_EMBEDDING || r->kind == REQUEST_CLASSIFY;
	size_t most = (size_t)(many ? r->limits->inputs : r->limits->prompts);
	size_t n = is_batch(value) ? json_array_size(value) : 1;
	if (n == 0)
		return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
		                "%s is an empty list; send a text or token ids.", f->name);
	if (n > most)
		return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
		                "%s holds %zu texts; at most %zu are taken in one request.",
		                f->name, n, most);
	struct input *inputs = arena_alloc(r->arena, n, sizeof *inputs);
	if (!inputs)
		return reader_no_memory(r);
	*ret_inputs = inputs;
	*ret_n = n;
	if (!is_batch(value))
		return read_input(r, f, f->name, value, &inputs[0]);
	for (size_t i = 0; i < n; i++) {
		char name[32];
		snprintf(name, sizeof name, "%s[%zu]", f->name, i);
		if (!read_input(r, f, name, json_array_get(value, i), &inputs[i]))
			return false;
	}
	return true;
}

bool read_prompt(struct reader *r, const struct field *f, const json_t *value) {
	struct request *q = r->request;
	if (q->inputs)
		return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
		                "prompt and input mean the same here; send one of them.");
	q->inputs_were_list = is_batch(value);
	return read_inputs(r, f, value, &q->inputs, &q->n_inputs);
}

bool read_source(struct reader *r, const struct field *f, const json_t *value) {
	struct request *q = r->request;
	if (q->inputs)
		return error_set(r->error, ERROR_INVALID_REQUEST, f->name,
		                "Send input alone, or source and target.");
	return read_prompt(r, f, value);
}

bool read_target(struct reader *r, const struct field *f, const json_t *value) {
	struct request *q = r->request;
	return read_inputs(r, f, value, &q->targets, &q->n_targets);
}

bool read_tokens(struct reader *r, const struct field *f, const json_t *value) {
	struct request *q = r->request;
	if (!json_is_array(value))
		return reader_wrong(r, f, f->name, "a list of token ids", value);
	q->inputs = arena_alloc(r->arena, 1, sizeof *q->inputs);
	if (!q->inputs)
		return reader_no_memory(r);
	q->n_inputs = 1;
	return reader_token_ids(r, f, f->name, value, &q->inputs[0].tokens, &q->inputs[0].n_tokens);
}

/* ---- chat ------------------------------------------------------------------------------------- */

static bool wrong_in_message(struct reader *r, enum error_code code, size_t index,
                const char *member, const char *sentence) {
	char name[64];
	snprintf(name, sizeof name, "messages[%zu]%s", index, member);
	return error_set(r->error, code, name, "%s%s", name, sentence);
}

/* Joins the texts of [{"type": "text", "text": "..."}, ...]. */
static bool read_parts(struct reader *r, size_t index, const json_t *parts, struct message *out) {
	size_t len = 0, n = json_array_size(parts);
	for (size_t i = 0; i < n; i++) {
		const json_t *part = json_array_get(parts, i);
		const char *type = json_string_value(json_object_get(part, "type"));
		const json_t *text = json_object_get(part, "text");
		if (type && strcmp(type, "text") != 0)
			return wrong_in_message(r, ERROR_UNSUPPORTED_PARAMETER, index, ".content",
			                " holds a part that is not text; only text parts are "
			                "read.");
		if (!type || !json_is_string(text))
			return wrong_in_message(r, ERROR_INVALID_REQUEST, index, ".content",
			                " must be a string or a list of {\"type\": \"text\", "
			                "\"text\": "
			                "\"...\"}.");
		len += json_string_length(text);
	}
	out->content = arena_alloc(r->arena, len + 1, 1);
	if (!out->content)
		return reader_no_memory(r);
	for (size_t i = 0; i < n; i++) {
		const json_t *text = json_object_get(json_array_get(parts, i), "text");
		memcpy(out->content + out->content_len, json_string_value(text),
		                json_string_length(text));
		out->content_len += json_string_length(text);
	}
	return true;
}

static bool read_role(struct reader *r, size_t index, const json_t *message, struct message *out) {
	static const char *const roles[] = { "system", "developer", "user", "assistant" };
	const char *role = json_string_value(json_object_get(message, "role"));
	for (size_t i = 0; role && i < sizeof roles / sizeof roles[0]; i++) {
		if (strcmp(role, roles[i]) == 0) {
			out->role = arena_copy(r->arena, role, strlen(role));
			return out->role || reader_no_memory(r);
		}
	}
	if (role && (strcmp(role, "tool") == 0 || strcmp(role, "function") == 0))
		return wrong_in_message(r, ERROR_UNSUPPORTED_PARAMETER, index, ".role",
		                " is of a tool; tools cannot be called.");
	return wrong_in_message(r, ERROR_INVALID_REQUEST, index, ".role",
	                " must be \"system\", \"developer\", \"user\" or \"assistant\".");
}

static bool read_message(
                struct reader *r, size_t index, const json_t *message, struct message *out) {
	if (!json_is_object(message))
		return wrong_in_message(r, ERROR_INVALID_REQUEST, index, "",
		                " must be an object with role and content.");
	static const char *const calls[] = { "tool_calls", "function_call" };
	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		const json_t *call = json_object_get(message, calls[i]);
		if (call && !json_is_null(call)
		                && !(json_is_array(call) && json_array_size(call) == 0))
			return wrong_in_message(r, ERROR_UNSUPPORTED_PARAMETER, index, "",
			                " calls a tool; tools cannot be called.");
	}
	if (!read_role(r, index, message, out))
		return false;
	const json_t *content = json_object_get(message, "content");
	if (json_is_array(content) && json_array_size(content) > 0)
		return read_parts(r, index, content, out);
	if (!json_is_string(content))
		return wrong_in_message(r, ERROR_INVALID_REQUEST, index, ".content",
		                " must be a string or a list of {\"type\": \"text\", \"text\": "
		                "\"...\"}.");
	out->content_len = json_string_length(content);
	out->content = arena_copy(r->arena, json_string_value(content), out->content_len);
	return out->content || reader_no_memory(r);
}

bool read_messages(struct reader *r, const struct field *f, const json_t *value) {
	size_t n = json_array_size(value);
	if (n == 0)
		return reader_wrong(r, f, f->name, "a list of at least one message", value);
	r->request->messages = arena_alloc(r->arena, n, sizeof *r->request->messages);
	if (!r->request->messages)
		return reader_no_memory(r);
	r->request->n_messages = n;
	for (size_t i = 0; i < n; i++)
		if (!read_message(r, i, json_array_get(value, i), &r->request->messages[i]))
			return false;
	return true;
}
