#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Depths of models with an encoder: what is listed, what `auto` walks, how it is counted. The tiny
folders have 4 + 3 and 5 layers."""
import json
import os
import re
import shutil
import sys
import tempfile

from harness import ROOT, Server, main, same, test

PAIR, ENCODER = (os.path.join(ROOT, "tests", "data", name) for name in ("tiny-mt-pre", "tiny-encoder"))
SOURCE = [10, 58, 180, 80, 54, 102, 2]
HEAD = "mnli"


def depths_of(answer):
    depth = answer.json()["depth"]
    return depth["used"]["encoder"], depth["used"]["decoder"], depth["reason"]


def listed_pairs(server):
    return {(p["depth"]["encoder"], p["depth"]["decoder"]): p
            for p in server.ask("GET", "/v1/depths").json()["pairs"]}


@test
def both_stacks_are_listed(pair):
    d = pair.ask("GET", "/v1/depths").json()
    same(d["layers"], {"encoder": 4, "decoder": 3})
    for name, layers in d["layers"].items():
        stack = d[name]
        same((stack["layers"], [e["depth"] for e in stack["depths"]]),
             (layers, list(range(1, layers + 1))))
        sizes = [e["parameters"] for e in stack["depths"]]
        same(len({b - a for a, b in zip(sizes, sizes[1:])}), 1)
        weights = [e["weight_bytes"] for e in stack["depths"]]
        assert weights == sorted(set(weights)), weights
        assert all(e["prefill_ms_per_token"] > 0 for e in stack["depths"])
        assert all(e["decode_ms_per_token"] > 0 for e in stack["depths"])
    same(d["decoder"]["depths"][1]["layers"], [0, 1])
    same(d["encoder"]["depths"][1]["layers"], [0, 2])
    # Whole, both lists speak of the same model.
    same({**d["encoder"]["depths"][-1], "depth": 0, "layers": 0},
         {**d["decoder"]["depths"][-1], "depth": 0, "layers": 0})


@test
def what_predictions_are_made_from_is_told_with_its_errors(pair):
    for _ in range(3):
        same(pair.complete(prompt=SOURCE, max_tokens=6).status, 200)
    d = pair.ask("GET", "/v1/depths").json()
    cost = d["cost_model"]
    same(cost["layers"], {"encoder": 4, "decoder": 3})
    same(cost["rows"], [1, 2, 4, 8, 12, 16, 32, 64, 128, 512])
    for table in (cost["layer_ms"]["encoder"], cost["layer_ms"]["decoder"], cost["head_ms"]):
        assert len(table) == 10 and all(ms > 0 for ms in table), table
    assert cost["limits"]["max_rows"] >= cost["limits"]["prefill_rows"] > 0, cost["limits"]
    assert cost["kv_blocks"] > 0 and cost["pace"] > 0 and cost["margin"] >= 1, cost
    # Each request was a step with a source, and steps without.
    assert set(d["prediction_error"]["steps"]) == {"decode", "encode"}, d["prediction_error"]
    text = pair.ask("GET", "/metrics").body.decode()
    for kind, least in (("decode", 3), ("encode", 3), ("mixed", 0)):
        found = re.search(r'^fathom_step_prediction_error_ratio_count{phase="%s"} (\d+)$' % kind, text, re.M)
        assert found and int(found[1]) >= least, kind
    assert re.search(r"^fathom_machine_pace_ratio [0-9.e-]+$", text, re.M)


@test
def without_measurements_the_pairs_are_the_diagonal(pair):
    pairs = listed_pairs(pair)
    same(sorted(pairs), [(1, 1), (2, 2), (3, 3), (4, 3)])
    assert all(p["auto"] and "quality" not in p for p in pairs.values())
    same(pairs[2, 2]["layers"], {"encoder": [0, 2], "decoder": [0, 1]})


@test
def measured_pairs_are_listed_and_walked():
    measured = {(4, 3): 30, (2, 2): 29, (1, 3): 28, (4, 1): 25, (1, 1): 20}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "measured")
        shutil.copytree(PAIR, path)
        with open(os.path.join(path, "quality.json"), "w", encoding="utf-8") as f:
            json.dump({"metric": "bleu", "depths": [
                {"depth": {"encoder": e, "decoder": d}, "bleu": b} for (e, d), b in measured.items()]}, f)
        with Server(model=path) as server:
            pairs = listed_pairs(server)
            same({k: p["quality"]["bleu"] for k, p in pairs.items()}, measured)
            # A decoder's layer is worth several of the encoder's: (2,2) beats (1,3).
            same(sorted(k for k, p in pairs.items() if not p["auto"]), [(1, 3)])
            tight = {"prompt": SOURCE, "max_tokens": 4, "latency_budget_ms": 0.001}
            same(depths_of(server.complete(**tight)), (1, 1, "budget"))


@test
def a_budget_walks_the_pairs(pair):
    fields = {"prompt": SOURCE, "max_tokens": 4}
    same(depths_of(pair.complete(**fields, latency_budget_ms=60000)), (4, 3, "budget"))
    late = pair.complete(**fields, latency_budget_ms=0.001)
    same(depths_of(late), (1, 1, "budget"))
    same(late.json()["timings"]["budget_met"], False)
    bounds = {"min_depth": {"encoder": 3, "decoder": 1}, "max_depth": {"encoder": 3, "decoder": 2}}
    same(depths_of(pair.complete(**fields, **bounds, latency_budget_ms=60000)), (3, 2, "budget"))
    same(depths_of(pair.complete(**fields, **bounds, latency_budget_ms=0.001)), (3, 1, "budget"))
    same(depths_of(pair.complete(**fields, max_depth=2, latency_budget_ms=60000)), (4, 2, "budget"))


@test
def a_plan_is_the_pair_that_a_request_would_get(pair):
    fields = {"prompt": SOURCE, "max_tokens": 4, "latency_budget_ms": 60000}
    plan = pair.ask("POST", "/v1/plan", fields).json()
    same(plan["depth"]["used"], {"encoder": 4, "decoder": 3})
    assert plan["fits"] and 0 < plan["predicted_ms"] < 60000, plan
    beams = [pair.ask("POST", "/v1/plan", {"prompt": SOURCE, "max_tokens": 40, "num_beams": n}).json()
             for n in (1, 16)]
    assert beams[0]["predicted_ms"] < beams[1]["predicted_ms"], beams


@test
def translations_are_planned_by_the_length_of_their_source(pair):
    # Nothing but a source is sent: its seven tokens and half as many again, at first.
    plans = [pair.ask("POST", "/v1/plan", {"prompt": SOURCE[:-1] * k + [2]}).json()["predicted_tokens"]
             for k in (1, 4)]
    assert plans[0] < plans[1] <= 63, plans
    same(pair.ask("POST", "/v1/plan", {"prompt": SOURCE, "expected_tokens": 9}).json()["predicted_tokens"], 9)


@test
def errors_name_the_stack(pair):
    for field, value in (("depth", {"encoder": 5, "decoder": 3}), ("max_depth", {"encoder": 9, "decoder": 1})):
        error = pair.complete(prompt=SOURCE, **{field: value}).json()["error"]
        same((error["code"], error["param"]), ("invalid_depth", f"{field}.encoder"))
        assert f"{field}.encoder must be 1..4" in error["message"], error
    same(pair.complete(prompt=SOURCE, depth=4).json()["error"]["param"], "depth")


@test
def tiers_are_parts_of_both_stacks(pair):
    for model, depth in (("tiny-mt-pre@fast", (1, 1)), ("tiny-mt-pre@balanced", (2, 2)),
                         ("tiny-mt-pre@2", (4, 2))):
        same(depths_of(pair.complete(prompt=SOURCE, max_tokens=2, model=model))[:2], depth)
        meta = pair.ask("GET", "/v1/models/" + model).json()["meta"]
        same(meta["depth"], {"encoder": depth[0], "decoder": depth[1]})


@test
def both_depths_are_counted(pair):
    pair.complete(prompt=SOURCE, max_tokens=3, num_beams=1, depth={"encoder": 2, "decoder": 1})
    text = pair.ask("GET", "/metrics", admin=True).body.decode()
    label = r'\{encoder_depth="2",depth="1"'
    for name in ("request_duration_seconds_count", "generation_tokens_total", "depth_selected_total"):
        assert re.search(rf"^fathom_{name}{label}[^}}]*\}} [1-9]", text, re.M), name
    assert re.search(r'^fathom_layer_rows_total\{stack="encoder",layer="2"\} [1-9]', text, re.M)
    assert not re.search(r"\{depth=", text)
    assert 'encoder_layers="4"' in text


@test
def predictions_are_compared_with_what_happened(pair):
    for _ in range(3):
        pair.complete(prompt=SOURCE, max_tokens=8)
    error = pair.ask("GET", "/v1/depths").json()["prediction_error"]
    assert 0 <= error["p50"] <= error["p95"], error


@test
def an_encoder_alone_is_listed_like_a_decoder(encoder):
    d = encoder.ask("GET", "/v1/depths").json()
    same((d["layers"], [e["depth"] for e in d["depths"]]), (5, [1, 2, 3, 4, 5]))
    costs = [e["prefill_ms_per_token"] for e in d["depths"]]
    assert all(c > 0 for c in costs) and costs == sorted(costs), costs
    assert not any("decode_ms_per_token" in e for e in d["depths"])


@test
def an_encoders_budget_chooses_its_depth(encoder):
    fields = {"input": [0, 5, 6, 2], "head": HEAD}

    def used(**more):
        depth = encoder.ask("POST", "/classify", {**fields, **more}).json()["depth"]
        return depth["used"], depth["reason"]
    same(used(latency_budget_ms=60000), (5, "budget"))
    same(used(latency_budget_ms=0.001), (1, "budget"))
    same(used(latency_budget_ms=0.001, min_depth=3), (3, "budget"))
    same(used(depth="fast"), (2, "explicit"))
    refused = encoder.ask("POST", "/classify", {**fields, "latency_budget_ms": 0.001, "on_miss": "reject"})
    same((refused.status, refused.code), (400, "budget_unattainable"))


if __name__ == "__main__":
    sys.exit(main(pair=lambda: Server(model=PAIR), encoder=lambda: Server(model=ENCODER)))
