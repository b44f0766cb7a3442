#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Budgets under load, measured: starts fathom on a free port and replays a trace against it with `fathom bench`, at the server's
own choice of depth and at every fixed depth, and in the simulator with the same cost model, also by a scheduler that knows the
whole trace.

  bench/attainment.py run --model deploy/demo --trace bench/traces/lm-bursts.csv --out results
  bench/attainment.py trace --shape lm > bench/traces/lm-bursts.csv
  bench/attainment.py picture results/attainment.json --svg bench/attainment.svg

A trace is not in milliseconds but in the units of a server, so that one trace is the same load on every machine: 1000 in
arrival_ms is the mean time between requests at 100 % load, 1000 in latency_budget_ms is the time that the request takes alone at
half depth. The script measures both first and writes the trace in milliseconds for the load that is asked for. 100 % load is the
rate at which the server works off the trace's own requests at half depth when they all come at once. A budget that an idle server
would not keep at the lowest depth with a fifth to spare is raised to the least one that it would: all budgets are feasible.

The load generator shares the machine with the server; --server-threads leaves it a core. Standard library only.
"""
import argparse
import bisect
import collections
import csv
import datetime
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time

import attainment_picture
import serving

SPARE = 0.8       # of a budget, that an idle server may need at the lowest depth
REFUSED = ("429", "503")
# Classes of requests: weight; median, sigma of the logarithm and the most of tokens in and out; median and sigma of the budget.
SHAPES = {
    "lm": {"typing": (4, (40, 0.5, 96), (10, 0.3, 16), (20, 0.4)), "reply": (4, (64, 0.6, 256), (40, 0.3, 72), (33, 0.4)),
           "summary": (2, (200, 0.3, 360), (68, 0.2, 104), (75, 0.4))},
    "translation": {"message": (6, (9, 0.35, 24), (11, 0.3, 24), (20, 0.4)), "sentence": (4, (22, 0.3, 48), (26, 0.3, 56), (40, 0.4))},
}


def say(text):
    print(text, flush=True)


# ---- traces ----------------------------------------------------------------------------------------------------------------


def make_trace(shape, requests, cv, seed):
    """Gamma arrivals; lognormal lengths and budgets by class. A random number of Python's generator is the same everywhere."""
    rng, classes = random.Random(seed), SHAPES[shape]

    def drawn(median, sigma, most):
        return min(max(round(median * math.exp(rng.gauss(0, sigma))), 4), most)

    now, rows = 0.0, []
    for _ in range(requests):
        now += rng.gammavariate(1 / cv ** 2, cv ** 2)
        name = rng.choices(list(classes), [c[0] for c in classes.values()])[0]
        _, prompt, answer, (budget, sigma) = classes[name]
        rows.append((now, name, drawn(*prompt), drawn(*answer), round(1000 * budget * math.exp(rng.gauss(0, sigma)))))
    print(f"""# Gamma arrivals, coefficient of variation {cv:g}. Made by bench/attainment.py trace --shape {shape} --cv {cv:g} --seed {seed}
# --requests {requests}. Units: arrival_ms, 1000 is the mean time between requests at 100 % load; latency_budget_ms, 1000 is the
# time that the request takes alone at half depth. bench/attainment.py scales both by what it measures.
arrival_ms,class,prompt_tokens,max_tokens,latency_budget_ms""")
    stretch = 1000 * requests / now  # the mean gap is 1000 exactly
    for at, *rest in rows:
        print(f"{at * stretch:.1f}," + ",".join(map(str, rest)))


def read_trace(path, requests):
    with open(path, encoding="utf-8") as file:
        rows = [{name: value if name == "class" else float(value) for name, value in row.items() if value}
                for row in csv.DictReader(line for line in file if line.strip() and not line.startswith("#"))]
    rows = rows[:requests] if requests else rows
    stretch = 1000 * len(rows) / (rows[-1]["arrival_ms"] or 1)  # the mean gap of a part is 1000, too
    return [{**row, "arrival_ms": row["arrival_ms"] * stretch} for row in rows]


def write_csv(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# ---- the server and the two commands ------------------------------------------------------------------------------------------


class Site:
    """A server, what is known about it, and a folder for files."""

    def __init__(self, options):
        self.options, self.folder = options, options.out
        os.makedirs(self.folder, exist_ok=True)
        flags = ["--threads", str(options.server_threads), *options.flags]
        self.server = serving.Server(options.binary, options.model, *flags)
        self.depths = self.server.get("/v1/depths")
        layers = self.depths["layers"]
        if isinstance(layers, dict):
            pairs = [p["depth"] for p in self.depths["pairs"] if p.get("auto")]
            self.fixed = [f"{p['encoder']}x{p['decoder']}" for p in pairs]
            self.half = f"{layers['encoder'] // 2}x{layers['decoder'] // 2}"
            self.lowest = self.fixed[0]
            # A search of the server's own beams comes whole and ends by itself; fixed lengths are greedy.
            self.bounds, self.form = {}, {"stream": "false"} if options.natural else {"num_beams": "1"}
        else:
            lowest = options.min_depth or max(layers // 4, 1)
            self.fixed = [str(d) for d in range(lowest, layers + 1)]
            self.half, self.lowest, self.bounds = str(layers // 2), str(lowest), {"min_depth": str(lowest)}
            self.form = {}
        self.lengths = {"ignore_eos": "false"} if options.natural else {"ignore_eos": "true"}

    def path(self, name):
        return os.path.join(self.folder, name)

    def fathom(self, *arguments):
        done = subprocess.run([self.options.binary, *arguments], capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1) or (done.returncode and "fathom" in done.stderr and not done.stdout):
            sys.exit(f"fathom {' '.join(arguments)}\n{done.stderr}{done.stdout}")
        return done.stdout

    def bench(self, name, **words):
        """One run of the load generator: its result's only run, and a line for each request."""
        result, requests = self.path(name + ".json"), self.path(name + ".csv")
        flags = [f"--{word.replace('_', '-')}={value}" for word, value in {**self.form, **self.lengths, **words}.items()]
        self.fathom("bench", f"--url=http://{self.server.host}", f"--json={result}", f"--save-requests={requests}", "--quiet", *flags)
        with open(result, encoding="utf-8") as file:
            self.last = json.load(file)
        with open(requests, encoding="utf-8") as file:
            return self.last["runs"][0], list(csv.DictReader(file))

    def replay(self, name, trace, depth):
        bounds = self.bounds if depth == "auto" else {}
        return self.bench(name, trace=trace, depth=depth, **bounds)


# ---- what this machine does ---------------------------------------------------------------------------------------------------


def idle_times(site, trace):
    """Milliseconds of each request alone, at half depth and at the lowest: of some requests measured, of all a plane through
    those, ms = a + b x tokens in + c x tokens out, fitted by least squares."""
    chosen = [trace[i * len(trace) // site.options.probes] for i in range(site.options.probes)]
    times = {}
    for depth in (site.half, site.lowest):
        rows = [{"arrival_ms": 0, "prompt_tokens": int(r["prompt_tokens"]), "max_tokens": int(r["max_tokens"])} for r in chosen for _ in range(3)]
        # One after another, far enough apart for the server to be idle each time.
        for i, row in enumerate(rows):
            row["arrival_ms"] = i * site.options.probe_ms
        _, seen = site.bench(f"idle-{depth}", trace=write_csv(site.path("probe.csv"), rows), depth=depth)
        if any(s["status"] != "200" for s in seen):
            sys.exit(f"a request alone was answered {seen[0]['status']} {seen[0]['code']}")
        each = [statistics.median(float(s["latency_ms"]) for s in seen[3 * i:3 * i + 3]) for i in range(len(chosen))]
        times[depth] = plane([(r["prompt_tokens"], r["max_tokens"]) for r in chosen], each)
    return [{depth: a + b * r["prompt_tokens"] + c * r["max_tokens"] for depth, (a, b, c) in times.items()} for r in trace]


def plane(points, values):
    """Least squares of the relative error: a, b, c of a + b x + c y."""
    rows = [(1 / v, x / v, y / v) for (x, y), v in zip(points, values)]
    matrix = [[sum(r[i] * r[j] for r in rows) for j in range(3)] + [sum(r[i] for r in rows)] for i in range(3)]
    for i in range(3):
        top = max(range(i, 3), key=lambda k: abs(matrix[k][i]))
        matrix[i], matrix[top] = matrix[top], matrix[i]
        for k in range(3):
            if k != i:
                factor = matrix[k][i] / matrix[i][i]
                matrix[k] = [a - factor * b for a, b in zip(matrix[k], matrix[i])]
    return [matrix[i][3] / matrix[i][i] for i in range(3)]


def capacity(site, trace):
    """Requests per second at half depth: the trace's requests all at once, from the first to the last answer; median of three."""
    rows = [{"arrival_ms": 0, "prompt_tokens": int(r["prompt_tokens"]), "max_tokens": int(r["max_tokens"])} for r in trace[:site.options.burst]]
    path, rates = write_csv(site.path("capacity-trace.csv"), rows), []
    for _ in range(3):
        _, seen = site.bench("capacity", trace=path, depth=site.half)
        done = [float(s["arrival_ms"]) + float(s["latency_ms"]) for s in seen if s["status"] == "200"]
        if len(done) < len(rows):
            other = next(s for s in seen if s["status"] != "200")
            sys.exit(f"{len(rows) - len(done)} of {len(rows)} requests at once were answered {other['status']} {other['code']}; give a smaller --burst")
        rates.append(1000 * len(done) / max(done))
    return statistics.median(rates)


def scaled(trace, idle, site, rate):
    """The trace in milliseconds for `rate` requests per second."""
    rows = []
    for r, alone in zip(trace, idle):
        least = alone[site.lowest] / SPARE
        rows.append({"arrival_ms": f"{r['arrival_ms'] / rate:.3f}", "class": r["class"], "prompt_tokens": int(r["prompt_tokens"]),
                     "max_tokens": int(r["max_tokens"]),
                     "latency_budget_ms": f"{max(r['latency_budget_ms'] / 1000 * alone[site.half], least):.3f}"})
    return rows


# ---- policies on one trace ------------------------------------------------------------------------------------------------------


def layers_by_tokens(seen):
    """Mean number of layers, each token counted once; of both stacks where there are two."""
    tokens = layers = 0
    for s in seen:
        if s["tokens"] and s["mean_depth"]:
            encoder = int(s["depth"].split("x")[0]) if "x" in s["depth"] else 0
            tokens += int(s["tokens"])
            layers += int(s["tokens"]) * (encoder + float(s["mean_depth"]))
    return layers / tokens if tokens else None


def layers_by_answers(depth):
    """The same of a result alone: by tokens with one stack; with two, each answer counted once."""
    pairs = {name: n for name, n in (depth.get("histogram") or {}).items() if "x" in name}
    if pairs:
        return sum(n * sum(map(int, name.split("x"))) for name, n in pairs.items()) / sum(pairs.values())
    return depth.get("by_tokens_mean") or depth.get("mean")


def numbers(run, depths, seen=None):
    budget, depth = run["budget"], run.get("depth") or {}
    return {"asked": budget["asked"], "met": budget["met"], "missed": budget["asked"] - budget["met"],
            "share": budget["met"] / budget["asked"], "depth": layers_by_tokens(seen) if seen else layers_by_answers(depth),
            "depth_of_requests": depth.get("mean"),
            "quality": mean_quality(depth.get("histogram") or {}, depths), "changed": depth.get("changed", 0),
            "goodput_per_s": run["goodput_per_s"], "prediction_p50": (run.get("prediction_error") or {}).get("p50"),
            "prediction_p95": (run.get("prediction_error") or {}).get("p95")}


def qualities(depths):
    of = {}
    for entry in depths.get("pairs") or depths["depths"]:
        depth = entry["depth"]
        name = f"{depth['encoder']}x{depth['decoder']}" if isinstance(depth, dict) else str(depth)
        if entry.get("quality"):
            of[name] = next(iter(entry["quality"].items()))
    return of


def mean_quality(histogram, depths):
    """Of the depths that ran: perplexities by the mean of their logarithms, others by the mean."""
    of = qualities(depths)
    if not histogram or any(name not in of for name in histogram):
        return None
    total = sum(histogram.values())
    if any(of[name][0] == "perplexity" for name in histogram):
        return math.exp(sum(n * math.log(of[name][1]) for name, n in histogram.items()) / total)
    return sum(n * of[name][1] for name, n in histogram.items()) / total


def simulate(site, trace, label, cost):
    """The same trace and cost model in the simulator: fathom, every fixed depth, and who knows the future."""
    result = site.path(f"simulated-{label}.json")
    words = [f"--{k.replace('_', '-')}={v}" for k, v in {**site.form, **site.lengths, **site.bounds}.items()]
    site.fathom("simulate", f"--cost={cost}", f"--trace={trace}", "--depth=auto", "--policy=fathom,fixed:all,clairvoyant", f"--json={result}", "--quiet", *words)
    with open(result, encoding="utf-8") as file:
        return {run["label"]: run for run in json.load(file)["runs"]}


def between(points, x):
    """y at x on the broken line through the points; the end values beyond its ends."""
    points = sorted(points)
    at = bisect.bisect_left([p[0] for p in points], x)
    if at in (0, len(points)):
        return points[min(at, len(points) - 1)][1]
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def deepest_with(points, share):
    """The greatest depth at which the broken line through (depth, share met) still reaches `share`; None: nowhere."""
    points = sorted(points, reverse=True)
    if points[0][1] >= share:
        return points[0][0]
    for (deep, low), (shallow, high) in zip(points, points[1:]):
        if high >= share:
            return shallow + (deep - shallow) * (high - share) / (high - low)
    return None


def against_fixed(auto, fixed):
    """Misses at equal mean depth and mean depth at equal attainment; between two fixed depths on the straight line between them,
    as if requests were shared out between the two."""
    missed = between([(f["depth"], 1 - f["share"]) for f in fixed], auto["depth"])
    least = max(auto["missed"], 1) / auto["asked"]  # no miss at all counts as one
    return {"fixed_missed_share": missed, "times_fewer_misses": missed / least,
            "fixed_depth_at_equal_share": deepest_with([(f["depth"], f["share"]) for f in fixed], auto["share"])}


def policies(site, trace, idle, full, load):
    label = f"{round(100 * load)}{'-natural' if site.options.natural else ''}"
    rate = full * load
    path = write_csv(site.path(f"trace-{label}.csv"), scaled(trace, idle, site, rate))
    say(f"\n{load:.0%} load: {len(trace)} requests at {rate:.1f} per second")
    found, runs = {"load": load, "rate": rate}, []
    for depth in ["auto", *site.wanted]:
        run, seen = site.replay(f"{label}-{depth}", path, depth)
        run["label"] = "auto" if depth == "auto" else f"depth {depth}"
        run["parameter"] = {"load": load, "policy": "auto"} if depth == "auto" else {"load": load, "depth": depth}
        runs.append(run)
        row = {"name": depth, **numbers(run, site.depths, seen)}
        row["step_error"] = site.server.get("/v1/depths").get("prediction_error")
        found.setdefault("fixed", []).append(row) if depth != "auto" else found.update(auto=row)
        say(f"  {depth:>6}: {row['share']:8.2%} met, mean depth {row['depth']:.2f}")
    cost = site.path(f"depths-{label}.json")
    with open(cost, "w", encoding="utf-8") as file:
        json.dump(site.server.get("/v1/depths"), file)
    if not site.options.skip_simulator and "cost_model" in site.server.get("/v1/depths"):
        rows = {name: numbers(run, site.depths) for name, run in simulate(site, path, label, cost).items()}
        found["simulated"] = {name: rows[name] for name in ("fathom", "clairvoyant")}
        found["simulated_against_fixed"] = against_fixed(rows["fathom"], [row for name, row in rows.items() if name.startswith("fixed")])
        for name, row in found["simulated"].items():
            say(f"  simulated {name}: {row['share']:.2%} met, mean depth {row['depth']:.2f}")
    found["against_fixed"] = against_fixed(found["auto"], found["fixed"])
    return found, runs


# ---- predictions and overload ---------------------------------------------------------------------------------------------------


def predictions(site):
    """Requests that get all their tokens, at a constant number of clients: how far off was the finish; and of steps."""
    words = {"clients": 8, "seconds": site.options.seconds, "depth": "auto", "latency_budget_ms": "1000000", "ignore_eos": "true",
             "prompt_tokens": "16..96", "max_tokens": "16..64"}
    run, _ = site.bench("predictions", **words)
    listed = site.server.get("/v1/depths")
    return {"requests": run.get("prediction_error"), "steps": listed.get("prediction_error"),
            "cost_model_errors": (listed.get("cost_model") or {}).get("errors")}


def steady(site, rows, phases, seed):
    """The trace's requests in Poisson arrivals: (seconds, rate) one after another. Every tenth asks for half depth by itself."""
    rng, now, start, out = random.Random(seed), 0.0, 0.0, []
    for seconds, rate in phases:
        now, start = start, start + seconds
        while True:
            now += rng.expovariate(rate)
            if now >= start:
                break
            row = rows[len(out) % len(rows)]
            out.append({**row, "arrival_ms": f"{1000 * now:.3f}", "depth": site.half if len(out) % 10 == 9 else "auto"})
    return write_csv(site.path("steady.csv"), out)


def overload(site, full, trace, idle):
    """Half of full load, then three times of it, then half again."""
    o, peak, calm = site.options, 0, 15
    rows = scaled(trace, idle, site, 1)
    random.Random(1).shuffle(rows)
    for share in (0.7, 1.0, 1.3, 1.6, 2.0):
        run, _ = site.bench(f"peak-{share}", trace=steady(site, rows, [(o.seconds, share * full)], 1), **site.bounds)
        peak = max(peak, run["goodput_per_s"])
        say(f"  {share:.0%} load: {run['goodput_per_s']:.1f} per second within budget")
    before = site.server.resident_bytes()
    phases = [(calm, full / 2), (o.overload_seconds, 3 * full), (calm, full / 2)]
    _, seen = site.bench("overload", trace=steady(site, rows, phases, 2), **site.bounds)
    return judged(site, seen, peak, before, calm, o.overload_seconds)


def kept(seen, at, start):
    """Share of budgets met among those that came in the two seconds from then on."""
    window = [s["met"] == "1" for s, t in zip(seen, at) if start <= t < start + 2000]
    return sum(window) / len(window) if window else 0


def judged(site, seen, peak, before, calm, seconds):
    start, end = 1000 * calm, 1000 * (calm + seconds)
    at = [float(s["arrival_ms"]) for s in seen]
    inside = [s for s, t in zip(seen, at) if start <= t < end]
    finished = sorted(float(s["arrival_ms"]) + float(s["latency_ms"]) for s in seen if s["met"] == "1")
    windows = [sum(t <= f < t + 5000 for f in finished) / 5 for t in range(int(start) + 2000, int(end) - 5000, 1000)]
    refused = sorted(float(s["latency_ms"]) for s in inside if s["status"] in REFUSED)
    statuses = collections.Counter(f"{s['status']} {s['code']}".strip() for s in seen)
    recovered = next((t / 10 for t in range(10 * (calm - 2)) if kept(seen, at, end + 100 * t) >= 0.97), None)
    time.sleep(1)
    return {
        "peak_goodput_per_s": peak, "goodput_per_s": sum(start <= f < end for f in finished) / seconds,
        "least_goodput_in_5_s": min(windows, default=None), "statuses": statuses,
        "refused": len(refused), "refusal_ms_p50": refused[len(refused) // 2] if refused else None,
        "refusal_ms_p99": refused[int(0.99 * (len(refused) - 1))] if refused else None, "refusal_ms_max": refused[-1] if refused else None,
        "recovered_after_s": recovered,
        "explicit_depths_changed": sum(s["asked_depth"] == site.half and s["depth"] not in ("", site.half) for s in seen),
        "running_afterwards": site.server.metric("fathom_requests_running"), "kv_usage_afterwards": site.server.metric("fathom_kv_cache_usage_ratio"),
        "memory_growth_mib": (site.server.resident_bytes() - before) / 2 ** 20,
    }


# ---- the report -------------------------------------------------------------------------------------------------------------------


def compared(start, versus):
    equal = versus["fixed_depth_at_equal_share"]
    return (f"{start} the fixed depths miss {versus['times_fewer_misses']:.1f} x as many budgets ({versus['fixed_missed_share']:.2%}, on the line between two "
            "neighbouring depths); " + (f"at equal attainment they reach a mean depth of {equal:.2f}." if equal is not None else "none of them reaches this attainment."))


def markdown(result):
    lines = [f"## {result['model']}, {'natural ends' if result['natural'] else 'fixed lengths'}", "",
             f"{result['requests']} requests of the trace, all budgets feasible; {result['server_threads']} server thread(s), the load generator on the same machine "
             f"({result['processors']} processors). 100 % load: {result['full_rate']:.1f} requests per second at depth {result['half']}."]
    for part in result["loads"]:
        lines += ["", f"### {part['load']:.0%} load", "", "| policy | budgets met | missed | mean depth by tokens | quality of the depths |", "|---|---:|---:|---:|---:|"]
        rows = [("fathom", part["auto"])] + [(f"depth {f['name']}", f) for f in part["fixed"]] \
            + [(f"simulated: {name}", row) for name, row in part.get("simulated", {}).items()]
        for name, row in rows:
            lines.append(f"| {name} | {row['share']:.2%} | {row['missed']} | {row['depth']:.2f} | {row['quality']:.1f} |" if row["quality"]
                         else f"| {name} | {row['share']:.2%} | {row['missed']} | {row['depth']:.2f} | |")
        lines += ["", compared("At equal mean depth", part["against_fixed"])]
        if "simulated" in part:
            ours, oracle = part["simulated"]["fathom"], part["simulated"]["clairvoyant"]
            lines += ["", f"In the simulator fathom's mean depth is {ours['depth'] / oracle['depth']:.1%} of the one that knows the future, with "
                      f"{100 * (ours['share'] - oracle['share']):+.2f} points of the budgets. " + compared("There, at equal mean depth,", part["simulated_against_fixed"])]
        error = part["auto"]["step_error"]
        if error:
            lines += ["", f"Prediction error after the run, steps: p50 {error['p50']:.1%}, p95 {error['p95']:.1%}; requests: p50 {part['auto']['prediction_p50']:.1%}, "
                      f"p95 {part['auto']['prediction_p95']:.1%}."]
    if result.get("predictions"):
        p = result["predictions"]
        for name in ("steps", "requests"):
            if p.get(name):
                lines += ["", f"Prediction error of {name} at 8 clients: p50 {p[name]['p50']:.1%}, p95 {p[name]['p95']:.1%}."]
    if result.get("overload"):
        o = result["overload"]
        lines += ["", f"### 3 x overload for {result['overload_seconds']} s", "",
                  f"Within budget {o['goodput_per_s']:.1f} per second, {o['goodput_per_s'] / max(o['peak_goodput_per_s'], 1e-9):.1%} of the peak of {o['peak_goodput_per_s']:.1f} "
                  + (f"(least in 5 s: {o['least_goodput_in_5_s']:.1f}). " if o["least_goodput_in_5_s"] is not None else "") + "Statuses: " + ", ".join(f"{k}: {v}" for k, v in sorted(o["statuses"].items())) + ". "
                  + (f"Refusals took {o['refusal_ms_p50']:.1f} ms (median), {o['refusal_ms_p99']:.1f} ms (p99), {o['refusal_ms_max']:.1f} ms at most. " if o["refused"] else "")
                  + (f"From {o['recovered_after_s']:.1f} s after the overload on" if o["recovered_after_s"] is not None else "At no time after the overload")
                  + f" 97 % of two seconds' budgets were met; {o['explicit_depths_changed']} explicit depths changed; afterwards {o['running_afterwards']:.0f} running, "
                  f"KV usage {o['kv_usage_afterwards']:g}, memory {o['memory_growth_mib']:+.1f} MiB."]
    return "\n".join(lines) + "\n"


def run(options):
    site = Site(options)
    trace = read_trace(options.trace, options.requests)
    site.wanted = options.depths.split(",") if options.depths else site.fixed
    result = {"model": os.path.basename(os.path.normpath(options.model)), "natural": options.natural, "requests": len(trace),
              "server_threads": options.server_threads, "processors": os.cpu_count(), "half": site.half, "lowest": site.lowest,
              "quality": {name: list(q) for name, q in qualities(site.depths).items()},
              "layers": site.depths["layers"], "overload_seconds": options.overload_seconds, "loads": []}
    runs = []
    try:
        idle = idle_times(site, trace)
        full = result["full_rate"] = capacity(site, trace)
        say(f"alone at depth {site.half}: {statistics.median(i[site.half] for i in idle):.1f} ms (median), at depth {site.lowest}: "
            f"{statistics.median(i[site.lowest] for i in idle):.1f} ms; 100 % load is {full:.1f} requests per second")
        for load in map(float, options.loads.split(",")):
            part, more = policies(site, trace, idle, full, load)
            result["loads"].append(part)
            runs += more
        if not options.skip_predictions:
            result["predictions"] = predictions(site)
        if options.overload_seconds:
            say(f"\n3 x overload for {options.overload_seconds} s")
            result["overload"] = overload(site, full, trace, idle)
    finally:
        status = site.server.stop()
    head = {**site.last, "runs": runs, "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "note": f"The trace {os.path.basename(options.trace)}, scaled to this machine: 100 % load is {full:.1f} requests per second."}
    for name, content in (("attainment.json", json.dumps(result, indent=1)), ("attainment.md", markdown(result)), ("runs.json", json.dumps(head))):
        with open(site.path(name), "w", encoding="utf-8") as file:
            file.write(content)
    say("\n" + markdown(result))
    if status:
        sys.exit(f"the server ended with status {status}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("run").add_argument
    add("--binary", default="build/fathom")
    add("--model", default="deploy/demo")
    add("--trace", default="bench/traces/lm-bursts.csv")
    add("--out", default="attainment", help="folder for results")
    add("--loads", default="0.6,0.9")
    add("--depths", default="", help="fixed depths to try; default: all from --min-depth on")
    add("--min-depth", type=int, default=0, help="lowest depth of automatic requests; default: a quarter of the layers")
    add("--requests", type=int, default=0, help="only so many of the trace")
    add("--natural", action="store_true", help="end symbols end answers")
    add("--server-threads", type=int, default=1)
    add("--probes", type=int, default=24, help="requests whose idle time is measured")
    add("--probe-ms", type=float, default=60, help="time for each of them")
    add("--burst", type=int, default=250, help="requests at once for the capacity; the queue must hold them")
    add("--seconds", type=float, default=10, help="of the runs for predictions and for the peak")
    add("--overload-seconds", type=int, default=60, help="0: none")
    add("--skip-simulator", action="store_true")
    add("--skip-predictions", action="store_true")
    add("flags", nargs="*", help="further flags of fathom serve, after --")
    add = commands.add_parser("trace").add_argument
    add("--shape", choices=sorted(SHAPES), default="lm")
    add("--requests", type=int, default=2000)
    add("--cv", type=float, default=4)
    add("--seed", type=int, default=1)
    add = commands.add_parser("picture").add_argument
    add("result", nargs="+", help="attainment.json of runs; a picture for each, side by side")
    add("--load", type=float, default=0.9)
    add("--svg", default="bench/attainment.svg")
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    elif options.command == "trace":
        make_trace(options.shape, options.requests, options.cv, options.seed)
    else:
        attainment_picture.write(options.result, options.load, options.svg)


if __name__ == "__main__":
    main()
