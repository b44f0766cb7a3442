/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client over libcurl and libuv: libcurl says which sockets and when, libuv waits. The only file
 * that knows libcurl.
 */
#include "bench/client/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

enum { TICK_MS = 100, URL_SIZE = 2048, SPARE_DESCRIPTORS = 64, MOST_FETCHED = 64 << 20 };

/* What waits for one descriptor; kept by its number and used again. */
struct watch {
	uv_poll_t poll;
	struct client *client;
	curl_socket_t socket;
};

struct client {
	uv_loop_t loop;
	uv_timer_t curl_timer, tick;
	uv_timer_t sweep; /* tells who ended while it was sent */
	uv_poll_t alarm;
	uv_signal_t interrupt, terminate;
	int alarm_fd;
	CURLM *multi;
	struct curl_slist *headers;
	struct watch **watches; /* [n_watches] by descriptor */
	size_t n_watches;
	struct client_exchange *first; /* in flight */
	int in_flight;
	struct client_calls calls;
	char url[URL_SIZE];
	double timeout_ms;
	bool insecure, interrupted;
};

bool client_is_present(const char **ret_why) {
	*ret_why = NULL;
	return true;
}

double client_now_ms(void) {
	return (double)uv_hrtime() * 1e-6;
}

int client_in_flight(const struct client *client) {
	return client->in_flight;
}

/* ---- exchanges ------------------------------------------------------------------------------- */

void client_exchange_init(struct client_exchange *x) {
	*x = (struct client_exchange){ 0 };
}

void client_exchange_finish(struct client_exchange *x) {
	if (x->handle)
		curl_easy_cleanup(x->handle);
	x->handle = NULL;
}

static void enter(struct client *client, struct client_exchange *x) {
	x->client = client;
	x->next = client->first;
	x->before = &client->first;
	if (x->next)
		x->next->before = &x->next;
	client->first = x;
	client->in_flight++;
}

/* Takes it off the list and libcurl's; true if it was in flight. */
static bool leave(struct client_exchange *x) {
	if (!x->before)
		return false;
	*x->before = x->next;
	if (x->next)
		x->next->before = x->before;
	x->before = NULL;
	x->client->in_flight--;
	curl_multi_remove_handle(x->client->multi, x->handle);
	return true;
}

static size_t take_data(char *bytes, size_t size, size_t n, void *arg) {
	struct client_exchange *x = arg;
	long status = 0;
	if (x->status == 0) {
		curl_easy_getinfo(x->handle, CURLINFO_RESPONSE_CODE, &status);
		x->status = (int)status;
	}
	if (x->on_data)
		x->on_data(x, bytes, size * n);
	return x->enough ? 0 : size * n;
}

static enum client_failure failure_of(CURLcode code) {
	switch (code) {
	case CURLE_OK:
		return CLIENT_OK;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
		return CLIENT_CONNECT;
	case CURLE_OPERATION_TIMEDOUT:
		return CLIENT_TIMEOUT;
	default:
		return CLIENT_BROKEN;
	}
}

/* One that libcurl is done with. */
static void end(struct client_exchange *x, CURLcode code) {
	long status = 0;
	CURL *easy = x->handle;
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	x->status = (int)status;
	if (code != CURLE_OK)
		snprintf(x->why, sizeof x->why, "%s", curl_easy_strerror(code));
	if (leave(x) && x->on_end)
		x->on_end(x, failure_of(code));
}

static void end_finished(struct client *client) {
	int left;
	CURLMsg *message;
	while ((message = curl_multi_info_read(client->multi, &left))) {
		struct client_exchange *x = NULL;
		CURLcode code = message->data.result;
		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &x);
		end(x, code);
	}
}

void client_cancel_all(struct client *client) {
	while (client->first) {
		struct client_exchange *x = client->first;
		leave(x);
		if (x->on_end)
			x->on_end(x, CLIENT_CANCELLED);
	}
}

/* What is the same for all requests of an exchange. */
static CURL *make_handle(struct client *client, struct client_exchange *x) {
	CURL *easy = curl_easy_init();
	if (!easy)
		return NULL;
	curl_easy_setopt(easy, CURLOPT_PRIVATE, x);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, client->headers);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)client->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	if (client->insecure) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	return easy;
}

static void drive(struct client *client, curl_socket_t socket, int events) {
	int running;
	curl_multi_socket_action(client->multi, socket, events, &running);
	end_finished(client);
}

static void on_sweep(uv_timer_t *timer) {
	end_finished(timer->data);
}

bool client_send(struct client *client, struct client_exchange *x, const char *path,
                const char *body, size_t len, char *err, size_t errlen) {
	char url[URL_SIZE + 256];
	int running;
	if (!x->handle)
		x->handle = make_handle(client, x);
	CURL *easy = x->handle;
	snprintf(url, sizeof url, "%s%.255s", client->url, path);
	if (!easy || curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	if (body) {
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
	} else {
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	}
	x->status = 0;
	x->enough = false;
	x->why[0] = '\0';
	enter(client, x);
	x->sent_ms = client_now_ms();
	if (curl_multi_add_handle(client->multi, easy) != CURLM_OK) {
		leave(x);
		snprintf(err, errlen, "libcurl refuses the request");
		return false;
	}
	/* Sends at once; who has ended by that is told later, so that on_end is never called here. */
	curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	uv_timer_start(&client->sweep, on_sweep, 0, 0);
	return true;
}

/* ---- sockets and timers ---------------------------------------------------------------------- */

static void on_socket(uv_poll_t *poll, int status, int events) {
	struct watch *watch = poll->data;
	int flags = status < 0 ? CURL_CSELECT_ERR : 0;
	flags |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
	flags |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
	drive(watch->client, watch->socket, flags);
}

static struct watch *watch_of(struct client *client, curl_socket_t socket) {
	if ((size_t)socket >= client->n_watches) {
		size_t n = (size_t)socket + 64;
		struct watch **more = realloc(client->watches, n * sizeof *more);
		if (!more)
			return NULL;
		memset(more + client->n_watches, 0, (n - client->n_watches) * sizeof *more);
		client->watches = more;
		client->n_watches = n;
	}
	struct watch *watch = client->watches[socket];
	if (watch)
		return watch;
	watch = calloc(1, sizeof *watch);
	if (!watch)
		return NULL;
	watch->client = client;
	watch->socket = socket;
	watch->poll.data = watch;
	if (uv_poll_init_socket(&client->loop, &watch->poll, socket) != 0) {
		free(watch);
		return NULL;
	}
	client->watches[socket] = watch;
	return watch;
}

static int watch_socket(CURL *easy, curl_socket_t socket, int what, void *arg, void *ignored) {
	struct client *client = arg;
	struct watch *watch = watch_of(client, socket);
	if (!watch)
		return -1;
	if (what == CURL_POLL_REMOVE)
		uv_poll_stop(&watch->poll);
	else
		uv_poll_start(&watch->poll,
		                (what != CURL_POLL_OUT ? UV_READABLE : 0)
		                                | (what != CURL_POLL_IN ? UV_WRITABLE : 0),
		                on_socket);
	return 0;
}

static void on_curl_timer(uv_timer_t *timer) {
	drive(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int set_curl_timer(CURLM *multi, long ms, void *arg) {
	struct client *client = arg;
	if (ms < 0)
		uv_timer_stop(&client->curl_timer);
	else
		uv_timer_start(&client->curl_timer, on_curl_timer, (uint64_t)ms, 0);
	return 0;
}

/* libuv's timers count milliseconds; arrivals need less. */
static void on_alarm(uv_poll_t *poll, int status, int events) {
	struct client *client = poll->data;
	uint64_t expirations;
	if (read(client->alarm_fd, &expirations, sizeof expirations) == sizeof expirations
	                && client->calls.on_wake)
		client->calls.on_wake(client->calls.arg);
}

void client_wake_at(struct client *client, double at_ms) {
	struct itimerspec at = { 0 };
	if (isfinite(at_ms)) {
		double ns = fmax(at_ms * 1e6, 1);
		at.it_value.tv_sec = (time_t)(ns * 1e-9);
		at.it_value.tv_nsec = (long)(ns - (double)at.it_value.tv_sec * 1e9);
	}
	timerfd_settime(client->alarm_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void on_tick(uv_timer_t *timer) {
	struct client *client = timer->data;
	if (client->calls.on_tick)
		client->calls.on_tick(client->calls.arg);
}

static void on_interrupt(uv_signal_t *handle, int number) {
	struct client *client = handle->data;
	uv_signal_stop(&client->interrupt);
	uv_signal_stop(&client->terminate);
	client->interrupted = true;
	if (client->calls.on_interrupt)
		client->calls.on_interrupt(client->calls.arg);
	else
		client_stop(client);
}

void client_set_calls(struct client *client, const struct client_calls *calls) {
	client->calls = *calls;
}

void client_run(struct client *client) {
	uv_run(&client->loop, UV_RUN_DEFAULT);
}

void client_stop(struct client *client) {
	uv_stop(&client->loop);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* Connections that the process may have open; raises its soft limit as far as it may. */
static int most_connections(int wanted) {
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return wanted;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
		getrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > (rlim_t)wanted + SPARE_DESCRIPTORS)
		return wanted;
	return limit.rlim_cur > SPARE_DESCRIPTORS ? (int)limit.rlim_cur - SPARE_DESCRIPTORS : 1;
}

static bool add_header(struct client *client, const char *line) {
	struct curl_slist *more = curl_slist_append(client->headers, line);
	if (more)
		client->headers = more;
	return more;
}

static bool make_headers(struct client *client, const char *api_key) {
	bool ok = add_header(client, "Content-Type: application/json")
	                && add_header(client, "Expect:");
	if (ok && api_key) {
		size_t size = strlen(api_key) + 32;
		char *line = malloc(size);
		if (!line)
			return false;
		snprintf(line, size, "Authorization: Bearer %s", api_key);
		ok = add_header(client, line);
		free(line);
	}
	return ok;
}

static bool start_loop(struct client *client) {
	client->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (client->alarm_fd < 0)
		return false;
	uv_timer_init(&client->loop, &client->curl_timer);
	uv_timer_init(&client->loop, &client->tick);
	uv_timer_init(&client->loop, &client->sweep);
	uv_poll_init(&client->loop, &client->alarm, client->alarm_fd);
	uv_signal_init(&client->loop, &client->interrupt);
	uv_signal_init(&client->loop, &client->terminate);
	client->curl_timer.data = client->tick.data = client->sweep.data = client;
	client->alarm.data = client;
	client->interrupt.data = client->terminate.data = client;
	return uv_poll_start(&client->alarm, UV_READABLE, on_alarm) == 0
	                && uv_timer_start(&client->tick, on_tick, TICK_MS, TICK_MS) == 0
	                && uv_signal_start(&client->interrupt, on_interrupt, SIGINT) == 0
	                && uv_signal_start(&client->terminate, on_interrupt, SIGTERM) == 0;
}

/* The URL that paths of routes go behind, also where it was given as SDKs take it. */
static void copy_base(char url[URL_SIZE], const char *given) {
	snprintf(url, URL_SIZE, "%s", given);
	size_t len = strlen(url);
	while (len > 0 && url[len - 1] == '/')
		url[--len] = '\0';
	if (len > 3 && strcmp(url + len - 3, "/v1") == 0)
		url[len - 3] = '\0';
}

struct client *client_create(const struct client_options *options, char *err, size_t errlen) {
	struct client *client = calloc(1, sizeof *client);
	snprintf(err, errlen, "the client could not be started: memory or descriptors ran out");
	if (!client || curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || uv_loop_init(&client->loop)) {
		free(client);
		return NULL;
	}
	const long connections = most_connections(options->connections);
	copy_base(client->url, options->url);
	client->timeout_ms = options->timeout_ms;
	client->insecure = options->insecure;
	client->multi = curl_multi_init();
	bool ok = start_loop(client) && client->multi && make_headers(client, options->api_key);
	if (ok) {
		CURLM *multi = client->multi;
		curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
		curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, client);
		curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_curl_timer);
		curl_multi_setopt(multi, CURLMOPT_TIMERDATA, client);
		curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, connections);
		curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, connections);
		return client;
	}
	client_destroy(client);
	return NULL;
}

static void close_handle(uv_handle_t *handle, void *ignored) {
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

void client_destroy(struct client *client) {
	if (!client)
		return;
	if (client->multi) {
		client_cancel_all(client);
		curl_multi_cleanup(client->multi);
	}
	uv_walk(&client->loop, close_handle, NULL);
	uv_run(&client->loop, UV_RUN_DEFAULT);
	uv_loop_close(&client->loop);
	for (size_t i = 0; i < client->n_watches; i++)
		free(client->watches[i]);
	free(client->watches);
	if (client->alarm_fd >= 0)
		close(client->alarm_fd);
	curl_slist_free_all(client->headers);
	curl_global_cleanup();
	free(client);
}

/* ---- one request, waited for ----------------------------------------------------------------- */

struct fetch {
	struct client_exchange exchange;
	struct buffer *out;
	enum client_failure failure;
	bool ended;
};

static struct fetch *fetch_of(struct client_exchange *x) {
	return (struct fetch *)((char *)x - offsetof(struct fetch, exchange));
}

static void fetch_data(struct client_exchange *x, const char *bytes, size_t len) {
	struct buffer *out = fetch_of(x)->out;
	x->enough = out->len + len > MOST_FETCHED;
	if (!x->enough)
		buffer_append(out, bytes, len);
}

static void fetch_end(struct client_exchange *x, enum client_failure failure) {
	fetch_of(x)->failure = failure;
	fetch_of(x)->ended = true;
	client_stop(x->client);
}

bool client_fetch(struct client *client, const char *path, const char *body, size_t len,
                int *ret_status, struct buffer *out, char *err, size_t errlen) {
	struct fetch fetch = { .out = out };
	struct client_calls calls = client->calls;
	client_exchange_init(&fetch.exchange);
	fetch.exchange.on_data = fetch_data;
	fetch.exchange.on_end = fetch_end;
	client->calls = (struct client_calls){ 0 };
	bool ok = client_send(client, &fetch.exchange, path, body, len, err, errlen);
	while (ok && !fetch.ended && !client->interrupted)
		client_run(client);
	client->calls = calls;
	if (leave(&fetch.exchange))
		fetch.failure = CLIENT_CANCELLED;
	if (ok && fetch.failure != CLIENT_OK) {
		snprintf(err, errlen, "%s",
		                fetch.failure == CLIENT_CANCELLED ? "interrupted"
		                                                  : fetch.exchange.why);
		ok = false;
	}
	if (ok)
		*ret_status = fetch.exchange.status;
	client_exchange_finish(&fetch.exchange);
	return ok;
}
