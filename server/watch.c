/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One epoll set, itself watched by the loop. Events are level-triggered but one-shot: a client that
 * left is reported once and does not make the loop spin.
 */
#include "server/watch.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

struct watch {
	int set;
	uint32_t events;
	struct loop_poll *poll;
	void (*gone)(void *arg);
};

/*
 * One event at a time: the callback may remove other sockets, whose events must not be seen
 * any more.
 */
static void on_events(void *arg) {
	struct watch *watch = arg;
	struct epoll_event event;
	while (epoll_wait(watch->set, &event, 1, 0) == 1)
		watch->gone(event.data.ptr);
}

struct watch *watch_create(struct loop *loop, bool half_close_leaves, void (*gone)(void *arg)) {
	struct watch *watch = calloc(1, sizeof *watch);
	if (!watch)
		return NULL;
	watch->gone = gone;
	/* EPOLLERR and EPOLLHUP are always reported. */
	watch->events = EPOLLONESHOT | (half_close_leaves ? (uint32_t)EPOLLRDHUP : 0);
	watch->set = epoll_create1(EPOLL_CLOEXEC);
	if (watch->set >= 0)
		watch->poll = loop_poll_create(loop, watch->set, on_events, watch);
	if (!watch->poll) {
		watch_destroy(watch);
		return NULL;
	}
	return watch;
}

void watch_destroy(struct watch *watch) {
	if (!watch)
		return;
	loop_poll_destroy(watch->poll);
	if (watch->set >= 0)
		close(watch->set);
	free(watch);
}

bool watch_add(struct watch *watch, int fd, void *arg) {
	struct epoll_event event = { .events = watch->events, .data.ptr = arg };
	return epoll_ctl(watch->set, EPOLL_CTL_ADD, fd, &event) == 0;
}

void watch_remove(struct watch *watch, int fd) {
	epoll_ctl(watch->set, EPOLL_CTL_DEL, fd, NULL);
}
