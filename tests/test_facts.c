/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts: real configurations with their published parameter counts, our own format's keys, every
 * refusal by name, generation defaults, and configurations damaged at random.
 */
#include "tests/facts_check.h"

/* facebook/opt-125m */
static const char opt_125m[] =
                "{\"_name_or_path\":\"opt-125m\",\"activation_dropout\":0.0,"
                "\"activation_function\":\"relu\",\"architectures\":[\"OPTForCausalLM\"],"
                "\"attention_dropout\":0.0,\"bos_token_id\":2,\"do_layer_norm_before\":true,"
                "\"dropout\":0.1,\"eos_token_id\":2,\"ffn_dim\":3072,\"hidden_size\":768,"
                "\"init_std\":0.02,\"layerdrop\":0.0,\"max_position_embeddings\":2048,"
                "\"model_type\":\"opt\",\"num_attention_heads\":12,\"num_hidden_layers\":12,"
                "\"pad_token_id\":1,\"prefix\":\"</s>\",\"torch_dtype\":\"float16\","
                "\"use_cache\":true,\"vocab_size\":50272,\"word_embed_proj_dim\":768}";

/* openai-community/gpt2 */
static const char gpt2[] =
                "{\"activation_function\":\"gelu_new\",\"architectures\":[\"GPT2LMHeadModel\"],"
                "\"attn_pdrop\":0.1,\"bos_token_id\":50256,\"embd_pdrop\":0.1,"
                "\"eos_token_id\":50256,\"initializer_range\":0.02,\"layer_norm_epsilon\":1e-05,"
                "\"model_type\":\"gpt2\",\"n_ctx\":1024,\"n_embd\":768,\"n_head\":12,"
                "\"n_layer\":12,\"n_positions\":1024,\"resid_pdrop\":0.1,"
                "\"summary_type\":\"cls_index\",\"task_specific_params\":{\"text-generation\":"
                "{\"do_sample\":true,\"max_length\":50}},\"vocab_size\":50257}";

/* transformer_lm_wiki103's layers over a plain vocabulary */
static const char lm[] = "{\"model_type\":\"fathom_lm\",\"hidden_size\":1024,"
                         "\"num_hidden_layers\":16,\"num_attention_heads\":8,"
                         "\"intermediate_size\":4096,\"vocab_size\":1000,"
                         "\"max_position_embeddings\":512,\"norm\":\"pre\",\"final_norm\":false,"
                         "\"positions\":\"sinusoidal\",\"embed_scale\":32,\"layerdrop\":0.2}";

TEST(opt_125m_is_read) {
	struct facts f;
	CHECK(parse(opt_125m, &f));
	const struct stack_facts *s = &f.stack[STACK_DECODER];
	CHECK_INT(f.family, FAMILY_OPT);
	CHECK_INT(f.stack[STACK_ENCODER].layers, 0);
	CHECK_INT(s->layers, 12);
	CHECK_INT(s->dim, 768);
	CHECK_INT(s->heads, 12);
	CHECK_INT(s->head_dim, 64);
	CHECK_INT(s->ffn, 3072);
	CHECK_INT(s->norm, NORM_PRE);
	CHECK(s->final_norm && !s->embedding_norm && f.tied_output);
	CHECK_INT(s->activation, ACTIVATION_RELU);
	CHECK_INT(s->positions, POSITIONS_LEARNED);
	CHECK_INT(s->position_offset, 2);
	CHECK(s->norm_eps == 1e-5f && s->embed_scale == 1 && s->layerdrop == 0);
	CHECK_INT(f.vocab, 50272);
	CHECK_INT(f.context, 2048);
	CHECK_INT(f.bos, 2);
	CHECK_INT(f.eos, 2);
	CHECK_INT(f.pad, 1);
	CHECK_INT(f.n_eos, 0);
	CHECK_INT(f.plan_rule, PLAN_RULE_EVEN);
}

TEST(gpt2_is_read) {
	struct facts f;
	CHECK(parse(gpt2, &f));
	const struct stack_facts *s = &f.stack[STACK_DECODER];
	CHECK_INT(f.family, FAMILY_GPT2);
	CHECK_INT(s->layers, 12);
	CHECK_INT(s->ffn, 3072);
	CHECK_INT(s->activation, ACTIVATION_GELU_TANH);
	CHECK_INT(s->position_offset, 0);
	CHECK(s->final_norm && s->norm == NORM_PRE && f.tied_output);
	CHECK_INT(f.context, 1024);
	CHECK_INT(f.eos, 50256);
	CHECK_INT(f.pad, -1);
}

TEST(parameters_are_those_that_the_models_are_published_with) {
	struct facts f;
	CHECK(parse(opt_125m, &f));
	CHECK_INT(facts_parameters(&f, (int[STACKS]){ 0, 12 }), 125239296);
	CHECK(parse(gpt2, &f));
	CHECK_INT(facts_parameters(&f, (int[STACKS]){ 0, 12 }), 124439808);
}

TEST(a_layer_of_the_wiki103_shape_has_12596224_parameters) {
	struct facts f;
	CHECK(parse(lm, &f));
	CHECK_INT(facts_parameters(&f, (int[STACKS]){ 0, 16 })
	                                - facts_parameters(&f, (int[STACKS]){ 0, 8 }),
	                8 * 12596224);
	/* Neither sinusoids nor an absent final norm are parameters. */
	CHECK_INT(facts_parameters(&f, (int[STACKS]){ 0, 1 }), 12596224 + 1000 * 1024);
}

TEST(a_separate_output_counts_once_more) {
	struct facts f;
	CHECK(parse(with(gpt2, "\"tie_word_embeddings\":false"), &f));
	CHECK(!f.tied_output);
	CHECK_INT(facts_parameters(&f, (int[STACKS]){ 0, 12 }), 124439808 + 50257 * 768);
}

TEST(post_norm_opt_has_no_final_norm) {
	struct facts f;
	char json[2048];
	snprintf(json, sizeof json, "%s", opt_125m);
	char *key = strstr(json, "\"do_layer_norm_before\":true");
	memcpy(key, "\"do_layer_norm_before\":null", 27);
	CHECK(parse(json, &f));
	CHECK_INT(f.stack[STACK_DECODER].norm, NORM_PRE);
	memcpy(key, "\"do_layer_norm_before\": 0  ", 27);
	check_refused(json, "\"do_layer_norm_before\" must be true or false");
	snprintf(json, sizeof json,
	                "{\"model_type\":\"opt\",\"hidden_size\":8,\"num_hidden_layers\":2,"
	                "\"num_attention_heads\":2,\"ffn_dim\":16,\"vocab_size\":9,"
	                "\"max_position_embeddings\":4,\"do_layer_norm_before\":false}");
	CHECK(parse(json, &f));
	CHECK_INT(f.stack[STACK_DECODER].norm, NORM_POST);
	CHECK(!f.stack[STACK_DECODER].final_norm);
}

TEST(removed_final_norm_of_opt_is_honoured) {
	struct facts f;
	CHECK(parse(with(opt_125m, "\"_remove_final_layer_norm\":true"), &f));
	CHECK(!f.stack[STACK_DECODER].final_norm);
}

TEST(our_own_format_says_everything) {
	struct facts f;
	CHECK(parse(lm, &f));
	const struct stack_facts *s = &f.stack[STACK_DECODER];
	CHECK_INT(f.family, FAMILY_FATHOM_LM);
	CHECK_INT(s->norm, NORM_PRE);
	CHECK(!s->final_norm && !s->embedding_norm);
	CHECK_INT(s->positions, POSITIONS_SINUSOIDAL);
	CHECK_INT(s->position_offset, 2);
	CHECK_INT(s->head_dim, 128);
	CHECK(s->embed_scale == 32 && s->layerdrop == 0.2f);
	CHECK(parse("{\"model_type\":\"fathom_lm\",\"hidden_size\":8,\"num_hidden_layers\":3,"
	            "\"num_attention_heads\":2,\"intermediate_size\":12,\"vocab_size\":9,"
	            "\"max_position_embeddings\":7,\"norm\":\"post\",\"embedding_norm\":true,"
	            "\"positions\":\"none\",\"position_offset\":0,\"layer_norm_eps\":1e-12,"
	            "\"activation_function\":\"gelu\",\"tie_word_embeddings\":false,"
	            "\"fathom_plan_rule\":\"ends\",\"eos_token_id\":[3,4,3,5]}",
	                &f));
	CHECK_INT(s->norm, NORM_POST);
	CHECK(!s->final_norm && s->embedding_norm && !f.tied_output);
	CHECK_INT(s->positions, POSITIONS_NONE);
	CHECK_INT(s->activation, ACTIVATION_GELU);
	CHECK(s->norm_eps == 1e-12f);
	CHECK_INT(f.plan_rule, PLAN_RULE_ENDS);
	CHECK_INT(f.bos, -1);
	CHECK_INT(f.eos, 3);
	CHECK_INT(f.n_eos, 2);
	CHECK_INT(f.eos_ids[0], 4);
	CHECK_INT(f.eos_ids[1], 5);
}

TEST(every_name_of_an_activation_is_known) {
	static const struct {
		const char *name;
		enum activation activation;
	} names[] = { { "relu", ACTIVATION_RELU }, { "gelu", ACTIVATION_GELU },
		{ "gelu_python", ACTIVATION_GELU }, { "gelu_python_tanh", ACTIVATION_GELU_TANH },
		{ "gelu_tanh", ACTIVATION_GELU_TANH }, { "gelu_new", ACTIVATION_GELU_TANH },
		{ "gelu_fast", ACTIVATION_GELU_TANH }, { "gelu_accurate", ACTIVATION_GELU_TANH },
		{ "gelu_pytorch_tanh", ACTIVATION_GELU_TANH }, { "swish", ACTIVATION_SILU },
		{ "silu", ACTIVATION_SILU }, { "tanh", ACTIVATION_TANH } };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct facts f;
		char more[64];
		snprintf(more, sizeof more, "\"activation_function\":\"%s\"", names[i].name);
		CHECK(parse(with(lm, more), &f));
		CHECK_INT(f.stack[STACK_DECODER].activation, names[i].activation);
	}
	check_refused(with(lm, "\"activation_function\":\"mish\""), "\"mish\"");
}

TEST(an_unknown_architecture_is_refused_by_name) {
	check_refused("{\"model_type\":\"llama\"}", "\"model_type\" is \"llama\"");
	check_refused("{\"architectures\":[\"T5Model\"]}", "\"T5Model\"");
	check_refused("{\"model_type\":\"opt\",\"architectures\":[\"OPTForSequenceClassification\"]"
	              "}",
	                "\"OPTForSequenceClassification\"");
	check_refused("{}", "\"model_type\" is missing");
	check_refused("[]", "not a JSON object");
	check_refused("", "not valid JSON");
	check_refused("{\"model_type\":3}", "\"model_type\" must be a string");
}

TEST(the_architecture_alone_is_enough) {
	struct facts f;
	CHECK(parse("{\"architectures\":[\"GPT2Model\"],\"n_embd\":8,\"n_layer\":1,\"n_head\":1,"
	            "\"vocab_size\":5,\"n_ctx\":4}",
	                &f));
	CHECK_INT(f.family, FAMILY_GPT2);
	CHECK_INT(f.context, 4);
}

TEST(options_that_the_engine_does_not_compute_are_refused_by_name) {
	static const struct {
		const char *base, *more, *why;
	} cases[] = {
		{ opt_125m, "\"enable_bias\":false", "\"enable_bias\" must be true" },
		{ opt_125m, "\"layer_norm_elementwise_affine\":false",
		                "\"layer_norm_elementwise_affine\"" },
		{ opt_125m, "\"quantization_config\":{\"bits\":4}", "\"quantization_config\"" },
		{ gpt2, "\"scale_attn_weights\":false", "\"scale_attn_weights\"" },
		{ gpt2, "\"scale_attn_by_inverse_layer_idx\":true",
		                "\"scale_attn_by_inverse_layer_idx\"" },
		{ gpt2, "\"add_cross_attention\":true", "\"add_cross_attention\"" },
		{ lm, "\"sliding_window\":128", "\"sliding_window\"" },
		{ lm, "\"rope_theta\":10000.0", "\"rope_theta\"" },
		{ lm, "\"alibi\":true", "\"alibi\"" },
		{ lm, "\"num_key_value_heads\":2", "\"num_key_value_heads\"" },
		{ lm, "\"head_dim\":64", "\"head_dim\"" },
		{ lm, "\"fathom_plan_rule\":\"best\"", "\"fathom_plan_rule\"" },
		{ lm, "\"fathom_plan_rule\":\"layers\"", "\"fathom_plan_rule\"" },
		{ lm, "\"embedding_norm\":1", "\"embedding_norm\" must be true or false" },
		{ lm, "\"bos_token_id\":1000", "\"bos_token_id\" must be a whole number from -1" },
		{ lm, "\"eos_token_id\":[1000]", "\"eos_token_id\"" },
		{ lm, "\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10]", "more than 9 end symbols" },
		{ lm, "\"layer_norm_eps\":true", "\"layer_norm_eps\" must be a number" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_refused(with(cases[i].base, cases[i].more), cases[i].why);
}

TEST(options_that_change_nothing_are_accepted) {
	struct facts f;
	CHECK(parse(with(gpt2,
	                            "\"reorder_and_upcast_attn\":true,\"alibi\":false,"
	                            "\"sliding_window\":null,\"is_encoder_decoder\":false,"
	                            "\"pruned_heads\":{},\"n_inner\":null,\"pad_token_id\":50257"),
	                &f));
	CHECK_INT(f.stack[STACK_DECODER].ffn, 3072);
	CHECK_INT(f.pad, -1);
}

TEST(symbols_that_a_small_gpt2_has_from_its_class_alone_are_none) {
	struct facts f;
	struct generation_defaults d;
	const char *generation = "{\"bos_token_id\":50256,\"eos_token_id\":50256}";
	const char *small = "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":1,"
	                    "\"vocab_size\":5000,\"n_ctx\":4,\"bos_token_id\":50256,"
	                    "\"eos_token_id\":50256}";
	CHECK(parse(small, &f));
	CHECK_INT(f.bos, -1);
	CHECK_INT(f.eos, -1);
	CHECK(facts_parse_generation(generation, strlen(generation), &f, &d, err, sizeof err));
	CHECK_INT(f.eos, -1);
}

TEST(projected_embeddings_are_refused_by_name) {
	check_refused("{\"model_type\":\"opt\",\"hidden_size\":1024,\"num_hidden_layers\":24,"
	              "\"num_attention_heads\":16,\"ffn_dim\":4096,\"vocab_size\":50272,"
	              "\"max_position_embeddings\":2048,\"do_layer_norm_before\":false,"
	              "\"word_embed_proj_dim\":512}",
	                "\"word_embed_proj_dim\"");
}

TEST(absurd_counts_are_refused_by_name) {
	static const struct {
		const char *key;
		const char *bad[6];
	} cases[] = {
		{ "hidden_size", { "0", "65537", "-8", "8.0", "\"8\"", "1e3" } },
		{ "num_hidden_layers", { "0", "257", "true", "9223372036854775807", "-1", "[]" } },
		{ "num_attention_heads", { "0", "3", "5", "65537", "false", "{}" } },
		{ "intermediate_size", { "0", "262145", "-1", "1.5", "null", "true" } },
		{ "vocab_size", { "0", "4194305", "-1", "\"x\"", "null", "1e9" } },
		{ "max_position_embeddings", { "0", "1048577", "-1", "[1]", "null", "0.5" } },
	};
	const size_t n = sizeof cases / sizeof *cases;
	for (size_t c = 0; c < n; c++) {
		for (int b = 0; b < 6; b++) {
			char json[512] = "{\"model_type\":\"fathom_lm\"";
			for (size_t k = 0; k < n; k++) {
				size_t used = strlen(json);
				snprintf(json + used, sizeof json - used, ",\"%s\":%s",
				                cases[k].key, k == c ? cases[c].bad[b] : "8");
			}
			strcat(json, "}");
			check_refused(json, c == 2 && b > 0 && b < 3 ? "heads" : cases[c].key);
		}
	}
}

TEST(sinusoids_over_a_gibibyte_are_refused) {
	check_refused("{\"model_type\":\"fathom_lm\",\"hidden_size\":65536,\"num_hidden_layers\":1,"
	              "\"num_attention_heads\":1,\"intermediate_size\":1,\"vocab_size\":1,"
	              "\"max_position_embeddings\":1048576,\"positions\":\"sinusoidal\"}",
	                "\"max_position_embeddings\"");
}

TEST(a_key_given_twice_is_refused) {
	check_refused(with(gpt2, "\"n_layer\":6"), "duplicate");
}

/* ---- generation_config.json ---- */

static bool generation(const char *json, struct facts *facts, struct generation_defaults *d) {
	return facts_parse_generation(json, json ? strlen(json) : 0, facts, d, err, sizeof err);
}

TEST(without_a_generation_config_defaults_are_those_of_openai) {
	struct facts f;
	struct generation_defaults d;
	CHECK(parse(gpt2, &f));
	for (int i = 0; i < 2; i++) {
		CHECK(generation(i ? "{}" : NULL, &f, &d));
		CHECK(d.temperature == 1 && d.top_p == 1 && d.repetition_penalty == 1);
		CHECK(d.top_k == 0 && d.max_tokens == 0);
	}
}

TEST(a_generation_config_gives_sampling_and_end_symbols) {
	struct facts f;
	struct generation_defaults d;
	CHECK(parse(gpt2, &f));
	CHECK(generation("{\"_from_model_config\":true,\"do_sample\":true,\"temperature\":0.8,"
	                 "\"top_p\":0.9,\"top_k\":40,\"repetition_penalty\":1.1,"
	                 "\"max_new_tokens\":64,\"eos_token_id\":[50256,13,198]}",
	                &f, &d));
	CHECK(d.temperature == 0.8 && d.top_p == 0.9 && d.repetition_penalty == 1.1);
	CHECK_INT(d.top_k, 40);
	CHECK_INT(d.max_tokens, 64);
	CHECK_INT(f.eos, 50256);
	CHECK_INT(f.n_eos, 2);
	CHECK_INT(f.eos_ids[0], 13);
	CHECK_INT(f.eos_ids[1], 198);
}

TEST(do_sample_false_means_temperature_zero) {
	struct facts f;
	struct generation_defaults d;
	CHECK(parse(gpt2, &f));
	CHECK(generation("{\"do_sample\":false,\"temperature\":0.7}", &f, &d));
	CHECK(d.temperature == 0);
}

TEST(a_bad_generation_config_is_refused_by_key) {
	static const char *const bad[][2] = { { "{\"temperature\":-1}", "\"temperature\"" },
		{ "{\"top_p\":0}", "\"top_p\"" }, { "{\"top_k\":1.5}", "\"top_k\"" },
		{ "{\"eos_token_id\":50257}", "\"eos_token_id\"" }, { "[]", "object" } };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct facts f;
		struct generation_defaults d;
		CHECK(parse(gpt2, &f));
		CHECK(!generation(bad[i][0], &f, &d));
		CHECK(strstr(err, bad[i][1]) && strstr(err, "generation_config.json: ") == err);
	}
}

TEST(damaged_configurations_are_refused_with_a_sentence_or_read) {
	const char *const bases[] = { opt_125m, gpt2, lm };
	uint64_t state = 2;
	for (int i = 0; i < 6000; i++) {
		const char *base = bases[i % 3];
		struct facts f;
		size_t n;
		unsigned char *bytes =
		                damage((const unsigned char *)base, strlen(base), &state, &n);
		err[0] = '\0';
		if (facts_parse((const char *)bytes, n, &f, err, sizeof err)) {
			const struct stack_facts *s = &f.stack[STACK_DECODER];
			CHECK(s->layers >= 1 && s->layers <= MAX_LAYERS && s->heads >= 1);
			CHECK_INT(s->head_dim * s->heads, s->dim);
		} else {
			CHECK(is_sentence(err) && strncmp(err, "config.json: ", 13) == 0);
		}
		free(bytes);
	}
}
