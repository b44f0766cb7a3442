/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fathom health: asks GET /health of the server that the same configuration describes; exit status
 * 0 if it is ready. Made for a container's HEALTHCHECK: takes the flags, variables and file of
 * `fathom serve`.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "config/config.h"

enum { TIMEOUT_SECONDS = 5 };

/* A server that listens on every address is asked on loopback. */
static const char *reachable(const char *host) {
	if (strcmp(host, "0.0.0.0") == 0)
		return "127.0.0.1";
	return strcmp(host, "::") == 0 ? "::1" : host;
}

static int connect_to(const char *host, int port, char *err, size_t errlen) {
	char service[16];
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	snprintf(service, sizeof service, "%d", port);
	int status = getaddrinfo(host, service, &hints, &found);
	if (status != 0) {
		snprintf(err, errlen, "%s: %s", host, gai_strerror(status));
		return -1;
	}
	int fd = -1;
	for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
		struct timeval timeout = { .tv_sec = TIMEOUT_SECONDS };
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
		if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(found);
	if (fd < 0)
		snprintf(err, errlen, "no server at %s port %d: %s", host, port, strerror(errno));
	return fd;
}

/* The status code of GET /health, or -1. */
static int ask(const char *host, int port, char *err, size_t errlen) {
	static const char request[] = "GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n";
	char answer[64] = "";
	int code = -1;
	int fd = connect_to(host, port, err, errlen);
	if (fd < 0)
		return -1;
	if (write(fd, request, sizeof request - 1) != (ssize_t)(sizeof request - 1)
	                || read(fd, answer, sizeof answer - 1) <= 0
	                || sscanf(answer, "HTTP/%*d.%*d %d", &code) != 1)
		snprintf(err, errlen, "no answer from %s port %d within %d s", host, port,
		                TIMEOUT_SECONDS);
	close(fd);
	return code;
}

int health_main(int argc, char **argv) {
	struct config config;
	bool help;
	char err[512];
	bool ok = config_load(
	                &config, argc - 1, argv + 1, environ, &help, NULL, 0, err, sizeof err);
	if (help) {
		puts("usage: fathom health [the flags of fathom serve]\n"
		     "Exit status 0: the server is ready; 1: it is not; 2: the configuration is "
		     "wrong.");
		config_finish(&config);
		return 0;
	}
	if (!ok) {
		fprintf(stderr, "fathom health: %s\n", err);
		config_finish(&config);
		return 2;
	}
	bool admin = config.admin_port > 0;
	int code = ask(reachable(admin ? config.admin_host : config.host),
	                admin ? config.admin_port : config.port, err, sizeof err);
	config_finish(&config);
	if (code == 200) {
		puts("ready");
		return 0;
	}
	if (code > 0)
		printf("not ready: status %d\n", code);
	else
		fprintf(stderr, "fathom health: %s\n", err);
	return 1;
}
