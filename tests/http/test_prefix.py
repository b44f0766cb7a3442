#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The prefix cache over HTTP: what answers say of it, who shares it, what passes by it, what it makes
of predictions; and the bound on the time between tokens."""
import concurrent.futures
import contextlib
import os
import sys
import tempfile
import threading

from harness import Server, eventually, long_model, main, same, test

IDS = [2 + i * 7 % 250 for i in range(400)]
ASK = {"temperature": 0, "ignore_eos": True, "max_tokens": 20, "return_token_ids": True}


def cached(answer):
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def tokens(answer):
    return [c["token_ids"] for c in answer["choices"]]


def ask(server, headers=None, **fields):
    answer = server.complete(headers, **{**ASK, **fields})
    same(answer.status, 200)
    return answer.json()


@test
def a_prompt_that_came_before_is_cached_and_the_text_is_the_same(server):
    prompt = [9] + IDS
    for depth in (1, 2, 3):
        first = ask(server, prompt=prompt, depth=depth)
        again = ask(server, prompt=prompt, depth=depth)
        never = ask(server, prompt=prompt, depth=depth, cache_prompt=False)
        same([cached(a) for a in (first, again, never)], [0, 384, 0])
        same(tokens(again), tokens(first))
        same(tokens(never), tokens(first))
        assert again["usage"]["prompt_tokens"] == 401


@test
def prompts_that_come_together_run_once(server):
    together, tail = 8, 401 - 384
    prompt = [8] + IDS
    before = server.gauge("prefix_cache_tokens_total")
    barrier = threading.Barrier(together)

    def one():
        barrier.wait()
        return ask(server, prompt=prompt)

    with concurrent.futures.ThreadPoolExecutor(together) as pool:
        answers = [f.result() for f in [pool.submit(one) for _ in range(together)]]
    never = ask(server, prompt=prompt, cache_prompt=False)
    for answer in answers:
        same(tokens(answer), tokens(never))
    ran = [401 - cached(a) for a in answers]
    # One runs all of it, the others what is behind its last whole tile.
    assert max(ran) == 401 and sum(ran) <= 401 + (together - 1) * tail, ran
    same(server.gauge("prefix_cache_tokens_total") - before, 401 * together - sum(ran))


@test
def prompts_of_one_request_run_once(server):
    answer = ask(server, prompt=[[7] + IDS] * 8)
    same(cached(answer), 7 * 384)
    alone = ask(server, prompt=[7] + IDS, cache_prompt=False)
    same(tokens(answer), tokens(alone) * 8)


@test
def samples_with_a_seed_do_not_depend_on_it(server):
    fields = {"prompt": [10] + IDS, "n": 3, "temperature": 0.9, "seed": 5}
    first, again = ask(server, **fields), ask(server, **fields)
    same((cached(first), cached(again)), (0, 384))
    same(tokens(first), tokens(again))


@test
def a_stream_tells_what_was_cached(server):
    fields = {**ASK, "prompt": [11] + IDS, "stream_options": {"include_usage": True}}
    for expected in (0, 384):
        events = server.stream(**fields)
        same(cached(events[-2]), expected)


@test
def a_conversation_that_comes_back_is_cached_with_its_answer(server):
    prompt = [12] + IDS[:99]
    first = ask(server, prompt=prompt, max_tokens=60)
    again = ask(server, prompt=prompt + tokens(first)[0] + [5, 6, 7])
    same(cached(again), 128)
    same(tokens(again), tokens(ask(server, prompt=prompt + tokens(first)[0] + [5, 6, 7],
                                   cache_prompt=False)))


@test
def prompts_of_one_request_are_counted_together(server):
    ask(server, prompt=[13] + IDS)
    answer = ask(server, prompt=[[13] + IDS, [14] + IDS, [13] + IDS[:100]])
    same(cached(answer), 384 + 64)


@test
def echo_and_loglikelihood_pass_by(server):
    prompt = [15] + IDS
    ask(server, prompt=prompt)
    same(cached(ask(server, prompt=prompt, echo=True)), 0)
    same(cached(ask(server, prompt=prompt, echo=True, logprobs=1)), 0)
    scores = server.ask("POST", "/v1/loglikelihood", {"input": prompt})
    same(scores.status, 200)
    same(len(scores.json()["results"][0]["logprobs"]), 401)


@test
def a_salt_keeps_prompts_apart(server):
    prompt = [16] + IDS
    same([cached(ask(server, prompt=prompt, cache_salt=s)) for s in ("a", "b", "a")], [0, 0, 384])
    same(cached(ask(server, prompt=prompt)), 0)
    for bad in ("", "x" * 129, 7):
        answer = server.complete(**ASK, prompt=prompt, cache_salt=bad)
        same((answer.status, answer.json()["error"]["param"]), (400, "cache_salt"))


@test
def a_plan_foresees_what_is_cached(server):
    prompt = [17] + IDS
    fields = {**ASK, "prompt": prompt, "max_tokens": 1}

    def share():
        """Of what it would take alone: both are asked at the machine's present pace."""
        told = [server.ask("POST", "/v1/plan", {**fields, "cache_prompt": c}).json()["predicted_ms"]
                for c in (True, False)]
        return told[0] / told[1]
    assert 0.8 < share() < 1.25
    ask(server, prompt=prompt)
    assert share() < 0.7


@test
def a_budget_fits_a_cached_prompt_that_it_would_not_fit_else(server):
    fields = {**ASK, "prompt": [19] + IDS, "max_tokens": 1, "depth": 3, "on_miss": "reject"}
    ask(server, prompt=[19] + IDS, max_tokens=1)

    def fits(budget, cache):
        return server.ask("POST", "/v1/plan", {**fields, "latency_budget_ms": budget,
                                               "cache_prompt": cache}).json()["fits"]

    budgets = [0.2 * 1.1 ** k for k in range(80)]
    assert any(fits(b, True) and not fits(b, False) for b in budgets)


@test
def metrics_count_prompts_tokens_and_blocks(server):
    tokens_before = server.gauge("prefix_cache_tokens_total")
    hits = server.gauge('prefix_cache_prompts_total{hit="true"}')
    misses = server.gauge('prefix_cache_prompts_total{hit="false"}')
    ask(server, prompt=[18] + IDS)
    ask(server, prompt=[18] + IDS)
    ask(server, prompt=[18] + IDS, cache_prompt=False)
    same(server.gauge("prefix_cache_tokens_total") - tokens_before, 384)
    same(server.gauge('prefix_cache_prompts_total{hit="true"}') - hits, 1)
    same(server.gauge('prefix_cache_prompts_total{hit="false"}') - misses, 1)
    assert server.gauge("prefix_cache_blocks") >= 18
    assert server.gauge("prefix_cache_evicted_blocks_total") >= 0
    assert eventually(lambda: server.gauge("kv_cache_usage_ratio") == 0)


@test
def a_small_cache_gives_up_what_is_oldest(small):
    # Three layers, 6 tiles: 18 of its 20 blocks.
    same([cached(ask(small, prompt=[p] + IDS)) for p in (20, 20, 21, 20)], [0, 384, 0, 0])
    same(small.gauge("prefix_cache_blocks"), 20 // 3 * 3)
    assert small.gauge("prefix_cache_evicted_blocks_total") > 0


@test
def keys_do_not_see_each_others_prompts(keys):
    one, two = ({"Authorization": "Bearer " + k} for k in ("key-number-1", "key-number-2"))
    prompt = [22] + IDS
    same([cached(ask(keys, h, prompt=prompt)) for h in (one, two, one)], [0, 0, 384])


@test
def a_cache_can_be_shared_by_all_keys(shared):
    one, two = ({"Authorization": "Bearer " + k} for k in ("key-number-1", "key-number-2"))
    prompt = [22] + IDS
    same([cached(ask(shared, h, prompt=prompt)) for h in (one, two)], [0, 384])


@test
def without_a_share_nothing_is_cached(off):
    same([cached(ask(off, prompt=IDS)) for _ in range(2)], [0, 0])


@test
def a_new_model_begins_with_an_empty_cache(reloading):
    server = reloading
    ask(server, prompt=IDS)
    same(cached(ask(server, prompt=IDS)), 384)
    same(server.ask("POST", "/reload", {"model": server.folder}, admin=True).status, 200)
    same([cached(ask(server, prompt=IDS)) for _ in range(2)], [0, 384])


@test
def limits_tell_the_bound_on_steps(server):
    limits = server.ask("GET", "/v1/depths").json()["cost_model"]["limits"]
    same(limits["most_step_ms"], 200)


@contextlib.contextmanager
def serve(*flags):
    with long_model(2048) as path, Server(*flags, model=path) as server:
        server.folder = path
        yield server


@contextlib.contextmanager
def serve_with_keys(*flags):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "keys")
        with open(path, "w", encoding="utf-8") as f:
            f.write("key-number-1\nkey-number-2\n")
        with serve("--api-key-file", path, *flags) as server:
            yield server


# Keys and values of 64 tokens of one layer, 32 wide, in f32.
BLOCK = 2 * 64 * 32 * 4

if __name__ == "__main__":
    sys.exit(main(
        server=serve,
        small=lambda: serve("--kv", "f32", "--kv-bytes", str(40 * BLOCK)),
        keys=serve_with_keys,
        shared=lambda: serve_with_keys("--prefix-cache-scope", "shared"),
        off=lambda: serve("--prefix-cache", "0"),
        reloading=serve))
