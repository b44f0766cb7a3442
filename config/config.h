/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: defaults, then the file (JSON), then the environment (FATHOM_...), then flags
 * become one plain struct.
 *
 * There is one table of options (options.c): it parses, checks ranges, writes `fathom serve --help`
 * and the reference in the docs. An unknown key, a wrong type or a value out of range is an error
 * that names source, key, value and reason.
 */
#ifndef FATHOM_CONFIG_CONFIG_H
#define FATHOM_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { CONFIG_NAMES = 16, CONFIG_TIERS = 32, CONFIG_ORIGINS = 16 };

/*
 * A named depth: either a fraction of the layers (0 < fraction <= 1, rounded up) or a number of
 * layers.
 */
struct config_tier {
	char name[64];
	double fraction; /* 0: `depth` counts */
	int depth;
};

struct config {
	/* model */
	char *model; /* folder; NULL: the bundled demo */
	char *served_model_names[CONFIG_NAMES];
	int n_served_model_names; /* 0: the model folder's name */
	char kernels[16];         /* auto | native | blas */
	char cpu_level[16];       /* auto | c | avx2 | avx512 | avx512-vnni | avx512-bf16 */
	int threads;              /* 0: from affinity mask and cgroup quota */
	char pin[256];            /* off | auto | processors: "0-3,8" */
	char weights[16];         /* auto | f32 | bf16 | int8 | int4 */
	char kv[16];              /* auto | f32 | bf16 */
	char packed_cache[16];    /* auto | read | off */
	bool verify;              /* hash the packed file before it is used */
	int64_t kv_bytes;         /* 0: a quarter of the memory left after the weights */
	int max_rows;             /* rows of a step */
	int prefill_rows;         /* most prompt rows in a step that also decodes */
	int max_itl_ms;           /* of a step that continues answers; 0: no bound */
	int max_running;          /* sequences at once */
	int prefix_cache; /* most of the KV pool that cached prompts may hold, percent; 0: none */
	char prefix_cache_scope[16]; /* key | shared */

	/* depth */
	char default_depth[64]; /* "full", a number or a tier */
	char speculative[8];    /* off | on | never */
	int draft_tokens;
	char plan_rule[16]; /* "": the model folder's own */
	struct config_tier tiers[CONFIG_TIERS];
	int n_tiers; /* fast, balanced and full are always there */
	int default_max_tokens;
	int default_target_tokens; /* the same for encoder-decoders */
	char chat_template[16];    /* auto (plain for the demo) | none | plain */
	int overload_min_depth;    /* floor for `auto` under overload; 0: 1 */
	int overload_max_depth;    /* where `auto` without a budget begins; 0: all layers */
	int overload_backlog_ms; /* of work that no budget holds, before lost budgets are refused */

	/* listening */
	char host[256];
	int port; /* 0: a free one */
	char admin_host[256];
	int admin_port; /* -1: none; 0: a free one */
	char *api_key_file;
	char *cors_origins[CONFIG_ORIGINS];
	int n_cors_origins;
	bool metrics_public, page;
	char half_close[16]; /* "leave": a half-closed connection has left; "stay" */

	/* limits */
	int64_t body_bytes, header_bytes;
	int header_timeout_ms, body_timeout_ms, idle_timeout_ms, ping_ms;
	int connections; /* 0: min(1024, RLIMIT_NOFILE - 64) */
	int queue_requests;
	int64_t queue_tokens;
	int prompts, inputs, n, best_of, beams, stops, stop_bytes, logit_bias, top_logprobs,
	                logprob_entries, embedding_values, fill_top_k, json_depth, json_values;
	int max_deadline_ms;
	int overload_status; /* 503 or 429 */
	int retry_after_ms;  /* smallest Retry-After */

	/* life */
	int drain_delay_ms, drain_timeout_ms;
	char log_level[16];  /* debug | info | warn | error */
	char log_format[16]; /* json | text */
};

/*
 * Fills `ret_config` from all sources. `argv` are the flags after the subcommand (`--name value`,
 * `--name=value`, `--flag`); `environ_` is NULL-terminated "NAME=value". `ret_ignored` (may be
 * NULL) gets one line naming ignored variables that Kubernetes injects for services called fathom
 * or fathom-NAME (FATHOM_PORT=tcp://..., FATHOM_PORT_*, FATHOM_SERVICE_*, ...), "" if none.
 * `*ret_help` is set if --help was asked for. Free with config_finish also after a failure.
 */
bool config_load(struct config *ret_config, int argc, char **argv, char **environ_, bool *ret_help,
                char *ret_ignored, size_t ignored_len, char *err, size_t errlen);
void config_finish(struct config *config);

/*
 * Prints every option with default, range, environment variable and meaning. `markdown` for the
 * docs.
 */
void config_help(FILE *out, bool markdown);

/* Prints the effective configuration as JSON (secrets are file names only). */
void config_dump(const struct config *config, FILE *out);

#endif
