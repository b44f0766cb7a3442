/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run came to: an outcome for each request, and from them the numbers of the result, an
 * object in the format "fathom-bench-1". Times are milliseconds of the run; what a client had to
 * wait counts from when its request was meant to be sent, not from when it was.
 */
#ifndef FATHOM_BENCH_RESULT_H
#define FATHOM_BENCH_RESULT_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/load/load.h"
#include "bench/result/histogram.h"
#include "proto/buffer.h"

enum { OUTCOME_CODE = 40 };

struct outcome {
	struct load_request
	                request; /* arrival_ms: when it was meant to be sent, open loop or not */
	double sent_ms;
	double first_ms, last_ms; /* first and last token; 0: not seen */
	double end_ms;
	int status;              /* HTTP; 0: none came */
	char code[OUTCOME_CODE]; /* of an error; "": answered whole */
	bool cut;                /* ended by a deadline or a budget */
	int tokens, prompt_tokens;
	int pieces;         /* events with text */
	int encoder, depth; /* layers at its end; 0: not said */
	double mean_depth;  /* over its tokens */
	int changes;
	double queue_ms, predicted_ms, server_ms; /* the server's; < 0: not said */
	int server_met;                           /* -1: not said */
	bool counted;                             /* not of the warm-up */
	bool in_window;                           /* it ended in the time that rates are of */
};

/* A budget or a deadline. */
bool outcome_has_budget(const struct outcome *o);
bool outcome_is_answered(const struct outcome *o);
/* Refused because there was too much to do: 429 or 503. */
bool outcome_is_refused(const struct outcome *o);
/* Answered whole, and within all its budgets by the client's clock. */
bool outcome_is_met(const struct outcome *o);
double outcome_latency_ms(const struct outcome *o);
/* From when it was meant to be sent to its first token; NAN without one that could be seen. */
double outcome_ttft_ms(const struct outcome *o);
/* Time per further token; NAN with fewer than two. */
double outcome_tpot_ms(const struct outcome *o);
/* "6" or "12x6". */
void outcome_depth_name(const struct outcome *o, char *name, size_t size);

enum { RESULT_DEPTHS = 64, RESULT_CODES = 24, RESULT_STATUSES = 16 };

struct result_depth {
	char name[16];
	size_t requests;
	struct histogram latency, ttft, tpot;
};

/* A run in numbers. */
struct result {
	double seconds; /* of the window that rates are of */
	size_t requests, answered, refused, changed;
	size_t asked, met, server_met; /* budgets; server_met of those it says so of */
	struct result_code {
		char name[OUTCOME_CODE];
		size_t n;
	} codes[RESULT_CODES];
	int n_codes;
	struct {
		int status;
		size_t n;
	} statuses[RESULT_STATUSES];
	int n_statuses;
	double requests_per_s, tokens_per_s, goodput_per_s; /* goodput NAN: no budgets */
	double prompt_tokens, tokens;
	double mean_depth, mean_depth_by_tokens; /* NAN: not said */
	struct histogram latency, ttft, tpot, itl, queue, lag;
	struct histogram error, server_error; /* |took / predicted - 1|, by the two clocks */
	struct result_depth by_depth[RESULT_DEPTHS];
	int n_depths;
};

/* `seconds` is the window of rates; `itl`, gaps between tokens, is taken over and may be NULL. Finish it
 * with result_finish. */
void result_init(struct result *r, const struct outcome *outcomes, size_t n, double seconds,
                struct histogram *itl);
void result_finish(struct result *r);

/* What was varied between runs. */
struct result_parameter {
	const char *name;  /* "rate", "clients", "depth"; NULL: nothing */
	const char *value; /* as JSON: 40 or "6" */
};

/* One object of "runs". */
void result_write_run(struct buffer *out, const char *label,
                const struct result_parameter *parameters, int n_parameters, const struct result *r,
                const struct outcome *outcomes, size_t n);

struct result_head {
	const char *tool;        /* "fathom bench" */
	const char *started;     /* ISO 8601 */
	const char *url, *model; /* NULL: null */
	const char *depths;      /* the body of /v1/depths; NULL: null */
	const char *layers;      /* as JSON; NULL: null */
};

/* The whole object: the head, then result_write_run for each run with commas between, the end. */
void result_open(struct buffer *out, const struct result_head *head, const struct load *load);
void result_close(struct buffer *out);

/* A line for each request with what became of it. */
void result_write_csv(struct buffer *out, const struct load *load, const struct outcome *outcomes,
                size_t n);

#endif
