/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests: a JSON body becomes a plain struct. All values are checked here against the limits, for
 * type and range; what needs the model (depth against N, tokens against the context) is the
 * server's to check. No jansson value outlives the parser.
 */
#ifndef FATHOM_PROTO_REQUEST_H
#define FATHOM_PROTO_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"
#include "proto/error.h"

enum request_kind {
	REQUEST_COMPLETION,
	REQUEST_CHAT,
	REQUEST_LOGLIKELIHOOD,
	REQUEST_EMBEDDING,
	REQUEST_CLASSIFY,
	REQUEST_FILL_MASK,
	REQUEST_TOKENIZE,
	REQUEST_DETOKENIZE,
};
enum { REQUEST_KINDS = REQUEST_DETOKENIZE + 1 };

/* Everything a client can grow, with its bound. Filled from config. */
struct request_limits {
	size_t body_bytes;              /* 1 MiB */
	int json_depth;                 /* 64 */
	int json_values;                /* 100,000 */
	int prompts;                    /* 32 */
	int inputs;                     /* 2,048: texts of embeddings and classify */
	int n, best_of;                 /* 8 */
	int beams;                      /* 16 */
	int stops;                      /* 16 */
	int stop_bytes;                 /* 256 each */
	int logit_bias;                 /* 300 */
	int top_logprobs;               /* 20; legacy completions `logprobs` too */
	int fill_top_k;                 /* 100: tokens for each mask */
	int max_tokens;                 /* absolute bound: 1,000,000 */
	double deadline_ms;             /* 600,000 */
	int priority_min, priority_max; /* clamped to */
};

enum depth_kind { DEPTH_UNSET, DEPTH_NUMBER, DEPTH_FULL, DEPTH_AUTO, DEPTH_NAME };

/* `depth`: a number, "full", "auto", the name of a tier, or a pair. */
struct depth_spec {
	enum depth_kind kind;
	int64_t decoder, encoder; /* NUMBER; encoder 0: not given */
	char name[64];            /* NAME */
};

/* A text, two that belong together, or a list of token ids. */
struct input {
	char *text; /* NULL: tokens; NUL-terminated but may hold NULs */
	size_t text_len;
	char *pair; /* the second text; NULL: none */
	size_t pair_len;
	int32_t *tokens;
	size_t n_tokens;
};

struct message {
	char *role, *content;
	size_t content_len;
};

enum on_miss { ON_MISS_DEGRADE, ON_MISS_REJECT, ON_MISS_TRUNCATE };

enum encoding_format { ENCODING_FLOAT, ENCODING_BASE64 };

struct bias_entry {
	int32_t token;
	float bias;
};

/* An optional number: `set` false means the client did not say. */
struct opt_f64 {
	bool set;
	double value;
};
struct opt_i64 {
	bool set;
	int64_t value;
};

enum { REQUEST_SALT = 128, REQUEST_DRAFT_TOKENS = 32 };

/* `speculative`: whether a shallower plan may draft what the requested one verifies. */
struct speculative_spec {
	enum { SPECULATIVE_UNSET, SPECULATIVE_OFF, SPECULATIVE_ON } kind;
	int64_t draft_depth;  /* 0: the server chooses */
	int64_t draft_tokens; /* at most so many at a time; 0: the server chooses */
};

struct request {
	enum request_kind kind;
	char *model; /* NULL: not given */

	struct input *inputs; /* prompts, sources, or texts of the other routes */
	size_t n_inputs;
	bool inputs_were_list; /* a batch was sent (even of one) */
	struct input *targets; /* loglikelihood of pairs: [n_targets], as many as inputs; else NULL */
	size_t n_targets;
	bool pretokenized;        /* texts are words between spaces already */
	struct message *messages; /* chat */
	size_t n_messages;

	/* depth and time */
	struct depth_spec depth;
	int64_t *layers, *encoder_layers; /* explicit plan; NULL: none */
	size_t n_layers, n_encoder_layers;
	bool has_layers;
	char plan_rule[16];                           /* "": unset */
	int64_t min_depth, max_depth;                 /* 0: unset */
	int64_t encoder_min_depth, encoder_max_depth; /* 0: unset; of {"encoder", "decoder"} */
	bool allow_step_down;
	double latency_budget_ms, ttft_budget_ms, tpot_budget_ms, deadline_ms; /* 0: unset */
	bool deadline_expired; /* a header said <= 0 */
	enum on_miss on_miss;
	int64_t expected_tokens; /* 0: unset */
	int priority;
	bool priority_set;
	bool cache_prompt;
	const char *cache_salt; /* 1 to REQUEST_SALT bytes; NULL: none */

	/* generation */
	struct opt_i64 max_tokens; /* max_tokens or max_completion_tokens */
	struct opt_f64 temperature, top_p, repetition_penalty, presence_penalty, frequency_penalty;
	struct opt_i64 top_k, seed;
	int64_t min_tokens;
	bool ignore_eos, echo, stream, include_usage, return_token_ids;
	int n, best_of;
	struct opt_i64 num_beams;
	struct speculative_spec speculative;
	struct opt_f64 length_penalty;
	int logprobs; /* -1: none; else the number of alternatives (0 allowed) */
	char **stops;
	size_t *stop_lens;
	size_t n_stops;
	struct bias_entry *logit_bias;
	size_t n_logit_bias;
	char *user; /* kept for logs only; NULL */

	/* encoders */
	enum encoding_format encoding_format;
	struct opt_i64 dimensions;
	char pooling[16]; /* "cls", "mean"; "": unset */
	bool normalize;   /* default true */
	bool truncate;
	bool return_logits;
	char *head;     /* NULL: not given */
	int fill_top_k; /* default 5 */

	/* tokenize / detokenize */
	bool add_special_tokens; /* default true */
	bool return_token_strs;
	char side[16]; /* "source", "target"; "": unset */

	/* unknown fields that were ignored, for `warnings` */
	char **unknown;
	size_t n_unknown;

	void *arena; /* owns all memory above */
};

/*
 * Parses a body. On failure false with `error` filled (invalid_json with line and column, or the
 * field's name), and nothing to free. On success free with request_finish.
 */
bool request_parse(enum request_kind kind, const char *body, size_t len,
                const struct request_limits *limits, struct request *ret_request,
                struct error *ret_error);
void request_finish(struct request *r);

/*
 * The route a /v1/plan body names ("route", default "/v1/completions") as a kind; other fields are
 * parsed as that kind.
 */
bool request_parse_plan(const char *body, size_t len, const struct request_limits *limits,
                struct request *ret_request, struct error *ret_error);

/*
 * Time from one header (grpc-timeout, x-envoy-expected-rq-timeout-ms, Prefer: wait=N,
 * x-slo-ttft-ms, x-slo-tpot-ms, Priority): shortest wins, headers may only shorten, the less urgent
 * priority wins. Other names are ignored; an ill-formed value is ignored, except that a value <= 0
 * sets deadline_expired.
 */
void request_apply_header(struct request *r, const char *name, const char *value,
                const struct request_limits *limits);

#endif
