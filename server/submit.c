/* SPDX-License-Identifier: Apache-2.0 */
/* Submitting and cancelling work. */
#include "server/submit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "proto/answer.h"
#include "server/clock.h"
#include "server/compose.h"
#include "server/handlers.h"
#include "server/resolve.h"
#include "server/respond.h"

void submit_limits(const struct config *config, struct request_limits *ret_limits) {
	*ret_limits = (struct request_limits){
		.body_bytes = (size_t)config->body_bytes,
		.json_depth = config->json_depth,
		.json_values = config->json_values,
		.prompts = config->prompts,
		.inputs = config->inputs,
		.n = config->n,
		.best_of = config->best_of,
		.beams = config->beams,
		.stops = config->stops,
		.stop_bytes = config->stop_bytes,
		.logit_bias = config->logit_bias,
		.top_logprobs = config->top_logprobs,
		.fill_top_k = config->fill_top_k,
		.max_tokens = 1000000,
		.deadline_ms = (double)config->max_deadline_ms,
		.priority_min = -1000,
		.priority_max = 1000,
	};
}

/* ---- from body to job ---- */

/* A request on its way through the tokeniser. */
struct input_task {
	struct task task;
	struct call *call; /* NULL: it has left */
	struct server *server;
	struct generation *generation; /* held */
	struct request request;
	struct job *job;
	struct error error;
	void (*start)(struct call *call);
};

static void tokenise(struct task *task) {
	struct input_task *t = (struct input_task *)task;
	t->job = resolve_job(
	                generation_model(t->generation), t->server->config, &t->request, &t->error);
}

static void tokenised(struct task *task) {
	struct input_task *t = (struct input_task *)task;
	struct call *call = t->call;
	if (call) {
		call->task = NULL;
		call->job = t->job;
		if (t->job)
			t->start(call);
		else
			call_fail(call, &t->error);
	} else {
		job_destroy(t->job);
		generation_release(t->server, t->generation);
	}
	free(t);
}

static bool submit_task(struct call *call, struct request *request,
                void (*start)(struct call *call), struct error *e) {
	struct server *server = call->server;
	if (worker_pending(server->tokeniser) >= server->config->queue_requests)
		return error_set(e, ERROR_SERVER_OVERLOADED, NULL,
		                "Too many long inputs are waiting to be tokenised.");
	struct input_task *t = calloc(1, sizeof *t);
	if (!t)
		return error_set(e, ERROR_INTERNAL, NULL, "The server ran out of memory.");
	*t = (struct input_task){ .task = { .work = tokenise, .after = tokenised },
		.call = call,
		.server = server,
		.generation = call->generation,
		.request = *request,
		.start = start };
	call->task = t;
	worker_submit(server->tokeniser, &t->task);
	return true;
}

struct header_target {
	struct request *request;
	struct request_limits limits;
};

static void apply_header(void *arg, const char *name, const char *value) {
	struct header_target *to = arg;
	request_apply_header(to->request, name, value, &to->limits);
}

void submit_parsed(struct call *call, struct request *request, void (*start)(struct call *call)) {
	struct header_target target = { .request = request };
	struct error e = { 0 };
	submit_limits(call->server->config, &target.limits);
	exchange_each_header(call->x, apply_header, &target);
	if (request->priority < call->grant.best_priority)
		request->priority = call->grant.best_priority;
	exchange_drop_body(call->x);
	call->generation = call->server->current;
	generation_hold(call->generation);
	if (resolve_is_large(request)) {
		if (!submit_task(call, request, start, &e)) {
			request_finish(request);
			call_fail(call, &e);
		}
		return;
	}
	call->job = resolve_job(
	                generation_model(call->generation), call->server->config, request, &e);
	if (call->job)
		start(call);
	else
		call_fail(call, &e);
}

void submit_request(struct call *call, enum request_kind kind, void (*start)(struct call *call)) {
	struct request request;
	struct request_limits limits;
	struct error e = { 0 };
	size_t len;
	const char *body = exchange_body(call->x, &len);
	submit_limits(call->server->config, &limits);
	if (!resolve_route(generation_model(call->server->current), kind, &e)) {
		call_fail(call, &e);
		return;
	}
	if (!body)
		error_set(&e, ERROR_INTERNAL, NULL, "The server ran out of memory.");
	else if (request_parse(kind, body, len, &limits, &request, &e)) {
		submit_parsed(call, &request, start);
		return;
	}
	call_fail(call, &e);
}

/* ---- from job to engine ---- */

/* "req_1f.." gives "cmpl-1f..", so that a client's log and ours are easily matched. */
static void name_job(const struct call *call, struct job *job) {
	static const char *const prefixes[REQUEST_KINDS] = { [REQUEST_COMPLETION] = "cmpl",
		[REQUEST_CHAT] = "chatcmpl",
		[REQUEST_LOGLIKELIHOOD] = "ll",
		[REQUEST_EMBEDDING] = "embd",
		[REQUEST_CLASSIFY] = "classify",
		[REQUEST_FILL_MASK] = "fill" };
	char hex[25];
	if (call->own_id) {
		snprintf(hex, sizeof hex, "%s", call->request_id + strlen("req_"));
	} else {
		unsigned char bytes[12] = { 0 };
		(void)!getrandom(bytes, sizeof bytes, 0);
		for (size_t i = 0; i < sizeof bytes; i++)
			sprintf(hex + 2 * i, "%02x", bytes[i]);
	}
	snprintf(job->id, sizeof job->id, "%s-%s", prefixes[job->kind], hex);
	memcpy(job->request_id, call->request_id, sizeof job->request_id);
}

static void identify(const struct call *call, struct job *job) {
	double deadline_ms = job->request.deadline_ms;
	name_job(call, job);
	job->key = call->grant.key;
	job->created = time(NULL);
	job->times.received_ns = call->received_ns;
	job->deadline_ns = deadline_ms > 0 ? call->received_ns + (int64_t)(deadline_ms * 1e6) : 0;
}

static void start_work(struct call *call) {
	struct job *job = call->job;
	struct error e = { 0 };
	identify(call, job);
	job->owner = call;
	if (!respond_open(call))
		error_set(&e, ERROR_INTERNAL, NULL, "The server ran out of memory.");
	else if (engine_submit(call->generation->engine, job, &e))
		call->submitted = true;
	if (!call->submitted)
		call_fail(call, &e);
}

void handle_completions(struct call *call) {
	submit_request(call, REQUEST_COMPLETION, start_work);
}

void handle_chat(struct call *call) {
	submit_request(call, REQUEST_CHAT, start_work);
}

void handle_loglikelihood(struct call *call) {
	submit_request(call, REQUEST_LOGLIKELIHOOD, start_work);
}

void handle_embeddings(struct call *call) {
	submit_request(call, REQUEST_EMBEDDING, start_work);
}

void handle_classify(struct call *call) {
	submit_request(call, REQUEST_CLASSIFY, start_work);
}

void handle_fill_mask(struct call *call) {
	submit_request(call, REQUEST_FILL_MASK, start_work);
}

/* ---- a dry run ---- */

static void answer_plan(struct call *call) {
	struct job *job = call->job;
	struct plan_answer plan;
	struct answer_depth depth;
	struct buffer body = { 0 };
	size_t n_warnings;
	char **warnings = compose_warnings(job, &n_warnings);
	identify(call, job);
	engine_plan(call->generation->engine, job, &plan);
	compose_depth(job, &plan.subnet, plan.reason, NULL, &depth);
	buffer_puts(&body, "{\"depth\":");
	answer_write_depth(&body, &depth);
	buffer_puts(&body, ",\"predicted_ms\":");
	buffer_json_f64(&body, plan.predicted_ms);
	buffer_puts(&body, ",\"queue_ms\":");
	buffer_json_f64(&body, plan.queue_ms);
	buffer_puts(&body, ",\"budget_ms\":");
	if (plan.budget_ms > 0)
		buffer_json_f64(&body, plan.budget_ms);
	else
		buffer_puts(&body, "null");
	buffer_printf(&body, ",\"predicted_tokens\":%d,\"fits\":%s", plan.predicted_tokens,
	                plan.fits ? "true" : "false");
	for (size_t i = 0; i < n_warnings; i++) {
		buffer_puts(&body, i ? "," : ",\"warnings\":[");
		buffer_json_string(&body, warnings[i], strlen(warnings[i]));
	}
	buffer_puts(&body, n_warnings ? "]}" : "}");
	compose_warnings_free(warnings, n_warnings);
	call_answer(call, 200, NULL, &body);
}

void handle_plan(struct call *call) {
	struct request request;
	struct request_limits limits;
	struct error e = { 0 };
	size_t len;
	const char *body = exchange_body(call->x, &len);
	submit_limits(call->server->config, &limits);
	if (body && request_parse_plan(body, len, &limits, &request, &e))
		submit_parsed(call, &request, answer_plan);
	else
		call_fail(call, &e);
}

/* ---- the way out ---- */

void submit_end(struct call *call) {
	respond_close(call);
	if (call->task) {
		call->task->call = NULL; /* tokenised() gives the generation back */
		return;
	}
	if (call->submitted) {
		call->job->owner = NULL; /* generation_collect frees it */
		engine_cancel(call->generation->engine, call->job, ERROR_REQUEST_CANCELLED);
		return;
	}
	job_destroy(call->job);
	generation_release(call->server, call->generation);
}

bool submit_cancel(struct call *call, enum error_code code) {
	struct error e;
	if (call->submitted) {
		engine_cancel(call->generation->engine, call->job, code);
		return true;
	}
	if (!call->task)
		return false;
	call->task->call = NULL;
	call->task = NULL;
	call->generation = NULL; /* the task holds it */
	error_set(&e, code, NULL,
	                code == ERROR_SHUTTING_DOWN ? "The server is shutting down."
	                                            : "The request was cancelled.");
	call_fail(call, &e);
	return true;
}

static bool is_called(const struct call *call, const char *id) {
	return (call->job && strcmp(call->job->id, id) == 0)
	                || (call->own_id && strcmp(call->request_id, id) == 0);
}

/* DELETE /v1/requests/{id}: only ids that the server made, only with the same key. */
void handle_cancel(struct call *call) {
	struct server *server = call->server;
	const char *id = call_path_id(call);
	struct buffer none = { 0 };
	struct error e;
	for (struct call *c = server->calls; c; c = c->next) {
		if (!is_called(c, id) || c->grant.key != call->grant.key
		                || !submit_cancel(c, ERROR_REQUEST_CANCELLED))
			continue;
		call_answer(call, 204, NULL, &none);
		return;
	}
	error_set(&e, ERROR_NOT_FOUND, NULL, "No such request of yours is running.");
	call_fail(call, &e);
}
