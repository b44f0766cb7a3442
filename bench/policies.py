#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Policies on the committed traces, simulated: fathom's scheduler, every fixed depth (in the same order of deadlines), and a
scheduler that knows the whole trace.

  bench/policies.py --binary build/fathom

The traces are in units of a server (bench/attainment.py says which); here they are scaled to the costs in bench/capacity/. 100 %
load is the rate at which the requests of the trace, all there from the start, are worked off at half depth. Four minutes on one
core. Standard library only.
"""
import argparse
import csv
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SPARE = 0.8  # of a budget, that an idle server may need at the lowest depth
MODELS = (("Language model, 12 layers", "lm-bursts.csv", "demo-cost.json", 6),
          ("Translation, 12 x 6 layers", "translation-bursts.csv", "translation-depths.json", 6))  # the sixth rung is 6x3


class Site:
    def __init__(self, options, folder, trace, cost, half):
        self.binary, self.folder, self.half, self.effort = options.binary, folder, half, options.effort
        self.cost = os.path.join(HERE, "capacity", cost)
        with open(os.path.join(HERE, "traces", trace), encoding="utf-8") as file:
            self.trace = list(csv.DictReader(line for line in file if not line.startswith("#")))

    def path(self, name):
        return os.path.join(self.folder, name)

    def simulate(self, trace, policies, *flags):
        command = [self.binary, "simulate", "--cost", self.cost, "--trace", trace, "--depth", "auto", "--policy", policies, "--quiet", *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr}")
        return [line.replace("%", "").split() for line in done.stdout.splitlines()[1:]]

    def write(self, name, arrivals, budgets):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write("arrival_ms,class,prompt_tokens,max_tokens,latency_budget_ms\n")
            for row, arrival, budget in zip(self.trace, arrivals, budgets):
                file.write(f"{arrival:.3f},{row['class']},{row['prompt_tokens']},{row['max_tokens']},{budget}\n")
        return self.path(name)

    def latencies(self, gap_ms, rung):
        trace = self.write("alone.csv", (gap_ms * i for i in range(len(self.trace))), [""] * len(self.trace))
        self.simulate(trace, f"fixed:{rung}", "--frozen", "--queue-requests", "100000", "--save-requests", self.path("requests.csv"))
        with open(self.path("requests.csv"), encoding="utf-8") as file:
            return [float(row["latency_ms"]) for row in csv.DictReader(file)]

    def table(self, load, rate, half, lowest):
        gap = 1e3 / (rate * load)
        budgets = [f"{max(float(r['latency_budget_ms']) / 1e3 * h, least / SPARE):.3f}" for r, h, least in zip(self.trace, half, lowest)]
        trace = self.write("scaled.csv", (float(r["arrival_ms"]) / 1e3 * gap for r in self.trace), budgets)
        print(f"| {load:.0%} load, CV 4: policy | budgets met | missed | mean depth | p50 ms | p95 ms | p99 ms |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for r in self.simulate(trace, "fathom,fixed:all,clairvoyant", "--effort", str(self.effort)):
            # policy nodes requests budgets met missed refused depth down p50 p95 p99 ...
            print(f"| {r[0]} | {r[4]} % | {r[5]} | {r[7]} | {r[9]} | {r[10]} | {r[11]} |")
        print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="build/fathom")
    parser.add_argument("--effort", type=int, default=60, help="million steps of the clairvoyant's search")
    options = parser.parse_args()
    for name, trace, cost, half in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            site = Site(options, folder, trace, cost, half)
            alone, lowest = site.latencies(1e5, half), site.latencies(1e5, 1)
            rate = len(site.trace) / max(site.latencies(0, half)) * 1e3
            print(f"### {name}\n\n100 % load is {rate:.1f} requests per second.\n")
            for load in (0.6, 0.9):
                site.table(load, rate, alone, lowest)


if __name__ == "__main__":
    main()
