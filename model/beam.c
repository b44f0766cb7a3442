/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beam search: candidates of all live beams, the rule that picks among them, and the sequences that
 * follow their beams. Sums are doubles; ties go to the earlier beam, then to the lower token.
 */
#include "model/beam.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	/* Candidates of one beam: those that can survive, and as many that are looked up beside them
	 * because fairseq forbids or changes their score (padding, end, unknown). */
	CANDIDATES = 2 * MAX_BEAMS,
	LOOKED_UP = CANDIDATES + 3,
};

/* A text so far: of a live beam, or of a hypothesis. */
struct trail {
	int32_t *tokens; /* [cap] */
	float *logprobs; /* [cap] */
	int n;
	double sum;
	bool ended;
};

struct live {
	struct trail trail;
	struct sequence *sequence;
};

struct candidate {
	double sum;
	float logprob;
	int beam;
	int32_t token;
};

struct beam {
	struct beam_options options;
	int cap_beams;
	size_t cap_tokens;        /* the end symbol included */
	int step;                 /* tokens of every live beam */
	struct live *live, *next; /* [cap_beams], n_live in use; swapped at each step */
	int n_live;
	struct trail *finished; /* [cap_beams] */
	int n_finished;
	int order[MAX_BEAMS]; /* finished, best first; made when the search is over */
	int32_t *tokens;      /* storage of all trails */
	float *logprobs;
};

static void give_storage(struct beam *b, struct trail *trail, size_t place) {
	trail->tokens = b->tokens + place * b->cap_tokens;
	trail->logprobs = b->logprobs + place * b->cap_tokens;
}

struct beam *beam_create(int beams, int max_tokens) {
	assert(1 <= beams && beams <= MAX_BEAMS && max_tokens >= 1);
	struct beam *b = calloc(1, sizeof *b);
	if (!b)
		return NULL;
	size_t n = (size_t)beams;
	b->cap_beams = beams;
	b->cap_tokens = (size_t)max_tokens + 1;
	b->live = calloc(n, sizeof *b->live);
	b->next = calloc(n, sizeof *b->next);
	b->finished = calloc(n, sizeof *b->finished);
	b->tokens = calloc(3 * n * b->cap_tokens, sizeof *b->tokens);
	b->logprobs = calloc(3 * n * b->cap_tokens, sizeof *b->logprobs);
	if (!b->live || !b->next || !b->finished || !b->tokens || !b->logprobs) {
		beam_destroy(b);
		return NULL;
	}
	for (size_t i = 0; i < n; i++) {
		give_storage(b, &b->live[i].trail, i);
		give_storage(b, &b->next[i].trail, n + i);
		give_storage(b, &b->finished[i], 2 * n + i);
	}
	return b;
}

void beam_destroy(struct beam *b) {
	if (!b)
		return;
	assert(b->n_live == 0);
	free(b->live);
	free(b->next);
	free(b->finished);
	free(b->tokens);
	free(b->logprobs);
	free(b);
}

void beam_begin(struct beam *b, const struct beam_options *options, struct sequence *sequence) {
	assert(b->n_live == 0 && options->beams <= b->cap_beams);
	assert(1 <= options->max_tokens && (size_t)options->max_tokens < b->cap_tokens);
	b->options = *options;
	b->step = 0;
	b->n_finished = 0;
	b->n_live = 1;
	b->live[0].sequence = sequence;
	b->live[0].trail.n = 0;
	b->live[0].trail.sum = 0;
}

int beam_live(const struct beam *b) {
	return b->n_live;
}

struct sequence *beam_sequence(const struct beam *b, int i) {
	assert(i < b->n_live);
	return b->live[i].sequence;
}

int32_t beam_token(const struct beam *b, int i) {
	assert(i < b->n_live && b->step > 0);
	return b->live[i].trail.tokens[b->step - 1];
}

struct logit_need beam_need(const struct beam *b) {
	return (struct logit_need){ .top = 2 * b->options.beams + 3, .target = b->options.eos };
}

/* ---- candidates ---- */

static bool better(const struct candidate *a, const struct candidate *b) {
	if (a->sum != b->sum)
		return a->sum > b->sum;
	return a->beam != b->beam ? a->beam < b->beam : a->token < b->token;
}

/* Keeps the best `cap` candidates, best first. */
static void offer(struct candidate *list, int *n, int cap, const struct candidate *c) {
	if (c->sum == -INFINITY || (*n == cap && !better(c, &list[cap - 1])))
		return;
	int at = *n < cap ? (*n)++ : cap - 1;
	for (; at > 0 && better(c, &list[at - 1]); at--)
		list[at] = list[at - 1];
	list[at] = *c;
}

/* Offers what beam `i` can go on with. */
static bool offer_beam(const struct beam *b, struct sampler *sampler, const float *logits, int i,
                struct candidate *list, int *n, int cap) {
	const struct beam_options *o = &b->options;
	struct token_logprob top[LOOKED_UP];
	const double sum = b->live[i].trail.sum;
	float logprob;
	/* The end symbol's own score; it alone may come at the last step. */
	const bool last = b->step >= o->max_tokens;
	const int min_tokens = o->min_tokens > 1 ? o->min_tokens : 1;
	int n_top = last ? 0 : cap + 3;
	n_top = n_top > sampler_vocab(sampler) ? sampler_vocab(sampler) : n_top;
	if (!sample_logprobs(sampler, logits, o->eos, n_top, &logprob, top, NULL))
		return false;
	if (last) {
		offer(list, n, cap,
		                &(struct candidate){ sum + (double)logprob, logprob, i, o->eos });
		return true;
	}
	for (int k = 0; k < n_top; k++) {
		struct candidate c = { sum + (double)top[k].logprob, top[k].logprob, i,
			top[k].token };
		if (c.token == o->pad || (c.token == o->eos && b->step < min_tokens))
			continue;
		if (c.token == o->unk) {
			c.logprob -= (float)o->unk_penalty;
			c.sum = sum + (double)c.logprob;
		}
		offer(list, n, cap, &c);
	}
	return true;
}

/* ---- picking ---- */

static void extend(struct trail *to, const struct trail *from, const struct candidate *c) {
	memcpy(to->tokens, from->tokens, (size_t)from->n * sizeof *to->tokens);
	memcpy(to->logprobs, from->logprobs, (size_t)from->n * sizeof *to->logprobs);
	to->tokens[from->n] = c->token;
	to->logprobs[from->n] = c->logprob;
	to->n = from->n + 1;
	to->sum = c->sum;
	to->ended = false;
}

/* End symbols among the first `beams` candidates finish hypotheses while there is room. */
static void finish_ended(struct beam *b, const struct candidate *list, int n) {
	for (int i = 0; i < n && i < b->options.beams; i++) {
		if (list[i].token != b->options.eos || b->n_finished == b->options.beams)
			continue;
		struct trail *to = &b->finished[b->n_finished++];
		extend(to, &b->live[list[i].beam].trail, &list[i]);
		to->ended = b->step < b->options.max_tokens;
	}
}

/*
 * The best candidates without an end symbol become the live beams: the first child of a beam takes
 * its sequence, further ones fork it, and a beam without children closes.
 */
static void move_on(struct beam *b, struct workspace *w, const struct candidate *list, int n) {
	int children[MAX_BEAMS] = { 0 }, parent[MAX_BEAMS], n_next = 0;
	for (int i = 0; i < n && n_next < b->options.beams; i++) {
		if (list[i].token == b->options.eos)
			continue;
		extend(&b->next[n_next].trail, &b->live[list[i].beam].trail, &list[i]);
		parent[n_next] = list[i].beam;
		children[list[i].beam]++;
		n_next++;
	}
	for (int i = 0; i < b->n_live; i++) {
		if (children[i] == 0)
			sequence_close(w, b->live[i].sequence);
	}
	bool taken[MAX_BEAMS] = { false };
	for (int i = 0; i < n_next; i++) {
		struct sequence *s = b->live[parent[i]].sequence;
		b->next[i].sequence = taken[parent[i]]
		                ? sequence_fork(w, s, b->options.sequence_tokens)
		                : s;
		assert(b->next[i].sequence);
		taken[parent[i]] = true;
	}
	struct live *old = b->live;
	b->live = b->next;
	b->next = old;
	b->n_live = n_next;
	b->step++;
}

/* ---- the end ---- */

static double score_of(const struct beam *b, const struct trail *t) {
	return t->n > 0 ? t->sum / pow(t->n, b->options.length_penalty) : 0;
}

static void sort_finished(struct beam *b) {
	for (int i = 0; i < b->n_finished; i++) {
		int at = i;
		double score = score_of(b, &b->finished[i]);
		for (; at > 0 && score > score_of(b, &b->finished[b->order[at - 1]]); at--)
			b->order[at] = b->order[at - 1];
		b->order[at] = i;
	}
}

void beam_close(struct beam *b, struct workspace *w) {
	for (int i = 0; i < b->n_live; i++)
		sequence_close(w, b->live[i].sequence);
	b->n_live = 0;
	sort_finished(b);
}

void beam_cut(struct beam *b, struct workspace *w) {
	for (int i = 0; i < b->n_live && b->n_finished < b->options.beams && b->step > 0; i++) {
		struct trail *to = &b->finished[b->n_finished++], storage = *to;
		const struct trail *from = &b->live[i].trail;
		*to = *from;
		to->tokens = storage.tokens;
		to->logprobs = storage.logprobs;
		memcpy(to->tokens, from->tokens, (size_t)from->n * sizeof *to->tokens);
		memcpy(to->logprobs, from->logprobs, (size_t)from->n * sizeof *to->logprobs);
		to->ended = false;
	}
	beam_close(b, w);
}

bool beam_advance(struct beam *b, struct workspace *w, struct sampler *sampler, const float *logits,
                size_t stride) {
	struct candidate list[CANDIDATES];
	int n = 0, cap = 2 * b->options.beams;
	assert(b->n_live > 0);
	for (int i = 0; i < b->n_live; i++) {
		if (!offer_beam(b, sampler, logits + (size_t)i * stride, i, list, &n, cap))
			return false;
	}
	finish_ended(b, list, n);
	if (b->n_finished == b->options.beams || b->step >= b->options.max_tokens)
		beam_close(b, w);
	else
		move_on(b, w, list, n);
	if (b->n_live == 0)
		sort_finished(b);
	return true;
}

int beam_hypotheses(const struct beam *b) {
	return b->n_live > 0 ? 0 : b->n_finished;
}

void beam_hypothesis(const struct beam *b, int i, struct hypothesis *ret) {
	assert(i < beam_hypotheses(b));
	const struct trail *t = &b->finished[b->order[i]];
	*ret = (struct hypothesis){ .tokens = t->tokens,
		.logprobs = t->logprobs,
		.n_tokens = t->n,
		.sum = t->sum,
		.score = score_of(b, t),
		.ended = t->ended };
}
