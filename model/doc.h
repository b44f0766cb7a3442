/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Documents: the JSON files of a model folder, read with typed, range-checked getters.
 *
 * doc.c is the only file of model/ that knows jansson. Ill-formed JSON, a duplicate key, text that
 * is not UTF-8, a \u0000 and more than four million values are refused. A document is immutable:
 * any number of threads may read it. Values, keys and strings belong to the document that
 * doc_parse returned and die with it.
 */
#ifndef FATHOM_MODEL_DOC_H
#define FATHOM_MODEL_DOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A JSON value. Every function but doc_parse accepts NULL as an absent value. */
struct doc;

enum doc_kind {
	DOC_ABSENT, /* NULL */
	DOC_NULL,
	DOC_BOOL,
	DOC_INT,  /* a number written without fraction or exponent; fits int64_t */
	DOC_REAL, /* any other number; finite */
	DOC_STRING,
	DOC_ARRAY,
	DOC_OBJECT,
};

/*
 * Parses `len` bytes of JSON whose outermost value is an object or an array. `file` names the text
 * in the error sentence ("config.json"). NULL with a sentence in err; free with doc_free.
 */
struct doc *doc_parse(const char *json, size_t len, const char *file, char *err, size_t errlen);
void doc_free(struct doc *doc);

enum doc_kind doc_kind(const struct doc *value);

/* A member of an object to be set, or removed. */
struct doc_change {
	const char *path; /* "num_hidden_layers", "encoder.num_hidden_layers" */
	enum { DOC_SET_INT, DOC_SET_LIST, DOC_REMOVE } how;
	int64_t value;       /* SET_INT */
	const int16_t *list; /* SET_LIST: [n_list] numbers */
	int n_list;
};

/*
 * The document's text with `changes[0..n)`, indented, everything else as it is; free() it. A path's
 * objects must exist; a member that is to be removed may be absent. NULL if memory ran out or a
 * path leads nowhere.
 */
char *doc_change(const struct doc *root, const struct doc_change *changes, size_t n);

/* Member `key` of an object; NULL if absent or if `object` is not one. */
const struct doc *doc_get(const struct doc *object, const char *key);

/* Members of an object or elements of an array; 0 for everything else. */
size_t doc_count(const struct doc *value);

/* Element `index` of an array; NULL beyond its end or if `array` is not one. O(1). */
const struct doc *doc_at(const struct doc *array, size_t index);

/*
 * Walks an object's members in the order of the file. Start with `*at` NULL; false at the end.
 *
 *	void *at = NULL;
 *	while (doc_next(object, &at, &key, &value))
 */
bool doc_next(const struct doc *object, void **at, const char **ret_key,
                const struct doc **ret_value);

/* The value if it has that kind, else false and nothing written. A bool is never a number. */
bool doc_as_int(const struct doc *value, int64_t *ret);   /* DOC_INT only */
bool doc_as_number(const struct doc *value, double *ret); /* DOC_INT or DOC_REAL */
bool doc_as_bool(const struct doc *value, bool *ret);
/* NUL-terminated UTF-8 without inner NULs; `ret_len` (bytes) may be NULL. NULL if not a string. */
const char *doc_as_string(const struct doc *value, size_t *ret_len);

/*
 * Reads the members of one object with defaults. An absent or null member gives `fallback`; one of
 * another kind, or out of range, gives `fallback` too, sets `failed` and writes one sentence naming
 * file and key, the first time only. So a caller reads all it needs and then asks once:
 *
 *	struct doc_reader r = { .object = root, .file = "config.json", .err = err, .errlen = errlen };
 *	int layers = doc_read_int(&r, "num_hidden_layers", 1, 256, 0);
 *	bool tied = doc_read_bool(&r, "tie_word_embeddings", true);
 *	if (r.failed)
 *		return false;
 */
struct doc_reader {
	const struct doc *object;
	const char *file;
	char *err;
	size_t errlen;
	bool failed;
};

int64_t doc_read_int(
                struct doc_reader *r, const char *key, int64_t min, int64_t max, int64_t fallback);
double doc_read_number(
                struct doc_reader *r, const char *key, double min, double max, double fallback);
bool doc_read_bool(struct doc_reader *r, const char *key, bool fallback);
const char *doc_read_string(struct doc_reader *r, const char *key, const char *fallback);

/* A member that must be there: doc_require, then as above; `min` stands in after a failure. */
int64_t doc_need_int(struct doc_reader *r, const char *key, int64_t min, int64_t max);

/* Fails the reader with a sentence about `key` if the member is absent or null. */
void doc_require(struct doc_reader *r, const char *key);

/* Fails the reader with the sentence "FILE: ..."; only the first failure is written. */
void doc_fail(struct doc_reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * `text` made fit for an error sentence: at most size - 1 bytes, anything but printable ASCII as
 * '?'. Returns `buf`. For names and values that come from a file.
 */
const char *doc_printable(const char *text, char *buf, size_t size);

#endif
