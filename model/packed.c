/* SPDX-License-Identifier: Apache-2.0 */
/* The packed file: checked before it is believed, replaced by rename only. */
#include "model/packed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/file.h"
#include "model/hash.h"

#define MAGIC "fathompk"

enum {
	ORDER = 0x01020304,
	WRITE_BYTES = 8 << 20,
	/* The matrix that is packed for a fingerprint: several panels, groups and ragged ends. */
	PROBE_OUT = 70,
	PROBE_IN = 1037,
};

_Static_assert(sizeof(struct packed_header) < PACKED_DATA, "the header has a page");

void packed_name(const struct ops *ops, enum weight_format format, char *name, size_t size) {
	snprintf(name, size, "fathom-%s-%s.packed", weight_format_name(format), ops->name);
}

/* ---- the fingerprint ---- */

static void fill_probe(float *values, size_t n) {
	uint32_t state = 1;
	for (size_t i = 0; i < n; i++) {
		state = state * 1664525u + 1013904223u;
		values[i] = ((float)(state >> 8) - 8388608.0f) * 0x1p-25f;
	}
}

static uint64_t hash_format(const struct format_ops *format, const float *values, uint64_t seed) {
	size_t bytes = format->matrix_bytes(PROBE_OUT, PROBE_IN);
	void *data = aligned_alloc(64, (bytes + 63) / 64 * 64);
	if (!data)
		return 0;
	memset(data, 0, bytes);
	format->pack(data, PROBE_IN, values, 0, PROBE_OUT);
	uint64_t hash = hash_bytes(data, bytes, seed);
	free(data);
	return hash;
}

uint64_t packed_layout(const struct ops *ops, const bool used[WEIGHT_FORMATS]) {
	float *values = malloc(sizeof *values * PROBE_OUT * PROBE_IN);
	uint64_t hash = 1;
	if (!values)
		return 0;
	fill_probe(values, (size_t)PROBE_OUT * PROBE_IN);
	for (int f = 0; f < WEIGHT_FORMATS && hash; f++) {
		if (used[f])
			hash = hash_format(&ops->formats[f], values, hash);
	}
	free(values);
	return hash;
}

/* ---- reading ---- */

static uint64_t header_hash(const struct packed_header *header) {
	return hash_bytes(header, offsetof(struct packed_header, check), 0);
}

static bool refuse(char *err, size_t errlen, const char *why) {
	snprintf(err, errlen, "%s", why);
	return false;
}

bool packed_check(const void *mem, size_t len, uint64_t file_size,
                const struct packed_identity *identity, char *err, size_t errlen) {
	struct packed_header header;
	if (len < sizeof header || file_size < PACKED_DATA)
		return refuse(err, errlen, "the file is too short");
	memcpy(&header, mem, sizeof header);
	if (memcmp(header.magic, MAGIC, sizeof header.magic) != 0)
		return refuse(err, errlen, "this is no file of packed weights");
	if (header.order != ORDER)
		return refuse(err, errlen, "a machine of another byte order wrote it");
	if (header.version != PACKED_VERSION)
		return refuse(err, errlen, "another version of the program wrote it");
	if (header.check != header_hash(&header))
		return refuse(err, errlen, "its header is damaged");
	const struct packed_identity *has = &header.identity;
	if (has->layout != identity->layout)
		return refuse(err, errlen, "its panels are laid out for other kernels");
	if (has->source != identity->source || has->bytes != identity->bytes
	                || (has->fraction && identity->fraction
	                                && has->fraction != identity->fraction))
		return refuse(err, errlen, "it was made of other files");
	if (file_size - PACKED_DATA != has->bytes)
		return refuse(err, errlen, "its length is not what its header says");
	return true;
}

/* The pages are read now, in order: a fault in the file is an error here and no signal later. */
static bool read_pages(void *map, size_t bytes) {
#ifdef MADV_HUGEPAGE
	madvise(map, bytes, MADV_HUGEPAGE);
#endif
#ifdef MADV_POPULATE_READ
	if (madvise(map, bytes, MADV_POPULATE_READ) != 0)
		return errno != EFAULT && errno != EHWPOISON;
#endif
	return true;
}

static bool map_file(int fd, const struct packed_identity *identity, bool verify,
                struct packed_map *ret_map, char *err, size_t errlen) {
	struct packed_header header;
	struct stat st;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return refuse(err, errlen, "it is no regular file");
	ssize_t got = pread(fd, &header, sizeof header, 0);
	if (!packed_check(&header, got > 0 ? (size_t)got : 0, (uint64_t)st.st_size, identity, err,
	                    errlen))
		return false;
	size_t bytes = (size_t)st.st_size;
	void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		snprintf(err, errlen, "it cannot be mapped: %s", strerror(errno));
		return false;
	}
	struct packed_map made = {
		.map = map, .map_bytes = bytes, .data = (const char *)map + PACKED_DATA
	};
	bool ok = read_pages(map, bytes) || refuse(err, errlen, "it cannot be read");
	if (ok && verify && hash_bytes(made.data, identity->bytes, 0) != header.content)
		ok = refuse(err, errlen, "its content is damaged");
	if (!ok) {
		packed_close(&made);
		return false;
	}
	*ret_map = made;
	return true;
}

enum packed_found packed_open(const char *dir, const char *name,
                const struct packed_identity *identity, bool verify, struct packed_map *ret_map,
                char *err, size_t errlen) {
	char path[4400];
	snprintf(path, sizeof path, "%.4096s/%.255s", dir, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return PACKED_ABSENT;
	if (fd < 0) {
		snprintf(err, errlen, "it cannot be opened: %s", strerror(errno));
		return PACKED_REFUSED;
	}
	bool ok = map_file(fd, identity, verify, ret_map, err, errlen);
	close(fd);
	return ok ? PACKED_USED : PACKED_REFUSED;
}

void packed_close(struct packed_map *map) {
	if (map->map)
		munmap(map->map, map->map_bytes);
	*map = (struct packed_map){ 0 };
}

/* ---- writing ---- */

/* The data first: a file that was left halfway has no header. */
static bool write_file(int fd, const struct packed_identity *identity, const void *data,
                bool (*go_on)(void *arg), void *arg) {
	struct packed_header header = {
		.magic = MAGIC, .version = PACKED_VERSION, .order = ORDER, .identity = *identity
	};
	/* Where the file system can say at once that there is no room, nothing is written. */
	if (fallocate(fd, 0, 0, (off_t)(PACKED_DATA + identity->bytes)) != 0 && errno != EOPNOTSUPP
	                && errno != ENOSYS)
		return false;
	for (size_t at = 0; at < identity->bytes; at += WRITE_BYTES) {
		size_t left = identity->bytes - at;
		errno = EINTR;
		if (!go_on(arg)
		                || !file_write(fd, (const char *)data + at,
		                                left < WRITE_BYTES ? left : WRITE_BYTES,
		                                PACKED_DATA + at))
			return false;
	}
	header.content = hash_bytes(data, identity->bytes, 0);
	header.check = header_hash(&header);
	return file_write(fd, &header, sizeof header, 0);
}

static bool has_end(const char *name, const char *end) {
	size_t len = strlen(name), n = strlen(end);
	return len >= n && strcmp(name + len - n, end) == 0;
}

/* Halves of files that nobody writes any more: another format's would else stay for ever. */
static void remove_left(const char *dir) {
	DIR *d = opendir(dir);
	struct dirent *entry;
	while (d && (entry = readdir(d))) {
		if (strncmp(entry->d_name, "fathom-", 7) == 0
		                && (has_end(entry->d_name, ".packed.part")
		                                || has_end(entry->d_name, ".cost.json.part")))
			file_part_remove(dir, entry->d_name);
	}
	if (d)
		closedir(d);
}

bool packed_write(const char *dir, const char *name, const struct packed_identity *identity,
                const void *data, bool (*go_on)(void *arg), void *arg, char *err, size_t errlen) {
	remove_left(dir);
	int fd = file_part_open(dir, name, err, errlen);
	if (fd < 0)
		return false;
	bool ok = write_file(fd, identity, data, go_on, arg);
	return file_part_finish(fd, dir, name, ok, err, errlen);
}
