/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and urgency in headers, as proxies and meshes send them: gRPC's PROTOCOL-HTTP2, Envoy's
 * expected request timeout, RFC 7240 (Prefer: wait) and RFC 9218 (Priority).
 */
#include "proto/request.h"

#include <string.h>
#include <strings.h>

static const char *skip_space(const char *s) {
	return s + strspn(s, " \t");
}

static bool is_digit(char c) {
	return c >= '0' && c <= '9';
}

/*
 * [-]digits[.digits], at most `max_digits` of them before the point. Returns what follows, or NULL.
 * strtod would take the locale's word for what a decimal point is.
 */
static const char *parse_decimal(const char *s, int max_digits, double *ret_value) {
	double sign = 1, value = 0, unit = 1;
	if (*s == '-') {
		sign = -1;
		s++;
	}
	int digits = 0;
	for (; is_digit(*s); s++, digits++)
		value = value * 10 + (*s - '0');
	if (digits == 0 || digits > max_digits)
		return NULL;
	if (*s == '.' && is_digit(s[1])) {
		for (s++; is_digit(*s); s++) {
			unit /= 10;
			value += unit * (*s - '0');
		}
	}
	*ret_value = sign * value;
	return s;
}

/* The whole value is one number. */
static bool parse_number(const char *s, double *ret_value) {
	s = parse_decimal(skip_space(s), 15, ret_value);
	return s && *skip_space(s) == '\0';
}

/* At most eight digits and a unit. */
static bool parse_grpc(const char *s, double *ret_ms) {
	static const struct {
		char unit;
		double ms;
	} units[] = { { 'H', 3600e3 }, { 'M', 60e3 }, { 'S', 1e3 }, { 'm', 1 }, { 'u', 1e-3 },
		{ 'n', 1e-6 } };
	double value;
	s = parse_decimal(skip_space(s), 8, &value);
	if (!s || *s == '\0' || *skip_space(s + 1) != '\0')
		return false;
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (units[i].unit == *s) {
			*ret_ms = value * units[i].ms;
			return true;
		}
	}
	return false;
}

/* The next item of a list that commas separate, quoted strings apart; NULL at the end. */
static const char *next_item(const char *s) {
	bool quoted = false;
	for (; *s; s++) {
		if (quoted && *s == '\\' && s[1])
			s++;
		else if (*s == '"')
			quoted = !quoted;
		else if (*s == ',' && !quoted)
			return s + 1;
	}
	return NULL;
}

/* The text after "NAME =" if the item has that name, else NULL. */
static const char *item_value(const char *item, const char *name) {
	item = skip_space(item);
	size_t n = strlen(name);
	if (strncasecmp(item, name, n) != 0)
		return NULL;
	item = skip_space(item + n);
	return *item == '=' ? skip_space(item + 1) : NULL;
}

static bool ends_item(const char *s) {
	s = skip_space(s);
	return *s == '\0' || *s == ',' || *s == ';';
}

/* wait=N in seconds; the first one counts (RFC 7240, section 2). */
static bool parse_prefer(const char *s, double *ret_ms) {
	for (; s; s = next_item(s)) {
		const char *value = item_value(s, "wait");
		if (!value)
			continue;
		bool quoted = *value == '"';
		double seconds;
		const char *end = parse_decimal(value + quoted, 15, &seconds);
		if (!end || (quoted && *end != '"') || !ends_item(end + quoted))
			return false;
		*ret_ms = seconds * 1e3;
		return true;
	}
	return false;
}

/* u=0..7; of several the last counts (RFC 8941, section 4.2.2). */
static bool parse_urgency(const char *s, int *ret_urgency) {
	bool found = false;
	for (; s; s = next_item(s)) {
		const char *value = item_value(s, "u");
		if (value && *value >= '0' && *value <= '7' && ends_item(value + 1)) {
			*ret_urgency = *value - '0';
			found = true;
		}
	}
	return found;
}

static void shorten(double *budget_ms, double ms) {
	if (*budget_ms <= 0 || ms < *budget_ms)
		*budget_ms = ms;
}

static void apply_urgency(struct request *r, int urgency, const struct request_limits *limits) {
	int priority = urgency - 3;
	if (priority < limits->priority_min)
		priority = limits->priority_min;
	if (priority > limits->priority_max)
		priority = limits->priority_max;
	if (!r->priority_set || priority > r->priority)
		r->priority = priority;
	r->priority_set = true;
}

void request_apply_header(struct request *r, const char *name, const char *value,
                const struct request_limits *limits) {
	double ms, *budget_ms;
	bool parsed;
	if (strcasecmp(name, "grpc-timeout") == 0) {
		parsed = parse_grpc(value, &ms);
		budget_ms = &r->deadline_ms;
	} else if (strcasecmp(name, "x-envoy-expected-rq-timeout-ms") == 0) {
		parsed = parse_number(value, &ms);
		budget_ms = &r->deadline_ms;
	} else if (strcasecmp(name, "prefer") == 0) {
		parsed = parse_prefer(value, &ms);
		budget_ms = &r->latency_budget_ms;
	} else if (strcasecmp(name, "x-slo-ttft-ms") == 0) {
		parsed = parse_number(value, &ms);
		budget_ms = &r->ttft_budget_ms;
	} else if (strcasecmp(name, "x-slo-tpot-ms") == 0) {
		parsed = parse_number(value, &ms);
		budget_ms = &r->tpot_budget_ms;
	} else {
		int urgency;
		if (strcasecmp(name, "priority") == 0 && parse_urgency(value, &urgency))
			apply_urgency(r, urgency, limits);
		return;
	}
	if (!parsed)
		return;
	if (ms <= 0) {
		r->deadline_expired = true;
		return;
	}
	if (budget_ms == &r->deadline_ms && ms > limits->deadline_ms)
		ms = limits->deadline_ms;
	shorten(budget_ms, ms);
}
