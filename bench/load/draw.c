/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests drawn from a load. What request i asks for is a function of seed and i, field by field,
 * so that neither another rate nor another budget changes the lengths of prompts. Arrivals are a
 * renewal process with mean gap 1, in a time that runs as fast as the rate: phases stretch it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/parts.h"

/* What is drawn for a request; the numbers are part of what a seed means. */
enum field {
	FIELD_KIND = 1,
	FIELD_PROMPT,
	FIELD_MAX,
	FIELD_LENGTH,
	FIELD_LATENCY,
	FIELD_TTFT,
	FIELD_TPOT,
	FIELD_DEADLINE,
	FIELD_THINK,
	FIELD_WORDS,
	FIELD_ARRIVALS,
};

static const double most_number = 1e7;

static uint64_t seed_of(const struct load *load, uint64_t index, enum field field) {
	uint64_t state = load->seed;
	state = load_split(&state) + index;
	state = load_split(&state) + (uint64_t)field;
	return load_split(&state);
}

static double draw_number(const struct load *load, uint64_t index, enum field field,
                const struct load_number *number) {
	struct load_random random;
	if (number->kind == LOAD_FIXED)
		return number->a;
	load_random_init(&random, seed_of(load, index, field));
	if (number->kind == LOAD_RANGE)
		return number->a + (number->b - number->a) * load_random_unit(&random);
	return fmin(most_number, number->a * exp(number->b * load_random_normal(&random)));
}

/* A whole number: every one of a range is as likely. */
static int draw_count(const struct load *load, uint64_t index, enum field field,
                const struct load_number *number, int least) {
	struct load_random random;
	if (number->kind == LOAD_RANGE) {
		double a = ceil(number->a), b = floor(number->b);
		load_random_init(&random, seed_of(load, index, field));
		return a > b ? (int)a
		             : (int)a + (int)load_random_below(&random, (uint64_t)(b - a) + 1);
	}
	return (int)fmax(least, floor(draw_number(load, index, field, number) + 0.5));
}

double load_round_us(double ms) {
	return floor(ms * 1000 + 0.5) / 1000;
}

static double draw_ms(const struct load *load, uint64_t index, enum field field,
                const struct load_number *number) {
	return load_round_us(draw_number(load, index, field, number));
}

static int draw_kind(const struct load *load, uint64_t index) {
	struct load_random random;
	double total = 0, at;
	int kind = -1;
	if (load->n_classes == 1)
		return 0;
	for (int i = 0; i < load->n_classes; i++)
		total += load->classes[i].weight;
	load_random_init(&random, seed_of(load, index, FIELD_KIND));
	at = load_random_unit(&random) * total;
	for (int i = 0; i < load->n_classes; i++) {
		if (load->classes[i].weight == 0)
			continue;
		kind = i;
		at -= load->classes[i].weight;
		if (at < 0)
			break;
	}
	return kind;
}

void load_draw_class(const struct load *load, uint64_t index, int kind, struct load_request *ret) {
	const struct load_class *c = &load->classes[kind];
	*ret = (struct load_request){ .kind = kind, .priority = c->priority };
	ret->seed = seed_of(load, index, FIELD_WORDS);
	ret->prompt_tokens = draw_count(load, index, FIELD_PROMPT, &c->prompt_tokens, 1);
	ret->max_tokens = draw_count(load, index, FIELD_MAX, &c->max_tokens, 0);
	ret->length = draw_count(load, index, FIELD_LENGTH, &c->length, 0);
	if (ret->length > ret->max_tokens)
		ret->length = ret->max_tokens;
	ret->latency_budget_ms = draw_ms(load, index, FIELD_LATENCY, &c->latency_budget_ms);
	ret->ttft_budget_ms = draw_ms(load, index, FIELD_TTFT, &c->ttft_budget_ms);
	ret->tpot_budget_ms = draw_ms(load, index, FIELD_TPOT, &c->tpot_budget_ms);
	ret->deadline_ms = draw_ms(load, index, FIELD_DEADLINE, &c->deadline_ms);
	ret->think_ms = draw_ms(load, index, FIELD_THINK, &load->think_ms);
	memcpy(ret->depth, c->depth, sizeof ret->depth);
}

void load_draw(const struct load *load, uint64_t index, struct load_request *ret) {
	load_draw_class(load, index, draw_kind(load, index), ret);
}

/* ---- arrivals -------------------------------------------------------------------------------- */

/* Seconds at which the integral of the rate is `work`; INFINITY: it never gets there. */
static double seconds_at(const struct load *load, double work) {
	double start = 0;
	if (load->n_phases == 0)
		return work / load->rate;
	for (int i = 0; i < load->n_phases; i++) {
		const struct load_phase *p = &load->phases[i];
		if (work < p->seconds * p->rate)
			return start + work / p->rate;
		work -= p->seconds * p->rate;
		start += p->seconds;
	}
	return INFINITY;
}

/* A list of requests that grows. */
struct list {
	struct load_request *at;
	size_t n, cap;
};

static bool push(struct list *list, const struct load_request *r, char *err, size_t errlen) {
	if (list->n == LOAD_MOST_REQUESTS) {
		snprintf(err, errlen, "a run has at most %d requests", LOAD_MOST_REQUESTS);
		return false;
	}
	if (list->n == list->cap) {
		size_t cap = list->cap ? 2 * list->cap : 256;
		struct load_request *at = realloc(list->at, cap * sizeof *at);
		if (!at) {
			snprintf(err, errlen, "memory ran out");
			return false;
		}
		list->at = at;
		list->cap = cap;
	}
	list->at[list->n++] = *r;
	return true;
}

static bool draw_all(const struct load *load, struct list *list, char *err, size_t errlen) {
	struct load_random random;
	const double cv = load->arrivals == LOAD_GAMMA   ? load->cv
	                : load->arrivals == LOAD_POISSON ? 1
	                                                 : 0;
	double work = load->arrivals == LOAD_UNIFORM ? -1 : 0;
	load_random_init(&random, seed_of(load, 0, FIELD_ARRIVALS));
	while (load->requests == 0 || list->n < (size_t)load->requests) {
		struct load_request r;
		work += load_random_gamma(&random, cv);
		double seconds = seconds_at(load, work);
		if (!isfinite(seconds) || (load->seconds > 0 && seconds >= load->seconds))
			break;
		load_draw(load, list->n, &r);
		r.arrival_ms = load_round_us(seconds * 1000);
		r.think_ms = 0;
		if (!push(list, &r, err, errlen))
			return false;
	}
	return true;
}

bool load_schedule(struct load *load, struct load_request **ret, size_t *ret_n, char *err,
                size_t errlen) {
	struct list list = { 0 };
	if (load->arrivals == LOAD_TRACE)
		return load_read_trace(load, ret, ret_n, err, errlen);
	if (!draw_all(load, &list, err, errlen)) {
		free(list.at);
		return false;
	}
	if (list.n == 0) {
		snprintf(err, errlen,
		                "no request comes in this time: take more seconds or a "
		                "higher rate");
		free(list.at);
		return false;
	}
	*ret = list.at;
	*ret_n = list.n;
	return true;
}
