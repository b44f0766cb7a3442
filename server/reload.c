/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a model beside the one that serves, or the first one. Weights are read on the loader's
 * thread; then the new engine warms up while the old one goes on, taking turns on the compute team.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/clock.h"
#include "server/keep.h"
#include "server/log.h"
#include "server/memory.h"
#include "server/resolve.h"
#include "server/server.h"

#define TELL_NS 1000000000 /* between two lines about progress */

struct loading {
	struct task task;
	struct server *server;
	char dir[4096];
	double expansion;    /* of the running model; 0: it is the first */
	struct model *model; /* loaded, not in an engine yet */
	size_t file_bytes;
	char failure[600];
	struct cost_kept kept; /* what an earlier start measured, */
	bool has_kept;         /* if there is that */
	void (*finished)(void *arg, const char *failure);
	void *arg; /* NULL: the one who waited has left */
	int64_t started_ns, told_ns;
	atomic_int percent; /* of the weights that are packed */
};

/* ---- progress ---- */

/* Through reload_share it is seen by the loop, and at most once a second by whoever reads logs. */
static void packed_some(void *arg, double share) {
	struct loading *l = arg;
	int64_t now_ns = clock_now_ns();
	atomic_store(&l->percent, (int)(share * 100));
	if (now_ns - l->told_ns < TELL_NS)
		return;
	l->told_ns = now_ns;
	log_event(LOG_INFO, "packing", { "model", LOG_STR(l->dir) },
	                { "percent", LOG_INT((int)(share * 100)) });
}

int reload_percent(const struct server *server) {
	return server->loading ? atomic_load(&server->loading->percent) : 0;
}

/* ---- loading ---- */

/* On the loader's thread. */
static void load(struct task *task) {
	struct loading *l = (struct loading *)task;
	struct model_options options = l->server->loads_with;
	options.progress = packed_some;
	options.progress_arg = l;
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
	if (l->model)
		l->has_kept = keep_find(l->dir, l->model, l->server->config, &l->kept);
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

/* What it is, in which numbers, where its bytes went and where they came from. */
static void log_loaded(const struct loading *l, const struct model *model,
                const struct engine_options *options) {
	const struct weights *w = &model->weights;
	struct weight_sizes sizes = weights_sizes(w);
	if (w->packed == PACKED_REFUSED)
		log_event(LOG_WARN, "packed_cache_refused", { "model", LOG_STR(l->dir) },
		                { "reason", LOG_STR(w->packed_why) });
	log_event(LOG_INFO, "model_loaded", { "model", LOG_STR(l->dir) },
	                { "family", LOG_STR(facts_family_name(model->facts.family)) },
	                { "layers", LOG_INT(model_layers(model)) },
	                { "dtype", LOG_STR(model->dtype) },
	                { "weights", LOG_STR(weight_format_name(w->format)) },
	                { "kv",
	                                LOG_STR(kv_format_name(memory_kv_format(
	                                                l->server->config, model))) },
	                { "arithmetic", LOG_STR(model_arithmetic(model)) },
	                { "weight_bytes", LOG_INT((int64_t)w->bytes) },
	                { "layer_bytes", LOG_INT((int64_t)sizes.layers) },
	                { "vocabulary_bytes", LOG_INT((int64_t)sizes.vocabulary) },
	                { "other_bytes", LOG_INT((int64_t)sizes.other) },
	                { "kv_bytes", LOG_INT((int64_t)options->kv_bytes) },
	                { "packed_cache", LOG_BOOL(w->packed == PACKED_USED) },
	                { "known_costs", LOG_BOOL(l->has_kept) },
	                { "load_ms", LOG_F64(clock_ms(clock_now_ns() - l->started_ns)) });
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
	log_loaded(l, model, &options);
	options.metrics = server->metrics;
	options.known = l->has_kept ? &l->kept : NULL;
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
	keep_begin(server, server->current, server->model_dir);
	finish(server, NULL);
}

void reload_forget(struct server *server, void *arg) {
	if (server->loading && server->loading->arg == arg)
		server->loading->arg = NULL;
}
