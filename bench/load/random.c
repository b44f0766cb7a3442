/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers of loads: xoshiro256** (Blackman, Vigna 2018), seeded by SplitMix64, so that a seed
 * means the same load whatever the C library.
 */
#include <math.h>

#include "bench/load/parts.h"

#define MOST_SHAPE 1e12 /* of a gamma distribution; beyond, nothing is left of its spread */

uint64_t load_split(uint64_t *state) {
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void load_random_init(struct load_random *random, uint64_t seed) {
	for (int i = 0; i < 4; i++)
		random->state[i] = load_split(&seed);
}

static uint64_t rotate(uint64_t x, int by) {
	return x << by | x >> (64 - by);
}

uint64_t load_random_next(struct load_random *random) {
	uint64_t *s = random->state;
	uint64_t result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotate(s[3], 45);
	return result;
}

double load_random_unit(struct load_random *random) {
	return (double)(load_random_next(random) >> 11) * 0x1p-53;
}

/* In (0, 1]: fit for a logarithm. */
static double positive_unit(struct load_random *random) {
	return 1 - load_random_unit(random);
}

uint64_t load_random_below(struct load_random *random, uint64_t n) {
	return (uint64_t)((unsigned __int128)load_random_next(random) * n >> 64);
}

/* Box and Muller 1958; the second value is not kept, so that a call is a function of the state. */
double load_random_normal(struct load_random *random) {
	double radius = sqrt(-2 * log(positive_unit(random)));
	return radius * cos(2 * M_PI * load_random_unit(random));
}

/* Marsaglia, Tsang 2000, for a shape of at least 1. */
static double gamma_above_one(struct load_random *random, double shape) {
	double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
	for (;;) {
		double x = load_random_normal(random), v = 1 + c * x;
		if (v <= 0)
			continue;
		v = v * v * v;
		if (log(positive_unit(random)) < 0.5 * x * x + d - d * v + d * log(v))
			return d * v;
	}
}

double load_random_gamma(struct load_random *random, double cv) {
	if (cv <= 0)
		return 1;
	if (cv == 1)
		return -log(positive_unit(random));
	double shape = 1 / (cv * cv);
	if (shape > MOST_SHAPE)
		return 1;
	if (shape >= 1)
		return gamma_above_one(random, shape) / shape;
	/* A smaller shape: the same paper's note at its end. */
	double above = gamma_above_one(random, shape + 1);
	return above * pow(positive_unit(random), 1 / shape) / shape;
}
