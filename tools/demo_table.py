#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Perplexity at every depth of a model and of its twin trained without LayerDrop.

Takes what `tools/reference.py FOLDER --perplexity TEXT` printed for each, writes
FOLDER/quality.json and prints the table of both in Markdown.

    tools/reference.py deploy/demo --dtype f32 --perplexity test.txt > demo.json
    tools/reference.py twin --dtype f32 --perplexity test.txt > twin.json
    tools/demo_table.py deploy/demo --results demo.json --twin twin.json
"""
import argparse
import json
import os

import folder


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="model folder to write quality.json to")
    parser.add_argument("--results", required=True)
    parser.add_argument("--twin", required=True)
    parser.add_argument("--data", default="held-out text", help="what the text is, in words")
    args = parser.parse_args()
    ours, twin = read(args.results), read(args.twin)
    folder.write_json({"data": args.data, **ours}, os.path.join(args.folder, "quality.json"))
    full, twin_full = ours["depths"][-1]["perplexity"], twin["depths"][-1]["perplexity"]
    print("| depth | layers kept | LayerDrop | x full | LayerDrop 0 | x full |")
    print("|---:|---|---:|---:|---:|---:|")
    for a, b in reversed(list(zip(ours["depths"], twin["depths"]))):
        kept = "all" if a["depth"] == len(ours["depths"]) else " ".join(map(str, a["layers"]))
        print(f"| {a['depth']} | {kept} | {a['perplexity']:.1f} | {a['perplexity'] / full:.2f} | "
              f"{b['perplexity']:.1f} | {b['perplexity'] / twin_full:.2f} |")


if __name__ == "__main__":
    main()
