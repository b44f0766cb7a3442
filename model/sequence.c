/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences: a subnet, a length, and a table of KV blocks for each kept layer, by rank.
 *
 * The blocks of the whole length are promised when a sequence opens and taken as it grows. All kept
 * layers hold the same number of blocks, so `capacity - blocks` more are promised for each of them.
 */
#include <assert.h>
#include <string.h>

#include "model/workspace.h"

static const struct plan *plan_of(const struct sequence *s) {
	return &s->subnet.stack[STACK_DECODER];
}

static float **rank_table(const struct workspace *w, const struct sequence *s, int rank) {
	return s->table + (size_t)rank * (size_t)w->table_stride;
}

static struct sequence *claim(struct workspace *w, const struct subnet *subnet, int tokens) {
	assert(subnet->stack[STACK_ENCODER].depth == 0);
	assert(subnet->stack[STACK_DECODER].of == workspace_stack(w)->layers);
	assert(subnet->stack[STACK_DECODER].depth >= 1);
	assert(1 <= tokens && tokens <= w->model->facts.context);
	struct sequence *s = w->unused;
	w->unused = s->next;
	s->next = NULL;
	s->open = true;
	s->subnet = *subnet;
	s->tokens = tokens;
	s->length = 0;
	s->blocks = 0;
	s->capacity = (tokens + KV_TILE - 1) / KV_TILE;
	return s;
}

struct sequence *sequence_open(struct workspace *w, const struct subnet *subnet, int tokens) {
	if (!w->unused || !kv_promise(&w->kv, workspace_blocks_needed(w, subnet, tokens)))
		return NULL;
	return claim(w, subnet, tokens);
}

struct sequence *sequence_fork(struct workspace *w, const struct sequence *s, int tokens) {
	assert(s->open && tokens >= s->length);
	int depth = plan_of(s)->depth, full = s->length / KV_TILE;
	bool partial = s->length % KV_TILE != 0;
	size_t needed = workspace_blocks_needed(w, &s->subnet, tokens) - (size_t)depth * full;
	if (!w->unused || needed > kv_available(&w->kv))
		return NULL;

	struct sequence *fork = claim(w, &s->subnet, tokens);
	fork->length = s->length;
	fork->blocks = full + partial;
	for (int r = 0; r < depth; r++) {
		float **from = rank_table(w, s, r), **to = rank_table(w, fork, r);
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
	float **table = rank_table(w, s, rank);
	for (int t = 0; t < s->blocks; t++)
		kv_release(&w->kv, table[t]);
	kv_withdraw(&w->kv, (size_t)(s->capacity - s->blocks));
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
	                || nested->stack[STACK_ENCODER].depth
	                                != s->subnet.stack[STACK_ENCODER].depth)
		return false;
	int kept = 0;
	for (int r = 0; r < old->depth; r++) {
		if (kept < new->depth && old->layers[r] == new->layers[kept]) {
			memmove(rank_table(w, s, kept), rank_table(w, s, r),
			                (size_t)s->blocks * sizeof(float *));
			kept++;
		} else {
			release_rank(w, s, r);
		}
	}
	s->subnet = *nested;
	return true;
}

void sequence_extend(struct workspace *w, struct sequence *s, int count) {
	assert(s->open && s->length + count <= s->tokens);
	int depth = plan_of(s)->depth;
	int blocks = (s->length + count + KV_TILE - 1) / KV_TILE;
	for (int r = 0; r < depth; r++) {
		float **table = rank_table(w, s, r);
		if (s->length % KV_TILE != 0)
			table[s->blocks - 1] = kv_separate(&w->kv, table[s->blocks - 1]);
		for (int t = s->blocks; t < blocks; t++)
			table[t] = kv_take(&w->kv);
	}
	s->blocks = blocks;
}
