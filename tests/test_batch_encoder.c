/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts for an encoder in the running batch: features and classes agree with the reference in
 * PyTorch (goldens.json), whatever lengths and depths share a step, and jobs share the steps.
 */
#include <math.h>

#include "model/doc.h"
#include "server/clock.h"
#include "tests/check.h"
#include "tests/running.h"

enum { DIM = 32, MOST_CASES = 32, MOST_TOKENS = 64 };
#define NEAR 1e-4

static struct doc *goldens;
static const struct doc *cases;

static void open_golden(void) {
	char err[256];
	size_t len;
	running_open("tiny-encoder");
	running_rig.config.max_running = 96;
	running_rig.config.max_rows = 128;
	running_reopen(0);
	char *json = check_read_file(check_data("tiny-encoder/goldens.json"), &len);
	goldens = doc_parse(json, len, "goldens.json", err, sizeof err);
	free(json);
	cases = doc_get(goldens, "cases");
	CHECK(doc_count(cases) > 0 && doc_count(cases) <= MOST_CASES);
	CHECK_INT(running_rig.model->facts.stack[STACK_ENCODER].dim, DIM);
}

static void close_golden(void) {
	doc_free(goldens);
	running_close();
}

static char *write_list(char *to, const struct doc *list) {
	to += sprintf(to, "[");
	for (size_t i = 0; i < doc_count(list); i++) {
		int64_t value = -1;
		CHECK(doc_as_int(doc_at(list, i), &value));
		to += sprintf(to, "%s%lld", i ? "," : "", (long long)value);
	}
	return to + sprintf(to, "]");
}

static struct ticket *join_case(enum request_kind kind, size_t i, const char *more) {
	char body[2048], *to = body + sprintf(body, "{\"input\":");
	const struct doc *c = doc_at(cases, i);
	to = write_list(to, doc_get(c, "tokens"));
	to += sprintf(to, ",\"layers\":");
	to = write_list(to, doc_get(c, "layers"));
	sprintf(to, ",%s}", more);
	return running_join(kind, body);
}

static void check_near(const struct doc *c, const char *key, const float *actual, int n) {
	const struct doc *list = doc_get(c, key);
	CHECK_INT(doc_count(list), n);
	for (int i = 0; i < n; i++) {
		double value;
		CHECK(doc_as_number(doc_at(list, (size_t)i), &value));
		if (fabs((double)actual[i] - value) > NEAR)
			check_fail(__FILE__, __LINE__, "%s[%d] is %g, not %g", key, i,
			                (double)actual[i], value);
	}
}

/* The kinds of work, all of which share every step below. */
static const struct {
	enum request_kind kind;
	const char *more, *golden;
	int n;
} works[] = {
	{ REQUEST_EMBEDDING, "\"pooling\":\"cls\",\"normalize\":false", "cls", DIM },
	{ REQUEST_EMBEDDING, "\"pooling\":\"mean\",\"normalize\":false", "mean", DIM },
	{ REQUEST_CLASSIFY, "\"head\":\"sentence_classification_head\"",
	                "sentence_classification_head", 2 },
	{ REQUEST_CLASSIFY, "\"head\":\"mnli\"", "mnli", 3 },
};
enum { WORKS = 4 };

TEST(features_and_classes_of_mixed_depths_agree_with_the_reference) {
	struct ticket *t[MOST_CASES][WORKS];
	open_golden();
	size_t n = doc_count(cases);
	for (size_t i = 0; i < n; i++)
		for (int k = 0; k < WORKS; k++)
			t[i][k] = join_case(works[k].kind, i, works[k].more);
	running_all();
	for (size_t i = 0; i < n; i++) {
		for (int k = 0; k < WORKS; k++) {
			const struct doc *c = doc_at(cases, i);
			if (works[k].kind == REQUEST_CLASSIFY)
				c = doc_get(c, "logits");
			CHECK_INT(t[i][k]->job->error.code, ERROR_NONE);
			check_near(c, works[k].golden, t[i][k]->job->prompts[0].output, works[k].n);
			running_destroy(t[i][k]);
		}
	}
	close_golden();
}

TEST(a_normalised_embedding_is_the_raw_one_at_length_one) {
	open_golden();
	struct ticket *raw = join_case(REQUEST_EMBEDDING, 3, "\"normalize\":false");
	struct ticket *unit = join_case(REQUEST_EMBEDDING, 3, "\"normalize\":true");
	running_all();
	const float *x = raw->job->prompts[0].output, *y = unit->job->prompts[0].output;
	double sum = 0, length = 0;
	for (int i = 0; i < DIM; i++) {
		length += (double)x[i] * (double)x[i];
		sum += (double)y[i] * (double)y[i];
	}
	CHECK(fabs(sum - 1) < 1e-6);
	for (int i = 0; i < DIM; i++)
		CHECK(fabs((double)x[i] / sqrt(length) - (double)y[i]) < 1e-6);
	running_destroy(raw);
	running_destroy(unit);
	close_golden();
}

TEST(results_are_the_same_bits_alone_and_in_a_crowd) {
	struct ticket *alone[MOST_CASES], *crowd[MOST_CASES];
	open_golden();
	int n = (int)doc_count(cases);
	for (int i = 0; i < n; i++) {
		alone[i] = join_case(works[i % WORKS].kind, (size_t)i, works[i % WORKS].more);
		running_all();
	}
	for (int i = 0; i < n; i++)
		crowd[i] = join_case(works[i % WORKS].kind, (size_t)i, works[i % WORKS].more);
	running_step();
	CHECK(running_stats.step.rows > 64);
	running_all();
	for (int i = 0; i < n; i++) {
		size_t bytes = (size_t)works[i % WORKS].n * sizeof(float);
		CHECK(memcmp(alone[i]->job->prompts[0].output, crowd[i]->job->prompts[0].output,
		                      bytes)
		                == 0);
		running_destroy(alone[i]);
		running_destroy(crowd[i]);
	}
	close_golden();
}

/* ---- masks ---- */

/* The best token of a row and its log-probability, from one text alone in a workspace of its own. */
static void best_alone(const int32_t *tokens, int n, int row, int32_t *ret_token, double *ret) {
	char err[256];
	struct team *team = team_create(1, err, sizeof err);
	CHECK(team);
	struct workspace_options options = { .team = team,
		.max_rows = 64,
		.max_logit_rows = 1,
		.max_sequences = 1,
		.kv_bytes = 1 << 20 };
	struct workspace *w = workspace_create(running_rig.model, &options, err, sizeof err);
	struct subnet subnet;
	CHECK(w && model_subnet(running_rig.model, PLAN_RULE_EVEN, 5, &subnet));
	struct sequence *s = sequence_open_source(w, &subnet, 0, n);
	struct row rows[MOST_TOKENS];
	for (int i = 0; i < n; i++)
		rows[i] = (struct row){ s, STACK_ENCODER, tokens[i], i, 0 };
	step_run(w, rows, n);
	const float *logits = step_logits(w, &row, 1);
	int best = 0, vocab = running_rig.model->facts.vocab;
	double sum = 0;
	for (int k = 1; k < vocab; k++)
		best = logits[k] > logits[best] ? k : best;
	for (int k = 0; k < vocab; k++)
		sum += exp((double)logits[k] - (double)logits[best]);
	*ret_token = best;
	*ret = -log(sum);
	sequence_close(w, s);
	workspace_destroy(w);
	team_destroy(team);
}

TEST(every_mask_gets_its_best_tokens) {
	open_golden();
	/* More masks in one step than rows of scores go at once: 128 / 11 texts of 8 masks. */
	struct ticket *t[12];
	char body[256];
	for (int i = 0; i < 12; i++) {
		snprintf(body, sizeof body,
		                "{\"input\":[0,119,119,%d,119,119,119,119,119,119,2],\"top_k\":3}",
		                4 + i);
		t[i] = running_join(REQUEST_FILL_MASK, body);
	}
	running_step();
	CHECK(running_stats.step.logit_rows > 64);
	running_all();
	for (int i = 0; i < 12; i += 5) {
		const struct job_prompt *p = &t[i]->job->prompts[0];
		CHECK_INT(p->n_masks, 8);
		for (int m = 0; m < 8; m++) {
			int32_t token;
			double logprob;
			const struct token_logprob *fills = p->fills + 3 * m;
			best_alone(p->tokens, p->n_tokens, p->masks[m], &token, &logprob);
			CHECK_INT(fills[0].token, token);
			CHECK(fabs((double)fills[0].logprob - logprob) < NEAR);
			CHECK(fills[1].logprob <= fills[0].logprob);
			CHECK(fills[2].logprob <= fills[1].logprob);
		}
	}
	for (int i = 0; i < 12; i++)
		running_destroy(t[i]);
	close_golden();
}

/* ---- sharing ---- */

/* `texts` texts of `tokens` tokens each. */
static struct ticket *join_texts(int texts, int tokens, const char *more) {
	size_t size = (size_t)texts * (size_t)tokens * 6 + 256;
	char *body = malloc(size), *to = body;
	CHECK(body);
	to += sprintf(to, "{\"input\":[");
	for (int i = 0; i < texts; i++) {
		to += sprintf(to, "%s[0", i ? "," : "");
		for (int k = 2; k < tokens; k++)
			to += sprintf(to, ",%d", 4 + (i + 7 * k) % 100);
		to += sprintf(to, ",2]");
	}
	sprintf(to, "]%s}", more);
	struct ticket *t = running_join(REQUEST_EMBEDDING, body);
	free(body);
	return t;
}

TEST(a_newcomer_does_not_wait_for_a_large_job) {
	running_open("tiny-encoder");
	struct ticket *large = join_texts(400, 16, "");
	struct ticket *second = join_texts(400, 16, "");
	for (int i = 0; i < 20; i++)
		running_step();
	struct ticket *small = join_texts(1, 16, "");
	running_step();
	CHECK_INT(small->report.state, JOB_DONE);
	/* The large ones have been served alike. */
	CHECK(abs(large->texts.next - second->texts.next) <= 2);
	CHECK(large->texts.next < 400);
	running_all();
	CHECK_INT(large->prompts_through, 400);
	running_destroy(large);
	running_destroy(second);
	running_destroy(small);
	running_close();
}

TEST(a_more_urgent_job_goes_first) {
	running_open("tiny-encoder");
	struct ticket *large = join_texts(100, 16, "");
	struct ticket *urgent = join_texts(10, 16, "");
	urgent->scheduled.priority = -5;
	urgent->scheduled.at.class = -5;
	int before = large->texts.next;
	while (urgent->report.state != JOB_DONE)
		running_step();
	CHECK_INT(large->texts.next, before);
	running_all();
	running_destroy(large);
	running_destroy(urgent);
	running_close();
}

TEST(steps_are_filled_with_texts_of_many_jobs) {
	running_open("tiny-encoder");
	struct ticket *t[5];
	for (int i = 0; i < 5; i++)
		t[i] = join_texts(1, 6, "");
	running_step();
	CHECK_INT(running_stats.step.rows, 30);
	CHECK_INT(batch_jobs(running_batch), 0);
	for (int i = 0; i < 5; i++)
		running_destroy(t[i]);
	running_close();
}

TEST(the_longest_text_enters_a_step_of_few_rows) {
	running_open("tiny-encoder");
	running_rig.config.max_rows = 4;
	running_rig.config.prefill_rows = 2;
	running_reopen(0);
	int context = running_rig.model->facts.stack[STACK_ENCODER].context;
	CHECK(context > 4);
	struct ticket *t = join_texts(2, context, "");
	running_step();
	CHECK_INT(running_stats.step.rows, context);
	running_all();
	running_destroy(t);
	running_close();
}

TEST(no_more_jobs_join_than_places_are) {
	running_open("tiny-encoder");
	struct ticket *t[9];
	for (int i = 0; i < 8; i++)
		t[i] = join_texts(2, 8, "");
	t[8] = running_ticket(REQUEST_EMBEDDING, "{\"input\":[0,5,2]}");
	CHECK(!batch_fits(running_batch, t[8], &t[8]->subnet));
	running_all();
	CHECK(batch_fits(running_batch, t[8], &t[8]->subnet));
	for (int i = 0; i < 9; i++)
		running_destroy(t[i]);
	running_close();
}

TEST(the_load_is_what_is_left) {
	running_open("tiny-encoder");
	struct ticket *t = join_texts(10, 16, ",\"layers\":[0,2]");
	struct cost_load load;
	running_step();
	batch_load(running_batch, NULL, &load);
	/* Steps of at least 40 rows, the context, hold two texts of 16. */
	CHECK_INT(load.pending_source, 8 * 16);
	CHECK_INT(load.pending_source_rows[2], 8 * 16);
	CHECK_INT(load.pending_source_rows[1], 0);
	CHECK(fabs(load.pending_source_attended - 2 * 8 * 256 / 1024.0) < 1e-9);
	CHECK_INT(running_stats.step.row_count[STACK_ENCODER][0], 32);
	CHECK(running_stats.step.row_count[STACK_DECODER] == NULL);
	running_all();
	running_destroy(t);
	running_close();
}

/* ---- ends ---- */

TEST(a_deadline_leaves_nothing_of_a_job_for_an_encoder) {
	running_open("tiny-encoder");
	struct ticket *t = join_texts(10, 16, "");
	running_step();
	running_expire(t);
	CHECK(batch_take_ended(running_batch) == t);
	CHECK_INT(t->job->error.code, ERROR_DEADLINE_EXCEEDED);
	running_destroy(t);
	running_close();
}

TEST(a_cancelled_job_gives_its_place_back) {
	running_open("tiny-encoder");
	struct ticket *t = join_texts(10, 16, "");
	struct error e = { 0 };
	running_step();
	CHECK_INT(batch_sequences(running_batch), 1);
	error_set(&e, ERROR_REQUEST_CANCELLED, "", "The request was cancelled.");
	batch_fail(running_batch, t, &e);
	CHECK(batch_take_ended(running_batch) == t);
	CHECK_INT(batch_sequences(running_batch), 0);
	running_destroy(t);
	running_close();
}

TEST(features_that_are_not_finite_fail_their_job_only) {
	running_open("tiny-encoder");
	/* Position 20 is poisoned: only the longer text comes so far. */
	const struct stack_facts *facts = &running_rig.model->facts.stack[STACK_ENCODER];
	float *row = (float *)running_rig.model->weights.stack[STACK_ENCODER].positions
	                + (size_t)(facts->position_offset + 20) * (size_t)facts->dim;
	row[0] = NAN;
	struct ticket *bad = join_texts(3, 24, "");
	struct ticket *good = join_texts(3, 16, "");
	running_all();
	CHECK_INT(bad->job->error.code, ERROR_INTERNAL);
	CHECK_INT(good->job->error.code, ERROR_NONE);
	running_destroy(bad);
	running_destroy(good);
	running_close();
}
