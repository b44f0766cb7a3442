#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write tests/beam_cases.h: what fairseq's beam search finds in small random Markov chains.

The search is written down here on whole score arrays with torch.topk, the way
fairseq/sequence_generator.py (0.12) does it for one sentence, and shares nothing with model/beam.c.
"""
import torch

EOS, PAD, UNK = 2, 1, 3


def search(table, beam, lenpen, max_len, min_len, unk_penalty):
    """Hypotheses [(tokens, scores of each, score)], best first; table[last] are logits."""
    vocab = table.shape[0]
    tokens = torch.full((beam, max_len + 2), PAD)
    tokens[:, 0] = EOS
    scores = torch.zeros(beam, max_len + 1, dtype=torch.float64)
    ignore = torch.zeros(beam, dtype=torch.bool)
    finalized = []
    for step in range(max_len + 1):
        lprobs = torch.log_softmax(table[tokens[:, step]], -1)
        lprobs[:, PAD] = -torch.inf
        lprobs[:, UNK] -= unk_penalty
        if step >= max_len:
            lprobs[:, :EOS] = -torch.inf
            lprobs[:, EOS + 1:] = -torch.inf
        elif step < min_len:
            lprobs[:, EOS] = -torch.inf
        if step == 0:
            lprobs = lprobs[:1]
        else:
            lprobs = lprobs + scores[:, step - 1, None]
        flat = lprobs.reshape(-1)
        cand_scores, indices = flat.topk(min(beam * 2, len(flat) - 1))
        cand_beams, cand_tokens = indices // vocab, indices % vocab
        eos_mask = cand_tokens.eq(EOS) & cand_scores.ne(-torch.inf)
        eos_mask[:beam][ignore] = False
        for i in range(beam):
            if eos_mask[i] and len(finalized) < beam:
                row = int(cand_beams[i])
                ids = torch.cat([tokens[row, 1:step + 1], torch.tensor([EOS])])
                sums = torch.cat([scores[row, :step], cand_scores[i:i + 1]])
                each = torch.cat([sums[:1], sums[1:] - sums[:-1]])
                finalized.append((ids.tolist(), each.tolist(),
                                  float(cand_scores[i]) / (step + 1) ** lenpen))
        if len(finalized) == beam or step >= max_len:
            break
        eos_mask[:beam] = ~(~ignore & ~eos_mask[:beam])
        active = eos_mask.long() * 2 * beam + torch.arange(2 * beam)[:len(eos_mask)]
        order, chosen = torch.topk(active, k=beam, largest=False)
        ignore = order.ge(2 * beam)
        rows = cand_beams[chosen]
        tokens, scores = tokens[rows].clone(), scores[rows].clone()
        tokens[:, step + 1] = cand_tokens[chosen]
        scores[:, step] = cand_scores[chosen]
    return sorted(finalized, key=lambda h: -h[2])


def main():
    torch.manual_seed(20)
    out = ["/* SPDX-License-Identifier: Apache-2.0 */",
           "/* Written by tests/make_beam_cases.py: what fairseq's search finds. */",
           "#ifndef FATHOM_TESTS_BEAM_CASES_H", "#define FATHOM_TESTS_BEAM_CASES_H", "",
           "enum { CASE_VOCAB = 12, CASE_HYPOTHESES = 8, CASE_TOKENS = 16 };", "",
           "struct beam_case {", "\tint beams, max_tokens, min_tokens;",
           "\tdouble length_penalty, unk_penalty;", "\tint n;", "\tstruct {", "\t\tint n;",
           "\t\tint tokens[CASE_TOKENS];", "\t\tdouble score, first, last;",
           "\t} hypotheses[CASE_HYPOTHESES];", "};", "", "/* clang-format off */"]
    table = torch.randn(12, 12, dtype=torch.float64) * 1.5 - 3 * torch.eye(12)
    table = table.mul(1000).round() / 1000
    rows = ["\t{ " + ", ".join(f"{x:g}f" for x in row.tolist()) + " }," for row in table]
    out += ["/* Scores of the next token, by the last one. */",
            "static const float case_logits[CASE_VOCAB][CASE_VOCAB] = {", *rows, "};", "",
            "static const struct beam_case beam_cases[] = {"]
    for beam, max_len, min_len, lenpen, unk in [
            (1, 14, 1, 1.0, 0.0), (2, 14, 1, 1.0, 0.0), (5, 14, 1, 1.0, 0.0), (5, 14, 1, 0.4, 0.0),
            (8, 14, 1, 0.4, 0.0), (5, 14, 1, 0.0, 0.0), (4, 14, 6, 1.0, 0.0), (4, 2, 1, 1.0, 0.0),
            (3, 14, 1, 2.0, 1.5), (5, 1, 1, 1.0, 0.0)]:
        found = search(table, beam, lenpen, max_len, min_len, unk)
        out.append(f"\t{{ {beam}, {max_len}, {min_len}, {lenpen}, {unk}, {len(found)}, {{")
        for ids, each, score in found:
            ids = ", ".join(map(str, ids))
            size = ids.count(",") + 1
            out.append(f"\t\t{{ {size}, {{ {ids} }}, {score:.9f}, {each[0]:.9f}, {each[-1]:.9f} }},")
        out.append("\t} },")
    out += ["};", "/* clang-format on */", "", "#endif"]
    print("\n".join(out))


main()
