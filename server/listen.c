/* SPDX-License-Identifier: Apache-2.0 */
/* The only file that makes sockets. */
#include "server/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 1024, UNACKNOWLEDGED_MS = 30000, KEEPALIVE_IDLE_S = 30, KEEPALIVE_EVERY_S = 10 };

static void set_int(int fd, int level, int option, int value) {
	setsockopt(fd, level, option, &value, sizeof value);
}

static int open_at(const struct addrinfo *a) {
	int fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
	                a->ai_protocol);
	if (fd < 0)
		return -1;
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static int port_of(int fd) {
	struct sockaddr_storage address;
	socklen_t len = sizeof address;
	if (getsockname(fd, (struct sockaddr *)&address, &len) != 0)
		return 0;
	if (address.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
	return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

int listen_open(const char *host, int port, char *ret_url, size_t url_len, char *err,
                size_t errlen) {
	char service[16];
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found;
	snprintf(service, sizeof service, "%d", port);
	int status = getaddrinfo(host, service, &hints, &found);
	if (status != 0) {
		snprintf(err, errlen, "Cannot listen on %s: %s.", host, gai_strerror(status));
		return -1;
	}
	int fd = -1;
	for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
		fd = open_at(a);
	int saved = errno;
	freeaddrinfo(found);
	if (fd < 0) {
		snprintf(err, errlen, "Cannot listen on %s port %d: %s.", host, port,
		                strerror(saved));
		return -1;
	}
	bool v6 = strchr(host, ':') != NULL;
	snprintf(ret_url, url_len, "http://%s%s%s:%d", v6 ? "[" : "", host, v6 ? "]" : "",
	                port_of(fd));
	return fd;
}

void listen_tune(int fd) {
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
	set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EVERY_S);
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS);
}

bool listen_is_public(const char *host) {
	return strncmp(host, "127.", 4) != 0 && strcmp(host, "localhost") != 0
	                && strcmp(host, "::1") != 0;
}
