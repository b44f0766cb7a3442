/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fathom generate: continues or translates a text once, at one depth (streamed) or at several (side
 * by side), on the same engine that serves, without HTTP. Each depth runs alone, so that its milliseconds
 * are its own.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/columns.h"
#include "cli/depths.h"
#include "proto/buffer.h"
#include "server/demo.h"
#include "server/engine.h"
#include "server/load_with.h"
#include "server/memory.h"
#include "server/resolve.h"
#include "server/submit.h"

enum { MOST_DEPTHS = 16, CONFIG_FLAGS = 32 };

struct options {
	char *depths; /* "12,6,3"; NULL: the default depth */
	const char *layers, *encoder_layers, *rule, *max_tokens, *temperature, *seed, *prompt;
	bool json, help;
	char *config_argv[CONFIG_FLAGS]; /* flags that fathom serve has too */
	int config_argc;
};

/* What runs. */
struct runner {
	struct config config;
	struct team *team;
	struct metrics *metrics;
	struct engine *engine;
	pthread_mutex_t lock;
	pthread_cond_t woken;
	bool news;      /* under lock */
	FILE *progress; /* where the text is streamed; NULL: not */
};

static const char usage[] =
                "usage: fathom generate [FLAGS] PROMPT     (PROMPT - reads standard input)\n\n"
                "  --model DIR          model folder; without it the bundled demo\n"
                "  --depth LIST         depths such as 12,6,3, full or fast; several are shown "
                "side by side;\n"
                "                       of an encoder-decoder 12x6,6x3 (encoder x decoder)\n"
                "  --layers LIST        keep exactly these layers, such as 0,2,4; of an\n"
                "                       encoder-decoder its decoder's, with --encoder-layers LIST\n"
                "  --rule NAME          how a depth becomes layers: even, ends, prefix or tuned\n"
                "  --max-tokens N       most tokens to generate\n"
                "  --temperature T      0: always the likeliest token; default: the model "
                "folder's\n"
                "  --seed S             the same seed gives the same text; default: random, one "
                "for all depths\n"
                "  --json               print one JSON object\n"
                "  --threads N, --kernels NAME, --cpu-level NAME, --weights NAME, --kv NAME,\n"
                "  --kv-bytes N, --packed-cache MODE, --config FILE\n"
                "                       as for fathom serve\n";

/* ---- flags ---- */

static bool bad_usage(const char *format, const char *what) {
	fputs("fathom generate: ", stderr);
	fprintf(stderr, format, what);
	fputs("; fathom generate --help lists the flags\n", stderr);
	return false;
}

static const char **own_flag(struct options *o, const char *name, size_t len) {
	const struct {
		const char *name;
		const char **value;
	} flags[] = {
		{ "depth", (const char **)&o->depths },
		{ "layers", &o->layers },
		{ "encoder-layers", &o->encoder_layers },
		{ "rule", &o->rule },
		{ "max-tokens", &o->max_tokens },
		{ "temperature", &o->temperature },
		{ "seed", &o->seed },
	};
	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
		if (strlen(flags[i].name) == len && memcmp(flags[i].name, name, len) == 0)
			return flags[i].value;
	}
	return NULL;
}

static bool is_config_flag(const char *name, size_t len) {
	static const char *const names[] = { "model", "threads", "kernels", "cpu-level", "kv-bytes",
		"weights", "kv", "packed-cache", "config" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
			return true;
	}
	return false;
}

/* A flag with a value, as "--name value" or "--name=value". */
static bool read_flag(struct options *o, int argc, char **argv, int *i) {
	char *flag = argv[*i], *value = strchr(flag, '=');
	const char *name = flag + 2;
	size_t len = value ? (size_t)(value - name) : strlen(name);
	const char **own = own_flag(o, name, len);
	if (!own && !is_config_flag(name, len))
		return bad_usage("there is no flag %s", flag);
	if (!value && *i + 1 == argc)
		return bad_usage("%s needs a value", flag);
	if (own) {
		*own = value ? value + 1 : argv[++*i];
		return true;
	}
	if (o->config_argc + 2 > CONFIG_FLAGS)
		return bad_usage("%s is one flag too many", flag);
	o->config_argv[o->config_argc++] = flag;
	if (!value)
		o->config_argv[o->config_argc++] = argv[++*i];
	return true;
}

static bool read_options(struct options *o, int argc, char **argv) {
	bool flags = true;
	memset(o, 0, sizeof *o);
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];
		if (flags && strcmp(arg, "--") == 0) {
			flags = false;
		} else if (flags && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
			o->help = true;
			return true;
		} else if (flags && strcmp(arg, "--json") == 0) {
			o->json = true;
		} else if (flags && strncmp(arg, "--", 2) == 0) {
			if (!read_flag(o, argc, argv, &i))
				return false;
		} else if (o->prompt) {
			return bad_usage("\"%s\" comes after the prompt; quote a prompt of several "
			                 "words",
			                arg);
		} else {
			o->prompt = arg;
		}
	}
	if (!o->prompt)
		return bad_usage("%s is missing", "the prompt");
	const char *const lists[] = { o->layers, o->encoder_layers };
	for (int i = 0; i < 2; i++) {
		if (lists[i] && strspn(lists[i], "0123456789, ") != strlen(lists[i]))
			return bad_usage("a list of layers has numbers between commas, not \"%s\"",
			                lists[i]);
		if (lists[i] && o->depths)
			return bad_usage("%s exclude each other", "--layers and --depth");
	}
	return true;
}

/* ---- requests ---- */

/* A number goes into the body as it is, so that the request's own checks see it. */
static void put_number(struct buffer *b, const char *key, const char *text) {
	if (!text)
		return;
	bool plain = text[0] && strspn(text, "0123456789.-+eE") == strlen(text);
	buffer_printf(b, ",\"%s\":", key);
	if (plain)
		buffer_puts(b, text);
	else
		buffer_json_string(b, text, strlen(text));
}

/* "12x6" is a pair. */
static void put_depth(struct buffer *b, const char *depth) {
	int encoder, decoder, end = 0;
	if (depth && sscanf(depth, "%dx%d%n", &encoder, &decoder, &end) == 2 && !depth[end])
		buffer_printf(b, ",\"depth\":{\"encoder\":%d,\"decoder\":%d}", encoder, decoder);
	else
		put_number(b, "depth", depth);
}

static void put_layers(struct buffer *b, const struct options *o) {
	if (o->layers && o->encoder_layers)
		buffer_printf(b, ",\"layers\":{\"encoder\":[%s],\"decoder\":[%s]}",
		                o->encoder_layers, o->layers);
	else if (o->encoder_layers)
		buffer_printf(b, ",\"layers\":{\"encoder\":[%s]}", o->encoder_layers);
	else if (o->layers)
		buffer_printf(b, ",\"layers\":[%s]", o->layers);
}

/* `depth` NULL: --layers, or the default depth. What is not shown as it comes may be searched. */
static void write_body(struct buffer *b, const struct options *o, const char *prompt, size_t len,
                const char *depth, uint64_t seed, bool stream) {
	buffer_printf(b, "{\"stream\":%s,\"prompt\":", stream ? "true" : "false");
	buffer_json_string(b, prompt, len);
	put_depth(b, depth);
	put_number(b, "max_tokens", o->max_tokens);
	put_number(b, "temperature", o->temperature);
	if (o->seed)
		put_number(b, "seed", o->seed);
	else
		buffer_printf(b, ",\"seed\":%llu", (unsigned long long)seed);
	put_layers(b, o);
	if (o->rule) {
		buffer_puts(b, ",\"plan_rule\":");
		buffer_json_string(b, o->rule, strlen(o->rule));
	}
	buffer_puts(b, "}");
}

static struct job *make_job(const struct runner *s, const struct options *o, const char *prompt,
                size_t len, const char *depth, uint64_t seed, struct error *e) {
	struct buffer body = { 0 };
	struct request_limits limits;
	struct request request;
	struct job *job = NULL;
	submit_limits(&s->config, &limits);
	limits.body_bytes = (size_t)1 << 30;
	write_body(&body, o, prompt, len, depth, seed, s->progress != NULL);
	if (body.failed)
		error_set(e, ERROR_INTERNAL, "", "Memory ran out.");
	else if (request_parse(REQUEST_COMPLETION, body.data, body.len, &limits, &request, e))
		job = resolve_job(engine_model(s->engine), &s->config, &request, e);
	buffer_finish(&body);
	return job;
}

/* ---- running ---- */

static void wake(void *arg) {
	struct runner *s = arg;
	pthread_mutex_lock(&s->lock);
	s->news = true;
	pthread_cond_signal(&s->woken);
	pthread_mutex_unlock(&s->lock);
}

static void wait_for_news(struct runner *s) {
	pthread_mutex_lock(&s->lock);
	while (!s->news)
		pthread_cond_wait(&s->woken, &s->lock);
	s->news = false;
	pthread_mutex_unlock(&s->lock);
}

static bool run_job(struct runner *s, struct job *job, struct error *e) {
	size_t written = 0;
	if (!engine_submit(s->engine, job, e))
		return false;
	while (job->state != JOB_DONE) {
		if (!engine_collect(s->engine)) {
			wait_for_news(s);
			continue;
		}
		size_t len = job->choices[0].published.text_len;
		if (s->progress && len > written) {
			fwrite(job->choices[0].text + written, 1, len - written, s->progress);
			fflush(s->progress);
			written = len;
		}
	}
	if (job->error.code != ERROR_NONE)
		*e = job->error;
	return job->error.code == ERROR_NONE;
}

static bool open_engine(struct runner *s, char *err, size_t errlen) {
	char demo[4400];
	struct load_with with = load_with_of(&s->config);
	struct model_options options;
	const char *dir = s->config.model;
	if (!dir) {
		if (!demo_find(demo, sizeof demo, err, errlen))
			return false;
		dir = demo;
	}
	if (!load_with_read(&with, &options, err, errlen))
		return false;
	struct model *model = model_open(dir, &options, err, errlen);
	if (!model)
		return false;
	s->team = team_create(options.threads, err, errlen);
	if (!s->team) {
		model_close(model);
		return false;
	}
	s->metrics = metrics_create(&model->facts);
	if (!s->metrics) {
		snprintf(err, errlen, "memory ran out");
		model_close(model);
		return false;
	}
	struct engine_options engine = { .config = &s->config,
		.team = s->team,
		.metrics = s->metrics,
		.skip_warmup = true,
		.kv_bytes = memory_kv_bytes(&s->config, model, model->weights.bytes),
		.wake = wake,
		.wake_arg = s };
	s->engine = engine_create(model, &engine, err, errlen);
	struct snapshot snapshot = { 0 };
	while (s->engine && !snapshot.warm) {
		wait_for_news(s);
		engine_snapshot(s->engine, &snapshot);
	}
	return s->engine;
}

static void close_runner(struct runner *s) {
	engine_destroy(s->engine);
	metrics_destroy(s->metrics);
	team_destroy(s->team);
	pthread_cond_destroy(&s->woken);
	pthread_mutex_destroy(&s->lock);
	config_finish(&s->config);
}

/* ---- results ---- */

static double ms_per_token(const struct job *job) {
	int n = job->choices[0].published.n_tokens;
	return n > 1 ? job->decode_ms / (n - 1) : 0;
}

static void print_json(struct job *const *jobs, int n, const struct runner *s) {
	struct buffer b = { 0 };
	const struct model *model = engine_model(s->engine);
	buffer_puts(&b, "{\"model\":");
	buffer_json_string(&b, model->name, strlen(model->name));
	buffer_puts(&b, ",\"results\":[");
	for (int i = 0; i < n; i++) {
		const struct job *job = jobs[i];
		const struct choice *c = &job->choices[0];
		buffer_printf(&b, "%s{\"depth\":", i ? "," : "");
		depths_put(&b, &job->subnet, DEPTHS_KEPT);
		buffer_puts(&b, ",\"of\":");
		depths_put(&b, &job->subnet, DEPTHS_OF);
		buffer_puts(&b, ",\"layers\":");
		depths_put(&b, &job->subnet, DEPTHS_LAYERS);
		buffer_printf(&b,
		                ",\"rule\":\"%s\",\"prompt_tokens\":%d,\"tokens\":%d,"
		                "\"finish_reason\":\"%s\",\"prefill_ms\":",
		                plan_rule_name(job->policy.rule), job->prompts[0].n_tokens,
		                c->published.n_tokens,
		                c->published.finish == FINISH_STOP ? "stop" : "length");
		buffer_json_f64(&b, job->prefill_ms);
		buffer_puts(&b, ",\"decode_ms\":");
		buffer_json_f64(&b, job->decode_ms);
		buffer_puts(&b, ",\"ms_per_token\":");
		buffer_json_f64(&b, ms_per_token(job));
		buffer_puts(&b, ",\"text\":");
		buffer_json_string(&b, c->text, c->published.text_len);
		buffer_puts(&b, "}");
	}
	buffer_puts(&b, "]}\n");
	fwrite(b.data, 1, b.failed ? 0 : b.len, stdout);
	buffer_finish(&b);
}

static double total_ms(const struct job *job) {
	return job->prefill_ms + job->decode_ms;
}

/* "depth 6 of 12", or "depth 12x6 of 12x6". */
static void describe_depth(const struct subnet *subnet, char *text, size_t size) {
	const struct plan *encoder = &subnet->stack[STACK_ENCODER];
	const struct plan *decoder = &subnet->stack[STACK_DECODER];
	if (encoder->of > 0)
		snprintf(text, size, "depth %dx%d of %dx%d", encoder->depth, decoder->depth,
		                encoder->of, decoder->of);
	else
		snprintf(text, size, "depth %d of %d", decoder->depth, decoder->of);
}

/* "layers 0 2 4", of two stacks "layers 0-11 | 0 2 4". */
static void describe_layers(const struct subnet *subnet, char *text, size_t size) {
	static const char word[] = "layers ";
	memcpy(text, word, sizeof word);
	depths_layers(subnet, text + strlen(word), size - strlen(word));
}

static bool print_columns(struct job *const *jobs, int n, const char *prompt, size_t len) {
	struct column *columns = calloc((size_t)n, sizeof *columns);
	struct buffer texts[MOST_DEPTHS] = { { 0 } };
	for (int i = 0; columns && i < n; i++) {
		const struct choice *c = &jobs[i]->choices[0];
		char *time = columns[i].heads[2];
		bool continues = jobs[i]->subnet.stack[STACK_ENCODER].of == 0;
		describe_depth(&jobs[i]->subnet, columns[i].heads[0], sizeof columns[i].heads[0]);
		describe_layers(&jobs[i]->subnet, columns[i].heads[1], sizeof columns[i].heads[1]);
		if (continues)
			snprintf(time, sizeof columns[i].heads[2], "%.2f ms per token",
			                ms_per_token(jobs[i]));
		else
			snprintf(time, sizeof columns[i].heads[2], "%.1f ms", total_ms(jobs[i]));
		if (continues)
			buffer_append(&texts[i], prompt, len);
		buffer_append(&texts[i], c->text, c->published.text_len);
		columns[i].text = texts[i].data;
		columns[i].len = texts[i].failed ? 0 : texts[i].len;
	}
	if (columns)
		columns_print(stdout, columns, n, columns_terminal_width(stdout));
	for (int i = 0; i < n; i++)
		buffer_finish(&texts[i]);
	free(columns);
	return columns;
}

static void print_summary(const struct job *job) {
	char depth[100], layers[840];
	describe_depth(&job->subnet, depth, sizeof depth);
	describe_layers(&job->subnet, layers, sizeof layers);
	fprintf(stderr, "%s (%s), %d tokens, %.2f ms per token\n", depth, layers,
	                job->choices[0].published.n_tokens, ms_per_token(job));
}

/* ---- all ---- */

/* Splits "12,6,3" in place. */
static int split_depths(char *list, const char **depths) {
	int n = 0;
	char *rest = list;
	for (char *one; rest && (one = strsep(&rest, ","));) {
		if (n == MOST_DEPTHS || !one[0])
			return 0;
		depths[n++] = one;
	}
	return n;
}

static int report(const struct error *e) {
	int status = error_status(e->code);
	fprintf(stderr, "fathom generate: %s\n", e->message);
	return status >= 400 && status < 500 ? 2 : 1;
}

static int generate(struct runner *s, const struct options *o, const char *prompt, size_t len) {
	const char *depths[MOST_DEPTHS] = { NULL };
	struct job *jobs[MOST_DEPTHS] = { NULL };
	int n = o->depths ? split_depths(o->depths, depths) : 1, status = 0;
	uint64_t seed = 0;
	if (n == 0) {
		fprintf(stderr, "fathom generate: --depth takes 1 to %d depths between commas\n",
		                MOST_DEPTHS);
		return 2;
	}
	if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
		seed = 0;
	seed &= INT32_MAX;
	s->progress = n == 1 && !o->json ? stdout : NULL;
	/* All requests are checked before the first runs. */
	for (int i = 0; i < n && status == 0; i++) {
		struct error e = { 0 };
		jobs[i] = make_job(s, o, prompt, len, depths[i], seed, &e);
		if (!jobs[i])
			status = report(&e);
	}
	if (s->progress && status == 0 && engine_model(s->engine)->facts.kind == KIND_LM)
		fwrite(prompt, 1, len, s->progress);
	for (int i = 0; i < n && status == 0; i++) {
		struct error e = { 0 };
		if (!run_job(s, jobs[i], &e))
			status = report(&e);
	}
	if (status == 0 && o->json) {
		print_json(jobs, n, s);
	} else if (status == 0 && n > 1) {
		status = print_columns(jobs, n, prompt, len) ? 0 : 1;
	} else if (status == 0) {
		putchar('\n');
		fflush(stdout);
		print_summary(jobs[0]);
	}
	for (int i = 0; i < n; i++)
		job_destroy(jobs[i]);
	return status;
}

/* The prompt, from the argument or from standard input. Free ret_owned. */
static bool read_prompt(const struct options *o, const char **ret_prompt, size_t *ret_len,
                char **ret_owned) {
	*ret_owned = NULL;
	*ret_prompt = o->prompt;
	*ret_len = strlen(o->prompt);
	if (strcmp(o->prompt, "-") != 0)
		return true;
	size_t len = 0, cap = 0;
	for (;;) {
		if (len == cap) {
			cap = cap ? 2 * cap : 65536;
			char *grown = realloc(*ret_owned, cap);
			if (!grown)
				return false;
			*ret_owned = grown;
		}
		size_t n = fread(*ret_owned + len, 1, cap - len, stdin);
		if (n == 0)
			break;
		len += n;
	}
	/* A line's end is the terminal's, not the text's. */
	if (len > 0 && (*ret_owned)[len - 1] == '\n')
		len--;
	*ret_prompt = *ret_owned;
	*ret_len = len;
	return !ferror(stdin);
}

int generate_main(int argc, char **argv) {
	struct options options;
	struct runner runner = { .lock = PTHREAD_MUTEX_INITIALIZER,
		.woken = PTHREAD_COND_INITIALIZER };
	char err[512] = "", *owned = NULL;
	const char *prompt;
	size_t len;
	bool help;
	if (!read_options(&options, argc, argv))
		return 2;
	if (options.help) {
		fputs(usage, stdout);
		return 0;
	}
	int status = 1;
	if (!config_load(&runner.config, options.config_argc, options.config_argv, environ, &help,
	                    NULL, 0, err, sizeof err)) {
		fprintf(stderr, "fathom generate: %s\n", err);
		status = 2;
	} else if (!read_prompt(&options, &prompt, &len, &owned)) {
		fputs("fathom generate: standard input could not be read\n", stderr);
	} else if (!open_engine(&runner, err, sizeof err)) {
		fprintf(stderr, "fathom generate: %s\n", err);
	} else {
		status = generate(&runner, &options, prompt, len);
	}
	free(owned);
	close_runner(&runner);
	return status;
}
