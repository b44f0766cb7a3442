/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine against programs that share no code with it: goldens.json and seq2seq.json of
 * tests/data/FOLDER were written by tools/reference*.py (PyTorch) for every depth. Scores,
 * log-probabilities and states must agree within 1e-4, and tokens exactly, at every level of this
 * processor and with OpenBLAS.
 */
#include <math.h>

#include "model/beam.h"
#include "tests/check.h"
#include "tests/golden.h"
#include "tests/random_model.h"

/* ---- language models ---- */

static void check_text(struct golden *g, const char *where, const struct doc *c) {
	int32_t tokens[GOLDEN_ROWS];
	int n = golden_tokens(doc_get(c, "tokens"), tokens);
	int more = (int)doc_count(doc_get(c, "greedy"));
	CHECK(n >= 2 && more >= 1 && n + more <= GOLDEN_ROWS);
	struct plan plan = golden_plan(doc_get(c, "layers"), model_layers(g->model));
	struct subnet subnet = random_model_subnet(&plan);
	struct sequence *s = sequence_open(g->w, &subnet, n + more);
	CHECK(s);

	const float *logits = golden_decode(g, s, tokens, 0, n);
	size_t stride = step_logits_stride(g->w);
	for (int i = 0; i + 1 < n; i++) {
		float logprob;
		CHECK(sample_logprobs(g->sampler, logits + (size_t)i * stride, tokens[i + 1], 0,
		                &logprob, NULL, NULL));
		golden_near(where, "a log-probability", (double)logprob,
		                golden_number(c, "logprobs", (size_t)i));
	}
	CHECK_INT(doc_count(doc_get(c, "logits_last")), g->model->facts.vocab);
	logits += (size_t)(n - 1) * stride;
	for (int i = 0; i < g->model->facts.vocab; i++)
		golden_near(where, "a score", (double)logits[i],
		                golden_number(c, "logits_last", (size_t)i));

	struct sampling greedy = { .top_p = 1, .repetition_penalty = 1 };
	struct logit_need best = { .top = 1, .target = -1 };
	for (int i = 0; i < more; i++) {
		CHECK(sample_token(g->sampler, logits, &greedy, NULL, 0, NULL, 0, 0, 0,
		                &tokens[n + i]));
		CHECK_INT(tokens[n + i], (int32_t)golden_number(c, "greedy", (size_t)i));
		golden_decode(g, s, tokens, n + i, n + i + 1);
		logits = step_logits_needed(g->w, (int[]){ 0 }, &best, 1);
	}
	sequence_close(g->w, s);
}

/* ---- encoders ---- */

static void check_classes(struct golden *g, const char *where, const struct doc *logits) {
	const struct facts *facts = &g->model->facts;
	CHECK_INT(doc_count(logits), facts->n_classifiers);
	for (int h = 0; h < facts->n_classifiers; h++) {
		const struct classifier_facts *head = &facts->classifiers[h];
		const float *scores = step_classes(g->w, h, (int[]){ 0 }, 1);
		for (int i = 0; i < head->classes; i++)
			golden_near(where, "a class", (double)scores[i],
			                golden_number(logits, head->name, (size_t)i));
	}
}

/* The best tokens for a masked one. */
static void check_mask(struct golden *g, const char *where, const struct doc *mask) {
	int64_t position;
	struct token_logprob top[20];
	float logprob;
	int n = (int)doc_count(doc_get(mask, "ids"));
	CHECK(doc_as_int(doc_get(mask, "position"), &position) && n <= 20);
	const float *logits = step_logits(g->w, (int[]){ (int)position }, 1);
	CHECK(sample_logprobs(g->sampler, logits, 0, n, &logprob, top, NULL));
	for (int i = 0; i < n; i++) {
		CHECK_INT(top[i].token, (int32_t)golden_number(mask, "ids", (size_t)i));
		golden_near(where, "a masked token", (double)top[i].logprob,
		                golden_number(mask, "logprobs", (size_t)i));
	}
}

static void check_states(struct golden *g, const char *where, const struct doc *c) {
	int32_t tokens[GOLDEN_ROWS];
	int n = golden_tokens(doc_get(c, "tokens"), tokens);
	struct subnet subnet = { 0 };
	subnet.stack[STACK_ENCODER] = golden_plan(doc_get(c, "layers"), model_layers(g->model));
	struct sequence *s = sequence_open_source(g->w, &subnet, 0, n);
	CHECK(s);
	golden_encode(g, s, tokens, n);
	int dim = g->model->facts.stack[STACK_ENCODER].dim;
	for (int k = 0; k < dim; k++) {
		double mean = 0;
		for (int i = 0; i < n; i++)
			mean += (double)step_hidden(g->w, i)[k] / n;
		golden_near(where, "a state", (double)step_hidden(g->w, 0)[k],
		                golden_number(c, "cls", (size_t)k));
		golden_near(where, "a mean", mean, golden_number(c, "mean", (size_t)k));
	}
	check_classes(g, where, doc_get(c, "logits"));
	for (size_t i = 0; i < doc_count(doc_get(c, "masks")); i++)
		check_mask(g, where, doc_at(doc_get(c, "masks"), i));
	sequence_close(g->w, s);
}

static void check_folder(struct golden *g, const char *where, const struct doc *goldens) {
	const struct doc *cases = doc_get(goldens, "cases");
	CHECK(doc_count(cases) > 0);
	for (size_t i = 0; i < doc_count(cases); i++) {
		char place[500];
		snprintf(place, sizeof place, "%s, case %zu", where, i);
		if (g->model->facts.kind == KIND_ENCODER)
			check_states(g, place, doc_at(cases, i));
		else
			check_text(g, place, doc_at(cases, i));
	}
}

/* ---- encoder-decoders ---- */

/* One source with its subnet. */
struct source {
	struct subnet subnet;
	int32_t tokens[GOLDEN_ROWS];
	int n, max_len;
};

static struct source read_source(const struct golden *g, const struct doc *c) {
	const struct stack_facts *stack = g->model->facts.stack;
	struct source source = { 0 };
	int64_t max_len;
	source.subnet.stack[STACK_ENCODER] =
	                golden_plan(doc_get(c, "encoder_layers"), stack[STACK_ENCODER].layers);
	source.subnet.stack[STACK_DECODER] =
	                golden_plan(doc_get(c, "decoder_layers"), stack[STACK_DECODER].layers);
	source.n = golden_tokens(doc_get(c, "source"), source.tokens);
	CHECK(doc_as_int(doc_get(c, "max_len"), &max_len) && max_len < GOLDEN_ROWS);
	source.max_len = (int)max_len;
	return source;
}

/* Opens a sequence and runs its source. */
static struct sequence *encode(struct golden *g, const struct source *source, int tokens) {
	struct sequence *s = sequence_open_source(g->w, &source->subnet, tokens, source->n);
	CHECK(s);
	golden_encode(g, s, source->tokens, source->n);
	return s;
}

static void check_target(struct golden *g, const char *where, const struct source *source,
                const struct doc *c) {
	int32_t target[GOLDEN_ROWS], input[GOLDEN_ROWS];
	int n = golden_tokens(doc_get(c, "target"), target);
	struct sequence *s = encode(g, source, n);
	const float *last = step_hidden(g->w, source->n - 1);
	for (size_t i = 0; i < doc_count(doc_get(c, "encoder_last")); i++)
		golden_near(where, "a state", (double)last[i], golden_number(c, "encoder_last", i));
	input[0] = g->model->facts.decoder_start;
	memcpy(input + 1, target, (size_t)(n - 1) * sizeof *input);
	const float *logits = golden_decode(g, s, input, 0, n);
	for (int i = 0; i < n; i++) {
		float logprob;
		CHECK(sample_logprobs(g->sampler, logits + (size_t)i * step_logits_stride(g->w),
		                target[i], 0, &logprob, NULL, NULL));
		golden_near(where, "a log-probability", (double)logprob,
		                golden_number(c, "logprobs", (size_t)i));
	}
	sequence_close(g->w, s);
}

static void check_greedy(struct golden *g, const struct source *source, const struct doc *c) {
	int32_t tokens[GOLDEN_ROWS], wanted[GOLDEN_ROWS];
	const struct facts *facts = &g->model->facts;
	int n = golden_tokens(doc_get(c, "greedy"), wanted);
	struct sequence *s = encode(g, source, source->max_len + 1);
	tokens[0] = facts->decoder_start;
	for (int i = 0; i < n && i < source->max_len; i++) {
		const int32_t banned[] = { facts->pad, facts->eos };
		struct sampling greedy = { .top_p = 1, .repetition_penalty = 1, .banned = banned };
		greedy.n_banned = i == 0 ? 2 : 1;
		const float *logits = golden_decode(g, s, tokens, i, i + 1);
		CHECK(sample_token(g->sampler, logits, &greedy, NULL, 0, NULL, 0, 0, 0,
		                &tokens[i + 1]));
		CHECK_INT(tokens[i + 1], wanted[i]);
	}
	sequence_close(g->w, s);
}

/* Runs a search to its end. */
static void search(struct golden *g, struct beam *b, const struct source *source,
                const struct beam_options *options) {
	int indices[MAX_BEAMS];
	struct row rows[MAX_BEAMS];
	beam_begin(b, options, encode(g, source, options->sequence_tokens));
	while (beam_live(b) > 0) {
		int n = beam_live(b);
		for (int i = 0; i < n; i++) {
			struct sequence *s = beam_sequence(b, i);
			int position = sequence_length(s);
			indices[i] = i;
			rows[i] = (struct row){ .sequence = s,
				.stack = STACK_DECODER,
				.token = position ? beam_token(b, i)
				                  : g->model->facts.decoder_start,
				.position = position };
		}
		step_run(g->w, rows, n);
		const float *logits = step_logits(g->w, indices, n);
		CHECK(beam_advance(b, g->w, g->sampler, logits, step_logits_stride(g->w)));
	}
}

static void check_beams(struct golden *g, const char *where, const struct source *source,
                const struct doc *c) {
	const struct doc *hypotheses = doc_get(c, "hypotheses");
	int64_t beams;
	struct beam_options options = { .max_tokens = source->max_len,
		.min_tokens = 1,
		.eos = g->model->facts.eos,
		.pad = g->model->facts.pad,
		.unk = -1,
		.sequence_tokens = source->max_len + 1 };
	CHECK(doc_as_int(doc_get(c, "beam"), &beams));
	CHECK(doc_as_number(doc_get(c, "lenpen"), &options.length_penalty));
	options.beams = (int)beams;
	struct beam *b = beam_create(options.beams, options.max_tokens);
	CHECK(b);
	search(g, b, source, &options);
	CHECK_INT(beam_hypotheses(b), doc_count(hypotheses));
	for (int i = 0; i < beam_hypotheses(b); i++) {
		struct hypothesis h;
		int32_t wanted[GOLDEN_ROWS];
		double score = 0;
		beam_hypothesis(b, i, &h);
		CHECK(doc_as_number(doc_get(doc_at(hypotheses, (size_t)i), "score"), &score));
		CHECK_INT(h.n_tokens,
		                golden_tokens(doc_get(doc_at(hypotheses, (size_t)i), "ids"),
		                                wanted));
		CHECK(memcmp(h.tokens, wanted, (size_t)h.n_tokens * sizeof *wanted) == 0);
		golden_near(where, "a hypothesis", h.score, score);
	}
	beam_destroy(b);
}

static void check_translations(struct golden *g, const char *where, const struct doc *goldens) {
	const struct doc *cases = doc_get(goldens, "cases");
	CHECK(doc_count(cases) > 0);
	for (size_t i = 0; i < doc_count(cases); i++) {
		char place[500];
		const struct doc *c = doc_at(cases, i), *beams = doc_get(c, "beams");
		snprintf(place, sizeof place, "%s, case %zu", where, i);
		struct source source = read_source(g, c);
		check_target(g, place, &source, c);
		check_greedy(g, &source, c);
		CHECK(doc_count(beams) > 0);
		for (size_t b = 0; b < doc_count(beams); b++)
			check_beams(g, place, &source, doc_at(beams, b));
		CHECK_INT(workspace_blocks_reserved(g->w), 0);
	}
}

static void check_all(const struct ops *ops) {
	CHECK(golden_each_folder("goldens.json", ops, check_folder) >= 7);
	CHECK(golden_each_folder("seq2seq.json", ops, check_translations) >= 2);
}

TEST(plain_c_agrees_with_pytorch_at_every_depth) {
	check_all(ops_c());
}

TEST(every_level_of_the_processor_agrees_with_pytorch) {
	const struct ops *tables[CPU_LEVELS + 1];
	int n = random_model_tables(tables);
	if (n == 1)
		SKIP("this machine has no level above plain C");
	for (int t = 1; t < n; t++)
		check_all(tables[t]);
}

TEST(openblas_agrees_with_pytorch) {
	if (!ops_blas())
		SKIP("built without OpenBLAS");
	check_all(ops_blas());
}
