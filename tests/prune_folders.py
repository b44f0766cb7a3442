#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes pruned copies of a model folder for tests/test_golden.c, named by the layers they keep:
every depth by the even rule, and fifty random lists (all of them, if there are fewer). Needs
nothing but Python; tensors are copied as bytes. `tools/reference.py --prune-to` writes the same.

    tests/prune_folders.py FOLDER OUT
"""
import itertools
import json
import os
import random
import re
import shutil
import sys


def read_tensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: (t, data[slice(*t["data_offsets"])]) for name, t in header.items()}


def write_tensors(path, tensors):
    header, at = {}, 0
    for name, (t, data) in tensors.items():
        header[name] = {"dtype": t["dtype"], "shape": t["shape"],
                        "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(b"".join(data for _, data in tensors.values()))


def prune(source, config, tensors, plan, out):
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("model*", "goldens*", "*.md"))
    key = "n_layer" if "n_layer" in config else "num_hidden_layers"
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump({**config, key: len(plan)}, file)
    place, kept = {layer: rank for rank, layer in enumerate(plan)}, {}
    for name, tensor in tensors.items():
        found = re.search(r"(^|\.)(h|layers)\.(\d+)\.", name)
        if not found:
            kept[name] = tensor
        elif int(found[3]) in place:
            kept[name[:found.start(3)] + str(place[int(found[3])]) + name[found.end(3):]] = tensor
    write_tensors(os.path.join(out, "model.safetensors"), kept)


def main():
    source, out = sys.argv[1:]
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    tensors = read_tensors(os.path.join(source, "model.safetensors"))
    layers = config.get("n_layer") or config["num_hidden_layers"]
    plans = [[i * layers // depth for i in range(depth)] for depth in range(1, layers + 1)]
    others = [list(plan) for depth in range(1, layers + 1)
              for plan in itertools.combinations(range(layers), depth) if list(plan) not in plans]
    random.seed(1)
    plans += random.sample(others, min(50, len(others)))
    for plan in plans:
        prune(source, config, tensors, plan, os.path.join(out, "-".join(map(str, plan))))


main()
