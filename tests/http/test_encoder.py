#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Encoders: embeddings, classes and masks, against what the reference says of the tiny folder."""
import base64
import json
import math
import os
import struct
import sys

from harness import ROOT, Server, in_background, main, same, test

TINY = os.path.join(ROOT, "tests", "data", "tiny-encoder")
HEAD = "sentence_classification_head"
with open(os.path.join(TINY, "goldens.json"), encoding="utf-8") as golden_file:
    GOLDENS = json.load(golden_file)
TEXTS, CASES = GOLDENS["texts"], GOLDENS["cases"]


def close(found, expected, tolerance=2e-4):
    same(len(found), len(expected))
    worst = max(abs(a - b) for a, b in zip(found, expected))
    assert worst <= tolerance, worst


def embed(server, **fields):
    answer = server.ask("POST", "/v1/embeddings", fields)
    same(answer.status, 200)
    return answer.json()


def classify(server, **fields):
    answer = server.ask("POST", "/classify", {"head": HEAD, "return_logits": True, **fields})
    assert answer.status == 200, answer.body
    return answer.json()


def refused(server, path, status, code, param, **fields):
    answer = server.ask("POST", path, fields)
    error = answer.json()["error"]
    same((answer.status, error["code"], error["param"]), (status, code, param))
    return error["message"]


@test
def features_are_those_of_the_reference_at_every_plan(server):
    for case in CASES:
        for pooling in ("cls", "mean"):
            answer = embed(server, input=case["tokens"], layers=case["layers"], pooling=pooling,
                           normalize=False)
            close(answer["data"][0]["embedding"], case[pooling])
            same(answer["depth"]["layers"], case["layers"])
            same(answer["usage"]["prompt_tokens"], len(case["tokens"]))


@test
def texts_become_the_tokens_of_the_reference(server):
    for text in TEXTS:
        prompt = {"text": text["text"], "text_pair": text["pair"]}
        answer = server.ask("POST", "/tokenize", {"prompt": prompt})
        same(answer.json()["tokens"], text["tokens"])
    same(server.ask("POST", "/tokenize", {"prompt": [TEXTS[0]["text"]]}).json()["results"][0]
         ["tokens"], TEXTS[0]["tokens"])


@test
def vectors_are_of_length_one_unless_raw(server):
    raw = embed(server, input=TEXTS[0]["text"], normalize=False)["data"][0]["embedding"]
    unit = embed(server, input=TEXTS[0]["text"])["data"][0]["embedding"]
    length = math.sqrt(sum(x * x for x in raw))
    close([x / length for x in raw], unit, 1e-6)
    assert abs(length - 1) > 0.1


@test
def base64_holds_the_same_bits_as_the_list(server):
    texts = [text["tokens"] for text in TEXTS]
    listed = embed(server, input=texts)["data"]
    packed = embed(server, input=texts, encoding_format="base64")["data"]
    for i, (a, b) in enumerate(zip(listed, packed)):
        data = base64.b64decode(b["embedding"], validate=True)
        same([struct.pack("<f", x) for x in a["embedding"]],
             [data[k:k + 4] for k in range(0, len(data), 4)])
        same((a["index"], b["index"], a["object"]), (i, i, "embedding"))


@test
def a_text_is_embedded_alike_alone_and_in_a_crowd(server):
    texts = [TEXTS[i % 3]["tokens"][:3 + i % 11] for i in range(200)]
    crowd = embed(server, input=texts)["data"]
    same(len(crowd), 200)
    for i in range(0, 200, 17):
        same(embed(server, input=texts[i])["data"][0]["embedding"], crowd[i]["embedding"])


@test
def texts_of_many_depths_share_steps_and_keep_their_bits(server):
    alone = {d: embed(server, input=CASES[0]["tokens"], depth=d)["data"] for d in range(1, 6)}
    threads = [in_background(lambda d=d: embed(server, input=CASES[0]["tokens"], depth=d)["data"])
               for d in (1, 2, 3, 4, 5) * 4]
    for thread, depth in zip(threads, (1, 2, 3, 4, 5) * 4):
        thread.join()
        same(thread.result[0], alone[depth])


@test
def a_long_answer_comes_in_chunks_and_whole(server):
    texts = [[0, 4 + i % 100, 2] for i in range(2048)]
    answer = server.ask("POST", "/v1/embeddings", {"input": texts})
    same((answer.status, answer.headers["content-type"]), (200, "application/json"))
    same(answer.headers["transfer-encoding"], "chunked")
    assert "total;dur=" in answer.headers["server-timing"]
    data = answer.json()["data"]
    same([item["index"] for item in data], list(range(2048)))
    same(data[100]["embedding"], data[0]["embedding"])
    same(data[7]["embedding"], embed(server, input=texts[7])["data"][0]["embedding"])


@test
def a_client_that_leaves_a_long_answer_disturbs_nobody(server):
    texts = [[0, 4 + i % 100, 2] for i in range(2048)]
    body = json.dumps({"input": texts}).encode()
    with server.connect() as c:
        c.send(f"POST /v1/embeddings HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n"
               .encode() + body)
        c.head()
        c.reset()
    same(embed(server, input="ba va")["usage"]["prompt_tokens"], 4)


@test
def the_number_of_values_is_bounded():
    with Server("--embedding-values", "100", model=TINY) as s:
        embed(s, input=["ba"] * 3)
        message = refused(s, "/v1/embeddings", 400, "invalid_request", "input", input=["ba"] * 4)
        assert "128" in message and "100" in message


@test
def classes_are_those_of_the_reference(server):
    for case in CASES:
        for head, logits in case["logits"].items():
            answer = classify(server, input=case["tokens"], layers=case["layers"], head=head)
            item = answer["data"][0]
            close(item["logits"], logits)
            same((answer["head"], item["num_classes"]), (head, len(logits)))
            exps = [math.exp(x - max(logits)) for x in logits]
            close(item["probs"], [x / sum(exps) for x in exps])
            assert abs(sum(item["probs"]) - 1) < 1e-12
            same(item["label"], answer["labels"][logits.index(max(logits))])


@test
def labels_stand_in_the_models_own_order(server):
    same(classify(server, input="ba")["labels"], ["good", "bad"])
    same(classify(server, input="ba", head="mnli")["labels"],
         ["contradiction", "neutral", "entailment"])


@test
def forms_of_input_mix_in_one_list(server):
    pair = {"text": TEXTS[2]["text"], "text_pair": TEXTS[2]["pair"]}
    answer = classify(server, input=[TEXTS[0]["text"], pair, TEXTS[2]["tokens"]])
    first, second, third = answer["data"]
    same(second["logits"], third["logits"])
    assert first["logits"] != second["logits"]
    same("logits" in classify(server, input="ba", return_logits=False)["data"][0], False)


@test
def a_head_must_be_named_where_there_are_several(server):
    message = refused(server, "/classify", 400, "invalid_request", "head", input="ba")
    assert HEAD in message and "mnli" in message
    refused(server, "/classify", 400, "invalid_request", "head", input="ba", head="other")


@test
def masks_get_the_tokens_of_the_reference(server):
    for case in CASES:
        if "masks" not in case:
            continue
        answer = server.ask("POST", "/fill-mask", {"input": case["tokens"], "top_k": 10,
                                                   "layers": case["layers"]}).json()
        same([mask["position"] for mask in answer["masks"]],
             [mask["position"] for mask in case["masks"]])
        for fills, mask in zip(answer["results"], case["masks"]):
            same([fill["token_id"] for fill in fills], mask["ids"])
            close([math.log(fill["prob"]) for fill in fills], mask["logprobs"])


@test
def a_fill_stands_in_its_text(server):
    answer = server.ask("POST", "/fill-mask", {"input": "ba va <mask> tu", "top_k": 3}).json()
    same(len(answer["results"]), 1)
    for fill in answer["results"][0]:
        same(fill["text"], f"ba va {fill['token'].strip()} tu")


@test
def several_masks_and_texts_are_listed_in_order(server):
    answer = server.ask("POST", "/fill-mask", {"input": ["ba <mask> va <mask>", "<mask>"],
                                               "top_k": 1}).json()
    same(answer["masks"], [{"index": 0, "position": 2}, {"index": 0, "position": 4},
                           {"index": 1, "position": 1}])
    same([len(fills) for fills in answer["results"]], [1, 1, 1])
    assert "<mask>" in answer["results"][0][0]["text"]


@test
def a_text_without_a_mask_is_told_what_to_write(server):
    message = refused(server, "/fill-mask", 400, "invalid_request", "input", input="ba va")
    assert "<mask>" in message


@test
def too_long_is_refused_or_cut(server):
    long = " ".join(["ba"] * 60)  # 40 positions
    for path in ("/v1/embeddings", "/classify"):
        message = refused(server, path, 400, "context_length_exceeded", "input", input=long,
                          head=HEAD)
        assert '"truncate": true' in message, message
    answer = embed(server, input=long, truncate=True)
    same(answer["usage"]["prompt_tokens"], 40)
    cut = [0] + [4] * 38 + [2]
    same(answer["data"][0]["embedding"], embed(server, input=cut)["data"][0]["embedding"])


@test
def dimensions_must_be_the_models_own(server):
    same(len(embed(server, input="ba", dimensions=32)["data"][0]["embedding"]), 32)
    refused(server, "/v1/embeddings", 400, "unsupported_parameter", "dimensions", input="ba",
            dimensions=16)


@test
def depth_and_budgets_are_answered_as_for_other_models(server):
    answer = server.ask("POST", "/v1/embeddings", {"input": "ba", "depth": 2})
    same(answer.headers["x-depth"], "2")
    same(answer.json()["depth"], {"requested": 2, "used": 2, "of": 5, "layers": [0, 2],
                                  "rule": "even", "reason": "explicit"})
    budget = embed(server, input="ba", latency_budget_ms=60000)
    same((budget["depth"]["used"], budget["depth"]["reason"]), (5, "budget"))
    same(budget["timings"]["budget_met"], True)
    late = server.ask("POST", "/v1/embeddings", {"input": "ba"}, {"grpc-timeout": "0m"})
    same((late.status, late.code), (504, "deadline_exceeded"))


@test
def routes_for_texts_name_one_that_works(server):
    for path, body in (("/v1/completions", {"prompt": "ba"}), ("/v1/completions", {"prompt": 5}),
                       ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
                       ("/v1/loglikelihood", {"input": "ba"})):
        answer = server.ask("POST", path, body)
        same((answer.status, answer.code), (501, "not_supported"))
        same(answer.headers["x-should-retry"], "false")
        assert "/classify" in answer.json()["error"]["message"]


@test
def the_model_says_what_it_can_do(server):
    meta = server.ask("GET", "/v1/models").json()["data"][0]["meta"]
    same((meta["kind"], meta["layers"], meta["mask_token"]), ("encoder", 5, "<mask>"))
    same(meta["tasks"], ["embeddings", "classify", "fill-mask"])
    same([head["name"] for head in meta["heads"]], [HEAD, "mnli"])


if __name__ == "__main__":
    sys.exit(main(server=lambda: Server(model=TINY)))
