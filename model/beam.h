/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beam search over one source text, as fairseq does it.
 *
 * Each step takes the best 2 x beams continuations of all live beams by summed log-probability. An
 * end symbol finishes a hypothesis only if it is among the first `beams` of them; the first `beams`
 * others live on. The search ends when `beams` hypotheses have finished, or at `max_tokens`, where
 * the end symbol is forced. A hypothesis' score is its sum of log-probabilities over (length with
 * the end symbol) ^ length_penalty. Source: fairseq sequence_generator.py, search.py.
 *
 * A search owns its sequences in the workspace (one for each live beam, forked and closed as beams
 * win and lose) but runs no step: the caller makes a row for each live beam and gives the logits
 * back. So the beams of many requests share steps. Belongs to the workspace's thread.
 */
#ifndef FATHOM_MODEL_BEAM_H
#define FATHOM_MODEL_BEAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"
#include "model/sample.h"

enum { MAX_BEAMS = 16 };

struct beam_options {
	int beams; /* 1 .. MAX_BEAMS */
	double length_penalty;
	int max_tokens;        /* of an answer, the end symbol not counted; >= 1 */
	int min_tokens;        /* no end symbol before */
	int32_t eos, pad, unk; /* pad is never chosen; unk -1: no penalty */
	double unk_penalty;
	int sequence_tokens; /* tokens that each sequence can hold */
};

/* A finished hypothesis. */
struct hypothesis {
	const int32_t *tokens; /* [n_tokens], the end symbol last unless the search was cut */
	const float *logprobs; /* [n_tokens] of each token */
	int n_tokens;
	double sum;   /* of log-probabilities */
	double score; /* sum / n_tokens ^ length_penalty */
	bool ended;   /* by the end symbol, chosen before max_tokens forced it */
};

struct beam;

/* Memory for a search of at most `beams` beams and `max_tokens` tokens; NULL if it is not to be
 * had. The only allocation. */
struct beam *beam_create(int beams, int max_tokens);
/* Its sequences must have been closed (beam_close). Accepts NULL. */
void beam_destroy(struct beam *b);

/*
 * Begins with one live beam: `sequence`, whose last row's logits come first. The search owns it
 * from now on. The caller has made sure that beams - 1 forks of it will find blocks and slots.
 */
void beam_begin(struct beam *b, const struct beam_options *options, struct sequence *sequence);

/* Live beams, 0 when the search is over: sequence and the token that its next row feeds. */
int beam_live(const struct beam *b);
struct sequence *beam_sequence(const struct beam *b, int i);
int32_t beam_token(const struct beam *b, int i);

/*
 * What beam_advance reads of a live beam's scores: the best 2 x beams + 3, and the end symbol's.
 */
struct logit_need beam_need(const struct beam *b);

/*
 * Takes the logits of the live beams' rows (beam i at logits + i * stride; vocab scores each) and
 * moves on: sequences are forked and closed. False if a logit is not finite: the search cannot go
 * on and must be closed.
 */
bool beam_advance(struct beam *b, struct workspace *w, struct sampler *sampler, const float *logits,
                size_t stride);

/* Closes the sequences of a search that is over or is given up. */
void beam_close(struct beam *b, struct workspace *w);

/* Ends a search early: live beams count as finished where they are, so that a deadline still has an
 * answer. */
void beam_cut(struct beam *b, struct workspace *w);

/* Finished hypotheses, best first. */
int beam_hypotheses(const struct beam *b);
void beam_hypothesis(const struct beam *b, int i, struct hypothesis *ret);

#endif
