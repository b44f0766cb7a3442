/* SPDX-License-Identifier: Apache-2.0 */
/* Log-probabilities in OpenAI's two shapes: the legacy one of completions, and the one of chat. */
#include <math.h>
#include <string.h>

#include "proto/answer_parts.h"
#include "proto/utf8.h"

void answer_write_token_text(struct buffer *b, const char *bytes, size_t len) {
	/* A text that looks like the escape is escaped too, so that no two texts print alike. */
	static const char escape[] = "bytes:\\x";
	bool alike = len >= sizeof escape - 1 && memcmp(bytes, escape, sizeof escape - 1) == 0;
	if (len == 0 || (utf8_is_valid(bytes, len) && !alike)) {
		buffer_json_string(b, bytes, len);
		return;
	}
	buffer_puts(b, "\"bytes:");
	for (size_t i = 0; i < len; i++)
		buffer_printf(b, "\\\\x%02x", (unsigned char)bytes[i]);
	buffer_puts(b, "\"");
}

void answer_write_logprob(struct buffer *b, bool has, float logprob) {
	if (!has)
		buffer_puts(b, "null");
	else if (isinf(logprob) && logprob < 0)
		buffer_puts(b, "-9999.0");
	else
		buffer_json_f32(b, logprob);
}

/* The text of alternative `i` of `t`. */
static const char *top_bytes(const struct answer_token *t, int i, const struct answer_vocab *vocab,
                size_t *ret_len) {
	*ret_len = 0;
	if (t->top[i].token == t->token) {
		*ret_len = t->len;
		return t->bytes;
	}
	return vocab->bytes(vocab->context, t->top[i].token, ret_len);
}

static bool same_text(const char *a, size_t a_len, const char *b, size_t b_len) {
	return a_len == b_len && (a_len == 0 || memcmp(a, b, a_len) == 0);
}

/*
 * Whether alternative i must be left out, because an object cannot have one key twice: it prints
 * like the chosen token, which is another, or like a better alternative.
 */
static bool is_shadowed(const struct answer_token *t, int i, const struct answer_vocab *vocab) {
	size_t len, other_len;
	const char *bytes = top_bytes(t, i, vocab, &len);
	if (t->top[i].token == t->token)
		return false;
	if (same_text(bytes, len, t->bytes, t->len))
		return true;
	for (int j = 0; j < i; j++) {
		const char *other = top_bytes(t, j, vocab, &other_len);
		if (same_text(bytes, len, other, other_len))
			return true;
	}
	return false;
}

/* {"text": logprob, ...}: the alternatives, and the chosen token if it is not among them. */
static void put_top(
                struct buffer *b, const struct answer_token *t, const struct answer_vocab *vocab) {
	bool chosen = false, first = true;
	if (!t->has_logprob) {
		buffer_puts(b, "null");
		return;
	}
	buffer_puts(b, "{");
	for (int i = 0; i < t->n_top; i++) {
		bool is_chosen = t->top[i].token == t->token;
		if (is_shadowed(t, i, vocab))
			continue;
		size_t len;
		const char *bytes = top_bytes(t, i, vocab, &len);
		buffer_puts(b, first ? "" : ",");
		answer_write_token_text(b, bytes, len);
		buffer_puts(b, ":");
		answer_write_logprob(b, true, is_chosen ? t->logprob : t->top[i].logprob);
		chosen |= is_chosen;
		first = false;
	}
	if (!chosen) {
		buffer_puts(b, first ? "" : ",");
		answer_write_token_text(b, t->bytes, t->len);
		buffer_puts(b, ":");
		answer_write_logprob(b, true, t->logprob);
	}
	buffer_puts(b, "}");
}

void answer_write_legacy_logprobs(struct buffer *b, const struct answer_token *tokens, size_t n,
                const struct answer_vocab *vocab) {
	buffer_puts(b, "{\"tokens\":[");
	for (size_t i = 0; i < n; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		answer_write_token_text(b, tokens[i].bytes, tokens[i].len);
	}
	buffer_puts(b, "],\"token_logprobs\":[");
	for (size_t i = 0; i < n; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		answer_write_logprob(b, tokens[i].has_logprob, tokens[i].logprob);
	}
	buffer_puts(b, "],\"top_logprobs\":[");
	for (size_t i = 0; i < n; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		put_top(b, &tokens[i], vocab);
	}
	buffer_puts(b, "],\"text_offset\":[");
	for (size_t i = 0; i < n; i++)
		buffer_printf(b, i > 0 ? ",%zu" : "%zu", tokens[i].text_offset);
	buffer_puts(b, "]}");
}

/* The members that a token and an alternative have in common; the object stays open. */
static void open_chat_token(
                struct buffer *b, const char *bytes, size_t len, bool has, float logprob) {
	buffer_puts(b, "{\"token\":");
	answer_write_token_text(b, bytes, len);
	buffer_puts(b, ",\"logprob\":");
	answer_write_logprob(b, has, logprob);
	buffer_puts(b, ",\"bytes\":[");
	for (size_t i = 0; i < len; i++)
		buffer_printf(b, i > 0 ? ",%d" : "%d", (unsigned char)bytes[i]);
	buffer_puts(b, "]");
}

void answer_write_chat_logprobs(struct buffer *b, const struct answer_token *tokens, size_t n,
                const struct answer_vocab *vocab) {
	buffer_puts(b, "{\"content\":[");
	for (size_t i = 0; i < n; i++) {
		const struct answer_token *t = &tokens[i];
		buffer_puts(b, i > 0 ? "," : "");
		open_chat_token(b, t->bytes, t->len, t->has_logprob, t->logprob);
		buffer_puts(b, ",\"top_logprobs\":[");
		for (int j = 0; j < t->n_top; j++) {
			bool chosen = t->top[j].token == t->token;
			size_t len;
			const char *bytes = top_bytes(t, j, vocab, &len);
			buffer_puts(b, j > 0 ? "," : "");
			open_chat_token(b, bytes, len, true,
			                chosen ? t->logprob : t->top[j].logprob);
			buffer_puts(b, "}");
		}
		buffer_puts(b, "]}");
	}
	buffer_puts(b, "],\"refusal\":null}");
}
