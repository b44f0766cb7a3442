/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test harness: TEST(name_is_a_sentence) { CHECK(...); } and, once per program, CHECK_MAIN.
 *
 * Each test runs in order; a failed CHECK prints file, line and expression and ends that test.
 * SKIP("why") ends it as skipped. The program prints TAP (meson reads it) and exits non-zero if a
 * test failed.
 */
#ifndef FATHOM_TESTS_CHECK_H
#define FATHOM_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check_test {
	const char *name;
	void (*run)(void);
	struct check_test *next;
};

extern struct check_test *check_first, **check_last;
extern jmp_buf check_jump;
extern char check_skip_reason[256];

void check_fail(const char *file, int line, const char *format, ...)
                __attribute__((format(printf, 3, 4), noreturn));
void check_skip(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/*
 * Reads a whole file into malloc'd memory (NUL-terminated beyond its length); fails the test if it
 * cannot.
 */
char *check_read_file(const char *path, size_t *ret_len);
/*
 * tests/data/NAME in the source tree (environment FATHOM_SOURCE_ROOT, else the current directory);
 * static buffer.
 */
const char *check_data(const char *name);

#define TEST(test_name)                                                                            \
	static void test_name(void);                                                               \
	__attribute__((constructor)) static void check_register_##test_name(void) {                \
		static struct check_test test = { #test_name, test_name, NULL };                   \
		*check_last = &test;                                                               \
		check_last = &test.next;                                                           \
	}                                                                                          \
	static void test_name(void)

#define CHECK(expression)                                                                          \
	do {                                                                                       \
		if (!(expression))                                                                 \
			check_fail(__FILE__, __LINE__, "%s", #expression);                         \
	} while (0)

#define CHECK_INT(actual, expected)                                                                \
	do {                                                                                       \
		long long check_a = (long long)(actual), check_e = (long long)(expected);          \
		if (check_a != check_e)                                                            \
			check_fail(__FILE__, __LINE__, "%s is %lld, expected %lld", #actual,       \
			                check_a, check_e);                                         \
	} while (0)

#define CHECK_STR(actual, expected)                                                                \
	do {                                                                                       \
		const char *check_a = (actual), *check_e = (expected);                             \
		if (!check_a || strcmp(check_a, check_e) != 0)                                     \
			check_fail(__FILE__, __LINE__, "%s is \"%s\", expected \"%s\"", #actual,   \
			                check_a ? check_a : "(null)", check_e);                    \
	} while (0)

#define SKIP(...) check_skip(__VA_ARGS__)

#endif
