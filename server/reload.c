/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a model beside the one that serves, or the first one. Weights are read on the loader's
 * thread; then the new engine warms up while the old one goes on, taking turns on the compute team.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/clock.h"
#include "server/log.h"
#include "server/memory.h"
#include "server/resolve.h"
#include "server/server.h"

struct loading {
	struct task task;
	struct server *server;
	char dir[4096];
	double expansion;    /* of the running model; 0: it is the first */
	struct model *model; /* loaded, not in an engine yet */
	size_t file_bytes;
	char failure[600];
	void (*finished)(void *arg, const char *failure);
	void *arg; /* NULL: the one who waited has left */
	int64_t started_ns;
};

/* On the loader's thread. */
static void load(struct task *task) {
	struct loading *l = (struct loading *)task;
	struct model_options options = l->server->loads_with;
	if (l->expansion > 0 && !memory_fits(l->dir, l->expansion, l->failure, sizeof l->failure))
		return;
	l->file_bytes = memory_weight_files(l->dir);
	l->model = model_open(l->dir, &options, l->failure, sizeof l->failure);
	if (l->model
	                && !resolve_check_config(l->model, l->server->config, l->failure,
	                                sizeof l->failure)) {
		model_close(l->model);
		l->model = NULL;
	}
}

static void finish(struct server *server, const char *failure) {
	struct loading *l = server->loading;
	server->loading = NULL;
	if (failure)
		log_event(LOG_ERROR, "load_failed", { "model", LOG_STR(l->dir) },
		                { "reason", LOG_STR(failure) });
	if (l->finished && l->arg)
		l->finished(l->arg, failure);
	free(l);
}

/* Bytes of weights and KV pools that the loaded models hold. */
static size_t held_bytes(const struct server *server) {
	size_t bytes = 0;
	for (const struct generation *g = server->generations; g; g = g->next) {
		struct snapshot s;
		engine_snapshot(g->engine, &s);
		bytes += generation_model(g)->weights.bytes + s.kv_total * s.block_bytes;
	}
	return bytes;
}

static void wake_loop(void *arg) {
	loop_wake_send(arg);
}

/* The figures of /metrics have one label for each layer, so their number stays. */
static bool count_layers(
                struct server *server, const struct model *model, char *err, size_t errlen) {
	if (!server->metrics)
		server->metrics = metrics_create(&model->facts);
	if (!server->metrics) {
		snprintf(err, errlen, "Out of memory.");
		return false;
	}
	if (metrics_suit(server->metrics, &model->facts))
		return true;
	snprintf(err, errlen,
	                "The folder's model has %d layers, not as many as the one that this server "
	                "began with: start another one.",
	                model_layers(model));
	return false;
}

static struct generation *start_engine(struct server *server, struct loading *l) {
	struct model *model = l->model;
	size_t taken = held_bytes(server) + model->weights.bytes;
	struct engine_options options = { .config = server->config,
		.team = server->team,
		.turn = server->turn,
		.kv_bytes = memory_kv_bytes(server->config, model, taken),
		.wake = wake_loop,
		.wake_arg = server->engine_wake };
	l->model = NULL; /* the engine takes it over, also on failure */
	struct generation *g = calloc(1, sizeof *g);
	bool counted = g && count_layers(server, model, l->failure, sizeof l->failure);
	if (!counted) {
		if (!g)
			snprintf(l->failure, sizeof l->failure, "Out of memory.");
		model_close(model);
		free(g);
		return NULL;
	}
	if (l->file_bytes > 0)
		server->expansion = (double)model->weights.bytes / (double)l->file_bytes;
	log_event(LOG_INFO, "model_loaded", { "model", LOG_STR(l->dir) },
	                { "family", LOG_STR(facts_family_name(model->facts.family)) },
	                { "layers", LOG_INT(model_layers(model)) },
	                { "dtype", LOG_STR(model->dtype) },
	                { "weight_bytes", LOG_INT((int64_t)model->weights.bytes) },
	                { "kv_bytes", LOG_INT((int64_t)options.kv_bytes) },
	                { "load_ms", LOG_F64(clock_ms(clock_now_ns() - l->started_ns)) });
	options.metrics = server->metrics;
	g->engine = engine_create(model, &options, l->failure, sizeof l->failure);
	if (!g->engine) {
		free(g);
		return NULL;
	}
	return g;
}

/* On the loop thread again. */
static void loaded(struct task *task) {
	struct loading *l = (struct loading *)task;
	struct server *server = l->server;
	struct generation *g = l->model ? start_engine(server, l) : NULL;
	if (!g) {
		finish(server, l->failure);
		return;
	}
	g->next = server->generations;
	server->generations = g;
	server->warming = g;
}

bool reload_start(struct server *server, const char *dir,
                void (*finished)(void *arg, const char *failure), void *arg, char *err,
                size_t errlen) {
	if (server->loading) {
		snprintf(err, errlen, "A model is being loaded already; retry when it is served.");
		return false;
	}
	struct loading *l = calloc(1, sizeof *l);
	if (!l) {
		snprintf(err, errlen, "Out of memory.");
		return false;
	}
	l->task = (struct task){ .work = load, .after = loaded };
	l->server = server;
	l->expansion = server->expansion;
	l->finished = finished;
	l->arg = arg;
	l->started_ns = clock_now_ns();
	snprintf(l->dir, sizeof l->dir, "%s", dir);
	server->loading = l;
	worker_submit(server->loader, &l->task);
	return true;
}

void reload_warm(struct server *server) {
	struct generation *old = server->current;
	struct loading *l = server->loading;
	server->current = server->warming;
	server->warming = NULL;
	server->loaded = time(NULL);
	snprintf(server->model_dir, sizeof server->model_dir, "%s", l->dir);
	log_event(LOG_INFO, "model_ready", { "model", LOG_STR(l->dir) },
	                { "ready_ms", LOG_F64(clock_ms(clock_now_ns() - l->started_ns)) });
	if (old) {
		generation_hold(old);
		generation_release(server, old); /* closes it if it is idle */
	}
	finish(server, NULL);
}

void reload_forget(struct server *server, void *arg) {
	if (server->loading && server->loading->arg == arg)
		server->loading->arg = NULL;
}
