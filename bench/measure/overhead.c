/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-overhead HOST PORT DEPTH TOKENS ROUNDS: what HTTP costs on top of the engine, with one client
 * on one kept connection of a running server. Plain and streamed answers are asked for in turn over
 * a plain socket, so that the client costs next to nothing. bench/overhead.py starts the server.
 */
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_BYTES = 1 << 20, ROUNDS_MOST = 10000, WARMUP = 20 };

static char answer[ANSWER_BYTES];

static void die(const char *what) {
	fprintf(stderr, "bench-overhead: %s\n", what);
	exit(2);
}

static double now_us(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static int dial(const char *host, const char *port) {
	struct addrinfo *found, hints = { .ai_socktype = SOCK_STREAM };
	int on = 1;
	if (getaddrinfo(host, port, &hints, &found) != 0)
		die("no such host");
	int fd = socket(found->ai_family, found->ai_socktype, 0);
	if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0)
		die("cannot connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	freeaddrinfo(found);
	return fd;
}

/* Plain answers end with "}}", streams with an empty chunk; neither stands inside. */
static bool is_whole(size_t n, bool stream) {
	const char *end = stream ? "\r\n0\r\n\r\n" : "}}";
	size_t len = strlen(end);
	return n > len && memcmp(answer + n - len, end, len) == 0;
}

/* Returns microseconds of wall time. */
static double ask(int fd, const char *request, bool stream) {
	size_t n = 0, len = strlen(request);
	double began = now_us();
	if (send(fd, request, len, 0) != (ssize_t)len)
		die("cannot send");
	while (!is_whole(n, stream)) {
		ssize_t got = recv(fd, answer + n, sizeof answer - 1 - n, 0);
		if (got <= 0)
			die("the server closed the connection");
		n += (size_t)got;
	}
	double took = now_us() - began;
	answer[n] = '\0';
	return took;
}

static double number(const char *name) {
	const char *at = strstr(answer, name);
	if (!at)
		die(answer);
	return atof(at + strlen(name));
}

static double engine_us(void) {
	return 1e3 * (number("\"prefill_ms\":") + number("\"decode_ms\":"));
}

static void write_request(char *request, size_t size, const char *depth, int tokens, bool stream) {
	char body[512];
	int n = snprintf(body, sizeof body,
	                "{\"prompt\":\"The river town was built on a hill\",\"max_tokens\":%d,"
	                "\"depth\":\"%s\",\"temperature\":0,\"ignore_eos\":true,"
	                "\"cache_prompt\":false,\"stream\":%s}",
	                tokens, depth, stream ? "true" : "false");
	snprintf(request, size,
	                "POST /v1/completions HTTP/1.1\r\nHost: bench\r\n"
	                "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
	                n, body);
}

static int by_size(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *values, int n) {
	qsort(values, (size_t)n, sizeof *values, by_size);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

int main(int argc, char **argv) {
	static double plain[ROUNDS_MOST], engine[ROUNDS_MOST], added[ROUNDS_MOST];
	static double streamed[ROUNDS_MOST];
	char request[2][1024];
	if (argc != 6)
		die("usage: bench-overhead HOST PORT DEPTH TOKENS ROUNDS");
	int tokens = atoi(argv[4]), rounds = atoi(argv[5]), fd = dial(argv[1], argv[2]);
	if (tokens < 1 || rounds < 1 || rounds > ROUNDS_MOST)
		die("TOKENS or ROUNDS is out of range");
	for (int stream = 0; stream < 2; stream++)
		write_request(request[stream], sizeof request[stream], argv[3], tokens, stream);
	for (int i = -WARMUP; i < rounds; i++) {
		int at = i < 0 ? 0 : i;
		double wall = ask(fd, request[0], false);
		engine[at] = engine_us();
		plain[at] = wall - engine[at];
		double wall_streamed = ask(fd, request[1], true);
		added[at] = (wall_streamed - wall) / tokens;
		streamed[at] = wall_streamed - engine_us();
	}
	double step = median(engine, rounds) / tokens, per_request = median(plain, rounds);
	double end = (median(streamed, rounds) - per_request) / tokens;
	double per_token = median(added, rounds);
	printf("engine %.1f us per token\n"
	       "per request %.3f ms on top of the engine\n"
	       "per streamed token %.1f us, of it %.1f us on top of the engine's own time\n",
	                step, per_request * 1e-3, per_token, end);
	close(fd);
	return per_request <= 300 && per_token <= 20 ? 0 : 1;
}
