/* SPDX-License-Identifier: Apache-2.0 */
/* Probing a server, and writing the bodies of requests to it. */
#include "bench/client/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"

static const struct {
	const char *name, *path;
} endpoints[] = {
	[ENDPOINT_COMPLETIONS] = { "completions", "/v1/completions" },
	[ENDPOINT_CHAT] = { "chat", "/v1/chat/completions" },
	[ENDPOINT_EMBEDDINGS] = { "embeddings", "/v1/embeddings" },
	[ENDPOINT_CLASSIFY] = { "classify", "/classify" },
};

/* ---- probing --------------------------------------------------------------------------------- */

static bool read_endpoint(struct target *target, const char *name, char *err, size_t errlen) {
	for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
		if (strcmp(endpoints[i].name, name) == 0) {
			target->endpoint = (enum endpoint)i;
			return true;
		}
	}
	snprintf(err, errlen,
	                "there is no endpoint \"%.40s\": completions, chat, embeddings or classify",
	                name);
	return false;
}

static bool probe_model(struct target *target, struct client *client,
                const struct target_options *options, char *err, size_t errlen) {
	struct buffer body = { 0 };
	char why[256];
	int status;
	if (!client_fetch(client, "/v1/models", NULL, 0, &status, &body, why, sizeof why)) {
		snprintf(err, errlen,
		                "no server answers at %.200s (%s); start one with fathom "
		                "serve, or name another with --url",
		                options->url, why);
		buffer_finish(&body);
		return false;
	}
	struct doc *doc = status == 200
	                ? doc_parse(body.data ? body.data : "", body.len, "", why, sizeof why)
	                : NULL;
	const char *id = doc_as_string(doc_get(doc_at(doc_get(doc, "data"), 0), "id"), NULL);
	if (options->model)
		id = options->model;
	if (id)
		snprintf(target->model, sizeof target->model, "%s", id);
	doc_free(doc);
	buffer_finish(&body);
	if (status != 401 && status != 403)
		return true;
	snprintf(err, errlen, "the server at %.200s wants a key: --api-key KEY", options->url);
	return false;
}

/* {"encoder": 12, "decoder": 6} or 12. */
static void note_layers(struct target *target, const struct doc *layers) {
	int64_t n, e, d;
	if (doc_as_int(layers, &n))
		snprintf(target->layers, sizeof target->layers, "%lld", (long long)n);
	else if (doc_as_int(doc_get(layers, "encoder"), &e)
	                && doc_as_int(doc_get(layers, "decoder"), &d))
		snprintf(target->layers, sizeof target->layers,
		                "{\"encoder\":%lld,\"decoder\":%lld}", (long long)e, (long long)d);
}

/* A server that does not know the route is none of ours. */
static bool probe_depths(struct target *target, struct client *client, char *err, size_t errlen) {
	char ignored[64];
	int status;
	struct buffer *body = &target->depths;
	if (!client_fetch(client, "/v1/depths", NULL, 0, &status, body, err, errlen))
		return false;
	struct doc *doc = status == 200 ? doc_parse(body->data ? body->data : "", body->len, "",
	                                  ignored, sizeof ignored)
	                                : NULL;
	note_layers(target, doc_get(doc, "layers"));
	target->fathom = target->layers[0];
	if (!target->fathom)
		buffer_clear(body);
	doc_free(doc);
	return true;
}

bool target_probe(struct target *target, struct client *client,
                const struct target_options *options, char *err, size_t errlen) {
	*target = (struct target){ 0 };
	return read_endpoint(target, options->endpoint, err, errlen)
	                && probe_model(target, client, options, err, errlen)
	                && (options->plain || probe_depths(target, client, err, errlen));
}

void target_finish(struct target *target) {
	buffer_finish(&target->depths);
}

const char *target_route(const struct target *target) {
	return endpoints[target->endpoint].path;
}

/* Whether its answers are text: tokens can be counted, streamed and timed. */
static bool generates(const struct target *target) {
	return target->endpoint == ENDPOINT_COMPLETIONS || target->endpoint == ENDPOINT_CHAT;
}

bool target_streams(const struct target *target, const struct load_class *class) {
	return class->stream && generates(target);
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static void put_text(struct buffer *out, const char *name, const char *text) {
	buffer_printf(out, ",\"%s\":", name);
	buffer_json_string(out, text, strlen(text));
}

static void put_real(struct buffer *out, const char *name, double value) {
	if (value > 0) {
		buffer_printf(out, ",\"%s\":", name);
		buffer_json_f64(out, value);
	}
}

/* 6, {"encoder": 12, "decoder": 6}, or a name. */
static void put_depth(struct buffer *out, const char *name, const char *depth) {
	int encoder, decoder;
	if (!depth[0])
		return;
	if (!load_parse_depth(depth, &encoder, &decoder))
		put_text(out, name, depth);
	else if (encoder > 0)
		buffer_printf(out, ",\"%s\":{\"encoder\":%d,\"decoder\":%d}", name, encoder,
		                decoder);
	else
		buffer_printf(out, ",\"%s\":%d", name, decoder);
}

static void put_depth_and_time(
                struct buffer *out, const struct load_class *class, const struct load_request *r) {
	static const char *const misses[] = { "degrade", "reject", "truncate" };
	put_depth(out, "depth", r->depth);
	put_depth(out, "min_depth", class->min_depth);
	put_depth(out, "max_depth", class->max_depth);
	put_real(out, "latency_budget_ms", r->latency_budget_ms);
	put_real(out, "ttft_budget_ms", r->ttft_budget_ms);
	put_real(out, "tpot_budget_ms", r->tpot_budget_ms);
	put_real(out, "deadline_ms", r->deadline_ms);
	if (class->on_miss != ON_MISS_DEGRADE)
		put_text(out, "on_miss", misses[class->on_miss]);
	if (!class->allow_step_down)
		buffer_puts(out, ",\"allow_step_down\":false");
	if (r->priority != 0)
		buffer_printf(out, ",\"priority\":%d", r->priority);
}

static void put_generation(const struct target *target, struct buffer *out,
                const struct load_class *class, const struct load_request *r) {
	buffer_printf(out, ",\"max_tokens\":%d,\"temperature\":", r->max_tokens);
	buffer_json_f64(out, class->temperature);
	if (class->temperature > 0)
		buffer_printf(out, ",\"seed\":%u", (unsigned)(r->seed >> 33));
	if (class->ignore_eos)
		buffer_puts(out, ",\"ignore_eos\":true");
	if (class->num_beams > 0)
		buffer_printf(out, ",\"num_beams\":%d", class->num_beams);
	if (target_streams(target, class))
		buffer_puts(out, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
}

void target_write_body(const struct target *target, const struct load_class *class,
                const struct load_request *request, const struct buffer *prompt,
                struct buffer *out) {
	static const char *const fields[] = { [ENDPOINT_COMPLETIONS] = "\"prompt\":",
		[ENDPOINT_CHAT] = "\"messages\":[{\"role\":\"user\",\"content\":",
		[ENDPOINT_EMBEDDINGS] = "\"input\":",
		[ENDPOINT_CLASSIFY] = "\"input\":" };
	buffer_printf(out, "{%s", fields[target->endpoint]);
	buffer_append(out, prompt->data, prompt->len);
	if (target->endpoint == ENDPOINT_CHAT)
		buffer_puts(out, "}]");
	if (target->model[0])
		put_text(out, "model", target->model);
	if (target->endpoint == ENDPOINT_EMBEDDINGS)
		buffer_puts(out, ",\"encoding_format\":\"base64\"");
	if (generates(target))
		put_generation(target, out, class, request);
	if (target->fathom)
		put_depth_and_time(out, class, request);
	buffer_puts(out, "}");
}

/* ---- depths ---------------------------------------------------------------------------------- */

static bool name_of(const struct doc *depth, char name[LOAD_NAME]) {
	int64_t n, e;
	if (doc_as_int(depth, &n))
		snprintf(name, LOAD_NAME, "%lld", (long long)n);
	else if (doc_as_int(doc_get(depth, "encoder"), &e)
	                && doc_as_int(doc_get(depth, "decoder"), &n))
		snprintf(name, LOAD_NAME, "%lldx%lld", (long long)e, (long long)n);
	else
		return false;
	return true;
}

int target_depths(const struct target *target, char (**ret)[LOAD_NAME]) {
	char ignored[64];
	int n = 0;
	struct doc *doc = target->fathom ? doc_parse(target->depths.data, target->depths.len, "",
	                                  ignored, sizeof ignored)
	                                 : NULL;
	const struct doc *pairs = doc_get(doc, "pairs");
	const struct doc *list = pairs ? pairs : doc_get(doc, "depths");
	*ret = calloc(doc_count(list) + 1, sizeof **ret);
	for (size_t i = 0; *ret && i < doc_count(list); i++)
		n += name_of(doc_get(doc_at(list, i), "depth"), (*ret)[n]);
	doc_free(doc);
	return n;
}
