/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoder-decoders in the running batch: sources, greedy and sampled answers, scored targets and
 * beam searches of different requests and depths share steps, and each answer is what the reference
 * implementation in PyTorch gives alone (seq2seq.json).
 */
#include <math.h>

#include "model/doc.h"
#include "server/clock.h"
#include "tests/check.h"
#include "tests/running.h"

enum { MOST_CASES = 32, MOST_TOKENS = 64 };
#define NEAR 2e-4
#define EQUAL_SCORES 5e-5 /* two hypotheses may change places */

static const char *const folders[] = { "tiny-mt-pre", "tiny-mt-post" };

static struct doc *goldens;
static const struct doc *cases;

static void open_golden(const char *folder) {
	char path[128], err[256];
	size_t len;
	running_open(folder);
	/* A case more or less than the default of eight may run at once. */
	running_rig.config.max_running = 96;
	running_rig.config.max_rows = 96;
	running_reopen(32 << 20);
	snprintf(path, sizeof path, "%s/seq2seq.json", folder);
	char *json = check_read_file(check_data(path), &len);
	goldens = doc_parse(json, len, path, err, sizeof err);
	free(json);
	cases = doc_get(goldens, "cases");
	CHECK(doc_count(cases) > 0 && doc_count(cases) <= MOST_CASES);
}

static void close_golden(void) {
	doc_free(goldens);
	running_close();
}

static int ints(const struct doc *list, int32_t *ret) {
	size_t n = doc_count(list);
	CHECK(n <= MOST_TOKENS);
	for (size_t i = 0; i < n; i++) {
		int64_t value = -1;
		CHECK(doc_as_int(doc_at(list, i), &value));
		ret[i] = (int32_t)value;
	}
	return (int)n;
}

static double number(const struct doc *object, const char *key) {
	double value = NAN;
	CHECK(doc_as_number(doc_get(object, key), &value));
	return value;
}

static char *write_list(char *to, const struct doc *list) {
	int32_t values[MOST_TOKENS];
	int n = ints(list, values);
	*to++ = '[';
	for (int i = 0; i < n; i++)
		to += sprintf(to, "%s%d", i ? "," : "", values[i]);
	*to++ = ']';
	*to = '\0';
	return to;
}

/* "KEY":[source],"layers":{...} of a case, then `more`. */
static const char *body_of(const struct doc *c, const char *key, const char *more) {
	static char body[2048];
	char *to = body + sprintf(body, "{\"%s\":", key);
	to = write_list(to, doc_get(c, "source"));
	to += sprintf(to, ",\"layers\":{\"encoder\":");
	to = write_list(to, doc_get(c, "encoder_layers"));
	to += sprintf(to, ",\"decoder\":");
	to = write_list(to, doc_get(c, "decoder_layers"));
	sprintf(to, "},%s}", more);
	return body;
}

static struct ticket *join_case(const struct doc *c, const char *more) {
	return running_join(REQUEST_COMPLETION, body_of(c, "prompt", more));
}

/* ---- against the reference ---- */

static void check_greedy(const struct doc *c, const struct ticket *t) {
	int32_t ids[MOST_TOKENS];
	int n = ints(doc_get(c, "greedy"), ids), max = t->job->max_tokens;
	int cap = max + (t->job->num_beams > 0);
	/* The reference forces an end symbol at the limit, and so does a search of one beam. */
	CHECK_INT(t->progress[0].n_tokens, n < cap ? n : cap);
	for (int i = 0; i < t->progress[0].n_tokens; i++)
		CHECK_INT(t->job->choices[0].tokens[i], ids[i]);
	CHECK_INT(t->progress[0].finish, n <= max ? FINISH_STOP : FINISH_LENGTH);
}

/* The hypothesis of the list that the choice is; the one at its place unless scores are equal. */
static const struct doc *find(const struct doc *list, const struct ticket *t, int choice) {
	const struct choice *out = &t->job->choices[choice];
	double score = number(doc_at(list, (size_t)choice), "score");
	for (size_t i = 0; i < doc_count(list); i++) {
		int32_t ids[MOST_TOKENS];
		const struct doc *h = doc_at(list, i);
		int n = ints(doc_get(h, "ids"), ids);
		if (fabs(number(h, "score") - score) < EQUAL_SCORES
		                && n == t->progress[choice].n_tokens
		                && memcmp(ids, out->tokens, (size_t)n * sizeof *ids) == 0)
			return h;
	}
	check_fail(__FILE__, __LINE__, "choice %d is no hypothesis of score %g", choice, score);
	return NULL;
}

static void check_beams(const struct doc *beams, const struct ticket *t) {
	const struct doc *list = doc_get(beams, "hypotheses");
	CHECK_INT(doc_count(list), t->job->n_choices);
	for (int i = 0; i < t->job->n_choices; i++) {
		const struct doc *h = find(list, t, i);
		const struct choice *out = &t->job->choices[i];
		CHECK(fabs(out->score - number(h, "score")) < NEAR);
		CHECK(t->progress[i].finish != FINISH_NONE);
	}
}

static void check_scores(const struct doc *c, const struct ticket *t) {
	const struct doc *expected = doc_get(c, "logprobs");
	const struct job_prompt *p = &t->job->prompts[0];
	CHECK_INT(p->n_target, doc_count(expected) + 1);
	for (int i = 1; i < p->n_target; i++) {
		double value;
		CHECK(doc_as_number(doc_at(expected, (size_t)i - 1), &value));
		CHECK(fabs(p->logprobs[i] - value) < NEAR);
	}
}

static struct ticket *join_scored(const struct doc *c) {
	char more[1024] = "\"target\":";
	write_list(more + strlen(more), doc_get(c, "target"));
	return running_join(REQUEST_LOGLIKELIHOOD, body_of(c, "source", more));
}

/* Searches, greedy answers and scores of all cases at once, joining at different steps. */
TEST(all_kinds_side_by_side_agree_with_the_reference) {
	for (size_t f = 0; f < 2; f++) {
		open_golden(folders[f]);
		for (size_t i = 0; i + 1 < doc_count(cases); i += 2) {
			struct ticket *greedy[2], *streamed[2], *scored[2], *searched[2][2];
			for (size_t k = 0; k < 2; k++) {
				const struct doc *c = doc_at(cases, i + k);
				const struct doc *beams = doc_get(c, "beams");
				char more[128];
				for (size_t s = 0; s < 2; s++) {
					snprintf(more, sizeof more,
					                "\"num_beams\":4,\"n\":4,\"max_tokens\":14,"
					                "\"length_penalty\":%g",
					                number(doc_at(beams, s), "lenpen"));
					searched[k][s] = join_case(c, more);
				}
				greedy[k] = join_case(c, "\"num_beams\":1,\"max_tokens\":14");
				running_step();
				streamed[k] = join_case(c,
				                "\"num_beams\":1,\"max_tokens\":14,\"stream\":"
				                "true");
				CHECK(greedy[k]->job->num_beams == 1
				                && streamed[k]->job->num_beams == 0);
				scored[k] = join_scored(c);
			}
			running_all();
			for (size_t k = 0; k < 2; k++) {
				const struct doc *c = doc_at(cases, i + k);
				for (size_t s = 0; s < 2; s++) {
					check_beams(doc_at(doc_get(c, "beams"), s), searched[k][s]);
					running_destroy(searched[k][s]);
				}
				check_greedy(c, greedy[k]);
				check_greedy(c, streamed[k]);
				running_destroy(streamed[k]);
				check_scores(c, scored[k]);
				running_destroy(greedy[k]);
				running_destroy(scored[k]);
			}
		}
		close_golden();
	}
}

/* ---- neighbours ---- */

static void check_same(const struct ticket *a, const struct ticket *b) {
	CHECK_INT(a->job->n_choices, b->job->n_choices);
	for (int i = 0; i < a->job->n_choices; i++) {
		const struct choice *x = &a->job->choices[i], *y = &b->job->choices[i];
		int n = a->progress[i].n_tokens;
		CHECK(n > 0);
		CHECK_INT(b->progress[i].n_tokens, n);
		CHECK(memcmp(x->tokens, y->tokens, (size_t)n * sizeof *x->tokens) == 0);
		CHECK(memcmp(x->logprobs, y->logprobs, (size_t)n * sizeof *x->logprobs) == 0);
		CHECK(x->score == y->score);
		CHECK_INT(a->progress[i].text_len, b->progress[i].text_len);
		CHECK(memcmp(x->text, y->text, a->progress[i].text_len) == 0);
	}
}

static const char *const kinds[] = {
	"\"num_beams\":4,\"n\":3,\"max_tokens\":12,\"logprobs\":0",
	"\"num_beams\":1,\"max_tokens\":12,\"logprobs\":0,\"ignore_eos\":true",
	"\"temperature\":1.3,\"seed\":7,\"n\":2,\"max_tokens\":12,\"logprobs\":0,"
	"\"ignore_eos\":true",
};
enum { KINDS = 3 };

TEST(an_answer_is_the_same_bits_alone_and_in_a_crowd) {
	for (size_t f = 0; f < 2; f++) {
		struct ticket *alone[KINDS * 6], *crowd[KINDS * 6];
		int n = 0;
		open_golden(folders[f]);
		for (size_t i = 0; n < KINDS * 6; i += 3) {
			for (int k = 0; k < KINDS; k++) {
				alone[n++] = join_case(doc_at(cases, i), kinds[k]);
				running_all();
			}
		}
		n = 0;
		for (size_t i = 0; n < KINDS * 6; i += 3) {
			for (int k = 0; k < KINDS; k++) {
				crowd[n++] = join_case(doc_at(cases, i), kinds[k]);
				if (n % 2 == 0)
					running_step();
			}
		}
		running_all();
		for (int i = 0; i < n; i++) {
			check_same(alone[i], crowd[i]);
			running_destroy(alone[i]);
			running_destroy(crowd[i]);
		}
		close_golden();
	}
}

TEST(prompts_of_one_request_are_searched_each_for_itself) {
	open_golden("tiny-mt-pre");
	struct ticket *both = running_join(REQUEST_COMPLETION,
	                "{\"prompt\":[[10,58,180,80,2],[5,2]],\"num_beams\":4,\"n\":2,"
	                "\"max_tokens\":9}");
	running_all();
	struct ticket *second = running_join(REQUEST_COMPLETION,
	                "{\"prompt\":[5,2],\"num_beams\":4,\"n\":2,\"max_tokens\":9}");
	running_all();
	for (int i = 0; i < 2; i++) {
		CHECK(both->job->choices[2 + i].score == second->job->choices[i].score);
		CHECK_INT(both->progress[2 + i].n_tokens, second->progress[i].n_tokens);
	}
	running_destroy(both);
	running_destroy(second);
	close_golden();
}

/* ---- steps ---- */

TEST(the_source_and_the_first_token_take_one_step) {
	running_open("tiny-mt-pre");
	struct ticket *t = running_join(REQUEST_COMPLETION,
	                "{\"prompt\":[10,58,180,80,2],\"num_beams\":1,\"max_tokens\":9,"
	                "\"ignore_eos\":true,\"layers\":{\"encoder\":[0,2],\"decoder\":[1]}}");
	running_step();
	CHECK_INT(t->progress[0].n_tokens, 1);
	const struct cost_step *s = &running_stats.step;
	CHECK_INT(s->rows, 6);
	CHECK_INT(s->row_count[STACK_ENCODER][0], 5);
	CHECK_INT(s->row_count[STACK_ENCODER][1], 0);
	CHECK_INT(s->row_count[STACK_DECODER][1], 1);
	CHECK_INT(s->source_count[1], 5);
	CHECK_INT(s->source_count[0], 0);
	CHECK(fabs(s->source_attended - 2 * 25 / 1024.0) < 1e-12);
	CHECK(fabs(s->chunk_attended - (1 + 5) / 1024.0) < 1e-12);
	running_step();
	CHECK_INT(running_stats.step.rows, 1);
	CHECK_INT(running_stats.decode_rows, 1);
	running_all();
	running_destroy(t);
	running_close();
}

/* prefill_rows is 8: while something decodes, one source of any length may pass, a second waits. */
TEST(a_long_source_passes_the_bound_alone) {
	static const char body[] = "{\"prompt\":[10,58,180,80,102,54,11,12,13,14,15,2],"
	                           "\"num_beams\":1,\"max_tokens\":20,\"ignore_eos\":true}";
	running_open("tiny-mt-pre");
	struct ticket *first = running_join(REQUEST_COMPLETION, body);
	running_step();
	struct ticket *second = running_join(REQUEST_COMPLETION, body);
	struct ticket *third = running_join(REQUEST_COMPLETION, body);
	running_step();
	CHECK_INT(running_stats.step.rows, 1 + 12 + 1);
	CHECK_INT(second->progress[0].n_tokens, 1);
	CHECK_INT(third->progress[0].n_tokens, 0);
	running_step();
	CHECK_INT(third->progress[0].n_tokens, 1);
	running_all();
	running_destroy(first);
	running_destroy(second);
	running_destroy(third);
	running_close();
}

TEST(a_source_as_long_as_the_context_enters_beside_full_rows) {
	running_open("tiny-mt-pre");
	int context = running_rig.model->facts.stack[STACK_ENCODER].context;
	struct ticket *wide = running_join(REQUEST_COMPLETION,
	                "{\"prompt\":[5,2],\"temperature\":1,\"n\":8,\"max_tokens\":30,"
	                "\"ignore_eos\":true}");
	running_step();
	char body[2048] = "{\"prompt\":[2", *to = body + strlen(body);
	for (int i = 1; i < context; i++)
		to += sprintf(to, ",%d", 10 + i % 200);
	strcpy(to, "],\"num_beams\":1,\"max_tokens\":3,\"ignore_eos\":true}");
	struct ticket *longest = running_join(REQUEST_COMPLETION, body);
	running_step();
	CHECK_INT(longest->progress[0].n_tokens, 1);
	running_all();
	running_destroy(wide);
	running_destroy(longest);
	running_close();
}

TEST(a_search_has_a_row_for_each_live_beam) {
	running_open("tiny-mt-pre");
	struct ticket *t = running_join(REQUEST_COMPLETION,
	                "{\"prompt\":[5,2],\"num_beams\":4,\"max_tokens\":6,"
	                "\"layers\":{\"encoder\":[0,2],\"decoder\":[0,1,2]}}");
	CHECK_INT(batch_sequences(running_batch), 4);
	running_step();
	CHECK_INT(running_stats.prompt_rows, 3);
	struct cost_load load;
	batch_load(running_batch, NULL, &load);
	CHECK_INT(load.decode_rows, 4);
	running_step();
	CHECK_INT(running_stats.decode_rows, 4);
	CHECK_INT(batch_sequences(running_batch), 4);
	running_all();
	running_destroy(t);
	running_close();
}

/* ---- the end symbol and the limit ---- */

TEST(an_end_symbol_that_the_limit_forces_comes_after_it) {
	open_golden("tiny-mt-pre");
	struct ticket *t = running_join(REQUEST_COMPLETION,
	                "{\"prompt\":[5,2],\"num_beams\":4,\"max_tokens\":2,\"logprobs\":0}");
	running_all();
	const struct choice *c = &t->job->choices[0];
	int n = t->progress[0].n_tokens;
	CHECK_INT(c->tokens[n - 1], running_rig.model->facts.eos);
	CHECK_INT(t->progress[0].finish, n <= 2 ? FINISH_STOP : FINISH_LENGTH);
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += (double)c->logprobs[i];
	CHECK(fabs(sum - c->logprob_sum) < 1e-5);
	CHECK(fabs(sum / n - c->score) < 1e-5);
	running_destroy(t);
	close_golden();
}

/* ---- blocks, cancelling, deadlines, stepping down ---- */

TEST(beams_never_find_the_pool_empty) {
	running_open("tiny-mt-pre");
	size_t block = workspace_block_bytes(batch_workspace(running_batch));
	/* Three layers: a source and four beams of one block each are 15 blocks. */
	running_reopen(31 * block);
	static const char body[] = "{\"prompt\":[5,2],\"num_beams\":4,\"max_tokens\":40}";
	struct ticket *first = running_join(REQUEST_COMPLETION, body);
	struct ticket *second = running_join(REQUEST_COMPLETION, body);
	struct ticket *third = running_ticket(REQUEST_COMPLETION, body);
	CHECK(!batch_fits(running_batch, third, &third->subnet));
	while (batch_jobs(running_batch) == 2) {
		running_step();
		CHECK(workspace_blocks_reserved(batch_workspace(running_batch)) <= 30);
		if (batch_jobs(running_batch) == 2)
			CHECK(!batch_fits(running_batch, third, &third->subnet));
	}
	running_all();
	CHECK(batch_fits(running_batch, third, &third->subnet));
	running_destroy(first);
	running_destroy(second);
	running_destroy(third);
	running_close();
}

static const char long_search[] = "{\"prompt\":[5,2],\"num_beams\":4,\"n\":4,\"max_tokens\":40,"
                                  "\"min_tokens\":30}";

TEST(a_cancelled_search_gives_everything_back) {
	running_open("tiny-mt-pre");
	for (int steps = 0; steps < 6; steps++) {
		struct ticket *t = running_join(REQUEST_COMPLETION, long_search);
		struct error e = { 0 };
		for (int i = 0; i < steps; i++)
			running_step();
		error_set(&e, ERROR_REQUEST_CANCELLED, "", "The request was cancelled.");
		batch_fail(running_batch, t, &e);
		CHECK(batch_take_ended(running_batch) == t);
		CHECK_INT(batch_sequences(running_batch), 0);
		CHECK_INT(workspace_blocks_reserved(batch_workspace(running_batch)), 0);
		running_destroy(t);
	}
	running_close();
}

TEST(a_deadline_answers_with_the_beams_so_far) {
	running_open("tiny-mt-pre");
	struct ticket *t = running_join(REQUEST_COMPLETION, long_search);
	struct ticket *late = running_join(REQUEST_COMPLETION, long_search);
	for (int i = 0; i < 5; i++)
		running_step();
	running_expire(t);
	CHECK(batch_take_ended(running_batch) == t);
	CHECK_INT(t->job->error.code, ERROR_NONE);
	for (int i = 0; i < 4; i++) {
		CHECK_INT(t->progress[i].n_tokens, 5);
		CHECK_INT(t->progress[i].finish, FINISH_LENGTH);
		CHECK_INT(t->progress[i].detail, DETAIL_DEADLINE);
		CHECK(i == 0 || t->job->choices[i].score <= t->job->choices[i - 1].score);
	}
	running_all();
	running_destroy(t);
	running_destroy(late);
	running_close();
}

TEST(a_deadline_before_the_first_step_of_a_search_is_an_error) {
	running_open("tiny-mt-pre");
	struct ticket *t = running_join(REQUEST_COMPLETION, long_search);
	running_expire(t);
	CHECK(batch_take_ended(running_batch) == t);
	CHECK_INT(t->job->error.code, ERROR_DEADLINE_EXCEEDED);
	running_destroy(t);
	running_close();
}

TEST(a_search_that_steps_down_goes_on_with_the_kept_layers) {
	running_open("tiny-mt-pre");
	struct ticket *t = running_join(REQUEST_COMPLETION, long_search);
	struct ticket *other = running_join(REQUEST_COMPLETION,
	                "{\"prompt\":[7,8,9,2],\"num_beams\":1,\"max_tokens\":20,"
	                "\"ignore_eos\":true}");
	for (int i = 0; i < 5; i++)
		running_step();
	struct plan plan;
	plan_nested(&t->subnet.stack[STACK_DECODER], PLAN_RULE_EVEN, 1, &plan);
	batch_narrow(running_batch, t, &plan);
	batch_narrow(running_batch, other, &plan);
	running_step();
	CHECK_INT(running_stats.step.row_count[STACK_DECODER][plan.layers[0]], 5);
	CHECK_INT(running_stats.step.row_count[STACK_DECODER][2], 0);
	running_all();
	running_deliver(t);
	CHECK_INT(t->job->n_changes, 1);
	CHECK_INT(t->job->changes[0].at_token, 5);
	CHECK(t->progress[0].n_tokens > 5);
	running_destroy(t);
	running_destroy(other);
	running_close();
}

TEST(stepping_down_before_the_source_is_read_keeps_what_beams_need) {
	running_open("tiny-mt-pre");
	struct ticket *t = running_join(REQUEST_COMPLETION, long_search);
	struct plan plan;
	plan_nested(&t->subnet.stack[STACK_DECODER], PLAN_RULE_EVEN, 2, &plan);
	batch_narrow(running_batch, t, &plan);
	running_all();
	CHECK(t->progress[3].n_tokens > 0);
	running_destroy(t);
	running_close();
}

TEST(scores_that_are_not_finite_fail_their_search_only) {
	open_golden("tiny-mt-post");
	/* Position 8 of the decoder is poisoned: only the longer answer comes so far. */
	const struct stack_facts *facts = &running_rig.model->facts.stack[STACK_DECODER];
	float *row = (float *)running_rig.model->weights.stack[STACK_DECODER].positions
	                + (size_t)(facts->position_offset + 8) * (size_t)facts->dim;
	row[0] = NAN;
	struct ticket *bad = running_join(REQUEST_COMPLETION,
	                "{\"prompt\":[5,2],\"num_beams\":4,\"max_tokens\":30,\"min_tokens\":20}");
	struct ticket *good = running_join(
	                REQUEST_COMPLETION, "{\"prompt\":[5,2],\"num_beams\":4,\"max_tokens\":7}");
	running_all();
	CHECK_INT(bad->job->error.code, ERROR_INTERNAL);
	CHECK_INT(good->job->error.code, ERROR_NONE);
	CHECK(good->progress[0].n_tokens > 0);
	running_destroy(bad);
	running_destroy(good);
	close_golden();
}
