/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a model folder. */
#include "model/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool join(const char *dir, const char *name, char path[4096]) {
	int n = snprintf(path, 4096, "%s/%s", dir, name);
	if (n >= 0 && n < 4096)
		return true;
	errno = ENAMETOOLONG;
	return false;
}

bool file_exists(const char *dir, const char *name) {
	char path[4096];
	return join(dir, name, path) && access(path, F_OK) == 0;
}

/* A descriptor of a regular file and what is known of it, or -1. O_NONBLOCK: a FIFO must not stop
 * the start. */
static int open_regular(const char *dir, const char *name, struct stat *ret_stat, char *err,
                size_t errlen) {
	char path[4096];
	int fd = join(dir, name, path) ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	if (fd < 0 || fstat(fd, ret_stat) != 0)
		snprintf(err, errlen, "%s: cannot be opened: %s", name, strerror(errno));
	else if (!S_ISREG(ret_stat->st_mode))
		snprintf(err, errlen, "%s: not a regular file", name);
	else
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

char *file_read(const char *dir, const char *name, size_t max, size_t *ret_len, char *err,
                size_t errlen) {
	struct stat st;
	int fd = open_regular(dir, name, &st, err, errlen);
	if (fd < 0)
		return NULL;
	size_t size = (size_t)st.st_size, got = 0;
	char *text = size <= max ? malloc(size + 1) : NULL;
	if (size > max)
		snprintf(err, errlen, "%s: longer than %zu bytes", name, max);
	else if (!text)
		snprintf(err, errlen, "%s: out of memory", name);
	while (text && got < size) {
		ssize_t n = read(fd, text + got, size - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			snprintf(err, errlen, "%s: cannot be read: %s", name, strerror(errno));
			free(text);
			text = NULL;
			break;
		}
		if (n == 0)
			break;
		got += (size_t)n;
	}
	close(fd);
	if (text) {
		text[got] = '\0';
		*ret_len = got;
	}
	return text;
}

/* A file that another process has just renamed is not DIR/NAME.part any more. */
int file_part_open(const char *dir, const char *name, char *err, size_t errlen) {
	char path[4096], part[300];
	struct stat opened, named;
	snprintf(part, sizeof part, "%.255s.part", name);
	int fd = join(dir, part, path)
	                ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644)
	                : -1;
	if (fd < 0) {
		snprintf(err, errlen, "%s: cannot be written: %s", name, strerror(errno));
		return -1;
	}
	bool locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
	if (!locked && errno != EWOULDBLOCK) {
		snprintf(err, errlen, "%s: cannot be locked: %s", name, strerror(errno));
		unlink(path); /* where there are no locks nobody writes */
		close(fd);
		return -1;
	}
	if (locked && fstat(fd, &opened) == 0 && S_ISREG(opened.st_mode) && stat(path, &named) == 0
	                && named.st_ino == opened.st_ino && named.st_dev == opened.st_dev
	                && ftruncate(fd, 0) == 0)
		return fd;
	close(fd);
	snprintf(err, errlen, "%s: another process is writing it", name);
	return -1;
}

bool file_part_finish(
                int fd, const char *dir, const char *name, bool ok, char *err, size_t errlen) {
	char path[4096], from[4096], part[300];
	snprintf(part, sizeof part, "%.255s.part", name);
	bool named = join(dir, part, from) && join(dir, name, path);
	ok = ok && fdatasync(fd) == 0 && named && rename(from, path) == 0;
	if (!ok) {
		snprintf(err, errlen, "%s: cannot be written: %s", name, strerror(errno));
		if (named)
			unlink(from);
	}
	close(fd);
	return ok;
}

void file_part_remove(const char *dir, const char *part) {
	char path[4096];
	struct stat st;
	int fd = join(dir, part, path) ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
	                               : -1;
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlink(path);
	close(fd);
}

bool file_write(int fd, const void *mem, size_t len, size_t at) {
	const char *p = mem;
	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		at += (size_t)n;
		len -= (size_t)n;
	}
	return true;
}

bool file_replace(const char *dir, const char *name, const void *mem, size_t len, char *err,
                size_t errlen) {
	int fd = file_part_open(dir, name, err, errlen);
	if (fd < 0)
		return false;
	return file_part_finish(fd, dir, name, file_write(fd, mem, len, 0), err, errlen);
}

bool file_map(const char *dir, const char *name, struct file_map *ret_map, char *err,
                size_t errlen) {
	struct stat st;
	int fd = open_regular(dir, name, &st, err, errlen);
	if (fd < 0)
		return false;
	size_t size = (size_t)st.st_size;
	void *mem = NULL;
	if (size > 0)
		mem = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	int why = errno;
	close(fd);
	if (mem == MAP_FAILED) {
		snprintf(err, errlen, "%s: cannot be mapped: %s", name, strerror(why));
		return false;
	}
	*ret_map = (struct file_map){ .mem = mem,
		.size = size,
		.changed_s = st.st_mtim.tv_sec,
		.changed_ns = st.st_mtim.tv_nsec };
	return true;
}

void file_release(const struct file_map *map) {
	if (map->mem)
		madvise((void *)(uintptr_t)map->mem, map->size, MADV_DONTNEED);
}

void file_unmap(struct file_map *map) {
	if (map->mem)
		munmap((void *)(uintptr_t)map->mem, map->size);
	*map = (struct file_map){ 0 };
}
