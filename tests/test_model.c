/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a whole folder: its name, our own keys, what tools have measured, and one sentence that
 * starts with the folder for whatever is wrong.
 */
#include "model/model.h"

#include "tests/check.h"
#include "tests/folder.h"

static char err[600];

/* A copy of tests/data/tiny-opt (6 layers, vocabulary of 300), with `more` added to its config. */
static char *copy_folder(const char *more) {
	static const char *const files[] = { "config.json", "model.safetensors", "vocab.json",
		"merges.txt", "tokenizer_config.json", "special_tokens_map.json" };
	char *dir = folder_create();
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		char name[100], text[4096];
		size_t len;
		snprintf(name, sizeof name, "tiny-opt/%s", files[i]);
		char *bytes = check_read_file(check_data(name), &len);
		if (i == 0 && more) {
			char *end = strrchr(bytes, '}');
			CHECK(end != NULL);
			snprintf(text, sizeof text, "%.*s, %s}", (int)(end - bytes), bytes, more);
			folder_write_text(dir, files[i], text);
		} else {
			folder_write(dir, files[i], bytes, len);
		}
		free(bytes);
	}
	return dir;
}

static struct model *open_folder(const char *dir) {
	err[0] = '\0';
	return model_open(dir, &(struct model_options){ .ops = ops_c(), .threads = 1 }, err,
	                sizeof err);
}

static struct model *must_open(const char *dir) {
	struct model *m = open_folder(dir);
	if (!m)
		check_fail(__FILE__, __LINE__, "%s", err);
	return m;
}

/* `file` with this text makes the folder unreadable, for this reason. */
static void check_refused(const char *more, const char *file, const char *text, const char *why) {
	char *dir = copy_folder(more);
	if (file)
		folder_write_text(dir, file, text);
	CHECK(!open_folder(dir));
	CHECK(strncmp(err, dir, strlen(dir)) == 0);
	if (!strstr(err, why) || !is_sentence(err))
		check_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", err, why);
	folder_remove(dir);
}

TEST(a_folder_is_named_after_itself) {
	char *dir = copy_folder(NULL), slashes[4200];
	snprintf(slashes, sizeof slashes, "%s//", dir);
	struct model *m = must_open(slashes);
	CHECK_STR(m->name, strrchr(dir, '/') + 1);
	CHECK_STR(m->note, "");
	CHECK_STR(m->dtype, "f32");
	CHECK_INT(model_layers(m), 6);
	CHECK(!m->quality && !m->tuned);
	CHECK(m->defaults.temperature == 1);
	model_close(m);
	folder_remove(dir);
}

TEST(its_config_may_give_it_another_name_and_a_note) {
	char *dir = copy_folder("\"fathom_name\":\"demo\",\"fathom_note\":\"random\"");
	struct model *m = must_open(dir);
	CHECK_STR(m->name, "demo");
	CHECK_STR(m->note, "random");
	model_close(m);
	folder_remove(dir);
}

TEST(measured_quality_is_read_in_order_of_depth) {
	char *dir = copy_folder(NULL);
	folder_write_text(dir, "quality.json",
	                "{\"data\":\"held out\",\"metric\":\"perplexity\",\"depths\":["
	                "{\"depth\":6,\"layers\":[0,1,2,3,4,5],\"perplexity\":31.25},"
	                "{\"depth\":3,\"layers\":[0,2,4],\"perplexity\":40}]}");
	struct model *m = must_open(dir);
	CHECK_INT(m->n_quality, 2);
	CHECK_INT(m->quality[0].depth, 3);
	CHECK_INT(m->quality[1].depth, 6);
	CHECK(m->quality[0].value == 40 && m->quality[1].value == 31.25);
	CHECK_STR(m->quality[0].metric, "perplexity");
	model_close(m);
	folder_remove(dir);
}

TEST(a_plan_file_gives_the_tuned_depths_and_no_others) {
	char *dir = copy_folder("\"fathom_plan_rule\":\"tuned\"");
	folder_write_text(dir, "plans.json",
	                "{\"plans\":[{\"depth\":3,\"layers\":[0,2,5]},{\"depth\":1,\"layers\":[5]}]"
	                "}");
	struct model *m = must_open(dir);
	struct subnet s;
	CHECK_INT(m->facts.plan_rule, PLAN_RULE_TUNED);
	CHECK_INT(m->n_tuned, 2);
	CHECK(model_subnet(m, PLAN_RULE_TUNED, 3, &s));
	CHECK_INT(s.stack[STACK_DECODER].of, 6);
	CHECK_INT(s.stack[STACK_DECODER].depth, 3);
	CHECK_INT(s.stack[STACK_DECODER].layers[2], 5);
	CHECK_INT(s.stack[STACK_ENCODER].of, 0);
	CHECK(!model_subnet(m, PLAN_RULE_TUNED, 2, &s));
	model_close(m);
	folder_remove(dir);
}

TEST(a_rule_gives_every_depth_from_one_to_all) {
	struct model *m = must_open(check_data("tiny-opt"));
	struct subnet s;
	CHECK(model_subnet(m, PLAN_RULE_EVEN, 3, &s));
	CHECK_INT(s.stack[STACK_DECODER].layers[1], 2);
	CHECK(model_subnet(m, PLAN_RULE_PREFIX, 6, &s));
	CHECK(!model_subnet(m, PLAN_RULE_EVEN, 0, &s) && !model_subnet(m, PLAN_RULE_EVEN, 7, &s));
	CHECK(!model_subnet(m, PLAN_RULE_LAYERS, 3, &s));
	model_close(m);
}

TEST(bytes_of_a_step_grow_by_one_layer_for_each_depth) {
	struct model *m = must_open(check_data("tiny-opt"));
	struct subnet s;
	size_t last = 0;
	const struct matrix *head = &m->weights.output.w;
	for (int depth = 1; depth <= 6; depth++) {
		CHECK(model_subnet(m, PLAN_RULE_EVEN, depth, &s));
		size_t bytes = model_subnet_bytes(m, &s);
		if (depth == 1)
			CHECK_INT(bytes,
			                m->ops->formats[WEIGHTS_F32].matrix_bytes(
			                                head->n_out, head->n_in)
			                                + m->weights.layer_bytes[STACK_DECODER]);
		else
			CHECK_INT(bytes - last, m->weights.layer_bytes[STACK_DECODER]);
		last = bytes;
	}
	/* 12 x 32^2 numbers and their biases, each of 4 bytes: dim 32, ffn 4 x 32 or less. */
	CHECK(m->weights.layer_bytes[STACK_DECODER] >= 4 * 4 * 32 * 32);
	model_close(m);
}

TEST(bad_quality_is_refused) {
	static const char *const bad[][2] = {
		{ "[]", "\"depths\" is not a list" },
		{ "{\"depths\":[3]}", "not a JSON object" },
		{ "{\"depths\":[{\"perplexity\":3}]}", "\"depth\" is missing" },
		{ "{\"depths\":[{\"depth\":3}]}", "\"perplexity\" is missing" },
		{ "{\"depths\":[{\"depth\":7,\"perplexity\":3}]}", "from 1 to 6" },
		{ "{\"depths\":[{\"depth\":0,\"perplexity\":3}]}", "from 1 to 6" },
		{ "{\"depths\":[{\"depth\":2,\"perplexity\":\"3\"}]}", "must be a number" },
		{ "{\"depths\":[{\"depth\":2,\"perplexity\":3},{\"depth\":2,\"perplexity\":3}]}",
		                "depth 2 is listed twice" },
		{ "{\"metric\":\"\",\"depths\":[]}", "\"metric\"" },
		{ "{", "quality.json: not valid JSON" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		check_refused(NULL, "quality.json", bad[i][0], bad[i][1]);
}

TEST(bad_plans_are_refused) {
	static const char *const bad[][2] = {
		{ "{}", "\"plans\" is not a list" },
		{ "{\"plans\":[{\"depth\":2,\"layers\":[0]}]}", "not a list of 2 layers" },
		{ "{\"plans\":[{\"depth\":2,\"layers\":[0,6]}]}", "\"layers\" of depth 2" },
		{ "{\"plans\":[{\"depth\":2,\"layers\":[1,1]}]}", "\"layers\" of depth 2" },
		{ "{\"plans\":[{\"depth\":2,\"layers\":[1,2.0]}]}", "whole numbers" },
		{ "{\"plans\":[{\"depth\":1,\"layers\":[1]},{\"depth\":1,\"layers\":[2]}]}",
		                "listed twice" },
		{ "{\"plans\":[0,0,0,0,0,0,0]}", "more entries" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		check_refused(NULL, "plans.json", bad[i][0], bad[i][1]);
}

TEST(a_tuned_rule_without_plans_is_refused) {
	check_refused("\"fathom_plan_rule\":\"tuned\"", NULL, NULL, "plans.json lists no plan");
}

TEST(a_tokenizer_with_more_ids_than_the_vocabulary_is_refused) {
	char *dir = copy_folder(NULL), path[4200], text[16384];
	size_t len;
	snprintf(path, sizeof path, "%s/vocab.json", dir);
	char *vocab = check_read_file(path, &len);
	char *end = strrchr(vocab, '}');
	CHECK(end != NULL);
	snprintf(text, sizeof text, "%.*s, \"zzz\": 300}", (int)(end - vocab), vocab);
	folder_write_text(dir, "vocab.json", text);
	free(vocab);
	CHECK(!open_folder(dir));
	CHECK(strstr(err, "\"vocab_size\" is 300, but the tokenizer knows ids up to 300"));
	folder_remove(dir);
}

TEST(what_is_missing_or_ill_formed_is_named) {
	check_refused(NULL, "config.json", "{", "config.json: not valid JSON");
	check_refused(NULL, "generation_config.json", "{\"top_p\":3}",
	                "generation_config.json: \"top_p\"");
	check_refused(NULL, "model.safetensors", "{}", "model.safetensors: too short");
	check_refused("\"fathom_name\":\"\"", NULL, NULL, "\"fathom_name\"");
	check_refused("\"fathom_name\":\"a@6\"", NULL, NULL, "without \"@\"");
	CHECK(!open_folder("/nonexistent/folder"));
	CHECK_STR(err,
	                "/nonexistent/folder: config.json: cannot be opened: No such file or "
	                "directory");
}

TEST(a_file_in_place_of_a_folder_names_the_converter) {
	char *dir = folder_create(), path[4200];
	folder_write_text(dir, "checkpoint.pt", "PK");
	snprintf(path, sizeof path, "%s/checkpoint.pt", dir);
	CHECK(!open_folder(path));
	CHECK(strstr(err, ": a file, not a model folder") && strstr(err, "convert_fairseq.py"));
	CHECK(!open_folder(dir));
	CHECK(strstr(err, ": config.json: absent: convert fairseq's checkpoint.pt with"));
	folder_remove(dir);
}

TEST(an_encoder_has_labels_a_mask_and_depths_of_its_own_stack) {
	struct model *m = must_open(check_data("tiny-encoder"));
	struct subnet s;
	CHECK_INT(model_main_stack(m), STACK_ENCODER);
	CHECK_INT(model_layers(m), 5);
	CHECK_STR(m->labels[0][1], "bad");
	CHECK_STR(m->labels[1][2], "entailment");
	CHECK_INT(m->facts.mask, 119);
	CHECK(m->target_tokenizer == m->tokenizer);
	CHECK(model_subnet(m, PLAN_RULE_EVEN, 2, &s));
	CHECK_INT(s.stack[STACK_ENCODER].layers[1], 2);
	CHECK_INT(s.stack[STACK_DECODER].of, 0);
	model_close(m);
}

TEST(an_encoder_decoder_has_depths_of_both_stacks) {
	struct model *m = must_open(check_data("tiny-mt-pre"));
	struct subnet s, less;
	CHECK_INT(model_main_stack(m), STACK_DECODER);
	CHECK_INT(model_layers(m), 3);
	CHECK(model_subnet(m, PLAN_RULE_EVEN, 2, &s));
	CHECK_INT(s.stack[STACK_ENCODER].depth, 4);
	CHECK_INT(s.stack[STACK_DECODER].depth, 2);
	CHECK(model_subnet_pair(m, PLAN_RULE_EVEN, (int[STACKS]){ 2, 1 }, &less));
	CHECK_INT(less.stack[STACK_ENCODER].layers[1], 2);
	CHECK(!model_subnet_pair(m, PLAN_RULE_EVEN, (int[STACKS]){ 5, 1 }, &less));
	/* A step of the decoder reads neither the encoder nor what projects its output. */
	const struct matrix *kv = &m->weights.stack[STACK_DECODER].layers[0].cross_kv.w;
	CHECK_INT(model_subnet_bytes(m, &s) - model_subnet_bytes(m, &less),
	                m->weights.layer_bytes[STACK_DECODER]
	                                - m->ops->formats[WEIGHTS_F32].matrix_bytes(
	                                                kv->n_out, kv->n_in));
	model_close(m);
}

TEST(bytes_of_an_adaptive_head_are_those_of_all_its_bands) {
	struct model *m = must_open(check_data("tiny-lm-adaptive"));
	struct subnet s;
	const struct adaptive_weights *a = &m->weights.adaptive;
	CHECK(model_subnet(m, PLAN_RULE_EVEN, 1, &s));
	size_t bytes = m->weights.layer_bytes[STACK_DECODER]
	                + m->ops->formats[WEIGHTS_F32].matrix_bytes(
	                                a->words.w.n_out, a->words.w.n_in)
	                + m->ops->formats[WEIGHTS_F32].matrix_bytes(
	                                a->classes.w.n_out, a->classes.w.n_in);
	for (int b = 0; b + 1 < m->facts.output.n; b++)
		bytes += m->ops->formats[WEIGHTS_F32].matrix_bytes(
		                         a->reduce[b].w.n_out, a->reduce[b].w.n_in)
		                + m->ops->formats[WEIGHTS_F32].matrix_bytes(
		                                a->tail[b].w.n_out, a->tail[b].w.n_in);
	CHECK_INT(model_subnet_bytes(m, &s), bytes);
	model_close(m);
}

TEST(every_small_folder_opens) {
	static const struct {
		const char *name, *dtype;
	} folders[] = { { "tiny-opt", "f32" }, { "tiny-opt-bf16", "bf16" },
		{ "tiny-opt-post", "f16" }, { "tiny-opt-sharded", "f32" }, { "tiny-gpt2", "f32" },
		{ "tiny-gpt2-bare", "f16" }, { "tiny-fathom-nopos", "bf16" },
		{ "tiny-fathom-pre-nofinal", "f32" }, { "tiny-fathom-sin-post", "f32" },
		{ "tiny-lm-adaptive", "f32" }, { "tiny-lm-bands", "f32" },
		{ "tiny-encoder", "f32" }, { "tiny-mt-pre", "f32" }, { "tiny-mt-post", "bf16" } };
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		struct model *m = must_open(check_data(folders[i].name));
		CHECK_STR(m->name, folders[i].name);
		CHECK_STR(m->dtype, folders[i].dtype);
		model_close(m);
	}
}
