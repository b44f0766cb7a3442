/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the process's own size, the limit of its control group, and the sizes of weight files. */
#include "server/memory.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/threads.h"

#define MIB ((size_t)1 << 20)

enum { KV_LEAST = 16, KV_UNKNOWN = 256 }; /* MiB */

enum kv_format memory_kv_format(const struct config *config, const struct model *model) {
	enum kv_format format = KV_AUTO;
	kv_format_parse(config->kv, &format); /* the table of options has checked it */
	return model_kv_format(model, format);
}

size_t memory_kv_bytes(const struct config *config, const struct model *model, size_t taken) {
	size_t limit = threads_memory_limit("");
	size_t bytes = limit == 0 ? KV_UNKNOWN * MIB : limit > taken ? (limit - taken) / 4 : 0;
	if (config->kv_bytes > 0)
		return (size_t)config->kv_bytes;
	const struct stack_facts *stack = &model->facts.stack[STACK_DECODER];
	size_t tiles = ((size_t)model->facts.context + KV_TILE - 1) / KV_TILE;
	size_t block = kv_block_bytes(
	                memory_kv_format(config, model), stack->heads, stack->head_dim);
	size_t most = tiles * block * (size_t)stack->layers * (size_t)config->max_running;
	bytes = bytes > most ? most : bytes;
	return bytes < KV_LEAST * MIB ? KV_LEAST * MIB : bytes;
}

size_t memory_weight_files(const char *dir) {
	static const char suffix[] = ".safetensors";
	char path[4600];
	size_t bytes = 0;
	struct stat st;
	struct dirent *entry;
	DIR *d = opendir(dir);
	while (d && (entry = readdir(d)) != NULL) {
		size_t len = strlen(entry->d_name), tail = sizeof suffix - 1;
		if (len < tail || strcmp(entry->d_name + len - tail, suffix) != 0)
			continue;
		snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
		if (stat(path, &st) == 0)
			bytes += (size_t)st.st_size;
	}
	if (d)
		closedir(d);
	return bytes;
}

static size_t resident_bytes(void) {
	unsigned long total, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	if (f && fscanf(f, "%lu %lu", &total, &resident) != 2)
		resident = 0;
	if (f)
		fclose(f);
	return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

bool memory_fits(const char *dir, double expansion, char *err, size_t errlen) {
	size_t limit = threads_memory_limit(""), used = resident_bytes();
	size_t need = (size_t)((double)memory_weight_files(dir) * expansion) + KV_LEAST * MIB;
	if (limit == 0 || used + need <= limit)
		return true;
	snprintf(err, errlen,
	                "The model needs about %zu MiB beside the running one, but only %zu MiB of "
	                "the memory limit are left.",
	                need / MIB, (limit > used ? limit - used : 0) / MIB);
	return false;
}
