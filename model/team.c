/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compute team. Members wait for a counter to change: the start counter between runs, the
 * barrier's generation inside. A wait spins first (a parked thread takes some 65 us to wake, a
 * spinning one 0.05) and then parks on one condition variable that all waits share.
 */
#include "model/team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ops.h"

enum {
	CACHE_LINE = 64,
	SPINS = 2000,          /* pauses before parking: about 50 us, 20 to 100 by processor */
	SPINS_PER_YIELD = 256, /* lets the others run where there are more threads than cores */
};

struct member {
	struct team *team;
	int index;
	pthread_t thread;
};

struct team {
	int size, started; /* members; threads that exist besides the caller */
	struct member *members;
	void (*fn)(void *arg, int member);
	void *arg;
	bool stopping; /* written before start changes */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	_Alignas(CACHE_LINE) atomic_uint start;      /* runs begun */
	_Alignas(CACHE_LINE) atomic_uint generation; /* barriers completed */
	_Alignas(CACHE_LINE) atomic_int arrived;     /* members at the present barrier */
	_Alignas(CACHE_LINE) atomic_int parked;      /* threads that may need waking */
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/* Wakes all who wait; the counter they wait for has been changed. */
static void wake(struct team *team) {
	if (atomic_load(&team->parked) == 0)
		return;
	pthread_mutex_lock(&team->lock);
	pthread_cond_broadcast(&team->changed);
	pthread_mutex_unlock(&team->lock);
}

/*
 * Returns once *counter differs from `old`. A sleeper announces itself before it looks a last time,
 * and a waker changes the counter before it looks for sleepers, both in one total order: one of the
 * two sees the other.
 */
static void wait_for_change(struct team *team, atomic_uint *counter, unsigned old) {
	for (int spin = 1; spin <= SPINS; spin++) {
		if (atomic_load_explicit(counter, memory_order_acquire) != old)
			return;
		if (spin % SPINS_PER_YIELD == 0)
			sched_yield();
		else
			relax();
	}
	pthread_mutex_lock(&team->lock);
	atomic_fetch_add(&team->parked, 1);
	while (atomic_load(counter) == old)
		pthread_cond_wait(&team->changed, &team->lock);
	atomic_fetch_sub(&team->parked, 1);
	pthread_mutex_unlock(&team->lock);
}

void team_barrier(struct team *team, int member) {
	if (team->size == 1)
		return;
	unsigned old = atomic_load_explicit(&team->generation, memory_order_relaxed);
	if (atomic_fetch_add(&team->arrived, 1) + 1 < team->size) {
		wait_for_change(team, &team->generation, old);
		return;
	}
	atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
	atomic_store(&team->generation, old + 1);
	wake(team);
}

/*
 * Moves the calling thread to the index-th processor that it may use, and lets it go again. New
 * threads can start on one processor and spin against each other there for a third of a second
 * before the kernel parts them; once apart they stay apart, and nothing is pinned.
 */
static void settle(int index) {
	cpu_set_t allowed, one;
	if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
		return;
	int left = index % CPU_COUNT(&allowed), cpu = 0;
	while (cpu < CPU_SETSIZE - 1 && (!CPU_ISSET(cpu, &allowed) || left-- > 0))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof one, &one) == 0)
		sched_setaffinity(0, sizeof allowed, &allowed);
}

static void *member_main(void *arg) {
	struct member *member = arg;
	struct team *team = member->team;
	settle(member->index);
	for (unsigned seen = 0;; seen++) {
		wait_for_change(team, &team->start, seen);
		if (team->stopping)
			return NULL;
		team->fn(team->arg, member->index);
		team_barrier(team, member->index);
	}
}

void team_run(struct team *team, void (*fn)(void *arg, int member), void *arg) {
	static _Thread_local bool settled;
	if (!settled && team->size > 1)
		settle(0);
	settled = true;
	team->fn = fn;
	team->arg = arg;
	atomic_fetch_add(&team->start, 1);
	wake(team);
	fn(arg, 0);
	team_barrier(team, 0);
}

/* Threads of the team take no signals: those are the business of whoever owns the process. */
static bool start_threads(struct team *team, char *err, size_t errlen) {
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int failed = 0;
	for (int i = 1; i < team->size && !failed; i++) {
		struct member *member = &team->members[i];
		member->team = team;
		member->index = i;
		failed = pthread_create(&member->thread, NULL, member_main, member);
		if (!failed)
			team->started++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed)
		snprintf(err, errlen, "cannot start %d compute threads: %s", team->size,
		                strerror(failed));
	return !failed;
}

struct team *team_create(int threads, char *err, size_t errlen) {
	if (!ops_float_env_ok()) {
		snprintf(err, errlen,
		                "the floating-point environment is not the default: kernels need "
		                "rounding to nearest and denormal numbers");
		return NULL;
	}
	struct team *team = aligned_alloc(CACHE_LINE, sizeof *team);
	struct member *members = calloc((size_t)threads, sizeof *members);
	if (!team || !members) {
		free(team);
		free(members);
		snprintf(err, errlen, "no memory for %d compute threads", threads);
		return NULL;
	}
	memset(team, 0, sizeof *team);
	team->size = threads;
	team->members = members;
	pthread_mutex_init(&team->lock, NULL);
	pthread_cond_init(&team->changed, NULL);
	if (!start_threads(team, err, errlen)) {
		team_destroy(team);
		return NULL;
	}
	return team;
}

void team_destroy(struct team *team) {
	if (!team)
		return;
	team->stopping = true;
	atomic_fetch_add(&team->start, 1);
	wake(team);
	for (int i = 1; i <= team->started; i++)
		pthread_join(team->members[i].thread, NULL);
	pthread_cond_destroy(&team->changed);
	pthread_mutex_destroy(&team->lock);
	free(team->members);
	free(team);
}

int team_size(const struct team *team) {
	return team->size;
}

void team_share(int items, int member, int members, int *ret_first, int *ret_end) {
	int each = items / members, more = items % members;
	*ret_first = member * each + (member < more ? member : more);
	*ret_end = *ret_first + each + (member < more);
}
