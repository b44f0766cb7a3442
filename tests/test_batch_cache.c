/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running batch and the prefix cache: what of a prompt runs, what an answer says of it, and who
 * may be served from whose prompts. Every answer is the one that its plan gives alone.
 */
#include <math.h>

#include "server/batch.h"
#include "tests/check.h"
#include "tests/running.h"

enum { CONTEXT = 320, LONG = 150, TEXT = 4096 };

/* A model without positions takes texts of any length. */
static void open_long(size_t kv_bytes) {
	running_open("tiny-fathom-nopos");
	running_rig.model->facts.context = CONTEXT;
	running_rig.model->facts.stack[STACK_DECODER].context = CONTEXT;
	running_reopen(kv_bytes);
}

/* A prompt of n token ids that `seed` gives, and further fields. */
static const char *body_of(int seed, int n, const char *fields) {
	static char body[TEXT];
	uint32_t x = (uint32_t)seed * 2654435761u + 1;
	int at = snprintf(body, sizeof body, "{\"temperature\":0,\"ignore_eos\":true,\"prompt\":[");
	int vocab = running_rig.model->facts.vocab;
	for (int i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		at += snprintf(body + at, sizeof body - (size_t)at, "%s%d", i ? "," : "",
		                (int)(x >> 8) % vocab);
	}
	snprintf(body + at, sizeof body - (size_t)at, "],%s}", fields);
	return body;
}

static struct ticket *join(const char *body) {
	return running_join(REQUEST_COMPLETION, body);
}

static void check_greedy(const struct ticket *t, int choice) {
	const struct job *job = t->job;
	const struct job_prompt *p = &job->prompts[choice / job->best_of];
	int n = t->progress[choice].n_tokens;
	int32_t expected[128];
	CHECK(n > 0 && n <= 128);
	rig_greedy(&running_rig, &job->policy.subnet.stack[STACK_DECODER], p->tokens, p->n_tokens,
	                n, expected, NULL);
	for (int i = 0; i < n; i++)
		CHECK_INT(job->choices[choice].tokens[i], expected[i]);
}

/* Runs it alone; returns the tokens that were cached. */
static int run(const char *body) {
	struct ticket *t = join(body);
	int prompt = t->job->prompts[0].n_tokens, fed = 0;
	int cached = (int)t->job->cached_tokens;
	for (int i = 0; batch_jobs(running_batch) > 0; i++) {
		CHECK(i < 1000);
		running_step();
		fed += running_stats.prompt_rows;
	}
	CHECK_INT(fed, prompt - cached);
	CHECK_INT(t->job->error.code, ERROR_NONE);
	for (int i = 0; i < t->job->n_choices; i++)
		check_greedy(t, i);
	running_destroy(t);
	return cached;
}

TEST(a_prompt_that_came_before_runs_from_its_last_whole_tile_on) {
	open_long(0);
	CHECK_INT(run(body_of(1, LONG, "\"max_tokens\":8")), 0);
	CHECK_INT(run(body_of(1, LONG, "\"max_tokens\":8")), 128);
	CHECK_INT(run(body_of(1, 129, "\"max_tokens\":8")), 128);
	CHECK_INT(run(body_of(1, 128, "\"max_tokens\":8")), 64);
	CHECK_INT(run(body_of(2, LONG, "\"max_tokens\":8")), 0);
	/* Another plan has its own. */
	CHECK_INT(run(body_of(1, LONG, "\"max_tokens\":8,\"depth\":1")), 0);
	CHECK_INT(run(body_of(1, LONG, "\"max_tokens\":8,\"depth\":1")), 128);
	running_close();
}

TEST(choices_of_a_cached_prompt_share_it) {
	open_long(0);
	CHECK_INT(run(body_of(3, LONG, "\"max_tokens\":6")), 0);
	CHECK_INT(run(body_of(3, LONG, "\"max_tokens\":6,\"n\":3")), 128);
	/* Groups that begin later run what is left of the prompt again. */
	running_rig.config.max_running = 2;
	running_reopen(0);
	struct ticket *t = join(body_of(3, LONG, "\"max_tokens\":70,\"n\":5"));
	running_all();
	CHECK_INT(t->job->cached_tokens, 0);
	for (int i = 0; i < 5; i++)
		check_greedy(t, i);
	running_destroy(t);
	running_close();
}

TEST(a_conversation_finds_its_own_answers) {
	char body[TEXT];
	open_long(0);
	struct ticket *t = join(body_of(4, 100, "\"max_tokens\":60"));
	running_all();
	const struct job *job = t->job;
	/* Prompt, answer, and what the client says next. */
	int at = snprintf(body, sizeof body, "{\"temperature\":0,\"max_tokens\":5,\"prompt\":[");
	for (int i = 0; i < 100 + 60 + 20; i++)
		at += snprintf(body + at, sizeof body - (size_t)at, "%s%d", i ? "," : "",
		                i < 100                   ? job->prompts[0].tokens[i]
		                                : i < 160 ? job->choices[0].tokens[i - 100]
		                                          : i - 100);
	snprintf(body + at, sizeof body - (size_t)at, "],\"ignore_eos\":true}");
	/* 159 positions have run: the last token drawn never does. */
	CHECK_INT(run(body), 128);
	running_destroy(t);
	running_close();
}

TEST(who_does_not_want_the_cache_neither_reads_nor_fills_it) {
	open_long(0);
	CHECK_INT(run(body_of(6, LONG, "\"max_tokens\":4,\"cache_prompt\":false")), 0);
	CHECK_INT(run(body_of(6, LONG, "\"max_tokens\":4")), 0);
	CHECK_INT(run(body_of(6, LONG, "\"max_tokens\":4,\"cache_prompt\":false")), 0);
	CHECK_INT(run(body_of(6, LONG, "\"max_tokens\":4")), 128);
	running_close();
}

TEST(echoes_and_scores_pass_by_the_cache) {
	open_long(0);
	CHECK_INT(run(body_of(7, LONG, "\"max_tokens\":4,\"echo\":true")), 0);
	CHECK_INT(run(body_of(7, LONG, "\"max_tokens\":4,\"echo\":true,\"logprobs\":1")), 0);
	CHECK_INT(run(body_of(7, LONG, "\"max_tokens\":4")), 0);
	CHECK_INT(run(body_of(7, LONG, "\"max_tokens\":4,\"echo\":true,\"logprobs\":1")), 0);
	running_close();
}

static int run_as(uint64_t key, const char *body) {
	struct ticket *t = running_ticket(REQUEST_COMPLETION, body);
	t->job->key = key;
	batch_join(running_batch, t, 1);
	running_all();
	int cached = (int)t->job->cached_tokens;
	running_destroy(t);
	return cached;
}

TEST(keys_and_salts_are_served_apart) {
	open_long(0);
	CHECK_INT(run_as(1, body_of(8, LONG, "\"max_tokens\":4")), 0);
	CHECK_INT(run_as(2, body_of(8, LONG, "\"max_tokens\":4")), 0);
	CHECK_INT(run_as(1, body_of(8, LONG, "\"max_tokens\":4")), 128);
	CHECK_INT(run_as(1, body_of(8, LONG, "\"max_tokens\":4,\"cache_salt\":\"x\"")), 0);
	CHECK_INT(run_as(1, body_of(8, LONG, "\"max_tokens\":4,\"cache_salt\":\"x\"")), 128);
	CHECK_INT(run_as(1, body_of(8, LONG, "\"max_tokens\":4,\"cache_salt\":\"y\"")), 0);
	strcpy(running_rig.config.prefix_cache_scope, "shared");
	running_reopen(0);
	CHECK_INT(run_as(1, body_of(8, LONG, "\"max_tokens\":4")), 0);
	CHECK_INT(run_as(2, body_of(8, LONG, "\"max_tokens\":4")), 128);
	CHECK_INT(run_as(2, body_of(8, LONG, "\"max_tokens\":4,\"cache_salt\":\"x\"")), 0);
	running_close();
}

TEST(what_stepped_down_leaves_nothing_behind) {
	open_long(0);
	struct plan plan;
	plan_by_rule(PLAN_RULE_EVEN, 2, 1, &plan);
	/* While its prompt is fed. */
	struct ticket *t = join(body_of(9, LONG, "\"max_tokens\":4"));
	for (int i = 0; i < 2; i++)
		running_step();
	batch_narrow(running_batch, t, &plan);
	running_all();
	running_destroy(t);
	CHECK_INT(run(body_of(9, LONG, "\"max_tokens\":4")), 0);
	CHECK_INT(run(body_of(9, LONG, "\"max_tokens\":4,\"depth\":1")), 0);
	/* While it answers: its prompt is there, at the plan that it ran at. */
	t = join(body_of(10, 100, "\"max_tokens\":100"));
	while (ticket_most_tokens(t) < 3)
		running_step();
	batch_narrow(running_batch, t, &plan);
	running_all();
	running_destroy(t);
	CHECK_INT(run(body_of(10, 100, "\"max_tokens\":4")), 64);
	CHECK_INT(run(body_of(10, 100, "\"max_tokens\":4,\"depth\":1")), 0);
	running_close();
}

TEST(a_request_that_ends_early_gives_everything_back) {
	open_long(0);
	struct error e = { 0 };
	error_set(&e, ERROR_REQUEST_CANCELLED, "", "The request was cancelled.");
	/* In its prompt, of which nothing enters; and while it answers. */
	for (int steps = 1; steps < 60; steps += 6) {
		struct ticket *t = join(body_of(11, LONG, "\"max_tokens\":120,\"n\":2"));
		for (int i = 0; i < steps && t->report.state != JOB_DONE; i++)
			running_step();
		batch_fail(running_batch, t, &e);
		CHECK(batch_take_ended(running_batch) == t);
		CHECK_INT(workspace_blocks_reserved(batch_workspace(running_batch)), 0);
		running_destroy(t);
	}
	CHECK_INT(run(body_of(11, LONG, "\"max_tokens\":4")), 128);
	running_close();
}

TEST(a_small_pool_serves_all_with_the_right_answers) {
	/* 14 blocks of 64 positions: two requests of three tiles and two layers, and two more. */
	open_long(0);
	size_t block = workspace_block_bytes(batch_workspace(running_batch));
	running_rig.config.prefix_cache = 100;
	running_reopen(14 * block);
	int hits = 0;
	for (int i = 0; i < 40; i++) {
		struct ticket *t[2];
		for (int k = 0; k < 2; k++) {
			char fields[80];
			snprintf(fields, sizeof fields, "\"max_tokens\":%d,\"depth\":%d",
			                5 + 7 * i % 30, 1 + (i / 3 + k) % 2);
			t[k] = join(body_of(20 + (i * 5 + k * 3) % 4, 70 + (i * 17) % 80, fields));
		}
		running_all();
		for (int k = 0; k < 2; k++) {
			check_greedy(t[k], 0);
			hits += t[k]->job->cached_tokens > 0;
			running_destroy(t[k]);
		}
	}
	struct prefix_counts counts;
	prefix_count(workspace_prefix(batch_workspace(running_batch)), &counts);
	CHECK(hits > 0);
	CHECK(counts.evicted > 0);
	running_close();
}

TEST(what_is_cached_can_be_asked_for_before_joining) {
	open_long(0);
	run(body_of(12, LONG, "\"max_tokens\":4"));
	struct job *job = rig_job(
	                &running_rig, REQUEST_COMPLETION, body_of(12, LONG, "\"max_tokens\":4"));
	struct subnet shallow = job->policy.subnet;
	plan_by_rule(PLAN_RULE_EVEN, 2, 1, &shallow.stack[STACK_DECODER]);
	CHECK_INT(batch_cached(running_batch, job, &job->policy.subnet), 128);
	CHECK_INT(batch_cached(running_batch, job, &shallow), 0);
	job_destroy(job);
	running_close();
}
