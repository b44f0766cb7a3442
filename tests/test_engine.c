/* SPDX-License-Identifier: Apache-2.0 */
/* The engine with its thread: what a loop thread submits, cancels and collects. */
#include "server/engine.h"

#include <pthread.h>
#include <time.h>

#include "server/clock.h"
#include "tests/check.h"
#include "tests/rig.h"

static struct rig rig;
static struct engine *engine;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static bool news, held;

static void wake(void *arg) {
	pthread_mutex_lock(&lock);
	news = true;
	pthread_cond_signal(&woken);
	while (held)
		pthread_cond_wait(&released, &lock);
	pthread_mutex_unlock(&lock);
}

static void wait_for_news(void) {
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 60;
	pthread_mutex_lock(&lock);
	int timed_out = 0;
	while (!news && !timed_out)
		timed_out = pthread_cond_timedwait(&woken, &lock, &until);
	news = false;
	pthread_mutex_unlock(&lock);
	CHECK(!timed_out);
}

static struct engine_options options_of(bool skip_warmup, size_t kv_bytes) {
	return (struct engine_options){ .config = &rig.config,
		.team = rig.team,
		.metrics = rig.metrics,
		.skip_warmup = skip_warmup,
		.kv_bytes = kv_bytes,
		.wake = wake };
}

static void start(bool skip_warmup, size_t kv_bytes) {
	char err[256] = "";
	news = false;
	struct engine_options options = options_of(skip_warmup, kv_bytes);
	engine = engine_create(rig.model, &options, err, sizeof err);
	if (!engine)
		check_fail(__FILE__, __LINE__, "engine: %s", err);
	struct snapshot s;
	do { /* to the news itself, so that a test's first news are of its own */
		wait_for_news();
		engine_snapshot(engine, &s);
	} while (!s.warm);
}

static void open_opt(void) {
	rig_open(&rig, "tiny-opt");
	start(true, 4 << 20);
}

static void close_all(void) {
	struct snapshot s;
	/* Once more round the engine, so that its snapshot is of an idle batch. */
	for (int i = 0; i < 60000; i++) {
		engine_snapshot(engine, &s);
		if (s.running == 0 && s.kv_reserved == 0)
			break;
		struct timespec ms = { 0, 1000000 };
		nanosleep(&ms, NULL);
	}
	CHECK_INT(s.running, 0);
	CHECK_INT(s.waiting, 0);
	CHECK_INT(s.queue_tokens, 0);
	CHECK_INT(s.kv_reserved, 0);
	engine_destroy(engine);
	rig.model = NULL; /* went with the engine */
	rig_close(&rig);
}

static struct job *submit_kind(enum request_kind kind, const char *body) {
	struct error e = { 0 };
	struct job *job = rig_job(&rig, kind, body);
	if (!engine_submit(engine, job, &e))
		check_fail(__FILE__, __LINE__, "%s: %s", body, e.message);
	return job;
}

static struct job *submit(const char *body) {
	return submit_kind(REQUEST_COMPLETION, body);
}

/* Submits a stream and holds the engine at its first token, however the machine runs the threads. */
static struct job *hold(const char *body) {
	held = true;
	struct job *job = submit(body);
	CHECK(job->stream);
	wait_for_news();
	return job;
}

static void release(void) {
	pthread_mutex_lock(&lock);
	held = false;
	pthread_cond_signal(&released);
	pthread_mutex_unlock(&lock);
}

static void submit_refused(const char *body, enum error_code code) {
	struct error e = { 0 };
	struct job *job = rig_job(&rig, REQUEST_COMPLETION, body);
	bool taken = engine_submit(engine, job, &e);
	if (taken || e.code != code)
		check_fail(__FILE__, __LINE__, "%s: %s", body,
		                taken ? "was taken" : error_name(e.code));
	CHECK(e.message[0]);
	job_destroy(job);
}

/* Collects until `job` is done; other jobs keep what was delivered to them. */
static void finish(struct job *job) {
	while (job->state != JOB_DONE) {
		if (!engine_collect(engine))
			wait_for_news();
	}
}

TEST(a_job_comes_back_with_its_answer) {
	open_opt();
	struct job *job = submit("{\"prompt\":[2,70,80],\"max_tokens\":10,\"temperature\":0,"
	                         "\"depth\":4,\"ignore_eos\":true}");
	finish(job);
	int32_t expected[10];
	rig_greedy(&rig, &job->subnet.stack[STACK_DECODER], job->prompts[0].tokens, 3, 10, expected,
	                NULL);
	CHECK_INT(job->error.code, ERROR_NONE);
	CHECK_INT(job->subnet.stack[STACK_DECODER].depth, 4);
	CHECK_INT(job->reason, REASON_EXPLICIT);
	CHECK_INT(job->choices[0].published.n_tokens, 10);
	CHECK(memcmp(job->choices[0].tokens, expected, sizeof expected) == 0);
	CHECK(job->times.joined_ns >= job->times.queued_ns
	                && job->times.done_ns >= job->times.first_token_ns
	                && job->times.first_token_ns > job->times.joined_ns);
	job_destroy(job);
	close_all();
}

TEST(a_stream_is_published_as_it_grows) {
	open_opt();
	struct job *job = hold("{\"prompt\":[2,70],\"max_tokens\":40,\"stream\":true,"
	                       "\"ignore_eos\":true}");
	int seen = 0, reports = 0;
	while (job->state != JOB_DONE) {
		struct job *reported = engine_collect(engine);
		if (reported && held)
			release();
		for (struct job *j = reported; j; j = j->next) {
			CHECK(j == job);
			CHECK(job->choices[0].published.n_tokens >= seen);
			seen = job->choices[0].published.n_tokens;
			CHECK_INT(job->subnet.stack[STACK_DECODER].depth, 6);
			reports++;
		}
		if (job->state != JOB_DONE)
			wait_for_news();
	}
	CHECK_INT(seen, 40);
	CHECK(reports > 1);
	job_destroy(job);
	close_all();
}

TEST(many_jobs_of_mixed_depth_answer_as_alone) {
	enum { JOBS = 24 };
	open_opt();
	struct job *jobs[JOBS];
	char body[256];
	for (int i = 0; i < JOBS; i++) {
		snprintf(body, sizeof body,
		                "{\"prompt\":[2,%d,%d],\"max_tokens\":%d,\"temperature\":0,"
		                "\"depth\":%d,\"stream\":%s,\"ignore_eos\":true}",
		                40 + i, 200 - 3 * i, 5 + i % 7, 1 + i % 6,
		                i % 2 ? "true" : "false");
		jobs[i] = submit(body);
		if (i % 5 == 0)
			engine_collect(engine);
	}
	for (int i = 0; i < JOBS; i++) {
		int32_t expected[16];
		finish(jobs[i]);
		int n = jobs[i]->choices[0].published.n_tokens;
		CHECK_INT(n, 5 + i % 7);
		rig_greedy(&rig, &jobs[i]->subnet.stack[STACK_DECODER], jobs[i]->prompts[0].tokens,
		                3, n, expected, NULL);
		CHECK(memcmp(jobs[i]->choices[0].tokens, expected, (size_t)n * sizeof *expected)
		                == 0);
		job_destroy(jobs[i]);
	}
	close_all();
}

TEST(cancelled_jobs_end_whether_running_or_waiting) {
	enum { JOBS = 20 };
	open_opt();
	struct job *jobs[JOBS];
	jobs[0] = hold("{\"prompt\":[2,70],\"max_tokens\":60,\"n\":2,\"stream\":true,"
	               "\"ignore_eos\":true}");
	for (int i = 1; i < JOBS; i++)
		jobs[i] = submit("{\"prompt\":[2,70],\"max_tokens\":60,\"n\":2,"
		                 "\"ignore_eos\":true}");
	for (int i = 0; i < JOBS; i++)
		engine_cancel(engine, jobs[i], ERROR_REQUEST_CANCELLED);
	release();
	for (int i = 0; i < JOBS; i++) {
		finish(jobs[i]);
		CHECK_INT(jobs[i]->error.code, ERROR_REQUEST_CANCELLED);
		job_destroy(jobs[i]);
	}
	close_all();
}

TEST(the_queue_is_bounded_by_requests) {
	rig_open(&rig, "tiny-opt");
	rig.config.queue_requests = 3;
	rig.config.max_running = 1;
	start(true, 4 << 20);
	struct job *jobs[64];
	jobs[0] = hold("{\"prompt\":[2,70],\"max_tokens\":60,\"stream\":true,\"ignore_eos\":true}");
	int taken = 1, refused = 0;
	struct error e = { 0 };
	for (int i = 1; i < 64; i++) {
		struct job *job = rig_job(&rig, REQUEST_COMPLETION,
		                "{\"prompt\":[2,70],\"max_tokens\":60,\"ignore_eos\":true}");
		if (engine_submit(engine, job, &e)) {
			jobs[taken++] = job;
		} else {
			CHECK_INT(e.code, ERROR_SERVER_OVERLOADED);
			CHECK(e.retry_after_ms >= rig.config.retry_after_ms);
			refused++;
			job_destroy(job);
		}
	}
	release();
	CHECK_INT(refused, 64 - 1 - 3);
	for (int i = 0; i < taken; i++) {
		finish(jobs[i]);
		CHECK_INT(jobs[i]->error.code, ERROR_NONE);
		job_destroy(jobs[i]);
	}
	close_all();
}

TEST(the_queue_is_bounded_by_tokens_but_takes_one_request_of_any_size) {
	rig_open(&rig, "tiny-opt");
	rig.config.queue_tokens = 10;
	rig.config.max_running = 1;
	start(true, 4 << 20);
	static const char body[] = "{\"prompt\":[2,70],\"max_tokens\":60,\"ignore_eos\":true}";
	struct job *first = hold("{\"prompt\":[2,70],\"max_tokens\":60,\"stream\":true,"
	                         "\"ignore_eos\":true}");
	struct job *jobs[32];
	int taken = 0, refused = 0;
	struct error e = { 0 };
	for (int i = 0; i < 32; i++) {
		struct job *job = rig_job(&rig, REQUEST_COMPLETION, body);
		if (engine_submit(engine, job, &e)) {
			jobs[taken++] = job;
		} else {
			CHECK_INT(e.code, ERROR_SERVER_OVERLOADED);
			refused++;
			job_destroy(job);
		}
	}
	release();
	CHECK(refused > 0);
	finish(first);
	job_destroy(first);
	while (taken > 0) {
		finish(jobs[--taken]);
		job_destroy(jobs[taken]);
	}
	close_all();
}

TEST(what_no_pool_could_hold_is_refused_at_once) {
	rig_open(&rig, "tiny-opt");
	/* Four blocks of one layer: 4 heads x 8 dims x 64 positions x 2 x 4 bytes each. */
	start(true, 4 * 4 * 8 * 64 * 2 * 4);
	submit_refused("{\"prompt\":[2,70],\"depth\":5,\"max_tokens\":10}",
	                ERROR_CONTEXT_LENGTH_EXCEEDED);
	struct job *job = submit("{\"prompt\":[2,70],\"depth\":\"auto\",\"max_tokens\":10}");
	finish(job);
	CHECK_INT(job->error.code, ERROR_NONE);
	CHECK_INT(job->subnet.stack[STACK_DECODER].depth, 4);
	job_destroy(job);
	close_all();
}

TEST(an_expired_deadline_is_answered_at_once) {
	open_opt();
	struct error e = { 0 };
	struct job *job = rig_job(&rig, REQUEST_COMPLETION,
	                "{\"prompt\":[2,70],\"deadline_ms\":1,\"max_tokens\":60}");
	job->times.received_ns = clock_now_ns() - 5000000;
	CHECK(!engine_submit(engine, job, &e));
	CHECK_INT(e.code, ERROR_DEADLINE_EXCEEDED);
	job_destroy(job);
	close_all();
}

TEST(a_deadline_ends_a_waiting_job) {
	rig_open(&rig, "tiny-opt");
	rig.config.max_running = 1;
	start(true, 4 << 20);
	struct job *jobs[40];
	jobs[0] = hold("{\"prompt\":[2,70],\"max_tokens\":60,\"ignore_eos\":true,\"stream\":true}");
	for (int i = 1; i < 40; i++)
		jobs[i] = submit("{\"prompt\":[2,70],\"max_tokens\":60,\"ignore_eos\":true}");
	struct job *hasty = submit(
	                "{\"prompt\":[2,70],\"max_tokens\":60,\"deadline_ms\":1,\"priority\":9}");
	struct timespec deadline = { 0, 2000000 };
	nanosleep(&deadline, NULL);
	release();
	finish(hasty);
	CHECK_INT(hasty->error.code, ERROR_DEADLINE_EXCEEDED);
	job_destroy(hasty);
	for (int i = 0; i < 40; i++) {
		engine_cancel(engine, jobs[i], ERROR_REQUEST_CANCELLED);
		finish(jobs[i]);
		job_destroy(jobs[i]);
	}
	close_all();
}

TEST(an_urgent_job_goes_between_the_choices_of_a_large_one) {
	rig_open(&rig, "tiny-opt");
	rig.config.max_running = 1;
	start(true, 4 << 20);
	struct job *large = hold("{\"prompt\":[[2,70],[2,71],[2,72],[2,73],[2,74],[2,75],[2,76],"
	                         "[2,77]],\"n\":4,\"max_tokens\":30,\"stream\":true,"
	                         "\"ignore_eos\":true}");
	struct job *urgent = submit("{\"prompt\":[2,80],\"max_tokens\":2,\"priority\":-5,"
	                            "\"ignore_eos\":true}");
	release();
	finish(large);
	finish(urgent);
	CHECK_INT(urgent->error.code, ERROR_NONE);
	CHECK(urgent->times.done_ns < large->times.done_ns);
	for (int i = 0; i < 32; i++)
		CHECK_INT(large->choices[i].published.n_tokens, 30);
	job_destroy(urgent);
	job_destroy(large);
	close_all();
}

TEST(warming_up_measures_every_depth) {
	rig_open(&rig, "tiny-opt");
	start(false, 4 << 20);
	struct snapshot s;
	engine_snapshot(engine, &s);
	CHECK(s.cost.fitted);
	CHECK(s.cost.margin >= 1);
	double last_ms = 0;
	for (int d = 1; d <= 6; d++) {
		const int depth[STACKS] = { [STACK_DECODER] = d };
		CHECK(cost_decode_ms(&s.cost, depth) > last_ms);
		CHECK(cost_prefill_ms(&s.cost, depth) > 0);
		last_ms = cost_decode_ms(&s.cost, depth);
	}
	close_all();
}

TEST(budgets_that_no_server_could_meet_are_refused_on_demand) {
	rig_open(&rig, "tiny-opt");
	start(false, 4 << 20);
	struct error e = { 0 };
	struct job *job = rig_job(&rig, REQUEST_COMPLETION,
	                "{\"prompt\":[2,70],\"max_tokens\":60,\"latency_budget_ms\":0.001,"
	                "\"on_miss\":\"reject\"}");
	CHECK(!engine_submit(engine, job, &e));
	CHECK_INT(e.code, ERROR_BUDGET_UNATTAINABLE);
	CHECK(e.predicted_ms > 0.001);
	CHECK_INT(e.fitting_depth, 0);
	job_destroy(job);
	/* Degrade, the default, serves it late at the shallowest depth. */
	job = submit("{\"prompt\":[2,70],\"max_tokens\":6,\"latency_budget_ms\":0.001,"
	             "\"min_depth\":2,\"ignore_eos\":true}");
	finish(job);
	CHECK_INT(job->subnet.stack[STACK_DECODER].depth, 2);
	CHECK_INT(job->reason, REASON_BUDGET);
	CHECK_INT(job->choices[0].published.n_tokens, 6);
	CHECK(job->predicted_ms > 0);
	CHECK_INT(job->predicted_tokens, 6);
	job_destroy(job);
	close_all();
}

TEST(a_plan_is_told_without_running) {
	rig_open(&rig, "tiny-opt");
	start(false, 4 << 20);
	struct plan_answer answer;
	struct job *job = rig_job(&rig, REQUEST_COMPLETION,
	                "{\"prompt\":[2,70],\"max_tokens\":60,\"latency_budget_ms\":100000}");
	engine_plan(engine, job, &answer);
	CHECK_INT(answer.subnet.stack[STACK_DECODER].depth, 6);
	CHECK(answer.fits && answer.predicted_ms > 0 && answer.budget_ms == 100000);
	job_destroy(job);
	close_all();
}

TEST(two_engines_share_one_team_by_turns) {
	rig_open(&rig, "tiny-opt");
	char err[256];
	struct turn *turn = turn_create();
	struct engine_options options = options_of(false, 4 << 20);
	options.turn = turn;
	news = false;
	struct model_options model_options = { .ops = ops_c(), .threads = 1 };
	struct model *second = model_open(check_data("tiny-opt"), &model_options, err, sizeof err);
	CHECK(turn && second);
	engine = engine_create(rig.model, &options, err, sizeof err);
	struct engine *other = engine_create(second, &options, err, sizeof err);
	CHECK(engine && other);
	struct engine *both[] = { engine, other };
	struct job *jobs[2];
	for (int i = 0; i < 2; i++) {
		struct snapshot s;
		for (engine_snapshot(both[i], &s); !s.warm; engine_snapshot(both[i], &s)) {
			struct timespec ms = { 0, 1000000 };
			nanosleep(&ms, NULL);
		}
		struct error e;
		jobs[i] = rig_job(&rig, REQUEST_COMPLETION,
		                "{\"prompt\":[2,70],\"max_tokens\":50,\"temperature\":0,"
		                "\"ignore_eos\":true}");
		CHECK(engine_submit(both[i], jobs[i], &e));
	}
	for (int i = 0; i < 2; i++) {
		while (jobs[i]->state != JOB_DONE) {
			if (!engine_collect(both[i])) {
				struct timespec ms = { 0, 1000000 };
				nanosleep(&ms, NULL);
			}
		}
	}
	CHECK(memcmp(jobs[0]->choices[0].tokens, jobs[1]->choices[0].tokens, 50 * sizeof(int32_t))
	                == 0);
	job_destroy(jobs[0]);
	job_destroy(jobs[1]);
	engine_destroy(other);
	close_all();
	turn_destroy(turn);
}

TEST(destroying_an_engine_delivers_what_was_not_collected) {
	open_opt();
	struct job *job = submit("{\"prompt\":[2,70],\"max_tokens\":5,\"ignore_eos\":true}");
	engine_destroy(engine);
	CHECK_INT(job->state, JOB_DONE);
	CHECK_INT(job->choices[0].published.n_tokens, 5);
	job_destroy(job);
	rig.model = NULL;
	rig_close(&rig);
}

/* ---- encoders and encoder-decoders ---- */

TEST(searches_of_mixed_depths_answer_as_alone) {
	enum { JOBS = 12 };
	rig_open(&rig, "tiny-mt-pre");
	start(false, 4 << 20);
	struct job *alone[JOBS], *crowd[JOBS];
	char body[256];
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < JOBS; i++) {
			snprintf(body, sizeof body,
			                "{\"prompt\":[%d,%d,80,2],\"max_tokens\":%d,\"num_beams\":%"
			                "d,"
			                "\"n\":%d,\"depth\":{\"encoder\":%d,\"decoder\":%d}}",
			                40 + i, 200 - 3 * i, 5 + i % 7, 1 + i % 5, 1 + i % 5 / 2,
			                1 + i % 4, 1 + i % 3);
			struct job *job = submit(body);
			*(round ? &crowd[i] : &alone[i]) = job;
			if (round == 0)
				finish(job);
		}
	}
	for (int i = 0; i < JOBS; i++) {
		finish(crowd[i]);
		CHECK_INT(crowd[i]->error.code, ERROR_NONE);
		for (int k = 0; k < crowd[i]->n_choices; k++) {
			const struct choice *x = &alone[i]->choices[k], *y = &crowd[i]->choices[k];
			CHECK(x->published.n_tokens > 0);
			CHECK_INT(y->published.n_tokens, x->published.n_tokens);
			CHECK(memcmp(x->tokens, y->tokens,
			                      (size_t)x->published.n_tokens * sizeof *x->tokens)
			                == 0);
			CHECK(x->score == y->score);
		}
		job_destroy(alone[i]);
		job_destroy(crowd[i]);
	}
	close_all();
}

TEST(cancelled_searches_end_and_give_everything_back) {
	enum { JOBS = 12 };
	rig_open(&rig, "tiny-mt-pre");
	start(true, 4 << 20);
	struct job *jobs[JOBS];
	for (int i = 0; i < JOBS; i++)
		jobs[i] = submit("{\"prompt\":[5,2],\"num_beams\":5,\"n\":2,\"max_tokens\":40,"
		                 "\"min_tokens\":39}");
	for (int i = 0; i < JOBS; i++)
		engine_cancel(engine, jobs[i], ERROR_REQUEST_CANCELLED);
	for (int i = 0; i < JOBS; i++) {
		finish(jobs[i]);
		job_destroy(jobs[i]);
	}
	close_all();
}

TEST(a_greedy_answer_of_an_encoder_decoder_is_streamed) {
	rig_open(&rig, "tiny-mt-pre");
	start(true, 4 << 20);
	struct job *job = submit("{\"prompt\":[5,2],\"max_tokens\":40,\"stream\":true,"
	                         "\"ignore_eos\":true,\"num_beams\":1}");
	int seen = 0;
	while (job->state != JOB_DONE) {
		for (struct job *j = engine_collect(engine); j; j = j->next) {
			CHECK(job->choices[0].published.n_tokens >= seen);
			seen = job->choices[0].published.n_tokens;
		}
		if (job->state != JOB_DONE)
			wait_for_news();
	}
	CHECK_INT(seen, 40);
	job_destroy(job);
	close_all();
}

TEST(jobs_for_an_encoder_come_back_with_their_results) {
	enum { JOBS = 24 };
	rig_open(&rig, "tiny-encoder");
	start(false, 4 << 20);
	struct job *jobs[JOBS];
	char body[256];
	for (int i = 0; i < JOBS; i++) {
		/* Every third alone, as what the others must give. */
		int text = i / 3;
		snprintf(body, sizeof body, "{\"input\":[[0,%d,%d,9,2],[0,7,2]],\"depth\":%d}",
		                4 + text, 30 + text, 1 + text % 5);
		jobs[i] = submit_kind(REQUEST_EMBEDDING, body);
		if (i % 3 == 0)
			finish(jobs[i]);
	}
	for (int i = 0; i < JOBS; i++) {
		finish(jobs[i]);
		CHECK_INT(jobs[i]->error.code, ERROR_NONE);
		CHECK(jobs[i]->times.joined_ns > 0);
		size_t bytes = (size_t)rig.model->facts.stack[STACK_ENCODER].dim * sizeof(float);
		for (int k = 0; k < 2; k++)
			CHECK(memcmp(jobs[i]->prompts[k].output, jobs[i - i % 3]->prompts[k].output,
			                      bytes)
			                == 0);
	}
	for (int i = 0; i < JOBS; i++)
		job_destroy(jobs[i]);
	close_all();
}

TEST(a_budget_chooses_the_depth_of_an_encoder) {
	rig_open(&rig, "tiny-encoder");
	start(false, 4 << 20);
	struct job *tight = submit_kind(REQUEST_CLASSIFY,
	                "{\"input\":[0,5,2],\"head\":\"mnli\",\"latency_budget_ms\":0.0001}");
	struct job *loose = submit_kind(REQUEST_CLASSIFY,
	                "{\"input\":[0,5,2],\"head\":\"mnli\",\"latency_budget_ms\":100000}");
	finish(tight);
	finish(loose);
	CHECK_INT(tight->subnet.stack[STACK_ENCODER].depth, 1);
	CHECK_INT(loose->subnet.stack[STACK_ENCODER].depth, 5);
	CHECK(loose->predicted_ms > 0);
	job_destroy(tight);
	job_destroy(loose);
	close_all();
}

TEST(a_deadline_ends_texts_with_nothing_out) {
	rig_open(&rig, "tiny-encoder");
	start(true, 4 << 20);
	char *body = malloc(1 << 16), *to = body + sprintf(body, "{\"input\":[");
	for (int i = 0; i < 2000; i++)
		to += sprintf(to, "%s[0,%d,7,8,9,10,11,2]", i ? "," : "", 4 + i % 90);
	strcpy(to, "],\"deadline_ms\":2}");
	struct job *job = submit_kind(REQUEST_EMBEDDING, body);
	free(body);
	finish(job);
	CHECK_INT(job->error.code, ERROR_DEADLINE_EXCEEDED);
	job_destroy(job);
	close_all();
}
