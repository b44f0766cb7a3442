#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What each precision costs in quality: fathom eval at every depth with f32, bf16, int8 and int4 weights, as a table.

  bench/precision.py MODEL --data FILE [--depth LIST] [--limit N] [--weights LIST] [-- FLAGS OF fathom eval]

A cell is the metric, and beside it the change from f32: percent of a perplexity, points of an accuracy or BLEU. With
--check the exit status is 1 where a change for the worse is beyond the limit of its precision (LIMITS).
"""
import argparse
import json
import subprocess
import sys

LIMITS = {  # for the worse: percent of a perplexity, points of an accuracy (in percent) or BLEU
    "perplexity": {"bf16": 0.5, "int8": 1.0, "int4": 5.0},
    "accuracy": {"bf16": 0.3, "int8": 0.3, "int4": 0.3},
    "bleu": {"bf16": 0.3, "int8": 0.3, "int4": 1.5},
}


def evaluate(o, weights, flags):
    """{depth: value}, and the metric's name."""
    command = [o.binary, "eval", o.model, "--data", o.data, "--weights", weights, "--kv", o.kv, "--json", "-", *flags]
    if o.depth:
        command += ["--depth", o.depth]
    if o.limit:
        command += ["--limit", str(o.limit)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr.strip())
    report = json.loads(done.stdout)
    scale = 100 if report["metric"] == "accuracy" else 1
    return {name(d["depth"]): d[report["metric"]] * scale for d in report["depths"]}, report["metric"]


def name(depth):
    if isinstance(depth, dict):
        return f'{depth["encoder"]}x{depth["decoder"]}'
    return str(depth)


def change(metric, value, base):
    """How much worse, in the unit of LIMITS."""
    if metric == "perplexity":
        return 100 * (value / base - 1)
    return base - value


def show(metric, value, base):
    sign = change(metric, value, base)
    return f"{value:.2f} ({sign:+.2f} %)" if metric == "perplexity" else f"{value:.2f} ({-sign:+.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--binary", default="build/fathom")
    parser.add_argument("--depth")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--weights", default="bf16,int8,int4")
    parser.add_argument("--kv", default="auto")
    parser.add_argument("--check", action="store_true")
    own, flags = sys.argv[1:], []
    if "--" in own:
        own, flags = own[:own.index("--")], own[own.index("--") + 1:]
    o = parser.parse_args(own)
    base, metric = evaluate(o, "f32", flags)
    formats, beyond = o.weights.split(","), []
    results = {f: evaluate(o, f, flags)[0] for f in formats}
    print(f"| depth | {metric}, f32 | " + " | ".join(formats) + " |")
    print("|---|---:|" + "---:|" * len(formats))
    for depth, value in base.items():
        cells = [show(metric, results[f][depth], value) for f in formats]
        print(f"| {depth} | {value:.2f} | " + " | ".join(cells) + " |", flush=True)
        beyond += [f"{f} at depth {depth}" for f in formats
                   if change(metric, results[f][depth], value) > LIMITS[metric].get(f, float("inf"))]
    if o.check and beyond:
        print("beyond the limit:", ", ".join(beyond), file=sys.stderr)
    return 1 if o.check and beyond else 0


if __name__ == "__main__":
    sys.exit(main())
