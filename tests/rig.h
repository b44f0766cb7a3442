/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of jobs need: a tiny model folder, the default configuration, and requests as a client
 * would send them. A failure inside ends the test that called.
 */
#ifndef FATHOM_TESTS_RIG_H
#define FATHOM_TESTS_RIG_H

#include "config/config.h"
#include "server/job.h"
#include "server/metrics.h"

struct rig {
	struct config config;
	struct model *model;
	struct team *team;
	struct metrics *metrics;
};

/* tests/data/NAME on the plain C kernels, two threads, default configuration. */
void rig_open(struct rig *rig, const char *name);
void rig_close(struct rig *rig);

/* Parses a body as the route of `kind` would; NULL and `e` if parsing or resolving refuses it. */
struct job *rig_try(
                const struct rig *rig, enum request_kind kind, const char *body, struct error *e);
/* The same for a body that must be accepted. */
struct job *rig_job(const struct rig *rig, enum request_kind kind, const char *body);

/* Fails the test unless the body is refused with this code. */
void rig_refused(const struct rig *rig, enum request_kind kind, const char *body,
                enum error_code code, const char *param);

/*
 * The greedy continuation of `prompt` by the plan alone: one sequence, one token a step, argmax
 * written out here. Ends at `n` tokens. ret_logprobs may be NULL.
 */
void rig_greedy(const struct rig *rig, const struct plan *plan, const int32_t *prompt, int n_prompt,
                int n, int32_t *ret_tokens, double *ret_logprobs);

#endif
