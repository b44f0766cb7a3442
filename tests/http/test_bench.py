#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fathom bench: against a server whose delays are known, and against fathom. Prints TAP."""
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from fake_openai import Fake
from harness import BINARY, ROOT, Server, eventually, free_port, main, same, test

DEMO = os.path.join(ROOT, "deploy", "demo")
FATHOM_LIKE = {"layers": 4, "rule": "even", "depths": [{"depth": d, "layers": list(range(d))} for d in range(1, 5)]}


def bench(*args, status=0):
    r = subprocess.run([BINARY, "bench", "--quiet", *map(str, args)], capture_output=True, text=True, timeout=120)
    assert r.returncode == status, (r.returncode, r.stdout, r.stderr)
    return r


def measure(url, *args, status=0):
    """The JSON result."""
    return json.loads(bench("--url", url, "--json", "-", *args, status=status).stdout)


def first(url, *args, status=0):
    return measure(url, *args, status=status)["runs"][0]


def within(value, low, high):
    if not low <= value <= high:
        raise AssertionError(f"{value} is not from {low} to {high}")


# What is measured is what the server did. Sleeps may last longer, never shorter: what is below a bound is wrong on every
# machine, what is above by far more than a busy machine adds.

@test
def delays_of_a_stream_are_measured():
    with Fake(first_ms=200, gap_ms=50, tokens=8) as server:
        run = first(server.url, "--clients", 4, "--requests", 12)
    same((run["requests"], run["completed"], run["status"]), (12, 12, {"200": 12}))
    within(run["ttft_ms"]["p50"], 200, 400)
    within(run["tpot_ms"]["p50"], 30, 100)
    within(run["itl_ms"]["p50"], 20, 100)
    within(run["latency_ms"]["p50"], 550, 1000)
    same(run["itl_ms"]["count"], 12 * 7)
    same(run["completion_tokens"], 12 * 8)


@test
def an_answer_that_is_not_a_stream_has_one_time():
    with Fake(first_ms=80, tokens=1) as server:
        run = first(server.url, "--clients", 1, "--requests", 5, "--stream", "false")
        same("stream" in server.bodies[0], False)
    within(run["latency_ms"]["p50"], 80, 400)
    same((run["ttft_ms"], run["tpot_ms"]), (None, None))


@test
def events_may_be_cut_anywhere():
    for piece in (1, 7, 50):
        with Fake(tokens=5, piece=piece) as server:
            run = first(server.url, "--clients", 2, "--requests", 6)
        same((run["completed"], run["completion_tokens"], run["itl_ms"]["count"]), (6, 30, 24))


@test
def chat_is_measured_too():
    with Fake(first_ms=20, gap_ms=10, tokens=4) as server:
        run = first(server.url, "--endpoint", "chat", "--clients", 1, "--requests", 4)
        same(set(server.paths), {"/v1/chat/completions"})
        same(server.bodies[0]["messages"][0]["role"], "user")
    within(run["ttft_ms"]["p50"], 20, run["latency_ms"]["p50"])
    same(run["completion_tokens"], 16)


@test
def a_stall_shows_in_an_open_loop_as_theory_says():
    # 4 s at 100/s, nothing moves for 500 ms: 50 of 400 requests wait, evenly from 500 ms down to 0. So a share
    # of (500 - x) / 4000 waits longer than x: p90 is 100 ms, p95 300 ms, p99 460 ms.
    with Fake(tokens=1, stall=(1, 0.5)) as server:
        run = first(server.url, "--arrivals", "uniform", "--rate", 100, "--seconds", 4)
        # A busy machine stalls now and then as well; the server's own record has it.
        begun = min(t - i / 100 for i, t in enumerate(server.arrivals))
        really = sorted(1000 * (t - begun - i / 100) for i, t in enumerate(server.answered))
    same(run["completed"], 400)
    took = run["latency_ms"]
    for name, theory in (("p75", 0), ("p90", 100), ("p95", 300), ("p99", 460), ("max", 500)):
        at = len(really) - 1 if name == "max" else int(int(name[1:]) / 100 * len(really))
        within(took[name], max(0, theory - 25), really[at] + 150)
    within(run["send_lag_ms"]["p50"], 0, 50)


@test
def a_closed_loop_of_one_client_sees_the_stall_once():
    with Fake(first_ms=5, tokens=1, stall=(0.5, 0.5)) as server:
        run = first(server.url, "--clients", 1, "--seconds", 2)
        # What a client waits ends before it asks again, and begins after it had its last answer.
        most = max(b - a for a, b in zip(server.answered, server.arrivals[2:]))
    within(run["latency_ms"]["max"], 490, 1000 * most + 100)
    within(run["latency_ms"]["p75"], 5, 250)


@test
def an_open_loop_sends_at_the_moments_of_its_schedule():
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "t.csv")
        moments = [0, 3.5, 40, 41, 200.25, 350]
        with open(trace, "w", encoding="utf-8") as f:
            f.write("arrival_ms\n" + "\n".join(map(str, moments)) + "\n")
        with Fake(first_ms=300, tokens=1) as server:  # answers are slower than arrivals
            bench("--url", server.url, "--trace", trace)
            late = [1000 * t - planned for t, planned in zip(server.arrivals, moments, strict=True)]
    within(sorted(late)[3] - min(late), 0, 100)  # most; others were held up by the machine


@test
def a_closed_loop_keeps_its_clients_busy_on_kept_connections():
    with Fake(first_ms=100, tokens=1) as server:
        run = first(server.url, "--clients", 6, "--seconds", 2)
        same(server.most_open, 6)
        within(server.connections, 6, 8)
    # 6 clients, 100 ms each: at most 60 per second; one after the other 10.
    within(run["requests_per_s"], 20, 60)


@test
def clients_think_between_answer_and_request():
    with Fake(first_ms=10, tokens=1) as server:
        run = first(server.url, "--clients", 1, "--requests", 6, "--think-ms", 200)
        gaps = [b - a for a, b in zip(server.arrivals, server.arrivals[1:])]
    within(min(gaps), 0.208, 0.4)
    within(run["latency_ms"]["p50"], 10, 150)  # thinking is no waiting


@test
def refusals_are_counted_as_what_they_are():
    with Fake(tokens=1, refuse_every=4) as server:
        run = first(server.url, "--rate", 100, "--requests", 40, "--latency-budget-ms", 60000)
    same((run["completed"], run["refused"], run["errors"]), (30, 10, {"server_overloaded": 10}))
    same(run["status"], {"200": 30, "503": 10})
    same(run["budget"]["asked"], 40)
    same(run["budget"]["met"], 30)


@test
def a_stream_that_breaks_off_is_no_answer():
    with Fake(tokens=3, break_off=True) as server:
        run = first(server.url, "--clients", 1, "--requests", 3, status=1)
    same((run["completed"], sum(run["errors"].values())), (0, 3))


@test
def budgets_are_judged_by_the_clients_clock():
    with Fake(first_ms=50, tokens=1, depths=FATHOM_LIKE) as server:  # it says true, whatever it took
        run = first(server.url, "--clients", 1, "--requests", 4, "--latency-budget-ms", 45)
    same(run["budget"], {"asked": 4, "met": 0, "server_met": 4})


@test
def what_is_fathoms_is_sent_to_fathom_only():
    flags = ["--clients", 1, "--requests", 1, "--depth", 2, "--ttft-budget-ms", 9, "--on-miss", "reject", "--priority", 3]
    with Fake(depths=FATHOM_LIKE) as server:
        run = first(server.url, *flags)
        body = server.bodies[0]
    same({k: body[k] for k in ("depth", "ttft_budget_ms", "on_miss", "priority", "ignore_eos", "temperature")},
         {"depth": 2, "ttft_budget_ms": 9, "on_miss": "reject", "priority": 3, "ignore_eos": True, "temperature": 0})
    same(run["depth"]["histogram"], {"2": 1})
    for more in ([], ["--plain"]):
        with Fake(depths=FATHOM_LIKE if more else None) as server:
            bench("--url", server.url, *flags, *more, "--ignore-eos", "false")
            same(set(server.bodies[0]), {"model", "prompt", "max_tokens", "temperature", "stream", "stream_options"})


@test
def a_pair_of_depths_is_sent_as_an_object():
    with Fake(depths=FATHOM_LIKE) as server:
        bench("--url", server.url, "--clients", 1, "--requests", 1, "--depth", "12x6", "--min-depth", 2)
        same((server.bodies[0]["depth"], server.bodies[0]["min_depth"]), ({"encoder": 12, "decoder": 6}, 2))


@test
def prompts_differ_and_have_the_length_that_is_asked_for():
    with Fake(tokens=1, tokenizes=True) as server:
        bench("--url", server.url, "--clients", 2, "--requests", 20, "--prompt-tokens", 100)
        prompts = [body["prompt"] for body in server.bodies]
    same(len(set(prompts)), 20)
    for prompt in prompts:  # the last word may go beyond
        within(len(prompt.replace(" ", "")), 100, 110)


@test
def a_seed_means_the_same_requests():
    bodies = []
    for seed in (1, 1, 2):
        with Fake(tokens=1) as server:
            bench("--url", server.url, "--clients", 1, "--requests", 4, "--seed", seed, "--max-tokens", "1..1000")
            bodies.append([json.dumps(b) for b in server.bodies])
    same(bodies[0], bodies[1])
    assert bodies[0] != bodies[2]


@test
def prompts_come_from_a_file():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "p.txt")
        with open(path, "w", encoding="utf-8") as f:
            f.write('Ein "Satz".\n\nNoch einer.\r\nÜber\n')
        with Fake(tokens=1) as server:
            bench("--url", server.url, "--clients", 1, "--requests", 6, "--prompts", path)
            said = [b["prompt"] for b in server.bodies]
    same(sorted(said[:3]), sorted(['Ein "Satz".', "Noch einer.", "Über"]))
    same(said[:3], said[3:])


@test
def embeddings_are_measured():
    with Fake(first_ms=10, tokens=1) as server:
        run = first(server.url, "--endpoint", "embeddings", "--clients", 1, "--requests", 3)
        same((server.paths[0], "max_tokens" in server.bodies[0]), ("/v1/embeddings", False))
    same(run["completed"], 3)


@test
def rates_and_depths_are_all_combined_in_rounds():
    with Fake(tokens=1, depths=FATHOM_LIKE) as server:
        result = measure(server.url, "--rates", "50,100", "--depths", "1,3", "--requests", 5, "--rounds", 2)
    same([r["parameter"] for r in result["runs"]],
         [{"depth": d, "rate": rate} for rate in (50, 100) for d in ("1", "3")])
    same([r["requests"] for r in result["runs"]], [10] * 4)
    same([list(r["depth"]["histogram"]) for r in result["runs"]], [["1"], ["3"]] * 2)
    same(result["server"]["layers"], 4)


@test
def all_depths_are_those_that_the_server_lists():
    with Fake(tokens=1, depths=FATHOM_LIKE) as server:
        result = measure(server.url, "--depths", "all", "--clients", 1, "--requests", 2)
    same([r["parameter"]["depth"] for r in result["runs"]], ["1", "2", "3", "4"])


@test
def the_capacity_of_a_server_is_found():
    # 50 ms of the whole server for each request: at most 20 per second.
    with Fake(tokens=1) as server:
        answer = server._answer

        async def one_at_a_time(writer, path, body):
            if path == "/v1/completions":
                time.sleep(0.05)
            return await answer(writer, path, body)
        server._answer = one_at_a_time
        result = measure(server.url, "--find-capacity", "--clients", 8, "--seconds", 1.5)
    within(result["capacity"][0]["rate"], 11, 21)


@test
def the_timeline_adds_up():
    with Fake(first_ms=30, tokens=1) as server:
        run = first(server.url, "--rate", 60, "--seconds", 1.5, "--latency-budget-ms", 1000)
    line = run["timeline"]
    same(sum(b["arrived"] for b in line), run["requests"])
    same(sum(b["completed"] for b in line), run["completed"])
    same(sum(b["met"] for b in line), run["budget"]["met"])
    assert len(line) >= 10, line


@test
def who_comes_during_the_warmup_is_not_counted():
    with Fake(tokens=1) as server:
        run = first(server.url, "--arrivals", "uniform", "--rate", 50, "--seconds", 1, "--warmup-seconds", 0.5)
        same(len(server.bodies), 50)
    same((run["requests"], run["seconds"]), (25, 0.5))
    within(run["requests_per_s"], 2, 54)


@test
def a_run_is_saved_as_a_trace_that_can_be_run_again():
    with tempfile.TemporaryDirectory() as folder:
        trace, lines = os.path.join(folder, "t.csv"), os.path.join(folder, "r.csv")
        with Fake(tokens=3) as server:
            bench("--url", server.url, "--rate", 100, "--requests", 20, "--max-tokens", "3..9",
                  "--latency-budget-ms", 500, "--save-trace", trace, "--save-requests", lines)
            again = first(server.url, "--trace", trace)
            asked = [b["max_tokens"] for b in server.bodies]
        with open(trace, encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
        with open(lines, encoding="utf-8") as f:
            became = list(csv.DictReader(f))
    same(asked[:20], asked[20:])
    same([int(r["length"]) for r in rows], [3] * 20)
    same((again["requests"], again["budget"]["asked"]), (20, 20))
    same(len(became), 20)
    same({r["status"] for r in became}, {"200"})


@test
def ctrl_c_ends_a_run_and_reports_it():
    with Fake(first_ms=10, tokens=1) as server:
        p = subprocess.Popen([BINARY, "bench", "--url", server.url, "--clients", "2", "--seconds", "60", "--json", "-"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert eventually(lambda: len(server.arrivals) > 30)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
    same(p.returncode, 0)
    run = json.loads(out)["runs"][0]
    within(run["seconds"], 0.1, 59)
    assert run["completed"] > 10 and not run["errors"], run
    assert "interrupted after" in err, err


# Refusals of our own: one sentence each.

def sentence(*args, status):
    r = bench(*args, status=status)
    same((r.stdout, r.stderr.count("\n")), ("", 1))
    assert r.stderr.startswith("fathom bench: "), r.stderr
    return r.stderr


@test
def a_server_that_is_not_there_is_one_sentence():
    url = f"http://127.0.0.1:{free_port()}"
    said = sentence("--url", url, status=1)
    assert f"no server answers at {url}" in said and "fathom serve" in said, said


@test
def a_server_that_goes_away_ends_the_run():
    with Fake(first_ms=10, tokens=1) as server:
        p = subprocess.Popen([BINARY, "bench", "--url", server.url, "--clients", "4", "--seconds", "60", "--json", "-"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert eventually(lambda: len(server.arrivals) > 30)
    out, err = p.communicate(timeout=120)
    assert json.loads(out)["runs"][0]["completed"] > 10, out
    assert "took no more connections" in err, err


@test
def an_address_may_end_as_sdks_take_it():
    with Fake(tokens=1) as server:
        for end in ("/", "/v1", "/v1/"):
            same(first(server.url + end, "--clients", 1, "--requests", 1)["completed"], 1)
        same(set(server.paths), {"/v1/completions"})


@test
def what_is_wrong_with_flags_is_one_sentence():
    for args, part in ((["--rat", 3], "there is no flag"), (["--rates", "1", "--clients", "1,2"], "exclude each other"),
                       (["--prompt-kind", "x"], "text or ids"), (["--plain", "--depths", "all"], "--plain")):
        assert part in sentence(*args, status=2), args
    with Fake() as server:
        for args, part in ((["--rate", "fast"], "--rate takes a number"), (["--rates", "3,x"], "--rates takes"),
                           (["--rate", 3, "--phases", "1:2"], "exclude each other"),
                           (["--depths", "2"], "needs a fathom server"), (["--endpoint", "x"], "no endpoint"),
                           (["--prompt-kind", "ids"], "/tokenize"),
                           (["--rates", "1,2", "--save-trace", "x"], "single run"),
                           (["--trace", "/nowhere.csv"], "/nowhere.csv")):
            assert part in sentence("--url", server.url, *args, status=1), args


@test
def help_names_every_word_of_a_load():
    said = bench("--help").stdout
    for flag in ("--url", "--rates", "--find-capacity", "--latency-budget-ms", "--mix", "--save-trace", "--load FILE"):
        assert flag in said, flag


# The real thing, on the demo.

@test
def fathom_is_measured_at_all_its_depths(server):
    with tempfile.TemporaryDirectory() as folder:
        page = os.path.join(folder, "r.html")
        result = measure(f"http://127.0.0.1:{server.port}", "--depths", "all", "--clients", 2, "--requests", 6,
                         "--prompt-tokens", "4..8", "--max-tokens", 6, "--html", page)
        with open(page, encoding="utf-8") as f:
            assert "fathom-bench-1" in f.read()
    listed = server.ask("GET", "/v1/depths").json()["depths"]
    same([r["parameter"]["depth"] for r in result["runs"]], [str(d["depth"]) for d in listed])
    for run in result["runs"]:
        same((run["completed"], run["completion_tokens"], run["errors"]), (6, 36, {}))
        same(run["depth"]["histogram"], {run["parameter"]["depth"]: 6})
        assert run["queue_ms"]["count"] == 6 and run["prediction_error"]["count"] == 6, run
    assert eventually(server.idle)


@test
def prompts_have_the_length_that_is_asked_for_in_the_servers_tokens(server):
    for kind in ("text", "ids"):
        run = first(f"http://127.0.0.1:{server.port}", "--prompt-tokens", 5, "--max-tokens", 2, "--requests", 4,
                    "--clients", 1, "--prompt-kind", kind)
        same(run["prompt_tokens"], 4 * 5)


@test
def a_file_that_cannot_be_written_is_noticed_before_the_load_runs():
    with Fake(tokens=1) as server, tempfile.TemporaryDirectory() as folder:
        for flag in ("--json", "--html", "--save-trace", "--save-requests"):
            path = os.path.join(folder, "missing", "x")
            told = bench("--url", server.url, "--clients", 1, "--requests", 1, flag, path, status=1).stderr
            assert path in told and "cannot be written" in told, told
        same(server.bodies, [])


@test
def flags_that_contradict_are_refused():
    for flags in (["--rates", "1,2", "--rate", 3], ["--rates", "1,2", "--clients", 3], ["--depths", "1,2", "--depth", 3],
                  ["--find-capacity", "--rate", 3], ["--clients", "1,2", "--rate", 3], ["--find-capacity", "--save-trace", "x"]):
        told = bench(*flags, status=2).stderr
        assert "fathom bench --help lists the flags" in told, told


if __name__ == "__main__":
    sys.exit(main(server=lambda: Server(model=DEMO)))
