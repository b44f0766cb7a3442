/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading weights: folders written here, whose every number is known from its tensor's name, must
 * come back from every kernel table in the right slot and place; what does not fit is refused with
 * a sentence that names file and tensor.
 */
#include "model/weights.h"

#include <math.h>
#include <unistd.h>

#include "model/quantise.h"
#include "tests/weights_check.h"

/* dim 20 and vocab 37: no multiples of a panel, and q, k and v share panels. */
enum { DIM = 20, FFN = 28, VOCAB = 37, CONTEXT = 9, LAYERS = 2 };

static struct facts small_facts(enum family family) {
	struct facts f = {
		.family = family, .vocab = VOCAB, .context = CONTEXT, .tied_output = true
	};
	struct stack_facts *s = &f.stack[STACK_DECODER];
	*s = (struct stack_facts){ .layers = LAYERS,
		.dim = DIM,
		.heads = 2,
		.head_dim = DIM / 2,
		.ffn = FFN,
		.final_norm = true,
		.norm_eps = 1e-5f,
		.positions = POSITIONS_LEARNED,
		.position_offset = family == FAMILY_GPT2 ? 0 : 2,
		.context = CONTEXT,
		.vocab = VOCAB,
		.embed_scale = 1 };
	return f;
}

/* ---- writing folders ---- */

static void add_fairseq_layers(struct writer *w, const struct stack_facts *s) {
	const char *at = "decoder.layers.";
	size_t d = (size_t)s->dim, ffn = (size_t)s->ffn;
	for (int i = 0; i < s->layers; i++) {
		add_layer(w, at, i, "fc1", ffn, d, ffn);
		add_layer(w, at, i, "fc2", d, ffn, d);
		add_layer(w, at, i, "final_layer_norm", d, 0, d);
		add_layer(w, at, i, "self_attn.k_proj", d, d, d);
		add_layer(w, at, i, "self_attn.out_proj", d, d, d);
		add_layer(w, at, i, "self_attn.q_proj", d, d, d);
		add_layer(w, at, i, "self_attn.v_proj", d, d, d);
		add_layer(w, at, i, "self_attn_layer_norm", d, 0, d);
	}
}

static unsigned char *write_opt(const struct facts *f, const char *prefix, const char *dtype,
                const char *skip, size_t *ret_len) {
	const struct stack_facts *s = &f->stack[STACK_DECODER];
	struct writer w = { .prefix = prefix, .dtype = dtype, .skip = skip };
	size_t d = (size_t)s->dim, rows = (size_t)(s->position_offset + f->context);
	add(&w, "decoder.embed_tokens.weight", (size_t)f->vocab, d);
	add(&w, "decoder.embed_positions.weight", rows, d);
	add_pair(&w, "decoder.final_layer_norm", d, 0, d);
	add_fairseq_layers(&w, s);
	w.prefix = "";
	add(&w, "lm_head.weight", (size_t)f->vocab, d);
	return tensor_file_finish(&w.file, ret_len);
}

static unsigned char *write_gpt2(
                const struct facts *f, const char *prefix, const char *dtype, size_t *ret_len) {
	const struct stack_facts *s = &f->stack[STACK_DECODER];
	struct writer w = { .prefix = prefix, .dtype = dtype };
	size_t d = (size_t)s->dim, ffn = (size_t)s->ffn;
	add(&w, "wte.weight", (size_t)f->vocab, d);
	add(&w, "wpe.weight", (size_t)f->context, d);
	add_pair(&w, "ln_f", d, 0, d);
	for (int i = 0; i < s->layers; i++) {
		char buffer[40];
		add_layer(&w, "h.", i, "ln_1", d, 0, d);
		add_layer(&w, "h.", i, "ln_2", d, 0, d);
		add_layer(&w, "h.", i, "attn.c_attn", d, 3 * d, 3 * d);
		add_layer(&w, "h.", i, "attn.c_proj", d, d, d);
		add_layer(&w, "h.", i, "mlp.c_fc", d, ffn, ffn);
		add_layer(&w, "h.", i, "mlp.c_proj", ffn, d, d);
		snprintf(buffer, sizeof buffer, "h.%d.attn.masked_bias", i);
		add(&w, buffer, 1, 0);
	}
	return tensor_file_finish(&w.file, ret_len);
}

/* ---- what must be where ---- */

static const char *layer_name(const char *prefix, int layer, const char *name) {
	static char full[200];
	snprintf(full, sizeof full, "%s%d.%s", prefix, layer, name);
	return full;
}

static void check_fairseq_layer(const struct ops *ops, const struct layer_weights *l,
                const struct stack_facts *s, const char *at, int i) {
	size_t d = (size_t)s->dim;
	static const char *const thirds[] = { "self_attn.q_proj", "self_attn.k_proj",
		"self_attn.v_proj" };
	char part[64];
	CHECK_INT(l->qkv.w.n_out, 3 * s->dim);
	CHECK_INT(l->qkv.w.n_panels, (3 * s->dim + ops->panel - 1) / ops->panel);
	CHECK(((uintptr_t)l->qkv.w.data & 63) == 0);
	for (int t = 0; t < 3; t++) {
		snprintf(part, sizeof part, "%s.weight", thirds[t]);
		check_rows(ops, &l->qkv.w, t * s->dim, s->dim, layer_name(at, i, part), false);
		snprintf(part, sizeof part, "%s.bias", thirds[t]);
		check_vector(l->qkv.bias + (size_t)t * d, d, layer_name(at, i, part));
	}
	check_rows(ops, &l->out.w, 0, s->dim, layer_name(at, i, "self_attn.out_proj.weight"),
	                false);
	check_rows(ops, &l->up.w, 0, s->ffn, layer_name(at, i, "fc1.weight"), false);
	check_rows(ops, &l->down.w, 0, s->dim, layer_name(at, i, "fc2.weight"), false);
	check_vector(l->out.bias, d, layer_name(at, i, "self_attn.out_proj.bias"));
	check_vector(l->up.bias, (size_t)s->ffn, layer_name(at, i, "fc1.bias"));
	check_vector(l->down.bias, d, layer_name(at, i, "fc2.bias"));
	check_vector(l->attn_norm.gain, d, layer_name(at, i, "self_attn_layer_norm.weight"));
	check_vector(l->attn_norm.bias, d, layer_name(at, i, "self_attn_layer_norm.bias"));
	check_vector(l->ffn_norm.gain, d, layer_name(at, i, "final_layer_norm.weight"));
	check_vector(l->ffn_norm.bias, d, layer_name(at, i, "final_layer_norm.bias"));
}

static void check_opt(const char *dir, const struct facts *f, const char *prefix,
                const struct ops *ops, const char *dtype) {
	const struct stack_facts *s = &f->stack[STACK_DECODER];
	size_t d = (size_t)s->dim;
	struct weights w;
	char at[64], name[100];
	if (!load(dir, f, ops, &w))
		check_fail(__FILE__, __LINE__, "%s", err);
	const struct stack_weights *stack = &w.stack[STACK_DECODER];
	CHECK_STR(w.dtype, dtype);
	snprintf(at, sizeof at, "%sdecoder.layers.", prefix);
	for (int i = 0; i < s->layers; i++)
		check_fairseq_layer(ops, &stack->layers[i], s, at, i);
	snprintf(name, sizeof name, "%sdecoder.embed_tokens.weight", prefix);
	check_rows(ops, &stack->embedding, 0, f->vocab, name, false);
	snprintf(name, sizeof name, "%sdecoder.embed_positions.weight", prefix);
	check_vector(stack->positions, (size_t)(f->context + s->position_offset) * d, name);
	snprintf(name, sizeof name, "%sdecoder.final_layer_norm.bias", prefix);
	check_vector(stack->final_norm.bias, d, name);
	CHECK(!stack->embedding_norm.gain && !w.output.bias);
	if (f->tied_output)
		CHECK(w.output.w.data == stack->embedding.data);
	else
		check_rows(ops, &w.output.w, 0, f->vocab, "lm_head.weight", false);
	CHECK_INT(w.bytes, w.fixed_bytes + (size_t)s->layers * w.layer_bytes[STACK_DECODER]);
	CHECK(w.layer_bytes[STACK_DECODER]
	                >= (4 * d * d + 2 * d * (size_t)s->ffn + 9 * d + (size_t)s->ffn) * 4);
	weights_finish(&w);
	weights_finish(&w);
}

TEST(every_opt_tensor_is_in_its_place_at_every_level) {
	const struct ops *list[CPU_LEVELS + 1];
	int n = tables(list);
	size_t len;
	struct facts f = small_facts(FAMILY_OPT);
	unsigned char *bytes = write_opt(&f, "model.", "F32", NULL, &len);
	char *dir = folder_of(bytes, len);
	for (int i = 0; i < n; i++)
		check_opt(dir, &f, "model.", list[i], "f32");
	folder_remove(dir);
}

/* The same file with its data one byte further on. */
static unsigned char *misalign(unsigned char *bytes, size_t *len) {
	size_t header = bytes[0] | (size_t)bytes[1] << 8;
	bytes = realloc(bytes, *len + 1);
	CHECK(bytes != NULL);
	memmove(bytes + 8 + header + 1, bytes + 8 + header, *len - 8 - header);
	bytes[8 + header] = ' ';
	bytes[0] = (unsigned char)(header + 1);
	bytes[1] = (unsigned char)((header + 1) >> 8);
	*len += 1;
	return bytes;
}

/* q, k and v of 512 x 512 f32: chunks that lie wholly in one of them. */
TEST(large_matrices_are_packed_from_where_they_lie_aligned_or_not) {
	struct facts f = small_facts(FAMILY_OPT);
	f.stack[STACK_DECODER].dim = 512;
	f.stack[STACK_DECODER].layers = 1;
	size_t len;
	unsigned char *bytes = write_opt(&f, "model.", "F32", NULL, &len);
	char *dir = folder_create();
	for (int i = 0; i < 2; i++) {
		folder_write(dir, "model.safetensors", bytes, len);
		check_opt(dir, &f, "model.", ops_c(), "f32");
		bytes = misalign(bytes, &len);
	}
	free(bytes);
	folder_remove(dir);
}

TEST(names_without_the_model_prefix_are_accepted) {
	size_t len;
	struct facts f = small_facts(FAMILY_OPT);
	unsigned char *bytes = write_opt(&f, "", "F32", NULL, &len);
	char *dir = folder_of(bytes, len);
	check_opt(dir, &f, "", ops_c(), "f32");
	folder_remove(dir);
}

TEST(f16_and_bf16_are_widened) {
	size_t len;
	struct facts f = small_facts(FAMILY_OPT);
	unsigned char *bytes = write_opt(&f, "model.", "F16", NULL, &len);
	char *dir = folder_of(bytes, len);
	check_opt(dir, &f, "model.", ops_c(), "f16");
	bytes = write_opt(&f, "model.", "BF16", NULL, &len);
	folder_write(dir, "model.safetensors", bytes, len);
	free(bytes);
	check_opt(dir, &f, "model.", ops_c(), "bf16");
	folder_remove(dir);
}

TEST(a_separate_output_is_read_only_if_asked_for) {
	size_t len;
	struct facts f = small_facts(FAMILY_OPT);
	unsigned char *bytes = write_opt(&f, "model.", "F32", NULL, &len);
	char *dir = folder_of(bytes, len);
	f.tied_output = false;
	check_opt(dir, &f, "model.", ops_c(), "f32");
	folder_remove(dir);
}

/* 3,000 x 128 and 4,096 x 128 numbers: more than one chunk of packing each. */
TEST(gpt2_matrices_are_turned_over_many_chunks_at_every_level) {
	const struct ops *list[CPU_LEVELS + 1];
	int n = tables(list);
	struct facts f = small_facts(FAMILY_GPT2);
	struct stack_facts *s = &f.stack[STACK_DECODER];
	s->dim = 128;
	s->ffn = 4096;
	s->layers = 1;
	f.vocab = s->vocab = 3001;
	size_t len;
	unsigned char *bytes = write_gpt2(&f, "transformer.", "F16", &len);
	char *dir = folder_of(bytes, len);
	for (int i = 0; i < n; i++) {
		struct weights w;
		if (!load(dir, &f, list[i], &w))
			check_fail(__FILE__, __LINE__, "%s", err);
		const struct layer_weights *l = w.stack[STACK_DECODER].layers;
		check_rows(list[i], &w.output.w, 0, f.vocab, "transformer.wte.weight", false);
		check_rows(list[i], &l->qkv.w, 0, 384, "transformer.h.0.attn.c_attn.weight", true);
		check_rows(list[i], &l->out.w, 0, 128, "transformer.h.0.attn.c_proj.weight", true);
		check_rows(list[i], &l->up.w, 0, 4096, "transformer.h.0.mlp.c_fc.weight", true);
		check_rows(list[i], &l->down.w, 0, 128, "transformer.h.0.mlp.c_proj.weight", true);
		check_vector(l->qkv.bias, 384, "transformer.h.0.attn.c_attn.bias");
		check_vector(l->attn_norm.gain, 128, "transformer.h.0.ln_1.weight");
		check_vector(l->ffn_norm.bias, 128, "transformer.h.0.ln_2.bias");
		check_vector(w.stack[STACK_DECODER].positions, 9 * 128, "transformer.wpe.weight");
		check_vector(w.stack[STACK_DECODER].final_norm.gain, 128,
		                "transformer.ln_f.weight");
		weights_finish(&w);
	}
	folder_remove(dir);
}

TEST(bare_gpt2_names_are_accepted) {
	struct facts f = small_facts(FAMILY_GPT2);
	struct weights w;
	size_t len;
	unsigned char *bytes = write_gpt2(&f, "", "F32", &len);
	char *dir = folder_of(bytes, len);
	CHECK(load(dir, &f, ops_c(), &w));
	check_rows(ops_c(), &w.stack[STACK_DECODER].layers[1].up.w, 0, FFN, "h.1.mlp.c_fc.weight",
	                true);
	weights_finish(&w);
	folder_remove(dir);
}

static char *fathom_folder(struct facts *f) {
	struct stack_facts *s = &f->stack[STACK_DECODER];
	struct writer w = { .prefix = "", .dtype = "F32" };
	size_t len;
	s->positions = POSITIONS_SINUSOIDAL;
	s->embedding_norm = true;
	f->tied_output = false;
	add(&w, "decoder.embed_tokens.weight", VOCAB, (size_t)s->dim);
	add_pair(&w, "decoder.layernorm_embedding", (size_t)s->dim, 0, (size_t)s->dim);
	add_pair(&w, "decoder.layer_norm", (size_t)s->dim, 0, (size_t)s->dim);
	add(&w, "decoder.output_projection.weight", VOCAB, (size_t)s->dim);
	add_fairseq_layers(&w, s);
	unsigned char *bytes = tensor_file_finish(&w.file, &len);
	return folder_of(bytes, len);
}

TEST(our_own_format_has_an_embedding_norm_and_an_output) {
	struct facts f = small_facts(FAMILY_FATHOM_LM);
	struct weights w;
	char *dir = fathom_folder(&f);
	CHECK(load(dir, &f, ops_c(), &w));
	const struct stack_weights *s = &w.stack[STACK_DECODER];
	check_rows(ops_c(), &s->embedding, 0, VOCAB, "decoder.embed_tokens.weight", false);
	check_rows(ops_c(), &w.output.w, 0, VOCAB, "decoder.output_projection.weight", false);
	check_vector(s->embedding_norm.gain, DIM, "decoder.layernorm_embedding.weight");
	check_vector(s->embedding_norm.bias, DIM, "decoder.layernorm_embedding.bias");
	check_vector(s->final_norm.bias, DIM, "decoder.layer_norm.bias");
	weights_finish(&w);
	folder_remove(dir);
}

TEST(sinusoids_are_those_of_fairseq) {
	struct facts f = small_facts(FAMILY_FATHOM_LM);
	struct weights w;
	f.stack[STACK_DECODER].dim = 6;
	f.stack[STACK_DECODER].head_dim = 3;
	char *dir = fathom_folder(&f);
	CHECK(load(dir, &f, ops_c(), &w));
	/* half = 3: frequencies 1, 1/100, 1/10000; sines first. Sine and cosine from tables. */
	static const double rows[][6] = {
		[2] = { 0.9092974268256817, 0.01999866669333308, 0.00019999999866666667,
		                -0.4161468365471424, 0.9998000066665778, 0.9999999800000001 },
		[10] = { -0.5440211108893698, 0.09983341664682815, 0.0009999998333333417,
		                -0.8390715290764524, 0.9950041652780258, 0.9999995000000417 },
	};
	const float *table = w.stack[STACK_DECODER].positions;
	for (int i = 0; i < 6; i++) {
		CHECK(fabs(table[2 * 6 + i] - rows[2][i]) < 1e-7);
		CHECK(fabs(table[10 * 6 + i] - rows[10][i]) < 1e-7);
	}
	weights_finish(&w);
	folder_remove(dir);
}

TEST(a_tied_matrix_may_be_there_under_the_name_of_the_output_only) {
	struct facts f = small_facts(FAMILY_OPT);
	struct weights w;
	size_t len;
	unsigned char *bytes =
	                write_opt(&f, "model.", "F32", "model.decoder.embed_tokens.weight", &len);
	char *dir = folder_of(bytes, len);
	CHECK(load(dir, &f, ops_c(), &w));
	check_rows(ops_c(), &w.stack[STACK_DECODER].embedding, 0, VOCAB, "lm_head.weight", false);
	CHECK(w.output.w.data == w.stack[STACK_DECODER].embedding.data);
	weights_finish(&w);
	f.tied_output = false;
	check_refused(dir, &f, "\"model.decoder.embed_tokens.weight\" is missing");
	folder_remove(dir);
}

/* ---- shards ---- */

/* Layer by layer into two files, with the index that names them. */
static char *sharded_folder(const struct facts *f, const char *second_name) {
	char *dir = folder_create(), index[16384];
	size_t used = (size_t)snprintf(index, sizeof index, "{\"metadata\":{},\"weight_map\":{");
	const struct stack_facts *s = &f->stack[STACK_DECODER];
	struct writer w = { .prefix = "model.", .dtype = "F32" };
	for (int file = 0; file < 2; file++) {
		size_t len;
		if (file == 0) {
			add_fairseq_layers(&w, s);
		} else {
			add(&w, "decoder.embed_positions.weight", CONTEXT + 2, DIM);
			add_pair(&w, "decoder.final_layer_norm", DIM, 0, DIM);
			add(&w, "decoder.embed_tokens.weight", VOCAB, DIM);
		}
		const char *name = file ? second_name : "model-00001-of-00002.safetensors";
		for (char *p = w.file.header; (p = strstr(p, "\"model.")) != NULL; p++) {
			int n = (int)strcspn(p + 1, "\"");
			used += (size_t)snprintf(index + used, sizeof index - used,
			                "%s\"%.*s\":\"%s\"", used > 40 ? "," : "", n, p + 1, name);
		}
		unsigned char *bytes = tensor_file_finish(&w.file, &len);
		if (!strchr(name, '/'))
			folder_write(dir, name, bytes, len);
		free(bytes);
	}
	snprintf(index + used, sizeof index - used, "}}");
	folder_write_text(dir, "model.safetensors.index.json", index);
	return dir;
}

TEST(shards_are_read_as_one) {
	struct facts f = small_facts(FAMILY_OPT);
	char *dir = sharded_folder(&f, "model-00002-of-00002.safetensors");
	check_opt(dir, &f, "model.", ops_c(), "f32");
	folder_remove(dir);
}

TEST(an_index_that_leads_out_of_the_folder_is_refused) {
	struct facts f = small_facts(FAMILY_OPT);
	static const char *const names[] = { "../other.safetensors", "/etc/passwd", "..",
		"a\\\\b.safetensors" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char *dir = folder_create(), index[200];
		snprintf(index, sizeof index, "{\"weight_map\":{\"model.x\":\"%s\"}}", names[i]);
		folder_write_text(dir, "model.safetensors.index.json", index);
		check_refused(dir, &f, "\"model.x\" is not mapped to a plain file name");
		folder_remove(dir);
	}
}

TEST(an_index_without_its_shard_is_refused) {
	struct facts f = small_facts(FAMILY_OPT);
	char *dir = sharded_folder(&f, "model-00002-of-00002.safetensors"), path[4200];
	snprintf(path, sizeof path, "%s/model-00002-of-00002.safetensors", dir);
	CHECK(unlink(path) == 0);
	check_refused(dir, &f, "model-00002-of-00002.safetensors: cannot be opened");
	folder_write_text(dir, "model.safetensors.index.json", "{\"weight_map\":[]}");
	check_refused(dir, &f, "\"weight_map\" is not a JSON object");
	folder_write_text(dir, "model.safetensors.index.json", "{\"weight_map\":{}}");
	check_refused(dir, &f, "\"model.decoder.embed_tokens.weight\" is missing");
	folder_remove(dir);
}

/* ---- refusals ---- */

TEST(a_missing_tensor_is_named) {
	struct facts f = small_facts(FAMILY_OPT);
	static const char *const names[] = { "model.decoder.embed_positions.weight",
		"model.decoder.final_layer_norm.bias",
		"model.decoder.layers.1.self_attn.k_proj.weight",
		"model.decoder.layers.0.self_attn.v_proj.bias",
		"model.decoder.layers.1.final_layer_norm.weight",
		"model.decoder.layers.0.fc2.bias" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		size_t len;
		char why[200];
		unsigned char *bytes = write_opt(&f, "model.", "F32", names[i], &len);
		char *dir = folder_of(bytes, len);
		snprintf(why, sizeof why, "model.safetensors: tensor \"%s\" is missing", names[i]);
		check_refused(dir, &f, why);
		folder_remove(dir);
	}
}

TEST(a_wrong_shape_is_named) {
	struct facts f = small_facts(FAMILY_OPT);
	size_t len;
	unsigned char *bytes = write_opt(&f, "model.", "F32", NULL, &len);
	char *dir = folder_of(bytes, len);
	struct facts g = f;
	g.stack[STACK_DECODER].vocab++;
	check_refused(dir, &g,
	                "tensor \"model.decoder.embed_tokens.weight\" has shape [37, 20], "
	                "config.json asks for [38, 20]");
	g = f;
	g.stack[STACK_DECODER].context--;
	check_refused(dir, &g, "\"model.decoder.embed_positions.weight\" has shape [11, 20]");
	g = f;
	g.stack[STACK_DECODER].ffn--;
	check_refused(dir, &g, "\"model.decoder.layers.0.fc1.weight\" has shape [28, 20]");
	folder_remove(dir);
}

TEST(a_conv1d_matrix_of_the_wrong_orientation_is_named) {
	struct facts f = small_facts(FAMILY_GPT2);
	size_t len;
	f.stack[STACK_DECODER].ffn = 28;
	unsigned char *bytes = write_gpt2(&f, "", "F32", &len);
	char *dir = folder_of(bytes, len);
	f.stack[STACK_DECODER].ffn = 29;
	check_refused(dir, &f,
	                "\"h.0.mlp.c_fc.weight\" has shape [20, 28], config.json asks for "
	                "[20, 29]");
	folder_remove(dir);
}

TEST(more_layers_than_configured_are_named) {
	struct facts f = small_facts(FAMILY_OPT);
	size_t len;
	unsigned char *bytes = write_opt(&f, "model.", "F32", NULL, &len);
	char *dir = folder_of(bytes, len);
	f.stack[STACK_DECODER].layers = 1;
	check_refused(dir, &f, "is of layer 1, but by config.json the last is 0");
	f.stack[STACK_DECODER].layers = 3;
	check_refused(dir, &f, "\"model.decoder.layers.2.");
	folder_remove(dir);
}

TEST(a_dtype_that_cannot_be_used_is_named) {
	struct facts f = small_facts(FAMILY_OPT);
	size_t len;
	unsigned char *bytes = write_opt(&f, "model.", "F32", NULL, &len);
	/* The same width, so that only the kind is wrong. */
	memcpy(strstr((char *)bytes + 8, "\"F32\""), "\"I32\"", 5);
	char *dir = folder_of(bytes, len);
	check_refused(dir, &f, "\"model.decoder.embed_tokens.weight\" has a dtype");
	folder_remove(dir);
}

TEST(rows_too_long_for_exact_sums_of_integers_are_refused) {
	struct facts f = small_facts(FAMILY_OPT);
	f.stack[STACK_DECODER].layers = 1;
	f.stack[STACK_DECODER].ffn = INT_INPUTS_MAX + 1;
	size_t len;
	unsigned char *bytes = write_opt(&f, "model.", "F32", NULL, &len);
	char *dir = folder_of(bytes, len);
	struct weights w;
	struct weights_options options = { .ops = ops_c(), .threads = 1, .format = WEIGHTS_INT8 };
	CHECK(!weights_load(dir, &f, &options, &w, err, sizeof err));
	CHECK_STR(err, "int8 weights cannot have rows of 133145 numbers");
	options.format = WEIGHTS_INT4;
	CHECK(!weights_load(dir, &f, &options, &w, err, sizeof err));
	CHECK_STR(err, "int4 weights cannot have rows of 133145 numbers");
	folder_remove(dir);
}

TEST(a_folder_without_safetensors_says_what_to_do) {
	struct facts f = small_facts(FAMILY_OPT);
	char *dir = folder_create();
	check_refused(dir, &f, "model.safetensors: absent");
	folder_write_text(dir, "pytorch_model.bin", "x");
	check_refused(dir, &f, "tools/convert_hf.py");
	folder_write_text(dir, "model.safetensors", "");
	check_refused(dir, &f, "model.safetensors: too short");
	folder_remove(dir);
	check_refused("/nonexistent", &f, "model.safetensors: absent");
}

TEST(damaged_weights_are_refused_with_a_sentence_or_loaded) {
	struct facts f = small_facts(FAMILY_OPT);
	f.stack[STACK_DECODER].layers = 1;
	size_t len, n;
	unsigned char *whole = write_opt(&f, "model.", "F16", NULL, &len);
	char *dir = folder_create();
	uint64_t state = 3;
	struct weights_options options = { .ops = ops_c(), .threads = 1 };
	for (int i = 0; i < 400; i++) {
		struct weights w;
		unsigned char *bytes = damage(whole, len, &state, &n);
		folder_write(dir, "model.safetensors", bytes, n);
		free(bytes);
		err[0] = '\0';
		if (weights_load(dir, &f, &options, &w, err, sizeof err))
			weights_finish(&w);
		else
			CHECK(is_sentence(err) && strncmp(err, "model.safetensors: ", 19) == 0);
	}
	free(whole);
	folder_remove(dir);
}
