/* SPDX-License-Identifier: Apache-2.0 */
/* The test harness's main: runs the registered tests and prints TAP. */
#include "tests/check.h"

struct check_test *check_first, **check_last = &check_first;
jmp_buf check_jump;
char check_skip_reason[256];
static char check_message[1024];

enum { PASSED, FAILED, SKIPPED };

void check_fail(const char *file, int line, const char *format, ...) {
	va_list args;
	int n = snprintf(check_message, sizeof check_message, "%s:%d: ", file, line);
	va_start(args, format);
	vsnprintf(check_message + n, sizeof check_message - (size_t)n, format, args);
	va_end(args);
	longjmp(check_jump, FAILED);
}

void check_skip(const char *format, ...) {
	va_list args;
	va_start(args, format);
	vsnprintf(check_skip_reason, sizeof check_skip_reason, format, args);
	va_end(args);
	longjmp(check_jump, SKIPPED);
}

char *check_read_file(const char *path, size_t *ret_len) {
	FILE *f = fopen(path, "rb");
	if (!f)
		check_fail(__FILE__, __LINE__, "cannot open %s", path);
	char *data = NULL;
	size_t len = 0, cap = 0;
	for (;;) {
		if (len + 1 >= cap) {
			cap = cap ? cap * 2 : 65536;
			char *grown = realloc(data, cap);
			if (!grown)
				abort();
			data = grown;
		}
		size_t n = fread(data + len, 1, cap - len - 1, f);
		if (n == 0)
			break;
		len += n;
	}
	fclose(f);
	data[len] = '\0';
	if (ret_len)
		*ret_len = len;
	return data;
}

const char *check_data(const char *name) {
	static char path[4096];
	const char *root = getenv("FATHOM_SOURCE_ROOT");
	snprintf(path, sizeof path, "%s/tests/data/%s", root ? root : ".", name);
	return path;
}

/* A function of its own, so that nothing main counts lives across the jump. */
static int run_one(const struct check_test *t) {
	int outcome = setjmp(check_jump);
	if (outcome == PASSED)
		t->run();
	return outcome;
}

int main(void) {
	int total = 0, failed = 0, number = 0;
	for (struct check_test *t = check_first; t; t = t->next)
		total++;
	printf("TAP version 13\n1..%d\n", total);
	for (struct check_test *t = check_first; t; t = t->next) {
		number++;
		int outcome = run_one(t);
		if (outcome == FAILED) {
			printf("not ok %d - %s\n# %s\n", number, t->name, check_message);
			failed++;
		} else if (outcome == SKIPPED) {
			printf("ok %d - %s # SKIP %s\n", number, t->name, check_skip_reason);
		} else {
			printf("ok %d - %s\n", number, t->name);
		}
		fflush(stdout);
	}
	return failed ? 1 : 0;
}
