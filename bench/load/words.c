/* SPDX-License-Identifier: Apache-2.0 */
/* The words that describe a load: one table for flags, JSON members and --help. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/parts.h"

#define L(member) offsetof(struct load, member)
#define C(member) offsetof(struct load_class, member)

const struct load_word load_words[] = {
	{ "arrivals", "KIND",
	                "closed, poisson, gamma, uniform or trace; default: what the other\n"
	                "words ask for, else closed",
	                LOAD_OF_LOAD, LOAD_IS_ARRIVALS, L(arrivals), 0, 0 },
	{ "clients", "N", "closed loop: N clients that each wait for their answer; default 8",
	                LOAD_OF_LOAD, LOAD_IS_INT, L(clients), 1, 100000 },
	{ "think_ms", "NUMBER", "closed loop: pause of a client between answer and next request",
	                LOAD_OF_LOAD, LOAD_IS_NUMBER, L(think_ms), 0, 1e7 },
	{ "rate", "R", "open loop: R requests per second, whatever the answers", LOAD_OF_LOAD,
	                LOAD_IS_REAL, L(rate), 1e-3, 1e6 },
	{ "cv", "CV",
	                "coefficient of variation of the gaps of gamma arrivals: 1 is Poisson,\n"
	                "4 comes in bursts",
	                LOAD_OF_LOAD, LOAD_IS_REAL, L(cv), 0, 100 },
	{ "phases", "LIST", "rates one after another, \"SECONDS:RATE,...\": 20:10,60:90,20:10",
	                LOAD_OF_LOAD, LOAD_IS_PHASES, L(phases), 0, 0 },
	{ "trace", "FILE",
	                "arrivals from a CSV: arrival_ms and, if wanted, prompt_tokens,\n"
	                "max_tokens, length, depth, latency_budget_ms, ttft_budget_ms,\n"
	                "tpot_budget_ms, deadline_ms, priority, class",
	                LOAD_OF_LOAD, LOAD_IS_PATH, L(trace), 0, 0 },
	{ "speed", "X", "a trace's times are divided by X", LOAD_OF_LOAD, LOAD_IS_REAL, L(speed),
	                1e-3, 1e6 },
	{ "seconds", "S", "requests are sent for so long; default 10", LOAD_OF_LOAD, LOAD_IS_REAL,
	                L(seconds), 0, 1e7 },
	{ "requests", "N", "at most N requests", LOAD_OF_LOAD, LOAD_IS_INT, L(requests), 0,
	                LOAD_MOST_REQUESTS },
	{ "warmup_seconds", "S", "requests of the first S seconds are sent but not counted",
	                LOAD_OF_LOAD, LOAD_IS_REAL, L(warmup_seconds), 0, 1e6 },
	{ "seed", "N", "of all that is drawn; the same seed gives the same load; default 1",
	                LOAD_OF_LOAD, LOAD_IS_SEED, L(seed), 0, 0x1p53 },
	{ "mix", "CLASSES",
	                "several kinds of requests, each with words from below, a name and a\n"
	                "weight: 'weight=3 depth=auto latency_budget_ms=250; depth=full'",
	                LOAD_OF_LOAD, LOAD_IS_MIX, 0, 0, 0 },

	{ "name", "NAME", "of a class", LOAD_OF_CLASS, LOAD_IS_NAME, C(name), 0, 0 },
	{ "weight", "W", "its share of the requests against the other classes", LOAD_OF_CLASS,
	                LOAD_IS_REAL, C(weight), 0, 1e9 },
	{ "prompt_tokens", "NUMBER", "tokens of each prompt; default 64", LOAD_OF_BOTH,
	                LOAD_IS_NUMBER, C(prompt_tokens), 1, 1e6 },
	{ "max_tokens", "NUMBER", "tokens of each answer; default 32", LOAD_OF_BOTH, LOAD_IS_NUMBER,
	                C(max_tokens), 0, 1e6 },
	{ "ignore_eos", "BOOL",
	                "answers get all of max_tokens; default true. false: end symbols end\n"
	                "them",
	                LOAD_OF_BOTH, LOAD_IS_BOOL, C(ignore_eos), 0, 0 },
	{ "length", "NUMBER", "simulator: tokens that answers really get; default max_tokens",
	                LOAD_OF_BOTH, LOAD_IS_NUMBER, C(length), 0, 1e6 },
	{ "stream", "BOOL", "answers come in events, so that tokens can be timed; default true",
	                LOAD_OF_BOTH, LOAD_IS_BOOL, C(stream), 0, 0 },
	{ "temperature", "T", "default 0: the likeliest token", LOAD_OF_BOTH, LOAD_IS_REAL,
	                C(temperature), 0, 100 },
	{ "num_beams", "N", "beams of a translation; default: the server's", LOAD_OF_BOTH,
	                LOAD_IS_INT, C(num_beams), 0, 64 },
	{ "depth", "DEPTH", "6, 12x6 (encoder x decoder), auto, full or a tier; default: none sent",
	                LOAD_OF_BOTH, LOAD_IS_NAME, C(depth), 0, 0 },
	{ "latency_budget_ms", "NUMBER", "each request's budget for its whole answer", LOAD_OF_BOTH,
	                LOAD_IS_NUMBER, C(latency_budget_ms), 0, 1e7 },
	{ "ttft_budget_ms", "NUMBER", "for its first token", LOAD_OF_BOTH, LOAD_IS_NUMBER,
	                C(ttft_budget_ms), 0, 1e7 },
	{ "tpot_budget_ms", "NUMBER", "for each further token", LOAD_OF_BOTH, LOAD_IS_NUMBER,
	                C(tpot_budget_ms), 0, 1e7 },
	{ "deadline_ms", "NUMBER", "after which it is not worked on", LOAD_OF_BOTH, LOAD_IS_NUMBER,
	                C(deadline_ms), 0, 1e7 },
	{ "on_miss", "HOW", "degrade, reject or truncate", LOAD_OF_BOTH, LOAD_IS_MISS, C(on_miss),
	                0, 0 },
	{ "min_depth", "DEPTH", "the shallowest that the server may choose", LOAD_OF_BOTH,
	                LOAD_IS_DEPTH, C(min_depth), 0, 0 },
	{ "max_depth", "DEPTH", "and the deepest", LOAD_OF_BOTH, LOAD_IS_DEPTH, C(max_depth), 0,
	                0 },
	{ "allow_step_down", "BOOL", "default true", LOAD_OF_BOTH, LOAD_IS_BOOL, C(allow_step_down),
	                0, 0 },
	{ "priority", "N", "lower is more urgent; default 0", LOAD_OF_BOTH, LOAD_IS_INT,
	                C(priority), -1000, 1000 },
	{ 0 },
};

static const char *const arrivals_names[] = { "closed", "poisson", "gamma", "uniform", "trace" };
static const char *const miss_names[] = { "degrade", "reject", "truncate" };

static bool same_word(const char *a, const char *b, size_t len) {
	for (size_t i = 0; i < len; i++) {
		if ((a[i] == '-' ? '_' : a[i]) != b[i])
			return false;
	}
	return b[len] == '\0';
}

const struct load_word *load_find_word(const char *name, size_t len, bool in_class) {
	for (const struct load_word *w = load_words; w->name; w++) {
		if (strlen(w->name) == len && same_word(name, w->name, len))
			return w->where == (in_class ? LOAD_OF_LOAD : LOAD_OF_CLASS) ? NULL : w;
	}
	return NULL;
}

uint32_t load_word_bit(const struct load_word *word) {
	const struct load_word *first = load_words;
	while (first->where == LOAD_OF_LOAD)
		first++;
	return (uint32_t)1 << (word - first);
}

/* ---- from text ------------------------------------------------------------------------------- */

static bool read_real(const char *text, const char **end, double *ret) {
	char *stop;
	if (!isdigit((unsigned char)*text) && *text != '.' && *text != '-')
		return false;
	errno = 0;
	*ret = strtod(text, &stop);
	*end = stop;
	return stop != text && errno == 0 && isfinite(*ret);
}

static bool parse_number(const char *text, struct load_number *ret) {
	struct load_number n = { .kind = LOAD_FIXED };
	const char *end;
	if (strncmp(text, "lognormal:", 10) == 0) {
		n.kind = LOAD_LOGNORMAL;
		if (!read_real(text + 10, &end, &n.a) || *end != ':'
		                || !read_real(end + 1, &end, &n.b) || *end || !(n.a > 0)
		                || !(n.b >= 0 && n.b <= 10))
			return false;
		*ret = n;
		return true;
	}
	/* strtod would take the first point of "1..2". */
	const char *dots = strstr(text, "..");
	char first[64];
	if (dots && (size_t)(dots - text) < sizeof first) {
		memcpy(first, text, (size_t)(dots - text));
		first[dots - text] = '\0';
		n.kind = LOAD_RANGE;
		if (!read_real(first, &end, &n.a) || *end || !read_real(dots + 2, &end, &n.b)
		                || *end || n.a > n.b)
			return false;
	} else if (!read_real(text, &end, &n.a) || *end) {
		return false;
	}
	*ret = n;
	return true;
}

static bool read_layers(const char **text, int *ret) {
	int n = 0, digits = 0;
	for (; isdigit((unsigned char)**text) && digits < 5; (*text)++, digits++)
		n = n * 10 + (**text - '0');
	*ret = n;
	return digits > 0 && n > 0;
}

bool load_parse_depth(const char *text, int *ret_encoder, int *ret_decoder) {
	int first, second;
	if (!read_layers(&text, &first))
		return false;
	if (!*text) {
		*ret_encoder = 0;
		*ret_decoder = first;
		return true;
	}
	if (*text++ != 'x' || !read_layers(&text, &second) || *text)
		return false;
	*ret_encoder = first;
	*ret_decoder = second;
	return true;
}

static bool is_name(const char *text) {
	size_t len = strlen(text);
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)text[i]) && !strchr("_-.", text[i]))
			return false;
	}
	return len < LOAD_NAME;
}

/* Position of `text` in a list of names, or -1. */
static int find_name(const char *const *names, int n, const char *text) {
	for (int i = 0; i < n; i++) {
		if (strcmp(names[i], text) == 0)
			return i;
	}
	return -1;
}

static bool read_phases(struct load *load, const char *text) {
	int n = 0;
	while (*text) {
		struct load_phase *phase = &load->phases[n];
		if (n == LOAD_PHASES || !read_real(text, &text, &phase->seconds) || *text != ':'
		                || !read_real(text + 1, &text, &phase->rate)
		                || !(phase->seconds > 0 && phase->seconds <= 1e6)
		                || !(phase->rate >= 0 && phase->rate <= 1e6))
			return false;
		n++;
		if (*text == ',')
			text++;
		else if (*text)
			return false;
	}
	load->n_phases = n;
	return n > 0;
}

static bool within(const struct load_word *w, double value) {
	return value >= w->min && value <= w->max;
}

/* What the word takes, as people read it; with `text` it did not. */
static bool refuse(const struct load_word *w, const char *text, char *err, size_t errlen) {
	char what[160], shown[64];
	switch (w->kind) {
	case LOAD_IS_INT:
	case LOAD_IS_SEED:
		snprintf(what, sizeof what, "a whole number from %.17g to %.17g", w->min, w->max);
		break;
	case LOAD_IS_REAL:
		snprintf(what, sizeof what, "a number from %.17g to %.17g", w->min, w->max);
		break;
	case LOAD_IS_NUMBER:
		snprintf(what, sizeof what,
		                "a number from %.17g to %.17g, a range such as 8..32, or "
		                "lognormal:MEDIAN:SIGMA",
		                w->min, w->max);
		break;
	case LOAD_IS_BOOL:
		snprintf(what, sizeof what, "true or false");
		break;
	case LOAD_IS_MISS:
		snprintf(what, sizeof what, "degrade, reject or truncate");
		break;
	case LOAD_IS_ARRIVALS:
		snprintf(what, sizeof what, "closed, poisson, gamma, uniform or trace");
		break;
	case LOAD_IS_PHASES:
		snprintf(what, sizeof what, "up to %d pairs such as 20:10,60:90 (seconds, rate)",
		                LOAD_PHASES);
		break;
	case LOAD_IS_DEPTH:
		snprintf(what, sizeof what, "a depth such as 6 or 12x6");
		break;
	case LOAD_IS_NAME:
	case LOAD_IS_PATH:
	case LOAD_IS_MIX:
		snprintf(what, sizeof what, "at most %d letters, digits, dots and dashes",
		                w->kind == LOAD_IS_PATH ? LOAD_PATH - 1 : LOAD_NAME - 1);
		break;
	}
	snprintf(err, errlen, "%s takes %s, not \"%s\"", w->name, what,
	                doc_printable(text, shown, sizeof shown));
	return false;
}

bool load_word_set(const struct load_word *word, void *object, const char *text, char *err,
                size_t errlen) {
	void *at = (char *)object + word->offset;
	const char *end = text;
	struct load_number number;
	double value = 0;
	int index = -1, ignored;
	bool ok = true;
	switch (word->kind) {
	case LOAD_IS_NAME:
		if ((ok = is_name(text)))
			snprintf(at, LOAD_NAME, "%s", text);
		break;
	case LOAD_IS_DEPTH:
		if ((ok = !*text || (is_name(text) && load_parse_depth(text, &ignored, &ignored))))
			snprintf(at, LOAD_NAME, "%s", text);
		break;
	case LOAD_IS_PATH:
		if ((ok = strlen(text) < LOAD_PATH))
			snprintf(at, LOAD_PATH, "%s", text);
		break;
	case LOAD_IS_INT:
	case LOAD_IS_SEED:
	case LOAD_IS_REAL:
		ok = read_real(text, &end, &value) && !*end && within(word, value)
		                && (word->kind == LOAD_IS_REAL || value == floor(value));
		if (ok && word->kind == LOAD_IS_INT)
			*(int *)at = (int)value;
		else if (ok && word->kind == LOAD_IS_SEED)
			*(uint64_t *)at = (uint64_t)value;
		else if (ok)
			*(double *)at = value;
		break;
	case LOAD_IS_NUMBER:
		ok = parse_number(text, &number) && within(word, number.a)
		                && (number.kind != LOAD_RANGE || within(word, number.b));
		if (ok)
			*(struct load_number *)at = number;
		break;
	case LOAD_IS_BOOL:
		ok = strcmp(text, "true") == 0 || strcmp(text, "false") == 0;
		if (ok)
			*(bool *)at = text[0] == 't';
		break;
	case LOAD_IS_MISS:
		if ((ok = (index = find_name(miss_names, 3, text)) >= 0))
			*(enum on_miss *)at = (enum on_miss)index;
		break;
	case LOAD_IS_ARRIVALS:
		if ((ok = (index = find_name(arrivals_names, 5, text)) >= 0))
			*(enum load_arrivals *)at = (enum load_arrivals)index;
		break;
	case LOAD_IS_PHASES:
		ok = read_phases(object, text);
		break;
	case LOAD_IS_MIX: /* load_set reads it */
		ok = false;
		break;
	}
	return ok || refuse(word, text, err, errlen);
}

/* ---- to JSON, and from one to another -------------------------------------------------------- */

static void put_text(struct buffer *out, const char *text) {
	buffer_json_string(out, text, strlen(text));
}

static void put_number(struct buffer *out, const struct load_number *n) {
	if (n->kind == LOAD_FIXED) {
		buffer_json_f64(out, n->a);
		return;
	}
	buffer_puts(out, n->kind == LOAD_RANGE ? "\"" : "\"lognormal:");
	buffer_json_f64(out, n->a);
	buffer_puts(out, n->kind == LOAD_RANGE ? ".." : ":");
	buffer_json_f64(out, n->b);
	buffer_puts(out, "\"");
}

static void put_phases(struct buffer *out, const struct load *load) {
	buffer_puts(out, "[");
	for (int i = 0; i < load->n_phases; i++) {
		buffer_printf(out, "%s{\"seconds\":", i ? "," : "");
		buffer_json_f64(out, load->phases[i].seconds);
		buffer_puts(out, ",\"rate\":");
		buffer_json_f64(out, load->phases[i].rate);
		buffer_puts(out, "}");
	}
	buffer_puts(out, "]");
}

void load_word_put(const struct load_word *word, const void *object, struct buffer *out) {
	const void *at = (const char *)object + word->offset;
	switch (word->kind) {
	case LOAD_IS_NAME:
	case LOAD_IS_DEPTH:
	case LOAD_IS_PATH:
		put_text(out, at);
		break;
	case LOAD_IS_INT:
		buffer_printf(out, "%d", *(const int *)at);
		break;
	case LOAD_IS_SEED:
		buffer_printf(out, "%llu", (unsigned long long)*(const uint64_t *)at);
		break;
	case LOAD_IS_REAL:
		buffer_json_f64(out, *(const double *)at);
		break;
	case LOAD_IS_NUMBER:
		put_number(out, at);
		break;
	case LOAD_IS_BOOL:
		buffer_puts(out, *(const bool *)at ? "true" : "false");
		break;
	case LOAD_IS_MISS:
		put_text(out, miss_names[*(const enum on_miss *)at]);
		break;
	case LOAD_IS_ARRIVALS:
		put_text(out, arrivals_names[*(const enum load_arrivals *)at]);
		break;
	case LOAD_IS_PHASES:
		put_phases(out, object);
		break;
	case LOAD_IS_MIX:
		break;
	}
}

void load_word_copy(const struct load_word *word, void *to, const void *from) {
	static const size_t sizes[] = {
		[LOAD_IS_NAME] = LOAD_NAME,
		[LOAD_IS_DEPTH] = LOAD_NAME,
		[LOAD_IS_PATH] = LOAD_PATH,
		[LOAD_IS_INT] = sizeof(int),
		[LOAD_IS_SEED] = sizeof(uint64_t),
		[LOAD_IS_REAL] = sizeof(double),
		[LOAD_IS_NUMBER] = sizeof(struct load_number),
		[LOAD_IS_BOOL] = sizeof(bool),
		[LOAD_IS_MISS] = sizeof(enum on_miss),
		[LOAD_IS_ARRIVALS] = sizeof(enum load_arrivals),
		[LOAD_IS_MIX] = 0,
	};
	memcpy((char *)to + word->offset, (const char *)from + word->offset, sizes[word->kind]);
}
