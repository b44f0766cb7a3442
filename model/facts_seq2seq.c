/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts of encoder-decoders: our own fathom_seq2seq (fairseq's transformer), and Hugging Face's
 * bart, fsmt, m2m_100 and marian, which are the same block with different constants.
 */
#include "model/facts_read.h"

#include <math.h>

/* The decoder's first input, and the first token of every answer if there is one. */
static void read_start(struct doc_reader *r, struct facts *facts, int32_t start) {
	facts->decoder_start = facts_read_token(r, "decoder_start_token_id", facts->vocab, start);
	facts->forced_bos = facts_read_token(r, "forced_bos_token_id", facts->vocab, -1);
	if (facts->decoder_start < 0)
		doc_fail(r, "\"decoder_start_token_id\" is missing");
	if (facts->eos < 0)
		doc_fail(r, "\"eos_token_id\" is missing");
}

void facts_read_fathom_seq2seq(
                struct doc_reader *r, struct facts *facts, const char *architecture) {
	(void)architecture;
	static const char *const names[STACKS] = { "encoder", "decoder" };
	char file[64];
	for (int i = 0; i < STACKS; i++) {
		struct doc_reader in = facts_enter(r, names[i], file, sizeof file);
		facts_read_stack(&in, &facts->stack[i]);
		facts_leave(r, &in);
	}
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	facts->stack[STACK_ENCODER].vocab =
	                (int)doc_read_int(r, "source_vocab_size", 1, MAX_VOCAB, facts->vocab);
	facts->shared_embeddings = doc_read_bool(r, "share_embeddings", false);
	facts_read_tokens(r, facts, -1, 2, -1);
	read_start(r, facts, 2);
}

/* ---- Hugging Face ---- */

/* One side's counts, whose keys begin with its name. */
static void read_side(struct doc_reader *r, struct facts *facts, enum stack stack) {
	static const struct {
		const char *layers, *heads, *ffn, *layerdrop;
	} keys[STACKS] = {
		{ "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim",
		                "encoder_layerdrop" },
		{ "decoder_layers", "decoder_attention_heads", "decoder_ffn_dim",
		                "decoder_layerdrop" },
	};
	struct stack_facts *s = &facts->stack[stack];
	s->dim = (int)doc_need_int(r, "d_model", 1, MAX_DIM);
	s->layers = (int)doc_need_int(r, keys[stack].layers, 1, MAX_LAYERS);
	s->heads = (int)doc_need_int(r, keys[stack].heads, 1, MAX_DIM);
	s->ffn = (int)doc_need_int(r, keys[stack].ffn, 1, MAX_FFN);
	s->layerdrop = (float)doc_read_number(r, keys[stack].layerdrop, 0, 1, 0);
	s->context = (int)doc_need_int(r, "max_position_embeddings", 1, MAX_CONTEXT);
	s->norm_eps = 1e-5f;
	s->embed_scale = doc_read_bool(r, "scale_embedding", false) ? (float)sqrt(s->dim) : 1;
}

static void read_sides(struct doc_reader *r, struct facts *facts, const char *activation) {
	static const char *const foreign[] = { "is_decoder", NULL };
	for (int i = 0; i < STACKS; i++) {
		read_side(r, facts, (enum stack)i);
		facts_read_activation(
		                r, "activation_function", activation, &facts->stack[i].activation);
	}
	facts_refuse(r, foreign);
}

static void set_positions(struct facts *facts, enum positions positions, int offset) {
	for (int i = 0; i < STACKS; i++) {
		facts->stack[i].positions = positions;
		facts->stack[i].position_offset = offset;
	}
}

/* Refuses BART's variants, which the library has had under other classes. */
static void plain_post_norm(struct doc_reader *r) {
	facts_only(r, "normalize_before", false);
	facts_only(r, "add_final_layer_norm", false);
}

void facts_read_bart(struct doc_reader *r, struct facts *facts, const char *architecture) {
	(void)architecture;
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	read_sides(r, facts, "gelu");
	plain_post_norm(r);
	facts_only(r, "normalize_embedding", true);
	facts_only(r, "static_position_embeddings", false);
	for (int i = 0; i < STACKS; i++) {
		facts->stack[i].norm = NORM_POST;
		facts->stack[i].embedding_norm = true;
	}
	set_positions(facts, POSITIONS_LEARNED, 2);
	facts->shared_embeddings = true;
	facts->output_bias = true;
	facts_read_tokens(r, facts, 0, 2, 1);
	read_start(r, facts, 2);
	/* The same wish as old folders express it. */
	if (facts->forced_bos < 0 && doc_read_bool(r, "force_bos_token_to_be_generated", false))
		facts->forced_bos = facts->bos;
}

/* Row pad + 1 is the first token's in fairseq's tables, whatever the padding id. */
static void set_fairseq_sinusoids(struct doc_reader *r, struct facts *facts) {
	int pad = (int)doc_read_int(r, "pad_token_id", 0, MAX_OFFSET - 1, 1);
	set_positions(facts, POSITIONS_SINUSOIDAL, pad + 1);
}

/*
 * The output is the decoder's embedding whatever "tie_word_embeddings" says; that key is about the
 * encoder's.
 */
void facts_read_fsmt(struct doc_reader *r, struct facts *facts, const char *architecture) {
	(void)architecture;
	facts->vocab = (int)doc_need_int(r, "tgt_vocab_size", 1, MAX_VOCAB);
	facts->stack[STACK_ENCODER].vocab = (int)doc_need_int(r, "src_vocab_size", 1, MAX_VOCAB);
	read_sides(r, facts, "relu");
	plain_post_norm(r);
	facts->stack[STACK_ENCODER].norm = facts->stack[STACK_DECODER].norm = NORM_POST;
	if (doc_kind(doc_get(r->object, "scale_embedding")) == DOC_ABSENT) {
		for (int i = 0; i < STACKS; i++)
			facts->stack[i].embed_scale = (float)sqrt(facts->stack[i].dim);
	}
	set_fairseq_sinusoids(r, facts);
	facts->tied_output = true;
	facts->shared_embeddings = doc_read_bool(r, "tie_word_embeddings", false);
	facts_read_tokens(r, facts, 0, 2, 1);
	read_start(r, facts, 2);
}

void facts_read_m2m_100(struct doc_reader *r, struct facts *facts, const char *architecture) {
	(void)architecture;
	facts->vocab = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	read_sides(r, facts, "relu");
	facts_only(r, "normalize_before", true);
	facts_only(r, "add_final_layer_norm", true);
	facts_only(r, "normalize_embedding", false);
	for (int i = 0; i < STACKS; i++) {
		struct stack_facts *s = &facts->stack[i];
		s->norm = NORM_PRE;
		s->final_norm = true;
		if (doc_kind(doc_get(r->object, "scale_embedding")) == DOC_ABSENT)
			s->embed_scale = (float)sqrt(s->dim);
	}
	set_fairseq_sinusoids(r, facts);
	facts->shared_embeddings = true;
	facts_read_tokens(r, facts, 0, 2, 1);
	read_start(r, facts, 2);
}

void facts_read_marian(struct doc_reader *r, struct facts *facts, const char *architecture) {
	(void)architecture;
	int source = (int)doc_need_int(r, "vocab_size", 1, MAX_VOCAB);
	facts->stack[STACK_ENCODER].vocab = source;
	facts->vocab = (int)doc_read_int(r, "decoder_vocab_size", 1, MAX_VOCAB, source);
	read_sides(r, facts, "gelu");
	plain_post_norm(r);
	facts_only(r, "normalize_embedding", false);
	facts->stack[STACK_ENCODER].norm = facts->stack[STACK_DECODER].norm = NORM_POST;
	set_positions(facts, POSITIONS_SINUSOIDAL_MARIAN, 0);
	facts->shared_embeddings = doc_read_bool(r, "share_encoder_decoder_embeddings", true);
	facts->output_bias = true;
	facts_read_tokens(r, facts, -1, 0, 58100);
	read_start(r, facts, facts->pad);
}
