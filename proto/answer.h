/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers: plain structs become JSON and SSE bytes. Written by hand into a reused buffer; no JSON
 * tree per token.
 */
#ifndef FATHOM_PROTO_ANSWER_H
#define FATHOM_PROTO_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"
#include "proto/error.h"
#include "proto/request.h"

/*
 * The "depth" object. A model of two stacks gives {"encoder", "decoder"} where others give one
 * value.
 */
struct answer_depth {
	char requested[80];            /* "auto", "full", "6", "12,6", "fast", "layers" */
	int used, of;                  /* of the decoder, or of the only stack */
	const int16_t *layers;         /* [used] */
	int encoder_used, encoder_of;  /* beside a decoder; encoder_of 0: there is none */
	const int16_t *encoder_layers; /* [encoder_used] */
	const char *rule, *reason;     /* explicit, budget, overload, default */
	const struct answer_change *changes;
	size_t n_changes;
};

/* A step-down, of the decoder where there are two stacks. */
struct answer_change {
	int at_token, used;
	const int16_t *layers;
};

/* The "timings" object; milliseconds; absent where negative. */
struct answer_timings {
	double queue_ms, prefill_ms, decode_ms, total_ms;
	double predicted_ms, budget_ms;
	int predicted_tokens; /* 0: absent */
	int budget_met;       /* -1 absent, 0, 1 */
};

struct answer_usage {
	int64_t prompt_tokens, completion_tokens, cached_tokens;
	int64_t accepted_tokens, rejected_tokens; /* of those that were drafted */
};

struct answer_top {
	int32_t token;
	float logprob;
};

/* One token with its log-probability; `bytes` is its text. */
struct answer_token {
	int32_t token;
	const char *bytes;
	size_t len;
	bool has_logprob; /* false: null (first prompt token) */
	float logprob;    /* minus infinity is written as -9999.0 */
	const struct answer_top *
	                top; /* the chosen token is always written too, with the identical number */
	int n_top;
	size_t text_offset; /* characters (code points) before this token in the choice's text */
};

/* Where token texts come from while writing. */
struct answer_vocab {
	const void *context;
	const char *(*bytes)(const void *context, int32_t token, size_t *ret_len);
};

struct answer_choice {
	int index;
	const char *text; /* the whole text, or, in a chunk, the new piece; well-formed UTF-8 */
	size_t text_len;
	const struct answer_token *tokens; /* with logprobs: the tokens of this text (piece) */
	size_t n_tokens;
	bool logprobs;
	const int32_t *token_ids; /* return_token_ids; NULL: not asked for */
	size_t n_token_ids;
	const char *finish_reason; /* "stop", "length" or NULL */
	const char *finish_detail; /* "deadline", "budget" or NULL */
	const char *stop_reason;   /* the stop string that ended it, or NULL */
	bool has_score;            /* a hypothesis of a beam search */
	double score;
	bool first; /* first chunk of this choice (chat: carries the role) */
};

struct answer {
	enum request_kind kind; /* COMPLETION or CHAT */
	const char *id;         /* "cmpl-..." or "chatcmpl-..." */
	const char *model;
	int64_t created; /* seconds since the epoch */
	const struct answer_choice *choices;
	size_t n_choices;
	const struct answer_usage *usage;     /* NULL: absent */
	const struct answer_depth *depth;     /* NULL: absent */
	const struct answer_timings *timings; /* NULL: absent */
	const char *const *warnings;
	size_t n_warnings;
	const struct answer_vocab *vocab;
};

/* The whole body of an answer that is not streamed. */
void answer_write(struct buffer *b, const struct answer *a);
/* One SSE event "data: {...}\n\n" of a stream. */
void answer_write_chunk(struct buffer *b, const struct answer *a);
void answer_write_done(struct buffer *b); /* data: [DONE] */
void answer_write_ping(struct buffer *b); /* : ping */
void answer_write_error_event(struct buffer *b, const struct error *e, const char *request_id);

/* What the answers of the other routes have in common. */
struct answer_meta {
	const char *id, *model;
	int64_t created;
	const struct answer_usage *usage;     /* NULL: absent */
	const struct answer_depth *depth;     /* NULL: absent */
	const struct answer_timings *timings; /* NULL: absent */
	const char *const *warnings;
	size_t n_warnings;
};

struct answer_score {
	const struct answer_token *tokens;
	size_t n_tokens;
};
/* /v1/loglikelihood */
void answer_write_loglikelihood(struct buffer *b, const struct answer_meta *meta,
                const struct answer_score *scores, size_t n_scores);

/* /v1/embeddings, written in pieces because it can be long: open, one `put` for each text, close. */
void answer_open_embeddings(struct buffer *b, const struct answer_meta *meta);
void answer_put_embedding(struct buffer *b, size_t index, const float *values, size_t n,
                enum encoding_format format);
void answer_close_embeddings(struct buffer *b, const struct answer_meta *meta);

/*
 * /classify. Probabilities are the softmax of the raw scores in double precision; of a head with
 * one class, its logistic function.
 */
struct answer_classifier {
	const char *head;
	const char *const *labels; /* [classes] */
	int classes;
	bool logits; /* list the raw scores too */
};
void answer_write_classes(struct buffer *b, const struct answer_meta *meta,
                const struct answer_classifier *classifier, const float *const *scores, size_t n);

/* A token for a mask, and the text with it in the mask's place. */
struct answer_fill {
	int32_t token;
	const char *bytes;
	size_t len;
	float logprob;
	const char *text;
	size_t text_len;
};
/* One mask of one text. */
struct answer_mask {
	size_t index;                    /* of the text */
	int position;                    /* of the token */
	const struct answer_fill *fills; /* [n] best first */
	size_t n;
};
/* /fill-mask */
void answer_write_fills(struct buffer *b, const struct answer_meta *meta,
                const struct answer_mask *masks, size_t n);

/*
 * /tokenize; `strs` is NULL or one text per token. An input list gives a list of such objects under
 * "results".
 */
struct answer_tokenized {
	const int32_t *tokens;
	size_t n_tokens;
};
void answer_write_tokenize(struct buffer *b, const struct answer_tokenized *items, size_t n_items,
                bool list, int max_model_len, bool token_strs, const struct answer_vocab *vocab);
void answer_write_detokenize(struct buffer *b, const char *text, size_t len);

void answer_write_depth(struct buffer *b, const struct answer_depth *depth); /* the object alone */
void answer_write_timings(struct buffer *b, const struct answer_timings *timings);

/* "bytes:\xNN" keys for torn bytes, else the text itself. Appends a JSON string. */
void answer_write_token_text(struct buffer *b, const char *bytes, size_t len);

#endif
