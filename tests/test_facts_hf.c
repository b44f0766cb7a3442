/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts of Hugging Face's encoders and encoder-decoders: published configurations with their
 * published parameter counts, what each class computes, and every refusal by name.
 */
#include <math.h>

#include "tests/facts_check.h"

/* google-bert/bert-base-uncased */
static const char bert[] =
                "{\"architectures\":[\"BertForMaskedLM\"],\"attention_probs_dropout_prob\":0.1,"
                "\"gradient_checkpointing\":false,\"hidden_act\":\"gelu\","
                "\"hidden_dropout_prob\":0.1,\"hidden_size\":768,\"initializer_range\":0.02,"
                "\"intermediate_size\":3072,\"layer_norm_eps\":1e-12,"
                "\"max_position_embeddings\":512,\"model_type\":\"bert\","
                "\"num_attention_heads\":12,\"num_hidden_layers\":12,\"pad_token_id\":0,"
                "\"position_embedding_type\":\"absolute\",\"transformers_version\":\"4.6.0\","
                "\"type_vocab_size\":2,\"use_cache\":true,\"vocab_size\":30522}";

/* FacebookAI/roberta-base */
static const char roberta[] =
                "{\"architectures\":[\"RobertaForMaskedLM\"],\"bos_token_id\":0,"
                "\"attention_probs_dropout_prob\":0.1,\"eos_token_id\":2,\"hidden_act\":\"gelu\","
                "\"hidden_dropout_prob\":0.1,\"hidden_size\":768,\"initializer_range\":0.02,"
                "\"intermediate_size\":3072,\"layer_norm_eps\":1e-05,"
                "\"max_position_embeddings\":514,\"model_type\":\"roberta\","
                "\"num_attention_heads\":12,\"num_hidden_layers\":12,\"pad_token_id\":1,"
                "\"type_vocab_size\":1,\"vocab_size\":50265}";

/* facebook/bart-large-cnn */
static const char bart[] =
                "{\"_num_labels\":3,\"activation_dropout\":0.0,\"activation_function\":\"gelu\","
                "\"add_final_layer_norm\":false,\"architectures\":["
                "\"BartForConditionalGeneration\"],\"attention_dropout\":0.0,\"bos_token_id\":0,"
                "\"classif_dropout\":0.0,\"d_model\":1024,\"decoder_attention_heads\":16,"
                "\"decoder_ffn_dim\":4096,\"decoder_layerdrop\":0.0,\"decoder_layers\":12,"
                "\"decoder_start_token_id\":2,\"dropout\":0.1,\"early_stopping\":true,"
                "\"encoder_attention_heads\":16,\"encoder_ffn_dim\":4096,"
                "\"encoder_layerdrop\":0.0,\"encoder_layers\":12,\"eos_token_id\":2,"
                "\"force_bos_token_to_be_generated\":true,\"forced_bos_token_id\":0,"
                "\"forced_eos_token_id\":2,\"is_encoder_decoder\":true,\"length_penalty\":2.0,"
                "\"max_length\":142,\"max_position_embeddings\":1024,\"min_length\":56,"
                "\"model_type\":\"bart\",\"no_repeat_ngram_size\":3,\"normalize_before\":false,"
                "\"num_beams\":4,\"num_hidden_layers\":12,\"output_past\":true,"
                "\"pad_token_id\":1,\"prefix\":\" \",\"scale_embedding\":false,"
                "\"vocab_size\":50264}";

/* facebook/wmt19-en-de */
static const char fsmt[] =
                "{\"activation_dropout\":0.0,\"activation_function\":\"relu\",\"architectures\":["
                "\"FSMTForConditionalGeneration\"],\"attention_dropout\":0.1,\"bos_token_id\":0,"
                "\"d_model\":1024,\"decoder\":{\"bos_token_id\":2,\"model_type\":\"fsmt_decoder\","
                "\"vocab_size\":42024},\"decoder_attention_heads\":16,\"decoder_ffn_dim\":4096,"
                "\"decoder_layerdrop\":0,\"decoder_layers\":6,\"decoder_start_token_id\":2,"
                "\"dropout\":0.2,\"early_stopping\":false,\"encoder_attention_heads\":16,"
                "\"encoder_ffn_dim\":8192,\"encoder_layerdrop\":0,\"encoder_layers\":6,"
                "\"eos_token_id\":2,\"is_encoder_decoder\":true,\"langs\":[\"en\",\"de\"],"
                "\"length_penalty\":1.15,\"max_length\":200,\"max_position_embeddings\":1024,"
                "\"model_type\":\"fsmt\",\"num_beams\":5,\"num_hidden_layers\":6,"
                "\"pad_token_id\":1,\"scale_embedding\":true,\"src_vocab_size\":42024,"
                "\"tgt_vocab_size\":42024,\"tie_word_embeddings\":false}";

/* facebook/m2m100_418M */
static const char m2m[] =
                "{\"activation_dropout\":0.0,\"activation_function\":\"relu\",\"architectures\":["
                "\"M2M100ForConditionalGeneration\"],\"attention_dropout\":0.1,"
                "\"bos_token_id\":0,\"d_model\":1024,\"decoder_attention_heads\":16,"
                "\"decoder_ffn_dim\":4096,\"decoder_layerdrop\":0.05,\"decoder_layers\":12,"
                "\"decoder_start_token_id\":2,\"dropout\":0.1,\"early_stopping\":true,"
                "\"encoder_attention_heads\":16,\"encoder_ffn_dim\":4096,"
                "\"encoder_layerdrop\":0.05,\"encoder_layers\":12,\"eos_token_id\":2,"
                "\"is_encoder_decoder\":true,\"max_length\":200,"
                "\"max_position_embeddings\":1024,\"model_type\":\"m2m_100\",\"num_beams\":5,"
                "\"num_hidden_layers\":12,\"pad_token_id\":1,\"scale_embedding\":true,"
                "\"vocab_size\":128112}";

/* Helsinki-NLP/opus-mt-en-de */
static const char marian[] =
                "{\"activation_dropout\":0.0,\"activation_function\":\"swish\","
                "\"add_bias_logits\":false,\"add_final_layer_norm\":false,\"architectures\":["
                "\"MarianMTModel\"],\"attention_dropout\":0.0,\"bad_words_ids\":[[58100]],"
                "\"bos_token_id\":0,\"classif_dropout\":0.0,\"d_model\":512,"
                "\"decoder_attention_heads\":8,\"decoder_ffn_dim\":2048,\"decoder_layerdrop\":0.0,"
                "\"decoder_layers\":6,\"decoder_start_token_id\":58100,\"dropout\":0.1,"
                "\"encoder_attention_heads\":8,\"encoder_ffn_dim\":2048,"
                "\"encoder_layerdrop\":0.0,\"encoder_layers\":6,\"eos_token_id\":0,"
                "\"is_encoder_decoder\":true,\"max_length\":512,\"max_position_embeddings\":512,"
                "\"model_type\":\"marian\",\"normalize_before\":false,"
                "\"normalize_embedding\":false,\"num_beams\":6,\"num_hidden_layers\":6,"
                "\"pad_token_id\":58100,\"scale_embedding\":true,"
                "\"static_position_embeddings\":true,\"vocab_size\":58101}";

/* ---- encoders ---- */

TEST(bert_base_is_read) {
	struct facts f;
	must_parse(bert, &f);
	const struct stack_facts *s = &f.stack[STACK_ENCODER];
	CHECK_INT(f.family, FAMILY_BERT);
	CHECK_INT(f.kind, KIND_ENCODER);
	CHECK_INT(s->norm, NORM_POST);
	CHECK(s->embedding_norm && !s->final_norm && s->norm_eps == 1e-12f);
	CHECK_INT(s->activation, ACTIVATION_GELU);
	CHECK_INT(s->positions, POSITIONS_LEARNED);
	CHECK_INT(s->position_offset, 0);
	CHECK_INT(s->context, 512);
	CHECK_INT(s->token_types, 2);
	CHECK_INT(s->constant_types, 0);
	CHECK(f.mlm_head && f.tied_output && f.output_bias && f.mean_pooling);
	CHECK_INT(f.n_classifiers, 0);
	CHECK_INT(f.pad, 0);
	CHECK_INT(f.mask, -1);
	/* Published for the masked-language model without pooler. */
	CHECK_INT(parameters(&f, 12, 0), 109514298);
}

TEST(roberta_base_is_read) {
	struct facts f;
	must_parse(roberta, &f);
	const struct stack_facts *s = &f.stack[STACK_ENCODER];
	CHECK_INT(f.family, FAMILY_ROBERTA);
	CHECK_INT(s->position_offset, 2);
	CHECK_INT(s->context, 512);
	CHECK_INT(s->token_types, 0);
	CHECK_INT(s->constant_types, 1);
	CHECK(s->norm_eps == 1e-5f && f.mlm_head);
	CHECK_INT(f.mlm_activation, ACTIVATION_GELU);
	CHECK_INT(parameters(&f, 12, 0), 124697433);
}

TEST(an_architecture_says_which_heads_there_are) {
	struct facts f;
	must_parse(changed(bert, "BertForMaskedLM", "BertModel"), &f);
	CHECK(!f.mlm_head && f.n_classifiers == 0);
	must_parse(changed(bert, "BertForMaskedLM", "BertForPreTraining"), &f);
	CHECK(f.mlm_head);
	must_parse(changed(with(bert, "\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}"),
	                           "BertForMaskedLM", "BertForSequenceClassification"),
	                &f);
	CHECK(!f.mlm_head);
	CHECK_INT(f.n_classifiers, 1);
	CHECK_INT(f.classifiers[0].classes, 3);
	CHECK_INT(f.classifiers[0].activation, ACTIVATION_TANH);
	must_parse(changed(roberta, "RobertaForMaskedLM", "RobertaForSequenceClassification"), &f);
	CHECK_INT(f.classifiers[0].classes, 2);
	must_parse(changed(bert, "\"architectures\":[\"BertForMaskedLM\"],", ""), &f);
	CHECK(!f.mlm_head && f.n_classifiers == 0);
}

TEST(positions_of_roberta_begin_after_its_padding_id) {
	struct facts f;
	must_parse(changed(roberta, "\"pad_token_id\":1", "\"pad_token_id\":4"), &f);
	CHECK_INT(f.stack[STACK_ENCODER].position_offset, 5);
	CHECK_INT(f.stack[STACK_ENCODER].context, 509);
	check_refused(changed(roberta, "514", "2"), "\"max_position_embeddings\" leaves no row");
}

TEST(encoders_that_compute_something_else_are_refused_by_name) {
	static const struct {
		const char *base, *more, *why;
	} cases[] = {
		{ bert, "\"is_decoder\":true", "\"is_decoder\"" },
		{ bert, "\"add_cross_attention\":true", "\"add_cross_attention\"" },
		{ bert, "\"embedding_size\":128", "\"embedding_size\"" },
		{ bert, "\"pruned_heads\":{\"0\":[1]}", "\"pruned_heads\"" },
		{ bert, "\"is_encoder_decoder\":true", "\"is_encoder_decoder\"" },
		{ bert, "\"adapters\":{\"a\":1}", "\"adapters\"" },
		{ roberta, "\"position_embedding_type\":\"relative_key\"", "\"relative_key\"" },
		{ roberta, "\"relative_attention_num_buckets\":32",
		                "\"relative_attention_num_buckets\"" },
		{ roberta, "\"fathom_pooling\":\"max\"", "\"fathom_pooling\"" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_refused(with(cases[i].base, cases[i].more), cases[i].why);
	check_refused(changed(bert, "absolute", "relative_key_query"), "\"relative_key_query\"");
	check_refused(changed(bert, "\"hidden_act\":\"gelu\"", "\"hidden_act\":\"mish\""),
	                "\"hidden_act\" is \"mish\"");
	check_refused(changed(bert, "BertForMaskedLM", "BertForTokenClassification"),
	                "\"BertForTokenClassification\", which of the family bert cannot");
	check_refused(changed(roberta, "\"num_attention_heads\":12", "\"num_attention_heads\":7"),
	                "7 attention heads");
	check_refused(changed(roberta, "\"type_vocab_size\":1", "\"type_vocab_size\":1025"),
	                "\"type_vocab_size\"");
}

TEST(classifiers_of_another_kind_are_refused_by_name) {
	static const char *const cases[][2] = {
		{ "\"problem_type\":\"regression\"", "\"problem_type\" is \"regression\"" },
		{ "\"problem_type\":\"multi_label_classification\"", "\"problem_type\"" },
		{ "\"id2label\":{\"0\":\"score\"}", "a head with one is a regression" },
		{ "\"num_labels\":1", "a head with one is a regression" },
		{ "\"num_labels\":65537", "\"num_labels\"" },
		{ "\"id2label\":[\"a\",\"b\"]", "\"id2label\" is not a JSON object" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_refused(changed(with(bert, cases[i][0]), "BertForMaskedLM",
		                              "BertForSequenceClassification"),
		                cases[i][1]);
}

static bool pooling(const char *json, struct facts *f) {
	err[0] = '\0';
	return facts_parse_pooling(json, strlen(json), f, err, sizeof err);
}

TEST(sentence_transformers_say_how_to_pool) {
	struct facts f;
	must_parse(bert, &f);
	CHECK(pooling("{\"word_embedding_dimension\":384,\"pooling_mode_cls_token\":true,"
	              "\"pooling_mode_mean_tokens\":false,\"pooling_mode_max_tokens\":false}",
	                &f));
	CHECK(!f.mean_pooling);
	CHECK(pooling("{\"pooling_mode_mean_tokens\":true}", &f));
	CHECK(f.mean_pooling);
	CHECK(!pooling("{\"pooling_mode_max_tokens\":true}", &f));
	CHECK(strstr(err, "1_Pooling/config.json: \"pooling_mode_max_tokens\"") == err);
	CHECK(!pooling("{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":true}", &f));
	CHECK(!pooling("{}", &f));
	CHECK(strstr(err, "must pool by either"));
}

/* ---- encoder-decoders ---- */

TEST(bart_large_cnn_is_read) {
	struct facts f;
	must_parse(bart, &f);
	const struct stack_facts *s = &f.stack[STACK_DECODER];
	CHECK_INT(f.kind, KIND_SEQ2SEQ);
	CHECK_INT(s->norm, NORM_POST);
	CHECK(s->embedding_norm && !s->final_norm && s->embed_scale == 1 && s->cross);
	CHECK_INT(s->positions, POSITIONS_LEARNED);
	CHECK_INT(s->position_offset, 2);
	CHECK_INT(s->context, 1024);
	CHECK(f.shared_embeddings && f.tied_output && f.output_bias);
	CHECK_INT(f.decoder_start, 2);
	CHECK_INT(f.forced_bos, 0);
	must_parse(changed(bart, "\"forced_bos_token_id\":0,", ""), &f);
	CHECK_INT(f.forced_bos, 0);
	CHECK_INT(parameters(&f, 12, 12), 406290432);
}

TEST(wmt19_en_de_is_read) {
	struct facts f;
	must_parse(fsmt, &f);
	const struct stack_facts *s = f.stack;
	CHECK_INT(s[STACK_ENCODER].ffn, 8192);
	CHECK_INT(s[STACK_DECODER].ffn, 4096);
	CHECK_INT(s[STACK_ENCODER].vocab, 42024);
	CHECK_INT(s[STACK_ENCODER].norm, NORM_POST);
	CHECK(!s[STACK_ENCODER].embedding_norm && !s[STACK_ENCODER].final_norm);
	CHECK(s[STACK_ENCODER].embed_scale == 32 && s[STACK_DECODER].embed_scale == 32);
	CHECK_INT(s[STACK_ENCODER].positions, POSITIONS_SINUSOIDAL);
	CHECK_INT(s[STACK_ENCODER].position_offset, 2);
	CHECK(f.tied_output && !f.shared_embeddings && !f.output_bias);
	must_parse(changed(fsmt, "\"tie_word_embeddings\":false", "\"tie_word_embeddings\":true"),
	                &f);
	CHECK(f.tied_output && f.shared_embeddings);
}

TEST(m2m100_418m_is_read) {
	struct facts f;
	must_parse(m2m, &f);
	const struct stack_facts *s = &f.stack[STACK_ENCODER];
	CHECK_INT(s->norm, NORM_PRE);
	CHECK(s->final_norm && !s->embedding_norm && s->embed_scale == 32);
	CHECK(s->layerdrop == 0.05f);
	CHECK_INT(s->positions, POSITIONS_SINUSOIDAL);
	CHECK_INT(s->position_offset, 2);
	CHECK_INT(f.forced_bos, -1);
	CHECK(f.shared_embeddings && f.tied_output && !f.output_bias);
	CHECK_INT(parameters(&f, 12, 12), 483905536);
}

TEST(opus_mt_en_de_is_read) {
	struct facts f;
	must_parse(marian, &f);
	const struct stack_facts *s = &f.stack[STACK_DECODER];
	CHECK_INT(s->norm, NORM_POST);
	CHECK(!s->embedding_norm && !s->final_norm && fabs(s->embed_scale - 22.627417) < 1e-6);
	CHECK_INT(s->activation, ACTIVATION_SILU);
	CHECK_INT(s->positions, POSITIONS_SINUSOIDAL_MARIAN);
	CHECK_INT(s->position_offset, 0);
	CHECK_INT(f.decoder_start, 58100);
	CHECK_INT(f.pad, 58100);
	CHECK_INT(f.eos, 0);
	CHECK(f.shared_embeddings && f.output_bias);
	/* Published with its two tables of sinusoids, 512 x 512 each, which are computed. */
	CHECK_INT(parameters(&f, 6, 6), 74410496 - 2 * 512 * 512);
}

TEST(marian_may_have_two_vocabularies) {
	struct facts f;
	must_parse(with(marian,
	                           "\"share_encoder_decoder_embeddings\":false,"
	                           "\"decoder_vocab_size\":60000"),
	                &f);
	CHECK_INT(f.stack[STACK_ENCODER].vocab, 58101);
	CHECK_INT(f.stack[STACK_DECODER].vocab, 60000);
	CHECK_INT(f.vocab, 60000);
	check_refused(with(marian, "\"decoder_vocab_size\":60000"), "a shared embedding needs");
}

TEST(encoder_decoders_that_compute_something_else_are_refused_by_name) {
	static const struct {
		const char *base, *more, *why;
	} cases[] = {
		{ bart, "\"normalize_embedding\":false", "\"normalize_embedding\"" },
		{ bart, "\"static_position_embeddings\":true", "\"static_position_embeddings\"" },
		{ bart, "\"is_decoder\":true", "\"is_decoder\"" },
		{ bart, "\"adaptive_input\":{\"cutoffs\":[5]}", "\"adaptive_input\"" },
		{ m2m, "\"normalize_before\":false", "\"normalize_before\"" },
		{ m2m, "\"add_final_layer_norm\":false", "\"add_final_layer_norm\"" },
		{ m2m, "\"num_experts\":128", "\"num_experts\"" },
		{ m2m, "\"normalize_embedding\":true", "\"normalize_embedding\"" },
		{ fsmt, "\"normalize_before\":true", "\"normalize_before\"" },
		{ fsmt, "\"quantization_config\":{\"bits\":8}", "\"quantization_config\"" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_refused(with(cases[i].base, cases[i].more), cases[i].why);
	check_refused(changed(bart, "\"normalize_before\":false", "\"normalize_before\":true"),
	                "\"normalize_before\" must be false");
	check_refused(changed(bart, "\"add_final_layer_norm\":false",
	                              "\"add_final_layer_norm\":true"),
	                "\"add_final_layer_norm\"");
	check_refused(changed(marian, "\"normalize_embedding\":false",
	                              "\"normalize_embedding\":true"),
	                "\"normalize_embedding\"");
	check_refused(changed(bart, "BartForConditionalGeneration",
	                              "BartForSequenceClassification"),
	                "\"BartForSequenceClassification\", which of the family bart cannot");
	check_refused(changed(marian, "\"d_model\":512", "\"d_model\":511"), "attention heads");
	check_refused(changed(marian, "\"activation_function\":\"swish\"",
	                              "\"activation_function\":\"geglu\""),
	                "\"geglu\"");
	check_refused(changed(m2m, "\"encoder_layers\":12,", ""), "\"encoder_layers\" is missing");
	check_refused(changed(fsmt, "\"src_vocab_size\":42024,", ""),
	                "\"src_vocab_size\" is missing");
	check_refused(changed(bart, "\"forced_bos_token_id\":0", "\"forced_bos_token_id\":50264"),
	                "\"forced_bos_token_id\"");
	check_refused("{\"model_type\":\"mbart\"}", "\"mbart\"");
	check_refused("{\"model_type\":\"t5\"}", "marian");
}

TEST(damaged_configurations_are_refused_with_a_sentence_or_read) {
	const char *const bases[] = { bert, roberta, bart, fsmt, m2m, marian };
	uint64_t state = 5;
	for (int i = 0; i < 6000; i++) {
		const char *base = bases[i % 6];
		struct facts f;
		size_t n;
		unsigned char *bytes =
		                damage((const unsigned char *)base, strlen(base), &state, &n);
		err[0] = '\0';
		if (!facts_parse((const char *)bytes, n, &f, err, sizeof err))
			CHECK(is_sentence(err) && strncmp(err, "config.json: ", 13) == 0);
		free(bytes);
	}
}
