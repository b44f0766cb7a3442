/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping: (1) say so in /readyz for --drain-delay while still serving; (2) refuse new work, finish
 * what runs, at most for --drain-timeout; (3) close the listening sockets and answer what was in
 * their backlog; (4) leave the loop. The socket closes last, so that a client that comes meanwhile
 * is told to go elsewhere instead of finding nobody.
 */
#include "server/clock.h"
#include "server/keep.h"
#include "server/log.h"
#include "server/server.h"
#include "server/submit.h"

enum { LINGER_MS = 100, CUT_MS = 5000 };

static bool is_idle(const struct server *server) {
	for (const struct generation *g = server->generations; g; g = g->next)
		if (g->jobs > 0)
			return false;
	return server->n_calls == 0;
}

static void close_listeners(struct server *server) {
	http_close_listener(server->main);
	if (server->admin)
		http_close_listener(server->admin);
}

static void stop(struct server *server) {
	server->life = LIFE_STOPPED;
	log_event(LOG_INFO, "stopped", { "exit_status", LOG_INT(server->exit_status) });
	loop_stop(server->loop);
}

static void cancel_all(struct server *server) {
	int cancelled = 0;
	for (struct call *c = server->calls; c; c = c->next)
		cancelled += submit_cancel(c, ERROR_SHUTTING_DOWN);
	log_event(LOG_WARN, "drain_timeout", { "cancelled", LOG_INT(cancelled) });
}

static void on_timer(void *arg) {
	struct server *server = arg;
	struct drain *d = &server->drain;
	switch (d->stage) {
	case DRAIN_DELAY:
		server->life = LIFE_DRAINING;
		d->stage = DRAIN_WORK;
		loop_timer_start(d->timer, (uint64_t)server->config->drain_timeout_ms, 0);
		drain_check(server);
		break;
	case DRAIN_WORK:
		d->stage = DRAIN_CUT;
		cancel_all(server);
		loop_timer_start(d->timer, CUT_MS, 0);
		break;
	case DRAIN_CLOSE:
		close_listeners(server);
		d->stage = DRAIN_LINGER;
		loop_timer_start(d->timer, LINGER_MS, 0);
		break;
	case DRAIN_LINGER:
		/* Calls that came in at the last moment were refused at once. */
		stop(server);
		break;
	case DRAIN_CUT:
		close_listeners(server);
		stop(server);
		break;
	}
}

bool drain_init(struct server *server) {
	server->drain.timer = loop_timer_create(server->loop, on_timer, server);
	return server->drain.timer != NULL;
}

void drain_start(struct server *server, const char *reason) {
	if (server->life >= LIFE_LEAVING)
		return;
	bool loading = server->life == LIFE_LOADING;
	int delay_ms = loading ? 0 : server->config->drain_delay_ms;
	log_event(LOG_INFO, "draining", { "reason", LOG_STR(reason) },
	                { "delay_ms", LOG_INT(delay_ms) },
	                { "open_requests", LOG_INT(server->n_calls) });
	keep_stop(server);
	server->life = LIFE_LEAVING;
	server->drain.stage = DRAIN_DELAY;
	loop_timer_start(server->drain.timer, (uint64_t)delay_ms, 0);
}

void drain_check(struct server *server) {
	struct drain *d = &server->drain;
	if (server->life != LIFE_DRAINING || d->stage > DRAIN_CUT || !is_idle(server))
		return;
	d->stage = DRAIN_CLOSE;
	loop_timer_start(d->timer, 0, 0); /* not here: MHD may be calling */
}
