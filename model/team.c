/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compute team. Members wait for a counter to change: the start counter between runs, the
 * barrier's generation inside. A wait spins first (a parked thread takes some 65 us to wake, a
 * spinning one 0.05) and then parks on one condition variable that all waits share.
 *
 * A spinning member never yields its core: the scheduler would give a neighbour's whole slice of
 * milliseconds for it, at every barrier. Where another member shares its core, that one cannot arrive
 * while it spins: then it moves to a core of its own, or parks at once.
 *
 * Members of large teams arrive at counters of a tree, so that no cache line is written by more than
 * FAN of them.
 */
#include "model/team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ops.h"

enum {
	CACHE_LINE = 64,
	SPINS = 2000,     /* pauses before parking: about 50 us, 20 to 100 by processor */
	SPINS_QUICK = 64, /* after which it is worth asking who shares the core */
	FAN = 8,          /* members, or counters, that meet at one counter */
};

struct member {
	_Alignas(CACHE_LINE) struct team *team;
	int index;
	atomic_int cpu; /* where it last waited long or woke others; -1: not known */
	pthread_t thread;
	unsigned dealings;                              /* it has taken part in */
	_Alignas(CACHE_LINE) atomic_uint_fast64_t left; /* of its share: tag, first, end */
};

/* Where up to FAN members or lower counters meet; the last to arrive goes on to the parent. */
struct meeting {
	_Alignas(CACHE_LINE) atomic_int arrived;
	int expected;
	struct meeting *parent; /* NULL: all are there */
};

struct team {
	int size, started; /* members; threads that exist besides the caller */
	struct member *members;
	struct meeting *meetings; /* the leaves first: member i arrives at meetings[i / FAN] */
	int *cpus, n_cpus;        /* member i is pinned to cpus[i % n_cpus]; none: not pinned */
	void (*fn)(void *arg, int member);
	void *arg;
	bool crowded;  /* more members than processors */
	bool stopping; /* written before start changes */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	_Alignas(CACHE_LINE) atomic_uint start;      /* runs begun */
	_Alignas(CACHE_LINE) atomic_uint generation; /* barriers completed */
	_Alignas(CACHE_LINE) atomic_int parked;      /* threads that may need waking */
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/* Pins the calling thread to one processor; without a word if that is not allowed any more. */
static void pin(int cpu) {
	size_t bytes = CPU_ALLOC_SIZE((size_t)cpu + 1);
	cpu_set_t *one = CPU_ALLOC((size_t)cpu + 1);
	if (!one)
		return;
	CPU_ZERO_S(bytes, one);
	CPU_SET_S((size_t)cpu, bytes, one);
	sched_setaffinity(0, bytes, one);
	CPU_FREE(one);
}

/*
 * Moves the calling thread to the index-th processor that it may use, and lets it go again. New
 * threads can start on one processor and spin against each other there for a third of a second
 * before the kernel parts them; once apart they stay apart. Pinned members stay where they are put.
 */
static void settle(const struct team *team, int index) {
	cpu_set_t allowed, one;
	if (team->n_cpus > 0) {
		pin(team->cpus[index % team->n_cpus]);
		return;
	}
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

/* Notes where the member runs, and returns it. */
static int note_cpu(struct team *team, int member) {
	int cpu = sched_getcpu();
	atomic_store_explicit(&team->members[member].cpu, cpu, memory_order_relaxed);
	return cpu;
}

/* Whether another member was last seen on the core that this one runs on. */
static bool shares_core(struct team *team, int member) {
	int cpu = note_cpu(team, member);
	for (int i = 0; i < team->size; i++) {
		if (i != member && cpu >= 0
		                && atomic_load_explicit(&team->members[i].cpu, memory_order_relaxed)
		                                == cpu)
			return true;
	}
	return false;
}

/* Wakes all who wait; the counter they wait for has been changed. */
static void wake(struct team *team, int member) {
	if (atomic_load(&team->parked) == 0)
		return;
	note_cpu(team, member); /* who is always last would not be known to have moved */
	pthread_mutex_lock(&team->lock);
	pthread_cond_broadcast(&team->changed);
	pthread_mutex_unlock(&team->lock);
}

static bool spin(atomic_uint *counter, unsigned old, int spins) {
	for (int i = 0; i < spins; i++) {
		if (atomic_load_explicit(counter, memory_order_acquire) != old)
			return true;
		relax();
	}
	return false;
}

/*
 * Returns once *counter differs from `old`. A sleeper announces itself before it looks a last time,
 * and a waker changes the counter before it looks for sleepers, both in one total order: one of the
 * two sees the other.
 */
static void wait_for_change(struct team *team, atomic_uint *counter, unsigned old, int member) {
	if (spin(counter, old, SPINS_QUICK))
		return;
	bool shared = shares_core(team, member);
	if (shared && !team->crowded) {
		settle(team, member);
		shared = shares_core(team, member);
	}
	if (!shared && spin(counter, old, SPINS - SPINS_QUICK))
		return;
	pthread_mutex_lock(&team->lock);
	atomic_fetch_add(&team->parked, 1);
	while (atomic_load(counter) == old)
		pthread_cond_wait(&team->changed, &team->lock);
	atomic_fetch_sub(&team->parked, 1);
	pthread_mutex_unlock(&team->lock);
}

/* Whether all members have arrived with this one. Counters are left ready for the next barrier. */
static bool arrive(struct meeting *at) {
	for (; at; at = at->parent) {
		if (atomic_fetch_add(&at->arrived, 1) + 1 < at->expected)
			return false;
		atomic_store_explicit(&at->arrived, 0, memory_order_relaxed);
	}
	return true;
}

void team_barrier(struct team *team, int member) {
	if (team->size == 1)
		return;
	unsigned old = atomic_load_explicit(&team->generation, memory_order_relaxed);
	if (!arrive(&team->meetings[member / FAN])) {
		wait_for_change(team, &team->generation, old, member);
		return;
	}
	atomic_store(&team->generation, old + 1);
	wake(team, member);
}

static void *member_main(void *arg) {
	struct member *member = arg;
	struct team *team = member->team;
	settle(team, member->index);
	for (unsigned seen = 0;; seen++) {
		wait_for_change(team, &team->start, seen, member->index);
		if (team->stopping)
			return NULL;
		team->fn(team->arg, member->index);
		team_barrier(team, member->index);
	}
}

void team_run(struct team *team, void (*fn)(void *arg, int member), void *arg) {
	static _Thread_local bool settled;
	if (!settled && team->size > 1)
		settle(team, 0);
	settled = true;
	team->fn = fn;
	team->arg = arg;
	atomic_fetch_add(&team->start, 1);
	wake(team, 0);
	fn(arg, 0);
	team_barrier(team, 0);
}

/*
 * Threads of the team take no signals: those are the business of whoever owns the process. But for the
 * faults of their own: a fault that is blocked ends the process before any handler can say why.
 */
static bool start_threads(struct team *team, char *err, size_t errlen) {
	static const int faults[] = { SIGBUS, SIGSEGV, SIGFPE, SIGILL };
	sigset_t others, before;
	sigfillset(&others);
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		sigdelset(&others, faults[i]);
	pthread_sigmask(SIG_SETMASK, &others, &before);
	int failed = 0;
	for (int i = 1; i < team->size && !failed; i++) {
		struct member *member = &team->members[i];
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

/* Counters for `n` members, and those above them; the leaves first. */
static struct meeting *make_meetings(int n) {
	int total = 0;
	for (int width = n; width > 1 || total == 0; total += width)
		width = (width + FAN - 1) / FAN;
	struct meeting *meetings = aligned_alloc(CACHE_LINE, (size_t)total * sizeof *meetings);
	if (!meetings)
		return NULL;
	struct meeting *level = meetings;
	for (int below = n; level < meetings + total;) {
		int width = (below + FAN - 1) / FAN;
		struct meeting *above = level + width;
		for (int i = 0; i < width; i++) {
			atomic_init(&level[i].arrived, 0);
			level[i].expected = below - i * FAN < FAN ? below - i * FAN : FAN;
			level[i].parent = width > 1 ? &above[i / FAN] : NULL;
		}
		below = width;
		level = above;
	}
	return meetings;
}

static struct member *make_members(struct team *team, int n) {
	struct member *members = aligned_alloc(CACHE_LINE, (size_t)n * sizeof *members);
	for (int i = 0; members && i < n; i++) {
		members[i] = (struct member){ .team = team, .index = i };
		atomic_init(&members[i].cpu, -1);
		atomic_init(&members[i].left, 0);
	}
	return members;
}

static void team_free(struct team *team) {
	free(team->members);
	free(team->meetings);
	free(team->cpus);
	free(team);
}

static struct team *make_team(int threads, const int *cpus, int n_cpus) {
	struct team *team = aligned_alloc(CACHE_LINE, sizeof *team);
	if (!team)
		return NULL;
	memset(team, 0, sizeof *team);
	team->size = threads;
	team->members = make_members(team, threads);
	team->meetings = make_meetings(threads);
	team->n_cpus = n_cpus;
	team->cpus = calloc((size_t)n_cpus + 1, sizeof *team->cpus);
	if (!team->members || !team->meetings || !team->cpus) {
		team_free(team);
		return NULL;
	}
	for (int i = 0; i < n_cpus; i++)
		team->cpus[i] = cpus[i];
	cpu_set_t allowed;
	team->crowded = sched_getaffinity(0, sizeof allowed, &allowed) == 0
	                && threads > CPU_COUNT(&allowed);
	pthread_mutex_init(&team->lock, NULL);
	pthread_cond_init(&team->changed, NULL);
	return team;
}

struct team *team_create_pinned(
                int threads, const int *cpus, int n_cpus, char *err, size_t errlen) {
	if (!ops_float_env_ok()) {
		snprintf(err, errlen,
		                "the floating-point environment is not the default: kernels need "
		                "rounding to nearest and denormal numbers");
		return NULL;
	}
	struct team *team = make_team(threads, cpus, n_cpus);
	if (!team) {
		snprintf(err, errlen, "no memory for %d compute threads", threads);
		return NULL;
	}
	if (!start_threads(team, err, errlen)) {
		team_destroy(team);
		return NULL;
	}
	return team;
}

struct team *team_create(int threads, char *err, size_t errlen) {
	return team_create_pinned(threads, NULL, 0, err, errlen);
}

void team_destroy(struct team *team) {
	if (!team)
		return;
	team->stopping = true;
	atomic_fetch_add(&team->start, 1);
	wake(team, 0);
	for (int i = 1; i <= team->started; i++)
		pthread_join(team->members[i].thread, NULL);
	pthread_cond_destroy(&team->changed);
	pthread_mutex_destroy(&team->lock);
	team_free(team);
}

int team_size(const struct team *team) {
	return team->size;
}

void team_share(int items, int member, int members, int *ret_first, int *ret_end) {
	int each = items / members, more = items % members;
	*ret_first = member * each + (member < more ? member : more);
	*ret_end = *ret_first + each + (member < more);
}

/* ---- dealing ---- */

static uint64_t left_of(unsigned tag, int first, int end) {
	return (uint64_t)(tag & 0xffff) << 48 | (uint64_t)first << 24 | (uint64_t)end;
}

static int first_of(uint64_t left) {
	return (int)(left >> 24 & 0xffffff);
}

static int end_of(uint64_t left) {
	return (int)(left & 0xffffff);
}

/* What is left of a member's share. Nobody has touched it where its tag is of an earlier dealing. */
static uint64_t whats_left(const struct dealing *d, uint64_t word, int member) {
	int first, end;
	if (word >> 48 == (d->tag & 0xffff))
		return word;
	team_share(d->items, member, d->team->size, &first, &end);
	return left_of(d->tag, first, end);
}

void team_deal(struct team *team, int member, int items, int claim, struct dealing *ret) {
	*ret = (struct dealing){ .team = team, .member = member, .items = items, .claim = claim };
	ret->tag = ++team->members[member].dealings;
}

/* Takes from the front of one's own share, from the end of another's. */
static bool take(const struct dealing *d, int from, int *ret_first, int *ret_end) {
	atomic_uint_fast64_t *at = &d->team->members[from].left;
	uint64_t word = atomic_load_explicit(at, memory_order_relaxed), left, rest;
	int first, end, n;
	do {
		left = whats_left(d, word, from);
		first = first_of(left);
		end = end_of(left);
		n = end - first < d->claim ? end - first : d->claim;
		if (n == 0)
			return false;
		rest = from == d->member ? left_of(d->tag, first + n, end)
		                         : left_of(d->tag, first, end - n);
	} while (!atomic_compare_exchange_weak_explicit(
	                at, &word, rest, memory_order_relaxed, memory_order_relaxed));
	*ret_first = from == d->member ? first : end - n;
	*ret_end = *ret_first + n;
	return true;
}

/* Whose share has most left; -1: all have been dealt. */
static int richest(const struct dealing *d) {
	int best = -1, most = 0;
	for (int i = 0; i < d->team->size; i++) {
		uint64_t left = whats_left(d,
		                atomic_load_explicit(
		                                &d->team->members[i].left, memory_order_relaxed),
		                i);
		int n = end_of(left) - first_of(left);
		if (n > most) {
			best = i;
			most = n;
		}
	}
	return best;
}

bool team_claim(struct dealing *d, int *ret_first, int *ret_end) {
	if (take(d, d->member, ret_first, ret_end))
		return true;
	for (int from; (from = richest(d)) >= 0;)
		if (take(d, from, ret_first, ret_end))
			return true;
	return false;
}
