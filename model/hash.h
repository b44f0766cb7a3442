/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 64-bit hash of bytes, to tell files and texts apart that differ by accident; it is no defence
 * against somebody who makes them so. Yann Collet's XXH64 (github.com/Cyan4973/xxHash). Pure.
 */
#ifndef FATHOM_MODEL_HASH_H
#define FATHOM_MODEL_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Of several pieces: the hash of one is the seed of the next. */
uint64_t hash_bytes(const void *mem, size_t len, uint64_t seed);

#endif
