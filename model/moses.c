/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moses' tokenizing: rules, each a pattern and what takes the place of a match, applied to the whole
 * line one after another; between them the one thing that is no pattern, which full stops end a word.
 *
 * What is one rule here may be several in the scripts where that makes no difference. Where matches
 * take neighbours with them ("A,B,C"), so do these: it decides which of two close marks is seen.
 */
#include "model/moses.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/pattern.h"
#include "model/unicode.h"

enum language { ENGLISH = 1, GERMAN = 2, OTHER = 4, ANY = 7 };

struct rule {
	int languages;
	const char *pattern, *replacement;
};

#define ALPHA "\\p{Alphabetic}"
#define ALNUM "\\p{Alphabetic}\\p{Nd}"
#define NBSP "\\x{A0}"

/* normalize-punctuation.perl; the line ends in a line feed. */
static const struct rule normalizing[] = {
	{ ANY, "\r", "" },
	{ ANY, "\\(", " (" },
	{ ANY, "\\)", ") " },
	{ ANY, " {2,}", " " },
	{ ANY, "\\) ([.!:?;,])", ")$1" },
	{ ANY, "\\( ", "(" },
	{ ANY, " \\)", ")" },
	{ ANY, "([0-9]) %", "$1%" },
	{ ANY, " ([:;])", "$1" },
	{ ANY, "`", "'" },
	{ ANY, "''", " \" " },
	{ ANY, "[\u201e\u201c\u201d]", "\"" },
	{ ANY, "\u2013", "-" },
	{ ANY, "\u2014", " - " },
	{ ANY, " {2,}", " " },
	{ ANY, "[\u00b4\u2018\u201a]", "'" },
	{ ANY, "([A-Za-z])\u2019([A-Za-z])", "$1'$2" },
	{ ANY, "\u2019", "\"" },
	{ ANY, "''", "\"" },
	{ ANY, "\u2026", "..." },
	{ ANY, NBSP "\u00ab" NBSP, " \"" },
	{ ANY, "\u00ab" NBSP "?", "\"" },
	{ ANY, NBSP "\u00bb" NBSP, "\" " },
	{ ANY, NBSP "?\u00bb", "\"" },
	{ ANY, NBSP "%", "%" },
	{ ANY, "n\u00ba" NBSP, "n\u00ba " },
	{ ANY, NBSP "([:?!;])", "$1" },
	{ ANY, NBSP "(\u00baC|cm)", " $1" },
	{ ANY, "," NBSP, ", " },
	{ ANY, " {2,}", " " },
	{ ENGLISH, "\"([,.]+)", "$1\"" },
	{ GERMAN | OTHER, ",\"", "\"," },
	/* Only where stops begin, or where the search does: else a run of them takes square time. */
	{ GERMAN | OTHER, "(?:\\G|(?<!\\.))(\\.+)\"([ \t-\r]*[^<])", "\"$1$2" },
	{ GERMAN, "([0-9])" NBSP "([0-9])", "$1,$2" },
	{ ENGLISH | OTHER, "([0-9])" NBSP "([0-9])", "$1.$2" },
	/* remove-non-printing-char.perl */
	{ ANY, "\\p{C}", " " },
	{ 0 },
};

/* The first half of tokenizer.perl -a: everything but full stops. */
static const struct rule separating[] = {
	{ ANY, "[" PATTERN_SPACES "]+", " " },
	{ ANY, "^ | $", "" },
	{ ANY, "[^" ALNUM " .'`,-]", " $0 " },
	{ ANY, "([" ALNUM "])-(?=[" ALNUM "])", "$1 @-@ " },
	{ ANY, "\\.{2,}", " $0 " },
	{ ANY, "(\\P{N}),", "$1 , " },
	{ ANY, ",(\\P{N})", " , $1" },
	{ ANY, "(\\p{N}),$", "$1 ," },
	{ ENGLISH, "([^" ALPHA "])'([^" ALPHA "])", "$1 ' $2" },
	{ ENGLISH, "([^" ALPHA "\\p{N}])'([" ALPHA "])", "$1 ' $2" },
	{ ENGLISH, "([" ALPHA "])'([^" ALPHA "])", "$1 ' $2" },
	{ ENGLISH, "([" ALPHA "])'([" ALPHA "])", "$1 '$2" },
	{ ENGLISH, "(\\p{N})'(s)", "$1 '$2" },
	{ GERMAN | OTHER, "'", " ' " },
	{ 0 },
};

/* The second half, behind the full stops. */
static const struct rule finishing[] = {
	{ ANY, " {2,}", " " },
	{ ANY, "^ | $", "" },
	{ ANY, "\\.' ?$", " . ' " },
	{ ANY, "&", "&amp;" },
	{ ANY, "\\|", "&#124;" },
	{ ANY, "<", "&lt;" },
	{ ANY, ">", "&gt;" },
	{ ANY, "'", "&apos;" },
	{ ANY, "\"", "&quot;" },
	{ ANY, "\\[", "&#91;" },
	{ ANY, "\\]", "&#93;" },
	{ 0 },
};

/*
 * Abbreviations that a full stop belongs to, from nonbreaking_prefix.en and .de, less those that
 * other rules know already: single letters, numbers and what has a full stop inside.
 */
static const char both[] =
                " Adj Adm Adv Asst Bart Bldg Brig Bros Capt Cmdr Col Comdr Con Corp Cpl DR "
                "Dr Ens Gen Gov Hon Hosp Insp Lt Maj Messrs Mlle MM Mme MR Mr MRS Mrs MS Ms "
                "Msgr Nos Nr Op Ord Pfc Ph Prof Pvt Rep Reps Res Rev Rt Sen Sens Sfc Sgt Sr "
                "St Supt Surg vs ";
static const char english[] = " Apr Aug Dec Drs Feb Hr Jan Jul Jun Mar Nov Oct rev Rs Sep ";
static const char english_before_numbers[] = " Art No pp ";
static const char german_only[] =
                " Art BSE Buchst bzgl bzw Ca ca Chr Co dergl dgl Dkr etc evtl ff ggf II ii "
                "III iii IV iv IX ix jun Ltd Mio Mrd MwSt No pp SA sen sog sogen spp Std usf "
                "usw vgl VI vi VII vii VIII viii XI xi XII xii XIII xiii XIV xiv XIX xix XV "
                "xv XVI xvi XVII xvii XVIII xviii XX xx Zt zzt ";

enum {
	RULES = sizeof normalizing / sizeof *normalizing + sizeof separating / sizeof *separating
	                + sizeof finishing / sizeof *finishing,
	LONGEST_ABBREVIATION = 8
};

struct moses {
	enum language language;
	struct pattern *patterns[RULES]; /* of the rules in their order; NULL: another language's */
	struct moses_sets sets;
	struct charset lower;
};

/* Life. */

static bool compile(struct moses *m, const struct rule *rules, struct pattern **patterns, char *err,
                size_t errlen) {
	for (size_t i = 0; rules[i].languages; i++) {
		const struct rule *r = &rules[i];
		if (!(r->languages & (int)m->language))
			continue;
		patterns[i] = pattern_create(r->pattern, strlen(r->pattern), err, errlen);
		if (!patterns[i])
			return false;
	}
	return true;
}

/* Where the patterns of the second and the third list begin. */
enum {
	SEPARATING = sizeof normalizing / sizeof *normalizing,
	FINISHING = SEPARATING + sizeof separating / sizeof *separating
};

static bool init(struct moses *m, char *err, size_t errlen) {
	return compile(m, normalizing, m->patterns, err, errlen)
	                && compile(m, separating, m->patterns + SEPARATING, err, errlen)
	                && compile(m, finishing, m->patterns + FINISHING, err, errlen)
	                && charset_init(&m->sets.alphabetic, ALPHA, err, errlen)
	                && charset_init(&m->sets.alphanumeric, ALNUM, err, errlen)
	                && charset_init(&m->sets.currency, "\\p{Sc}", err, errlen)
	                && charset_init(&m->lower, "\\p{Lowercase}", err, errlen);
}

struct moses *moses_create(const char *language, char *err, size_t errlen) {
	struct moses *m = calloc(1, sizeof *m);
	if (!m) {
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	m->language = strcmp(language, "en") == 0     ? ENGLISH
	                : strcmp(language, "de") == 0 ? GERMAN
	                                              : OTHER;
	if (init(m, err, errlen))
		return m;
	moses_destroy(m);
	return NULL;
}

void moses_destroy(struct moses *m) {
	if (!m)
		return;
	for (size_t i = 0; i < RULES; i++)
		pattern_destroy(m->patterns[i]);
	charset_finish(&m->sets.alphabetic);
	charset_finish(&m->sets.alphanumeric);
	charset_finish(&m->sets.currency);
	charset_finish(&m->lower);
	free(m);
}

bool moses_is_english(const struct moses *m) {
	return m->language == ENGLISH;
}

const struct moses_sets *moses_sets(const struct moses *m) {
	return &m->sets;
}

/* Full stops. */

static bool lists(const char *list, const char *word, size_t len) {
	char spaced[LONGEST_ABBREVIATION + 3];
	snprintf(spaced, sizeof spaced, " %.*s ", (int)len, word);
	return strstr(list, spaced) != NULL;
}

static bool is_letter(char c) {
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_digit(char c) {
	return c >= '0' && c <= '9';
}

/* Whether a full stop belongs to this word, whatever follows. */
static bool is_abbreviation(const struct moses *m, const char *word, size_t len) {
	bool german = m->language == GERMAN;
	if (len == 1 && is_letter(*word))
		return german || *word <= 'Z' || *word == 'v';
	if (german && len <= 2 && is_digit(*word) && *word != '0' && is_digit(word[len - 1]))
		return true;
	return len <= LONGEST_ABBREVIATION && !memchr(word, '\0', len)
	                && (lists(both, word, len)
	                                || lists(german ? german_only : english, word, len));
}

/* Whether any character of text[0..len) is a letter. */
static bool has_letter(const struct moses *m, const char *text, size_t len) {
	uint32_t code;
	for (size_t i = 0, n; i < len && (n = unicode_decode(text + i, len - i, &code)) > 0;
	                i += n) {
		if (charset_has(&m->sets.alphabetic, code))
			return true;
	}
	return false;
}

/* Whether the full stop of `word`, which ends before it, stays; next[0..next_len) follows. */
static bool keeps_stop(const struct moses *m, const char *word, size_t len, const char *next,
                size_t next_len) {
	uint32_t code;
	if (memchr(word, '.', len) && has_letter(m, word, len))
		return true;
	if (is_abbreviation(m, word, len))
		return true;
	if (unicode_decode(next, next_len, &code) > 0 && charset_has(&m->lower, code))
		return true;
	return m->language != GERMAN && len <= LONGEST_ABBREVIATION && next_len > 0
	                && is_digit(*next) && lists(english_before_numbers, word, len);
}

static bool only_stops(const char *word, size_t len) {
	while (len > 0 && word[len - 1] == '.')
		len--;
	return len == 0;
}

/*
 * Separates the full stops that end a sentence. Words are what stands between single spaces: between
 * two spaces there is an empty one, which begins with no small letter.
 */
static bool separate_stops(const struct moses *m, const char *line, size_t len, struct text *out) {
	while (len > 0 && line[len - 1] == ' ')
		len--;
	for (size_t i = 0; i < len;) {
		const char *space = memchr(line + i, ' ', len - i), *word = line + i;
		size_t n = space ? (size_t)(space - word) : len - i;
		bool last = !space;
		i += n + 1;
		const char *next = line + (last ? len : i);
		size_t next_len = last ? 0 : len - i;
		text_append(out, word, n);
		/* A word of full stops alone is one mark. */
		if (n > 1 && word[n - 1] == '.' && !only_stops(word, n)
		                && (last || !keeps_stop(m, word, n - 1, next, next_len))) {
			if (!out->failed)
				out->len--;
			text_append(out, " .", 2);
		}
		text_append(out, " ", 1);
	}
	return !out->failed;
}

/* The whole. */

/* A line, and where the next rule writes it. */
struct lines {
	struct pattern_match *match;
	struct text now, next;
};

static void swap(struct lines *l) {
	struct text now = l->now;
	l->now = l->next;
	l->next = now;
	l->next.len = 0;
}

static bool apply(const struct rule *rules, struct pattern *const *patterns, struct lines *l) {
	for (size_t i = 0; rules[i].languages; i++) {
		if (!patterns[i])
			continue;
		if (!pattern_replace(patterns[i], l->match, l->now.bytes, l->now.len,
		                    rules[i].replacement, &l->next))
			return false;
		swap(l);
	}
	return true;
}

static bool tokenize(const struct moses *m, struct lines *l, const char *text, size_t len) {
	text_append(&l->now, text, len);
	if (l->now.failed || !l->match)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (l->now.bytes[i] == '\n')
			l->now.bytes[i] = ' ';
	}
	text_append(&l->now, "\n", 1);
	if (!apply(normalizing, m->patterns, l) || !apply(separating, m->patterns + SEPARATING, l)
	                || !separate_stops(m, l->now.bytes, l->now.len, &l->next))
		return false;
	swap(l);
	return apply(finishing, m->patterns + FINISHING, l);
}

bool moses_tokenize(const struct moses *m, const char *text, size_t len, struct text *out) {
	struct lines l = { .match = pattern_match_create() };
	bool ok = tokenize(m, &l, text, len);
	if (ok)
		text_append(out, l.now.bytes, l.now.len);
	text_finish(&l.now);
	text_finish(&l.next);
	pattern_match_destroy(l.match);
	return ok && !out->failed;
}
