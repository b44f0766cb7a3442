/* SPDX-License-Identifier: Apache-2.0 */
/* Small tokenizer folders for tests. */
#include "tests/toy_tokenizer.h"

#include <unistd.h>

#include "tests/check.h"

static char folder[160];
static const char *const names[] = { "tokenizer.json", "vocab.json", "merges.txt",
	"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json",
	"vocab.txt", "source.spm", "target.spm", "sentencepiece.bpe.model", "vocab-src.json",
	"vocab-tgt.json", "fathom_tokenizer.json", "dict.txt", "dict.tgt.txt", "codes",
	"encoder.json", "vocab.bpe" };

static void clear(void) {
	char path[256];
	for (size_t i = 0; folder[0] && i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, names[i]);
		unlink(path);
	}
	if (folder[0])
		rmdir(folder);
	folder[0] = '\0';
}

const char *toy_make(void) {
	static bool registered;
	if (!registered)
		atexit(clear);
	registered = true;
	clear();
	snprintf(folder, sizeof folder, "%s/fathom-tokenizer-XXXXXX",
	                getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	CHECK(mkdtemp(folder));
	return folder;
}

const char *toy_path(void) {
	return folder;
}

void toy_write(const char *name, const char *text, size_t len) {
	char path[256];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *f = fopen(path, "wb");
	CHECK(f);
	size_t written = fwrite(text, 1, len, f);
	CHECK(fclose(f) == 0 && written == len);
}

static char *print(const char *format, va_list args) {
	char *text = NULL;
	CHECK(vasprintf(&text, format, args) >= 0);
	return text;
}

void toy_print(const char *name, const char *format, ...) {
	va_list args;
	va_start(args, format);
	char *text = print(format, args);
	va_end(args);
	toy_write(name, text, strlen(text));
	free(text);
}

const char *toy_vocab(int omit, const char *more) {
	static char text[16384];
	size_t n = 0;
	int extra = 256;
	for (int byte = 0; byte < 256; byte++) {
		bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172)
		                || byte >= 174;
		int code = plain ? byte : extra++;
		if (byte != omit)
			n += (size_t)sprintf(
			                text + n, "%s\"\\u%04x\":%d", n ? "," : "", code, byte);
	}
	snprintf(text + n, sizeof text - n, "%s", more);
	return text;
}

/* `,"NAME":VALUE` unless `root` names it. */
static const char *unless_named(const char *root, const char *member) {
	char name[40];
	snprintf(name, sizeof name, "%.*s", (int)(strchr(member + 2, '"') - member), member + 1);
	return strstr(root, name) ? "" : member;
}

void toy_json(const char *vocab, const char *merges, const char *model, const char *root) {
	toy_print("tokenizer.json",
	                "{\"version\":\"1.0\"%s%s%s%s,\"model\":{\"type\":\"BPE\",\"vocab\":{%s},"
	                "\"merges\":[%s]%s}}",
	                unless_named(root,
	                                ",\"pre_tokenizer\":{\"type\":\"ByteLevel\","
	                                "\"add_prefix_space\":false}"),
	                unless_named(root, ",\"decoder\":{\"type\":\"ByteLevel\"}"),
	                unless_named(root, ",\"normalizer\":null"), root, toy_vocab(-1, vocab),
	                merges, model);
}

struct tokenizer *toy_open(void) {
	char err[400] = "";
	struct tokenizer *t = tokenizer_open(folder, err, sizeof err);
	CHECK_STR(err, "");
	CHECK(t);
	return t;
}

void toy_refused(const char *part) {
	char err[400] = "";
	struct tokenizer *t = tokenizer_open(folder, err, sizeof err);
	tokenizer_close(t);
	if (t || !strstr(err, part))
		check_fail(__FILE__, __LINE__, "%s: \"%s\", expected \"%s\"",
		                t ? "opened" : "refused", err, part);
	CHECK(!strchr(err, '\n') && strlen(err) < 300);
}

void encodes_to(const struct tokenizer *t, const char *text, bool add_special, const char *ids) {
	int32_t tokens[256];
	char written[2048] = "";
	size_t count, n = 0;
	CHECK(tokenizer_encode(t, text, strlen(text), add_special, tokens, 256, &count));
	for (size_t i = 0; i < count; i++)
		n += (size_t)snprintf(written + n, sizeof written - n, i ? " %d" : "%d", tokens[i]);
	CHECK_STR(written, ids);
}
