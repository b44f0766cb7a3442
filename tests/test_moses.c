/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moses' tokenizing and detokenizing against what its own scripts gave: tests/data/moses has 300
 * lines each way and language. LANG.tokenized is what normalize-punctuation.perl,
 * remove-non-printing-char.perl and tokenizer.perl -a made of LANG.raw, less spaces at line ends;
 * LANG.detokenized is what detokenizer.perl made of LANG.words.
 */
#include "model/moses_stream.h"
#include "tests/check.h"

static struct moses *make(const char *language) {
	char err[200] = "";
	struct moses *m = moses_create(language, err, sizeof err);
	CHECK_STR(err, "");
	return m;
}

/* The lines of a file; the text is theirs. */
struct lines {
	char *text;
	char *line[400];
	int count;
};

static void read_lines(struct lines *l, const char *language, const char *kind) {
	char name[64];
	size_t len;
	snprintf(name, sizeof name, "moses/%s.%s", language, kind);
	*l = (struct lines){ .text = check_read_file(check_data(name), &len) };
	for (char *p = l->text; *p && l->count < 400;) {
		l->line[l->count++] = p;
		p = strchr(p, '\n');
		CHECK(p);
		*p++ = '\0';
	}
}

static void tokenizes_to(const struct moses *m, const char *text, const char *expected) {
	struct text out = { 0 };
	CHECK(moses_tokenize(m, text, strlen(text), &out));
	while (out.len > 0 && out.bytes[out.len - 1] == ' ')
		out.len--;
	text_append(&out, "", 1);
	CHECK_STR(out.bytes, expected);
	text_finish(&out);
}

static void check_tokenizing(const char *language) {
	struct lines raw, tokenized;
	struct moses *m = make(language);
	read_lines(&raw, language, "raw");
	read_lines(&tokenized, language, "tokenized");
	CHECK_INT(raw.count, 300);
	CHECK_INT(tokenized.count, 300);
	for (int i = 0; i < raw.count; i++)
		tokenizes_to(m, raw.line[i], tokenized.line[i]);
	free(raw.text);
	free(tokenized.text);
	moses_destroy(m);
}

TEST(english_is_tokenized_as_by_the_scripts) {
	check_tokenizing("en");
}

TEST(german_is_tokenized_as_by_the_scripts) {
	check_tokenizing("de");
}

/* Detokenizes a line in parts of `step` bytes and more, cut between characters. */
static void detokenizes_to(
                const struct moses *m, const char *line, size_t step, const char *expected) {
	static char text[8192];
	struct moses_stream s = { 0 };
	size_t n = 0;
	for (const char *p = line; *p;) {
		if (*p == ' ') {
			p++;
			continue;
		}
		size_t word = strcspn(p, " "), len = step < word ? step : word;
		while (len < word && ((unsigned char)p[len] & 0xc0) == 0x80)
			len++;
		size_t given = moses_stream_add(m, &s, p, len, len == word, text + n);
		CHECK(given <= len + MOSES_HELD);
		n += given;
		CHECK(n < sizeof text - 2048);
		p += len;
	}
	n += moses_stream_end(m, &s, text + n);
	text[n] = '\0';
	CHECK_STR(text, expected);
}

static void check_detokenizing(const char *language) {
	struct lines words, detokenized;
	struct moses *m = make(language);
	read_lines(&words, language, "words");
	read_lines(&detokenized, language, "detokenized");
	CHECK_INT(words.count, 300);
	CHECK_INT(detokenized.count, 300);
	for (size_t step = 1; step < 100; step = step * 3 + 1) {
		for (int i = 0; i < words.count; i++)
			detokenizes_to(m, words.line[i], step, detokenized.line[i]);
	}
	free(words.text);
	free(detokenized.text);
	moses_destroy(m);
}

TEST(english_is_detokenized_as_by_the_script) {
	check_detokenizing("en");
}

TEST(german_is_detokenized_as_by_the_script) {
	check_detokenizing("de");
}

/* No rule of theirs is known here: what Moses does for a language without a list. */
TEST(other_languages_go_by_the_rules_for_all) {
	struct moses *m = make("xx");
	tokenizes_to(m, "L'eau, Dr. X, 5.", "L &apos; eau , Dr. X , 5 .");
	moses_destroy(m);
}

TEST(line_ends_are_white_space) {
	struct moses *m = make("en");
	tokenizes_to(m, "One.\r\nTwo\n", "One . Two");
	tokenizes_to(m, "", "");
	tokenizes_to(m, " \n ", "");
	moses_destroy(m);
}

/* Words are given out at their first letters, marks once the next word is no "@-@". */
TEST(text_is_given_as_soon_as_it_is_sure) {
	struct moses *m = make("en");
	struct moses_stream s = { 0 };
	char out[MOSES_HELD + 16];
	CHECK_INT(moses_stream_add(m, &s, "wo", 2, false, out), 2);
	CHECK_INT(moses_stream_add(m, &s, "rd", 2, true, out), 2);
	CHECK_INT(moses_stream_add(m, &s, ".", 1, true, out), 0);
	CHECK_INT(moses_stream_add(m, &s, "@", 1, false, out), 0);
	CHECK_INT(moses_stream_add(m, &s, "x", 1, false, out), 4);
	CHECK(memcmp(out, ". @x", 4) == 0);
	CHECK_INT(moses_stream_end(m, &s, out), 0);
	moses_destroy(m);
}

/* Long runs of every mark: time in proportion, and no more held back than is promised. */
TEST(hostile_runs_take_no_long_time) {
	static const char *const runs[] = { ".", "..\"", "'", "\"", "&", "&amp;", "a.", "a. ", ",",
		"5,", " ", "\xc2\xa0", "-", "a-", "(", ") ", "@-@ ", "\xe2\x80\x99", "\xc2\xab",
		"<", "1 ", "x" };
	size_t len = 200000;
	char *text = malloc(len), *out = malloc(len + MOSES_HELD);
	struct moses *both[] = { make("en"), make("de") };
	for (size_t k = 0; k < 2 * sizeof runs / sizeof *runs; k++) {
		const struct moses *m = both[k & 1];
		size_t n = strlen(runs[k / 2]), whole = len / n * n;
		for (size_t i = 0; i < whole; i++)
			text[i] = runs[k / 2][i % n];
		struct text line = { 0 };
		CHECK(moses_tokenize(m, text, whole, &line));
		CHECK(line.len <= 2 * MOSES_GROWTH * whole);
		text_finish(&line);
		struct moses_stream s = { 0 };
		CHECK(moses_stream_add(m, &s, text, whole, false, out) <= whole + MOSES_HELD);
		CHECK(moses_stream_end(m, &s, out) <= MOSES_HELD);
	}
	moses_destroy(both[0]);
	moses_destroy(both[1]);
	free(text);
	free(out);
}
