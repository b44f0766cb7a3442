/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line per event, written with a single write() so that lines of different threads never mix.
 */
#include "server/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/buffer.h"

static const char *const names[] = { "debug", "info", "warn", "error" };
static atomic_int least_level = LOG_INFO;
static atomic_bool as_json = true;

bool log_configure(const char *level, const char *format) {
	for (int i = 0; i < 4; i++) {
		if (strcmp(level, names[i]) != 0)
			continue;
		least_level = i;
		as_json = strcmp(format, "text") != 0;
		return true;
	}
	return false;
}

/* 2026-01-31T12:34:56.789Z */
static void time_stamp(char out[32]) {
	struct timespec now;
	struct tm utc;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(out + n, 32 - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

static void append_value(struct buffer *line, const struct log_value *value) {
	switch (value->type) {
	case LOG_TYPE_STR:
		if (value->s)
			buffer_json_string(line, value->s, strlen(value->s));
		else
			buffer_puts(line, "null");
		break;
	case LOG_TYPE_INT:
		buffer_printf(line, "%lld", (long long)value->i);
		break;
	case LOG_TYPE_F64:
		buffer_printf(line, "%.3f", value->f);
		break;
	case LOG_TYPE_BOOL:
		buffer_puts(line, value->i ? "true" : "false");
		break;
	}
}

void log_fields(enum log_level level, const char *event, const struct log_field *fields, int n) {
	if ((int)level < least_level)
		return;
	struct buffer line = { 0 };
	char now[32];
	time_stamp(now);
	if (as_json)
		buffer_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\"", now,
		                names[level], event);
	else
		buffer_printf(&line, "%s %-5s %s", now, names[level], event);
	for (int i = 0; i < n; i++) {
		buffer_printf(&line, as_json ? ",\"%s\":" : " %s=", fields[i].name);
		append_value(&line, &fields[i].value);
	}
	buffer_puts(&line, as_json ? "}\n" : "\n");
	ssize_t ignored = line.failed ? 0 : write(STDERR_FILENO, line.data, line.len);
	(void)ignored; /* a log that cannot be written has nowhere to say so */
	buffer_finish(&line);
}
