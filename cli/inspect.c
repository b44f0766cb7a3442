/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fathom inspect: what a model folder holds, what each depth of it weighs, and which depths its
 * training suits. Reads no weights.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/depths.h"
#include "model/checkpoint.h"
#include "model/family.h"
#include "proto/buffer.h"

struct options {
	const char *model;
	struct depth_options depths;
	bool json;
};

/* Bytes in the files, by where the tensors belong. */
struct sizes {
	size_t layer[STACKS][MAX_LAYERS];
	size_t rest;
	size_t elements[DTYPE_OTHER];
};

static const char usage[] =
                "usage: fathom inspect MODEL [FLAGS]\n\n"
                "  --depth LIST     12,6,3 or 1..12 or all; encoder-decoders: 12x6,6x3\n"
                "                   (encoder x decoder); default: every depth, of an\n"
                "                   encoder-decoder from all layers to one each\n"
                "  --rule NAME      even, ends, prefix or tuned\n"
                "  --layers LIST    exactly these layers; --encoder-layers LIST beside it\n"
                "  --json           print one JSON object\n";

static bool read_options(struct options *o, int argc, char **argv, bool *ret_help) {
	memset(o, 0, sizeof *o);
	struct arg args[1 + DEPTHS_FLAGS] = {
		{ "json", ARG_FLAG, &o->json, 0, 0 },
	};
	int words, n = 1 + depths_args(&o->depths, args + 1);
	if (!args_read("inspect", args, n, argc, argv, &o->model, 1, &words, ret_help))
		return false;
	if (*ret_help || words == 1)
		return true;
	fputs("fathom inspect: the model folder is missing; fathom inspect --help lists the "
	      "flags\n",
	                stderr);
	return false;
}

/* ---- sizes ---- */

static void add_tensor(const struct facts *facts, const struct tensor *t, struct sizes *sizes) {
	const struct family_table *table = family_table(facts->family);
	if (t->dtype != DTYPE_OTHER)
		sizes->elements[t->dtype] += t->count;
	for (int s = 0; s < STACKS; s++) {
		for (const char *const *p = table->prefixes; table->stack[s].layers && *p; p++) {
			long layer = family_layer_of(&table->stack[s], *p, t->name);
			if (layer >= 0 && layer < facts->stack[s].layers) {
				sizes->layer[s][layer] += t->bytes;
				return;
			}
		}
	}
	sizes->rest += t->bytes;
}

static bool read_sizes(const char *dir, const struct facts *facts, struct sizes *ret, char *err,
                size_t errlen) {
	struct checkpoint checkpoint;
	if (!checkpoint_open(dir, &checkpoint, err, errlen))
		return false;
	memset(ret, 0, sizeof *ret);
	for (size_t i = 0; i < checkpoint.n_shards; i++) {
		const struct tensor_table *table = &checkpoint.shards[i].table;
		for (size_t k = 0; k < table->count; k++)
			add_tensor(facts, &table->tensors[k], ret);
	}
	checkpoint_close(&checkpoint);
	return true;
}

static size_t bytes_of(const struct sizes *sizes, const struct subnet *subnet) {
	size_t bytes = sizes->rest;
	for (int s = 0; s < STACKS; s++) {
		for (int i = 0; i < subnet->stack[s].depth; i++)
			bytes += sizes->layer[s][subnet->stack[s].layers[i]];
	}
	return bytes;
}

static const char *main_dtype(const struct sizes *sizes) {
	enum dtype most = DTYPE_F32;
	for (enum dtype d = DTYPE_F32; d < DTYPE_OTHER; d++)
		most = sizes->elements[d] > sizes->elements[most] ? d : most;
	return dtype_name(most);
}

/* ---- words ---- */

static const char *kind_name(enum model_kind kind) {
	static const char *const names[] = { [KIND_LM] = "language model",
		[KIND_ENCODER] = "encoder",
		[KIND_SEQ2SEQ] = "encoder-decoder" };
	return names[kind];
}

static const char *activation_name(enum activation activation) {
	static const char *const names[] = { [ACTIVATION_NONE] = "linear",
		[ACTIVATION_RELU] = "relu",
		[ACTIVATION_GELU] = "gelu",
		[ACTIVATION_GELU_TANH] = "gelu (tanh)",
		[ACTIVATION_TANH] = "tanh",
		[ACTIVATION_SILU] = "silu" };
	return names[activation];
}

static const char *positions_name(enum positions positions) {
	static const char *const names[] = { [POSITIONS_NONE] = "no positions",
		[POSITIONS_LEARNED] = "learned positions",
		[POSITIONS_SINUSOIDAL] = "sinusoidal positions",
		[POSITIONS_SINUSOIDAL_MARIAN] = "sinusoidal positions (Marian's)" };
	return names[positions];
}

/* The depth that a rate suits: p* = 1 - r/N, so r = N (1 - p). */
static int suited_depth(const struct stack_facts *s) {
	return (int)((double)s->layers * (1 - (double)s->layerdrop) + 0.5);
}

static void print_stack(const struct stack_facts *s, const char *name) {
	printf("  %s: %d layers, width %d, %d heads, feed-forward %d, %s, %s-norm%s, %s\n", name,
	                s->layers, s->dim, s->heads, s->ffn, activation_name(s->activation),
	                s->norm == NORM_PRE ? "pre" : "post",
	                s->norm == NORM_PRE && !s->final_norm ? " without a final norm" : "",
	                positions_name(s->positions));
	if (s->layerdrop > 0)
		printf("    trained with LayerDrop %.2g: suits %d of %d layers best (p* = 1 - "
		       "r/N)\n",
		                (double)s->layerdrop, suited_depth(s), s->layers);
	else
		printf("    LayerDrop: none, or not known; shallow depths will lose much\n");
}

static void print_model(const struct model *m, const struct sizes *sizes) {
	const struct facts *f = &m->facts;
	printf("%s: %s, %s\n", m->name, facts_family_name(f->family), kind_name(f->kind));
	for (int s = 0; s < STACKS; s++) {
		if (f->stack[s].layers > 0)
			print_stack(&f->stack[s], depths_stack_name((enum stack)s));
	}
	printf("  vocabulary %d, context %d, stored as %s\n", f->vocab, f->context,
	                main_dtype(sizes));
	if (f->input.n > 0 || f->output.n > 0)
		printf("  adaptive vocabulary in %d bands%s\n",
		                f->input.n > f->output.n ? f->input.n : f->output.n,
		                f->output.n > 0 && f->tied_bands ? ", tied" : "");
	for (int i = 0; i < f->n_classifiers; i++)
		printf("  classification head %s: %d classes\n", f->classifiers[i].name,
		                f->classifiers[i].classes);
	if (m->note[0])
		printf("  note: %s\n", m->note);
}

/* ---- depths ---- */

static const struct depth_quality *quality_of(const struct model *m, const struct subnet *subnet) {
	enum stack main = model_main_stack(m);
	const int encoder = main == STACK_DECODER ? subnet->stack[STACK_ENCODER].depth : 0;
	for (size_t i = 0; i < m->n_quality; i++) {
		if (m->quality[i].depth == subnet->stack[main].depth
		                && m->quality[i].encoder_depth == encoder)
			return &m->quality[i];
	}
	return NULL;
}

static double best_rate(const struct plan *plan) {
	return 1 - (double)plan->depth / plan->of;
}

static void print_rates(const struct subnet *subnet, char *text, size_t size) {
	size_t n = 0;
	text[0] = '\0';
	for (int s = 0; s < STACKS; s++) {
		if (subnet->stack[s].depth > 0)
			n += (size_t)snprintf(text + n, size - n, "%s%.2f", n ? " " : "",
			                best_rate(&subnet->stack[s]));
	}
}

static void print_row(const struct model *m, const struct sizes *sizes, const struct subnet *subnet,
                bool explicit) {
	char name[32], rates[40], quality[60] = "", layers[DEPTHS_TEXT];
	const struct depth_quality *q = explicit ? NULL : quality_of(m, subnet);
	uint64_t parameters = depths_parameters(&m->facts, subnet);
	depths_name(subnet, name, sizeof name);
	print_rates(subnet, rates, sizeof rates);
	if (q)
		snprintf(quality, sizeof quality, "%s %.5g", q->metric, q->value);
	depths_layers(subnet, layers, sizeof layers);
	printf("  %-7s %12llu %9.1f %9.1f   %-10s %-18s%s\n", name, (unsigned long long)parameters,
	                (double)bytes_of(sizes, subnet) / (1 << 20),
	                (double)parameters * sizeof(float) / (1 << 20), rates, quality, layers);
}

/* ---- memory ---- */

/* What the folder takes once it is packed. */
struct packed_sizes {
	const struct ops *ops;
	struct weight_sizes formats[WEIGHT_FORMATS];
	bool has[WEIGHT_FORMATS];
	size_t kv_bytes[KV_FORMATS]; /* of a token at all layers */
};

/* For the kernels that would run here. */
static void measure_packed(const char *dir, const struct model *m, struct packed_sizes *ret) {
	char ignored[300];
	const struct stack_facts *decoder = &m->facts.stack[STACK_DECODER];
	memset(ret, 0, sizeof *ret);
	ret->ops = ops_select("auto", CPU_LEVEL_AUTO, ignored, sizeof ignored);
	for (int f = 0; ret->ops && f < WEIGHT_FORMATS; f++)
		ret->has[f] = weights_measure(dir, &m->facts, ret->ops, (enum weight_format)f,
		                &ret->formats[f], ignored, sizeof ignored);
	for (int k = 0; k < KV_FORMATS; k++)
		ret->kv_bytes[k] = (size_t)decoder->layers
		                * kv_block_bytes((enum kv_format)k, decoder->heads,
		                                decoder->head_dim)
		                / KV_TILE;
}

static double mib(size_t bytes) {
	return (double)bytes / (1 << 20);
}

static void print_packed(const struct packed_sizes *p) {
	if (!p->ops)
		return;
	printf("\n  in memory, for the kernels %s:\n  %-7s %12s %10s %9s %9s\n", p->ops->name,
	                "weights", "layers MiB", "vocabulary", "other", "all");
	for (int f = 0; f < WEIGHT_FORMATS; f++) {
		const struct weight_sizes *s = &p->formats[f];
		if (p->has[f])
			printf("  %-7s %12.1f %10.1f %9.1f %9.1f\n",
			                weight_format_name((enum weight_format)f), mib(s->layers),
			                mib(s->vocabulary), mib(s->other),
			                mib(s->layers + s->vocabulary + s->other));
	}
	if (p->kv_bytes[KV_F32] > 0)
		printf("  keys and values of a token at all layers: %.1f KiB in f32, %.1f in "
		       "bf16\n",
		                (double)p->kv_bytes[KV_F32] / 1024,
		                (double)p->kv_bytes[KV_BF16] / 1024);
}

static void put_packed(struct buffer *b, const struct packed_sizes *p) {
	const char *comma = "";
	buffer_printf(b, "\"kv_bytes_per_token\":{\"f32\":%zu,\"bf16\":%zu},\"packed\":{",
	                p->kv_bytes[KV_F32], p->kv_bytes[KV_BF16]);
	for (int f = 0; f < WEIGHT_FORMATS; f++) {
		const struct weight_sizes *s = &p->formats[f];
		if (!p->has[f])
			continue;
		buffer_printf(b, "%s\"%s\":{\"layers\":%zu,\"vocabulary\":%zu,\"other\":%zu,",
		                comma, weight_format_name((enum weight_format)f), s->layers,
		                s->vocabulary, s->other);
		const char *arithmetic = p->ops->formats[f].arithmetic;
		buffer_puts(b, "\"arithmetic\":");
		buffer_json_string(b, arithmetic, strlen(arithmetic));
		buffer_puts(b, "}");
		comma = ",";
	}
	buffer_puts(b, "}");
}

/* ---- all ---- */

static void print_text(const struct options *o, const struct model *m, const struct sizes *sizes,
                const struct subnet *subnets, int n) {
	bool explicit = o->depths.layers || o->depths.encoder_layers;
	struct subnet full;
	print_model(m, sizes);
	model_subnet(m, PLAN_RULE_EVEN, model_layers(m), &full);
	/* fairseq's own line, of what was asked for. */
	bool asked = o->depths.depth || explicit;
	for (int i = 0; i < (asked ? n : 1); i++)
		printf("num. model params: %llu\n",
		                (unsigned long long)depths_parameters(
		                                &m->facts, asked ? &subnets[i] : &full));
	printf("\n  %-7s %12s %9s %9s   %-10s %-18s%s\n", "depth", "parameters", "MiB file",
	                "MiB f32", "p*", m->n_quality ? "quality" : "", "layers");
	for (int i = 0; i < n; i++)
		print_row(m, sizes, &subnets[i], explicit);
	struct packed_sizes packed;
	measure_packed(o->model, m, &packed);
	print_packed(&packed);
}

static void put_stack(struct buffer *b, const struct stack_facts *s) {
	buffer_printf(b, "{\"layers\":%d,\"width\":%d,\"heads\":%d,\"ffn\":%d,\"layerdrop\":",
	                s->layers, s->dim, s->heads, s->ffn);
	buffer_json_f32(b, s->layerdrop);
	buffer_puts(b, "}");
}

static void print_json(const struct options *o, const struct model *m, const struct sizes *sizes,
                const struct subnet *subnets, int n) {
	struct buffer b = { 0 };
	struct packed_sizes packed;
	measure_packed(o->model, m, &packed);
	char text[MAX_LAYERS * 5];
	buffer_puts(&b, "{\"model\":");
	buffer_json_string(&b, m->name, strlen(m->name));
	buffer_printf(&b, ",\"family\":\"%s\",\"kind\":\"%s\",\"dtype\":\"%s\"",
	                facts_family_name(m->facts.family), kind_name(m->facts.kind),
	                main_dtype(sizes));
	for (int s = 0; s < STACKS; s++) {
		if (m->facts.stack[s].layers == 0)
			continue;
		buffer_printf(&b, ",\"%s\":", depths_stack_name((enum stack)s));
		put_stack(&b, &m->facts.stack[s]);
	}
	buffer_printf(&b, ",\"vocab\":%d,\"context\":%d,", m->facts.vocab, m->facts.context);
	put_packed(&b, &packed);
	buffer_puts(&b, ",\"depths\":[");
	for (int i = 0; i < n; i++) {
		buffer_printf(&b, "%s{\"parameters\":%llu,\"file_bytes\":%zu", i ? "," : "",
		                (unsigned long long)depths_parameters(&m->facts, &subnets[i]),
		                bytes_of(sizes, &subnets[i]));
		for (int s = 0; s < STACKS; s++) {
			const struct plan *plan = &subnets[i].stack[s];
			if (plan->depth == 0)
				continue;
			depths_list(plan, ",", text, sizeof text);
			buffer_printf(&b,
			                ",\"%s\":{\"depth\":%d,\"of\":%d,\"layers\":[%s],"
			                "\"best_layerdrop\":%.4g}",
			                depths_stack_name((enum stack)s), plan->depth, plan->of,
			                text, best_rate(plan));
		}
		buffer_puts(&b, "}");
	}
	buffer_puts(&b, "]}\n");
	fwrite(b.data, 1, b.failed ? 0 : b.len, stdout);
	buffer_finish(&b);
}

int inspect_main(int argc, char **argv) {
	struct options o;
	struct subnet *subnets = NULL;
	char err[512] = "memory ran out";
	bool help, ok;
	int n = 0;
	if (!read_options(&o, argc, argv, &help))
		return 2;
	if (help) {
		fputs(usage, stdout);
		return 0;
	}
	struct model_options options = { .ops = ops_c(), .threads = 1, .without_weights = true };
	struct model *m = model_open(o.model, &options, err, sizeof err);
	struct sizes *sizes = m ? malloc(sizeof *sizes) : NULL;
	ok = sizes && read_sizes(o.model, &m->facts, sizes, err, sizeof err)
	                && depths_read(m, &o.depths, &subnets, &n, err, sizeof err);
	if (!ok)
		fprintf(stderr, "fathom inspect: %s\n", err);
	else if (o.json)
		print_json(&o, m, sizes, subnets, n);
	else
		print_text(&o, m, sizes, subnets, n);
	free(subnets);
	free(sizes);
	model_close(m);
	return ok ? 0 : 1;
}
