/* SPDX-License-Identifier: Apache-2.0 */
/* The integers of model/vector_int_avx512.h over portable vectors, lane by lane and byte by byte. */

union parts {
	vec v;
	int32_t words[16];
	int16_t halves[32];
	int8_t bytes[64];
	uint8_t unsigned_bytes[64];
};

static __attribute__((noinline)) vec vec_set_bits(const void *p) {
	union parts l;
	for (int i = 0; i < LANES; i++)
		memcpy(&l.words[i], p, sizeof *l.words);
	return l.v;
}

static inline vec vec_int_add(vec a, vec b) {
	return (vec)((vec_bits)a + (vec_bits)b);
}

static __attribute__((noinline)) vec vec_int_max(vec a, vec b) {
	return vec_choose((vec_mask)a > (vec_mask)b, a, b);
}

static __attribute__((noinline)) vec vec_from_int(vec a) {
	union parts l = { .v = a };
	vec floats;
	for (int i = 0; i < LANES; i++)
		floats[i] = (float)l.words[i];
	return floats;
}

static __attribute__((noinline)) vec vec_from_int16(const void *p) {
	int16_t from[LANES];
	vec floats;
	memcpy(from, p, sizeof from);
	for (int i = 0; i < LANES; i++)
		floats[i] = (float)from[i];
	return floats;
}

static inline void vec_store_bytes(int8_t *to, vec v) {
	union parts l = { .v = v };
	for (int i = 0; i < LANES; i++)
		to[i] = l.bytes[4 * i];
}

static inline vec vec_even_bytes(vec v) {
	return (vec)((vec_bits)v & 0x00ff00ffu);
}

static inline vec vec_odd_bytes(vec v) {
	return (vec)((vec_bits)v >> 8 & 0x00ff00ffu);
}

static __attribute__((noinline, unused)) vec vec_dot_pairs(vec a, vec b, vec sum) {
	union parts x = { .v = a }, y = { .v = b };
	vec_bits to = (vec_bits)sum;
	for (int i = 0; i < 2 * LANES; i++)
		to[i / 2] += (uint32_t)(x.halves[i] * y.halves[i]);
	return (vec)to;
}

static inline vec vec_low_halves(vec v) {
	return (vec)((vec_bits)v & 0x0f0f0f0fu);
}

static inline vec vec_high_halves(vec v) {
	return (vec)((vec_bits)v >> 4 & 0x0f0f0f0fu);
}

/* VPMADDUBSW, which saturates, and VPADDW, which does not. */
static __attribute__((noinline, unused)) vec vec_dot_halves(vec u, vec s, vec sum) {
	union parts x = { .v = u }, y = { .v = s }, to = { .v = sum };
	for (int i = 0; i < 2 * LANES; i++) {
		int pair = x.unsigned_bytes[2 * i] * y.bytes[2 * i]
		                + x.unsigned_bytes[2 * i + 1] * y.bytes[2 * i + 1];
		pair = pair > INT16_MAX ? INT16_MAX : pair < INT16_MIN ? INT16_MIN : pair;
		to.halves[i] = (int16_t)((uint32_t)to.halves[i] + (uint32_t)pair);
	}
	return to.v;
}

static __attribute__((noinline, unused)) vec vec_join_pairs(vec v) {
	union parts l = { .v = v };
	for (int i = 0; i < LANES; i++)
		l.words[i] = l.halves[2 * i] + l.halves[2 * i + 1];
	return l.v;
}

static inline uint32_t bytes_sums(const int8_t *from) {
	int sums[2] = { 0 };
	for (int k = 0; k < 32; k++)
		sums[k % 4 / 2] += from[k];
	return (uint32_t)sums[1] << 16 | ((uint32_t)sums[0] & 0xffff);
}

static inline void bytes_spread(const int8_t *from, int16_t *to) {
	static const int order[] = { 0, 2, 1, 3 };
	for (int k = 0; k < 16; k++)
		to[k] = from[k / 4 * 4 + order[k % 4]];
}
