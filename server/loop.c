/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libuv handles are closed asynchronously: each of ours is a heap object whose memory is freed by
 * libuv's close callback.
 */
#include "server/loop.h"

#include <stdlib.h>
#include <uv.h>

struct loop {
	uv_loop_t uv;
};

struct handle {
	void (*call)(void *arg);
	void *arg;
};

struct loop_timer {
	uv_timer_t uv;
	struct handle handle;
};
struct loop_poll {
	uv_poll_t uv;
	struct handle handle;
};
struct loop_wake {
	uv_async_t uv;
	struct handle handle;
};
struct loop_before {
	uv_prepare_t uv;
	struct handle handle;
};
struct loop_signal {
	uv_signal_t uv;
	struct handle handle;
};

struct loop *loop_create(void) {
	struct loop *loop = calloc(1, sizeof *loop);
	if (loop && uv_loop_init(&loop->uv) != 0) {
		free(loop);
		return NULL;
	}
	return loop;
}

void loop_destroy(struct loop *loop) {
	if (!loop)
		return;
	uv_run(&loop->uv, UV_RUN_NOWAIT); /* the close callbacks of destroyed handles */
	uv_loop_close(&loop->uv);
	free(loop);
}

void loop_run(struct loop *loop) {
	uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *loop) {
	uv_stop(&loop->uv);
}

static void call_handle(struct handle *handle) {
	handle->call(handle->arg);
}

/* uv is the first member of each kind of handle. */
static void on_close(uv_handle_t *uv) {
	free(uv);
}

static void close_handle(void *uv) {
	if (uv)
		uv_close(uv, on_close);
}

static void on_timer(uv_timer_t *uv) {
	call_handle(&((struct loop_timer *)uv)->handle);
}

struct loop_timer *loop_timer_create(struct loop *loop, void (*call)(void *arg), void *arg) {
	struct loop_timer *timer = calloc(1, sizeof *timer);
	if (!timer)
		return NULL;
	timer->handle = (struct handle){ call, arg };
	uv_timer_init(&loop->uv, &timer->uv);
	return timer;
}

void loop_timer_start(struct loop_timer *timer, uint64_t ms, uint64_t repeat_ms) {
	uv_update_time(timer->uv.loop); /* a callback may have taken long */
	uv_timer_start(&timer->uv, on_timer, ms, repeat_ms);
}

void loop_timer_stop(struct loop_timer *timer) {
	uv_timer_stop(&timer->uv);
}

void loop_timer_destroy(struct loop_timer *timer) {
	close_handle(timer);
}

/* An error of the descriptor is an event too: the callback finds out. */
static void on_poll(uv_poll_t *uv, int status, int events) {
	(void)status;
	(void)events;
	call_handle(&((struct loop_poll *)uv)->handle);
}

struct loop_poll *loop_poll_create(struct loop *loop, int fd, void (*call)(void *arg), void *arg) {
	struct loop_poll *poll = calloc(1, sizeof *poll);
	if (!poll)
		return NULL;
	poll->handle = (struct handle){ call, arg };
	if (uv_poll_init(&loop->uv, &poll->uv, fd) != 0) {
		free(poll);
		return NULL;
	}
	if (uv_poll_start(&poll->uv, UV_READABLE, on_poll) != 0) {
		close_handle(poll);
		return NULL;
	}
	return poll;
}

void loop_poll_destroy(struct loop_poll *poll) {
	if (poll)
		uv_poll_stop(&poll->uv);
	close_handle(poll);
}

static void on_async(uv_async_t *uv) {
	call_handle(&((struct loop_wake *)uv)->handle);
}

struct loop_wake *loop_wake_create(struct loop *loop, void (*call)(void *arg), void *arg) {
	struct loop_wake *wake = calloc(1, sizeof *wake);
	if (!wake)
		return NULL;
	wake->handle = (struct handle){ call, arg };
	if (uv_async_init(&loop->uv, &wake->uv, on_async) != 0) {
		free(wake);
		return NULL;
	}
	return wake;
}

void loop_wake_send(struct loop_wake *wake) {
	uv_async_send(&wake->uv);
}

void loop_wake_destroy(struct loop_wake *wake) {
	close_handle(wake);
}

static void on_prepare(uv_prepare_t *uv) {
	call_handle(&((struct loop_before *)uv)->handle);
}

struct loop_before *loop_before_create(struct loop *loop, void (*call)(void *arg), void *arg) {
	struct loop_before *before = calloc(1, sizeof *before);
	if (!before)
		return NULL;
	before->handle = (struct handle){ call, arg };
	uv_prepare_init(&loop->uv, &before->uv);
	uv_prepare_start(&before->uv, on_prepare);
	return before;
}

void loop_before_destroy(struct loop_before *before) {
	close_handle(before);
}

static void on_signal(uv_signal_t *uv, int number) {
	(void)number;
	call_handle(&((struct loop_signal *)uv)->handle);
}

struct loop_signal *loop_signal_create(
                struct loop *loop, int number, void (*call)(void *arg), void *arg) {
	struct loop_signal *signal = calloc(1, sizeof *signal);
	if (!signal)
		return NULL;
	signal->handle = (struct handle){ call, arg };
	if (uv_signal_init(&loop->uv, &signal->uv) != 0) {
		free(signal);
		return NULL;
	}
	if (uv_signal_start(&signal->uv, on_signal, number) != 0) {
		close_handle(signal);
		return NULL;
	}
	return signal;
}

void loop_signal_destroy(struct loop_signal *signal) {
	close_handle(signal);
}
