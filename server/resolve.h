/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to a job: prompts become tokens, depth fields become a policy, defaults are filled
 * in, and everything that depends on the model is checked (depth against N, length against the
 * context and the KV pool).
 */
#ifndef FATHOM_SERVER_RESOLVE_H
#define FATHOM_SERVER_RESOLVE_H

#include "config/config.h"
#include "server/job.h"

/* Whether tokenising this request belongs on the tokeniser thread (inputs over 16 KiB). */
bool resolve_is_large(const struct request *request);

/*
 * Takes over `request` (also on failure: it is finished then). Thread-safe: reads the model and the
 * config only. NULL with `e` filled when refused.
 */
struct job *resolve_job(const struct model *model, const struct config *config,
                struct request *request, struct error *e);

/* Whether the checkpoint can serve a route; else not_supported, naming one that works. */
bool resolve_route(const struct model *model, enum request_kind kind, struct error *e);

/*
 * "NAME", "NAME@6", "NAME@tier" against the served names; fills a depth where the suffix gives one.
 */
bool resolve_model_name(const struct model *model, const struct config *config,
                const struct request *request, struct depth_spec *ret_depth, struct error *e);

/*
 * The depths of a tier: a fraction is taken of every stack, a number is the main stack's and leaves
 * the other whole. False if there is no such tier.
 */
bool resolve_tier(const struct model *model, const struct config *config, const char *name,
                int ret_depth[STACKS]);

/* The depths that a spec stands for, 0 for auto; false with invalid_depth. */
bool resolve_spec(const struct model *model, const struct config *config,
                const struct depth_spec *spec, int ret_depth[STACKS], struct error *e);

/* Whether the configured plan rule and default depth exist in this model; else one sentence. */
bool resolve_check_config(
                const struct model *model, const struct config *config, char *err, size_t errlen);

/* The name clients see first: the first --served-model-name, else the model folder's. */
const char *resolve_served_name(const struct model *model, const struct config *config);

#endif
