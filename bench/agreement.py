#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether fathom bench measures what wrk and hey measure: the same request in a closed loop, the tools in turns, and
the medians over rounds side by side.

  bench/agreement.py --url http://127.0.0.1:8080 --clients 8 --seconds 5 --rounds 5

Needs wrk and hey (Debian has both). Without --url it starts the demo. Exit status 1 if a median is more than --limit
off what the other tools say: beyond both by more than that share. Only a quiet machine tells anything.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

PROMPT = "The city number seven was"
QUANTILES = ("p50", "p75", "p90", "p99")
UNITS = {"us": 1e-3, "ms": 1, "s": 1e3}


def run(*args):
    return subprocess.run(args, capture_output=True, text=True, check=True).stdout


def by_bench(o, folder):
    prompts, result = os.path.join(folder, "p.txt"), os.path.join(folder, "r.json")
    with open(prompts, "w", encoding="utf-8") as f:
        f.write(PROMPT + "\n")
    run(o.binary, "bench", "--url", o.url, "--clients", str(o.clients), "--seconds", str(o.seconds), "--stream", "false",
        "--max-tokens", str(o.tokens), "--model", o.model, "--prompts", prompts, "--plain", "--quiet", "--json", result)
    with open(result, encoding="utf-8") as f:
        r = json.load(f)["runs"][0]
    return {"per second": r["requests_per_s"], **{q: r["latency_ms"][q] for q in QUANTILES}}


def by_wrk(o, folder):
    script = os.path.join(folder, "post.lua")
    with open(script, "w", encoding="utf-8") as f:
        f.write(f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [[{body(o)}]]\n")
    out = run("wrk", "-t1", f"-c{o.clients}", f"-d{o.seconds}s", "--latency", "-s", script, o.url + "/v1/completions")
    found = {"per second": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))}
    for share, number, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", out):
        found["p" + share] = float(number) * UNITS[unit]
    return {k: found[k] for k in ("per second", *QUANTILES)}


def by_hey(o, _folder):
    out = run("hey", "-z", f"{o.seconds}s", "-c", str(o.clients), "-m", "POST", "-T", "application/json", "-d", body(o),
              o.url + "/v1/completions")
    found = {"per second": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))}
    for share, seconds in re.findall(r"(\d+)%+ in ([\d.]+) secs", out):
        found["p" + share] = float(seconds) * 1e3
    return {k: found[k] for k in ("per second", *QUANTILES)}


def body(o):
    return json.dumps({"prompt": PROMPT, "model": o.model, "max_tokens": o.tokens, "temperature": 0, "ignore_eos": True})


def compare(o):
    tools = {"bench": by_bench, "wrk": by_wrk, "hey": by_hey}
    rounds = {name: [] for name in tools}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(o.rounds):
            for name, tool in tools.items():
                rounds[name].append(tool(o, folder))
    worst = 0
    print(f"{'':12}{'bench':>10}{'wrk':>10}{'hey':>10}{'off':>8}")
    for row in ("per second", *QUANTILES):
        value = {name: statistics.median(r[row] for r in rounds[name]) for name in tools}
        low, high = sorted((value["wrk"], value["hey"]))
        off = max(0, value["bench"] / high - 1, low / value["bench"] - 1)
        worst = max(worst, off)
        print(f"{row:12}{value['bench']:10.2f}{value['wrk']:10.2f}{value['hey']:10.2f}{off:8.1%}")
    return worst <= o.limit


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--model", default="demo", help="the name of the model")
    parser.add_argument("--binary", default="build/fathom")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--limit", type=float, default=0.05)
    o = parser.parse_args()
    server = None
    if not o.url:
        server = subprocess.Popen([o.binary, "serve", "--model", "deploy/demo", "--port", "0", "--log-level", "warn"],
                                  stdout=subprocess.PIPE, text=True)
        o.url = server.stdout.readline().split()[-1]
    try:
        good = compare(o)
    finally:
        if server:
            server.terminate()
            server.wait()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
