/* SPDX-License-Identifier: Apache-2.0 */
/* A result inside its page: data stay data whatever a model or a run is called. */
#include <unistd.h>

#include "bench/report/report.h"
#include "tests/check.h"

static const char OPEN[] = "<script type=\"application/json\" id=\"result\">";

/* The page of `json`; free(). */
static char *page_of(const char *json) {
	char path[] = "/tmp/fathom-report-XXXXXX", err[256];
	int file = mkstemp(path);
	size_t len;

	CHECK(file >= 0);
	close(file);
	CHECK(report_write_html(path, json, err, sizeof err));
	char *page = check_read_file(path, &len);

	unlink(path);
	CHECK(len == strlen(page));
	return page;
}

/* What an HTML parser takes as the content of the element with the data; free(). */
static char *data_of(const char *page) {
	const char *from = strstr(page, OPEN);

	CHECK(from);
	from += strlen(OPEN);
	const char *to = strstr(from, "</script");

	CHECK(to);
	return strndup(from, to - from);
}

static void check_data_is(const char *json, const char *expected) {
	char *page = page_of(json), *data = data_of(page);

	CHECK_STR(data, expected);
	free(data);
	free(page);
}

TEST(a_result_stands_in_its_page_as_it_is) {
	check_data_is("{\"runs\": [], \"a\": 1.5}", "{\"runs\": [], \"a\": 1.5}");
}

TEST(the_end_of_a_script_in_a_name_does_not_end_the_data) {
	check_data_is("{\"model\": \"a</script><b>\", \"n\": 1}",
	                "{\"model\": \"a\\u003c/script>\\u003cb>\", \"n\": 1}");
	check_data_is("{\"model\": \"</SCRIPT >\"}", "{\"model\": \"\\u003c/SCRIPT >\"}");
}

TEST(the_start_of_a_comment_in_a_name_does_not_hide_the_end_of_the_data) {
	check_data_is("{\"model\": \"<!-- <script>\"}",
	                "{\"model\": \"\\u003c!-- \\u003cscript>\"}");
}

TEST(an_escaped_quote_and_other_bytes_are_left_alone) {
	check_data_is("{\"label\": \"\\\"%s & \xc3\xa9 \\\\\"}",
	                "{\"label\": \"\\\"%s & \xc3\xa9 \\\\\"}");
}

TEST(the_page_allows_only_its_own_script_and_style) {
	char *page = page_of("{}");

	CHECK(strstr(page, "default-src 'none'; script-src 'sha256-"));
	CHECK(!strstr(page, "unsafe-inline"));
	CHECK(!strstr(page, "@RESULT@") && !strstr(page, "@SCRIPT@") && !strstr(page, "@STYLE@"));
	free(page);
}

TEST(a_file_that_cannot_be_written_is_named) {
	char err[256];

	CHECK(!report_write_html("/nowhere/at/all.html", "{}", err, sizeof err));
	CHECK_STR(err, "/nowhere/at/all.html cannot be written: No such file or directory.");
}

TEST(a_full_disk_is_told) {
	char err[256];

	if (access("/dev/full", W_OK) != 0)
		SKIP("there is no /dev/full");
	CHECK(!report_write_html("/dev/full", "{}", err, sizeof err));
	CHECK_STR(err, "/dev/full cannot be written: No space left on device.");
}
