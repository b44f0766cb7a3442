/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of resolve: not for others. */
#ifndef FATHOM_SERVER_RESOLVE_PARTS_H
#define FATHOM_SERVER_RESOLVE_PARTS_H

#include "config/config.h"
#include "server/job.h"

/* The depth fields of a request, checked against the model. */
bool resolve_policy(const struct model *model, const struct config *config,
                const struct request *request, struct depth_policy *ret_policy, struct error *e);

/* The subnet of a binding depth; false with invalid_depth. */
bool resolve_subnet(const struct model *model, enum plan_rule rule, const int depth[STACKS],
                struct subnet *ret_subnet, struct error *e);

#endif
