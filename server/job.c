/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs: the memory that an answer needs, all of it, before it runs. */
#include "server/job.h"

#include <stdlib.h>

enum {
	TEXT_SLACK = 16,
	TEXT_GROWTH = 3, /* one ill-formed byte becomes U+FFFD, three bytes */
};

/* n x m elements; NULL if they are not to be had. Never NULL for nothing. */
static void *array(size_t n, size_t m, size_t size) {
	size_t count;
	if (__builtin_mul_overflow(n, m, &count))
		return NULL;
	return calloc(count ? count : 1, size);
}

/* Numbers of each prompt's output. */
static size_t outputs(const struct job *job, const struct facts *facts) {
	if (job->work == WORK_EMBED)
		return (size_t)facts->stack[STACK_ENCODER].dim;
	return job->work == WORK_CLASSIFY ? (size_t)facts->classifiers[job->classifier].classes : 0;
}

static bool allocate_prompt(struct job *job, const struct facts *facts, struct job_prompt *p) {
	size_t n = (size_t)(p->target ? p->n_target : p->n_tokens), top = (size_t)job->n_top;
	size_t n_output = outputs(job, facts);
	bool ok = true;
	if (n_output > 0)
		ok = (p->output = array(n_output, 1, sizeof *p->output)) != NULL;
	if (job->work == WORK_FILL_MASK)
		ok = (p->fills = array((size_t)p->n_masks, top, sizeof *p->fills)) != NULL;
	if (!job->want_prompt_logprobs)
		return ok;
	p->logprobs = array(n, 1, sizeof *p->logprobs);
	if (top > 0)
		p->tops = array(n, top, sizeof *p->tops);
	return ok && p->logprobs && (p->tops || top == 0);
}

static bool allocate_choice(struct job *job, struct choice *c, size_t longest_token) {
	/* A hypothesis that is forced to end has its end symbol beyond max_tokens. */
	c->cap = job->max_tokens + (job->num_beams > 0);
	size_t cap = (size_t)c->cap, top = (size_t)job->n_top;
	c->stop_index = -1;
	c->tokens = array(cap, 1, sizeof *c->tokens);
	size_t per_token = longest_token * TEXT_GROWTH;
	if (__builtin_mul_overflow(cap, per_token, &c->text_cap))
		return false;
	c->text_cap += TEXT_SLACK;
	c->text = malloc(c->text_cap);
	if (!c->tokens || !c->text)
		return false;
	if (!job->want_logprobs)
		return true;
	c->logprobs = array(cap, 1, sizeof *c->logprobs);
	c->token_text_end = array(cap, 1, sizeof *c->token_text_end);
	if (top > 0)
		c->tops = array(cap, top, sizeof *c->tops);
	return c->logprobs && c->token_text_end && (c->tops || top == 0);
}

bool job_allocate(struct job *job, const struct model *model, struct error *e) {
	size_t longest_token = tokenizer_longest(model->target_tokenizer);
	bool ok = true;
	for (int i = 0; i < job->n_prompts; i++)
		ok = ok && allocate_prompt(job, &model->facts, &job->prompts[i]);
	job->choices = array((size_t)job->n_choices, 1, sizeof *job->choices);
	for (int i = 0; job->choices && i < job->n_choices; i++)
		ok = ok && allocate_choice(job, &job->choices[i], longest_token);
	if (ok && job->choices)
		return true;
	return error_set(e, ERROR_INTERNAL, "",
	                "The server has no memory for an answer of this size; ask for fewer or "
	                "shorter ones.");
}

void job_destroy(struct job *job) {
	if (!job)
		return;
	for (int i = 0; job->prompts && i < job->n_prompts; i++) {
		free(job->prompts[i].tokens);
		free(job->prompts[i].logprobs);
		free(job->prompts[i].tops);
		free(job->prompts[i].target);
		free(job->prompts[i].output);
		free(job->prompts[i].masks);
		free(job->prompts[i].fills);
	}
	for (int i = 0; job->choices && i < job->n_choices; i++) {
		struct choice *c = &job->choices[i];
		free(c->tokens);
		free(c->logprobs);
		free(c->tops);
		free(c->token_text_end);
		free(c->text);
	}
	free(job->prompts);
	free(job->choices);
	free(job->bias);
	free(job->banned);
	request_finish(&job->request);
	free(job);
}
