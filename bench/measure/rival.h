/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Those who multiply in bench-kernels: our tables, OpenBLAS (which is a table too) and oneDNN. Each
 * has an arena with many copies of its weights, far larger than the caches, and goes on with the
 * next copy in every product, so that weights come from memory as they do in a model.
 */
#ifndef FATHOM_BENCH_RIVAL_H
#define FATHOM_BENCH_RIVAL_H

#include "model/ops.h"
#include "model/team.h"

enum { ARENA_BYTES = 320 << 20 };

/* y[rows, n_out] = x W + bias. */
struct product_case {
	enum weight_format format;
	enum activation activation;
	int n_in, n_out, rows;
	const float *weights; /* [n_out][n_in] */
	const float *x;       /* [rows][n_in] */
	const float *bias;    /* [n_out] */
	float *y;             /* rows of n_out + some floats */
};

struct rival {
	char name[64];
	/* Packs the weights and makes the inputs. False where it has no such product. */
	bool (*prepare)(struct rival *rival, const struct product_case *c);
	/* As many products, each with another copy of the weights. */
	void (*run)(struct rival *rival, int turns);
	/* Returns when no thread of it runs any more. */
	void (*rest)(struct rival *rival);
	void (*destroy)(struct rival *rival);
};

/* NULL without memory, or where it is not built. */
struct rival *rival_table(const struct ops *ops, struct team *team);
struct rival *rival_onednn(int threads);

/* Fills the arena with copies of its first `bytes`, each at a multiple of 4096; how many there are. */
size_t arena_fill(void *arena, size_t bytes);
size_t arena_stride(size_t bytes);
/* ARENA_BYTES of memory in large pages; NULL without. */
void *arena_create(void);

#endif
