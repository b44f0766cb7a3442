/* SPDX-License-Identifier: Apache-2.0 */
/* Cross-origin requests of browsers: which origins may read answers, and preflights. */
#ifndef FATHOM_SERVER_CORS_H
#define FATHOM_SERVER_CORS_H

#include <stdbool.h>

#include "server/call.h"

/* OPTIONS with Origin and Access-Control-Request-Method. */
bool cors_is_preflight(const struct call *call);
/* What every answer to an allowed origin carries; nothing for others. */
void cors_fields(const struct call *call, struct fields *fields);
/* What a preflight's answer carries beside them. */
void cors_preflight_fields(const struct call *call, struct fields *fields);

#endif
