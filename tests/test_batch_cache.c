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
	/* While its prompt is fed: what was full before is there. */
	struct ticket *t = join(body_of(9, LONG, "\"max_tokens\":4"));
	while (t->prompts[0].fed < KV_TILE)
		running_step();
	CHECK(t->prompts[0].fed < 2 * KV_TILE);
	batch_narrow(running_batch, t, &plan);
	running_all();
	running_destroy(t);
	CHECK_INT(run(body_of(9, LONG, "\"max_tokens\":4")), KV_TILE);
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
	/* In its prompt, of which full tiles enter; and while it answers. */
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

/* ---- requests that come together ---- */

enum { TOGETHER = 6, TAIL = LONG - LONG / KV_TILE * KV_TILE };

/* Requests with one prompt, or with one beginning of n tokens and tails of their own. */
static void join_together(struct ticket *t[TOGETHER], int seed, int n, const char *fields) {
	static char body[TEXT];
	for (int i = 0; i < TOGETHER; i++) {
		snprintf(body, sizeof body, "%s", body_of(seed, LONG, fields));
		char *at = strchr(body, '[');
		for (int k = 0; k < n && at; k++)
			at = strchr(at + 1, ',');
		/* The tails: an id of one digit goes before the rest. */
		if (n < LONG && at) {
			memmove(at + 2, at, strlen(at) + 1);
			memcpy(at, (char[]){ ',', (char)('2' + i) }, 2);
		}
		t[i] = join(body);
	}
}

static int run_together(struct ticket *t[TOGETHER]) {
	int fed = 0;
	for (int i = 0; batch_jobs(running_batch) > 0; i++) {
		CHECK(i < 1000);
		running_step();
		fed += running_stats.prompt_rows;
	}
	for (int i = 0; i < TOGETHER; i++) {
		for (int k = 0; t[i]->job->error.code == ERROR_NONE && k < t[i]->job->n_choices;
		                k++) {
			if (t[i]->report.n_changes == 0)
				check_greedy(t[i], k);
		}
		running_destroy(t[i]);
	}
	return fed;
}

TEST(prompts_that_come_together_are_fed_once) {
	struct ticket *t[TOGETHER];
	open_long(0);
	running_rig.config.max_running = 2 * TOGETHER;
	for (int rows = 512; rows >= 32; rows /= 4) {
		running_rig.config.max_rows = rows;
		running_rig.config.prefill_rows = rows / 2 < 64 ? rows / 2 : 64;
		running_reopen(0);
		join_together(t, 30, LONG, "\"max_tokens\":8");
		CHECK_INT(run_together(t), LONG + (TOGETHER - 1) * TAIL);
		/* With tails of their own, two requests differ in the tile in which those begin. */
		join_together(t, 31, 100, "\"max_tokens\":8,\"n\":2");
		CHECK_INT(run_together(t), LONG + 1 + (TOGETHER - 1) * (LONG + 1 - 64));
	}
	running_close();
}

TEST(what_others_feed_counts_as_cached_in_answers_and_forecasts) {
	struct ticket *t[TOGETHER];
	struct scheduled_progress p;
	open_long(0);
	join_together(t, 32, LONG, "\"max_tokens\":8");
	struct job *job = rig_job(
	                &running_rig, REQUEST_COMPLETION, body_of(32, LONG, "\"max_tokens\":8"));
	CHECK_INT(batch_cached(running_batch, job, &job->policy.subnet), LONG - TAIL);
	job_destroy(job);
	for (int i = 0; i < TOGETHER; i++) {
		batch_progress(t[i], &p);
		CHECK_INT(p.prompt_tokens, i == 0 ? LONG : TAIL);
	}
	while (t[TOGETHER - 1]->progress[0].n_tokens == 0)
		running_step();
	for (int i = 0; i < TOGETHER; i++)
		CHECK_INT((int)t[i]->job->cached_tokens, i == 0 ? 0 : LONG - TAIL);
	run_together(t);
	running_close();
}

TEST(prompts_of_one_request_are_fed_once) {
	static char body[TEXT];
	open_long(0);
	char *list = strchr(body_of(33, LONG, "\"max_tokens\":6"), '[');
	int n = (int)(strchr(list, ']') - list) + 1;
	snprintf(body, sizeof body,
	                "{\"temperature\":0,\"ignore_eos\":true,\"max_tokens\":6,\"prompt\":[%.*s,%"
	                ".*s,%.*s]}",
	                n, list, n, list, n, list);
	struct ticket *t = join(body);
	int fed = 0;
	while (batch_jobs(running_batch) > 0) {
		running_step();
		fed += running_stats.prompt_rows;
	}
	CHECK_INT(fed, LONG + 2 * TAIL);
	CHECK_INT((int)t->job->cached_tokens, 2 * (LONG - TAIL));
	for (int i = 0; i < 3; i++)
		check_greedy(t, i);
	running_destroy(t);
	running_close();
}

TEST(nobody_waits_for_one_of_another_plan_salt_or_without_the_cache) {
	static const char *const fields[] = { "\"max_tokens\":4", "\"max_tokens\":4,\"depth\":1",
		"\"max_tokens\":4,\"cache_salt\":\"x\"", "\"max_tokens\":4,\"cache_prompt\":false",
		"\"max_tokens\":4,\"echo\":true" };
	struct ticket *t[5];
	open_long(0);
	running_rig.config.max_rows = 16;
	running_reopen(0);
	int fed = 0;
	for (int i = 0; i < 5; i++)
		t[i] = join(body_of(34, LONG, fields[i]));
	while (batch_jobs(running_batch) > 0) {
		running_step();
		fed += running_stats.prompt_rows;
	}
	CHECK_INT(fed, 5 * LONG);
	for (int i = 0; i < 5; i++) {
		CHECK_INT((int)t[i]->job->cached_tokens, 0);
		check_greedy(t[i], 0);
		running_destroy(t[i]);
	}
	running_close();
}

/* The first feeds until `fed`, then something happens to it; the others go on where it stood. */
enum happening { CANCEL, DEADLINE, STEP_DOWN, STEP_ALL_DOWN };

static void leader_ends(enum happening what, int at, int expected) {
	struct ticket *t[TOGETHER];
	struct plan plan;
	struct error e = { 0 };
	int fed = 0;
	running_reopen(0);
	join_together(t, 35, LONG, "\"max_tokens\":8");
	while (t[0]->prompts[0].fed < at) {
		running_step();
		fed += running_stats.prompt_rows;
	}
	CHECK_INT(t[0]->prompts[0].fed, at);
	plan_by_rule(PLAN_RULE_EVEN, 2, 1, &plan);
	error_set(&e, ERROR_REQUEST_CANCELLED, "", "The request was cancelled.");
	if (what == CANCEL)
		batch_fail(running_batch, t[0], &e);
	if (what == DEADLINE)
		running_expire(t[0]);
	for (int i = 0; i < (what == STEP_DOWN ? 1 : what == STEP_ALL_DOWN ? TOGETHER : 0); i++)
		batch_narrow(running_batch, t[i], &plan);
	while (batch_take_ended(running_batch))
		;
	CHECK_INT(fed + run_together(t), expected);
}

TEST(others_go_on_by_themselves_when_the_one_that_feeds_ends_or_steps_down) {
	open_long(0);
	running_rig.config.max_rows = 16;
	running_rig.config.prefill_rows = 8;
	/* At 80 one tile is full: the next in order feeds from there. */
	int next = LONG - KV_TILE + (TOGETHER - 2) * TAIL;
	leader_ends(CANCEL, 80, 80 + next);
	leader_ends(DEADLINE, 80, 80 + next);
	leader_ends(STEP_DOWN, 80, LONG + next);
	leader_ends(CANCEL, 16, 16 + LONG + (TOGETHER - 2) * TAIL);
	/* Who has stepped down feeds all that was not cached before. */
	leader_ends(STEP_ALL_DOWN, 80, LONG + (TOGETHER - 1) * (LONG - KV_TILE));
	running_close();
}

TEST(a_prompt_goes_on_where_another_has_overtaken_it) {
	struct ticket *t[TOGETHER];
	struct scheduled *order[TOGETHER];
	open_long(0);
	running_rig.config.max_rows = 16;
	running_reopen(0);
	join_together(t, 36, LONG, "\"max_tokens\":4");
	running_step();
	/* From now on the last has precedence: it catches up and leads. */
	int fed = running_stats.prompt_rows;
	while (t[TOGETHER - 1]->progress[0].n_tokens == 0) {
		for (int i = 0; i < TOGETHER; i++)
			order[i] = &t[TOGETHER - 1 - i]->scheduled;
		batch_arrange(running_batch, order, TOGETHER, 16);
		running_step();
		fed += running_stats.prompt_rows;
		CHECK(running_stats.prompt_rows > 0);
	}
	fed += run_together(t);
	/* It feeds again what the first had fed of a tile that was not full: 16 rows. */
	CHECK_INT(fed, 16 + LONG + (TOGETHER - 1) * TAIL);
	running_close();
}

TEST(a_pool_of_one_prompt_and_many_answers_serves_them_together) {
	struct ticket *t[TOGETHER];
	open_long(0);
	size_t block = workspace_block_bytes(batch_workspace(running_batch));
	/* Two whole tiles of the prompt, and a last one of each request; two layers. */
	running_rig.config.prefix_cache = 100;
	running_reopen((size_t)(2 * (2 + TOGETHER)) * block);
	t[0] = join(body_of(37, LONG, "\"max_tokens\":30"));
	for (int i = 1; i < TOGETHER; i++)
		t[i] = running_ticket(REQUEST_COMPLETION, body_of(37, LONG, "\"max_tokens\":30"));
	/* Nothing is cached yet: 6 + 6 blocks of 16, and no third. */
	CHECK(batch_fits(running_batch, t[1], &t[1]->subnet));
	batch_join(running_batch, t[1], 1);
	CHECK(!batch_fits(running_batch, t[2], &t[2]->subnet));
	while (t[1]->progress[0].n_tokens == 0)
		running_step();
	for (int i = 2; i < TOGETHER; i++) {
		CHECK(batch_fits(running_batch, t[i], &t[i]->subnet));
		batch_join(running_batch, t[i], 1);
	}
	CHECK_INT(workspace_blocks_reserved(batch_workspace(running_batch)), 2 * (2 + TOGETHER));
	struct ticket *more =
	                running_ticket(REQUEST_COMPLETION, body_of(37, LONG, "\"max_tokens\":30"));
	CHECK(!batch_fits(running_batch, more, &more->subnet));
	running_destroy(more);
	run_together(t);
	running_close();
}

TEST(a_cache_too_small_for_a_prompt_keeps_nobody_waiting) {
	struct ticket *t[TOGETHER];
	open_long(0);
	size_t block = workspace_block_bytes(batch_workspace(running_batch));
	/* One block in 40: not even a tile of two layers. */
	running_rig.config.prefix_cache = 3;
	running_rig.config.max_rows = 512;
	running_reopen(40 * block);
	join_together(t, 38, LONG, "\"max_tokens\":4");
	running_step();
	CHECK(running_stats.prompt_rows > 3 * LONG);
	run_together(t);
	running_close();
}

TEST(whatever_happens_answers_are_right_and_everything_comes_back) {
	struct ticket *t[4] = { NULL };
	struct error e = { 0 };
	struct plan plan;
	uint32_t x = 7;
	open_long(0);
	size_t block = workspace_block_bytes(batch_workspace(running_batch));
	running_rig.config.max_rows = 40;
	running_rig.config.prefill_rows = 24;
	running_reopen(26 * block);
	plan_by_rule(PLAN_RULE_EVEN, 2, 1, &plan);
	error_set(&e, ERROR_REQUEST_CANCELLED, "", "The request was cancelled.");
	for (int i = 0; i < 500; i++) {
		x = x * 1664525u + 1013904223u;
		struct ticket **at = &t[(x >> 8) % 4];
		int draw = (int)(x >> 12) % 100;
		if (!*at && draw < 60) {
			struct ticket *new = running_ticket(REQUEST_COMPLETION,
			                body_of(40 + (int)(x >> 20) % 2, 70 + (int)(x >> 22) % 110,
			                                "\"max_tokens\":9"));
			if (batch_fits(running_batch, new, &new->subnet)) {
				batch_join(running_batch, new, 1);
				*at = new;
			} else {
				running_destroy(new);
			}
		} else if (*at && (*at)->report.state != JOB_DONE && draw < 4) {
			batch_fail(running_batch, *at, &e);
			while (batch_take_ended(running_batch))
				;
		} else if (*at && (*at)->report.state != JOB_DONE && draw < 8
		                && (*at)->report.n_changes == 0) {
			batch_narrow(running_batch, *at, &plan);
		}
		if (batch_jobs(running_batch) > 0)
			running_step();
		for (int k = 0; k < 4; k++) {
			if (!t[k] || t[k]->report.state != JOB_DONE)
				continue;
			if (t[k]->job->error.code == ERROR_NONE && t[k]->report.n_changes == 0)
				check_greedy(t[k], 0);
			running_destroy(t[k]);
			t[k] = NULL;
		}
	}
	running_all();
	for (int k = 0; k < 4; k++) {
		if (t[k])
			running_destroy(t[k]);
	}
	running_close();
}
