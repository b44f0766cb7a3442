/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compute team: a fixed set of threads that run one function side by side.
 *
 * The caller of team_run is member 0 and takes part. Members meet at barriers inside the function.
 * Between runs (and at long barriers) a member spins for some tens of microseconds and then parks,
 * so that an idle server uses no processor time. This file and team.c hold the only synchronisation
 * in model/.
 */
#ifndef FATHOM_MODEL_TEAM_H
#define FATHOM_MODEL_TEAM_H

#include <stdbool.h>
#include <stddef.h>

struct team;

/* `threads` >= 1 counts the caller. Returns NULL with a sentence in `err`. */
struct team *team_create(int threads, char *err, size_t errlen);
/*
 * The same with member i held on processor cpus[i % n_cpus], if that is allowed; the caller of
 * team_run is from its first run on. n_cpus 0: the system places all.
 */
struct team *team_create_pinned(int threads, const int *cpus, int n_cpus, char *err, size_t errlen);
void team_destroy(struct team *team);

int team_size(const struct team *team);

/*
 * Runs fn(arg, member) once on every member, member = 0 .. team_size - 1, and returns when all have
 * returned.
 */
void team_run(struct team *team, void (*fn)(void *arg, int member), void *arg);

/*
 * Inside fn: returns when all members have called it as often. What was written before is visible
 * after.
 */
void team_barrier(struct team *team, int member);

/*
 * The contiguous share [*ret_first, *ret_end) of `items` that is `member`'s of `members`; sizes
 * differ by at most one.
 */
void team_share(int items, int member, int members, int *ret_first, int *ret_end);

/*
 * Dealing inside fn: `items` are cut into the members' shares as by team_share; each member takes its
 * own share from the front, `claim` items at a time, and then what others have left from their ends,
 * so that a slow member holds nobody up for longer than one claim. All members deal as often and with
 * the same numbers; a barrier lies between two dealings. team_size <= items < 2^24.
 */
struct dealing {
	struct team *team;
	int member, items, claim;
	unsigned tag; /* of this dealing */
};

void team_deal(struct team *team, int member, int items, int claim, struct dealing *ret);
/* The next items [*ret_first, *ret_end) for this member; false: there are none left. */
bool team_claim(struct dealing *deal, int *ret_first, int *ret_end);

#endif
