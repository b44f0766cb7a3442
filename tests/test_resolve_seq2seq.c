/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to encoder-decoders become jobs: sources, targets, and when beams are searched. The
 * folder tiny-mt-post has 3 + 2 layers, 300 tokens, 64 positions; its decoder starts with </s> (2).
 */
#include "server/compose.h"
#include "server/resolve.h"
#include "tests/check.h"
#include "tests/rig.h"

static struct rig rig;

static struct job *completion(const char *body) {
	return rig_job(&rig, REQUEST_COMPLETION, body);
}

static void refused(const char *body, enum error_code code, const char *param) {
	rig_refused(&rig, REQUEST_COMPLETION, body, code, param);
}

static void open_mt(void) {
	rig_open(&rig, "tiny-mt-post");
}

TEST(a_prompt_is_the_source_and_the_decoder_has_its_own_start) {
	open_mt();
	struct job *job = completion("{\"prompt\":[5,6,2]}");
	CHECK_INT(job->work, WORK_GENERATE);
	CHECK_INT(job->prompts[0].n_tokens, 3);
	CHECK_INT(job->prompts[0].tokens[0], 5);
	CHECK_INT(job->prompts[0].n_target, 1);
	CHECK_INT(job->prompts[0].n_forced, 1);
	CHECK_INT(job->prompts[0].target[0], 2);
	job_destroy(job);
	rig.model->facts.forced_bos = 7;
	job = completion("{\"prompt\":[5,6,2]}");
	CHECK_INT(job->prompts[0].n_target, 2);
	CHECK_INT(job->prompts[0].n_forced, 2);
	CHECK_INT(job->prompts[0].target[1], 7);
	job_destroy(job);
	rig_close(&rig);
}

TEST(without_anything_said_five_beams_are_searched) {
	open_mt();
	struct job *job = completion("{\"prompt\":[5]}");
	CHECK_INT(job->num_beams, 5);
	CHECK(job->length_penalty == 1);
	CHECK(job->sampling.temperature == 0);
	CHECK_INT(job->n_choices, 1);
	job_destroy(job);
	job = completion("{\"prompt\":[5],\"temperature\":0}");
	CHECK_INT(job->num_beams, 5);
	job_destroy(job);
	rig_close(&rig);
}

TEST(the_folder_may_say_how_many_beams) {
	open_mt();
	rig.model->defaults.num_beams = 3;
	rig.model->defaults.length_penalty = 0.6;
	struct job *job = completion("{\"prompt\":[5]}");
	CHECK_INT(job->num_beams, 3);
	CHECK(job->length_penalty == 0.6);
	job_destroy(job);
	job = completion("{\"prompt\":[5],\"num_beams\":8,\"length_penalty\":0.4,\"n\":8}");
	CHECK_INT(job->num_beams, 8);
	CHECK(job->length_penalty == 0.4);
	CHECK_INT(job->n_choices, 8);
	CHECK_INT(job->best_of, 8);
	job_destroy(job);
	rig_close(&rig);
}

TEST(a_stream_and_one_beam_are_greedy) {
	open_mt();
	struct job *job = completion("{\"prompt\":[5],\"stream\":true}");
	CHECK_INT(job->num_beams, 0);
	CHECK(job->stream && job->sampling.temperature == 0);
	job_destroy(job);
	job = completion(
	                "{\"prompt\":[5],\"num_beams\":1,\"stop\":\"a\",\"logit_bias\":{\"5\":1}}");
	CHECK_INT(job->num_beams, 0);
	CHECK(job->sampling.temperature == 0);
	job_destroy(job);
	rig_close(&rig);
}

TEST(no_answer_is_empty_and_none_holds_padding) {
	open_mt();
	rig.model->facts.pad = 1;
	struct job *job = completion("{\"prompt\":[5],\"temperature\":1,\"logit_bias\":{\"5\":2}}");
	CHECK_INT(job->min_tokens, 1);
	CHECK_INT(job->sampling.n_banned, 2);
	CHECK_INT(job->n_never, 1);
	CHECK_INT(job->sampling.banned[0], 1);
	CHECK_INT(job->sampling.banned[1], 2);
	CHECK_INT(job->sampling.n_bias, 1);
	job_destroy(job);
	rig_close(&rig);
}

TEST(a_language_model_of_fairseqs_never_answers_padding) {
	rig_open(&rig, "tiny-lm-adaptive");
	CHECK_INT(rig.model->facts.pad, 1);
	struct job *job = completion("{\"prompt\":[5],\"temperature\":0}");
	CHECK_INT(job->sampling.n_bias, 0);
	CHECK_INT(job->sampling.n_banned, 1);
	CHECK_INT(job->n_never, 1);
	CHECK_INT(job->sampling.banned[0], 1);
	job_destroy(job);
	rig_close(&rig);
	rig_open(&rig, "tiny-opt");
	job = completion("{\"prompt\":[5]}");
	CHECK_INT(job->sampling.n_banned, 0);
	job_destroy(job);
	rig_close(&rig);
}

TEST(a_temperature_alone_samples) {
	open_mt();
	struct job *job = completion("{\"prompt\":[5],\"temperature\":0.8,\"n\":6,\"best_of\":7,"
	                             "\"stop\":\"a\"}");
	CHECK_INT(job->num_beams, 0);
	CHECK(job->sampling.temperature == 0.8f);
	CHECK_INT(job->n_choices, 7);
	job_destroy(job);
	rig_close(&rig);
}

/* The sentences of `warnings`, of which there is one that begins so. */
static bool warns(const struct job *job, const char *beginning) {
	size_t n;
	char **warnings = compose_warnings(job, &n);
	bool found = false;
	for (size_t i = 0; i < n; i++)
		found |= strncmp(warnings[i], beginning, strlen(beginning)) == 0;
	compose_warnings_free(warnings, n);
	return found;
}

TEST(beams_ignore_a_temperature_and_alternatives_with_a_warning) {
	open_mt();
	struct job *job = completion(
	                "{\"prompt\":[5],\"num_beams\":2,\"temperature\":1,\"logprobs\":3,"
	                "\"mine\":1}");
	CHECK_INT(job->num_beams, 2);
	CHECK(job->sampling.temperature == 0);
	CHECK(job->want_logprobs);
	CHECK_INT(job->n_top, 0);
	CHECK(warns(job, "temperature was ignored"));
	CHECK(warns(job, "logprobs lists no alternatives"));
	CHECK(warns(job, "The field \"mine\""));
	job_destroy(job);
	job = completion("{\"prompt\":[5],\"num_beams\":2,\"temperature\":0,\"logprobs\":0}");
	size_t n;
	CHECK(!compose_warnings(job, &n));
	CHECK_INT(n, 0);
	job_destroy(job);
	rig_close(&rig);
}

TEST(what_a_search_cannot_honour_is_refused_by_name) {
	open_mt();
	refused("{\"prompt\":[5],\"stop\":\"a\"}", ERROR_UNSUPPORTED_PARAMETER, "stop");
	refused("{\"prompt\":[5],\"ignore_eos\":true}", ERROR_UNSUPPORTED_PARAMETER, "ignore_eos");
	refused("{\"prompt\":[5],\"logit_bias\":{\"5\":1}}", ERROR_UNSUPPORTED_PARAMETER,
	                "logit_bias");
	refused("{\"prompt\":[5],\"presence_penalty\":1}", ERROR_UNSUPPORTED_PARAMETER,
	                "presence_penalty");
	refused("{\"prompt\":[5],\"frequency_penalty\":1}", ERROR_UNSUPPORTED_PARAMETER,
	                "frequency_penalty");
	refused("{\"prompt\":[5],\"repetition_penalty\":2}", ERROR_UNSUPPORTED_PARAMETER,
	                "repetition_penalty");
	refused("{\"prompt\":[5],\"best_of\":2}", ERROR_UNSUPPORTED_PARAMETER, "best_of");
	refused("{\"prompt\":[5],\"echo\":true}", ERROR_UNSUPPORTED_PARAMETER, "echo");
	job_destroy(completion("{\"prompt\":[5],\"repetition_penalty\":1,\"presence_penalty\":0,"
	                       "\"logit_bias\":{},\"stop\":[]}"));
	rig_close(&rig);
}

TEST(a_search_has_no_more_hypotheses_than_beams) {
	open_mt();
	refused("{\"prompt\":[5],\"n\":6}", ERROR_INVALID_REQUEST, "n");
	refused("{\"prompt\":[5],\"num_beams\":1,\"n\":2}", ERROR_INVALID_REQUEST, "n");
	refused("{\"prompt\":[5],\"stream\":true,\"n\":2}", ERROR_INVALID_REQUEST, "n");
	job_destroy(completion("{\"prompt\":[5],\"n\":5}"));
	rig_close(&rig);
}

TEST(language_models_search_nothing) {
	rig_open(&rig, "tiny-opt");
	refused("{\"prompt\":\"a\",\"num_beams\":2}", ERROR_UNSUPPORTED_PARAMETER, "num_beams");
	refused("{\"prompt\":\"a\",\"length_penalty\":2}", ERROR_UNSUPPORTED_PARAMETER,
	                "length_penalty");
	struct job *job = completion("{\"prompt\":\"a\",\"num_beams\":1,\"length_penalty\":1}");
	CHECK_INT(job->num_beams, 0);
	job_destroy(job);
	rig_close(&rig);
}

TEST(source_and_target_have_their_own_lengths) {
	open_mt();
	rig.model->facts.stack[STACK_ENCODER].context = 4;
	struct job *job = completion("{\"prompt\":[5,6,7,8]}");
	CHECK_INT(job->max_tokens, 63); /* 200 by default, 64 positions, one for the start */
	job_destroy(job);
	refused("{\"prompt\":[5,6,7,8,9]}", ERROR_CONTEXT_LENGTH_EXCEEDED, "prompt");
	refused("{\"prompt\":[5],\"max_tokens\":64}", ERROR_CONTEXT_LENGTH_EXCEEDED,
	                "max_tokens"); /* a field that the route has */
	rig.config.default_target_tokens = 20;
	job = completion("{\"prompt\":[5]}");
	CHECK_INT(job->max_tokens, 20);
	job_destroy(job);
	rig_close(&rig);
}

TEST(a_target_is_scored_after_the_start) {
	open_mt();
	struct job *job = rig_job(&rig, REQUEST_LOGLIKELIHOOD,
	                "{\"source\":[[5,6],[7]],\"target\":[[8,9,10],[11]]}");
	CHECK_INT(job->n_prompts, 2);
	CHECK_INT(job->n_choices, 0);
	CHECK_INT(job->prompts[0].n_target, 4);
	CHECK_INT(job->prompts[0].target[0], 2);
	CHECK_INT(job->prompts[0].target[3], 10);
	CHECK_INT(job->prompts[1].target[1], 11);
	CHECK(job->want_prompt_logprobs && job->prompts[0].logprobs);
	CHECK_INT(compose_prompt_tokens(job), 7);
	job_destroy(job);
	rig_refused(&rig, REQUEST_LOGLIKELIHOOD, "{\"input\":\"a\"}", ERROR_INVALID_REQUEST,
	                "input");
	rig_refused(&rig, REQUEST_LOGLIKELIHOOD, "{\"source\":[5],\"target\":[300]}",
	                ERROR_INVALID_REQUEST, "target");
	rig_refused(&rig, REQUEST_LOGLIKELIHOOD, "{\"source\":[5],\"target\":\"\"}",
	                ERROR_INVALID_REQUEST, "target");
	rig_close(&rig);
	rig_open(&rig, "tiny-opt");
	rig_refused(&rig, REQUEST_LOGLIKELIHOOD, "{\"source\":\"a\",\"target\":\"b\"}",
	                ERROR_INVALID_REQUEST, "source");
	rig_close(&rig);
}

TEST(what_is_forced_stands_before_texts_and_not_before_ids) {
	open_mt();
	rig.model->facts.forced_bos = 7;
	struct job *job = rig_job(&rig, REQUEST_LOGLIKELIHOOD,
	                "{\"source\":[[5],[5]],\"target\":[[8],\"a\"]}");
	CHECK_INT(job->prompts[0].n_forced, 1);
	CHECK_INT(job->prompts[0].target[1], 8);
	CHECK_INT(job->prompts[1].n_forced, 2);
	CHECK_INT(job->prompts[1].target[1], 7);
	job_destroy(job);
	rig_close(&rig);
}

static void check_lacking(enum request_kind kind, const char *body) {
	struct error e;
	CHECK(!rig_try(&rig, kind, body, &e));
	CHECK_INT(e.code, ERROR_NOT_SUPPORTED);
	CHECK(strstr(e.message, "POST /v1/completions works"));
}

TEST(routes_that_a_checkpoint_has_no_part_for_name_one_that_works) {
	open_mt();
	check_lacking(REQUEST_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
	check_lacking(REQUEST_EMBEDDING, "{\"input\":\"a\"}");
	check_lacking(REQUEST_CLASSIFY, "{\"input\":\"a\"}");
	check_lacking(REQUEST_FILL_MASK, "{\"input\":\"a\"}");
	rig_close(&rig);
	rig_open(&rig, "tiny-opt");
	check_lacking(REQUEST_EMBEDDING, "{\"input\":\"a\"}");
	check_lacking(REQUEST_CLASSIFY, "{\"input\":\"a\"}");
	check_lacking(REQUEST_FILL_MASK, "{\"input\":\"a\"}");
	rig_close(&rig);
}

TEST(both_depths_are_answered) {
	open_mt();
	struct job *job = completion("{\"prompt\":[5],\"depth\":{\"encoder\":2,\"decoder\":1}}");
	struct answer_depth depth;
	compose_depth(job, &job->policy.subnet, job->policy.reason, NULL, &depth);
	CHECK_INT(depth.encoder_used, 2);
	CHECK_INT(depth.encoder_of, 3);
	CHECK_INT(depth.used, 1);
	CHECK_INT(depth.of, 2);
	CHECK_STR(depth.requested, "2,1");
	job_destroy(job);
	rig_close(&rig);
}
