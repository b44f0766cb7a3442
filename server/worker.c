/* SPDX-License-Identifier: Apache-2.0 */
/* Two lists under one lock: tasks to do and tasks finished. Each is moved out whole. */
#include "server/worker.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

struct list {
	struct task *first, **last;
};

struct worker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct list todo, finished; /* under lock */
	bool stopping;              /* under lock */
	int pending;                /* loop thread */
	struct loop_wake *wake;
};

static void list_append(struct list *list, struct task *task) {
	task->next = NULL;
	if (list->first)
		*list->last = task;
	else
		list->first = task;
	list->last = &task->next;
}

static struct task *list_pop(struct list *list) {
	struct task *task = list->first;
	if (task)
		list->first = task->next;
	return task;
}

static void *run(void *arg) {
	struct worker *w = arg;
	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct task *task = list_pop(&w->todo);
		if (task) {
			pthread_mutex_unlock(&w->lock);
			task->work(task);
			pthread_mutex_lock(&w->lock);
			list_append(&w->finished, task);
			loop_wake_send(w->wake);
		} else if (w->stopping) {
			break;
		} else {
			pthread_cond_wait(&w->changed, &w->lock);
		}
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void on_wake(void *arg) {
	struct worker *w = arg;
	pthread_mutex_lock(&w->lock);
	struct list done = w->finished;
	w->finished.first = NULL;
	pthread_mutex_unlock(&w->lock);
	for (struct task *task; (task = list_pop(&done)) != NULL;) {
		w->pending--;
		task->after(task);
	}
}

struct worker *worker_create(struct loop *loop, const char *name) {
	struct worker *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	w->wake = loop_wake_create(loop, on_wake, w);
	if (!w->wake || pthread_create(&w->thread, NULL, run, w) != 0) {
		loop_wake_destroy(w->wake);
		free(w);
		return NULL;
	}
	pthread_setname_np(w->thread, name);
	return w;
}

void worker_destroy(struct worker *w) {
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	on_wake(w);
	loop_wake_destroy(w->wake);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

void worker_submit(struct worker *w, struct task *task) {
	w->pending++;
	pthread_mutex_lock(&w->lock);
	list_append(&w->todo, task);
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

int worker_pending(const struct worker *w) {
	return w->pending;
}
