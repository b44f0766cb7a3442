#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""This engine and its peers on the same random weights, in turn, one at a time. README.md beside this file says how.

  bench/peers/run.py --model gpt2-large --llama LLAMA/build/bin --onnxruntime DIR/node_modules --torch \\
      --weights f32,bf16,int8,int4 --what prefill:128,decode:1,decode:16
  bench/peers/run.py --model roberta-base --onnxruntime DIR/node_modules --weights f32,int8 --what encode:1x128,encode:8x128
  bench/peers/run.py --summary results.jsonl

Every side is warmed before it is timed. A timing during which other processes took more than 3 % of the machine is repeated. With
--record, timings are added to a file, so that several short runs make one table.
"""
import argparse
import json
import os
import statistics
import sys
import time

import sides

QUIET, TRIES = 0.03, 4


def measure(side, row, alive, options):
    """One timing of a row: {"seconds", "others"}; others = the share of the processors that went to other processes."""
    best = None
    for _ in range(TRIES):
        start, machine = time.monotonic(), sides.machine_seconds()
        own = sides.own_seconds() + sum(s.live() for s in alive)
        seconds = side.seconds(row)
        wall = time.monotonic() - start
        own = sides.own_seconds() + sum(s.live() for s in alive) - own
        others = max(0, sides.machine_seconds() - machine - own) / (wall * os.cpu_count())
        if "busy" in side.facts:  # it knows of the timing itself
            others = max(0, 1 - side.facts["busy"])
        if best is None or others < best["others"]:
            best = {"seconds": seconds, "others": round(others, 4), **{k: v for k, v in side.facts.items() if k != "busy"}}
        if others <= QUIET or time.monotonic() > options.deadline:
            break
    return best


def run_precision(options, precision, record):
    alive = sides.sides(options, precision)
    rows = options.what.split(",")
    try:
        for side in alive:
            if isinstance(side, sides.Lines):
                for row in rows:
                    side.seconds(row)  # warms it, and takes its memory
        for number in range(options.rounds):
            for row in rows:
                for side in alive if number % 2 == 0 else reversed(alive):
                    record({"weights": precision, "row": row, "side": side.name, **measure(side, row, alive, options)})
                    if time.monotonic() > options.deadline:
                        return
    finally:
        for side in alive:
            side.stop()


def summary(samples):
    """Medians and ratios as a table; of each row the best peer."""
    groups = {}
    for s in samples:
        groups.setdefault((s["weights"], s["row"]), {}).setdefault(s["side"], []).append(s)
    print("| weights | row | side | tokens/s | spread | n | this engine is |\n|---|---|---|---:|---|---:|---:|")
    for (precision, row), found in groups.items():
        tokens = sides.tokens_of(row)
        speed = {name: tokens / statistics.median(s["seconds"] for s in all_of) for name, all_of in found.items()}
        best = max((name for name in speed if name != "fathom"), key=speed.get, default=None)
        for name, all_of in found.items():
            times = [s["seconds"] for s in all_of]
            note = f"{speed['fathom'] / speed[name]:.2f} x" if name != "fathom" and "fathom" in speed else ""
            if name == "fathom" and "peak share" in all_of[0]:
                kind = "memory" if row == "decode:1" else "peak"
                share = statistics.median(s[f"{kind} share"] for s in all_of)
                note = f"{share:.0%} of {'the memory rate' if kind == 'memory' else 'the peak'}"
            mark = " (best peer)" if name == best and len(speed) > 2 else ""
            disturbed = sum(s["others"] > QUIET for s in all_of)
            print(f"| {precision} | {row} | {name}{mark} | {speed[name]:.1f} | {tokens / max(times):.1f}-{tokens / min(times):.1f} | "
                  f"{len(times)}{f', {disturbed} disturbed' if disturbed else ''} | {note} |")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", help="model folder: GPT-2's shape, or fairseq's encoder")
    add("--engine", default="build/bench/bench-engine")
    add("--llama", help="folder with llama-bench, llama-batched-bench and llama-quantize")
    add("--onnxruntime", help="node_modules folder that has onnxruntime-node")
    add("--torch", action="store_true", help="PyTorch of this Python, or of Debian's")
    add("--graphs", default="plain,fused,attention", help="graphs for ONNX Runtime (onnx_model.py)")
    add("--what", default="prefill:128,decode:1,decode:16")
    add("--weights", default="f32", help="f32, bf16, int8, int4: this engine's, and the nearest of each peer")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=os.cpu_count())
    add("--work", default=".", help="folder for the peers' files, which are kept")
    add("--record", help="add every timing to this file")
    add("--seconds", type=float, default=1e9, help="end after this time, with what there is")
    add("--summary", help="only print the table of a file of --record")
    options = parser.parse_args()
    if not options.summary and not options.model:
        parser.error("--model is needed")
    options.deadline = time.monotonic() + options.seconds
    return options


def main():
    options = parse()
    samples = []
    if options.summary:
        with open(options.summary, encoding="utf-8") as file:
            summary([json.loads(line) for line in file])
        return

    def record(sample):
        samples.append(sample)
        print(f"{sample['weights']} {sample['row']} {sample['side']}: {sides.tokens_of(sample['row']) / sample['seconds']:.1f} tokens/s, "
              f"others {sample['others']:.0%}", file=sys.stderr, flush=True)
        if options.record:
            with open(options.record, "a", encoding="utf-8") as file:
                file.write(json.dumps(sample) + "\n")

    for precision in options.weights.split(","):
        run_precision(options, precision, record)
    summary(samples)


if __name__ == "__main__":
    main()
