/* SPDX-License-Identifier: Apache-2.0 */
/* libsentencepiece behind a C interface; nothing is thrown out of here. */
#include "model/pieces.h"

#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include <sentencepiece_processor.h>

struct pieces {
	sentencepiece::SentencePieceProcessor processor;
};

struct pieces *pieces_load(const char *model, size_t len, char *err, size_t errlen) {
	struct pieces *p = nullptr;
	try {
		p = new struct pieces;
		/* The library's own sentences name its source lines. */
		if (p->processor.LoadFromSerializedProto(std::string(model, len)).ok())
			return p;
		std::snprintf(err, errlen, "this is not a sentencepiece model");
	} catch (const std::exception &) {
		std::snprintf(err, errlen, "the sentencepiece model cannot be read");
	}
	delete p;
	return nullptr;
}

void pieces_close(struct pieces *p) {
	delete p;
}

bool pieces_encode(const struct pieces *p, const char *text, size_t len, pieces_sink *sink,
                void *arg) {
	try {
		std::vector<std::string> found;
		if (!p->processor.Encode(std::string(text, len), &found).ok())
			return false;
		for (const std::string &piece : found) {
			if (!sink(arg, piece.data(), piece.size()))
				return false;
		}
		return true;
	} catch (const std::exception &) {
		return false;
	}
}
