/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packed file: what a second load maps is what the first one packed, whatever is done to the file
 * in between is noticed, and nothing is left where it cannot be written.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "model/file.h"
#include "model/hash.h"
#include "model/model.h"
#include "model/packed.h"
#include "tests/check.h"
#include "tests/folder.h"

static char err[600];
static bool lockless;

/* In the place of the C library's: some file systems have no locks. */
int flock(int fd, int operation) {
	if (!lockless)
		return (int)syscall(SYS_flock, fd, operation);
	errno = ENOLCK;
	return -1;
}

static bool always(void *arg) {
	(void)arg;
	return true;
}

static bool never(void *arg) {
	(void)arg;
	return false;
}

/* A folder of its own with the files of tests/data/NAME. */
static char *copy_of(const char *name) {
	char command[2048], *dir = folder_create();
	snprintf(command, sizeof command, "cp -p '%s'/* '%s'", check_data(name), dir);
	CHECK_INT(system(command), 0);
	return dir;
}

static struct model *open_as(const char *dir, const struct ops *ops, enum weight_format format,
                enum packed_use use) {
	err[0] = '\0';
	struct model *m = model_open(dir,
	                &(struct model_options){ .ops = ops,
	                                .weights = format,
	                                .threads = 2,
	                                .packed = use },
	                err, sizeof err);
	if (!m)
		check_fail(__FILE__, __LINE__, "%s", err);
	return m;
}

static struct model *open_model(const char *dir, enum packed_use use) {
	return open_as(dir, ops_c(), WEIGHTS_F32, use);
}

static const void *arena_of(const struct model *m) {
	return m->weights.arena ? m->weights.arena : m->weights.map.data;
}

static void path_of(const char *dir, enum weight_format format, char path[1200]) {
	char name[64];
	packed_name(ops_c(), format, name, sizeof name);
	snprintf(path, 1200, "%s/%s", dir, name);
}

/* A folder with its packed file. */
static char *packed_folder(const char *name) {
	char *dir = copy_of(name);
	struct model *m = open_model(dir, PACKED_READ);
	CHECK_INT(m->weights.packed, PACKED_ABSENT);
	if (!model_keep_packed(m, dir, always, NULL, err, sizeof err))
		check_fail(__FILE__, __LINE__, "%s", err);
	model_close(m);
	return dir;
}

/* How the next load finds the file; the weights are right in any case. */
static enum packed_found next_load(const char *dir, enum packed_use use, const char *says) {
	struct model *packed = open_model(dir, PACKED_IGNORED), *m = open_model(dir, use);
	enum packed_found found = m->weights.packed;
	CHECK_INT(m->weights.bytes, packed->weights.bytes);
	if (found != PACKED_USED || use == PACKED_VERIFIED)
		CHECK(memcmp(arena_of(m), arena_of(packed), m->weights.bytes) == 0);
	CHECK((m->weights.arena == NULL) == (found == PACKED_USED));
	if (says && !strstr(m->weights.packed_why, says))
		check_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", m->weights.packed_why,
		                says);
	model_close(m);
	model_close(packed);
	return found;
}

static void change_byte(const char *path, off_t at) {
	unsigned char byte;
	int fd = open(path, O_RDWR);
	CHECK(fd >= 0 && pread(fd, &byte, 1, at) == 1);
	byte ^= 0x10;
	CHECK(pwrite(fd, &byte, 1, at) == 1);
	close(fd);
}

static bool exists(const char *dir, const char *suffix) {
	char path[1200];
	path_of(dir, WEIGHTS_F32, path);
	strcat(path, suffix);
	return access(path, F_OK) == 0;
}

/* Values from the specification's own test program and the documentation of python-xxhash. */
TEST(the_hash_is_xxh64) {
	static const char text[] = "Nobody inspects the spammish repetition";
	CHECK(hash_bytes("", 0, 0) == 0xef46db3751d8e999u);
	CHECK(hash_bytes("a", 1, 0) == 0xd24ec4f1a98c6e5bu);
	CHECK(hash_bytes("abc", 3, 0) == 0x44bc2cf5ad770999u);
	CHECK(hash_bytes(text, sizeof text - 1, 0) == 0xfbcea83c8a378bf1u);
}

TEST(a_mapped_model_is_the_packed_one_in_every_format_of_every_family) {
	static const char *const names[] = { "tiny-opt", "tiny-encoder", "tiny-mt-pre",
		"tiny-mt-post", "tiny-lm-adaptive", "tiny-fathom-sin-post" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		char *dir = copy_of(names[i]);
		for (int f = 0; f < WEIGHT_FORMATS; f++) {
			struct model *a = open_as(dir, ops_c(), (enum weight_format)f, PACKED_READ);
			CHECK(model_keep_packed(a, dir, always, NULL, err, sizeof err));
			struct model *b = open_as(
			                dir, ops_c(), (enum weight_format)f, PACKED_VERIFIED);
			CHECK_INT(b->weights.packed, PACKED_USED);
			CHECK_INT(a->weights.bytes, b->weights.bytes);
			CHECK(memcmp(arena_of(a), arena_of(b), a->weights.bytes) == 0);
			/* Pointers lie at the same places of both arenas. */
			for (int s = 0; s < STACKS; s++) {
				const struct stack_weights *x = &a->weights.stack[s];
				const struct stack_weights *y = &b->weights.stack[s];
				CHECK((x->types == NULL) == (y->types == NULL));
				CHECK((x->positions == NULL) == (y->positions == NULL));
				if (x->positions)
					CHECK((const char *)x->positions - (const char *)arena_of(a)
					                == (const char *)y->positions
					                                - (const char *)arena_of(
					                                                b));
				if (a->facts.stack[s].layers > 0)
					CHECK((const char *)x->layers[0].down.w.data
					                                - (const char *)arena_of(a)
					                == (const char *)y->layers[0].down.w.data
					                                - (const char *)arena_of(
					                                                b));
			}
			model_close(a);
			model_close(b);
		}
		folder_remove(dir);
	}
}

TEST(a_changed_checkpoint_is_packed_anew) {
	char *dir = packed_folder("tiny-opt"), path[1200];
	struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	CHECK_INT(next_load(dir, PACKED_READ, NULL), PACKED_USED);
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	CHECK_INT(utimensat(AT_FDCWD, path, times, 0), 0);
	CHECK_INT(next_load(dir, PACKED_READ, "other files"), PACKED_REFUSED);
	folder_remove(dir);
}

TEST(a_changed_config_is_packed_anew) {
	char *dir = packed_folder("tiny-opt"), command[1400];
	snprintf(command, sizeof command, "echo >> '%s/config.json'", dir);
	CHECK_INT(system(command), 0);
	CHECK_INT(next_load(dir, PACKED_READ, "other files"), PACKED_REFUSED);
	folder_remove(dir);
}

TEST(weights_of_the_same_size_and_time_are_not_taken_for_others) {
	char *dir = packed_folder("tiny-opt"), path[1200];
	struct stat st;
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	CHECK_INT(stat(path, &st), 0);
	unsigned char *bytes = malloc((size_t)st.st_size);
	int fd = open(path, O_RDWR);
	CHECK(bytes && fd >= 0 && pread(fd, bytes, (size_t)st.st_size, 0) == st.st_size);
	uint64_t header;
	memcpy(&header, bytes, sizeof header);
	for (off_t i = (off_t)(8 + header); i < st.st_size; i++)
		bytes[i] ^= 1;
	CHECK(pwrite(fd, bytes, (size_t)st.st_size, 0) == st.st_size);
	CHECK_INT(futimens(fd, (struct timespec[2]){ st.st_atim, st.st_mtim }), 0);
	close(fd);
	free(bytes);
	CHECK_INT(next_load(dir, PACKED_READ, "other files"), PACKED_REFUSED);
	folder_remove(dir);
}

TEST(times_below_the_second_may_have_been_lost) {
	char *dir = copy_of("tiny-opt"), path[1200];
	struct timespec fine[2] = { { 2000, 500 }, { 2000, 500 } },
	                coarse[2] = { { 2000, 0 }, { 2000, 0 } },
	                other[2] = { { 2000, 501 }, { 2000, 501 } };
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	CHECK_INT(utimensat(AT_FDCWD, path, fine, 0), 0);
	struct model *m = open_model(dir, PACKED_READ);
	CHECK(model_keep_packed(m, dir, always, NULL, err, sizeof err));
	model_close(m);
	CHECK_INT(utimensat(AT_FDCWD, path, coarse, 0), 0);
	CHECK_INT(next_load(dir, PACKED_READ, NULL), PACKED_USED);
	CHECK_INT(utimensat(AT_FDCWD, path, other, 0), 0);
	CHECK_INT(next_load(dir, PACKED_READ, "other files"), PACKED_REFUSED);
	folder_remove(dir);
}

TEST(a_file_that_is_cut_anywhere_is_refused) {
	char *dir = packed_folder("tiny-opt"), path[1200];
	struct stat st;
	path_of(dir, WEIGHTS_F32, path);
	CHECK_INT(stat(path, &st), 0);
	const off_t lengths[] = { 0, 1, 63, 4095, 4096, 4097, st.st_size / 2, st.st_size - 1 };
	for (int i = (int)(sizeof lengths / sizeof lengths[0]); i-- > 0;) {
		CHECK_INT(truncate(path, lengths[i]), 0);
		CHECK_INT(next_load(dir, PACKED_READ, NULL), PACKED_REFUSED);
	}
	folder_remove(dir);
}

TEST(damage_in_the_header_is_always_found_and_in_the_content_by_verifying) {
	char *dir = packed_folder("tiny-opt"), path[1200];
	path_of(dir, WEIGHTS_F32, path);
	for (off_t at = 0; at < (off_t)sizeof(struct packed_header); at++) {
		change_byte(path, at);
		bool content = at >= (off_t)offsetof(struct packed_header, content)
		                && at < (off_t)offsetof(struct packed_header, check);
		CHECK_INT(next_load(dir, content ? PACKED_VERIFIED : PACKED_READ, NULL),
		                PACKED_REFUSED);
		change_byte(path, at);
	}
	CHECK_INT(next_load(dir, PACKED_VERIFIED, NULL), PACKED_USED);
	change_byte(path, PACKED_DATA + 1000);
	CHECK_INT(next_load(dir, PACKED_READ, NULL), PACKED_USED);
	CHECK_INT(next_load(dir, PACKED_VERIFIED, "damaged"), PACKED_REFUSED);
	folder_remove(dir);
}

/* Whole files of noise, and noise over a sound header. */
TEST(noise_is_refused) {
	struct packed_identity id = { 1, 2, 3, 4096 };
	struct packed_header header;
	uint64_t state = 1;
	for (int round = 0; round < 20000; round++) {
		unsigned char *bytes = (unsigned char *)&header;
		for (size_t i = 0; i < sizeof header; i++) {
			state = state * 6364136223846793005u + 1442695040888963407u;
			bytes[i] = (unsigned char)(state >> 56);
		}
		if (round % 2)
			memcpy(header.magic, "fathompk", sizeof header.magic);
		size_t len = (size_t)(state >> 33) % (sizeof header + 1);
		CHECK(!packed_check(&header, len, state % 9000, &id, err, sizeof err));
	}
}

TEST(a_foreign_file_is_refused_and_replaced) {
	char *dir = copy_of("tiny-opt"), path[1200];
	path_of(dir, WEIGHTS_F32, path);
	FILE *file = fopen(path, "w");
	CHECK(file && fputs("hello\n", file) >= 0 && fclose(file) == 0);
	CHECK_INT(next_load(dir, PACKED_READ, "too short"), PACKED_REFUSED);
	struct model *m = open_model(dir, PACKED_READ);
	CHECK(model_keep_packed(m, dir, always, NULL, err, sizeof err));
	model_close(m);
	CHECK_INT(next_load(dir, PACKED_VERIFIED, NULL), PACKED_USED);
	folder_remove(dir);
}

TEST(a_fifo_in_its_place_stops_nothing) {
	char *dir = copy_of("tiny-opt"), path[1200];
	path_of(dir, WEIGHTS_F32, path);
	CHECK_INT(mkfifo(path, 0600), 0);
	CHECK_INT(next_load(dir, PACKED_READ, "regular"), PACKED_REFUSED);
	folder_remove(dir);
}

TEST(another_layout_is_refused) {
	const struct ops *c = ops_c();
	struct ops other = *c;
	char *dir = packed_folder("tiny-opt");
	other.formats[WEIGHTS_F32] = c->formats[WEIGHTS_BF16];
	bool used[WEIGHT_FORMATS] = { [WEIGHTS_F32] = true };
	CHECK(packed_layout(c, used) != packed_layout(&other, used));
	struct model *m = open_as(dir, &other, WEIGHTS_F32, PACKED_READ);
	CHECK_INT(m->weights.packed, PACKED_REFUSED);
	model_close(m);
	folder_remove(dir);
}

TEST(what_is_given_up_leaves_nothing) {
	char *dir = copy_of("tiny-opt");
	struct model *m = open_model(dir, PACKED_READ);
	CHECK(!model_keep_packed(m, dir, never, NULL, err, sizeof err));
	CHECK(!exists(dir, "") && !exists(dir, ".part"));
	model_close(m);
	folder_remove(dir);
}

/* A process that was killed leaves what it was writing; one that lives holds a lock on it. */
TEST(halves_of_any_format_are_removed_unless_somebody_writes_them) {
	char *dir = copy_of("tiny-opt"), ignored[300];
	const char *const names[] = { "fathom-int8-c.packed.part", "fathom-f32-avx2.packed.part",
		"fathom-bf16-c.cost.json.part", "model.packed.part" };
	const bool stay[] = { false, false, false, true };
	struct model *m = open_model(dir, PACKED_READ);
	char path[1200];
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, names[i]);
		close(open(path, O_CREAT | O_WRONLY, 0600));
	}
	int held = file_part_open(dir, "fathom-int4-c.packed", ignored, sizeof ignored);
	CHECK(held >= 0);
	CHECK(model_keep_packed(m, dir, always, NULL, err, sizeof err));
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, names[i]);
		CHECK_INT(access(path, F_OK) == 0, stay[i]);
	}
	CHECK(file_part_finish(held, dir, "fathom-int4-c.packed", true, ignored, sizeof ignored));
	model_close(m);
	folder_remove(dir);
}

TEST(a_folder_without_locks_is_not_taken_for_a_busy_one) {
	char *dir = copy_of("tiny-opt");
	struct model *m = open_model(dir, PACKED_READ);
	lockless = true;
	CHECK(!model_keep_packed(m, dir, always, NULL, err, sizeof err));
	lockless = false;
	CHECK(strstr(err, "fathom-f32-c.packed: cannot be locked"));
	CHECK(!exists(dir, "") && !exists(dir, ".part"));
	model_close(m);
	folder_remove(dir);
}

TEST(a_full_disk_leaves_nothing) {
	struct rlimit old, small;
	char *dir = copy_of("tiny-opt");
	struct model *m = open_model(dir, PACKED_READ);
	CHECK_INT(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = m->weights.bytes / 2;
	signal(SIGXFSZ, SIG_IGN);
	CHECK_INT(setrlimit(RLIMIT_FSIZE, &small), 0);
	bool kept = model_keep_packed(m, dir, always, NULL, err, sizeof err);
	CHECK_INT(setrlimit(RLIMIT_FSIZE, &old), 0);
	CHECK(!kept && strncmp(err, "fathom-f32-c.packed: ", 21) == 0);
	CHECK(!exists(dir, "") && !exists(dir, ".part"));
	model_close(m);
	folder_remove(dir);
}

/* The one that was mapped stays as it is when the name goes to another file. */
TEST(replacing_a_file_changes_no_mapping) {
	char *dir = packed_folder("tiny-opt");
	struct model *mapped = open_model(dir, PACKED_READ), *m = open_model(dir, PACKED_IGNORED);
	CHECK_INT(mapped->weights.packed, PACKED_USED);
	m->weights.identity = mapped->weights.identity;
	memset(m->weights.arena, 7, m->weights.bytes);
	void *before = malloc(m->weights.bytes);
	CHECK(before);
	memcpy(before, arena_of(mapped), m->weights.bytes);
	CHECK(model_keep_packed(m, dir, always, NULL, err, sizeof err));
	CHECK(memcmp(before, arena_of(mapped), m->weights.bytes) == 0);
	free(before);
	model_close(m);
	model_close(mapped);
	folder_remove(dir);
}

TEST(a_folder_that_cannot_be_written_is_said) {
	char *dir = copy_of("tiny-opt");
	struct model *m = open_model(dir, PACKED_READ);
	CHECK(!model_keep_packed(m, "/proc/self", always, NULL, err, sizeof err));
	CHECK(strstr(err, "cannot be written"));
	model_close(m);
	folder_remove(dir);
}
