/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs for tests. */
#include "tests/rig.h"

#include <math.h>

#include "server/resolve.h"
#include "server/submit.h"
#include "tests/check.h"

void rig_open(struct rig *rig, const char *name) {
	char err[512] = "", *nothing[] = { NULL };
	bool help;
	memset(rig, 0, sizeof *rig);
	if (!config_load(&rig->config, 0, nothing, nothing, &help, NULL, 0, err, sizeof err))
		check_fail(__FILE__, __LINE__, "config: %s", err);
	struct model_options options = { .ops = ops_c(), .threads = 1 };
	rig->model = model_open(check_data(name), &options, err, sizeof err);
	if (!rig->model)
		check_fail(__FILE__, __LINE__, "model: %s", err);
	rig->team = team_create(2, err, sizeof err);
	rig->metrics = metrics_create(&rig->model->facts);
	if (!rig->team || !rig->metrics)
		check_fail(__FILE__, __LINE__, "team or metrics: %s", err);
	rig->config.max_rows = 32;
	rig->config.prefill_rows = 8;
	rig->config.max_running = 8;
}

void rig_close(struct rig *rig) {
	metrics_destroy(rig->metrics);
	team_destroy(rig->team);
	model_close(rig->model);
	config_finish(&rig->config);
}

struct job *rig_try(
                const struct rig *rig, enum request_kind kind, const char *body, struct error *e) {
	struct request_limits limits;
	struct request request;
	*e = (struct error){ 0 };
	submit_limits(&rig->config, &limits);
	if (!request_parse(kind, body, strlen(body), &limits, &request, e))
		return NULL;
	return resolve_job(rig->model, &rig->config, &request, e);
}

struct job *rig_job(const struct rig *rig, enum request_kind kind, const char *body) {
	struct error e;
	struct job *job = rig_try(rig, kind, body, &e);
	if (!job)
		check_fail(__FILE__, __LINE__, "%s: %s (%s)", body, error_name(e.code), e.message);
	return job;
}

void rig_refused(const struct rig *rig, enum request_kind kind, const char *body,
                enum error_code code, const char *param) {
	struct error e;
	struct job *job = rig_try(rig, kind, body, &e);
	if (job) {
		job_destroy(job);
		check_fail(__FILE__, __LINE__, "%s was accepted", body);
	}
	if (e.code != code || strcmp(e.param, param) != 0)
		check_fail(__FILE__, __LINE__, "%s: %s, param \"%s\": %s", body, error_name(e.code),
		                e.param, e.message);
}

static double logprob_of(const float *logits, int n, int token) {
	double most = logits[0], sum = 0;
	for (int i = 1; i < n; i++)
		most = logits[i] > most ? logits[i] : most;
	for (int i = 0; i < n; i++)
		sum += exp(logits[i] - most);
	return logits[token] - most - log(sum);
}

void rig_greedy(const struct rig *rig, const struct plan *plan, const int32_t *prompt, int n_prompt,
                int n, int32_t *ret_tokens, double *ret_logprobs) {
	char err[256];
	/* A team of its own: the rig's may be busy with an engine. */
	struct team *team = team_create(1, err, sizeof err);
	if (!team)
		check_fail(__FILE__, __LINE__, "team: %s", err);
	struct workspace_options options = { .team = team,
		.max_rows = 1,
		.max_logit_rows = 1,
		.max_sequences = 1,
		.kv_bytes = 4 << 20 };
	struct workspace *w = workspace_create(rig->model, &options, err, sizeof err);
	struct subnet subnet = { 0 };
	subnet.stack[STACK_DECODER] = *plan;
	struct sequence *s = w ? sequence_open(w, &subnet, n_prompt + n) : NULL;
	if (!s)
		check_fail(__FILE__, __LINE__, "no workspace");
	for (int i = 0; i < n_prompt + n - 1; i++) {
		int32_t token = i < n_prompt ? prompt[i] : ret_tokens[i - n_prompt];
		struct row row = { s, STACK_DECODER, token, i };
		step_run(w, &row, 1);
		if (i < n_prompt - 1)
			continue;
		int index = 0, best = 0;
		const float *logits = step_logits(w, &index, 1);
		for (int k = 1; k < rig->model->facts.vocab; k++)
			best = logits[k] > logits[best] ? k : best;
		ret_tokens[i - n_prompt + 1] = best;
		if (ret_logprobs)
			ret_logprobs[i - n_prompt + 1] =
			                logprob_of(logits, rig->model->facts.vocab, best);
	}
	sequence_close(w, s);
	workspace_destroy(w);
	team_destroy(team);
}
