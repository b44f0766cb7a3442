/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts: what config.json says about a checkpoint, in the terms of the one parametrised block.
 * Immutable.
 *
 * A family (Hugging Face's opt, bert, bart, ..., our own three) is a way to read config.json into
 * facts (facts_lm.c, facts_encoder.c, facts_seq2seq.c) and a table that says which tensor fills
 * which slot (family.c). Nothing else in the engine knows which family it runs.
 */
#ifndef FATHOM_MODEL_FACTS_H
#define FATHOM_MODEL_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/ops.h"
#include "model/plan.h"

enum family {
	FAMILY_OPT,
	FAMILY_GPT2,
	FAMILY_FATHOM_LM,
	FAMILY_FATHOM_ENCODER, /* fairseq's roberta */
	FAMILY_FATHOM_SEQ2SEQ, /* fairseq's transformer */
	FAMILY_ROBERTA,
	FAMILY_BERT,
	FAMILY_BART,
	FAMILY_FSMT,
	FAMILY_M2M_100,
	FAMILY_MARIAN,
};

/* What a checkpoint is for. */
enum model_kind {
	KIND_LM,      /* a decoder alone: continues and scores texts */
	KIND_ENCODER, /* an encoder alone: features, classes, masked tokens */
	KIND_SEQ2SEQ, /* an encoder and a decoder: from a source text to a target text */
};
enum norm_place { NORM_PRE, NORM_POST };
enum positions {
	POSITIONS_NONE,
	POSITIONS_LEARNED,
	POSITIONS_SINUSOIDAL,        /* fairseq's: frequencies 10000^(-j / (dim/2 - 1)) */
	POSITIONS_SINUSOIDAL_MARIAN, /* 10000^(-2j / dim) */
};

/* One stack of equal layers, and how its input is embedded. */
struct stack_facts {
	int layers; /* 0: the model has no such stack */
	int dim;
	int heads;
	int head_dim; /* dim / heads */
	int ffn;
	enum norm_place norm;
	bool final_norm;     /* a norm after the last layer */
	bool embedding_norm; /* a norm after the embedding */
	enum activation activation;
	float norm_eps;
	enum positions positions;
	int position_offset; /* row of the position table that the first token uses */
	int context;         /* most tokens of one text in this stack */
	int vocab;           /* rows of its token embedding */
	int token_types;     /* segment embeddings (BERT's text pairs); 0: none */
	int constant_types; /* rows of a table of which every token takes row 0: the loader adds it to
	                      * the positions; token_types is then 0 */
	bool cross;         /* every layer also attends to the encoder's output */
	float embed_scale; /* multiplies the token embedding */
	float layerdrop;   /* the rate it was trained with; 0: not, or unknown */
};

enum { MAX_BANDS = 8, MAX_CLASSIFIERS = 16 };

/*
 * Adaptive embedding or softmax: the vocabulary, most frequent words first, in bands of falling
 * width. Band b holds the tokens [end[b-1], end[b]) as vectors of dim[b]. n 0: one plain matrix.
 * Source: Grave et al. 2017, Baevski and Auli 2019, as fairseq implements them.
 */
struct band_facts {
	int n;
	int end[MAX_BANDS];
	int dim[MAX_BANDS];
};

/* A classification head: class scores = out(act(dense(first token's final state))). */
struct classifier_facts {
	char name[64];
	int classes;
	enum activation activation;
};

struct facts {
	enum family family;
	enum model_kind kind;
	struct stack_facts stack[STACKS];
	int vocab;        /* of the output scores */
	int context;      /* most tokens of one sequence: max_model_len */
	bool tied_output; /* the output matrix is the token embedding */
	bool output_bias;
	bool shared_embeddings;  /* seq2seq: the encoder's token embedding is the decoder's */
	struct band_facts input; /* of the decoder's embedding */
	struct band_facts output;
	bool tied_bands;       /* the output's bands are the input's */
	bool tied_projections; /* and so are the tails' projections */
	bool mlm_head;         /* encoder: dense, activation, norm, output matrix and bias */
	enum activation mlm_activation;
	int n_classifiers;
	struct classifier_facts classifiers[MAX_CLASSIFIERS];
	int32_t bos, eos, pad; /* -1: none */
	int32_t mask;          /* the masked token of an encoder; -1: none */
	int32_t decoder_start; /* seq2seq: the decoder's first input */
	int32_t forced_bos;    /* seq2seq: the first token of every answer; -1: none */
	bool mean_pooling; /* encoder: embeddings are the mean of all tokens, else the first's */
	int n_eos;         /* further end symbols: generation_config.json may list several */
	int32_t eos_ids[8];
	enum plan_rule plan_rule; /* the folder's own rule (`fathom_plan_rule` in config.json), else EVEN */
};

/*
 * Sampling defaults of the model folder (generation_config.json); absent file or key: OpenAI's
 * defaults.
 */
struct generation_defaults {
	double temperature, top_p,
	                repetition_penalty; /* 1, 1, 1; do_sample false means temperature 0 */
	int top_k;                          /* 0: off */
	int max_tokens;                     /* 0: the server's own default */
	int num_beams;                      /* seq2seq; 0: not said */
	double length_penalty;              /* 1 */
};

/*
 * Parses config.json. Unknown architectures, options that the engine cannot honour, and absurd
 * counts are refused with one sentence naming the key. Pure.
 */
bool facts_parse(const char *json, size_t len, struct facts *ret_facts, char *err, size_t errlen);

/*
 * Adds what generation_config.json says (end symbols, and of a seq2seq the decoder's start and
 * forced first token, to `facts`; sampling and beams to `ret_defaults`). json may be NULL.
 */
bool facts_parse_generation(const char *json, size_t len, struct facts *facts,
                struct generation_defaults *ret_defaults, char *err, size_t errlen);

/*
 * The defaults of a seq2seq folder without generation_config.json: beams and length penalty, which
 * older folders keep in config.json.
 */
bool facts_parse_old_generation(const char *json, size_t len, struct facts *facts,
                struct generation_defaults *ret_defaults, char *err, size_t errlen);

/* Of an encoder, how sentence-transformers' 1_Pooling/config.json says to pool. */
bool facts_parse_pooling(
                const char *json, size_t len, struct facts *facts, char *err, size_t errlen);

const char *facts_family_name(enum family family);

/*
 * Trainable parameters of the sub-network that keeps `depth` layers per stack, tied tensors counted
 * once, computed tables not at all: fairseq's "num. model params". Of a Hugging Face folder, the
 * sum over what is used (not, for instance, a pooler that feeds no head).
 */
uint64_t facts_parameters(const struct facts *facts, const int depth[STACKS]);

#endif
