/* SPDX-License-Identifier: Apache-2.0 */
/* Packing in parallel: the chunks of all jobs are numbered, and each thread takes its share. */
#include "model/pack.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/team.h"

enum {
	CHUNK_FLOATS = 1 << 18,
	SLICE_CHUNKS = 8, /* of each thread between two reports: some megabytes of the checkpoint */
	TURN = 16,        /* input channels turned together, so that a write fills a cache line */
};

struct packer {
	const struct pack_job *jobs;
	size_t n_jobs;
	const struct ops *ops;
	int members, n_chunks;
	int first, count;                 /* chunks of the slice in progress */
	size_t chunk_floats, turn_floats; /* of the largest chunk, and of its turning space */
	float *scratch;                   /* [members][chunk_floats + turn_floats] */
};

/* Rows of one chunk: whole panels, about a megabyte. Plain rows are one chunk. */
static int chunk_rows(const struct pack_job *job, const struct ops *ops) {
	if (!job->panels)
		return job->n_out;
	int panels = CHUNK_FLOATS / job->n_in / ops->panel;
	int64_t rows = (int64_t)(panels > 0 ? panels : 1) * ops->panel;
	return rows < job->n_out ? (int)rows : job->n_out;
}

static int chunks_of(const struct pack_job *job, const struct ops *ops) {
	int rows = chunk_rows(job, ops);
	return (job->n_out + rows - 1) / rows;
}

/* Columns [begin, begin + count) of the stored [n_in, rows] become rows of dst. */
static void turn(float *dst, const struct pack_source *s, int n_in, int begin, int count,
                float *space) {
	const char *bytes = s->data;
	size_t element = dtype_size(s->dtype);
	for (int k = 0; k < n_in; k += TURN) {
		int width = n_in - k < TURN ? n_in - k : TURN;
		for (int i = 0; i < width; i++) {
			size_t at = (size_t)(k + i) * (size_t)s->rows + (size_t)begin;
			dtype_widen(space + (size_t)i * (size_t)count, bytes + at * element,
			                s->dtype, (size_t)count);
		}
		for (int j = 0; j < count; j++) {
			float *row = dst + (size_t)j * (size_t)n_in + k;
			for (int i = 0; i < width; i++)
				row[i] = space[(size_t)i * (size_t)count + (size_t)j];
		}
	}
}

/* Rows [first, first + count) of the job as f32, row-major. */
static void gather(float *dst, const struct pack_job *job, int first, int count, float *space) {
	for (int i = 0; i < job->n_sources; i++) {
		const struct pack_source *s = &job->sources[i];
		int begin = first > s->first ? first : s->first;
		int end = first + count < s->first + s->rows ? first + count : s->first + s->rows;
		if (begin >= end)
			continue;
		size_t n_in = (size_t)job->n_in;
		float *rows = dst + (size_t)(begin - first) * n_in;
		const char *bytes = s->data;
		size_t at = (size_t)(begin - s->first) * n_in * dtype_size(s->dtype);
		if (s->transposed)
			turn(rows, s, job->n_in, begin - s->first, end - begin, space);
		else
			dtype_widen(rows, bytes + at, s->dtype, (size_t)(end - begin) * n_in);
	}
}

/* The rows where they lie, if they are aligned f32 of one source; else NULL. */
static const float *in_place(const struct pack_job *job, int first, int count) {
	for (int i = 0; i < job->n_sources; i++) {
		const struct pack_source *s = &job->sources[i];
		if (first < s->first || first + count > s->first + s->rows)
			continue;
		if (s->dtype != DTYPE_F32 || s->transposed || (uintptr_t)s->data % sizeof(float))
			return NULL;
		return (const float *)s->data + (size_t)(first - s->first) * (size_t)job->n_in;
	}
	return NULL;
}

static void pack_chunk(
                const struct packer *p, const struct pack_job *job, int chunk, float *scratch) {
	if (!job->panels) {
		gather(job->data, job, 0, job->n_out, NULL);
		return;
	}
	int rows = chunk_rows(job, p->ops);
	int first = chunk * rows;
	int count = job->n_out - first < rows ? job->n_out - first : rows;
	const float *src = in_place(job, first, count);
	if (!src) {
		gather(scratch, job, first, count, scratch + p->chunk_floats);
		src = scratch;
	}
	p->ops->formats[job->format].pack(job->data, job->n_in, src, first, count);
}

static void pack_member(void *arg, int member) {
	const struct packer *p = arg;
	float *scratch = p->scratch + (size_t)member * (p->chunk_floats + p->turn_floats);
	int first, end, at = 0;
	team_share(p->count, member, p->members, &first, &end);
	first += p->first;
	end += p->first;
	for (size_t i = 0; i < p->n_jobs && at < end; i++) {
		int n = chunks_of(&p->jobs[i], p->ops);
		for (int c = at < first ? first - at : 0; c < n && at + c < end; c++)
			pack_chunk(p, &p->jobs[i], c, scratch);
		at += n;
	}
}

static void count_chunks(struct packer *p) {
	for (size_t i = 0; i < p->n_jobs; i++) {
		const struct pack_job *job = &p->jobs[i];
		p->n_chunks += chunks_of(job, p->ops);
		if (!job->panels)
			continue;
		size_t rows = (size_t)chunk_rows(job, p->ops);
		if (rows * (size_t)job->n_in > p->chunk_floats)
			p->chunk_floats = rows * (size_t)job->n_in;
		if (rows * TURN > p->turn_floats)
			p->turn_floats = rows * TURN;
	}
}

bool pack_run(const struct pack_job *jobs, size_t n_jobs, const struct pack_options *options,
                char *err, size_t errlen) {
	struct packer p = { .jobs = jobs, .n_jobs = n_jobs, .ops = options->ops };
	p.members = options->threads > 1 ? options->threads : 1;
	count_chunks(&p);
	struct team *team = team_create(p.members, err, errlen);
	if (!team)
		return false;
	p.scratch = calloc((size_t)p.members, (p.chunk_floats + p.turn_floats) * sizeof(float));
	if (!p.scratch)
		snprintf(err, errlen, "out of memory for packing the weights");
	for (; p.scratch && p.first < p.n_chunks; p.first += p.count) {
		int left = p.n_chunks - p.first, slice = SLICE_CHUNKS * p.members;
		p.count = left < slice ? left : slice;
		team_run(team, pack_member, &p);
		if (options->progress)
			options->progress(options->arg,
			                (double)(p.first + p.count) / (double)p.n_chunks);
	}
	bool ok = p.scratch != NULL;
	team_destroy(team);
	free(p.scratch);
	return ok;
}
