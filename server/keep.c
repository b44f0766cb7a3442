/* SPDX-License-Identifier: Apache-2.0 */
/* Files that make the next start quick: written late, never waited for. */
#include "server/keep.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/file.h"
#include "server/clock.h"
#include "server/load_with.h"
#include "server/log.h"
#include "server/memory.h"

enum { MOST_COST_BYTES = 1 << 20, MADE_FOR = 600 };

struct keeping {
	struct task task;
	struct server *server;
	struct generation *generation; /* held: its weights are read */
	char dir[4096];
	bool weights, costs; /* what is to be written */
	struct cost_kept kept;
	char failure[600]; /* the first */
	int64_t began_ns, bytes;
	atomic_bool stop;
};

/* ---- what costs belong to ---- */

static void cost_name(const struct model *model, char *name, size_t size) {
	snprintf(name, size, "fathom-%s-%s.cost.json", weight_format_name(model->weights.format),
	                model->ops->name);
}

/* The processor as the system names it. */
static void processor_name(char *name, size_t size) {
	static const char key[] = "model name";
	char line[300];
	FILE *f = fopen("/proc/cpuinfo", "r");
	snprintf(name, size, "unknown processor");
	while (f && fgets(line, sizeof line, f)) {
		char *value = strchr(line, ':');
		if (strncmp(line, key, sizeof key - 1) != 0 || !value)
			continue;
		value += 1 + strspn(value + 1, " \t");
		value[strcspn(value, "\n")] = '\0';
		snprintf(name, size, "%s", value);
		break;
	}
	if (f)
		fclose(f);
}

static void made_for(const struct model *model, const struct config *config, char text[MADE_FOR]) {
	char processor[200];
	struct load_with with = load_with_of(config);
	processor_name(processor, sizeof processor);
	snprintf(text, MADE_FOR,
	                "%s; %d threads; %s kernels; %s weights; %s keys and values; files "
	                "%016llx; "
	                "fathom %s",
	                processor, load_with_threads(&with), model->ops->name,
	                weight_format_name(model->weights.format),
	                kv_format_name(memory_kv_format(config, model)),
	                (unsigned long long)model->weights.identity.source, FATHOM_VERSION);
}

bool keep_find(const char *dir, const struct model *model, const struct config *config,
                struct cost_kept *ret_kept) {
	char name[64], err[300], wanted[MADE_FOR];
	size_t len;
	cost_name(model, name, sizeof name);
	if (model->weights.identity.bytes == 0 || !file_exists(dir, name))
		return false;
	char *text = file_read(dir, name, MOST_COST_BYTES, &len, err, sizeof err);
	struct doc *doc = text ? doc_parse(text, len, name, err, sizeof err) : NULL;
	free(text);
	made_for(model, config, wanted);
	const char *has = doc_as_string(doc_get(doc, "made_for"), NULL);
	double spread = 0;
	bool ok = has && strcmp(has, wanted) == 0 && doc_as_number(doc_get(doc, "spread"), &spread)
	                && spread >= 1 && spread < 100
	                && cost_read(doc, name, &ret_kept->file, err, sizeof err);
	if (ok)
		ret_kept->spread = spread;
	doc_free(doc);
	return ok;
}

/* ---- writing ---- */

static bool go_on(void *arg) {
	struct keeping *k = arg;
	return !atomic_load(&k->stop);
}

static void write_costs(struct keeping *k, const struct model *model) {
	char name[64], text[MADE_FOR];
	struct buffer b = { 0 };
	cost_name(model, name, sizeof name);
	made_for(model, k->server->config, text);
	buffer_puts(&b, "{\"made_for\":");
	buffer_json_string(&b, text, strlen(text));
	buffer_puts(&b, ",\"spread\":");
	buffer_json_f64(&b, k->kept.spread);
	buffer_puts(&b, ",\"cost_model\":");
	cost_write(&k->kept.file, &b);
	buffer_puts(&b, "}\n");
	if (!b.failed)
		file_replace(k->dir, name, b.data, b.len, k->failure, sizeof k->failure);
	buffer_finish(&b);
}

/* On the loader's thread. */
static void work(struct task *task) {
	struct keeping *k = (struct keeping *)task;
	const struct model *model = generation_model(k->generation);
	if (k->weights && model_keep_packed(model, k->dir, go_on, k, k->failure, sizeof k->failure))
		k->bytes = (int64_t)model->weights.bytes;
	if (k->costs && !k->failure[0] && go_on(k))
		write_costs(k, model);
}

/* On the loop thread again. */
static void after(struct task *task) {
	struct keeping *k = (struct keeping *)task;
	struct server *server = k->server;
	bool first = !server->keep_failed;
	server->keeping = NULL;
	server->keep_failed = server->keep_failed || k->failure[0];
	if (k->failure[0] && first && !atomic_load(&k->stop))
		log_event(LOG_INFO, "packed_cache_not_written", { "model", LOG_STR(k->dir) },
		                { "reason", LOG_STR(k->failure) });
	else if (!k->failure[0])
		log_event(LOG_INFO, "packed_cache_written", { "model", LOG_STR(k->dir) },
		                { "weight_bytes", LOG_INT(k->bytes) },
		                { "costs", LOG_BOOL(k->costs) },
		                { "write_ms", LOG_F64(clock_ms(clock_now_ns() - k->began_ns)) });
	generation_release(server, k->generation);
	free(k);
	drain_check(server);
}

void keep_begin(struct server *server, struct generation *generation, const char *dir) {
	const struct weights *weights = &generation_model(generation)->weights;
	if (!load_with_keeps(server->config) || weights->identity.bytes == 0 || server->keeping)
		return;
	struct keeping *k = calloc(1, sizeof *k);
	if (!k)
		return;
	k->weights = weights->packed != PACKED_USED;
	k->costs = engine_measured(generation->engine, &k->kept);
	if (!k->weights && !k->costs) {
		free(k);
		return;
	}
	k->task = (struct task){ .work = work, .after = after };
	k->server = server;
	k->generation = generation;
	k->began_ns = clock_now_ns();
	snprintf(k->dir, sizeof k->dir, "%s", dir);
	generation_hold(generation);
	server->keeping = k;
	worker_submit(server->loader, &k->task);
}

void keep_stop(struct server *server) {
	if (server->keeping)
		atomic_store(&server->keeping->stop, true);
}
