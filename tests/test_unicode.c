/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8 helpers. The ill-formed examples and what becomes of them are those of the Unicode
 * Standard, chapter 3, tables 3-8 to 3-11 ("U+FFFD substitution of maximal subparts").
 */
#include "model/unicode.h"
#include "tests/check.h"

TEST(every_scalar_value_is_written_and_read_back) {
	for (uint32_t code = 0; code <= 0x10ffff; code++) {
		char bytes[4];
		size_t len = unicode_encode(code, bytes);
		if (code >= 0xd800 && code <= 0xdfff) {
			CHECK_INT(len, 0);
			continue;
		}
		uint32_t back = 0;
		CHECK_INT(len, code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4);
		CHECK_INT(unicode_decode(bytes, len, &back), len);
		CHECK_INT(back, code);
		CHECK_INT(unicode_valid_prefix(bytes, len), len);
	}
	char bytes[4];
	CHECK_INT(unicode_encode(0x110000, bytes), 0);
}

TEST(known_characters_have_their_bytes) {
	uint32_t code;
	CHECK_INT(unicode_decode("\xe2\x82\xac", 3, &code), 3);
	CHECK_INT(code, 0x20ac);
	CHECK_INT(unicode_decode("\xf0\x9f\x98\x80!", 5, &code), 4);
	CHECK_INT(code, 0x1f600);
	CHECK_INT(unicode_decode("\xc3\xa9", 2, &code), 2);
	CHECK_INT(code, 0xe9);
}

TEST(ill_formed_characters_are_not_read) {
	static const char *const bad[] = { "\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xc2",
		"\xc2\x41", "\xe0\x80\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
		"\xe2\x82", "\xf0\x81\x82\x83", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80", "\xff", "\xf0\x9f\x98" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		CHECK_INT(unicode_decode(bad[i], strlen(bad[i]), NULL), 0);
		CHECK_INT(unicode_valid_prefix(bad[i], strlen(bad[i])), 0);
	}
	CHECK_INT(unicode_decode("", 0, NULL), 0);
}

TEST(the_well_formed_beginning_ends_before_the_first_bad_byte) {
	CHECK_INT(unicode_valid_prefix("abcdefghij\xc3\xa9 and\xff more", 21), 16);
	CHECK_INT(unicode_valid_prefix("\xe4\xb8\xad\xe6\x96", 5), 3);
	CHECK_INT(unicode_valid_prefix("", 0), 0);
}

TEST(a_torn_character_is_held_back_until_it_is_whole) {
	static const char *const characters[] = { "a", "\xc3\xa9", "\xe2\x82\xac",
		"\xf0\x9f\x98\x80" };
	for (size_t i = 0; i < 4; i++) {
		char text[16] = "xy";
		size_t len = strlen(characters[i]);
		memcpy(text + 2, characters[i], len);
		for (size_t part = 0; part < len; part++)
			CHECK_INT(unicode_complete(text, 2 + part), 2);
		CHECK_INT(unicode_complete(text, 2 + len), 2 + len);
	}
}

TEST(bytes_that_can_never_become_a_character_are_not_held_back) {
	CHECK_INT(unicode_complete("a\x80", 2), 2);
	CHECK_INT(unicode_complete("a\xff", 2), 2);
	CHECK_INT(unicode_complete("\xe0\x80", 2), 2);
	CHECK_INT(unicode_complete("\xed\xa0", 2), 2);
	CHECK_INT(unicode_complete("\xf4\x90\x80", 3), 3);
	CHECK_INT(unicode_complete("\x80\x80\x80\x80", 4), 4);
	CHECK_INT(unicode_complete("", 0), 0);
}

static void mends_to(const char *text, const char *expected) {
	char out[256];
	size_t n = unicode_mend(text, strlen(text), out);
	out[n] = '\0';
	CHECK_STR(out, expected);
	CHECK_INT(unicode_valid_prefix(out, n), n);
}

#define R "\xef\xbf\xbd"

TEST(ill_formed_text_is_mended_as_the_standard_shows) {
	mends_to("\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64",
	                "a" R R R "b" R "c" R R "d");
	mends_to("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", R R R R R R R R "A");
	mends_to("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", R R R R R R R R "A");
	mends_to("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", R R R R R "A" R R "B");
	mends_to("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", R R R R "A");
}

TEST(well_formed_text_is_not_changed_by_mending) {
	mends_to("plain, caf\xc3\xa9, \xe4\xb8\xad, \xf0\x9f\x98\x80",
	                "plain, caf\xc3\xa9, \xe4\xb8\xad, \xf0\x9f\x98\x80");
	mends_to("", "");
}
