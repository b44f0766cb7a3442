/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts: what config.json says about a checkpoint, in the terms of the one parametrised block.
 * Immutable.
 *
 * A family (HF opt, HF gpt2, our own fathom_lm, later encoders and encoder-decoders) is a way to
 * read config.json into facts (facts.c) and a table that says which tensor fills which slot
 * (family.c). Nothing else in the engine knows which family it runs.
 */
#ifndef FATHOM_MODEL_FACTS_H
#define FATHOM_MODEL_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/ops.h"
#include "model/plan.h"

enum family { FAMILY_OPT, FAMILY_GPT2, FAMILY_FATHOM_LM };
enum norm_place { NORM_PRE, NORM_POST };
enum positions { POSITIONS_NONE, POSITIONS_LEARNED, POSITIONS_SINUSOIDAL };

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
	float embed_scale;   /* multiplies the token embedding */
	float layerdrop;     /* the rate it was trained with; 0: not, or unknown */
};

struct facts {
	enum family family;
	struct stack_facts stack[STACKS];
	int vocab;
	int context;           /* most tokens of one sequence: max_model_len */
	bool tied_output;      /* the output matrix is the token embedding */
	int32_t bos, eos, pad; /* -1: none */
	int n_eos;             /* further end symbols: generation_config.json may list several */
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
};

/*
 * Parses config.json. Unknown architectures, options that the engine cannot honour, and absurd
 * counts are refused with one sentence naming the key. Pure.
 */
bool facts_parse(const char *json, size_t len, struct facts *ret_facts, char *err, size_t errlen);

/*
 * Adds what generation_config.json says (end symbols to `facts`, sampling to `ret_defaults`). json
 * may be NULL.
 */
bool facts_parse_generation(const char *json, size_t len, struct facts *facts,
                struct generation_defaults *ret_defaults, char *err, size_t errlen);

const char *facts_family_name(enum family family);

/*
 * Trainable parameters of the sub-network that keeps `depth` layers per stack, tied tensors counted
 * once.
 */
uint64_t facts_parameters(const struct facts *facts, const int depth[STACKS]);

#endif
