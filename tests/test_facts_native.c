/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts of our own three formats: adaptive vocabularies, encoders and encoder-decoders. The
 * parameter counts are those that fairseq printed for the same shapes.
 */
#include "tests/facts_check.h"

/* transformer_lm_wiki103 */
static const char wiki103[] =
                "{\"model_type\":\"fathom_lm\",\"hidden_size\":1024,\"num_hidden_layers\":16,"
                "\"num_attention_heads\":8,\"intermediate_size\":4096,\"vocab_size\":267744,"
                "\"max_position_embeddings\":512,\"norm\":\"pre\",\"final_norm\":false,"
                "\"positions\":\"sinusoidal\",\"embed_scale\":32,\"layerdrop\":0.2,"
                "\"tie_word_embeddings\":true,"
                "\"adaptive_input\":{\"cutoffs\":[20000,60000],\"factor\":4},"
                "\"adaptive_softmax\":{\"cutoffs\":[20000,60000],\"factor\":4,"
                "\"tie_weights\":true,\"tie_projections\":true}}";

/* clang-format off */
#define SIDE(layers) \
	"{\"num_hidden_layers\":" #layers ",\"hidden_size\":64,\"num_attention_heads\":4," \
	"\"intermediate_size\":256,\"norm\":\"pre\",\"positions\":\"sinusoidal\"," \
	"\"position_offset\":2,\"max_position_embeddings\":1024,\"embed_scale\":8}"

static const char seq2seq[] =
	"{\"model_type\":\"fathom_seq2seq\",\"vocab_size\":4056,\"source_vocab_size\":4056,"
	"\"encoder\":" SIDE(12) ",\"decoder\":" SIDE(6) ",\"share_embeddings\":true,"
	"\"eos_token_id\":2,\"pad_token_id\":1}";
/* clang-format on */

static const char encoder[] =
                "{\"model_type\":\"fathom_encoder\",\"vocab_size\":12433,\"encoder\":{"
                "\"num_hidden_layers\":12,\"hidden_size\":64,\"num_attention_heads\":4,"
                "\"intermediate_size\":256,\"norm\":\"post\",\"embedding_norm\":true,"
                "\"activation_function\":\"gelu\",\"max_position_embeddings\":512,"
                "\"layerdrop\":0.2},\"mlm_head\":true,\"classification_heads\":[{\"name\":"
                "\"sentence_classification_head\",\"labels\":[\"1\",\"0\"]}],"
                "\"bos_token_id\":0,\"eos_token_id\":2,\"pad_token_id\":1,"
                "\"mask_token_id\":12432}";

/* ---- adaptive vocabularies ---- */

TEST(the_wiki103_model_has_246933504_parameters_and_146163712_at_half_depth) {
	struct facts f;
	must_parse(wiki103, &f);
	CHECK_INT(parameters(&f, 0, 16), 246933504);
	CHECK_INT(parameters(&f, 0, 8), 146163712);
}

TEST(bands_narrow_by_the_factor_and_end_with_the_vocabulary) {
	struct facts f;
	must_parse(wiki103, &f);
	static const int end[] = { 20000, 60000, 267744 }, dim[] = { 1024, 256, 64 };
	CHECK_INT(f.kind, KIND_LM);
	CHECK_INT(f.input.n, 3);
	CHECK_INT(f.output.n, 3);
	for (int b = 0; b < 3; b++) {
		CHECK_INT(f.input.end[b], end[b]);
		CHECK_INT(f.output.dim[b], dim[b]);
	}
	CHECK(f.tied_bands && f.tied_projections && !f.tied_output);
}

TEST(a_cutoff_at_the_vocabulary_adds_no_band_and_a_broken_factor_rounds_down) {
	struct facts f;
	must_parse("{\"model_type\":\"fathom_lm\",\"hidden_size\":50,\"num_hidden_layers\":1,"
	           "\"num_attention_heads\":5,\"intermediate_size\":8,\"vocab_size\":900,"
	           "\"max_position_embeddings\":8,\"adaptive_softmax\":{\"cutoffs\":[100,300,900],"
	           "\"factor\":2.5}}",
	                &f);
	CHECK_INT(f.output.n, 3);
	CHECK_INT(f.output.end[2], 900);
	CHECK_INT(f.output.dim[1], 20);
	CHECK_INT(f.output.dim[2], 8);
	CHECK(!f.tied_bands && !f.tied_projections && f.input.n == 0);
	/* Embedding, head, two tails with projections, class projection; learned positions, final norm. */
	CHECK_INT(parameters(&f, 0, 0),
	                900 * 50 + 100 * 50 + 2 * 50 + 20 * 50 + 200 * 20 + 8 * 50 + 600 * 8
	                                + (2 + 8) * 50 + 2 * 50);
}

TEST(parameters_of_a_small_adaptive_model_are_those_of_fairseq) {
	struct facts f;
	must_parse("{\"model_type\":\"fathom_lm\",\"hidden_size\":64,\"num_hidden_layers\":16,"
	           "\"num_attention_heads\":4,\"intermediate_size\":256,\"vocab_size\":8000,"
	           "\"max_position_embeddings\":128,\"final_norm\":false,"
	           "\"positions\":\"sinusoidal\","
	           "\"adaptive_input\":{\"cutoffs\":[1000,4000],\"factor\":4},"
	           "\"adaptive_softmax\":{\"cutoffs\":[1000,4000],\"factor\":4,"
	           "\"tie_weights\":true,\"tie_projections\":true}}",
	                &f);
	CHECK_INT(parameters(&f, 0, 16), 933248);
	CHECK_INT(parameters(&f, 0, 4), 333440);
	CHECK_INT(parameters(&f, 0, 1), 183488);
}

TEST(bad_bands_are_refused_by_name) {
	static const char *const cases[][2] = {
		{ "{\"cutoffs\":[]}", "\"cutoffs\" is not a list" },
		{ "{\"factor\":4}", "\"cutoffs\" is not a list" },
		{ "{\"cutoffs\":[0]}", "\"cutoffs\" must rise" },
		{ "{\"cutoffs\":[60000,20000]}", "\"cutoffs\" must rise" },
		{ "{\"cutoffs\":[20000,20000]}", "\"cutoffs\" must rise" },
		{ "{\"cutoffs\":[267745]}", "not above the vocabulary of 267744" },
		{ "{\"cutoffs\":[1e4]}", "\"cutoffs\" must rise" },
		{ "{\"cutoffs\":[9223372036854775807]}", "not above the vocabulary" },
		{ "{\"cutoffs\":[1,2,3,4,5,6,7,8]}", "more than 8 bands" },
		{ "{\"cutoffs\":[1,2,3,4,5,6,7,8,9,10,11]}", "more than 8 bands" },
		{ "{\"cutoffs\":[20000,60000],\"factor\":0.5}", "\"factor\" must be a number" },
		{ "{\"cutoffs\":[1,2,3],\"factor\":1024}", "\"factor\" leaves band 2 no width" },
		{ "[20000,60000]", "not a JSON object" },
	};
	static const char *const keys[] = { "adaptive_input", "adaptive_softmax" };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		for (int k = 0; k < 2; k++) {
			char old[80], more[200];
			snprintf(old, sizeof old, "\"%s\":{\"cutoffs\":[20000,60000],\"factor\":4",
			                keys[k]);
			snprintf(more, sizeof more, "\"%s\":%s,\"x\":{\"y\":0", keys[k],
			                cases[i][0]);
			check_refused(changed(wiki103, old, more), cases[i][1]);
			CHECK(strstr(err, keys[k]) != NULL);
		}
	}
}

TEST(ties_of_bands_that_cannot_be_are_refused_by_name) {
	check_refused(changed(wiki103, "60000],\"factor\":4}", "60000],\"factor\":2}"),
	                "\"tie_weights\" needs an \"adaptive_input\" of the same");
	check_refused(changed(wiki103, "\"adaptive_input\":{", "\"other\":{"),
	                "\"tie_weights\" needs an \"adaptive_input\"");
	check_refused(changed(wiki103, "\"tie_weights\":true,", ""),
	                "\"tie_projections\" needs \"tie_weights\"");
	check_refused(changed(wiki103, "\"adaptive_softmax\":{", "\"other\":{"),
	                "\"tie_word_embeddings\" must be false");
	check_refused(changed(wiki103, "\"vocab_size\":267744", "\"vocab_size\":20000"),
	                "not above the vocabulary");
}

/* ---- encoders ---- */

TEST(an_encoder_is_read) {
	struct facts f;
	must_parse(encoder, &f);
	const struct stack_facts *s = &f.stack[STACK_ENCODER];
	CHECK_INT(f.family, FAMILY_FATHOM_ENCODER);
	CHECK_INT(f.kind, KIND_ENCODER);
	CHECK_INT(f.stack[STACK_DECODER].layers, 0);
	CHECK_INT(s->layers, 12);
	CHECK_INT(s->vocab, 12433);
	CHECK_INT(s->context, 512);
	CHECK_INT(f.context, 512);
	CHECK(s->embedding_norm && !s->final_norm && !s->cross && s->layerdrop == 0.2f);
	CHECK(f.mlm_head && f.tied_output && f.output_bias && f.mean_pooling);
	CHECK_INT(f.mlm_activation, ACTIVATION_GELU);
	CHECK_INT(f.n_classifiers, 1);
	CHECK_STR(f.classifiers[0].name, "sentence_classification_head");
	CHECK_INT(f.classifiers[0].classes, 2);
	CHECK_INT(f.classifiers[0].activation, ACTIVATION_TANH);
	CHECK_INT(f.mask, 12432);
	CHECK_INT(f.bos, 0);
	must_parse(with(encoder, "\"fathom_pooling\":\"cls\""), &f);
	CHECK(!f.mean_pooling);
}

TEST(parameters_of_an_encoder_are_those_of_fairseq) {
	struct facts f;
	must_parse(encoder, &f);
	CHECK_INT(parameters(&f, 12, 0), 1449555);
	CHECK_INT(parameters(&f, 6, 0), 1149651);
	CHECK_INT(parameters(&f, 1, 0), 899731);
	must_parse(with(encoder, "\"tie_word_embeddings\":false"), &f);
	CHECK_INT(parameters(&f, 12, 0), 1449555 + 12433 * 64);
}

TEST(bad_encoders_are_refused_by_name) {
	check_refused("{\"model_type\":\"fathom_encoder\",\"vocab_size\":5}",
	                "\"encoder\" is missing");
	check_refused("{\"model_type\":\"fathom_encoder\",\"vocab_size\":5,\"encoder\":[]}",
	                "\"encoder\" is not a JSON object");
	check_refused("{\"model_type\":\"fathom_encoder\",\"vocab_size\":5,\"encoder\":{}}",
	                "config.json: \"encoder\": \"hidden_size\" is missing");
	static const char *const heads[][2] = {
		{ "3", "\"classification_heads\" is not a list" },
		{ "[3]", "not a JSON object" },
		{ "[{\"labels\":[\"a\",\"b\"]}]", "\"name\" of a classification head" },
		{ "[{\"name\":\"x\"}]", "\"classes\" is missing" },
		{ "[{\"name\":\"x\",\"classes\":1}]", "\"classes\" must be a whole number from 2" },
		{ "[{\"name\":\"x\",\"classes\":65537}]", "\"classes\" must be" },
		{ "[{\"name\":\"x\",\"labels\":[\"a\"]}]", "must list 2 to" },
		{ "[{\"name\":\"x\",\"classes\":2,\"activation\":\"swoosh\"}]", "\"swoosh\"" },
		{ "[{\"name\":\"x\",\"classes\":2},{\"name\":\"x\",\"classes\":3}]",
		                "two of one name" },
		{ "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]", "at most 16 heads" },
	};
	for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
		char more[200];
		snprintf(more, sizeof more,
		                "\"classification_heads\":%s,\"x\":[{\"name\":", heads[i][0]);
		check_refused(changed(encoder, "\"classification_heads\":[{\"name\":", more),
		                heads[i][1]);
	}
	check_refused(with(encoder, "\"fathom_pooling\":\"max\""), "\"fathom_pooling\"");
	check_refused(with(encoder, "\"is_encoder_decoder\":true"), "\"is_encoder_decoder\"");
	check_refused(with(encoder, "\"adaptive_input\":{\"cutoffs\":[5]}"), "\"adaptive_input\"");
	check_refused(changed(encoder, "12432}", "12433}"), "\"mask_token_id\"");
	check_refused(changed(encoder, "\"layerdrop\":0.2", "\"rope_theta\":1e4"),
	                "\"encoder\": \"rope_theta\"");
	check_refused(changed(encoder, "\"num_attention_heads\":4", "\"num_attention_heads\":5"),
	                "5 attention heads do not divide");
}

/* ---- encoder-decoders ---- */

TEST(an_encoder_decoder_is_read) {
	struct facts f;
	must_parse(seq2seq, &f);
	CHECK_INT(f.kind, KIND_SEQ2SEQ);
	CHECK_INT(f.stack[STACK_ENCODER].layers, 12);
	CHECK_INT(f.stack[STACK_DECODER].layers, 6);
	CHECK(!f.stack[STACK_ENCODER].cross && f.stack[STACK_DECODER].cross);
	CHECK(f.shared_embeddings && f.tied_output && !f.output_bias);
	CHECK_INT(f.decoder_start, 2);
	CHECK_INT(f.forced_bos, -1);
	CHECK_INT(f.eos, 2);
	CHECK_INT(f.context, 1024);
	CHECK_INT(f.stack[STACK_ENCODER].head_dim, 16);
	must_parse(with(seq2seq, "\"decoder_start_token_id\":5,\"forced_bos_token_id\":7"), &f);
	CHECK_INT(f.decoder_start, 5);
	CHECK_INT(f.forced_bos, 7);
}

TEST(parameters_of_an_encoder_decoder_are_those_of_fairseq) {
	struct facts f;
	must_parse(seq2seq, &f);
	CHECK_INT(parameters(&f, 12, 6), 1260160);
	CHECK_INT(parameters(&f, 6, 6), 960256);
	CHECK_INT(parameters(&f, 6, 3), 760000);
	CHECK_INT(parameters(&f, 3, 2), 543296);
	must_parse(changed(seq2seq, "\"share_embeddings\":true", "\"share_embeddings\":false"), &f);
	CHECK_INT(parameters(&f, 12, 6), 1260160 + 4056 * 64);
	must_parse(with(seq2seq, "\"tie_word_embeddings\":false"), &f);
	CHECK_INT(parameters(&f, 12, 6), 1260160 + 4056 * 64);
}

TEST(bad_encoder_decoders_are_refused_by_name) {
	check_refused("{\"model_type\":\"fathom_seq2seq\",\"vocab_size\":5,\"encoder\":" SIDE(
	                              1) "}",
	                "\"decoder\" is missing");
	check_refused(changed(seq2seq, "\"source_vocab_size\":4056", "\"source_vocab_size\":4057"),
	                "a shared embedding needs vocabularies");
	check_refused(with(seq2seq, "\"decoder_start_token_id\":4056"),
	                "\"decoder_start_token_id\"");
	check_refused(with(seq2seq, "\"decoder_start_token_id\":-1"),
	                "\"decoder_start_token_id\" is missing");
	check_refused(changed(seq2seq, "\"eos_token_id\":2", "\"eos_token_id\":-1"),
	                "\"eos_token_id\" is missing");
	check_refused(changed(seq2seq, "\"hidden_size\":64", "\"hidden_size\":68"),
	                "a shared embedding needs");
	check_refused(changed(seq2seq, "\"num_hidden_layers\":12", "\"num_hidden_layers\":300"),
	                "\"encoder\": \"num_hidden_layers\" must be");
}

/* ---- generation_config.json ---- */

TEST(a_generation_config_gives_beams_and_what_an_answer_starts_with) {
	struct facts f;
	struct generation_defaults d;
	const char *json = "{\"num_beams\":5,\"length_penalty\":0.4,\"max_new_tokens\":200,"
	                   "\"forced_bos_token_id\":9,\"decoder_start_token_id\":4}";
	must_parse(seq2seq, &f);
	CHECK(facts_parse_generation(json, strlen(json), &f, &d, err, sizeof err));
	CHECK_INT(d.num_beams, 5);
	CHECK(d.length_penalty == 0.4 && d.temperature == 1);
	CHECK_INT(d.max_tokens, 200);
	CHECK_INT(f.forced_bos, 9);
	CHECK_INT(f.decoder_start, 4);
	CHECK(facts_parse_generation(NULL, 0, &f, &d, err, sizeof err));
	CHECK_INT(d.num_beams, 0);
	CHECK(d.length_penalty == 1);
	json = "{\"forced_bos_token_id\":4056}";
	CHECK(!facts_parse_generation(json, strlen(json), &f, &d, err, sizeof err));
	CHECK(strstr(err, "generation_config.json: \"forced_bos_token_id\"") == err);
	json = "{\"num_beams\":-1}";
	CHECK(!facts_parse_generation(json, strlen(json), &f, &d, err, sizeof err));
}

TEST(an_old_folder_keeps_its_beams_in_the_configuration) {
	struct facts f;
	struct generation_defaults d;
	const char *json = "{\"num_beams\":4,\"length_penalty\":2.0,\"do_sample\":false}";
	must_parse(seq2seq, &f);
	CHECK(facts_parse_old_generation(json, strlen(json), &f, &d, err, sizeof err));
	CHECK_INT(d.num_beams, 4);
	CHECK(d.length_penalty == 2 && d.temperature == 1);
}

/* ---- damage ---- */

TEST(damaged_configurations_are_refused_with_a_sentence_or_read) {
	const char *const bases[] = { wiki103, encoder, seq2seq };
	uint64_t state = 4;
	for (int i = 0; i < 6000; i++) {
		const char *base = bases[i % 3];
		struct facts f;
		size_t n;
		unsigned char *bytes =
		                damage((const unsigned char *)base, strlen(base), &state, &n);
		err[0] = '\0';
		if (facts_parse((const char *)bytes, n, &f, err, sizeof err)) {
			for (int s = 0; s < STACKS; s++) {
				CHECK_INT(f.stack[s].head_dim * f.stack[s].heads, f.stack[s].dim);
				CHECK(f.stack[s].layers <= MAX_LAYERS);
			}
			CHECK(f.n_classifiers <= MAX_CLASSIFIERS && f.input.n <= MAX_BANDS);
		} else {
			CHECK(is_sentence(err) && strncmp(err, "config.json: ", 13) == 0);
		}
		free(bytes);
	}
}
