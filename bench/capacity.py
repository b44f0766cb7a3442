#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Capacity tables, simulated: requests per second that replicas carry while a share of the budgets is met, against replicas,
burstiness, depth and the way the balancer picks. Writes the tables of bench/CAPACITY.md to standard output.

  bench/capacity.py --binary build/fathom > tables.md

Costs and loads are in bench/capacity/; two to three minutes on one core. Standard library only.
"""
import argparse
import os
import subprocess
import sys

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "capacity")
CLASSES = {  # by model: prompts, answers and budgets of the three classes, as in the JSON files
    "demo": ("60", "300", "1200"), "large": ("1500", "6000", "20000")}


def mix(model, automatic):
    """The model's three classes, a share of each with depth auto and the rest bound to all layers, with the same budgets."""
    shapes = (("typing", 4, "16..96", "6..16"), ("reply", 4, "lognormal:64:0.6", "24..64"), ("summary", 2, "128..320", "48..96"))
    parts = []
    for (name, weight, prompt, answer), budget in zip(shapes, CLASSES[model]):
        for depth, share in (("auto", automatic), ("full", 1 - automatic)):
            if share > 0:
                parts.append(f"name={name}-{depth} weight={weight * share} depth={depth} prompt_tokens={prompt} max_tokens={answer} "
                             f"latency_budget_ms=lognormal:{budget}:0.4")
    return "; ".join(parts)


class Simulator:
    def __init__(self, binary):
        self.binary = binary

    def rows(self, model, *flags):
        """The table's rows as lists of words, without their % signs."""
        command = [self.binary, "simulate", "--cost", f"{HERE}/{model}-cost.json", "--load", f"{HERE}/{model}-load.json", "--quiet", *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr}")
        return [line.replace("%", "").split() for line in done.stdout.splitlines()[1:]]


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "|".join(" ---: " for _ in head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def replicas(simulator, model, counts, policies):
    rows = []
    for policy, name in policies:
        for cv in ("1", "2", "4"):
            found = simulator.rows(model, "--target", "0.97", "--cv", cv, "--policy", policy, "--replicas", ",".join(counts))
            rows.append([name, cv] + [f"{float(r[2]):.1f} ({r[5]})" for r in found])
    table(["depth", "CV"] + [f"{n} replica{'s' if n != '1' else ''}" for n in counts], rows)


def mixes(simulator, model, counts):
    rows = []
    for share in (1.0, 0.5, 0.0):
        found = simulator.rows(model, "--target", "0.97", "--cv", "2", "--mix", mix(model, share), "--replicas", ",".join(counts))
        rows.append([f"{share:.0%}"] + [f"{float(r[2]):.1f}" for r in found])
    table(["share of auto"] + [f"{n} replica{'s' if n != '1' else ''}" for n in counts], rows)


def balancers(simulator, model, nodes, seconds):
    rows = []
    for how, stale in (("round-robin", "0"), ("least-requests", "0"), ("least-requests", "1000"), ("two-choices", "0"),
                       ("two-choices", "1000"), ("predicted-wait", "0")):
        cells = []
        for cv in ("1", "4"):
            found = simulator.rows(model, "--target", "0.97", "--cv", cv, "--replicas", nodes, "--balance", how, "--stale-ms", stale,
                                   "--seconds", seconds)
            cells.append(f"{float(found[0][2]):.1f} ({found[0][5]})")
        rows.append([how + (", a second old" if stale != "0" else "")] + cells)
    table([f"balancer of {nodes} replicas", "CV 1", "CV 4"], rows)


def shares(simulator, model, nodes, rates):
    rows = []
    for rate in rates:
        r = simulator.rows(model, "--cv", "4", "--rate", f"{rate * int(nodes)}", "--replicas", nodes, "--seconds", "120")[0]
        # policy nodes requests budgets met missed refused depth down p50 p95 p99 ...
        rows.append([f"{rate:g}", r[2], f"{r[4]} %", r[7], r[9], r[11]])
    table([f"requests/s for each of {nodes}", "requests", "budgets met", "mean depth", "p50 ms", "p99 ms"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="build/fathom")
    simulator = Simulator(parser.parse_args().binary)
    print("### The demo, 12 x 128\n")
    replicas(simulator, "demo", ["1", "2", "4"], (("fathom", "auto"), ("fixed:6", "6"), ("fixed:12", "12")))
    mixes(simulator, "demo", ["1", "4"])
    print("### 24 x 1024, random weights\n")
    replicas(simulator, "large", ["1", "4", "16"], (("fathom", "auto"), ("fixed:12", "12")))
    mixes(simulator, "large", ["1", "4"])
    balancers(simulator, "large", "8", "300")
    shares(simulator, "large", "1000", (1, 2, 3))


if __name__ == "__main__":
    main()
