/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights: every tensor of the checkpoint, packed once for the kernel table in use. Immutable and
 * shared by all threads; one allocation or mapped file ("arena") holds everything. Norm parameters,
 * biases and position tables stay plain f32.
 */
#ifndef FATHOM_MODEL_WEIGHTS_H
#define FATHOM_MODEL_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>

#include "model/facts.h"
#include "model/ops.h"
#include "model/packed.h"

struct norm_weights {
	const float *gain, *bias; /* [dim]; NULL if the model has no such norm */
};

struct linear_weights {
	struct matrix w;
	const float *bias; /* [n_out] or NULL */
};

/*
 * One layer of the parametrised block. Pre-norm: x += attn(norm(x)); x += ffn(norm(x)). Post-norm:
 * x = norm(x + f(x)).
 */
struct layer_weights {
	struct norm_weights attn_norm; /* pre: before attention; post: after its residual */
	struct linear_weights qkv;     /* [3 dim, dim]: q rows, k rows, v rows */
	struct linear_weights out;     /* [dim, dim] */
	/* Only where the layer attends to the encoder's output: */
	struct norm_weights cross_norm;
	struct linear_weights cross_q;   /* [dim, dim] */
	struct linear_weights cross_kv;  /* [2 dim, dim of the encoder]: k rows, v rows */
	struct linear_weights cross_out; /* [dim, dim] */
	struct norm_weights ffn_norm;
	struct linear_weights up;   /* [ffn, dim] */
	struct linear_weights down; /* [dim, ffn] */
};

/* A band of an adaptive embedding. */
struct band_weights {
	struct matrix table;           /* [size, dim_b] */
	struct linear_weights project; /* [dim, dim_b]; never a bias */
};

/*
 * An adaptive softmax. Score of a token in band 0: log-softmax over [words | classes] of the head;
 * in band b > 0: log-softmax(tail[b-1](reduce[b-1](x))) + the head's log-probability of class b-1.
 */
struct adaptive_weights {
	struct linear_weights words;                 /* [end[0], dim] */
	struct linear_weights classes;               /* [n - 1, dim] */
	struct linear_weights reduce[MAX_BANDS - 1]; /* [dim_b, dim] */
	struct linear_weights tail[MAX_BANDS - 1];   /* [size_b, dim_b] */
};

/* The masked-LM head's own part: weights.output is its matrix and bias. */
struct mlm_weights {
	struct linear_weights dense; /* [dim, dim] */
	struct norm_weights norm;
};

struct classifier_weights {
	struct linear_weights dense; /* [dim, dim] */
	struct linear_weights out;   /* [classes, dim] */
};

struct stack_weights {
	struct layer_weights *layers; /* [facts.stack[s].layers] */
	struct matrix embedding; /* [vocab, dim]: token embedding, rows read with ops->unpack_row */
	struct band_weights *bands; /* [facts.input.n] in place of `embedding`; NULL: plain */
	const float *types;         /* [token_types, dim] or NULL */
	/* [position_offset + context, dim], learned or computed sinusoids; NULL: none. */
	const float *positions;
	struct norm_weights embedding_norm, final_norm;
};

struct weights {
	struct stack_weights stack[STACKS];
	struct linear_weights output;     /* [vocab, dim]; tied: the same panels as the embedding */
	struct adaptive_weights adaptive; /* in place of `output` if facts.output.n > 0 */
	struct mlm_weights mlm;           /* if facts.mlm_head */
	struct classifier_weights classifiers[MAX_CLASSIFIERS]; /* [facts.n_classifiers] */
	const char *dtype;         /* of most of the checkpoint's numbers: "f32", "f16", "bf16" */
	enum weight_format format; /* of the layers' matrices */
	void *arena;               /* owned; NULL: the packed file is mapped */
	struct packed_map map;
	struct packed_identity identity; /* bytes 0: not asked for */
	enum packed_found packed;
	char packed_why[200];       /* of PACKED_REFUSED */
	size_t bytes;               /* of the arena */
	size_t layer_bytes[STACKS]; /* packed bytes of one layer */
	size_t fixed_bytes; /* packed bytes that every depth reads or holds: embedding, head, norms */
	size_t vocabulary_bytes; /* of these, the matrices over the vocabulary */
};

enum packed_use {
	PACKED_IGNORED,
	PACKED_READ,     /* used if it suits by sizes, times and headers */
	PACKED_VERIFIED, /* and if all of its content is sound */
};

struct weights_options {
	const struct ops *ops;
	enum weight_format
	                format; /* of matrices of layers and vocabularies; AUTO: the checkpoint's */
	int threads;            /* that pack side by side */
	enum packed_use packed;
	/* Called by the caller's thread now and then while packing; may be NULL. */
	void (*progress)(void *arg, double share);
	void *progress_arg;
};

/*
 * Loads model.safetensors, or the shards that model.safetensors.index.json names, from `dir`,
 * checks every tensor against `facts` and packs it for the table, or maps the packed file. The
 * checkpoint's files are mapped only while packing, and what has been packed of them is let go. A bad
 * file gets one sentence naming the file and the tensor.
 */
bool weights_load(const char *dir, const struct facts *facts, const struct weights_options *options,
                struct weights *ret_weights, char *err, size_t errlen);
void weights_finish(struct weights *weights);

/* Where the packed bytes go. */
struct weight_sizes {
	enum weight_format format;
	size_t layers, vocabulary /* embedding and head */, other;
};

struct weight_sizes weights_sizes(const struct weights *weights);

/* The same of a folder that is not loaded: only its headers are read. */
bool weights_measure(const char *dir, const struct facts *facts, const struct ops *ops,
                enum weight_format format, struct weight_sizes *ret_sizes, char *err,
                size_t errlen);

/*
 * Writes the packed file for the next start; only of weights that were packed, and loaded with
 * PACKED_READ or PACKED_VERIFIED. Goes on as long as `go_on(arg)` says so. Any thread, while the
 * weights are in use.
 */
bool weights_keep(const struct weights *weights, const struct ops *ops, const char *dir,
                bool (*go_on)(void *arg), void *arg, char *err, size_t errlen);

#endif
