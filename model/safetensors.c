/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors parser: a header in memory into a checked table. It touches no file. */
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"

enum { MAX_HEADER = 16 << 20, MAX_TENSORS = 65536, MAX_RANK = 8, MAX_NAME = 512 };

static const struct {
	const char *name;
	size_t size;
	enum dtype dtype;
} dtypes[] = {
	{ "F32", 4, DTYPE_F32 },
	{ "F16", 2, DTYPE_F16 },
	{ "BF16", 2, DTYPE_BF16 },
	{ "BOOL", 1, DTYPE_OTHER },
	{ "U8", 1, DTYPE_OTHER },
	{ "I8", 1, DTYPE_OTHER },
	{ "F8_E5M2", 1, DTYPE_OTHER },
	{ "F8_E4M3", 1, DTYPE_OTHER },
	{ "F8_E8M0", 1, DTYPE_OTHER },
	{ "I16", 2, DTYPE_OTHER },
	{ "U16", 2, DTYPE_OTHER },
	{ "I32", 4, DTYPE_OTHER },
	{ "U32", 4, DTYPE_OTHER },
	{ "I64", 8, DTYPE_OTHER },
	{ "U64", 8, DTYPE_OTHER },
	{ "F64", 8, DTYPE_OTHER },
	{ "C64", 8, DTYPE_OTHER },
};

/* One tensor's sentence: `tensor "NAME" WHAT`. Returns false. */
static bool refuse(const char *name, const char *what, char *err, size_t errlen) {
	char shown[128];
	snprintf(err, errlen, "tensor \"%s\" %s", doc_printable(name, shown, sizeof shown), what);
	return false;
}

static bool read_dtype(const struct doc *entry, struct tensor *t, size_t *ret_size, char *err,
                size_t errlen) {
	const char *name = doc_as_string(doc_get(entry, "dtype"), NULL);
	if (!name)
		return refuse(t->name, "has no dtype", err, errlen);
	for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
		if (strcmp(name, dtypes[i].name) == 0) {
			t->dtype = dtypes[i].dtype;
			*ret_size = dtypes[i].size;
			return true;
		}
	}
	return refuse(t->name, "has an unknown dtype", err, errlen);
}

static bool read_shape(const struct doc *entry, struct tensor *t, char *err, size_t errlen) {
	const struct doc *shape = doc_get(entry, "shape");
	if (doc_kind(shape) != DOC_ARRAY)
		return refuse(t->name, "has no shape", err, errlen);
	if (doc_count(shape) > MAX_RANK)
		return refuse(t->name, "has more than 8 dimensions", err, errlen);
	t->rank = (int)doc_count(shape);
	t->count = 1;
	for (int i = 0; i < t->rank; i++) {
		int64_t n;
		if (!doc_as_int(doc_at(shape, (size_t)i), &n) || n < 0)
			return refuse(t->name, "has a shape that is not of whole numbers", err,
			                errlen);
		t->shape[i] = (size_t)n;
		if (__builtin_mul_overflow(t->count, t->shape[i], &t->count))
			return refuse(t->name, "has a shape too large to count", err, errlen);
	}
	return true;
}

/* Leaves t->offset relative to the data. */
static bool read_offsets(const struct doc *entry, struct tensor *t, size_t element, size_t data,
                char *err, size_t errlen) {
	const struct doc *offsets = doc_get(entry, "data_offsets");
	int64_t begin, end;
	size_t bytes;
	if (doc_kind(offsets) != DOC_ARRAY || doc_count(offsets) != 2
	                || !doc_as_int(doc_at(offsets, 0), &begin)
	                || !doc_as_int(doc_at(offsets, 1), &end) || begin < 0 || end < begin)
		return refuse(t->name, "has no ordered pair of data_offsets", err, errlen);
	if ((uint64_t)end > data)
		return refuse(t->name, "ends beyond the end of the file", err, errlen);
	t->offset = (size_t)begin;
	t->bytes = (size_t)(end - begin);
	if (__builtin_mul_overflow(t->count, element, &bytes) || bytes != t->bytes)
		return refuse(t->name, "has data_offsets that do not fit its shape", err, errlen);
	return true;
}

static bool read_tensor(const char *name, const struct doc *entry, size_t data, struct tensor *t,
                char *err, size_t errlen) {
	size_t element = 0;
	if (strlen(name) > MAX_NAME)
		return refuse(name, "has a name longer than 512 bytes", err, errlen);
	t->name = strdup(name);
	if (!t->name) {
		snprintf(err, errlen, "out of memory");
		return false;
	}
	if (doc_kind(entry) != DOC_OBJECT)
		return refuse(name, "is not described by a JSON object", err, errlen);
	return read_dtype(entry, t, &element, err, errlen) && read_shape(entry, t, err, errlen)
	                && read_offsets(entry, t, element, data, err, errlen);
}

static int by_offset(const void *a, const void *b) {
	const struct tensor *x = a, *y = b;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b) {
	return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

/* The data must be covered exactly: no gap, no overlap, nothing left at the end. */
static bool check_cover(struct tensor_table *table, size_t data, char *err, size_t errlen) {
	size_t at = 0;
	qsort(table->tensors, table->count, sizeof *table->tensors, by_offset);
	for (size_t i = 0; i < table->count; i++) {
		const struct tensor *t = &table->tensors[i];
		if (t->offset < at)
			return refuse(t->name, "overlaps another tensor", err, errlen);
		if (t->offset > at)
			return refuse(t->name, "starts after bytes that belong to no tensor", err,
			                errlen);
		at += t->bytes;
	}
	if (at != data) {
		snprintf(err, errlen, "the tensors end at byte %zu of the data, the file at %zu",
		                at, data);
		return false;
	}
	return true;
}

static bool read_header(const struct doc *header, size_t data_start, size_t file_size,
                struct tensor_table *table, char *err, size_t errlen) {
	const size_t data = file_size - data_start;
	const size_t members = doc_count(header);
	if (members > MAX_TENSORS) {
		snprintf(err, errlen, "the header names more than %d tensors", MAX_TENSORS);
		return false;
	}
	table->tensors = calloc(members + 1, sizeof *table->tensors);
	if (!table->tensors) {
		snprintf(err, errlen, "out of memory");
		return false;
	}
	void *at = NULL;
	const char *name;
	const struct doc *entry;
	while (doc_next(header, &at, &name, &entry)) {
		if (strcmp(name, "__metadata__") == 0) {
			if (doc_kind(entry) == DOC_OBJECT)
				continue;
			snprintf(err, errlen, "the header's __metadata__ is not a JSON object");
			return false;
		}
		/* Counted first, so that safetensors_finish frees a half-read one. */
		if (!read_tensor(name, entry, data, &table->tensors[table->count++], err, errlen))
			return false;
	}
	if (!check_cover(table, data, err, errlen))
		return false;
	for (size_t i = 0; i < table->count; i++)
		table->tensors[i].offset += data_start;
	if (table->count)
		qsort(table->tensors, table->count, sizeof *table->tensors, by_name);
	return true;
}

bool safetensors_parse(const void *mem, size_t len, size_t file_size,
                struct tensor_table *ret_table, char *err, size_t errlen) {
	const unsigned char *bytes = mem;
	if (len < 8 || file_size < 8) {
		snprintf(err, errlen, "too short for a safetensors file");
		return false;
	}
	uint64_t header = 0;
	for (int i = 7; i >= 0; i--)
		header = header << 8 | bytes[i];
	if (header > MAX_HEADER) {
		snprintf(err, errlen, "not a safetensors file, or one with a header over 16 MiB");
		return false;
	}
	if (header > file_size - 8 || header > len - 8) {
		snprintf(err, errlen, "the file is cut off within its header");
		return false;
	}
	const char *json = (const char *)bytes + 8;
	if (header == 0 || json[0] != '{') {
		snprintf(err, errlen, "not a safetensors file: the header is not a JSON object");
		return false;
	}
	struct doc *doc = doc_parse(json, (size_t)header, "the header", err, errlen);
	if (!doc)
		return false;
	struct tensor_table table = { 0 };
	bool ok = read_header(doc, 8 + (size_t)header, file_size, &table, err, errlen);
	doc_free(doc);
	if (!ok) {
		safetensors_finish(&table);
		return false;
	}
	*ret_table = table;
	return true;
}

void safetensors_finish(struct tensor_table *table) {
	if (!table)
		return;
	for (size_t i = 0; i < table->count; i++)
		free(table->tensors[i].name);
	free(table->tensors);
	*table = (struct tensor_table){ 0 };
}

const struct tensor *safetensors_find(const struct tensor_table *table, const char *name) {
	size_t low = 0, high = table->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(name, table->tensors[middle].name);
		if (order == 0)
			return &table->tensors[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

const char *dtype_name(enum dtype dtype) {
	static const char *const names[] = { [DTYPE_F32] = "f32",
		[DTYPE_F16] = "f16",
		[DTYPE_BF16] = "bf16",
		[DTYPE_OTHER] = "other" };
	return names[dtype];
}

size_t dtype_size(enum dtype dtype) {
	return dtype == DTYPE_F32 ? 4 : dtype == DTYPE_OTHER ? 0 : 2;
}

static float from_bits(uint32_t bits) {
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

static float widen_f16(uint16_t half) {
	uint32_t sign = (uint32_t)(half & 0x8000) << 16;
	uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
	if (exponent == 31)
		return from_bits(sign | 0x7f800000 | fraction << 13);
	if (exponent == 0) {
		float magnitude = (float)fraction * 0x1p-24f;
		return sign ? -magnitude : magnitude;
	}
	return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

void dtype_widen(float *dst, const void *src, enum dtype dtype, size_t count) {
	const unsigned char *bytes = src;
	if (dtype == DTYPE_F32) {
		memcpy(dst, src, count * sizeof *dst);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		uint16_t narrow;
		memcpy(&narrow, bytes + 2 * i, sizeof narrow);
		dst[i] = dtype == DTYPE_BF16 ? from_bits((uint32_t)narrow << 16)
		                             : widen_f16(narrow);
	}
}
