/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: the only file that knows libuv. Everything here belongs to the loop's thread but
 * loop_wake_send. A handle is created for a loop and destroyed before it; destroying is safe from
 * inside the handle's own callback.
 */
#ifndef FATHOM_SERVER_LOOP_H
#define FATHOM_SERVER_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_timer;  /* calls back once after a time, or again and again */
struct loop_poll;   /* calls back while a descriptor is readable */
struct loop_wake;   /* calls back after another thread sent it; several sends may become one call */
struct loop_before; /* calls back each time before the loop sleeps */
struct loop_signal; /* calls back when the process gets a signal */

/* NULL if the system refuses. */
struct loop *loop_create(void);
/* All handles must have been destroyed. */
void loop_destroy(struct loop *loop);

/* Runs callbacks until loop_stop. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* All create functions return NULL if the system refuses; destroy functions accept NULL. */
struct loop_timer *loop_timer_create(struct loop *loop, void (*call)(void *arg), void *arg);
/* Calls back after `ms` (0: as soon as possible) and then every `repeat_ms` (0: once). */
void loop_timer_start(struct loop_timer *timer, uint64_t ms, uint64_t repeat_ms);
void loop_timer_stop(struct loop_timer *timer);
void loop_timer_destroy(struct loop_timer *timer);

/* `fd` stays the caller's and must outlive the handle. */
struct loop_poll *loop_poll_create(struct loop *loop, int fd, void (*call)(void *arg), void *arg);
void loop_poll_destroy(struct loop_poll *poll);

struct loop_wake *loop_wake_create(struct loop *loop, void (*call)(void *arg), void *arg);
void loop_wake_send(struct loop_wake *wake); /* any thread, and signal handlers */
void loop_wake_destroy(struct loop_wake *wake);

struct loop_before *loop_before_create(struct loop *loop, void (*call)(void *arg), void *arg);
void loop_before_destroy(struct loop_before *before);

struct loop_signal *loop_signal_create(
                struct loop *loop, int number, void (*call)(void *arg), void *arg);
void loop_signal_destroy(struct loop_signal *signal);

#endif
