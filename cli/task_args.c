/* SPDX-License-Identifier: Apache-2.0 */
/* The flags of tasks, for every command that takes one. */
#include <string.h>

#include "cli/task.h"

const struct task_options task_defaults = {
	.sample_break_mode = "none", .unit = "line", .length_penalty = -1, .max_len_b = 200
};

const char task_usage[] =
                "\nData:\n"
                "  --data FILE            text (lm), table with a header line (classify), or\n"
                "                         lines of \"source<TAB>reference\" (translate)\n"
                "  --target FILE          references, line by line, if --data has sources only\n"
                "  --task NAME            lm, classify or translate; default: what the model is\n"
                "  --limit N              only the first N texts\n"
                "  --batch N              texts at once; 1 gives the time of a text alone\n"
                "  --pretokenized         words are separated by spaces already\n"
                "  --threads N, --kernels NAME, --cpu-level NAME, --weights NAME, --kv NAME,\n"
                "  --packed-cache MODE    as for fathom serve\n\n"
                "Language models, as fairseq-eval-lm:\n"
                "  --tokens-per-sample N  tokens of a block with its context; default 512\n"
                "  --context-window N     tokens that a block sees before those it scores\n"
                "  --sample-break-mode M  none, complete or eos\n"
                "  --unit U               what the end symbol closes: line, paragraph, file\n\n"
                "Classification:\n"
                "  --text-column, --pair-column, --label-column NAME   of the header line\n"
                "  --head NAME            which head, if there are several\n\n"
                "Translation:\n"
                "  --num-beams N, --length-penalty X\n"
                "  --max-len-a X, --max-len-b N   most tokens: a x source + b; default 200\n";

int task_args(struct task_options *o, struct session_options *s, struct arg *args) {
	const struct arg list[] = {
		{ "data", ARG_TEXT, &o->data, 0, 0 },
		{ "target", ARG_TEXT, &o->target, 0, 0 },
		{ "task", ARG_TEXT, &o->kind, 0, 0 },
		{ "limit", ARG_INT, &o->limit, 1, 1e9 },
		{ "batch", ARG_INT, &o->batch, 1, 1024 },
		{ "pretokenized", ARG_FLAG, &o->pretokenized, 0, 0 },
		{ "threads", ARG_INT, &s->threads, 1, 1024 },
		{ "kernels", ARG_TEXT, &s->kernels, 0, 0 },
		{ "cpu-level", ARG_TEXT, &s->cpu_level, 0, 0 },
		{ "weights", ARG_TEXT, &s->weights, 0, 0 },
		{ "kv", ARG_TEXT, &s->kv, 0, 0 },
		{ "packed-cache", ARG_TEXT, &s->packed_cache, 0, 0 },
		{ "tokens-per-sample", ARG_INT, &o->tokens_per_sample, 1, 1 << 20 },
		{ "context-window", ARG_INT, &o->context_window, 0, 1 << 20 },
		{ "sample-break-mode", ARG_TEXT, &o->sample_break_mode, 0, 0 },
		{ "unit", ARG_TEXT, &o->unit, 0, 0 },
		{ "text-column", ARG_TEXT, &o->text_column, 0, 0 },
		{ "pair-column", ARG_TEXT, &o->pair_column, 0, 0 },
		{ "label-column", ARG_TEXT, &o->label_column, 0, 0 },
		{ "head", ARG_TEXT, &o->head, 0, 0 },
		{ "num-beams", ARG_INT, &o->num_beams, 1, 16 },
		{ "length-penalty", ARG_NUMBER, &o->length_penalty, 0, 100 },
		{ "max-len-a", ARG_NUMBER, &o->max_len_a, 0, 100 },
		{ "max-len-b", ARG_INT, &o->max_len_b, 0, 1 << 20 },
	};
	memcpy(args, list, sizeof list);
	return (int)(sizeof list / sizeof *list);
}
