/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration: precedence, and errors that name source, key, value and reason. */
#include "config/config.h"

#include <unistd.h>

#include "config/options.h"
#include "tests/check.h"

static char err[512], ignored[256];

static bool load(struct config *c, char **argv, char **environment) {
	int argc = 0;
	bool help;
	while (argv[argc])
		argc++;
	err[0] = '\0';
	return config_load(c, argc, argv, environment, &help, ignored, sizeof ignored, err,
	                sizeof err);
}

/* The lists are only read; config_load takes what main() gets. */
#define ARGS(...) ((char **)(const char *[]){ __VA_ARGS__ __VA_OPT__(, ) NULL })

static const char *write_file(const char *text) {
	static char path[64];
	snprintf(path, sizeof path, "/tmp/fathom-config-XXXXXX");
	int fd = mkstemp(path);
	CHECK(fd >= 0);
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	return path;
}

/* Loads a file that must be refused, and checks that the sentence holds each of `parts`. */
static void refuse_file(const char *text, const char *const *parts) {
	struct config c;
	const char *path = write_file(text);
	char **argv = ARGS("--config", path);
	bool ok = load(&c, argv, ARGS());
	config_finish(&c);
	unlink(path);
	CHECK(!ok);
	CHECK(strstr(err, path));
	for (; *parts; parts++)
		if (!strstr(err, *parts))
			check_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", err, *parts);
}

TEST(defaults_are_those_of_the_contract) {
	struct config c;
	CHECK(load(&c, ARGS(), ARGS()));
	CHECK_STR(c.host, "127.0.0.1");
	CHECK_INT(c.port, 8080);
	CHECK_INT(c.body_bytes, 1 << 20);
	CHECK_INT(c.header_bytes, 32 << 10);
	CHECK_INT(c.header_timeout_ms, 10000);
	CHECK_INT(c.body_timeout_ms, 30000);
	CHECK_INT(c.idle_timeout_ms, 75000);
	CHECK_INT(c.queue_requests, 256);
	CHECK_INT(c.prompts, 32);
	CHECK_INT(c.n, 8);
	CHECK_INT(c.stops, 16);
	CHECK_INT(c.logit_bias, 300);
	CHECK_INT(c.max_deadline_ms, 600000);
	CHECK_STR(c.default_depth, "full");
	CHECK_INT(c.default_max_tokens, 128);
	CHECK_INT(c.n_tiers, 3);
	CHECK(c.page);
	config_finish(&c);
}

TEST(flags_win_over_the_environment_and_that_over_the_file) {
	struct config c;
	const char *path = write_file("{\"port\": 1001, \"threads\": 3, \"host\": \"0.0.0.0\"}");
	char **argv = ARGS("--config", path, "--port=1003");
	bool ok = load(&c, argv, ARGS("FATHOM_PORT=1002", "FATHOM_THREADS=2"));
	unlink(path);
	CHECK(ok);
	CHECK_INT(c.port, 1003);
	CHECK_INT(c.threads, 2);
	CHECK_STR(c.host, "0.0.0.0");
	config_finish(&c);
}

TEST(a_list_from_a_stronger_source_replaces_the_weaker_one) {
	struct config c;
	CHECK(load(&c, ARGS("--cors-origin", "https://c", "--cors-origin=https://d"),
	                ARGS("FATHOM_CORS_ORIGIN=https://a,https://b")));
	CHECK_INT(c.n_cors_origins, 2);
	CHECK_STR(c.cors_origins[0], "https://c");
	CHECK_STR(c.cors_origins[1], "https://d");
	config_finish(&c);
}

TEST(an_unknown_key_names_file_key_and_value) {
	refuse_file("{\"prot\": 8080}", (const char *const[]){ "prot", "8080", "unknown", NULL });
}

TEST(a_value_out_of_range_names_key_value_and_range) {
	refuse_file("{\"port\": 70000}",
	                (const char *const[]){ "port", "70000", "0 to 65535", NULL });
}

TEST(a_value_of_the_wrong_type_names_the_key) {
	refuse_file("{\"port\": true}", (const char *const[]){ "port", "true", "a number", NULL });
	refuse_file("{\"page\": 1}", (const char *const[]){ "page", "true or false", NULL });
	refuse_file("{\"host\": 1}", (const char *const[]){ "host", "a string", NULL });
}

TEST(a_duplicate_key_is_refused) {
	refuse_file("{\"port\": 1, \"port\": 2}", (const char *const[]){ "port", NULL });
}

TEST(broken_json_names_the_line) {
	refuse_file("{\n\"port\": \n}", (const char *const[]){ "line 3", NULL });
}

TEST(a_missing_file_is_named) {
	struct config c;
	CHECK(!load(&c, ARGS("--config", "/nonexistent/fathom.json"), ARGS()));
	CHECK(strstr(err, "/nonexistent/fathom.json") && !strstr(err, "line"));
	config_finish(&c);
}

TEST(an_unknown_flag_is_refused) {
	struct config c;
	CHECK(!load(&c, ARGS("--prot", "1"), ARGS()));
	CHECK(strstr(err, "--prot"));
	config_finish(&c);
	CHECK(!load(&c, ARGS("serve"), ARGS()));
	CHECK(strstr(err, "serve"));
	config_finish(&c);
	CHECK(!load(&c, ARGS("--port"), ARGS()));
	CHECK(strstr(err, "needs a value"));
	config_finish(&c);
}

TEST(an_unknown_variable_is_refused) {
	struct config c;
	CHECK(!load(&c, ARGS(), ARGS("FATHOM_PROT=1")));
	CHECK(strstr(err, "FATHOM_PROT"));
	config_finish(&c);
}

TEST(variables_of_kubernetes_are_ignored_and_named) {
	struct config c;
	CHECK(load(&c, ARGS(),
	                ARGS("FATHOM_PORT=tcp://10.0.0.1:80",
	                                "FATHOM_PORT_80_TCP=tcp://10.0.0.1:80",
	                                "FATHOM_SERVICE_HOST=10.0.0.1", "FATHOM_THREADS=2")));
	CHECK_INT(c.port, 8080);
	CHECK_INT(c.threads, 2);
	CHECK(strstr(ignored, "FATHOM_PORT,"));
	CHECK(strstr(ignored, "FATHOM_SERVICE_HOST"));
	CHECK(strstr(ignored, "FATHOM_PORT_80_TCP"));
	CHECK(!strstr(ignored, "THREADS"));
	config_finish(&c);
}

TEST(variables_of_kubernetes_for_a_service_with_a_longer_name_are_ignored) {
	struct config c;
	CHECK(load(&c, ARGS(),
	                ARGS("FATHOM_ADMIN_PORT=tcp://10.0.0.1:81",
	                                "FATHOM_DEMO_SERVICE_HOST=10.0.0.1",
	                                "FATHOM_DEMO_SERVICE_PORT_HTTP=80",
	                                "FATHOM_DEMO_PORT_80_TCP_ADDR=10.0.0.1")));
	CHECK_INT(c.admin_port, -1);
	CHECK(strstr(ignored, "FATHOM_ADMIN_PORT,"));
	CHECK(strstr(ignored, "FATHOM_DEMO_PORT_80_TCP_ADDR"));
	config_finish(&c);
	CHECK(load(&c, ARGS(), ARGS("FATHOM_ADMIN_PORT=81")));
	CHECK_INT(c.admin_port, 81);
	CHECK_STR(ignored, "");
	config_finish(&c);
	CHECK(!load(&c, ARGS(), ARGS("FATHOM_DEMO_PORT=81")));
	config_finish(&c);
	CHECK(!load(&c, ARGS(), ARGS("FATHOM_REPORT=tcp://10.0.0.1:81")));
	config_finish(&c);
}

TEST(times_and_sizes_take_units) {
	struct config c;
	CHECK(load(&c, ARGS("--idle-timeout", "2min", "--ping", "250ms", "--kv-bytes", "1.5G"),
	                ARGS()));
	CHECK_INT(c.idle_timeout_ms, 120000);
	CHECK_INT(c.ping_ms, 250);
	CHECK_INT(c.kv_bytes, 1610612736);
	config_finish(&c);
	CHECK(!load(&c, ARGS("--idle-timeout", "2h"), ARGS()));
	config_finish(&c);
	CHECK(!load(&c, ARGS("--threads", "2s"), ARGS()));
	config_finish(&c);
	CHECK(!load(&c, ARGS("--threads", "1.5"), ARGS()));
	config_finish(&c);
}

TEST(tiers_are_numbers_or_fractions_and_may_be_redefined) {
	struct config c;
	CHECK(load(&c, ARGS("--tiers", "draft=2", "--tiers=fast=0.1"), ARGS()));
	CHECK_INT(c.n_tiers, 4);
	CHECK_STR(c.tiers[0].name, "fast");
	CHECK(c.tiers[0].fraction > 0.099 && c.tiers[0].fraction < 0.101);
	CHECK_STR(c.tiers[3].name, "draft");
	CHECK_INT(c.tiers[3].depth, 2);
	config_finish(&c);
	CHECK(!load(&c, ARGS("--tiers", "x=0"), ARGS()));
	config_finish(&c);
	CHECK(!load(&c, ARGS("--tiers", "x=1.5"), ARGS()));
	config_finish(&c);
}

TEST(a_fraction_in_the_file_keeps_all_its_digits) {
	struct config c;
	const char *path = write_file("{\"tiers\": {\"most\": 0.6666666666666666, \"x\": 1.0}}");
	char **argv = ARGS("--config", path);
	bool ok = load(&c, argv, ARGS());
	unlink(path);
	CHECK(ok);
	CHECK(c.tiers[3].fraction == 0.6666666666666666);
	CHECK(c.tiers[4].fraction == 1.0 && c.tiers[4].depth == 0);
	config_finish(&c);
}

TEST(a_tier_that_no_client_could_name_is_refused) {
	static const char *const bad[] = { "6=2", "auto=2", "very fast=2", "a@b=2", "-x=2" };
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct config c;
		CHECK(!load(&c, ARGS("--tiers", bad[i]), ARGS()));
		CHECK(strstr(err, "letter"));
		config_finish(&c);
	}
}

TEST(a_boolean_flag_needs_no_value_and_can_be_negated) {
	struct config c;
	CHECK(load(&c, ARGS("--no-page", "--metrics-public"), ARGS()));
	CHECK(!c.page);
	CHECK(c.metrics_public);
	config_finish(&c);
}

TEST(every_option_is_in_the_help) {
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	config_help(out, false);
	fclose(out);
	for (size_t i = 0; i < option_count; i++) {
		char flag[128];
		snprintf(flag, sizeof flag, "--%s", option_table[i].name);
		CHECK(strstr(text, flag));
	}
	free(text);
}

TEST(the_dump_can_be_loaded_again) {
	struct config c, again;
	char *text = NULL;
	size_t len = 0;
	CHECK(load(&c, ARGS("--port", "9", "--cors-origin", "https://a", "--tiers", "x=0.3"),
	                ARGS()));
	FILE *out = open_memstream(&text, &len);
	config_dump(&c, out);
	fclose(out);
	const char *path = write_file(text);
	char **argv = ARGS("--config", path);
	bool ok = load(&again, argv, ARGS());
	unlink(path);
	free(text);
	if (!ok)
		check_fail(__FILE__, __LINE__, "%s", err);
	CHECK_INT(again.port, 9);
	CHECK_INT(again.n_tiers, 4);
	CHECK_STR(again.cors_origins[0], "https://a");
	config_finish(&c);
	config_finish(&again);
}
