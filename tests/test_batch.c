/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running running_batch, step by step and without threads: whatever runs together, every answer is the
 * one that its plan gives alone (rig_greedy, one token a step).
 */
#include "server/batch.h"

#include <math.h>

#include "model/doc.h"
#include "server/clock.h"
#include "tests/check.h"
#include "tests/running.h"

enum { MOST = 16 };

static void open_opt(void) {
	running_open("tiny-opt");
}

static struct ticket *ticket_for(const char *body) {
	return running_ticket(REQUEST_COMPLETION, body);
}

static struct ticket *join(const char *body) {
	return running_join(REQUEST_COMPLETION, body);
}

static void check_greedy(struct ticket *t, int choice) {
	const struct job *job = t->job;
	const struct job_prompt *p = &job->prompts[choice / job->best_of];
	const struct choice *c = &job->choices[choice];
	int n = t->progress[choice].n_tokens;
	int32_t expected[64];
	CHECK(n > 0);
	rig_greedy(&running_rig, &job->policy.subnet.stack[STACK_DECODER], p->tokens, p->n_tokens,
	                n, expected, NULL);
	for (int i = 0; i < n; i++)
		CHECK_INT(c->tokens[i], expected[i]);
}

TEST(a_request_alone_gives_the_tokens_of_its_plan) {
	open_opt();
	struct ticket *t = join("{\"prompt\":[2,70,80,90],\"max_tokens\":20,\"temperature\":0,"
	                        "\"depth\":3,\"ignore_eos\":true}");
	running_all();
	CHECK_INT(t->progress[0].n_tokens, 20);
	CHECK_INT(t->progress[0].finish, FINISH_LENGTH);
	check_greedy(t, 0);
	running_destroy(t);
	running_close();
}

TEST(neighbours_of_other_depths_change_nothing) {
	open_opt();
	struct ticket *all[6];
	char body[256];
	for (int i = 0; i < 6; i++) {
		snprintf(body, sizeof body,
		                "{\"prompt\":[2,%d,%d,90,%d],\"max_tokens\":%d,\"temperature\":0,"
		                "\"depth\":%d,\"ignore_eos\":true}",
		                50 + i, 60 + 3 * i, 10 + i, 5 + 4 * i, i + 1);
		all[i] = join(body);
		running_step();
	}
	running_all();
	for (int i = 0; i < 6; i++) {
		CHECK_INT(all[i]->progress[0].n_tokens, 5 + 4 * i);
		check_greedy(all[i], 0);
		running_destroy(all[i]);
	}
	running_close();
}

TEST(long_prompts_are_cut_into_chunks_while_others_decode) {
	open_opt();
	struct ticket *a = join("{\"prompt\":[2,70],\"max_tokens\":30,\"temperature\":0,"
	                        "\"ignore_eos\":true}");
	running_step();
	char body[512] = "{\"prompt\":[2", *to = body + strlen(body);
	for (int i = 0; i < 39; i++)
		to += sprintf(to, ",%d", 40 + i * 5);
	strcpy(to, "],\"max_tokens\":10,\"temperature\":0,\"depth\":2,\"ignore_eos\":true}");
	struct ticket *b = join(body);
	/* 40 tokens in chunks of prefill_rows, 8: five steps, each with a's row. */
	for (int i = 0; i < 5; i++) {
		CHECK_INT(b->progress[0].n_tokens, 0);
		running_step();
		CHECK_INT(running_stats.decode_rows, 1);
		CHECK_INT(running_stats.prompt_rows, 8);
	}
	CHECK_INT(b->progress[0].n_tokens, 1);
	running_all();
	check_greedy(a, 0);
	check_greedy(b, 0);
	running_destroy(a);
	running_destroy(b);
	running_close();
}

TEST(a_prompt_alone_uses_all_rows) {
	open_opt();
	char body[512] = "{\"prompt\":[2", *to = body + strlen(body);
	for (int i = 0; i < 39; i++)
		to += sprintf(to, ",%d", 40 + i * 5);
	strcpy(to, "],\"max_tokens\":2,\"temperature\":0,\"ignore_eos\":true}");
	struct ticket *t = join(body);
	running_step();
	CHECK_INT(running_stats.prompt_rows, 32);
	running_step();
	CHECK_INT(running_stats.prompt_rows, 8);
	CHECK_INT(t->progress[0].n_tokens, 1);
	running_all();
	running_destroy(t);
	running_close();
}

TEST(prompts_of_one_request_run_side_by_side) {
	open_opt();
	struct ticket *t = join("{\"prompt\":[[2,50,60],[2,70],[2,80,81,82,83]],\"max_tokens\":6,"
	                        "\"temperature\":0,\"ignore_eos\":true}");
	running_step();
	CHECK_INT(running_stats.prompt_rows, 10);
	running_all();
	for (int i = 0; i < 3; i++)
		check_greedy(t, i);
	running_destroy(t);
	running_close();
}

TEST(choices_share_their_prompt_and_differ_by_their_number) {
	open_opt();
	struct ticket *many = join("{\"prompt\":[2,70,80],\"n\":4,\"max_tokens\":12,\"seed\":5,"
	                           "\"temperature\":1.5,\"ignore_eos\":true}");
	running_step();
	CHECK_INT(running_stats.prompt_rows, 3);
	CHECK_INT(batch_sequences(running_batch), 4);
	running_all();
	struct ticket *one = join("{\"prompt\":[2,70,80],\"n\":1,\"max_tokens\":12,\"seed\":5,"
	                          "\"temperature\":1.5,\"ignore_eos\":true}");
	running_all();
	const struct choice *c = many->job->choices;
	size_t bytes = 12 * sizeof *c->tokens;
	CHECK(memcmp(c[0].tokens, one->job->choices[0].tokens, bytes) == 0);
	CHECK(memcmp(c[0].tokens, c[1].tokens, bytes) != 0);
	CHECK(memcmp(c[2].tokens, c[3].tokens, bytes) != 0);
	running_destroy(many);
	running_destroy(one);
	running_close();
}

TEST(more_choices_than_places_run_in_turns_with_the_same_tokens) {
	open_opt();
	static const char body[] = "{\"prompt\":[2,70,80],\"n\":8,\"max_tokens\":9,\"seed\":5,"
	                           "\"temperature\":1.5,\"ignore_eos\":true}";
	struct ticket *wide = join(body);
	running_all();
	running_rig.config.max_running = 3;
	running_reopen(0);
	struct ticket *narrow = join(body);
	running_all();
	for (int i = 0; i < 8; i++) {
		CHECK_INT(narrow->progress[i].n_tokens, 9);
		CHECK(memcmp(wide->job->choices[i].tokens, narrow->job->choices[i].tokens,
		                      9 * sizeof(int32_t))
		                == 0);
	}
	running_destroy(wide);
	running_destroy(narrow);
	running_close();
}

TEST(what_does_not_fit_the_pool_waits) {
	open_opt();
	size_t block = workspace_block_bytes(batch_workspace(running_batch));
	running_reopen(8 * block);
	/* One block for each of six layers; two layers' blocks are left. */
	struct ticket *deep = join("{\"prompt\":[2,70],\"max_tokens\":5,\"temperature\":0}");
	struct ticket *second = ticket_for("{\"prompt\":[2,71],\"max_tokens\":5}");
	CHECK(!batch_fits(running_batch, second, &second->subnet));
	struct ticket *shallow = join("{\"prompt\":[2,72],\"max_tokens\":5,\"depth\":2}");
	running_all();
	CHECK(batch_fits(running_batch, second, &second->subnet));
	running_destroy(deep);
	running_destroy(second);
	running_destroy(shallow);
	running_close();
}

TEST(forks_never_find_the_pool_empty) {
	open_opt();
	size_t block = workspace_block_bytes(batch_workspace(running_batch));
	running_reopen(30 * block);
	/* A sequence of six layers takes six blocks: four choices leave room for one more, and not
	 * for two or for one of a single layer besides. */
	struct ticket *forks = join("{\"prompt\":[2,70],\"n\":4,\"max_tokens\":9}");
	struct ticket *pair = ticket_for("{\"prompt\":[2,70],\"n\":2,\"max_tokens\":9}");
	CHECK(!batch_fits(running_batch, pair, &pair->subnet));
	struct ticket *more = join("{\"prompt\":[2,70],\"max_tokens\":9}");
	struct ticket *no = ticket_for("{\"prompt\":[2,70],\"max_tokens\":9,\"depth\":1}");
	CHECK(!batch_fits(running_batch, no, &no->subnet));
	running_all();
	running_destroy(forks);
	running_destroy(pair);
	running_destroy(more);
	running_destroy(no);
	running_close();
}

TEST(log_probabilities_of_a_prompt_are_the_models_own) {
	open_opt();
	struct ticket *t = ticket_for("{\"prompt\":[2,70,80,90,100,110],\"echo\":true,"
	                              "\"logprobs\":2,\"max_tokens\":1,\"temperature\":0,"
	                              "\"depth\":4}");
	/* In chunks of four rows, beside a neighbour. */
	struct ticket *other = join("{\"prompt\":[2,70],\"max_tokens\":20,\"ignore_eos\":true}");
	running_step();
	CHECK(batch_fits(running_batch, t, &t->subnet));
	batch_join(running_batch, t, clock_now_ns());
	running_all();
	/* Token by token: the greedy token after a beginning has the best probability there. */
	const struct job_prompt *p = &t->job->prompts[0];
	for (int i = 1; i < p->n_tokens; i++) {
		int32_t best;
		double logprob;
		rig_greedy(&running_rig, &t->subnet.stack[STACK_DECODER], p->tokens, i, 1, &best,
		                &logprob);
		CHECK_INT(p->tops[i * 2].token, best);
		CHECK(fabs(p->tops[i * 2].logprob - logprob) < 1e-4);
		CHECK(p->logprobs[i] <= p->tops[i * 2].logprob);
		if (best == p->tokens[i])
			CHECK(p->logprobs[i] == p->tops[i * 2].logprob);
	}
	int32_t best;
	double logprob;
	rig_greedy(&running_rig, &t->subnet.stack[STACK_DECODER], p->tokens, p->n_tokens, 1, &best,
	                &logprob);
	CHECK_INT(t->job->choices[0].tokens[0], best);
	CHECK(fabs(t->job->choices[0].logprobs[0] - logprob) < 1e-4);
	running_destroy(t);
	running_destroy(other);
	running_close();
}

/* ---- against the PyTorch reference: goldens.json ---- */

static size_t write_list(char *to, const struct doc *list) {
	size_t n = 0;
	n += (size_t)sprintf(to, "[");
	for (size_t i = 0; i < doc_count(list); i++) {
		int64_t value = -1;
		CHECK(doc_as_int(doc_at(list, i), &value));
		n += (size_t)sprintf(to + n, "%s%lld", i ? "," : "", (long long)value);
	}
	return n + (size_t)sprintf(to + n, "]");
}

static void golden_body(const struct doc *c, char *to) {
	to += sprintf(to, "{\"prompt\":");
	to += write_list(to, doc_get(c, "tokens"));
	to += sprintf(to, ",\"layers\":");
	to += write_list(to, doc_get(c, "layers"));
	sprintf(to,
	                ",\"max_tokens\":%zu,\"temperature\":0,\"ignore_eos\":true,\"echo\":true,"
	                "\"logprobs\":0}",
	                doc_count(doc_get(c, "greedy")));
}

static void check_golden(const struct doc *c, const struct ticket *t) {
	const struct doc *greedy = doc_get(c, "greedy"), *logprobs = doc_get(c, "logprobs");
	const struct job_prompt *p = &t->job->prompts[0];
	CHECK_INT(t->progress[0].n_tokens, doc_count(greedy));
	for (size_t i = 0; i < doc_count(greedy); i++) {
		int64_t token = -1;
		CHECK(doc_as_int(doc_at(greedy, i), &token));
		CHECK_INT(t->job->choices[0].tokens[i], token);
	}
	CHECK_INT(doc_count(logprobs), p->n_tokens - 1);
	for (size_t i = 0; i < doc_count(logprobs); i++) {
		double expected = 1;
		CHECK(doc_as_number(doc_at(logprobs, i), &expected));
		CHECK(fabs(p->logprobs[i + 1] - expected) < 1e-4);
	}
}

TEST(plans_side_by_side_agree_with_the_reference) {
	enum { SIDE_BY_SIDE = 6 };
	open_opt();
	char path[4096], body[1024], err[256];
	size_t len;
	snprintf(path, sizeof path, "%s", check_data("tiny-opt/goldens.json"));
	char *json = check_read_file(path, &len);
	struct doc *doc = doc_parse(json, len, "goldens.json", err, sizeof err);
	const struct doc *cases = doc_get(doc, "cases");
	CHECK(doc_count(cases) >= SIDE_BY_SIDE);
	for (size_t first = 0; first < doc_count(cases); first += SIDE_BY_SIDE) {
		struct ticket *t[SIDE_BY_SIDE];
		size_t n = doc_count(cases) - first;
		n = n < SIDE_BY_SIDE ? n : SIDE_BY_SIDE;
		for (size_t i = 0; i < n; i++) {
			golden_body(doc_at(cases, first + i), body);
			t[i] = join(body);
			running_step();
		}
		running_all();
		for (size_t i = 0; i < n; i++) {
			check_golden(doc_at(cases, first + i), t[i]);
			running_destroy(t[i]);
		}
	}
	doc_free(doc);
	free(json);
	running_close();
}

TEST(prompts_can_be_scored_without_an_answer) {
	open_opt();
	struct job *job = rig_job(&running_rig, REQUEST_LOGLIKELIHOOD,
	                "{\"input\":[[2,70,80,90],[5,6,7],[8]]}");
	struct ticket *t = ticket_create(job, running_rig.model->target_tokenizer);
	t->subnet = job->policy.subnet;
	batch_join(running_batch, t, clock_now_ns());
	running_all();
	CHECK_INT(t->report.state, JOB_DONE);
	CHECK_INT(job->error.code, ERROR_NONE);
	CHECK(job->prompts[0].logprobs[3] < 0 && job->prompts[1].logprobs[1] < 0);
	running_destroy(t);
	running_close();
}

TEST(echo_without_tokens_ends_with_the_prompt) {
	open_opt();
	struct ticket *t = join("{\"prompt\":[2,70,80],\"echo\":true,\"logprobs\":0,"
	                        "\"max_tokens\":0,\"n\":2}");
	running_all();
	for (int i = 0; i < 2; i++) {
		CHECK_INT(t->progress[i].finish, FINISH_LENGTH);
		CHECK_INT(t->progress[i].n_tokens, 0);
	}
	CHECK(t->job->prompts[0].logprobs[2] < 0);
	running_destroy(t);
	running_close();
}

TEST(an_end_symbol_stops_and_leaves_no_text) {
	open_opt();
	/* A bias makes the end symbol certain after the first three tokens. */
	struct ticket *t = join("{\"prompt\":[2,70,80],\"max_tokens\":20,\"temperature\":0,"
	                        "\"min_tokens\":3,\"logit_bias\":{\"2\":100}}");
	running_all();
	CHECK_INT(t->progress[0].n_tokens, 4);
	CHECK_INT(t->job->choices[0].tokens[3], 2);
	CHECK_INT(t->progress[0].finish, FINISH_STOP);
	for (int i = 0; i < 3; i++)
		CHECK(t->job->choices[0].tokens[i] != 2);
	for (size_t i = 0; i < t->progress[0].text_len; i++)
		CHECK(t->job->choices[0].text[i] != '<');
	running_destroy(t);
	running_close();
}

TEST(an_ignored_end_symbol_is_drawn_and_the_answer_goes_on) {
	open_opt();
	struct ticket *t = join("{\"prompt\":[2,70,80],\"max_tokens\":5,\"temperature\":0,"
	                        "\"ignore_eos\":true,\"logit_bias\":{\"2\":100}}");
	running_all();
	CHECK_INT(t->progress[0].n_tokens, 5);
	CHECK_INT(t->progress[0].finish, FINISH_LENGTH);
	for (int i = 0; i < 5; i++)
		CHECK_INT(t->job->choices[0].tokens[i], 2);
	CHECK_INT(t->progress[0].text_len, 0);
	running_destroy(t);
	running_close();
}

TEST(a_stop_string_ends_at_its_own_step) {
	open_opt();
	struct ticket *whole = join("{\"prompt\":[2,70,80],\"max_tokens\":30,\"temperature\":1,"
	                            "\"seed\":4,\"ignore_eos\":true}");
	running_all();
	/* A piece out of the middle of the answer, plain ASCII so that it can stand in JSON. */
	const char *text = whole->job->choices[0].text;
	size_t len = whole->progress[0].text_len, at = 0;
	char stop[3] = "";
	for (size_t i = 2; i + 2 < len && !stop[0]; i++) {
		if (text[i] >= '0' && text[i] <= 'z' && text[i] != '\\' && text[i + 1] >= '0'
		                && text[i + 1] <= 'z' && text[i + 1] != '\\') {
			memcpy(stop, text + i, 2);
			at = (size_t)((const char *)memmem(text, len, stop, 2) - text);
		}
	}
	CHECK(stop[0]);
	char body[256];
	snprintf(body, sizeof body,
	                "{\"prompt\":[2,70,80],\"max_tokens\":30,\"temperature\":1,\"seed\":4,"
	                "\"ignore_eos\":true,\"stop\":[\"never\",\"%s\"]}",
	                stop);
	struct ticket *t = join(body);
	int steps = 0;
	size_t shown = 0;
	while (batch_jobs(running_batch) > 0) {
		running_step();
		steps++;
		CHECK(t->progress[0].text_len >= shown);
		shown = t->progress[0].text_len;
		CHECK(!memmem(t->job->choices[0].text, shown, stop, 2));
	}
	CHECK_INT(t->progress[0].finish, FINISH_STOP);
	CHECK_INT(t->job->choices[0].stop_index, 1);
	CHECK_INT(t->progress[0].text_len, at);
	CHECK(memcmp(t->job->choices[0].text, text, at) == 0);
	CHECK_INT(t->progress[0].n_tokens, steps);
	running_destroy(whole);
	running_destroy(t);
	running_close();
}

TEST(a_deadline_cuts_what_has_begun_and_fails_what_has_not) {
	open_opt();
	struct ticket *begun = join("{\"prompt\":[2,70],\"max_tokens\":30,\"ignore_eos\":true}");
	running_step();
	running_step();
	struct ticket *late = join("{\"prompt\":[2,70],\"max_tokens\":30,\"ignore_eos\":true}");
	CHECK(batch_can_end(begun) && !batch_can_end(late));
	running_expire(begun);
	running_expire(late);
	while (batch_take_ended(running_batch))
		;
	CHECK_INT(begun->job->error.code, ERROR_NONE);
	CHECK_INT(begun->progress[0].finish, FINISH_LENGTH);
	CHECK_INT(begun->progress[0].detail, DETAIL_DEADLINE);
	CHECK_INT(begun->progress[0].n_tokens, 2);
	CHECK_INT(late->job->error.code, ERROR_DEADLINE_EXCEEDED);
	running_destroy(begun);
	running_destroy(late);
	running_close();
}

TEST(an_answer_cut_at_its_budget_says_so) {
	open_opt();
	struct ticket *t = join("{\"prompt\":[2,70],\"max_tokens\":30,\"ignore_eos\":true,"
	                        "\"latency_budget_ms\":100,\"depth\":2,"
	                        "\"on_miss\":\"truncate\"}");
	running_step();
	batch_cut(running_batch, t, DETAIL_BUDGET);
	CHECK(batch_take_ended(running_batch) == t);
	CHECK_INT(t->progress[0].detail, DETAIL_BUDGET);
	running_destroy(t);
	running_close();
}

TEST(stepping_down_goes_on_with_the_kept_layers) {
	open_opt();
	struct ticket *t = join("{\"prompt\":[2,70,80,90],\"max_tokens\":20,\"temperature\":0,"
	                        "\"n\":2,\"ignore_eos\":true}");
	for (int i = 0; i < 5; i++)
		running_step();
	struct plan plan;
	plan_nested(&t->subnet.stack[STACK_DECODER], PLAN_RULE_EVEN, 3, &plan);
	size_t before = workspace_blocks_reserved(batch_workspace(running_batch));
	batch_narrow(running_batch, t, &plan);
	CHECK_INT(workspace_blocks_reserved(batch_workspace(running_batch)), before / 2);
	running_step();
	int layers = 0;
	for (int l = 0; l < 6; l++)
		layers += running_stats.step.row_count[STACK_DECODER][l] > 0;
	CHECK_INT(layers, 3);
	running_all();
	CHECK_INT(t->progress[1].n_tokens, 20);
	running_deliver(t);
	CHECK_INT(t->job->n_changes, 1);
	CHECK_INT(t->job->changes[0].at_token, 5);
	CHECK_INT(t->job->changes[0].plan.depth, 3);
	running_destroy(t);
	running_close();
}

TEST(stepping_down_before_forks_keeps_what_they_need) {
	open_opt();
	char body[512] = "{\"prompt\":[2", *to = body + strlen(body);
	for (int i = 0; i < 39; i++)
		to += sprintf(to, ",%d", 40 + i * 5);
	strcpy(to, "],\"max_tokens\":10,\"n\":3,\"temperature\":0,\"ignore_eos\":true}");
	struct ticket *t = join(body);
	running_step();
	struct plan plan;
	plan_nested(&t->subnet.stack[STACK_DECODER], PLAN_RULE_EVEN, 2, &plan);
	batch_narrow(running_batch, t, &plan);
	running_all();
	CHECK_INT(t->progress[2].n_tokens, 10);
	running_destroy(t);
	running_close();
}

TEST(the_best_of_several_come_first) {
	open_opt();
	struct ticket *t = join("{\"prompt\":[[2,70],[2,80]],\"n\":2,\"best_of\":4,\"seed\":1,"
	                        "\"max_tokens\":6,\"temperature\":1,\"ignore_eos\":true}");
	running_all();
	double mean[8];
	int32_t *tokens[8];
	for (int i = 0; i < 8; i++) {
		mean[i] = t->job->choices[i].logprob_sum / t->progress[i].n_tokens;
		tokens[i] = t->job->choices[i].tokens;
	}
	running_deliver(t);
	for (int p = 0; p < 2; p++) {
		int first = 4 * p, second = -1;
		for (int i = 4 * p; i < 4 * p + 4; i++)
			first = mean[i] > mean[first] ? i : first;
		for (int i = 4 * p; i < 4 * p + 4; i++) {
			if (i != first && (second < 0 || mean[i] > mean[second]))
				second = i;
		}
		CHECK(t->job->choices[2 * p].tokens == tokens[first]);
		CHECK(t->job->choices[2 * p + 1].tokens == tokens[second]);
	}
	running_destroy(t);
	running_close();
}

TEST(output_that_is_not_finite_fails_its_request_only) {
	open_opt();
	/* Position 8 is poisoned: only the longer request comes so far. */
	int dim = running_rig.model->facts.stack[STACK_DECODER].dim;
	int offset = running_rig.model->facts.stack[STACK_DECODER].position_offset;
	float *row = (float *)running_rig.model->weights.stack[STACK_DECODER].positions
	                + (size_t)(offset + 8) * (size_t)dim;
	row[0] = NAN;
	struct ticket *bad = join("{\"prompt\":[2,70,80],\"max_tokens\":20,\"ignore_eos\":true,"
	                          "\"n\":2}");
	struct ticket *good = join("{\"prompt\":[2,70],\"max_tokens\":6,\"temperature\":0,"
	                           "\"ignore_eos\":true}");
	running_all();
	CHECK_INT(bad->job->error.code, ERROR_INTERNAL);
	CHECK_INT(good->job->error.code, ERROR_NONE);
	check_greedy(good, 0);
	running_destroy(bad);
	running_destroy(good);
	running_close();
}

TEST(text_is_the_tokens_bytes_and_always_well_formed) {
	open_opt();
	struct ticket *t = join("{\"prompt\":[2,70],\"max_tokens\":40,\"temperature\":2,"
	                        "\"seed\":3,\"logprobs\":1,\"ignore_eos\":true}");
	while (batch_jobs(running_batch) > 0) {
		running_step();
		const struct choice *c = &t->job->choices[0];
		size_t len = t->progress[0].text_len;
		for (size_t i = 0; i < len;) {
			unsigned char b = (unsigned char)c->text[i];
			size_t n = b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
			CHECK(b < 0x80 || b >= 0xc2);
			CHECK(i + n <= len);
			i += n;
		}
	}
	const struct choice *c = &t->job->choices[0];
	for (int i = 1; i < t->progress[0].n_tokens; i++)
		CHECK(c->token_text_end[i] >= c->token_text_end[i - 1]);
	running_destroy(t);
	running_close();
}
