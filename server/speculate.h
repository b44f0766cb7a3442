/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shallow drafts, deep verifies: how many tokens are worth drafting, and at which depth. Pure: times
 * come in as numbers.
 *
 * A round drafts k tokens for a sequence, one step each, at a plan nested in its own, and verifies
 * them in one step of k + 1 rows. If a drafted token is accepted with probability a, a round gives
 *
 *	E(k) = 1 + a + ... + a^k tokens    in    T(k) = k draft steps + a step of k + 1 rows.
 *
 * The cost model says what steps take, and the factors by which rounds have differed from it are
 * learnt here. `a` is learnt for each pair of depths, and from there on for each request: as many of
 * its own trials as there were count beside PRIOR_TRIALS of what the pair usually gives.
 *
 * All who are drafted for share the rounds: k is the one that gives the most tokens a second, where
 * nobody's pace falls below 1 / SPECULATE_PATIENCE of what plain decoding would give: those who are
 * not drafted for get one token a round. Where nothing gains SPECULATE_LEAST_GAIN, steps are plain.
 *
 * A pair of depths that was never tried is supposed to be good, so that it is tried. But until trials
 * alone show that it gains, its rounds are paid from an account of the whole server, one for greedy
 * and one for sampled answers: it holds FIRST_STAKE plain steps at first, each step adds PROBE_SHARE
 * of one, accepted tokens of such rounds give back what they saved, and there is a limit. From it one
 * token is also drafted now and then where nothing seems to gain. So drafts that are never right cost
 * a server FIRST_STAKE once, and PROBE_SHARE of the time.
 */
#ifndef FATHOM_SERVER_SPECULATE_H
#define FATHOM_SERVER_SPECULATE_H

#include "server/cost.h"

#define SPECULATE_PATIENCE 1.1
#define SPECULATE_LEAST_GAIN 1.02

enum {
	SPECULATE_MOST = 32,   /* tokens in a round */
	SPECULATE_REVIEW = 16, /* rounds after which a depth is chosen anew */
};

/* A request that may be drafted for. All zero: it is not. */
struct drafter {
	bool on;
	int asked_depth;     /* of the draft; 0: open */
	int most;            /* tokens in a round; 1 .. SPECULATE_MOST */
	enum plan_rule rule; /* of nested plans */
	bool sampled;        /* not greedy: drafts are right less often */

	/* Decided. */
	int tokens;       /* to be drafted in the next round, each sequence; 0: a plain step */
	int depth;        /* of the draft; 0: none is chosen yet, or its plan has changed */
	struct subnet at; /* what drafts run at, of that depth */

	/* Learnt. */
	int rounds;             /* since the depth was chosen */
	double tried, accepted; /* at that depth; they fade */
};

/* One of them in the next step. */
struct speculate_party {
	struct drafter *drafter;
	const struct subnet *subnet;
	int rows;    /* sequences */
	int left;    /* most tokens that one of them may still draft */
	double keys; /* that a row sees, of one kept layer */
};

/* What the next step would be. */
struct speculate_scene {
	struct speculate_party *parties; /* those that may be drafted for */
	int n;
	int layers; /* of the decoder */
	/* Rows of others, all and by layer, and what they attend to as in cost_step. */
	int others;
	const int *other_rows;
	double attended;
	int max_rows; /* of a step */
};

struct speculator;

/* For a decoder of that many layers; NULL if memory ran out. */
struct speculator *speculate_create(int layers);
void speculate_destroy(struct speculator *s);

/* Sets depth, plan and tokens of all parties. Without a fitted model as much is drafted as may be, at
 * half of the layers where no depth was asked. */
void speculate_decide(struct speculator *s, const struct cost_model *cost,
                const struct speculate_scene *scene);

/* What a draft step of these parties is predicted to take, by the cost model alone: the j-th of a
 * round, from 1 on. */
double speculate_draft_ms(
                const struct cost_model *cost, const struct speculate_scene *scene, int j);

/* ---- what rounds teach ---- */

/* Of `drafted` tokens of one sequence the first `accepted` were. */
void speculate_learn(struct speculator *s, struct drafter *d, const struct subnet *subnet,
                int drafted, int accepted);

enum speculate_step { SPECULATE_PLAIN, SPECULATE_DRAFT, SPECULATE_VERIFY, SPECULATE_STEPS };

/* A step took `ratio` times what the cost model had said. */
void speculate_learn_step(struct speculator *s, enum speculate_step step, double ratio);

/* The acceptance that is supposed of a request at a pair of depths. */
double speculate_acceptance(const struct speculator *s, const struct drafter *d, int plan_depth,
                int draft_depth);

#endif
