/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting text. First the translation of a pattern, then building the chain, then cutting.
 */
#include "model/pretoken.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/pattern.h"
#include "model/unicode.h"

enum {
	MAX_STEPS = 16,
	MAX_PATTERN = 16384, /* bytes, before translation */
};

const char *const pretoken_gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| "
                                  "?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/*
 * Letters and numbers that Unicode 15 and 16 added to PCRE2 10.42's Unicode 14
 * (DerivedGeneralCategory.txt). ASCII stands first in both: that fills the class's bitmap, and so
 * ordinary text needs no property look-up.
 */
#define LETTERS                                                                                    \
	"A-Za-z\\p{L}\\x{1C89}\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{"      \
	"105F3}"                                                                                   \
	"\\x{10D4A}-\\x{10D65}\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}\\x{11240}"      \
	"\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}"       \
	"\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}"      \
	"\\x{1342F}\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}"                \
	"\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}"                 \
	"\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}"      \
	"\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"
#define NUMBERS                                                                                    \
	"0-9\\p{N}\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}"                 \
	"\\x{11F50}-\\x{11F59}\\x{16130}-\\x{16139}\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}"     \
	"\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}"
/* The complement of PATTERN_SPACES, for use inside a class: PCRE2's \S lacks U+180E. */
#define NOT_SPACES "\\S\\x{180E}"

struct step {
	struct pattern *pattern;
	enum pretoken_keep keep;
};

struct pretoken {
	struct step steps[MAX_STEPS];
	int n_steps;
};

/* Translating a pattern. */

struct translation {
	char *out; /* malloc'd; NULL once memory ran out */
	size_t len, capacity;
	const char *unsupported; /* what the pattern uses that is refused, else NULL */
};

static void append(struct translation *t, const char *text, size_t len) {
	if (t->len + len > t->capacity && t->out) {
		t->capacity = (t->len + len) * 2;
		char *grown = realloc(t->out, t->capacity);
		if (!grown)
			free(t->out);
		t->out = grown;
	}
	if (!t->out)
		return;
	memcpy(t->out + t->len, text, len);
	t->len += len;
}

/* Appends a set: as it is inside a class, in brackets of its own outside. */
static void append_set(struct translation *t, bool in_class, bool negated, const char *set) {
	if (!in_class)
		append(t, negated ? "[^" : "[", negated ? 2 : 1);
	append(t, set, strlen(set));
	if (!in_class)
		append(t, "]", 1);
}

static bool starts(const char *p, const char *end, const char *prefix) {
	size_t n = strlen(prefix);
	return (size_t)(end - p) >= n && memcmp(p, prefix, n) == 0;
}

/* Whether an escape of this letter means the same in both dialects. */
static bool same_escape(char letter, bool in_class) {
	if (letter && strchr("rntfaedDpPx", letter))
		return true;
	return letter && !in_class && strchr("bBAz", letter);
}

/* Translates the escape at p, which points to a backslash; returns what follows it. */
static const char *translate_escape(
                struct translation *t, const char *p, const char *end, bool in_class) {
	static const struct {
		const char *from, *set, *in_class; /* in_class NULL: refused there */
		bool negated;
	} sets[] = {
		{ "\\s", PATTERN_SPACES, PATTERN_SPACES, false },
		{ "\\S", PATTERN_SPACES, NOT_SPACES, true },
		{ "\\p{L}", LETTERS, LETTERS, false },
		{ "\\P{L}", LETTERS, NULL, true },
		{ "\\p{N}", NUMBERS, NUMBERS, false },
		{ "\\P{N}", NUMBERS, NULL, true },
	};
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
		if (!starts(p, end, sets[i].from))
			continue;
		if (in_class && !sets[i].in_class)
			t->unsupported = "\\P inside a class";
		else
			append_set(t, in_class, sets[i].negated,
			                in_class ? sets[i].in_class : sets[i].set);
		return p + strlen(sets[i].from);
	}
	if (end - p < 2) {
		t->unsupported = "a backslash at its end";
		return end;
	}
	bool word = (p[1] >= 'a' && p[1] <= 'z') || (p[1] >= 'A' && p[1] <= 'Z')
	                || (p[1] >= '0' && p[1] <= '9');
	if (word && !same_escape(p[1], in_class))
		t->unsupported = "an escape that regular expression libraries read differently";
	append(t, p, 2);
	return p + 2;
}

/* Translates the character class at p, which points to its bracket; returns what follows it. */
static const char *translate_class(struct translation *t, const char *p, const char *end) {
	size_t open = starts(p, end, "[^") ? 2 : 1;
	append(t, p, open);
	p += open;
	for (bool first = true; p < end && (first || *p != ']') && !t->unsupported; first = false) {
		if (*p == '\\') {
			p = translate_escape(t, p, end, true);
			continue;
		}
		if (*p == '[' || starts(p, end, "&&") || *p == ']')
			t->unsupported = "a class within a class";
		append(t, p++, 1);
	}
	if (p < end)
		append(t, p++, 1);
	return p;
}

/* Groups that mean the same in both dialects. */
static bool same_group(const char *p, const char *end) {
	static const char *const known[] = { "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:" };
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (starts(p, end, known[i]))
			return true;
	}
	return !starts(p, end, "(?") && !starts(p, end, "(*");
}

static void translate(struct translation *t, const char *p, const char *end) {
	while (p < end && !t->unsupported && t->out) {
		if (*p == '\\') {
			p = translate_escape(t, p, end, false);
		} else if (*p == '[') {
			p = translate_class(t, p, end);
		} else {
			if (*p == '(' && !same_group(p, end))
				t->unsupported = "a kind of group that is not supported";
			if (*p == '^' || *p == '$')
				t->unsupported = "^ or $, which libraries read differently";
			append(t, p++, 1);
		}
	}
}

/* Building the chain. */

struct pretoken *pretoken_create(void) {
	return calloc(1, sizeof(struct pretoken));
}

void pretoken_destroy(struct pretoken *p) {
	if (!p)
		return;
	for (int i = 0; i < p->n_steps; i++)
		pattern_destroy(p->steps[i].pattern);
	free(p);
}

/* Compiles a pattern of PCRE2's own dialect and appends it to the chain. */
static bool add_step(struct pretoken *p, const char *pattern, size_t len, enum pretoken_keep keep,
                char *err, size_t errlen) {
	if (p->n_steps == MAX_STEPS) {
		snprintf(err, errlen, "more than %d steps", MAX_STEPS);
		return false;
	}
	struct pattern *compiled = pattern_create(pattern, len, err, errlen);
	if (!compiled)
		return false;
	p->steps[p->n_steps++] = (struct step){ .pattern = compiled, .keep = keep };
	return true;
}

static bool fits(size_t len, char *err, size_t errlen) {
	if (len == 0 || len > MAX_PATTERN) {
		snprintf(err, errlen, "the pattern is %zu bytes long, not 1 .. %d", len,
		                MAX_PATTERN);
		return false;
	}
	return true;
}

bool pretoken_add_regex(struct pretoken *p, const char *pattern, size_t len,
                enum pretoken_keep keep, char *err, size_t errlen) {
	if (!fits(len, err, errlen))
		return false;
	struct translation t = { .capacity = 4096, .out = malloc(4096) };
	translate(&t, pattern, pattern + len);
	bool ok = false;
	if (!t.out)
		snprintf(err, errlen, "out of memory");
	else if (t.unsupported)
		snprintf(err, errlen, "the pattern has %s", t.unsupported);
	else
		ok = add_step(p, t.out, t.len, keep, err, errlen);
	free(t.out);
	return ok;
}

bool pretoken_add_text(struct pretoken *p, const char *text, size_t len, enum pretoken_keep keep,
                char *err, size_t errlen) {
	if (!fits(len, err, errlen))
		return false;
	char *quoted = malloc(2 * len);
	if (!quoted) {
		snprintf(err, errlen, "out of memory");
		return false;
	}
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		if (strchr("\\^$.[]|()?*+{}-#", text[i]) && text[i])
			quoted[n++] = '\\';
		quoted[n++] = text[i];
	}
	bool ok = add_step(p, quoted, n, keep, err, errlen);
	free(quoted);
	return ok;
}

/* Cutting. */

struct cut {
	const struct pretoken *chain;
	struct pattern_match *matches[MAX_STEPS];
	pretoken_sink *sink;
	void *arg;
};

/* Cuts well-formed text by the steps from `index` on. */
static bool cut_text(const struct cut *c, int index, const char *text, size_t len) {
	if (len == 0)
		return true;
	if (index == c->chain->n_steps)
		return c->sink(c->arg, text, len);
	bool keep_gaps = c->chain->steps[index].keep == PRETOKEN_ISOLATE;
	size_t done = 0, from = 0;
	while (from < len) {
		size_t begin, end;
		enum pattern_found found = pattern_find(c->chain->steps[index].pattern,
		                c->matches[index], text, len, from, &begin, &end);
		if (found == PATTERN_FAILED)
			return false;
		if (found == PATTERN_NOT_FOUND)
			break;
		if (keep_gaps && !cut_text(c, index + 1, text + done, begin - done))
			return false;
		if (!cut_text(c, index + 1, text + begin, end - begin))
			return false;
		done = end;
		/* After an empty match the search goes on behind the next character. */
		from = end > begin ? end : end + unicode_decode(text + end, len - end, NULL);
	}
	return !keep_gaps || cut_text(c, index + 1, text + done, len - done);
}

/* The number of bytes before the next well-formed character. */
static size_t ill_formed_run(const char *text, size_t len) {
	size_t n = 0;
	while (n < len && unicode_decode(text + n, len - n, NULL) == 0)
		n++;
	return n;
}

bool pretoken_split(const struct pretoken *p, const char *text, size_t len, pretoken_sink *sink,
                void *arg) {
	struct cut c = { .chain = p, .sink = sink, .arg = arg };
	bool ok = true;
	for (int i = 0; i < p->n_steps; i++) {
		c.matches[i] = pattern_match_create();
		ok = ok && c.matches[i];
	}
	for (size_t i = 0; ok && i < len;) {
		size_t n = unicode_valid_prefix(text + i, len - i);
		ok = cut_text(&c, 0, text + i, n);
		i += n;
		n = ill_formed_run(text + i, len - i);
		ok = ok && (n == 0 || sink(arg, text + i, n));
		i += n;
	}
	for (int i = 0; i < p->n_steps; i++)
		pattern_match_destroy(c.matches[i]);
	return ok;
}
