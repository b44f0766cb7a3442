/* SPDX-License-Identifier: Apache-2.0 */
/* Texts side by side. */
#include "cli/columns.h"

#include "tests/check.h"

/* What is printed for columns without heads. Free it. */
static char *printed(const char *const *texts, int n, int width) {
	struct column columns[4];
	char *out = NULL;
	size_t len = 0;
	memset(columns, 0, sizeof columns);
	for (int i = 0; i < n; i++) {
		snprintf(columns[i].heads[0], sizeof columns[i].heads[0], "%c", 'A' + i);
		columns[i].text = texts[i];
		columns[i].len = strlen(texts[i]);
	}
	FILE *f = open_memstream(&out, &len);
	columns_print(f, columns, n, width);
	fclose(f);
	return out;
}

TEST(texts_stand_side_by_side_and_break_at_spaces) {
	static const char *const texts[] = { "one two three four five six seven", "short" };
	char *out = printed(texts, 2, 2 * 24 + 3);
	CHECK_STR(out,
	                "A                          B\n\n"
	                "one two three four five    short\n"
	                "six seven\n");
	free(out);
}

TEST(a_narrow_terminal_gets_one_below_another) {
	static const char *const texts[] = { "one", "two" };
	char *out = printed(texts, 2, 30);
	CHECK_STR(out, "A\n\none\n\nB\n\ntwo\n");
	free(out);
}

TEST(a_word_longer_than_the_column_is_broken) {
	static const char *const texts[] = { "abcdefghijklmnopqrstuvwxyz0123" };
	char *out = printed(texts, 1, 24);
	CHECK_STR(out, "A\n\nabcdefghijklmnopqrstuvwx\nyz0123\n");
	free(out);
}

TEST(characters_count_not_bytes) {
	/* 24 letters of two bytes each fill one line. */
	static const char *const texts[] = { "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
		                             "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
		                             "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
		                             "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
		                             " x" };
	char *out = printed(texts, 1, 24);
	CHECK_STR(out + strlen(out) - 3, "\nx\n");
	CHECK_INT(strlen(out), 3 + 48 + 3);
	free(out);
}

TEST(line_breaks_in_the_text_are_kept) {
	static const char *const texts[] = { "a\n\nb", "c" };
	char *out = printed(texts, 2, 2 * 25 + 3);
	CHECK_STR(out,
	                "A                           B\n\n"
	                "a                           c\n"
	                "\n"
	                "b\n");
	free(out);
}
