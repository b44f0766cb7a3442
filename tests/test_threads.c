/* SPDX-License-Identifier: Apache-2.0 */
/* Cores and memory limits, read from made-up /proc and /sys folders. */
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/threads.h"
#include "tests/check.h"

static char root[64];

/* A fresh empty root for the running test. */
static void fresh_root(void) {
	strcpy(root, "/tmp/fathom-threads-XXXXXX");
	CHECK(mkdtemp(root) != NULL);
}

static void remove_root(void) {
	char command[128];
	snprintf(command, sizeof command, "rm -rf '%s'", root);
	CHECK(system(command) == 0);
}

/* Writes root/path, making its folders. */
static void put(const char *path, const char *content) {
	char full[512];
	snprintf(full, sizeof full, "%s/%s", root, path);
	for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(full, 0755);
		*p = '/';
	}
	FILE *f = fopen(full, "w");
	CHECK(f != NULL);
	fputs(content, f);
	fclose(f);
}

static void put_v2(const char *group) {
	char line[256];
	snprintf(line, sizeof line, "0::%s\n", group);
	put("proc/self/cgroup", line);
	put("proc/self/mountinfo",
	                "22 1 0:5 / /proc rw,nosuid - proc proc rw\n"
	                "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup "
	                "rw,nsdelegate\n");
}

static void put_v1(const char *group, const char *mounted) {
	char text[1024];
	snprintf(text, sizeof text, "5:memory:%s\n2:cpu,cpuacct:%s\n1:name=systemd:/x\n", group,
	                group);
	put("proc/self/cgroup", text);
	snprintf(text, sizeof text,
	                "31 30 0:29 %s /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup "
	                "rw,cpu,cpuacct\n"
	                "35 30 0:30 %s /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
	                mounted, mounted);
	put("proc/self/mountinfo", text);
}

TEST(nothing_known_means_no_limit) {
	fresh_root();
	CHECK(threads_cpu_quota(root) == 0);
	CHECK_INT(threads_memory_limit(root), 0);
	CHECK(threads_count(root) >= 1);
	remove_root();
}

TEST(v2_quota_of_the_own_group) {
	fresh_root();
	put_v2("/");
	put("sys/fs/cgroup/cpu.max", "150000 100000\n");
	CHECK(threads_cpu_quota(root) == 1.5);
	CHECK_INT(threads_count(root), 1);
	remove_root();
}

TEST(v2_max_is_no_quota) {
	fresh_root();
	put_v2("/");
	put("sys/fs/cgroup/cpu.max", "max 100000\n");
	CHECK(threads_cpu_quota(root) == 0);
	remove_root();
}

TEST(v2_groups_above_count_too) {
	fresh_root();
	put_v2("/kubepods/pod1/box");
	put("sys/fs/cgroup/kubepods/pod1/box/cpu.max", "max 100000\n");
	put("sys/fs/cgroup/kubepods/pod1/cpu.max", "250000 100000\n");
	put("sys/fs/cgroup/kubepods/cpu.max", "800000 100000\n");
	put("sys/fs/cgroup/kubepods/pod1/box/memory.max", "max\n");
	put("sys/fs/cgroup/kubepods/pod1/memory.max", "536870912\n");
	put("proc/meminfo", "MemFree: 1 kB\nMemTotal:       16384000 kB\n");
	CHECK(threads_cpu_quota(root) == 2.5);
	CHECK_INT(threads_memory_limit(root), 536870912);
	remove_root();
}

TEST(v1_quota_and_memory_of_the_own_group) {
	fresh_root();
	put_v1("/docker/abc", "/");
	put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "200000\n");
	put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
	put("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n");
	put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	CHECK(threads_cpu_quota(root) == 2.0);
	CHECK_INT(threads_memory_limit(root), 1073741824);
	remove_root();
}

/* Docker without a group namespace: the path is the host's, the mount is the container's group. */
TEST(v1_group_that_is_itself_the_mount) {
	fresh_root();
	put_v1("/docker/abc", "/docker/abc");
	put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
	put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
	put("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
	CHECK(threads_cpu_quota(root) == 0.5);
	CHECK_INT(threads_count(root), 1);
	CHECK_INT(threads_memory_limit(root), 2147483648);
	remove_root();
}

TEST(v1_minus_one_is_no_quota) {
	fresh_root();
	put_v1("/", "/");
	put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
	put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
	put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("proc/meminfo", "MemTotal:       2048 kB\n");
	CHECK(threads_cpu_quota(root) == 0);
	CHECK_INT(threads_memory_limit(root), 2097152);
	remove_root();
}

/* The mask names groups outside of what is mounted here. */
TEST(a_group_that_cannot_be_seen_falls_back_to_the_mount) {
	fresh_root();
	put_v2("/../../elsewhere");
	put("sys/fs/cgroup/cpu.max", "300000 100000\n");
	CHECK(threads_cpu_quota(root) == 3.0);
	remove_root();
}

TEST(garbage_is_no_limit) {
	fresh_root();
	put_v2("/");
	put("sys/fs/cgroup/cpu.max", "lots of it\n");
	put("sys/fs/cgroup/memory.max", "\n");
	CHECK(threads_cpu_quota(root) == 0);
	CHECK_INT(threads_memory_limit(root), 0);
	put("proc/self/mountinfo", "31 23 - cgroup2\n\nx\n");
	put("proc/self/cgroup", ":\n0\n\n");
	CHECK(threads_cpu_quota(root) == 0);
	remove_root();
}

TEST(siblings_share_one_core) {
	fresh_root();
	put("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,4\n");
	put("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,5\n");
	put("sys/devices/system/cpu/cpu4/topology/thread_siblings_list", "0,4\n");
	put("sys/devices/system/cpu/cpu5/topology/thread_siblings_list", "1,5\n");
	CHECK_INT(threads_physical_cores(root, (const int[]){ 0, 1, 4, 5 }, 4), 2);
	CHECK_INT(threads_physical_cores(root, (const int[]){ 0, 4 }, 2), 1);
	CHECK_INT(threads_physical_cores(root, (const int[]){ 4, 1 }, 2), 2);
	CHECK_INT(threads_physical_cores(root, (const int[]){ 0, 1, 7, 8 }, 4), 4);
	remove_root();
}

TEST(sibling_ranges_share_one_core) {
	fresh_root();
	put("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2-3\n");
	put("sys/devices/system/cpu/cpu3/topology/thread_siblings_list", "2-3\n");
	CHECK_INT(threads_physical_cores(root, (const int[]){ 2, 3 }, 2), 1);
	remove_root();
}

/* Runs `text` on this machine; the processors come back as text. */
static const char *pins_of(const char *text, char *err, size_t errlen) {
	static char got[256];
	int cpus[8], n = -1;
	size_t len = 0;
	got[0] = err[0] = '\0';
	if (!threads_pins(root, text, cpus, 8, &n, err, errlen))
		return "refused";
	for (int i = 0; i < n; i++)
		len += (size_t)snprintf(got + len, sizeof got - len, i ? ",%d" : "%d", cpus[i]);
	return got;
}

TEST(pins_are_read_as_asked) {
	cpu_set_t before, two;
	char err[256];
	fresh_root();
	CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
	if (!CPU_ISSET(0, &before) || !CPU_ISSET(1, &before)) {
		remove_root();
		return;
	}
	CPU_ZERO(&two);
	CPU_SET(0, &two);
	CPU_SET(1, &two);
	CHECK(sched_setaffinity(0, sizeof two, &two) == 0);
	CHECK_STR(pins_of("off", err, sizeof err), "");
	CHECK_STR(pins_of("1", err, sizeof err), "1");
	CHECK_STR(pins_of("1,0", err, sizeof err), "1,0");
	CHECK_STR(pins_of("0-1", err, sizeof err), "0,1");
	CHECK_STR(pins_of("auto", err, sizeof err), "0,1");
	put("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1\n");
	put("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1\n");
	CHECK_STR(pins_of("auto", err, sizeof err), "0");
	static const char *const wrong[] = { "", "x", "0-", "1-0", "0,", ",0", "0 1", "-1", "0,2",
		"99999999999999999999", "on" };
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		CHECK_STR(pins_of(wrong[i], err, sizeof err), "refused");
		CHECK(strstr(err, "pin: ") == err);
	}
	CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
	remove_root();
}

TEST(the_running_machine_has_cores_and_memory) {
	CHECK(threads_count("") >= 1);
	CHECK(threads_count("") <= sysconf(_SC_NPROCESSORS_CONF));
	CHECK(threads_memory_limit("") > 1 << 20);
}
