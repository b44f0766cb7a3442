#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Formats of weights and cached keys over HTTP, what the demo loses in them, and the files that a server keeps for its
next start."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from harness import BINARY, ROOT, TINY, Server, eventually, in_background, main, same, test

DEMO = os.path.join(ROOT, "deploy", "demo")
FORMATS = ("f32", "bf16", "int8", "int4")


def meta_of(server):
    return server.ask("GET", "/v1/models").json()["data"][0]["meta"]


def text_of(server, **fields):
    answer = server.complete(**{"prompt": "The city", "max_tokens": 12, "temperature": 0, "logprobs": 1, **fields})
    assert answer.status == 200, answer.body
    choice = answer.json()["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"]


@contextlib.contextmanager
def folder_of(model):
    with tempfile.TemporaryDirectory() as parent:
        path = os.path.join(parent, "model")
        shutil.copytree(model, path, ignore=shutil.ignore_patterns("fathom-*"))
        yield path


def keeping(path, *flags):
    return Server(*flags, model=path, environ={"FATHOM_PACKED_CACHE": "auto"})


def kept(path):
    return sorted(name for name in os.listdir(path) if name.startswith("fathom-"))


@test
def every_format_serves_and_says_so():
    for weights in FORMATS:
        with Server("--weights", weights) as s:
            meta = meta_of(s)
            same((meta["weights"], meta["kv"]), (weights, "f32" if weights == "f32" else "bf16"))
            same(sum(meta["memory"][part] for part in ("layers", "vocabulary", "other")), meta["weight_bytes"])
            assert f'weights="{weights}"' in s.ask("GET", "/metrics").body.decode()
            same(s.ask("GET", "/v1/depths").json()["weights"], weights)
            same(s.lines("model_loaded")[0]["weights"], weights)
            text_of(s)


@test
def the_demo_runs_as_it_is_stored():
    with Server(model=DEMO) as s:
        same((meta_of(s)["dtype"], meta_of(s)["weights"]), ("bf16", "bf16"))
    with Server("--weights", "f32", "--kv", "bf16", model=DEMO) as s:
        same((meta_of(s)["weights"], meta_of(s)["kv"]), ("f32", "bf16"))


@test
def f32_and_integers_answer_alike_at_every_level():
    for weights in ("f32", "int8", "int4"):
        answers = []
        for level in ("c", "auto"):
            with Server("--weights", weights, "--cpu-level", level, model=DEMO) as s:
                assert meta_of(s)["exact"]
                answers.append(text_of(s))
        same(answers[0], answers[1])


@test
def neighbours_of_other_depths_change_nothing():
    for weights in FORMATS:
        with Server("--weights", weights, model=DEMO) as s:
            alone = [text_of(s, depth=d) for d in (12, 6, 3)]
            beside = [in_background(lambda d=d: text_of(s, depth=d)) for d in (12, 6, 3, 6, 12, 3)]
            for thread in beside:
                thread.join()
            same([t.result[0] for t in beside], [alone[i] for i in (0, 1, 2, 1, 0, 2)])


@test
def a_format_that_kernels_lack_is_refused():
    env = {k: v for k, v in os.environ.items() if not k.startswith("FATHOM_")}
    for weights in ("int8", "int4"):
        done = subprocess.run([BINARY, "serve", "--model", TINY, "--port", "0", "--kernels", "blas", "--weights", weights],
                              capture_output=True, text=True, timeout=30, check=False, env=env)
        said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        same((done.returncode, len(said)), (1, 1))
        assert weights in said[0] or "no OpenBLAS" in said[0], said


@test
def the_next_start_maps_what_the_first_one_kept():
    with folder_of(TINY) as path:
        with keeping(path) as s:
            assert eventually(lambda: s.lines("packed_cache_written"))
            same(s.lines("model_loaded")[0]["packed_cache"], False)
            first = text_of(s)
        same([name.rsplit(".", 1)[1] for name in kept(path)], ["json", "packed"])
        with keeping(path, "--verify") as s:
            loaded = s.lines("model_loaded")[0]
            same((loaded["packed_cache"], loaded["known_costs"]), (True, True))
            same(text_of(s), first)
        with Server("--packed-cache", "off", model=path) as s:
            same(s.lines("model_loaded")[0]["packed_cache"], False)
            same(text_of(s), first)


@test
def a_damaged_file_is_refused_and_replaced():
    with folder_of(TINY) as path:
        with keeping(path) as s:
            assert eventually(lambda: s.lines("packed_cache_written"))
            first = text_of(s)
        name = os.path.join(path, [n for n in kept(path) if n.endswith(".packed")][0])
        os.truncate(name, os.path.getsize(name) - 1)
        with keeping(path) as s:
            same((len(s.lines("packed_cache_refused")), text_of(s)), (1, first))
            assert eventually(lambda: s.lines("packed_cache_written"))
        with keeping(path, "--verify") as s:
            same((s.lines("model_loaded")[0]["packed_cache"], text_of(s)), (True, first))


@test
def a_file_that_is_cut_while_it_is_served_ends_the_server_with_a_word():
    with folder_of(TINY) as path:
        with keeping(path) as s:
            assert eventually(lambda: s.lines("packed_cache_written"))
            first = text_of(s)
        name = os.path.join(path, [n for n in kept(path) if n.endswith(".packed")][0])
        with keeping(path) as s:
            same(text_of(s), first)
            os.truncate(name, 4096)
            try:
                s.complete(prompt="The city")
            except (EOFError, OSError):
                pass
            same(s.wait(), -signal.SIGBUS)
            same([line["level"] for line in s.lines("mapped_file_lost")], ["error"])
        with keeping(path) as s:
            same((len(s.lines("packed_cache_refused")), text_of(s)), (1, first))


@test
def a_folder_that_cannot_be_written_is_said_once():
    with folder_of(TINY) as path, keeping(path, "--packed-cache", "read") as s:
        text_of(s)
        same((kept(path), s.lines("packed_cache_written")), ([], []))
    with folder_of(TINY) as path:
        for end in (".packed", ".cost.json"):  # a folder in the place of the file stops even the superuser
            for weights in FORMATS:
                for level in ("c", "avx2", "avx512", "avx512-vnni", "avx512-bf16", "blas"):
                    os.mkdir(os.path.join(path, f"fathom-{weights}-{level}{end}.part"))
        with keeping(path) as s:
            assert eventually(lambda: s.lines("packed_cache_not_written"))
            same(s.ask("POST", "/reload", admin=True).status, 200)
            text_of(s)
            same(len(s.lines("packed_cache_not_written")), 1)


@test
def a_reload_maps_too():
    with folder_of(TINY) as path, keeping(path) as s:
        assert eventually(lambda: s.lines("packed_cache_written"))
        same(s.ask("POST", "/reload", admin=True).status, 200)
        same([line["packed_cache"] for line in s.lines("model_loaded")], [False, True])


@test
def the_demo_loses_little_in_each_format():
    with open(os.path.join(DEMO, "README.md"), encoding="utf-8") as f:
        words = [line.strip() for line in f if line.strip() and line[0] not in "|#` "]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as data:
        data.write("\n".join(words) + "\n")
        data.flush()
        found = {}
        for weights in FORMATS:
            said = subprocess.run([BINARY, "eval", DEMO, "--data", data.name, "--depth", "12,6", "--weights", weights,
                                   "--packed-cache", "off", "--json", "-"], capture_output=True, text=True, check=True)
            report = json.loads(said.stdout)
            found[weights] = [d["perplexity"] for d in report["depths"]]
        for weights, most in (("bf16", 1.005), ("int8", 1.015), ("int4", 1.06)):
            for value, base in zip(found[weights], found["f32"]):
                assert 1 / most < value / base < most, (weights, found)


if __name__ == "__main__":
    sys.exit(main())
