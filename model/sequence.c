/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences: a subnet, a length, and a table of KV blocks for each kept layer, by rank.
 *
 * The blocks of the whole length are promised when a sequence opens and taken as it grows. All kept
 * layers hold the same number of blocks, so `capacity - blocks` more are promised for each of them.
 *
 * The keys and values of a source are further blocks of each kept decoder layer, taken when the
 * source goes through the encoder. They are never written again, so forks share them by reference.
 */
#include <assert.h>
#include <string.h>

#include "model/workspace.h"

static const struct plan *plan_of(const struct sequence *s) {
	return &s->subnet.stack[STACK_DECODER];
}

static void **rank_table(const struct workspace *w, const struct sequence *s, int rank) {
	return s->table + (size_t)rank * (size_t)w->table_stride;
}

static void **source_rank(const struct workspace *w, const struct sequence *s, int rank) {
	return s->source_table + (size_t)rank * (size_t)w->source_stride;
}

static void check_subnet(const struct workspace *w, const struct subnet *subnet, int tokens,
                int source_tokens) {
	const struct plan *encoder = &subnet->stack[STACK_ENCODER],
	                  *decoder = &subnet->stack[STACK_DECODER];
	const struct stack_facts *source = stack_facts(w, STACK_ENCODER);
	assert(tokens >= 0 && tokens <= w->model->facts.context);
	assert(source_tokens >= 0 && source_tokens <= source->context);
	assert(source_tokens <= w->max_rows);
	assert((encoder->depth > 0) == (source_tokens > 0));
	assert(tokens + source_tokens > 0);
	assert(encoder->depth == 0 || encoder->of == source->layers);
	assert(tokens == 0 || decoder->depth > 0);
	assert(decoder->depth == 0 || decoder->of == stack_facts(w, STACK_DECODER)->layers);
	assert(tokens == 0 || source_tokens > 0 || !stack_facts(w, STACK_DECODER)->cross);
	(void)encoder, (void)decoder, (void)source, (void)tokens, (void)source_tokens;
}

static struct sequence *claim(
                struct workspace *w, const struct subnet *subnet, int tokens, int source_tokens) {
	check_subnet(w, subnet, tokens, source_tokens);
	struct sequence *s = w->unused;
	w->unused = s->next;
	s->next = NULL;
	s->open = true;
	s->subnet = *subnet;
	s->tokens = tokens;
	s->length = 0;
	s->blocks = 0;
	s->capacity = kv_tiles(tokens);
	s->source_tokens = source_tokens;
	s->source_blocks = kv_tiles(source_tokens);
	s->source_done = false;
	s->narrowed = false;
	return s;
}

struct sequence *sequence_open(struct workspace *w, const struct subnet *subnet, int tokens) {
	return sequence_open_source(w, subnet, tokens, 0);
}

struct sequence *sequence_open_source(
                struct workspace *w, const struct subnet *subnet, int tokens, int source_tokens) {
	size_t needed = workspace_blocks_needed(w, subnet, tokens)
	                + workspace_source_blocks(w, subnet, source_tokens);
	if (!w->unused || !kv_promise(&w->kv, needed))
		return NULL;
	return claim(w, subnet, tokens, source_tokens);
}

struct sequence *sequence_open_cached(struct workspace *w, const struct subnet *subnet, int tokens,
                const struct prefix_scope *scope, const int32_t *prompt, int n) {
	struct prefix_path path = { NULL, 0, 0 };
	if (w->prefix)
		prefix_lookup(w->prefix, &subnet->stack[STACK_DECODER], scope, prompt, n - 1,
		                &path);
	size_t held = workspace_blocks_needed(w, subnet, path.tiles * KV_TILE);
	size_t needed = workspace_blocks_needed(w, subnet, tokens) - held;
	/* What was idle is in use from now on. */
	if (!w->unused || needed + path.idle > kv_available(&w->kv))
		return NULL;
	struct sequence *s = claim(w, subnet, tokens, 0);
	if (path.tiles > 0)
		prefix_take(w->prefix, &path, s->table, (size_t)w->table_stride);
	s->blocks = path.tiles;
	s->length = path.tiles * KV_TILE;
	bool promised = kv_promise(&w->kv, needed);
	assert(promised);
	(void)promised;
	return s;
}

int sequence_catch_up(struct workspace *w, struct sequence *s, const struct prefix_scope *scope,
                const int32_t *prompt, int n) {
	const struct plan *plan = plan_of(s);
	struct prefix_path path = { NULL, 0, 0 };
	assert(s->open && s->source_tokens == 0);
	if (w->prefix && !s->narrowed)
		prefix_lookup(w->prefix, plan, scope, prompt, n - 1, &path);
	if (path.tiles * KV_TILE <= s->length)
		return s->length;
	/* A block of its own that is not in the path is in no cache, so what it gives back is as many
	 * blocks as it takes. */
	for (int r = 0; r < plan->depth; r++) {
		void **table = rank_table(w, s, r);
		for (int t = 0; t < s->blocks; t++)
			kv_release(&w->kv, table[t]);
	}
	kv_withdraw(&w->kv, (size_t)plan->depth * (size_t)(path.tiles - s->blocks));
	prefix_take(w->prefix, &path, s->table, (size_t)w->table_stride);
	s->blocks = path.tiles;
	s->length = path.tiles * KV_TILE;
	return s->length;
}

size_t workspace_blocks_shared(const struct workspace *w, const struct subnet *subnet,
                const struct prefix_scope *scope, const int32_t *prompt, int n) {
	struct prefix_path path = { NULL, 0, 0 };
	if (w->prefix)
		prefix_lookup(w->prefix, &subnet->stack[STACK_DECODER], scope, prompt, n - 1,
		                &path);
	return workspace_blocks_needed(w, subnet, path.tiles * KV_TILE) - path.idle;
}

void sequence_remember(struct workspace *w, const struct sequence *s,
                const struct prefix_scope *scope, const struct prefix_text *text) {
	assert(s->open && text->n + text->n_more <= s->length);
	if (w->prefix && !s->narrowed && s->source_tokens == 0)
		prefix_enter(w->prefix, plan_of(s), scope, text, s->table, (size_t)w->table_stride);
}

static void share_source(struct workspace *w, const struct sequence *s, struct sequence *fork) {
	for (int r = 0; r < plan_of(s)->depth; r++) {
		void **from = source_rank(w, s, r), **to = source_rank(w, fork, r);
		for (int t = 0; t < s->source_blocks; t++) {
			kv_share(&w->kv, from[t], false);
			to[t] = from[t];
		}
	}
	fork->source_done = s->source_done;
}

struct sequence *sequence_fork(struct workspace *w, const struct sequence *s, int tokens) {
	assert(s->open && tokens >= s->length);
	assert(s->source_done || s->source_tokens == 0);
	int depth = plan_of(s)->depth, full = s->length / KV_TILE;
	bool partial = s->length % KV_TILE != 0;
	size_t needed = workspace_blocks_needed(w, &s->subnet, tokens) - (size_t)depth * full;
	if (!w->unused || needed > kv_available(&w->kv))
		return NULL;

	struct sequence *fork = claim(w, &s->subnet, tokens, s->source_tokens);
	share_source(w, s, fork);
	fork->length = s->length;
	fork->narrowed = s->narrowed;
	fork->blocks = full + partial;
	for (int r = 0; r < depth; r++) {
		void **from = rank_table(w, s, r), **to = rank_table(w, fork, r);
		for (int t = 0; t < fork->blocks; t++) {
			kv_share(&w->kv, from[t], t == full);
			to[t] = from[t];
		}
	}
	bool promised = kv_promise(&w->kv, (size_t)depth * (fork->capacity - fork->blocks));
	assert(promised);
	(void)promised;
	return fork;
}

static void release_rank(struct workspace *w, struct sequence *s, int rank) {
	void **table = rank_table(w, s, rank);
	for (int t = 0; t < s->blocks; t++)
		kv_release(&w->kv, table[t]);
	kv_withdraw(&w->kv, (size_t)(s->capacity - s->blocks));

	void **source = source_rank(w, s, rank);
	for (int t = 0; s->source_done && t < s->source_blocks; t++)
		kv_release(&w->kv, source[t]);
	if (!s->source_done)
		kv_withdraw(&w->kv, (size_t)s->source_blocks);
}

void sequence_close(struct workspace *w, struct sequence *s) {
	if (!s)
		return;
	assert(s->open);
	for (int r = 0; r < plan_of(s)->depth; r++)
		release_rank(w, s, r);
	s->open = false;
	s->next = w->unused;
	w->unused = s;
}

int sequence_length(const struct sequence *s) {
	return s->length;
}

const struct subnet *sequence_subnet(const struct sequence *s) {
	return &s->subnet;
}

bool sequence_narrow(struct workspace *w, struct sequence *s, const struct subnet *nested) {
	const struct plan *old = plan_of(s), *new = &nested->stack[STACK_DECODER];
	if (new->depth < 1 || !plan_contains(old, new)
	                || !plan_equal(&nested->stack[STACK_ENCODER],
	                                &s->subnet.stack[STACK_ENCODER]))
		return false;
	int kept = 0;
	for (int r = 0; r < old->depth; r++) {
		if (kept < new->depth && old->layers[r] == new->layers[kept]) {
			memmove(rank_table(w, s, kept), rank_table(w, s, r),
			                (size_t)s->blocks * sizeof(void *));
			memmove(source_rank(w, s, kept), source_rank(w, s, r),
			                (size_t)s->source_blocks * sizeof(void *));
			kept++;
		} else {
			release_rank(w, s, r);
		}
	}
	s->narrowed = s->narrowed || new->depth < old->depth;
	s->subnet = *nested;
	return true;
}

void sequence_extend(struct workspace *w, struct sequence *s, int count) {
	assert(s->open && s->length + count <= s->tokens);
	int depth = plan_of(s)->depth, last = s->length / KV_TILE;
	int blocks = kv_tiles(s->length + count);
	for (int r = 0; r < depth; r++) {
		void **table = rank_table(w, s, r);
		/* Blocks after the last one may be left from before a rewind: nobody shares them. */
		if (s->length % KV_TILE != 0)
			table[last] = kv_separate(&w->kv, table[last]);
		for (int t = s->blocks; t < blocks; t++)
			table[t] = kv_take(&w->kv);
	}
	if (blocks > s->blocks)
		s->blocks = blocks;
}

/* Positions [from, to) of a block become zeros. */
static void clear_positions(const struct workspace *w, void *block, int from, int to) {
	const struct stack_facts *facts = stack_facts(w, STACK_DECODER);
	w->ops->kv_store(&(struct kv_rows){
	                .block = block,
	                .format = w->kv_format,
	                .k = w->zeros,
	                .v = w->zeros,
	                .position = from,
	                .count = to - from,
	                .n_heads = facts->heads,
	                .head_dim = facts->head_dim,
	                .heads = facts->heads,
	});
}

void sequence_rewind(struct workspace *w, struct sequence *s, int length, bool clear) {
	assert(s->open && 0 <= length && length <= s->length);
	for (int r = 0; clear && r < plan_of(s)->depth; r++) {
		void **table = rank_table(w, s, r);
		for (int from = length; from < s->length;) {
			int end = (from / KV_TILE + 1) * KV_TILE;
			int to = end < s->length ? end : s->length;
			clear_positions(w, table[from / KV_TILE], from, to);
			from = to;
		}
	}
	s->length = length;
}

void sequence_begin_source(struct workspace *w, struct sequence *s) {
	assert(s->open && !s->source_done);
	for (int r = 0; r < plan_of(s)->depth; r++) {
		void **table = source_rank(w, s, r);
		for (int t = 0; t < s->source_blocks; t++)
			table[t] = kv_take(&w->kv);
	}
	s->source_done = true;
}
