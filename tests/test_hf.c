/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hugging Face's encoders and encoder-decoders, from their own config.json and tensor names to
 * scores, at several plans, against what PyTorch computes from the library's definitions
 * (tools/reference_hf.py).
 */
#include "model/doc.h"
#include "model/file.h"
#include "model/model.h"

#include <math.h>

#include "tests/check.h"

enum { ROWS = 32 };

static char err[400];

/* A folder of tests/data, which has no tokenizer, ready to run. */
struct folder_run {
	struct model model;
	struct team *team;
	struct workspace *w;
	struct doc *goldens;
};

static void start(struct folder_run *f, const char *name) {
	char dir[4200];
	size_t len;
	snprintf(dir, sizeof dir, "%s", check_data(name));
	*f = (struct folder_run){ .model.ops = ops_c() };
	struct weights_options how = { .ops = ops_c(), .threads = 1 };
	char *config = file_read(dir, "config.json", 1 << 16, &len, err, sizeof err);
	if (!config || !facts_parse(config, len, &f->model.facts, err, sizeof err)
	                || !weights_load(dir, &f->model.facts, &how, &f->model.weights, err,
	                                sizeof err))
		check_fail(__FILE__, __LINE__, "%s", err);
	free(config);
	char *text = file_read(dir, "hf.json", 1 << 20, &len, err, sizeof err);
	CHECK(text != NULL);
	f->goldens = doc_parse(text, len, "hf.json", err, sizeof err);
	free(text);
	struct workspace_options options = {
		.max_rows = ROWS, .max_logit_rows = ROWS, .max_sequences = 1, .kv_bytes = 4 << 20
	};
	options.team = f->team = team_create(1, err, sizeof err);
	CHECK(f->goldens && f->team);
	f->w = workspace_create(&f->model, &options, err, sizeof err);
	if (!f->w)
		check_fail(__FILE__, __LINE__, "%s", err);
}

static void end(struct folder_run *f) {
	workspace_destroy(f->w);
	team_destroy(f->team);
	weights_finish(&f->model.weights);
	doc_free(f->goldens);
}

static int64_t whole(const struct doc *list, size_t i) {
	int64_t value;
	CHECK(doc_as_int(doc_at(list, i), &value));
	return value;
}

static struct plan plan_of(const struct doc *list, int of) {
	struct plan plan = { 0 };
	int64_t layers[MAX_LAYERS];
	for (size_t i = 0; i < doc_count(list); i++)
		layers[i] = whole(list, i);
	if (of > 0 && !plan_from_list(of, layers, doc_count(list), &plan, err, sizeof err))
		check_fail(__FILE__, __LINE__, "%s", err);
	return plan;
}

/* `rows` rows of n numbers, ld apart, are those of the case. */
static void check_numbers(
                const struct doc *c, const char *key, const float *x, size_t ld, int rows, int n) {
	const struct doc *wanted = doc_get(c, key);
	CHECK_INT(doc_count(wanted), rows * n);
	for (int i = 0; i < rows * n; i++) {
		double value;
		CHECK(doc_as_number(doc_at(wanted, (size_t)i), &value));
		float got = x[(size_t)(i / n) * ld + (size_t)(i % n)];
		if (!(fabs(got - value) <= 5e-5))
			check_fail(__FILE__, __LINE__, "%s %d is %.7g, expected %.7g", key, i, got,
			                value);
	}
}

static struct subnet subnet_of(const struct folder_run *f, const struct doc *c) {
	const struct stack_facts *s = f->model.facts.stack;
	return (struct subnet){ .stack = { [STACK_ENCODER] = plan_of(doc_get(c, "encoder"),
		                                           s[STACK_ENCODER].layers),
		                                [STACK_DECODER] = plan_of(doc_get(c, "decoder"),
		                                                s[STACK_DECODER].layers) } };
}

/* Adds one row for each token of the list; returns how many. */
static int add_rows(struct row *rows, struct sequence *s, enum stack stack,
                const struct doc *tokens, const struct doc *types) {
	int n = (int)doc_count(tokens);
	for (int i = 0; i < n; i++)
		rows[i] = (struct row){ .sequence = s,
			.stack = stack,
			.token = (int32_t)whole(tokens, (size_t)i),
			.position = i,
			.type = types ? (int32_t)whole(types, (size_t)i) : 0 };
	return n;
}

static void run_encoder(const char *name) {
	struct folder_run f;
	start(&f, name);
	const struct facts *facts = &f.model.facts;
	const struct doc *cases = doc_get(f.goldens, "cases");
	for (size_t i = 0; i < doc_count(cases); i++) {
		const struct doc *c = doc_at(cases, i), *tokens = doc_get(f.goldens, "tokens");
		struct subnet subnet = subnet_of(&f, c);
		struct row rows[ROWS];
		int indices[ROWS], dim = facts->stack[STACK_ENCODER].dim;
		struct sequence *s = sequence_open_source(f.w, &subnet, 0, (int)doc_count(tokens));
		int n = add_rows(rows, s, STACK_ENCODER, tokens, doc_get(f.goldens, "types"));
		float *hidden = malloc((size_t)(n * dim) * sizeof *hidden);
		CHECK(hidden != NULL);
		step_run(f.w, rows, n);
		for (int r = 0; r < n; r++) {
			indices[r] = r;
			memcpy(hidden + r * dim, step_hidden(f.w, r), (size_t)dim * sizeof *hidden);
		}
		check_numbers(c, "hidden", hidden, (size_t)dim, n, dim);
		free(hidden);
		if (facts->mlm_head)
			check_numbers(c, "logits", step_logits_needed(f.w, indices, NULL, n),
			                step_logits_stride(f.w), n, facts->vocab);
		else
			check_numbers(c, "classes", step_classes(f.w, 0, indices, 1),
			                step_classes_stride(f.w), 1, facts->classifiers[0].classes);
		sequence_close(f.w, s);
	}
	end(&f);
}

static void run_seq2seq(const char *name) {
	struct folder_run f;
	start(&f, name);
	const struct doc *cases = doc_get(f.goldens, "cases");
	const struct doc *source = doc_get(f.goldens, "source");
	const struct doc *target = doc_get(f.goldens, "target");
	CHECK_INT(whole(target, 0), f.model.facts.decoder_start);
	for (size_t i = 0; i < doc_count(cases); i++) {
		const struct doc *c = doc_at(cases, i);
		struct subnet subnet = subnet_of(&f, c);
		struct row rows[ROWS];
		int indices[ROWS];
		struct sequence *s = sequence_open_source(
		                f.w, &subnet, (int)doc_count(target), (int)doc_count(source));
		int encoded = add_rows(rows, s, STACK_ENCODER, source, NULL);
		int n = add_rows(rows + encoded, s, STACK_DECODER, target, NULL);
		for (int r = 0; r < n; r++)
			indices[r] = encoded + r;
		step_run(f.w, rows, encoded + n);
		check_numbers(c, "logits", step_logits_needed(f.w, indices, NULL, n),
		                step_logits_stride(f.w), n, f.model.facts.vocab);
		sequence_close(f.w, s);
	}
	end(&f);
}

TEST(bert_and_its_masked_head_compute_what_pytorch_does) {
	run_encoder("hf-bert-mlm");
}

TEST(bert_classifies_as_pytorch_does) {
	run_encoder("hf-bert-classes");
}

TEST(roberta_and_its_masked_head_compute_what_pytorch_does) {
	run_encoder("hf-roberta-mlm");
}

TEST(roberta_classifies_as_pytorch_does) {
	run_encoder("hf-roberta-classes");
}

TEST(bart_computes_what_pytorch_does) {
	run_seq2seq("hf-bart");
}

TEST(fsmt_computes_what_pytorch_does) {
	run_seq2seq("hf-fsmt");
}

TEST(m2m_100_computes_what_pytorch_does) {
	run_seq2seq("hf-m2m_100");
}

TEST(marian_computes_what_pytorch_does) {
	run_seq2seq("hf-marian");
}
