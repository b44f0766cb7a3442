/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging neighbours: what every kind of byte-pair encoding has in common.
 *
 * Sennrich, Haddow, Birch 2016: while some neighbours have a merge, merge those whose merge has the
 * lowest rank, the leftmost first. A heap makes this O(n log n) in the symbols of a word. Symbols
 * are numbers; what they stand for is the caller's. Immutable once it is filled.
 */
#ifndef FATHOM_MODEL_MERGES_H
#define FATHOM_MODEL_MERGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct merges;

#define MERGES_NONE UINT32_MAX

struct merge_symbol {
	int32_t id;
	uint32_t prev, next; /* MERGES_NONE at the ends */
	uint32_t rank;       /* of the merge with `next`; MERGES_NONE: there is none */
};

/* Scratch of one thread; zero it first. Grows as needed. */
struct merges_scratch {
	struct merge_symbol *symbols; /* [capacity] */
	uint64_t *heap;               /* [4 * capacity] */
	size_t capacity;
};

/*
 * What happens to a pair that stands in several places: libraries differ where a merge makes a pair
 * of lower rank than its own.
 */
enum merges_order {
	MERGES_SINGLY, /* one place, then the lowest rank again: Hugging Face tokenizers, tiktoken */
	MERGES_TOGETHER, /* all places that do not overlap, then the lowest rank again: GPT-2's
	                    encoder.py, subword-nmt */
};

/* NULL if memory ran out. */
struct merges *merges_create(void);
void merges_destroy(struct merges *m);

/* Gives the pair the next rank; if it has one already, it takes the new one. False: no memory. */
bool merges_add(struct merges *m, int32_t left, int32_t right, int32_t result);
bool merges_has(const struct merges *m, int32_t left, int32_t right);
/* The number of ranks given so far. */
uint32_t merges_count(const struct merges *m);

/* Room for n symbols, n < 2^31. False: no memory; the scratch stays usable. */
bool merges_reserve(struct merges_scratch *scratch, size_t n);
void merges_scratch_finish(struct merges_scratch *scratch);

/*
 * Merges scratch->symbols[0..n), n >= 1, whose ids the caller has set. What is left is the list that
 * begins at symbols[0] and goes on by `next`.
 */
void merges_run(const struct merges *m, enum merges_order order, struct merges_scratch *scratch,
                size_t n);

#endif
