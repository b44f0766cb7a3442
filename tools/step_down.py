#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What stepping down in the middle of an answer does to it.

A request that falls behind goes on at a nested, shallower plan, with the keys and values that the
deeper plan left in the kept layers. Its text is then no single plan's text. Three ways to get there
are compared:

  deep      the deep plan throughout
  stepped   the deep plan up to the step, the nested plan after it
  shallow   the nested plan throughout

Language models: perplexity of what follows the step, on blocks of held-out text, for several places
of the step. Translations (the encoder always whole, the step in the decoder, in the middle of the
target): perplexity of the given target after the step, and BLEU of what beam search makes, whose
tokens before the step are then the deep plan's own.

    tools/step_down.py deploy/demo --text test.txt --pairs 12:6,12:3,6:3
    tools/step_down.py deploy/demo-translate --data deploy/demo-translate/test.tsv --pairs 6:3,5:3
"""
import argparse
import math

if __name__ == "__main__":
    import packages
    packages.need("torch", "numpy", "regex")

import torch

import bleu
import bpe
import folder
import reference
import reference_seq2seq

END = reference_seq2seq.END


class SteppingModel(reference.Reference):
    """Rows from `at` on keep only the layers of `nested`."""

    at, nested = 0, frozenset()

    def layer(self, x, index):
        deeper = super().layer(x, index)
        if index in self.nested:
            return deeper
        return torch.cat([deeper[:self.at], x[self.at:]])


class SteppingTranslator(reference_seq2seq.Seq2Seq):
    """The decoder's rows from `at` on keep only the layers of `nested`."""

    at, nested = 0, frozenset()

    def layer(self, x, side, index, memory):
        deeper = super().layer(x, side, index, memory)
        if side == "encoder" or index in self.nested:
            return deeper
        return torch.cat([deeper[..., :self.at, :], x[..., self.at:, :]], -2)


def nested_plan(plan, layers, depth):
    """The order-preserving choice of `depth` layers of `plan` nearest to the even rule."""
    wanted = reference.even(layers, depth)
    best = {(0, 0): (0, [])}  # (layers of the plan seen, chosen): (distance, choice)
    for seen, layer in enumerate(plan):
        for chosen in range(depth + 1):
            if (seen, chosen) not in best:
                continue
            cost, choice = best[seen, chosen]
            options = [((seen + 1, chosen), (cost, choice))]
            if chosen < depth:
                step = abs(layer - wanted[chosen])
                options.append(((seen + 1, chosen + 1), (cost + step, choice + [layer])))
            for place, option in options:
                if place not in best or option < best[place]:
                    best[place] = option
    return best[len(plan), depth][1]


def plans_of(pair, layers):
    deep, shallow = (int(d) for d in pair.split(":"))
    plan = reference.even(layers, deep)
    return plan, nested_plan(plan, layers, shallow)


def perplexity(parts):
    parts = torch.cat(parts)
    return math.exp(-float(parts.double().mean()))


def change(value, base):
    return f"{100 * (value / base - 1):+.1f} %"


def language_model(args):
    model = SteppingModel(args.folder, torch.float32)
    tokenizer, start = bpe.Tokenizer(args.folder), model.facts["bos"]
    with open(args.text, encoding="utf-8") as file:
        stream = [t for d in file.read().split("\n\n") for t in tokenizer.encode(d) + [start]]
    length, layers, known = args.tokens_per_sample, model.facts["layers"], {}
    blocks = [[start] + stream[i:i + length] for i in range(0, len(stream) - length, length)]
    apart = max(len(blocks) // args.blocks, 1)
    blocks = blocks[::apart][:args.blocks]

    def scored(plan, at, nested):
        """Log-probabilities of each block."""
        model.at, model.nested = at, frozenset(nested)
        return [model.log_probabilities(block, plan) for block in blocks]

    def throughout(plan):
        if tuple(plan) not in known:
            known[tuple(plan)] = scored(plan, 0, plan)
        return known[tuple(plan)]

    print(f"Perplexity of {len(blocks)} blocks of {length} tokens: of what follows the step, and "
          "of the whole.\n")
    print("| depths | step after | deep | stepped | shallow | stepped against shallow "
          "| whole: stepped | shallow | |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for pair in args.pairs.split(","):
        plan, nested = plans_of(pair, layers)
        for share in args.at.split(","):
            at = int(float(share) * length)
            ways = throughout(plan), scored(plan, at, nested), throughout(nested)
            deep, stepped, shallow = (perplexity([log_p[at:] for log_p in w]) for w in ways)
            whole, base = perplexity(ways[1]), perplexity(ways[2])
            print(f"| {len(plan)} to {len(nested)} | {at} tokens | {deep:.1f} | {stepped:.1f} | "
                  f"{shallow:.1f} | {change(stepped, shallow)} | {whole:.1f} | {base:.1f} | "
                  f"{change(whole, base)} |", flush=True)


def translations(args):
    model = SteppingTranslator.from_folder(args.folder, torch.float32)
    tokenizer = bpe.Tokenizer(args.folder)
    with open(args.data, encoding="utf-8") as file:
        texts = [line.rstrip("\n").split("\t") for line in file][:args.sentences]
    pairs = [(tokenizer.encode(source) + [END], tokenizer.encode(target) + [END])
             for source, target in texts]
    encoder = list(range(model.facts["encoder"]["layers"]))
    layers, known = model.facts["decoder"]["layers"], {}

    def measured(plan, nested, stepping):
        """Perplexity of the targets' second halves, BLEU of the answers."""
        model.nested, log_p, answers = frozenset(nested), [], []
        for source, target in pairs:
            model.at = len(target) // 2 if stepping else 0
            log_p.append(model.log_probabilities(source, target, (encoder, plan))
                         [len(target) // 2:])
            best = model.beam(source, (encoder, plan), args.beam, 1.0, len(source) + 50)[0]
            answers.append(tokenizer.decode(best[1][:-1]))
        return perplexity(log_p), bleu.corpus_bleu(answers, [target for _, target in texts])

    def throughout(plan):
        if tuple(plan) not in known:
            known[tuple(plan)] = measured(plan, plan, False)
        return known[tuple(plan)]

    print(f"{len(pairs)} sentences, {len(encoder)} encoder layers, beam {args.beam}; the step is in "
          "the middle of the target: perplexity of the given target after it, BLEU of the "
          "translations.\n")
    print("| decoder depths | perplexity: deep | stepped | shallow | stepped against shallow "
          "| BLEU: deep | stepped | shallow |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    for pair in args.pairs.split(","):
        plan, nested = plans_of(pair, layers)
        ways = [throughout(plan), measured(plan, nested, True), throughout(nested)]
        (deep, stepped, shallow), scores = zip(*ways)
        print(f"| {len(plan)} to {len(nested)} | {deep:.2f} | {stepped:.2f} | {shallow:.2f} | "
              f"{change(stepped, shallow)} | " + " | ".join(f"{s:.1f}" for s in scores) + " |",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    parser.add_argument("folder")
    parser.add_argument("--text", help="held-out text, for a language model")
    parser.add_argument("--data", help="source TAB target lines, for translations")
    parser.add_argument("--pairs", help="deep:nested depths; default: a table's worth")
    parser.add_argument("--at", default="0.25,0.5,0.75",
                        help="where the step is, as shares of a block (language models)")
    parser.add_argument("--tokens-per-sample", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=60, help="taken evenly from the text")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--beam", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    translating = "decoder" in folder.read_config(args.folder)
    if not (args.data if translating else args.text):
        parser.error("a model for translation needs --data, a language model --text")
    args.pairs = args.pairs or ("6:3,6:4,5:3" if translating else "12:9,12:6,12:4,12:3,9:6,9:3,6:3")
    (translations if translating else language_model)(args)


if __name__ == "__main__":
    main()
