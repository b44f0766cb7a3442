/* SPDX-License-Identifier: Apache-2.0 */
/* Loaded models: who holds them, and the news of their engines. */
#include <stdlib.h>
#include <time.h>

#include "server/respond.h"
#include "server/server.h"

enum { MOST_WAITS = 5000 }; /* of a millisecond */

const struct model *generation_model(const struct generation *generation) {
	return engine_model(generation->engine);
}

void generation_hold(struct generation *generation) {
	generation->jobs++;
}

static void close_generation(struct server *server, struct generation *generation) {
	struct generation **at = &server->generations;
	while (*at != generation)
		at = &(*at)->next;
	*at = generation->next;
	engine_destroy(generation->engine);
	free(generation);
}

void generation_release(struct server *server, struct generation *generation) {
	if (!generation || --generation->jobs > 0)
		return;
	if (generation != server->current && generation != server->warming)
		close_generation(server, generation);
}

static void take_news(struct server *server, struct generation *generation) {
	struct job *next;
	for (struct job *job = engine_collect(generation->engine); job; job = next) {
		struct call *call = job->owner;
		bool done = job->state == JOB_DONE;
		next = job->next;
		if (call) {
			call->submitted = !done;
			respond_progress(call);
		} else if (done) {
			job_destroy(job);
			generation_release(server, generation);
		}
	}
}

void generation_collect(struct server *server) {
	struct generation *next;
	for (struct generation *g = server->generations; g; g = next) {
		next = g->next;
		g->jobs++; /* releasing its last job must not free it here */
		take_news(server, g);
		generation_release(server, g);
	}
	if (server->warming) {
		struct snapshot snapshot;
		engine_snapshot(server->warming->engine, &snapshot);
		if (snapshot.warm)
			reload_warm(server);
	}
}

static bool has_jobs(const struct server *server) {
	for (const struct generation *g = server->generations; g; g = g->next)
		if (g->jobs > 0)
			return true;
	return false;
}

void generation_close_all(struct server *server) {
	server->warming = NULL;
	/* Cancelled jobs come back at the next step boundary. */
	for (int i = 0; i < MOST_WAITS && has_jobs(server); i++) {
		struct timespec moment = { .tv_nsec = 1000000 };
		nanosleep(&moment, NULL);
		generation_collect(server);
	}
	server->current = NULL;
	while (server->generations)
		close_generation(server, server->generations);
}
