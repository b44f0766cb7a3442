/* SPDX-License-Identifier: Apache-2.0 */
/* Start-up, wiring, and the way down. */
#include "server/serve.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "model/threads.h"
#include "server/call.h"
#include "server/clock.h"
#include "server/demo.h"
#include "server/keep.h"
#include "server/listen.h"
#include "server/load_with.h"
#include "server/log.h"
#include "server/respond.h"
#include "server/server.h"

enum { BODIES_BYTES = 64 << 20 }; /* request bodies in memory at once, two of any size allowed */
enum { TICK_MS = 1000, SPARE_FILES = 64, MOST_CONNECTIONS = 1024, ADMIN_CONNECTIONS = 64 };

/*
 * Model files are mapped: one that is cut, or whose disk fails, ends the process where it is read. Say
 * so before. No lock is held and nothing is allocated at such a read, so that a log line is safe. Threads
 * read together: only the first to come here speaks, and the others wait for the end that it brings.
 */
static void on_lost_page(int number, siginfo_t *info, void *context) {
	static atomic_flag said = ATOMIC_FLAG_INIT;
	(void)number;
	(void)context;
	if (atomic_flag_test_and_set(&said))
		for (;;)
			pause();
	if (info->si_code == BUS_ADRERR || info->si_code == BUS_MCEERR_AR)
		log_event(LOG_ERROR, "mapped_file_lost",
		                { "reason",
		                                LOG_STR("a file in the model folder was cut or "
		                                        "cannot be "
		                                        "read while it is served; replace such "
		                                        "files by "
		                                        "renaming only") });
	signal(SIGBUS, SIG_DFL); /* the read is tried again, and ends the process */
	if (info->si_code <= 0)
		raise(SIGBUS); /* sent by somebody: no read is tried again */
}

/* Prompts are in memory: no core dumps. A client that left must not end the process. */
static void harden(void) {
	struct rlimit none = { 0, 0 }, files;
	struct sigaction lost = { .sa_sigaction = on_lost_page, .sa_flags = SA_SIGINFO };
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	sigaction(SIGBUS, &lost, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a packed file that may not be written is an error of write */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static int most_connections(const struct config *config) {
	struct rlimit files;
	if (config->connections > 0)
		return config->connections;
	if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY
	                || files.rlim_cur >= MOST_CONNECTIONS + SPARE_FILES)
		return MOST_CONNECTIONS;
	return files.rlim_cur > 2 * SPARE_FILES ? (int)files.rlim_cur - SPARE_FILES : SPARE_FILES;
}

/* ---- what the loop calls ---- */

static void on_engine(void *arg) {
	struct server *server = arg;
	generation_collect(server);
	drain_check(server);
}

static void on_tick(void *arg) {
	struct server *server = arg;
	server->heartbeat_ns = clock_now_ns();
	for (struct call *call = server->calls; call; call = call->next)
		respond_tick(call, server->heartbeat_ns);
}

static void on_signal(void *arg) {
	struct server *server = arg;
	if (server->signalled) {
		log_event(LOG_WARN, "second_signal", { "action", LOG_STR("exit at once") });
		_exit(1);
	}
	server->signalled = true; /* after POST /drain the first one changes nothing */
	drain_start(server, "signal");
}

static void on_first_model(void *arg, const char *failure) {
	struct server *server = arg;
	if (failure) {
		fprintf(stderr, "fathom serve: %s\n", failure);
		server->exit_status = 1;
		server->life = LIFE_STOPPED;
		loop_stop(server->loop);
		return;
	}
	if (server->life != LIFE_LOADING)
		return;
	const struct model *model = generation_model(server->current);
	server->life = LIFE_SERVING;
	log_event(LOG_INFO, "listening", { "url", LOG_STR(http_url(server->main)) },
	                { "admin_url", LOG_STR(server->admin ? http_url(server->admin) : NULL) },
	                { "start_ms", LOG_F64(clock_ms(clock_now_ns() - server->started_ns)) });
	char layers[32];
	const int encoder = model->facts.stack[STACK_ENCODER].layers;
	if (model->facts.kind == KIND_SEQ2SEQ)
		snprintf(layers, sizeof layers, "%d + %d", encoder, model_layers(model));
	else
		snprintf(layers, sizeof layers, "%d", model_layers(model));
	printf("fathom %s (%s layers, %s, %s%s%s) listening on %s\n", model->name, layers,
	                model->dtype, model->ops->name, server->admin ? ", admin at " : "",
	                server->admin ? http_url(server->admin) : "", http_url(server->main));
	fflush(stdout);
}

/* ---- starting ---- */

static struct team *create_team(const char *pin, int threads, char *err, size_t errlen) {
	int cpus[1024], n;
	if (!threads_pins("", pin, cpus, 1024, &n, err, errlen))
		return NULL;
	return team_create_pinned(threads, cpus, n, err, errlen);
}

/* Threads without a core of their own wait for each other by turns of the system's scheduler. */
static void warn_if_crowded(int threads) {
	const int cores = threads_count("");
	if (threads <= cores)
		return;
	log_event(LOG_WARN, "more_threads_than_cores", { "threads", LOG_INT(threads) },
	                { "cores", LOG_INT(cores) },
	                { "advice",
	                                LOG_STR("small steps become many times slower: leave out "
	                                        "--threads, or give at most one for each core") });
}

static bool choose_kernels(struct server *server, char *err, size_t errlen) {
	const struct config *config = server->config;
	struct load_with with = load_with_of(config);
	if (!load_with_read(&with, &server->loads_with, err, errlen))
		return false;
	server->ops = server->loads_with.ops;
	server->threads = server->loads_with.threads;
	log_event(LOG_INFO, "compute", { "kernels", LOG_STR(server->ops->name) },
	                { "threads", LOG_INT(server->threads) }, { "pin", LOG_STR(config->pin) },
	                { "cpu_quota", LOG_F64(threads_cpu_quota("")) },
	                { "memory_limit", LOG_INT((int64_t)threads_memory_limit("")) },
	                { "openblas", LOG_STR(ops_blas_description()) });
	warn_if_crowded(server->threads);
	server->team = create_team(config->pin, server->threads, err, errlen);
	server->turn = turn_create();
	return server->team && server->turn;
}

static struct http *open_listener(
                struct server *server, bool admin, int connections, char *err, size_t errlen) {
	const struct config *c = server->config;
	struct http_options options = { .loop = server->loop,
		.host = admin ? c->admin_host : c->host,
		.port = admin ? c->admin_port : c->port,
		.connections = connections,
		.header_bytes = (size_t)c->header_bytes,
		.body_bytes = (size_t)c->body_bytes,
		.bodies_bytes = BODIES_BYTES + 2 * (size_t)c->body_bytes,
		.header_timeout_ms = c->header_timeout_ms,
		.body_timeout_ms = c->body_timeout_ms,
		.idle_timeout_ms = c->idle_timeout_ms,
		.half_close_leaves = strcmp(c->half_close, "leave") == 0,
		.handler = call_handler(server, admin) };
	return http_open(&options, err, errlen);
}

static void warn_if_open(const struct server *server, const char *listener, const char *host) {
	if (!listen_is_public(host) || auth_required(server->auth))
		return;
	log_event(LOG_WARN, "open_to_all", { "listener", LOG_STR(listener) },
	                { "host", LOG_STR(host) },
	                { "advice",
	                                LOG_STR("set --api-key-file, or keep the port behind a "
	                                        "proxy that checks access") });
}

static bool open_listeners(struct server *server, char *err, size_t errlen) {
	const struct config *c = server->config;
	server->main = open_listener(server, false, most_connections(c), err, errlen);
	if (!server->main)
		return false;
	if (c->admin_port >= 0) {
		server->admin = open_listener(server, true, ADMIN_CONNECTIONS, err, errlen);
		if (!server->admin)
			return false;
	}
	warn_if_open(server, "main", c->host);
	if (server->admin)
		warn_if_open(server, "admin", c->admin_host);
	return true;
}

static bool start_loop(struct server *server, char *err, size_t errlen) {
	int ping_ms = server->config->ping_ms;
	uint64_t tick_ms = ping_ms < 4 * TICK_MS ? (uint64_t)ping_ms / 4 : TICK_MS;
	server->loop = loop_create();
	if (server->loop) {
		server->engine_wake = loop_wake_create(server->loop, on_engine, server);
		server->tick = loop_timer_create(server->loop, on_tick, server);
		server->sigterm = loop_signal_create(server->loop, SIGTERM, on_signal, server);
		server->sigint = loop_signal_create(server->loop, SIGINT, on_signal, server);
		server->tokeniser = worker_create(server->loop, "tokeniser");
		server->loader = worker_create(server->loop, "loader");
	}
	if (!server->engine_wake || !server->tick || !server->sigterm || !server->sigint
	                || !server->tokeniser || !server->loader || !drain_init(server)) {
		snprintf(err, errlen, "The system refuses threads or handles.");
		return false;
	}
	server->heartbeat_ns = clock_now_ns();
	loop_timer_start(server->tick, tick_ms ? tick_ms : 1, tick_ms ? tick_ms : 1);
	return true;
}

static bool start(struct server *server, char *err, size_t errlen) {
	const struct config *config = server->config;
	server->auth = auth_open(config->api_key_file, err, errlen);
	if (!server->auth || !start_loop(server, err, errlen))
		return false;
	if (config->model)
		snprintf(server->model_dir, sizeof server->model_dir, "%s", config->model);
	else if (!demo_find(server->model_dir, sizeof server->model_dir, err, errlen))
		return false;
	return choose_kernels(server, err, errlen) && open_listeners(server, err, errlen)
	                && reload_start(server, server->model_dir, on_first_model, server, err,
	                                errlen);
}

/* ---- the way down ---- */

static void finish(struct server *server) {
	http_close(server->main);
	http_close(server->admin);
	keep_stop(server);
	worker_destroy(server->tokeniser);
	worker_destroy(server->loader);
	generation_close_all(server);
	metrics_destroy(server->metrics);
	turn_destroy(server->turn);
	team_destroy(server->team);
	auth_close(server->auth);
	if (!server->loop)
		return;
	loop_signal_destroy(server->sigterm);
	loop_signal_destroy(server->sigint);
	loop_timer_destroy(server->tick);
	loop_timer_destroy(server->drain.timer);
	loop_wake_destroy(server->engine_wake);
	loop_destroy(server->loop);
}

int serve_run(struct config *config) {
	struct server server = { .config = config, .started_ns = clock_now_ns() };
	char err[600] = "Out of memory.";
	harden();
	if (start(&server, err, sizeof err)) {
		loop_run(server.loop);
		if (server.loading) { /* the loader may be reading for long: do not wait for it */
			log_event(LOG_INFO, "stopped_while_loading",
			                { "exit_status", LOG_INT(server.exit_status) });
			_exit(server.exit_status);
		}
	} else {
		fprintf(stderr, "fathom serve: %s\n", err);
		server.exit_status = 1;
	}
	finish(&server);
	return server.exit_status;
}
