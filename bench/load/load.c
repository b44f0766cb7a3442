/* SPDX-License-Identifier: Apache-2.0 */
/* Describing a load: from flags, from JSON, settled, and written back. */
#include "bench/load/load.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/parts.h"

enum { DEFAULT_SECONDS = 10 };

void load_init(struct load *load) {
	*load = (struct load){
		.arrivals = LOAD_CLOSED, .rate = 0, .cv = 1, .clients = 8, .speed = 1, .seed = 1
	};
	load->base = (struct load_class){ .weight = 1,
		.prompt_tokens = { LOAD_FIXED, 64, 0 },
		.max_tokens = { LOAD_FIXED, 32, 0 },
		.stream = true,
		.ignore_eos = true,
		.allow_step_down = true };
}

struct load_class *load_add_class(struct load *load, char *err, size_t errlen) {
	if (load->n_classes == LOAD_CLASSES) {
		snprintf(err, errlen, "mix takes at most %d classes", LOAD_CLASSES);
		return NULL;
	}
	struct load_class *class = &load->classes[load->n_classes++];
	memset(class, 0, sizeof *class);
	load->mixed = true;
	return class;
}

/* ---- from text ------------------------------------------------------------------------------- */

/* "depth=auto": one word of a class. */
static bool set_in_class(
                struct load_class *class, const char *pair, size_t len, char *err, size_t errlen) {
	char text[160], shown[64];
	const char *equals = memchr(pair, '=', len);
	size_t name = equals ? (size_t)(equals - pair) : len;
	const struct load_word *word = load_find_word(pair, name, true);
	if (!word || !equals || len - name > sizeof text) {
		snprintf(text, sizeof text, "%.*s", (int)len, pair);
		doc_printable(text, shown, sizeof shown);
		snprintf(err, errlen, "mix: \"%s\" is no %s", shown,
		                word ? "pair such as depth=auto" : "word of a class");
		return false;
	}
	memcpy(text, equals + 1, len - name - 1);
	text[len - name - 1] = '\0';
	class->set |= load_word_bit(word);
	return load_word_set(word, class, text, err, errlen);
}

static bool set_mix(struct load *load, const char *text, char *err, size_t errlen) {
	static const char space[] = " \t\n";
	load->n_classes = 0;
	do {
		struct load_class *class = load_add_class(load, err, errlen);
		if (!class)
			return false;
		text += strspn(text, space);
		while (*text && *text != ';') {
			size_t len = strcspn(text, " \t\n;");
			if (!set_in_class(class, text, len, err, errlen))
				return false;
			text += len;
			text += strspn(text, space);
		}
		if (*text == ';')
			text += 1 + strspn(text + 1, space);
	} while (*text);
	return true;
}

bool load_set(struct load *load, const char *name, const char *text, char *err, size_t errlen) {
	const struct load_word *word = load_find_word(name, strlen(name), false);
	char shown[64];
	if (!word) {
		snprintf(err, errlen, "\"%s\" is no word of a load",
		                doc_printable(name, shown, sizeof shown));
		return false;
	}
	if (word->kind == LOAD_IS_MIX)
		return set_mix(load, text, err, errlen);
	if (word->where == LOAD_OF_BOTH)
		return load_word_set(word, &load->base, text, err, errlen);
	load->arrivals_set = load->arrivals_set || word->kind == LOAD_IS_ARRIVALS;
	return load_word_set(word, load, text, err, errlen);
}

/* ---- from JSON ------------------------------------------------------------------------------- */

/* A number, a text or a boolean as load_word_set reads it; NULL for anything else. */
static const char *text_of(const struct doc *value, char *text, size_t size) {
	double number;
	bool yes;
	if (doc_as_number(value, &number))
		snprintf(text, size, "%.17g", number);
	else if (doc_as_bool(value, &yes))
		snprintf(text, size, "%s", yes ? "true" : "false");
	else
		return doc_as_string(value, NULL);
	return text;
}

static bool read_value(const struct load_word *word, void *object, const struct doc *value,
                char *err, size_t errlen) {
	char number[40];
	const char *text = text_of(value, number, sizeof number);
	if (text)
		return load_word_set(word, object, text, err, errlen);
	snprintf(err, errlen, "%s takes a number, a text, true or false", word->name);
	return false;
}

static bool read_class(struct load *load, const struct doc *doc, char *err, size_t errlen) {
	void *at = NULL;
	const char *key;
	const struct doc *value;
	char shown[64];
	struct load_class *class = load_add_class(load, err, errlen);
	if (!class)
		return false;
	if (doc_kind(doc) != DOC_OBJECT) {
		snprintf(err, errlen, "mix takes a list of objects");
		return false;
	}
	while (doc_next(doc, &at, &key, &value)) {
		const struct load_word *word = load_find_word(key, strlen(key), true);
		if (!word) {
			snprintf(err, errlen, "\"%s\" is no word of a class",
			                doc_printable(key, shown, sizeof shown));
			return false;
		}
		if (doc_kind(value) == DOC_NULL)
			continue;
		class->set |= load_word_bit(word);
		if (!read_value(word, class, value, err, errlen))
			return false;
	}
	return true;
}

static bool read_mix(struct load *load, const struct doc *list, char *err, size_t errlen) {
	load->n_classes = 0;
	if (doc_kind(list) != DOC_ARRAY || doc_count(list) == 0) {
		snprintf(err, errlen, "mix takes a list of objects");
		return false;
	}
	for (size_t i = 0; i < doc_count(list); i++) {
		if (!read_class(load, doc_at(list, i), err, errlen))
			return false;
	}
	return true;
}

/* A list of {"seconds", "rate"}; as a text it is what the flag takes. */
static bool read_phases(struct load *load, const struct doc *list, char *err, size_t errlen) {
	struct buffer text = { 0 };
	bool ok = doc_kind(list) == DOC_ARRAY;
	for (size_t i = 0; ok && i < doc_count(list); i++) {
		const struct doc *phase = doc_at(list, i);
		double seconds, rate;
		ok = doc_count(phase) == 2 && doc_as_number(doc_get(phase, "seconds"), &seconds)
		                && doc_as_number(doc_get(phase, "rate"), &rate);
		if (ok)
			buffer_printf(&text, "%s%.17g:%.17g", i ? "," : "", seconds, rate);
	}
	const char *phases = ok ? buffer_cstr(&text) : NULL;
	if (phases)
		ok = load_set(load, "phases", phases, err, errlen);
	else if (!ok)
		snprintf(err, errlen, "phases takes a list of {\"seconds\": S, \"rate\": R}");
	else
		snprintf(err, errlen, "memory ran out");
	buffer_finish(&text);
	return ok && phases;
}

static bool read_member(struct load *load, const char *key, const struct doc *value, char *err,
                size_t errlen) {
	char shown[64];
	const struct load_word *word = load_find_word(key, strlen(key), false);
	if (!word) {
		snprintf(err, errlen, "\"%s\" is no word of a load",
		                doc_printable(key, shown, sizeof shown));
		return false;
	}
	const char *text = doc_as_string(value, NULL);
	if (word->kind == LOAD_IS_MIX && !text)
		return read_mix(load, value, err, errlen);
	if (word->kind == LOAD_IS_PHASES && !text)
		return read_phases(load, value, err, errlen);
	if (text)
		return load_set(load, key, text, err, errlen);
	return read_value(word, word->where == LOAD_OF_BOTH ? (void *)&load->base : load, value,
	                err, errlen);
}

bool load_read(struct load *load, const struct doc *doc, const char *file, char *err,
                size_t errlen) {
	void *at = NULL;
	const char *key;
	const struct doc *value;
	char why[400] = "the outermost value must be an object";
	bool ok = doc_kind(doc) == DOC_OBJECT;
	while (ok && doc_next(doc, &at, &key, &value)) {
		if (doc_kind(value) != DOC_NULL)
			ok = read_member(load, key, value, why, sizeof why);
	}
	if (!ok)
		snprintf(err, errlen, "%.300s: %s", file, why);
	return ok;
}

bool load_slurp(const char *path, struct buffer *out, char *err, size_t errlen) {
	char part[16384];
	size_t n;
	FILE *in = fopen(path, "rb");
	if (!in) {
		snprintf(err, errlen, "%.300s: %s", path, strerror(errno));
		return false;
	}
	while ((n = fread(part, 1, sizeof part, in)) > 0)
		buffer_append(out, part, n);
	bool ok = !ferror(in) && !out->failed;
	fclose(in);
	if (!ok)
		snprintf(err, errlen, "%.300s could not be read", path);
	return ok;
}

bool load_read_file(struct load *load, const char *path, char *err, size_t errlen) {
	struct buffer text = { 0 };
	struct doc *doc = NULL;
	bool ok = load_slurp(path, &text, err, errlen)
	                && (doc = doc_parse(text.data ? text.data : "", text.len, path, err,
	                                    errlen))
	                && load_read(load, doc, path, err, errlen);
	doc_free(doc);
	buffer_finish(&text);
	return ok;
}

/* ---- settling -------------------------------------------------------------------------------- */

bool load_is_open(const struct load *load) {
	return load->arrivals != LOAD_CLOSED;
}

static void infer_arrivals(struct load *load) {
	if (load->arrivals_set)
		return;
	load->arrivals = load->trace[0]                          ? LOAD_TRACE
	                : load->rate == 0 && load->n_phases == 0 ? LOAD_CLOSED
	                : load->cv != 1                          ? LOAD_GAMMA
	                                                         : LOAD_POISSON;
	load->arrivals_set = true;
}

static bool contradiction(const struct load *load, char *err, size_t errlen) {
	const enum load_arrivals a = load->arrivals;
	const char *why = NULL;
	if (a == LOAD_TRACE && !load->trace[0])
		why = "trace arrivals need trace, the CSV of them";
	else if (a != LOAD_TRACE && load->trace[0])
		why = "a trace says itself when requests come: leave arrivals out";
	else if (load->rate > 0 && load->n_phases > 0)
		why = "rate and phases exclude each other: phases have rates of their own";
	else if ((a == LOAD_CLOSED || a == LOAD_TRACE) && (load->rate > 0 || load->n_phases > 0))
		why = a == LOAD_CLOSED ? "a closed loop has clients, not a rate"
		                       : "a trace has no rate: speed makes it faster";
	else if (load_is_open(load) && a != LOAD_TRACE && load->rate == 0 && load->n_phases == 0)
		why = "an open loop needs a rate or phases";
	if (why)
		snprintf(err, errlen, "%s", why);
	return why;
}

/* What a class does not say itself comes from the base. */
static void inherit(struct load_class *class, const struct load_class *base) {
	for (const struct load_word *w = load_words; w->name; w++) {
		if (w->where != LOAD_OF_LOAD && !(class->set & load_word_bit(w)))
			load_word_copy(w, class, base);
	}
}

static bool settle_classes(struct load *load, char *err, size_t errlen) {
	double weight = 0;
	if (load->n_classes == 0) {
		load->classes[0] = load->base;
		snprintf(load->classes[0].name, LOAD_NAME, "default");
		load->n_classes = 1;
	}
	for (int i = 0; i < load->n_classes; i++) {
		struct load_class *class = &load->classes[i];
		if (load->mixed)
			inherit(class, &load->base);
		if (!class->name[0])
			snprintf(class->name, LOAD_NAME, "class%d", i + 1);
		weight += class->weight;
		for (int j = 0; j < i; j++) {
			if (strcmp(load->classes[j].name, class->name) == 0) {
				snprintf(err, errlen, "mix names two classes \"%s\"", class->name);
				return false;
			}
		}
	}
	if (!(weight > 0))
		snprintf(err, errlen, "the weights of the classes are all zero");
	return weight > 0;
}

bool load_settle(struct load *load, char *err, size_t errlen) {
	infer_arrivals(load);
	if (contradiction(load, err, errlen))
		return false;
	if (load->seconds == 0 && load->requests == 0 && load->n_phases == 0
	                && load->arrivals != LOAD_TRACE)
		load->seconds = DEFAULT_SECONDS;
	return settle_classes(load, err, errlen);
}

double load_seconds(const struct load *load) {
	double phases = 0;
	for (int i = 0; i < load->n_phases; i++)
		phases += load->phases[i].seconds;
	if (phases > 0 && (load->seconds == 0 || phases < load->seconds))
		return phases;
	return load->seconds;
}

double load_rate_at(const struct load *load, double t) {
	if (load->arrivals == LOAD_CLOSED || load->arrivals == LOAD_TRACE)
		return 0;
	for (int i = 0; i < load->n_phases; i++) {
		if (t < load->phases[i].seconds)
			return load->phases[i].rate;
		t -= load->phases[i].seconds;
	}
	return load->n_phases > 0 ? 0 : load->rate;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Whether the word has a meaning for these arrivals. */
static bool applies(const struct load *load, const struct load_word *w) {
	const enum load_arrivals a = load->arrivals;
	if (w->offset == offsetof(struct load, clients)
	                || w->offset == offsetof(struct load, think_ms))
		return a == LOAD_CLOSED;
	if (w->kind == LOAD_IS_PHASES)
		return load->n_phases > 0;
	if (w->offset == offsetof(struct load, rate))
		return load->rate > 0;
	if (w->offset == offsetof(struct load, cv))
		return a == LOAD_GAMMA;
	if (w->kind == LOAD_IS_PATH || w->offset == offsetof(struct load, speed))
		return a == LOAD_TRACE;
	return w->kind != LOAD_IS_MIX;
}

static void put_class(const struct load_class *class, struct buffer *out) {
	const char *comma = "";
	buffer_puts(out, "{");
	for (const struct load_word *w = load_words; w->name; w++) {
		if (w->where == LOAD_OF_LOAD)
			continue;
		buffer_printf(out, "%s\"%s\":", comma, w->name);
		load_word_put(w, class, out);
		comma = ",";
	}
	buffer_puts(out, "}");
}

void load_write(const struct load *load, struct buffer *out) {
	buffer_puts(out, "{");
	for (const struct load_word *w = load_words; w->name; w++) {
		if (w->where != LOAD_OF_LOAD || !applies(load, w))
			continue;
		buffer_printf(out, "\"%s\":", w->name);
		load_word_put(w, load, out);
		buffer_puts(out, ",");
	}
	buffer_puts(out, "\"mix\":[");
	for (int i = 0; i < load->n_classes; i++) {
		buffer_puts(out, i ? "," : "");
		put_class(&load->classes[i], out);
	}
	buffer_puts(out, "]}");
}
