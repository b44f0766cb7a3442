#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shallow drafts, deep verifies, over HTTP: one client, plain and speculative in turn, greedy and sampled.

  bench/speculation.py --binary build/fathom --model DIR [--tokens 120] [--rounds 5] [--flags ...]

For each temperature it prints the share of drafted tokens that were accepted, the speed-up that this and the measured
steps allow, the one that was reached, and their ratio. Both sides answer the same requests; texts must be equal. Allowed:

    tokens of the speculative answers x time of a plain step
    --------------------------------------------------------
    time of their draft steps + time of their other steps

with times from the server's fathom_step_seconds, so that what lies between steps is what is missing from 1.

A second table owes nothing to how the server chooses: what the best fixed way allows, by the formula of Leviathan et al.
(2023). Drafts of one token give the acceptance a of each draft depth; plain answers of 1, 2, ... 8 choices give the time
T(rows) of a full step, plain answers at the draft's depth the time t of its own. Of all depths and k it takes the best

    (1 - a^(k+1)) / (1 - a) x T(1) / (k t + T(k + 1)),

or 1 where that is less, as plain decoding is allowed too. A depth with fewer than 8 drafted tokens is left out.
Standard library only. Exit status 1 if a text differs.
"""
import argparse
import json
import re
import statistics
import sys

from serving import Server

PROMPTS = ("The town lies on", "In the second half of the season", "Once upon a time there was", "The film was written by")


def counters(server):
    """Values of /metrics by name and labels."""
    text = server.request("GET", "/metrics")[1].decode()
    return {m[1]: float(m[2]) for m in re.finditer(r"(?m)^([a-z_]+(?:\{[^}]*\})?) ([-+.\de]+)$", text)}


def ask(server, args, temperature, number, speculative):
    """(text, ms, what the counters moved by) of one answer."""
    before = counters(server)
    answer = server.post("/v1/completions", {
        "prompt": PROMPTS[number % len(PROMPTS)], "max_tokens": args.tokens, "temperature": temperature,
        "seed": number, "ignore_eos": True, "cache_prompt": False, "speculative": speculative})
    after = counters(server)
    moved = {name: value - before.get(name, 0) for name, value in after.items()}
    return answer["choices"][0]["text"], answer["timings"]["decode_ms"], moved


def seconds(moved, phase):
    return moved.get(f'fathom_step_seconds_sum{{phase="{phase}"}}', 0)


def measure(server, args, temperature, speculative):
    """One line of the table; (the speed-up, False if a text differs)."""
    same, speedups, allowed = True, [], []
    drafted = accepted = 0
    for number in range(args.warm + args.rounds * len(PROMPTS)):
        sides = {}
        for side in ((False, speculative) if number % 2 else (speculative, False)):
            sides[side is not False] = ask(server, args, temperature, number, side)
        (plain_text, plain_ms, plain), (text, ms, moved) = sides[False], sides[True]
        same = same and plain_text == text
        if number < args.warm:
            continue
        drafted += moved["fathom_speculative_drafted_total"]
        accepted += moved["fathom_speculative_accepted_total"]
        speedups.append(plain_ms / ms)
        allowed.append(seconds(plain, "decode") / (seconds(moved, "decode") + seconds(moved, "draft")))
    reached, allows = statistics.median(speedups), statistics.median(allowed)
    share = accepted / drafted if drafted else 0
    print(f"| {temperature:g} | {drafted / len(speedups):.0f} | {100 * share:.0f} % | {allows:.2f} x | {reached:.2f} x | "
          f"{reached / allows:.3f} | {'yes' if same else 'NO'} |", flush=True)
    return reached, same


def step_ms(server, depth, rows):
    """Milliseconds of a plain step at a depth: the median of three answers of so many choices."""
    body = {"prompt": PROMPTS[0], "max_tokens": 24, "temperature": 1, "seed": 1, "ignore_eos": True, "cache_prompt": False,
            "depth": depth, "n": rows, "speculative": False}
    return statistics.median(server.post("/v1/completions", body)["timings"]["decode_ms"] / 23 for _ in range(3))


def acceptance(server, args, temperature, depth):
    """(share of single drafted tokens that were accepted, how many there were) at a draft depth."""
    drafted = accepted = 0
    for number in range(len(PROMPTS)):
        moved = ask(server, args, temperature, number, {"draft_depth": depth, "draft_tokens": 1})[2]
        drafted += moved["fathom_speculative_drafted_total"]
        accepted += moved["fathom_speculative_accepted_total"]
    return (accepted / drafted if drafted else 0), drafted


def allowed_by_formula(server, args, temperature, layers, full):
    """(speed-up, draft depth, k, acceptance) of the best fixed way; full[rows]: T."""
    best = (1.0, 0, 0, 0.0)
    for depth in sorted({max(1, layers * eighths // 8) for eighths in (1, 2, 3, 4)}):
        share, drafted = acceptance(server, args, temperature, depth)
        if drafted < 8:
            continue
        draft = step_ms(server, depth, 1)
        for k in range(1, max(full)):
            tokens = sum(share ** i for i in range(k + 1))
            best = max(best, (tokens * full[1] / (k * draft + full[k + 1]), depth, k, share))
    return best


def compare(server, args, reached):
    """The second table."""
    layers = server.get("/v1/depths")["layers"]
    full = {rows: step_ms(server, layers, rows) for rows in range(1, 9)}
    print("\n| temperature | best fixed way | a | allows | reached | reached / allows |\n|---|---|---|---|---|---|")
    for temperature, speedup in reached.items():
        allows, depth, k, share = allowed_by_formula(server, args, temperature, layers, full)
        way = f"{k} tokens at depth {depth}" if k else "none"
        print(f"| {temperature:g} | {way} | {100 * share:.0f} % | {allows:.2f} x | {speedup:.2f} x | {speedup / allows:.3f} |",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--binary", default="build/fathom")
    add("--model", required=True)
    add("--tokens", type=int, default=120)
    add("--rounds", type=int, default=5, help="of four prompts")
    add("--warm", type=int, default=4, help="answers that do not count")
    add("--temperatures", type=float, nargs="+", default=[0, 0.8])
    add("--speculative", type=json.loads, default=True, help="the field, as JSON")
    add("--flags", nargs=argparse.REMAINDER, default=[], help="for the server")
    args = parser.parse_args()
    server = Server(args.binary, args.model, *args.flags)
    try:
        print("| temperature | drafted per answer | accepted | allowed | reached | reached / allowed | same text |")
        print("|---|---|---|---|---|---|---|")
        lines = {t: measure(server, args, t, args.speculative) for t in args.temperatures}
        compare(server, args, {t: reached for t, (reached, _) in lines.items()})
    finally:
        server.stop()
    return 0 if all(same for _, same in lines.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
