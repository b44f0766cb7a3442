/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records the steps of a model folder, as a server would run them, and replays them: how far off is
 * the cost model, and what would another way of learning have said?
 *
 *	steps record MODEL FILE PHASE...   runs phases one after the other and writes every step
 *	steps replay FILE                  lets the cost model learn from them once more
 *
 * A phase is CLIENTS:SECONDS[:NEIGHBOURS[:PROMPT[:TOKENS[:DEPTH[:SPREAD]]]]]: a closed loop of so
 * many clients, beside so many other processes that keep a processor and its memory busy; prompts
 * of PROMPT words (default 40) and answers of TOKENS (default 32), both give or take SPREAD per cent
 * (default 50); DEPTH 0 (default) draws one for each request.
 *
 * A file begins with the model as the warm-up saw it. Then a line is a phase ("p"), a request that
 * joins ("j") or ends ("e"), or a step ("s").
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure/steps.h"
#include "model/threads.h"
#include "server/admission.h"
#include "server/clock.h"
#include "server/resolve.h"
#include "server/submit.h"
#include "server/warmup.h"

enum { MOST_CLIENTS = 64, MOST_NEIGHBOURS = 8, NEIGHBOUR_BYTES = 64 << 20 };

struct recorder {
	FILE *out;
	struct config config;
	struct model *model;
	struct team *team;
	struct metrics *metrics;
	struct batch *batch;
	struct cost_model cost;
	struct ticket *clients[MOST_CLIENTS];
	uint64_t random;
	int requests;
	int64_t lost_ns; /* of the clock */
};

struct phase {
	int clients, neighbours, prompt, tokens, depth, spread;
	double seconds;
};

static _Noreturn void fail(const char *sentence) {
	fprintf(stderr, "steps: %s\n", sentence);
	exit(1);
}

/* The clock stands still while something is written or asked for: a server does neither between two
 * steps. */
static double now_ms(const struct recorder *r) {
	return clock_ms(clock_now_ns() - r->lost_ns);
}

/* Uniform in least..most. */
static int draw(struct recorder *r, int least, int most) {
	r->random = r->random * 6364136223846793005u + 1442695040888963407u;
	return least + (int)((r->random >> 33) % (uint64_t)(most - least + 1));
}

static int draw_near(struct recorder *r, int middle, int spread) {
	return draw(r, middle - middle * spread / 100, middle + middle * spread / 100);
}

/* ---- neighbours ---- */

/* Keeps a processor and its share of the memory busy until it is ended. */
static _Noreturn void disturb(void) {
	volatile double *bytes = malloc(NEIGHBOUR_BYTES);
	size_t n = NEIGHBOUR_BYTES / sizeof *bytes;
	for (size_t i = 0; bytes; i = (i + 8) % n)
		bytes[i] = bytes[i] * 1.0001 + 1;
	_exit(1);
}

static void start_neighbours(pid_t *ret_pids, int n) {
	for (int i = 0; i < n; i++) {
		ret_pids[i] = fork();
		if (ret_pids[i] == 0)
			disturb();
	}
}

static void stop_neighbours(const pid_t *pids, int n) {
	for (int i = 0; i < n; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
}

/* ---- recording ---- */

static void put_counts(FILE *out, const int *count, int layers) {
	fprintf(out, " |");
	for (int l = 0; count && l < layers; l++)
		fprintf(out, " %d", count[l]);
}

static void put_step(const struct recorder *r, const struct cost_step *s, double at, double ms) {
	fprintf(r->out, "s %.4f %.5f %d %d %d %d %.9g %.9g %.9g", at, ms, s->rows, s->decode_rows,
	                s->logit_rows, s->class_rows, s->attended, s->chunk_attended,
	                s->source_attended);
	put_counts(r->out, s->row_count[STACK_ENCODER], s->layers[STACK_ENCODER]);
	put_counts(r->out, s->row_count[STACK_DECODER], s->layers[STACK_DECODER]);
	put_counts(r->out, s->source_count, s->layers[STACK_DECODER]);
	put_counts(r->out, s->decode_count, s->layers[STACK_DECODER]);
	fprintf(r->out, "\n");
}

static void put_join(const struct recorder *r, int client, const struct cost_work *w, double at) {
	struct cost_load load;
	const struct stack_facts *stack = r->model->facts.stack;
	int encoder = stack[STACK_ENCODER].layers, decoder = stack[STACK_DECODER].layers;
	batch_load(r->batch, NULL, &load);
	fprintf(r->out, "j %d %.4f %d %d %d %d %d %d %d %d %d %d %.9g", client, at,
	                w->subnet->stack[STACK_ENCODER].depth,
	                w->subnet->stack[STACK_DECODER].depth, w->prompt_tokens, w->longest_prompt,
	                w->choices, w->output_tokens, w->sources, w->source_tokens,
	                w->longest_source, w->source_tiles, w->source_attended);
	fprintf(r->out, " | %d %.9g %d %d %.9g", load.decode_rows, load.attended, load.pending,
	                load.pending_source, load.pending_source_attended);
	put_counts(r->out, load.rows, decoder);
	put_counts(r->out, load.pending_rows, decoder);
	put_counts(r->out, load.pending_source_rows, encoder);
	put_counts(r->out, load.pending_cross_rows, decoder);
	fprintf(r->out, "\n");
}

/* Words of the model's language are as good as any: only their number counts. */
static void compose(struct recorder *r, const struct phase *phase, char *body, size_t size) {
	static const char *const english[] = { "the", "city", "of", "a", "river", "was", "built",
		"in", "north", "and", "people", "who", "came", "from", "war", "music" };
	static const char *const german[] = { "die", "Stadt", "ist", "ein", "Haus", "und", "wir",
		"gehen", "nicht", "morgen", "mit", "dem", "Hund", "auf", "Tom", "gut" };
	bool pairs = r->model->facts.kind == KIND_SEQ2SEQ;
	int words = draw_near(r, phase->prompt, phase->spread);
	int tokens = draw_near(r, phase->tokens, phase->spread);
	int layers = model_layers(r->model);
	int depth = phase->depth > 0 ? phase->depth : draw(r, (layers + 3) / 4, layers);
	size_t n = (size_t)snprintf(body, size, "{\"prompt\":\"");
	for (int i = 0; i < words && n + 64 < size; i++)
		n += (size_t)snprintf(body + n, size - n, "%s%s", i ? " " : "",
		                (pairs ? german : english)[draw(r, 0, 15)]);
	n += (size_t)snprintf(body + n, size - n, "\",\"depth\":%d", depth);
	if (!pairs)
		n += (size_t)snprintf(body + n, size - n, ",\"max_tokens\":%d,\"ignore_eos\":true",
		                tokens);
	snprintf(body + n, size - n, "}");
}

static struct ticket *new_ticket(struct recorder *r, const struct phase *phase) {
	char body[16384];
	struct request_limits limits;
	struct request request;
	struct error e = { 0 };
	submit_limits(&r->config, &limits);
	compose(r, phase, body, sizeof body);
	if (!request_parse(REQUEST_COMPLETION, body, strlen(body), &limits, &request, &e))
		fail(e.message);
	struct job *job = resolve_job(r->model, &r->config, &request, &e);
	if (!job)
		fail(e.message);
	struct ticket *t = ticket_create(job, r->model->target_tokenizer);
	if (!t)
		fail("not enough memory");
	t->subnet = job->subnet = job->policy.subnet;
	t->report.times.received_ns = clock_now_ns();
	return t;
}

/* Every client that has nothing running asks for something. */
static void fill(struct recorder *r, const struct phase *phase) {
	for (int i = 0; i < phase->clients; i++) {
		if (r->clients[i])
			continue;
		int64_t began_ns = clock_now_ns();
		struct ticket *t = new_ticket(r, phase);
		struct cost_work work;
		r->lost_ns += clock_now_ns() - began_ns;
		if (!batch_fits(r->batch, t, &t->subnet)) {
			job_destroy(t->job);
			ticket_destroy(t);
			return;
		}
		int tokens = admission_predict_tokens(t->job, &r->cost);
		admission_work(t->job, &t->subnet, tokens, &work);
		began_ns = clock_now_ns();
		put_join(r, i, &work, now_ms(r));
		r->lost_ns += clock_now_ns() - began_ns;
		batch_join(r->batch, t, clock_now_ns());
		r->clients[i] = t;
		r->requests++;
	}
}

static void collect(struct recorder *r, double at) {
	struct ticket *t;
	while ((t = batch_take_ended(r->batch))) {
		int i = 0;
		while (r->clients[i] != t)
			i++;
		fprintf(r->out, "e %d %.4f %d\n", i, at, ticket_most_tokens(t));
		r->clients[i] = NULL;
		job_destroy(t->job);
		ticket_destroy(t);
	}
}

static void turn(struct recorder *r) {
	struct batch_stats stats;
	int64_t began_ns = clock_now_ns();
	batch_step(r->batch, &stats);
	for (struct ticket *t = batch_running(r->batch); t; t = t->next)
		ticket_publish(t);
	int64_t ended_ns = clock_now_ns();
	double ended_ms = clock_ms(ended_ns - r->lost_ns);
	put_step(r, &stats.step, ended_ms, clock_ms(ended_ns - began_ns));
	collect(r, ended_ms);
	r->lost_ns += clock_now_ns() - ended_ns;
}

static void run_phase(struct recorder *r, const struct phase *phase, const char *name) {
	pid_t pids[MOST_NEIGHBOURS];
	fprintf(r->out, "p %s\n", name);
	start_neighbours(pids, phase->neighbours);
	double until = now_ms(r) + phase->seconds * 1e3;
	int before = r->requests;
	while (now_ms(r) < until) {
		fill(r, phase);
		turn(r);
	}
	while (batch_jobs(r->batch) > 0)
		turn(r);
	stop_neighbours(pids, phase->neighbours);
	printf("%s: %d requests\n", name, r->requests - before);
}

static struct phase parse_phase(const char *text) {
	struct phase p = { .prompt = 40, .tokens = 32, .spread = 50 };
	int n = sscanf(text, "%d:%lf:%d:%d:%d:%d:%d", &p.clients, &p.seconds, &p.neighbours,
	                &p.prompt, &p.tokens, &p.depth, &p.spread);
	if (n < 2 || p.clients < 1 || p.clients > MOST_CLIENTS || p.neighbours < 0
	                || p.neighbours > MOST_NEIGHBOURS || p.prompt < 1 || p.tokens < 1
	                || p.spread < 0 || p.spread > 90)
		fail("a phase is CLIENTS:SECONDS[:NEIGHBOURS[:PROMPT[:TOKENS[:DEPTH[:SPREAD]]]]]");
	return p;
}

static bool go_on(void *arg) {
	return true;
}

static void open_recorder(struct recorder *r, const char *dir) {
	char err[512] = "", *nothing[] = { NULL };
	bool help;
	if (!config_load(&r->config, 0, nothing, nothing, &help, NULL, 0, err, sizeof err))
		fail(err);
	int threads = threads_count("");
	const struct ops *ops = ops_select("auto", CPU_LEVEL_AUTO, err, sizeof err);
	struct model_options options = { .ops = ops, .threads = threads };
	if (!ops || !(r->model = model_open(dir, &options, err, sizeof err))
	                || !(r->team = team_create(threads, err, sizeof err)))
		fail(err);
	r->metrics = metrics_create(&r->model->facts);
	struct batch_options batch = { .config = &r->config,
		.team = r->team,
		.metrics = r->metrics,
		.kv_bytes = (size_t)512 << 20 };
	if (!r->metrics || !(r->batch = batch_create(r->model, &batch, err, sizeof err)))
		fail(err);
}

static void close_recorder(struct recorder *r) {
	batch_destroy(r->batch);
	metrics_destroy(r->metrics);
	team_destroy(r->team);
	model_close(r->model);
	config_finish(&r->config);
}

static void record(const char *dir, const char *path, char **phases, int n) {
	static struct recorder r = { .random = 1 };
	struct cost_samples samples;
	struct buffer json = { 0 };
	open_recorder(&r, dir);
	warmup_measure(r.batch, r.model, go_on, NULL, &samples);
	cost_fit(&samples, &r.cost);
	struct cost_file file = { .cost = r.cost, .limits = *batch_limits(r.batch) };
	file.cost.margin = file.cost.margin_rescued = 1;
	for (int k = 0; k < STACKS; k++)
		file.layers[k] = r.model->facts.stack[k].layers;
	if (!(r.out = fopen(path, "w")))
		fail("the file cannot be written");
	setvbuf(r.out, NULL, _IOFBF, 1 << 20);
	cost_write(&file, &json);
	fprintf(r.out, "%s\n", buffer_cstr(&json));
	buffer_finish(&json);
	for (int i = 0; i < n; i++) {
		struct phase phase = parse_phase(phases[i]);
		run_phase(&r, &phase, phases[i]);
	}
	if (fclose(r.out) != 0)
		fail("the file could not be written");
	close_recorder(&r);
}

int main(int argc, char **argv) {
	if (argc > 4 && strcmp(argv[1], "record") == 0)
		record(argv[2], argv[3], argv + 4, argc - 4);
	else if (argc == 3 && strcmp(argv[1], "replay") == 0)
		steps_replay(argv[2]);
	else
		fail("usage: steps record MODEL FILE PHASE... | steps replay FILE");
	return 0;
}
