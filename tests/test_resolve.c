/* SPDX-License-Identifier: Apache-2.0 */
/* From requests to jobs: what is filled in, and what is refused. tiny-opt has 6 layers, 300 tokens,
 * 64 positions; its tokenizer adds </s> (2) first. */
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

static void open_opt(void) {
	rig_open(&rig, "tiny-opt");
}

static int depth_of(const struct job *job) {
	return job->policy.subnet.stack[STACK_DECODER].depth;
}

TEST(without_a_depth_the_model_runs_whole) {
	open_opt();
	struct job *job = completion("{\"prompt\":\"the\"}");
	CHECK(!job->policy.automatic);
	CHECK_INT(job->policy.reason, REASON_DEFAULT);
	CHECK_INT(depth_of(job), 6);
	CHECK_STR(job->policy.requested, "full");
	job_destroy(job);
	rig_close(&rig);
}

TEST(a_number_binds_and_becomes_layers_by_the_rule) {
	open_opt();
	struct job *job = completion("{\"prompt\":\"the\",\"depth\":3}");
	static const int16_t even[] = { 0, 2, 4 }, ends[] = { 0, 3, 5 };
	CHECK_INT(job->policy.reason, REASON_EXPLICIT);
	CHECK(memcmp(job->policy.subnet.stack[STACK_DECODER].layers, even, sizeof even) == 0);
	CHECK_STR(job->policy.requested, "3");
	job_destroy(job);
	job = completion("{\"prompt\":\"the\",\"depth\":3,\"plan_rule\":\"ends\"}");
	CHECK(memcmp(job->policy.subnet.stack[STACK_DECODER].layers, ends, sizeof ends) == 0);
	job_destroy(job);
	rig_close(&rig);
}

TEST(depths_outside_the_model_are_refused) {
	open_opt();
	refused("{\"prompt\":\"the\",\"depth\":7}", ERROR_INVALID_DEPTH, "depth");
	refused("{\"prompt\":\"the\",\"depth\":0}", ERROR_INVALID_DEPTH, "depth");
	refused("{\"prompt\":\"the\",\"depth\":\"deep\"}", ERROR_INVALID_DEPTH, "depth");
	refused("{\"prompt\":\"the\",\"depth\":{\"encoder\":2,\"decoder\":3}}", ERROR_INVALID_DEPTH,
	                "depth");
	refused("{\"prompt\":\"the\",\"min_depth\":7}", ERROR_INVALID_DEPTH, "min_depth");
	refused("{\"prompt\":\"the\",\"depth\":2,\"min_depth\":3}", ERROR_INVALID_DEPTH, "depth");
	refused("{\"prompt\":\"the\",\"depth\":2,\"plan_rule\":\"tuned\"}", ERROR_INVALID_DEPTH,
	                "plan_rule");
	rig_close(&rig);
}

static int tier_of(const char *name) {
	int depth[STACKS];
	CHECK(resolve_tier(rig.model, &rig.config, name, depth));
	CHECK_INT(depth[STACK_ENCODER], 0);
	return depth[STACK_DECODER];
}

TEST(tiers_are_fractions_rounded_up) {
	open_opt();
	CHECK_INT(tier_of("fast"), 2);
	CHECK_INT(tier_of("balanced"), 3);
	CHECK_INT(tier_of("full"), 6);
	int depth[STACKS];
	CHECK(!resolve_tier(rig.model, &rig.config, "none", depth));
	rig.config.tiers[0] = (struct config_tier){ "deep", 0, 5 };
	rig.config.tiers[1] = (struct config_tier){ "third", 1.0 / 3, 0 };
	rig.config.n_tiers = 2;
	CHECK_INT(tier_of("deep"), 5);
	CHECK_INT(tier_of("third"), 2);
	struct job *job = completion("{\"prompt\":\"the\",\"depth\":\"deep\"}");
	CHECK_INT(depth_of(job), 5);
	CHECK_STR(job->policy.requested, "deep");
	job_destroy(job);
	rig_close(&rig);
}

TEST(a_model_name_may_carry_a_depth) {
	open_opt();
	struct job *job = completion("{\"prompt\":\"the\",\"model\":\"tiny-opt@4\"}");
	CHECK_INT(depth_of(job), 4);
	CHECK_INT(job->policy.reason, REASON_EXPLICIT);
	job_destroy(job);
	job = completion("{\"prompt\":\"the\",\"model\":\"tiny-opt@fast\",\"depth\":2}");
	CHECK_INT(depth_of(job), 2);
	job_destroy(job);
	refused("{\"prompt\":\"the\",\"model\":\"tiny-opt@fast\",\"depth\":3}", ERROR_INVALID_DEPTH,
	                "depth");
	refused("{\"prompt\":\"the\",\"model\":\"tiny-opt@4\",\"layers\":[1]}", ERROR_INVALID_DEPTH,
	                "depth");
	refused("{\"prompt\":\"the\",\"model\":\"tiny-opt@9\"}", ERROR_INVALID_DEPTH, "depth");
	refused("{\"prompt\":\"the\",\"model\":\"tiny-opt@x\"}", ERROR_MODEL_NOT_FOUND, "model");
	rig_close(&rig);
}

TEST(a_wrong_model_name_is_told_the_right_one) {
	open_opt();
	struct error e;
	CHECK(!rig_try(&rig, REQUEST_COMPLETION, "{\"prompt\":\"the\",\"model\":\"gpt-4\"}", &e));
	CHECK_INT(e.code, ERROR_MODEL_NOT_FOUND);
	CHECK(strstr(e.message, "tiny-opt") != NULL);
	rig.config.served_model_names[0] = strdup("a@b");
	rig.config.n_served_model_names = 1;
	struct job *job = completion("{\"prompt\":\"the\",\"model\":\"a@b\"}");
	CHECK_INT(depth_of(job), 6);
	job_destroy(job);
	job = completion("{\"prompt\":\"the\",\"model\":\"a@b@2\"}");
	CHECK_INT(depth_of(job), 2);
	job_destroy(job);
	rig_close(&rig);
}

TEST(layers_are_the_whole_plan) {
	open_opt();
	struct job *job = completion("{\"prompt\":\"the\",\"layers\":[1,4,5]}");
	static const int16_t layers[] = { 1, 4, 5 };
	CHECK_INT(depth_of(job), 3);
	CHECK_INT(job->policy.rule, PLAN_RULE_LAYERS);
	CHECK(memcmp(job->policy.subnet.stack[STACK_DECODER].layers, layers, sizeof layers) == 0);
	job_destroy(job);
	refused("{\"prompt\":\"the\",\"layers\":[4,1]}", ERROR_INVALID_LAYERS, "layers");
	refused("{\"prompt\":\"the\",\"layers\":[6]}", ERROR_INVALID_LAYERS, "layers");
	refused("{\"prompt\":\"the\",\"layers\":{\"encoder\":[0],\"decoder\":[0]}}",
	                ERROR_INVALID_LAYERS, "layers");
	rig_close(&rig);
}

TEST(a_budget_without_a_depth_lets_the_server_choose) {
	open_opt();
	struct job *job =
	                completion("{\"prompt\":\"the\",\"latency_budget_ms\":50,\"min_depth\":2}");
	CHECK(job->policy.automatic);
	CHECK_INT(job->policy.min_depth[STACK_DECODER], 2);
	CHECK_INT(job->policy.max_depth[STACK_DECODER], 6);
	CHECK_STR(job->policy.requested, "auto");
	job_destroy(job);
	job = completion("{\"prompt\":\"the\",\"latency_budget_ms\":50,\"depth\":3}");
	CHECK(!job->policy.automatic);
	CHECK_INT(depth_of(job), 3);
	CHECK(job->latency_budget_ms == 50);
	job_destroy(job);
	rig_close(&rig);
}

TEST(the_configured_default_depth_is_used) {
	open_opt();
	strcpy(rig.config.default_depth, "balanced");
	struct job *job = completion("{\"prompt\":\"the\"}");
	CHECK_INT(depth_of(job), 3);
	CHECK_INT(job->policy.reason, REASON_DEFAULT);
	job_destroy(job);
	job = completion("{\"prompt\":\"the\",\"max_depth\":2}");
	CHECK_INT(depth_of(job), 2);
	job_destroy(job);
	rig_close(&rig);
}

TEST(a_configured_default_depth_that_does_not_fit_is_refused_at_the_start) {
	char err[512];
	open_opt();
	CHECK(resolve_check_config(rig.model, &rig.config, err, sizeof err));
	strcpy(rig.config.default_depth, "balanced");
	CHECK(resolve_check_config(rig.model, &rig.config, err, sizeof err));
	strcpy(rig.config.default_depth, "balancd");
	CHECK(!resolve_check_config(rig.model, &rig.config, err, sizeof err));
	CHECK(strstr(err, "balancd"));
	strcpy(rig.config.default_depth, "99");
	CHECK(!resolve_check_config(rig.model, &rig.config, err, sizeof err));
	rig_close(&rig);
}

TEST(a_configured_rule_that_the_model_lacks_is_refused_at_the_start) {
	char err[512];
	open_opt();
	strcpy(rig.config.plan_rule, "prefix");
	CHECK(resolve_check_config(rig.model, &rig.config, err, sizeof err));
	strcpy(rig.config.plan_rule, "tuned");
	CHECK(!resolve_check_config(rig.model, &rig.config, err, sizeof err));
	CHECK(strstr(err, "plan-rule \"tuned\""));
	rig_close(&rig);
}

TEST(alternatives_are_at_most_the_vocabulary) {
	open_opt();
	rig.config.top_logprobs = 1000;
	struct job *job = completion("{\"prompt\":[4],\"logprobs\":500}");
	CHECK_INT(job->n_top, rig.model->facts.vocab);
	job_destroy(job);
	rig_close(&rig);
}

TEST(an_answer_lists_a_bounded_number_of_logprobs) {
	open_opt();
	rig.config.logprob_entries = 1000;
	/* 3 tokens of the prompt and 22 more, 2 choices, 1 + 19 numbers each: 1,000. */
	job_destroy(completion("{\"prompt\":[4,5,6],\"logprobs\":19,\"echo\":true,\"n\":2,"
	                       "\"max_tokens\":22}"));
	refused("{\"prompt\":[4,5,6],\"logprobs\":19,\"echo\":true,\"n\":2,\"max_tokens\":23}",
	                ERROR_INVALID_REQUEST, "logprobs");
	rig_close(&rig);
}

TEST(texts_get_the_start_symbol_and_token_ids_nothing) {
	open_opt();
	struct job *job = completion("{\"prompt\":[\"a\",\"b\"]}");
	CHECK_INT(job->n_prompts, 2);
	CHECK_INT(job->prompts[1].tokens[0], 2);
	CHECK(job->prompts[1].starts_with_bos);
	job_destroy(job);
	job = completion("{\"prompt\":[[5,6,7]]}");
	CHECK_INT(job->n_prompts, 1);
	CHECK_INT(job->prompts[0].n_tokens, 3);
	CHECK_INT(job->prompts[0].tokens[0], 5);
	CHECK(!job->prompts[0].starts_with_bos);
	job_destroy(job);
	refused("{\"prompt\":[5,300]}", ERROR_INVALID_REQUEST, "prompt");
	rig_close(&rig);
}

TEST(an_empty_text_starts_from_the_start_symbol) {
	open_opt();
	struct job *job = completion("{\"prompt\":\"\"}");
	CHECK_INT(job->prompts[0].n_tokens, 1);
	CHECK_INT(job->prompts[0].tokens[0], 2);
	job_destroy(job);
	rig_close(&rig);
	/* tiny-gpt2's tokenizer adds nothing, but the model has a start symbol. */
	rig_open(&rig, "tiny-gpt2");
	job = completion("{\"prompt\":\"\"}");
	CHECK_INT(job->prompts[0].n_tokens, 1);
	CHECK_INT(job->prompts[0].tokens[0], rig.model->facts.bos);
	job_destroy(job);
	rig.model->facts.bos = -1;
	refused("{\"prompt\":\"\"}", ERROR_INVALID_REQUEST, "prompt");
	rig_close(&rig);
}

TEST(a_default_length_is_cut_to_the_context_and_an_explicit_one_is_not) {
	open_opt();
	struct job *job = completion("{\"prompt\":[4,5,6,7]}");
	CHECK_INT(job->max_tokens, 60);
	job_destroy(job);
	job = completion("{\"prompt\":[4,5,6,7],\"max_tokens\":60}");
	CHECK_INT(job->max_tokens, 60);
	job_destroy(job);
	struct error e;
	CHECK(!rig_try(&rig, REQUEST_COMPLETION, "{\"prompt\":[4,5,6,7],\"max_tokens\":61}", &e));
	CHECK_INT(e.code, ERROR_CONTEXT_LENGTH_EXCEEDED);
	CHECK(strstr(e.message, "64") && strstr(e.message, "65") && strstr(e.message, "61"));
	rig_close(&rig);
}

TEST(a_text_that_can_never_fit_is_refused_untokenised) {
	open_opt();
	size_t longest = tokenizer_longest(rig.model->tokenizer), n = 16 * 64 * longest + 1;
	char *body = malloc(n + 64), *to = body;
	to = stpcpy(to, "{\"prompt\":\"");
	memset(to, 'x', n);
	strcpy(to + n, "\"}");
	struct error e;
	CHECK(!rig_try(&rig, REQUEST_COMPLETION, body, &e));
	CHECK_INT(e.code, ERROR_CONTEXT_LENGTH_EXCEEDED);
	CHECK(strstr(e.message, "bytes") != NULL);
	free(body);
	rig_close(&rig);
}

TEST(scoring_without_an_answer_needs_echo) {
	open_opt();
	refused("{\"prompt\":\"a\",\"max_tokens\":0}", ERROR_INVALID_REQUEST, "max_tokens");
	struct job *job = completion(
	                "{\"prompt\":\"a\",\"max_tokens\":0,\"echo\":true,\"logprobs\":1}");
	CHECK(job->want_prompt_logprobs);
	CHECK_INT(job->n_top, 1);
	CHECK(job->prompts[0].logprobs && job->prompts[0].tops);
	job_destroy(job);
	rig_close(&rig);
}

TEST(loglikelihood_scores_and_generates_nothing) {
	open_opt();
	struct job *job = rig_job(&rig, REQUEST_LOGLIKELIHOOD, "{\"input\":[\"abc\",\"d\"]}");
	CHECK_INT(job->n_choices, 0);
	CHECK_INT(job->max_tokens, 0);
	CHECK(job->want_prompt_logprobs);
	CHECK_INT(job->n_prompts, 2);
	job_destroy(job);
	rig_close(&rig);
}

TEST(sampling_defaults_come_from_the_model_folder) {
	open_opt();
	rig.model->defaults = (struct generation_defaults){ .temperature = 0.7,
		.top_p = 0.9,
		.repetition_penalty = 1.3,
		.top_k = 40,
		.max_tokens = 17 };
	struct job *job = completion("{\"prompt\":[4]}");
	CHECK(job->sampling.temperature == 0.7f && job->sampling.top_p == 0.9f);
	CHECK(job->sampling.repetition_penalty == 1.3f);
	CHECK_INT(job->sampling.top_k, 40);
	CHECK_INT(job->max_tokens, 17);
	job_destroy(job);
	job = completion("{\"prompt\":[4],\"temperature\":0,\"top_p\":1,\"top_k\":0,"
	                 "\"max_tokens\":3,\"seed\":99}");
	CHECK(job->sampling.temperature == 0 && job->sampling.top_p == 1);
	CHECK_INT(job->sampling.top_k, 0);
	CHECK_INT(job->max_tokens, 3);
	CHECK_INT(job->sampling.seed, 99);
	job_destroy(job);
	rig_close(&rig);
}

TEST(seeds_differ_when_none_is_given) {
	open_opt();
	struct job *a = completion("{\"prompt\":[4]}"), *b = completion("{\"prompt\":[4]}");
	CHECK(a->sampling.seed != b->sampling.seed);
	job_destroy(a);
	job_destroy(b);
	rig_close(&rig);
}

TEST(end_symbols_are_banned_where_they_must_not_come) {
	open_opt();
	struct job *job = completion("{\"prompt\":[4]}");
	CHECK_INT(job->sampling.n_banned, 0);
	job_destroy(job);
	job = completion("{\"prompt\":[4],\"min_tokens\":3}");
	CHECK_INT(job->sampling.n_banned, 1);
	CHECK_INT(job->sampling.banned[0], 2);
	job_destroy(job);
	job = completion("{\"prompt\":[4],\"ignore_eos\":true}");
	CHECK_INT(job->sampling.n_banned, 0);
	job_destroy(job);
	rig_close(&rig);
}

TEST(biases_name_tokens_of_the_model) {
	open_opt();
	struct job *job = completion("{\"prompt\":[4],\"logit_bias\":{\"299\":5}}");
	CHECK_INT(job->sampling.n_bias, 1);
	CHECK_INT(job->sampling.bias[0].token, 299);
	job_destroy(job);
	refused("{\"prompt\":[4],\"logit_bias\":{\"300\":5}}", ERROR_INVALID_REQUEST, "logit_bias");
	rig_close(&rig);
}

TEST(choices_are_prompts_times_best_of) {
	open_opt();
	struct job *job = completion("{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":2,\"best_of\":4}");
	CHECK_INT(job->n_choices, 12);
	CHECK_INT(job->n, 2);
	CHECK_INT(job->best_of, 4);
	job_destroy(job);
	rig_close(&rig);
}

TEST(chat_without_a_template_is_not_supported) {
	open_opt();
	static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
	rig.config.model = strdup("somewhere");
	rig_refused(&rig, REQUEST_CHAT, body, ERROR_NOT_SUPPORTED, "");
	rig_close(&rig);
}

TEST(plain_chat_joins_the_messages) {
	open_opt();
	static const char body[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"be\"},"
	                           "{\"role\":\"user\",\"content\":\"hi\"}]}";
	static const char expected[] = "System: be\nUser: hi\nAssistant:";
	strcpy(rig.config.chat_template, "plain");
	struct job *job = rig_job(&rig, REQUEST_CHAT, body);
	char text[256];
	size_t n = 0;
	for (int i = 1; i < job->prompts[0].n_tokens; i++) {
		size_t len;
		const char *bytes = tokenizer_bytes(
		                rig.model->tokenizer, job->prompts[0].tokens[i], &len);
		memcpy(text + n, bytes, len);
		n += len;
	}
	CHECK_INT(n, strlen(expected));
	CHECK(memcmp(text, expected, n) == 0);
	job_destroy(job);
	rig_close(&rig);
}

TEST(an_expired_deadline_is_refused_at_once) {
	open_opt();
	struct request_limits limits = { .body_bytes = 1000,
		.json_depth = 8,
		.json_values = 100,
		.prompts = 8,
		.n = 8,
		.best_of = 8,
		.stops = 4,
		.stop_bytes = 16,
		.logit_bias = 8,
		.top_logprobs = 5,
		.max_tokens = 1000,
		.deadline_ms = 1000 };
	struct request request;
	struct error e = { 0 };
	CHECK(request_parse(REQUEST_COMPLETION, "{\"prompt\":\"a\"}", 14, &limits, &request, &e));
	request.deadline_expired = true;
	CHECK(!resolve_job(rig.model, &rig.config, &request, &e));
	CHECK_INT(e.code, ERROR_DEADLINE_EXCEEDED);
	rig_close(&rig);
}

TEST(tokenising_needs_no_length) {
	open_opt();
	struct job *job = rig_job(&rig, REQUEST_TOKENIZE,
	                "{\"prompt\":\"abc\",\"add_special_tokens\":false}");
	CHECK(job->prompts[0].n_tokens >= 1 && job->prompts[0].n_tokens <= 3);
	CHECK(job->prompts[0].tokens[0] != 2);
	CHECK_INT(job->n_choices, 0);
	job_destroy(job);
	rig_close(&rig);
}
