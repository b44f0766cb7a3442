/* SPDX-License-Identifier: Apache-2.0 */
/* Torn characters and stop strings, byte by byte and in random pieces. */
#include "server/detokenise.h"

#include "tests/check.h"
#include "tests/toy_tokenizer.h"

static char text[4096], scratch[1024];

/* A tokenizer whose ids are bytes. */
static const struct tokenizer *bytes(void) {
	static struct tokenizer *t;
	if (!t) {
		toy_make();
		toy_json("", "", "", "");
		t = toy_open();
		CHECK(detokenise_scratch(t) <= sizeof scratch);
	}
	return t;
}

static void begin(struct detokeniser *d) {
	detokenise_begin(d, bytes(), false, text);
}

static void add_bytes(struct detokeniser *d, const char *s, size_t len) {
	for (size_t i = 0; i < len; i++)
		detokenise_add(d, (unsigned char)s[i], scratch);
}

static void add(struct detokeniser *d, const char *s) {
	add_bytes(d, s, strlen(s));
}

static bool is(const struct detokeniser *d, const char *expected) {
	return d->len == strlen(expected) && memcmp(d->text, expected, d->len) == 0;
}

/* The stops of a test. */
static char *stops[4];
static size_t lens[4];
static size_t n_stops;

static void use_stops(size_t n, const char *a, const char *b) {
	const char *all[] = { a, b };
	n_stops = n;
	for (size_t i = 0; i < n; i++) {
		stops[i] = (char *)all[i];
		lens[i] = strlen(all[i]);
	}
}

static size_t shown(const struct detokeniser *d) {
	return detokenise_shown(d, stops, lens, n_stops);
}

static int stop(struct detokeniser *d) {
	return detokenise_stop(d, stops, lens, n_stops);
}

TEST(a_character_torn_between_tokens_appears_whole) {
	struct detokeniser d;
	begin(&d);
	add(&d, "a\xe2");
	CHECK(is(&d, "a"));
	add(&d, "\x82");
	CHECK(is(&d, "a"));
	add(&d, "\xac!");
	CHECK(is(&d, "a\xe2\x82\xac!"));
}

TEST(a_character_never_completed_becomes_a_replacement_at_the_end) {
	struct detokeniser d;
	begin(&d);
	add(&d, "ok\xf0\x9f\x98");
	CHECK(is(&d, "ok"));
	detokenise_end(&d, scratch);
	CHECK(is(&d, "ok\xef\xbf\xbd"));
}

TEST(a_torn_character_followed_by_another_becomes_a_replacement) {
	struct detokeniser d;
	begin(&d);
	add(&d, "\xe2\x82");
	add(&d, "x\xff");
	add(&d, "y");
	CHECK(is(&d, "\xef\xbf\xbdx\xef\xbf\xbdy"));
}

TEST(a_stop_string_across_tokens_cuts_the_text) {
	struct detokeniser d;
	begin(&d);
	use_stops(1, "END", NULL);
	add(&d, "one E");
	CHECK_INT(stop(&d), -1);
	CHECK_INT(shown(&d), 4);
	add(&d, "N");
	CHECK_INT(stop(&d), -1);
	CHECK_INT(shown(&d), 4);
	add(&d, "D two");
	CHECK_INT(stop(&d), 0);
	CHECK(is(&d, "one "));
}

TEST(a_held_beginning_is_shown_when_it_goes_on_otherwise) {
	struct detokeniser d;
	begin(&d);
	use_stops(1, "END", NULL);
	add(&d, "EN");
	CHECK_INT(shown(&d), 0);
	add(&d, "E");
	CHECK_INT(stop(&d), -1);
	CHECK_INT(shown(&d), 2);
	add(&d, "x");
	CHECK_INT(stop(&d), -1);
	CHECK_INT(shown(&d), 4);
}

TEST(of_two_stop_strings_the_first_in_the_text_wins) {
	struct detokeniser d;
	begin(&d);
	use_stops(2, "late", "ear");
	add(&d, "an early or late one");
	CHECK_INT(stop(&d), 1);
	CHECK(is(&d, "an "));
}

TEST(stop_strings_before_the_least_length_are_passed_over) {
	struct detokeniser d;
	begin(&d);
	use_stops(2, "a", "bcd");
	add(&d, "a bc");
	detokenise_skip(&d);
	add(&d, "x");
	CHECK_INT(stop(&d), -1);
	add(&d, "a");
	CHECK_INT(stop(&d), 0);
	CHECK(is(&d, "a bcx"));
}

TEST(a_stop_string_may_begin_before_the_least_length) {
	struct detokeniser d;
	begin(&d);
	use_stops(1, "bcd", NULL);
	add(&d, "a bc");
	detokenise_skip(&d);
	add(&d, "d");
	CHECK_INT(stop(&d), 0);
	CHECK(is(&d, "a "));
}

/* What is shown never shrinks, and ends as the text up to the first stop, however it is cut into
 * tokens. The expected end comes from strstr over the whole. */
TEST(random_pieces_end_as_the_whole_would) {
	unsigned state = 1;
	for (int round = 0; round < 5000; round++) {
		char whole[64], stop_a[4] = "", stop_b[5] = "";
		int n = 0;
		for (n = 0; n < 40; n++)
			whole[n] = "abc"[(state = state * 1103515245u + 12345u) >> 16 & 1];
		whole[n] = '\0';
		for (int i = 0; i < 3; i++)
			stop_a[i] = "ab"[(state = state * 1103515245u + 12345u) >> 16 & 1];
		for (int i = 0; i < 4; i++)
			stop_b[i] = "abc"[(state = state * 1103515245u + 12345u) >> 16 & 1];
		use_stops(2, stop_a, stop_b);
		const char *a = strstr(whole, stop_a), *b = strstr(whole, stop_b);
		size_t end = strlen(whole);
		if (a && (size_t)(a - whole) < end)
			end = (size_t)(a - whole);
		if (b && (size_t)(b - whole) < end)
			end = (size_t)(b - whole);

		struct detokeniser d;
		begin(&d);
		size_t at = 0, before = 0;
		int found = -1;
		while (at < strlen(whole) && found < 0) {
			size_t piece = 1 + ((state = state * 1103515245u + 12345u) >> 16) % 3;
			if (piece > strlen(whole) - at)
				piece = strlen(whole) - at;
			add_bytes(&d, whole + at, piece);
			at += piece;
			found = stop(&d);
			size_t now = found >= 0 ? d.len : shown(&d);
			CHECK(now >= before);
			before = now;
		}
		detokenise_end(&d, scratch);
		/* A piece may hold the end of both; the one that begins first must win. */
		CHECK_INT(d.len, end);
		CHECK((found >= 0) == (a || b));
		CHECK(memcmp(d.text, whole, d.len) == 0);
	}
}
