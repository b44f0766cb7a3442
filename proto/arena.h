/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is freed all at once: everything a parsed request points to. */
#ifndef FATHOM_PROTO_ARENA_H
#define FATHOM_PROTO_ARENA_H

#include <stddef.h>

struct arena;

struct arena *arena_create(void); /* NULL: out of memory */
void arena_destroy(struct arena *a);
/* `count` zeroed items of `size` bytes, aligned for any type; NULL: out of memory. */
void *arena_alloc(struct arena *a, size_t count, size_t size);
/* A NUL-terminated copy of s[0..len). */
char *arena_copy(struct arena *a, const char *s, size_t len);

#endif
