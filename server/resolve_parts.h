/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of resolve: not for others. */
#ifndef FATHOM_SERVER_RESOLVE_PARTS_H
#define FATHOM_SERVER_RESOLVE_PARTS_H

#include "config/config.h"
#include "server/job.h"

/* The depth fields of a request, checked against the model. */
bool resolve_policy(const struct model *model, const struct config *config,
                const struct request *request, struct depth_policy *ret_policy, struct error *e);

/* `depth` of the main stack and all of the other. */
void resolve_main_stack(const struct model *model, int depth, int ret_depth[STACKS]);

/* What follows the '@' of a model name, or stands in the config: a number or a word that `depth`
 * takes too. */
struct depth_spec resolve_suffix(const char *suffix);

/* The subnet of a binding depth; false with invalid_depth. */
bool resolve_subnet(const struct model *model, enum plan_rule rule, const int depth[STACKS],
                struct subnet *ret_subnet, struct error *e);

/* ---- resolve_text.c ---- */

/* Name of the field that the prompts came in. */
const char *resolve_prompt_field(const struct request *request);

/* The job's prompts, sources and targets as tokens, of any length; masks of a text. */
bool resolve_prompts(const struct model *model, const struct config *config, struct job *job,
                struct error *e);

bool resolve_no_memory(struct error *e); /* always false */

/* ---- resolve_search.c ---- */

/*
 * Whether an encoder-decoder searches or samples, how many beams and choices; n and best_of of the
 * other models. Refuses what a search cannot honour.
 */
bool resolve_search(const struct model *model, const struct config *config, struct job *job,
                struct error *e);

/* ---- resolve_draft.c ---- */

/* How a job that generates may be drafted for; its plans and its search are settled. */
bool resolve_draft(const struct config *config, struct job *job, struct error *e);

/* ---- resolve_encoder.c ---- */

/* What an encoder is to do with the texts, and bounds of the answer. */
bool resolve_encoder(const struct model *model, const struct config *config, struct job *job,
                struct error *e);

#endif
