/* SPDX-License-Identifier: Apache-2.0 */
/* The table of options, and setting one of them from text. */
#include "config/options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(struct config, field)
#define WIDTH(field) sizeof(((struct config *)0)->field)

#define TEXT(section, name, field, preset, meaning)                                                \
	{ section, name, OPTION_STRING, AT(field), 0, 0, preset, 0, 0, NULL, meaning }
#define WORD(section, name, field, preset, choices, meaning)                                       \
	{ section, name, OPTION_WORD, AT(field), 0, WIDTH(field), preset, 0, 0, choices, meaning }
#define INT(section, name, field, preset, least, most, meaning)                                    \
	{ section, name, OPTION_INT, AT(field), 0, 0, preset, least, most, NULL, meaning }
#define BYTES(section, name, field, preset, least, most, meaning)                                  \
	{ section, name, OPTION_BYTES, AT(field), 0, 0, preset, least, most, NULL, meaning }
#define MS(section, name, field, preset, least, most, meaning)                                     \
	{ section, name, OPTION_MS, AT(field), 0, 0, preset, least, most, NULL, meaning }
#define FLAG(section, name, field, preset, meaning)                                                \
	{ section, name, OPTION_BOOL, AT(field), 0, 0, preset, 0, 1, NULL, meaning }
#define LIST(section, name, field, count, most, meaning)                                           \
	{ section, name, OPTION_LIST, AT(field), AT(count), most, NULL, 0, 0, NULL, meaning }

#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static const char model[] = "Model", depth[] = "Depth", network[] = "Network", access_[] = "Access",
                  limits[] = "Limits", life[] = "Life and logs";

const struct option option_table[] = {
	TEXT(model, "model", model, NULL,
	                "model folder (config.json, model.safetensors, tokenizer); without it the "
	                "bundled demo"),
	LIST(model, "served-model-name", served_model_names, n_served_model_names, CONFIG_NAMES,
	                "name that clients use; may be repeated; default: the folder's name"),
	WORD(model, "kernels", kernels, "auto", "auto|native|blas",
	                "kernels of our own, or OpenBLAS (portable; answers within tolerance "
	                "only)"),
	WORD(model, "cpu-level", cpu_level, "auto", "auto|c|avx2|avx512|avx512-vnni|avx512-bf16",
	                "highest instruction set to use"),
	INT(model, "threads", threads, "0", 0, 1024,
	                "compute threads; 0: physical cores in the affinity mask, at most the "
	                "cgroup's "
	                "CPU quota"),
	WORD(model, "pin", pin, "off", NULL,
	                "hold compute threads on processors: off, auto (one on each physical core "
	                "of the "
	                "affinity mask), or a list such as 0-3,8; for machines that nothing else "
	                "uses"),
	WORD(model, "weights", weights, "auto", "auto|f32|bf16|int8|int4",
	                "how the matrices of layers and vocabulary are kept; auto: as the "
	                "checkpoint "
	                "has them (f16 becomes f32)"),
	WORD(model, "kv", kv, "auto", "auto|f32|bf16",
	                "how cached keys and values are kept; auto: f32 with f32 weights, else "
	                "bf16"),
	WORD(model, "packed-cache", packed_cache, "auto", "auto|read|off",
	                "packed weights and measured costs kept in the model folder, which make "
	                "the "
	                "next start quick; auto: used, and written where the folder can be "
	                "written; "
	                "read: used only"),
	FLAG(model, "verify", verify, "false",
	                "hash all of the packed weights before they are used"),
	BYTES(model, "kv-bytes", kv_bytes, "0", 0, INT64_C(1) << 50,
	                "size limit of the KV pool; 0: a quarter of the memory left after the "
	                "weights, but no more than --max-running texts of full length need"),
	INT(model, "max-rows", max_rows, "512", 1, 8192, "most tokens in one step"),
	INT(model, "prefill-rows", prefill_rows, "128", 1, 8192,
	                "most prompt tokens in a step that also continues running answers"),
	MS(model, "max-itl", max_itl_ms, "200ms", 0, 600000,
	                "longest time between two tokens of a running answer that prompts may "
	                "cause: while answers run, steps take only as many prompt tokens as fit; "
	                "the source of an encoder-decoder enters a step whole, and makes that one "
	                "as long as it needs; 0: no bound"),
	INT(model, "prefix-cache", prefix_cache, "50", 0, 100,
	                "share of the KV pool, in percent, that may keep the beginnings of earlier "
	                "prompts and answers, while nothing else needs it; 0: none"),
	WORD(model, "prefix-cache-scope", prefix_cache_scope, "key", "key|shared",
	                "whose prompts are served from it: those of the same API key, or of all "
	                "(then response times tell a client whether another has sent the same)"),
	INT(model, "max-running", max_running, "64", 1, 4096, "most sequences that run at once"),

	WORD(depth, "default-depth", default_depth, "full", NULL,
	                "depth of a request that names none: full, auto, a number, or a tier"),
	WORD(depth, "plan-rule", plan_rule, "", "|even|ends|prefix|tuned",
	                "how a depth becomes layers; empty: the model folder's own rule, else "
	                "even"),
	WORD(depth, "speculative", speculative, "off", "off|on|never",
	                "whether shallower plans draft for requests that do not say; texts are the "
	                "same; never: for no request"),
	INT(depth, "draft-tokens", draft_tokens, "12", 1, 32,
	                "most tokens drafted at a time where a request does not say"),
	{ depth, "tiers", OPTION_TIERS, AT(tiers), AT(n_tiers), CONFIG_TIERS, NULL, 0, 0, NULL,
	                "named depths, as a number of layers (of an encoder-decoder the decoder's) "
	                "or "
	                "a fraction of them (0.25, of both stacks); fast, balanced and full are "
	                "always there" },
	INT(depth, "default-max-tokens", default_max_tokens, "128", 1, 1000000,
	                "tokens generated where neither the request nor the model folder says"),
	INT(depth, "default-target-tokens", default_target_tokens, "200", 1, 1000000,
	                "the same for encoder-decoder checkpoints"),
	WORD(depth, "chat-template", chat_template, "auto", "auto|none|plain",
	                "plain: join chat messages for a model that is not tuned for chat; auto: "
	                "plain "
	                "for the bundled demo only"),
	INT(depth, "overload-min-depth", overload_min_depth, "0", 0, 256,
	                "shallowest depth that overload may give to requests with depth auto; 0: "
	                "1"),
	INT(depth, "overload-max-depth", overload_max_depth, "0", 0, 256,
	                "deepest depth of requests with depth auto and no budget; 0: all layers"),
	MS(depth, "overload-backlog", overload_backlog_ms, "1s", 0, 3600000,
	                "so much work without a budget that can be kept may wait; beyond it "
	                "requests "
	                "whose budget is lost are refused"),

	WORD(network, "host", host, "127.0.0.1", NULL, "address to listen on"),
	INT(network, "port", port, "8080", 0, 65535, "port to listen on; 0: a free one"),
	WORD(network, "admin-host", admin_host, "127.0.0.1", NULL, "address of the admin listener"),
	INT(network, "admin-port", admin_port, "-1", -1, 65535,
	                "port of the admin listener (probes, metrics, /drain, /reload); -1: none; "
	                "0: a "
	                "free one"),
	WORD(network, "half-close", half_close, "leave", "leave|stay",
	                "a client that shuts down its sending side has left, or stays"),

	TEXT(access_, "api-key-file", api_key_file, NULL,
	                "one key of 8 or more characters per line: KEY [name=LABEL] "
	                "[rate=N/s|N/min] [priority=P, the most urgent that it may ask for]"),
	LIST(access_, "cors-origin", cors_origins, n_cors_origins, CONFIG_ORIGINS,
	                "origin that browsers may call from; may be repeated"),
	FLAG(access_, "metrics-public", metrics_public, "false",
	                "/metrics needs no key on the main listener either"),
	FLAG(access_, "page", page, "true", "serve the page at /"),

	BYTES(limits, "body-bytes", body_bytes, "1M", KIB, GIB, "largest request body"),
	BYTES(limits, "header-bytes", header_bytes, "32K", 4 * KIB, MIB,
	                "memory of one connection's headers"),
	MS(limits, "header-timeout", header_timeout_ms, "10s", 100, 3600000,
	                "from the connection or the last answer's next byte to the end of the "
	                "headers"),
	MS(limits, "body-timeout", body_timeout_ms, "30s", 100, 3600000,
	                "from the headers to the end of the body"),
	MS(limits, "idle-timeout", idle_timeout_ms, "75s", 100, 86400000,
	                "idle time of a kept connection"),
	MS(limits, "ping", ping_ms, "15s", 100, 3600000, "silence on a stream before a ping"),
	INT(limits, "connections", connections, "0", 0, 1000000,
	                "most connections; 0: the smaller of 1024 and the open-files limit less "
	                "64"),
	INT(limits, "queue-requests", queue_requests, "256", 1, 1000000, "most requests waiting"),
	BYTES(limits, "queue-tokens", queue_tokens, "1M", 1, INT64_C(1) << 40,
	                "most tokens (prompt and answer) waiting"),
	INT(limits, "prompts", prompts, "32", 1, 2048, "prompts in one request"),
	INT(limits, "inputs", inputs, "2048", 1, 65536,
	                "texts in one request to /v1/embeddings or /classify"),
	INT(limits, "n", n, "8", 1, 128, "choices per prompt"),
	INT(limits, "best-of", best_of, "8", 1, 128, "candidates per prompt"),
	INT(limits, "beams", beams, "16", 1, 16, "most beams of a search"),
	INT(limits, "stops", stops, "16", 1, 256, "stop strings"),
	INT(limits, "stop-bytes", stop_bytes, "256", 1, 4096, "bytes of one stop string"),
	INT(limits, "logit-bias", logit_bias, "300", 0, 100000, "entries of logit_bias"),
	INT(limits, "top-logprobs", top_logprobs, "20", 0, 1000, "alternatives per token"),
	INT(limits, "logprob-entries", logprob_entries, "200000", 1000, 100000000,
	                "log-probabilities in one answer, alternatives included"),
	INT(limits, "embedding-values", embedding_values, "4194304", 1, 1000000000,
	                "numbers in one answer of /v1/embeddings"),
	INT(limits, "fill-top-k", fill_top_k, "100", 1, 1000, "tokens for each mask"),
	INT(limits, "json-depth", json_depth, "64", 4, 1000, "nesting of a JSON body"),
	INT(limits, "json-values", json_values, "100000", 100, 10000000, "values in a JSON body"),
	MS(limits, "max-deadline", max_deadline_ms, "600s", 1, 86400000, "longest deadline_ms"),
	INT(limits, "overload-status", overload_status, "503", 429, 503,
	                "status of a refusal for load: 503 or 429"),
	MS(limits, "retry-after", retry_after_ms, "1s", 1, 3600000, "shortest Retry-After"),

	MS(life, "drain-delay", drain_delay_ms, "0ms", 0, 3600000,
	                "on SIGTERM: serve this long with /readyz 503 before new requests are "
	                "refused"),
	MS(life, "drain-timeout", drain_timeout_ms, "60s", 0, 86400000,
	                "then wait this long for running answers"),
	WORD(life, "log-level", log_level, "info", "debug|info|warn|error", "least level logged"),
	WORD(life, "log-format", log_format, "json", "json|text", "form of a log line"),
};

const size_t option_count = sizeof option_table / sizeof option_table[0];

static bool fail(char *err, size_t errlen, const char *format, ...)
                __attribute__((format(printf, 3, 4)));

static bool fail(char *err, size_t errlen, const char *format, ...) {
	va_list args;
	va_start(args, format);
	vsnprintf(err, errlen, format, args);
	va_end(args);
	return false;
}

const struct option *option_find(const char *name, size_t len) {
	for (size_t i = 0; i < option_count; i++) {
		const char *candidate = option_table[i].name;
		if (strlen(candidate) != len)
			continue;
		size_t j = 0;
		while (j < len
		                && (name[j] == candidate[j]
		                                || (name[j] == '_' && candidate[j] == '-')))
			j++;
		if (j == len)
			return &option_table[i];
	}
	return NULL;
}

/*
 * Reads "12", "4K" or "1.5G" (bytes), "250ms", "10s" or "2min" (times); the unit's factor is in
 * `units`.
 */
struct unit {
	const char *suffix;
	double factor;
};

static const struct unit byte_units[] = { { "", 1 }, { "K", 1024 }, { "M", 1048576 },
	{ "G", 1073741824 }, { "KiB", 1024 }, { "MiB", 1048576 }, { "GiB", 1073741824 },
	{ NULL, 0 } };
static const struct unit time_units[] = { { "", 1 }, { "ms", 1 }, { "s", 1000 }, { "min", 60000 },
	{ NULL, 0 } };
static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };

static bool parse_number(const struct option *option, const char *text, int64_t *ret_value,
                const char *source, char *err, size_t errlen) {
	const struct unit *units = option->type == OPTION_BYTES ? byte_units
	                : option->type == OPTION_MS             ? time_units
	                                                        : no_units;
	char *end;
	errno = 0;
	double value = strtod(text, &end);
	const struct unit *unit = units;
	while (unit->suffix && strcmp(unit->suffix, end) != 0)
		unit++;
	if (end == text || errno || !unit->suffix || !isfinite(value) || value * unit->factor > 9e15
	                || value * unit->factor < -9e15)
		return fail(err, errlen, "%s: \"%s\" is not a %s", source, text,
		                option->type == OPTION_BYTES ? "size (such as 65536, 64K or 2G)"
		                                : option->type == OPTION_MS
		                                ? "time (such as 250ms, 10s or 2min)"
		                                : "whole number");
	value *= unit->factor;
	if (value != floor(value))
		return fail(err, errlen, "%s: \"%s\" is not a whole number", source, text);
	if (value < (double)option->least || value > (double)option->most)
		return fail(err, errlen, "%s: %s is out of range, allowed is %lld to %lld", source,
		                text, (long long)option->least, (long long)option->most);
	*ret_value = (int64_t)value;
	return true;
}

static bool set_word(const struct option *option, char *field, const char *text, const char *source,
                char *err, size_t errlen) {
	size_t len = strlen(text);
	if (len >= option->width)
		return fail(err, errlen, "%s: the value is longer than %zu bytes", source,
		                option->width - 1);
	if (option->choices) {
		const char *at = option->choices;
		for (;;) {
			size_t n = strcspn(at, "|");
			if (n == len && memcmp(at, text, n) == 0)
				break;
			if (!at[n])
				return fail(err, errlen, "%s: \"%s\" is not one of %s", source,
				                text,
				                option->choices + strspn(option->choices, "|"));
			at += n + 1;
		}
	}
	memcpy(field, text, len + 1);
	return true;
}

static bool set_bool(bool *field, const char *text, const char *source, char *err, size_t errlen) {
	if (strcmp(text, "true") == 0 || strcmp(text, "1") == 0 || strcmp(text, "yes") == 0)
		*field = true;
	else if (strcmp(text, "false") == 0 || strcmp(text, "0") == 0 || strcmp(text, "no") == 0)
		*field = false;
	else
		return fail(err, errlen, "%s: \"%s\" is not true or false", source, text);
	return true;
}

static bool add_to_list(const struct option *option, struct config *config, const char *text,
                const char *source, char *err, size_t errlen) {
	char **list = (char **)((char *)config + option->offset);
	int *count = (int *)((char *)config + option->count_offset);
	if (!*text)
		return fail(err, errlen, "%s: the value is empty", source);
	if ((size_t)*count == option->width)
		return fail(err, errlen, "%s: more than %zu values", source, option->width);
	list[*count] = strdup(text);
	if (!list[*count])
		return fail(err, errlen, "out of memory");
	++*count;
	return true;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

/* Clients write a tier as `depth` or after NAME@, where "auto" and numbers mean something else. */
static bool is_tier_name(const char *name) {
	return *name && strchr(LETTERS, *name) && !name[strspn(name, LETTERS "0123456789._-")]
	                && strcmp(name, "auto") != 0;
}

static bool add_tier(struct config *config, const char *text, const char *source, char *err,
                size_t errlen) {
	const char *equals = strchr(text, '=');
	struct config_tier tier = { 0 };
	if (!equals || equals == text || (size_t)(equals - text) >= sizeof tier.name)
		return fail(err, errlen, "%s: \"%s\" is not NAME=DEPTH", source, text);
	memcpy(tier.name, text, (size_t)(equals - text));
	if (!is_tier_name(tier.name))
		return fail(err, errlen,
		                "%s: the name of tier \"%s\" must begin with a letter, hold only "
		                "letters, digits, \".\", \"_\" and \"-\", and not be auto",
		                source, tier.name);
	char *end;
	double value = strtod(equals + 1, &end);
	if (end == equals + 1 || *end || !isfinite(value) || value <= 0 || value > 256
	                || (value >= 1 && value != floor(value)))
		return fail(err, errlen,
		                "%s: the depth of tier \"%s\" is neither a number of layers nor a "
		                "fraction "
		                "between 0 and 1",
		                source, tier.name);
	if (value < 1 || strchr(equals + 1, '.'))
		tier.fraction = value;
	else
		tier.depth = (int)value;
	if (tier.fraction > 1)
		return fail(err, errlen, "%s: tier \"%s\" is a fraction above 1", source,
		                tier.name);
	int i = 0;
	while (i < config->n_tiers && strcmp(config->tiers[i].name, tier.name) != 0)
		i++;
	if (i == CONFIG_TIERS)
		return fail(err, errlen, "%s: more than %d tiers", source, CONFIG_TIERS);
	config->tiers[i] = tier;
	if (i == config->n_tiers)
		config->n_tiers++;
	return true;
}

bool option_set(const struct option *option, struct config *config, const char *text,
                const char *source, char *err, size_t errlen) {
	char *field = (char *)config + option->offset;
	int64_t value;
	switch (option->type) {
	case OPTION_STRING: {
		char *copy = strdup(text);
		if (!copy)
			return fail(err, errlen, "out of memory");
		free(*(char **)field);
		*(char **)field = copy;
		return true;
	}
	case OPTION_WORD:
		return set_word(option, field, text, source, err, errlen);
	case OPTION_BOOL:
		return set_bool((bool *)field, text, source, err, errlen);
	case OPTION_LIST:
		return add_to_list(option, config, text, source, err, errlen);
	case OPTION_TIERS:
		return add_tier(config, text, source, err, errlen);
	case OPTION_INT:
	case OPTION_MS:
		if (!parse_number(option, text, &value, source, err, errlen))
			return false;
		*(int *)field = (int)value;
		return true;
	case OPTION_BYTES:
		return parse_number(option, text, (int64_t *)field, source, err, errlen);
	}
	return fail(err, errlen, "%s: unknown type", source);
}

void option_clear(const struct option *option, struct config *config) {
	int *count = (int *)((char *)config + option->count_offset);
	if (option->type == OPTION_LIST) {
		char **list = (char **)((char *)config + option->offset);
		for (int i = 0; i < *count; i++)
			free(list[i]);
		*count = 0;
	} else if (option->type == OPTION_TIERS) {
		*count = 3; /* the predefined ones stay, and may be redefined */
	}
}
