#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes pruned copies of a model folder for tests/test_golden.c, named by the layers they keep:
every depth by the even rule, and fifty random lists (all of them, if there are fewer); of two
stacks every pair of depths, named "0-2+1", and fifty random pairs. Needs nothing but Python;
tensors are copied as bytes. `tools/reference.py --prune-to` writes the same.

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


STACKS = ("encoder", "decoder")


def layers_of(config):
    """Layers of each stack, by name; a language model has only one."""
    if STACKS[0] in config:
        return {s: config[s]["num_hidden_layers"] for s in STACKS if s in config}
    return {"decoder": config.get("n_layer") or config["num_hidden_layers"]}


def shallower(config, plans):
    """The config with as many layers as the plans keep."""
    if STACKS[0] in config:
        return {**config, **{s: {**config[s], "num_hidden_layers": len(plan)}
                             for s, plan in plans.items()}}
    key = "n_layer" if "n_layer" in config else "num_hidden_layers"
    return {**config, key: len(plans["decoder"])}


def prune(source, config, tensors, plans, out):
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("model*", "goldens*", "*.md"))
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(shallower(config, plans), file)
    kept = {}
    for name, tensor in tensors.items():
        found = re.search(r"(^|\.)(h|layers)\.(\d+)\.", name)
        if not found:
            kept[name] = tensor
            continue
        plan = plans["encoder" if name.startswith("encoder.") else "decoder"]
        if int(found[3]) in plan:
            rank = plan.index(int(found[3]))
            kept[name[:found.start(3)] + str(rank) + name[found.end(3):]] = tensor
    write_tensors(os.path.join(out, "model.safetensors"), kept)


def lists(layers):
    """The even rule at every depth, and all other lists in random order."""
    rule = [[i * layers // depth for i in range(depth)] for depth in range(1, layers + 1)]
    others = [list(plan) for depth in range(1, layers + 1)
              for plan in itertools.combinations(range(layers), depth) if list(plan) not in rule]
    random.shuffle(others)
    return rule, others


def main():
    source, out = sys.argv[1:]
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    tensors = read_tensors(os.path.join(source, "model.safetensors"))
    layers = layers_of(config)
    random.seed(1)
    rules, others = zip(*(lists(n) for n in layers.values()))
    chosen = list(itertools.product(*rules))
    if len(layers) == 1:
        chosen += [(plan,) for plan in others[0][:50]]
    else:
        both = [rule + other for rule, other in zip(rules, others)]
        more = [pair for pair in itertools.product(*both) if pair not in chosen]
        chosen += random.sample(more, min(50, len(more)))
    for plans in chosen:
        name = "+".join("-".join(map(str, plan)) for plan in plans)
        prune(source, config, tensors, dict(zip(layers, plans)), os.path.join(out, name))


main()
