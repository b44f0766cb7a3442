/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread for work that would hold the loop up: the tokeniser has one (inputs over 16 KiB), and so
 * has loading a model. Tasks run one after the other, in order.
 */
#ifndef FATHOM_SERVER_WORKER_H
#define FATHOM_SERVER_WORKER_H

#include "server/loop.h"

struct worker;

/* The first member of what is to be done; it stays in its owner's memory. */
struct task {
	void (*work)(struct task *task);  /* on the worker's thread */
	void (*after)(struct task *task); /* then on the loop thread; may free the task */
	struct task *next;                /* worker::todo or worker::finished */
};

/* NULL if the system refuses. `name` is shown by the system's tools. */
struct worker *worker_create(struct loop *loop, const char *name);
/* Finishes what was submitted, calls every `after`, stops the thread. Accepts NULL. */
void worker_destroy(struct worker *worker);

void worker_submit(struct worker *worker, struct task *task); /* loop thread */
int worker_pending(const struct worker *worker); /* submitted, `after` not called; loop thread */

#endif
