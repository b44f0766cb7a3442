#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Answers and their shapes: completions, streams, log-probabilities, depth, refusals."""
import json
import math
import os
import shutil
import socket
import sys
import tempfile

from harness import (TINY, Server, eventually, in_background, long_model, main, parse_events,
                     request_text, same, test)

PROMPT = {"prompt": "The old house", "max_tokens": 12, "seed": 7}


@test
def an_answer_has_openai_fields_and_ours(server):
    answer = server.complete(**PROMPT, depth=2)
    same(answer.status, 200)
    a = answer.json()
    same((a["object"], a["model"], len(a["choices"])), ("text_completion", "tiny-opt", 1))
    assert a["id"].startswith("cmpl-")
    same(a["choices"][0]["finish_reason"] in ("stop", "length"), True)
    same(a["usage"]["total_tokens"], a["usage"]["prompt_tokens"] + a["usage"]["completion_tokens"])
    same(a["depth"], {"requested": 2, "used": 2, "of": 6, "layers": [0, 3], "rule": "even",
                      "reason": "explicit"})
    assert {"queue_ms", "prefill_ms", "decode_ms", "total_ms"} <= set(a["timings"])
    same(answer.headers["x-depth"], "2")
    assert "total;dur=" in answer.headers["server-timing"]


@test
def even_plans_are_fairseqs(server):
    for depth in range(1, 7):
        layers = server.complete(**PROMPT, depth=depth).json()["depth"]["layers"]
        same(layers, [i * 6 // depth for i in range(depth)])


@test
def a_stream_says_the_same_as_an_answer(server):
    for fields in ({"depth": 3}, {"depth": 3, "echo": True}, {"n": 2, "temperature": 0.8},
                   {"prompt": ["a", "The old"], "n": 2, "echo": True, "logprobs": 2},
                   {"stop": ["e", "a"]}, {"temperature": 0, "return_token_ids": True}):
        body = {**PROMPT, **fields}
        whole = server.complete(**body).json()
        events = server.stream(**body, stream_options={"include_usage": True})
        same(events[-1], "[DONE]")
        usage, chunks = events[-2], events[:-2]
        same((usage["choices"], usage["usage"]), ([], whole["usage"]))
        assert "depth" in chunks[0]
        for choice in whole["choices"]:
            mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
            same("".join(c["text"] for c in mine), choice["text"])
            same([c["finish_reason"] for c in mine][:-1], [None] * (len(mine) - 1))
            same(mine[-1]["finish_reason"], choice["finish_reason"])
            if choice.get("logprobs"):
                for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                    joined = [x for c in mine for x in c["logprobs"][key]]
                    same(joined, choice["logprobs"][key])
            if "token_ids" in choice:
                same([x for c in mine for x in c["token_ids"]], choice["token_ids"])
        for chunk in chunks:
            same(len(chunk["choices"]), 1)
            final = chunk["choices"][0]["finish_reason"] is not None
            same("timings" in chunk, final)
            assert not final or chunk["depth"]["used"] == whole["depth"]["used"]


@test
def text_held_back_moves_no_token():
    with long_model() as model, Server(model=model) as s:
        body = {"prompt": "a", "seed": 3, "max_tokens": 600, "logprobs": 0, "ignore_eos": True}
        text = s.complete(**body).json()["choices"][0]["text"]
        body["stop"] = [text[i:i + 40] + "~~~" for i in range(60, 540, 60)]  # begun, not met
        pieces = []
        # Tokens that come while the loop is held up go out together: more tokens until some did not.
        while max(pieces, default=0) <= 2 and body["max_tokens"] < 16000:
            whole = s.complete(**body).json()["choices"][0]
            for _ in range(3):
                chunks = [e["choices"][0] for e in s.stream(**body)[:-1]]
                same("".join(c["text"] for c in chunks), whole["text"])
                same([x for c in chunks for x in c["logprobs"]["text_offset"]],
                     whole["logprobs"]["text_offset"])
                pieces.append(len(chunks))
            body["max_tokens"] *= 4
        assert max(pieces) > 2, pieces


@test
def words_go_on_behind_the_prompt_with_a_space():
    folder = os.path.join(os.path.dirname(TINY), "tiny-lm-adaptive")
    with open(os.path.join(folder, "dict.txt"), encoding="utf-8") as f:
        words = [line.split()[0] for line in f][:3]
    prompt = " ".join(words)
    with Server(model=folder) as s:
        body = {"max_tokens": 6, "temperature": 0, "ignore_eos": True, "logprobs": 0}
        text = s.complete(prompt=prompt, **body).json()["choices"][0]["text"]
        assert text.startswith(" ") and len(text.split()) >= 5, text
        same(s.complete(prompt=prompt + " ", **body).json()["choices"][0]["text"], text[1:])
        echoed = s.complete(prompt=prompt, echo=True, **body).json()["choices"][0]
        same(echoed["text"], prompt + text)
        places = echoed["logprobs"]["text_offset"]
        for token, begin, end in zip(echoed["logprobs"]["tokens"], places, places[1:]):
            same(echoed["text"][begin:end].strip(), "" if token == "</s>" else token.strip())
        ids = s.ask("POST", "/tokenize", {"prompt": prompt}).json()["tokens"]
        same(s.complete(prompt=ids, echo=True, **body).json()["choices"][0]["text"], prompt + text)


@test
def stream_headers_keep_proxies_from_buffering(server):
    answer = server.complete(**PROMPT, stream=True)
    same(answer.headers["content-type"].split(";")[0], "text/event-stream")
    same((answer.headers["cache-control"], answer.headers["x-accel-buffering"]),
         ("no-store", "no"))
    same(answer.headers["x-depth"], "6")


@test
def refusals_of_streams_keep_their_status(server):
    for fields, status, code in (({"depth": 99}, 400, "invalid_depth"),
                                 ({"model": "nobody"}, 404, "model_not_found"),
                                 ({"max_tokens": 100000}, 400, "context_length_exceeded")):
        answer = server.complete(**{**PROMPT, **fields}, stream=True)
        same((answer.status, answer.code), (status, code))
        same(answer.headers["content-type"], "application/json")


@test
def the_same_seed_gives_the_same_tokens(server):
    texts = {server.complete(**PROMPT, temperature=1.0).json()["choices"][0]["text"]
             for _ in range(3)}
    same(len(texts), 1)


@test
def equal_prompts_are_sampled_apart_but_for_a_seed(server):
    body = {"prompt": ["The old"] * 4, "max_tokens": 12, "temperature": 1.0, "ignore_eos": True}
    texts = [c["text"] for c in server.complete(**body).json()["choices"]]
    assert len(set(texts)) > 1, texts
    seeded = [c["text"] for c in server.complete(**body, seed=5).json()["choices"]]
    alone = server.complete(**{**body, "prompt": "The old"}, seed=5).json()["choices"][0]["text"]
    same(seeded, [alone] * 4)


@test
def echo_with_logprobs_sums_to_loglikelihood(server):
    for prompt in ("The old house stood", [5, 9, 30, 41]):
        c = server.complete(prompt=prompt, max_tokens=1, echo=True, logprobs=1).json()
        scores = c["choices"][0]["logprobs"]["token_logprobs"]
        same(scores[0], None)
        r = server.ask("POST", "/v1/loglikelihood", {"input": prompt}).json()["results"][0]
        total = sum(x for x in scores[:-1] if x is not None)
        assert math.isclose(total, r["sum"], abs_tol=1e-4), (total, r["sum"])
        known = [x for x in r["logprobs"] if x is not None]
        assert math.isclose(r["perplexity"], math.exp(-r["sum"] / len(known)), rel_tol=1e-5)


@test
def nothing_is_generated_for_max_tokens_0(server):
    c = server.complete(prompt="The old house", max_tokens=0, echo=True, logprobs=0).json()
    same((c["choices"][0]["text"], c["usage"]["completion_tokens"]), ("The old house", 0))
    events = server.stream(prompt="The old house", max_tokens=0, echo=True)
    same(events[-1], "[DONE]")
    same("".join(e["choices"][0]["text"] for e in events[:-1]), "The old house")


@test
def the_chosen_token_is_among_the_best(server):
    p = server.complete(**PROMPT, temperature=1.0, logprobs=3).json()["choices"][0]["logprobs"]
    for token, score, top in zip(p["tokens"], p["token_logprobs"], p["top_logprobs"]):
        same(top[token], score)
        assert 3 <= len(top) <= 4


@test
def a_batch_gives_each_prompt_its_choices(server):
    body = {"prompt": ["a", [5, 6, 7], "The"], "n": 2, "max_tokens": 4, "temperature": 0}
    batch = server.complete(**body).json()
    same([c["index"] for c in batch["choices"]], list(range(6)))
    alone = server.complete(prompt="The", max_tokens=4, temperature=0).json()
    same(batch["choices"][4]["text"], alone["choices"][0]["text"])


@test
def best_of_returns_the_likeliest(server):
    body = {**PROMPT, "temperature": 1.0, "logprobs": 0}
    best = server.complete(**body, n=1, best_of=4).json()
    all4 = server.complete(**body, n=4).json()

    def mean(choice):
        scores = choice["logprobs"]["token_logprobs"]
        return sum(scores) / len(scores)
    same(len(best["choices"]), 1)
    assert math.isclose(mean(best["choices"][0]), max(map(mean, all4["choices"])), abs_tol=1e-5)
    same(best["usage"]["completion_tokens"], all4["usage"]["completion_tokens"])


@test
def names_can_carry_a_depth(server):
    for name, used in (("tiny-opt", 6), ("tiny-opt@2", 2), ("tiny-opt@fast", 2),
                       ("tiny-opt@balanced", 3), ("tiny-opt@full", 6), ("", 6)):
        same(server.complete(**PROMPT, model=name).json()["depth"]["used"], used)
    same(server.complete(**PROMPT, model="tiny-opt@2", depth=3).status, 400)
    listed = [m["id"] for m in server.ask("GET", "/v1/models").json()["data"]]
    assert {"tiny-opt", "tiny-opt@fast", "tiny-opt@balanced", "tiny-opt@full"} <= set(listed)
    same(server.ask("GET", "/v1/models/tiny-opt@2").json()["meta"]["depth"], 2)
    same(server.ask("GET", "/v1/models/nobody").code, "model_not_found")
    same(server.ask("GET", "/v1/models/tiny-opt@99").code, "model_not_found")


@test
def explicit_layers_run(server):
    a = server.complete(**PROMPT, layers=[1, 4, 5]).json()["depth"]
    same((a["layers"], a["used"], a["rule"]), ([1, 4, 5], 3, "layers"))
    for bad in ([1, 1], [3, 2], [6], [-1], []):
        answer = server.complete(**PROMPT, layers=bad)
        same(answer.status, 400)
    same(server.complete(**PROMPT, layers=[1], depth=1).status, 400)


@test
def every_depth_is_listed(server):
    d = server.ask("GET", "/v1/depths").json()
    same((d["layers"], [e["depth"] for e in d["depths"]]), (6, [1, 2, 3, 4, 5, 6]))
    sizes = [e["parameters"] for e in d["depths"]]
    same({b - a for a, b in zip(sizes, sizes[1:])}, {sizes[1] - sizes[0]})
    same(sizes[-1], 63040)  # as the folder's README says
    costs = [e["decode_ms_per_token"] for e in d["depths"]]
    assert all(c > 0 for c in costs) and costs == sorted(costs)


@test
def tuned_plans_are_listed_with_the_whole_model():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tuned")
        shutil.copytree(TINY, path)
        with open(os.path.join(path, "plans.json"), "w", encoding="utf-8") as f:
            json.dump({"plans": [{"depth": 3, "layers": [0, 2, 5]}]}, f)
        with Server("--plan-rule", "tuned", model=path) as s:
            listed = {d["depth"]: d["layers"] for d in s.ask("GET", "/v1/depths").json()["depths"]}
            same(listed, {3: [0, 2, 5], 6: [0, 1, 2, 3, 4, 5]})
            for depth, layers in listed.items():
                same(s.complete(**PROMPT, depth=depth).json()["depth"]["layers"], layers)
            same(s.complete(**PROMPT, depth=2).code, "invalid_depth")


@test
def tokens_go_both_ways(server):
    text = "Grüße, the old house — 家"
    t = server.ask("POST", "/tokenize", {"prompt": text, "return_token_strs": True}).json()
    same(t["count"], len(t["tokens"]))
    same(len(t["token_strs"]), t["count"])
    bare = server.ask("POST", "/tokenize", {"input": text, "add_special_tokens": False}).json()
    back = server.ask("POST", "/detokenize", {"tokens": bare["tokens"]}).json()
    same((back["text"], back["prompt"]), (text, text))
    same(server.ask("POST", "/detokenize", {"tokens": [999999]}).status, 400)
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [5]})):
        same(server.ask("POST", path, {**body, "model": "tiny-opt"}).status, 200)
        same(server.ask("POST", path, {**body, "model": "other"}).code, "model_not_found")


@test
def long_texts_are_tokenised_off_the_loop(server):
    text = "the old house " * 20000
    t = server.ask("POST", "/tokenize", {"prompt": text}).json()
    assert t["count"] > 20000
    answer = server.complete(prompt=text, max_tokens=1)
    same((answer.status, answer.code), (400, "context_length_exceeded"))


@test
def chat_needs_a_template(server):
    messages = [{"role": "user", "content": "Good morning"}]
    answer = server.ask("POST", "/v1/chat/completions", {"messages": messages})
    same((answer.status, answer.code), (501, "not_supported"))
    same(answer.headers["x-should-retry"], "false")
    with Server("--chat-template", "plain") as s:
        body = {"messages": messages, "max_tokens": 5, "temperature": 0}
        whole = s.ask("POST", "/v1/chat/completions", body).json()
        same((whole["object"], whole["choices"][0]["message"]["role"]),
             ("chat.completion", "assistant"))
        events = s.stream("/v1/chat/completions", **body)
        same(events[0]["object"], "chat.completion.chunk")
        same(events[0]["choices"][0]["delta"]["role"], "assistant")
        text = "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1])
        same(text, whole["choices"][0]["message"]["content"])


@test
def refusals_advise_only_what_works(server):
    answer = server.complete(**PROMPT, depth={"encoder": 1, "decoder": 2})
    same(answer.code, "invalid_depth")
    assert "{" not in answer.json()["error"]["message"], answer.body  # the object is refused
    with Server("--chat-template", "plain") as s:
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 0}
        answer = s.ask("POST", "/v1/chat/completions", body)
        same(answer.json()["error"]["param"], "max_tokens")
        assert "echo" not in answer.json()["error"]["message"], answer.body  # chat has none


@test
def routes_of_other_heads_say_which_one_works(server):
    for path in ("/v1/embeddings", "/classify", "/fill-mask"):
        answer = server.ask("POST", path, {"input": "a"})
        same((answer.status, answer.code), (501, "not_supported"))
        assert "/v1/completions" in answer.json()["error"]["message"]


@test
def a_dry_run_names_the_plan(server):
    plan = server.ask("POST", "/v1/plan", {**PROMPT, "depth": 3}).json()
    same((plan["depth"]["used"], plan["fits"], plan["budget_ms"]), (3, True, None))
    plan = server.ask("POST", "/v1/plan", {**PROMPT, "latency_budget_ms": 60000}).json()
    same((plan["depth"]["used"], plan["depth"]["reason"], plan["fits"]), (6, "budget", True))
    plan = server.ask("POST", "/v1/plan", {"route": "/v1/loglikelihood", "input": "The"}).json()
    same(plan["depth"]["used"], 6)
    assert plan["predicted_ms"] > 0


@test
def a_dry_run_warns_of_what_the_request_would_be_warned_of(server):
    plan = server.ask("POST", "/v1/plan", {**PROMPT, "frobnicate": 1}).json()
    same(plan["warnings"], server.complete(**PROMPT, frobnicate=1).json()["warnings"])


@test
def a_generous_budget_gets_full_depth_and_is_met(server):
    a = server.complete(**PROMPT, latency_budget_ms=20000).json()
    same((a["depth"]["requested"], a["depth"]["used"]), ("auto", 6))
    same((a["timings"]["budget_ms"], a["timings"]["budget_met"]), (20000, True))
    a = server.complete(**PROMPT, latency_budget_ms=20000, max_depth=3).json()
    same(a["depth"]["used"], 3)


@test
def expired_deadlines_in_headers_are_504(server):
    for headers in ({"grpc-timeout": "0m"}, {"x-envoy-expected-rq-timeout-ms": "0"},
                    {"x-envoy-expected-rq-timeout-ms": "-5"}):
        answer = server.complete(**PROMPT, headers=headers)
        same((answer.status, answer.code), (504, "deadline_exceeded"))
        same(answer.headers["x-should-retry"], "false")
    same(server.complete(**PROMPT, headers={"Priority": "u=7"}).status, 200)


@test
def unknown_fields_are_warned_of(server):
    a = server.complete(**PROMPT, frobnicate=1).json()
    same(len(a["warnings"]), 1)
    assert "frobnicate" in a["warnings"][0]
    same(server.complete(**PROMPT, dept=3).status, 400)


@test
def hostile_bodies_get_an_answer(server):
    cases = [b"", b"null", b"[]", b"{", b'{"prompt":', b"\xff\xfe", b"\xef\xbb\xbf{}",
             b"[" * 100000, b'{"prompt":"a","prompt":"b"}', b'{"prompt":"a"} trailing',
             b'{"prompt":"\\ud800"}', b'{"prompt":"a","max_tokens":1e400}',
             b'{"prompt":"a","max_tokens":NaN}', b'{"prompt":"\xc0\x80"}',
             b'{"prompt":["' + b'a","' * 50000 + b'"]}']
    for body in cases:
        answer = server.ask("POST", "/v1/completions", body)
        same(answer.status, 400)
        error = answer.json()["error"]
        assert error["message"] and error["code"] in ("invalid_json", "invalid_request"), error
    fields = [{"max_tokens": v} for v in (-1, 2**63, 1.5, "5", True, [], {})]
    fields += [{"n": v} for v in (0, -1, 10**9)] + [{"depth": v} for v in (0, -1, 7, 2.5, "6", [])]
    fields += [{"temperature": v} for v in (-1, "hot", 1e308)] + [{"top_p": v} for v in (-0.1, 2)]
    fields += [{"prompt": v} for v in ([], [[]], [-1], [10**9], {}, 5, [1, "a"], [None])]
    fields += [{"stop": ["x"] * 17}, {"logit_bias": {"x": 1}}, {"logit_bias": {"5": 1e9}},
               {"logprobs": 1000}, {"latency_budget_ms": 0}, {"deadline_ms": -1},
               {"tools": [{"type": "function"}]}, {"min_depth": 5, "max_depth": 2, "depth": "auto"}]
    for f in fields:
        answer = server.complete(**{**PROMPT, **f})
        same((f, answer.status), (f, 400))
    same(server.complete(**PROMPT).status, 200)


@test
def text_never_holds_a_torn_character(server):
    body = {**PROMPT, "temperature": 1.5, "max_tokens": 50, "n": 4}
    answer = server.complete(**body)
    answer.body.decode("utf-8", errors="strict")
    for chunk in server.stream(**body)[:-1]:
        json.dumps(chunk["choices"][0]["text"]).encode("utf-8")


@test
def a_slow_reader_gets_everything(server):
    with server.connect() as c:
        c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        body = {"prompt": ["a"] * 8, "n": 8, "max_tokens": 50, "logprobs": 5, "stream": True,
                "ignore_eos": True}
        c.send(request_text("POST", "/v1/completions", body))
        same(c.head()[1], 200)
        eventually(server.idle)  # the engine is done; nothing was read yet
        events = parse_events(b"".join(c.chunks()))
        same(events[-1], "[DONE]")
        finishes = [e["choices"][0] for e in events[:-1] if e["choices"][0]["finish_reason"]]
        same(sorted(f["index"] for f in finishes), list(range(64)))


@test
def neighbours_do_not_change_an_answer(server):
    bodies = [{"prompt": f"The {w}", "max_tokens": 10 + i, "depth": 1 + i % 6, "seed": i,
               "temperature": 0.9} for i, w in enumerate("old house stood by the sea".split() * 3)]
    alone = [server.complete(**b).json()["choices"] for b in bodies]
    threads = [in_background(lambda b=b: server.complete(**b).json()["choices"]) for b in bodies]
    for t, expected in zip(threads, alone):
        t.join()
        same(t.result[0], expected)


@test
def the_documents_are_served(server):
    contract = server.ask("GET", "/openapi.json").json()
    assert "/v1/completions" in contract["paths"]
    page = server.ask("GET", "/")
    same(page.headers["content-type"], "text/html; charset=utf-8")
    assert b"<textarea" in page.body and b"http://" not in page.body.replace(
        b"http://www.w3.org/2000/svg", b"")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    same(server.ask("GET", "/version").json()["name"], "fathom")
    same(server.complete(**PROMPT).status, 200)
    metrics = server.ask("GET", "/metrics")
    same(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
    assert b"fathom_requests_total{route=\"/v1/completions\",code=\"200\"}" in metrics.body


if __name__ == "__main__":
    sys.exit(main(server=Server))
