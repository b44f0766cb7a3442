/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model folder that runs, and the numbers that PyTorch computed from it. What fails ends the test
 * that called.
 */
#ifndef FATHOM_TESTS_GOLDEN_H
#define FATHOM_TESTS_GOLDEN_H

#include "model/doc.h"
#include "model/model.h"
#include "model/sample.h"

enum { GOLDEN_ROWS = 64, GOLDEN_SEQUENCES = 12 };

struct golden {
	struct model *model;
	struct team *team;
	struct workspace *w;
	struct sampler *sampler;
};

/* With weights of another format than f32. */
struct golden golden_open_as(const char *dir, const struct ops *ops, enum weight_format format);
struct golden golden_open(const char *dir, const struct ops *ops);
void golden_close(struct golden *g);

/* The plan that an array of layers says; all layers if there is none. */
struct plan golden_plan(const struct doc *layers, int of);
/* Numbers of an array as tokens; returns how many. At most GOLDEN_ROWS. */
int golden_tokens(const struct doc *array, int32_t *ret_tokens);
double golden_number(const struct doc *object, const char *key, size_t i);
/* Fails unless `actual` is within 1e-4 of `wanted`, or within 1e-6 of its size. */
void golden_near(const char *where, const char *what, double actual, double wanted);

/* A step with the whole source of a sequence. */
void golden_encode(struct golden *g, struct sequence *s, const int32_t *tokens, int n);
/* A step with decoder rows for tokens[from..to); the logits of all of them, row after row. */
const float *golden_decode(
                struct golden *g, struct sequence *s, const int32_t *tokens, int from, int to);

/* Calls fn for every folder of tests/data that has `file`; returns how many there are. */
int golden_each_folder(const char *file, const struct ops *ops,
                void (*fn)(struct golden *g, const char *where, const struct doc *goldens));

#endif
