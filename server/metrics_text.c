/* SPDX-License-Identifier: Apache-2.0 */
/* The Prometheus text of /metrics (format 0.0.4), with the standard process_* set. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "server/metrics.h"
#include "server/metrics_data.h"

const char *const metrics_reasons[REASONS] = { "explicit", "budget", "overload", "default" };

static const char *const stages[STAGES] = { "queue", "prefill", "decode" };
static const char *const phases[PHASES] = { "prefill", "decode", "mixed", "draft" };

static void head(struct buffer *out, const char *name, const char *type, const char *help) {
	buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static long long get(const atomic_llong *counter) {
	return atomic_load_explicit((atomic_llong *)counter, memory_order_relaxed);
}

static void put_f64(struct buffer *out, double value) {
	buffer_json_f64(out, value);
	buffer_puts(out, "\n");
}

static void gauge(struct buffer *out, const char *name, const char *help, double value) {
	head(out, name, "gauge", help);
	buffer_printf(out, "%s ", name);
	put_f64(out, value);
}

static void counter(struct buffer *out, const char *name, const char *help, double value) {
	head(out, name, "counter", help);
	buffer_printf(out, "%s ", name);
	put_f64(out, value);
}

/* One series of a histogram; `label` is "" or `name="value"`. */
static void series(struct buffer *out, const char *name, const char *label,
                const struct histogram *h, const double *bounds, int n) {
	long long total = 0;
	const char *comma = *label ? "," : "", *open = *label ? "{" : "",
	           *close = *label ? "}" : "";
	for (int i = 0; i < n; i++) {
		total += get(&h->buckets[i]);
		buffer_printf(out, "%s_bucket{%s%sle=\"%g\"} %lld\n", name, label, comma, bounds[i],
		                total);
	}
	total += get(&h->buckets[n]);
	buffer_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %lld\n", name, label, comma, total);
	buffer_printf(out, "%s_sum%s%s%s ", name, open, label, close);
	put_f64(out, atomic_load_explicit((_Atomic double *)&h->sum, memory_order_relaxed));
	buffer_printf(out, "%s_count%s%s%s %lld\n", name, open, label, close, total);
}

static bool is_used(const struct histogram *h, int n) {
	bool used = false;
	for (int i = 0; i <= n; i++)
		used = used || get(&h->buckets[i]) > 0;
	return used;
}

/* The depths that are listed, one after the other: the index of the first from `at` on, or
 * n_depths. */
static size_t next_depth(const struct metrics *m, size_t at) {
	size_t row = (size_t)m->layers[m->main] + 1;
	while (at < m->n_depths
	                && (m->pairs ? !atomic_load_explicit((atomic_bool *)&m->by_depth[at].used,
	                                    memory_order_relaxed)
	                             : at % row == 0))
		at++;
	return at;
}

enum { DEPTH_LABEL = 80 };

static const char *depth_label(const struct metrics *m, size_t at, char label[DEPTH_LABEL]) {
	size_t row = (size_t)m->layers[m->main] + 1;
	if (m->pairs)
		snprintf(label, DEPTH_LABEL, "encoder_depth=\"%zu\",depth=\"%zu\"", at / row,
		                at % row);
	else
		snprintf(label, DEPTH_LABEL, "depth=\"%zu\"", at);
	return label;
}

static void depth_histogram(const struct metrics *m, struct buffer *out, const char *name,
                const char *help, size_t offset) {
	char label[DEPTH_LABEL];
	head(out, name, "histogram", help);
	for (size_t at = next_depth(m, 0); at < m->n_depths; at = next_depth(m, at + 1)) {
		const struct histogram *h =
		                (const struct histogram *)((const char *)&m->by_depth[at] + offset);
		/* There are many pairs: what was never seen of one is left out. */
		if (!m->pairs || is_used(h, SECONDS_BOUNDS))
			series(out, name, depth_label(m, at, label), h, metrics_seconds,
			                SECONDS_BOUNDS);
	}
}

static void write_requests(const struct metrics *m, struct buffer *out) {
	head(out, "fathom_requests_total", "counter",
	                "Answered requests by route and status code.");
	pthread_mutex_lock((pthread_mutex_t *)&m->lock);
	for (int i = 0; i < MOST_ROUTES && m->requests[i].label[0]; i++)
		buffer_printf(out, "fathom_requests_total{route=\"%s\",code=\"%d\"} %lld\n",
		                m->requests[i].label, m->requests[i].code,
		                get(&m->requests[i].count));
	head(out, "fathom_rejected_total", "counter", "Requests refused, by error code.");
	for (int i = 0; i < MOST_REASONS && m->rejected[i].label[0]; i++)
		buffer_printf(out, "fathom_rejected_total{reason=\"%s\"} %lld\n",
		                m->rejected[i].label, get(&m->rejected[i].count));
	pthread_mutex_unlock((pthread_mutex_t *)&m->lock);
}

static void write_stages(struct buffer *out, const char *name, const char *help,
                const atomic_llong *counts) {
	head(out, name, "counter", help);
	for (int i = 0; i < STAGES; i++)
		buffer_printf(out, "%s{stage=\"%s\"} %lld\n", name, stages[i], get(&counts[i]));
}

/* A model with two stacks says which one a layer is of. */
static void write_layer_rows(const struct metrics *m, struct buffer *out) {
	static const char *const names[STACKS] = { "encoder", "decoder" };
	head(out, "fathom_layer_rows_total", "counter", "Rows that ran through each layer.");
	for (int k = 0; k < STACKS; k++) {
		for (int l = 0; l < m->layers[k]; l++) {
			buffer_puts(out, "fathom_layer_rows_total{");
			if (m->pairs)
				buffer_printf(out, "stack=\"%s\",", names[k]);
			buffer_printf(out, "layer=\"%d\"} %lld\n", l, get(&m->layer_rows[k][l]));
		}
	}
}

static void write_depths(const struct metrics *m, struct buffer *out) {
	depth_histogram(m, out, "fathom_request_duration_seconds",
	                "Last body byte read to last byte of the answer, by depth.",
	                offsetof(struct depth_metrics, duration));
	depth_histogram(m, out, "fathom_time_to_first_token_seconds",
	                "Last body byte read to the first token, by depth.",
	                offsetof(struct depth_metrics, first_token));
	depth_histogram(m, out, "fathom_inter_token_latency_seconds",
	                "Between two tokens of an answer, by depth.",
	                offsetof(struct depth_metrics, inter_token));
	char label[DEPTH_LABEL];
	head(out, "fathom_generation_tokens_total", "counter", "Tokens generated, by depth.");
	for (size_t at = next_depth(m, 0); at < m->n_depths; at = next_depth(m, at + 1))
		buffer_printf(out, "fathom_generation_tokens_total{%s} %lld\n",
		                depth_label(m, at, label), get(&m->by_depth[at].generated));
	head(out, "fathom_depth_selected_total", "counter",
	                "Requests by the depth they ran and why.");
	for (size_t at = next_depth(m, 0); at < m->n_depths; at = next_depth(m, at + 1))
		for (int r = 0; r < REASONS; r++) {
			long long n = get(&m->by_depth[at].selected[r]);
			if (n > 0 || !m->pairs)
				buffer_printf(out,
				                "fathom_depth_selected_total{%s,reason=\"%s\"} "
				                "%lld\n",
				                depth_label(m, at, label), metrics_reasons[r], n);
		}
	write_layer_rows(m, out);
}

static void write_engine(const struct metrics *m, struct buffer *out) {
	head(out, "fathom_request_queue_seconds", "histogram",
	                "Time a request waited for a batch.");
	series(out, "fathom_request_queue_seconds", "", &m->queue_seconds, metrics_seconds,
	                SECONDS_BOUNDS);
	head(out, "fathom_step_seconds", "histogram", "Duration of a step, by what its rows were.");
	for (int i = 0; i < PHASES; i++) {
		char label[32];
		snprintf(label, sizeof label, "phase=\"%s\"", phases[i]);
		series(out, "fathom_step_seconds", label, &m->step_seconds[i], metrics_seconds,
		                SECONDS_BOUNDS);
	}
	head(out, "fathom_step_rows", "histogram", "Rows in a step.");
	series(out, "fathom_step_rows", "", &m->step_rows, metrics_rows, ROWS_BOUNDS);
	head(out, "fathom_prediction_error_ratio", "histogram", "Actual over predicted time.");
	series(out, "fathom_prediction_error_ratio", "", &m->prediction, metrics_ratios,
	                RATIO_BOUNDS);
	head(out, "fathom_step_prediction_error_ratio", "histogram",
	                "Actual over predicted time of a step, by what its rows were.");
	for (int i = 0; i < COST_KINDS; i++) {
		char label[32];
		snprintf(label, sizeof label, "phase=\"%s\"", cost_kind_name((enum cost_kind)i));
		series(out, "fathom_step_prediction_error_ratio", label, &m->step_prediction[i],
		                metrics_ratios, RATIO_BOUNDS);
	}
	counter(out, "fathom_prompt_tokens_total", "Prompt tokens processed.",
	                (double)get(&m->prompt_tokens));
	counter(out, "fathom_speculative_rounds_total", "Drafts that were verified.",
	                (double)get(&m->drafts));
	counter(out, "fathom_speculative_drafted_total", "Tokens that shallower plans drafted.",
	                (double)get(&m->drafted));
	counter(out, "fathom_speculative_accepted_total",
	                "Of these, tokens that the requested plan chose, too.",
	                (double)get(&m->draft_accepted));
	head(out, "fathom_prefix_cache_prompts_total", "counter",
	                "Prompts that could use the prefix cache, and if it held their beginning.");
	for (int i = 0; i < 2; i++)
		buffer_printf(out, "fathom_prefix_cache_prompts_total{hit=\"%s\"} %lld\n",
		                i ? "true" : "false", get(&m->prefix_prompts[i]));
	counter(out, "fathom_prefix_cache_tokens_total",
	                "Prompt tokens that did not run because the prefix cache held them.",
	                (double)get(&m->prefix_tokens));
	counter(out, "fathom_prefix_cache_evicted_blocks_total",
	                "KV blocks that the prefix cache has given up.",
	                (double)get(&m->prefix_evicted));
	head(out, "fathom_budget_requests_total", "counter",
	                "Requests with a budget, and if it was met.");
	for (int i = 0; i < 2; i++)
		buffer_printf(out, "fathom_budget_requests_total{met=\"%s\"} %lld\n",
		                i ? "true" : "false", get(&m->budgets[i]));
	write_stages(out, "fathom_deadline_exceeded_total", "Requests whose deadline passed.",
	                m->deadlines);
	write_stages(out, "fathom_cancelled_total", "Requests cancelled.", m->cancelled);
	counter(out, "fathom_engine_busy_seconds_total", "Time the engine spent in steps.",
	                atomic_load_explicit(
	                                (_Atomic double *)&m->busy_seconds, memory_order_relaxed));
	gauge(out, "fathom_connections", "Open connections.", (double)get(&m->connections));
}

static void write_gauges(const struct metrics_gauges *g, struct buffer *out) {
	gauge(out, "fathom_requests_running", "Requests in the batch.", g->running);
	gauge(out, "fathom_requests_waiting", "Requests in the queue.", g->waiting);
	gauge(out, "fathom_queue_tokens", "Tokens (prompt and answer) in the queue.",
	                (double)g->queue_tokens);
	gauge(out, "fathom_kv_cache_usage_ratio", "Share of the KV pool that is reserved.",
	                g->kv_usage_ratio);
	gauge(out, "fathom_prefix_cache_blocks", "KV blocks that the prefix cache holds.",
	                (double)g->prefix_blocks);
	gauge(out, "fathom_predicted_wait_seconds", "Predicted wait of a request that comes now.",
	                g->predicted_wait_seconds);
	head(out, "fathom_build_info", "gauge", "Version and arithmetic in use.");
	buffer_printf(out, "fathom_build_info{version=\"%s\",arithmetic=\"%s\"} 1\n", g->version,
	                g->arithmetic);
	head(out, "fathom_model_info", "gauge", "The model that is served.");
	enum stack stack = g->layers[STACK_DECODER] > 0 ? STACK_DECODER : STACK_ENCODER;
	buffer_printf(out,
	                "fathom_model_info{family=\"%s\",layers=\"%d\",dtype=\"%s\",weights=\"%s\","
	                "kv=\"%s\",layerdrop=\"%g\"",
	                g->family, g->layers[stack], g->dtype, g->weights, g->kv,
	                g->layerdrop[stack]);
	if (stack == STACK_DECODER && g->layers[STACK_ENCODER] > 0)
		buffer_printf(out, ",encoder_layers=\"%d\",encoder_layerdrop=\"%g\"",
		                g->layers[STACK_ENCODER], g->layerdrop[STACK_ENCODER]);
	buffer_puts(out, "} 1\n");
	head(out, "fathom_model_memory_bytes", "gauge",
	                "Memory of the newest model: packed weights by part, KV pool, workspace.");
	const struct {
		const char *part;
		size_t bytes;
	} parts[] = { { "layers", g->memory.layers }, { "vocabulary", g->memory.vocabulary },
		{ "other", g->memory.other }, { "kv_pool", g->kv_pool_bytes },
		{ "workspace", g->workspace_bytes } };
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		buffer_printf(out, "fathom_model_memory_bytes{part=\"%s\"} %zu\n", parts[i].part,
		                parts[i].bytes);
}

static void put_quantile(
                struct buffer *out, const char *name, const char *phase, double q, double value) {
	buffer_printf(out, "%s{%s%s%squantile=\"%g\"} ", name, *phase ? "phase=\"" : "", phase,
	                *phase ? "\"," : "", q);
	put_f64(out, value);
}

/* How well the engine knows what things take. */
static void write_cost(const struct cost_model *cost, struct buffer *out) {
	static const char steps[] = "fathom_step_prediction_error_quantile",
	                  requests[] = "fathom_request_prediction_error_quantile";
	if (!cost->fitted)
		return;
	gauge(out, "fathom_machine_pace_ratio",
	                "Time of the last steps over that of an undisturbed machine.",
	                cost->pace > 0 ? cost->pace : 1);
	gauge(out, "fathom_machine_mean_ratio",
	                "The same in the mean of the last second, hiccups included.",
	                cost->mean_ratio > 0 ? cost->mean_ratio : 1);
	gauge(out, "fathom_interference_seconds",
	                "What prompts of others add to a step, for each of their answers.",
	                cost->interference_ms * 1e-3);
	head(out, "fathom_margin_ratio", "gauge",
	                "Predictions are multiplied by it; of requests that may step down, "
	                "rescued.");
	buffer_puts(out, "fathom_margin_ratio{requests=\"all\"} ");
	put_f64(out, cost->margin);
	buffer_puts(out, "fathom_margin_ratio{requests=\"rescued\"} ");
	put_f64(out, cost->margin_rescued);
	head(out, steps, "gauge", "Quantiles of |actual / predicted - 1| of recent steps.");
	for (int i = 0; i < COST_KINDS; i++) {
		if (!(cost->step_error[i].p95 > 0))
			continue;
		const char *phase = cost_kind_name((enum cost_kind)i);
		put_quantile(out, steps, phase, 0.5, cost->step_error[i].p50);
		put_quantile(out, steps, phase, 0.95, cost->step_error[i].p95);
	}
	head(out, requests, "gauge", "The same of recent requests.");
	put_quantile(out, requests, "", 0.5, cost->error_p50);
	put_quantile(out, requests, "", 0.95, cost->error_p95);
}

static int open_files(void) {
	DIR *dir = opendir("/proc/self/fd");
	int n = -3; /* ".", ".." and the directory itself */
	if (!dir)
		return 0;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* Start time (seconds since the epoch), virtual and resident bytes, as far as /proc says. */
static void read_stat(double *start, double *virtual_bytes, double *resident_bytes) {
	char line[1024] = "";
	unsigned long long ticks = 0, vsize = 0, boot = 0;
	long rss = 0;
	FILE *f = fopen("/proc/self/stat", "r");
	if (f) {
		size_t n = fread(line, 1, sizeof line - 1, f);
		line[n] = '\0';
		fclose(f);
	}
	const char *after = strrchr(line, ')');
	if (after)
		sscanf(after + 1,
		                " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
		                "%*d %*d %*d "
		                "%llu %llu %ld",
		                &ticks, &vsize, &rss);
	f = fopen("/proc/stat", "r");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "btime %llu", &boot) == 1)
			break;
	if (f)
		fclose(f);
	*start = (double)boot + (double)ticks / (double)sysconf(_SC_CLK_TCK);
	*virtual_bytes = (double)vsize;
	*resident_bytes = (double)rss * (double)sysconf(_SC_PAGESIZE);
}

static void write_process(struct buffer *out) {
	struct rusage usage;
	struct rlimit files;
	double start, virtual_bytes, resident_bytes;
	getrusage(RUSAGE_SELF, &usage);
	getrlimit(RLIMIT_NOFILE, &files);
	read_stat(&start, &virtual_bytes, &resident_bytes);
	counter(out, "process_cpu_seconds_total",
	                "Total user and system CPU time spent in seconds.",
	                (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
	                                + 1e-6
	                                                * (double)(usage.ru_utime.tv_usec
	                                                                + usage.ru_stime.tv_usec));
	gauge(out, "process_open_fds", "Number of open file descriptors.", open_files());
	gauge(out, "process_max_fds", "Maximum number of open file descriptors.",
	                (double)files.rlim_cur);
	gauge(out, "process_virtual_memory_bytes", "Virtual memory size in bytes.", virtual_bytes);
	gauge(out, "process_resident_memory_bytes", "Resident memory size in bytes.",
	                resident_bytes);
	gauge(out, "process_start_time_seconds",
	                "Start time of the process since unix epoch in seconds.", start);
}

void metrics_write(
                const struct metrics *m, const struct metrics_gauges *gauges, struct buffer *out) {
	write_requests(m, out);
	write_gauges(gauges, out);
	write_cost(&gauges->cost, out);
	write_depths(m, out);
	write_engine(m, out);
	write_process(out);
}
