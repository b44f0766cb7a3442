/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets: listening ones, and what is set on accepted ones. */
#ifndef FATHOM_SERVER_LISTEN_H
#define FATHOM_SERVER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

/*
 * A non-blocking listening socket at `host` (a name or address) and `port` (0: a free one), and its
 * URL. -1 with one sentence in err.
 */
int listen_open(const char *host, int port, char *ret_url, size_t url_len, char *err,
                size_t errlen);

/* Lets the system notice that the peer of an accepted socket has died. */
void listen_tune(int fd);

/* Whether clients of other machines can reach this host: it is not a loopback address. */
bool listen_is_public(const char *host);

#endif
