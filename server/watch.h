/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that leave. libmicrohttpd forgets the socket of a suspended connection, so that a client
 * that goes away while its answer is being computed would not be noticed. This is a private epoll
 * set of those sockets, asked only for hang-ups: each is reported once. Loop thread only.
 */
#ifndef FATHOM_SERVER_WATCH_H
#define FATHOM_SERVER_WATCH_H

#include <stdbool.h>

#include "server/loop.h"

struct watch;

/*
 * `gone(arg)` is called with watch_add's `arg` when that client has left. `half_close_leaves`: a
 * client that shut down only its sending side has left too (it cannot be told from one that closed;
 * without this, only an error or a reset is noticed). NULL if the system refuses.
 */
struct watch *watch_create(struct loop *loop, bool half_close_leaves, void (*gone)(void *arg));
void watch_destroy(struct watch *watch);

/* False if the system refuses. A socket is added once and removed before it goes back to MHD. */
bool watch_add(struct watch *watch, int fd, void *arg);
void watch_remove(struct watch *watch, int fd);

#endif
