/* SPDX-License-Identifier: Apache-2.0 */
/* JSON documents: kinds, ranges, order, and what is refused. */
#include "model/doc.h"

#include "tests/check.h"

static char err[300];

static struct doc *parse(const char *json) {
	err[0] = '\0';
	return doc_parse(json, strlen(json), "x.json", err, sizeof err);
}

static struct doc *must_parse(const char *json) {
	struct doc *doc = parse(json);
	if (!doc)
		check_fail(__FILE__, __LINE__, "%s", err);
	return doc;
}

static struct doc_reader reader(const struct doc *doc) {
	err[0] = '\0';
	return (struct doc_reader){
		.object = doc, .file = "x.json", .err = err, .errlen = sizeof err
	};
}

TEST(every_kind_is_told_apart) {
	struct doc *doc = must_parse("[null, true, 1, 1.0, \"1\", [], {}]");
	static const enum doc_kind kinds[] = { DOC_NULL, DOC_BOOL, DOC_INT, DOC_REAL, DOC_STRING,
		DOC_ARRAY, DOC_OBJECT, DOC_ABSENT };
	for (size_t i = 0; i < 8; i++)
		CHECK_INT(doc_kind(doc_at(doc, i)), kinds[i]);
	doc_free(doc);
}

TEST(a_bool_is_no_number_and_a_real_no_whole_number) {
	struct doc *doc = must_parse("[true, 1.0, 7, -0.5]");
	int64_t i = -1;
	double d = -1;
	bool b;
	CHECK(!doc_as_int(doc_at(doc, 0), &i) && !doc_as_number(doc_at(doc, 0), &d));
	CHECK(!doc_as_int(doc_at(doc, 1), &i) && !doc_as_bool(doc_at(doc, 2), &b));
	CHECK(i == -1 && d == -1);
	CHECK(doc_as_int(doc_at(doc, 2), &i) && i == 7);
	CHECK(doc_as_number(doc_at(doc, 2), &d) && d == 7);
	CHECK(doc_as_number(doc_at(doc, 3), &d) && d == -0.5);
	doc_free(doc);
}

TEST(members_come_in_the_order_of_the_file) {
	struct doc *doc = must_parse("{\"z\":0,\"a\":1,\"m\":2,\"\":3,\"b\":4}");
	void *at = NULL;
	const char *key, *expected[] = { "z", "a", "m", "", "b" };
	const struct doc *value;
	int64_t n = 0, got;
	while (doc_next(doc, &at, &key, &value)) {
		CHECK_STR(key, expected[n]);
		CHECK(doc_as_int(value, &got) && got == n);
		n++;
	}
	CHECK_INT(n, 5);
	CHECK_INT(doc_count(doc), 5);
	doc_free(doc);
}

TEST(strings_come_with_their_length_in_bytes) {
	struct doc *doc = must_parse("[\"\\u00e9\\n\", \"\"]");
	size_t len = 99;
	CHECK_STR(doc_as_string(doc_at(doc, 0), &len), "\xc3\xa9\n");
	CHECK_INT(len, 3);
	CHECK_STR(doc_as_string(doc_at(doc, 1), &len), "");
	CHECK_INT(len, 0);
	CHECK(!doc_as_string(doc, &len));
	doc_free(doc);
}

TEST(an_absent_value_is_harmless_everywhere) {
	void *at = NULL;
	const char *key;
	const struct doc *value;
	CHECK(!doc_get(NULL, "a") && !doc_at(NULL, 0) && doc_count(NULL) == 0);
	CHECK(!doc_next(NULL, &at, &key, &value) && !doc_as_string(NULL, NULL));
	doc_free(NULL);
	struct doc *doc = must_parse("[1]");
	CHECK(!doc_get(doc, "a") && !doc_at(doc_at(doc, 0), 0) && doc_count(doc_at(doc, 0)) == 0);
	doc_free(doc);
}

TEST(ill_formed_json_is_refused_with_file_line_and_column) {
	CHECK(!parse("{\"a\": 1,\n \"b\" 2}"));
	CHECK(strstr(err, "x.json: not valid JSON at line 2, column"));
	static const char *const bad[] = { "", "1", "\"a\"", "{} {}", "[1,]", "{\"a\":1,\"a\":2}",
		"[\"\xff\"]", "[\"\\u0000\"]", "[\"\\ud800\"]", "[1e999]", "[NaN]",
		"[99999999999999999999]", "\xef\xbb\xbf{}" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		CHECK(!parse(bad[i]));
		CHECK(strncmp(err, "x.json: ", 8) == 0);
	}
}

TEST(millions_of_values_and_deep_nesting_are_refused) {
	size_t len = 10u << 20;
	char *json = malloc(len);
	CHECK(json != NULL);
	memset(json, '[', len);
	CHECK(!doc_parse(json, len, "x.json", err, sizeof err));
	CHECK(strstr(err, "more than 4194304 JSON values"));
	CHECK(!doc_parse(json, 100000, "x.json", err, sizeof err));
	CHECK(strstr(err, "depth"));
	free(json);
}

TEST(separators_within_strings_are_not_counted_as_values) {
	size_t len = 10u << 20;
	char *json = malloc(len);
	CHECK(json != NULL);
	memset(json, ',', len);
	memcpy(json, "[\"\\\"", 4);
	memcpy(json + len - 2, "\"]", 2);
	struct doc *doc = doc_parse(json, len, "x.json", err, sizeof err);
	CHECK(doc != NULL);
	CHECK_INT(doc_count(doc), 1);
	doc_free(doc);
	free(json);
}

TEST(a_reader_gives_defaults_and_keeps_its_first_failure) {
	struct doc *doc = must_parse("{\"n\":5,\"none\":null,\"t\":true,\"s\":\"x\",\"r\":0.5}");
	struct doc_reader r = reader(doc);
	CHECK_INT(doc_read_int(&r, "n", 5, 5, 1), 5);
	CHECK_INT(doc_read_int(&r, "none", 0, 9, 3), 3);
	CHECK_INT(doc_read_int(&r, "absent", 0, 9, 4), 4);
	CHECK(doc_read_bool(&r, "t", false) && doc_read_number(&r, "r", 0, 1, 0) == 0.5);
	CHECK_STR(doc_read_string(&r, "s", NULL), "x");
	CHECK(!r.failed);
	CHECK_INT(doc_read_int(&r, "n", 6, 9, 7), 7);
	CHECK_STR(err, "x.json: \"n\" must be a whole number from 6 to 9");
	doc_read_bool(&r, "s", false);
	CHECK_STR(err, "x.json: \"n\" must be a whole number from 6 to 9");
	CHECK(r.failed);
	r = reader(doc);
	CHECK_INT(doc_need_int(&r, "none", 1, 9), 1);
	CHECK_STR(err, "x.json: \"none\" is missing");
	doc_free(doc);
}
