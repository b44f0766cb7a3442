/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From logits to one token: penalties, temperature, top-k, top-p, and the draw; and
 * log-probabilities.
 *
 * The draw is a pure function of (logits, sampling, seed, choice, position): neither load, nor
 * neighbours, nor drafting can shift it. Ties between logits go to the lower id.
 */
#ifndef FATHOM_MODEL_SAMPLE_H
#define FATHOM_MODEL_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/ops.h"

struct logit_bias {
	int32_t token;
	float bias;
};

struct sampling {
	float temperature; /* 0: greedy */
	float top_p;       /* 1: off */
	int top_k;         /* 0: off */
	/* Divides positive and multiplies negative logits of tokens seen in prompt or answer; 1: off. */
	float repetition_penalty;
	/* Of tokens of the answer only, as OpenAI defines them; 0: off. */
	float presence_penalty, frequency_penalty;
	uint64_t seed;
	const struct logit_bias *bias; /* not owned */
	int n_bias;
	/* Tokens that cannot be drawn (end symbols before min_tokens, with ignore_eos); not owned. */
	const int32_t *banned;
	int n_banned;
};

/* Scratch of one engine thread: [vocab] arrays, allocated once. */
struct sampler;
struct sampler *sampler_create(const struct ops *ops, int vocab, char *err, size_t errlen);
void sampler_destroy(struct sampler *s);

/*
 * Says that all scores to come are log-probabilities already, as an adaptive softmax gives them:
 * sample_logprobs then returns them as they are, also where scores that nobody needed are minus
 * infinity.
 */
void sampler_take_logprobs(struct sampler *s);
int sampler_vocab(const struct sampler *s);

/*
 * Draws a token from logits[vocab] (not modified). `prompt` and `answer` are the tokens so far, for
 * the penalties. `choice` and `position` select the random number. A token whose logit is minus
 * infinity is never drawn. False if another logit is not finite, or if no token is left.
 */
bool sample_token(struct sampler *s, const float *logits, const struct sampling *sampling,
                const int32_t *prompt, size_t n_prompt, const int32_t *answer, size_t n_answer,
                uint32_t choice, uint32_t position, int32_t *ret_token);

struct token_logprob {
	int32_t token;
	float logprob;
};

/*
 * Log-probabilities of the model itself (before penalties and temperature): of `token`, and of the
 * `n_top` best, best first, lower ids first on ties. `ret_rank` (may be NULL): 0 for the best
 * token. False if a logit is NaN or plus infinity, or if all are minus infinity and were to be
 * normalised.
 */
bool sample_logprobs(struct sampler *s, const float *logits, int32_t token, int n_top,
                float *ret_logprob, struct token_logprob *ret_top, int *ret_rank);

/* Uniform in [0, 1) with 53 random bits: a pure function of its arguments. */
double sample_uniform(uint64_t seed, uint32_t choice, uint32_t position);

#endif
