/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running batch for tests, step by step and without threads, on one of the tiny folders. One at a
 * time. A failure inside ends the test that called.
 */
#ifndef FATHOM_TESTS_RUNNING_H
#define FATHOM_TESTS_RUNNING_H

#include "server/batch.h"
#include "tests/rig.h"

extern struct rig running_rig;
extern struct batch *running_batch;
extern struct batch_stats running_stats; /* of the last step */

void running_open(const char *folder);
/* The batch again, after a change to running_rig.config; kv_bytes 0: enough. */
void running_reopen(size_t kv_bytes);
/* Everything must have been given back. */
void running_close(void);

/* A ticket of a request that waits; one that joins, which must fit. */
struct ticket *running_ticket(enum request_kind kind, const char *body);
struct ticket *running_join(enum request_kind kind, const char *body);

/* One step, after letting in the groups that fit. Ended tickets leave the batch. */
void running_step(void);
void running_all(void);
/* Ends a ticket at its deadline, as the engine does. */
void running_expire(struct ticket *t);

/* What the loop thread would see. */
void running_deliver(struct ticket *t);
/* Destroys the ticket and its job. */
void running_destroy(struct ticket *t);

#endif
