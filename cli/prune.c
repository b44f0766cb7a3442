/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fathom prune: a physically smaller folder that holds one sub-network. Served at full depth it
 * answers bit for bit as the plan does; training can continue from it.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/depths.h"
#include "model/checkpoint.h"
#include "model/doc.h"
#include "model/family.h"
#include "model/file.h"
#include "proto/buffer.h"

enum { MOST_CHANGES = 16, MAX_JSON = 1 << 20, PATH_SIZE = 4400 };

struct options {
	const char *model, *out;
	struct depth_options depths;
};

static const char usage[] =
                "usage: fathom prune MODEL --out DIR [FLAGS]\n\n"
                "  --out DIR        the new folder; it must not exist\n"
                "  --depth D        how deep: 6, or 12x6 for an encoder-decoder\n"
                "  --rule NAME      even, ends, prefix or tuned\n"
                "  --layers LIST    exactly these layers; --encoder-layers LIST beside it\n";

static bool read_options(struct options *o, int argc, char **argv, bool *ret_help) {
	memset(o, 0, sizeof *o);
	struct arg args[1 + DEPTHS_FLAGS] = {
		{ "out", ARG_TEXT, &o->out, 0, 0 },
	};
	int words, n = 1 + depths_args(&o->depths, args + 1);
	if (!args_read("prune", args, n, argc, argv, &o->model, 1, &words, ret_help))
		return false;
	const struct depth_options *d = &o->depths;
	const char *missing = words != 1                                ? "the model folder is"
	                : !o->out                                       ? "--out is"
	                : !d->depth && !d->layers && !d->encoder_layers ? "--depth or --layers is"
	                                                                : NULL;
	if (*ret_help || !missing)
		return true;
	fprintf(stderr, "fathom prune: %s missing; fathom prune --help lists the flags\n", missing);
	return false;
}

/* ---- tensors ---- */

/* A tensor of the new file. */
struct kept {
	char name[TENSOR_NAME_MAX];
	const struct tensor *tensor;
	const struct shard *shard;
};

/*
 * The tensor's name in the new folder; false if its layer goes. What belongs to no layer keeps its
 * name.
 */
static bool new_name(const struct facts *facts, const struct subnet *subnet, const char *name,
                char *ret, size_t size) {
	const struct family_table *table = family_table(facts->family);
	for (int s = 0; s < STACKS; s++) {
		for (const char *const *p = table->prefixes; table->stack[s].layers && *p; p++) {
			long layer = family_layer_of(&table->stack[s], *p, name);
			if (layer < 0)
				continue;
			int rank = layer < facts->stack[s].layers
			                ? plan_rank(&subnet->stack[s], (int)layer)
			                : -1;
			const char *rest = name + strlen(*p) + strlen(table->stack[s].layers);
			snprintf(ret, size, "%s%s%d%s", *p, table->stack[s].layers, rank,
			                strchr(rest, '.'));
			return rank >= 0;
		}
	}
	snprintf(ret, size, "%s", name);
	return true;
}

static int by_name(const void *a, const void *b) {
	return strcmp(((const struct kept *)a)->name, ((const struct kept *)b)->name);
}

static struct kept *choose_tensors(const struct checkpoint *c, const struct facts *facts,
                const struct subnet *subnet, size_t *ret_n) {
	size_t all = 0, n = 0;
	for (size_t i = 0; i < c->n_shards; i++)
		all += c->shards[i].table.count;
	struct kept *list = calloc(all + 1, sizeof *list);
	for (size_t i = 0; list && i < c->n_shards; i++) {
		for (size_t k = 0; k < c->shards[i].table.count; k++) {
			struct kept *to = &list[n];
			to->tensor = &c->shards[i].table.tensors[k];
			to->shard = &c->shards[i];
			n += new_name(facts, subnet, to->tensor->name, to->name, sizeof to->name);
		}
	}
	if (list)
		qsort(list, n, sizeof *list, by_name);
	*ret_n = n;
	return list;
}

static const char *dtype_in_file(enum dtype dtype) {
	static const char *const names[] = {
		[DTYPE_F32] = "F32", [DTYPE_F16] = "F16", [DTYPE_BF16] = "BF16"
	};
	return names[dtype];
}

static void put_header(struct buffer *b, const struct kept *list, size_t n) {
	size_t offset = 0;
	buffer_puts(b, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (size_t i = 0; i < n; i++) {
		const struct tensor *t = list[i].tensor;
		buffer_puts(b, ",");
		buffer_json_string(b, list[i].name, strlen(list[i].name));
		buffer_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype_in_file(t->dtype));
		for (int k = 0; k < t->rank; k++)
			buffer_printf(b, "%s%zu", k ? "," : "", t->shape[k]);
		buffer_printf(b, "],\"data_offsets\":[%zu,%zu]}", offset, offset + t->bytes);
		offset += t->bytes;
	}
	buffer_puts(b, "}");
	while (b->len % 8 != 0)
		buffer_puts(b, " ");
}

static bool write_tensors(FILE *out, const struct kept *list, size_t n) {
	struct buffer header = { 0 };
	unsigned char len[8];
	put_header(&header, list, n);
	for (int i = 0; i < 8; i++)
		len[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
	bool ok = !header.failed && fwrite(len, 1, 8, out) == 8
	                && fwrite(header.data, 1, header.len, out) == header.len;
	for (size_t i = 0; ok && i < n; i++)
		ok = fwrite((const char *)list[i].shard->map.mem + list[i].tensor->offset, 1,
		                     list[i].tensor->bytes, out)
		                == list[i].tensor->bytes;
	buffer_finish(&header);
	return ok;
}

static bool say_failed(const char *path, char *err, size_t errlen) {
	snprintf(err, errlen, "%.400s: %s", path, strerror(errno));
	return false;
}

static bool write_weights(const struct options *o, const struct facts *facts,
                const struct subnet *subnet, const char *dir, char *err, size_t errlen) {
	struct checkpoint checkpoint;
	char path[PATH_SIZE];
	size_t n;
	if (!checkpoint_open(o->model, &checkpoint, err, errlen))
		return false;
	struct kept *list = choose_tensors(&checkpoint, facts, subnet, &n);
	bool ok = list != NULL;
	if (!ok)
		snprintf(err, errlen, "memory ran out");
	for (size_t i = 0; ok && i < n; i++) {
		if (list[i].tensor->dtype != DTYPE_OTHER)
			continue;
		snprintf(err, errlen, "tensor \"%.100s\" has a dtype that cannot be written",
		                list[i].name);
		ok = false;
	}
	if (ok) {
		snprintf(path, sizeof path, "%.4096s/model.safetensors", dir);
		FILE *out = fopen(path, "wb");
		ok = out && write_tensors(out, list, n);
		if (out)
			ok = fclose(out) == 0 && ok;
		if (!ok)
			say_failed(path, err, errlen);
	}
	free(list);
	checkpoint_close(&checkpoint);
	return ok;
}

/* ---- config.json ---- */

/* Where a family's config.json has the number of layers of each stack. */
struct layer_keys {
	enum family family;
	const char *keys[STACKS][2];
	const char *kept[STACKS]; /* where our own families list the layers they have */
};

static const struct layer_keys layer_keys[] = {
	{ FAMILY_OPT, { [STACK_DECODER] = { "num_hidden_layers" } }, { 0 } },
	{ FAMILY_GPT2, { [STACK_DECODER] = { "n_layer" } }, { 0 } },
	{ FAMILY_FATHOM_LM, { [STACK_DECODER] = { "num_hidden_layers" } },
	                { [STACK_DECODER] = "layers_kept" } },
	{ FAMILY_FATHOM_ENCODER, { [STACK_ENCODER] = { "encoder.num_hidden_layers" } },
	                { [STACK_ENCODER] = "encoder.layers_kept" } },
	{ FAMILY_FATHOM_SEQ2SEQ,
	                { [STACK_ENCODER] = { "encoder.num_hidden_layers" },
	                                [STACK_DECODER] = { "decoder.num_hidden_layers" } },
	                { "encoder.layers_kept", "decoder.layers_kept" } },
	{ FAMILY_ROBERTA, { [STACK_ENCODER] = { "num_hidden_layers" } }, { 0 } },
	{ FAMILY_BERT, { [STACK_ENCODER] = { "num_hidden_layers" } }, { 0 } },
	{ FAMILY_BART,
	                { [STACK_ENCODER] = { "encoder_layers", "num_hidden_layers" },
	                                [STACK_DECODER] = { "decoder_layers" } },
	                { 0 } },
	{ FAMILY_FSMT,
	                { [STACK_ENCODER] = { "encoder_layers", "num_hidden_layers" },
	                                [STACK_DECODER] = { "decoder_layers" } },
	                { 0 } },
	{ FAMILY_M2M_100,
	                { [STACK_ENCODER] = { "encoder_layers", "num_hidden_layers" },
	                                [STACK_DECODER] = { "decoder_layers" } },
	                { 0 } },
	{ FAMILY_MARIAN,
	                { [STACK_ENCODER] = { "encoder_layers", "num_hidden_layers" },
	                                [STACK_DECODER] = { "decoder_layers" } },
	                { 0 } },
};

static size_t list_changes(const struct facts *facts, const struct subnet *subnet,
                struct doc_change changes[MOST_CHANGES]) {
	const struct layer_keys *k = layer_keys;
	size_t n = 0;
	while (k->family != facts->family)
		k++;
	for (int s = 0; s < STACKS; s++) {
		const struct plan *plan = &subnet->stack[s];
		for (int i = 0; i < 2 && k->keys[s][i]; i++)
			changes[n++] = (struct doc_change){
				.path = k->keys[s][i], .how = DOC_SET_INT, .value = plan->depth
			};
		if (k->kept[s])
			changes[n++] = (struct doc_change){ .path = k->kept[s],
				.how = DOC_SET_LIST,
				.list = plan->layers,
				.n_list = plan->depth };
	}
	/* Plans of the old folder say nothing about the new one. */
	if (facts->plan_rule == PLAN_RULE_TUNED)
		changes[n++] = (struct doc_change){ .path = "fathom_plan_rule", .how = DOC_REMOVE };
	return n;
}

static bool write_config(const struct options *o, const struct facts *facts,
                const struct subnet *subnet, const char *dir, char *err, size_t errlen) {
	struct doc_change changes[MOST_CHANGES];
	char path[PATH_SIZE];
	size_t len, n = list_changes(facts, subnet, changes);
	char *json = file_read(o->model, "config.json", MAX_JSON, &len, err, errlen);
	struct doc *doc = json ? doc_parse(json, len, "config.json", err, errlen) : NULL;
	char *text = doc ? doc_change(doc, changes, n) : NULL;
	if (doc && !text)
		snprintf(err, errlen, "memory ran out");
	snprintf(path, sizeof path, "%.4096s/config.json", dir);
	FILE *out = text ? fopen(path, "w") : NULL;
	bool ok = out && fprintf(out, "%s\n", text) > 0;
	if (out)
		ok = fclose(out) == 0 && ok;
	if (text && !ok)
		say_failed(path, err, errlen);
	free(text);
	doc_free(doc);
	free(json);
	return ok;
}

/* ---- the other files ---- */

static bool ends_with(const char *name, const char *end) {
	size_t n = strlen(name), m = strlen(end);
	return n >= m && strcmp(name + n - m, end) == 0;
}

/* Weights in any form, packed ones too, and what was measured at the old folder's depths. */
static bool stays_behind(const char *name) {
	static const char *const names[] = { "config.json", "quality.json", "plans.json",
		"model.safetensors.index.json", "pytorch_model.bin.index.json" };
	static const char *const ends[] = { ".safetensors", ".bin", ".pt", ".pth", ".h5",
		".msgpack", ".onnx", ".new", ".packed", ".cost.json", ".part" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		if (ends_with(name, ends[i]))
			return true;
	}
	return name[0] == '.';
}

static bool copy_file(const char *from, const char *to, char *err, size_t errlen) {
	char block[65536];
	size_t n;
	FILE *in = fopen(from, "rb"), *out = in ? fopen(to, "wb") : NULL;
	bool ok = out != NULL;
	while (ok && (n = fread(block, 1, sizeof block, in)) > 0)
		ok = fwrite(block, 1, n, out) == n;
	ok = ok && !ferror(in);
	if (in)
		fclose(in);
	if (out)
		ok = fclose(out) == 0 && ok;
	return ok || say_failed(out ? to : from, err, errlen);
}

static bool copy_others(const char *from, const char *to, char *err, size_t errlen) {
	DIR *dir = opendir(from);
	struct dirent *entry;
	bool ok = dir != NULL;
	if (!ok)
		return say_failed(from, err, errlen);
	while (ok && (entry = readdir(dir))) {
		char source[PATH_SIZE], target[PATH_SIZE];
		struct stat st;
		snprintf(source, sizeof source, "%.4096s/%.255s", from, entry->d_name);
		snprintf(target, sizeof target, "%.4096s/%.255s", to, entry->d_name);
		if (!stays_behind(entry->d_name) && stat(source, &st) == 0 && S_ISREG(st.st_mode))
			ok = copy_file(source, target, err, errlen);
	}
	closedir(dir);
	return ok;
}

/* A line in the model card says where the folder comes from. */
static bool add_note(const char *dir, const struct model *m, const struct subnet *subnet, char *err,
                size_t errlen) {
	char path[PATH_SIZE], name[32], layers[MAX_LAYERS * 5];
	snprintf(path, sizeof path, "%.4096s/README.md", dir);
	FILE *out = fopen(path, "a");
	if (!out)
		return say_failed(path, err, errlen);
	depths_name(subnet, name, sizeof name);
	fprintf(out,
	                "\n## Pruned\n\nThis folder holds a sub-network of %s, written by `fathom "
	                "prune`: depth %s.\nWhat is said above of depths and quality is about the "
	                "whole model.\n\n",
	                m->name, name);
	for (int s = 0; s < STACKS; s++) {
		if (subnet->stack[s].depth == 0)
			continue;
		depths_list(&subnet->stack[s], ",", layers, sizeof layers);
		fprintf(out, "- %s layers kept: %s of %d\n", depths_stack_name((enum stack)s),
		                layers, subnet->stack[s].of);
	}
	return fclose(out) == 0 || say_failed(path, err, errlen);
}

/* ---- all ---- */

static void remove_folder(const char *path) {
	DIR *dir = opendir(path);
	struct dirent *entry;
	char file[PATH_SIZE];
	while (dir && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(file, sizeof file, "%.4096s/%.255s", path, entry->d_name);
		unlink(file);
	}
	if (dir)
		closedir(dir);
	rmdir(path);
}

/* Writes beside --out and renames, so that a folder that is there is whole. */
static bool write_folder(const struct options *o, const struct model *m,
                const struct subnet *subnet, char *err, size_t errlen) {
	char fresh[PATH_SIZE];
	struct stat st;
	size_t len = strlen(o->out);
	while (len > 1 && o->out[len - 1] == '/')
		len--;
	snprintf(fresh, sizeof fresh, "%.*s.new", (int)len, o->out);
	if (stat(o->out, &st) == 0) {
		snprintf(err, errlen, "%.400s: is there already", o->out);
		return false;
	}
	if (mkdir(fresh, 0777) != 0)
		return say_failed(fresh, err, errlen);
	bool ok = write_weights(o, &m->facts, subnet, fresh, err, errlen)
	                && write_config(o, &m->facts, subnet, fresh, err, errlen)
	                && copy_others(o->model, fresh, err, errlen)
	                && add_note(fresh, m, subnet, err, errlen)
	                && (rename(fresh, o->out) == 0 || say_failed(o->out, err, errlen));
	if (!ok)
		remove_folder(fresh);
	return ok;
}

static bool prune(const struct options *o, const struct model *m, char *err, size_t errlen) {
	struct subnet *subnets;
	char name[32];
	int n;
	if (!depths_read(m, &o->depths, &subnets, &n, err, errlen))
		return false;
	bool ok = n == 1;
	if (!ok)
		snprintf(err, errlen, "one depth makes one folder; %d were asked for", n);
	ok = ok && write_folder(o, m, &subnets[0], err, errlen);
	if (ok) {
		depths_name(&subnets[0], name, sizeof name);
		printf("%s: depth %s\nnum. model params: %llu\n", o->out, name,
		                (unsigned long long)depths_parameters(&m->facts, &subnets[0]));
	}
	free(subnets);
	return ok;
}

int prune_main(int argc, char **argv) {
	struct options o;
	char err[512] = "memory ran out";
	bool help;
	if (!read_options(&o, argc, argv, &help))
		return 2;
	if (help) {
		fputs(usage, stdout);
		return 0;
	}
	struct model_options options = { .ops = ops_c(), .threads = 1, .without_weights = true };
	struct model *m = model_open(o.model, &options, err, sizeof err);
	bool ok = m && prune(&o, m, err, sizeof err);
	if (!ok)
		fprintf(stderr, "fathom prune: %s\n", err);
	model_close(m);
	return ok ? 0 : 1;
}
