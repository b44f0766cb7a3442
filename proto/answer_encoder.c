/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of the routes for encoders: embeddings, classes, filled masks. */
#include <math.h>
#include <string.h>

#include "proto/answer_parts.h"

/* ---- embeddings ------------------------------------------------------------------------------- */

void answer_open_embeddings(struct buffer *b, const struct answer_meta *meta) {
	answer_open(b, meta, "list");
	answer_put_key(b, "data");
	buffer_puts(b, "[");
}

/* Base64 (RFC 4648) of the values' bits, the least significant byte of each first. */
static void put_base64(struct buffer *b, const float *values, size_t n) {
	static const char letters[] =
	                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t group = 0;
	size_t bytes = 0;
	buffer_puts(b, "\"");
	for (size_t i = 0; i < 4 * n; i++) {
		uint32_t bits;
		memcpy(&bits, &values[i / 4], sizeof bits);
		group = group << 8 | (bits >> (8 * (i % 4)) & 0xff);
		if (++bytes % 3 == 0) {
			char four[4] = { letters[group >> 18 & 63], letters[group >> 12 & 63],
				letters[group >> 6 & 63], letters[group & 63] };
			buffer_append(b, four, sizeof four);
			group = 0;
		}
	}
	if (bytes % 3 == 1) {
		char four[4] = { letters[group >> 2 & 63], letters[group << 4 & 63], '=', '=' };
		buffer_append(b, four, sizeof four);
	} else if (bytes % 3 == 2) {
		char four[4] = { letters[group >> 10 & 63], letters[group >> 4 & 63],
			letters[group << 2 & 63], '=' };
		buffer_append(b, four, sizeof four);
	}
	buffer_puts(b, "\"");
}

static void put_values(struct buffer *b, const char *key, const float *values, size_t n) {
	answer_put_key(b, key);
	buffer_puts(b, "[");
	for (size_t i = 0; i < n; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		buffer_json_f32(b, values[i]);
	}
	buffer_puts(b, "]");
}

void answer_put_embedding(struct buffer *b, size_t index, const float *values, size_t n,
                enum encoding_format format) {
	buffer_puts(b, index > 0 ? ",{" : "{");
	answer_put_string(b, "object", "embedding");
	answer_put_int(b, "index", (int64_t)index);
	if (format == ENCODING_BASE64) {
		answer_put_key(b, "embedding");
		put_base64(b, values, n);
	} else {
		put_values(b, "embedding", values, n);
	}
	buffer_puts(b, "}");
}

void answer_close_embeddings(struct buffer *b, const struct answer_meta *meta) {
	buffer_puts(b, "]");
	answer_close(b, meta);
}

/* ---- classes ---------------------------------------------------------------------------------- */

static int best_of(const float *scores, int n) {
	int best = 0;
	for (int i = 1; i < n; i++)
		best = scores[i] > scores[best] ? i : best;
	return best;
}

static void put_probabilities(struct buffer *b, const float *scores, int n) {
	double most = scores[best_of(scores, n)], sum = 0;
	for (int i = 0; i < n; i++)
		sum += exp(scores[i] - most);
	answer_put_key(b, "probs");
	buffer_puts(b, "[");
	for (int i = 0; i < n; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		buffer_json_f64(b,
		                n == 1 ? 1 / (1 + exp(-(double)scores[0]))
		                       : exp(scores[i] - most) / sum);
	}
	buffer_puts(b, "]");
}

void answer_write_classes(struct buffer *b, const struct answer_meta *meta,
                const struct answer_classifier *classifier, const float *const *scores, size_t n) {
	int classes = classifier->classes;
	answer_open(b, meta, "list");
	answer_put_string(b, "head", classifier->head);
	answer_put_key(b, "labels");
	buffer_puts(b, "[");
	for (int i = 0; i < classes; i++) {
		buffer_puts(b, i > 0 ? "," : "");
		buffer_json_string(b, classifier->labels[i], strlen(classifier->labels[i]));
	}
	buffer_puts(b, "]");
	answer_put_key(b, "data");
	buffer_puts(b, "[");
	for (size_t i = 0; i < n; i++) {
		buffer_puts(b, i > 0 ? ",{" : "{");
		answer_put_int(b, "index", (int64_t)i);
		answer_put_string(b, "label", classifier->labels[best_of(scores[i], classes)]);
		put_probabilities(b, scores[i], classes);
		answer_put_int(b, "num_classes", classes);
		if (classifier->logits)
			put_values(b, "logits", scores[i], (size_t)classes);
		buffer_puts(b, "}");
	}
	buffer_puts(b, "]");
	answer_close(b, meta);
}

/* ---- masks ------------------------------------------------------------------------------------ */

static void put_fill(struct buffer *b, const struct answer_fill *fill) {
	buffer_puts(b, "{");
	answer_put_key(b, "token");
	answer_write_token_text(b, fill->bytes, fill->len);
	answer_put_int(b, "token_id", fill->token);
	answer_put_key(b, "prob");
	buffer_json_f64(b, exp(fill->logprob));
	answer_put_key(b, "text");
	buffer_json_string(b, fill->text, fill->text_len);
	buffer_puts(b, "}");
}

void answer_write_fills(struct buffer *b, const struct answer_meta *meta,
                const struct answer_mask *masks, size_t n) {
	answer_open(b, meta, "fill_mask");
	answer_put_key(b, "results");
	buffer_puts(b, "[");
	for (size_t i = 0; i < n; i++) {
		buffer_puts(b, i > 0 ? ",[" : "[");
		for (size_t k = 0; k < masks[i].n; k++) {
			buffer_puts(b, k > 0 ? "," : "");
			put_fill(b, &masks[i].fills[k]);
		}
		buffer_puts(b, "]");
	}
	buffer_puts(b, "]");
	answer_put_key(b, "masks");
	buffer_puts(b, "[");
	for (size_t i = 0; i < n; i++)
		buffer_printf(b, "%s{\"index\":%zu,\"position\":%d}", i > 0 ? "," : "",
		                masks[i].index, masks[i].position);
	buffer_puts(b, "]");
	answer_close(b, meta);
}
