/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of the generating routes, in OpenAI's shapes with ours beside them. */
#include "proto/answer.h"

#include <math.h>
#include <string.h>

#include "proto/answer_parts.h"
#include "proto/number.h"

void answer_put_key(struct buffer *b, const char *key) {
	char last = b->len > 0 ? b->data[b->len - 1] : '{';
	if (last != '{' && last != '[')
		buffer_append(b, ",", 1);
	buffer_append(b, "\"", 1);
	buffer_puts(b, key);
	buffer_append(b, "\":", 2);
}

void answer_put_string(struct buffer *b, const char *key, const char *value) {
	answer_put_key(b, key);
	if (value)
		buffer_json_string(b, value, strlen(value));
	else
		buffer_puts(b, "null");
}

void answer_put_int(struct buffer *b, const char *key, int64_t value) {
	answer_put_key(b, key);
	buffer_printf(b, "%lld", (long long)value);
}

void answer_put_ids(struct buffer *b, const char *key, const int32_t *ids, size_t n) {
	answer_put_key(b, key);
	buffer_puts(b, "[");
	for (size_t i = 0; i < n; i++)
		buffer_printf(b, i > 0 ? ",%d" : "%d", ids[i]);
	buffer_puts(b, "]");
}

/* ---- parts that several answers share --------------------------------------------------------- */

/* A number, or with two stacks an object of two. */
static void put_depths(struct buffer *b, const char *key, bool two, int encoder, int decoder) {
	if (!two) {
		answer_put_int(b, key, decoder);
		return;
	}
	answer_put_key(b, key);
	buffer_printf(b, "{\"encoder\":%d,\"decoder\":%d}", encoder, decoder);
}

static void write_layers(struct buffer *b, const int16_t *layers, int n) {
	buffer_puts(b, "[");
	for (int i = 0; i < n; i++)
		buffer_printf(b, i > 0 ? ",%d" : "%d", layers[i]);
	buffer_puts(b, "]");
}

/* The encoder's part is the depth's own: a step-down leaves it as it is. */
static void put_layers(
                struct buffer *b, const struct answer_depth *depth, const int16_t *layers, int n) {
	bool two = depth->encoder_of > 0;
	answer_put_key(b, "layers");
	if (two) {
		buffer_puts(b, "{\"encoder\":");
		write_layers(b, depth->encoder_layers, depth->encoder_used);
		buffer_puts(b, ",\"decoder\":");
	}
	write_layers(b, layers, n);
	buffer_puts(b, two ? "}" : "");
}

/* A depth that was asked for as a number, or as two, is answered so. */
static void put_requested(struct buffer *b, const char *requested) {
	static const char digits[] = "0123456789";
	size_t first = strspn(requested, digits);
	size_t second = requested[first] == ',' ? strspn(requested + first + 1, digits) : 0;
	answer_put_key(b, "requested");
	if (first > 0 && second > 0 && !requested[first + 1 + second])
		buffer_printf(b, "{\"encoder\":%.*s,\"decoder\":%s}", (int)first, requested,
		                requested + first + 1);
	else if (first > 0 && !requested[first])
		buffer_puts(b, requested);
	else if (requested[0])
		buffer_json_string(b, requested, strlen(requested));
	else
		buffer_puts(b, "null");
}

void answer_write_depth(struct buffer *b, const struct answer_depth *depth) {
	bool two = depth->encoder_of > 0;
	buffer_puts(b, "{");
	put_requested(b, depth->requested);
	put_depths(b, "used", two, depth->encoder_used, depth->used);
	put_depths(b, "of", two, depth->encoder_of, depth->of);
	put_layers(b, depth, depth->layers, depth->used);
	answer_put_string(b, "rule", depth->rule);
	answer_put_string(b, "reason", depth->reason);
	if (depth->n_changes > 0) {
		answer_put_key(b, "changes");
		buffer_puts(b, "[");
		for (size_t i = 0; i < depth->n_changes; i++) {
			const struct answer_change *c = &depth->changes[i];
			buffer_puts(b, i > 0 ? ",{" : "{");
			answer_put_int(b, "at_token", c->at_token);
			put_depths(b, "used", two, depth->encoder_used, c->used);
			put_layers(b, depth, c->layers, c->used);
			buffer_puts(b, "}");
		}
		buffer_puts(b, "]");
	}
	buffer_puts(b, "}");
}

/* Milliseconds to three places; absent where negative. */
static void put_ms(struct buffer *b, const char *key, double ms) {
	if (ms < 0)
		return;
	answer_put_key(b, key);
	buffer_json_f64(b, round(ms * 1000) / 1000);
}

void answer_write_timings(struct buffer *b, const struct answer_timings *t) {
	buffer_puts(b, "{");
	put_ms(b, "queue_ms", t->queue_ms);
	put_ms(b, "prefill_ms", t->prefill_ms);
	put_ms(b, "decode_ms", t->decode_ms);
	put_ms(b, "total_ms", t->total_ms);
	put_ms(b, "predicted_ms", t->predicted_ms);
	if (t->predicted_tokens > 0)
		answer_put_int(b, "predicted_tokens", t->predicted_tokens);
	put_ms(b, "budget_ms", t->budget_ms);
	if (t->budget_met >= 0) {
		answer_put_key(b, "budget_met");
		buffer_puts(b, t->budget_met ? "true" : "false");
	}
	buffer_puts(b, "}");
}

void answer_put_usage(struct buffer *b, const struct answer_usage *u) {
	answer_put_key(b, "usage");
	buffer_puts(b, "{");
	answer_put_int(b, "prompt_tokens", u->prompt_tokens);
	answer_put_int(b, "completion_tokens", u->completion_tokens);
	answer_put_int(b, "total_tokens", u->prompt_tokens + u->completion_tokens);
	answer_put_key(b, "prompt_tokens_details");
	buffer_puts(b, "{");
	answer_put_int(b, "cached_tokens", u->cached_tokens);
	buffer_puts(b, "}");
	if (u->accepted_tokens + u->rejected_tokens > 0) {
		answer_put_key(b, "completion_tokens_details");
		buffer_puts(b, "{");
		answer_put_int(b, "accepted_prediction_tokens", u->accepted_tokens);
		answer_put_int(b, "rejected_prediction_tokens", u->rejected_tokens);
		buffer_puts(b, "}");
	}
	buffer_puts(b, "}");
}

void answer_put_extras(struct buffer *b, const struct answer_meta *meta) {
	if (meta->depth) {
		answer_put_key(b, "depth");
		answer_write_depth(b, meta->depth);
	}
	if (meta->timings) {
		answer_put_key(b, "timings");
		answer_write_timings(b, meta->timings);
	}
	if (meta->n_warnings == 0)
		return;
	answer_put_key(b, "warnings");
	buffer_puts(b, "[");
	for (size_t i = 0; i < meta->n_warnings; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		buffer_json_string(b, meta->warnings[i], strlen(meta->warnings[i]));
	}
	buffer_puts(b, "]");
}

void answer_open(struct buffer *b, const struct answer_meta *meta, const char *object) {
	buffer_puts(b, "{");
	answer_put_string(b, "id", meta->id);
	answer_put_string(b, "object", object);
	answer_put_int(b, "created", meta->created);
	answer_put_string(b, "model", meta->model);
}

void answer_close(struct buffer *b, const struct answer_meta *meta) {
	if (meta->usage)
		answer_put_usage(b, meta->usage);
	answer_put_extras(b, meta);
	buffer_puts(b, "}");
}

/* ---- choices ---------------------------------------------------------------------------------- */

static void put_logprobs(struct buffer *b, const struct answer *a, const struct answer_choice *c) {
	answer_put_key(b, "logprobs");
	if (!c->logprobs)
		buffer_puts(b, "null");
	else if (a->kind == REQUEST_CHAT)
		answer_write_chat_logprobs(b, c->tokens, c->n_tokens, a->vocab);
	else
		answer_write_legacy_logprobs(b, c->tokens, c->n_tokens, a->vocab);
}

/* What every choice ends with, whole or chunk, completion or chat. */
static void put_finish(struct buffer *b, const struct answer_choice *c) {
	answer_put_string(b, "finish_reason", c->finish_reason);
	if (c->finish_detail)
		answer_put_string(b, "finish_detail", c->finish_detail);
	if (c->stop_reason)
		answer_put_string(b, "stop_reason", c->stop_reason);
	if (c->has_score) {
		answer_put_key(b, "score");
		buffer_json_f64(b, c->score);
	}
	if (c->token_ids)
		answer_put_ids(b, "token_ids", c->token_ids, c->n_token_ids);
}

static void put_text(struct buffer *b, const char *key, const struct answer_choice *c) {
	answer_put_key(b, key);
	buffer_json_string(b, c->text, c->text_len);
}

static void put_choice(struct buffer *b, const struct answer *a, const struct answer_choice *c,
                bool chunk) {
	buffer_puts(b, "{");
	answer_put_int(b, "index", c->index);
	if (a->kind != REQUEST_CHAT) {
		put_text(b, "text", c);
	} else if (chunk) {
		answer_put_key(b, "delta");
		buffer_puts(b, "{");
		if (c->first)
			answer_put_string(b, "role", "assistant");
		if (c->first || c->text_len > 0)
			put_text(b, "content", c);
		buffer_puts(b, "}");
	} else {
		answer_put_key(b, "message");
		buffer_puts(b, "{");
		answer_put_string(b, "role", "assistant");
		put_text(b, "content", c);
		answer_put_string(b, "refusal", NULL);
		buffer_puts(b, "}");
	}
	put_logprobs(b, a, c);
	put_finish(b, c);
	buffer_puts(b, "}");
}

static void write_body(struct buffer *b, const struct answer *a, const char *object, bool chunk) {
	const struct answer_meta meta = { .id = a->id,
		.model = a->model,
		.created = a->created,
		.usage = a->usage,
		.depth = a->depth,
		.timings = a->timings,
		.warnings = a->warnings,
		.n_warnings = a->n_warnings };
	answer_open(b, &meta, object);
	answer_put_key(b, "choices");
	buffer_puts(b, "[");
	for (size_t i = 0; i < a->n_choices; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		put_choice(b, a, &a->choices[i], chunk);
	}
	buffer_puts(b, "]");
	answer_close(b, &meta);
}

void answer_write(struct buffer *b, const struct answer *a) {
	write_body(b, a, a->kind == REQUEST_CHAT ? "chat.completion" : "text_completion", false);
}

void answer_write_chunk_body(struct buffer *b, const struct answer *a) {
	write_body(b, a, a->kind == REQUEST_CHAT ? "chat.completion.chunk" : "text_completion",
	                true);
}

/* ---- routes of ours --------------------------------------------------------------------------- */

static void put_score(struct buffer *b, const struct answer_score *s) {
	double sum = 0;
	size_t scored = 0;
	buffer_puts(b, "{\"token_ids\":[");
	for (size_t i = 0; i < s->n_tokens; i++)
		buffer_printf(b, i > 0 ? ",%d" : "%d", s->tokens[i].token);
	buffer_puts(b, "],\"tokens\":[");
	for (size_t i = 0; i < s->n_tokens; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		answer_write_token_text(b, s->tokens[i].bytes, s->tokens[i].len);
	}
	buffer_puts(b, "],\"logprobs\":[");
	for (size_t i = 0; i < s->n_tokens; i++) {
		const struct answer_token *t = &s->tokens[i];
		buffer_puts(b, i > 0 ? "," : "");
		answer_write_logprob(b, t->has_logprob, t->logprob);
		if (!t->has_logprob)
			continue;
		/* As a client adds up the numbers of an echoed completion: to the same sum. */
		sum += isinf(t->logprob) ? -9999.0 : number_read_back(t->logprob);
		scored++;
	}
	buffer_puts(b, "],\"sum\":");
	buffer_json_f64(b, sum);
	buffer_puts(b, ",\"perplexity\":");
	buffer_json_f64(b, scored > 0 ? exp(-sum / (double)scored) : NAN);
	buffer_puts(b, "}");
}

void answer_write_loglikelihood(struct buffer *b, const struct answer_meta *meta,
                const struct answer_score *scores, size_t n_scores) {
	answer_open(b, meta, "loglikelihood");
	answer_put_key(b, "results");
	buffer_puts(b, "[");
	for (size_t i = 0; i < n_scores; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		put_score(b, &scores[i]);
	}
	buffer_puts(b, "]");
	answer_close(b, meta);
}

void answer_write_tokenize(struct buffer *b, const struct answer_tokenized *items, size_t n_items,
                bool list, int max_model_len, bool token_strs, const struct answer_vocab *vocab) {
	if (list)
		buffer_puts(b, "{\"results\":[");
	for (size_t i = 0; i < n_items; i++) {
		const struct answer_tokenized *item = &items[i];
		buffer_puts(b, i > 0 ? ",{" : "{");
		answer_put_ids(b, "tokens", item->tokens, item->n_tokens);
		answer_put_int(b, "count", (int64_t)item->n_tokens);
		answer_put_int(b, "max_model_len", max_model_len);
		if (token_strs) {
			answer_put_key(b, "token_strs");
			buffer_puts(b, "[");
			for (size_t j = 0; j < item->n_tokens; j++) {
				size_t len = 0;
				const char *bytes =
				                vocab->bytes(vocab->context, item->tokens[j], &len);
				buffer_puts(b, j > 0 ? "," : "");
				answer_write_token_text(b, bytes, len);
			}
			buffer_puts(b, "]");
		}
		buffer_puts(b, "}");
	}
	if (list)
		buffer_puts(b, "]}");
}

void answer_write_detokenize(struct buffer *b, const char *text, size_t len) {
	buffer_puts(b, "{\"prompt\":");
	buffer_json_string(b, text, len);
	buffer_puts(b, ",\"text\":");
	buffer_json_string(b, text, len);
	buffer_puts(b, "}");
}
