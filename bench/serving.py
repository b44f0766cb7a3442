#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a server does over HTTP, measured: starts fathom on a free port and runs one experiment against it.

  bench/serving.py depths  --model DIR   milliseconds per token at every depth, against a straight line a + b x depth
  bench/serving.py budgets --model DIR   200 requests with latency budgets on an idle server: share met, depth against the
                                         deepest that would have fit
  bench/serving.py neighbours --model DIR  16 clients at once, random depths, prompts and lengths, some leaving midway: every
                                         answer equals the one given alone, nothing is left behind
Standard library only. Exit status 1 if the experiment's bar is missed.
"""
import argparse
import concurrent.futures
import http.client
import json
import random
import signal
import statistics
import subprocess
import sys
import time

WORDS = ("the river town was built on a hill and people came from far away to see its old stone bridge where market "
         "days were held every week until the war when most of them left for other parts of country").split()


class Server:
    """A fathom process and requests to it."""

    def __init__(self, binary, model, *flags):
        self.process = subprocess.Popen([binary, "serve", "--model", model, "--port", "0", "--log-level", "warn", *flags],
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the server did not start")
        self.host = line.split()[-1].removeprefix("http://")

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.host, timeout=600)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            data = response.read()
            return response.status, data
        finally:
            connection.close()

    def post(self, path, body):
        status, data = self.request("POST", path, body)
        answer = json.loads(data)
        if status != 200:
            raise RuntimeError(f"{status}: {answer['error']['message']}")
        return answer

    def get(self, path):
        return json.loads(self.request("GET", path)[1])

    def metric(self, name):
        for line in self.request("GET", "/metrics")[1].decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        raise KeyError(name)

    def leave_midway(self, body, after_bytes):
        """Streams an answer and hangs up after some bytes."""
        connection = http.client.HTTPConnection(self.host, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}))
        response = connection.getresponse()
        response.read(after_bytes)
        connection.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0


def text(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words)).capitalize()


def fit_line(xs, ys):
    """Least squares of the relative error, so that shallow depths count as much as deep ones."""
    weights = [1 / (y * y) for y in ys]
    total = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, xs)) / total
    mean_y = sum(w * y for w, y in zip(weights, ys)) / total
    slope = (sum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(weights, xs, ys))
             / sum(w * (x - mean_x) ** 2 for w, x in zip(weights, xs)))
    return mean_y - slope * mean_x, slope


def depths(server, options):
    """Decode time per token at each depth; rounds over all depths in turn, medians."""
    n = server.get("/v1/depths")["layers"]
    times = {d: [] for d in range(1, n + 1)}
    for _ in range(options.rounds):
        for depth in times:
            answer = server.post("/v1/completions", {"prompt": "The", "max_tokens": options.tokens, "depth": depth,
                                                     "temperature": 0, "ignore_eos": True})
            times[depth].append(answer["timings"]["decode_ms"] / (answer["usage"]["completion_tokens"] - 1))
    medians = {d: statistics.median(t) for d, t in times.items()}
    a, b = fit_line(list(medians), list(medians.values()))
    worst = 0
    print(f"{'depth':>5} {'ms/token':>9} {'line':>9} {'off':>7}")
    for depth, ms in medians.items():
        off = ms / (a + b * depth) - 1
        worst = max(worst, abs(off))
        print(f"{depth:5} {ms:9.3f} {a + b * depth:9.3f} {off:+7.1%}")
    half = medians[n // 2] / medians[n]
    print(f"line {a:.3f} + {b:.3f} x depth; worst {worst:.1%} off (bar 10%); half depth {half:.2f} x full (bar 0.6)")
    return worst <= 0.10 and half <= 0.60


def budgets(server, options):
    """Each request is run at every depth first (three times, the median), so that the best possible is known."""
    rng = random.Random(options.seed)
    n = server.get("/v1/depths")["layers"]
    met, reached, best = 0, [], []
    for i in range(options.requests):
        body = {"prompt": text(rng, rng.randint(4, 60)), "max_tokens": rng.randint(8, 48), "temperature": 0,
                "ignore_eos": True}
        took = {d: statistics.median(server.post("/v1/completions", {**body, "depth": d})["timings"]["total_ms"]
                                     for _ in range(3)) for d in range(1, n + 1)}
        budget = rng.uniform(took[1] * 1.2, took[n] * 1.1)
        answer = server.post("/v1/completions", {**body, "latency_budget_ms": budget})
        met += answer["timings"]["total_ms"] <= budget
        reached.append(answer["depth"]["used"])
        best.append(max(d for d in took if took[d] <= budget))
        if (i + 1) % 20 == 0:
            print(f"{i + 1:4}: met {met / (i + 1):.1%}, depth {sum(reached) / sum(best):.1%} of the best", flush=True)
    share, ratio = met / options.requests, sum(reached) / sum(best)
    print(f"met {share:.1%} (bar 95%), mean depth {sum(reached) / len(reached):.2f} of {sum(best) / len(best):.2f} possible: "
          f"{ratio:.1%} (bar 85%)")
    return share >= 0.95 and ratio >= 0.85


def neighbours(server, options):
    """Answers among others equal answers alone; afterwards nothing runs and memory is flat."""
    rng = random.Random(options.seed)
    n = server.get("/v1/depths")["layers"]

    def make():
        body = {"prompt": text(rng, rng.randint(1, 80)), "max_tokens": rng.randint(1, 40), "depth": rng.randint(1, n),
                "temperature": rng.choice([0, 0.8, 1.0]), "seed": rng.randint(0, 1 << 40), "logprobs": 2,
                "n": rng.choice([1, 1, 1, 2])}
        if rng.random() < 0.2:
            del body["depth"]
            body["layers"] = sorted(rng.sample(range(n), rng.randint(1, n)))
        return body

    def what_counts(answer):
        return [(c["text"], c["finish_reason"], c["logprobs"]["tokens"], c["logprobs"]["token_logprobs"])
                for c in answer["choices"]]

    jobs = [make() for _ in range(options.requests)]
    alone = [what_counts(server.post("/v1/completions", job)) for job in jobs]
    before = server.resident_bytes()
    wrong = 0
    for _ in range(options.rounds):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            futures = []
            for i, job in enumerate(jobs):
                futures.append((i, pool.submit(server.post, "/v1/completions", job)))
                if rng.random() < 0.3:
                    pool.submit(server.leave_midway, {**make(), "max_tokens": 100}, rng.randint(1, 2000))
            wrong += sum(what_counts(f.result()) != alone[i] for i, f in futures)
    deadline = time.time() + 30
    while server.metric("fathom_requests_running") and time.time() < deadline:
        time.sleep(0.02)
    running, usage = server.metric("fathom_requests_running"), server.metric("fathom_kv_cache_usage_ratio")
    growth = server.resident_bytes() - before
    print(f"{options.rounds * len(jobs)} answers among neighbours, {wrong} differ from those given alone; afterwards {running:.0f} running, "
          f"KV usage {usage:g}, memory {growth / 2**20:+.1f} MiB")
    return wrong == 0 and running == 0 and usage == 0 and growth < 64 * 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["depths", "budgets", "neighbours"])
    parser.add_argument("--binary", default="build/fathom")
    parser.add_argument("--model", default="deploy/demo")
    parser.add_argument("--requests", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--tokens", type=int, default=24, help="tokens per answer (depths)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("flags", nargs="*", help="further flags of fathom serve, after --")
    options = parser.parse_args()
    defaults = {"depths": (0, 5), "budgets": (200, 0), "neighbours": (64, 2)}[options.experiment]
    options.requests = options.requests or defaults[0]
    options.rounds = options.rounds or defaults[1]
    server = Server(options.binary, options.model, *options.flags)
    try:
        good = {"depths": depths, "budgets": budgets, "neighbours": neighbours}[options.experiment](server, options)
    finally:
        status = server.stop()
    if status != 0:
        print(f"the server ended with status {status}")
    sys.exit(0 if good and status == 0 else 1)


if __name__ == "__main__":
    main()
