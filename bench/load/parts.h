/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of loads. */
#ifndef FATHOM_BENCH_LOAD_PARTS_H
#define FATHOM_BENCH_LOAD_PARTS_H

#include "bench/load/load.h"

/* The next number of SplitMix64. */
uint64_t load_split(uint64_t *state);

/* The word, with dashes or underscores; NULL if there is none in this place. */
const struct load_word *load_find_word(const char *name, size_t len, bool in_class);
/* Sets one value of `object`: a struct load, or a struct load_class for a word of classes. */
bool load_word_set(const struct load_word *word, void *object, const char *text, char *err,
                size_t errlen);
/* The value as JSON. */
void load_word_put(const struct load_word *word, const void *object, struct buffer *out);
/* Copies the value. */
void load_word_copy(const struct load_word *word, void *to, const void *from);
/* The bit of a class's word in load_class.set. */
uint32_t load_word_bit(const struct load_word *word);

/* One class of the list that "mix" is; what is not set comes from the base later. NULL with a
 * sentence. */
struct load_class *load_add_class(struct load *load, char *err, size_t errlen);

/* load_draw of a request whose class is known. */
void load_draw_class(const struct load *load, uint64_t index, int kind, struct load_request *ret);
/* load_schedule of trace arrivals. */
bool load_read_trace(struct load *load, struct load_request **ret, size_t *ret_n, char *err,
                size_t errlen);

/* A whole file. False with a sentence. */
bool load_slurp(const char *path, struct buffer *out, char *err, size_t errlen);

/* To whole microseconds. */
double load_round_us(double ms);

#endif
