/* SPDX-License-Identifier: Apache-2.0 */
/* API keys: the file's checks, comparison, and limits under a clock of our own. */
#include "server/auth.h"

#include <limits.h>
#include <unistd.h>

#include "tests/check.h"

static char err[512];

static struct auth *open_text(const char *text) {
	char path[] = "/tmp/fathom-keys-XXXXXX";
	int fd = mkstemp(path);
	CHECK(fd >= 0);
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	struct auth *auth = auth_open(path, err, sizeof err);
	unlink(path);
	return auth;
}

TEST(without_a_file_everything_is_allowed) {
	struct auth *auth = auth_open(NULL, err, sizeof err);
	struct auth_grant grant;
	CHECK(auth && !auth_required(auth));
	CHECK_INT(auth_check(auth, NULL, 0, &grant), AUTH_OK);
	CHECK_INT(grant.key, 0);
	auth_close(auth);
}

TEST(a_key_is_accepted_as_bearer_or_bare_and_others_are_not) {
	struct auth *auth = open_text("# keys\nalpha-key-1 name=alice\n\nbeta-key-22 priority=2\n");
	struct auth_grant grant;
	CHECK(auth && auth_required(auth));
	CHECK_INT(auth_check(auth, "Bearer alpha-key-1", 0, &grant), AUTH_OK);
	CHECK_INT(grant.key, 1);
	CHECK_STR(grant.name, "alice");
	CHECK_INT(grant.best_priority, INT_MIN);
	CHECK_INT(auth_check(auth, "beta-key-22", 0, &grant), AUTH_OK);
	CHECK_INT(grant.key, 2);
	CHECK_INT(grant.best_priority, 2);
	CHECK_INT(auth_check(auth, NULL, 0, &grant), AUTH_MISSING);
	CHECK_INT(auth_check(auth, "Bearer alpha-key-", 0, &grant), AUTH_UNKNOWN);
	CHECK_INT(auth_check(auth, "Bearer alpha-key-11", 0, &grant), AUTH_UNKNOWN);
	CHECK_INT(auth_check(auth, "Bearer ", 0, &grant), AUTH_UNKNOWN);
	auth_close(auth);
}

TEST(a_rate_limit_refuses_and_says_when_to_come_back) {
	struct auth *auth = open_text("alpha-key-1 rate=2/s\n");
	struct auth_grant grant;
	int64_t now = 1000000000;
	CHECK_INT(auth_check(auth, "alpha-key-1", now, &grant), AUTH_OK);
	CHECK_INT(auth_check(auth, "alpha-key-1", now, &grant), AUTH_OK);
	CHECK_INT(auth_check(auth, "alpha-key-1", now, &grant), AUTH_LIMITED);
	CHECK(grant.retry_after_ms > 499 && grant.retry_after_ms < 501);
	now += 499000000;
	CHECK_INT(auth_check(auth, "alpha-key-1", now, &grant), AUTH_LIMITED);
	now += 2000000;
	CHECK_INT(auth_check(auth, "alpha-key-1", now, &grant), AUTH_OK);
	auth_close(auth);
}

TEST(a_bad_line_is_named) {
	CHECK(!open_text("good-key-1\nshort\n"));
	CHECK(strstr(err, "line 2"));
	CHECK(!open_text("good-key-1 rate=fast\n"));
	CHECK(strstr(err, "rate=fast"));
	CHECK(!open_text("good-key-1\ngood-key-1\n"));
	CHECK(strstr(err, "twice"));
	CHECK(!open_text("# nothing\n"));
	CHECK(strstr(err, "no key"));
	CHECK(!auth_open("/nonexistent/keys", err, sizeof err));
	CHECK(strstr(err, "/nonexistent/keys"));
}
