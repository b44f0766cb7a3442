#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check tools/reference_seq2seq.py against what fairseq computed from a checkpoint of its own.

    tools/check_reference_seq2seq.py [FIXTURE]

FIXTURE holds checkpoint.pt and expected.json: hypotheses of unmodified fairseq for several keep
lists and beams. Without it there is nothing to compare, and the check is skipped.
"""
import json
import os
import sys

if __name__ == "__main__":
    import packages
    packages.need("torch", "numpy", "regex")

import torch

import reference_seq2seq
import unpickle

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT = os.path.join(HERE, "..", "..", "shared", "fixtures", "mt12x6-multi30k")
TOLERANCE = 2e-4


def read_checkpoint(path):
    return {name: torch.from_numpy(tensor.array())
            for name, tensor in unpickle.load(path)["model"].items()
            if not name.endswith(("version", "_float_tensor"))}


def facts_of(weights, heads):
    """The fixture's options: pre-norm both sides, sinusoidal positions, one embedding, ReLU."""
    facts = {}
    for side in ("encoder", "decoder"):
        width = weights[side + ".embed_tokens.weight"].shape[1]
        layers = {int(n.split(".")[2]) for n in weights if n.startswith(side + ".layers.")}
        facts[side] = {"layers": len(layers), "dim": width, "heads": heads, "activation": "relu",
                       "pre": True, "final_norm": True, "embedding_norm": False, "eps": 1e-5,
                       "positions": "sinusoidal", "offset": 2, "scale": width ** 0.5,
                       "context": 1024}
    return facts


def differences(model, output, plans):
    """(whether the ids agree, largest difference of a score) of one source."""
    found = model.beam(output["source_ids"], plans, output["beam"], output["lenpen"],
                       output.get("max_len_b", 100))
    worst, same = 0.0, True
    if output["beam"] == 1:
        same = found[0][1] == model.greedy(output["source_ids"], plans, 100)
    for wanted, (score, ids, positional) in zip(output["hypotheses"], found):
        if wanted["ids"] != ids:  # an exact tie may come in another order
            same &= abs(wanted["score"] - score) < 5e-5 and wanted["ids"] in [f[1] for f in found]
            continue
        gaps = [wanted["score"] - score] + [a - b for a, b in
                                            zip(wanted["positional_scores"], positional)]
        worst = max(worst, *map(abs, gaps))
    return same, worst


def main():
    fixture = sys.argv[1] if len(sys.argv) > 1 else DEFAULT
    if not os.path.exists(os.path.join(fixture, "checkpoint.pt")):
        print(f"skipped: no checkpoint.pt in {os.path.normpath(fixture)}")
        return
    torch.set_num_threads(1)
    with open(os.path.join(fixture, "expected.json"), encoding="utf-8") as file:
        expected = json.load(file)
    weights = read_checkpoint(os.path.join(fixture, "checkpoint.pt"))
    model = reference_seq2seq.Seq2Seq(facts_of(weights, 4), weights, torch.float32)
    failed = False
    for case in expected["cases"]:
        plans = []
        for side in ("encoder", "decoder"):
            keep = case[side + "_layers_to_keep"]
            plans.append([int(i) for i in keep.split(",")] if keep
                         else list(range(model.facts[side]["layers"])))
        results = [differences(model, output, plans) for output in case["outputs"]]
        same, worst = all(r[0] for r in results), max(r[1] for r in results)
        failed |= not same or worst > TOLERANCE
        print(f"encoder {plans[0]}, decoder {plans[1]}: {len(results)} searches, ids "
              f"{'agree' if same else 'DIFFER'}, largest difference {worst:.1e}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
