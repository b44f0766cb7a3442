/* SPDX-License-Identifier: Apache-2.0 */
/* The depth fields of requests to a model with two stacks, 12 encoder and 6 decoder layers, and to
 * an encoder alone of 8. */
#include "server/resolve.h"
#include "server/resolve_parts.h"
#include "server/submit.h"
#include "tests/check.h"

static struct config config;

static void open_config(void) {
	char err[256], *nothing[] = { NULL };
	bool help;
	if (!config_load(&config, 0, nothing, nothing, &help, NULL, 0, err, sizeof err))
		check_fail(__FILE__, __LINE__, "config: %s", err);
}

static struct model two_stacks(void) {
	return (struct model){ .name = "wmt",
		.facts = { .kind = KIND_SEQ2SEQ, .stack = { { .layers = 12 }, { .layers = 6 } } } };
}

static struct model encoder_alone(void) {
	return (struct model){ .name = "roberta",
		.facts = { .kind = KIND_ENCODER, .stack[STACK_ENCODER].layers = 8 } };
}

/* `fields` of a request as they stand in its body. */
static bool try_policy(const struct model *model, const char *fields, struct depth_policy *policy,
                struct error *e) {
	struct request_limits limits;
	struct request request;
	char body[512];
	snprintf(body, sizeof body, "{\"prompt\":\"a\"%s%s}", *fields ? "," : "", fields);
	submit_limits(&config, &limits);
	*e = (struct error){ 0 };
	if (!request_parse(REQUEST_COMPLETION, body, strlen(body), &limits, &request, e))
		return false;
	bool ok = resolve_policy(model, &config, &request, policy, e);
	request_finish(&request);
	return ok;
}

static struct depth_policy policy_of(const struct model *model, const char *fields) {
	struct depth_policy policy;
	struct error e;
	if (!try_policy(model, fields, &policy, &e))
		check_fail(__FILE__, __LINE__, "%s: %s", fields, e.message);
	return policy;
}

static void check_depths(const struct model *model, const char *fields, int encoder, int decoder,
                const char *requested) {
	struct depth_policy policy = policy_of(model, fields);
	CHECK(!policy.automatic);
	CHECK_INT(policy.subnet.stack[STACK_ENCODER].depth, encoder);
	CHECK_INT(policy.subnet.stack[STACK_DECODER].depth, decoder);
	CHECK_STR(policy.requested, requested);
}

static void check_refused(const struct model *model, const char *fields, const char *param,
                const char *sentence) {
	struct depth_policy policy;
	struct error e;
	CHECK(!try_policy(model, fields, &policy, &e));
	CHECK_STR(e.param, param);
	if (!strstr(e.message, sentence))
		check_fail(__FILE__, __LINE__, "%s: %s", fields, e.message);
}

TEST(a_number_is_the_decoders_with_the_whole_encoder) {
	struct model model = two_stacks();
	open_config();
	check_depths(&model, "\"depth\":2", 12, 2, "2");
	check_depths(&model, "", 12, 6, "full");
	check_depths(&model, "\"depth\":\"full\"", 12, 6, "full");
	check_depths(&model, "\"model\":\"wmt@3\"", 12, 3, "3");
	config_finish(&config);
}

TEST(a_pair_sets_both) {
	struct model model = two_stacks();
	open_config();
	check_depths(&model, "\"depth\":{\"encoder\":4,\"decoder\":2}", 4, 2, "4,2");
	struct depth_policy policy = policy_of(&model, "\"depth\":{\"encoder\":4,\"decoder\":2}");
	static const int16_t encoder[] = { 0, 3, 6, 9 }, decoder[] = { 0, 3 };
	CHECK_INT(policy.subnet.stack[STACK_ENCODER].of, 12);
	CHECK(memcmp(policy.subnet.stack[STACK_ENCODER].layers, encoder, sizeof encoder) == 0);
	CHECK(memcmp(policy.subnet.stack[STACK_DECODER].layers, decoder, sizeof decoder) == 0);
	CHECK_INT(policy.reason, REASON_EXPLICIT);
	config_finish(&config);
}

TEST(a_tier_is_a_part_of_both) {
	struct model model = two_stacks();
	open_config();
	/* A quarter of 6 is 1.5: two layers. */
	check_depths(&model, "\"depth\":\"fast\"", 3, 2, "fast");
	check_depths(&model, "\"depth\":\"balanced\"", 6, 3, "balanced");
	check_depths(&model, "\"model\":\"wmt@fast\"", 3, 2, "fast");
	/* A number in the config is the decoder's. */
	config.tiers[0] = (struct config_tier){ "quick", 0, 2 };
	config.n_tiers = 1;
	check_depths(&model, "\"depth\":\"quick\"", 12, 2, "quick");
	strcpy(config.default_depth, "balanced");
	check_depths(&model, "", 6, 3, "balanced");
	config_finish(&config);
}

TEST(layers_are_listed_for_both) {
	struct model model = two_stacks();
	open_config();
	struct depth_policy policy =
	                policy_of(&model, "\"layers\":{\"encoder\":[0,5,11],\"decoder\":[1,2]}");
	static const int16_t encoder[] = { 0, 5, 11 }, decoder[] = { 1, 2 };
	CHECK_INT(policy.rule, PLAN_RULE_LAYERS);
	CHECK_INT(policy.subnet.stack[STACK_ENCODER].depth, 3);
	CHECK(memcmp(policy.subnet.stack[STACK_ENCODER].layers, encoder, sizeof encoder) == 0);
	CHECK_INT(policy.subnet.stack[STACK_DECODER].depth, 2);
	CHECK(memcmp(policy.subnet.stack[STACK_DECODER].layers, decoder, sizeof decoder) == 0);
	/* One list is the decoder's. */
	policy = policy_of(&model, "\"layers\":[0,5]");
	CHECK_INT(policy.subnet.stack[STACK_ENCODER].depth, 12);
	CHECK_INT(policy.subnet.stack[STACK_DECODER].depth, 2);
	check_refused(&model, "\"layers\":{\"encoder\":[0,12],\"decoder\":[1]}", "layers.encoder",
	                "layers.encoder");
	check_refused(&model, "\"layers\":[0,6]", "layers.decoder", "layers.decoder");
	config_finish(&config);
}

TEST(errors_name_the_stack) {
	struct model model = two_stacks();
	open_config();
	check_refused(&model, "\"depth\":{\"encoder\":13,\"decoder\":6}", "depth.encoder",
	                "depth.encoder must be 1..12");
	check_refused(&model, "\"depth\":{\"encoder\":12,\"decoder\":7}", "depth.decoder",
	                "depth.decoder must be 1..6");
	check_refused(&model, "\"depth\":7", "depth", "decoder has 6 layers");
	check_refused(&model, "\"max_depth\":{\"encoder\":20,\"decoder\":6}", "max_depth.encoder",
	                "max_depth.encoder must be 1..12");
	check_refused(&model, "\"min_depth\":7", "min_depth", "decoder has 6 layers");
	check_refused(&model,
	                "\"depth\":{\"encoder\":4,\"decoder\":2},"
	                "\"min_depth\":{\"encoder\":6,\"decoder\":1}",
	                "depth", "depth.encoder is 4, outside of");
	config_finish(&config);
}

TEST(bounds_hold_for_each_stack) {
	struct model model = two_stacks();
	open_config();
	struct depth_policy policy = policy_of(&model, "\"depth\":\"auto\"");
	CHECK(policy.automatic);
	CHECK_INT(policy.min_depth[STACK_ENCODER], 1);
	CHECK_INT(policy.max_depth[STACK_ENCODER], 12);
	CHECK_INT(policy.min_depth[STACK_DECODER], 1);
	CHECK_INT(policy.max_depth[STACK_DECODER], 6);
	/* A number bounds the decoder. */
	policy = policy_of(&model, "\"latency_budget_ms\":50,\"min_depth\":2,\"max_depth\":4");
	CHECK(policy.automatic);
	CHECK_INT(policy.min_depth[STACK_ENCODER], 1);
	CHECK_INT(policy.max_depth[STACK_ENCODER], 12);
	CHECK_INT(policy.min_depth[STACK_DECODER], 2);
	CHECK_INT(policy.max_depth[STACK_DECODER], 4);
	policy = policy_of(
	                &model, "\"depth\":\"auto\",\"min_depth\":{\"encoder\":6,\"decoder\":2}");
	CHECK_INT(policy.min_depth[STACK_ENCODER], 6);
	CHECK_INT(policy.min_depth[STACK_DECODER], 2);
	/* They bound the default, too. */
	check_depths(&model, "\"max_depth\":{\"encoder\":6,\"decoder\":4}", 6, 4, "full");
	config_finish(&config);
}

TEST(a_tuned_pair_must_be_listed) {
	struct subnet tuned = { .stack = { { .of = 12, .depth = 2, .layers = { 3, 7 } },
		                                { .of = 6, .depth = 1, .layers = { 5 } } } };
	struct model model = two_stacks();
	open_config();
	model.tuned = &tuned;
	model.n_tuned = 1;
	struct depth_policy policy = policy_of(
	                &model, "\"plan_rule\":\"tuned\",\"depth\":{\"encoder\":2,\"decoder\":1}");
	CHECK_INT(policy.subnet.stack[STACK_ENCODER].layers[1], 7);
	CHECK_INT(policy.subnet.stack[STACK_DECODER].layers[0], 5);
	check_depths(&model, "\"plan_rule\":\"tuned\"", 12, 6, "full");
	check_refused(&model, "\"plan_rule\":\"tuned\",\"depth\":1", "depth", "they have 2/1");
	check_refused(&model,
	                "\"plan_rule\":\"tuned\",\"depth\":\"auto\","
	                "\"min_depth\":{\"encoder\":3,\"decoder\":1},"
	                "\"max_depth\":{\"encoder\":11,\"decoder\":6}",
	                "min_depth", "no pair");
	config_finish(&config);
}

TEST(an_encoder_alone_takes_numbers_and_lists) {
	struct model model = encoder_alone();
	open_config();
	check_depths(&model, "\"depth\":2", 2, 0, "2");
	check_depths(&model, "", 8, 0, "full");
	check_depths(&model, "\"depth\":\"fast\"", 2, 0, "fast");
	check_depths(&model, "\"model\":\"roberta@3\"", 3, 0, "3");
	check_depths(&model, "\"layers\":[1,6]", 2, 0, "layers");
	check_refused(&model, "\"depth\":9", "depth", "8 layers");
	check_refused(&model, "\"layers\":[1,8]", "layers", "In layers");
	check_refused(&model, "\"depth\":{\"encoder\":2,\"decoder\":1}", "depth", "encoder alone");
	struct depth_policy policy = policy_of(&model, "\"depth\":\"auto\",\"max_depth\":4");
	CHECK_INT(policy.max_depth[STACK_ENCODER], 4);
	CHECK_INT(policy.max_depth[STACK_DECODER], 0);
	config_finish(&config);
}
