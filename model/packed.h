/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packed file: the arena of packed weights kept beside the checkpoint, so that the next start
 * maps it instead of packing again, and processes on one machine share it.
 *
 * Layout, in the machine's byte order: struct packed_header, zeros up to PACKED_DATA, then the arena
 * as it is in memory. The file is written under another name, flushed, and renamed; nobody ever
 * changes one in place. What it was made of is in its header as hashes: one that does not suit is
 * not used, and the next one that is written replaces it.
 */
#ifndef FATHOM_MODEL_PACKED_H
#define FATHOM_MODEL_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/ops.h"

/* Counts up whenever what an arena holds, in which order, or the header changes. Layouts of panels
 * need no number: packed_layout sees when they change. */
enum { PACKED_VERSION = 2, PACKED_DATA = 4096 };

/* What the data were made of. */
struct packed_identity {
	uint64_t source;   /* files' names, sizes, seconds, headers, samples; config.json; places */
	uint64_t fraction; /* the files' times below the second; 0: none has any, which suits all */
	uint64_t layout;   /* packed_layout */
	uint64_t bytes;    /* of the arena */
};

struct packed_header {
	char magic[8];
	uint32_t version;
	uint32_t order; /* a number that another byte order reads differently */
	struct packed_identity identity;
	uint64_t content; /* hash of the data */
	uint64_t check;   /* hash of the header before it */
};

/* A mapped file. */
struct packed_map {
	void *map; /* NULL: none */
	size_t map_bytes;
	const void *data; /* 4096-byte aligned, identity.bytes long; read-only */
};

enum packed_found {
	PACKED_USED,
	PACKED_ABSENT,
	PACKED_REFUSED, /* of something else, damaged, or not to be read; err says what */
};

/* "fathom-FORMAT-TABLE.packed". */
void packed_name(const struct ops *ops, enum weight_format format, char *name, size_t size);

/*
 * A fingerprint of how a table lays out and rounds matrices of the formats in use: of what its
 * packers make of some numbers. 0 only if memory runs out.
 */
uint64_t packed_layout(const struct ops *ops, const bool used[WEIGHT_FORMATS]);

/* Whether the first `len` bytes of a file of `file_size` bytes are a header that suits. Pure. */
bool packed_check(const void *mem, size_t len, uint64_t file_size,
                const struct packed_identity *identity, char *err, size_t errlen);

/* Maps DIR/NAME if it suits. `verify` reads and hashes all of it first. */
enum packed_found packed_open(const char *dir, const char *name,
                const struct packed_identity *identity, bool verify, struct packed_map *ret_map,
                char *err, size_t errlen);
void packed_close(struct packed_map *map);

/*
 * Writes DIR/NAME, as long as `go_on(arg)` says so, after removing what processes that were killed
 * while they wrote such files have left. False with one sentence that begins with the
 * name, and nothing is left behind, if that cannot be done or another process is at it. Takes as
 * long as the disk does.
 */
bool packed_write(const char *dir, const char *name, const struct packed_identity *identity,
                const void *data, bool (*go_on)(void *arg), void *arg, char *err, size_t errlen);

#endif
