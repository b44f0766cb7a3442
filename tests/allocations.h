/* SPDX-License-Identifier: Apache-2.0 */
/* Counts the allocations of a program that the linker sends here (tests/meson.build). */
#ifndef FATHOM_TESTS_ALLOCATIONS_H
#define FATHOM_TESTS_ALLOCATIONS_H

/* Allocations of all threads so far. */
int allocations(void);

#endif
