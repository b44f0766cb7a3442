#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Everything at once: drafts, cached prompts, a pool that evicts, streams, clients that leave, budgets and reloads.
Every answer must be the plain one, and nothing may be held when all is over."""
import os
import random
import sys
import threading
import time

from harness import ROOT, Server, eventually, main, parse_events, request_text, same, test

DEMO = os.path.join(ROOT, "deploy", "demo")
CLIENTS, SECONDS, COMPARED = 16, 4, 300
STARTS = [[2 + (i * 37 + k * 11) % 240 for i in range(n)] for k, n in enumerate((5, 64, 65, 70))]


def request(r):
    """What is asked, and what must not change the answer."""
    start = r.choice(STARTS)
    what = {"prompt": start[:r.choice((len(start), len(start) // 2))] + [7] * r.choice((0, 1, 5)),
            "max_tokens": r.choice((1, 2, 9, 40)), "seed": r.randrange(99), "temperature": r.choice((0, 0, 0.8)),
            "depth": r.choice((3, 6, 12)), "return_token_ids": True, "ignore_eos": r.random() < 0.5}
    for share, fields in ((0.15, {"n": 2}), (0.1, {"n": 1, "best_of": 2}), (0.3, {"logprobs": 2}),
                          (0.1, {"echo": True}), (0.15, {"stop": ["e"]}), (0.2, {"top_k": 5}),
                          (0.1, {"frequency_penalty": 0.5})):
        if r.random() < share:
            what.update(fields)
    how = {"cache_prompt": r.random() < 0.8}
    how["speculative"] = r.choice((True, False, {"draft_depth": 1}, {"draft_tokens": 3}))
    return what, how


def contents(choices):
    return [{k: c.get(k) for k in ("text", "token_ids", "logprobs", "finish_reason")} for c in choices]


def joined(events):
    """The choices of a stream, as far as they are told whole."""
    choices = {}
    for choice in (c for e in events if isinstance(e, dict) for c in e.get("choices", [])):
        whole = choices.setdefault(choice["index"], {"text": "", "token_ids": []})
        whole["text"] += choice["text"]
        whole["token_ids"] += choice.get("token_ids") or []
    return [choices[i] for i in sorted(choices)]


def leave(server, body, r):
    with server.connect() as c:
        c.send(request_text("POST", "/v1/completions", {**body, "stream": "best_of" not in body}))
        time.sleep(r.random() * 0.05)
        c.reset()


def client(server, number, end, answers):
    r = random.Random(number)
    while time.monotonic() < end:
        what, how = request(r)
        way = r.random()
        if way < 0.15:
            leave(server, {**what, **how}, r)
        elif way < 0.25:
            auto = {k: v for k, v in what.items() if k != "depth"}
            status = server.complete(**auto, depth="auto", latency_budget_ms=r.choice((1, 20, 500))).status
            assert status in (200, 503, 504), status
        elif way < 0.5 and "best_of" not in what:
            answer = server.complete(**what, **how, stream=True)
            same(answer.status, 200)
            answers.append((what, how, joined(parse_events(answer.body))))
        else:
            answer = server.complete(**what, **how)
            same(answer.status, 200)
            answers.append((what, how, contents(answer.json()["choices"])))


def check(answers, weights):
    """Against a server that neither drafts nor remembers."""
    with Server("--weights", weights, "--speculative", "never", "--prefix-cache", "0", model=DEMO) as plain:
        for what, how, got in random.Random(1).sample(answers, min(COMPARED, len(answers))):
            choices = contents(plain.complete(**what).json()["choices"])
            if "finish_reason" not in got[0]:
                choices = [{k: c[k] for k in ("text", "token_ids")} for c in choices]
            if got != choices:
                raise AssertionError(f"{got!r}, expected {choices!r}, asked {what!r} {how!r}")


def together(weights, pool):
    answers, failures = [], []
    end = time.monotonic() + SECONDS

    def run(server, number):
        try:
            client(server, number, end, answers)
        except Exception as e:  # pylint: disable=broad-except
            failures.append(repr(e))
    with Server("--weights", weights, "--kv-bytes", pool, "--speculative", "on", "--prefix-cache", "100",
                "--max-itl", "2ms", "--prefill-rows", "16", "--max-rows", "64", "--max-running", "8",
                model=DEMO) as server:
        threads = [threading.Thread(target=run, args=(server, i)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS / 2)
        same(server.ask("POST", "/reload", admin=True).status, 200)
        for thread in threads:
            thread.join()
        same(failures, [])
        assert eventually(server.idle)
        assert eventually(lambda: server.gauge("kv_cache_usage_ratio") == 0)
        same([line for level in ("load_failed", "drain_timeout") for line in server.lines(level)], [])
    check(answers, weights)


@test
def answers_of_f32_weights_are_the_plain_ones():
    together("f32", "8M")


@test
def answers_of_int8_weights_are_the_plain_ones():
    together("int8", "3M")


if __name__ == "__main__":
    sys.exit(main())
