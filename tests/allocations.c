/* SPDX-License-Identifier: Apache-2.0 */
/* The linker's --wrap sends every allocation of the program through these. */
#include "tests/allocations.h"

#include <stddef.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);

static int count;

int allocations(void) {
	return __atomic_load_n(&count, __ATOMIC_RELAXED);
}

void *__wrap_malloc(size_t n) {
	__atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
	return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
	__atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
	return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n) {
	__atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
	return __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t alignment, size_t n) {
	__atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
	return __real_aligned_alloc(alignment, n);
}
