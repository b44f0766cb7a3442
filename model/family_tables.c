/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Families: the binding tables. Of two names for one part of a slot the first that is there counts;
 * a tied output may be there under its own name only.
 */
#include "model/family.h"

/* clang-format off */
#define MATRIX(at, n) { .slot = at, .role = ROLE_MATRIX, .name = n }
#define OUTPUT_NAME(n) \
	{ .slot = SLOT_EMBEDDING, .role = ROLE_MATRIX, .name = n, .if_tied = true }
#define BARE_OUTPUT_NAME(n) \
	{ .slot = SLOT_EMBEDDING, .role = ROLE_MATRIX, .name = n, .bare = true, .if_tied = true }
#define BARE(at, n) { .slot = at, .role = ROLE_MATRIX, .name = n, .bare = true }
#define NORM(at, n) \
	{ .slot = at, .role = ROLE_GAIN, .name = n ".weight" }, \
	{ .slot = at, .role = ROLE_BIAS, .name = n ".bias" }
#define LINEAR(at, n, p) \
	{ .slot = at, .role = ROLE_MATRIX, .name = n ".weight", .part = p }, \
	{ .slot = at, .role = ROLE_BIAS, .name = n ".bias", .part = p }
#define CONV1D(at, n) \
	{ .slot = at, .role = ROLE_MATRIX, .name = n ".weight", .transposed = true }, \
	{ .slot = at, .role = ROLE_BIAS, .name = n ".bias" }
#define BARE_LINEAR(at, n) \
	{ .slot = at, .role = ROLE_MATRIX, .name = n ".weight", .bare = true }, \
	{ .slot = at, .role = ROLE_BIAS, .name = n ".bias", .bare = true }
#define BARE_BIAS(at, n) { .slot = at, .role = ROLE_BIAS, .name = n, .bare = true }

#define FAIRSEQ_LAYER \
	LINEAR(SLOT_QKV, "self_attn.q_proj", THIRD_Q), \
	LINEAR(SLOT_QKV, "self_attn.k_proj", THIRD_K), \
	LINEAR(SLOT_QKV, "self_attn.v_proj", THIRD_V), \
	LINEAR(SLOT_OUT, "self_attn.out_proj", WHOLE), \
	NORM(SLOT_ATTN_NORM, "self_attn_layer_norm"), \
	LINEAR(SLOT_UP, "fc1", WHOLE), \
	LINEAR(SLOT_DOWN, "fc2", WHOLE), \
	NORM(SLOT_FFN_NORM, "final_layer_norm")

#define FAIRSEQ_CROSS \
	LINEAR(SLOT_CROSS_Q, "encoder_attn.q_proj", WHOLE), \
	LINEAR(SLOT_CROSS_KV, "encoder_attn.k_proj", HALF_K), \
	LINEAR(SLOT_CROSS_KV, "encoder_attn.v_proj", HALF_V), \
	LINEAR(SLOT_CROSS_OUT, "encoder_attn.out_proj", WHOLE), \
	NORM(SLOT_CROSS_NORM, "encoder_attn_layer_norm")

/* What stands around the layers of one side. */
#define FAIRSEQ_SIDE(side) \
	MATRIX(SLOT_POSITIONS, side ".embed_positions.weight"), \
	NORM(SLOT_EMBEDDING_NORM, side ".layernorm_embedding"), \
	NORM(SLOT_FINAL_NORM, side ".layer_norm")
/* clang-format on */

/* Hugging Face OPT: fairseq's names, with a final norm of its own name. */
static const struct binding opt[] = {
	MATRIX(SLOT_EMBEDDING, "decoder.embed_tokens.weight"),
	BARE_OUTPUT_NAME("lm_head.weight"),
	MATRIX(SLOT_POSITIONS, "decoder.embed_positions.weight"),
	NORM(SLOT_FINAL_NORM, "decoder.final_layer_norm"),
	BARE(SLOT_OUTPUT, "lm_head.weight"),
	FAIRSEQ_LAYER,
};

/* Hugging Face GPT-2: Conv1D stores [in, out], and c_attn holds queries, keys and values. */
static const struct binding gpt2[] = {
	MATRIX(SLOT_EMBEDDING, "wte.weight"),
	BARE_OUTPUT_NAME("lm_head.weight"),
	MATRIX(SLOT_POSITIONS, "wpe.weight"),
	NORM(SLOT_FINAL_NORM, "ln_f"),
	BARE(SLOT_OUTPUT, "lm_head.weight"),
	NORM(SLOT_ATTN_NORM, "ln_1"),
	CONV1D(SLOT_QKV, "attn.c_attn"),
	CONV1D(SLOT_OUT, "attn.c_proj"),
	NORM(SLOT_FFN_NORM, "ln_2"),
	CONV1D(SLOT_UP, "mlp.c_fc"),
	CONV1D(SLOT_DOWN, "mlp.c_proj"),
};

/* fairseq's transformer_lm, with a plain or an adaptive vocabulary. */
static const struct binding fathom_lm[] = {
	MATRIX(SLOT_EMBEDDING, "decoder.embed_tokens.weight"),
	OUTPUT_NAME("decoder.output_projection.weight"),
	FAIRSEQ_SIDE("decoder"),
	MATRIX(SLOT_BAND, "decoder.embed_tokens.embeddings.#.0.weight"),
	MATRIX(SLOT_BAND_PROJECT, "decoder.embed_tokens.embeddings.#.1.weight"),
	MATRIX(SLOT_WORDS, "decoder.adaptive_softmax.head.word_proj.weight"),
	MATRIX(SLOT_CLASSES, "decoder.adaptive_softmax.head.class_proj.weight"),
	MATRIX(SLOT_REDUCE, "decoder.adaptive_softmax.tail.#.0.weight"),
	{ .slot = SLOT_REDUCE_TIED,
	                .role = ROLE_MATRIX,
	                .name = "decoder.embed_tokens.embeddings.+.1.weight",
	                .transposed = true },
	MATRIX(SLOT_TAIL, "decoder.adaptive_softmax.tail.#.2.weight"),
	MATRIX(SLOT_OUTPUT, "decoder.output_projection.weight"),
	FAIRSEQ_LAYER,
};

/* fairseq's roberta. */
static const struct binding fathom_encoder[] = {
	MATRIX(SLOT_EMBEDDING, "encoder.embed_tokens.weight"),
	OUTPUT_NAME("encoder.lm_head.weight"),
	FAIRSEQ_SIDE("encoder"),
	LINEAR(SLOT_MLM_DENSE, "encoder.lm_head.dense", WHOLE),
	NORM(SLOT_MLM_NORM, "encoder.lm_head.layer_norm"),
	LINEAR(SLOT_OUTPUT, "encoder.lm_head", WHOLE),
	LINEAR(SLOT_CLASS_DENSE, "classification_heads.@.dense", WHOLE),
	LINEAR(SLOT_CLASS_OUT, "classification_heads.@.out_proj", WHOLE),
	FAIRSEQ_LAYER,
};

/* fairseq's transformer, and Hugging Face's fsmt. */
static const struct binding seq2seq_encoder[] = {
	MATRIX(SLOT_EMBEDDING, "encoder.embed_tokens.weight"),
	FAIRSEQ_SIDE("encoder"),
	FAIRSEQ_LAYER,
};
static const struct binding seq2seq_decoder[] = {
	MATRIX(SLOT_EMBEDDING, "decoder.embed_tokens.weight"),
	OUTPUT_NAME("decoder.output_projection.weight"),
	FAIRSEQ_SIDE("decoder"),
	MATRIX(SLOT_OUTPUT, "decoder.output_projection.weight"),
	FAIRSEQ_LAYER,
	FAIRSEQ_CROSS,
};

/* Hugging Face's bart, m2m_100 and marian: one matrix under up to four names. */
static const struct binding bart_decoder[] = {
	MATRIX(SLOT_EMBEDDING, "shared.weight"),
	MATRIX(SLOT_EMBEDDING, "decoder.embed_tokens.weight"),
	BARE_OUTPUT_NAME("lm_head.weight"),
	FAIRSEQ_SIDE("decoder"),
	BARE(SLOT_OUTPUT, "lm_head.weight"),
	{ .slot = SLOT_OUTPUT,
	                .role = ROLE_BIAS,
	                .name = "final_logits_bias",
	                .bare = true,
	                .row = true,
	                .optional = true },
	FAIRSEQ_LAYER,
	FAIRSEQ_CROSS,
};

/* clang-format off */
/* TensorFlow's names of a norm's gain and bias are in old folders. */
#define BERT_NORM(at, n) \
	NORM(at, n), \
	{ .slot = at, .role = ROLE_GAIN, .name = n ".gamma" }, \
	{ .slot = at, .role = ROLE_BIAS, .name = n ".beta" }

#define BERT_LAYER \
	LINEAR(SLOT_QKV, "attention.self.query", THIRD_Q), \
	LINEAR(SLOT_QKV, "attention.self.key", THIRD_K), \
	LINEAR(SLOT_QKV, "attention.self.value", THIRD_V), \
	LINEAR(SLOT_OUT, "attention.output.dense", WHOLE), \
	BERT_NORM(SLOT_ATTN_NORM, "attention.output.LayerNorm"), \
	LINEAR(SLOT_UP, "intermediate.dense", WHOLE), \
	LINEAR(SLOT_DOWN, "output.dense", WHOLE), \
	BERT_NORM(SLOT_FFN_NORM, "output.LayerNorm")

#define BERT_EMBEDDINGS \
	MATRIX(SLOT_POSITIONS, "embeddings.position_embeddings.weight"), \
	MATRIX(SLOT_TYPES, "embeddings.token_type_embeddings.weight"), \
	BERT_NORM(SLOT_EMBEDDING_NORM, "embeddings.LayerNorm")
/* clang-format on */

static const struct binding bert[] = {
	MATRIX(SLOT_EMBEDDING, "embeddings.word_embeddings.weight"),
	BARE_OUTPUT_NAME("cls.predictions.decoder.weight"),
	BERT_EMBEDDINGS,
	BARE_LINEAR(SLOT_MLM_DENSE, "cls.predictions.transform.dense"),
	{ .slot = SLOT_MLM_NORM,
	                .role = ROLE_GAIN,
	                .name = "cls.predictions.transform.LayerNorm.weight",
	                .bare = true },
	{ .slot = SLOT_MLM_NORM,
	                .role = ROLE_GAIN,
	                .name = "cls.predictions.transform.LayerNorm.gamma",
	                .bare = true },
	BARE_BIAS(SLOT_MLM_NORM, "cls.predictions.transform.LayerNorm.bias"),
	BARE_BIAS(SLOT_MLM_NORM, "cls.predictions.transform.LayerNorm.beta"),
	BARE(SLOT_OUTPUT, "cls.predictions.decoder.weight"),
	BARE_BIAS(SLOT_OUTPUT, "cls.predictions.bias"),
	BARE_BIAS(SLOT_OUTPUT, "cls.predictions.decoder.bias"),
	LINEAR(SLOT_CLASS_DENSE, "pooler.dense", WHOLE),
	BARE_LINEAR(SLOT_CLASS_OUT, "classifier"),
	BERT_LAYER,
};

static const struct binding roberta[] = {
	MATRIX(SLOT_EMBEDDING, "embeddings.word_embeddings.weight"),
	BARE_OUTPUT_NAME("lm_head.decoder.weight"),
	BERT_EMBEDDINGS,
	BARE_LINEAR(SLOT_MLM_DENSE, "lm_head.dense"),
	{ .slot = SLOT_MLM_NORM,
	                .role = ROLE_GAIN,
	                .name = "lm_head.layer_norm.weight",
	                .bare = true },
	BARE_BIAS(SLOT_MLM_NORM, "lm_head.layer_norm.bias"),
	BARE(SLOT_OUTPUT, "lm_head.decoder.weight"),
	BARE_BIAS(SLOT_OUTPUT, "lm_head.bias"),
	BARE_BIAS(SLOT_OUTPUT, "lm_head.decoder.bias"),
	BARE_LINEAR(SLOT_CLASS_DENSE, "classifier.dense"),
	BARE_LINEAR(SLOT_CLASS_OUT, "classifier.out_proj"),
	BERT_LAYER,
};

static const char *const model_prefixes[] = { "model.", "", NULL };
static const char *const bare_first[] = { "", "model.", NULL };
static const char *const transformer_prefixes[] = { "transformer.", "", NULL };
static const char *const bert_prefixes[] = { "bert.", "", NULL };
static const char *const roberta_prefixes[] = { "roberta.", "", NULL };

/* clang-format off */
#define STACK(layers, bindings) { layers, bindings, sizeof bindings / sizeof *bindings }
#define DECODER(layers, bindings) { [STACK_DECODER] = STACK(layers, bindings) }
#define ENCODER(layers, bindings) { [STACK_ENCODER] = STACK(layers, bindings) }
#define BOTH(encoder, decoder) \
	{ [STACK_ENCODER] = STACK("encoder.layers.", encoder), \
	  [STACK_DECODER] = STACK("decoder.layers.", decoder) }

const struct family_table *family_table(enum family family) {
	static const struct family_table tables[] = {
		[FAMILY_OPT] = { model_prefixes, DECODER("decoder.layers.", opt) },
		[FAMILY_GPT2] = { transformer_prefixes, DECODER("h.", gpt2) },
		[FAMILY_FATHOM_LM] = { bare_first, DECODER("decoder.layers.", fathom_lm) },
		[FAMILY_FATHOM_ENCODER] = { bare_first, ENCODER("encoder.layers.", fathom_encoder) },
		[FAMILY_FATHOM_SEQ2SEQ] = { bare_first, BOTH(seq2seq_encoder, seq2seq_decoder) },
		[FAMILY_ROBERTA] = { roberta_prefixes, ENCODER("encoder.layer.", roberta) },
		[FAMILY_BERT] = { bert_prefixes, ENCODER("encoder.layer.", bert) },
		[FAMILY_BART] = { model_prefixes, BOTH(seq2seq_encoder, bart_decoder) },
		[FAMILY_FSMT] = { model_prefixes, BOTH(seq2seq_encoder, seq2seq_decoder) },
		[FAMILY_M2M_100] = { model_prefixes, BOTH(seq2seq_encoder, bart_decoder) },
		[FAMILY_MARIAN] = { model_prefixes, BOTH(seq2seq_encoder, bart_decoder) },
	};
	return &tables[family];
}
/* clang-format on */
