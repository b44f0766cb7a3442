/* SPDX-License-Identifier: Apache-2.0 */
/* A running batch for tests. */
#include "tests/running.h"

#include <math.h>

#include "server/clock.h"
#include "tests/check.h"

struct rig running_rig;
struct batch *running_batch;
struct batch_stats running_stats;

void running_reopen(size_t kv_bytes) {
	char err[256] = "";
	struct batch_options options = { .config = &running_rig.config,
		.team = running_rig.team,
		.metrics = running_rig.metrics,
		.kv_bytes = kv_bytes ? kv_bytes : 4 << 20 };
	batch_destroy(running_batch);
	running_batch = batch_create(running_rig.model, &options, err, sizeof err);
	if (!running_batch)
		check_fail(__FILE__, __LINE__, "batch: %s", err);
}

void running_open(const char *folder) {
	running_batch = NULL;
	rig_open(&running_rig, folder);
	running_reopen(0);
}

void running_close(void) {
	CHECK_INT(batch_jobs(running_batch), 0);
	CHECK_INT(batch_sequences(running_batch), 0);
	CHECK_INT(workspace_blocks_reserved(batch_workspace(running_batch)), 0);
	batch_destroy(running_batch);
	running_batch = NULL;
	rig_close(&running_rig);
}

struct ticket *running_ticket(enum request_kind kind, const char *body) {
	struct job *job = rig_job(&running_rig, kind, body);
	struct ticket *t = ticket_create(job, running_rig.model->target_tokenizer);
	CHECK(t);
	t->subnet = job->policy.subnet;
	t->report.times.received_ns = clock_now_ns();
	t->scheduled.arrival_ms = clock_ms(clock_now_ns());
	t->scheduled.at.due_ms = INFINITY;
	return t;
}

struct ticket *running_join(enum request_kind kind, const char *body) {
	struct ticket *t = running_ticket(kind, body);
	CHECK(batch_fits(running_batch, t, &t->subnet));
	batch_join(running_batch, t, clock_now_ns());
	return t;
}

void running_step(void) {
	for (struct ticket *t = batch_running(running_batch); t; t = t->next) {
		while (batch_has_more(t) && batch_fits(running_batch, t, &t->subnet))
			batch_begin_group(running_batch, t);
	}
	batch_step(running_batch, &running_stats);
	while (batch_take_ended(running_batch))
		;
}

void running_expire(struct ticket *t) {
	struct error e = { 0 };
	if (batch_can_end(t)) {
		batch_cut(running_batch, t, DETAIL_DEADLINE);
		return;
	}
	error_set(&e, ERROR_DEADLINE_EXCEEDED, "", "The deadline passed.");
	batch_fail(running_batch, t, &e);
}

void running_all(void) {
	for (int i = 0; batch_jobs(running_batch) > 0; i++) {
		CHECK(i < 10000);
		running_step();
	}
}

void running_deliver(struct ticket *t) {
	ticket_publish(t);
	ticket_deliver(t);
}

void running_destroy(struct ticket *t) {
	job_destroy(t->job);
	ticket_destroy(t);
}
