/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marks: what the prefix cache of an engine probably holds, for other threads to guess from. One
 * mark for each text of whole tiles, at a place that its hash gives; two texts of one place push each
 * other out. So a guess may be too short, and with a chance of one in four thousand million per tile
 * too long. It decides nothing but predictions.
 */
#ifndef FATHOM_SERVER_MARKS_H
#define FATHOM_SERVER_MARKS_H

#include "model/prefix.h"

struct marks;

/* For a cache of so many blocks. NULL if memory ran out. */
struct marks *marks_create(size_t blocks);
void marks_destroy(struct marks *marks);

/* As prefix_watch tells it. One thread. */
void marks_note(void *marks, uint64_t hash, bool held);

/* As prefix_find. Any thread. */
int marks_find(const struct marks *marks, const struct plan *plan, const struct prefix_scope *scope,
                const int32_t *tokens, int n);

#endif
