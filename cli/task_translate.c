/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translation: BLEU of what beam search finds, and the loss of the references (teacher-forced),
 * which needs no search. Sentences of similar length run side by side; results do not depend on
 * who runs beside whom.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bleu.h"
#include "cli/task_parts.h"
#include "model/beam.h"
#include "proto/utf8.h"

enum { ROWS = 1024, LOGIT_ROWS = 96, MOST_SENTENCES = 16, SCORED_SENTENCES = 32 };

struct pair {
	struct ids source, target; /* target: without start symbol, with the end symbol */
	char *reference;
	char *text; /* the last hypothesis */
};

struct translate {
	struct pair *pairs;
	int n, cap;
	int *order;            /* by source length */
	int side_by_side;      /* sentences that are translated at once */
	int start[2], n_start; /* what every answer begins with */
	struct beam *beams[MOST_SENTENCES];
	struct row *rows;
};

/* ---- reading ---- */

static char *copy(const char *text, size_t len) {
	char *s = malloc(len + 1);
	if (s) {
		memcpy(s, text, len);
		s[len] = '\0';
	}
	return s;
}

static bool add_pair(struct task *t, struct translate *tr, const char *source, size_t source_len,
                const char *target, size_t target_len, char *err, size_t errlen) {
	const struct model *model = t->session->model;
	if (tr->n == tr->cap) {
		int cap = tr->cap ? 2 * tr->cap : 1024;
		struct pair *grown = realloc(tr->pairs, (size_t)cap * sizeof *grown);
		if (!grown) {
			snprintf(err, errlen, "memory ran out");
			return false;
		}
		tr->pairs = grown;
		tr->cap = cap;
	}
	struct pair *p = &tr->pairs[tr->n];
	memset(p, 0, sizeof *p);
	if (!task_encode(t, model->tokenizer, source, source_len, NULL, 0, true, &p->source, err,
	                    errlen))
		return false;
	tr->n++;
	const int longest = model->facts.stack[STACK_ENCODER].context;
	if (p->source.n > longest) {
		snprintf(err, errlen, "source %d has %d tokens, and the model reads at most %d",
		                tr->n, p->source.n, longest);
		return false;
	}
	if (!task_encode(t, model->target_tokenizer, target, target_len, NULL, 0, false, &p->target,
	                    err, errlen))
		return false;
	/* Start symbols go in before it, and its last token only comes out. */
	if (p->target.n > model->facts.context - tr->n_start) {
		snprintf(err, errlen, "reference %d has %d tokens, and the model writes at most %d",
		                tr->n, p->target.n, model->facts.context - tr->n_start);
		return false;
	}
	int32_t *ended = realloc(p->target.at, ((size_t)p->target.n + 1) * sizeof *ended);
	p->target.at = ended ? ended : p->target.at;
	p->reference = copy(target, target_len);
	if (!ended || !p->reference) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	p->target.at[p->target.n++] = model->facts.eos;
	return true;
}

/*
 * Cuts the reference off a line that holds both and a tab between; further columns say nothing.
 * False if there is no tab.
 */
static bool split_line(
                const char *line, size_t *len, const char **ret_target, size_t *ret_target_len) {
	const char *end = line + *len, *tab = memchr(line, '\t', *len);
	if (!tab)
		return false;
	const char *next = memchr(tab + 1, '\t', (size_t)(end - tab - 1));
	*len = (size_t)(tab - line);
	*ret_target = tab + 1;
	*ret_target_len = (size_t)((next ? next : end) - tab - 1);
	return true;
}

/* `targets` NULL: the references stand in the lines of `file`. */
static bool add_pairs(struct task *t, struct translate *tr, const char *file, size_t len,
                const char *targets, size_t targets_len, char *err, size_t errlen) {
	const struct task_options *o = &t->options;
	const char *at = file, *target_at = targets, *line, *target;
	size_t n, target_len;
	while ((o->limit == 0 || tr->n < o->limit) && task_next_line(&at, file + len, &line, &n)) {
		bool found = targets ? task_next_line(&target_at, targets + targets_len, &target,
		                             &target_len)
		                     : split_line(line, &n, &target, &target_len);
		if (!found) {
			snprintf(err, errlen, "%s: line %d has no reference%s", o->data, tr->n + 1,
			                targets ? "" : " after a tab; --target names their file");
			return false;
		}
		if (!add_pair(t, tr, line, n, target, target_len, err, errlen))
			return false;
	}
	if (tr->n == 0)
		snprintf(err, errlen, "%s: no text", o->data);
	else if (targets && o->limit == 0
	                && task_next_line(&target_at, targets + targets_len, &target, &target_len))
		snprintf(err, errlen, "%s has more lines than %s", o->target, o->data);
	else
		return true;
	return false;
}

/* Source and reference from two files, or from one. */
static bool read_pairs(struct task *t, struct translate *tr, char *err, size_t errlen) {
	const struct task_options *o = &t->options;
	size_t len, targets_len = 0;
	char *targets = NULL, *file = task_read_file(o->data, &len, err, errlen);
	if (file && o->target)
		targets = task_read_file(o->target, &targets_len, err, errlen);
	bool ok = file && (targets || !o->target)
	                && add_pairs(t, tr, file, len, targets, targets_len, err, errlen);
	free(file);
	free(targets);
	return ok;
}

static const struct pair *sorting; /* qsort has no argument for it */

static int by_length(const void *a, const void *b) {
	int x = *(const int *)a, y = *(const int *)b;
	int order = sorting[y].source.n - sorting[x].source.n;
	return order ? order : x - y;
}

static bool set_order(struct translate *tr) {
	tr->order = calloc((size_t)tr->n, sizeof *tr->order);
	if (!tr->order)
		return false;
	for (int i = 0; i < tr->n; i++)
		tr->order[i] = i;
	sorting = tr->pairs;
	qsort(tr->order, (size_t)tr->n, sizeof *tr->order, by_length);
	return true;
}

/* ---- sizes ---- */

/* Most tokens of an answer to a source: a x source length + b, as far as the model goes. */
static int max_tokens(const struct task *t, const struct translate *tr, int source) {
	const struct facts *facts = &t->session->model->facts;
	double most = t->options.max_len_a * source + t->options.max_len_b;
	int room = facts->context - tr->n_start;
	return most < 1 ? 1 : most > room ? room : (int)most;
}

static bool prepare(struct task *t, struct translate *tr, char *err, size_t errlen) {
	const struct facts *facts = &t->session->model->facts;
	int beams = t->options.num_beams, longest = 0, target = 0, tokens = 0;
	for (int i = 0; i < tr->n; i++) {
		int n = tr->pairs[i].source.n, most = max_tokens(t, tr, n);
		longest = n > longest ? n : longest;
		tokens = most > tokens ? most : tokens;
		target = tr->pairs[i].target.n > target ? tr->pairs[i].target.n : target;
	}
	int at_once = t->options.batch > 0 ? t->options.batch : MOST_SENTENCES;
	at_once = at_once > MOST_SENTENCES ? MOST_SENTENCES : at_once;
	while (at_once > 1 && at_once * beams > LOGIT_ROWS)
		at_once--;
	tr->side_by_side = at_once;
	for (int i = 0; i < at_once; i++) {
		tr->beams[i] = beam_create(beams, tokens);
		if (!tr->beams[i]) {
			snprintf(err, errlen, "memory ran out");
			return false;
		}
	}
	int rows = ROWS > facts->stack[STACK_ENCODER].context + target
	                ? ROWS
	                : facts->stack[STACK_ENCODER].context + target + tr->n_start;
	tr->rows = calloc((size_t)rows, sizeof *tr->rows);
	if (!tr->rows) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	int sequences = at_once * beams > SCORED_SENTENCES ? at_once * beams : SCORED_SENTENCES;
	tokens = (tokens > target ? tokens : target) + tr->n_start;
	return session_prepare(t->session,
	                &(struct session_size){ .rows = rows,
	                                .logit_rows = LOGIT_ROWS,
	                                .sequences = sequences,
	                                .tokens = tokens,
	                                .source_tokens = longest },
	                err, errlen);
}

static bool open_translate(struct task *t, char *err, size_t errlen) {
	struct translate *tr = t->data = calloc(1, sizeof *tr);
	const struct model *model = t->session->model;
	if (!tr) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	if (t->options.num_beams == 0)
		t->options.num_beams =
		                model->defaults.num_beams > 0 ? model->defaults.num_beams : 5;
	if (t->options.num_beams > MAX_BEAMS) {
		snprintf(err, errlen, "--num-beams is at most %d", MAX_BEAMS);
		return false;
	}
	if (t->options.length_penalty < 0)
		t->options.length_penalty = model->defaults.length_penalty;
	tr->start[tr->n_start++] = model->facts.decoder_start;
	if (model->facts.forced_bos >= 0)
		tr->start[tr->n_start++] = model->facts.forced_bos;
	if (tr->n_start >= model->facts.context) {
		snprintf(err, errlen, "the decoder has no room for an answer");
		return false;
	}
	if (!read_pairs(t, tr, err, errlen))
		return false;
	if (!set_order(tr)) {
		snprintf(err, errlen, "memory ran out");
		return false;
	}
	t->items = tr->n;
	return prepare(t, tr, err, errlen);
}

static void close_translate(struct task *t) {
	struct translate *tr = t->data;
	if (!tr)
		return;
	for (int i = 0; i < tr->n; i++) {
		free(tr->pairs[i].source.at);
		free(tr->pairs[i].target.at);
		free(tr->pairs[i].reference);
		free(tr->pairs[i].text);
	}
	for (int i = 0; i < MOST_SENTENCES; i++)
		beam_destroy(tr->beams[i]);
	free(tr->pairs);
	free(tr->order);
	free(tr->rows);
	free(tr);
}

/* ---- rows ---- */

static void add_source(struct translate *tr, int *n, const struct ids *ids, struct sequence *s) {
	for (int i = 0; i < ids->n; i++)
		tr->rows[(*n)++] = (struct row){
			.sequence = s, .stack = STACK_ENCODER, .token = ids->at[i], .position = i
		};
}

static void add_target(
                struct translate *tr, int *n, int32_t token, struct sequence *s, int position) {
	tr->rows[(*n)++] = (struct row){
		.sequence = s, .stack = STACK_DECODER, .token = token, .position = position
	};
}

/* ---- the loss of references ---- */

static bool score_targets(struct task *t, const int *rows, const int32_t *targets, int n,
                double *loss, char *err, size_t errlen) {
	struct session *s = t->session;
	struct logit_need needs[LOGIT_ROWS];
	for (int at = 0; at < n; at += LOGIT_ROWS) {
		int m = n - at < LOGIT_ROWS ? n - at : LOGIT_ROWS;
		for (int i = 0; i < m; i++)
			needs[i] = (struct logit_need){ .top = 0, .target = targets[at + i] };
		const float *logits = step_logits_needed(s->w, rows + at, needs, m);
		for (int i = 0; i < m; i++) {
			float logprob;
			if (!sample_logprobs(s->sampler,
			                    logits + (size_t)i * step_logits_stride(s->w),
			                    targets[at + i], 0, &logprob, NULL, NULL)) {
				snprintf(err, errlen, "the model's scores are not finite");
				return false;
			}
			*loss -= (double)logprob;
		}
	}
	return true;
}

/* Scores as many pairs as a step holds; returns how many, 0 on failure. */
static int score_some(struct task *t, const struct subnet *subnet, int from, double *loss,
                long *tokens, char *err, size_t errlen) {
	struct translate *tr = t->data;
	struct session *s = t->session;
	struct sequence *open[SCORED_SENTENCES];
	int n = 0, count = 0, tiles = 0, scored = 0;
	int *rows = calloc((size_t)s->max_rows, sizeof *rows);
	int32_t *targets = calloc((size_t)s->max_rows, sizeof *targets);
	while (rows && targets && from + count < tr->n && count < SCORED_SENTENCES) {
		const struct pair *p = &tr->pairs[tr->order[from + count]];
		int given = tr->n_start + p->target.n - 1;
		tiles += (p->source.n + KV_TILE - 1) / KV_TILE;
		if (n + p->source.n + given > s->max_rows || tiles > workspace_source_tiles(s->w))
			break;
		struct sequence *sequence = sequence_open_source(s->w, subnet, given, p->source.n);
		if (!sequence)
			break;
		open[count++] = sequence;
		add_source(tr, &n, &p->source, sequence);
		for (int i = 0; i < given; i++) {
			int at = i - tr->n_start; /* of the target token that goes in */
			if (at + 1 >= 0) {
				rows[scored] = n;
				targets[scored++] = p->target.at[at + 1];
			}
			add_target(tr, &n, at < 0 ? tr->start[i] : p->target.at[at], sequence, i);
		}
	}
	bool ok = count > 0;
	if (ok) {
		step_run(s->w, tr->rows, n);
		ok = score_targets(t, rows, targets, scored, loss, err, errlen);
	} else {
		snprintf(err, errlen, "memory ran out");
	}
	for (int i = 0; i < count; i++)
		sequence_close(s->w, open[i]);
	free(rows);
	free(targets);
	*tokens += scored;
	return ok ? count : 0;
}

/* ---- searching ---- */

/* The rows of one sentence in a step: its last `beams` rows' logits are the search's. */
static bool advance(struct task *t, struct translate *tr, const int *indices, const int *first,
                int count, int n_rows, char *err, size_t errlen) {
	struct session *s = t->session;
	struct logit_need needs[LOGIT_ROWS];
	int n = first[count];
	step_run(s->w, tr->rows, n_rows);
	for (int i = 0; i < count; i++) {
		for (int k = first[i]; k < first[i + 1]; k++)
			needs[k] = beam_need(tr->beams[i]);
	}
	const float *logits = step_logits_needed(s->w, indices, needs, n);
	size_t stride = step_logits_stride(s->w);
	for (int i = 0; i < count; i++) {
		if (first[i] == first[i + 1])
			continue;
		if (!beam_advance(tr->beams[i], s->w, s->sampler,
		                    logits + (size_t)first[i] * stride, stride)) {
			snprintf(err, errlen, "the model's scores are not finite");
			return false;
		}
	}
	return true;
}

static bool begin(struct task *t, struct translate *tr, const struct subnet *subnet, int from,
                int count, char *err, size_t errlen) {
	const struct facts *facts = &t->session->model->facts;
	int indices[MOST_SENTENCES], first[MOST_SENTENCES + 1], n = 0;
	for (int i = 0; i < count; i++) {
		const struct ids *source = &tr->pairs[tr->order[from + i]].source;
		int most = max_tokens(t, tr, source->n);
		struct beam_options options = { .beams = t->options.num_beams,
			.length_penalty = t->options.length_penalty,
			.max_tokens = most,
			.eos = facts->eos,
			.pad = facts->pad,
			.unk = -1,
			.sequence_tokens = most + tr->n_start };
		struct sequence *sequence = sequence_open_source(
		                t->session->w, subnet, options.sequence_tokens, source->n);
		if (!sequence) {
			snprintf(err, errlen, "memory ran out");
			return false;
		}
		beam_begin(tr->beams[i], &options, sequence);
		add_source(tr, &n, source, sequence);
		for (int k = 0; k < tr->n_start; k++)
			add_target(tr, &n, tr->start[k], sequence, k);
		first[i] = i;
		indices[i] = n - 1;
	}
	first[count] = count;
	return advance(t, tr, indices, first, count, n, err, errlen);
}

static bool search(struct task *t, struct translate *tr, int count, char *err, size_t errlen) {
	int indices[LOGIT_ROWS], first[MOST_SENTENCES + 1];
	for (;;) {
		int n = 0;
		for (int i = 0; i < count; i++) {
			first[i] = n;
			for (int k = 0; k < beam_live(tr->beams[i]); k++) {
				struct sequence *s = beam_sequence(tr->beams[i], k);
				indices[n] = n;
				add_target(tr, &n, beam_token(tr->beams[i], k), s,
				                sequence_length(s));
			}
		}
		first[count] = n;
		if (n == 0)
			return true;
		if (!advance(t, tr, indices, first, count, n, err, errlen))
			return false;
	}
}

/* One line of well-formed UTF-8, which is what can be compared and written: free it. */
static char *tidy(const char *text, size_t len) {
	char *line = malloc(3 * len + 1);
	size_t n = 0, bad;
	for (size_t i = 0; line && i < len;) {
		size_t good = utf8_sequence(text + i, len - i, &bad);
		if (good == 0) {
			memcpy(line + n, "\xef\xbf\xbd", 3); /* U+FFFD */
			n += 3;
			i += bad;
			continue;
		}
		memcpy(line + n, text + i, good);
		if (line[n] == '\n' || line[n] == '\r')
			line[n] = ' ';
		n += good;
		i += good;
	}
	while (line && n > 0 && line[n - 1] == ' ')
		n--;
	if (line)
		line[n] = '\0';
	return line;
}

/* The best hypothesis as people read it. */
static bool write_text(struct task *t, struct translate *tr, int which, struct pair *p) {
	const struct tokenizer *tokenizer = t->session->model->target_tokenizer;
	struct tokenizer_stream stream;
	struct hypothesis h = { 0 };
	if (beam_hypotheses(tr->beams[which]) > 0)
		beam_hypothesis(tr->beams[which], 0, &h);
	size_t room = tokenizer_stream_room(tokenizer), len = 0;
	char *text = malloc(((size_t)h.n_tokens + 2) * room + 1);
	if (!text)
		return false;
	tokenizer_stream_begin(tokenizer, &stream);
	for (int i = 0; i < h.n_tokens; i++) {
		if (h.tokens[i] != t->session->model->facts.eos)
			len += tokenizer_stream_add(tokenizer, &stream, h.tokens[i], text + len);
	}
	len += tokenizer_stream_end(tokenizer, &stream, text + len);
	free(p->text);
	p->text = tidy(text, len);
	free(text);
	return p->text;
}

/* Translates some sentences; returns how many, 0 on failure. */
static int translate_some(
                struct task *t, const struct subnet *subnet, int from, char *err, size_t errlen) {
	struct translate *tr = t->data;
	struct session *s = t->session;
	int count = 0, rows = 0, tiles = 0;
	while (count < tr->side_by_side && from + count < tr->n) {
		int n = tr->pairs[tr->order[from + count]].source.n;
		rows += n + tr->n_start;
		tiles += (n + KV_TILE - 1) / KV_TILE;
		if (rows > s->max_rows || tiles > workspace_source_tiles(s->w))
			break;
		count++;
	}
	bool ok = begin(t, tr, subnet, from, count, err, errlen)
	                && search(t, tr, count, err, errlen);
	for (int i = 0; i < count; i++) {
		beam_close(tr->beams[i], s->w);
		if (ok && !write_text(t, tr, i, &tr->pairs[tr->order[from + i]])) {
			snprintf(err, errlen, "memory ran out");
			ok = false;
		}
	}
	return ok ? count : 0;
}

static bool compare_texts(struct task *t, struct translate *tr, double *ret_bleu) {
	struct bleu bleu = { 0 };
	for (int i = 0; i < tr->n; i++) {
		const struct pair *p = &tr->pairs[i];
		if (!bleu_add(&bleu, p->text, strlen(p->text), p->reference, strlen(p->reference)))
			return false;
		if (t->options.output)
			fprintf(t->options.output, "%s\n", p->text);
	}
	*ret_bleu = bleu_score(&bleu);
	return true;
}

static bool run_translate(struct task *t, const struct subnet *subnet, bool quality,
                struct task_score *score, char *err, size_t errlen) {
	struct translate *tr = t->data;
	double loss = 0, share = quality ? 0.05 : 1;
	long tokens = 0;
	double began = task_now_ms();
	for (int i = 0, done; i < tr->n; i += done) {
		done = score_some(t, subnet, i, &loss, &tokens, err, errlen);
		if (done == 0)
			return false;
		task_report(t, share * (i + done) / tr->n);
	}
	score->ms = task_now_ms() - began;
	score->items = tr->n;
	score->loss = loss / (double)tokens;
	if (!quality)
		return true;
	began = task_now_ms();
	for (int i = 0, done; i < tr->n; i += done) {
		done = translate_some(t, subnet, i, err, errlen);
		if (done == 0)
			return false;
		task_report(t, share + (1 - share) * (i + done) / tr->n);
	}
	score->ms = task_now_ms() - began;
	if (compare_texts(t, tr, &score->quality))
		return true;
	snprintf(err, errlen, "memory ran out");
	return false;
}

const struct task_kind task_translate = { .name = "translate",
	.metric = "bleu",
	.item = "sentence",
	.model = KIND_SEQ2SEQ,
	.open = open_translate,
	.close = close_translate,
	.run = run_translate };
