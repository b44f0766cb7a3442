#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Encoder-decoders: beams, greedy streams, samples, scores and pairs of depths, against what the
reference says of the tiny folders."""
import json
import os
import sys

from harness import ROOT, Server, eventually, in_background, main, same, test

FOLDERS = [os.path.join(ROOT, "tests", "data", name) for name in ("tiny-mt-pre", "tiny-mt-post")]
SOURCE = [10, 58, 180, 80, 54, 102, 2]


def goldens(folder):
    with open(os.path.join(folder, "seq2seq.json"), encoding="utf-8") as f:
        return json.load(f)["cases"]


def plan_of(case):
    return {"encoder": case["encoder_layers"], "decoder": case["decoder_layers"]}


def translate(server, **fields):
    answer = server.complete(**{"prompt": SOURCE, **fields})
    assert answer.status == 200, answer.body
    return answer.json()


def refused(server, status, code, param, path="/v1/completions", **fields):
    answer = server.ask("POST", path, fields)
    error = answer.json()["error"]
    same((answer.status, error["code"], error["param"]), (status, code, param))
    return error["message"]


def hypotheses(answer):
    return [(c["token_ids"], c["score"]) for c in answer["choices"]]


def check_hypotheses(found, expected):
    """The same scores; the same ids but where two scores are as good as equal."""
    same(len(found), len(expected))
    for (ids, score), hypothesis in zip(found, expected):
        assert abs(score - hypothesis["score"]) < 2e-4, (score, hypothesis)
        equals = [h["ids"] for h in expected if abs(h["score"] - hypothesis["score"]) < 5e-5]
        assert ids in equals, (ids, hypothesis)


def check_folder(folder, check):
    with Server("--weights", "f32", model=folder) as s:  # as the reference
        for case in goldens(folder):
            check(s, case)


def check_beams(server, case):
    for search in case["beams"]:
        answer = translate(server, prompt=case["source"], layers=plan_of(case), logprobs=0,
                           num_beams=search["beam"], n=search["beam"],
                           length_penalty=search["lenpen"], max_tokens=case["max_len"],
                           return_token_ids=True)
        check_hypotheses(hypotheses(answer), search["hypotheses"])
        for choice in answer["choices"]:
            total = sum(choice["logprobs"]["token_logprobs"])
            length = len(choice["token_ids"])
            assert abs(choice["score"] - total / length ** search["lenpen"]) < 1e-4


def check_greedy(server, case):
    answer = translate(server, prompt=case["source"], layers=plan_of(case), num_beams=1,
                       max_tokens=case["max_len"], return_token_ids=True)
    same(answer["choices"][0]["token_ids"], case["greedy"])
    forced = len(case["greedy"]) > case["max_len"]
    same(answer["choices"][0]["finish_reason"], "length" if forced else "stop")
    events = server.stream(prompt=case["source"], layers=plan_of(case), max_tokens=case["max_len"])
    same("".join(e["choices"][0]["text"] for e in events[:-1]), answer["choices"][0]["text"])


def check_scores(server, case):
    answer = server.ask("POST", "/v1/loglikelihood", {
        "source": case["source"], "target": case["target"], "layers": plan_of(case)}).json()
    result = answer["results"][0]
    same(result["token_ids"], case["target"])
    worst = max(abs(a - b) for a, b in zip(result["logprobs"], case["logprobs"]))
    assert worst < 2e-4, worst
    assert abs(result["sum"] - sum(case["logprobs"])) < 1e-3


@test
def beams_find_what_the_reference_finds_at_every_pair_of_plans():
    for folder in FOLDERS:
        check_folder(folder, check_beams)


@test
def one_beam_is_greedy():
    for folder in FOLDERS:
        check_folder(folder, check_greedy)


@test
def targets_are_scored_as_by_the_reference():
    for folder in FOLDERS:
        check_folder(folder, check_scores)


@test
def without_fields_five_beams_are_searched(server):
    plain = translate(server, logprobs=0, max_tokens=12)
    same(plain["choices"], translate(server, logprobs=0, max_tokens=12, num_beams=5)["choices"])
    same("warnings" in plain, False)


@test
def a_stream_is_greedy_and_adds_up(server):
    whole = translate(server, num_beams=1, max_tokens=12, logprobs=0)
    events = server.stream(prompt=SOURCE, max_tokens=12, logprobs=0,
                           stream_options={"include_usage": True})
    same(events[-1], "[DONE]")
    chunks = events[:-2]
    same("".join(c["choices"][0]["text"] for c in chunks), whole["choices"][0]["text"])
    same(events[-2]["usage"], whole["usage"])
    same(chunks[-1]["choices"][0]["score"], whole["choices"][0]["score"])
    same(chunks[0]["depth"]["used"], {"encoder": 4, "decoder": 3})


@test
def a_temperature_alone_samples(server):
    fields = {"temperature": 1.5, "n": 4, "max_tokens": 12, "return_token_ids": True, "seed": 3}
    first, second = translate(server, **fields), translate(server, **fields)
    same(first["choices"], second["choices"])
    assert len({tuple(c["token_ids"]) for c in first["choices"]}) > 1
    same([c for c in first["choices"] if "score" in c], [])


@test
def beams_ignore_a_temperature_and_say_so(server):
    plain = translate(server, num_beams=3, max_tokens=8)
    warned = translate(server, num_beams=3, max_tokens=8, temperature=0.9)
    same(plain["choices"], warned["choices"])
    assert "temperature was ignored" in warned["warnings"][0]


@test
def answers_do_not_depend_on_their_neighbours(server):
    bodies = [{"num_beams": b, "n": b, "logprobs": 0, "max_tokens": 10,
               "depth": {"encoder": e, "decoder": d}}
              for b, e, d in ((1, 4, 3), (2, 1, 1), (5, 2, 3), (4, 4, 1), (3, 3, 2), (5, 4, 3))]
    alone = [translate(server, **body)["choices"] for body in bodies]
    threads = [in_background(lambda body=body: translate(server, **body)["choices"])
               for body in bodies * 4]
    for thread, expected in zip(threads, alone * 4):
        thread.join()
        same(thread.result[0], expected)


@test
def a_list_of_sources_is_answered_as_each_alone(server):
    sources = [SOURCE, [5, 2], [9, 9, 2]]
    fields = {"num_beams": 3, "n": 2, "logprobs": 0, "max_tokens": 8}
    together = translate(server, prompt=sources, **fields)["choices"]
    same([c["index"] for c in together], list(range(6)))
    for i, source in enumerate(sources):
        for k, choice in enumerate(translate(server, prompt=source, **fields)["choices"]):
            same({**choice, "index": 2 * i + k}, together[2 * i + k])


@test
def both_depths_are_asked_for_and_answered(server):
    answer = server.complete(prompt=SOURCE, depth={"encoder": 2, "decoder": 1}, max_tokens=4)
    same(answer.headers["x-depth"], "2,1")
    same(answer.json()["depth"], {
        "requested": {"encoder": 2, "decoder": 1}, "used": {"encoder": 2, "decoder": 1},
        "of": {"encoder": 4, "decoder": 3}, "layers": {"encoder": [0, 2], "decoder": [0]},
        "rule": "even", "reason": "explicit"})
    one = server.complete(prompt=SOURCE, depth=1, max_tokens=4)
    same(one.headers["x-depth"], "4,1")
    same(one.json()["depth"]["requested"], 1)
    # The line is written after the answer.
    assert eventually(lambda: (1, 4) in [(line["depth"], line["encoder_depth"])
                                         for line in server.lines("request")]), server.errors()


@test
def usage_counts_sources_and_targets(server):
    same(translate(server, max_tokens=4)["usage"]["prompt_tokens"], len(SOURCE))
    answer = server.ask("POST", "/v1/loglikelihood", {"source": [[5, 2], [6, 2]],
                                                      "target": [[7], [8, 9]]}).json()
    same(answer["usage"]["prompt_tokens"], 7)
    same([r["token_ids"] for r in answer["results"]], [[7], [8, 9]])


@test
def what_cannot_be_honoured_is_refused_by_name(server):
    for param, value in (("stop", ["x"]), ("logit_bias", {"5": 1}), ("ignore_eos", True),
                         ("presence_penalty", 0.5), ("best_of", 3), ("echo", True)):
        refused(server, 400, "unsupported_parameter", param, prompt=SOURCE, **{param: value})
    refused(server, 400, "invalid_request", "num_beams", prompt=SOURCE, stream=True, num_beams=2)
    refused(server, 400, "invalid_request", "n", prompt=SOURCE, n=6)
    refused(server, 400, "context_length_exceeded", "prompt", prompt=[5] * 65)
    refused(server, 400, "invalid_request", "input", "/v1/loglikelihood", input="a")
    translate(server, num_beams=1, stop=["x"], logit_bias={"5": 1}, max_tokens=4)


@test
def other_routes_name_one_that_works(server):
    for path, body in (("/v1/embeddings", {"input": "a"}), ("/classify", {"input": "a"}),
                       ("/fill-mask", {"input": "a"}),
                       ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]})):
        answer = server.ask("POST", path, body)
        same((answer.status, answer.code), (501, "not_supported"))
        assert "/v1/completions" in answer.json()["error"]["message"]


if __name__ == "__main__":
    sys.exit(main(server=lambda: Server(model=FOLDERS[0])))
