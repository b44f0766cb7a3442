/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cores and memory from /proc, /sys and control groups. A group's own folder is the mount point of
 * its hierarchy and the group's path below what is mounted there; limits of the groups above it
 * count too. In a container the path often names a folder that cannot be seen: then the mount point
 * itself is the container's group.
 */
#include "model/threads.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, CPUS_MAX = 16384 };

/* A hierarchy of control groups: where it is mounted and which group of it is ours. */
struct hierarchy {
	char mount[PATH_BYTES]; /* with root in front */
	char group[PATH_BYTES]; /* "" or "/..." below the mount point */
};

/* Reads the first line of a file, without its end; false if there is none. */
static bool read_line(char *line, size_t size, const char *path) {
	FILE *f = fopen(path, "r");
	if (!f)
		return false;
	bool ok = fgets(line, (int)size, f) != NULL;
	fclose(f);
	if (ok)
		line[strcspn(line, "\n")] = '\0';
	return ok;
}

/* Whether `word` is one of the comma-separated words of `list`. */
static bool list_has(const char *list, const char *word) {
	size_t len = strlen(word);
	for (;;) {
		size_t n = strcspn(list, ",");
		if (n == len && memcmp(list, word, len) == 0)
			return true;
		if (list[n] == '\0')
			return false;
		list += n + 1;
	}
}

/*
 * Our group's path in the hierarchy of `controller` ("" is version 2), from /proc/self/cgroup:
 * lines "number:controllers:path".
 */
static bool own_group(const char *root, const char *controller, char *ret_path, size_t size) {
	char path[PATH_BYTES], *line = NULL;
	size_t cap = 0;
	bool found = false;
	snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
	FILE *f = fopen(path, "r");
	if (!f)
		return false;
	while (!found && getline(&line, &cap, f) > 0) {
		line[strcspn(line, "\n")] = '\0';
		char *controllers = strchr(line, ':');
		char *group = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!group)
			continue;
		controllers++;
		*group++ = '\0';
		found = controller[0] ? list_has(controllers, controller) : controllers[0] == '\0';
		if (found)
			snprintf(ret_path, size, "%s", strcmp(group, "/") == 0 ? "" : group);
	}
	free(line);
	fclose(f);
	return found;
}

/*
 * Splits a line of /proc/self/mountinfo: "id parent device mounted-root mount-point options ... -
 * type source options".
 */
static bool mount_parse(char *line, char **ret_root, char **ret_point, char **ret_type,
                char **ret_options) {
	char *rest = strstr(line, " - "), *save = NULL, *field = NULL;
	if (!rest)
		return false;
	*rest = '\0';
	rest += 3;
	for (int i = 0; i < 5; i++) {
		field = strtok_r(i == 0 ? line : NULL, " ", &save);
		if (!field)
			return false;
		if (i == 3)
			*ret_root = field;
	}
	*ret_point = field;
	*ret_type = strtok_r(rest, " ", &save);
	if (!*ret_type || !strtok_r(NULL, " ", &save))
		return false;
	*ret_options = strtok_r(NULL, " \n", &save);
	return *ret_options != NULL;
}

/* The hierarchy of `controller` ("" is version 2); false if it is not mounted. */
static bool hierarchy_find(const char *root, const char *controller, struct hierarchy *ret) {
	char path[PATH_BYTES], *line = NULL, *mounted = NULL, *point, *type, *options;
	size_t cap = 0;
	bool found = false;
	snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
	FILE *f = fopen(path, "r");
	if (!f)
		return false;
	while (!found && getline(&line, &cap, f) > 0) {
		if (!mount_parse(line, &mounted, &point, &type, &options))
			continue;
		found = controller[0] ? strcmp(type, "cgroup") == 0 && list_has(options, controller)
		                      : strcmp(type, "cgroup2") == 0;
		if (!found)
			continue;
		snprintf(ret->mount, sizeof ret->mount, "%s%s", root, point);
		if (!own_group(root, controller, ret->group, sizeof ret->group))
			ret->group[0] = '\0';
		size_t n = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
		bool below = strncmp(ret->group, mounted, n) == 0
		                && (ret->group[n] == '/' || ret->group[n] == '\0');
		if (!below || strstr(ret->group, "/.."))
			ret->group[0] = '\0';
		else
			memmove(ret->group, ret->group + n, strlen(ret->group + n) + 1);
	}
	free(line);
	fclose(f);
	return found;
}

/* Reads one file of a group into a number; false if absent or without limit. */
typedef bool read_limit(const char *folder, double *ret_limit);

static bool read_file_in(const char *folder, const char *name, char *line, size_t size) {
	char path[2 * PATH_BYTES];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	return read_line(line, size, path);
}

static bool read_cpu_v2(const char *folder, double *ret_limit) {
	char line[128];
	double quota, period;
	if (!read_file_in(folder, "cpu.max", line, sizeof line)
	                || sscanf(line, "%lf %lf", &quota, &period) != 2)
		return false;
	*ret_limit = quota / period;
	return quota > 0 && period > 0;
}

static bool read_cpu_v1(const char *folder, double *ret_limit) {
	char quota[64], period[64];
	if (!read_file_in(folder, "cpu.cfs_quota_us", quota, sizeof quota)
	                || !read_file_in(folder, "cpu.cfs_period_us", period, sizeof period))
		return false;
	*ret_limit = strtod(quota, NULL) / strtod(period, NULL);
	return *ret_limit > 0;
}

static bool read_memory_v2(const char *folder, double *ret_limit) {
	char line[64];
	if (!read_file_in(folder, "memory.max", line, sizeof line) || strcmp(line, "max") == 0)
		return false;
	*ret_limit = strtod(line, NULL);
	return *ret_limit > 0;
}

static bool read_memory_v1(const char *folder, double *ret_limit) {
	char line[64];
	if (!read_file_in(folder, "memory.limit_in_bytes", line, sizeof line))
		return false;
	*ret_limit = strtod(line, NULL);
	return *ret_limit > 0;
}

/* The least limit of our group and the groups above it up to the mount point; `none` without one. */
static double least_limit(const char *root, const char *controller, read_limit *read, double none) {
	struct hierarchy h;
	if (!hierarchy_find(root, controller, &h))
		return none;
	double least = none, limit;
	for (;;) {
		char folder[2 * PATH_BYTES];
		snprintf(folder, sizeof folder, "%s%s", h.mount, h.group);
		if (read(folder, &limit) && limit < least)
			least = limit;
		char *last = strrchr(h.group, '/');
		if (!last)
			return least;
		*last = '\0';
	}
}

double threads_cpu_quota(const char *root) {
	const double none = 1e9;
	double v2 = least_limit(root, "", read_cpu_v2, none);
	double v1 = least_limit(root, "cpu", read_cpu_v1, none);
	double quota = v1 < v2 ? v1 : v2;
	return quota < none ? quota : 0;
}

static double machine_memory(const char *root, double none) {
	char path[PATH_BYTES], line[256];
	unsigned long long kib = 0;
	snprintf(path, sizeof path, "%s/proc/meminfo", root);
	FILE *f = fopen(path, "r");
	if (!f)
		return none;
	while (fgets(line, sizeof line, f) && sscanf(line, "MemTotal: %llu kB", &kib) != 1)
		;
	fclose(f);
	return kib ? (double)kib * 1024 : none;
}

size_t threads_memory_limit(const char *root) {
	const double none = 0x1p63;
	double limit = machine_memory(root, none);
	double v2 = least_limit(root, "", read_memory_v2, none);
	double v1 = least_limit(root, "memory", read_memory_v1, none);
	limit = v2 < limit ? v2 : limit;
	limit = v1 < limit ? v1 : limit;
	return limit < none ? (size_t)limit : 0;
}

/*
 * Moves the first logical processor of every physical core to the front of cpus[0..n), in their
 * order, and returns how many those are.
 */
static int first_of_cores(const char *root, int *cpus, int n) {
	int *first = calloc((size_t)n + 1, sizeof *first); /* lowest sibling of every core found */
	if (!first)
		return n;
	int cores = 0;
	for (int i = 0; i < n; i++) {
		char path[PATH_BYTES], line[256];
		int core = cpus[i];
		snprintf(path, sizeof path,
		                "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
		                root, cpus[i]);
		if (read_line(line, sizeof line, path) && line[0] >= '0' && line[0] <= '9')
			core = atoi(line);
		int known = 0;
		while (known < cores && first[known] != core)
			known++;
		if (known < cores)
			continue;
		int cpu = cpus[i];
		cpus[i] = cpus[cores];
		cpus[cores] = cpu;
		first[cores++] = core;
	}
	free(first);
	return cores;
}

int threads_physical_cores(const char *root, const int *cpus, int n) {
	int *copy = calloc((size_t)n + 1, sizeof *copy);
	if (!copy)
		return n;
	memcpy(copy, cpus, (size_t)n * sizeof *copy);
	int cores = first_of_cores(root, copy, n);
	free(copy);
	return cores;
}

/* The logical processors of the affinity mask; at least one. */
static int own_cpus(int *cpus, int cap) {
	static const size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
	cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
	int n = 0;
	if (set && sched_getaffinity(0, size, set) == 0)
		for (int cpu = 0; cpu < CPUS_MAX && n < cap; cpu++)
			if (CPU_ISSET_S(cpu, size, set))
				cpus[n++] = cpu;
	if (set)
		CPU_FREE(set);
	if (n == 0)
		cpus[n++] = 0;
	return n;
}

int threads_count(const char *root) {
	int cpus[1024];
	int count = threads_physical_cores(root, cpus, own_cpus(cpus, 1024));
	double quota = threads_cpu_quota(root);
	if (quota > 0 && quota < count)
		count = (int)quota;
	return count < 1 ? 1 : count;
}

static bool has_cpu(const int *cpus, int n, long cpu) {
	for (int i = 0; i < n; i++)
		if (cpus[i] == cpu)
			return true;
	return false;
}

/* A number below CPUS_MAX at *at, which moves behind it; -1: none. */
static long read_cpu(const char **at) {
	char *end;
	long cpu = **at >= '0' && **at <= '9' ? strtol(*at, &end, 10) : -1;
	if (cpu < 0 || cpu >= CPUS_MAX)
		return -1;
	*at = end;
	return cpu;
}

static bool read_list(const char *text, const int *own, int n_own, int *cpus, int cap, int *ret_n,
                char *err, size_t errlen) {
	int n = 0;
	for (const char *at = text;; at++) {
		long cpu = read_cpu(&at), last = cpu;
		if (*at == '-') {
			at++;
			last = read_cpu(&at);
		}
		if (cpu < 0 || last < cpu || (*at && *at != ',')) {
			snprintf(err, errlen,
			                "pin: \"%s\" is not off, auto, or a list of processors "
			                "such as 0-3,8",
			                text);
			return false;
		}
		for (; cpu <= last && n < cap; cpu++) {
			if (!has_cpu(own, n_own, cpu)) {
				snprintf(err, errlen,
				                "pin: processor %ld is not one that this process "
				                "may use",
				                cpu);
				return false;
			}
			cpus[n++] = (int)cpu;
		}
		if (!*at)
			break;
	}
	*ret_n = n;
	return true;
}

bool threads_pins(const char *root, const char *text, int *cpus, int cap, int *ret_n, char *err,
                size_t errlen) {
	int own[1024], n = own_cpus(own, 1024);
	*ret_n = 0;
	if (strcmp(text, "off") == 0)
		return true;
	if (strcmp(text, "auto") != 0)
		return read_list(text, own, n, cpus, cap, ret_n, err, errlen);
	int cores = first_of_cores(root, own, n);
	*ret_n = cores < cap ? cores : cap;
	memcpy(cpus, own, (size_t)*ret_n * sizeof *cpus);
	return true;
}
