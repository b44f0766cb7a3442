#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""This server and llama-server under the same clients, in turn: tokens per second over HTTP.

  bench/peers/serve.py --model gpt2-large --llama LLAMA/build/bin --weights bf16 --what clients
  bench/peers/serve.py --model gpt2-large --llama LLAMA/build/bin --weights bf16 --what mixed

clients  16 clients, 64 tokens in and 64 out, each client's requests one after another; no prompt is seen twice
mixed    12 clients, four each at all, half and a quarter of the layers, the same requests at each depth: one server of ours against three
         llama-servers with pruned files (they wait passively, for they share the processors) and against one with the full file.
         Counted in layer-tokens: each answered token times the depth that was asked for
"""
import argparse
import json
import os
import statistics
import sys

import servers
import sides
import weights

QUIET = 0.03


def cpu(alive):
    return sum(sides.processor_seconds(s.process.pid) for s in alive)


class Load:
    """Clients of one side: its servers, and for each client (server, depth)."""

    def __init__(self, name, alive, clients):
        self.name, self.servers, self.clients = name, alive, clients

    def run(self, options, everybody, seed):
        texts = servers.prompts(seed, options.facts["vocab"], len(self.clients) * options.requests, options.tokens)
        streams = [(server, depth, texts[i * options.requests:(i + 1) * options.requests], options.tokens)
                   for i, (server, depth) in enumerate(self.clients)]
        machine, own = sides.machine_seconds(), sides.own_seconds() + cpu(everybody)
        seconds, tokens, layers = servers.load(streams, options.requests)
        others = sides.machine_seconds() - machine - (sides.own_seconds() + cpu(everybody) - own)
        return {"side": self.name, "seconds": seconds, "tokens": tokens, "layer_tokens": layers,
                "others": round(max(0, others) / (seconds * os.cpu_count()), 4), "bytes": servers.resident_bytes(self.servers)}


def llama(options, streams, depth=0, passive=False):
    return servers.Llama(os.path.join(options.llama, "llama-server"), sides.gguf_file(options, options.weights, depth),
                         options.threads, streams, 2 * options.tokens + 32, passive)


def fathom(options):
    return servers.Fathom(options.binary, options.model, "--weights", options.weights, "--threads", str(options.threads), *options.flags)


def loads(options):
    layers = options.facts["layers"]
    if options.what == "clients":
        ours, theirs = fathom(options), llama(options, 16)
        return [Load("fathom", [ours], [(ours, layers)] * 16), Load("llama-server", [theirs], [(theirs, layers)] * 16)]
    depths = [layers, layers // 2, layers // 4]
    ours, full = fathom(options), llama(options, 12)
    pruned = [llama(options, 4, depth, passive=True) for depth in depths]
    return [Load("fathom", [ours], [(ours, depth) for depth in depths for _ in range(4)]),
            Load("three llama-servers", pruned, [(s, depth) for s, depth in zip(pruned, depths) for _ in range(4)]),
            Load("one llama-server", [full], [(full, depth) for depth in depths for _ in range(4)])]


def summary(samples, what):
    unit = "layer_tokens" if what == "mixed" else "tokens"
    sides_of = {}
    for s in samples:
        sides_of.setdefault((s["weights"], s["side"]), []).append(s)
    print(f"| weights | side | {unit.replace('_', '-')}/s | spread | n | memory | this server is |\n|---|---|---:|---|---:|---:|---:|")
    for (precision, name), found in sides_of.items():
        rates = [s[unit] / s["seconds"] for s in found]
        rate, ours = statistics.median(rates), sides_of.get((precision, "fathom"))
        note = ""
        if name != "fathom" and ours:
            memory = ours[-1]["bytes"] / found[-1]["bytes"]
            note = f"{statistics.median(s[unit] / s['seconds'] for s in ours) / rate:.2f} x at {memory:.2f} of the memory"
        disturbed = sum(s["others"] > QUIET for s in found)
        print(f"| {precision} | {name} | {rate:.0f} | {min(rates):.0f}-{max(rates):.0f} | {len(found)}"
              f"{f', {disturbed} disturbed' if disturbed else ''} | {found[-1]['bytes'] / 2**20:.0f} MiB | {note} |")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True)
    add("--binary", default="build/fathom")
    add("--llama", required=True, help="folder with llama-server and llama-quantize")
    add("--weights", choices=list(sides.LLAMA_TYPES), default="bf16")
    add("--what", choices=["clients", "mixed"], default="clients")
    add("--rounds", type=int, default=5)
    add("--requests", type=int, default=1, help="of each client in a round")
    add("--tokens", type=int, default=64)
    add("--threads", type=int, default=os.cpu_count())
    add("--work", default=".", help="folder for the peers' files, which are kept")
    add("--seed", type=int, default=0)
    add("--record", help="add every round to this file, and print the table of all that it has of this --what")
    add("flags", nargs="*", help="further flags of fathom serve, after --")
    options = parser.parse_args()
    options.facts = weights.facts_of(weights.folder.read_config(options.model))
    return options


def recorded(options):
    with open(options.record, encoding="utf-8") as file:
        return [s for s in map(json.loads, file) if s["what"] == options.what]


def main():
    options = parse()
    all_loads, samples = loads(options), []
    everybody = [server for one in all_loads for server in one.servers]
    try:
        for number in range(-1, options.rounds):  # the first round warms
            for one in all_loads if number % 2 == 0 else all_loads[::-1]:
                found = one.run(options, everybody, options.seed * 1000 + number + 1)
                found.update(what=options.what, weights=options.weights)
                print(f"{one.name}: {found['seconds']:.2f} s, others {found['others']:.0%}", file=sys.stderr, flush=True)
                if number < 0:
                    continue
                samples.append(found)
                if options.record:
                    with open(options.record, "a", encoding="utf-8") as file:
                        file.write(json.dumps(found) + "\n")
    finally:
        for server in everybody:
            server.stop()
    summary(recorded(options) if options.record else samples, options.what)


if __name__ == "__main__":
    main()
