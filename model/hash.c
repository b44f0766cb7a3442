/* SPDX-License-Identifier: Apache-2.0 */
/* XXH64, as doc/xxhash_spec.md of its project has it. Numbers are read as little-endian. */
#include "model/hash.h"

#include <string.h>

static const uint64_t prime1 = 0x9e3779b185ebca87u, prime2 = 0xc2b2ae3d27d4eb4fu,
                      prime3 = 0x165667b19e3779f9u, prime4 = 0x85ebca77c2b2ae63u,
                      prime5 = 0x27d4eb2f165667c5u;

enum { STRIPE = 32, LANES = 4 };

static uint64_t turn_left(uint64_t x, int bits) {
	return x << bits | x >> (64 - bits);
}

static uint64_t read64(const unsigned char *p) {
	uint64_t x;
	memcpy(&x, p, sizeof x);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	x = __builtin_bswap64(x);
#endif
	return x;
}

static uint32_t read32(const unsigned char *p) {
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t round_of(uint64_t lane, uint64_t input) {
	return turn_left(lane + input * prime2, 31) * prime1;
}

/* The whole stripes; *p is moved behind them. */
static uint64_t hash_stripes(const unsigned char **p, size_t stripes, uint64_t seed) {
	uint64_t lanes[LANES] = { seed + prime1 + prime2, seed + prime2, seed, seed - prime1 };
	const unsigned char *at = *p;
	for (size_t i = 0; i < stripes; i++, at += STRIPE) {
		lanes[0] = round_of(lanes[0], read64(at));
		lanes[1] = round_of(lanes[1], read64(at + 8));
		lanes[2] = round_of(lanes[2], read64(at + 16));
		lanes[3] = round_of(lanes[3], read64(at + 24));
	}
	*p = at;
	uint64_t hash = turn_left(lanes[0], 1) + turn_left(lanes[1], 7) + turn_left(lanes[2], 12)
	                + turn_left(lanes[3], 18);
	for (int i = 0; i < LANES; i++)
		hash = (hash ^ round_of(0, lanes[i])) * prime1 + prime4;
	return hash;
}

uint64_t hash_bytes(const void *mem, size_t len, uint64_t seed) {
	const unsigned char *p = mem;
	uint64_t hash = len < STRIPE ? seed + prime5 : hash_stripes(&p, len / STRIPE, seed);
	size_t left = len % STRIPE;
	hash += len;
	for (; left >= 8; left -= 8, p += 8)
		hash = turn_left(hash ^ round_of(0, read64(p)), 27) * prime1 + prime4;
	if (left >= 4) {
		hash = turn_left(hash ^ read32(p) * prime1, 23) * prime2 + prime3;
		left -= 4;
		p += 4;
	}
	for (; left > 0; left--)
		hash = turn_left(hash ^ *p++ * prime5, 11) * prime1;
	hash = (hash ^ hash >> 33) * prime2;
	hash = (hash ^ hash >> 29) * prime3;
	return hash ^ hash >> 32;
}
