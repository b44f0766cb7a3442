/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading every family but the first three: from a config.json and tensors under the names that the
 * family's own library writes, each number must come back in the right slot; tied tensors may be
 * absent, or there under another of their names.
 */
#include <math.h>

#include "tests/weights_check.h"

enum { DIM = 20, FFN = 28, VOCAB = 37 };

#define COUNTS                                                                                     \
	"\"num_hidden_layers\":2,\"hidden_size\":20,\"num_attention_heads\":2,"                    \
	"\"intermediate_size\":28"

/* ---- folders ---- */

static struct facts facts_of(const char *json) {
	struct facts f;
	err[0] = '\0';
	if (!facts_parse(json, strlen(json), &f, err, sizeof err))
		check_fail(__FILE__, __LINE__, "%s", err);
	return f;
}

static char *finish(struct writer *w) {
	size_t len;
	unsigned char *bytes = tensor_file_finish(&w->file, &len);
	return folder_of(bytes, len);
}

/* One side's layers under fairseq's names; `source` is the encoder's dim, 0 without cross-attention. */
static void add_side(struct writer *w, const char *side, size_t d, size_t source) {
	char at[40];
	snprintf(at, sizeof at, "%s.layers.", side);
	for (int i = 0; i < 2; i++) {
		static const char *const square[] = { "self_attn.q_proj", "self_attn.k_proj",
			"self_attn.v_proj", "self_attn.out_proj" };
		for (int k = 0; k < 4; k++)
			add_layer(w, at, i, square[k], d, d, d);
		add_layer(w, at, i, "self_attn_layer_norm", d, 0, d);
		add_layer(w, at, i, "final_layer_norm", d, 0, d);
		add_layer(w, at, i, "fc1", FFN, d, FFN);
		add_layer(w, at, i, "fc2", d, FFN, d);
		if (!source)
			continue;
		add_layer(w, at, i, "encoder_attn.q_proj", d, d, d);
		add_layer(w, at, i, "encoder_attn.k_proj", d, source, d);
		add_layer(w, at, i, "encoder_attn.v_proj", d, source, d);
		add_layer(w, at, i, "encoder_attn.out_proj", d, d, d);
		add_layer(w, at, i, "encoder_attn_layer_norm", d, 0, d);
	}
}

/* ---- what must be where ---- */

static struct weights must_load(const char *dir, const struct facts *f) {
	struct weights w;
	if (!load(dir, f, ops_c(), &w))
		check_fail(__FILE__, __LINE__, "%s", err);
	return w;
}

/* A product's rows [first, first + rows) and their biases are NAME.weight and NAME.bias. */
static void check_part(const struct linear_weights *l, int first, int rows, const char *prefix,
                const char *name) {
	char full[200];
	snprintf(full, sizeof full, "%s%s.weight", prefix, name);
	check_rows(ops_c(), &l->w, first, rows, full, false);
	snprintf(full, sizeof full, "%s%s.bias", prefix, name);
	check_vector(l->bias + first, (size_t)rows, full);
}

static void check_linear(const struct linear_weights *l, const char *prefix, const char *name) {
	check_part(l, 0, l->w.n_out, prefix, name);
}

static void check_norm(const struct norm_weights *n, size_t dim, const char *prefix,
                const char *name, const char *gain, const char *bias) {
	char full[200];
	snprintf(full, sizeof full, "%s%s.%s", prefix, name, gain);
	check_vector(n->gain, dim, full);
	snprintf(full, sizeof full, "%s%s.%s", prefix, name, bias);
	check_vector(n->bias, dim, full);
}

static void check_side(const struct stack_weights *stack, const char *prefix, int dim, int source) {
	for (int i = 0; i < 2; i++) {
		const struct layer_weights *l = &stack->layers[i];
		char at[100];
		snprintf(at, sizeof at, "%s.layers.%d.", prefix, i);
		check_part(&l->qkv, 0, dim, at, "self_attn.q_proj");
		check_part(&l->qkv, dim, dim, at, "self_attn.k_proj");
		check_part(&l->qkv, 2 * dim, dim, at, "self_attn.v_proj");
		check_linear(&l->out, at, "self_attn.out_proj");
		check_linear(&l->up, at, "fc1");
		check_linear(&l->down, at, "fc2");
		check_norm(&l->attn_norm, (size_t)dim, at, "self_attn_layer_norm", "weight",
		                "bias");
		check_norm(&l->ffn_norm, (size_t)dim, at, "final_layer_norm", "weight", "bias");
		if (!source) {
			CHECK(!l->cross_q.w.data && !l->cross_kv.w.data && !l->cross_norm.gain);
			continue;
		}
		CHECK_INT(l->cross_kv.w.n_in, source);
		CHECK_INT(l->cross_kv.w.n_out, 2 * dim);
		check_linear(&l->cross_q, at, "encoder_attn.q_proj");
		check_part(&l->cross_kv, 0, dim, at, "encoder_attn.k_proj");
		check_part(&l->cross_kv, dim, dim, at, "encoder_attn.v_proj");
		check_linear(&l->cross_out, at, "encoder_attn.out_proj");
		check_norm(&l->cross_norm, (size_t)dim, at, "encoder_attn_layer_norm", "weight",
		                "bias");
	}
}

/* ---- fathom_seq2seq ---- */

static const char two_sides[] =
                "{\"model_type\":\"fathom_seq2seq\",\"vocab_size\":37,\"source_vocab_size\":41,"
                "\"encoder\":{\"num_hidden_layers\":2,\"hidden_size\":12,"
                "\"num_attention_heads\":3,\"intermediate_size\":28,\"norm\":\"pre\","
                "\"max_position_embeddings\":9},"
                "\"decoder\":{" COUNTS ",\"norm\":\"post\",\"embedding_norm\":true,"
                "\"positions\":\"sinusoidal\",\"max_position_embeddings\":5},"
                "\"tie_word_embeddings\":false}";

TEST(sides_of_different_width_and_vocabulary_are_in_their_place) {
	struct facts f = facts_of(two_sides);
	struct writer w = { .prefix = "", .dtype = "F32" };
	add(&w, "encoder.embed_tokens.weight", 41, 12);
	add(&w, "encoder.embed_positions.weight", 11, 12);
	add_pair(&w, "encoder.layer_norm", 12, 0, 12);
	add(&w, "decoder.embed_tokens.weight", VOCAB, DIM);
	add(&w, "decoder.output_projection.weight", VOCAB, DIM);
	add_pair(&w, "decoder.layernorm_embedding", DIM, 0, DIM);
	add_side(&w, "encoder", 12, 0);
	add_side(&w, "decoder", DIM, 12);
	char *dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	const struct stack_weights *encoder = &weights.stack[STACK_ENCODER];
	const struct stack_weights *decoder = &weights.stack[STACK_DECODER];
	check_rows(ops_c(), &encoder->embedding, 0, 41, "encoder.embed_tokens.weight", false);
	check_rows(ops_c(), &decoder->embedding, 0, VOCAB, "decoder.embed_tokens.weight", false);
	check_rows(ops_c(), &weights.output.w, 0, VOCAB, "decoder.output_projection.weight", false);
	check_vector(encoder->positions, 11 * 12, "encoder.embed_positions.weight");
	check_norm(&encoder->final_norm, 12, "encoder.", "layer_norm", "weight", "bias");
	check_norm(&decoder->embedding_norm, DIM, "decoder.", "layernorm_embedding", "weight",
	                "bias");
	CHECK(!decoder->final_norm.gain && !encoder->embedding_norm.gain && !weights.output.bias);
	/* Row 2 is the first token's: sin 2 and cos 2. Seven rows: two of the offset, five of text. */
	CHECK(fabs(decoder->positions[2 * DIM] - 0.9092974268256817) < 1e-7);
	CHECK(fabs(decoder->positions[2 * DIM + DIM / 2] + 0.4161468365471424) < 1e-7);
	check_side(encoder, "encoder", 12, 0);
	check_side(decoder, "decoder", DIM, 12);
	CHECK_INT(weights.bytes,
	                weights.fixed_bytes + 2 * weights.layer_bytes[STACK_ENCODER]
	                                + 2 * weights.layer_bytes[STACK_DECODER]);
	weights_finish(&weights);
	folder_remove(dir);
}

TEST(a_shared_embedding_is_one_matrix) {
	struct facts f = facts_of("{\"model_type\":\"fathom_seq2seq\",\"vocab_size\":37,"
	                          "\"share_embeddings\":true,\"encoder\":{" COUNTS
	                          ",\"positions\":\"none\",\"max_position_embeddings\":9},"
	                          "\"decoder\":{" COUNTS
	                          ",\"positions\":\"none\",\"max_position_embeddings\":9}}");
	for (int i = 0; i < 3; i++) {
		struct writer w = { .prefix = "", .dtype = "F32" };
		add(&w, "decoder.embed_tokens.weight", VOCAB, DIM);
		add_pair(&w, "encoder.layer_norm", DIM, 0, DIM);
		add_pair(&w, "decoder.layer_norm", DIM, 0, DIM);
		add_side(&w, "encoder", DIM, 0);
		add_side(&w, "decoder", DIM, DIM);
		/* Tied copies may be there, if their shape is right. */
		if (i > 0)
			add(&w, "decoder.output_projection.weight", VOCAB, DIM);
		if (i > 0)
			add(&w, "encoder.embed_tokens.weight", i > 1 ? VOCAB - 1 : VOCAB, DIM);
		char *dir = finish(&w);
		if (i == 2) {
			check_refused(dir, &f,
			                "\"encoder.embed_tokens.weight\" has shape [36, 20], "
			                "config.json asks for [37, 20]");
		} else {
			struct weights weights = must_load(dir, &f);
			const struct stack_weights *s = weights.stack;
			check_rows(ops_c(), &s[STACK_DECODER].embedding, 0, VOCAB,
			                "decoder.embed_tokens.weight", false);
			CHECK(s[STACK_ENCODER].embedding.data == s[STACK_DECODER].embedding.data);
			CHECK(weights.output.w.data == s[STACK_DECODER].embedding.data);
			weights_finish(&weights);
		}
		folder_remove(dir);
	}
}

TEST(a_missing_tensor_of_cross_attention_is_named) {
	struct facts f = facts_of(two_sides);
	struct writer w = {
		.prefix = "", .dtype = "F32", .skip = "decoder.layers.1.encoder_attn.v_proj.bias"
	};
	add(&w, "encoder.embed_tokens.weight", 41, 12);
	add(&w, "encoder.embed_positions.weight", 11, 12);
	add_pair(&w, "encoder.layer_norm", 12, 0, 12);
	add(&w, "decoder.embed_tokens.weight", VOCAB, DIM);
	add(&w, "decoder.output_projection.weight", VOCAB, DIM);
	add_pair(&w, "decoder.layernorm_embedding", DIM, 0, DIM);
	add_side(&w, "encoder", 12, 0);
	add_side(&w, "decoder", DIM, 12);
	char *dir = finish(&w);
	check_refused(dir, &f, "\"decoder.layers.1.encoder_attn.v_proj.bias\" is missing");
	f.stack[STACK_ENCODER].layers = 1;
	check_refused(dir, &f, "is of layer 1, but by config.json the last is 0");
	folder_remove(dir);
}

/* ---- adaptive vocabularies ---- */

#define ADAPTIVE "\"cutoffs\":[7,20],\"factor\":2"

static struct facts adaptive_facts(const char *ties) {
	char json[600];
	snprintf(json, sizeof json,
	                "{\"model_type\":\"fathom_lm\",\"vocab_size\":37," COUNTS
	                ",\"positions\":\"none\",\"max_position_embeddings\":9,"
	                "\"final_norm\":false,\"tie_word_embeddings\":false,"
	                "\"adaptive_input\":{" ADAPTIVE "},\"adaptive_softmax\":{" ADAPTIVE "%s}}",
	                ties);
	return facts_of(json);
}

static void add_adaptive_input(struct writer *w) {
	static const size_t size[] = { 7, 13, 17 }, dim[] = { 20, 10, 5 };
	for (int b = 0; b < 3; b++) {
		char name[100];
		snprintf(name, sizeof name, "decoder.embed_tokens.embeddings.%d.0.weight", b);
		add(w, name, size[b], dim[b]);
		snprintf(name, sizeof name, "decoder.embed_tokens.embeddings.%d.1.weight", b);
		add(w, name, DIM, dim[b]);
	}
	add(w, "decoder.adaptive_softmax.head.class_proj.weight", 2, DIM);
	add_side(w, "decoder", DIM, 0);
}

static void check_adaptive_input(const struct weights *w) {
	const struct band_weights *bands = w->stack[STACK_DECODER].bands;
	const struct ops *ops = ops_c();
	CHECK(bands && !w->stack[STACK_DECODER].embedding.data && !w->output.w.data);
	check_rows(ops, &bands[0].table, 0, 7, "decoder.embed_tokens.embeddings.0.0.weight", false);
	check_rows(ops, &bands[2].table, 0, 17, "decoder.embed_tokens.embeddings.2.0.weight",
	                false);
	CHECK_INT(bands[2].table.n_in, 5);
	for (int b = 0; b < 3; b++) {
		char name[100];
		snprintf(name, sizeof name, "decoder.embed_tokens.embeddings.%d.1.weight", b);
		check_rows(ops, &bands[b].project.w, 0, DIM, name, false);
		CHECK(!bands[b].project.bias);
	}
	check_rows(ops, &w->adaptive.classes.w, 0, 2,
	                "decoder.adaptive_softmax.head.class_proj.weight", false);
	CHECK_INT(w->adaptive.classes.w.n_in, DIM);
}

TEST(a_tied_adaptive_softmax_is_the_input_with_its_projections_turned) {
	struct facts f = adaptive_facts(",\"tie_weights\":true,\"tie_projections\":true");
	struct writer w = { .prefix = "", .dtype = "F16" };
	add_adaptive_input(&w);
	char *dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	const struct band_weights *bands = weights.stack[STACK_DECODER].bands;
	const struct adaptive_weights *a = &weights.adaptive;
	check_adaptive_input(&weights);
	CHECK(a->words.w.data == bands[0].table.data);
	CHECK_INT(a->words.w.n_in, DIM);
	for (int t = 0; t < 2; t++) {
		char name[100];
		snprintf(name, sizeof name, "decoder.embed_tokens.embeddings.%d.1.weight", t + 1);
		CHECK(a->tail[t].w.data == bands[t + 1].table.data);
		CHECK_INT(a->reduce[t].w.n_in, DIM);
		CHECK_INT(a->reduce[t].w.n_out, t ? 5 : 10);
		check_rows(ops_c(), &a->reduce[t].w, 0, a->reduce[t].w.n_out, name, true);
	}
	weights_finish(&weights);
	folder_remove(dir);
}

TEST(tied_bands_with_projections_of_their_own_are_read) {
	struct facts f = adaptive_facts(",\"tie_weights\":true");
	struct writer w = { .prefix = "", .dtype = "F32" };
	add_adaptive_input(&w);
	add(&w, "decoder.adaptive_softmax.tail.0.0.weight", 10, DIM);
	add(&w, "decoder.adaptive_softmax.tail.1.0.weight", 5, DIM);
	char *dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	check_adaptive_input(&weights);
	check_rows(ops_c(), &weights.adaptive.reduce[1].w, 0, 5,
	                "decoder.adaptive_softmax.tail.1.0.weight", false);
	CHECK(weights.adaptive.tail[0].w.data == weights.stack[STACK_DECODER].bands[1].table.data);
	weights_finish(&weights);
	folder_remove(dir);
}

TEST(an_adaptive_softmax_of_its_own_is_read) {
	struct facts f = adaptive_facts("");
	struct writer w = { .prefix = "", .dtype = "F32" };
	add_adaptive_input(&w);
	add(&w, "decoder.adaptive_softmax.head.word_proj.weight", 7, DIM);
	add(&w, "decoder.adaptive_softmax.tail.0.0.weight", 10, DIM);
	add(&w, "decoder.adaptive_softmax.tail.0.2.weight", 13, 10);
	add(&w, "decoder.adaptive_softmax.tail.1.0.weight", 5, DIM);
	char *dir = finish(&w);
	check_refused(dir, &f, "\"decoder.adaptive_softmax.tail.1.2.weight\" is missing");
	folder_remove(dir);
	w = (struct writer){ .prefix = "", .dtype = "F32" };
	add_adaptive_input(&w);
	add(&w, "decoder.adaptive_softmax.head.word_proj.weight", 7, DIM);
	add(&w, "decoder.adaptive_softmax.tail.0.0.weight", 10, DIM);
	add(&w, "decoder.adaptive_softmax.tail.0.2.weight", 13, 10);
	add(&w, "decoder.adaptive_softmax.tail.1.0.weight", 5, DIM);
	add(&w, "decoder.adaptive_softmax.tail.1.2.weight", 17, 5);
	dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	check_adaptive_input(&weights);
	const struct adaptive_weights *a = &weights.adaptive;
	check_rows(ops_c(), &a->words.w, 0, 7, "decoder.adaptive_softmax.head.word_proj.weight",
	                false);
	check_rows(ops_c(), &a->reduce[0].w, 0, 10, "decoder.adaptive_softmax.tail.0.0.weight",
	                false);
	check_rows(ops_c(), &a->tail[1].w, 0, 17, "decoder.adaptive_softmax.tail.1.2.weight",
	                false);
	weights_finish(&weights);
	folder_remove(dir);
}

/* ---- fathom_encoder ---- */

TEST(an_encoder_has_its_masked_head_and_its_classifiers) {
	struct facts f = facts_of(
	                "{\"model_type\":\"fathom_encoder\",\"vocab_size\":37,\"encoder\":{" COUNTS
	                ",\"norm\":\"post\",\"embedding_norm\":true,"
	                "\"max_position_embeddings\":9},\"mlm_head\":true,"
	                "\"classification_heads\":[{\"name\":\"a\",\"classes\":3},{\"name\":\"b."
	                "c\","
	                "\"labels\":[\"x\",\"y\"]}]}");
	struct writer w = { .prefix = "", .dtype = "F32" };
	add(&w, "encoder.embed_tokens.weight", VOCAB, DIM);
	add(&w, "encoder.embed_positions.weight", 11, DIM);
	add_pair(&w, "encoder.layernorm_embedding", DIM, 0, DIM);
	add_pair(&w, "encoder.lm_head.dense", DIM, DIM, DIM);
	add_pair(&w, "encoder.lm_head.layer_norm", DIM, 0, DIM);
	add(&w, "encoder.lm_head.bias", VOCAB, 0);
	add_pair(&w, "classification_heads.a.dense", DIM, DIM, DIM);
	add_pair(&w, "classification_heads.a.out_proj", 3, DIM, 3);
	add_pair(&w, "classification_heads.b.c.dense", DIM, DIM, DIM);
	add_pair(&w, "classification_heads.b.c.out_proj", 2, DIM, 2);
	add_side(&w, "encoder", DIM, 0);
	char *dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	const struct stack_weights *s = &weights.stack[STACK_ENCODER];
	check_side(s, "encoder", DIM, 0);
	check_norm(&s->embedding_norm, DIM, "encoder.", "layernorm_embedding", "weight", "bias");
	check_linear(&weights.mlm.dense, "encoder.", "lm_head.dense");
	check_norm(&weights.mlm.norm, DIM, "encoder.", "lm_head.layer_norm", "weight", "bias");
	check_vector(weights.output.bias, VOCAB, "encoder.lm_head.bias");
	CHECK(weights.output.w.data == s->embedding.data);
	check_linear(&weights.classifiers[0].out, "classification_heads.a.", "out_proj");
	check_linear(&weights.classifiers[1].dense, "classification_heads.b.c.", "dense");
	check_linear(&weights.classifiers[1].out, "classification_heads.b.c.", "out_proj");
	CHECK(!weights.stack[STACK_DECODER].layers && !s->types);
	weights_finish(&weights);
	f.classifiers[0].classes = 4;
	check_refused(dir, &f, "\"classification_heads.a.out_proj.weight\" has shape [3, 20]");
	folder_remove(dir);
}

/* ---- Hugging Face bert and roberta ---- */

static void add_bert_norm(struct writer *w, const char *name, bool old) {
	char full[120];
	snprintf(full, sizeof full, "%s.%s", name, old ? "gamma" : "weight");
	add(w, full, DIM, 0);
	snprintf(full, sizeof full, "%s.%s", name, old ? "beta" : "bias");
	add(w, full, DIM, 0);
}

static void add_bert(struct writer *w, size_t rows, size_t types, bool old) {
	add(w, "embeddings.word_embeddings.weight", VOCAB, DIM);
	add(w, "embeddings.position_embeddings.weight", rows, DIM);
	add(w, "embeddings.token_type_embeddings.weight", types, DIM);
	add_bert_norm(w, "embeddings.LayerNorm", old);
	for (int i = 0; i < 2; i++) {
		static const char *const square[] = { "attention.self.query", "attention.self.key",
			"attention.self.value", "attention.output.dense" };
		char name[120];
		for (int k = 0; k < 4; k++)
			add_layer(w, "encoder.layer.", i, square[k], DIM, DIM, DIM);
		snprintf(name, sizeof name, "encoder.layer.%d.attention.output.LayerNorm", i);
		add_bert_norm(w, name, old);
		add_layer(w, "encoder.layer.", i, "intermediate.dense", FFN, DIM, FFN);
		add_layer(w, "encoder.layer.", i, "output.dense", DIM, FFN, DIM);
		snprintf(name, sizeof name, "encoder.layer.%d.output.LayerNorm", i);
		add_bert_norm(w, name, old);
	}
}

static void check_bert(const struct weights *w, const char *prefix, bool old) {
	const struct stack_weights *s = &w->stack[STACK_ENCODER];
	const char *gain = old ? "gamma" : "weight", *bias = old ? "beta" : "bias";
	char at[100];
	check_norm(&s->embedding_norm, DIM, prefix, "embeddings.LayerNorm", gain, bias);
	for (int i = 0; i < 2; i++) {
		const struct layer_weights *l = &s->layers[i];
		snprintf(at, sizeof at, "%sencoder.layer.%d.", prefix, i);
		check_part(&l->qkv, 0, DIM, at, "attention.self.query");
		check_part(&l->qkv, DIM, DIM, at, "attention.self.key");
		check_part(&l->qkv, 2 * DIM, DIM, at, "attention.self.value");
		check_linear(&l->out, at, "attention.output.dense");
		check_norm(&l->attn_norm, DIM, at, "attention.output.LayerNorm", gain, bias);
		check_linear(&l->up, at, "intermediate.dense");
		check_linear(&l->down, at, "output.dense");
		check_norm(&l->ffn_norm, DIM, at, "output.LayerNorm", gain, bias);
	}
}

TEST(bert_with_its_masked_head_is_read_under_new_and_old_names) {
	struct facts f = facts_of("{\"model_type\":\"bert\",\"architectures\":[\"BertForMaskedLM\"]"
	                          ",\"vocab_size\":37," COUNTS ",\"max_position_embeddings\":9}");
	for (int old = 0; old < 2; old++) {
		struct writer w = { .prefix = "bert.", .dtype = "F32" };
		add_bert(&w, 9, 2, old);
		w.prefix = "";
		add_pair(&w, "cls.predictions.transform.dense", DIM, DIM, DIM);
		add_bert_norm(&w, "cls.predictions.transform.LayerNorm", old);
		add(&w, old ? "cls.predictions.bias" : "cls.predictions.decoder.bias", VOCAB, 0);
		char *dir = finish(&w);
		struct weights weights = must_load(dir, &f);
		const struct stack_weights *s = &weights.stack[STACK_ENCODER];
		check_bert(&weights, "bert.", old);
		check_rows(ops_c(), &s->embedding, 0, VOCAB,
		                "bert.embeddings.word_embeddings.weight", false);
		check_vector(s->positions, 9 * DIM, "bert.embeddings.position_embeddings.weight");
		check_vector(s->types, 2 * DIM, "bert.embeddings.token_type_embeddings.weight");
		check_linear(&weights.mlm.dense, "cls.predictions.", "transform.dense");
		check_vector(weights.output.bias, VOCAB,
		                old ? "cls.predictions.bias" : "cls.predictions.decoder.bias");
		CHECK(weights.output.w.data == s->embedding.data);
		weights_finish(&weights);
		folder_remove(dir);
	}
}

TEST(bert_classifies_through_its_pooler) {
	struct facts f = facts_of(
	                "{\"model_type\":\"bert\",\"architectures\":["
	                "\"BertForSequenceClassification\"],\"vocab_size\":37," COUNTS
	                ",\"max_position_embeddings\":9,\"id2label\":{\"0\":\"a\",\"1\":\"b\","
	                "\"2\":\"c\"}}");
	struct writer w = { .prefix = "bert.", .dtype = "F32" };
	add_bert(&w, 9, 2, false);
	add_pair(&w, "pooler.dense", DIM, DIM, DIM);
	w.prefix = "";
	add_pair(&w, "classifier", 3, DIM, 3);
	char *dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	check_linear(&weights.classifiers[0].dense, "bert.", "pooler.dense");
	check_linear(&weights.classifiers[0].out, "", "classifier");
	CHECK(!weights.output.w.data && !weights.mlm.dense.w.data);
	weights_finish(&weights);
	folder_remove(dir);
}

TEST(the_only_type_of_roberta_is_added_to_its_positions) {
	struct facts f =
	                facts_of("{\"model_type\":\"roberta\",\"architectures\":[\"RobertaModel\"],"
	                         "\"vocab_size\":37," COUNTS ",\"max_position_embeddings\":11,"
	                         "\"type_vocab_size\":1,\"pad_token_id\":1}");
	struct writer w = { .prefix = "", .dtype = "BF16" };
	add_bert(&w, 11, 1, false);
	char *dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	const struct stack_weights *s = &weights.stack[STACK_ENCODER];
	check_bert(&weights, "", false);
	CHECK(!s->types);
	CHECK_INT(f.stack[STACK_ENCODER].token_types, 0);
	for (size_t i = 0; i < 11 * DIM; i++)
		CHECK(s->positions[i]
		                == tensor_value("embeddings.position_embeddings.weight", i)
		                                + tensor_value("embeddings.token_type_embeddings."
		                                               "weight",
		                                                i % DIM));
	weights_finish(&weights);
	folder_remove(dir);
}

TEST(roberta_has_its_heads_beside_the_encoder) {
	struct writer w = { .prefix = "roberta.", .dtype = "F32" };
	add_bert(&w, 11, 1, false);
	w.prefix = "";
	add_pair(&w, "lm_head.dense", DIM, DIM, DIM);
	add_pair(&w, "lm_head.layer_norm", DIM, 0, DIM);
	add(&w, "lm_head.bias", VOCAB, 0);
	add(&w, "lm_head.decoder.bias", VOCAB, 0);
	add_pair(&w, "classifier.dense", DIM, DIM, DIM);
	add_pair(&w, "classifier.out_proj", 2, DIM, 2);
	char *dir = finish(&w);
	static const char *const kinds[] = { "RobertaForMaskedLM",
		"RobertaForSequenceClassification" };
	for (int i = 0; i < 2; i++) {
		char json[400];
		snprintf(json, sizeof json,
		                "{\"model_type\":\"roberta\",\"architectures\":[\"%s\"],"
		                "\"vocab_size\":37," COUNTS ",\"max_position_embeddings\":11,"
		                "\"type_vocab_size\":1}",
		                kinds[i]);
		struct facts f = facts_of(json);
		struct weights weights = must_load(dir, &f);
		check_bert(&weights, "roberta.", false);
		if (i == 0) {
			check_linear(&weights.mlm.dense, "", "lm_head.dense");
			check_norm(&weights.mlm.norm, DIM, "", "lm_head.layer_norm", "weight",
			                "bias");
			check_vector(weights.output.bias, VOCAB, "lm_head.bias");
		} else {
			check_linear(&weights.classifiers[0].dense, "", "classifier.dense");
			check_linear(&weights.classifiers[0].out, "", "classifier.out_proj");
		}
		weights_finish(&weights);
	}
	folder_remove(dir);
}

/* ---- Hugging Face encoder-decoders ---- */

#define HF_SIDES                                                                                   \
	"\"d_model\":20,\"encoder_layers\":2,\"decoder_layers\":2,\"encoder_attention_heads\":2,"  \
	"\"decoder_attention_heads\":2,\"encoder_ffn_dim\":28,\"decoder_ffn_dim\":28,"             \
	"\"max_position_embeddings\":9,\"eos_token_id\":2,\"decoder_start_token_id\":2"

static void add_both(struct writer *w) {
	add_side(w, "encoder", DIM, 0);
	add_side(w, "decoder", DIM, DIM);
}

TEST(bart_is_read_from_whichever_name_its_embedding_has) {
	static const char *const names[] = { "model.shared.weight",
		"model.decoder.embed_tokens.weight", "lm_head.weight", "shared.weight" };
	struct facts f = facts_of("{\"model_type\":\"bart\",\"vocab_size\":37," HF_SIDES "}");
	for (int i = 0; i < 4; i++) {
		const char *prefix = i < 3 ? "model." : "";
		struct writer w = { .prefix = "", .dtype = "F32" };
		add(&w, names[i], VOCAB, DIM);
		w.prefix = prefix;
		add(&w, "encoder.embed_positions.weight", 11, DIM);
		add(&w, "decoder.embed_positions.weight", 11, DIM);
		add_pair(&w, "encoder.layernorm_embedding", DIM, 0, DIM);
		add_pair(&w, "decoder.layernorm_embedding", DIM, 0, DIM);
		add_both(&w);
		w.prefix = "";
		if (i == 0)
			add(&w, "final_logits_bias", 1, VOCAB);
		char *dir = finish(&w), at[64];
		struct weights weights = must_load(dir, &f);
		const struct stack_weights *s = &weights.stack[STACK_DECODER];
		check_rows(ops_c(), &s->embedding, 0, VOCAB, names[i], false);
		CHECK(weights.output.w.data == s->embedding.data);
		CHECK(weights.stack[STACK_ENCODER].embedding.data == s->embedding.data);
		snprintf(at, sizeof at, "%sdecoder.embed_positions.weight", prefix);
		check_vector(s->positions, 11 * DIM, at);
		snprintf(at, sizeof at, "%sdecoder", prefix);
		check_side(s, at, DIM, DIM);
		if (i == 0)
			check_vector(weights.output.bias, VOCAB, "final_logits_bias");
		else
			CHECK(!weights.output.bias);
		weights_finish(&weights);
		folder_remove(dir);
	}
}

TEST(m2m_100_has_final_norms_and_computed_positions) {
	struct facts f = facts_of("{\"model_type\":\"m2m_100\",\"vocab_size\":37," HF_SIDES "}");
	struct writer w = { .prefix = "model.", .dtype = "F32" };
	add(&w, "shared.weight", VOCAB, DIM);
	add_pair(&w, "encoder.layer_norm", DIM, 0, DIM);
	add_pair(&w, "decoder.layer_norm", DIM, 0, DIM);
	add_both(&w);
	char *dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	const struct stack_weights *s = weights.stack;
	check_norm(&s[STACK_ENCODER].final_norm, DIM, "model.encoder.", "layer_norm", "weight",
	                "bias");
	check_side(&s[STACK_ENCODER], "model.encoder", DIM, 0);
	CHECK(fabs(s[STACK_ENCODER].positions[2 * DIM] - 0.9092974268256817) < 1e-7);
	CHECK(!weights.output.bias);
	weights_finish(&weights);
	folder_remove(dir);
}

TEST(fsmt_has_two_vocabularies_and_ties_its_output_whatever_its_config_says) {
	struct facts f = facts_of(
	                "{\"model_type\":\"fsmt\",\"src_vocab_size\":41,"
	                "\"tgt_vocab_size\":37,\"tie_word_embeddings\":false," HF_SIDES "}");
	struct writer w = { .prefix = "model.", .dtype = "F32" };
	add(&w, "encoder.embed_tokens.weight", 41, DIM);
	add(&w, "decoder.embed_tokens.weight", VOCAB, DIM);
	add(&w, "decoder.output_projection.weight", VOCAB, DIM);
	add_both(&w);
	char *dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	const struct stack_weights *s = weights.stack;
	check_rows(ops_c(), &s[STACK_ENCODER].embedding, 0, 41, "model.encoder.embed_tokens.weight",
	                false);
	CHECK(weights.output.w.data == s[STACK_DECODER].embedding.data);
	CHECK(!s[STACK_ENCODER].final_norm.gain && !s[STACK_ENCODER].embedding_norm.gain);
	weights_finish(&weights);
	folder_remove(dir);
}

TEST(marian_has_sinusoids_of_its_own_from_row_zero) {
	struct facts f =
	                facts_of("{\"model_type\":\"marian\",\"vocab_size\":37,\"pad_token_id\":36,"
	                         "\"activation_function\":\"relu\"," HF_SIDES "}");
	struct writer w = { .prefix = "model.", .dtype = "F32" };
	add(&w, "shared.weight", VOCAB, DIM);
	add_both(&w);
	w.prefix = "";
	add(&w, "final_logits_bias", 1, VOCAB);
	char *dir = finish(&w);
	struct weights weights = must_load(dir, &f);
	const float *table = weights.stack[STACK_ENCODER].positions;
	check_vector(weights.output.bias, VOCAB, "final_logits_bias");
	/* Row 3: sin and cos of 3 and of 3 / 10000^(2/20), from tables. */
	CHECK(table[0] == 0 && table[DIM / 2] == 1);
	CHECK(fabs(table[3 * DIM] - 0.1411200080598672) < 1e-7);
	CHECK(fabs(table[3 * DIM + DIM / 2] + 0.9899924966004454) < 1e-7);
	CHECK(fabs(table[3 * DIM + 1] - sin(1.19432151166049)) < 1e-6);
	CHECK(fabs(table[3 * DIM + DIM / 2 + 1] - cos(1.19432151166049)) < 1e-6);
	weights_finish(&weights);
	folder_remove(dir);
}

/* ---- damage ---- */

TEST(damaged_weights_are_refused_with_a_sentence_or_loaded) {
	struct facts f = adaptive_facts(",\"tie_weights\":true,\"tie_projections\":true");
	struct writer w = { .prefix = "", .dtype = "F16" };
	size_t len, n;
	uint64_t state = 6;
	add_adaptive_input(&w);
	unsigned char *whole = tensor_file_finish(&w.file, &len);
	char *dir = folder_create();
	for (int i = 0; i < 300; i++) {
		struct weights weights;
		unsigned char *bytes = damage(whole, len, &state, &n);
		folder_write(dir, "model.safetensors", bytes, n);
		free(bytes);
		if (load(dir, &f, ops_c(), &weights))
			weights_finish(&weights);
		else
			CHECK(is_sentence(err) && strncmp(err, "model.safetensors: ", 19) == 0);
	}
	free(whole);
	folder_remove(dir);
}
