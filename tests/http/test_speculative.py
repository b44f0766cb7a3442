#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`speculative` over HTTP: answers are those without it, what usage and metrics say of it, and what is refused."""
import contextlib
import os
import subprocess
import sys
import tempfile

from harness import ROOT, Server, main, same, test

# Two of its 16 layers do most of the work, so that greedy drafts are often right and pay.
LEAD = ["--layers", "16", "--hidden", "256", "--heads", "4", "--positions", "256", "--lead", "2", "--rest-gain", "0.02",
        "--vocab", "300"]
PROMPT = [2 + i * 11 % 240 for i in range(20)]
ASK = {"prompt": PROMPT, "seed": 7, "max_tokens": 60, "ignore_eos": True, "logprobs": 2, "return_token_ids": True}
WAYS = (True, {"draft_depth": 2}, {"draft_depth": 4, "draft_tokens": 3}, {"draft_tokens": 1})
GREEDY, SAMPLED = {"temperature": 0}, {"temperature": 0.8, "top_p": 0.95}


def ask(server, **fields):
    answer = server.complete(**{**ASK, **fields})
    same(answer.status, 200)
    return answer.json()


def contents(answer):
    """What must not depend on drafting."""
    return [{k: c[k] for k in ("text", "token_ids", "logprobs", "finish_reason")} for c in answer["choices"]]


def check_all_ways(server, **fields):
    plain = ask(server, speculative=False, **fields)
    for way in WAYS:
        same(contents(ask(server, speculative=way, **fields)), contents(plain))
    return plain


@test
def greedy_answers_are_the_same(server):
    for prompt in (PROMPT, PROMPT[3:], PROMPT[9:]):
        check_all_ways(server, **{**GREEDY, "prompt": prompt})


@test
def samples_with_a_seed_are_the_same(server):
    for seed in range(4):
        check_all_ways(server, **{**SAMPLED, "seed": seed})


@test
def two_choices_are_the_same(server):
    answer = check_all_ways(server, n=2, **SAMPLED)
    texts = [c["token_ids"] for c in answer["choices"]]
    assert texts[0] != texts[1], texts


@test
def stop_strings_end_an_answer_at_the_same_place(server):
    text = ask(server, speculative=False, **SAMPLED)["choices"][0]["text"]
    stop = text[len(text) // 2:][:3]
    answer = check_all_ways(server, stop=[stop], **SAMPLED)["choices"][0]
    same((answer["finish_reason"], answer["text"]), ("stop", text[:text.index(stop)]))


@test
def weights_of_two_bytes_and_of_one_give_the_same(bf16, int8):
    for server in (bf16, int8):
        for fields in (GREEDY, SAMPLED):
            check_all_ways(server, **fields)


@test
def a_stream_is_the_same(server):
    def read(way):
        events = [e for e in server.stream(**{**ASK, **SAMPLED, "speculative": way}) if isinstance(e, dict)]
        choices = [e["choices"][0] for e in events if e.get("choices")]
        return "".join(c["text"] for c in choices), [t for c in choices for t in c.get("token_ids") or []]
    plain = read(False)
    same(len(plain[1]), 60)
    for way in WAYS:
        same(read(way), plain)


@test
def usage_and_metrics_count_drafted_tokens(server):
    drafted, accepted = (server.gauge(f"speculative_{name}_total") for name in ("drafted", "accepted"))
    told = [0, 0]
    for seed in range(12):
        details = ask(server, **{**GREEDY, "seed": seed, "prompt": PROMPT[seed:], "speculative": True})[
            "usage"]["completion_tokens_details"]
        told[0] += details["accepted_prediction_tokens"]
        told[1] += details["rejected_prediction_tokens"]
    assert sum(told) > 0, told
    same(server.gauge("speculative_drafted_total") - drafted, sum(told))
    same(server.gauge("speculative_accepted_total") - accepted, told[0])


@test
def without_it_nothing_is_drafted(server):
    before = server.gauge("speculative_drafted_total")
    details = ask(server, **GREEDY)["usage"].get("completion_tokens_details") or {}
    same([details.get(k, 0) for k in ("accepted_prediction_tokens", "rejected_prediction_tokens")], [0, 0])
    same(server.gauge("speculative_drafted_total"), before)


@test
def what_cannot_be_is_refused_by_name(server):
    for way, code, param in (
            ({"draft_depth": 16}, "invalid_depth", "speculative.draft_depth"),
            ({"draft_depth": 99}, "invalid_depth", "speculative.draft_depth"),
            ({"draft_depth": 0}, None, "speculative.draft_depth"),
            ({"draft_depth": 1.5}, None, "speculative.draft_depth"),
            ({"draft_depth": "1"}, None, "speculative.draft_depth"),
            ({"draft_tokens": 0}, None, "speculative.draft_tokens"),
            ({"draft_tokens": 10**9}, None, "speculative.draft_tokens"),
            ({"depth": 1}, None, "speculative"),
            ("yes", None, "speculative"),
            (1, None, "speculative"),
            ([], None, "speculative")):
        answer = server.complete(**{**ASK, "depth": 16, "speculative": way})
        same((answer.status, answer.json()["error"]["param"]), (400, param))
        assert code in (None, answer.code), answer.json()
    answer = server.complete(**{**ASK, "depth": 2, "speculative": {"draft_depth": 2}})
    same((answer.status, answer.code), (400, "invalid_depth"))


@contextlib.contextmanager
def serve(*flags):
    with tempfile.TemporaryDirectory() as path:
        subprocess.run([sys.executable, os.path.join(ROOT, "tools", "random_checkpoint.py"), *LEAD, "--out", path,
                        "--tokenizer", os.path.join(ROOT, "tests", "data", "tiny-opt")],
                       check=True, stdout=subprocess.DEVNULL)
        with Server(*flags, model=path) as server:
            yield server


if __name__ == "__main__":
    sys.path.insert(0, os.path.join(ROOT, "tools"))
    import packages
    if packages.prefer("numpy"):
        print("1..0 # SKIP this Python has no numpy")
        sys.exit(0)
    sys.exit(main(
        server=serve,
        bf16=lambda: serve("--weights", "bf16"),
        int8=lambda: serve("--weights", "int8")))
