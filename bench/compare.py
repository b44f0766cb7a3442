#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The simulator against a real run: starts fathom on a free port, replays a trace with `fathom bench`, asks the server for its
cost model afterwards, and simulates the trace that was run with it. Prints both side by side. How much slower the machine was during
the run than the cost model's usual steps is one number, taken from the engine's busy seconds; everything else is predicted.

  bench/compare.py --binary build/fathom --model deploy/demo --trace run.csv --depths auto,6

The trace is in milliseconds (fathom bench --save-trace, fathom simulate --save-trace). --noise and --spikes go to the simulator;
the load generator shares the machine with the server, and so do all others: run it on a quiet one. Standard library only.
"""
import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile

import serving


def run_json(command, path):
    done = subprocess.run(command + ["--json", path, "--quiet"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    with open(path, encoding="utf-8") as file:
        return json.load(file)["runs"]


def numbers(run):
    """What is compared: share of budgets met, mean depth, quantiles."""
    asked = run["budget"]["asked"]
    found = {"budgets met %": 100 * run["budget"]["met"] / asked if asked else None, "mean depth": run["depth"]["mean"]}
    for name in ("latency_ms", "ttft_ms", "tpot_ms"):
        for quantile in ("p50", "p90", "p95", "p99"):
            found[f"{name[:-3]} {quantile} ms"] = run[name] and run[name][quantile]
    return found


def side_by_side(depth, real, simulated):
    print(f"\n| depth {depth} | real | simulated | simulated / real |\n|---|---:|---:|---:|")
    for name, value in real.items():
        other = simulated[name]
        if value is None or other is None:
            continue
        print(f"| {name} | {value:.2f} | {other:.2f} | {other / value if value else float('nan'):.2f} |")


def without_depth(path, result):
    """The trace but for its column of depths, which would go before --depth."""
    with open(path, encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(line for line in file if not line.startswith("#"))]
    with open(result, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "depth"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def compare(options, server, depth, folder):
    asked, trace, cost = (os.path.join(folder, name) for name in ("asked.csv", "trace.csv", "depths.json"))
    without_depth(options.trace, asked)
    busy = server.metric("fathom_engine_busy_seconds_total")
    real = run_json([options.binary, "bench", "--url", f"http://{server.host}", "--trace", asked, "--depth", depth,
                     "--prompt-kind", "ids", "--save-trace", trace], os.path.join(folder, "real.json"))[0]
    busy = server.metric("fathom_engine_busy_seconds_total") - busy
    without_depth(trace, asked)
    with open(cost, "w", encoding="utf-8") as file:
        json.dump(server.get("/v1/depths"), file)
    command = [options.binary, "simulate", "--cost", cost, "--trace", asked, "--depth", depth, "--overhead-ms", str(options.overhead_ms),
               *(f"--{n}={v}" for n, v in (("noise", options.noise), ("spikes", options.spikes)) if v)]
    level = options.level
    for _ in range(0 if level else 4):  # how slow the machine was in that run: so that the engine was busy for as long
        lines = subprocess.run(command + [f"--level={level or 1}", "--busy"], capture_output=True, text=True, check=True).stdout.split()
        level = (level or 1) * busy / float(lines[-1])
    simulated = run_json(command + [f"--level={level:.4f}"], os.path.join(folder, "simulated.json"))[0]
    print(f"\nThe engine was busy for {busy:.2f} s; steps took {level:.2f} times what the cost model says is usual.")
    side_by_side(depth, numbers(real), numbers(simulated))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="build/fathom")
    parser.add_argument("--model", default="deploy/demo")
    parser.add_argument("--trace", required=True)
    parser.add_argument("--depths", default="auto")
    parser.add_argument("--noise", default="")
    parser.add_argument("--spikes", default="")
    parser.add_argument("--level", type=float, default=0, help="default: found from the time that the engine was busy")
    parser.add_argument("--overhead-ms", type=float, default=0.5)
    parser.add_argument("--threads", default="1", help="of the server: the load generator needs a core, too")
    options = parser.parse_args()
    server = serving.Server(options.binary, options.model, "--threads", options.threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for depth in options.depths.split(","):
                compare(options, server, depth, folder)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
