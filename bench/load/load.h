/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads: when requests come, and what each asks for. A load is words and numbers, the same as flags
 * (--arrivals gamma) and as members of a JSON file ("arrivals": "gamma"); from it and a seed follow
 * the same requests on every machine, for the load generator and for the simulator.
 *
 *	load_init, load_read or load_set, load_settle    describe
 *	load_schedule                                    an open loop: all requests, before the run
 *	load_draw                                        a closed loop: the next request
 *	trace_write                                      what was run, as a CSV that load_schedule reads
 */
#ifndef FATHOM_BENCH_LOAD_H
#define FATHOM_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/doc.h"
#include "proto/buffer.h"
#include "proto/request.h"

enum { LOAD_NAME = 32, LOAD_PATH = 1024, LOAD_CLASSES = 16, LOAD_PHASES = 64 };

#define LOAD_MOST_REQUESTS 10000000

enum load_arrivals {
	LOAD_CLOSED,  /* `clients` that each wait for their answer, think, and ask again */
	LOAD_POISSON, /* independent of answers: gaps exponential, */
	LOAD_GAMMA,   /* gamma distributed with coefficient of variation `cv`, */
	LOAD_UNIFORM, /* or all equal */
	LOAD_TRACE,   /* at the times in a CSV */
};

/* A number that each request draws: "128", "64..256" (uniform, both ends in), or
 * "lognormal:128:0.5" (median, sigma of the logarithm). */
struct load_number {
	enum { LOAD_FIXED, LOAD_RANGE, LOAD_LOGNORMAL } kind;
	double a, b; /* the number; least and most; median and sigma */
};

/* What the requests of one class ask for. 0 and "" mean that the field is not sent. */
struct load_class {
	char name[LOAD_NAME];
	double weight;         /* share of the requests, against the other classes */
	char depth[LOAD_NAME]; /* "", "auto", "full", "6", "12x6" or a tier */
	char min_depth[LOAD_NAME], max_depth[LOAD_NAME]; /* "", "6" or "12x6" */
	struct load_number latency_budget_ms, ttft_budget_ms, tpot_budget_ms, deadline_ms;
	enum on_miss on_miss;
	struct load_number prompt_tokens, max_tokens;
	struct load_number length; /* the simulator's: tokens that the answer gets; 0: max_tokens */
	int priority;
	int num_beams;      /* 0: not sent */
	double temperature; /* default 0: the likeliest token */
	bool stream;        /* default true */
	bool ignore_eos;    /* default true: answers get max_tokens tokens */
	bool allow_step_down;
	uint32_t set; /* which fields the description names, by their place in the table */
};

struct load_phase {
	double seconds, rate;
};

struct load {
	enum load_arrivals arrivals;
	double rate; /* requests per second of an open loop without phases */
	double cv;   /* of gamma; 1 is Poisson */
	int clients;
	struct load_number think_ms;           /* of a client before each request but its first */
	struct load_phase phases[LOAD_PHASES]; /* rates one after another, in place of `rate` */
	int n_phases;
	char trace[LOAD_PATH]; /* of LOAD_TRACE */
	double speed;          /* a trace's times are divided by it */
	double seconds;        /* arrivals end then; 0: the requests, phases or trace say when */
	double warmup_seconds; /* who comes earlier is sent but not counted */
	int requests;          /* at most; 0: no bound */
	uint64_t seed;
	struct load_class base;                  /* what a class does not say itself */
	struct load_class classes[LOAD_CLASSES]; /* after load_settle at least one */
	int n_classes;
	bool arrivals_set; /* else load_settle takes them from trace, cv and rate */
	bool mixed;        /* the classes were described; else a trace may name its own */
};

/* One request. */
struct load_request {
	double arrival_ms; /* open loop: when it is to be sent, from the start; whole microseconds */
	double think_ms;   /* closed loop: pause of the client before it */
	uint64_t seed;     /* of the words of its prompt */
	int kind;          /* its class */
	int prompt_tokens, max_tokens, length; /* length 0: not known */
	int priority;
	char depth[LOAD_NAME];
	double latency_budget_ms, ttft_budget_ms, tpot_budget_ms, deadline_ms; /* 0: none */
};

/* ---- describing ------------------------------------------------------------------------------ */

/* A word of the description: a flag with dashes, a JSON member with underscores. */
struct load_word {
	const char *name;  /* "latency_budget_ms" */
	const char *value; /* "MS", for --help */
	const char *help;
	enum { LOAD_OF_LOAD, LOAD_OF_CLASS, LOAD_OF_BOTH } where;
	/* How it is read, and the place of its value in struct load or struct load_class. */
	enum load_kind {
		LOAD_IS_NAME,
		LOAD_IS_PATH,
		LOAD_IS_DEPTH,
		LOAD_IS_INT,
		LOAD_IS_SEED,
		LOAD_IS_REAL,
		LOAD_IS_NUMBER,
		LOAD_IS_BOOL,
		LOAD_IS_MISS,
		LOAD_IS_ARRIVALS,
		LOAD_IS_PHASES,
		LOAD_IS_MIX,
	} kind;
	size_t offset;
	double min, max;
};

/* All words: the rows of --help, ended by one without a name. */
extern const struct load_word load_words[];

/* 8 clients in a closed loop for 10 seconds, 64 tokens in and 32 out. */
void load_init(struct load *load);

/* Sets a word (dashes or underscores) from text. False with one sentence. The word "mix" is a list of
 * classes "depth=auto latency_budget_ms=250 weight=3; depth=full", each word as above. */
bool load_set(struct load *load, const char *name, const char *text, char *err, size_t errlen);

/* Sets what a document says; `file` names it in the sentence. Unknown members are refused. */
bool load_read(struct load *load, const struct doc *doc, const char *file, char *err,
                size_t errlen);
/* The same from a JSON file. */
bool load_read_file(struct load *load, const char *path, char *err, size_t errlen);

/* Once, when all is set: classes take what they do not say from the base; checks what contradicts. */
bool load_settle(struct load *load, char *err, size_t errlen);

/* The settled load as the object that load_read reads. */
void load_write(const struct load *load, struct buffer *out);

/* Whether requests come regardless of answers. */
bool load_is_open(const struct load *load);
/* Requests per second at second `t` of an open loop; 0 of a closed one and of a trace. */
double load_rate_at(const struct load *load, double t);
/* Seconds until the last request is sent; 0: not known before the run. */
double load_seconds(const struct load *load);

/* "6", or "12x6" as encoder and decoder. False if it is neither; encoder 0: not given. */
bool load_parse_depth(const char *text, int *ret_encoder, int *ret_decoder);

/* ---- drawing --------------------------------------------------------------------------------- */

/* Request `index` but for its arrival: a pure function of the settled load and the index. */
void load_draw(const struct load *load, uint64_t index, struct load_request *ret);

/*
 * All requests of an open loop in order of arrival; free(*ret). A trace may add classes to the
 * load. False with one sentence, which for a trace names file, line and column.
 */
bool load_schedule(struct load *load, struct load_request **ret, size_t *ret_n, char *err,
                size_t errlen);

/* Words of the prompt of a request, for texts: pseudorandom numbers from its seed. */
struct load_random {
	uint64_t state[4];
};
void load_random_init(struct load_random *random, uint64_t seed);
uint64_t load_random_next(struct load_random *random);
/* In [0, 1). */
double load_random_unit(struct load_random *random);
/* 0 <= x < n. */
uint64_t load_random_below(struct load_random *random, uint64_t n);
/* Normal with mean 0 and variance 1. */
double load_random_normal(struct load_random *random);
/* Gamma with mean 1 and coefficient of variation `cv`; 1 if cv is 0. */
double load_random_gamma(struct load_random *random, double cv);

/* ---- traces ---------------------------------------------------------------------------------- */

/* Reads a CSV over requests drawn from `load`: cells that are empty keep what was drawn. `file` names it
 * in the sentence. free(*ret). */
bool trace_read(struct load *load, const char *text, size_t len, const char *file,
                struct load_request **ret, size_t *ret_n, char *err, size_t errlen);
void trace_write(const struct load *load, const struct load_request *requests, size_t n,
                struct buffer *out);

#endif
