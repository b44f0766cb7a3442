/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine's bench times: points, how long each takes, and what it reads and computes. */
#ifndef FATHOM_BENCH_ENGINE_H
#define FATHOM_BENCH_ENGINE_H

#include <stddef.h>

#include "model/model.h"

enum {
	ENGINE_ROUNDS = 64, /* at most */
	ENGINE_POINTS = 48,
	ENGINE_PREFILL = 512, /* tokens of the longest prompt */
	ENGINE_TURNS = 12,    /* decode steps of one timing */
};

/* A model folder, loaded, and what runs it. */
struct engine_bench {
	struct model *model;
	struct team *team;
	struct workspace *w;
	enum kv_format kv; /* resolved */
	int layers;
	int context; /* positions before the first decoded token */
};

enum engine_kind {
	ENGINE_PREFILL_ONE, /* a prompt of `count` tokens, and the logits of its last row */
	ENGINE_DECODE,      /* one step over `count` sequences at `depth` layers */
	ENGINE_DEPTH,       /* the same with one sequence, at several depths */
	ENGINE_MIXED,       /* one step over `count` sequences each at N, N/2 and N/4 layers */
	ENGINE_IN_TURN,     /* these depths as a batch each */
	ENGINE_ENCODE,      /* one step over `count` texts of `length` tokens */
	ENGINE_KINDS
};

/* One thing that is timed in every round. */
struct engine_point {
	enum engine_kind kind;
	int count, length, depth;
	double seconds[ENGINE_ROUNDS];
	double memory_share[ENGINE_ROUNDS], peak_share[ENGINE_ROUNDS];
	double busy[ENGINE_ROUNDS]; /* of the processors, as engine_time has it */
};

/* "prefill", "decode", "depth", "mixed", "in_turn", "encode". */
const char *engine_kind_name(enum engine_kind kind);

/* Loads nothing itself: needs `model` and `team`. False with a sentence in err. */
bool engine_bench_prepare(struct engine_bench *b, enum kv_format kv, char *err, size_t errlen);

/*
 * The points that `wanted` names, such as "prefill:128,decode,encode:8x128", and those of the model's
 * kind for NULL. Returns how many, -1 if a word is not known. Points that the model has not the
 * context for are left out.
 */
int engine_points(const struct engine_bench *b, const char *wanted,
                struct engine_point points[ENGINE_POINTS]);

/*
 * Runs the point once. `busy` is the processor time that the process got of all that its threads
 * could have had: below 1 where other processes took some.
 */
struct engine_time {
	double seconds; /* of one step */
	double busy;
};
struct engine_time engine_time(struct engine_bench *b, const struct engine_point *p);

/* What a point must read and compute at least, of a step. */
struct engine_work {
	double weight_bytes, kv_bytes;
	double products;  /* operations with weights; a multiplication and an addition are two */
	double attention; /* operations with keys and values, which are f32 */
};
struct engine_work engine_work_of(const struct engine_bench *b, const struct engine_point *p);

#endif
