/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the loop thread share: the server, the models it has loaded, and the stages of
 * its life. Loop thread only, but for what says otherwise.
 */
#ifndef FATHOM_SERVER_SERVER_H
#define FATHOM_SERVER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "server/auth.h"
#include "server/engine.h"
#include "server/http.h"
#include "server/loop.h"
#include "server/metrics.h"
#include "server/worker.h"

enum life {
	LIFE_LOADING, /* no model is warm yet: work is refused with model_loading */
	LIFE_SERVING,
	LIFE_LEAVING,  /* told to stop: /readyz says so, work is still taken (--drain-delay) */
	LIFE_DRAINING, /* new work is refused with shutting_down, running work is finished */
	LIFE_STOPPED,
};

/*
 * A loaded model with its engine. Jobs hold the generation they were made for; a replaced one is
 * closed when the last of them has ended.
 */
struct generation {
	struct engine *engine;
	int jobs;                /* tokenising, in the engine, or being answered */
	struct generation *next; /* server::generations */
};

struct call;
struct loading; /* reload.c */
struct keeping; /* keep.c */

enum drain_stage { DRAIN_DELAY, DRAIN_WORK, DRAIN_CUT, DRAIN_CLOSE, DRAIN_LINGER };

struct drain {
	enum drain_stage stage; /* from LIFE_LEAVING on */
	struct loop_timer *timer;
};

struct server {
	const struct config *config;
	char model_dir[4096];
	enum life life;
	int exit_status;
	int64_t started_ns, heartbeat_ns;

	struct loop *loop;
	struct loop_wake *engine_wake;
	struct loop_timer *tick; /* the loop's heartbeat; pings of silent streams */
	struct drain drain;
	struct loop_signal *sigterm, *sigint;
	bool signalled;            /* by SIGTERM or SIGINT: the next one ends the process */
	struct http *main, *admin; /* admin: NULL without the option */
	struct worker *tokeniser, *loader;

	struct auth *auth;
	struct metrics *metrics; /* NULL until the first model is loaded */
	struct team *team;
	struct turn *turn;
	const struct ops *ops;
	int threads;
	struct model_options loads_with;
	double expansion; /* bytes in memory for each byte of the weight files; 0: none loaded */
	int64_t loaded;   /* when the current model was put in service, seconds since the epoch */

	struct generation *generations; /* all, newest first */
	struct generation *current;     /* takes new work; NULL while loading */
	struct generation *warming;     /* loaded, measuring its cost model */
	struct loading *loading;        /* a load or reload under way, or NULL */
	struct keeping *keeping;        /* files being written into the model folder, or NULL */
	bool keep_failed;               /* that has been said */

	struct call *calls; /* all that are open, newest first */
	int n_calls;
};

/* ---- generation.c ---- */

const struct model *generation_model(const struct generation *generation);
void generation_hold(struct generation *generation);
/* Gives a hold back; closes a replaced generation with its last one. Accepts NULL. */
void generation_release(struct server *server, struct generation *generation);
/* Takes the engines' news: progress of jobs, and a generation that has become warm. */
void generation_collect(struct server *server);
void generation_close_all(struct server *server);

/* ---- reload.c ---- */

/*
 * Loads a folder on the loader's thread, warms it up and puts it in the place of the current
 * generation; then `finished(arg, NULL)`, or with a sentence if it failed. False, with a sentence
 * in err, if a load is under way already.
 */
bool reload_start(struct server *server, const char *dir,
                void (*finished)(void *arg, const char *failure), void *arg, char *err,
                size_t errlen);
/* The generation that was loading is warm. */
void reload_warm(struct server *server);
/* How much of the weights is packed; 0 without a load under way. */
int reload_percent(const struct server *server);
/* The one who waits for the load has left. */
void reload_forget(struct server *server, void *arg);

/* ---- drain.c ---- */

bool drain_init(struct server *server);
/* Begins to stop: delay, drain, end. A second call while stopping does nothing. */
void drain_start(struct server *server, const char *reason);
/* Looks whether a drain has finished; called whenever a call ends. */
void drain_check(struct server *server);

#endif
