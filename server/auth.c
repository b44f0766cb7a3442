/* SPDX-License-Identifier: Apache-2.0 */
/* API keys: the file, the comparison in constant time, and a token bucket per key. */
#include "server/auth.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { KEY_SIZE = 256, MOST_KEYS = 10000 };

struct api_key {
	char text[KEY_SIZE]; /* zero-padded: always compared whole */
	char name[64];
	int best_priority;
	double per_second;   /* 0: no limit */
	double bucket, most; /* requests that may start now, and at most */
	int64_t filled_ns;
};

struct auth {
	struct api_key *keys;
	size_t count;
};

static bool parse_rate(const char *text, struct api_key *key) {
	char *end;
	double n = strtod(text, &end);
	if (end == text || !(n > 0) || n > 1e9)
		return false;
	if (strcmp(end, "/s") == 0)
		key->per_second = n;
	else if (strcmp(end, "/min") == 0)
		key->per_second = n / 60;
	else
		return false;
	key->most = key->bucket = n < 1 ? 1 : n;
	return true;
}

static bool parse_setting(const char *word, struct api_key *key) {
	char *end;
	if (strncmp(word, "rate=", 5) == 0)
		return parse_rate(word + 5, key);
	if (strncmp(word, "name=", 5) == 0 && word[5] && strlen(word + 5) < sizeof key->name) {
		snprintf(key->name, sizeof key->name, "%s", word + 5);
		return true;
	}
	if (strncmp(word, "priority=", 9) == 0) {
		long priority = strtol(word + 9, &end, 10);
		key->best_priority = (int)priority;
		return end != word + 9 && !*end && priority >= -1000 && priority <= 1000;
	}
	return false;
}

/* One line; 1: a key, 0: nothing, -1: refused with err. */
static int parse_line(char *line, struct api_key *key, const char *path, int number, char *err,
                size_t errlen) {
	char *save = NULL;
	line[strcspn(line, "#\r\n")] = '\0';
	char *word = strtok_r(line, " \t", &save);
	if (!word)
		return 0;
	memset(key, 0, sizeof *key);
	key->best_priority = INT_MIN;
	if (strlen(word) >= KEY_SIZE || strlen(word) < 8) {
		snprintf(err, errlen, "%s, line %d: a key has 8 to %d characters", path, number,
		                KEY_SIZE - 1);
		return -1;
	}
	strcpy(key->text, word);
	snprintf(key->name, sizeof key->name, "key-%d", number);
	while ((word = strtok_r(NULL, " \t", &save)))
		if (!parse_setting(word, key)) {
			snprintf(err, errlen,
			                "%s, line %d: \"%.40s\" is not rate=N/s, rate=N/min, "
			                "priority=P or name=LABEL",
			                path, number, word);
			return -1;
		}
	return 1;
}

static bool read_keys(struct auth *auth, FILE *file, const char *path, char *err, size_t errlen) {
	char line[1024];
	struct api_key key;
	for (int number = 1; fgets(line, sizeof line, file); number++) {
		if (!strchr(line, '\n') && !feof(file)) {
			snprintf(err, errlen, "%s, line %d: the line is too long", path, number);
			return false;
		}
		int found = parse_line(line, &key, path, number, err, errlen);
		if (found < 0)
			return false;
		if (found == 0)
			continue;
		for (size_t i = 0; i < auth->count; i++)
			if (strcmp(auth->keys[i].text, key.text) == 0) {
				snprintf(err, errlen, "%s, line %d: the key is given twice", path,
				                number);
				return false;
			}
		struct api_key *grown = auth->count < MOST_KEYS
		                ? realloc(auth->keys, (auth->count + 1) * sizeof *grown)
		                : NULL;
		if (!grown) {
			snprintf(err, errlen, "%s: more than %d keys, or out of memory", path,
			                MOST_KEYS);
			return false;
		}
		auth->keys = grown;
		auth->keys[auth->count++] = key;
	}
	if (auth->count == 0) {
		snprintf(err, errlen, "%s: the file holds no key", path);
		return false;
	}
	return true;
}

struct auth *auth_open(const char *path, char *err, size_t errlen) {
	struct auth *auth = calloc(1, sizeof *auth);
	if (!auth) {
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	if (!path)
		return auth;
	FILE *file = fopen(path, "r");
	if (!file) {
		snprintf(err, errlen, "%s: the API key file cannot be read", path);
		free(auth);
		return NULL;
	}
	bool ok = read_keys(auth, file, path, err, errlen);
	fclose(file);
	if (!ok) {
		auth_close(auth);
		return NULL;
	}
	return auth;
}

void auth_close(struct auth *auth) {
	if (!auth)
		return;
	if (auth->keys)
		explicit_bzero(auth->keys, auth->count * sizeof *auth->keys);
	free(auth->keys);
	free(auth);
}

bool auth_required(const struct auth *auth) {
	return auth->count > 0;
}

/* Looks at every key and every byte, whatever matches. */
static struct api_key *find_key(struct auth *auth, const char *text) {
	char padded[KEY_SIZE] = { 0 };
	size_t len = strnlen(text, KEY_SIZE);
	struct api_key *found = NULL;
	if (len == KEY_SIZE)
		return NULL;
	memcpy(padded, text, len);
	for (size_t i = 0; i < auth->count; i++) {
		unsigned char difference = 0;
		for (size_t j = 0; j < KEY_SIZE; j++)
			difference |= (unsigned char)(padded[j] ^ auth->keys[i].text[j]);
		if (difference == 0)
			found = &auth->keys[i];
	}
	return found;
}

static bool take(struct api_key *key, int64_t now_ns, double *ret_retry_ms) {
	if (key->per_second == 0)
		return true;
	if (key->filled_ns) {
		key->bucket += (double)(now_ns - key->filled_ns) * 1e-9 * key->per_second;
		if (key->bucket > key->most)
			key->bucket = key->most;
	}
	key->filled_ns = now_ns;
	if (key->bucket < 1) {
		*ret_retry_ms = (1 - key->bucket) / key->per_second * 1000;
		return false;
	}
	key->bucket -= 1;
	return true;
}

enum auth_result auth_check(struct auth *auth, const char *authorization, int64_t now_ns,
                struct auth_grant *ret_grant) {
	*ret_grant = (struct auth_grant){ .best_priority = INT_MIN };
	if (!auth_required(auth))
		return AUTH_OK;
	if (!authorization)
		return AUTH_MISSING;
	if (strncasecmp(authorization, "Bearer ", 7) == 0)
		authorization += 7;
	authorization += strspn(authorization, " ");
	struct api_key *key = find_key(auth, authorization);
	if (!key)
		return AUTH_UNKNOWN;
	ret_grant->key = (uint64_t)(key - auth->keys) + 1;
	ret_grant->best_priority = key->best_priority;
	snprintf(ret_grant->name, sizeof ret_grant->name, "%s", key->name);
	return take(key, now_ns, &ret_grant->retry_after_ms) ? AUTH_OK : AUTH_LIMITED;
}
