/* SPDX-License-Identifier: Apache-2.0 */
/* When drafting pays, and what was learnt about it. Arithmetic only. */
#include "server/speculate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is supposed of a pair of depths that nobody has tried: much, so that it is tried. */
#define FIRST_ACCEPTANCE 0.75
#define FIRST_TRIALS 6.0
#define PAIR_TRIALS 512.0 /* the memory of a pair of depths, in tokens, */
#define OWN_TRIALS 64.0   /* and of a request */
#define PRIOR_TRIALS 6.0
#define STEP_WEIGHT (1 / 16.0) /* of a new step in the mean of the last ones */
#define STEP_MOST 1.5          /* no hiccup counts for more */
#define FADE_WEIGHT (1 / 64.0) /* of a plain step in what was learnt of others before */
#define FIRST_STAKE 2.0        /* plain steps that a new server may lose, */
#define PROBE_SHARE 0.003      /* what each plain one adds, */
#define SURE_SHARE 0.02        /* or a round that is known to gain, */
#define MOST_SAVED 2.0         /* and what is kept at most */
#define CHANGE_GAIN 1.05       /* another depth must promise so much more */
#define LEAST_CHANCE 0.15      /* among several: tokens that are rarely accepted are not drafted */

struct trials {
	double tried, accepted;
};

struct speculator {
	int layers;
	/* [2][layers + 1][layers + 1] greedy and sampled, by the plan's and the draft's depth */
	struct trials *pairs;
	double factor[SPECULATE_STEPS]; /* of the cost model's times */
	double saved[2]; /* plain steps that drafts may lose before they pay; greedy, sampled */
	double worth;    /* plain steps that an accepted token of the round saves */
	bool risky;      /* the round was paid for */
	int turn;        /* which of the candidates is probed next */
};

struct speculator *speculate_create(int layers) {
	struct speculator *s = calloc(1, sizeof *s);
	size_t n = (size_t)layers + 1;
	if (!s)
		return NULL;
	s->layers = layers;
	s->pairs = calloc(2 * n * n, sizeof *s->pairs);
	for (int i = 0; i < SPECULATE_STEPS; i++)
		s->factor[i] = 1;
	s->saved[0] = s->saved[1] = FIRST_STAKE;
	if (!s->pairs) {
		free(s);
		return NULL;
	}
	return s;
}

void speculate_destroy(struct speculator *s) {
	if (!s)
		return;
	free(s->pairs);
	free(s);
}

static struct trials *pair_of(const struct speculator *s, const struct drafter *d, int plan_depth,
                int draft_depth) {
	size_t n = (size_t)s->layers + 1;
	return &s->pairs[(d->sampled * n + (size_t)plan_depth) * n + (size_t)draft_depth];
}

/* The acceptance that trials have shown, where `first` is what is supposed without any. */
static double shown(const struct speculator *s, const struct drafter *d, int plan_depth,
                int draft_depth, double first) {
	const struct trials *pair = pair_of(s, d, plan_depth, draft_depth);
	double usual = (pair->accepted + FIRST_TRIALS * first) / (pair->tried + FIRST_TRIALS);
	if (d->depth != draft_depth)
		return usual;
	return (d->accepted + PRIOR_TRIALS * usual) / (d->tried + PRIOR_TRIALS);
}

double speculate_acceptance(const struct speculator *s, const struct drafter *d, int plan_depth,
                int draft_depth) {
	return shown(s, d, plan_depth, draft_depth, FIRST_ACCEPTANCE);
}

/* ---- what rounds take ---- */

static void add_rows(int *count, const struct subnet *subnet, int rows) {
	const struct plan *plan = &subnet->stack[STACK_DECODER];
	for (int i = 0; i < plan->depth; i++)
		count[plan->layers[i]] += rows;
}

static double step_ms(const struct cost_model *cost, const struct speculate_scene *scene,
                const int *count, int rows, double attended, double chunk_attended) {
	struct cost_step step = { .layers = { 0, scene->layers },
		.row_count = { NULL, count },
		.rows = rows,
		.decode_rows = rows,
		.logit_rows = rows,
		.attended = attended,
		.chunk_attended = chunk_attended };
	return cost_step_ms(cost, &step);
}

/* How many of a party's tokens are drafted where rounds draft `k`. */
static int tokens_of(const struct speculate_party *p, int k) {
	int most = p->drafter->most < p->left ? p->drafter->most : p->left;
	most = p->drafter->tokens < most ? p->drafter->tokens : most;
	return k < most ? k : most;
}

/* The step of all, with `k` drafted tokens each; 0: plain. The rows of one sequence share the reading
 * of its past. */
static double verify_ms(const struct cost_model *cost, const struct speculate_scene *scene, int k,
                int *ret_rows) {
	int count[MAX_LAYERS], rows = scene->others;
	double attended = scene->attended, chunk = 0;
	memcpy(count, scene->other_rows, (size_t)scene->layers * sizeof count[0]);
	for (int i = 0; i < scene->n; i++) {
		const struct speculate_party *p = &scene->parties[i];
		int tokens = tokens_of(p, k), n = p->rows * (tokens + 1);
		double keys = p->subnet->stack[STACK_DECODER].depth * p->rows * p->keys / 1024;
		add_rows(count, p->subnet, n);
		rows += n;
		attended += keys;
		chunk += keys * tokens;
	}
	*ret_rows = rows;
	return step_ms(cost, scene, count, rows, attended, chunk);
}

double speculate_draft_ms(
                const struct cost_model *cost, const struct speculate_scene *scene, int j) {
	int count[MAX_LAYERS] = { 0 }, rows = 0;
	double attended = 0;
	for (int i = 0; i < scene->n; i++) {
		const struct speculate_party *p = &scene->parties[i];
		if (tokens_of(p, j) < j)
			continue;
		add_rows(count, &p->drafter->at, p->rows);
		rows += p->rows;
		attended += p->drafter->depth * p->rows * p->keys / 1024;
	}
	return rows > 0 ? step_ms(cost, scene, count, rows, attended, 0) : 0;
}

/* Tokens that a round of `k` drafted ones gives. */
static double expected(double acceptance, int k) {
	double sum = 1, chance = 1;
	for (int i = 0; i < k; i++)
		sum += chance *= acceptance;
	return sum;
}

/* ---- which depth ---- */

enum { CANDIDATES = 4 };

/* Depths that are worth a try: an eighth, a quarter, three eighths and half of the plan. */
static int candidate(int plan_depth, int which) {
	int depth = (plan_depth * (which + 1) + 4) / 8;
	return depth < 1 ? 1 : depth;
}

static void take_depth(struct drafter *d, const struct subnet *subnet, int depth) {
	if (d->depth == depth)
		return;
	d->depth = depth;
	d->tried = d->accepted = 0;
	d->at = *subnet;
	plan_nested(&subnet->stack[STACK_DECODER], d->rule, depth, &d->at.stack[STACK_DECODER]);
}

/* The best rate that a party alone would get at a draft depth, relative to plain steps. */
static double best_gain(const struct speculator *s, const struct cost_model *cost,
                const struct speculate_scene *scene, const struct speculate_party *p, int depth) {
	struct drafter trial = *p->drafter;
	struct speculate_party party = *p;
	static const int none[MAX_LAYERS];
	const struct speculate_scene alone = { .parties = &party,
		.n = 1,
		.layers = scene->layers,
		.other_rows = none,
		.max_rows = scene->max_rows };
	int plan_depth = p->subnet->stack[STACK_DECODER].depth, rows;
	double a = speculate_acceptance(s, p->drafter, plan_depth, depth), best = 0;
	party.drafter = &trial;
	take_depth(&trial, p->subnet, depth);
	trial.tokens = SPECULATE_MOST;
	double plain = s->factor[SPECULATE_PLAIN] * verify_ms(cost, &alone, 0, &rows);
	double draft = s->factor[SPECULATE_DRAFT] * speculate_draft_ms(cost, &alone, 1);
	for (int k = 1; k <= tokens_of(&party, SPECULATE_MOST); k++) {
		double verify = s->factor[SPECULATE_VERIFY] * verify_ms(cost, &alone, k, &rows);
		double gain = expected(a, k) * plain / (k * draft + verify);
		if (gain < 0.98 * best)
			break;
		best = gain > best ? gain : best;
	}
	return best;
}

static void choose_depth(const struct speculator *s, const struct cost_model *cost,
                const struct speculate_scene *scene, const struct speculate_party *p) {
	struct drafter *d = p->drafter;
	int plan_depth = p->subnet->stack[STACK_DECODER].depth;
	if (d->asked_depth > 0) {
		take_depth(d, p->subnet, d->asked_depth);
		return;
	}
	if (!cost->fitted) {
		take_depth(d, p->subnet, candidate(plan_depth, CANDIDATES - 1));
		return;
	}
	if (d->depth > 0 && d->rounds++ % SPECULATE_REVIEW != 0)
		return;
	int best = d->depth;
	double most = best > 0 ? CHANGE_GAIN * best_gain(s, cost, scene, p, best) : 0;
	for (int i = 0, last = 0; i < CANDIDATES; i++) {
		int depth = candidate(plan_depth, i);
		if (depth == last || depth == d->depth || depth >= plan_depth)
			continue;
		double gain = best_gain(s, cost, scene, p, depth);
		best = gain > most ? depth : best;
		most = gain > most ? gain : most;
		last = depth;
	}
	take_depth(d, p->subnet, best);
}

/* ---- how many tokens ---- */

/* Rounds of k tokens: what they give to all in plain steps' time over what plain steps give; 0 if
 * somebody falls behind. `first` is as in shown(). */
static double gain_of(const struct speculator *s, const struct speculate_scene *scene, double times,
                int k, double first) {
	double tokens = scene->others, plain = scene->others;
	if (scene->others > 0 && times > SPECULATE_PATIENCE)
		return 0;
	for (int i = 0; i < scene->n; i++) {
		const struct speculate_party *p = &scene->parties[i];
		double a = shown(s, p->drafter, p->subnet->stack[STACK_DECODER].depth,
		                p->drafter->depth, first);
		double given = expected(a, tokens_of(p, k));
		if (given * SPECULATE_PATIENCE < times)
			return 0;
		tokens += p->rows * given;
		plain += p->rows;
	}
	return tokens / plain / times;
}

static void set_tokens(const struct speculate_scene *scene, int k) {
	for (int i = 0; i < scene->n; i++)
		scene->parties[i].drafter->tokens = tokens_of(&scene->parties[i], k);
}

/* Most tokens that it makes sense to draft for a party among others. */
static int worth_of(const struct speculator *s, const struct speculate_party *p) {
	double a = speculate_acceptance(
	                s, p->drafter, p->subnet->stack[STACK_DECODER].depth, p->drafter->depth);
	int k = 0;
	for (double chance = a; k < SPECULATE_MOST && chance >= LEAST_CHANCE; chance *= a)
		k++;
	return k;
}

/* Greedy and sampled answers that run together pay as the first of them. */
static double *account_of(struct speculator *s, const struct speculate_scene *scene) {
	return &s->saved[scene->parties[0].drafter->sampled];
}

/* For a round that may lose; accepted tokens are credited where it was `risky`. */
static void pay(struct speculator *s, double *saved, double price, bool risky) {
	*saved = fmin(*saved - price, MOST_SAVED);
	s->risky = risky;
}

/* Nothing pays: what plain steps have saved pays for a look now and then. */
static void probe(struct speculator *s, const struct cost_model *cost,
                const struct speculate_scene *scene, double plain_ms) {
	int rows;
	for (int i = 0; i < scene->n; i++) {
		struct drafter *d = scene->parties[i].drafter;
		d->tokens = 1;
	}
	double draft = s->factor[SPECULATE_DRAFT] * speculate_draft_ms(cost, scene, 1);
	double verify = s->factor[SPECULATE_VERIFY] * verify_ms(cost, scene, 1, &rows);
	double price = (draft + fmax(verify - plain_ms, 0)) / plain_ms;
	double *saved = account_of(s, scene);
	if (*saved < price || rows > scene->max_rows || draft <= 0) {
		set_tokens(scene, 0);
		return;
	}
	pay(s, saved, price, true);
	s->turn++;
	for (int i = 0; i < scene->n; i++) {
		const struct speculate_party *p = &scene->parties[i];
		int depth = p->subnet->stack[STACK_DECODER].depth;
		int other = candidate(depth, s->turn / 2 % CANDIDATES);
		if (p->drafter->asked_depth == 0 && s->turn % 2 == 0 && other < depth)
			take_depth(p->drafter, p->subnet, other);
	}
	set_tokens(scene, 1);
}

static void decide_blind(const struct speculate_scene *scene) {
	int rows = scene->others;
	for (int i = 0; i < scene->n; i++)
		rows += scene->parties[i].rows;
	for (int i = 0; i < scene->n; i++) {
		struct speculate_party *p = &scene->parties[i];
		int room = (scene->max_rows - rows) / p->rows;
		p->drafter->tokens = SPECULATE_MOST;
		p->drafter->tokens = tokens_of(p, room);
		rows += p->rows * p->drafter->tokens;
	}
}

/* The most tokens that make sense in a round. */
static int limit_of(const struct speculator *s, const struct cost_model *cost,
                const struct speculate_scene *scene) {
	int limit = 0;
	for (int i = 0; i < scene->n; i++) {
		struct speculate_party *p = &scene->parties[i];
		choose_depth(s, cost, scene, p);
		p->drafter->tokens = scene->n > 1 && cost->fitted ? worth_of(s, p) : SPECULATE_MOST;
		int tokens = tokens_of(p, SPECULATE_MOST);
		limit = tokens > limit ? tokens : limit;
	}
	return limit;
}

/* Most tokens in a round that is not sure to gain: what was right allows more. */
static int hope_of(const struct speculator *s, const struct speculate_scene *scene) {
	int least = SPECULATE_MOST;
	for (int i = 0; i < scene->n; i++) {
		const struct speculate_party *p = &scene->parties[i];
		const struct trials *pair = pair_of(s, p->drafter,
		                p->subnet->stack[STACK_DECODER].depth, p->drafter->depth);
		int hope = 1 + (int)pair->accepted;
		least = hope < least ? hope : least;
	}
	return least;
}

/* The best number of tokens, 0 if none gains enough. What is only hoped to gain has to be paid for. */
static int best_tokens(struct speculator *s, const struct cost_model *cost,
                const struct speculate_scene *scene, double plain, int limit) {
	double drafts = 0, most = SPECULATE_LEAST_GAIN, price = 0, *saved = account_of(s, scene);
	int best = 0, rows, hope = hope_of(s, scene);
	bool sure = false;
	for (int k = 1; k <= limit; k++) {
		double verify = s->factor[SPECULATE_VERIFY] * verify_ms(cost, scene, k, &rows);
		if (rows > scene->max_rows)
			break;
		drafts += s->factor[SPECULATE_DRAFT] * speculate_draft_ms(cost, scene, k);
		double times = (drafts + verify) / plain;
		double gain = gain_of(s, scene, times, k, FIRST_ACCEPTANCE);
		bool shown_to = gain_of(s, scene, times, k, 0) >= SPECULATE_LEAST_GAIN;
		if (gain > most && (shown_to || (times - 1 <= *saved && k <= hope))) {
			best = k;
			most = gain;
			price = times - 1;
			sure = shown_to;
		}
		if (gain < 0.95 * most && k > best + 2)
			break;
	}
	if (best > 0)
		pay(s, saved, sure ? -SURE_SHARE : price, !sure);
	return best;
}

void speculate_decide(struct speculator *s, const struct cost_model *cost,
                const struct speculate_scene *scene) {
	int rows, limit = limit_of(s, cost, scene);
	if (!cost->fitted) {
		decide_blind(scene);
		return;
	}
	if (scene->n == 0)
		return;
	double plain = s->factor[SPECULATE_PLAIN] * verify_ms(cost, scene, 0, &rows);
	s->worth = 1.0 / rows;
	double *saved = account_of(s, scene);
	*saved = fmin(*saved + PROBE_SHARE, MOST_SAVED);
	int best = best_tokens(s, cost, scene, plain, limit);
	if (best > 0)
		set_tokens(scene, best);
	else
		probe(s, cost, scene, plain);
}

/* ---- what rounds teach ---- */

static void add_trials(double *tried, double *accepted, int n, int successes, double memory) {
	double fade = *tried + n > memory ? memory / (*tried + n) : 1;
	*tried = fade * (*tried + n);
	*accepted = fade * (*accepted + successes);
}

void speculate_learn(struct speculator *s, struct drafter *d, const struct subnet *subnet,
                int drafted, int accepted) {
	/* What follows a rejected token was never tried. */
	int tried = accepted < drafted ? accepted + 1 : drafted;
	struct trials *pair = pair_of(s, d, subnet->stack[STACK_DECODER].depth, d->depth);
	add_trials(&pair->tried, &pair->accepted, tried, accepted, PAIR_TRIALS);
	add_trials(&d->tried, &d->accepted, tried, accepted, OWN_TRIALS);
	if (s->risky)
		pay(s, &s->saved[d->sampled], -accepted * s->worth, true);
}

void speculate_learn_step(struct speculator *s, enum speculate_step step, double ratio) {
	ratio = fmin(fmax(ratio, 1 / STEP_MOST), STEP_MOST);
	s->factor[step] += STEP_WEIGHT * (ratio - s->factor[step]);
	if (step != SPECULATE_PLAIN)
		return;
	/* A disturbance while drafting must not keep drafts off for ever. */
	for (int i = 0; i < SPECULATE_STEPS; i++)
		s->factor[i] += FADE_WEIGHT * (s->factor[SPECULATE_PLAIN] - s->factor[i]);
}
