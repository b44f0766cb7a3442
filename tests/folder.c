/* SPDX-License-Identifier: Apache-2.0 */
/* Temporary model folders, safetensors files of known numbers, and damage. */
#include "tests/folder.h"

#include <ftw.h>
#include <unistd.h>

#include "tests/check.h"

char *folder_create(void) {
	const char *base = getenv("TMPDIR");
	char path[4096];
	snprintf(path, sizeof path, "%s/fathom-test-XXXXXX", base && *base ? base : "/tmp");
	CHECK(mkdtemp(path) != NULL);
	char *dir = strdup(path);
	CHECK(dir != NULL);
	return dir;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
	return remove(path);
}

void folder_remove(char *dir) {
	nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(dir);
}

void folder_write(const char *dir, const char *name, const void *data, size_t len) {
	char path[4200];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "wb");
	CHECK(f != NULL);
	CHECK(fwrite(data, 1, len, f) == len);
	CHECK(fclose(f) == 0);
}

void folder_write_text(const char *dir, const char *name, const char *text) {
	folder_write(dir, name, text, strlen(text));
}

static uint64_t mix(uint64_t z) {
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

float tensor_value(const char *name, size_t index) {
	uint64_t hash = 1469598103934665603u;
	for (const char *p = name; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 1099511628211u;
	return ((float)(mix(hash + index * 0x9e3779b97f4a7c15u) % 256) - 128.0f) / 64.0f;
}

/* Little-endian bits of a multiple of 1/64 in [-2, 2). */
static void put(unsigned char *at, float value, const char *dtype) {
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	if (strcmp(dtype, "F16") == 0) {
		uint32_t exponent = bits >> 23 & 255;
		uint32_t half = bits >> 16 & 0x8000;
		if (exponent)
			half |= (exponent - 112) << 10 | (bits >> 13 & 1023);
		bits = half;
	} else if (strcmp(dtype, "BF16") == 0) {
		bits >>= 16;
	}
	memcpy(at, &bits, strcmp(dtype, "F32") == 0 ? 4 : 2);
}

void tensor_file_add(struct tensor_file *f, const char *name, const char *dtype, size_t rows,
                size_t columns) {
	size_t element = strcmp(dtype, "F32") == 0 ? 4 : 2;
	size_t count = rows * (columns ? columns : 1), bytes = count * element;
	char shape[64], entry[600];
	snprintf(shape, sizeof shape, columns ? "%zu,%zu" : "%zu", rows, columns);
	int n = snprintf(entry, sizeof entry,
	                "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
	                f->header ? ',' : '{', name, dtype, shape, f->data_len,
	                f->data_len + bytes);
	f->header = realloc(f->header, f->header_len + (size_t)n + 2);
	f->data = realloc(f->data, f->data_len + bytes + 1);
	CHECK(f->header && f->data);
	memcpy(f->header + f->header_len, entry, (size_t)n + 1);
	f->header_len += (size_t)n;
	for (size_t i = 0; i < count; i++)
		put(f->data + f->data_len + i * element, tensor_value(name, i), dtype);
	f->data_len += bytes;
}

unsigned char *tensor_file_finish(struct tensor_file *f, size_t *ret_len) {
	size_t header = (f->header_len + 1 + 7) / 8 * 8;
	unsigned char *bytes = malloc(8 + header + f->data_len);
	CHECK(bytes != NULL);
	for (int i = 0; i < 8; i++)
		bytes[i] = (unsigned char)(header >> 8 * i);
	memcpy(bytes + 8, f->header, f->header_len);
	memset(bytes + 8 + f->header_len, ' ', header - f->header_len);
	bytes[8 + f->header_len] = '}';
	memcpy(bytes + 8 + header, f->data, f->data_len);
	*ret_len = 8 + header + f->data_len;
	free(f->header);
	free(f->data);
	*f = (struct tensor_file){ 0 };
	return bytes;
}

uint64_t damage_next(uint64_t *state) {
	return mix(*state += 0x9e3779b97f4a7c15u);
}

unsigned char *damage(const unsigned char *data, size_t len, uint64_t *state, size_t *ret_len) {
	size_t a = damage_next(state) % len, piece = 1 + damage_next(state) % (len - a);
	unsigned char *bytes = malloc(2 * len);
	CHECK(bytes != NULL);
	memcpy(bytes, data, len);
	switch (damage_next(state) % 5) {
	case 0: /* flip a few bits */
		for (int i = 0, n = 1 + (int)(damage_next(state) % 4); i < n; i++)
			bytes[damage_next(state) % len] ^=
			                (unsigned char)(1u << damage_next(state) % 8);
		break;
	case 1: /* cut the end off */
		len = a + 1;
		break;
	case 2: /* cut a piece out */
		memmove(bytes + a, data + a + piece, len - a - piece);
		len = len - piece > 0 ? len - piece : 1;
		break;
	case 3: /* double a piece */
		memcpy(bytes + a + piece, data + a, len - a);
		len += piece;
		break;
	default: /* overwrite one place with another */
		memmove(bytes + damage_next(state) % (len - piece + 1), data + a, piece);
		break;
	}
	/* Exactly as long as it says, so that a sanitizer sees a read beyond the end. */
	unsigned char *exact = malloc(len);
	CHECK(exact != NULL);
	memcpy(exact, bytes, len);
	free(bytes);
	*ret_len = len;
	return exact;
}

bool is_sentence(const char *err) {
	size_t len = strlen(err);
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)err[i] < 32 || err[i] == 127)
			return false;
	}
	return len >= 10;
}
