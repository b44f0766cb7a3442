/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server leaves in the model folder for the next start: the packed weights, and what the
 * warm-up has measured. Both are written behind the scenes once a model is served; where they
 * cannot be, that is said once and the server goes on without.
 */
#ifndef FATHOM_SERVER_KEEP_H
#define FATHOM_SERVER_KEEP_H

#include "server/cost_file.h"
#include "server/server.h"

/*
 * The costs that an earlier start has measured with the same processor, threads, kernels and
 * formats for the same files. False if there are none. Any thread.
 */
bool keep_find(const char *dir, const struct model *model, const struct config *config,
                struct cost_kept *ret_kept);

/* Has the loader's thread write what the generation has made anew. Loop thread. */
void keep_begin(struct server *server, struct generation *generation, const char *dir);

/* The server is leaving: a file that is being written is given up. Loop thread. */
void keep_stop(struct server *server);

#endif
