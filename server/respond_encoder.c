/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of finished jobs of encoders: embeddings (in pieces), classes, filled masks. */
#include <stdlib.h>
#include <string.h>

#include "server/respond.h"

enum {
	WHOLE_VALUES = 16384, /* embeddings of so many numbers are one body */
	ENOUGH_BYTES = 65536, /* in one piece */
};

/* ---- embeddings ---- */

static size_t dimensions(const struct call *call) {
	return (size_t)generation_model(call->generation)->facts.stack[STACK_ENCODER].dim;
}

bool respond_embeddings_are_long(const struct call *call) {
	return (size_t)call->job->n_prompts * dimensions(call) > WHOLE_VALUES;
}

enum fill respond_fill_embeddings(void *user, struct buffer *out) {
	struct call *call = user;
	struct respond *r = call->respond;
	const struct job *job = call->job;
	size_t begin = out->len, dim = dimensions(call);
	struct respond_meta m;
	respond_meta(call, &m);
	if (r->embedded == 0)
		answer_open_embeddings(out, &m.meta);
	while (r->embedded < job->n_prompts && out->len - begin < ENOUGH_BYTES) {
		answer_put_embedding(out, (size_t)r->embedded, job->prompts[r->embedded].output,
		                dim, job->request.encoding_format);
		r->embedded++;
	}
	if (r->embedded < job->n_prompts)
		return FILL_MORE;
	answer_close_embeddings(out, &m.meta);
	return FILL_END;
}

/* ---- classes ---- */

void respond_write_classes(struct call *call, struct buffer *out) {
	const struct job *job = call->job;
	const struct model *model = generation_model(call->generation);
	const struct classifier_facts *facts = &model->facts.classifiers[job->classifier];
	struct answer_classifier classifier = { .head = facts->name,
		.labels = (const char *const *)model->labels[job->classifier],
		.classes = facts->classes,
		.logits = job->request.return_logits };
	size_t n = (size_t)job->n_prompts;
	const float **scores = calloc(n + 1, sizeof *scores);
	struct respond_meta m;
	for (size_t i = 0; scores && i < n; i++)
		scores[i] = job->prompts[i].output;
	respond_meta(call, &m);
	if (scores)
		answer_write_classes(out, &m.meta, &classifier, scores, n);
	else
		out->failed = true;
	free(scores);
}

/* ---- masks ---- */

/* All fills of an answer, and their texts one after the other. */
struct fills {
	struct answer_mask *masks; /* [n_masks] */
	struct answer_fill *fills; /* [n_fills] */
	size_t *text_begins;       /* [n_fills + 1] */
	size_t n_masks, n_fills;
	struct buffer texts;
};

static bool fills_init(struct fills *f, const struct job *job) {
	size_t masks = 0;
	for (int i = 0; i < job->n_prompts; i++)
		masks += (size_t)job->prompts[i].n_masks;
	size_t fills = masks * (size_t)job->n_top; /* resolve_encoder bounds it */
	*f = (struct fills){ .masks = calloc(masks + 1, sizeof *f->masks),
		.fills = calloc(fills + 1, sizeof *f->fills),
		.text_begins = calloc(fills + 1, sizeof *f->text_begins) };
	return f->masks && f->fills && f->text_begins;
}

static void fills_finish(struct fills *f) {
	free(f->masks);
	free(f->fills);
	free(f->text_begins);
	buffer_finish(&f->texts);
}

/* The fills of mask k of a text; the other masks stay masks. */
static void add_mask(struct fills *f, const struct model *model, const struct job *job, int text,
                int k) {
	const struct job_prompt *prompt = &job->prompts[text];
	const struct token_logprob *best = prompt->fills + (size_t)k * (size_t)job->n_top;
	int32_t *at = &prompt->tokens[prompt->masks[k]], mask = *at;
	f->masks[f->n_masks++] = (struct answer_mask){ (size_t)text, prompt->masks[k],
		f->fills + f->n_fills, (size_t)job->n_top };
	for (int i = 0; i < job->n_top; i++) {
		struct answer_fill *fill = &f->fills[f->n_fills++];
		fill->token = best[i].token;
		fill->logprob = best[i].logprob;
		fill->bytes = tokenizer_bytes(model->tokenizer, fill->token, &fill->len);
		*at = fill->token;
		compose_text(model->tokenizer, prompt->tokens, prompt->n_tokens, mask, &f->texts);
		f->text_begins[f->n_fills] = f->texts.len;
	}
	*at = mask;
}

void respond_write_fills(struct call *call, struct buffer *out) {
	const struct job *job = call->job;
	const struct model *model = generation_model(call->generation);
	struct fills f;
	struct respond_meta m;
	bool ok = fills_init(&f, job);
	for (int i = 0; ok && i < job->n_prompts; i++) {
		for (int k = 0; k < job->prompts[i].n_masks; k++)
			add_mask(&f, model, job, i, k);
	}
	ok = ok && !f.texts.failed;
	for (size_t i = 0; ok && i < f.n_fills; i++) {
		f.fills[i].text = f.texts.data + f.text_begins[i];
		f.fills[i].text_len = f.text_begins[i + 1] - f.text_begins[i];
	}
	respond_meta(call, &m);
	if (ok)
		answer_write_fills(out, &m.meta, f.masks, f.n_masks);
	else
		out->failed = true;
	fills_finish(&f);
}
