/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libsentencepiece, which has no C interface: a text to pieces. pieces.cc is the only file that knows
 * it, and the only one in C++; a build without the library has pieces_absent.c instead. A model is
 * immutable and may be used by any number of threads at once.
 */
#ifndef FATHOM_MODEL_PIECES_H
#define FATHOM_MODEL_PIECES_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pieces;

/* A model from the contents of its file; NULL with a sentence. */
struct pieces *pieces_load(const char *model, size_t len, char *err, size_t errlen);
void pieces_close(struct pieces *p);

/* Takes one piece, in which U+2581 stands for a space; false to stop. */
typedef bool pieces_sink(void *arg, const char *piece, size_t len);

/* Cuts text[0..len), well-formed UTF-8. False if the sink stopped or memory ran out. */
bool pieces_encode(
                const struct pieces *p, const char *text, size_t len, pieces_sink *sink, void *arg);

#ifdef __cplusplus
}
#endif

#endif
