/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands beside a model: quality and plans of encoder-decoders by pairs of depths, of encoders
 * by one, and the names of classes. (Decoders' are tested with whole folders.)
 */
#include "model/sidecar.h"

#include "model/labels.h"

#include "tests/check.h"
#include "tests/folder.h"

static char err[400];

static const int pair[STACKS] = { 4, 3 }, encoder_only[STACKS] = { 4, 0 };

static bool plans(const char *json, const int layers[STACKS], struct subnet **ret, size_t *n) {
	err[0] = '\0';
	return plans_parse(json, strlen(json), layers, ret, n, err, sizeof err);
}

static bool quality(
                const char *json, const int layers[STACKS], struct depth_quality **ret, size_t *n) {
	err[0] = '\0';
	return quality_parse(json, strlen(json), layers, ret, n, err, sizeof err);
}

TEST(plans_of_pairs_are_read_in_order) {
	struct subnet *s;
	size_t n;
	CHECK(plans("{\"plans\":[{\"depth\":{\"encoder\":2,\"decoder\":2},\"layers\":{"
	            "\"encoder\":[0,3],\"decoder\":[1,2]}},"
	            "{\"depth\":{\"encoder\":3,\"decoder\":1},\"layers\":{\"encoder\":[0,1,3],"
	            "\"decoder\":[2]}},{\"depth\":{\"encoder\":1,\"decoder\":2},\"layers\":{"
	            "\"encoder\":[1],\"decoder\":[0,2]}}]}",
	                pair, &s, &n));
	CHECK_INT(n, 3);
	CHECK_INT(s[0].stack[STACK_DECODER].depth, 1);
	CHECK_INT(s[0].stack[STACK_ENCODER].layers[2], 3);
	CHECK_INT(s[1].stack[STACK_ENCODER].depth, 1);
	CHECK_INT(s[2].stack[STACK_ENCODER].depth, 2);
	CHECK_INT(s[2].stack[STACK_DECODER].of, 3);
	CHECK_INT(s[2].stack[STACK_DECODER].layers[0], 1);
	free(s);
}

TEST(a_plan_of_one_depth_keeps_the_whole_encoder) {
	struct subnet *s;
	size_t n;
	CHECK(plans("{\"plans\":[{\"depth\":2,\"layers\":[0,2]}]}", pair, &s, &n));
	CHECK_INT(s[0].stack[STACK_ENCODER].depth, 4);
	CHECK_INT(s[0].stack[STACK_ENCODER].layers[3], 3);
	CHECK_INT(s[0].stack[STACK_DECODER].layers[1], 2);
	free(s);
}

TEST(plans_of_an_encoder_are_of_its_stack) {
	struct subnet *s;
	size_t n;
	CHECK(plans("{\"plans\":[{\"depth\":2,\"layers\":[0,3]}]}", encoder_only, &s, &n));
	CHECK_INT(s[0].stack[STACK_ENCODER].layers[1], 3);
	CHECK_INT(s[0].stack[STACK_DECODER].of, 0);
	free(s);
}

TEST(bad_plans_of_pairs_are_refused) {
	static const char *const bad[][2] = {
		{ "{\"depth\":{\"encoder\":2},\"layers\":{}}", "\"decoder\" is missing" },
		{ "{\"depth\":{\"encoder\":5,\"decoder\":1},\"layers\":{}}",
		                "\"encoder\" must be a whole number from 1 to 4" },
		{ "{\"depth\":{\"encoder\":1,\"decoder\":0},\"layers\":{}}", "from 1 to 3" },
		{ "{\"depth\":{\"encoder\":1,\"decoder\":1},\"layers\":[0]}",
		                "\"encoder\" of depth 1 is not a list" },
		{ "{\"depth\":{\"encoder\":1,\"decoder\":1},\"layers\":{\"encoder\":[0],"
		  "\"decoder\":[3]}}",
		                "\"decoder\" of depth 1" },
		{ "{\"depth\":[2,1],\"layers\":{}}", "\"depth\" must be a whole number" },
		{ "{\"depth\":2,\"layers\":[0,2]},{\"depth\":{\"encoder\":4,\"decoder\":2},"
		  "\"layers\":{\"encoder\":[0,1,2,3],\"decoder\":[0,1]}}",
		                "encoder depth 4 with decoder depth 2 is listed twice" },
		{ "0,0,0,0,0,0,0,0,0,0,0,0,0", "more entries than the model has depths" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char json[400];
		struct subnet *s;
		size_t n;
		snprintf(json, sizeof json, "{\"plans\":[%s]}", bad[i][0]);
		CHECK(!plans(json, pair, &s, &n));
		if (!strstr(err, bad[i][1]) || strncmp(err, "plans.json: ", 12) != 0)
			check_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", err,
			                bad[i][1]);
	}
	struct subnet *s;
	size_t n;
	CHECK(!plans("{\"plans\":[{\"depth\":{\"encoder\":1,\"decoder\":1},\"layers\":{}}]}",
	                encoder_only, &s, &n));
}

TEST(quality_of_pairs_is_read_in_order) {
	struct depth_quality *q;
	size_t n;
	CHECK(quality("{\"metric\":\"bleu\",\"depths\":[{\"depth\":3,\"bleu\":31.5},"
	              "{\"depth\":{\"encoder\":2,\"decoder\":3},\"bleu\":30.5},"
	              "{\"depth\":{\"encoder\":4,\"decoder\":1},\"bleu\":20}]}",
	                pair, &q, &n));
	CHECK_INT(n, 3);
	CHECK_INT(q[0].depth, 1);
	CHECK_INT(q[0].encoder_depth, 4);
	CHECK_INT(q[1].encoder_depth, 2);
	CHECK_INT(q[2].encoder_depth, 4);
	CHECK(q[1].value == 30.5 && q[2].value == 31.5);
	CHECK_STR(q[2].metric, "bleu");
	free(q);
}

TEST(quality_of_an_encoder_is_by_its_depth) {
	struct depth_quality *q;
	size_t n;
	CHECK(quality("{\"metric\":\"accuracy\",\"depths\":[{\"depth\":4,\"accuracy\":0.78}]}",
	                encoder_only, &q, &n));
	CHECK_INT(q[0].depth, 4);
	CHECK_INT(q[0].encoder_depth, 0);
	free(q);
	CHECK(!quality("{\"depths\":[{\"depth\":3,\"perplexity\":1},{\"depth\":{\"encoder\":4,"
	               "\"decoder\":3},\"perplexity\":2}]}",
	                pair, &q, &n));
	CHECK(strstr(err, "encoder depth 4 with decoder depth 3 is listed twice") != NULL);
	CHECK(!quality("{\"depths\":[{\"depth\":5,\"perplexity\":1}]}", encoder_only, &q, &n));
	CHECK(strstr(err, "from 1 to 4") != NULL);
}

/* ---- labels ---- */

static bool labels(const char *json, const struct facts *f, char ****ret) {
	err[0] = '\0';
	return labels_parse(json, strlen(json), f, ret, err, sizeof err);
}

static struct facts one_head(enum family family, int classes) {
	struct facts f = { .family = family, .kind = KIND_ENCODER, .n_classifiers = 1 };
	f.classifiers[0].classes = classes;
	return f;
}

TEST(labels_are_in_the_order_of_the_scores) {
	struct facts f = one_head(FAMILY_ROBERTA, 3);
	char ***got;
	CHECK(labels("{\"id2label\":{\"2\":\"neutral\",\"0\":\"contradiction\",\"1\":"
	             "\"entailment\"}}",
	                &f, &got));
	CHECK_STR(got[0][0], "contradiction");
	CHECK_STR(got[0][1], "entailment");
	CHECK_STR(got[0][2], "neutral");
	labels_free(got, &f);
	f = one_head(FAMILY_FATHOM_ENCODER, 2);
	CHECK(labels("{\"classification_heads\":[{\"name\":\"x\",\"labels\":[\"1\",\"0\"]}]}", &f,
	                &got));
	CHECK_STR(got[0][0], "1");
	CHECK_STR(got[0][1], "0");
	labels_free(got, &f);
}

TEST(classes_without_names_are_numbered) {
	struct facts f = one_head(FAMILY_BERT, 2);
	char ***got;
	CHECK(labels("{}", &f, &got));
	CHECK_STR(got[0][0], "LABEL_0");
	CHECK_STR(got[0][1], "LABEL_1");
	labels_free(got, &f);
	f = one_head(FAMILY_FATHOM_ENCODER, 3);
	CHECK(labels("{\"classification_heads\":[{\"name\":\"x\",\"classes\":3}]}", &f, &got));
	CHECK_STR(got[0][2], "LABEL_2");
	labels_free(got, &f);
	f.n_classifiers = 0;
	CHECK(labels("{}", &f, &got));
	CHECK(!got);
	labels_free(NULL, &f);
}

TEST(labels_that_are_no_names_are_refused) {
	struct facts f = one_head(FAMILY_BERT, 2);
	char ***got;
	CHECK(!labels("{\"id2label\":{\"0\":\"a\",\"2\":\"b\"}}", &f, &got));
	CHECK_STR(err, "config.json: \"id2label\" has no label \"1\"");
	CHECK(!labels("{\"id2label\":{\"0\":\"a\",\"1\":1}}", &f, &got));
	CHECK_STR(err, "config.json: label 1 must be a string of 1 to 256 bytes");
	CHECK(!labels("{\"id2label\":{\"0\":\"\",\"1\":\"b\"}}", &f, &got));
	CHECK_STR(err, "config.json: label 0 must be a string of 1 to 256 bytes");
}
