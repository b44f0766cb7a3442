/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of proto/: pieces that the writers of answers share. */
#ifndef FATHOM_PROTO_ANSWER_PARTS_H
#define FATHOM_PROTO_ANSWER_PARTS_H

#include "proto/answer.h"

/* Members of an open object; the comma before them comes by itself. */
void answer_put_key(struct buffer *b, const char *key);
void answer_put_string(struct buffer *b, const char *key, const char *value); /* NULL: null */
void answer_put_int(struct buffer *b, const char *key, int64_t value);
void answer_put_ids(struct buffer *b, const char *key, const int32_t *ids, size_t n);
void answer_put_usage(struct buffer *b, const struct answer_usage *usage);
/* depth, timings and warnings, each where it is there. */
void answer_put_extras(struct buffer *b, const struct answer_meta *meta);
/* What an answer begins with; the object stays open. */
void answer_open(struct buffer *b, const struct answer_meta *meta, const char *object);
/* What it ends with: usage and the extras, and the object's end. */
void answer_close(struct buffer *b, const struct answer_meta *meta);

/* One number: null without one, -9999.0 for minus infinity. */
void answer_write_logprob(struct buffer *b, bool has, float logprob);
/* The "logprobs" object of a choice. */
void answer_write_legacy_logprobs(struct buffer *b, const struct answer_token *tokens, size_t n,
                const struct answer_vocab *vocab);
void answer_write_chat_logprobs(struct buffer *b, const struct answer_token *tokens, size_t n,
                const struct answer_vocab *vocab);

/* The object that a stream event carries. */
void answer_write_chunk_body(struct buffer *b, const struct answer *a);

#endif
