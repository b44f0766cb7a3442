/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structured logs on stderr: one line per event, JSON or text. Any thread. Prompts and answers are
 * never logged.
 *
 *	log_event(LOG_INFO, "listening", { "url", LOG_STR(url) }, { "threads", LOG_INT(2) });
 */
#ifndef FATHOM_SERVER_LOG_H
#define FATHOM_SERVER_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

enum log_type { LOG_TYPE_STR, LOG_TYPE_INT, LOG_TYPE_F64, LOG_TYPE_BOOL };

struct log_value {
	enum log_type type;
	const char *s;
	int64_t i;
	double f;
};

#define LOG_STR(x) ((struct log_value){ .type = LOG_TYPE_STR, .s = (x) })
#define LOG_INT(x) ((struct log_value){ .type = LOG_TYPE_INT, .i = (x) })
#define LOG_F64(x) ((struct log_value){ .type = LOG_TYPE_F64, .f = (x) })
#define LOG_BOOL(x) ((struct log_value){ .type = LOG_TYPE_BOOL, .i = (x) })

struct log_field {
	const char *name;
	struct log_value value;
};

/* level "debug".."error", format "json" or "text". */
bool log_configure(const char *level, const char *format);

/* Writes one line with time stamp, level, event name and the fields. */
void log_fields(enum log_level level, const char *event, const struct log_field *fields, int n);

#define log_event(level, event, ...)                                                               \
	log_fields(level, event, (const struct log_field[]){ __VA_ARGS__ },                        \
	                (int)(sizeof((const struct log_field[]){ __VA_ARGS__ })                    \
	                                / sizeof(struct log_field)))

#endif
