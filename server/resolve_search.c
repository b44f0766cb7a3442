/* SPDX-License-Identifier: Apache-2.0 */
/* Choices of a request: samples, or for encoder-decoders the hypotheses of a beam search. */
#include "model/beam.h"
#include "server/resolve.h"
#include "server/resolve_parts.h"

enum { DEFAULT_BEAMS = 5 }; /* fairseq's */

static bool unsupported(const char *field, const char *sentence, struct error *e) {
	return error_set(e, ERROR_UNSUPPORTED_PARAMETER, field, "%s", sentence);
}

/* Language models have no search: values that ask for none are taken. */
static bool check_no_search(const struct request *request, struct error *e) {
	if (request->num_beams.set && request->num_beams.value > 1)
		return unsupported("num_beams",
		                "Beam search is for encoder-decoder checkpoints; leave num_beams "
		                "out.",
		                e);
	if (request->length_penalty.set && request->length_penalty.value != 1)
		return unsupported("length_penalty",
		                "Beam search is for encoder-decoder checkpoints; leave "
		                "length_penalty out.",
		                e);
	return true;
}

/* What changes scores or texts on the way has no meaning that a search could keep. */
static bool check_search(const struct request *request, struct error *e) {
	const struct {
		const char *field;
		bool is_set;
	} others[] = {
		{ "stop", request->n_stops > 0 },
		{ "ignore_eos", request->ignore_eos },
		{ "logit_bias", request->n_logit_bias > 0 },
		{ "presence_penalty", request->presence_penalty.value != 0 },
		{ "frequency_penalty", request->frequency_penalty.value != 0 },
		{ "repetition_penalty",
		                request->repetition_penalty.set
		                                && request->repetition_penalty.value != 1 },
	};
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		if (others[i].is_set)
			return error_set(e, ERROR_UNSUPPORTED_PARAMETER, others[i].field,
			                "%s is not supported in a beam search; send num_beams 1, "
			                "or leave it out.",
			                others[i].field);
	}
	return true;
}

/* How wide an encoder-decoder searches; 1: not at all. */
static int choose_beams(const struct model *model, const struct config *config,
                const struct request *request) {
	int most = config->beams < MAX_BEAMS ? config->beams : MAX_BEAMS;
	int beams = model->defaults.num_beams > 0 ? model->defaults.num_beams : DEFAULT_BEAMS;
	if (request->num_beams.set)
		beams = (int)request->num_beams.value;
	else if (request->stream)
		beams = 1;
	return beams < most ? beams : most;
}

static bool check_hypotheses(const struct request *request, int beams, struct error *e) {
	if (request->best_of > request->n)
		return unsupported("best_of",
		                "A search answers the best of all its hypotheses; send num_beams "
		                "in place of best_of, or a temperature to sample.",
		                e);
	if (request->n > beams)
		return error_set(e, ERROR_INVALID_REQUEST, "n",
		                "n is %d, but a search of %d beam%s has no more hypotheses; send "
		                "num_beams of at least n, or a temperature to sample.",
		                request->n, beams, beams > 1 ? "s" : "");
	return true;
}

static bool settle_seq2seq(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	const struct request *request = &job->request;
	if (request->echo)
		return unsupported("echo",
		                "The prompt is a source text, which no answer continues; leave "
		                "echo out.",
		                e);
	job->length_penalty = request->length_penalty.set ? request->length_penalty.value
	                                                  : model->defaults.length_penalty;
	bool sampled = request->temperature.value > 0 && !request->num_beams.set;
	if (sampled)
		return true;
	int beams = choose_beams(model, config, request);
	if (!check_hypotheses(request, beams, e) || (beams > 1 && !check_search(request, e)))
		return false;
	/* One beam is greedy. It is searched like others where nothing asks for more: then an answer
	 * at its limit ends as fairseq's do. */
	bool plain = !request->stream && request->logprobs <= 0 && check_search(request, NULL);
	job->num_beams = beams > 1 || plain ? beams : 0;
	job->sampling.temperature = 0;
	if (beams > 1)
		job->sampling.repetition_penalty = 1;
	return true;
}

bool resolve_search(const struct model *model, const struct config *config, struct job *job,
                struct error *e) {
	const struct request *request = &job->request;
	job->n = request->n > 0 ? request->n : 1;
	job->best_of = request->best_of > 0 ? request->best_of : job->n;
	if (job->best_of < job->n || (request->stream && job->best_of > job->n))
		return error_set(e, ERROR_INVALID_REQUEST, "best_of",
		                "best_of must not be smaller than n, nor greater in a stream.");
	bool ok = model->facts.kind == KIND_SEQ2SEQ ? settle_seq2seq(model, config, job, e)
	                                            : check_no_search(request, e);
	job->n_choices = job->n_prompts * job->best_of;
	return ok;
}
