/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a load. An open loop sends each request at the moment that was fixed before the run, however
 * late the answers to others are. In a closed loop each client sends its next one when it has its
 * answer and has thought.
 */
#include "bench/client/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/client/reply.h"
#include "bench/load/parts.h"

enum { LOST = 50 }; /* connections refused one after another */

static const double lead_ms = 20;      /* from the start to the first moment of the run */
static const double back_off_ms = 100; /* of a client whose request failed */

struct runner;

/* A request on its way, and what is used again for the next one. */
struct flight {
	struct client_exchange exchange;
	struct runner *runner;
	struct reply reply;
	struct buffer body;
	size_t index; /* of its outcome */
	int client;
	struct flight *next; /* runner::idle */
	struct flight *all;  /* runner::flights */
};

/* A client of a closed loop that thinks. */
struct thinker {
	double due_ms;
	int client;
};

struct runner {
	const struct run_options *options;
	struct run *run;
	struct load_request *schedule; /* of an open loop */
	size_t n_schedule;
	size_t cap;               /* of run->outcomes */
	struct thinker *thinkers; /* [clients] a heap: the next one first */
	int n_thinkers;
	struct flight *idle, *flights;
	struct buffer prompt;
	struct run_status status;
	double depths;
	size_t n_depths;
	double start_ms;
	int refused_in_a_row;
	bool over, failed;
	char why[128];
};

static double elapsed(const struct runner *r) {
	return client_now_ms() - r->start_ms;
}

/* ---- who thinks ------------------------------------------------------------------------------ */

static void heap_push(struct runner *r, struct thinker t) {
	int i = r->n_thinkers++;
	for (; i > 0 && r->thinkers[(i - 1) / 2].due_ms > t.due_ms; i = (i - 1) / 2)
		r->thinkers[i] = r->thinkers[(i - 1) / 2];
	r->thinkers[i] = t;
}

static struct thinker heap_pop(struct runner *r) {
	struct thinker first = r->thinkers[0], last = r->thinkers[--r->n_thinkers];
	int i = 0;
	for (int child = 1; child < r->n_thinkers; child = 2 * i + 1) {
		if (child + 1 < r->n_thinkers
		                && r->thinkers[child + 1].due_ms < r->thinkers[child].due_ms)
			child++;
		if (r->thinkers[child].due_ms >= last.due_ms)
			break;
		r->thinkers[i] = r->thinkers[child];
		i = child;
	}
	r->thinkers[i] = last;
	return first;
}

/* ---- sending --------------------------------------------------------------------------------- */

static void stop(struct runner *r, const char *why) {
	if (why && !r->failed) {
		r->failed = true;
		snprintf(r->why, sizeof r->why, "%s", why);
	}
	r->over = true;
	client_stop(r->options->client);
}

static void on_gap(void *arg, double ms) {
	struct runner *r = arg;
	histogram_record(&r->run->itl, ms);
}

static void on_data(struct client_exchange *x, const char *bytes, size_t len);
static void on_end(struct client_exchange *x, enum client_failure failure);

static struct flight *take_flight(struct runner *r) {
	struct flight *f = r->idle;
	if (f) {
		r->idle = f->next;
		return f;
	}
	f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	client_exchange_init(&f->exchange);
	f->exchange.on_data = on_data;
	f->exchange.on_end = on_end;
	f->runner = r;
	f->reply.on_gap = on_gap;
	f->reply.arg = r;
	f->all = r->flights;
	r->flights = f;
	return f;
}

static struct outcome *add_outcome(struct runner *r, const struct load_request *request) {
	struct run *run = r->run;
	if (run->n == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 1024;
		struct outcome *more = realloc(run->outcomes, cap * sizeof *more);
		if (!more)
			return NULL;
		run->outcomes = more;
		r->cap = cap;
	}
	struct outcome *o = &run->outcomes[run->n++];
	*o = (struct outcome){ .request = *request,
		.queue_ms = -1,
		.predicted_ms = -1,
		.server_ms = -1,
		.server_met = -1 };
	if (r->options->depth)
		snprintf(o->request.depth, sizeof o->request.depth, "%s", r->options->depth);
	return o;
}

/* Sends a request whose arrival_ms is set. */
static void send_request(struct runner *r, const struct load_request *request, int client) {
	const struct run_options *o = r->options;
	const struct load_class *class = &o->load->classes[request->kind];
	struct flight *f = take_flight(r);
	struct outcome *outcome = f ? add_outcome(r, request) : NULL;
	char why[128];
	if (!outcome) {
		stop(r, "memory ran out");
		return;
	}
	f->index = r->run->n - 1;
	f->client = client;
	struct load_request said = outcome->request;
	said.seed += (uint64_t)o->number * 0x9e3779b97f4a7c15u;
	buffer_clear(&r->prompt);
	buffer_clear(&f->body);
	prompts_write(o->prompts, &said, f->index + (size_t)o->number * 7919, &r->prompt);
	target_write_body(o->target, class, &said, &r->prompt, &f->body);
	reply_begin(&f->reply, target_streams(o->target, class));
	if (r->prompt.failed || f->body.failed) {
		stop(r, "memory ran out");
		return;
	}
	if (!client_send(o->client, &f->exchange, target_route(o->target), f->body.data,
	                    f->body.len, why, sizeof why)) {
		stop(r, why);
		return;
	}
	outcome->sent_ms = f->exchange.sent_ms - r->start_ms;
	r->status.sent++;
	if (client_in_flight(o->client) > r->run->most_in_flight)
		r->run->most_in_flight = client_in_flight(o->client);
}

/* ---- open and closed loops ------------------------------------------------------------------- */

static bool closed_is_over(const struct runner *r, double now_ms) {
	const struct load *load = r->options->load;
	return (load->requests > 0 && r->run->n >= (size_t)load->requests)
	                || (load->seconds > 0 && now_ms >= load->seconds * 1000);
}

static void end_if_done(struct runner *r) {
	bool more = r->schedule ? r->run->n < r->n_schedule
	                        : r->n_thinkers > 0 && !closed_is_over(r, r->thinkers[0].due_ms);
	if (!more && client_in_flight(r->options->client) == 0)
		stop(r, NULL);
}

/* A client may ask again from `due_ms` on. */
static void think(struct runner *r, int client, double due_ms) {
	if (!closed_is_over(r, due_ms))
		heap_push(r, (struct thinker){ due_ms, client });
}

static void send_due_closed(struct runner *r) {
	while (!r->over && r->n_thinkers > 0 && r->thinkers[0].due_ms <= elapsed(r)) {
		struct thinker t = heap_pop(r);
		struct load_request request;
		if (closed_is_over(r, t.due_ms))
			continue;
		load_draw(r->options->load, r->run->n, &request);
		request.arrival_ms = t.due_ms;
		send_request(r, &request, t.client);
	}
	client_wake_at(r->options->client,
	                r->n_thinkers > 0 ? r->start_ms + r->thinkers[0].due_ms : INFINITY);
}

static void send_due_open(struct runner *r) {
	while (!r->over && r->run->n < r->n_schedule
	                && r->schedule[r->run->n].arrival_ms <= elapsed(r))
		send_request(r, &r->schedule[r->run->n], -1);
	client_wake_at(r->options->client,
	                r->run->n < r->n_schedule ? r->start_ms + r->schedule[r->run->n].arrival_ms
	                                          : INFINITY);
}

static void on_wake(void *arg) {
	struct runner *r = arg;
	if (r->schedule)
		send_due_open(r);
	else
		send_due_closed(r);
	end_if_done(r);
}

/* ---- answers --------------------------------------------------------------------------------- */

static struct flight *flight_of(struct client_exchange *x) {
	return (struct flight *)((char *)x - offsetof(struct flight, exchange));
}

static void on_data(struct client_exchange *x, const char *bytes, size_t len) {
	struct flight *f = flight_of(x);
	x->enough = !reply_feed(&f->reply, x->status, bytes, len, elapsed(f->runner));
}

static void note(struct outcome *o, const struct reply *reply, int status, double now_ms) {
	o->first_ms = reply->stream ? reply->first_ms : 0;
	o->last_ms = reply->last_ms;
	o->end_ms = now_ms;
	o->status = status;
	memcpy(o->code, reply->code, sizeof o->code);
	o->cut = reply->cut;
	o->tokens = reply_tokens(reply);
	o->prompt_tokens = reply->prompt_tokens > 0 ? reply->prompt_tokens : 0;
	o->pieces = reply->pieces;
	o->encoder = reply->encoder;
	o->depth = reply_final_depth(reply);
	o->mean_depth = reply_mean_depth(reply);
	o->changes = reply->n_changes;
	o->queue_ms = reply->queue_ms;
	o->predicted_ms = reply->predicted_ms;
	o->server_ms = reply->total_ms;
	o->server_met = reply->met;
}

static void count(struct runner *r, const struct outcome *o) {
	struct run_status *s = &r->status;
	bool asked = outcome_has_budget(o);
	s->ended++;
	s->answered += outcome_is_answered(o);
	s->failed += !outcome_is_answered(o);
	s->asked += asked;
	s->met += asked && outcome_is_met(o);
	if (o->depth > 0) {
		r->depths += o->mean_depth;
		r->n_depths++;
	}
}

static void on_end(struct client_exchange *x, enum client_failure failure) {
	struct flight *f = flight_of(x);
	struct runner *r = f->runner;
	const double now_ms = elapsed(r);
	struct outcome *o = &r->run->outcomes[f->index];
	reply_end(&f->reply, x->status, failure, now_ms);
	note(o, &f->reply, x->status, now_ms);
	f->next = r->idle;
	r->idle = f;
	if (failure == CLIENT_CANCELLED)
		return;
	count(r, o);
	r->refused_in_a_row = failure == CLIENT_CONNECT ? r->refused_in_a_row + 1 : 0;
	if (r->refused_in_a_row == LOST) {
		r->run->lost = true;
		stop(r, NULL);
		return;
	}
	if (!r->schedule) {
		struct load_request next;
		load_draw(r->options->load, r->run->n, &next);
		double pause = next.think_ms;
		if (!outcome_is_answered(o) && pause < back_off_ms)
			pause = back_off_ms;
		think(r, f->client, now_ms + pause);
		send_due_closed(r);
	}
	end_if_done(r);
}

static void on_tick(void *arg) {
	struct runner *r = arg;
	struct run_status *s = &r->status;
	if (!r->options->progress)
		return;
	s->elapsed_s = fmax(0, elapsed(r) / 1000);
	s->in_flight = client_in_flight(r->options->client);
	s->depth = r->n_depths ? r->depths / (double)r->n_depths : 0;
	r->options->progress(r->options->arg, s);
}

static void on_interrupt(void *arg) {
	struct runner *r = arg;
	r->run->interrupted = true;
	stop(r, NULL);
}

/* ---- a run ----------------------------------------------------------------------------------- */

static bool begin(struct runner *r, char *err, size_t errlen) {
	struct load *load = r->options->load;
	if (load_is_open(load)) {
		if (!load_schedule(load, &r->schedule, &r->n_schedule, err, errlen))
			return false;
		r->status.total = r->n_schedule;
		r->status.total_s = r->schedule[r->n_schedule - 1].arrival_ms / 1000;
	} else {
		r->thinkers = calloc((size_t)load->clients, sizeof *r->thinkers);
		if (!r->thinkers) {
			snprintf(err, errlen, "memory ran out");
			return false;
		}
		for (int i = 0; i < load->clients; i++)
			heap_push(r, (struct thinker){ 0, i });
		r->status.total = (size_t)load->requests;
	}
	if (load_seconds(load) > 0)
		r->status.total_s = load_seconds(load);
	return true;
}

/* When the time that rates are of ends: with the load's time if that ended it, else with the last
 * answer. */
static double window_end(const struct runner *r) {
	const struct load *load = r->options->load;
	const struct run *run = r->run;
	bool by_count = load->requests > 0 && run->n >= (size_t)load->requests;
	double end = 0;
	if (run->interrupted || run->lost)
		return elapsed(r);
	if (!by_count && load->arrivals != LOAD_TRACE)
		return load_seconds(load) * 1000;
	for (size_t i = 0; i < run->n; i++)
		end = fmax(end, run->outcomes[i].end_ms);
	return end;
}

static void set_window(struct runner *r) {
	struct run *run = r->run;
	const double from = r->options->load->warmup_seconds * 1000, to = window_end(r);
	run->seconds = fmax(0, to - from) / 1000;
	for (size_t i = 0; i < run->n; i++) {
		struct outcome *o = &run->outcomes[i];
		o->counted = o->request.arrival_ms >= from;
		o->in_window = o->end_ms > from && o->end_ms <= to;
	}
}

static int by_arrival(const void *a, const void *b) {
	const struct outcome *x = a, *y = b;
	if (x->request.arrival_ms != y->request.arrival_ms)
		return x->request.arrival_ms < y->request.arrival_ms ? -1 : 1;
	return (x->sent_ms > y->sent_ms) - (x->sent_ms < y->sent_ms);
}

/* Without what Ctrl-C cut off, in order of arrival. */
static void tidy(struct run *run) {
	size_t kept = 0;
	for (size_t i = 0; i < run->n; i++) {
		if (strcmp(run->outcomes[i].code, "cancelled") != 0 && run->outcomes[i].end_ms > 0)
			run->outcomes[kept++] = run->outcomes[i];
	}
	run->n = kept;
	if (kept > 1)
		qsort(run->outcomes, kept, sizeof *run->outcomes, by_arrival);
}

static void release(struct runner *r) {
	while (r->flights) {
		struct flight *f = r->flights;
		r->flights = f->all;
		client_exchange_finish(&f->exchange);
		reply_finish(&f->reply);
		buffer_finish(&f->body);
		free(f);
	}
	free(r->schedule);
	free(r->thinkers);
	buffer_finish(&r->prompt);
}

bool run_load(const struct run_options *options, struct run *ret, char *err, size_t errlen) {
	struct runner r = { .options = options, .run = ret };
	*ret = (struct run){ 0 };
	if (!begin(&r, err, errlen)) {
		release(&r);
		return false;
	}
	client_set_calls(options->client,
	                &(struct client_calls){ .on_wake = on_wake,
	                                .on_tick = on_tick,
	                                .on_interrupt = on_interrupt,
	                                .arg = &r });
	r.start_ms = client_now_ms() + lead_ms;
	client_wake_at(options->client, r.start_ms);
	while (!r.over)
		client_run(options->client);
	client_wake_at(options->client, INFINITY);
	client_cancel_all(options->client);
	set_window(&r);
	client_set_calls(options->client, &(struct client_calls){ 0 });
	release(&r);
	tidy(ret);
	if (r.failed)
		snprintf(err, errlen, "%s", r.why);
	return !r.failed;
}

void run_finish(struct run *run) {
	free(run->outcomes);
	histogram_finish(&run->itl);
	*run = (struct run){ 0 };
}

bool run_append(struct run *run, struct run *more) {
	double last = 0;
	struct outcome *all = realloc(run->outcomes, (run->n + more->n + 1) * sizeof *all);
	if (!all) {
		run_finish(more);
		return false;
	}
	for (size_t i = 0; i < run->n; i++)
		last = fmax(last, all[i].end_ms);
	for (size_t i = 0; i < more->n; i++) {
		struct outcome *o = &all[run->n + i];
		*o = more->outcomes[i];
		o->request.arrival_ms = load_round_us(o->request.arrival_ms + last);
		o->sent_ms += last;
		o->end_ms += last;
		o->first_ms += o->first_ms > 0 ? last : 0;
		o->last_ms += o->last_ms > 0 ? last : 0;
	}
	run->outcomes = all;
	run->n += more->n;
	run->seconds += more->seconds;
	histogram_add(&run->itl, &more->itl);
	if (more->most_in_flight > run->most_in_flight)
		run->most_in_flight = more->most_in_flight;
	run->interrupted = run->interrupted || more->interrupted;
	run->lost = run->lost || more->lost;
	run_finish(more);
	return true;
}

/* ---- growth ---------------------------------------------------------------------------------- */

double run_growth_per_s(const struct run *run) {
	enum { POINTS = 64 };
	if (run->n < 2)
		return 0;
	const double last = run->outcomes[run->n - 1].request.arrival_ms, first = last / 2;
	double t_sum = 0, n_sum = 0, tt_sum = 0, tn_sum = 0;
	for (int i = 0; i < POINTS; i++) {
		double t = first + (last - first) * (i + 0.5) / POINTS;
		double n = 0;
		for (size_t k = 0; k < run->n && run->outcomes[k].request.arrival_ms <= t; k++)
			n += run->outcomes[k].end_ms > t;
		t_sum += t / 1000;
		n_sum += n;
		tt_sum += t * t / 1e6;
		tn_sum += t * n / 1000;
	}
	double spread = tt_sum - t_sum * t_sum / POINTS;
	return spread > 0 ? (tn_sum - t_sum * n_sum / POINTS) / spread : 0;
}
