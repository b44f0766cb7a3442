/* SPDX-License-Identifier: Apache-2.0 */
/* The whole server: from a configuration to an exit status. */
#ifndef FATHOM_SERVER_SERVE_H
#define FATHOM_SERVER_SERVE_H

#include "config/config.h"

/*
 * Loads the model, listens, serves until SIGTERM or SIGINT, drains, and returns the process's exit
 * status. Prints one line to stdout once ready, ending with the URL; logs go to stderr.
 */
int serve_run(struct config *config);

#endif
