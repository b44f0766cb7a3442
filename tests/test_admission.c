/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What jobs are predicted to do and what a pool can hold. tiny-mt-post has 3 + 2 layers, 64
 * positions, and a decoder that starts with one symbol; tiny-encoder has 5 layers, 40 positions,
 * its mask is 119.
 */
#include "server/admission.h"

#include <math.h>

#include "tests/check.h"
#include "tests/rig.h"

static struct rig rig;
static struct admission admission;

static const struct cost_limits limits = { .max_rows = 512, .prefill_rows = 128, .sequences = 64 };

/* What an idle server would do with a job. */
static struct scheduler_foresight foresee(const struct cost_model *cost, const struct job *job) {
	struct scheduler_view view = { .limits = limits, .overload_min_depth = 1 };
	struct scheduler_foresight f;
	struct scheduled r;
	for (int k = 0; k < STACKS; k++)
		view.layers[k] = rig.model->facts.stack[k].layers;
	admission_schedule(&admission, cost, job, &r);
	scheduler_foresee(&view, cost, &r, 0, &f);
	return f;
}

static void open_with(const char *name, size_t kv_blocks) {
	rig_open(&rig, name);
	CHECK(admission_init(&admission, rig.model, &limits, kv_blocks));
}

static void close_all(void) {
	admission_finish(&admission);
	rig_close(&rig);
}

static bool holds(size_t kv_blocks, const char *body) {
	struct error e = { 0 };
	struct job *job = rig_job(&rig, REQUEST_COMPLETION, body);
	admission.kv_blocks = kv_blocks;
	bool ok = admission_check_size(&admission, job, &e);
	CHECK(ok || e.code == ERROR_CONTEXT_LENGTH_EXCEEDED);
	job_destroy(job);
	return ok;
}

/* ---- blocks ---- */

TEST(beams_multiply_blocks_and_share_the_source) {
	/* Five beams of one block and the source's one, for each of two layers. */
	open_with("tiny-mt-post", 0);
	CHECK(holds(12, "{\"prompt\":[5,6,2],\"max_tokens\":40}"));
	CHECK(!holds(11, "{\"prompt\":[5,6,2],\"max_tokens\":40}"));
	/* Three beams at one decoder layer: the encoder's depth needs none. */
	CHECK(holds(4, "{\"prompt\":[5,6,2],\"max_tokens\":40,\"num_beams\":3,\"depth\":1}"));
	CHECK(!holds(3, "{\"prompt\":[5,6,2],\"max_tokens\":40,\"num_beams\":3,\"depth\":1}"));
	/* Samples begin when there is room: one must fit, and its source. */
	CHECK(holds(4, "{\"prompt\":[5,6,2],\"max_tokens\":40,\"temperature\":1,\"n\":4}"));
	CHECK(!holds(3, "{\"prompt\":[5,6,2],\"max_tokens\":40,\"temperature\":1,\"n\":4}"));
	close_all();
}

TEST(a_small_pool_makes_auto_shallower_and_refuses_what_never_fits) {
	open_with("tiny-mt-post", 0);
	static const char body[] = "{\"prompt\":[5,6,2],\"max_tokens\":40,\"depth\":\"auto\"}";
	CHECK(holds(6, body));
	CHECK(!holds(5, body));
	struct job *job = rig_job(&rig, REQUEST_COMPLETION, body);
	struct cost_model cost = {
		.fitted = true, .margin = 1, .margin_rescued = 1, .target_ratio = 1
	};
	admission.kv_blocks = 11;
	struct scheduler_foresight answer = foresee(&cost, job);
	CHECK_INT(answer.subnet.stack[STACK_ENCODER].depth, 3);
	CHECK_INT(answer.subnet.stack[STACK_DECODER].depth, 1);
	admission.kv_blocks = 12;
	answer = foresee(&cost, job);
	CHECK_INT(answer.subnet.stack[STACK_DECODER].depth, 2);
	job_destroy(job);
	close_all();
}

TEST(texts_for_an_encoder_need_no_blocks) {
	struct error e = { 0 };
	open_with("tiny-encoder", 0);
	struct job *job = rig_job(&rig, REQUEST_CLASSIFY,
	                "{\"head\":\"mnli\",\"input\":[[0,5,6,2],[0,7,2]]}");
	CHECK(admission_check_size(&admission, job, &e));
	job_destroy(job);
	close_all();
}

/* ---- work ---- */

TEST(sources_and_beams_are_counted) {
	open_with("tiny-mt-post", 100);
	struct job *job = rig_job(&rig, REQUEST_COMPLETION,
	                "{\"prompt\":[[5,6,2],[5,6,7,8,2]],\"num_beams\":3,\"max_tokens\":9}");
	struct cost_work work;
	admission_work(job, &job->policy.subnet, 9, &work);
	CHECK_INT(work.choices, 6);
	CHECK_INT(work.prompt_tokens, 2);
	CHECK_INT(work.longest_prompt, 1);
	CHECK_INT(work.scored_tokens, 0);
	CHECK_INT(work.sources, 2);
	CHECK_INT(work.source_tokens, 8);
	CHECK_INT(work.longest_source, 5);
	CHECK_INT(work.source_tiles, 2);
	CHECK(work.source_attended == (9 + 25) / 1024.0);
	CHECK_INT(work.class_rows, 0);
	/* 8 tokens of sources, and 6 x 9 of answers. */
	CHECK_INT(admission_tokens(job), 8 + 54);
	job_destroy(job);
	close_all();
}

TEST(an_encoders_texts_are_counted) {
	open_with("tiny-encoder", 0);
	struct cost_work work;
	struct job *job = rig_job(&rig, REQUEST_CLASSIFY,
	                "{\"head\":\"mnli\",\"input\":[[0,5,6,2],[0,7,2]]}");
	admission_work(job, &job->policy.subnet, 0, &work);
	CHECK_INT(work.prompt_tokens, 0);
	CHECK_INT(work.sources, 2);
	CHECK_INT(work.source_tokens, 7);
	CHECK_INT(work.class_rows, 2);
	CHECK_INT(work.scored_tokens, 0);
	job_destroy(job);
	job = rig_job(&rig, REQUEST_FILL_MASK, "{\"input\":[[0,5,119,119,2]]}");
	admission_work(job, &job->policy.subnet, 0, &work);
	CHECK_INT(work.scored_tokens, 2);
	CHECK_INT(work.class_rows, 0);
	job_destroy(job);
	close_all();
}

TEST(a_translation_is_planned_by_its_source) {
	open_with("tiny-mt-post", 100);
	struct cost_model cost = { .fitted = true, .target_ratio = 1.4, .answer_ratio = 0.1 };
	struct job *job = rig_job(&rig, REQUEST_COMPLETION, "{\"prompt\":[5,6,7,2]}");
	/* 1.4 x 4 is 5.6. */
	CHECK_INT(admission_predict_tokens(job, &cost), 6);
	job_destroy(job);
	job = rig_job(&rig, REQUEST_COMPLETION, "{\"prompt\":[5,6,7,2],\"max_tokens\":20}");
	CHECK_INT(admission_predict_tokens(job, &cost), 20);
	job_destroy(job);
	job = rig_job(&rig, REQUEST_COMPLETION,
	                "{\"prompt\":[5,6,7,2],\"max_tokens\":20,\"expected_tokens\":9}");
	CHECK_INT(admission_predict_tokens(job, &cost), 9);
	job_destroy(job);
	close_all();
}

TEST(a_job_is_the_schedulers_in_numbers) {
	struct cost_model cost = { .fitted = true, .target_ratio = 1.5, .constant_ms = 2 };
	struct scheduled r;
	open_with("tiny-mt-post", 100);
	struct job *job = rig_job(&rig, REQUEST_COMPLETION,
	                "{\"prompt\":[5,6,7,2],\"num_beams\":3,\"latency_budget_ms\":50,"
	                "\"min_depth\":{\"encoder\":2,\"decoder\":1},\"priority\":4}");
	job->times.received_ns = 7000000;
	job->deadline_ns = 9000000;
	admission_schedule(&admission, &cost, job, &r);
	CHECK(r.arrival_ms == 7 && r.deadline_ms == 9 && r.latency_ms == 50);
	CHECK_INT(r.priority, 4);
	CHECK(r.automatic && r.may_step_down && !r.texts);
	/* Three beams of 1.5 x 4 tokens. */
	CHECK_INT(r.places, 3);
	CHECK_INT(r.work.choices, 3);
	CHECK_INT(r.work.output_tokens, 6);
	CHECK_INT(r.min_depth[STACK_ENCODER], 2);
	CHECK_INT(r.max_depth[STACK_ENCODER], 3);
	CHECK_INT(r.max_depth[STACK_DECODER], 2);
	job_destroy(job);
	close_all();
	open_with("tiny-encoder", 0);
	job = rig_job(&rig, REQUEST_CLASSIFY,
	                "{\"head\":\"mnli\",\"input\":[[0,5,6,2],[0,7,2]],\"depth\":4}");
	admission_schedule(&admission, &cost, job, &r);
	CHECK(!r.automatic && !r.may_step_down && r.texts && isinf(r.deadline_ms));
	CHECK_INT(r.subnet.stack[STACK_ENCODER].depth, 4);
	CHECK_INT(r.places, 1);
	CHECK_INT(r.work.output_tokens, 0);
	job_destroy(job);
	close_all();
}

/* ---- depth ---- */

TEST(an_encoders_budget_chooses_its_depth) {
	/* A step of 1 ms, and 1 ms for each layer. */
	open_with("tiny-encoder", 0);
	struct cost_model cost = {
		.fitted = true, .margin = 1, .margin_rescued = 1, .constant_ms = 1
	};
	for (int i = 0; i < COST_POINTS; i++)
		cost.layer_ms[STACK_ENCODER][i] = 1;
	struct job *job = rig_job(&rig, REQUEST_CLASSIFY,
	                "{\"head\":\"mnli\",\"input\":[0,5,6,2],\"latency_budget_ms\":4.5}");
	struct scheduler_foresight answer = foresee(&cost, job);
	CHECK_INT(answer.subnet.stack[STACK_ENCODER].depth, 3);
	CHECK_INT(answer.reason, REASON_BUDGET);
	CHECK(answer.fits && answer.predicted_ms == 4);
	job_destroy(job);
	close_all();
}

TEST(a_refused_budget_names_the_pair_that_would_fit) {
	/* The source takes 1 + 3 e, each of five tokens 1 + 10 d: 58 ms at (1,1). */
	open_with("tiny-mt-post", 100);
	struct cost_model cost = {
		.fitted = true, .margin = 1, .margin_rescued = 1, .constant_ms = 1
	};
	for (int i = 0; i < COST_POINTS; i++) {
		cost.layer_ms[STACK_ENCODER][i] = 3;
		cost.layer_ms[STACK_DECODER][i] = 10;
	}
	struct job *job = rig_job(&rig, REQUEST_COMPLETION,
	                "{\"prompt\":[5,6,2],\"max_tokens\":5,\"depth\":2,"
	                "\"latency_budget_ms\":60,\"on_miss\":\"reject\"}");
	struct scheduler_foresight answer = foresee(&cost, job);
	struct error e = { 0 };
	CHECK(!answer.fits);
	CHECK_INT(answer.refusal, SCHEDULER_UNATTAINABLE);
	/* 1 + 9 + 20, then four of 1 + 20. */
	CHECK(answer.alone.total_ms == 114);
	struct admission_refusal refusal = { .why = answer.refusal, .time = answer.alone };
	CHECK(!admission_refuse(&admission, &cost, job, &refusal, &e));
	CHECK_INT(e.code, ERROR_BUDGET_UNATTAINABLE);
	/* The ladder of 3 + 2 layers is (1,1), (2,2), (3,2). */
	CHECK(strstr(e.message, "An encoder of 1 and a decoder of 1 layers would keep it."));
	CHECK_INT(e.fitting_depth, 1);
	job_destroy(job);
	close_all();
}

/* What an idle server says of a budget that it cannot keep. */
static struct error refusal_of(const char *body) {
	struct cost_model cost = {
		.fitted = true, .margin = 1, .margin_rescued = 1, .constant_ms = 1
	};
	for (int i = 0; i < COST_POINTS; i++) {
		cost.layer_ms[STACK_ENCODER][i] = 3;
		cost.layer_ms[STACK_DECODER][i] = 10;
	}
	struct job *job = rig_job(&rig, REQUEST_COMPLETION, body);
	struct scheduler_foresight answer = foresee(&cost, job);
	struct admission_refusal refusal = { .why = answer.refusal, .time = answer.alone };
	struct error e = { 0 };
	CHECK_INT(answer.refusal, SCHEDULER_UNATTAINABLE);
	CHECK(!admission_refuse(&admission, &cost, job, &refusal, &e));
	job_destroy(job);
	return e;
}

TEST(a_refused_budget_is_told_the_time_that_it_is_about) {
	open_with("tiny-mt-post", 100);
	/* 1 + 9 + 20 until the first token, 1 + 20 for each of four more. */
	struct error e = refusal_of("{\"prompt\":[5,6,2],\"max_tokens\":5,\"depth\":2,"
	                            "\"ttft_budget_ms\":5,\"on_miss\":\"reject\"}");
	CHECK_STR(e.param, "ttft_budget_ms");
	CHECK(e.predicted_ms == 30);
	CHECK(strstr(e.message, "30 ms are predicted until the first token."));
	e = refusal_of("{\"prompt\":[5,6,2],\"max_tokens\":5,\"depth\":2,\"tpot_budget_ms\":5,"
	               "\"on_miss\":\"reject\"}");
	CHECK_STR(e.param, "tpot_budget_ms");
	CHECK(e.predicted_ms == 21);
	CHECK(strstr(e.message, "21 ms are predicted for each further token."));
	/* The one that is missed, and not the one that is kept. */
	e = refusal_of("{\"prompt\":[5,6,2],\"max_tokens\":5,\"depth\":2,"
	               "\"latency_budget_ms\":200,\"tpot_budget_ms\":5,\"on_miss\":\"reject\"}");
	CHECK_STR(e.param, "tpot_budget_ms");
	close_all();
}
