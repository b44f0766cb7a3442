/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling. Every step has one fixed order of operations and nothing is sorted.
 *
 * The order: repetition penalty, frequency and presence penalties, bias, bans; at temperature 0 the
 * largest logit wins; else z = (logit - largest) / temperature, then top-k, then top-p among what
 * is left, then the draw by inverse cumulative mass in the order of ids. A histogram of z says which
 * tokens a cut may need at all; among these it finds its threshold by radix selection over the bits
 * of z.
 */
#include "model/sample.h"

#include <assert.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/mathf.h"
#include "model/softmax.h"

enum {
	DIGIT_BITS = 11,
	DIGITS = 1 << DIGIT_BITS,
	BINS = 2048, /* of z, BINS_PER_UNIT for each unit from 0 down; the last has all the rest */
	BINS_PER_UNIT = 64,
	STRIDE = 64, /* tokens looked at together for one that is beyond a limit */
};

/* Below every adjusted logit. */
#define BANNED -FLT_MAX
#define LARGEST_LOGIT 1e30f

struct sampler {
	const struct ops *ops;
	int vocab;
	bool normalised; /* scores are log-probabilities already */
	int n_blocks;
	float *z;                   /* [vocab] adjusted logits */
	float *mass;                /* [vocab] exp(z) of candidate i */
	int32_t *ids;               /* [vocab] candidates, ascending */
	uint32_t *count;            /* [vocab] zero between calls */
	double *digits;             /* [DIGITS] mass by the present digit of the key */
	struct softmax_sum *blocks; /* [n_blocks] */
	uint32_t bins[BINS];        /* tokens by z */
	float bin_mass[BINS];       /* no token of the bin has more */
};

struct sampler *sampler_create(const struct ops *ops, int vocab, char *err, size_t errlen) {
	assert(vocab >= 1);
	struct sampler *s = calloc(1, sizeof *s);
	if (s) {
		size_t n = (size_t)vocab;
		s->ops = ops;
		s->vocab = vocab;
		s->n_blocks = softmax_blocks(vocab);
		s->z = calloc(n, sizeof *s->z);
		s->mass = calloc(n, sizeof *s->mass);
		s->ids = calloc(n + 1, sizeof *s->ids);
		s->count = calloc(n, sizeof *s->count);
		s->digits = calloc(DIGITS, sizeof *s->digits);
		s->blocks = calloc((size_t)s->n_blocks, sizeof *s->blocks);
		for (int b = 0; b < BINS; b++)
			s->bin_mass[b] = mathf_exp((float)-b / BINS_PER_UNIT);
	}
	if (!s || !s->z || !s->mass || !s->ids || !s->count || !s->digits || !s->blocks) {
		snprintf(err, errlen, "not enough memory to sample from %d tokens", vocab);
		sampler_destroy(s);
		return NULL;
	}
	return s;
}

void sampler_take_logprobs(struct sampler *s) {
	s->normalised = true;
}

int sampler_vocab(const struct sampler *s) {
	return s->vocab;
}

void sampler_destroy(struct sampler *s) {
	if (!s)
		return;
	free(s->z);
	free(s->mass);
	free(s->ids);
	free(s->count);
	free(s->digits);
	free(s->blocks);
	free(s);
}

/*
 * Philox 4x32, 10 rounds (Salmon, Moraes, Dror, Shaw 2011): the counter is (choice, position, 0, 0),
 * the key the seed.
 */
double sample_uniform(uint64_t seed, uint32_t choice, uint32_t position) {
	uint32_t c[4] = { choice, position, 0, 0 };
	uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
	for (int round = 0; round < 10; round++) {
		uint64_t a = (uint64_t)c[0] * 0xd2511f53u, b = (uint64_t)c[2] * 0xcd9e8d57u;
		uint32_t next[4] = { (uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b,
			(uint32_t)(a >> 32) ^ c[3] ^ key[1], (uint32_t)a };
		memcpy(c, next, sizeof c);
		key[0] += 0x9e3779b9u;
		key[1] += 0xbb67ae85u;
	}
	uint64_t bits = (uint64_t)c[0] << 32 | c[1];
	return (double)(bits >> 11) * 0x1p-53;
}

/* Neither NaN nor infinite: a score of minus infinity is one that nobody computed. */
static bool all_usable(const float *x, int n) {
	uint32_t bad = 0;
	for (int i = 0; i < n; i++)
		bad |= !(x[i] <= FLT_MAX);
	return !bad;
}

static bool known(const struct sampler *s, int32_t token) {
	return 0 <= token && token < s->vocab;
}

/* Penalties may be extreme, but an adjusted logit stays finite and above BANNED. */
static float bounded(float x) {
	return x > LARGEST_LOGIT ? LARGEST_LOGIT : x < -LARGEST_LOGIT ? -LARGEST_LOGIT : x;
}

/* Counts tokens in s->count. */
static void count_tokens(struct sampler *s, const int32_t *tokens, size_t n) {
	for (size_t i = 0; i < n; i++)
		if (known(s, tokens[i]))
			s->count[tokens[i]]++;
}

/* Applies the repetition penalty to each counted token once, and sets its count to 0. */
static void penalise_repetition(struct sampler *s, const int32_t *tokens, size_t n, float penalty) {
	for (size_t i = 0; i < n; i++) {
		if (!known(s, tokens[i]) || s->count[tokens[i]] == 0)
			continue;
		float *z = &s->z[tokens[i]];
		*z = bounded(*z > 0 ? *z / penalty : *z * penalty);
		s->count[tokens[i]] = 0;
	}
}

static void penalise_presence(struct sampler *s, const int32_t *tokens, size_t n, float presence,
                float frequency) {
	for (size_t i = 0; i < n; i++) {
		if (!known(s, tokens[i]) || s->count[tokens[i]] == 0)
			continue;
		float *z = &s->z[tokens[i]];
		*z = *z - frequency * (float)s->count[tokens[i]];
		*z = bounded(*z - presence);
		s->count[tokens[i]] = 0;
	}
}

/* The loops over a vocabulary stand by themselves, without branches, so that compilers make them of
 * vectors. */
static void copy_bounded(float *restrict z, const float *restrict logits, int n) {
	for (int i = 0; i < n; i++)
		z[i] = bounded(logits[i]);
}

/* A score that nobody computed cannot win, whatever was added to it. */
static void ban_missing(float *restrict z, const float *restrict logits, int n) {
	for (int i = 0; i < n; i++)
		z[i] = logits[i] < -FLT_MAX ? BANNED : z[i];
}

/* z = (z - largest) / temperature */
static void relate(float *z, int n, float largest, float temperature) {
	for (int i = 0; i < n; i++) {
		float x = (z[i] - largest) / temperature;
		z[i] = x > -LARGEST_LOGIT ? x : BANNED;
	}
}

/* s->z = the logits after penalties, bias and bans. Costs vocab + history. */
static void adjust(struct sampler *s, const float *logits, const struct sampling *how,
                const int32_t *prompt, size_t n_prompt, const int32_t *answer, size_t n_answer) {
	copy_bounded(s->z, logits, s->vocab);
	if (how->repetition_penalty != 1) {
		count_tokens(s, prompt, n_prompt);
		count_tokens(s, answer, n_answer);
		penalise_repetition(s, prompt, n_prompt, how->repetition_penalty);
		penalise_repetition(s, answer, n_answer, how->repetition_penalty);
	}
	if (how->presence_penalty != 0 || how->frequency_penalty != 0) {
		count_tokens(s, answer, n_answer);
		penalise_presence(
		                s, answer, n_answer, how->presence_penalty, how->frequency_penalty);
	}
	for (int i = 0; i < how->n_bias; i++)
		if (known(s, how->bias[i].token))
			s->z[how->bias[i].token] =
			                bounded(s->z[how->bias[i].token] + how->bias[i].bias);
	for (int i = 0; i < how->n_banned; i++)
		if (known(s, how->banned[i]))
			s->z[how->banned[i]] = BANNED;
	ban_missing(s->z, logits, s->vocab);
}

/*
 * The first from, from + STRIDE, ... of which the next STRIDE numbers hold one beyond `limit`; n if
 * there is none. What is looked for is rare, and looking at many at once is cheap.
 */
static int find_beyond(const float *x, int from, int n, float limit) {
	for (; from + STRIDE <= n; from += STRIDE) {
		int any = 0;
		for (int i = 0; i < STRIDE; i++)
			any |= x[from + i] > limit;
		if (any)
			return from;
	}
	for (int i = from; i < n; i++)
		if (x[i] > limit)
			return from;
	return n;
}

/* Index of the largest of x[0..n), the lowest on ties. */
static int32_t index_of_largest(const float *x, int n) {
	int best = 0;
	for (int at = 0; (at = find_beyond(x, at, n, x[best])) < n; at += STRIDE)
		for (int i = at; i < n && i < at + STRIDE; i++)
			if (x[i] > x[best])
				best = i;
	return best;
}

/* Unsigned integers in the order of floats. */
static uint32_t key_of(float x) {
	uint32_t bits = mathf_bits(x);
	return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/*
 * Keeps the smallest set of candidates, best first and lower ids first on ties, whose mass (each
 * counts 1 if `count` is true) is at least `target` > 0; all of them if they have less together.
 * `n` candidates come in, ascending; the number kept is returned.
 */
static int keep_best(struct sampler *s, int n, bool count, double target) {
	uint32_t prefix = 0;
	double above = 0; /* mass of keys beyond the digits chosen so far */
	for (int shift = 32 - DIGIT_BITS, width = DIGIT_BITS;;) {
		memset(s->digits, 0, DIGITS * sizeof *s->digits);
		uint32_t mask = (1u << width) - 1;
		for (int i = 0; i < n; i++) {
			uint32_t key = key_of(s->z[s->ids[i]]);
			if ((uint64_t)(key ^ prefix) >> (shift + width) == 0)
				s->digits[key >> shift & mask] += count ? 1.0 : s->mass[i];
		}
		uint32_t digit = mask;
		while (digit > 0 && above + s->digits[digit] < target)
			above += s->digits[digit--];
		prefix |= digit << shift;
		if (shift == 0)
			break;
		width = shift < DIGIT_BITS ? shift : DIGIT_BITS;
		shift -= width;
	}
	int kept = 0;
	for (int i = 0; i < n; i++) {
		uint32_t key = key_of(s->z[s->ids[i]]);
		if (key < prefix || (key == prefix && above >= target))
			continue;
		if (key == prefix)
			above += count ? 1.0 : s->mass[i];
		s->ids[kept] = s->ids[i];
		s->mass[kept++] = s->mass[i];
	}
	return kept;
}

/* Sums of the blocks of x[0..vocab). */
static void sum_blocks(struct sampler *s, const float *x) {
	for (int b = 0; b < s->n_blocks; b++)
		s->blocks[b] = softmax_block(s->ops, x, s->vocab, b);
}

/* Mass of a block where the largest z of all is 0. */
static double block_mass(const struct softmax_sum *b) {
	return (double)b->sum * (double)mathf_exp(b->max);
}

static void fill_bins(struct sampler *s) {
	int32_t bins[STRIDE];
	memset(s->bins, 0, sizeof s->bins);
	for (int at = 0; at < s->vocab; at += STRIDE) {
		int n = s->vocab - at < STRIDE ? s->vocab - at : STRIDE;
		for (int i = 0; i < n; i++) {
			float bin = s->z[at + i] * -BINS_PER_UNIT;
			bins[i] = (int32_t)(bin < BINS - 1 ? bin : BINS - 1);
		}
		for (int i = 0; i < n; i++)
			s->bins[bins[i]]++;
	}
}

/* The bin that holds the k-th best token. */
static int bin_of_kth(const struct sampler *s, int k) {
	int bin = 0;
	for (uint32_t n = s->bins[0]; n < (uint32_t)k && bin < BINS - 1;)
		n += s->bins[++bin];
	return bin;
}

/* A bin beyond which there is less than `mass`. */
static int bin_of_rest(const struct sampler *s, double mass) {
	int bin = BINS - 1;
	for (double rest = 0; bin > 0; bin--) {
		rest += (double)s->bins[bin] * (double)s->bin_mass[bin];
		if (rest > 0.999 * mass) /* the margin is for the rounding of sums */
			break;
	}
	return bin;
}

/* Takes the tokens of the bins 0 .. last as candidates. */
static int take_candidates(struct sampler *s, int last) {
	int n = 0;
	/* Of all bins but the last, which has no end; scaling by a power of two rounds nothing. */
	float limit = last == BINS - 1 ? -INFINITY : (float)-(last + 1) / BINS_PER_UNIT;
	for (int at = 0; (at = find_beyond(s->z, at, s->vocab, limit)) < s->vocab; at += STRIDE) {
		for (int i = at; i < s->vocab && i < at + STRIDE; i++) {
			s->ids[n] = i;
			n += s->z[i] > limit;
		}
	}
	return n;
}

static double weigh_candidates(struct sampler *s, int n) {
	double total = 0;
	for (int i = 0; i < n; i++) {
		s->mass[i] = mathf_exp(s->z[s->ids[i]]);
		total += s->mass[i];
	}
	return total;
}

static int32_t draw_candidate(const struct sampler *s, int n, double u) {
	double total = 0, sum = 0;
	for (int i = 0; i < n; i++)
		total += s->mass[i];
	int32_t last = s->ids[0];
	for (int i = 0; i < n; i++) {
		if (s->mass[i] == 0)
			continue;
		last = s->ids[i];
		sum += s->mass[i];
		if (sum > u * total)
			break;
	}
	return last;
}

/* The draw without any cut: first the block, then the token in it. */
static int32_t draw_any(const struct sampler *s, double u) {
	double total = 0, sum = 0;
	for (int b = 0; b < s->n_blocks; b++)
		total += block_mass(&s->blocks[b]);
	int chosen = 0;
	double before = 0;
	for (int b = 0; b < s->n_blocks; b++) {
		double mass = block_mass(&s->blocks[b]);
		if (mass == 0)
			continue;
		chosen = b;
		before = sum;
		sum += mass;
		if (sum > u * total)
			break;
	}
	const struct softmax_sum *block = &s->blocks[chosen];
	double rest = (u * total - before) / (double)mathf_exp(block->max);
	int first = chosen * SOFTMAX_COLUMNS,
	    end = first + SOFTMAX_COLUMNS < s->vocab ? first + SOFTMAX_COLUMNS : s->vocab;
	int32_t last = first;
	sum = 0;
	for (int i = first; i < end; i++) {
		float mass = mathf_exp(s->z[i] - block->max);
		if (mass == 0)
			continue;
		last = i;
		sum += (double)mass;
		if (sum > rest)
			break;
	}
	return last;
}

static int32_t draw(struct sampler *s, const struct sampling *how, double u) {
	bool cut_k = how->top_k > 0 && how->top_k < s->vocab, cut_p = how->top_p < 1;
	int n;
	double total = 0;
	if (cut_k) {
		fill_bins(s);
		n = take_candidates(s, bin_of_kth(s, how->top_k));
		n = keep_best(s, n, true, how->top_k);
		total = weigh_candidates(s, n);
	} else {
		sum_blocks(s, s->z);
		if (!cut_p)
			return draw_any(s, u);
		for (int b = 0; b < s->n_blocks; b++)
			total += block_mass(&s->blocks[b]);
		fill_bins(s);
		n = take_candidates(s, bin_of_rest(s, (1 - (double)how->top_p) * total));
		weigh_candidates(s, n);
	}
	if (cut_p) {
		double target = (double)how->top_p * total;
		n = keep_best(s, n, false, target > 0 ? target : DBL_MIN);
	}
	return draw_candidate(s, n, u);
}

bool sample_token(struct sampler *s, const float *logits, const struct sampling *sampling,
                const int32_t *prompt, size_t n_prompt, const int32_t *answer, size_t n_answer,
                uint32_t choice, uint32_t position, int32_t *ret_token) {
	if (!all_usable(logits, s->vocab))
		return false;
	adjust(s, logits, sampling, prompt, n_prompt, answer, n_answer);
	int32_t best = index_of_largest(s->z, s->vocab);
	float largest = s->z[best];
	if (largest == BANNED)
		return false;
	if (sampling->temperature == 0) {
		*ret_token = best;
		return true;
	}
	relate(s->z, s->vocab, largest, sampling->temperature);
	*ret_token = draw(s, sampling, sample_uniform(sampling->seed, choice, position));
	return true;
}

/* Puts a token where it belongs among the best so far, ids coming in ascending order. */
static int insert_top(struct token_logprob *top, int n, int n_top, int32_t token, float logit) {
	if (n == n_top) {
		if (!(logit > top[n - 1].logprob))
			return n;
		n--;
	}
	int at = n;
	while (at > 0 && logit > top[at - 1].logprob) {
		top[at] = top[at - 1];
		at--;
	}
	top[at] = (struct token_logprob){ .token = token, .logprob = logit };
	return n + 1;
}

/* The best n_top of x[0..n), lower ids first on ties; returns how many there are. */
static int find_top(const float *x, int n, int n_top, struct token_logprob *ret_top) {
	int found = 0, at = 0;
	for (; at < n && found < n_top; at++)
		found = insert_top(ret_top, found, n_top, at, x[at]);
	while (n_top > 0 && (at = find_beyond(x, at, n, ret_top[n_top - 1].logprob)) < n) {
		int end = n - at < STRIDE ? n : at + STRIDE;
		for (; at < end; at++)
			found = insert_top(ret_top, found, n_top, at, x[at]);
	}
	return found;
}

bool sample_logprobs(struct sampler *s, const float *logits, int32_t token, int n_top,
                float *ret_logprob, struct token_logprob *ret_top, int *ret_rank) {
	assert(known(s, token) && n_top <= s->vocab);
	if (!all_usable(logits, s->vocab))
		return false;
	struct softmax_sum all = { .max = 0, .sum = 1 };
	if (!s->normalised) {
		sum_blocks(s, logits);
		all = softmax_join(s->blocks, s->n_blocks);
		if (all.max == -INFINITY)
			return false;
	}
	float log_sum = s->normalised ? 0 : mathf_log(all.sum);
	*ret_logprob = logits[token] - all.max - log_sum;

	int n = find_top(logits, s->vocab, n_top, ret_top);
	for (int i = 0; i < n; i++)
		ret_top[i].logprob = ret_top[i].logprob - all.max - log_sum;

	if (ret_rank) {
		int rank = 0;
		for (int i = 0; i < s->vocab; i++)
			rank += logits[i] > logits[token]
			                || (logits[i] == logits[token] && i < token);
		*ret_rank = rank;
	}
	return true;
}
