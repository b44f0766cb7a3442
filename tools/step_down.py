#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What stepping down in the middle of an answer does to perplexity.

A request that falls behind goes on at a nested, shallower plan, with the keys and values that the
deeper plan left in the kept layers. Its text is then no single plan's text. This measures, on the
second half of every block, the perplexity of three ways to get there:

  deep      the deep plan throughout
  stepped   the deep plan on the first half, the nested plan on the second
  shallow   the nested plan throughout

    tools/step_down.py deploy/demo --text test.txt --pairs 12:6,12:3,6:3
"""
import argparse
import math

if __name__ == "__main__":
    import packages
    packages.need("torch", "numpy", "regex")

import torch

import bpe
import reference


class Stepping(reference.Reference):
    """Rows from `at` on keep only the layers of `nested`."""

    at, nested = 0, frozenset()

    def layer(self, x, index):
        deeper = super().layer(x, index)
        if index in self.nested:
            return deeper
        return torch.cat([deeper[:self.at], x[self.at:]])


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


def second_half(model, blocks, plan, at, nested):
    model.at, model.nested = at, frozenset(nested)
    total, count = 0.0, 0
    for block in blocks:
        log_p = model.log_probabilities(block, plan)[at:]
        total, count = total - float(log_p.sum()), count + len(log_p)
    return math.exp(total / count)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=(
        argparse.RawDescriptionHelpFormatter))
    parser.add_argument("folder")
    parser.add_argument("--text", required=True, help="held-out text")
    parser.add_argument("--pairs", default="12:6,12:3,6:3", help="deep:nested depths")
    parser.add_argument("--tokens-per-sample", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=60)
    args = parser.parse_args()
    model = Stepping(args.folder, torch.float32)
    tokenizer, start = bpe.Tokenizer(args.folder), model.facts["bos"]
    with open(args.text, encoding="utf-8") as file:
        stream = [t for d in file.read().split("\n\n") for t in tokenizer.encode(d) + [start]]
    length = args.tokens_per_sample
    blocks = [[start] + stream[i:i + length] for i in range(0, len(stream) - length, length)]
    blocks, layers = blocks[:args.blocks], model.facts["layers"]
    print(f"perplexity of the second half of {len(blocks)} blocks of {length} tokens\n")
    print("| deep to nested | deep | stepped | shallow |\n|---|---|---|---|")
    for pair in args.pairs.split(","):
        deep, shallow = (int(d) for d in pair.split(":"))
        plan = reference.even(layers, deep)
        nested = nested_plan(plan, layers, shallow)
        ways = [second_half(model, blocks, p, length // 2, n)
                for p, n in ((plan, plan), (plan, nested), (nested, nested))]
        print(f"| {deep} to {shallow} | " + " | ".join(f"{w:.1f}" for w in ways) + " |", flush=True)


if __name__ == "__main__":
    main()
