/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrohttpd in external epoll mode under our loop; the only file that knows it. What its manual
 * does not say and this file relies on:
 *
 * - Its descriptor is edge-triggered inside. MHD_get_timeout() == 0 means "call me again now", so
 *   the timer is set anew after every MHD_run.
 * - Nothing wakes it up. A resumed connection does nothing until the next MHD_run, so `dirty` is set
 *   and the before-sleep handle runs it. MHD_run is never called from inside one of its callbacks.
 * - The socket of a suspended connection is watched by nobody: watch.h does it meanwhile.
 * - Its timeout is an idle one. Deadlines for head and body are ours, and end a connection with
 *   shutdown(), never close().
 * - An answer can be queued in the first call (head) or the last (whole body), not in between.
 * - MHD_stop_daemon aborts the process if a connection is still suspended.
 */
#include "server/http.h"

#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/clock.h"
#include "server/guard.h"
#include "server/listen.h"
#include "server/log.h"
#include "server/target.h"
#include "server/watch.h"

enum { MOST_HEADERS = 512, PUMPS_PER_TURN = 4, PUMPS_AT_END = 64 };

/* What a connection may be waiting for, each with its own absolute deadline. */
enum phase {
	PHASE_HEAD,
	PHASE_BODY,
	PHASE_ANSWER, /* no deadline of ours: MHD's idle timeout ends a reader that stalls */
	PHASE_IDLE,
};

struct connection {
	int fd;
	enum phase phase;
	int64_t deadline_ns;            /* 0: none */
	struct exchange *last;          /* the exchange that is being read or answered, or NULL */
	struct connection *prev, *next; /* http::connections */
};

struct exchange {
	struct http *http;
	struct MHD_Connection *mhd;
	struct connection *connection;
	void *user;
	char *target, *path; /* raw; decoded without the query */
	char method[16];
	const char *refusal;
	bool begun, is_ready, suspended, gone, drop_body, too_large, crowded;
	uint64_t announced; /* Content-Length */
	bool chunked;
	struct buffer body;

	int status;
	struct MHD_Response *response; /* made, not queued yet */
	bool queued;
	struct buffer out; /* of a stream */
	size_t out_sent;
	enum fill out_state;
	enum fill (*fill)(void *user, struct buffer *out);
	struct exchange *prev, *next; /* http::exchanges */
};

struct http {
	struct http_options options;
	char url[300];
	struct MHD_Daemon *daemon;
	bool dirty, listening, closing;
	struct loop_poll *poll;
	struct loop_timer *timer;          /* MHD's own */
	struct loop_timer *deadline_timer; /* ours: the earliest deadline of a connection */
	int64_t deadline_ns;               /* that the timer is set for; 0: not set */
	struct loop_before *before;
	struct watch *watch;
	struct connection *connections;
	struct exchange *exchanges;
	int n_connections;
	size_t held_bytes; /* of bodies */
};

/* ---- running MHD ---- */

static void pump(struct http *http) {
	MHD_UNSIGNED_LONG_LONG ms;
	http->dirty = false;
	MHD_run(http->daemon);
	if (MHD_get_timeout(http->daemon, &ms) == MHD_YES)
		loop_timer_start(http->timer, ms, 0);
	else
		loop_timer_stop(http->timer);
}

static void on_readable(void *arg) {
	pump(arg);
}

static void before_sleep(void *arg) {
	struct http *http = arg;
	for (int i = 0; i < PUMPS_PER_TURN && http->dirty; i++)
		pump(http);
	if (http->dirty)
		loop_timer_start(http->timer, 0, 0);
}

static void rest(struct exchange *x) {
	MHD_suspend_connection(x->mhd);
	x->suspended = true;
	if (!watch_add(x->http->watch, x->connection->fd, x))
		log_event(LOG_WARN, "client_not_watched",
		                { "reason", LOG_STR("epoll_ctl failed") });
}

static void resume(struct exchange *x) {
	watch_remove(x->http->watch, x->connection->fd);
	x->suspended = false;
	MHD_resume_connection(x->mhd);
	x->http->dirty = true;
}

/* The client of a resting exchange has left: MHD finds `gone` set and ends the connection. */
static void on_gone(void *arg) {
	struct exchange *x = arg;
	x->gone = true;
	if (x->suspended)
		resume(x);
}

/* ---- deadlines ---- */

static void set_phase(struct http *http, struct connection *c, enum phase phase) {
	const struct http_options *o = &http->options;
	int ms = phase == PHASE_HEAD          ? o->header_timeout_ms
	                : phase == PHASE_BODY ? o->body_timeout_ms
	                                      : o->idle_timeout_ms;
	c->phase = phase;
	c->deadline_ns = phase == PHASE_ANSWER ? 0 : clock_now_ns() + (int64_t)ms * 1000000;
	if (!c->deadline_ns || (http->deadline_ns && http->deadline_ns <= c->deadline_ns))
		return;
	http->deadline_ns = c->deadline_ns;
	loop_timer_start(http->deadline_timer, (uint64_t)ms + 1, 0);
}

/* MHD cannot queue an answer in the middle of a body, so the 408 is written past it. */
static void answer_late(struct http *http, struct connection *c) {
	struct exchange *x = c->last;
	struct buffer body = { 0 }, answer = { 0 };
	if (!x || !x->begun || x->queued)
		return;
	x->status = 408;
	http->options.handler.late(http->options.handler.arg, x, &body);
	buffer_printf(&answer,
	                "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
	                "Content-Length: %zu\r\nConnection: close\r\n\r\n",
	                body.len);
	buffer_append(&answer, body.data, body.len);
	if (!answer.failed && !body.failed)
		(void)!send(c->fd, answer.data, answer.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	buffer_finish(&body);
	buffer_finish(&answer);
}

static void on_deadline(void *arg) {
	struct http *http = arg;
	int64_t now = clock_now_ns(), next = 0;
	for (struct connection *c = http->connections; c; c = c->next) {
		if (c->deadline_ns && c->deadline_ns <= now) {
			if (c->phase == PHASE_BODY)
				answer_late(http, c);
			c->deadline_ns = 0;
			shutdown(c->fd, SHUT_RDWR); /* MHD sees the end and closes it */
		}
		if (c->deadline_ns && (!next || c->deadline_ns < next))
			next = c->deadline_ns;
	}
	http->deadline_ns = next;
	if (next)
		loop_timer_start(http->deadline_timer, (uint64_t)((next - now) / 1000000) + 1, 0);
}

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context,
                enum MHD_ConnectionNotificationCode code) {
	struct http *http = arg;
	struct connection *c = *context;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info =
		                MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
		c = calloc(1, sizeof *c);
		if (!c || !info) {
			free(c);
			return; /* on_target refuses its requests */
		}
		c->fd = info->connect_fd;
		listen_tune(c->fd);
		c->next = http->connections;
		if (c->next)
			c->next->prev = c;
		http->connections = c;
		http->n_connections++;
		set_phase(http, c, PHASE_HEAD);
		*context = c;
	} else if (c) {
		if (c->prev)
			c->prev->next = c->next;
		else
			http->connections = c->next;
		if (c->next)
			c->next->prev = c->prev;
		http->n_connections--;
		http->dirty = true; /* at the limit, the next run takes up accepting again */
		free(c);
		*context = NULL;
	}
}

/* ---- reading a request ---- */

/* The request line has been read: the exchange is born, and its head must come in time. */
static void *on_target(void *arg, const char *target, struct MHD_Connection *mhd) {
	struct http *http = arg;
	const union MHD_ConnectionInfo *info =
	                MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct connection *c = info ? info->socket_context : NULL;
	struct exchange *x = c ? calloc(1, sizeof *x) : NULL;
	if (!x)
		return NULL;
	x->http = http;
	x->mhd = mhd;
	x->connection = c;
	x->target = strdup(target);
	x->path = target_path(target);
	if (!x->target || !x->path) {
		free(x->target);
		free(x->path);
		free(x);
		return NULL;
	}
	x->next = http->exchanges;
	if (x->next)
		x->next->prev = x;
	http->exchanges = x;
	c->last = x;
	if (c->phase == PHASE_IDLE)
		set_phase(http, c, PHASE_HEAD);
	return x;
}

static void forget_body(struct exchange *x) {
	x->http->held_bytes -= x->body.len;
	buffer_finish(&x->body);
	x->body = (struct buffer){ 0 };
}

static void exchange_destroy(struct exchange *x) {
	struct http *http = x->http;
	if (x->prev)
		x->prev->next = x->next;
	else
		http->exchanges = x->next;
	if (x->next)
		x->next->prev = x->prev;
	if (x->response)
		MHD_destroy_response(x->response);
	forget_body(x);
	buffer_finish(&x->out);
	free(x->target);
	free(x->path);
	free(x);
}

static void on_completed(void *arg, struct MHD_Connection *mhd, void **context,
                enum MHD_RequestTerminationCode code) {
	struct http *http = arg;
	struct exchange *x = *context;
	(void)mhd;
	if (!x)
		return;
	*context = NULL;
	x->connection->last = NULL;
	set_phase(http, x->connection, PHASE_IDLE);
	if (x->begun)
		http->options.handler.done(http->options.handler.arg, x,
		                code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
	exchange_destroy(x);
}

struct header_list {
	struct guard_header headers[MOST_HEADERS];
	size_t n;
	bool too_many;
};

static enum MHD_Result collect_header(void *arg, enum MHD_ValueKind kind, const char *name,
                size_t name_len, const char *value, size_t value_len) {
	struct header_list *list = arg;
	(void)kind;
	if (list->n == MOST_HEADERS) {
		list->too_many = true;
		return MHD_NO;
	}
	list->headers[list->n++] =
	                (struct guard_header){ name, value ? value : "", name_len, value_len };
	return MHD_YES;
}

static const char *check_head(struct exchange *x, const char *version) {
	struct header_list list = { .n = 0 };
	MHD_get_connection_values_n(x->mhd, MHD_HEADER_KIND, collect_header, &list);
	if (list.too_many)
		return "The request has too many headers.";
	const char *refusal = guard_target(x->target);
	return refusal ? refusal : guard_headers(version, list.headers, list.n);
}

static enum MHD_Result queue(struct exchange *x) {
	enum MHD_Result result = MHD_queue_response(x->mhd, (unsigned)x->status, x->response);
	MHD_destroy_response(x->response);
	x->response = NULL;
	x->queued = true;
	return result;
}

static enum MHD_Result begin(struct exchange *x, const char *method, const char *version) {
	struct http *http = x->http;
	x->begun = true;
	snprintf(x->method, sizeof x->method, "%s", method);
	x->refusal = check_head(x, version);
	const char *length = exchange_header(x, "Content-Length");
	x->announced = length && !x->refusal ? strtoull(length, NULL, 10) : 0;
	x->chunked = exchange_header(x, "Transfer-Encoding") != NULL;
	x->too_large = x->announced > http->options.body_bytes;
	set_phase(http, x->connection, PHASE_BODY);
	http->options.handler.begin(http->options.handler.arg, x);
	if (!x->response)
		return x->gone ? MHD_NO : MHD_YES;
	set_phase(http, x->connection, PHASE_ANSWER);
	return queue(x);
}

static void take_body(struct exchange *x, const char *data, size_t len) {
	struct http *http = x->http;
	x->too_large = x->too_large || x->body.len + len > http->options.body_bytes;
	if (!x->drop_body && http->held_bytes + len > http->options.bodies_bytes)
		x->crowded = true;
	if (x->too_large || x->crowded)
		exchange_drop_body(x);
	if (x->drop_body)
		return;
	size_t before = x->body.len;
	buffer_append(&x->body, data, len);
	http->held_bytes += x->body.len - before;
}

static enum MHD_Result on_access(void *arg, struct MHD_Connection *mhd, const char *url,
                const char *method, const char *version, const char *data, size_t *len,
                void **context) {
	struct exchange *x = *context;
	struct http *http = arg;
	(void)mhd;
	(void)url;
	if (!x || x->gone || http->closing)
		return MHD_NO;
	if (!x->begun)
		return begin(x, method, version);
	if (*len) {
		take_body(x, data, *len);
		*len = 0;
		return MHD_YES;
	}
	if (!x->is_ready) {
		x->is_ready = true;
		set_phase(http, x->connection, PHASE_ANSWER);
		http->options.handler.ready(http->options.handler.arg, x);
	}
	if (x->response)
		return queue(x);
	if (x->gone)
		return MHD_NO;
	rest(x);
	return MHD_YES;
}

/* ---- what the exchange was asked ---- */

void exchange_set_user(struct exchange *x, void *user) {
	x->user = user;
}

void *exchange_user(const struct exchange *x) {
	return x->user;
}

const char *exchange_refusal(const struct exchange *x) {
	return x->refusal;
}

const char *exchange_method(const struct exchange *x) {
	return x->method;
}

const char *exchange_path(const struct exchange *x) {
	return x->path;
}

const char *exchange_header(const struct exchange *x, const char *name) {
	return MHD_lookup_connection_value(x->mhd, MHD_HEADER_KIND, name);
}

struct each_header {
	void (*call)(void *arg, const char *name, const char *value);
	void *arg;
};

static enum MHD_Result call_each(
                void *arg, enum MHD_ValueKind kind, const char *name, const char *value) {
	const struct each_header *each = arg;
	(void)kind;
	each->call(each->arg, name, value ? value : "");
	return MHD_YES;
}

void exchange_each_header(const struct exchange *x,
                void (*call)(void *arg, const char *name, const char *value), void *arg) {
	struct each_header each = { call, arg };
	MHD_get_connection_values(x->mhd, MHD_HEADER_KIND, call_each, &each);
}

bool exchange_has_body(const struct exchange *x) {
	return x->announced > 0 || x->chunked;
}

bool exchange_expects_100(const struct exchange *x) {
	const char *expect = exchange_header(x, "Expect");
	return expect && strcasecmp(expect, "100-continue") == 0;
}

bool exchange_body_too_large(const struct exchange *x) {
	return x->too_large;
}

bool exchange_body_crowded(const struct exchange *x) {
	return x->crowded;
}

const char *exchange_body(const struct exchange *x, size_t *ret_len) {
	*ret_len = x->body.len;
	return x->body.failed ? NULL : x->body.data ? x->body.data : "";
}

void exchange_drop_body(struct exchange *x) {
	x->drop_body = true;
	forget_body(x);
}

/* ---- answering ---- */

static void take_response(struct exchange *x, int status, const struct http_field *fields, size_t n,
                struct MHD_Response *response) {
	if (!response) { /* out of memory: the connection is cut */
		x->gone = true;
	} else {
		for (size_t i = 0; i < n; i++)
			MHD_add_response_header(response, fields[i].name, fields[i].value);
		x->response = response;
	}
	x->status = status;
	if (x->suspended)
		resume(x);
}

void exchange_answer(struct exchange *x, int status, const struct http_field *fields, size_t n,
                struct buffer *body) {
	bool empty = body->len == 0 || body->failed;
	struct MHD_Response *response = MHD_create_response_from_buffer(empty ? 0 : body->len,
	                empty ? (void *)"" : body->data,
	                empty ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
	if (empty || !response)
		buffer_finish(body);
	*body = (struct buffer){ 0 };
	take_response(x, status, fields, n, response);
}

void exchange_answer_static(struct exchange *x, int status, const struct http_field *fields,
                size_t n, const void *body, size_t len) {
	take_response(x, status, fields, n,
	                MHD_create_response_from_buffer(len, (void *)body, MHD_RESPMEM_PERSISTENT));
}

static ssize_t read_stream(void *arg, uint64_t position, char *to, size_t most) {
	struct exchange *x = arg;
	(void)position;
	if (x->gone || x->http->closing)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (x->out_sent == x->out.len && x->out_state == FILL_MORE) {
		buffer_clear(&x->out);
		x->out_sent = 0;
		x->out_state = x->fill(x->user, &x->out);
		if (x->out.failed)
			return MHD_CONTENT_READER_END_WITH_ERROR;
	}
	size_t n = x->out.len - x->out_sent;
	if (n) {
		n = n < most ? n : most;
		memcpy(to, x->out.data + x->out_sent, n);
		x->out_sent += n;
		return (ssize_t)n;
	}
	if (x->out_state == FILL_END)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (x->out_state == FILL_FAIL)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	rest(x);
	return 0;
}

void exchange_stream(struct exchange *x, int status, const struct http_field *fields, size_t n,
                enum fill (*fill)(void *user, struct buffer *out)) {
	x->fill = fill;
	x->out_state = FILL_MORE;
	take_response(x, status, fields, n,
	                MHD_create_response_from_callback(
	                                MHD_SIZE_UNKNOWN, 16384, read_stream, x, NULL));
}

void exchange_wake(struct exchange *x) {
	if (x->suspended && x->queued)
		resume(x);
}

bool exchange_answered(const struct exchange *x) {
	return x->status != 0;
}

int exchange_status(const struct exchange *x) {
	return x->status;
}

/* ---- listeners ---- */

static void on_panic(void *arg, const char *file, unsigned line, const char *reason) {
	(void)arg;
	log_event(LOG_ERROR, "http_library_panic", { "file", LOG_STR(file) },
	                { "line", LOG_INT(line) }, { "reason", LOG_STR(reason) });
	abort();
}

static void on_log(void *arg, const char *format, va_list args) {
	char text[512];
	(void)arg;
	vsnprintf(text, sizeof text, format, args);
	text[strcspn(text, "\n")] = '\0';
	log_event(LOG_DEBUG, "http_library", { "message", LOG_STR(text) });
}

static struct MHD_Daemon *start_daemon(struct http *http, int fd) {
	const struct http_options *o = &http->options;
	return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
	                NULL, NULL, on_access, http, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
	                MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_URI_LOG_CALLBACK, on_target, http,
	                MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
	                MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
	                MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->connections,
	                MHD_OPTION_CONNECTION_MEMORY_LIMIT, o->header_bytes,
	                MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(o->idle_timeout_ms + 999) / 1000,
	                MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
#if MHD_VERSION >= 0x01000000
	                MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1,
#endif
	                MHD_OPTION_END);
}

static bool attach(struct http *http, struct loop *loop) {
	const union MHD_DaemonInfo *info =
	                MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	http->watch = watch_create(loop, http->options.half_close_leaves, on_gone);
	http->timer = loop_timer_create(loop, on_readable, http);
	http->deadline_timer = loop_timer_create(loop, on_deadline, http);
	http->before = loop_before_create(loop, before_sleep, http);
	http->poll = info ? loop_poll_create(loop, info->epoll_fd, on_readable, http) : NULL;
	http->dirty = true;
	return http->watch && http->timer && http->deadline_timer && http->before && http->poll;
}

struct http *http_open(const struct http_options *options, char *err, size_t errlen) {
	struct http *http = calloc(1, sizeof *http);
	if (!http) {
		snprintf(err, errlen, "Out of memory.");
		return NULL;
	}
	http->options = *options;
	MHD_set_panic_func(on_panic, NULL);
	int fd = listen_open(
	                options->host, options->port, http->url, sizeof http->url, err, errlen);
	if (fd < 0) {
		free(http);
		return NULL;
	}
	http->daemon = start_daemon(http, fd);
	if (!http->daemon) {
		close(fd);
		free(http);
		snprintf(err, errlen, "The HTTP library does not start.");
		return NULL;
	}
	http->listening = true;
	if (!attach(http, options->loop)) {
		http_close(http);
		snprintf(err, errlen, "The event loop takes no more handles.");
		return NULL;
	}
	return http;
}

const char *http_url(const struct http *http) {
	return http->url;
}

const char *http_library(void) {
	static char text[64];
	snprintf(text, sizeof text, "libmicrohttpd %s", MHD_get_version());
	return text;
}

int http_connections(const struct http *http) {
	return http->n_connections;
}

void http_close_listener(struct http *http) {
	if (!http->listening)
		return;
	for (int i = 0; i < PUMPS_AT_END; i++)
		pump(http);
	int fd = MHD_quiesce_daemon(http->daemon);
	if (fd >= 0)
		close(fd); /* MHD leaves it open: later clients would wait instead of being refused */
	http->listening = false;
}

void http_close(struct http *http) {
	if (!http)
		return;
	for (struct exchange *x = http->exchanges; x; x = x->next) {
		x->gone = true;
		if (x->suspended)
			resume(x);
	}
	http->closing = true; /* so that nothing is suspended any more */
	for (int i = 0; i < PUMPS_PER_TURN && http->poll; i++)
		MHD_run(http->daemon);
	MHD_stop_daemon(http->daemon);
	watch_destroy(http->watch);
	loop_poll_destroy(http->poll);
	loop_timer_destroy(http->timer);
	loop_timer_destroy(http->deadline_timer);
	loop_before_destroy(http->before);
	free(http);
}
