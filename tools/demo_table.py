#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Perplexity at every depth of a model and of its twin trained without LayerDrop.

Writes FOLDER/quality.json and prints the table of both in Markdown.

    tools/demo_table.py deploy/demo --twin twin-folder --text data/test.txt
"""
import argparse
import os

import torch

import folder
import reference


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--twin", required=True)
    parser.add_argument("--text", required=True, help="held-out text, as train.py reads it")
    parser.add_argument("--tokens-per-sample", type=int, default=512)
    parser.add_argument("--data", default="held-out text", help="what the text is, in words")
    args = parser.parse_args()
    results = []
    for path in (args.folder, args.twin):
        model = reference.Reference(path, torch.float32)
        layers = model.facts["layers"]
        results.append(reference.perplexities(model, path, args.text, args.tokens_per_sample,
                                              range(1, layers + 1), "even"))
    ours, twin = results
    folder.write_json({"data": args.data, "tokens": ours["tokens"],
                       "tokens_per_sample": args.tokens_per_sample, "metric": "perplexity",
                       "rule": "even", "depths": ours["depths"]},
                      os.path.join(args.folder, "quality.json"))
    full, twin_full = ours["depths"][-1]["perplexity"], twin["depths"][-1]["perplexity"]
    print("| depth | layers | LayerDrop 0.2 | x full | LayerDrop 0 | x full |")
    print("|---:|---|---:|---:|---:|---:|")
    for a, b in reversed(list(zip(ours["depths"], twin["depths"]))):
        kept = "all" if a["depth"] == len(ours["depths"]) else " ".join(map(str, a["layers"]))
        print(f"| {a['depth']} | {kept} | {a['perplexity']:.1f} | {a['perplexity'] / full:.2f} | "
              f"{b['perplexity']:.1f} | {b['perplexity'] / twin_full:.2f} |")


if __name__ == "__main__":
    main()
