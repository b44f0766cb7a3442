/* SPDX-License-Identifier: Apache-2.0 */
/* Probes, metrics, and what only the admin listener has: draining and reloading. */
#include <stdio.h>
#include <string.h>

#include "model/doc.h"
#include "server/clock.h"
#include "server/handlers.h"
#include "server/memory.h"

enum { STALE_LOOP_MS = 10000, STALE_ENGINE_MS = 60000 };

/* {"status": "live"}, or with an error beside it. */
static void answer_probe(struct call *call, const char *status, const struct error *e) {
	struct buffer b = { 0 }, error = { 0 };
	struct fields fields = { .n = 0 };
	buffer_printf(&b, "{\"status\":\"%s\"", status);
	if (e) {
		call->error = *e;
		error_write(&error, e, call->request_id); /* {"error":...} */
		buffer_puts(&b, ",");
		buffer_append(&b, error.data + 1, error.len - 1);
		buffer_finish(&error);
		fields_add(&fields, "Retry-After", "1");
	} else {
		buffer_puts(&b, "}");
	}
	fields_add(&fields, "Cache-Control", "no-store");
	call_answer(call, e ? 503 : 200, &fields, &b);
}

/* Live: the loop and the engine have moved lately. Load does not matter. */
void handle_livez(struct call *call) {
	const struct server *server = call->server;
	int64_t now = clock_now_ns();
	struct error e = { .code = ERROR_NONE };
	if (clock_ms(now - server->heartbeat_ns) > STALE_LOOP_MS)
		error_set(&e, ERROR_INTERNAL, NULL, "The event loop is stuck.");
	if (server->current) {
		struct snapshot snapshot;
		engine_snapshot(server->current->engine, &snapshot);
		if (clock_ms(now - snapshot.heartbeat_ns) > STALE_ENGINE_MS)
			error_set(&e, ERROR_INTERNAL, NULL, "The engine is stuck in a step.");
	}
	answer_probe(call, e.code == ERROR_NONE ? "live" : "stuck",
	                e.code == ERROR_NONE ? NULL : &e);
}

/* Ready: loaded, warmed up, and not told to stop. */
void handle_readyz(struct call *call) {
	struct error e;
	if (call->server->life == LIFE_SERVING) {
		answer_probe(call, "ready", NULL);
	} else if (call->server->life == LIFE_LOADING) {
		error_set(&e, ERROR_MODEL_LOADING, NULL, "The model is still loading: %d %%.",
		                reload_percent(call->server));
		answer_probe(call, "loading", &e);
	} else {
		error_set(&e, ERROR_SHUTTING_DOWN, NULL, "The server is shutting down.");
		answer_probe(call, "draining", &e);
	}
}

static void add_gauges(const struct generation *generation, struct metrics_gauges *g,
                size_t *blocks, size_t *reserved) {
	struct snapshot s;
	engine_snapshot(generation->engine, &s);
	g->running += s.running;
	g->waiting += s.waiting;
	g->queue_tokens += s.queue_tokens;
	g->prefix_blocks += (int64_t)s.prefix_blocks;
	*blocks += s.kv_total;
	*reserved += s.kv_reserved;
	if (s.predicted_wait_ms * 1e-3 > g->predicted_wait_seconds)
		g->predicted_wait_seconds = s.predicted_wait_ms * 1e-3;
}

static void collect_gauges(const struct server *server, struct metrics_gauges *g) {
	size_t blocks = 0, reserved = 0;
	const struct generation *newest = server->current ? server->current : server->generations;
	for (const struct generation *i = server->generations; i; i = i->next)
		add_gauges(i, g, &blocks, &reserved);
	g->kv_usage_ratio = blocks ? (double)reserved / (double)blocks : 0;
	if (!newest)
		return;
	struct snapshot s;
	engine_snapshot(newest->engine, &s);
	g->cost = s.cost;
	const struct model *model = generation_model(newest);
	g->family = facts_family_name(model->facts.family);
	g->dtype = model->dtype;
	g->arithmetic = model->ops->name;
	g->weights = weight_format_name(model->weights.format);
	g->kv = kv_format_name(memory_kv_format(server->config, model));
	g->memory = weights_sizes(&model->weights);
	g->kv_pool_bytes = s.kv_total * s.block_bytes;
	g->workspace_bytes = s.scratch_bytes;
	for (int k = 0; k < STACKS; k++) {
		g->layers[k] = model->facts.stack[k].layers;
		g->layerdrop[k] = model->facts.stack[k].layerdrop;
	}
}

void handle_metrics(struct call *call) {
	struct server *server = call->server;
	struct metrics_gauges gauges = { .version = FATHOM_VERSION,
		.family = "",
		.dtype = "",
		.arithmetic = "",
		.weights = "",
		.kv = "" };
	struct fields fields;
	struct buffer b = { 0 };
	if (server->metrics) {
		collect_gauges(server, &gauges);
		metrics_connections(server->metrics,
		                http_connections(server->main)
		                                + (server->admin ? http_connections(server->admin)
		                                                 : 0));
		metrics_write(server->metrics, &gauges, &b);
	}
	call_common_fields(call, &fields);
	fields_add(&fields, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
	exchange_answer(call->x, b.failed ? 500 : 200, fields.items, fields.n, &b);
}

void handle_drain(struct call *call) {
	struct buffer b = { 0 };
	buffer_puts(&b, "{\"status\":\"draining\"}");
	drain_start(call->server, "POST /drain");
	call_answer(call, 202, NULL, &b);
}

/* ---- POST /reload {"model": DIR} ---- */

static void reloaded(void *arg, const char *failure) {
	struct call *call = arg;
	struct buffer b = { 0 };
	struct error e;
	call->reloading = false;
	if (failure) {
		error_set(&e, ERROR_INVALID_REQUEST, "model", "%s", failure);
		call_fail(call, &e);
		return;
	}
	buffer_puts(&b, "{\"status\":\"serving\"}");
	call_answer(call, 200, NULL, &b);
}

/* The folder that the body names, the one served now if it names none; false if it is not sound. */
static bool read_folder(struct call *call, char *dir, size_t size, struct error *e) {
	char err[256];
	size_t len;
	const char *body = exchange_body(call->x, &len);
	const char *named = NULL;
	snprintf(dir, size, "%s", call->server->model_dir);
	if (!body || len == 0)
		return true;
	struct doc *doc = doc_parse(body, len, "body", err, sizeof err);
	if (!doc)
		return error_set(e, ERROR_INVALID_JSON, NULL, "%s", err);
	struct doc_reader reader = {
		.object = doc, .file = "body", .err = err, .errlen = sizeof err
	};
	named = doc_read_string(&reader, "model", NULL);
	if (named)
		snprintf(dir, size, "%s", named);
	/* Under another name a folder would be ignored, and the present one loaded again. */
	bool ok = !reader.failed && doc_kind(doc) == DOC_OBJECT && *dir
	                && doc_count(doc) == (doc_get(doc, "model") != NULL);
	doc_free(doc);
	return ok
	                || error_set(e, ERROR_INVALID_REQUEST, "model",
	                                "Send nothing, or {\"model\": \"FOLDER\"}.");
}

void handle_reload(struct call *call) {
	char dir[4096], err[256];
	struct error e;
	if (!read_folder(call, dir, sizeof dir, &e)) {
		call_fail(call, &e);
		return;
	}
	call->reloading = true;
	if (reload_start(call->server, dir, reloaded, call, err, sizeof err))
		return;
	call->reloading = false;
	error_set(&e, ERROR_MODEL_LOADING, NULL, "%s", err);
	call_fail(call, &e);
}
