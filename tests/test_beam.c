/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beam search: what it finds in small Markov chains, against fairseq's algorithm written down in
 * Python (make_beam_cases.py), and what it does with the blocks of the pool.
 */
#include <math.h>

#include "model/beam.h"
#include "tests/beam_cases.h"
#include "tests/check.h"
#include "tests/random_model.h"

enum { EOS = 2, PAD = 1, UNK = 3, START = 2, CONTEXT = 200, LAYERS = 2, BEAMS = 8 };

static const struct stack_facts shape = { .layers = LAYERS,
	.dim = 16,
	.heads = 2,
	.ffn = 16,
	.norm = NORM_PRE,
	.final_norm = true,
	.activation = ACTIVATION_RELU,
	.positions = POSITIONS_LEARNED };

struct rig {
	struct model *model;
	struct team *team;
	struct workspace *w;
	struct sampler *sampler;
	struct beam *beam;
};

static struct rig start(int blocks) {
	char err[200] = "";
	struct rig r = { .model = random_model_create(ops_c(), &shape, CASE_VOCAB, CONTEXT, true) };
	r.team = team_create(1, err, sizeof err);
	struct workspace_options options = { .team = r.team,
		.max_rows = 16,
		.max_logit_rows = 8,
		.max_sequences = BEAMS,
		.kv_bytes = (size_t)blocks * 2 * KV_TILE * 16 * sizeof(float) };
	r.w = workspace_create(r.model, &options, err, sizeof err);
	r.sampler = sampler_create(ops_c(), CASE_VOCAB, err, sizeof err);
	r.beam = beam_create(BEAMS, CONTEXT - 1);
	if (!r.w || !r.sampler || !r.beam)
		check_fail(__FILE__, __LINE__, "%s", err);
	return r;
}

static void stop(struct rig *r) {
	CHECK_INT(workspace_blocks_reserved(r->w), 0);
	beam_destroy(r->beam);
	sampler_destroy(r->sampler);
	workspace_destroy(r->w);
	team_destroy(r->team);
	random_model_destroy(r->model);
}

static void begin(struct rig *r, const struct beam_options *options) {
	struct plan plan;
	plan_by_rule(PLAN_RULE_EVEN, LAYERS, LAYERS, &plan);
	struct subnet subnet = random_model_subnet(&plan);
	struct sequence *s = sequence_open(r->w, &subnet, options->sequence_tokens);
	CHECK(s);
	beam_begin(r->beam, options, s);
}

/* Runs the live beams' rows and gives the search the chain's scores in place of the model's. */
static void advance(struct rig *r) {
	static float logits[BEAMS][CASE_VOCAB];
	struct row rows[BEAMS];
	int n = beam_live(r->beam);
	for (int i = 0; i < n; i++) {
		struct sequence *s = beam_sequence(r->beam, i);
		int32_t token = sequence_length(s) == 0 ? START : beam_token(r->beam, i);
		rows[i] = (struct row){ .sequence = s,
			.stack = STACK_DECODER,
			.token = token,
			.position = sequence_length(s) };
		for (int k = 0; k < CASE_VOCAB; k++)
			logits[i][k] = case_logits[token][k];
	}
	step_run(r->w, rows, n);
	CHECK(beam_advance(r->beam, r->w, r->sampler, logits[0], CASE_VOCAB));
}

static struct beam_options options_of(const struct beam_case *c) {
	return (struct beam_options){ .beams = c->beams,
		.length_penalty = c->length_penalty,
		.max_tokens = c->max_tokens,
		.min_tokens = c->min_tokens,
		.eos = EOS,
		.pad = PAD,
		.unk = UNK,
		.unk_penalty = c->unk_penalty,
		.sequence_tokens = c->max_tokens + 1 };
}

static void check_case(const struct beam_case *c) {
	struct rig r = start(BEAMS * LAYERS);
	struct beam_options options = options_of(c);
	begin(&r, &options);
	while (beam_live(r.beam) > 0)
		advance(&r);
	CHECK_INT(beam_hypotheses(r.beam), c->n);
	for (int i = 0; i < c->n; i++) {
		struct hypothesis h;
		beam_hypothesis(r.beam, i, &h);
		CHECK_INT(h.n_tokens, c->hypotheses[i].n);
		for (int k = 0; k < h.n_tokens; k++)
			CHECK_INT(h.tokens[k], c->hypotheses[i].tokens[k]);
		CHECK(fabs(h.score - c->hypotheses[i].score) < 1e-5);
		CHECK(fabs((double)h.logprobs[0] - c->hypotheses[i].first) < 1e-5);
		CHECK(fabs((double)h.logprobs[h.n_tokens - 1] - c->hypotheses[i].last) < 1e-5);
		CHECK_INT(h.ended, h.n_tokens <= c->max_tokens);
	}
	stop(&r);
}

TEST(hypotheses_are_fairseqs) {
	for (size_t i = 0; i < sizeof beam_cases / sizeof *beam_cases; i++)
		check_case(&beam_cases[i]);
}

TEST(a_search_may_be_given_up_at_any_step_and_gives_its_blocks_back) {
	const struct beam_options options = { .beams = BEAMS,
		.length_penalty = 1,
		.max_tokens = 150,
		.min_tokens = 150,
		.eos = EOS,
		.pad = PAD,
		.unk = -1,
		.sequence_tokens = 151 };
	for (int steps = 0; steps < 150; steps += 7) {
		struct rig r = start(BEAMS * LAYERS * 3);
		begin(&r, &options);
		for (int i = 0; i < steps; i++)
			advance(&r);
		CHECK(beam_live(r.beam) >= 1);
		beam_close(r.beam, r.w);
		CHECK_INT(beam_hypotheses(r.beam), 0);
		stop(&r);
	}
}

TEST(a_pool_of_exactly_the_reserved_blocks_is_enough) {
	const struct beam_options options = { .beams = BEAMS,
		.length_penalty = 1,
		.max_tokens = 180,
		.min_tokens = 180,
		.eos = EOS,
		.pad = PAD,
		.unk = -1,
		.sequence_tokens = 181 };
	struct rig r = start(BEAMS * LAYERS * 3);
	begin(&r, &options);
	while (beam_live(r.beam) > 0)
		advance(&r);
	CHECK_INT(beam_hypotheses(r.beam), BEAMS);
	stop(&r);
}

TEST(a_search_that_is_cut_answers_with_its_live_beams) {
	const struct beam_options options = { .beams = 3,
		.length_penalty = 1,
		.max_tokens = 20,
		.min_tokens = 20,
		.eos = EOS,
		.pad = PAD,
		.unk = -1,
		.sequence_tokens = 21 };
	struct rig r = start(BEAMS * LAYERS);
	begin(&r, &options);
	for (int i = 0; i < 5; i++)
		advance(&r);
	beam_cut(r.beam, r.w);
	CHECK_INT(beam_hypotheses(r.beam), 3);
	for (int i = 0; i < 3; i++) {
		struct hypothesis h, next;
		beam_hypothesis(r.beam, i, &h);
		CHECK_INT(h.n_tokens, 5);
		CHECK(!h.ended);
		double sum = 0;
		for (int k = 0; k < 5; k++)
			sum += (double)h.logprobs[k];
		CHECK(fabs(h.score - sum / 5) < 1e-6);
		if (i < 2) {
			beam_hypothesis(r.beam, i + 1, &next);
			CHECK(h.score >= next.score);
		}
	}
	stop(&r);
}

TEST(a_score_that_is_not_a_number_stops_the_search) {
	static float logits[CASE_VOCAB];
	const struct beam_options options = options_of(&beam_cases[2]);
	struct rig r = start(BEAMS * LAYERS);
	begin(&r, &options);
	logits[4] = NAN;
	CHECK(!beam_advance(r.beam, r.w, r.sampler, logits, CASE_VOCAB));
	beam_close(r.beam, r.w);
	stop(&r);
}
